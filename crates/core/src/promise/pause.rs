//! A paused Promise: it says so, and nothing else happens, not even deletion.
//!
//! # Source
//! `03-promises.md` §11.1

use kratix_api::condition::{self, Status};

use super::{Decision, Finding, Snapshot, api, status};
use crate::plan::Plan;

/// Reason of both conditions.
pub(super) const REASON: &str = "PausedReconciliation";

pub(super) fn decide(snapshot: &Snapshot) -> Decision {
    let mut draft = status::Draft::of(snapshot);
    draft.kratix();
    draft.set_available(Status::False, REASON, "Paused");
    draft.set(condition::RECONCILED, Status::Unknown, REASON, "Paused");
    let was_paused = draft.before(condition::RECONCILED).is_some_and(|reconciled| reconciled.reason == REASON);
    let mut events = Vec::new();
    if !was_paused {
        let note = "'kratix.io/paused' label set to 'true' for promise; pausing reconciliation";
        events.push(snapshot.warning(REASON, note));
    }
    let status = draft.write(snapshot);
    let plan = Plan { status, events, findings: vec![Finding::Paused], ..Plan::silent() };
    // Requests of a paused Promise are paused too, and it is their controller that tells them.
    Decision { plan, requests: api::requests(snapshot) }
}
