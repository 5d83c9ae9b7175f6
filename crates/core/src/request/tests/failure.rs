//! What a request says of containers that do not get on, from the first sign to the end of it.

use super::*;
use crate::workflow::failure::PIPELINE_FAILING;

/// Adds a pod of the running Job, or replaces it.
pub(super) fn pod(world: &mut World, name: &str, status: Value) {
    let job = world.running("a").expect("a Job runs");
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "controller": true, "name": job.name_any(), "uid": job.uid() });
    let metadata = json!({ "name": name, "namespace": "a", "ownerReferences": [owner] });
    world.put(json!({ "kind": "Pod", "metadata": metadata, "status": status }), ObjectKey::namespaced("a", name));
}

pub(super) fn ended(container: &str, code: i32, message: &str) -> Value {
    let terminated = json!({ "exitCode": code, "reason": "Error", "message": message });
    json!({ "phase": "Failed", "initContainerStatuses": [{
        "name": container, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": terminated },
    }]})
}

pub(super) fn waiting(reason: &str, message: &str) -> Value {
    json!({ "phase": "Pending", "initContainerStatuses": [{
        "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": reason, "message": message } },
    }]})
}

pub(super) fn told(world: &World) -> String {
    let condition = Document::read(world.status("a")).condition(PIPELINE_FAILING);
    condition.map(|told| format!("{}/{}/{}", told.status, told.reason, told.message)).unwrap_or_default()
}

/// Returns a world in which the first pipeline of the request runs.
pub(super) fn running(delete: &[&str]) -> World {
    let mut world = World::new(spec(&["first", "second"], delete, ""));
    world.ask("a");
    world.settle("a");
    world
}

pub(super) fn backoff_limit(world: &World) -> Option<i32> {
    world.running("a").expect("a Job runs").spec.unwrap().backoff_limit
}

/// Issue "bad input": as early as it is known; §6.3 and §17 keep their words.
#[test]
fn a_container_that_fails_is_told_while_its_job_still_tries() {
    let mut world = running(&[]);
    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    let text = "pipeline first: container a exited with code 1; kubectl logs -n a p1 -c a";
    assert_eq!(told(&world), format!("True/ContainerFailed/{text}"));
    assert_eq!(world.count(&format!("ContainerFailed {text}")), 1);
    assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "False/PipelinesInProgress");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowPending");
    assert_eq!(backoff_limit(&world), None, "it is tried again");

    // The next attempt fails in the same way: the command leads to the newer pod, and nobody is told again.
    world.wait(10);
    pod(&mut world, "p2", ended("a", 1, ""));
    world.settle("a");
    assert!(told(&world).ends_with("kubectl logs -n a p2 -c a"));
    assert_eq!(world.count("ContainerFailed"), 1);
    world.wait(10);
    pod(&mut world, "p3", ended("a", 2, ""));
    world.settle("a");
    assert_eq!(world.count("ContainerFailed"), 2, "another cause is told");
}

#[test]
fn what_was_wrong_is_over_when_the_pipeline_has_succeeded() {
    let mut world = running(&[]);
    pod(&mut world, "p1", waiting("ImagePullBackOff", "Back-off pulling image \"i\": not found"));
    world.settle("a");
    assert_eq!(
        told(&world),
        "True/ImageUnavailable/pipeline first: image i of container a cannot be had: not found; kubectl describe pod -n a p1"
    );
    // The image has come.
    pod(&mut world, "p1", waiting("PodInitializing", ""));
    world.settle("a");
    assert_eq!(told(&world), "");

    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    assert_ne!(told(&world), "");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.settle("a");
    assert_ne!(told(&world), "", "that a pod is not seen any more says nothing about it");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(told(&world), "");
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// What nobody but the condition repeats: counters, times and names that differ from attempt to attempt.
#[test]
fn a_cause_is_told_once_whatever_the_words_of_others_about_it() {
    let mut world = running(&[]);
    let unscheduled = |text: &str| {
        let condition =
            json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text });
        json!({ "phase": "Pending", "conditions": [condition] })
    };
    for nodes in 3..9 {
        pod(&mut world, "p1", unscheduled(&format!("0/{nodes} nodes are available")));
        world.settle("a");
        assert!(told(&world).contains(&format!(": 0/{nodes} nodes are available; kubectl describe pod")));
    }
    assert_eq!(world.count("PodUnschedulable"), 1);
    for back_off in ["10s", "20s"] {
        pod(&mut world, "p1", waiting("CreateContainerError", &format!("back-off {back_off} making c-{back_off}")));
        world.settle("a");
        assert!(told(&world).contains(back_off));
    }
    assert_eq!(world.count("ContainerNotStarted"), 1);
    // It was told in full: that it is only hinted at now is no news.
    let in_full = told(&world);
    pod(&mut world, "p1", waiting("CreateContainerError", ""));
    world.settle("a");
    assert_eq!(told(&world), in_full);
    pod(&mut world, "p1", unscheduled("0/1 nodes are available"));
    world.settle("a");
    assert_eq!(world.count("PodUnschedulable"), 2, "another cause has been told since");
}

#[test]
fn nothing_is_failing_any_more_once_the_delete_workflow_is_done() {
    let mut world = World::new(spec(&["first"], &["undo"], ""));
    world.ask("a");
    world.play("a");
    world.delete("Env", &key("a"));
    world.settle("a");
    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    assert_ne!(told(&world), "");
    for work in world.keys("Work") {
        world.change("Work", &work, json!({ "metadata": { "finalizers": ["a/b"] } }));
    }
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Succeeds);
    world.settle("a");
    assert_eq!(world.told("a", DELETING), "True/WorksRemaining");
    assert_eq!(told(&world), "");
}

#[test]
fn nothing_is_failing_where_no_pipeline_is_left() {
    let mut world = running(&[]);
    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    assert_ne!(told(&world), "");
    world.revise("not-set", spec(&[], &[], ""));
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(told(&world), "");
    assert!(world.decide("a").is_silent());
}

/// §19.39: no attempt is spent on what cannot change.
#[test]
fn a_job_whose_repetition_is_useless_is_ended_at_once() {
    let mut world = running(&[]);
    pod(&mut world, "p1", ended("a", 65, "mine"));
    world.settle("a");
    assert_eq!(backoff_limit(&world), None, "what a container of the pipeline means by 65 is its own business");
    pod(&mut world, "p1", ended("work-writer", 65, "invalid directory: .."));
    world.settle("a");
    assert_eq!(backoff_limit(&world), Some(0));
    assert_eq!(
        told(&world),
        "True/InvalidOutput/pipeline first: container work-writer refuses what the pipeline has left: invalid directory: ..; \
         kubectl logs -n a p1 -c work-writer"
    );
    assert_eq!(world.count("InvalidOutput"), 1);
    let patches = world.writes.iter().filter(|write| write.address().0.kind == "Job").count();
    assert_eq!(patches, 2, "made once, ended once");

    // Its pod goes with it; what was told stays until the next run.
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(world.told("a", "ConfigureWorkflowCompleted"), "False/ConfigureWorkflowFailed");
    assert!(told(&world).starts_with("True/InvalidOutput/"));
    assert_eq!(world.count("InvalidOutput"), 1);
    world.change("Env", &key("a"), json!({ "spec": { "size": "fixed" } }));
    world.settle("a");
    assert_eq!(told(&world), "");
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

/// Kubernetes may begin another attempt before it knows that it is to make none.
#[test]
fn what_was_refused_stays_told_once_whatever_the_pods_of_its_job_do_next() {
    let mut world = running(&[]);
    world.wait(5);
    pod(&mut world, "p1", ended("status-writer", 65, "status.yaml is malformed"));
    world.settle("a");
    let refused = told(&world);
    assert!(refused.starts_with("True/InvalidOutput/"), "{refused}");
    // The pod is gone, another one has begun, and ends in another way.
    world.objects.retain(|(kind, _), _| kind != "Pod");
    pod(&mut world, "p2", json!({ "phase": "Pending" }));
    world.settle("a");
    assert_eq!(told(&world), refused);
    pod(&mut world, "p2", ended("a", 1, ""));
    world.settle("a");
    assert_eq!(told(&world), refused);
    pod(&mut world, "p3", ended("status-writer", 65, "status.yaml is malformed"));
    world.wait(1);
    world.settle("a");
    world.objects.retain(|(kind, address), _| kind != "Pod" || address.name == "p2");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert!(told(&world).starts_with("True/InvalidOutput/"), "{}", told(&world));
    assert_eq!((world.count("InvalidOutput"), world.count("ContainerFailed")), (1, 0));

    // It is over with the next Job, also when the write that says so was lost.
    world.wait(10);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert_eq!(told(&world), "");
    let stale = Document::read(world.status("a"));
    let mut stale = stale.clone();
    let long_ago = Timestamp::from_second(1_800_000_000).unwrap();
    stale.set_condition(PIPELINE_FAILING, condition::Status::True, "InvalidOutput", "of an earlier Job", long_ago);
    world.change("Env", &key("a"), json!({ "status": stale.into_value() }));
    pod(&mut world, "p4", json!({ "phase": "Pending" }));
    world.settle("a");
    assert_eq!(told(&world), "");
    assert_eq!(backoff_limit(&world), None, "what was said of another Job does not end this one");
}

#[test]
fn a_job_that_can_make_no_pod_says_why_until_it_can() {
    let mut world = running(&[]);
    world.refusal = Some("Error creating: pods \"x\" is forbidden: exceeded quota: small".into());
    world.settle("a");
    let job = world.running("a").unwrap().name_any();
    assert_eq!(
        told(&world),
        format!(
            "True/PodRefused/pipeline first: no pod can be made: pods \"x\" is forbidden: exceeded quota: small; kubectl describe \
             job -n a {job}"
        )
    );
    pod(&mut world, "p1", json!({ "phase": "Pending" }));
    world.settle("a");
    assert_eq!(told(&world), "");
}

#[test]
fn a_job_that_has_failed_without_a_pod_says_what_it_knows() {
    let gone = " (the pod is gone, and its log; restartPolicy: Never keeps it)";
    for (reason, text, told_as, hint) in [
        ("DeadlineExceeded", "Job was active longer than specified deadline", "DeadlineExceeded", ""),
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit", "JobFailed", gone),
    ] {
        let mut world = running(&[]);
        let job = ObjectKey::of(&world.running("a").unwrap());
        let condition = json!({ "type": "Failed", "status": "True", "reason": reason, "message": text });
        world.change("Job", &job, json!({ "status": { "conditions": [condition] } }));
        world.settle("a");
        let command = format!("kubectl describe job -n a {}{hint}", job.name);
        let cause = format!("pipeline first: Job {job} has failed: {text}; {command}");
        assert_eq!(told(&world), format!("True/{told_as}/{cause}"));
        assert_eq!(world.count(&format!("{told_as} {cause}")), 1);
        assert!(world.decide("a").is_silent());
        world.label("a", "example.org/note", Some("another pass"));
        world.settle("a");
        assert_eq!(world.count(told_as), 1, "nobody is told again");
    }
}

#[test]
fn that_a_job_has_failed_is_told_once_its_pod_can_tell_no_more() {
    let fails = |world: &mut World| {
        let job = ObjectKey::of(&world.running("a").unwrap());
        let condition =
            json!({ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit" });
        world.change("Job", &job, json!({ "status": { "conditions": [condition], "failed": 1, "active": null } }));
        world.settle("a");
        job
    };
    let runs = json!({ "phase": "Running", "initContainerStatuses": [{
        "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "running": {} },
    }]});
    // Somebody has deleted the pod, and it goes without a word.
    let mut world = running(&[]);
    pod(&mut world, "p1", runs.clone());
    let going = json!({ "deletionTimestamp": world.now.to_string(), "finalizers": ["a/b"] });
    world.change("Pod", &ObjectKey::namespaced("a", "p1"), json!({ "metadata": going }));
    let job = fails(&mut world);
    let cause = format!("pipeline first: Job {job} has failed while container a ran: limit");
    let command = format!("kubectl describe job -n a {}", job.name);
    assert_eq!(told(&world), format!("True/JobFailed/{cause}; {command}"));
    assert_eq!(world.count("JobFailed"), 0);
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.settle("a");
    let text = format!("{cause}; {command} (the pod is gone, and its log; restartPolicy: Never keeps it)");
    assert_eq!(told(&world), format!("True/JobFailed/{text}"));
    assert_eq!((world.count(&format!("JobFailed {text}")), world.count("JobFailed")), (1, 1));
    assert!(world.decide("a").is_silent());

    // What the Job tells comes before what its pod tells.
    let mut world = running(&[]);
    pod(&mut world, "p1", runs);
    fails(&mut world);
    assert!(told(&world).starts_with("True/JobFailed/"), "{}", told(&world));
    let ended = json!({ "status": ended("a", 1, "no such table") });
    world.change("Pod", &ObjectKey::namespaced("a", "p1"), ended);
    world.settle("a");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.settle("a");
    assert!(told(&world).starts_with("True/ContainerFailed/"), "{}", told(&world));
    assert_eq!((world.count("JobFailed"), world.count("ContainerFailed")), (0, 1));
}

/// Lets the running Job fail as the Job controller does when there are no attempts left: its pods go with it.
fn give_up(world: &mut World) {
    let job = ObjectKey::of(&world.running("a").unwrap());
    let condition = json!({ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit" });
    world.change("Job", &job, json!({ "status": { "conditions": [condition], "failed": 1, "active": null } }));
    world.settle("a");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.settle("a");
}

/// The issue asks for the log command: at rest one that works, with the default policy as well.
#[test]
fn the_command_that_stays_told_leads_to_what_is_left() {
    let cause = "True/ContainerFailed/pipeline first: container a exited with code 1: no such table";
    for (policy, hint) in [("", "; restartPolicy: Never keeps it"), ("Never", "")] {
        let mut own = spec(&["first"], &[], "");
        own["workflows"]["resource"]["configure"][0]["spec"]["restartPolicy"] = policy.into();
        let mut world = World::new(own);
        world.ask("a");
        world.settle("a");
        pod(&mut world, "p1", ended("a", 1, "no such table"));
        world.settle("a");
        assert_eq!(told(&world), format!("{cause}; kubectl logs -n a p1 -c a"));
        let message = world.status("a")["message"].clone();
        let job = world.running("a").unwrap().name_any();
        give_up(&mut world);
        let gone = format!("(the pod is gone, and its log{hint})");
        assert_eq!(told(&world), format!("{cause}; kubectl describe job -n a {job} {gone}"));
        assert_eq!(world.status("a")["message"], message);
        assert_eq!(world.count("ContainerFailed"), 1, "nobody is told again");
        assert!(world.decide("a").is_silent());
    }
}

#[test]
fn the_command_leads_to_the_pod_of_a_failed_job_as_long_as_there_is_one() {
    let mut world = running(&[]);
    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    let job = ObjectKey::of(&world.running("a").unwrap());
    let condition = json!({ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded" });
    world.change("Job", &job, json!({ "status": { "conditions": [condition], "failed": 1 } }));
    world.settle("a");
    assert!(told(&world).ends_with("; kubectl logs -n a p1 -c a"), "{}", told(&world));
}

#[test]
fn a_job_that_has_run_too_long_names_the_container_that_ran() {
    let mut world = running(&[]);
    let runs = json!({
        "name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "running": {} },
    });
    pod(&mut world, "p1", json!({ "phase": "Running", "initContainerStatuses": [runs] }));
    let address = ObjectKey::namespaced("a", "p1");
    world.change(
        "Pod",
        &address,
        json!({ "metadata": { "deletionTimestamp": world.now.to_string(), "finalizers": ["a/b"] } }),
    );
    let job = ObjectKey::of(&world.running("a").unwrap());
    let condition = json!({ "type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long" });
    world.change("Job", &job, json!({ "status": { "conditions": [condition], "failed": 1 } }));
    world.settle("a");
    let cause = format!("Job {job} has failed while container a ran: too long; kubectl describe job -n a {}", job.name);
    assert_eq!(told(&world), format!("True/DeadlineExceeded/pipeline first: {cause}"));
    assert_eq!(world.count("DeadlineExceeded"), 1);
}

#[test]
fn a_job_that_is_told_to_stop_is_not_failing() {
    let mut world = running(&[]);
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    // The Job is told to stop; whoever asked for it has changed their mind.
    world.label("a", keys::MANUAL_RECONCILIATION, None);
    pod(&mut world, "p1", ended("a", 137, ""));
    world.settle("a");
    assert_eq!(told(&world), "");
}

#[test]
fn a_pipeline_that_is_suspended_is_not_failing() {
    let mut world = running(&[]);
    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Suspends);
    world.settle("a");
    assert_eq!(world.told("a", "Reconciled"), "Unknown/WorkflowSuspended");
    assert_eq!(told(&world), "");
}

#[test]
fn a_deletion_that_waits_for_a_configure_pipeline_says_what_that_one_waits_for() {
    let mut world = running(&["undo"]);
    world.delete("Env", &key("a"));
    world.settle("a");
    assert_eq!(told(&world), "");
    pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
    world.settle("a");
    let text = "pipeline first: image i of container a cannot be had: not found; kubectl describe pod -n a p1";
    assert_eq!(told(&world), format!("True/ImageUnavailable/{text}"));
    assert_eq!(world.count("ImageUnavailable"), 1);
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!((told(&world), world.ran("a").len()), (String::new(), 2), "the delete pipeline runs");
}

#[test]
fn a_delete_pipeline_tells_the_same() {
    let mut world = World::new(spec(&["first"], &["undo"], ""));
    world.ask("a");
    world.play("a");
    world.delete("Env", &key("a"));
    world.settle("a");
    pod(&mut world, "p1", ended("status-writer", 65, "failed to load incoming status: no"));
    world.settle("a");
    assert_eq!(backoff_limit(&world), Some(0));
    assert!(told(&world).starts_with("True/InvalidOutput/pipeline undo: container status-writer"), "{}", told(&world));
    assert_eq!(world.count("InvalidOutput"), 1);
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(world.told("a", "DeleteWorkflowCompleted"), "False/DeleteWorkflowFailed");
    assert!(told(&world).starts_with("True/InvalidOutput/pipeline undo: "), "{}", told(&world));
    assert_eq!(world.count("InvalidOutput"), 1);
}

/// §19 (1), issue "bad input": each cause ends in a condition and an event.
#[test]
fn each_refused_write_is_one_event() {
    let mut world = running(&[]);
    let kind = Kind::new("example.org", "v1", "Env", "envs");
    for (cause, events) in [("first", 1), ("first", 1), ("second", 2)] {
        let request: DynamicObject = typed(world.request("a"));
        let plan = refused(world.now, &kind, (&request, None), cause).unwrap();
        world.act(&plan);
        assert_eq!(world.told("a", "Reconciled"), "False/WriteRefused");
        assert_eq!(world.count("WriteRefused "), events, "{cause}");
    }
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    let request: DynamicObject = typed(world.request("a"));
    assert_eq!(refused(world.now, &kind, (&request, None), "third"), None, "it says that it is paused");
    let paused = json!({ "metadata": { "name": PROMISE, "labels": { keys::PAUSED: "true" } }, "spec": {} });
    // The pause stays on record: its end starts a run.
    world.label("a", keys::PAUSED, None);
    for _ in 0..2 {
        let request: DynamicObject = typed(world.request("a"));
        let by_promise = (&request, Some(&typed::<Promise>(&paused)));
        assert_eq!(refused(world.now, &kind, by_promise, "third"), None, "it is paused by its Promise");
        let plan = refused(world.now, &kind, (&request, None), "third").unwrap();
        world.act(&plan);
        let told = Document::read(world.status("a")).condition("Reconciled").unwrap();
        assert_eq!((told.reason.as_str(), told.message.as_str()), ("PausedReconciliation", "third"));
        assert!(crate::refusal::is_blocked_since_pause(&told.message));
        assert_eq!(world.count("WriteRefused "), 3);
    }
    let runs = world.ran("a").len();
    world.play("a");
    assert!(world.ran("a").len() > runs);
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}
