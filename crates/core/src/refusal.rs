//! A write that the API server refused, as it becomes visible on the object whose pass asked for it.

use kratix_api::condition::{self, Condition, Status};

use crate::text;

/// Reason of `Reconciled` during a pause, and until the run that follows it has begun: what is told meanwhile is in the message.
pub(crate) const PAUSED: &str = "PausedReconciliation";

/// Message of `Reconciled` during a pause.
pub(crate) const PAUSED_MESSAGE: &str = "Paused";

/// Message beside [`PAUSED`] of a request that waits for its turn in a round of its Promise.
pub(crate) const WAITS_FOR_TURN: &str = "Pending: waits for its turn after the pause of the Promise";

/// Message beside [`PAUSED`] of a request that waits for its Promise to be available.
pub(crate) const WAITS_FOR_PROMISE: &str = "Pending: waits for its Promise after the pause";

/// Returns whether the message beside [`PAUSED`] names what keeps the request from running since the pause, until somebody changes
/// something.
pub(crate) fn is_blocked_since_pause(message: &str) -> bool {
    ![PAUSED_MESSAGE, WAITS_FOR_TURN, WAITS_FOR_PROMISE].contains(&message)
}

/// Reason of `Reconciled` after a refusal.
pub(crate) const REASON: &str = "WriteRefused";

/// Reason of `Reconciled`, and of the event, while a pipeline cannot be decoded.
pub(crate) const INVALID_PIPELINE: &str = "InvalidPipeline";

/// Returns whether `Reconciled` says that a pause has been seen. That stays there, because the end of the pause starts a run.
pub(crate) fn is_pause_on_record(reconciled: Option<&Condition>) -> bool {
    reconciled.is_some_and(|told| told.status == Status::Unknown && told.reason == PAUSED)
}

/// Returns what `Reconciled` says of a refusal.
///
/// `cause` names the object and says why, in the API server's words.
pub(crate) fn verdict(cause: &str) -> Condition {
    Condition::new(condition::RECONCILED, Status::False, REASON, text::cause(cause))
}

/// Returns what `Reconciled` says of a refusal while a pause is on record that is over.
pub(crate) fn verdict_after_pause(cause: &str) -> Condition {
    Condition::new(condition::RECONCILED, Status::Unknown, PAUSED, text::cause(cause))
}
