//! Files that others have changed.

use super::*;

fn repaired(events: &[String]) -> Vec<&String> {
    events.iter().filter(|event| event.starts_with("DriftRepaired")).collect()
}

#[test]
fn after_the_interval_what_was_written_is_compared_and_only_written_again_if_it_has_changed() {
    let mut world = World::nested(&[("a", "1")]);
    world.interval = Some(Duration::from_secs(100));
    world.settle();
    world.take_events();
    world.now = 99;
    let early = decide(&world.snapshot());
    assert!(!early.compares && early.effect.is_none(), "in between nothing is asked of the store");
    world.now = 100;
    let is_due = |second: i64| is_due(world.attempt.as_ref().unwrap(), world.interval, at(second));
    assert!(is_due(100) && !is_due(99), "known without looking at anything else");
    let due = decide(&world.snapshot());
    assert!(due.compares && due.effect.is_none() && due.plan.is_silent());
    assert!(!world.pass(), "all is as it was");
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(Duration::from_secs(100)));
    assert_eq!(world.commits.len(), 1);

    world.now = 200;
    for content in world.files.values_mut() {
        *content = "foreign".into();
    }
    world.settle();
    assert_eq!(world.commits.len(), 2);
    let note = "DriftRepaired: files in worker-1/resources/default/redis/my-cache/configure/5058f were changed by others and \
        have been written again to Destination: worker-1 with versionID: v2";
    assert_eq!(repaired(&world.take_events()), [note]);
    assert_eq!(world.condition("Ready").2, "Ready");
    assert!(!world.pass());
}

#[test]
fn drift_found_by_a_restart_is_told_and_a_new_content_is_none() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.edit(&[("a", "2")]);
    world.settle();
    assert!(repaired(&world.take_events()).is_empty());
    world.files.clear();
    world.restart();
    world.settle();
    assert_eq!(repaired(&world.take_events()).len(), 1);
    // A workflow that runs again repairs without a word about it: its content is a new one.
    world.files.clear();
    world.edit(&[("a", "2")]);
    world.settle();
    assert!(repaired(&world.take_events()).is_empty());
}

#[test]
fn a_shared_file_that_changes_with_another_placement_is_no_drift_unless_a_comparison_says_so() {
    let mut world = World::new(placement("p", &[("a", "1")]), destination("d", FilepathMode::AggregatedYaml));
    world.settle();
    world.take_events();
    world.members = vec![placement("q", &[("a", "2")])];
    world.restart();
    world.settle();
    assert!(repaired(&world.take_events()).is_empty());
    world.files.clear();
    (world.attempt, world.is_doubted) = (None, true);
    world.settle();
    assert_eq!(repaired(&world.take_events()).len(), 1);
}

#[test]
fn a_comparison_made_during_a_move_tells_of_no_drift() {
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::AggregatedYaml] {
        let mut world = World::new(placement("p", &[("a", "1")]), destination("d", mode));
        world.settle();
        world.destination.as_mut().unwrap().spec.path = "elsewhere".into();
        (world.attempt, world.is_doubted) = (None, true);
        world.settle();
        assert!(repaired(&world.take_events()).is_empty());
        assert_eq!(world.files.len(), 1);
    }
}

#[test]
fn a_repair_is_told_once_although_the_status_of_its_pass_meets_a_newer_object() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.files.clear();
    world.restart();
    let snapshot = world.snapshot();
    let effect = decide(&snapshot).effect.unwrap();
    let outcome = world.apply(&effect.change, "here");
    let attempt = Attempt { stamp: effect.stamp, at: at(0), outcome };
    let told = super::repaired(&snapshot, &attempt);
    assert!(told.writes.is_empty() && told.status.is_none(), "nothing of it can fail");
    world.execute(&told);
    // What is recorded is lost.
    let lost = record(&snapshot, attempt.clone()).plan;
    assert!(lost.status.is_some() && lost.events.iter().all(|event| event.reason != "DriftRepaired"));
    world.attempt = Some(attempt);
    world.settle();
    assert_eq!(repaired(&world.take_events()).len(), 1);
    assert_eq!(world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id, "v2");
}

#[test]
fn only_a_write_of_a_shared_file_looks_at_the_other_placements() {
    let mut world = World::new(placement("p", &[("a", "1")]), destination("d", FilepathMode::AggregatedYaml));
    world.members = vec![placement("q", &[("a", "2")])];
    let alone = |world: &World| Snapshot { members: Vec::new(), ..world.snapshot() };
    let without = decide(&alone(&world));
    assert!(lacks_members(&alone(&world), &without) && !lacks_members(&world.snapshot(), &without));
    world.settle();
    let (with, without) = (decide(&world.snapshot()), decide(&alone(&world)));
    assert_eq!(with, without);
    assert!(!lacks_members(&alone(&world), &without));
    world.delete();
    assert!(lacks_members(&alone(&world), &decide(&alone(&world))));
    let mut nested = World::nested(&[("a", "1")]);
    nested.attempt = None;
    assert!(!lacks_members(&alone(&nested), &decide(&alone(&nested))));
}
