//! What is wrong with a Promise in a way that somebody must mend, and how it is shown.

use kratix_api::condition::{self, Condition, Status};
use kratix_api::keys;
use kratix_api::pipeline::WorkflowError;

use super::{Finding, Snapshot, pause, status};
use crate::plan::{Event, Plan};
use crate::refusal::{self, INVALID_PIPELINE};

/// Something that somebody must mend. `Reconciled` is False with its reason and message while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Reason of the condition and of the event.
    pub reason: &'static str,
    /// What is wrong, where, and what to do.
    pub message: String,
}

impl Fault {
    /// A pipeline that cannot be decoded. The error names workflow, pipeline and field, as admission does.
    pub(super) fn pipeline(error: &WorkflowError) -> Self {
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(error) {
            let cause = source.to_string();
            if !message.contains(&cause) {
                message = format!("{message}: {cause}");
            }
        }
        Self { reason: INVALID_PIPELINE, message }
    }

    pub(super) fn api(message: impl Into<String>) -> Self {
        Self { reason: "InvalidAPI", message: message.into() }
    }

    pub(crate) fn foreign_crd(crd: &str, owner: Option<&str>) -> Self {
        let message = match owner {
            Some(owner) => format!(
                "CustomResourceDefinition {crd:?} belongs to Promise {owner:?}; give this Promise an API of another name, \
                 or delete that Promise"
            ),
            None => format!(
                "CustomResourceDefinition {crd:?} exists and does not belong to this Promise; annotate the Promise with \
                 kratix.io/adopt-api-crd=true to take it over"
            ),
        };
        Self { reason: "APIConflict", message }
    }

    pub(super) fn names_taken(crd: &str, cause: &str) -> Self {
        let message = format!("CustomResourceDefinition {crd:?} is not accepted: {cause}");
        Self { reason: "APIConflict", message }
    }

    pub(super) fn duplicate_works(labels: &str, names: &[String]) -> Self {
        let message = format!(
            "more than 1 work exist with the matching labels: {labels}. Unable to update; delete all but one of {}",
            names.join(", ")
        );
        Self { reason: "DuplicateWorks", message }
    }

    pub(super) fn revision_conflict(name: &str) -> Self {
        let message = format!("PromiseRevision {name:?} belongs to something else; delete it");
        Self { reason: "RevisionConflict", message }
    }
}

/// Returns what becomes visible on the Promise when the API server refused one of its writes: a condition, and one event for
/// each cause. A pause that is on record stays so, because its end starts what it held; `None` as long as it lasts.
///
/// `cause` names the object and says why, in the API server's words.
pub fn refused(snapshot: &Snapshot, cause: &str) -> Option<Plan<Finding>> {
    let mut draft = status::Draft::of(snapshot);
    let told = match pause::is_recorded(snapshot) {
        true if snapshot.has_label(keys::PAUSED) => return None,
        true => refusal::verdict_after_pause(cause),
        false => refusal::verdict(cause),
    };
    draft.kratix();
    let fault = Fault { reason: refusal::REASON, message: told.message.clone() };
    let events = tell(&mut draft, snapshot, &fault, told);
    if draft.condition(condition::AVAILABLE).is_none() {
        draft.set_available(Status::False, "PromiseUnavailable", "Cannot fulfil resource requests");
    }
    let status = draft.write(snapshot);
    Some(Plan { status, events, findings: vec![Finding::Faulty(fault)], ..Plan::silent() })
}

/// Puts a fault on the status; returns the event if it is a new one.
pub(super) fn show(draft: &mut status::Draft, snapshot: &Snapshot, fault: &Fault) -> Vec<Event> {
    let told = Condition::new(condition::RECONCILED, Status::False, fault.reason, fault.message.clone());
    tell(draft, snapshot, fault, told)
}

fn tell(draft: &mut status::Draft, snapshot: &Snapshot, fault: &Fault, told: Condition) -> Vec<Event> {
    let is_same = |before: &Condition| before.reason == told.reason && before.message == told.message;
    let is_known = draft.before(condition::RECONCILED).is_some_and(is_same);
    draft.set(condition::RECONCILED, told.status, &told.reason, told.message);
    if is_known { Vec::new() } else { vec![snapshot.warning(fault.reason, fault.message.clone())] }
}
