//! What a pipeline's run means for the status of its object.
//!
//! # Source
//! `02-workflows.md` §14.5, §19.12, §19.31, §19.34–36

mod incoming;
#[cfg(test)]
mod tests;

use kratix_api::condition::{self, CONFIGURE_WORKFLOW_COMPLETED, PIPELINE_FAILING};
use kratix_api::promise::Phase;
use kratix_api::{Action, Timestamp, WorkflowType};
use serde_json::{Map, Value, json};

pub use self::incoming::check_incoming;
use self::incoming::merge;
use crate::Error;
use crate::control::Control;

const PENDING: &str = "Pending";
const COUNTERS: [&str; 3] = ["workflows", "workflowsSucceeded", "workflowsFailed"];

/// Which run it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whose workflow.
    pub workflow: WorkflowType,
    /// Which action.
    pub action: Action,
    /// Which pipeline.
    pub pipeline: String,
    /// Whether it is the workflow's last.
    pub is_last: bool,
    /// Whether this is a preview.
    pub is_dry_run: bool,
}

/// What to write, and what to print.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The new status, whole.
    pub status: Value,
    /// Whether the object is to be labelled as suspended, before the status is written.
    pub suspends: bool,
    /// What the pipeline's author should know.
    pub warnings: Vec<String>,
}

/// Returns whether the status is ready for what the run asks for: a pipeline that is to be held has a place in the list.
///
/// The manager makes the Job before it writes the list. While it is away there may be none yet, or that of an earlier run.
pub fn is_prepared(object: &Value, control: &Control, run: &Run) -> bool {
    match control {
        Control::Continue => true,
        Control::Suspend { .. } | Control::Retry { .. } => {
            let status = object.get("status").and_then(Value::as_object);
            // What cannot be read is not about to be mended.
            let listed = status.map_or(Ok(None), |status| has_entry(status, &run.pipeline));
            listed.map_or(true, |listed| listed == Some(true))
        }
    }
}

/// Decides the new status of `object` after a run that left `incoming` and asked for `control`.
///
/// # Errors
/// [`Error::Parent`] when the status is not one that the workflow engine prepared.
pub fn decide(
    object: &Value,
    incoming: Map<String, Value>,
    control: &Control,
    run: &Run,
    now: Timestamp,
) -> Result<Outcome, Error> {
    let mut status = object.get("status").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut warnings = Vec::new();
    merge(&mut status, incoming, run, &mut warnings);

    if run.workflow == WorkflowType::Promise {
        // The API server takes no status of a Promise without them, and this one may be the first.
        for counter in COUNTERS {
            status.entry(counter).or_insert(json!(0));
        }
    }
    let is_known = has_entry(&status, &run.pipeline)?;
    if is_known == Some(false) && *control == Control::Continue {
        // The Promise has changed under the running pipeline and the list is already that of the next run. One that is to be
        // held fails below: that the workflow went on without the hold is the one thing that must not happen.
        let pipeline = &run.pipeline;
        warnings.push(format!(
            "Warning: pipeline {pipeline:?} is no longer part of the workflow; its progress is not recorded"
        ));
    }
    let mut suspends = false;
    match control {
        Control::Continue => {
            if run.is_last && is_known != Some(false) {
                complete(&mut status, run, now);
            }
            if let Some(entry) = entry(&mut status, &run.pipeline) {
                entry.insert("phase".to_owned(), json!(Phase::Running));
                ["message", "attempts", "nextRetryAt"].iter().for_each(|key| drop(entry.remove(*key)));
            }
        }
        Control::Suspend { message } => {
            suspends = true;
            suspend(&mut status, object, run, message, None)?;
        }
        Control::Retry { after, message } => {
            suspends = true;
            let at =
                now.checked_add(after.as_wait()).map_err(|error| Error::Control(format!("retryAfter: {error}")))?;
            suspend(&mut status, object, run, message, Some(at))?;
        }
    }
    if run.is_dry_run {
        status.insert("message".to_owned(), json!("Dry run executed"));
    }
    Ok(Outcome { status: Value::Object(status), suspends, warnings })
}

/// Marks a configure workflow as completed.
fn complete(status: &mut Map<String, Value>, run: &Run, now: Timestamp) {
    if run.action == Action::Delete {
        return;
    }
    if is_of_the_manager(status) {
        let message = match run.workflow {
            WorkflowType::Promise => "Promise configured",
            WorkflowType::Resource => "Resource requested",
        };
        status.insert("message".to_owned(), json!(message));
    }
    if let Some(workflows) = workflows_mut(status) {
        workflows.remove("suspendedGeneration");
    }
    let done = json!({
        "type": CONFIGURE_WORKFLOW_COMPLETED,
        "status": condition::Status::True,
        "reason": "PipelinesExecutedSuccessfully",
        "message": "Pipelines completed",
        // Always new: the time to the next run is measured from here.
        "lastTransitionTime": condition::whole_seconds(now).to_string(),
    });
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut().expect("made a list above");
    let is_same = |old: &&mut Value| old.get("type").and_then(Value::as_str) == Some(CONFIGURE_WORKFLOW_COMPLETED);
    match conditions.iter_mut().find(is_same) {
        Some(old) => *old = done,
        None => conditions.push(done),
    }
}

/// Returns whether the message is what the manager says while a pipeline runs: that it does, or what keeps it from getting on.
fn is_of_the_manager(status: &Map<String, Value>) -> bool {
    let Some(message) = status.get("message").and_then(Value::as_str) else { return false };
    let conditions = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    let mut failing = conditions.filter(|told| told.get("type").and_then(Value::as_str) == Some(PIPELINE_FAILING));
    let cause = failing.find_map(|told| told.get("message")?.as_str());
    message == PENDING || cause.is_some_and(|cause| condition::failing_in_short(cause) == message)
}

fn workflows_mut(status: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    status.get_mut("kratix")?.get_mut("workflows")?.as_object_mut()
}

/// Tells whether the list of pipelines has the one that ran; nothing when there is no list.
fn has_entry(status: &Map<String, Value>, pipeline: &str) -> Result<Option<bool>, Error> {
    let list = status.get("kratix").and_then(|kratix| kratix.get("workflows")?.get("pipelines")?.as_array());
    let Some(list) = list else { return Ok(None) };
    if let Some(index) = list.iter().position(|entry| !entry.is_object()) {
        return Err(Error::Parent(format!(
            "invalid pipeline status type at index {index} in status.kratix.workflows.pipelines"
        )));
    }
    Ok(Some(list.iter().any(|entry| entry["name"] == pipeline)))
}

fn entry<'a>(status: &'a mut Map<String, Value>, pipeline: &str) -> Option<&'a mut Map<String, Value>> {
    let list = workflows_mut(status)?.get_mut("pipelines")?.as_array_mut()?;
    list.iter_mut()
        .filter_map(Value::as_object_mut)
        .find(|entry| entry.get("name").is_some_and(|name| name == pipeline))
}

fn suspend(
    status: &mut Map<String, Value>,
    object: &Value,
    run: &Run,
    message: &str,
    retry_at: Option<Timestamp>,
) -> Result<(), Error> {
    let pipeline = &run.pipeline;
    let missing =
        |path: &str| Error::Parent(format!("missing {path} while marking pipeline {pipeline:?} as suspended"));
    let kratix = status.get("kratix").ok_or_else(|| missing("status.kratix"))?;
    let workflows = kratix.get("workflows").ok_or_else(|| missing("status.kratix.workflows"))?;
    workflows.get("pipelines").ok_or_else(|| missing("status.kratix.workflows.pipelines"))?;
    let not_found = || Error::Parent(format!("pipeline {pipeline:?} not found in status.kratix.workflows.pipelines"));
    let entry = entry(status, pipeline).ok_or_else(not_found)?;

    entry.insert("phase".to_owned(), json!(Phase::Suspended));
    match message {
        "" => drop(entry.remove("message")),
        message => drop(entry.insert("message".to_owned(), json!(message))),
    }
    match retry_at {
        Some(at) => {
            let attempts = entry.get("attempts").and_then(Value::as_i64).unwrap_or(0) + 1;
            entry.insert("attempts".to_owned(), json!(attempts));
            entry.insert("nextRetryAt".to_owned(), json!(condition::whole_seconds(at).to_string()));
        }
        None => ["attempts", "nextRetryAt"].iter().for_each(|key| drop(entry.remove(*key))),
    }
    let generation = object.pointer("/metadata/generation").cloned().unwrap_or(json!(0));
    if let Some(workflows) = workflows_mut(status) {
        workflows.insert("suspendedGeneration".to_owned(), generation);
    }
    Ok(())
}
