//! A store that can be reached and read, and refuses what it is given: a hook, or a rule about the branch. Opening it does not
//! show that, for nothing is pushed then.

use kratix_api::condition::{self, Condition, Status};

use super::{Pushes, Snapshot};
use crate::plan::Event;
use crate::text;

/// Type of the condition of a store whose last push was refused. One that accepts has no such condition.
const ACCEPTED: &str = "PushesAccepted";
const REASON: &str = "PushRefused";

/// Notes among the conditions that the last push was refused, and returns the event that tells of it when it is new. A process
/// that has pushed nothing yet leaves what another one has noted.
pub(super) fn record(snapshot: &Snapshot, conditions: &mut Vec<Condition>) -> Option<Event> {
    let message = match &snapshot.pushes {
        Pushes::Unknown => return None,
        Pushes::Accepted => {
            condition::remove(conditions, ACCEPTED);
            return None;
        }
        Pushes::Refused(message) => text::message(message.clone()),
    };
    let store = &snapshot.store;
    let condition = Condition::new(ACCEPTED, Status::False, REASON, message.clone());
    let is_news = condition::set(conditions, condition, snapshot.now);
    is_news.then(|| Event::warning(store.reporter(), store.target(), REASON, message))
}
