//! What a request says of the pod that runs while something else holds it up.

use super::failure::{backoff_limit, ended, pod, running, told, waiting};
use super::*;

/// Holds the request up.
type Hold = (&'static str, fn(&mut World));

/// 04 §14, §15: what runs already runs on.
const HOLDS: [Hold; 7] = [
    ("it is held by hand", |world| world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"))),
    ("it is paused", |world| world.label("a", keys::PAUSED, Some("true"))),
    ("its Promise is paused", |world| {
        let label = json!({ "metadata": { "labels": { keys::PAUSED: "true" } } });
        world.change("Promise", &ObjectKey::cluster(PROMISE), label);
    }),
    ("its Promise is unavailable", |world| {
        let status =
            json!({ "status": { "requiredPromises": [{ "name": "r", "state": "Requirement not installed" }] } });
        world.change("Promise", &ObjectKey::cluster(PROMISE), status);
    }),
    ("its Promise goes", |world| {
        let metadata = json!({ "deletionTimestamp": world.now.to_string(), "finalizers": ["a/b"] });
        world.change("Promise", &ObjectKey::cluster(PROMISE), json!({ "metadata": metadata }));
    }),
    ("its Promise is gone", |world| drop(world.objects.remove(&("Promise".to_owned(), ObjectKey::cluster(PROMISE))))),
    ("its pipelines cannot be read", |world| {
        let mut broken = spec(&["first"], &[], "");
        broken["workflows"]["resource"]["configure"][0]["kind"] = "ConfigMap".into();
        world.revise("not-set", broken);
    }),
];

#[test]
fn a_request_that_is_held_up_still_tells_what_becomes_of_the_pod_that_runs() {
    for (why, hold) in HOLDS {
        let mut world = running(&[]);
        pod(&mut world, "p1", waiting("ErrImagePull", "not found"));
        world.settle("a");
        hold(&mut world);
        world.settle("a");
        assert!(told(&world).starts_with("True/ImageUnavailable/"), "{why}: {}", told(&world));
        pod(&mut world, "p1", ended("work-writer", 65, "no"));
        world.settle("a");
        assert!(told(&world).starts_with("True/InvalidOutput/"), "{why}: {}", told(&world));
        assert_eq!((world.count("ImageUnavailable"), world.count("InvalidOutput")), (1, 1), "{why}");
        assert_eq!(backoff_limit(&world), None, "{why}: nothing is decided about the Job");
        world.objects.retain(|(kind, _), _| kind != "Pod");
        world.finish("a", Pod::Fails);
        world.settle("a");
        assert!(told(&world).starts_with("True/InvalidOutput/"), "{why}: {}", told(&world));
        assert_eq!(world.count("InvalidOutput"), 1, "{why}");
    }
    for (why, hold) in HOLDS {
        let mut world = running(&[]);
        pod(&mut world, "p1", ended("a", 1, ""));
        world.settle("a");
        hold(&mut world);
        world.settle("a");
        world.objects.retain(|(kind, _), _| kind != "Pod");
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        assert_eq!(told(&world), "", "{why}: the attempt that was told of was not the last");
    }
}

#[test]
fn a_request_that_waits_for_its_turn_after_a_pause_tells_it_as_well() {
    let mut world = running(&[]);
    pod(&mut world, "p1", ended("a", 1, ""));
    world.settle("a");
    world.label("a", keys::PAUSED, Some("true"));
    world.settle("a");
    let promise = ObjectKey::cluster(PROMISE);
    let round = json!({ crate::promise::RERUN: "2.77.pause" });
    world.change("Promise", &promise, json!({ "metadata": { "annotations": round } }));
    world.label("a", keys::PAUSED, None);
    let plan = world.settle("a");
    assert_eq!(plan.findings, [Finding::AwaitsTurn]);
    assert_ne!(told(&world), "");
    world.objects.retain(|(kind, _), _| kind != "Pod");
    world.finish("a", Pod::Succeeds);
    assert_eq!(world.settle("a").findings, [Finding::AwaitsTurn]);
    assert_eq!(told(&world), "");
}

#[test]
fn a_request_whose_promise_is_gone_is_told_so_once() {
    let mut world = two_pipelines();
    world.play("a");
    let promise = ("Promise".to_owned(), ObjectKey::cluster(PROMISE));
    let gone = world.objects.remove(&promise).unwrap();
    for told in [1, 2] {
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "Unknown/PromiseNotFound");
        assert_eq!(world.count("PromiseNotFound Promise env not found"), told);
        assert!(world.decide("a").is_silent());
        world.objects.insert(promise.clone(), gone.clone());
        world.settle("a");
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
        world.objects.remove(&promise);
    }
}
