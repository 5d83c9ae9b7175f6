//! Paths of a shared directory that pass from one placement to another.

use super::*;

const OWNED: &str = "path \"d/f\" already belongs to default-q";

fn flat(name: &str) -> World {
    World::new(placement(name, &[("f", "1")]), destination("d", FilepathMode::None))
}

fn of_another_request(name: &str) -> WorkPlacement {
    let mut placement = placement(name, &[("f", "q")]);
    placement.spec.resource_name = "other".into();
    placement
}

/// Returns a placement whose path is another one's.
fn refused_by(owner: WorkPlacement, was_refused_before: bool) -> World {
    let mut world = flat("p");
    world.refuses = Some(Failure { retry: true, ..Failure::content(format!("{OWNED}; hint: rename the file")) });
    world.handover = Handover { owner: Some(Arc::new(owner)), was_refused_before, is_awaited: false };
    world
}

#[test]
fn a_path_that_another_one_of_the_request_has_still_is_waited_for_and_failed_for_if_it_keeps_it() {
    let mut world = refused_by(placement("q", &[]), false);
    world.settle();
    assert_eq!(world.condition("Ready"), said((Status::False, "WaitingForPath", "Pending")));
    let message = format!("{OWNED}: waiting for workplacement default/q to give it up");
    assert_eq!(world.condition("WriteSucceeded"), (Status::Unknown, "WaitingForPath".into(), message));
    assert_eq!(world.take_events(), [""; 0]);
    let next = |world: &World| decide(&world.snapshot()).plan.next;
    assert_eq!(next(&world), Next::After(RETRY_AFTER));

    world.now += 15;
    world.handover.was_refused_before = true;
    world.settle();
    assert_eq!(world.condition("Ready"), said((Status::False, "WorkloadsFailedWrite", "Failing")));
    assert_eq!(reasons(&decide(&world.snapshot()).plan), [""; 0], "it is told once");
    assert!(world.take_events().iter().any(|event| event.starts_with("FailedWriteToDestination")));
    // It has failed, and is not called pending again because its attempt counts as the first.
    world.now += 15;
    world.handover.was_refused_before = false;
    world.settle();
    assert_eq!(world.condition("Ready").2, "Failing");

    world.refuses = None;
    world.now += 15;
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
}

#[test]
fn a_path_of_somebody_else_fails_at_once_unless_that_one_is_leaving() {
    let mut elsewhere = placement("q", &[]);
    elsewhere.metadata.namespace = Some("team".into());
    for owner in [of_another_request("q"), elsewhere] {
        let mut world = refused_by(owner.clone(), false);
        world.settle();
        assert_eq!(world.condition("Ready").2, "Failing", "{owner:?}");
        let mut leaving = owner;
        leaving.metadata.deletion_timestamp = Some(Time(at(0)));
        for was_refused_before in [false, true] {
            let mut world = refused_by(leaving.clone(), was_refused_before);
            world.settle();
            assert_eq!(world.condition("Ready").1, "WaitingForPath");
            assert!(world.take_events().is_empty());
        }
    }
}

#[test]
fn the_files_of_one_that_is_leaving_stay_until_its_heirs_are_written_and_not_for_long() {
    let leaving = || {
        let mut world = flat("p");
        world.settle();
        world.delete();
        world
    };
    let is_held = |world: &mut World| {
        let before = world.files.clone();
        assert!(!world.pass() || world.files != before, "nothing is written while it waits");
        world.files == before
    };
    let heir = placement("q", &[("f", "q")]);
    let mut world = leaving();
    world.rivals = vec![heir.clone()];
    assert!(is_held(&mut world) && yields(&world.snapshot()));
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(RETRY_AFTER));
    let mut written = World::new(heir.clone(), destination("d", FilepathMode::None));
    written.settle();
    let mut released = world.clone();
    released.rivals = vec![written.placement.unwrap()];
    assert!(!is_held(&mut released), "its heir is written");
    let mut failing = World::new(heir.clone(), destination("d", FilepathMode::None));
    failing.refuses = Some(trouble("no"));
    failing.settle();
    let mut released = world.clone();
    released.rivals = vec![failing.placement.unwrap()];
    assert!(!is_held(&mut released), "whoever cannot be written holds nobody up");
    let mut late = world.clone();
    late.now += 14;
    assert!(is_held(&mut late));
    assert_eq!(decide(&late.snapshot()).plan.next, Next::After(Duration::from_secs(1)));
    late.now += 1;
    assert!(!is_held(&mut late), "nobody holds it up for ever");
    late.settle();
    assert!(late.placement.is_none() && late.files.is_empty());

    // Somebody else was refused a path of it.
    let mut world = leaving();
    world.handover.is_awaited = true;
    assert!(is_held(&mut world));
    world.handover.is_awaited = false;
    assert!(!is_held(&mut world));
}

#[test]
fn a_removal_waits_for_nobody_who_cannot_be_an_heir() {
    let (mut elsewhere, mut leaving) = (placement("q", &[]), placement("q", &[]));
    elsewhere.spec.target_destination_name = "worker-2".into();
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    for other in [of_another_request("q"), elsewhere, leaving] {
        let mut world = flat("p");
        world.settle();
        world.delete();
        world.rivals = vec![other];
        assert!(!yields(&world.snapshot()));
        world.settle();
        assert!(world.placement.is_none() && world.files.is_empty());
    }
    // Whoever has a directory of its own has no paths in common with others.
    let mut nested = World::nested(&[("f", "1")]);
    nested.settle();
    nested.delete();
    nested.handover.is_awaited = true;
    assert!(!yields(&nested.snapshot()));
}

#[test]
fn a_refusal_is_over_when_its_owner_may_have_given_the_path_up_and_is_asked_for_once() {
    let owned = |owner: Option<WorkPlacement>, was_refused_before| Handover {
        owner: owner.map(Arc::new),
        was_refused_before,
        is_awaited: false,
    };
    let mut leaving = placement("q", &[]);
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    let cases = [
        ("kept", owned(Some(placement("q", &[])), false), false, false),
        ("written anew meanwhile", owned(Some(placement("q", &[])), false), true, true),
        ("leaving", owned(Some(leaving.clone()), false), false, true),
        ("gone", owned(None, false), false, true),
        ("asked for before", owned(Some(leaving), true), true, false),
        ("gone, and asked for before", owned(None, true), false, false),
    ];
    for (what, handover, has_written, is_over) in cases {
        assert_eq!(handover.is_refusal_over(has_written), is_over, "{what}");
    }
}
