use super::*;

fn world() -> World {
    World::new(spec(&["first", "second"], &[], ""))
}

#[test]
fn a_request_ends_with_the_status_of_the_reference() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.ask("a");
    world.play("a");
    let status = world.status("a");
    let told = |r#type| world.told("a", r#type);
    assert_eq!(told("ConfigureWorkflowCompleted"), "True/PipelinesExecutedSuccessfully");
    assert_eq!(told("Reconciled"), "True/Reconciled");
    assert_eq!(told("WorksSucceeded"), "True/WorksSucceeded");
    let types: Vec<_> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].clone()).collect();
    assert_eq!(types, ["ConfigureWorkflowCompleted", "Reconciled", "WorksSucceeded"]);
    assert_eq!(status["message"], "Resource requested");
    for (field, value) in [
        ("observedGeneration", json!(1)),
        ("workflows", json!(1)),
        ("workflowsSucceeded", json!(1)),
        ("workflowsFailed", json!(0)),
        ("promiseVersion", json!("not-set")),
        ("resourceBindingVersion", json!("latest")),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
    let last = &status["lastSuccessfulConfigureWorkflowTime"];
    assert!(last.is_string());
    assert_eq!(&status["kratix"]["workflows"]["lastSuccessfulConfigureWorkflowTime"], last);
    assert_eq!(status["kratix"]["workflows"]["pipelines"][0]["phase"], "Succeeded");
    assert_eq!(world.request("a")["metadata"]["finalizers"], json!(FINALIZERS));
    assert_eq!(world.request("a")["metadata"]["labels"], json!({ keys::PROMISE_NAME: PROMISE }));
    let binding = ObjectKey::namespaced("a", kratix_api::name::resource_binding("x", PROMISE));
    let binding = world.get("ResourceBinding", &binding);
    assert_eq!(binding["status"], json!({ "lastAppliedVersion": "not-set" }));
    assert_eq!(binding["metadata"].get("annotations"), None);
}

#[test]
fn a_happy_request_costs_few_writes_and_tells_each_event_once() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.ask("a");
    world.play("a");
    let supporting = |write: &&Write| {
        !["ServiceAccount", "ConfigMap", "Role", "RoleBinding"].contains(&write.address().0.kind.as_str())
    };
    let writes = world.writes.iter().filter(supporting).count();
    assert!(writes <= 7, "{:#?}", world.writes);
    assert_eq!(
        world.events,
        [
            format!(
                "BindingCreated Binding {} created for promise env version latest",
                world.keys("ResourceBinding")[0].name
            ),
            "ReconcileStarted reconciling resource request with promise revision env-not-set".into(),
            "PipelineStarted Configure Pipeline started: build".into(),
            "ResourceBindingVersionUpdated Resource binding version updated to latest".into(),
            "WorksSucceeded All works associated with this resource are ready".into(),
            "ReconcileSucceeded Successfully reconciled".into(),
        ]
    );
}

#[test]
fn a_settled_request_is_silent_and_looks_again_after_the_interval() {
    let mut world = world();
    world.ask("a");
    world.play("a");
    world.wait(100);
    let plan = world.decide("a");
    assert!(plan.is_silent());
    assert_eq!(plan.findings, [Finding::Reconciled]);
    let Next::After(next) = plan.next else { panic!() };
    assert!(next > Duration::from_secs(9 * 3600) && next <= Duration::from_secs(36_001), "{next:?}");
}

#[test]
fn pipelines_run_in_order_and_the_next_waits_for_the_record_of_the_last() {
    let mut world = world();
    world.ask("a");
    world.settle("a");
    assert_eq!(world.ran("a"), ["first"]);
    world.finish("a", Pod::Succeeds);
    let plan = world.decide("a");
    assert!(plan.writes.is_empty(), "{:?}", plan.writes);
    world.act(&plan);
    assert_eq!(world.status("a")["workflowsSucceeded"], 1);
    world.settle("a");
    assert_eq!(world.ran("a"), ["first", "second"]);
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowPending");
}

#[test]
fn a_completed_job_beside_an_old_parent_does_not_hide_that_the_pipeline_suspended() {
    let mut world = world();
    world.ask("a");
    world.settle("a");
    world.finish("a", Pod::Suspends);
    // The request as it was before its status-writer ran, the Job as it is now.
    let now = world.clone();
    let mut request = world.request("a").clone();
    request["metadata"]["labels"].as_object_mut().unwrap().remove(keys::WORKFLOW_SUSPENDED);
    request["metadata"]["resourceVersion"] = "1".into();
    request["status"]["kratix"]["workflows"]["pipelines"][0]["phase"] = "Running".into();
    world.objects.insert(("Env".into(), key("a")), request);
    let plan = world.decide("a");
    let mut world = now;
    world.act(&plan);
    world.settle("a");
    assert_eq!(world.ran("a"), ["first"]);
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
}

#[test]
fn reconciled_is_never_told_before_the_works_of_this_run_are_there_and_written() {
    // Whatever the clock of the node says: the Work tells which Job wrote it.
    for node_clock_ahead in [0, 3600, -3600] {
        let mut world = world();
        world.node_clock_ahead = node_clock_ahead;
        world.ask("a");
        world.play("a");
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled", "{node_clock_ahead}");
        world.wait(5);
        world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
        world.settle("a");
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        // The Work of the second pipeline is still the one of the first run: its watch event is late.
        let stale = world.objects.clone();
        world.finish("a", Pod::Succeeds);
        let arrived = world.objects.clone();
        let replace = |world: &mut World, objects: BTreeMap<(String, ObjectKey), Value>| {
            world.objects.extend(objects.into_iter().filter(|((kind, _), _)| kind == "Work"));
        };
        replace(&mut world, stale);
        world.place("Ready");
        world.settle("a");
        assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "True/PipelinesExecutedSuccessfully");
        assert_eq!(world.told("a", "Reconciled"), "Unknown/WorksPending", "{node_clock_ahead}");
        replace(&mut world, arrived);
        world.place("Pending");
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "Unknown/WorksPending");
        world.place("Ready");
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
        assert_eq!(world.count("ReconcileSucceeded Successfully"), 2);
    }
}

#[test]
fn works_of_the_original_are_told_from_older_ones_by_their_time() {
    let mut world = world();
    world.ask("a");
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    for work in world.keys("Work") {
        world.change("Work", &work, json!({ "metadata": { "annotations": null } }));
    }
    world.place("Ready");
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn numbers_of_jobs_that_somebody_removed_are_not_given_again_while_their_works_are_there() {
    let mut world = world();
    world.ask("a");
    world.play("a");
    for job in world.keys("Job") {
        world.objects.remove(&("Job".to_owned(), job));
    }
    world.settle("a");
    assert_eq!(workflow::history::sequence(&world.running("a").unwrap()), 3);
}

#[test]
fn works_move_between_all_states_and_names_are_kept_up_to_date() {
    let mut world = world();
    world.ask("a");
    world.play("a");
    for (message, works, reconciled) in [
        ("Pending", "Unknown/WorksPending", "Unknown/WorksPending"),
        ("Failing", "False/WorksFailing", "False/WorksFailing"),
        ("Misplaced", "False/WorksMisplaced", "False/WorksFailing"),
        ("Failing", "False/WorksFailing", "False/WorksFailing"),
        ("Ready", "True/WorksSucceeded", "True/Reconciled"),
    ] {
        world.place(message);
        world.settle("a");
        assert_eq!(world.told("a", "WorksSucceeded"), works);
        assert_eq!(world.told("a", "Reconciled"), reconciled);
    }
    world.place("Failing");
    let first = world.keys("Work")[0].clone();
    let ready = json!([{ "type": "Ready", "status": "True", "reason": "R", "message": "Ready" }]);
    world.settle("a");
    world.change("Work", &first, json!({ "status": { "conditions": ready } }));
    world.settle("a");
    let document = Document::read(world.status("a"));
    let message = document.condition("WorksSucceeded").unwrap().message;
    assert_eq!(message, "Some works associated with this resource failed: [env-x--second]");
    assert_eq!(world.count("WorksMisplaced"), 1);
}

#[test]
fn a_failed_pipeline_is_told_once_and_a_fixed_spec_clears_the_failure() {
    let mut world = world();
    world.ask("a");
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    world.settle("a");
    assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "False/ConfigureWorkflowFailed");
    assert_eq!(world.told("a", "Reconciled"), "False/ConfigureWorkflowFailed");
    assert_eq!(world.status("a")["workflowsFailed"], 1);
    assert_eq!(world.status("a")["kratix"]["workflows"]["pipelines"][0]["phase"], "Failed");
    assert_eq!(world.count("ConfigureWorkflowFailed A resource/configure Pipeline has failed: first"), 1);
    world.change("Env", &key("a"), json!({ "spec": { "size": "fixed" } }));
    world.play("a");
    assert_eq!(world.status("a")["workflowsFailed"], 0);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn without_pipelines_a_request_is_reconciled_and_labels_do_not_stick() {
    let mut world = World::new(spec(&[], &[], ""));
    world.ask("a");
    world.change("Env", &key("a"), json!({ "status": { "message": "Pending" } }));
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(world.told("a", "WorksSucceeded"), "True/WorksSucceeded");
    assert_eq!(world.status("a").get("message"), None);
    assert_eq!(world.status("a")["workflows"], 0);
    assert_eq!(world.status("a")["kratix"]["workflows"]["pipelines"], json!([]));
    assert_eq!(world.status("a")["promiseVersion"], "not-set");
    assert_eq!(world.request("a")["metadata"]["labels"].get(keys::MANUAL_RECONCILIATION), None);
    assert!(world.jobs("a").is_empty());
}

#[test]
fn odd_values_in_a_status_are_survived_and_users_fields_are_kept() {
    let mut world = world();
    world.ask("a");
    let odd = json!({
        "promiseVersion": 1, "workflows": "x", "conditions": [3, { "type": "Mine", "more": true }],
        "kratix": { "workflows": { "pipelines": { "a": 1 } } }, "endpoint": { "url": "u" }, "message": 7,
    });
    world.change("Env", &key("a"), json!({ "status": odd }));
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(world.status("a")["endpoint"]["url"], "u");
    let conditions = world.status("a")["conditions"].as_array().unwrap();
    assert!(conditions.contains(&json!({ "type": "Mine", "more": true })));
    assert_eq!(world.status("a")["promiseVersion"], "not-set");
}

#[test]
fn works_and_jobs_of_a_removed_pipeline_go_when_the_workflow_is_done() {
    let mut world = world();
    world.ask("a");
    world.play("a");
    assert_eq!(world.keys("Work").len(), 2);
    world.revise("not-set", spec(&["second"], &[], ""));
    world.play("a");
    let names: Vec<_> = world.keys("Work").into_iter().map(|key| key.name).collect();
    assert_eq!(names, ["env-x--second"]);
    assert_eq!(world.ran("a"), ["second", "second"]);
}

#[test]
fn the_newest_jobs_of_each_pipeline_are_kept() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.config.number_of_jobs_to_keep = 2;
    world.ask("a");
    world.play("a");
    for _ in 0..4 {
        world.wait(10);
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.play("a");
    }
    let sequences: Vec<_> = world.jobs("a").iter().map(workflow::history::sequence).collect();
    assert_eq!(sequences, [4, 5]);
}

#[test]
fn jobs_of_the_original_are_believed_and_nothing_runs_again() {
    let mut world = world();
    world.ask("a");
    world.play("a");
    for job in world.keys("Job") {
        let annotations = json!({ workflow::SEQUENCE: null, workflow::RUN: null, workflow::PROMISE_GENERATION: null });
        world.change("Job", &job, json!({ "metadata": { "annotations": annotations } }));
    }
    // Of equal age: the name decides, so make the order explicit as a second of difference would.
    let last = world.keys("Job").into_iter().find(|job| job.name.contains("second")).unwrap();
    let later = world.now.to_string();
    world.change("Job", &last, json!({ "metadata": { "creationTimestamp": later } }));
    assert!(world.decide("a").is_silent());
    let mut early = world.clone();
    for job in early.keys("Job") {
        early.change("Job", &job, json!({ "metadata": { "annotations": null } }));
    }
    assert!(early.decide("a").is_silent(), "early versions wrote no annotations at all");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    assert_eq!(world.jobs("a").len(), 4);
}

#[test]
fn a_name_that_another_parents_job_has_is_passed_over() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.ask("a");
    world.settle("a");
    let mut taken = world.clone();
    let (id, mut job) =
        world.objects.iter().find(|((kind, _), _)| kind == "Job").map(|(id, job)| (id.clone(), job.clone())).unwrap();
    job["metadata"]["annotations"][keys::JOB_RESOURCE_NAME] = "y".into();
    job["metadata"]["resourceVersion"] = "another".into();
    job["metadata"]["labels"][keys::RESOURCE_NAME] = "y".into();
    job["metadata"]["ownerReferences"][0]["name"] = "y".into();
    taken.objects.insert(id, job);
    taken.settle("a");
    let jobs = taken.jobs("a");
    assert_eq!(jobs.len(), 2);
    assert_eq!(workflow::history::sequence(&jobs[1]), 2);
}

#[test]
fn a_refused_removal_of_a_surplus_job_comes_to_rest_and_is_made_up_for() {
    let mut world = World::new(spec(&["first"], &[], ""));
    world.config.number_of_jobs_to_keep = 1;
    world.ask("a");
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    while world.running("a").is_none() {
        let plan = world.decide("a");
        world.act(&plan);
    }
    world.finish("a", Pod::Fails);
    let is_removal = |write: &Write| matches!(write, Write::Delete { target } if target.kind.kind == "Job");
    let rests = (0..10).any(|_| {
        let plan = world.decide("a");
        let Some(at) = plan.writes.iter().position(is_removal) else {
            world.act(&plan);
            return false;
        };
        let kind = Kind::new("example.org", "v1", "Env", "envs");
        let request: DynamicObject = typed(world.request("a"));
        let refused = refused(world.now, &kind, (&request, None), "delete of Job failed: forbidden").unwrap();
        world.act(&refused);
        at == 0 && refused.is_silent()
    });
    assert!(rests, "{:#?}", world.decide("a"));
    assert_eq!(world.told("a", "Reconciled"), "False/WriteRefused");
    assert_eq!(world.count("ConfigureWorkflowFailed A resource/configure Pipeline has failed: first"), 2);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "False/ConfigureWorkflowFailed");
    assert_eq!(world.ran("a").len(), 1);
}
