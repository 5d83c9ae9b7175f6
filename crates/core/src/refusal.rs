//! A write that the API server refused, as it becomes visible on the object whose pass asked for it.

use kratix_api::condition::{self, Condition, Status};
use kratix_api::keys;
use kube_core::{DynamicObject, ResourceExt};

use crate::text;

/// Reason of `Reconciled` during a pause, and until the run that follows it has begun: what is told meanwhile is in the message.
pub(crate) const PAUSED: &str = "PausedReconciliation";

/// Message of `Reconciled` during a pause.
pub(crate) const PAUSED_MESSAGE: &str = "Paused";

/// Messages beside [`PAUSED`] of a request that waits for its Promise: for its turn in a round, or to be available.
pub(crate) const WAITS_AFTER_PAUSE: [&str; 2] =
    ["Pending: waits for its turn after the pause of the Promise", "Pending: waits for its Promise after the pause"];

/// Returns whether the message beside [`PAUSED`] names what keeps the request from running since the pause, until somebody changes
/// something.
pub(crate) fn is_blocked_since_pause(message: &str) -> bool {
    message != PAUSED_MESSAGE && !WAITS_AFTER_PAUSE.contains(&message)
}

/// Reason of `Reconciled` after a refusal.
pub(crate) const REASON: &str = "WriteRefused";

/// Reason of `Reconciled`, and of the event, while a pipeline cannot be decoded.
pub(crate) const INVALID_PIPELINE: &str = "InvalidPipeline";

/// Returns what `Reconciled` is to say; `None` where a pause is on record: it stays there, because its end starts a run.
///
/// `cause` names the object and says why, in the API server's words.
pub(crate) fn verdict(reconciled: Option<&Condition>, cause: &str) -> Option<Condition> {
    let is_paused = reconciled.is_some_and(|told| told.status == Status::Unknown && told.reason == PAUSED);
    (!is_paused).then(|| Condition::new(condition::RECONCILED, Status::False, REASON, text::cause(cause)))
}

/// Returns what `Reconciled` of a request is to say where a pause is on record that is over.
pub(crate) fn since_pause(request: &DynamicObject, cause: &str) -> Option<Condition> {
    let is_paused = request.labels().get(keys::PAUSED).is_some_and(|value| value == keys::TRUE);
    (!is_paused).then(|| Condition::new(condition::RECONCILED, Status::Unknown, PAUSED, text::cause(cause)))
}
