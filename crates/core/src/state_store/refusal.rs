//! A store that can be reached and read, and refuses what it is given: a hook, or a rule about the branch. Opening it does not
//! show that, for nothing is pushed then. Also one that was ready and does not answer a push.
//!
//! Its Destinations say what the store says, for as long as it says it.

use std::sync::Arc;

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::{Destination, WorkPlacement};

use super::{Pushes, Snapshot, Store};
use crate::plan::Event;
use crate::text;

/// Type of the condition of a store whose last push was refused, or is not answered. One that accepts has no such condition.
const ACCEPTED: &str = "PushesAccepted";
pub(crate) const REASON: &str = "PushRefused";
const UNANSWERED: &str = "NoAnswerYet";
/// How texts about refused pushes begin, whoever says them.
const PUSH_FAILED: &str = "failed to push: ";

/// What a store says of its last push, unless that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// It was refused.
    Refused(String),
    /// It is not answered.
    Unanswered(String),
}

impl Complaint {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Refused(message) | Self::Unanswered(message) => message,
        }
    }

    /// Returns the same in other words.
    pub(crate) fn said(&self, message: String) -> Self {
        match self {
            Self::Refused(_) => Self::Refused(text::message(message)),
            Self::Unanswered(_) => Self::Unanswered(text::message(message)),
        }
    }
}

/// Returns what the store says of its last push, unless that was accepted.
pub fn complaint(store: &Store) -> Option<Complaint> {
    let found = condition::find(&store.status()?.conditions, ACCEPTED)?;
    match found.status {
        Status::False => Some(Complaint::Refused(found.message.clone())),
        Status::Unknown => Some(Complaint::Unanswered(found.message.clone())),
        _ => None,
    }
}

/// Tells whether somebody whose push was refused still says so, by the objects alone: a process that was started meanwhile has
/// refused nobody. Not looked into unless the store says that it refuses.
///
/// Of what was in the store before and is refused when it is written again, nobody says so. It is handed over after every start.
pub fn is_refusal_shown(
    store: &Store,
    destinations: &[Arc<Destination>],
    placements: impl IntoIterator<Item = Arc<WorkPlacement>>,
) -> bool {
    matches!(complaint(store), Some(Complaint::Refused(_)))
        && (destinations.iter().any(|destination| shows(&**destination))
            || placements.into_iter().any(|placement| shows(&*placement)))
}

/// Tells whether a change of a placement or a Destination takes back that its push was refused.
pub fn takes_back<K: Pushing>(old: Option<&K>, new: Option<&K>) -> bool {
    old.is_some_and(shows) && !new.is_some_and(shows)
}

fn shows<K: Pushing>(object: &K) -> bool {
    let said = object.outcome();
    said.is_some_and(|said| said.status == Status::False && said.message.contains(PUSH_FAILED))
}

/// What is written to stores and says how that went.
pub trait Pushing {
    /// The condition that tells it.
    fn outcome(&self) -> Option<&Condition>;
}

impl Pushing for WorkPlacement {
    fn outcome(&self) -> Option<&Condition> {
        condition::find(&self.status.as_ref()?.conditions, condition::WRITE_SUCCEEDED)
    }
}

impl Pushing for Destination {
    fn outcome(&self) -> Option<&Condition> {
        condition::find(&self.status.as_ref()?.conditions, condition::READY)
    }
}

/// Tells whether a change of a store concerns its Destinations. Whether it can be written is not its object's to say.
pub fn concerns_destinations(old: Option<&Store>, new: Option<&Store>) -> bool {
    old.and_then(complaint) != new.and_then(complaint)
}

/// Notes among the conditions of an object what is said of pushes. Returns true when somebody should know of it: what is only
/// not answered may still be.
pub(crate) fn mark(conditions: &mut Vec<Condition>, complaint: &Complaint, now: Timestamp) -> bool {
    let (status, reason) = match complaint {
        Complaint::Refused(_) => (Status::False, REASON),
        Complaint::Unanswered(_) => (Status::Unknown, UNANSWERED),
    };
    let is_news = condition::set(conditions, Condition::new(ACCEPTED, status, reason, complaint.message()), now);
    is_news && matches!(complaint, Complaint::Refused(_))
}

/// Takes it back.
pub(crate) fn lift(conditions: &mut Vec<Condition>) {
    condition::remove(conditions, ACCEPTED);
}

/// Tells whether an object says that pushes are refused or not answered.
pub(crate) fn is_marked(conditions: &[Condition]) -> bool {
    condition::find(conditions, ACCEPTED).is_some()
}

/// Notes among the conditions that the last push was refused or is not answered, and returns the event that tells of a refusal
/// when it is new. A process that has pushed nothing yet leaves the refusal that another one has noted for as long as somebody
/// shows it: once nobody asks for what was refused, nobody will push again to clear it.
pub(super) fn record(snapshot: &Snapshot, conditions: &mut Vec<Condition>) -> Option<Event> {
    let complaint = match &snapshot.pushes {
        Pushes::Unknown => {
            // Whoever was not answered does not wait any more.
            let is_over = |found: &Condition| found.status == Status::Unknown || !snapshot.is_refusal_shown;
            if condition::find(conditions, ACCEPTED).is_some_and(is_over) {
                lift(conditions);
            }
            return None;
        }
        Pushes::Accepted | Pushes::Withdrawn => {
            lift(conditions);
            return None;
        }
        Pushes::Refused(message) => Complaint::Refused(text::message(message.clone())),
        Pushes::Unanswered(message) => Complaint::Unanswered(text::message(message.clone())),
    };
    let store = &snapshot.store;
    let is_news = mark(conditions, &complaint, snapshot.now);
    is_news.then(|| Event::warning(store.reporter(), store.target(), REASON, complaint.message()))
}

#[cfg(test)]
impl From<&str> for Complaint {
    fn from(message: &str) -> Self {
        Self::Refused(message.into())
    }
}
