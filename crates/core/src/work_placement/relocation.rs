//! A placement whose files are to be elsewhere: first the note of the new site, then the files there, then what the status
//! speaks of, then the files of the sites that were left.
//!
//! What was left is cleaned while it can be reached, and never holds up anything: of a store that is not ready or does not answer
//! an event says so once, and it is tried again; what cannot be reached any more is given up, which an event says too. What
//! others have there now is left alone.

use std::sync::Arc;
use std::time::Duration;

use kratix_api::{Destination, WorkPlacement};
use serde_json::json;

use super::site::{self, FILES_AT, Relation, SITES_MAX, STORE_LOCATION, Site, rendered};
use super::verdict::{Cleaned, Left, Verdict};
use super::{Snapshot, content};
use crate::object::Target;
use crate::plan::{Event, Reporter, Write};
use crate::state_store::{Availability, Change, SILENCE};

/// A site that the placement has left, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Former {
    /// The site.
    pub site: Site,
    /// Its store as it is now.
    pub store: Availability,
    /// There is a writer for the site.
    pub is_reachable: bool,
    /// Other placements that may have files there now: its namesakes, and those of [`may_claim`].
    pub claims: Vec<Claim>,
}

/// A placement that may have files at a site.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The placement.
    pub placement: Arc<WorkPlacement>,
    /// Its Destination.
    pub destination: Arc<Destination>,
    /// Where its Destination's store is.
    pub place: String,
}

/// What is to be removed at a site that was left.
#[derive(Clone, Debug, PartialEq)]
pub struct Leftover {
    /// The site.
    pub site: Site,
    /// What removes it.
    pub change: Change,
    /// Whether it has to be shown first that its server is another one than that of the present site: one repository may have
    /// two addresses, and the files would be the present ones.
    pub needs_proof: bool,
    /// For how long an answer is waited for; to the end where nothing else is to be done any more.
    pub patience: Option<Duration>,
}

/// Tells whether placements on `destination`, whose store is at a place that is found out if it matters, could have files at
/// `site` without being namesakes of the one that has left it.
pub fn may_claim(site: &Site, destination: &Destination, place: impl FnOnce() -> Option<String>) -> bool {
    let mode = &destination.spec.filepath.mode;
    let is_shared = matches!(
        mode,
        kratix_api::destination::FilepathMode::None | kratix_api::destination::FilepathMode::AggregatedYaml
    );
    is_shared && site.can_be_taken() && place().is_some_and(|place| site.may_be_taken_on(destination, &place))
}

/// Returns the sites at which files of the placement may be although they should not.
pub fn former_sites(placement: &WorkPlacement, destination: &Destination, place: &str) -> Vec<Site> {
    let present = Site::of(placement, destination, place);
    let is_present = |site: &Site| present.as_ref().is_some_and(|present| present.is(site));
    let mut sites: Vec<Site> = Vec::new();
    for site in site::noted_sites(placement) {
        // A store that was not known had nothing written to it.
        if !site.place.is_empty() && !is_present(&site) && !sites.iter().any(|known| known.is(&site)) {
            sites.push(site);
        }
    }
    sites
}

/// Returns what is to be removed at the sites that were left.
pub fn leftovers(snapshot: &Snapshot) -> Vec<Leftover> {
    let present = present(snapshot);
    let leaves = snapshot.placement.metadata.deletion_timestamp.is_some();
    let patience = (!leaves).then_some(SILENCE);
    snapshot
        .former
        .iter()
        .filter(|former| former.is_reachable && former.site.location().unwritable().is_none() && !is_taken(former))
        .filter_map(|former| {
            let relation = present.as_ref().map_or(Relation::Apart, |present| former.site.relation(present));
            let needs_proof = match relation {
                Relation::Apart => false,
                // What is removed altogether is removed at its present site too.
                Relation::Doubtful => !leaves,
                Relation::Same | Relation::Entangled => return None,
            };
            let change = content::clearance(&snapshot.placement, &former.site.location());
            Some(Leftover { site: former.site.clone(), change, needs_proof, patience })
        })
        .collect()
}

/// What is known of the sites that were left, after an attempt to clean them.
pub(super) struct Cleaning {
    /// Those that stay noted.
    pub(super) rest: Vec<Site>,
    pub(super) events: Vec<Event>,
    /// Something is about to be opened, which is worth waiting for.
    pub(super) is_opening: bool,
}

/// Returns what becomes of the sites that were left. Whoever leaves for good tries once.
pub(super) fn judge(snapshot: &Snapshot, outcomes: &[(Site, Cleaned)], is_final: bool) -> Cleaning {
    let mut cleaning = Cleaning { rest: Vec::new(), events: Vec::new(), is_opening: false };
    let present = present(snapshot);
    for former in &snapshot.former {
        let outcome = outcomes.iter().find(|(site, _)| site.is(&former.site)).map(|(_, outcome)| outcome);
        match verdict(former, present.as_ref(), outcome) {
            Verdict::Done => {}
            Verdict::Opening => {
                cleaning.is_opening = true;
                cleaning.rest.push(former.site.clone());
            }
            Verdict::Later(cause) if !is_final => {
                if !former.site.is_told {
                    cleaning.events.push(left_behind(snapshot, &former.site, &format!("stay for now: {cause}")));
                }
                cleaning.rest.push(former.site.clone().told());
            }
            Verdict::Later(cause) | Verdict::Never(cause) => {
                cleaning.events.push(left_behind(snapshot, &former.site, &format!("stay: {cause}")));
            }
        }
    }
    cleaning
}

fn verdict(former: &Former, present: Option<&Site>, outcome: Option<&Cleaned>) -> Verdict {
    let left = Left {
        site: &former.site,
        store: &former.store,
        is_reachable: former.is_reachable,
        is_taken: is_taken(former),
        relation: present.map_or(Relation::Apart, |present| former.site.relation(present)),
    };
    left.verdict(outcome)
}

/// The path belongs to somebody else, who has replaced what was there or knows what is his.
fn is_taken(former: &Former) -> bool {
    former.claims.iter().any(|claim| former.site.is_taken_by(claim))
}

/// Returns the write that notes where the files are about to be, if that is not noted yet, with an event about what is given
/// up for it.
pub(super) fn note(snapshot: &Snapshot, present: &Site, is_written: bool) -> Option<(Write, Option<Event>)> {
    let noted = site::noted(&snapshot.placement)?;
    let mut others = site::others(&*snapshot.placement);
    if noted.is(present) || others.iter().any(|site| site.is(present)) {
        return None;
    }
    if noted.place.is_empty() && !is_written {
        return Some((annotate(snapshot, Some(present), &others), None)); // nothing was written anywhere
    }
    others.push(present.clone());
    let given_up = (others.len() > SITES_MAX).then(|| others.remove(0));
    let event = given_up.map(|site| left_behind(snapshot, &site, "stay: there are too many places like it"));
    Some((annotate(snapshot, None, &others), event))
}

/// Returns the write that notes of which site the status is about to speak, if that is another one.
pub(super) fn relocation(snapshot: &Snapshot, present: &Site) -> Option<Write> {
    // What cannot be read is of an earlier version.
    let noted = site::noted(&snapshot.placement);
    if noted.as_ref().is_some_and(|noted| noted.is(present)) || !has_note(&snapshot.placement) {
        return None;
    }
    let mut others = site::others(&*snapshot.placement);
    others.retain(|site| !site.is(present));
    others.extend(noted.filter(|noted| !noted.place.is_empty()));
    Some(annotate(snapshot, Some(present), &others))
}

/// Returns the write that forgets the sites where no files are any more, if there are such.
pub(super) fn forget(snapshot: &Snapshot, rest: &[Site]) -> Option<Write> {
    (site::others(&*snapshot.placement) != rest).then(|| annotate(snapshot, None, rest))
}

fn has_note(placement: &WorkPlacement) -> bool {
    use kube_core::ResourceExt;
    placement.annotations().contains_key(STORE_LOCATION)
}

fn annotate(snapshot: &Snapshot, status_speaks_of: Option<&Site>, others: &[Site]) -> Write {
    let mut annotations = serde_json::Map::new();
    if let Some(site) = status_speaks_of {
        annotations.insert(STORE_LOCATION.into(), json!(site.render()));
    }
    annotations.insert(FILES_AT.into(), json!(rendered(others)));
    // Pinned: the list replaces what is noted, and a site that a stale view does not show would be forgotten.
    let target = Target::of(&*snapshot.placement);
    Write::metadata(target, &json!({ "annotations": annotations })).expect("the patch has a member")
}

fn present(snapshot: &Snapshot) -> Option<Site> {
    Site::of(&snapshot.placement, snapshot.destination.as_deref()?, snapshot.store.place()?)
}

/// Returns the event that tells of files which stay where nobody wants them.
pub(super) fn left_behind(snapshot: &Snapshot, site: &Site, rest: &str) -> Event {
    let note = format!("files in {} {rest}", site.shown());
    Event::warning(Reporter::WorkPlacement, Target::of(&*snapshot.placement), "FilesLeftBehind", note)
}
