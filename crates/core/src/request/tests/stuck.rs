//! A Job that would perhaps never begin, and that is no longer wanted: a broken spec is followed by a good one.

use super::failure::{pod, running, told, waiting};
use super::*;

fn unscheduled() -> Value {
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no" });
    json!({ "phase": "Pending", "conditions": [condition] })
}

fn is_stopped(world: &World) -> bool {
    world.jobs("a").iter().any(workflow::history::is_told_to_suspend)
}

/// Does what the Job controller does about a Job that is suspended, and lets everything run to its end.
fn go_on(world: &mut World) {
    world.stop_jobs("a");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.refusal = None;
    world.play("a");
}

/// Returns the status of a container of a pod.
pub(super) fn container(name: &str, state: Value) -> Value {
    json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state })
}

#[test]
fn a_spec_whose_pod_cannot_be_started_is_followed_by_a_good_one() {
    let never_starts: [(&str, Option<Value>); 6] = [
        ("ImageUnavailable", Some(waiting("ImagePullBackOff", "not found"))),
        ("ImageUnavailable", Some(waiting("InvalidImageName", "not a name"))),
        ("ContainerNotStarted", Some(waiting("CreateContainerConfigError", "secret \"s\" not found"))),
        ("PodUnschedulable", Some(unscheduled())),
        ("PodNotStarted", Some(json!({ "phase": "Pending", "reason": "FailedMount", "message": "no such volume" }))),
        ("PodRefused", None),
    ];
    type Mend = fn(&mut World);
    let mends: [Mend; 3] = [
        |world| world.change("Env", &key("a"), json!({ "spec": { "size": "good" } })),
        |world| {
            let mut good = spec(&["first", "second"], &[], "");
            good["workflows"]["resource"]["configure"][0]["spec"]["containers"][0]["image"] = "good".into();
            world.revise("not-set", good);
        },
        |world| world.label("a", keys::RUN_FROM_START, Some("true")),
    ];
    for (reason, status) in never_starts {
        for mend in mends {
            let mut world = running(&[]);
            match &status {
                Some(status) => pod(&mut world, "p1", status.clone()),
                None => world.refusal = Some("exceeded quota".into()),
            }
            world.settle("a");
            assert!(told(&world).starts_with(&format!("True/{reason}/")), "{}", told(&world));
            assert!(!is_stopped(&world), "{reason}: it may still come");
            mend(&mut world);
            world.settle("a");
            assert!(is_stopped(&world), "{reason}");
            assert_eq!(world.count("PipelineSuspended Configure Pipeline suspended: first"), 1);
            assert!(world.decide("a").is_silent());
            go_on(&mut world);
            assert_eq!(world.ran("a"), ["first", "first", "second"], "{reason}");
            assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
        }
    }
}

/// A pass that does not see yet that the Job was stopped stops, and tells, nothing.
#[test]
fn a_job_is_stopped_and_told_of_only_as_it_was_seen() {
    let mut world = running(&["undo"]);
    pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
    world.settle("a");
    let mut leaving = world.clone();
    leaving.delete("Env", &key("a"));
    world.change("Env", &key("a"), json!({ "spec": { "size": "good" } }));
    for mut world in [world, leaving] {
        let plan = world.decide("a");
        let told = plan.events.iter().find(|event| event.reason == "PipelineSuspended").unwrap().clone();
        let stop = plan.writes.iter().find(|write| told.tells_of(write)).unwrap().clone();
        assert!(world.execute(&stop, &mut BTreeMap::new()));
        assert!(!world.execute(&stop, &mut BTreeMap::new()));
    }
}

#[test]
fn what_has_begun_is_never_stopped_for_a_change_of_the_spec() {
    let ended = |code: i32| json!({ "terminated": { "exitCode": code, "finishedAt": "2026-01-01T10:00:10Z" } });
    let absent = || container("b", json!({ "waiting": { "reason": "ErrImagePull" } }));
    let pods = |containers: Value| json!({ "phase": "Pending", "initContainerStatuses": containers });
    let reader = || container("reader", ended(0));
    let mut restarted = container("a", json!({ "waiting": { "reason": "CreateContainerConfigError" } }));
    restarted["restartCount"] = 1.into();
    for (case, statuses, has_begun) in [
        ("only the reader has run", vec![pods(json!([reader(), absent()]))], false),
        ("the container before it has run", vec![pods(json!([reader(), container("a", ended(0)), absent()]))], true),
        ("beside one that runs", vec![pods(json!([container("a", json!({ "running": {} })), absent()]))], true),
        ("it has run before", vec![pods(json!([restarted]))], true),
        (
            "an earlier pod still runs",
            vec![pods(json!([container("a", json!({ "running": {} }))])), pods(json!([reader(), absent()]))],
            true,
        ),
        (
            "an earlier pod has ended",
            vec![
                json!({ "phase": "Failed", "initContainerStatuses": [container("a", ended(1))] }),
                pods(json!([reader(), absent()])),
            ],
            false,
        ),
    ] {
        let mut world = running(&[]);
        for (number, status) in statuses.into_iter().enumerate() {
            pod(&mut world, &format!("p{number}"), status);
            world.wait(1);
        }
        world.change("Env", &key("a"), json!({ "spec": { "size": "good" } }));
        world.settle("a");
        assert_eq!(is_stopped(&world), !has_begun, "{case}: {}", told(&world));
    }
}

#[test]
fn a_workflow_without_pipelines_does_not_leave_a_pod_that_waits_for_ever() {
    let mut world = running(&[]);
    pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
    world.settle("a");
    world.revise("not-set", spec(&[], &[], ""));
    world.settle("a");
    assert!(is_stopped(&world));
    go_on(&mut world);
    assert_eq!(world.count("PipelineStarted"), 1);
    assert!(world.decide("a").is_silent());
}

#[test]
fn a_deletion_stops_a_configure_pipeline_that_cannot_begin() {
    let mut world = running(&["undo"]);
    pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
    world.delete("Env", &key("a"));
    world.settle("a");
    assert!(is_stopped(&world));
    go_on(&mut world);
    assert!(world.keys("Env").is_empty());
    assert_eq!(world.count("PipelineStarted Delete Pipeline started: undo"), 1);
}

#[test]
fn a_deletion_names_the_label_that_stops_a_configure_pipeline_which_has_begun() {
    let mut world = running(&["undo"]);
    let ran = container("a", json!({ "terminated": { "exitCode": 0 } }));
    let absent = container("b", json!({ "waiting": { "reason": "ErrImagePull" } }));
    pod(&mut world, "p1", json!({ "phase": "Pending", "initContainerStatuses": [ran, absent] }));
    world.delete("Env", &key("a"));
    world.settle("a");
    assert!(!is_stopped(&world));
    let label = "cannot be had; label kratix.io/manual-reconciliation=true stops it";
    for condition in ["Deleting", "Reconciled"] {
        let document = Document::read(world.status("a"));
        let message = document.condition(condition).unwrap().message;
        assert!(message.ends_with(label), "{condition}: {message}");
    }
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("a");
    assert!(is_stopped(&world), "as it says");
    let message = Document::read(world.status("a")).condition("Deleting").unwrap().message;
    assert!(!message.contains("label"), "{message}");
}

#[test]
fn a_delete_pipeline_that_cannot_begin_follows_the_spec_that_mends_it() {
    let mut world = World::new(spec(&["first"], &["undo"], ""));
    world.ask("a");
    world.play("a");
    world.delete("Env", &key("a"));
    world.settle("a");
    pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
    world.settle("a");
    assert!(!is_stopped(&world), "the image may still come");
    let mut good = spec(&["first"], &["undo"], "");
    good["workflows"]["resource"]["delete"][0]["spec"]["containers"][0]["image"] = "good".into();
    world.revise("not-set", good);
    world.settle("a");
    assert!(is_stopped(&world));
    go_on(&mut world);
    assert!(world.keys("Env").is_empty());
    assert_eq!(world.count("PipelineStarted Delete Pipeline started: undo"), 2);
}
