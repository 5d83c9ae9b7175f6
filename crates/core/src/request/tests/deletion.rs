use super::*;

pub(super) fn deleted(delete: &[&str]) -> World {
    let mut world = World::new(spec(&["build"], delete, ""));
    world.ask("a");
    world.play("a");
    world.delete("Env", &key("a"));
    world
}

pub(super) fn is_gone(world: &World, namespace: &str) -> bool {
    !world.objects.contains_key(&("Env".to_owned(), key(namespace)))
}

/// Returns the names of what is left that belongs to a request.
fn left(world: &World) -> Vec<String> {
    let kinds = ["Env", "Work", "Job", "ResourceBinding"];
    world.objects.keys().filter(|(kind, _)| kinds.contains(&kind.as_str())).map(|(kind, _)| kind.clone()).collect()
}

/// Returns what a request that is being deleted waits for.
pub(super) fn says(world: &World) -> String {
    Document::read(world.status("a")).condition(DELETING).map(|told| told.message).unwrap_or_default()
}

/// Brings a request into a state.
type State = (&'static str, fn(&mut World));

fn promise(world: &mut World, patch: Value) {
    world.change("Promise", &ObjectKey::cluster(PROMISE), patch);
}

fn unavailable() -> Value {
    json!({ "status": { "requiredPromises": [{ "name": "r", "state": "Requirement not installed" }] } })
}

const STATES: [State; 12] = [
    ("the first look has just been taken", |world| {
        let plan = world.decide("a");
        world.act(&plan);
    }),
    ("its version does not exist", |world| {
        world.settle("a");
        let binding = world.keys("ResourceBinding").remove(0);
        world.change("ResourceBinding", &binding, json!({ "spec": { "version": "v9" } }));
        world.settle("a");
        world.stop_jobs("a");
    }),
    ("running", |world| drop(world.settle("a"))),
    ("failed", |world| {
        world.settle("a");
        world.finish("a", Pod::Fails);
        world.settle("a");
    }),
    ("suspended", |world| {
        world.settle("a");
        world.finish("a", Pod::Suspends);
        world.settle("a");
    }),
    ("waiting for its next attempt", |world| {
        world.settle("a");
        world.finish("a", Pod::RetriesAfter(3600));
        world.settle("a");
    }),
    ("settled", |world| world.play("a")),
    ("settled and suspended by hand", |world| {
        world.play("a");
        world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
        world.settle("a");
    }),
    ("its required Promise is gone", |world| {
        world.play("a");
        promise(world, unavailable());
        world.settle("a");
    }),
    ("running, its required Promise is gone", |world| {
        world.settle("a");
        promise(world, unavailable());
        world.settle("a");
    }),
    ("its Promise goes as well", |world| {
        world.play("a");
        let now = world.now.to_string();
        promise(world, json!({ "metadata": { "deletionTimestamp": now, "finalizers": ["a/b"] } }));
        world.settle("a");
    }),
    ("about to run again because its Promise has changed", |world| {
        world.play("a");
        promise(world, json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": 1 } }));
        world.revise("not-set", spec(&["build", "test"], &["bye"], ""));
        world.settle("a");
    }),
];

#[test]
fn from_every_state_everything_goes_after_one_delete_workflow() {
    for (state, bring) in STATES {
        for namespace in ["", "pipes"] {
            let mut world = World::new(spec(&["build"], &["bye"], namespace));
            world.ask("a");
            bring(&mut world);
            world.delete("Env", &key("a"));
            let mut waited_for = Vec::new();
            for _ in 0..5 {
                world.settle("a");
                if is_gone(&world, "a") {
                    break;
                }
                waited_for.push(says(&world));
                world.finish("a", Pod::Succeeds);
            }
            assert_eq!(left(&world), Vec::<String>::new(), "{state}: {waited_for:?}");
            assert_eq!(world.count("PipelineStarted Delete Pipeline started: bye"), 1, "{state}");
            assert!(waited_for.iter().all(|told| told.starts_with("waits for ")), "{state}: {waited_for:?}");
        }
    }
}

#[test]
fn a_request_that_was_never_taken_in_goes_at_once() {
    let mut world = World::new(spec(&["build"], &["bye"], ""));
    promise(&mut world, unavailable());
    world.ask("a");
    world.settle("a");
    world.delete("Env", &key("a"));
    assert_eq!(left(&world), Vec::<String>::new());
    assert!(world.events.is_empty());
}

#[test]
fn a_deletion_that_cannot_go_on_says_what_is_to_be_mended() {
    let mut world = deleted(&["bye"]);
    let revision = ("PromiseRevision".to_owned(), ObjectKey::cluster(format!("{PROMISE}-not-set")));
    let kept = world.objects.remove(&revision).unwrap();
    world.settle("a");
    let cause = "cannot find a PromiseRevision for Promise env with version not-set: promise revision not found";
    assert_eq!(says(&world), format!("waits for this to be mended: {cause}"));
    world.objects.insert(revision.clone(), kept);
    let mut broken = spec(&[], &["bye"], "");
    broken["workflows"]["resource"]["delete"][0]["kind"] = "ConfigMap".into();
    world.revise("not-set", broken);
    world.settle("a");
    assert_eq!(world.told("a", DELETING), "True/InvalidPipeline");
    assert_eq!(world.count("InvalidPipeline "), 1);
    world.revise("not-set", spec(&["build"], &["bye"], ""));
    world.settle("a");
    assert_eq!(world.told("a", DELETING), "True/DeleteWorkflowRunning");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn a_delete_workflow_that_its_terminating_namespace_refuses_is_skipped_and_told() {
    let words = |namespace: &str| {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        format!("create of Job {namespace}/j failed: jobs.batch \"j\" is forbidden: {why}")
    };
    let kind = Kind::new("example.org", "v1", "Env", "envs");
    for (refusing, is_skipped) in [("a", true), ("pipes", false)] {
        let mut world = deleted(&["bye"]);
        let request: DynamicObject = typed(world.request("a"));
        let plan = refused(world.now, &kind, (&request, None), &words(refusing)).unwrap();
        world.act(&plan);
        assert_eq!(world.count("DeleteWorkflowSkipped"), usize::from(is_skipped));
        if is_skipped {
            world.settle("a");
            assert_eq!(left(&world), Vec::<String>::new());
            assert_eq!(world.count("PipelineStarted Delete Pipeline started"), 0);
        } else {
            // Pipelines may be given another namespace of that name.
            let told = says(&world);
            assert!(told.starts_with("waits for what was refused: create of Job pipes/j failed"), "{told}");
        }
    }
    // While it lives, a request is not released from anything.
    let mut world = World::new(spec(&["build"], &["bye"], ""));
    world.ask("a");
    world.settle("a");
    let request: DynamicObject = typed(world.request("a"));
    assert!(refused(world.now, &kind, (&request, None), &words("a")).unwrap().writes.is_empty());
}

#[test]
fn everything_goes_with_the_request() {
    let mut world = deleted(&[]);
    world.settle("a");
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn the_delete_workflow_runs_first_and_works_are_kept_until_it_is_done() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye"]);
    assert_eq!(world.keys("Work").len(), 1);
    assert_eq!(world.told("a", DELETING), "True/DeleteWorkflowRunning");
    let pipelines = &world.status("a")["kratix"]["workflows"]["pipelines"];
    assert_eq!(pipelines.as_array().unwrap().len(), 1);
    assert_eq!((&pipelines[0]["name"], &pipelines[0]["phase"]), (&json!("bye"), &json!("Running")));
    assert_eq!(world.status("a")["workflows"], 1);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert!(is_gone(&world, "a"));
    assert_eq!(world.count("PipelineStarted Delete Pipeline started: bye"), 1);
}

#[test]
fn a_failed_delete_workflow_settles_until_it_is_asked_to_run_again() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    world.wait(100_000);
    assert!(world.decide("a").is_silent());
    assert_eq!(world.told("a", "DeleteWorkflowCompleted"), "False/DeleteWorkflowFailed");
    assert_eq!(world.told("a", DELETING), "True/DeleteWorkflowFailed");
    assert_eq!(world.count("Failed Pipeline The Delete Pipeline has failed"), 1);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye", "bye"]);
    assert_eq!(world.told("a", "DeleteWorkflowCompleted"), "");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn a_changed_spec_waits_for_the_running_delete_job() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye"]);
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye", "bye"]);
}

#[test]
fn a_running_configure_job_is_waited_for_before_a_delete_workflow_and_stopped_without_one() {
    for delete in [&["bye"][..], &[]] {
        let mut world = World::new(spec(&["build"], delete, ""));
        world.ask("a");
        world.settle("a");
        world.delete("Env", &key("a"));
        world.settle("a");
        assert_eq!(world.ran("a"), ["build"]);
        let stopped = workflow::history::is_told_to_suspend(&world.running("a").unwrap());
        assert_eq!(stopped, delete.is_empty());
        let note = "PipelineSuspended Configure Pipeline suspended: build; the request is being deleted";
        assert_eq!(world.count(note), usize::from(stopped));
        let reason = if delete.is_empty() { "JobsRunning" } else { "DeleteWorkflowRunning" };
        assert_eq!(world.told("a", DELETING), format!("True/{reason}"));
        if delete.is_empty() {
            world.stop_jobs("a");
        } else {
            world.finish("a", Pod::Succeeds);
            world.settle("a");
            world.finish("a", Pod::Succeeds);
        }
        world.settle("a");
        assert_eq!(left(&world), Vec::<String>::new());
    }
}

#[test]
fn a_suspended_delete_workflow_holds_the_works() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    world.finish("a", Pod::Suspends);
    world.settle("a");
    assert_eq!(world.told("a", "DeleteWorkflowCompleted"), "False/DeleteWorkflowSuspended");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
    assert_eq!(world.keys("Work").len(), 1);
    world.label("a", keys::WORKFLOW_SUSPENDED, None);
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye", "bye"]);
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn a_suspended_deletion_says_what_it_waits_for_once_and_what_its_pipeline_has_said() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    world.finish("a", Pod::Suspends);
    world.settle("a");
    let label = "waits for label kratix.io/workflow-suspended to be removed";
    assert_eq!(says(&world), label);
    let mut status = world.status("a").clone();
    status["kratix"]["workflows"]["pipelines"][0]["message"] = "two volumes\nare still in use".into();
    world.change("Env", &key("a"), json!({ "status": status }));
    world.settle("a");
    assert_eq!(says(&world), format!("{label}: two volumes are still in use"));
}

/// §13.1: one more is normal while the next attempt runs.
#[test]
fn a_delete_pipeline_that_asks_again_and_again_leaves_no_heap_of_jobs() {
    let mut world = deleted(&["bye"]);
    world.config.number_of_jobs_to_keep = 2;
    world.settle("a");
    for _ in 0..6 {
        world.finish("a", Pod::RetriesAfter(1));
        world.settle("a");
        assert!(world.ran("a").iter().filter(|name| *name == "bye").count() <= 2);
        assert_eq!(world.told("a", "DeleteWorkflowCompleted"), "False/DeleteWorkflowSuspended");
        assert!(world.decide("a").is_silent());
        world.wait(2);
        world.settle("a");
        assert!(world.ran("a").iter().filter(|name| *name == "bye").count() <= 3);
    }
    assert_eq!(world.ran("a").iter().filter(|name| *name == "build").count(), 1, "those of the other action stay");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

/// §8.4 (1), §11.1
#[test]
fn a_manual_label_stops_the_configure_job_that_a_deletion_waits_for() {
    let mut world = World::new(spec(&["build"], &["bye"], ""));
    world.ask("a");
    world.settle("a");
    world.delete("Env", &key("a"));
    world.settle("a");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert!(workflow::history::is_told_to_suspend(&world.running("a").unwrap()));
    assert_eq!(world.request("a")["metadata"]["labels"][keys::MANUAL_RECONCILIATION], "true", "until it has an effect");
    assert!(says(&world).starts_with("waits for configure pipeline build to end (Job a/"), "{}", says(&world));
    world.stop_jobs("a");
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye"]);
    assert_eq!(world.request("a")["metadata"]["labels"].get(keys::MANUAL_RECONCILIATION), None);
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn a_request_suspended_while_configuring_is_released_by_its_deletion() {
    for delete in [&["bye"][..], &[]] {
        let mut world = World::new(spec(&["build"], delete, ""));
        world.ask("a");
        world.settle("a");
        world.finish("a", Pod::Suspends);
        world.settle("a");
        world.delete("Env", &key("a"));
        world.settle("a");
        if !delete.is_empty() {
            assert_eq!(world.ran("a"), ["build", "bye"]);
            world.finish("a", Pod::Succeeds);
            world.settle("a");
        }
        assert!(is_gone(&world, "a"));
    }
}

#[test]
fn a_suspension_set_by_hand_without_any_status_does_not_hold_a_deletion() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.ask("a");
    let plan = world.decide("a");
    world.act(&plan);
    world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
    world.delete("Env", &key("a"));
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn works_that_take_their_time_are_named_and_finalizers_of_done_steps_are_gone() {
    let mut world = deleted(&[]);
    let work = world.keys("Work")[0].clone();
    world.change("Work", &work, json!({ "metadata": { "finalizers": [keys::FINALIZER_WORK_CLEANUP] } }));
    world.settle("a");
    let document = Document::read(world.status("a"));
    let message = document.condition(DELETING).unwrap().message;
    assert_eq!(message, "waits for Works to be removed: a/env-x--build");
    assert_eq!(world.told("a", DELETING), "True/WorksRemaining");
    let finalizers = &world.request("a")["metadata"]["finalizers"];
    let expected = [FINALIZERS[0], FINALIZERS[1], FINALIZERS[3]];
    assert_eq!(finalizers, &json!(expected));
    assert_eq!(world.keys("Job").len(), 1);
    world.change("Work", &work, json!({ "metadata": { "finalizers": null } }));
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn jobs_of_both_label_schemes_are_waited_for_and_named() {
    let mut world = deleted(&[]);
    let held = json!({ "metadata": { "finalizers": ["example.org/mine"] } });
    let job = world.keys("Job").remove(0);
    world.change("Job", &job, held.clone());
    let early = json!({
        "kind": "Job", "status": { "conditions": [{ "type": "Complete", "status": "True" }] }, "metadata": {
            "name": "early", "namespace": "a", "labels": {
                keys::PROMISE_NAME: PROMISE, keys::RESOURCE_NAME: "x", keys::WORK_TYPE: "resource",
            },
        },
    });
    world.put(early, ObjectKey::namespaced("a", "early"));
    world.change("Job", &ObjectKey::namespaced("a", "early"), held);
    world.settle("a");
    let both = says(&world);
    assert!(both.starts_with("waits for Jobs to be removed: a/early, a/kratix-env-"), "{both}");
    world.change("Job", &job, json!({ "metadata": { "finalizers": null } }));
    world.settle("a");
    assert_eq!(says(&world), "waits for Jobs to be removed: a/early");
    assert_eq!(world.told("a", DELETING), "True/JobsRemaining");
    world.change("Job", &ObjectKey::namespaced("a", "early"), json!({ "metadata": { "finalizers": null } }));
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn a_binding_whose_removal_was_cut_short_is_named() {
    let mut world = World::new(spec(&[], &[], ""));
    world.ask("a");
    world.settle("a");
    let binding = world.keys("ResourceBinding").remove(0);
    world.delete("Env", &key("a"));
    world.crash_before = Some(world.writes.len() + 1);
    for _ in 0..2 {
        let plan = world.decide("a");
        world.act(&plan);
    }
    assert_eq!(says(&world), format!("waits for ResourceBindings to be removed: {binding}"));
    assert_eq!(world.told("a", DELETING), "True/ResourceBindingRemaining");
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn finalizers_of_others_are_left_alone() {
    let mut world = deleted(&[]);
    let mut finalizers: Vec<Value> = world.request("a")["metadata"]["finalizers"].as_array().unwrap().clone();
    finalizers.insert(1, "example.org/mine".into());
    world.change("Env", &key("a"), json!({ "metadata": { "finalizers": finalizers } }));
    world.settle("a");
    assert_eq!(world.request("a")["metadata"]["finalizers"], json!(["example.org/mine"]));
    assert_eq!(says(&world), "waits for finalizers of others: example.org/mine");
    assert_eq!(world.told("a", DELETING), "True/FinalizersRemaining");
    assert!(world.decide("a").is_silent());
}

#[test]
fn deleting_a_request_leaves_the_same_name_in_another_namespace_alone() {
    for namespace in ["", "pipes", "b"] {
        let mut world = World::new(spec(&["build"], &["bye"], namespace));
        for namespace in ["a", "b"] {
            world.ask(namespace);
            world.play(namespace);
        }
        let (jobs, works) = (world.jobs("b"), world.keys("Work").len());
        assert_eq!(works, 2, "{namespace}");
        world.delete("Env", &key("a"));
        world.settle("a");
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        assert!(is_gone(&world, "a"));
        assert_eq!(world.jobs("b"), jobs);
        assert_eq!(world.keys("Work").len(), 1, "{namespace}");
        assert!(world.decide("b").is_silent());
        assert!(world.jobs("a").is_empty());
    }
}

#[test]
fn works_in_a_shared_namespace_are_seen_by_their_request() {
    let mut world = World::new(spec(&["build"], &[], "pipes"));
    world.ask("a");
    world.play("a");
    world.place("Failing");
    world.settle("a");
    assert_eq!(world.told("a", "WorksSucceeded"), "False/WorksFailing");
}

#[test]
fn what_pipelines_left_in_an_earlier_namespace_goes_with_the_next_run_or_the_request() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.ask("a");
    world.play("a");
    world.revise("not-set", spec(&["build"], &[], "pipes"));
    world.play("a");
    let namespaces = |kind: &str| world.keys(kind).into_iter().filter_map(|key| key.namespace).collect::<Vec<_>>();
    assert_eq!(namespaces("Work"), ["pipes"]);
    assert_eq!(namespaces("Job"), ["pipes"]);
}

/// Both are in one namespace, and would be written to one place.
#[test]
fn the_work_of_before_goes_when_the_namespace_of_the_request_becomes_that_of_the_pipelines() {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.ask("a");
    world.play("a");
    let before = world.keys("Work");
    world.revise("not-set", spec(&["build"], &[], "a"));
    assert_eq!(world.keys("Work"), before, "without a successor it stays");
    world.play("a");
    let after = world.keys("Work");
    assert_eq!(after.len(), 1);
    assert_ne!(after, before);
}

/// Weakness 21: back again before the run was over, which would have removed what was there before.
#[test]
fn the_work_of_a_shared_namespace_goes_when_pipelines_run_beside_their_request_again() {
    let mut world = two_pipelines();
    world.play("a");
    let before = world.keys("Work");
    world.revise("not-set", spec(&["first", "second"], &[], "a"));
    world.settle("a");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!((before.len(), world.keys("Work").len()), (2, 3), "its first pipeline has two");
    world.revise("not-set", spec(&["first", "second"], &[], ""));
    world.play("a");
    assert_eq!(world.keys("Work"), before);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// Weakness 30: nothing runs beside the delete pipeline, not even the last pod of the one before.
#[test]
fn a_delete_pipeline_does_not_start_beside_the_last_pod_of_one_that_was_stopped() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    world.stop_jobs("a");
    world.change("Job", &job, json!({ "status": { "terminating": 1 } }));
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye"]);
    let look = format!("kubectl get pods -n a -l job-name={}", job.name);
    assert_eq!(says(&world), format!("waits for the last pod of Job {job} to end; {look}"));
    world.change("Job", &job, json!({ "status": { "terminating": 0 } }));
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye", "bye"]);
}

#[test]
fn without_its_promise_a_request_is_cleaned_up_and_its_delete_workflow_skipped() {
    let mut world = deleted(&["bye"]);
    world.objects.remove(&("Promise".to_owned(), ObjectKey::cluster(PROMISE)));
    world.settle("a");
    assert_eq!(left(&world), Vec::<String>::new());
    assert_eq!(world.count("DeleteWorkflowSkipped"), 1);
}

#[test]
fn only_what_ran_as_a_preview_runs_once_and_goes_without_its_delete_workflow() {
    let owner = (keys::DRY_RUN_OWNER, "preview");
    let dry = (keys::DRY_RUN, keys::TRUE);
    for (honoured, labels, is_skipped) in
        [(true, &[owner, dry][..], true), (true, &[owner], false), (true, &[dry], false), (false, &[owner, dry], false)]
    {
        let mut world = World::new(spec(&["build"], &["bye"], ""));
        world.config.dry_run = honoured;
        world.ask("a");
        for (label, value) in labels {
            world.label("a", label, Some(value));
        }
        world.play("a");
        assert_eq!(world.decide("a").next == Next::OnChange, is_skipped, "{honoured}, {labels:?}");
        world.delete("Env", &key("a"));
        world.settle("a");
        assert_eq!(is_gone(&world, "a"), is_skipped, "{honoured}, {labels:?}");
        assert_eq!(world.count("PipelineStarted Delete Pipeline started: bye"), usize::from(!is_skipped));
    }
}

#[test]
fn a_paused_request_is_not_deleted() {
    let mut world = deleted(&[]);
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    assert!(!is_gone(&world, "a"));
    assert_eq!(says(&world), "waits for label kratix.io/paused of the request to be removed");
    world.label("a", keys::PAUSED, None);
    world.settle("a");
    assert!(is_gone(&world, "a"));
}

#[test]
fn a_manual_label_stops_the_running_delete_job_and_starts_another() {
    let mut world = deleted(&["bye"]);
    world.settle("a");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(world.count("PipelineSuspended Delete Pipeline suspended: bye"), 1);
    world.stop_jobs("a");
    world.settle("a");
    assert_eq!(world.ran("a"), ["build", "bye", "bye"]);
}
