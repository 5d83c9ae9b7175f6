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
