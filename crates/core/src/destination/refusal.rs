//! A Destination whose store refuses what it is given, or does not answer, says so beside `Ready`, which is about its own
//! documents and stays what it is: those that are there are not taken back.

use kratix_api::condition::Condition;

use super::Snapshot;
use crate::object::Target;
use crate::plan::{Event, Reporter};
use crate::state_store::{display, refusal};

pub(super) use crate::state_store::refusal::REASON;

/// Notes among the conditions what the store says of its last push, and returns the event that tells of it when it is new.
pub(super) fn record(snapshot: &Snapshot, conditions: &mut Vec<Condition>) -> Option<Event> {
    let Some(refused) = &snapshot.refusal else {
        refusal::lift(conditions);
        return None;
    };
    let store = display(snapshot.destination.spec.state_store_ref.as_ref());
    let refused = refused.said(format!("{store}: {}", refused.message()));
    let is_news = refusal::mark(conditions, &refused, snapshot.now);
    let target = Target::of(&*snapshot.destination);
    is_news.then(|| Event::warning(Reporter::Destination, target, REASON, refused.message()))
}

/// Tells whether the Destination still says of its store what the store does not say any more.
pub(super) fn is_over(snapshot: &Snapshot) -> bool {
    let status = snapshot.destination.status.as_ref();
    snapshot.refusal.is_none() && status.is_some_and(|status| refusal::is_marked(&status.conditions))
}
