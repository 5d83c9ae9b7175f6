//! Files of places that were left (spec 05 weakness 19).

use super::*;

fn at_path(path: &str, mode: FilepathMode) -> World {
    World::new(placement("p", &[("a", "1")]), destination(path, mode))
}

fn move_to(world: &mut World, path: &str) {
    world.destination.as_mut().unwrap().spec.path = path.into();
}

fn left(world: &World) -> Vec<Site> {
    other_sites(world.placement.as_ref().unwrap())
}

fn claim(placement: WorkPlacement, destination: Destination) -> Claim {
    Claim { placement: Arc::new(placement), destination: Arc::new(destination), place: "here".into() }
}

#[test]
fn files_are_at_the_new_place_before_they_are_gone_from_the_old_one() {
    for (mode, before, after) in [
        (
            FilepathMode::NestedByMetadata,
            vec!["old/resources/default/redis/my-cache/configure/5058f/a"],
            vec!["new/resources/default/redis/my-cache/configure/5058f/a"],
        ),
        (FilepathMode::None, vec!["old/.kratix/default-p.yaml", "old/a"], vec!["new/.kratix/default-p.yaml", "new/a"]),
        (FilepathMode::AggregatedYaml, vec!["old/aggregated.yaml"], vec!["new/aggregated.yaml"]),
    ] {
        let mut world = at_path("old", mode);
        world.files.insert("old/foreign".into(), "stays".into());
        world.settle();
        assert_eq!(world.paths().len(), before.len() + 1);
        world.take_events();
        move_to(&mut world, "new");
        // The new place is noted before anything is written there.
        world.pass();
        assert_eq!((left(&world).len(), world.commits.len()), (1, 1));
        while world.paths().iter().any(|path| before.contains(path)) {
            assert!(world.pass());
            let placement = world.placement.as_ref().unwrap();
            assert!(after.iter().all(|path| world.files.contains_key(*path)), "{:?}", world.paths());
            assert!(world.is_doubted || placement.status.is_some());
        }
        world.settle();
        assert_eq!(world.paths(), [&after[..], &["old/foreign"]].concat());
        assert_eq!(world.commits, ["Update from: p", "Update from: p", "Delete from: p"]);
        assert!(left(&world).is_empty());
        assert_eq!(world.condition("Ready").2, "Ready");
        assert!(world.take_events().iter().all(|event| !event.starts_with("FilesLeftBehind")));
        assert!(!world.pass());
    }
}

#[test]
fn another_file_of_a_destination_and_another_store_are_other_places() {
    let mut world = at_path("d", FilepathMode::AggregatedYaml);
    world.settle();
    world.destination.as_mut().unwrap().spec.filepath.filename = "all.yaml".into();
    world.settle();
    assert_eq!(world.paths(), ["d/all.yaml"]);

    let mut world = at_path("d", FilepathMode::NestedByMetadata);
    world.settle();
    world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = "other".into();
    world.store = Availability::Ready { place: "there".into(), epoch: 0 };
    world.settle();
    assert_eq!(world.paths(), ["there:d/resources/default/redis/my-cache/configure/5058f/a"]);
}

#[test]
fn an_old_place_that_is_not_ready_holds_up_nothing_is_told_once_and_cleaned_when_it_returns() {
    let mut world = at_path("old", FilepathMode::NestedByMetadata);
    world.settle();
    world.take_events();
    world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = "other".into();
    world.store = Availability::Ready { place: "there".into(), epoch: 0 };
    world.former = Some(Availability::NotReady { place: "here".into(), cause: "cannot be reached".into() });
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
    let told = "FilesLeftBehind: files in old/resources/default/redis/my-cache/configure/5058f of GitStateStore/default stay \
        for now: GitStateStore/default: not ready: cannot be reached";
    let events = world.take_events();
    assert_eq!(events.iter().filter(|event| *event == told).count(), 1, "{events:?}");
    world.restart();
    world.settle();
    assert!(world.take_events().is_empty(), "told once, by whatever process");
    assert_eq!((left(&world).len(), world.files.len()), (1, 2));
    // It answers, and refuses.
    (world.former, world.cleaning.is_refused) = (None, true);
    world.settle();
    assert!(world.take_events().is_empty());
    assert_eq!(world.files.len(), 2);
    world.cleaning.is_refused = false;
    world.settle();
    assert_eq!((left(&world).len(), world.files.len()), (0, 1));
}

#[test]
fn an_old_place_that_cannot_be_reached_any_more_is_given_up_with_a_word() {
    for (store, cause) in [
        (Availability::NotFound, "GitStateStore/default: not found"),
        (Availability::Ready { place: "there".into(), epoch: 0 }, "GitStateStore/default has another address now"),
    ] {
        let mut world = at_path("old", FilepathMode::NestedByMetadata);
        world.settle();
        world.take_events();
        world.store = Availability::Ready { place: "there".into(), epoch: 0 };
        world.former = Some(store.clone());
        let mut kept = world.clone();
        world.settle();
        let events = world.take_events();
        let told = format!(
            "FilesLeftBehind: files in old/resources/default/redis/my-cache/configure/5058f of GitStateStore/default stay: {cause}"
        );
        assert!(events.contains(&told), "{events:?}");
        assert!(left(&world).is_empty());
        assert_eq!(world.files.len(), 2);
        // While the writer of the previous address is kept, it is reached.
        kept.is_retired = true;
        kept.settle();
        assert_eq!(kept.files.len(), 1);
        assert!(kept.take_events().iter().all(|event| !event.starts_with("FilesLeftBehind")));
    }
}

#[test]
fn one_repository_under_two_addresses_keeps_its_files() {
    let mut world = at_path("d", FilepathMode::NestedByMetadata);
    world.settle();
    world.store = Availability::Ready { place: "there".into(), epoch: 0 };
    world.cleaning.has_twin = true;
    let mut hidden = World { cleaning: Cleaning { hides_twin: true, ..world.cleaning }, ..world.clone() };
    world.settle();
    assert_eq!(world.files.len(), 2, "{:?}", world.paths());
    assert!(left(&world).is_empty());
    assert!(world.take_events().iter().all(|event| !event.starts_with("FilesLeftBehind")));
    hidden.settle();
    assert_eq!((hidden.files.len(), left(&hidden).len()), (2, 0));
    assert!(hidden.take_events().iter().any(|event| event.contains("cannot be told")));
    // The same address in another store's object is no other place.
    let mut world = at_path("d", FilepathMode::NestedByMetadata);
    world.settle();
    world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = "other".into();
    world.settle();
    assert_eq!(world.files.len(), 1);
    assert_eq!(world.commits, ["Update from: p"]);
    assert!(left(&world).is_empty());
    // Two branches of one address are two places, two directories of one repository as well.
    let is_proven = |old: &str, new: &str, path: &str| {
        let mut world = at_path("d", FilepathMode::NestedByMetadata);
        world.store = Availability::Ready { place: old.into(), epoch: 0 };
        let site = site(world.placement.as_ref().unwrap(), world.destination.as_ref().unwrap(), old).unwrap();
        world.placement.as_mut().unwrap().annotations_mut().insert(STORE_LOCATION.into(), site);
        world.settle();
        move_to(&mut world, path);
        world.store = Availability::Ready { place: new.into(), epoch: 0 };
        world.pass();
        !leftovers(&world.snapshot())[0].needs_proof
    };
    assert!(is_proven("url/main/", "url/prod/", "d"));
    assert!(is_proven("url/main/a", "url/main/b", "d"));
    assert!(is_proven("url/main/", "ssh/main/", "e"));
    assert!(!is_proven("url/main/", "ssh/main/", "d"));
    assert!(!is_proven("url/main/x", "ssh/main/", "x/d"));
}

#[test]
fn whoever_goes_after_its_store_has_got_another_name_takes_its_files_along() {
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::None] {
        let mut world = at_path("d", mode);
        world.settle();
        assert!(!world.files.is_empty());
        world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = "other".into();
        world.attempt = None; // nothing has run meanwhile
        world.delete();
        let mut waiting = world.clone();
        world.settle();
        assert!(world.placement.is_none());
        assert_eq!(world.paths(), [""; 0]);

        waiting.store = Availability::NotReady { place: "here".into(), cause: String::new() };
        waiting.settle();
        assert!(waiting.placement.is_some() && !waiting.files.is_empty());
        waiting.store = ready();
        waiting.now += 15;
        waiting.settle();
        assert!(waiting.placement.is_none() && waiting.files.is_empty());
    }
}

#[test]
fn whoever_goes_on_elsewhere_waits_for_seconds_for_the_old_place_and_whoever_leaves_for_good_to_the_end() {
    let mut world = at_path("d", FilepathMode::NestedByMetadata);
    world.settle();
    move_to(&mut world, "e");
    world.pass();
    let patience = |world: &World| leftovers(&world.snapshot())[0].patience;
    assert_eq!(patience(&world), Some(crate::state_store::SILENCE));
    world.placement.as_mut().unwrap().metadata.deletion_timestamp = Some(kratix_api::Time(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(patience(&world), None);
}

#[test]
fn one_that_leaves_for_good_and_waits_for_an_old_place_names_that_place() {
    let mut world = at_path("old", FilepathMode::None);
    world.settle();
    world.take_events();
    move_to(&mut world, "new");
    world.cleaning.is_refused = true;
    world.settle();
    let site = left(&world)[0].clone();
    assert!(clearing(&world.snapshot(), &site, None).is_silent(), "it goes on elsewhere");
    world.delete();
    let plan = clearing(&world.snapshot(), &site, Some("no answer from x yet"));
    world.take_events();
    world.execute(&plan);
    let message = "waiting for files in old of GitStateStore/default to be removed: no answer from x yet";
    assert_eq!(world.condition("WriteSucceeded"), said((Status::Unknown, "WaitingForStateStore", message)));
    assert_eq!(world.condition("Ready").2, "Pending");
    assert!(world.take_events().is_empty(), "a wait is no failure");
    assert!(clearing(&world.snapshot(), &site, Some("no answer from x yet")).is_silent(), "once");
    world.cleaning.is_refused = false;
    world.settle();
    assert!(world.placement.is_none() && world.files.is_empty());
}

// decision 16
#[test]
fn what_another_one_has_at_the_old_place_by_now_is_left_alone() {
    let nested = || destination("old", FilepathMode::NestedByMetadata);
    let flat = destination("old/resources", FilepathMode::None);
    let mut deep = placement("q", &[("default/redis/my-cache/configure/5058f/a", "theirs")]);
    deep.spec.target_destination_name = "flat".into();
    let mut aggregate =
        destination("old/resources/default/redis/my-cache/configure/5058f", FilepathMode::AggregatedYaml);
    aggregate.spec.filepath.filename = "a".into();
    for (taker, at) in [(placement("q", &[]), nested()), (deep, flat), (placement("q", &[]), aggregate)] {
        let mut world = at_path("old", FilepathMode::NestedByMetadata);
        world.settle();
        move_to(&mut world, "new");
        world.claims = vec![claim(taker.clone(), at.clone())];
        world.files.insert("old/resources/default/redis/my-cache/configure/5058f/a".into(), "theirs".into());
        world.settle();
        assert_eq!(world.files.len(), 2, "{:?}", at.spec);
        assert!(left(&world).is_empty());
        // In another repository it is no rival.
        let mut world = at_path("old", FilepathMode::NestedByMetadata);
        world.settle();
        move_to(&mut world, "new");
        world.claims = vec![Claim { place: "there".into(), ..claim(taker, at) }];
        world.settle();
        assert_eq!(world.files.len(), 1);
    }
    let mut world = at_path("old", FilepathMode::AggregatedYaml);
    world.settle();
    move_to(&mut world, "new");
    world.claims = vec![claim(placement("q", &[]), destination("old", FilepathMode::AggregatedYaml))];
    world.settle();
    assert_eq!(world.paths(), ["new/aggregated.yaml", "old/aggregated.yaml"]);
    // Two placements with one state file: what it lists is the other one's.
    let mut twin = placement("q", &[]);
    (twin.metadata.namespace, twin.metadata.name) = (Some("a".into()), Some("b-c".into()));
    let mut leaving = placement("c", &[("a", "1")]);
    leaving.metadata.namespace = Some("a-b".into());
    let mut world = World::new(leaving, destination("old", FilepathMode::None));
    world.settle();
    let files = world.files.clone();
    move_to(&mut world, "new");
    world.claims = vec![claim(twin, destination("old", FilepathMode::None))];
    world.settle();
    assert!(files.keys().all(|path| world.files.contains_key(path)), "{:?}", world.paths());
}

#[test]
fn a_directory_inside_the_previous_one_stays_as_it_is() {
    let mut world = at_path("d", FilepathMode::None);
    world.settle();
    world.take_events();
    move_to(&mut world, "d/sub");
    world.settle();
    assert!(world.paths().contains(&"d/a") && world.paths().contains(&"d/sub/a"));
    assert!(world.take_events().iter().any(|event| event.contains("one contains the other")));
    assert!(!world.pass());
}

#[test]
fn a_move_back_and_a_move_on_leave_nothing_anywhere() {
    let mut world = at_path("a", FilepathMode::NestedByMetadata);
    world.settle();
    world.cleaning.is_refused = true;
    for path in ["b", "c", "a", "d"] {
        move_to(&mut world, path);
        world.settle();
        world.restart();
    }
    assert_eq!(left(&world).len(), 3);
    world.cleaning.is_refused = false;
    world.settle();
    assert_eq!(world.paths(), ["d/resources/default/redis/my-cache/configure/5058f/a"]);
}

#[test]
fn deleting_clears_the_present_and_all_previous_places() {
    for (is_cleaned, rest) in [(true, 0), (false, 1)] {
        let mut world = at_path("a", FilepathMode::NestedByMetadata);
        world.settle();
        world.cleaning.is_refused = true;
        move_to(&mut world, "b");
        world.settle();
        world.take_events();
        world.cleaning.is_refused = !is_cleaned;
        world.delete();
        world.settle();
        assert!(world.placement.is_none());
        assert_eq!(world.files.len(), rest, "{:?}", world.paths());
        assert_eq!(world.take_events().iter().any(|event| event.starts_with("FilesLeftBehind")), !is_cleaned);
    }
    // Nothing was written at the new place yet, so its store is not waited for.
    let mut world = at_path("a", FilepathMode::NestedByMetadata);
    world.settle();
    world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = "dead".into();
    world.store = Availability::NotReady { place: "there".into(), cause: String::new() };
    world.settle();
    world.delete();
    world.settle();
    assert!(world.placement.is_none() && world.files.is_empty());
}

// spec 05 §14.22, issue: placement never written
#[test]
fn what_was_made_for_a_store_that_never_was_goes_at_once() {
    let mut world = at_path("a", FilepathMode::NestedByMetadata);
    let nowhere = site(world.placement.as_ref().unwrap(), world.destination.as_ref().unwrap(), "").unwrap();
    world.placement.as_mut().unwrap().annotations_mut().insert(STORE_LOCATION.into(), nowhere);
    world.store = Availability::NotFound;
    let mut written = world.clone();
    world.settle();
    world.delete();
    world.settle();
    assert!(world.placement.is_none());
    // Once there is a store, the place is noted before anything is written.
    written.store = ready();
    written.pass();
    assert!(written.files.is_empty());
    written.settle();
    assert_eq!(written.files.len(), 1);
    assert!(left(&written).is_empty());
}

#[test]
fn too_many_places_are_given_up_from_the_first() {
    let mut world = at_path("0", FilepathMode::NestedByMetadata);
    world.settle();
    world.cleaning.is_refused = true;
    for path in 1..=site::SITES_MAX + 1 {
        move_to(&mut world, &path.to_string());
        world.settle();
    }
    assert_eq!(left(&world).len(), site::SITES_MAX);
    assert!(world.take_events().iter().any(|event| event.contains("too many places")));
}

proptest! {
    #[test]
    fn wherever_a_move_is_interrupted_the_files_end_at_the_present_place_alone(
        mode in 0usize..3,
        steps in prop::collection::vec((0u8..8, 0usize..4), 1..14),
    ) {
        let modes = [FilepathMode::NestedByMetadata, FilepathMode::None, FilepathMode::AggregatedYaml];
        let mut world = at_path("p0", modes[mode].clone());
        for (step, to) in steps {
            world.now += 20;
            match step {
                0..=2 => move_to(&mut world, &format!("p{to}")),
                3 => {
                    let (name, place) = if to % 2 == 0 { ("default", "here") } else { ("other", "there") };
                    world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = name.into();
                    world.store = Availability::Ready { place: place.into(), epoch: 0 };
                }
                4 => world.edit(&[("a", "2"), ("b", "2")]),
                5 => world.edit(&[("c", "3")]),
                6 => {
                    // The store has taken it, and the process dies before it can say so.
                    let snapshot = world.snapshot();
                    let decision = decide(&snapshot);
                    match decision.effect {
                        Some(effect) => drop(world.apply(&effect.change, snapshot.store.place().unwrap())),
                        None if decision.cleans => drop(world.clean(&snapshot)),
                        None => world.execute(&decision.plan),
                    }
                    world.restart();
                }
                _ => {}
            }
            for _ in 0..to {
                world.pass();
            }
        }
        world.now += 20;
        world.settle();
        prop_assert!(is_written(world.placement.as_ref().unwrap()));
        prop_assert!(left(&world).is_empty());
        let (place, path) = (world.store.place().unwrap().to_owned(), world.destination.as_ref().unwrap().spec.path.clone());
        let root = if place == "here" { format!("{path}/") } else { format!("{place}:{path}/") };
        prop_assert!(world.paths().iter().all(|file| file.starts_with(&root)), "{root} {:?}", world.paths());
        world.delete();
        world.settle();
        prop_assert!(world.files.is_empty(), "{:?}", world.paths());
    }
}

#[test]
fn a_place_that_a_stale_view_does_not_show_is_not_forgotten() {
    let mut world = at_path("old", FilepathMode::NestedByMetadata);
    world.settle();
    move_to(&mut world, "new");
    world.pass();
    let mut stale = world.clone();
    world.pass();
    let present = world.placement.as_ref().unwrap();
    assert_eq!(left(&world).len(), 1, "the old place, since the status speaks of the new one");
    assert_ne!(present.resource_version(), stale.placement.as_ref().unwrap().resource_version());
    // The Destination moves on before the last write is seen: what is decided now is refused by the API server.
    move_to(&mut stale, "newer");
    let plan = decide(&stale.snapshot()).plan;
    let seen = stale.placement.as_ref().unwrap().resource_version();
    assert!(!plan.writes.is_empty());
    for write in &plan.writes {
        let Write::Patch { target, .. } = write else { panic!("{write:?}") };
        assert_eq!(target.resource_version, seen);
    }
    move_to(&mut world, "newer");
    world.settle();
    assert_eq!(world.paths(), ["newer/resources/default/redis/my-cache/configure/5058f/a"]);
}

#[test]
fn there_and_back_again_leaves_files_at_one_place() {
    for mode in [FilepathMode::NestedByMetadata, FilepathMode::None, FilepathMode::AggregatedYaml] {
        // However far the first move got.
        for passes in 0..8 {
            let mut world = at_path("a", mode.clone());
            world.settle();
            let there = world.files.clone();
            move_to(&mut world, "b");
            (0..passes).for_each(|_| _ = world.pass());
            move_to(&mut world, "a");
            world.settle();
            assert_eq!(world.files, there, "{mode:?} after {passes} passes");
            assert!(left(&world).is_empty());
            assert_eq!(world.condition("Ready").2, "Ready");
        }
    }
}

#[test]
fn what_another_member_has_brought_to_a_new_place_goes_with_the_placement() {
    let mut world = at_path("old", FilepathMode::AggregatedYaml);
    world.members = vec![placement("q", &[("b", "2")])];
    world.settle();
    move_to(&mut world, "new");
    // The other one has written for both; this one has not noted the place when it is deleted.
    let covered = Attempt { stamp: "of the other".into(), at: at(0), outcome: Ok(Written::default()) };
    world.attempt = Some(covered);
    world.files.insert("new/aggregated.yaml".into(), "1\n---\n2".into());
    world.delete();
    world.settle();
    assert!(world.placement.is_none());
    assert_eq!(world.files.get("new/aggregated.yaml").map(String::as_str), Some("2"));
}

#[test]
fn two_stores_with_one_address_take_turns_and_two_addresses_do_not() {
    let (placement, mut here) = (placement("p", &[("a", "1")]), destination("d", FilepathMode::NestedByMetadata));
    let own = turns(&placement, &here, Some("server/main/"));
    here.spec.state_store_ref.as_mut().unwrap().name = "other".into();
    assert_eq!(turns(&placement, &here, Some("server/main/")), own);
    here.spec.path = "x".into();
    assert_ne!(turns(&placement, &here, Some("server/main/")), own);
    here.spec.path = "d".into();
    assert_ne!(turns(&placement, &here, Some("server/other/")), own);
    assert_eq!(own.len(), 1);
}
