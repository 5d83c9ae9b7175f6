//! A store that refuses what it is given, seen from its Destinations.

use super::*;

const REFUSED: &str = "failed to push: no changes on Friday";
const SAID: &str = "GitStateStore/default: failed to push: no changes on Friday";

fn refused(world: &World) -> Option<(Status, String, String)> {
    let status = world.destination.as_ref().unwrap().status.clone().unwrap_or_default();
    let found = condition::find(&status.conditions, "PushesAccepted")?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

#[test]
fn what_the_store_refuses_is_said_once_beside_ready_and_until_the_store_says_it_no_more() {
    let mut world = World::new(destination(FilepathMode::None));
    world.settle();
    let (ready, statuses) = (world.ready(), world.statuses);
    world.refusal = Some(REFUSED.into());
    let plan = decide(&world.snapshot()).plan;
    assert_eq!(reasons(&plan), ["PushRefused"]);
    assert_eq!((plan.events[0].type_, plan.events[0].reporter), (EventType::Warning, Reporter::Destination));
    assert_eq!(plan.events[0].note, SAID);
    world.settle();
    assert_eq!(refused(&world), Some(said((Status::False, "PushRefused", SAID))));
    assert_eq!((world.ready(), world.statuses), (ready.clone(), statuses + 1), "its documents are there");
    // Also by another process, which knows nothing but what the store says.
    world.attempt = None;
    world.settle();
    assert_eq!(world.statuses, statuses + 1);
    world.refusal = None;
    let told = world.notes.len();
    world.settle();
    assert_eq!((refused(&world), world.ready(), world.notes.len()), (None, ready, told));
    assert!(!world.pass());
}

#[test]
fn a_store_that_does_not_answer_is_told_without_an_event() {
    let mut world = World::new(destination(FilepathMode::None));
    world.settle();
    let (ready, told) = (world.ready(), world.notes.len());
    world.refusal = Some(Complaint::Unanswered("no answer from x yet".into()));
    world.settle();
    let said_of_it = "GitStateStore/default: no answer from x yet";
    assert_eq!(refused(&world), Some(said((Status::Unknown, "NoAnswerYet", said_of_it))));
    world.refusal = None;
    world.settle();
    assert_eq!((refused(&world), world.ready(), world.notes.len()), (None, ready, told));
}

#[test]
fn a_destination_whose_documents_wait_says_so_unless_something_was_found_out_already() {
    let mut world = World::new(noted(destination(FilepathMode::None)));
    let plan = queued(&world.snapshot(), Some("no answer from x yet"));
    assert!(plan.events.is_empty());
    world.execute(&plan);
    let waits = (Status::Unknown, "WaitingForStateStore", "waiting for GitStateStore/default: no answer from x yet");
    assert_eq!(world.ready(), said(waits));
    assert!(queued(&world.snapshot(), None).is_silent(), "once");
    world.settle();
    assert_eq!(world.ready().0, Status::True);
    assert!(queued(&world.snapshot(), None).is_silent());
    world.store = not_ready();
    world.settle();
    world.execute(&queued(&world.snapshot(), None));
    assert_eq!(world.ready().2, "waiting for GitStateStore/default");
}

#[test]
fn another_store_or_none_takes_back_what_was_said_of_the_former() {
    for store in [not_ready(), Availability::NotFound, ready()] {
        let mut world = World::new(destination(FilepathMode::None));
        world.refusal = Some(REFUSED.into());
        world.settle();
        assert!(refused(&world).is_some());
        (world.store, world.refusal) = (store, None);
        world.settle();
        assert_eq!(refused(&world), None, "{:?}", world.store);
    }
}

#[test]
fn documents_that_were_refused_are_tried_again_as_soon_as_the_store_has_taken_something() {
    let mut world = World::new(destination(FilepathMode::None));
    let failure = Failure { message: REFUSED.into(), retry: true, retry_after: None, about: About::Store };
    (world.refuses, world.refusal) = (Some(failure), Some(REFUSED.into()));
    world.pass();
    world.settle();
    assert_eq!(world.ready().1, "StateStoreWriteFailed");
    assert!(decide(&world.snapshot()).effect.is_none(), "it waits");
    // Refused again at once: once tried, it waits as before.
    world.refusal = None;
    world.pass();
    assert!(decide(&world.snapshot()).effect.is_none());
    world.refusal = Some(REFUSED.into());
    world.settle();
    (world.refuses, world.refusal) = (None, None);
    world.settle();
    assert_eq!((world.ready().1.as_str(), world.now), ("TestDocumentsWritten", 0), "without waiting");
}

#[test]
fn a_destination_that_waits_for_its_placements_to_go_says_what_keeps_them() {
    let mut world = World::new(destination(FilepathMode::None));
    world.destination.as_mut().unwrap().spec.cleanup = Cleanup::All;
    world.settle();
    world.placements = vec![placement("a")];
    world.delete();
    world.refusal = Some(REFUSED.into());
    world.notes.clear();
    world.pass();
    assert_eq!(world.notes, [SAID]);
    assert_eq!(world.ready().1, "WaitingForWorkPlacements");
    assert!(refused(&world).is_some());
}

#[test]
fn a_destination_that_cannot_go_yet_says_which_store_it_waits_for() {
    let mut start = destination(FilepathMode::None);
    start.spec.cleanup = Cleanup::All;
    let mut world = World::new(start);
    world.settle();
    world.destination.as_mut().unwrap().spec.path = "elsewhere".into();
    world.cleaning.is_refused = true;
    world.settle();
    let site = world.formers()[0].site.clone();
    let silence = Some("no answer from x yet");
    assert!(clearing(&world.snapshot(), &site, silence).is_silent(), "it goes on elsewhere");
    world.delete();
    world.placements = vec![placement("a")];
    world.pass();
    assert!(queued(&world.snapshot(), silence).is_silent(), "it waits for its placements");
    world.placements.clear();
    world.notes.clear();
    let waits = "waiting for GitStateStore/default: no answer from x yet";
    world.execute(&queued(&world.snapshot(), silence));
    assert_eq!(world.ready(), said((Status::Unknown, "WaitingForStateStore", waits)));
    assert!(queued(&world.snapshot(), None).is_silent(), "once");
    let waits = "waiting for test documents (kratix-canary) in worker-1 of GitStateStore/default to be removed: no answer from x yet";
    world.execute(&clearing(&world.snapshot(), &site, silence));
    assert_eq!(world.ready(), said((Status::Unknown, "WaitingForStateStore", waits)));
    assert!(clearing(&world.snapshot(), &site, silence).is_silent(), "once");
    assert!(world.notes.is_empty(), "a wait is no failure");
    let failure = Failure { message: "no".into(), retry: true, retry_after: None, about: About::Store };
    world.refuses = Some(failure);
    world.pass();
    assert_eq!(world.ready().1, "StateStoreWriteFailed");
    assert!(queued(&world.snapshot(), silence).is_silent(), "what has failed is not taken back");
}
