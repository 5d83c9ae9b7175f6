//! Test documents where a Destination was before: noted before they are written, forgotten after they were removed.
//!
//! As for placements ([`work_placement`](crate::work_placement)): they are removed while the place can be reached, which holds
//! up nothing, and what others have there now stays.

use std::sync::Arc;
use std::time::Duration;

use kratix_api::Destination;
use kratix_api::destination::Cleanup;
use kratix_store_path::Reason;
use serde_json::json;

use super::{CANARY, Decision, RETRY_AFTER, Snapshot, change_at, drop_finalizer, test_documents, wait};
use crate::object::Target;
use crate::plan::{Event, Next, Reporter, Write};
use crate::state_store::{Address, Availability, ChangeKind, Operation, SILENCE};
use crate::work_placement::{
    Cleaned, FILES_AT, Left, Leftover, Relation, SITES_MAX, Site, Verdict, join, other_sites, rendered_sites, rooted,
};

/// A site that the Destination has left, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Former {
    /// The site.
    pub site: Site,
    /// Its store as it is now.
    pub store: Availability,
    /// There is a writer for the site.
    pub is_reachable: bool,
    /// Other Destinations of stores at the same address, each with the place of its store.
    pub others: Vec<(Arc<Destination>, String)>,
}

/// Returns the sites at which test documents may be although they should not.
pub fn former_sites(destination: &Destination, place: &str) -> Vec<Site> {
    let present = Site::of_test_documents(destination, place);
    let mut sites = other_sites(destination);
    sites.retain(|site| present.as_ref().is_none_or(|present| !present.is(site)));
    sites
}

/// Returns what is to be removed at the sites that were left.
pub fn leftovers(snapshot: &Snapshot) -> Vec<Leftover> {
    let present = present(snapshot);
    let leaves = snapshot.destination.metadata.deletion_timestamp.is_some();
    let patience = (!leaves).then_some(SILENCE);
    let removed = test_documents(&snapshot.destination).map(|document| document.path);
    snapshot
        .former
        .iter()
        .filter(|former| former.is_reachable && former.site.location().unwritable().is_none())
        .filter(|former| !is_taken(former, &snapshot.destination))
        .filter_map(|former| {
            let needs_proof = match relation(&former.site, present.as_ref()) {
                Relation::Apart => false,
                // What is removed altogether is removed at its present site too.
                Relation::Doubtful => !leaves,
                Relation::Same | Relation::Entangled => return None,
            };
            let operation = Operation::Edit { write: Vec::new(), remove: removed.to_vec() };
            let change = change_at(former.site.directory(), ChangeKind::Delete, operation);
            Some(Leftover { site: former.site.clone(), change, needs_proof, patience })
        })
        .collect()
}

/// Returns the write that notes where the test documents are about to be, if that is not noted yet, with an event about what is
/// given up for it.
pub(super) fn note(snapshot: &Snapshot) -> Option<(Write, Option<Event>)> {
    let present = present(snapshot)?;
    let mut sites = other_sites(&*snapshot.destination);
    if sites.iter().any(|site| site.is(&present)) {
        return None;
    }
    sites.push(present);
    let given_up = (sites.len() > SITES_MAX).then(|| sites.remove(0));
    let note = annotate(snapshot, &sites);
    let event = given_up.map(|site| left_behind(snapshot, &site, "stay: there are too many places like it").of(&note));
    Some((note, event))
}

/// Adds to what is decided about test documents that are where they should be what becomes of those elsewhere.
pub(super) fn clean(snapshot: &Snapshot, mut decision: Decision) -> Decision {
    if snapshot.former.is_empty() || snapshot.destination.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let Some(outcomes) = &snapshot.cleaned else {
        if decision.plan.is_silent() {
            decision.cleans = true;
        } else {
            decision.plan.next = Next::After(Duration::ZERO); // the status comes first
        }
        return decision;
    };
    let judged = judge(snapshot, outcomes, false);
    if !judged.rest.is_empty() {
        decision.plan.next = Next::After(RETRY_AFTER);
    }
    let sites: Vec<Site> = judged.rest.into_iter().chain(present(snapshot)).collect();
    let note = (sites != other_sites(&*snapshot.destination)).then(|| annotate(snapshot, &sites));
    decision.plan.events.extend(judged.events.into_iter().map(|event| event.of(&note)));
    decision.plan.writes.extend(note);
    decision
}

/// Cleans the sites that were left, and then lets go. Why no store takes files at the present site is given if that is so.
pub(super) fn leave(snapshot: &Snapshot, unwritable: Option<Reason>) -> Decision {
    let is_tried = snapshot.cleaned.is_some() || snapshot.former.is_empty();
    let judged = judge(snapshot, snapshot.cleaned.as_deref().unwrap_or_default(), true);
    if is_tried && !judged.is_opening {
        let mut decision = drop_finalizer(&snapshot.destination);
        decision.plan.events.extend(judged.events);
        let stays = unwritable.zip(Site::of_test_documents(&snapshot.destination, ""));
        decision.plan.events.extend(
            stays.map(|(reason, site)| left_behind(snapshot, &site, &format!("stay, if there are any: {reason}"))),
        );
        return decision;
    }
    Decision { cleans: !is_tried, ..wait("test documents of its previous places".to_owned()) }
}

struct Judged {
    rest: Vec<Site>,
    events: Vec<Event>,
    is_opening: bool,
}

fn judge(snapshot: &Snapshot, outcomes: &[(Site, Cleaned)], is_final: bool) -> Judged {
    let mut judged = Judged { rest: Vec::new(), events: Vec::new(), is_opening: false };
    let present = present(snapshot);
    for former in &snapshot.former {
        let left = Left {
            site: &former.site,
            store: &former.store,
            is_reachable: former.is_reachable,
            is_taken: is_taken(former, &snapshot.destination),
            relation: relation(&former.site, present.as_ref()),
        };
        let outcome = outcomes.iter().find(|(site, _)| site.is(&former.site)).map(|(_, outcome)| outcome);
        match left.verdict(outcome) {
            Verdict::Done => {}
            Verdict::Opening => {
                judged.is_opening = true;
                judged.rest.push(former.site.clone());
            }
            Verdict::Later(cause) if !is_final => {
                if !former.site.is_told {
                    judged.events.push(left_behind(snapshot, &former.site, &format!("stay for now: {cause}")));
                }
                judged.rest.push(former.site.clone().told());
            }
            Verdict::Later(cause) | Verdict::Never(cause) => {
                judged.events.push(left_behind(snapshot, &former.site, &format!("stay: {cause}")));
            }
        }
    }
    judged
}

fn relation(site: &Site, present: Option<&Site>) -> Relation {
    present.map_or(Relation::Apart, |present| site.relation_of_test_documents(present))
}

/// Returns the paths of the test documents that are the Destination's alone where it is: another one may have the same files,
/// in the same store or in another one at its address.
pub(super) fn removable(snapshot: &Snapshot) -> Vec<String> {
    let place = snapshot.store.place().unwrap_or_default();
    let paths = |destination: &Destination, place: &str| {
        let directory = rooted(place, &destination.spec.path);
        test_documents(destination).map(|document| join(&[&directory, &document.path]))
    };
    let has_documents = |other: &Destination| {
        // It removes them itself.
        let cleans_up = other.metadata.deletion_timestamp.is_some() && other.spec.cleanup == Cleanup::All;
        other.spec.init_workloads.enabled && !cleans_up
    };
    let is_beside = |at: &str| Address::of(at) == Address::of(place);
    let beside = snapshot.beside.iter().filter(|(other, at)| is_beside(at) && has_documents(other));
    let taken: Vec<String> = beside.flat_map(|(other, at)| paths(other, at)).collect();
    let own = test_documents(&snapshot.destination).into_iter().map(|document| document.path);
    let alone = own.zip(paths(&snapshot.destination, place)).filter(|(_, path)| !taken.contains(path));
    alone.map(|(document, _)| document).collect()
}

/// Another Destination has its test documents there now.
fn is_taken(former: &Former, destination: &Destination) -> bool {
    former.others.iter().any(|(other, place)| {
        other.spec.init_workloads.enabled
            && test_documents(other) == test_documents(destination)
            && Site::of_test_documents(other, place)
                .is_some_and(|site| former.site.relation_of_test_documents(&site) == Relation::Same)
    })
}

fn annotate(snapshot: &Snapshot, sites: &[Site]) -> Write {
    // Pinned: the list replaces what is noted, and a site that a stale view does not show would be forgotten.
    let target = Target::of(&*snapshot.destination);
    let patch = json!({ "annotations": { FILES_AT: rendered_sites(sites) } });
    Write::metadata(target, &patch).expect("the patch has a member")
}

fn present(snapshot: &Snapshot) -> Option<Site> {
    Site::of_test_documents(&snapshot.destination, snapshot.store.place()?)
}

fn left_behind(snapshot: &Snapshot, site: &Site, rest: &str) -> Event {
    let note = format!("test documents ({CANARY}) in {} {rest}", site.shown());
    Event::warning(Reporter::Destination, Target::of(&*snapshot.destination), "FilesLeftBehind", note)
}
