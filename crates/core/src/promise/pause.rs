//! A paused Promise: it says so, and nothing else happens, not even deletion. And the end of the pause.
//!
//! # Source
//! `03-promises.md` §11.1, §11.2, §25 (8)

use kratix_api::condition::{self, Status};

use super::{Decision, Finding, Snapshot, api, status};
use crate::plan::Plan;
use crate::refusal::{self, PAUSED, PAUSED_MESSAGE};

/// Returns whether the status says that the Promise is paused.
pub(super) fn is_recorded(snapshot: &Snapshot) -> bool {
    let status = snapshot.promise.status.as_ref();
    let reconciled = status.and_then(|status| condition::find(&status.conditions, condition::RECONCILED));
    refusal::is_pause_on_record(reconciled)
}

/// Returns the plan that forgets a pause, once labels and annotations tell what is to run because it is over.
pub(super) fn leave(snapshot: &Snapshot) -> Option<Plan<Finding>> {
    if !is_recorded(snapshot) {
        return None;
    }
    let mut draft = status::Draft::of(snapshot);
    draft.set(condition::RECONCILED, Status::Unknown, "Unpaused", "Pending");
    Some(Plan { status: draft.write(snapshot), ..Plan::silent() })
}

pub(super) fn decide(snapshot: &Snapshot) -> Decision {
    let mut draft = status::Draft::of(snapshot);
    // A pod that runs already runs on.
    let mut events: Vec<_> = super::follow_pods(snapshot, &mut draft).into_iter().collect();
    draft.kratix();
    draft.set_available(Status::False, PAUSED, PAUSED_MESSAGE);
    draft.set(condition::RECONCILED, Status::Unknown, PAUSED, PAUSED_MESSAGE);
    let was_paused = draft.before(condition::RECONCILED).is_some_and(|reconciled| reconciled.reason == PAUSED);
    if !was_paused {
        let note = "'kratix.io/paused' label set to 'true' for promise; pausing reconciliation";
        events.push(snapshot.warning(PAUSED, note));
    }
    let status = draft.write(snapshot);
    let plan = Plan { status, events, findings: vec![Finding::Paused], ..Plan::silent() };
    // Requests of a paused Promise are paused too, and it is their controller that tells them.
    Decision::of(plan, api::requests(snapshot))
}
