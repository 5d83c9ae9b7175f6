//! Requests of one name from several namespaces in one pipeline namespace.

use super::*;

fn of_namespace(name: &str, namespace: &str) -> WorkPlacement {
    let mut placement = placement(name, &[("a", namespace)]);
    placement.labels_mut().insert(keys::RESOURCE_NAMESPACE.into(), namespace.into());
    placement
}

// spec 05 weakness 21
#[test]
fn of_two_made_at_the_same_moment_the_second_gets_a_directory_of_its_own_without_failing() {
    let mode = || destination("d", FilepathMode::NestedByMetadata);
    let (first, second) = (of_namespace("one", "team-a"), of_namespace("two", "team-b"));
    let mut world = World::new(second.clone(), mode());
    world.rivals = vec![first.clone()];
    world.settle();
    assert_eq!(world.paths(), ["d/resources/team-b/redis/my-cache/configure/5058f/a"]);
    assert_eq!(world.condition("Ready").2, "Ready");
    let events = world.take_events();
    assert!(events.iter().all(|event| event.starts_with("WorkloadsWrittenToStateStore")), "{events:?}");
    assert!(other_sites(world.placement.as_ref().unwrap()).is_empty(), "nothing was left behind");

    let mut other = World::new(first, mode());
    other.rivals = vec![second];
    other.settle();
    assert_eq!(other.paths(), ["d/resources/default/redis/my-cache/configure/5058f/a"]);
    other.rivals = vec![world.placement.clone().unwrap()];
    assert!(!other.pass());
}

// spec 05 weakness 21
#[test]
fn a_request_of_the_pipeline_namespace_itself_gets_one_as_well_whether_its_placement_says_so_or_not() {
    for is_labelled in [true, false] {
        let mut second = of_namespace("two", "default");
        if !is_labelled {
            second.labels_mut().remove(keys::RESOURCE_NAMESPACE);
        }
        let mut world = World::new(second, destination("d", FilepathMode::NestedByMetadata));
        world.rivals = vec![of_namespace("one", "team-a")];
        world.settle();
        assert_eq!(world.paths(), ["d/resources/default.default/redis/my-cache/configure/5058f/a"]);
        assert_eq!(world.condition("Ready").2, "Ready");
    }
    // It came first.
    let mut first = of_namespace("one", "default");
    first.labels_mut().remove(keys::RESOURCE_NAMESPACE);
    let mut world = World::new(of_namespace("two", "team-a"), destination("d", FilepathMode::NestedByMetadata));
    world.rivals = vec![first];
    world.settle();
    assert_eq!(world.paths(), ["d/resources/team-a/redis/my-cache/configure/5058f/a"]);
}

#[test]
fn one_that_has_written_or_has_no_other_namespace_stays_where_it_is_and_fails_visibly() {
    let mode = || destination("d", FilepathMode::NestedByMetadata);
    let mut world = World::new(of_namespace("two", "team-a"), mode());
    world.rivals = vec![of_namespace("one", "team-a")];
    world.settle();
    assert_eq!(world.condition("WriteSucceeded").0, Status::False);
    let mut world = World::new(of_namespace("two", "team-b"), mode());
    world.settle();
    let mut earlier = of_namespace("one", "team-a");
    earlier.metadata.creation_timestamp = Some(Time(at(-5)));
    let mut wrote = World::new(earlier, mode());
    wrote.settle();
    world.rivals = vec![wrote.placement.unwrap()];
    world.restart();
    world.settle();
    assert!(!world.placement.as_ref().unwrap().annotations().contains_key(DIRECTORY_NAMESPACE));
}
