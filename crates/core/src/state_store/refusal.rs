//! A store that can be reached and read, and refuses what it is given: a hook, or a rule about the branch. Opening it does not
//! show that, for nothing is pushed then.
//!
//! Its Destinations say what the store says, for as long as it says it.

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};

use super::{Pushes, Snapshot, Store};
use crate::plan::Event;
use crate::text;

/// Type of the condition of a store whose last push was refused. One that accepts has no such condition.
const ACCEPTED: &str = "PushesAccepted";
pub(crate) const REASON: &str = "PushRefused";

/// Returns what the store says of its last push, if that was refused.
pub fn refusal(store: &Store) -> Option<&str> {
    let found = condition::find(&store.status()?.conditions, ACCEPTED)?;
    (found.status == Status::False).then_some(found.message.as_str())
}

/// Tells whether a change of a store concerns its Destinations. Whether it can be written is not its object's to say.
pub fn concerns_destinations(old: Option<&Store>, new: Option<&Store>) -> bool {
    old.and_then(refusal) != new.and_then(refusal)
}

/// Notes among the conditions of an object that pushes are refused. Returns true when that is new.
pub(crate) fn mark(conditions: &mut Vec<Condition>, message: String, now: Timestamp) -> bool {
    condition::set(conditions, Condition::new(ACCEPTED, Status::False, REASON, message), now)
}

/// Takes it back.
pub(crate) fn lift(conditions: &mut Vec<Condition>) {
    condition::remove(conditions, ACCEPTED);
}

/// Tells whether an object says that pushes are refused.
pub(crate) fn is_marked(conditions: &[Condition]) -> bool {
    condition::find(conditions, ACCEPTED).is_some()
}

/// Notes among the conditions that the last push was refused, and returns the event that tells of it when it is new. A process
/// that has pushed nothing yet leaves what another one has noted.
pub(super) fn record(snapshot: &Snapshot, conditions: &mut Vec<Condition>) -> Option<Event> {
    let message = match &snapshot.pushes {
        Pushes::Unknown => return None,
        Pushes::Accepted => {
            lift(conditions);
            return None;
        }
        Pushes::Refused(message) => text::message(message.clone()),
    };
    let store = &snapshot.store;
    let is_news = mark(conditions, message.clone(), snapshot.now);
    is_news.then(|| Event::warning(store.reporter(), store.target(), REASON, message))
}
