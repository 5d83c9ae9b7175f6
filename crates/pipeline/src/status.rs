//! What a pipeline's run means for the status of its object.
//!
//! # Source
//! `02-workflows.md` §14.5, §19.12, §19.31, §19.34–36

use kratix_api::condition::{self, CONFIGURE_WORKFLOW_COMPLETED, PIPELINE_FAILING};
use kratix_api::promise::Phase;
use kratix_api::{Action, Timestamp, WorkflowType};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::control::Control;

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

fn merge(status: &mut Map<String, Value>, mut incoming: Map<String, Value>, run: &Run, warnings: &mut Vec<String>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use kratix_api::Duration;

    fn now() -> Timestamp {
        "2026-01-01T10:00:00.9Z".parse().unwrap()
    }

    fn run(pipeline: &str) -> Run {
        Run {
            workflow: WorkflowType::Resource,
            action: Action::Configure,
            pipeline: pipeline.to_owned(),
            is_last: false,
            is_dry_run: false,
        }
    }

    fn object() -> Value {
        json!({"metadata": {"generation": 3}, "status": {
            "message": "Pending",
            "conditions": [
                {"type": "Reconciled", "status": "Unknown"},
                {"type": "Mine", "status": "False", "extra": 1},
            ],
            "kratix": {"workflows": {"pipelines": [
                {"name": "one", "phase": "Suspended", "attempts": 2, "nextRetryAt": "x", "message": "m", "lastTransitionTime": "t"},
                {"name": "two", "phase": "Pending"},
            ], "suspendedGeneration": 2}},
        }})
    }

    fn after(incoming: Value, control: &Control, run: &Run) -> Outcome {
        decide(&object(), check_incoming(Ok(incoming)).unwrap(), control, run, now()).unwrap()
    }

    #[test]
    fn incoming_keys_replace_whole_values_and_conditions_keep_their_order() {
        let incoming = json!({"url": {"a": 1}, "conditions": [
            {"type": "Mine", "status": "True"},
            {"type": "New", "status": "True"},
            {"status": "no type"},
            {"type": "Reconciled", "status": "True"},
        ]});
        let outcome = after(incoming, &Control::Continue, &run("one"));
        assert_eq!(
            outcome.status["conditions"],
            json!([
                {"type": "Reconciled", "status": "Unknown"},
                {"type": "Mine", "status": "True"},
                {"type": "New", "status": "True"},
            ])
        );
        assert_eq!(outcome.status["url"], json!({"a": 1}));
        assert_eq!(outcome.warnings.len(), 2);
        assert!(!outcome.suspends);
        let pipelines = &outcome.status["kratix"]["workflows"]["pipelines"];
        assert_eq!(pipelines[0], json!({"name": "one", "phase": "Running", "lastTransitionTime": "t"}));
        assert_eq!(outcome.status["message"], "Pending");
    }

    /// §19.35
    #[test]
    fn conditions_of_kratix_are_not_a_workflows_to_write() {
        for r#type in ["PipelineFailing", "Deleting", "Reconciled", "WorksSucceeded", "ConfigureWorkflowCompleted"] {
            let incoming = json!({"conditions": [{"type": r#type, "status": "True"}]});
            let outcome = after(incoming, &Control::Continue, &run("one"));
            assert_eq!(outcome.status["conditions"], object()["status"]["conditions"], "{type}");
            let warning = format!("Warning: condition {type} in status.yaml is left out, it is managed by Kratix");
            assert_eq!(outcome.warnings, [warning]);
        }
    }

    /// A manager that ends between the Job and the status leaves a Promise without one.
    #[test]
    fn the_first_status_of_a_promise_has_what_its_schema_requires() {
        let promise = Run { workflow: WorkflowType::Promise, ..run("one") };
        let outcome = decide(&json!({}), Map::new(), &Control::Continue, &promise, now()).unwrap();
        for counter in COUNTERS {
            assert_eq!(outcome.status[counter], 0, "{counter}");
        }
        let begun = json!({"status": {"workflows": 2, "workflowsSucceeded": 1, "workflowsFailed": 0}});
        let outcome = decide(&begun, Map::new(), &Control::Continue, &promise, now()).unwrap();
        assert_eq!((&outcome.status["workflows"], &outcome.status["workflowsSucceeded"]), (&json!(2), &json!(1)));
    }

    #[test]
    fn the_last_configure_pipeline_completes_the_workflow() {
        let last = Run { is_last: true, ..run("two") };
        let outcome = after(json!({}), &Control::Continue, &last);
        assert_eq!(outcome.status["message"], "Resource requested");
        assert_eq!(outcome.status["kratix"]["workflows"].get("suspendedGeneration"), None);
        assert_eq!(
            outcome.status["conditions"][2],
            json!({
                "type": "ConfigureWorkflowCompleted", "status": "True", "reason": "PipelinesExecutedSuccessfully",
                "message": "Pipelines completed", "lastTransitionTime": "2026-01-01T10:00:00Z",
            })
        );
        assert_eq!(after(json!({"message": "mine"}), &Control::Continue, &last).status["message"], "mine");
        let promise = Run { workflow: WorkflowType::Promise, ..last.clone() };
        assert_eq!(after(json!({}), &Control::Continue, &promise).status["message"], "Promise configured");
        let delete = Run { action: Action::Delete, ..last };
        let outcome = after(json!({}), &Control::Continue, &delete);
        assert_eq!(outcome.status["conditions"].as_array().unwrap().len(), 2);
        assert_eq!(outcome.status["message"], "Pending");
    }

    /// The last attempt has succeeded; that an earlier one has not is over.
    #[test]
    fn what_the_manager_says_of_a_failing_container_is_no_message_of_the_workflow() {
        let last = Run { is_last: true, ..run("two") };
        let about = "pipeline two: container a exited with code 1";
        let mut failing = object();
        let told =
            json!({ "type": PIPELINE_FAILING, "message": format!("{about}: no such table; kubectl logs -n a p -c a") });
        failing["status"]["conditions"].as_array_mut().unwrap().push(told);
        for (message, expected) in [(about, "Resource requested"), ("pipeline two: mine", "pipeline two: mine")] {
            failing["status"]["message"] = message.into();
            let outcome = decide(&failing, Map::new(), &Control::Continue, &last, now()).unwrap();
            assert_eq!(outcome.status["message"], expected);
        }
    }

    #[test]
    fn only_a_pipeline_that_is_to_be_held_needs_a_list_with_a_place_for_it() {
        let suspend = Control::Suspend { message: String::new() };
        let retry = Control::Retry { after: Duration::from_seconds(1), message: String::new() };
        let unlisted = json!({ "status": { "kratix": { "workflows": {} } } });
        let odd = json!({ "status": { "kratix": { "workflows": { "pipelines": [7] } } } });
        for control in [&suspend, &retry] {
            assert!(is_prepared(&object(), control, &run("one")));
            assert!(!is_prepared(&object(), control, &run("gone")));
            assert!(!is_prepared(&unlisted, control, &run("one")));
            assert!(!is_prepared(&json!({}), control, &run("one")));
            assert!(is_prepared(&odd, control, &run("one")), "waiting mends nothing");
        }
        assert!(is_prepared(&json!({}), &Control::Continue, &run("one")));
    }

    #[test]
    fn a_suspended_pipeline_says_why_and_when_it_is_run_again() {
        let last = Run { is_last: true, ..run("one") };
        let suspend = Control::Suspend { message: "approval".into() };
        let outcome = after(json!({}), &suspend, &last);
        assert!(outcome.suspends);
        let workflows = &outcome.status["kratix"]["workflows"];
        assert_eq!(workflows["suspendedGeneration"], 3);
        assert_eq!(
            workflows["pipelines"][0],
            json!({"name": "one", "phase": "Suspended", "message": "approval", "lastTransitionTime": "t"})
        );
        let retry = Control::Retry { after: Duration::from_seconds(600), message: String::new() };
        let entry = &after(json!({}), &retry, &last).status["kratix"]["workflows"]["pipelines"][0];
        assert_eq!(
            entry,
            &json!({"name": "one", "phase": "Suspended", "attempts": 3, "nextRetryAt": "2026-01-01T10:10:00Z", "lastTransitionTime": "t"})
        );
    }

    #[test]
    fn a_pipeline_that_left_the_workflow_does_not_complete_it_and_fails_if_it_is_to_be_held() {
        let gone = Run { is_last: true, ..run("gone") };
        let outcome = after(json!({"a": 1}), &Control::Continue, &gone);
        let mut expected = object()["status"].clone();
        expected["a"] = json!(1);
        assert_eq!(outcome.status, expected);
        assert!(!outcome.suspends);
        assert_eq!(outcome.warnings.len(), 1);
        let suspend = Control::Suspend { message: String::new() };
        let error = decide(&object(), Map::new(), &suspend, &gone, now()).unwrap_err();
        assert!(matches!(error, Error::Parent(_)), "{error}");
    }

    #[test]
    fn a_status_that_no_engine_prepared_is_completed_but_cannot_be_suspended() {
        let bare = json!({"metadata": {}});
        let last = Run { is_last: true, ..run("one") };
        let outcome = decide(&bare, Map::new(), &Control::Continue, &last, now()).unwrap();
        assert_eq!(outcome.status["conditions"][0]["status"], "True");
        let suspend = Control::Suspend { message: String::new() };
        let error = |status: Value| {
            decide(&json!({"status": status}), Map::new(), &suspend, &last, now()).unwrap_err().to_string()
        };
        assert_eq!(error(json!({})), r#"missing status.kratix while marking pipeline "one" as suspended"#);
        assert_eq!(
            error(json!({"kratix": {"workflows": {}}})),
            r#"missing status.kratix.workflows.pipelines while marking pipeline "one" as suspended"#
        );
        assert_eq!(
            error(json!({"kratix": {"workflows": {"pipelines": [7]}}})),
            "invalid pipeline status type at index 0 in status.kratix.workflows.pipelines"
        );
    }

    #[test]
    fn a_promise_workflow_sets_nothing_but_the_message() {
        let promise = Run { workflow: WorkflowType::Promise, ..run("one") };
        let outcome =
            after(json!({"message": "hello", "status": "Available", "version": "v9"}), &Control::Continue, &promise);
        assert_eq!(outcome.status["message"], "hello");
        assert_eq!(outcome.status.get("version"), None);
        assert_eq!(
            outcome.warnings,
            [
                "Warning: promise workflow status has unsupported keys: status, version in status.yaml; only 'message' can be updated in Promise status."
            ]
        );
    }

    #[test]
    fn a_preview_says_that_it_is_one() {
        let preview = Run { is_dry_run: true, is_last: true, ..run("two") };
        assert_eq!(after(json!({}), &Control::Continue, &preview).status["message"], "Dry run executed");
    }

    #[test]
    fn a_malformed_status_file_names_the_field() {
        let error = |document: Result<Value, String>| check_incoming(document).unwrap_err().to_string();
        let prefix = "failed to load incoming status: failed to unmarshal incoming status: status.yaml: ";
        assert_eq!(error(Err("bad".into())), format!("{prefix}bad"));
        assert_eq!(error(Ok(json!([1]))), format!("{prefix}a map is wanted"));
        assert_eq!(error(Ok(json!({"message": true}))), format!("{prefix}field message must be a text"));
        assert_eq!(error(Ok(json!({"conditions": {}}))), format!("{prefix}field conditions must be a list"));
        assert!(error(Ok(json!({"kratix": 1}))).contains("'kratix' is a kratix managed status field"));
    }
}
