//! Files that are taken out of an aggregate, and versions that stay.

use super::*;

fn aggregated() -> World {
    World::new(placement("p", &[("a", "a: 1\n")]), destination("d", FilepathMode::AggregatedYaml))
}

// spec 05 weakness 16
#[test]
fn an_aggregate_that_cannot_be_written_without_the_one_that_leaves_is_told_on_it_and_retried() {
    let mut world = aggregated();
    world.members = vec![placement("q", &[("b", "b: 1\n")])];
    world.settle();
    world.take_events();
    world.refuses = Some(trouble("failed to push: no"));
    world.delete();
    world.pass();
    let note = "FailedDeleteFilesFromRepository: failed to delete files from repository: failed to push: no";
    assert_eq!(world.take_events(), [note]);
    assert_eq!(world.condition("Ready").2, "Failing");
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(RETRY_AFTER));
    assert!(!world.placement.as_ref().unwrap().finalizers().is_empty());
    assert!(world.files["d/aggregated.yaml"].contains("a: 1"));
    world.refuses = None;
    world.now += 15;
    world.settle();
    assert!(world.placement.is_none());
    assert_eq!(world.files["d/aggregated.yaml"], "b: 1\n");
}

// spec 05 weakness 16, 23
#[test]
fn one_that_stays_and_cannot_be_read_is_named_on_the_one_that_leaves() {
    let mut world = aggregated();
    world.settle();
    world.take_events();
    let mut broken = placement("broken", &[]);
    broken.spec.workloads = vec![Workload { filepath: "x.yaml".into(), content: "%".into() }];
    world.members = vec![broken];
    world.delete();
    world.pass();
    let events = world.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].contains("workplacement default/broken: unable to decompress file content: x.yaml"),
        "{events:?}"
    );
    assert_eq!(world.condition("Ready").2, "Failing");
    // What it waits for is the other one.
    world.members.clear();
    world.settle();
    assert!(world.placement.is_none() && world.files.is_empty());
}

// spec 05 §14.19
#[test]
fn the_last_of_an_aggregate_takes_the_file_along_and_leaves_what_is_beside_it() {
    let mut world = aggregated();
    for beside in ["d/kratix-canary-namespace.yaml", "d/kratix-canary-configmap.yaml", "d/foreign.yaml"] {
        world.files.insert(beside.into(), "x".into());
    }
    world.settle();
    assert_eq!(world.files.len(), 4);
    world.delete();
    world.settle();
    assert_eq!(world.paths(), ["d/foreign.yaml", "d/kratix-canary-configmap.yaml", "d/kratix-canary-namespace.yaml"]);
}

// spec 05 §14.20, weakness 45
#[test]
fn the_version_outlives_failures_and_writes_that_change_nothing() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    let version = |world: &World| world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id.clone();
    let first = version(&world);
    assert!(!first.is_empty());
    world.take_events();
    // A bucket that finds nothing to do has no version to tell, a repository has that of its head.
    for told in [None, Some("head".to_owned())] {
        world.restart();
        let effect = decide(&world.snapshot()).effect.unwrap();
        let outcome = Ok(Written { version: told, changed: false });
        let plan = record(&world.snapshot(), Attempt { stamp: effect.stamp, at: at(world.now), outcome }).plan;
        assert!(plan.is_silent(), "{plan:?}");
    }
    world.edit(&[("a", "2")]);
    world.refuses = Some(trouble("no"));
    world.pass();
    assert_eq!((world.condition("WriteSucceeded").0, version(&world)), (Status::False, first.clone()));
    // Some buckets give each write the same version: it says nothing of whether there is something to write.
    world.refuses = None;
    world.now += 15;
    let effect = decide(&world.snapshot()).effect.unwrap();
    let outcome = Ok(Written { version: Some(first.clone()), changed: true });
    let plan = record(&world.snapshot(), Attempt { stamp: effect.stamp, at: at(world.now), outcome }).plan;
    world.execute(&plan);
    assert_eq!((world.condition("Ready").2.as_str(), version(&world)), ("Ready", first));
    world.edit(&[("a", "3")]);
    assert!(decide(&world.snapshot()).effect.is_some());
}

// issue: a condition message while waiting longer than a few seconds
#[test]
fn a_removal_that_waits_says_so_and_what_has_failed_is_not_taken_back() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.take_events();
    world.delete();
    let plan = queued(&world.snapshot(), 3, Some("no answer from x yet"));
    world.execute(&plan);
    let message = "waiting for GitStateStore/default: 3 changes are in its queue, no answer from x yet";
    assert_eq!(world.condition("WriteSucceeded"), said((Status::Unknown, "WaitingForStateStore", message)));
    assert_eq!(world.condition("Ready"), said((Status::False, "WaitingForStateStore", "Pending")));
    assert!(queued(&world.snapshot(), 2, None).is_silent(), "once");
    assert!(world.take_events().is_empty(), "a wait is no failure");

    world.refuses = Some(trouble("no"));
    world.pass();
    assert_eq!(world.condition("Ready").2, "Failing");
    world.now += 15;
    assert!(queued(&world.snapshot(), 1, Some("no answer from x yet")).is_silent());
    world.refuses = None;
    world.settle();
    assert!(world.placement.is_none() && world.files.is_empty());

    // Nothing of ours is waited for any more.
    let mut foreign = World::nested(&[("a", "1")]);
    foreign.placement.as_mut().unwrap().metadata.finalizers = Some(vec!["example.com/mine".into()]);
    foreign.delete();
    assert!(queued(&foreign.snapshot(), 1, None).is_silent());
}

#[test]
fn a_placement_at_a_path_that_no_store_takes_goes_although_nothing_can_be_removed_there() {
    let mut aggregated = aggregated();
    aggregated.destination.as_mut().unwrap().spec.filepath.filename = "../x.yaml".into();
    let nested = World::new(placement("p", &[("a", "a: 1\n")]), destination("a\\b", FilepathMode::NestedByMetadata));
    for (mut world, reason) in [(nested, "it contains a backslash"), (aggregated, "it leaves its directory by \"..\"")]
    {
        world.refuses = Some(Failure::content("path refused".to_owned()));
        world.settle();
        world.take_events();
        world.delete();
        world.settle();
        assert!(world.placement.is_none());
        let events = world.take_events();
        assert!(events[0].starts_with("FilesLeftBehind: files in "), "{events:?}");
        assert!(events[0].ends_with(&format!("stay, if there are any: {reason}")), "{events:?}");
    }
}
