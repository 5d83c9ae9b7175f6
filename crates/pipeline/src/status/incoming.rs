//! What a workflow may put into the status of its object.
//!
//! # Source
//! `02-workflows.md` §14.5, §19.35, §19.36

use kratix_api::WorkflowType;
use kratix_api::condition::{self, CONFIGURE_WORKFLOW_COMPLETED, PIPELINE_FAILING};
use serde_json::{Map, Value};

use super::Run;
use crate::Error;

/// Conditions that only Kratix writes; a workflow's own are kept beside them.
const RESERVED_CONDITIONS: [&str; 8] = [
    CONFIGURE_WORKFLOW_COMPLETED,
    condition::DELETE_WORKFLOW_COMPLETED,
    condition::WORKS_SUCCEEDED,
    condition::RECONCILED,
    condition::PROMISE_AVAILABLE,
    condition::REQUIREMENTS_FULFILLED,
    PIPELINE_FAILING,
    "Deleting",
];

/// Fields of a request's status that only Kratix writes: which version is to be torn down, and whether its turn has come, is read
/// from them. A workflow's own would be overwritten with the next success.
pub(super) const RESERVED_KEYS: [&str; 7] = [
    "observedGeneration",
    "promiseVersion",
    "resourceBindingVersion",
    "lastSuccessfulConfigureWorkflowTime",
    "workflows",
    "workflowsSucceeded",
    "workflowsFailed",
];

/// Checks what a pipeline wrote to `status.yaml`.
///
/// # Errors
/// [`Error::Status`] naming the field.
pub fn check_incoming(document: Result<Value, String>) -> Result<Map<String, Value>, Error> {
    let invalid = |cause: &str| Error::Status(format!("failed to unmarshal incoming status: status.yaml: {cause}"));
    let map = match document.map_err(|cause| invalid(&cause))? {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(invalid("a map is wanted")),
    };
    if map.contains_key("kratix") {
        return Err(Error::Status(
            "'kratix' is a kratix managed status field that cannot be updated via workflows; remove update to 'kratix' \
             from the '/kratix/metadata/status.yaml' file"
                .to_owned(),
        ));
    }
    if map.get("message").is_some_and(|message| !message.is_string()) {
        return Err(invalid("field message must be a text"));
    }
    if map.get("conditions").is_some_and(|conditions| !conditions.is_array()) {
        return Err(invalid("field conditions must be a list"));
    }
    Ok(map)
}

/// Puts what a workflow has left into the status: whole top-level keys, but for conditions.
pub(super) fn merge(
    status: &mut Map<String, Value>,
    mut incoming: Map<String, Value>,
    run: &Run,
    warnings: &mut Vec<String>,
) {
    if run.workflow == WorkflowType::Promise {
        let other: Vec<String> = incoming.keys().filter(|key| *key != "message").cloned().collect();
        if !other.is_empty() {
            warnings.push(format!(
                "Warning: promise workflow status has unsupported keys: {} in status.yaml; only 'message' can be updated in \
                 Promise status.",
                other.join(", ")
            ));
        }
        incoming.retain(|key, _| key == "message");
    }
    for (key, value) in incoming {
        if RESERVED_KEYS.contains(&key.as_str()) {
            warnings.push(format!("Warning: {key} in status.yaml is left out, it is managed by Kratix"));
            continue;
        }
        let value = match value {
            Value::Array(conditions) if key == "conditions" => {
                merged_conditions(status.get(&key), conditions, warnings)
            }
            other => other,
        };
        status.insert(key, value);
    }
}

/// Puts a workflow's conditions among the existing ones: in place when the type is there, behind otherwise.
fn merged_conditions(existing: Option<&Value>, incoming: Vec<Value>, warnings: &mut Vec<String>) -> Value {
    let mut merged = existing.and_then(Value::as_array).cloned().unwrap_or_default();
    for condition in incoming {
        let Some(r#type) = condition.get("type").and_then(Value::as_str).map(str::to_owned) else {
            warnings.push("Warning: a condition without type in status.yaml is left out".to_owned());
            continue;
        };
        if RESERVED_CONDITIONS.contains(&r#type.as_str()) {
            warnings.push(format!("Warning: condition {type} in status.yaml is left out, it is managed by Kratix"));
            continue;
        }
        match merged.iter_mut().find(|old| old.get("type").and_then(Value::as_str) == Some(&r#type)) {
            Some(old) => *old = condition,
            None => merged.push(condition),
        }
    }
    Value::Array(merged)
}
