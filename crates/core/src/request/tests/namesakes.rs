//! Two requests of one name in two namespaces: whatever happens to the one, the other does not notice.

use super::*;

/// Somebody has taken its finalizers away, and asks again.
#[test]
fn what_an_earlier_request_left_in_a_pipeline_namespace_is_not_taken_for_the_new_ones() {
    let mut world = World::new(spec(&["first"], &[], "pipes"));
    world.ask("a");
    world.play("a");
    let left = world.keys("Job");
    assert_eq!(left.len(), 1);
    world.objects.retain(|(kind, _), _| kind != "Env" && kind != "ResourceBinding");
    world.ask("a");
    world.change("Env", &key("a"), json!({ "metadata": { "uid": "another" } }));
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
    let jobs = world.keys("Job");
    assert!(jobs.len() == 1 && jobs != left, "{jobs:?} instead of {left:?}");
    assert!(world.decide("a").is_silent());
}

/// Somebody who may make Jobs in another namespace only.
#[test]
fn a_job_that_was_made_elsewhere_in_the_name_of_a_request_changes_nothing() {
    for namespace in ["", "pipes"] {
        for is_failed in [false, true] {
            let mut world = World::new(spec(&["first"], &["bye"], namespace));
            world.ask("a");
            world.play("a");
            let own = world.keys("Job");
            let mut forged = world.get("Job", &own[0]).clone();
            let elsewhere = ObjectKey::namespaced("elsewhere", "forged");
            let conditions = json!([{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded" }]);
            forged["status"] = if is_failed { json!({ "conditions": conditions }) } else { json!({ "active": 1 }) };
            let metadata = forged["metadata"].as_object_mut().unwrap();
            (metadata["namespace"], metadata["name"]) = (json!("elsewhere"), json!("forged"));
            metadata.remove("ownerReferences");
            let annotations = metadata["annotations"].as_object_mut().unwrap();
            annotations.remove(workflow::PARENT_UID);
            for number in [workflow::SEQUENCE, workflow::RUN] {
                annotations.insert(number.to_owned(), json!("999999"));
            }
            world.put(forged, elsewhere.clone());
            assert!(world.decide("a").is_silent(), "pipelines in {namespace:?}, failed: {is_failed}");
            world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
            world.settle("a");
            let run = &world.request("a")["metadata"]["annotations"][workflow::RUN];
            assert_eq!(run, "1", "not a number that somebody else has chosen");
            // Only its own are there to end now.
            let forged = world.objects.remove(&("Job".to_owned(), elsewhere.clone())).unwrap();
            world.play("a");
            world.objects.insert(("Job".to_owned(), elsewhere.clone()), forged);
            world.delete("Env", &key("a"));
            world.settle("a");
            let bye = world.jobs("a").into_iter().find(|job| workflow::history::action(job) == Action::Delete).unwrap();
            world.end_job(&ObjectKey::of(&bye), "Complete");
            world.settle("a");
            assert!(!world.objects.contains_key(&("Env".to_owned(), key("a"))), "{}", world.told("a", DELETING));
            assert_eq!(world.keys("Job"), [elsewhere], "it is not Kratix's to remove");
        }
    }
}

/// They do not say the uid of their request.
#[test]
fn jobs_of_the_original_are_a_requests_in_the_pipeline_namespace_of_each_revision() {
    let mut world = World::new(spec(&["first"], &[], "pipes"));
    world.ask("a");
    world.play("a");
    let job = world.keys("Job").remove(0);
    world.change("Job", &job, json!({ "metadata": { "annotations": { workflow::PARENT_UID: null } } }));
    assert!(world.decide("a").is_silent(), "it is known to have run");
    world.revise("v2", spec(&["first"], &[], "others"));
    world.change("Promise", &ObjectKey::cluster(PROMISE), json!({ "spec": spec(&["first"], &[], "others") }));
    world.delete("Env", &key("a"));
    world.settle("a");
    assert_eq!(world.keys("Job"), []);
}

/// Everything that belongs to the request in `b`, and the request.
fn of_b(world: &World) -> BTreeMap<String, Value> {
    let is_of_b = |object: &Value| {
        let label = |key: &str| object["metadata"]["labels"][key].as_str();
        let annotation = |key: &str| object["metadata"]["annotations"][key].as_str();
        match object["kind"].as_str().unwrap() {
            "Env" | "ResourceBinding" => object["metadata"]["namespace"] == "b",
            "Job" => annotation(keys::JOB_RESOURCE_NAMESPACE) == Some("b"),
            "Work" => label(keys::RESOURCE_NAMESPACE).or(object["metadata"]["namespace"].as_str()) == Some("b"),
            _ => false,
        }
    };
    let found = world.objects.iter().filter(|(_, object)| is_of_b(object));
    found.map(|((kind, key), object)| (format!("{kind} {key}"), without_the_scheduler(object))).collect()
}

/// Returns an object without what the scheduler, which is played here, writes to all Works alike.
fn without_the_scheduler(object: &Value) -> Value {
    let mut object = object.clone();
    if object["kind"] == "Work" {
        object["status"] = Value::Null;
        object["metadata"]["resourceVersion"] = Value::Null;
    }
    object
}

/// Lets something happen.
type Happens = fn(&mut World);

/// One thing after the other that happens to the request in `a`.
const STEPS: [(&str, Happens); 9] = [
    ("update", |world| {
        world.change("Env", &key("a"), json!({ "spec": { "size": "large" } }));
        world.play("a");
    }),
    ("suspension", |world| {
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        world.finish("a", Pod::Suspends);
        world.settle("a");
    }),
    ("resumption", |world| {
        world.label("a", keys::WORKFLOW_SUSPENDED, None);
        world.settle("a");
        world.finish("a", Pod::RetriesAfter(60));
        world.settle("a");
    }),
    ("retry", |world| {
        world.wait(61);
        world.play("a");
    }),
    ("failure", |world| {
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        world.finish("a", Pod::Fails);
        world.settle("a");
    }),
    ("stop", |world| {
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
        world.settle("a");
        world.stop_jobs("a");
        world.play("a");
    }),
    ("pause", |world| {
        world.label("a", keys::PAUSED, Some("true"));
        world.settle("a");
        world.label("a", keys::PAUSED, None);
        world.play("a");
    }),
    ("another version", |world| {
        let binding = world.keys("ResourceBinding").into_iter().find(|key| key.namespace.as_deref() == Some("a"));
        world.change("ResourceBinding", &binding.unwrap(), json!({ "spec": { "version": "not-set" } }));
        world.play("a");
    }),
    ("deletion", |world| {
        world.delete("Env", &key("a"));
        world.settle("a");
        world.finish("a", Pod::Succeeds);
        world.settle("a");
        assert!(!world.objects.contains_key(&("Env".to_owned(), key("a"))));
    }),
];

/// Where pipelines run: in the namespace of each request, in a third one, in that of one of the two.
const SETUPS: [&str; 4] = ["", "pipes", "b", "a"];

#[test]
fn nothing_that_happens_to_one_request_touches_the_other() {
    for namespace in SETUPS {
        // The other one is settled, or its Job runs.
        for is_running in [false, true] {
            let mut world = World::new(spec(&["build"], &["bye"], namespace));
            ["a", "b"].iter().for_each(|namespace| world.ask(namespace));
            world.play("a");
            world.settle("b");
            if !is_running {
                world.play("b");
            }
            for (step, happen) in STEPS {
                let before = of_b(&world);
                assert!(before.len() >= 3, "{before:#?}");
                happen(&mut world);
                assert_eq!(of_b(&world), before, "{step}, pipelines in {namespace:?}, running: {is_running}");
                assert!(world.decide("b").is_silent(), "{step}");
            }
            world.play("b");
            assert_eq!(world.ran("b"), ["build"]);
            assert_eq!(world.told("b", "Reconciled"), "True/Reconciled");
        }
    }
}

#[test]
fn both_follow_a_change_of_their_promise_and_go_side_by_side() {
    for namespace in SETUPS {
        let mut world = World::new(spec(&["build"], &["bye"], namespace));
        for namespace in ["a", "b"] {
            world.ask(namespace);
            world.play(namespace);
        }
        world.revise("not-set", spec(&["build", "test"], &["bye"], namespace));
        ["a", "b"].iter().for_each(|namespace| drop(world.settle(namespace)));
        ["a", "b"].iter().for_each(|namespace| world.play(namespace));
        for namespace in ["a", "b"] {
            assert_eq!(world.ran(namespace), ["build", "build", "test"]);
            assert_eq!(world.told(namespace, "Reconciled"), "True/Reconciled");
        }
        assert_eq!(world.keys("Work").len(), 4);
        ["a", "b"].iter().for_each(|namespace| world.delete("Env", &key(namespace)));
        for _ in 0..3 {
            ["a", "b"].iter().for_each(|namespace| drop(world.settle(namespace)));
            for namespace in ["b", "a"] {
                if world.objects.contains_key(&("Env".to_owned(), key(namespace))) {
                    world.finish(namespace, Pod::Succeeds);
                }
            }
        }
        for kind in ["Env", "Job", "Work", "ResourceBinding"] {
            assert!(world.keys(kind).is_empty(), "{kind}, pipelines in {namespace:?}");
        }
        assert_eq!(world.count("PipelineStarted Delete Pipeline started: bye"), 2);
    }
}

/// Whoever may annotate a Job or a Work writes any number.
#[test]
fn a_number_above_which_there_is_none_stops_nothing_and_that_of_a_work_elsewhere_does_not_count() {
    for (kind, number) in [("Job", workflow::SEQUENCE), ("Job", workflow::RUN), ("Work", workflow::SEQUENCE)] {
        let mut world = World::new(spec(&["first"], &[], ""));
        world.ask("a");
        world.play("a");
        let object = world.keys(kind).remove(0);
        world.change(kind, &object, json!({ "metadata": { "annotations": { number: i64::MAX.to_string() } } }));
        for content in ["b", "c", "d"] {
            world.change("Env", &key("a"), json!({ "spec": { "content": content } }));
            world.play("a");
            assert_eq!(world.told("a", "Reconciled"), "True/Reconciled", "{kind} {number} {content}");
            assert!(world.decide("a").is_silent());
        }
        assert_eq!(world.ran("a").len(), 4, "{kind} {number}");
    }
    let mut world = World::new(spec(&["first"], &[], ""));
    world.ask("a");
    world.play("a");
    let own = world.keys("Work").remove(0);
    let mut forged = world.get("Work", &own).clone();
    forged["metadata"]["annotations"][workflow::SEQUENCE] = json!("999999");
    forged["metadata"]["labels"][keys::RESOURCE_NAMESPACE] = json!("a");
    (forged["metadata"]["namespace"], forged["metadata"]["name"]) = (json!("elsewhere"), json!("forged"));
    world.put(forged, ObjectKey::namespaced("elsewhere", "forged"));
    world.change("Env", &key("a"), json!({ "spec": { "content": "b" } }));
    world.play("a");
    let numbers: Vec<i64> = world.jobs("a").iter().map(workflow::history::sequence).collect();
    assert_eq!(numbers, [1, 2]);
}
