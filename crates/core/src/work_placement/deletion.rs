//! A placement that is being deleted: its files go first, then its finalizers.
//!
//! Without its Destination, nobody knows where they are, and it goes without them. A store that does not exist may be back in
//! a moment and is waited for, unless the Destination goes too.

use kratix_api::{Destination, WorkPlacement, keys};
use kube_core::ResourceExt;
use serde_json::json;

use super::content::Obstacle;
use super::status::Content;
use super::{
    Decision, Effect, Finding, Location, Purpose, RETRY_AFTER, Site, Snapshot, aggregates, content, covered, handover,
    keep, relocation, rival, settled, since, site, stamp, warn,
};
use crate::object::Target;
use crate::plan::{Event, Next, Plan, Write};
use crate::state_store::{Availability, Failure, display, pause};

const OURS: [&str; 2] = [keys::FINALIZER_REPO_CLEANUP, keys::FINALIZER_DOT_FILES_CLEANUP];

pub(super) fn decide(snapshot: &Snapshot) -> Decision {
    let placement = &*snapshot.placement;
    if !placement.finalizers().iter().any(|finalizer| OURS.contains(&finalizer.as_str())) {
        return Decision::from(Plan::silent());
    }
    let Some(destination) = &snapshot.destination else {
        let name = &placement.spec.target_destination_name;
        let cause = format!("destination {name:?} not found, files written there stay in its state store");
        return leave(placement, "DestinationNotFound", cause);
    };
    // What has no place was never written.
    let Ok(location) = Location::of(placement, destination) else { return finish_former(snapshot) };
    if let Some(reason) = location.unwritable() {
        let mut decision = finish_former(snapshot);
        if !decision.plan.writes.is_empty() {
            let site = Site::of(placement, destination, "");
            let rest = format!("stay, if there are any: {reason}");
            decision.plan.events.extend(site.map(|site| relocation::left_behind(snapshot, &site, &rest)));
        }
        return decision;
    }
    // The directory is somebody else's, or nothing was written to it yet.
    if rival::before(snapshot, destination, &location).is_some() || !may_be_written(snapshot, destination) {
        return finish_former(snapshot);
    }
    match &snapshot.store {
        Availability::Ready { place, epoch } => remove(snapshot, destination, &location, &format!("{place}/{epoch}")),
        Availability::Opening { .. } => {
            keep(Finding::Waiting { for_: display(destination.spec.state_store_ref.as_ref()) })
        }
        Availability::Unset | Availability::UnknownKind | Availability::NotFound
            if destination.metadata.deletion_timestamp.is_some() =>
        {
            let (reason, problem) = snapshot.store.problem(destination.spec.state_store_ref.as_ref());
            leave(placement, reason, format!("{problem}, files written there stay"))
        }
        _ => {
            let (reason, message) = snapshot.store.problem(destination.spec.state_store_ref.as_ref());
            let content = Content::Waiting { reason, message: message.clone(), warns: true };
            settled(snapshot, &content, Next::After(RETRY_AFTER), Finding::Waiting { for_: message })
        }
    }
}

fn remove(snapshot: &Snapshot, destination: &Destination, location: &Location, place: &str) -> Decision {
    if handover::yields(snapshot) {
        let decision = keep(Finding::Waiting { for_: "those who take over its paths".to_owned() });
        return decision.and_next(Next::After(handover::remaining(snapshot)));
    }
    let stamp = stamp(&snapshot.placement, destination, location, place, Purpose::Removal);
    let attempt = snapshot.attempt.as_ref().filter(|attempt| attempt.stamp == stamp);
    let mut decision = match attempt.map(|attempt| (&attempt.outcome, since(attempt.at, snapshot.now))) {
        None => keep(Finding::Waiting { for_: display(destination.spec.state_store_ref.as_ref()) }),
        Some((Ok(_), _)) => return finish_former(snapshot),
        Some((Err(failure), age)) => {
            let decision = not_removed(snapshot, failure);
            let pause = pause(failure.retry_after);
            if age < pause {
                return decision.and_next(Next::After(pause - age));
            }
            decision
        }
    };
    match content::removal(snapshot, location) {
        Ok(change) => {
            // An aggregate is written without all that are leaving.
            let covers = match location {
                Location::Aggregate { .. } => covered(snapshot, destination, place, Purpose::Removal),
                _ => Vec::new(),
            };
            decision.effect = Some(Effect { change, stamp, covers });
            decision
        }
        Err(Obstacle::Large) => Decision { is_large: true, ..decision },
        Err(Obstacle::Failure(failure)) => not_removed(snapshot, &failure),
    }
}

fn not_removed(snapshot: &Snapshot, failure: &Failure) -> Decision {
    let content = Content::NotRemoved { message: failure.message.clone(), about: failure.about };
    settled(snapshot, &content, Next::After(RETRY_AFTER), Finding::Failed { message: failure.message.clone() })
}

/// Tells whether files of the placement may be where they should be: a site is noted before anything is written there, but for
/// a file that many share, to which any of them may have brought what this one has.
fn may_be_written(snapshot: &Snapshot, destination: &Destination) -> bool {
    if aggregates(destination) && snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_ok()) {
        return true;
    }
    let Some(noted) = site::noted(&snapshot.placement) else { return true };
    let present = snapshot.store.place().and_then(|place| Site::of(&snapshot.placement, destination, place));
    let others = site::others(&*snapshot.placement);
    match present {
        // Under the name of another store it is no other site: whoever has left that one removes its files here.
        Some(present) => [noted].iter().chain(&others).any(|site| site.is_where(&present)),
        // The store was never there.
        None => !noted.place.is_empty() || !others.is_empty(),
    }
}

/// Cleans the sites that were left, and then lets go.
fn finish_former(snapshot: &Snapshot) -> Decision {
    let is_tried = snapshot.cleaned.is_some() || snapshot.former.is_empty();
    let cleaning = relocation::judge(snapshot, snapshot.cleaned.as_deref().unwrap_or_default(), true);
    if is_tried && !cleaning.is_opening {
        return finish(&snapshot.placement, None, cleaning.events);
    }
    let for_ = snapshot.former.iter().map(|former| former.site.shown()).collect::<Vec<_>>().join(", ");
    Decision { cleans: !is_tried, ..keep(Finding::Waiting { for_ }) }
}

fn leave(placement: &WorkPlacement, reason: &'static str, cause: String) -> Decision {
    let event = warn(placement, reason, cause.clone());
    finish(placement, Some(Finding::LeftBehind { cause }), vec![event])
}

fn finish(placement: &WorkPlacement, finding: Option<Finding>, events: Vec<Event>) -> Decision {
    let rest: Vec<&String> =
        placement.finalizers().iter().filter(|finalizer| !OURS.contains(&finalizer.as_str())).collect();
    let drop = Write::metadata(Target::of(placement), &json!({ "finalizers": rest }));
    let findings = finding.into_iter().collect();
    let writes = drop.into_iter().collect();
    Decision::from(Plan { writes, status: None, events, next: Next::OnChange, findings })
}
