use super::incoming::RESERVED_KEYS;
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

/// 04 §28.12
#[test]
fn what_tells_kratix_of_versions_and_turns_is_not_a_workflows_to_write() {
    for key in RESERVED_KEYS {
        let outcome = after(json!({ key: "v9", "mine": 1 }), &Control::Continue, &run("one"));
        assert_eq!(
            (&outcome.status["mine"], outcome.status.get(key)),
            (&json!(1), object()["status"].get(key)),
            "{key}"
        );
        assert_eq!(outcome.warnings, [format!("Warning: {key} in status.yaml is left out, it is managed by Kratix")]);
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
    let error =
        |status: Value| decide(&json!({"status": status}), Map::new(), &suspend, &last, now()).unwrap_err().to_string();
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
