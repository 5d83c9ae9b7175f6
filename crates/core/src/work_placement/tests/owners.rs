//! One path, one owner.

use super::*;

#[test]
fn of_two_placements_with_one_directory_the_first_keeps_it() {
    let mut first =
        World::new(placement("z-first", &[("a", "first")]), destination("d", FilepathMode::NestedByMetadata));
    let mut second = placement("a-second", &[("a", "second")]);
    second.metadata.creation_timestamp = Some(Time(at(5)));
    first.rivals = vec![second.clone()];
    first.settle();
    assert_eq!(first.condition("Ready").2, "Ready");

    let mut world = World::new(second, destination("d", FilepathMode::NestedByMetadata));
    world.files = first.files.clone();
    world.rivals = vec![first.placement.clone().unwrap()];
    world.settle();
    assert_eq!(
        world.condition("WriteSucceeded").2,
        "path \"d/resources/default/redis/my-cache/configure/5058f\" already belongs to workplacement default/z-first; \
         hint: delete one of the two"
    );
    assert_eq!(world.files, first.files);
    let mut deleted = world.clone();
    deleted.delete();
    deleted.settle();
    assert!(deleted.placement.is_none());
    assert_eq!(deleted.files, first.files, "nothing of the first is deleted by it");

    // The first leaves: its directory is cleared before the second writes.
    world.rivals[0].metadata.deletion_timestamp = Some(Time(at(6)));
    world.settle();
    assert_eq!(world.condition("Ready"), said((Status::False, "WaitingForPath", "Pending")));
    world.rivals.clear();
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
}

/// Whoever may make Works in a namespace can give them the name of any Promise, and the label of a request elsewhere.
#[test]
fn a_directory_belongs_to_where_its_documents_come_from_whoever_was_first() {
    let mode = || destination("d", FilepathMode::NestedByMetadata);
    let of = |namespace: &str, name: &str, age: i64, resource: &str| {
        let mut placement = placement(name, &[("a", name)]);
        placement.metadata.namespace = Some(namespace.into());
        placement.metadata.creation_timestamp = Some(Time(at(age)));
        placement.spec.resource_name = resource.into();
        placement
    };
    let named = |mut placement: WorkPlacement, namespace: &str| {
        placement.annotations_mut().insert(DIRECTORY_NAMESPACE.into(), namespace.into());
        placement
    };
    let promise = |namespace: &str| {
        let spec = json!({ "workflows": { "config": { "pipelineNamespace": namespace } } });
        Some(Promise::new("redis", serde_json::from_value(spec).unwrap()))
    };
    for (theirs, own, promise) in [
        (of("team", "first", 0, ""), of(keys::SYSTEM_NAMESPACE, "own", 5, ""), None),
        (of("team", "first", 0, ""), of("pipes", "own", 5, ""), promise("pipes")),
        (named(of("team", "first", 0, "x"), "a"), of("a", "own", 5, "x"), promise("pipes")),
        (named(of("team", "first", 0, "x"), "a"), named(of("pipes", "own", 5, "x"), "a"), promise("pipes")),
    ] {
        let mut first = World { promise: promise.clone(), ..World::new(theirs, mode()) };
        first.settle();
        assert_eq!(first.condition("Ready").2, "Ready", "it is the only one");

        let mut world = World { promise, ..World::new(own, mode()) };
        world.files = first.files.clone();
        (world.rivals, world.rivals_have_written) = (vec![first.placement.clone().unwrap()], true);
        world.settle();
        assert_eq!(world.condition("Ready").2, "Ready");
        assert_eq!(world.files.values().collect::<Vec<_>>(), ["own"]);
        assert_eq!(displaced(&world.snapshot()), [ObjectKey::namespaced("team", "first")]);

        first.files = world.files.clone();
        first.rivals = vec![world.placement.clone().unwrap()];
        assert!(displaced(&first.snapshot()).is_empty());
        first.settle();
        let (_, reason, message) = first.condition("WriteSucceeded");
        assert_eq!(reason, "WorkloadsFailedWrite");
        assert!(message.contains("already belongs to workplacement"), "{message}");
        (world.rivals, world.rivals_have_written) = (vec![first.placement.clone().unwrap()], false);
        assert!(displaced(&world.snapshot()).is_empty(), "it says so itself now");
        first.delete();
        first.settle();
        assert!(first.placement.is_none());
        assert_eq!(first.files, world.files);
    }
}

#[test]
fn an_owner_whose_write_fails_keeps_its_directory_and_one_that_has_moved_takes_none() {
    let site_of =
        |placement: &WorkPlacement| site(placement, &destination("d", FilepathMode::NestedByMetadata), "here").unwrap();
    let mut older = placement("older", &[("a", "older")]);
    let here = site_of(&older);
    older.annotations_mut().insert(STORE_LOCATION.into(), here.clone());
    let mut owner = World::new(placement("owner", &[("a", "1")]), destination("d", FilepathMode::NestedByMetadata));
    owner.placement.as_mut().unwrap().metadata.creation_timestamp = Some(Time(at(5)));
    owner.settle();
    owner.edit(&[("a", "2")]);
    owner.refuses = Some(trouble("no"));
    owner.pass();
    assert_eq!(owner.condition("WriteSucceeded").0, Status::False);
    let mut world = World::new(older.clone(), destination("d", FilepathMode::NestedByMetadata));
    world.rivals = vec![owner.placement.clone().unwrap()];
    assert!(decide(&world.snapshot()).effect.is_none(), "the older one has never written here");

    // The store of the owner's Destination had another name when it wrote.
    let mut renamed = owner.placement.clone().unwrap();
    let noted = renamed.annotations()[STORE_LOCATION].replace("\"default\"", "\"renamed\"");
    assert_ne!(noted, renamed.annotations()[STORE_LOCATION]);
    renamed.annotations_mut().insert(STORE_LOCATION.into(), noted);
    world.rivals = vec![renamed];
    assert!(decide(&world.snapshot()).effect.is_none());

    // Another one has written elsewhere before.
    let mut moved = owner.placement.clone().unwrap();
    let elsewhere = site(&moved, &destination("elsewhere", FilepathMode::NestedByMetadata), "here").unwrap();
    moved.annotations_mut().insert(STORE_LOCATION.into(), elsewhere);
    world.rivals = vec![moved];
    assert!(decide(&world.snapshot()).effect.is_some());

    // Made in the same second, and the cache does not show yet that the other one was faster.
    let mut twin = placement("twin", &[("a", "twin")]);
    twin.annotations_mut().insert(STORE_LOCATION.into(), here);
    world.rivals = vec![twin];
    assert!(decide(&world.snapshot()).effect.is_some());
    world.rivals_have_written = true;
    assert!(decide(&world.snapshot()).effect.is_none());
}

// Weaknesses 22, 24
#[test]
fn of_two_placements_with_one_state_file_the_first_keeps_it() {
    let named = |namespace: &str, name: &str, age: i64| {
        let mut placement = placement(name, &[(name, "1")]);
        placement.metadata.namespace = Some(namespace.into());
        placement.metadata.creation_timestamp = Some(Time(at(age)));
        placement.spec.resource_name = name.into();
        placement
    };
    let mut first = World::new(named("a-b", "c", 0), destination("d", FilepathMode::None));
    first.settle();
    assert_eq!(first.condition("Ready").2, "Ready");
    let mut world = World::new(named("a", "b-c", 5), destination("d", FilepathMode::None));
    world.files = first.files.clone();
    world.rivals = vec![first.placement.clone().unwrap(), named("a", "b", 0)];
    world.settle();
    assert_eq!(
        world.condition("WriteSucceeded").2,
        "path \"d/.kratix/a-b-c.yaml\" already belongs to workplacement a-b/c; hint: delete one of the two"
    );
    world.delete();
    world.settle();
    assert!(world.placement.is_none());
    assert_eq!(world.files, first.files);
}

#[test]
fn of_two_destinations_with_one_aggregate_the_older_has_it() {
    let mut world = World::new(placement("p", &[("a", "1")]), destination("./d/", FilepathMode::AggregatedYaml));
    let mut older = destination("d", FilepathMode::AggregatedYaml);
    older.metadata.name = Some("a-older".into());
    world.neighbours = vec![older.clone()];
    world.settle();
    let message = "path \"d/aggregated.yaml\" already belongs to destination a-older; hint: give one of the two Destinations \
        another path or spec.filepath.filename";
    assert_eq!(world.condition("WriteSucceeded"), said((Status::False, "WorkloadsFailedWrite", message)));
    world.files.insert("d/aggregated.yaml".into(), "theirs".into());
    let mut deleted = world.clone();
    deleted.delete();
    deleted.settle();
    assert!(deleted.placement.is_none());
    assert_eq!(deleted.files["d/aggregated.yaml"], "theirs");
    world.neighbours[0].spec.filepath.filename = "other.yaml".into();
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
}

#[test]
fn of_two_destinations_with_one_aggregate_the_one_that_has_written_keeps_it() {
    let aggregated = |name: &str, path: &str, filename: &str, age: i64| {
        let mut destination = destination(path, FilepathMode::AggregatedYaml);
        destination.metadata.name = Some(name.into());
        destination.metadata.creation_timestamp = Some(Time(at(age)));
        destination.spec.filepath.filename = filename.into();
        destination
    };
    // One file, cut into directory and name in two ways.
    let (younger, older) = (aggregated("young", "d/sub", "all.yaml", 5), aggregated("old", "d", "sub/all.yaml", 1));
    assert!(shares_file((&younger, "here"), (&older, "here")));
    let mut owner = World::new(placement("owner", &[("a", "1")]), younger.clone());
    owner.settle();
    assert_eq!(owner.condition("Ready").2, "Ready");
    owner.neighbours = vec![older.clone()];
    owner.settle();
    assert_eq!(owner.condition("Ready").2, "Ready", "the older one comes late");

    let mut world = World::new(placement("late", &[("a", "2")]), older.clone());
    world.neighbours = vec![younger.clone()];
    let mut wrote = owner.placement.clone().unwrap();
    wrote.spec.target_destination_name = "young".into();
    world.foreign = vec![wrote.clone()];
    world.settle();
    let message = world.condition("WriteSucceeded").2;
    assert!(message.starts_with("path \"d/sub/all.yaml\" already belongs to destination young; hint: "), "{message}");
    // The cache does not show yet that it has written.
    wrote.status = None;
    world.foreign = vec![wrote.clone()];
    let mut snapshot = world.snapshot();
    assert!(decide(&snapshot).effect.is_some());
    snapshot.written.insert(ObjectKey::of(&wrote));
    assert!(decide(&snapshot).effect.is_none());
}

/// A placement on the Destination `late` of a store at `place`.
fn late(mode: FilepathMode, place: &str, path: &str) -> World {
    let mut late = destination(path, mode);
    late.metadata.name = Some("late".into());
    late.spec.state_store_ref.as_mut().unwrap().name = "twin".into();
    let mut late = World::new(placement("a-late", &[("a", "late")]), late);
    late.store = Availability::Ready { place: place.into(), epoch: 0 };
    let placement = late.placement.as_mut().unwrap();
    let noted = site(placement, late.destination.as_ref().unwrap(), place).unwrap();
    placement.annotations_mut().insert(STORE_LOCATION.into(), noted);
    late
}

// Decision 16
#[test]
fn a_directory_has_one_owner_in_whatever_stores_of_one_address() {
    for (own, owners, path) in [
        (("server/main/", "shared"), ("server/main/", "shared"), Some("shared")),
        (("server/main/deep", "x"), ("server/main/", "deep/x"), Some("x")),
        (("server/main/", "deep/x"), ("server/main/deep", "x"), Some("deep/x")),
        (("server/main/", "x"), ("server/main/deep", "x"), None),
        (("server/main/", "shared"), ("server/dev/", "shared"), None),
        (("server/main/", "shared"), ("other/main/", "shared"), None),
    ] {
        let mut world = late(FilepathMode::NestedByMetadata, own.0, own.1);
        let there = destination(owners.1, FilepathMode::NestedByMetadata);
        let mut owner = placement("owner", &[("a", "owner")]);
        owner.metadata.creation_timestamp = Some(Time(at(5)));
        let noted = site(&owner, &there, owners.0).unwrap();
        owner.annotations_mut().insert(STORE_LOCATION.into(), noted);
        (world.rivals, world.rivals_have_written) = (vec![owner], true);
        world.rivals_at = Some((there, owners.0.into()));
        world.settle();
        let Some(path) = path else {
            assert_eq!(world.condition("Ready").2, "Ready", "{own:?} {owners:?}");
            continue;
        };
        let message = format!(
            "path \"{path}/resources/default/redis/my-cache/configure/5058f\" already belongs to workplacement \
             default/owner; hint: give one of the two Destinations another path"
        );
        assert_eq!(world.condition("WriteSucceeded"), said((Status::False, "WorkloadsFailedWrite", &message)));
        world.delete();
        world.settle();
        assert!(world.placement.is_none() && world.commits.is_empty(), "{own:?} {owners:?}");
    }
}

// Decision 16
#[test]
fn an_aggregate_has_one_owner_in_whatever_stores_of_one_address() {
    let mut world = late(FilepathMode::AggregatedYaml, "server/main/deep", "d");
    let mut older = destination("deep/d", FilepathMode::AggregatedYaml);
    older.metadata.name = Some("a-older".into());
    (world.neighbours, world.neighbours_at) = (vec![older], "server/main/".into());
    world.settle();
    let message = world.condition("WriteSucceeded").2;
    assert!(message.starts_with("path \"d/aggregated.yaml\" already belongs to destination a-older; "), "{message}");
    world.delete();
    world.settle();
    assert!(world.placement.is_none() && world.commits.is_empty());
    let mut elsewhere = late(FilepathMode::AggregatedYaml, "server/main/deep", "d");
    (elsewhere.neighbours, elsewhere.neighbours_at) = (world.neighbours, "server/dev/".into());
    elsewhere.settle();
    assert_eq!(elsewhere.condition("Ready").2, "Ready");
}

#[test]
fn without_the_place_of_the_store_nobody_is_ranked() {
    let mut world = World::new(placement("young", &[("a", "1")]), destination("d", FilepathMode::NestedByMetadata));
    world.placement.as_mut().unwrap().metadata.creation_timestamp = Some(Time(at(5)));
    world.settle();
    world.rivals = vec![placement("old", &[("a", "old")])];
    world.store = Availability::NotFound;
    world.settle();
    assert_eq!(world.condition("WriteSucceeded").1, "StateStoreNotFound", "not that it belongs to the older one");
    // Its files are still there: it is not let go as if they were somebody else's.
    world.delete();
    world.pass();
    assert!(world.placement.is_some());
    world.store = ready();
    world.settle();
    assert!(world.placement.is_none());
    assert!(world.files.is_empty(), "{:?}", world.files);
}

#[test]
fn a_directory_inside_anothers_is_a_collision_and_a_sibling_is_none() {
    let at_path = |path: &str| Location::Directory(path.to_owned());
    assert!(at_path("d/dependencies/p/5058f").overlaps(&at_path("d/dependencies/p/5058f/ba6cb")));
    assert!(at_path("a/b").overlaps(&at_path("a/b")));
    assert!(!at_path("a/5058f").overlaps(&at_path("a/5058f-x")));
}
