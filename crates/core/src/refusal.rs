//! A write that the API server refused, as it becomes visible on the object whose pass asked for it.

use kratix_api::condition::{self, Condition, Status};

use crate::text;

/// Reason of `Reconciled` during a pause.
pub(crate) const PAUSED: &str = "PausedReconciliation";

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
