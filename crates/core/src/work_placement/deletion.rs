//! A placement that is being deleted: its files go first, then its finalizers.
//!
//! Without its Destination, nobody knows where they are, and it goes without them. A store that does not exist may be back in
//! a moment and is waited for, unless the Destination goes too.

use kratix_api::{Destination, WorkPlacement, keys};
use kube_core::ResourceExt;
use serde_json::json;

use super::status::Content;
use super::{
    Decision, Effect, Finding, Location, Purpose, RETRY_AFTER, Snapshot, content, covered, keep, rival, settled, since,
    stamp, warn,
};
use crate::object::Target;
use crate::plan::{Event, Next, Plan, Write};
use crate::state_store::{Availability, Failure, display};

const OURS: [&str; 2] = [keys::FINALIZER_REPO_CLEANUP, keys::FINALIZER_DOT_FILES_CLEANUP];

pub(super) fn decide(snapshot: &Snapshot) -> Decision {
    let placement = &*snapshot.placement;
    if !placement.finalizers().iter().any(|finalizer| OURS.contains(&finalizer.as_str())) {
        return Decision { plan: Plan::silent(), effect: None };
    }
    let Some(destination) = &snapshot.destination else {
        let name = &placement.spec.target_destination_name;
        let cause = format!("destination {name:?} not found, files written there stay in its state store");
        return leave(placement, "DestinationNotFound", cause);
    };
    // What has no place was never written.
    let Ok(location) = Location::of(placement, destination) else { return finish(placement, None, Vec::new()) };
    if rival::before(snapshot, destination, &location).is_some() {
        return finish(placement, None, Vec::new()); // the directory is somebody else's
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
    let stamp = stamp(&snapshot.placement, destination, location, place, Purpose::Removal);
    let attempt = snapshot.attempt.as_ref().filter(|attempt| attempt.stamp == stamp);
    let mut decision = match attempt.map(|attempt| (&attempt.outcome, since(attempt.at, snapshot.now))) {
        None => keep(Finding::Waiting { for_: display(destination.spec.state_store_ref.as_ref()) }),
        Some((Ok(_), _)) => return finish(&snapshot.placement, None, Vec::new()),
        Some((Err(failure), age)) => {
            let decision = not_removed(snapshot, failure);
            if age < RETRY_AFTER {
                return decision.and_next(Next::After(RETRY_AFTER - age));
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
        Err(failure) => not_removed(snapshot, &failure),
    }
}

fn not_removed(snapshot: &Snapshot, failure: &Failure) -> Decision {
    let content = Content::NotRemoved { message: failure.message.clone(), about: failure.about };
    settled(snapshot, &content, Next::After(RETRY_AFTER), Finding::Failed { message: failure.message.clone() })
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
    Decision {
        plan: Plan { writes: drop.into_iter().collect(), status: None, events, next: Next::OnChange, findings },
        effect: None,
    }
}
