//! What a status says of one place is not said of another.

use super::*;

#[test]
fn another_place_means_another_write() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.store = Availability::Ready { place: "there".into(), epoch: 0 };
    let decision = decide(&world.snapshot());
    assert!(decision.effect.is_none() && decision.plan.writes.len() == 1, "the place is noted first");
    assert!(!queued(&world.snapshot(), 1, None).is_silent(), "the content is not where it should be");
    world.store = ready();
    assert_eq!(decide(&world.snapshot()).effect, None);
    world.destination.as_mut().unwrap().spec.path = "worker-2".into();
    world.settle();
    assert!(world.paths().iter().any(|path| path.starts_with("worker-2/")));
    assert!(is_written(world.placement.as_ref().unwrap()));
    assert!(!world.pass());
}

#[test]
fn what_is_said_of_one_place_is_not_said_of_another() {
    type Move = fn(&mut World);
    let moves: [(&str, Move); 4] = [
        ("path", |world| world.destination.as_mut().unwrap().spec.path = "elsewhere".into()),
        ("address", |world| world.store = Availability::NotReady { place: "there".into(), cause: String::new() }),
        ("store", |world| {
            world.destination.as_mut().unwrap().spec.state_store_ref.as_mut().unwrap().name = "other".into();
        }),
        ("no store", |world| world.store = Availability::NotFound),
    ];
    for (what, edit) in moves {
        for is_restarted in [false, true] {
            let mut world = World::nested(&[("a", "1")]);
            world.settle();
            world.store = not_ready();
            assert!(!world.pass(), "the content is still where it was");
            edit(&mut world);
            if is_restarted {
                world.restart();
            }
            world.settle();
            assert_eq!(world.condition("WriteSucceeded").0, Status::Unknown, "{what}");
            assert_eq!(world.condition("Ready").2, "Pending", "{what}");
            // The first attempt there fails at once.
            let place = world.store.place().unwrap_or("here").to_owned();
            world.store = Availability::Ready { place, epoch: 1 };
            world.refuses = Some(trouble("cannot be reached"));
            world.pass();
            world.pass();
            assert!(!is_written(world.placement.as_ref().unwrap()), "{what}");
            world.refuses = None;
            world.now += 15;
            world.settle();
            assert!(is_written(world.placement.as_ref().unwrap()), "{what}");
            let place = world.store.place().unwrap().to_owned();
            world.store = Availability::NotReady { place, cause: String::new() };
            world.restart();
            assert!(!world.pass(), "{what}: and now it speaks of the new place");
        }
    }
    // A fast move says so before it writes.
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.destination.as_mut().unwrap().spec.path = "elsewhere".into();
    world.pass();
    let decision = decide(&world.snapshot());
    assert!(decision.plan.status.is_some() && decision.effect.is_some());
}

#[test]
fn a_store_that_may_have_lost_everything_gets_it_again_without_a_word() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.files.clear();
    let before = world.placement.clone();
    assert!(!world.pass());
    world.take_events();
    world.store = Availability::Ready { place: "here".into(), epoch: 1 };
    assert!(queued(&world.snapshot(), 1, None).is_silent());
    world.settle();
    assert_eq!(world.files.len(), 1);
    let conditions = |placement: Option<WorkPlacement>| placement.unwrap().status.unwrap().conditions;
    assert_eq!(conditions(world.placement), conditions(before));
}

#[test]
fn a_store_that_cannot_be_asked_takes_nothing_back_and_new_content_waits_visibly() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.take_events();
    world.restart();
    world.refuses = Some(trouble("cannot be reached"));
    world.pass();
    assert_eq!(world.condition("Ready").2, "Ready", "what was durable stays so");

    for (store, reason, message) in [
        (not_ready(), "StateStoreNotReady", "GitStateStore/default: not ready"),
        (
            Availability::NotReady { place: "here".into(), cause: "Secret s not found in namespace n".into() },
            "StateStoreNotReady",
            "GitStateStore/default: not ready: Secret s not found in namespace n",
        ),
        (Availability::NotFound, "StateStoreNotFound", "GitStateStore/default: not found"),
    ] {
        let mut world = world.clone();
        world.store = store;
        // What has no place is nowhere.
        assert_eq!(world.pass(), reason == "StateStoreNotFound");
        world.take_events();
        world.edit(&[("a", "2")]);
        world.settle();
        assert_eq!(world.condition("WriteSucceeded"), said((Status::Unknown, reason, message)));
        assert_eq!(world.condition("Ready"), said((Status::False, reason, "Pending")));
        assert_eq!(world.take_events(), [format!("{reason}: {message}")]);
        assert!(!world.pass(), "said once");
        world.store = ready();
        world.refuses = None;
        world.settle();
        assert_eq!(world.condition("Ready").2, "Ready");
    }
}

// spec 05 weakness 28
#[test]
fn a_destination_that_names_no_store_is_told_on_its_placements_and_one_that_does_heals() {
    let mut world = World::nested(&[("a", "1")]);
    let store = world.destination.as_mut().unwrap().spec.state_store_ref.take();
    world.store = Availability::Unset;
    world.settle();
    let message = "stateStoreRef is not set; hint: set spec.stateStoreRef of the Destination";
    assert_eq!(world.condition("WriteSucceeded"), said((Status::Unknown, "StateStoreNotFound", message)));
    assert_eq!(world.take_events(), [format!("StateStoreNotFound: {message}")]);
    world.destination.as_mut().unwrap().spec.state_store_ref = store;
    world.store = ready();
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
}
