//! Tables over `decide`, with a store in memory that applies effects.

mod drift;
mod handover;
mod moving;
mod namesakes;
mod owners;
mod parts;
mod paths;
mod places;
mod removal;
mod world;

use std::sync::Arc;

use kratix_api::condition::Status;
use kratix_api::destination::{FilepathMode, StateStoreKind, StateStoreRef};
use kratix_api::{Condition, DestinationSpec, ObjectMeta, Promise, Time, WorkPlacementSpec, Workload, compression};
use proptest::prelude::*;

use self::world::World;
use super::*;
use crate::plan::EventType;
use crate::state_store::model::Cleaning;
use crate::state_store::{About, Change, ChangeKind, Operation, Written};
use crate::work::tests::{at, labels, patched, reasons};

const DOT: &str = "5058f1af8388633f609cadb75a75dc9d";

fn destination(path: &str, mode: FilepathMode) -> Destination {
    let spec = DestinationSpec {
        path: path.into(),
        state_store_ref: Some(StateStoreRef { kind: StateStoreKind::GitStateStore, name: "default".into() }),
        filepath: kratix_api::destination::Filepath { mode, filename: String::new() },
        ..Default::default()
    };
    let mut destination = Destination::new("worker-1", spec);
    destination.metadata.uid = Some("uid-d".into());
    destination
}

fn workload(path: &str, content: &str) -> Workload {
    Workload { filepath: path.into(), content: compression::compress(content.as_bytes()) }
}

fn placement(name: &str, files: &[(&str, &str)]) -> WorkPlacement {
    WorkPlacement {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some("1".into()),
            generation: Some(1),
            creation_timestamp: Some(Time(at(0))),
            finalizers: Some(vec![keys::FINALIZER_REPO_CLEANUP.into(), keys::FINALIZER_DOT_FILES_CLEANUP.into()]),
            labels: Some(labels(&[(keys::PIPELINE_NAME, "configure")])),
            ..Default::default()
        },
        spec: WorkPlacementSpec {
            target_destination_name: "worker-1".into(),
            workloads: files.iter().map(|(path, content)| workload(path, content)).collect(),
            promise_name: "redis".into(),
            resource_name: "my-cache".into(),
            id: DOT.into(),
            generation: Some(1),
        },
        status: None,
    }
}

fn ready() -> Availability {
    Availability::Ready { place: "here".into(), epoch: 0 }
}

fn not_ready() -> Availability {
    Availability::NotReady { place: "here".into(), cause: String::new() }
}

fn said(condition: (Status, &str, &str)) -> (Status, String, String) {
    (condition.0, condition.1.to_owned(), condition.2.to_owned())
}

fn trouble(message: &str) -> Failure {
    Failure { message: message.into(), about: About::Store, retry: true, retry_after: None }
}

#[test]
fn a_new_placement_costs_one_write_to_the_store_and_one_status() {
    let mut world = World::nested(&[("a.yaml", "a: 1\n"), ("dir/b.yaml", "b: 1\n")]);
    let first = decide(&world.snapshot());
    assert!(first.plan.is_silent() && first.effect.is_some());
    world.pass();
    assert_eq!(
        world.paths(),
        [
            "worker-1/resources/default/redis/my-cache/configure/5058f/a.yaml",
            "worker-1/resources/default/redis/my-cache/configure/5058f/dir/b.yaml",
        ]
    );
    assert_eq!(world.commits, ["Update from: p"]);
    assert_eq!(
        world.condition("ScheduleSucceeded"),
        said((Status::True, "ScheduledToDestination", "Scheduled to correct Destination"))
    );
    assert_eq!(world.condition("Ready"), said((Status::True, "WorkloadsWrittenToTargetDestination", "Ready")));
    let written = said((Status::True, "WorkloadsWrittenToStateStore", "Workloads written to State Store"));
    assert_eq!(world.condition("WriteSucceeded"), written);
    let placement = world.placement.as_ref().unwrap();
    let types: Vec<&str> = placement.status.as_ref().unwrap().conditions.iter().map(|c| c.r#type.as_str()).collect();
    assert_eq!(types, ["ScheduleSucceeded", "Ready", "WriteSucceeded"]);
    assert_eq!(placement.status.as_ref().unwrap().version_id, "v1");
    assert!(is_written(placement));
    let note = "WorkloadsWrittenToStateStore: successfully written to Destination: worker-1 with versionID: v1";
    assert_eq!(world.take_events(), [note]);
    assert!(!world.pass(), "converged");
}

#[test]
fn a_start_with_nothing_changed_writes_nothing_and_repairs_what_was_altered() {
    let mut world = World::nested(&[("a.yaml", "a: 1\n")]);
    world.settle();
    world.take_events();
    let before = world.placement.clone();
    world.restart();
    world.settle();
    assert_eq!(world.placement, before);
    assert_eq!(world.commits.len(), 1);
    assert!(world.take_events().is_empty());
    world.files.clear();
    world.restart();
    world.settle();
    assert_eq!(world.files.len(), 1);
    assert_eq!(world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id, "v2");
    assert_eq!(world.take_events().len(), 2, "that it was written, and that it had been altered");
}

#[test]
fn a_workflow_that_runs_again_puts_the_same_files_back() {
    let mut world = World::nested(&[("a.yaml", "a: 1\n")]);
    world.settle();
    world.files.clear();
    world.edit(&[("a.yaml", "a: 1\n")]);
    assert!(!is_written(world.placement.as_ref().unwrap()), "the status speaks of the previous generation");
    world.settle();
    assert_eq!(world.files.len(), 1);
    assert!(is_written(world.placement.as_ref().unwrap()));
}

#[test]
fn files_that_are_no_longer_listed_disappear_and_only_from_the_own_directory() {
    let mut world = World::nested(&[("a.yaml", "1"), ("b.yaml", "1")]);
    world.files.insert("worker-1/resources/default/redis/my-cache/configure/5058f-x/keep".into(), "1".into());
    world.settle();
    world.edit(&[("b.yaml", "2")]);
    world.settle();
    assert_eq!(world.files.len(), 2);
    assert_eq!(world.files["worker-1/resources/default/redis/my-cache/configure/5058f/b.yaml"], "2");
}

#[test]
fn a_flat_placement_has_both_finalizers_before_its_first_file_and_takes_its_files_along() {
    let mut start = placement("p", &[("ns.yaml", "1"), ("app/x.yaml", "2")]);
    start.metadata.finalizers = Some(vec![keys::FINALIZER_REPO_CLEANUP.into()]);
    let mut world = World::new(start, destination("worker-1", FilepathMode::None));
    let decision = decide(&world.snapshot());
    assert!(matches!(&decision.plan.writes[..], [Write::Patch { patch, .. }]
        if patch["metadata"]["finalizers"] == json!([keys::FINALIZER_REPO_CLEANUP, keys::FINALIZER_DOT_FILES_CLEANUP])));
    world.settle();
    assert_eq!(world.paths(), ["worker-1/.kratix/default-p.yaml", "worker-1/app/x.yaml", "worker-1/ns.yaml"]);
    assert_eq!(world.condition("Ready").2, "Ready");
    world.files.insert("worker-1/foreign.yaml".into(), "1".into());
    world.delete();
    world.settle();
    assert_eq!(world.paths(), ["worker-1/foreign.yaml"]);
    assert!(world.placement.is_none());
    assert_eq!(world.commits, ["Update from: p", "Delete from: p"]);
}

#[test]
fn a_flat_placement_that_was_never_written_can_be_deleted() {
    let mut world = World::new(placement("p", &[("a", "1")]), destination("d", FilepathMode::None));
    world.delete();
    world.settle();
    assert!(world.placement.is_none());
    assert!(world.commits.is_empty());
}

#[test]
fn an_aggregate_is_sorted_joined_and_written_for_all_at_once() {
    let mut world =
        World::new(placement("b", &[("x", "b: 1\n"), ("y", "b: 2\n")]), destination("d", FilepathMode::AggregatedYaml));
    let mut other_namespace = placement("a", &[("x", "z: 1\n")]);
    other_namespace.metadata.namespace = Some("zzz".into());
    let mut leaving = placement("c", &[("x", "gone\n")]);
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    world.members = vec![placement("a", &[("x", "a: 1\n")]), other_namespace, leaving];
    let effect = decide(&world.snapshot()).effect.unwrap();
    let covered: Vec<String> = effect.covers.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(covered, ["default/a", "zzz/a"]);
    world.settle();
    assert_eq!(world.files["d/aggregated.yaml"], "a: 1\n\n---\nz: 1\n\n---\nb: 1\n\n---\nb: 2\n");

    // A covered placement finds its own stamp and does not write again.
    let mut covered = world.clone();
    covered.placement = Some(placement("a", &[("x", "a: 1\n")]));
    covered.members = vec![placement("b", &[("x", "b: 1\n"), ("y", "b: 2\n")])];
    let stamp = effect.covers[0].1.clone();
    let outcome = Ok(Written { version: Some("v1".into()), changed: true });
    covered.attempt = Some(Attempt { stamp, at: at(0), outcome });
    let decision = decide(&covered.snapshot());
    assert_eq!(decision.effect, None);
    assert_eq!(reasons(&decision.plan), ["WorkloadsWrittenToStateStore"]);

    world.delete();
    let covered = decide(&world.snapshot()).effect.unwrap().covers;
    assert_eq!(covered.iter().map(|(key, _)| key.name.as_str()).collect::<Vec<_>>(), ["c"], "who leaves too is served");
    world.settle();
    assert_eq!(world.files["d/aggregated.yaml"], "a: 1\n\n---\nz: 1\n");
    assert_eq!(world.commits.last().unwrap(), "Update from: b");
    let mut last = World::new(placement("b", &[("x", "b: 1\n")]), destination("d", FilepathMode::AggregatedYaml));
    last.settle();
    last.delete();
    last.settle();
    assert!(last.files.is_empty());
    assert_eq!(last.commits.last().unwrap(), "Delete from: b");
}

#[test]
fn a_content_that_cannot_be_read_names_the_file_and_in_an_aggregate_the_placement() {
    let mut broken = placement("broken", &[]);
    broken.spec.workloads = vec![Workload { filepath: "x.yaml".into(), content: "%".into() }];
    let mut world = World::new(broken.clone(), destination("d", FilepathMode::NestedByMetadata));
    world.settle();
    let message = world.condition("WriteSucceeded").2;
    assert!(message.starts_with("unable to decompress file content: x.yaml: content is not base64"), "{message}");
    assert!(message.contains("; hint: have the pipeline run again"), "{message}");
    assert_eq!(decide(&world.snapshot()).plan.next, Next::OnChange);
    let note = world.take_events().pop().unwrap();
    assert!(note.starts_with(
        "FailedWriteToDestination: error writing to destination; check kubectl get destination for more info: unable"
    ));

    let mut world = World::new(placement("p", &[("a", "1")]), destination("d", FilepathMode::AggregatedYaml));
    world.members = vec![broken];
    world.settle();
    assert!(world.condition("WriteSucceeded").2.starts_with("workplacement default/broken: unable to decompress"));
    let events = world.take_events();
    assert!(
        events[0].starts_with("FailedGenerateAggregatedWorkloadYAML: failed to generate aggregated workload yaml: ")
    );

    let bomb = "x".repeat(CONTENT_BYTES_MAX / 2 + 1);
    let mut world = World::nested(&[("a", &bomb), ("b", &bomb)]);
    world.settle();
    let message = world.condition("WriteSucceeded").2;
    assert!(message.contains("larger than 67108864 bytes together"), "{message}");
}

#[test]
fn a_write_is_not_tried_again_before_its_store_wants_to_be_asked() {
    for (asked, pause) in [(1, 15), (60, 60), (3600, 300)] {
        for is_deleted in [false, true] {
            let mut world = World::nested(&[("a", "1")]);
            if is_deleted {
                world.settle();
                world.delete();
            }
            world.refuses = Some(Failure { retry_after: Some(Duration::from_secs(asked)), ..trouble("busy") });
            world.pass();
            world.now += pause - 1;
            assert_eq!(decide(&world.snapshot()).plan.next, Next::After(Duration::from_secs(1)));
            assert!(decide(&world.snapshot()).effect.is_none());
            world.now += 1;
            assert!(decide(&world.snapshot()).effect.is_some());
        }
    }
}

#[test]
fn a_failed_write_is_told_once_retried_and_heals() {
    let mut world = World::nested(&[("a", "1")]);
    world.refuses = Some(trouble("failed to push: no"));
    world.pass();
    assert_eq!(world.condition("WriteSucceeded"), said((Status::False, "WorkloadsFailedWrite", "failed to push: no")));
    assert_eq!(world.condition("Ready"), said((Status::False, "WorkloadsFailedWrite", "Failing")));
    assert_eq!(world.take_events().len(), 1);
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(RETRY_AFTER));
    assert!(!world.pass(), "nothing happens before its time");
    world.now += 15;
    world.execute(&queued(&world.snapshot(), 1, Some("no answer from x yet")));
    world.pass();
    assert!(world.take_events().is_empty(), "the same failure is no news, however long it takes");
    world.refuses = None;
    world.now += 15;
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
    assert_eq!(world.take_events().len(), 1);
}

#[test]
fn what_was_not_tried_alone_waits_and_takes_nothing_back() {
    let untried = || Some(Failure { message: "not tried".into(), about: About::Turn, retry: true, retry_after: None });
    let mut world = World::nested(&[("a", "1")]);
    world.refuses = untried();
    world.pass();
    assert_eq!(world.condition("WriteSucceeded").0, Status::Unknown);
    assert_eq!(world.condition("Ready"), said((Status::False, "WaitingForStateStore", "Pending")));
    assert!(world.take_events().is_empty(), "nothing has failed");
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(RETRY_AFTER));
    world.refuses = None;
    world.now += 15;
    world.settle();
    world.take_events();

    // Handed over once more, as after every time in which the store may have lost it.
    world.refuses = untried();
    world.store = Availability::Ready { place: "here".into(), epoch: 7 };
    world.pass();
    assert_eq!(world.condition("Ready").2, "Ready");
    assert!(world.take_events().is_empty());
}

#[test]
fn a_broken_state_file_has_its_own_event() {
    let mut world = World::new(placement("p", &[("a", "1")]), destination("d", FilepathMode::None));
    world.refuses =
        Some(Failure { message: "not a mapping".into(), about: About::Ledger, retry: true, retry_after: None });
    world.pass();
    let events = world.take_events();
    assert_eq!(events[0], "FailedUnmarshalKratixStateFile: failed to unmarshal .kratix state file: not a mapping");
    assert_eq!(world.condition("WriteSucceeded").0, Status::False);
    world.delete();
    world.pass();
    assert_eq!(world.take_events().len(), 1);
    assert!(world.placement.is_some());
}

// spec 05 §11
#[test]
fn a_state_file_that_cannot_be_read_has_its_own_event() {
    let mut world = World::new(placement("p", &[("a", "1")]), destination("d", FilepathMode::None));
    let unread = |message: &str| Failure { about: About::LedgerUnread, retry: true, ..Failure::content(message) };
    world.refuses = Some(unread("it is a directory"));
    world.pass();
    let text = "failed to read .kratix state file: it is a directory";
    assert_eq!(world.take_events()[0], format!("FailedReadKratixStateFile: {text}"));
    world.delete();
    world.pass();
    assert_eq!(world.take_events(), [format!("FailedReadKratixStateFile: {text}")]);
}

#[test]
fn while_a_store_is_being_opened_nothing_is_said() {
    let mut world = World::nested(&[("a", "1")]);
    world.store = Availability::Opening { place: "here".into() };
    assert!(!world.pass());
    assert!(!world.has_condition("Ready"));
}

#[test]
fn a_long_wait_in_the_queue_is_said_unless_the_content_is_there_already() {
    let mut world = World::nested(&[("a", "1")]);
    let plan = queued(&world.snapshot(), 312, None);
    world.execute(&plan);
    assert_eq!(world.condition("Ready"), said((Status::False, "WaitingForStateStore", "Pending")));
    assert_eq!(world.condition("WriteSucceeded").2, "waiting for GitStateStore/default: 312 changes are in its queue");
    assert!(plan.events.is_empty());
    assert!(queued(&world.snapshot(), 311, None).is_silent(), "the number is said once");
    world.settle();
    assert!(queued(&world.snapshot(), 1, None).is_silent());
    world.restart();
    assert!(queued(&world.snapshot(), 1, None).is_silent());
    world.edit(&[("a", "2")]);
    assert!(!queued(&world.snapshot(), 1, None).is_silent());
    let mut silent = World::nested(&[("a", "1")]);
    silent.execute(&queued(&silent.snapshot(), 1, Some("no answer from x yet")));
    let message = "waiting for GitStateStore/default: 1 changes are in its queue, no answer from x yet";
    assert_eq!(silent.condition("WriteSucceeded").2, message);
}

#[test]
fn a_placement_awaits_its_store_until_it_is_written_and_until_it_is_removed() {
    let mut world = World::nested(&[("a", "1")]);
    let awaits = |world: &World| awaits_store(world.placement.as_ref().unwrap());
    assert!(awaits(&world));
    world.settle();
    assert!(!awaits(&world));
    world.edit(&[("a", "2")]);
    assert!(awaits(&world));
    world.settle();
    world.delete();
    assert!(awaits(&world), "its files are still there");
    world.placement.as_mut().unwrap().metadata.finalizers = None;
    assert!(!awaits(&world));
}

#[test]
fn the_interval_writes_again_and_without_one_nothing_does() {
    let mut world = World::nested(&[("a", "1")]);
    world.interval = Some(Duration::from_secs(100));
    world.settle();
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(Duration::from_secs(100)));
    world.now = 60;
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(Duration::from_secs(40)));
    world.now = 100;
    world.files.clear();
    world.settle();
    assert_eq!(world.files.len(), 1, "drift is repaired");
    world.interval = None;
    world.now = 1_000_000;
    let decision = decide(&world.snapshot());
    assert_eq!((decision.effect, decision.plan.next), (None, Next::OnChange));
}

#[test]
fn a_misplaced_placement_is_written_and_says_so_until_the_mark_goes() {
    let mut world = World::nested(&[("a", "1")]);
    world.placement.as_mut().unwrap().metadata.labels.as_mut().unwrap().insert(keys::MISPLACED.into(), "true".into());
    world.settle();
    assert_eq!(world.condition("WriteSucceeded").0, Status::True);
    assert_eq!(
        world.condition("ScheduleSucceeded"),
        said((
            Status::False,
            "DestinationSelectorMismatch",
            "Target destination no longer matches destinationSelectors"
        ))
    );
    assert_eq!(world.condition("Ready"), said((Status::False, "Misplaced", "Misplaced")));
    world.take_events();
    world.placement.as_mut().unwrap().metadata.labels.as_mut().unwrap().remove(keys::MISPLACED);
    world.settle();
    assert_eq!(world.condition("Ready"), said((Status::True, "WorkloadsWrittenToTargetDestination", "Ready")));
    assert!(world.take_events().is_empty(), "nothing was written for it");
}

#[test]
fn without_its_destination_a_placement_says_so_and_is_written_again_when_it_returns() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.take_events();
    let destination = world.destination.take();
    world.settle();
    assert_eq!(world.condition("Ready"), said((Status::False, "Misplaced", "Misplaced")));
    let message = "destination \"worker-1\" not found; hint: make it again, or delete this WorkPlacement to have it placed elsewhere";
    assert_eq!(world.condition("WriteSucceeded").2, message);
    assert_eq!(world.take_events(), [format!("DestinationNotFound: {message}")]);
    assert!(!world.placement.as_ref().unwrap().finalizers().is_empty());
    world.destination = destination;
    world.destination.as_mut().unwrap().metadata.uid = Some("another".into());
    world.files.clear();
    world.settle();
    assert_eq!(world.files.len(), 1);
    assert_eq!(world.condition("Ready").2, "Ready");
}

#[test]
fn deletion_goes_through_in_every_order() {
    let mut gone_destination = World::nested(&[("a", "1")]);
    gone_destination.settle();
    gone_destination.take_events();
    gone_destination.destination = None;
    gone_destination.delete();
    gone_destination.settle();
    assert!(gone_destination.placement.is_none());
    assert!(gone_destination.take_events()[0].contains("files written there stay"));

    let mut gone_store = World::nested(&[("a", "1")]);
    gone_store.settle();
    gone_store.take_events();
    gone_store.store = Availability::NotFound;
    gone_store.delete();
    gone_store.settle();
    assert_eq!(gone_store.condition("WriteSucceeded").2, "GitStateStore/default: not found");
    let mut returned = gone_store.clone();
    returned.store = ready();
    returned.settle();
    assert!(
        returned.placement.is_none() && returned.files.is_empty(),
        "the files of a store that was away are removed"
    );
    gone_store.take_events();
    gone_store.destination.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(1)));
    gone_store.settle();
    assert!(gone_store.placement.is_none());
    assert_eq!(
        gone_store.take_events(),
        ["StateStoreNotFound: GitStateStore/default: not found, files written there stay"]
    );

    let mut broken_store = World::nested(&[("a", "1")]);
    broken_store.settle();
    broken_store.store = not_ready();
    broken_store.delete();
    broken_store.settle();
    assert!(broken_store.placement.is_some(), "its files come first");
    assert_eq!(broken_store.condition("Ready"), said((Status::False, "StateStoreNotReady", "Pending")));
    broken_store.store = ready();
    broken_store.settle();
    assert!(broken_store.placement.is_none() && broken_store.files.is_empty());

    let mut refusing = World::nested(&[("a", "1")]);
    refusing.settle();
    refusing.take_events();
    refusing.refuses = Some(trouble("no"));
    refusing.delete();
    refusing.pass();
    assert_eq!(refusing.take_events(), ["FailedDeleteFilesFromRepository: failed to delete files from repository: no"]);
    assert_eq!(refusing.condition("Ready").2, "Failing");
    refusing.refuses = None;
    refusing.now += 15;
    refusing.settle();
    assert!(refusing.placement.is_none() && refusing.files.is_empty());

    let mut foreign = World::nested(&[]);
    foreign.placement.as_mut().unwrap().metadata.finalizers = Some(vec!["example.com/mine".into()]);
    foreign.delete();
    assert!(!foreign.pass());
}

#[test]
fn foreign_finalizers_stay() {
    let mut world = World::nested(&[("a", "1")]);
    world.placement.as_mut().unwrap().metadata.finalizers.as_mut().unwrap().push("example.com/mine".into());
    world.settle();
    world.delete();
    world.settle();
    assert_eq!(world.placement.unwrap().finalizers(), ["example.com/mine"]);
}

#[test]
fn a_version_lost_in_a_crash_is_found_again() {
    let mut world = World::nested(&[("a", "1")]);
    let effect = decide(&world.snapshot()).effect.unwrap();
    world.apply(&effect.change, "here").unwrap(); // the process dies before it can say so
    world.settle();
    assert_eq!(world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id, "v1");
    assert_eq!(world.commits.len(), 1);
}

#[test]
fn the_version_of_an_update_that_was_lost_in_a_crash_or_with_an_answer_is_told() {
    for is_crash in [true, false] {
        let mut world = World::nested(&[("a", "1")]);
        world.settle();
        world.take_events();
        world.edit(&[("a", "2")]);
        let effect = decide(&world.snapshot()).effect.unwrap();
        world.apply(&effect.change, "here").unwrap(); // accepted, and nobody hears of it
        match is_crash {
            true => world.restart(),
            false => world.attempt.as_mut().unwrap().outcome = Err(trouble("lost")),
        }
        world.settle();
        assert_eq!(world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id, "v2", "{is_crash}");
        let told = "WorkloadsWrittenToStateStore: successfully written to Destination: worker-1 with versionID: v2";
        assert_eq!((world.take_events(), world.commits.len()), (vec![told.to_owned()], 2));
        // A later process finds what the status claims: of it nothing is told.
        world.commits.push("of somebody else".into());
        world.restart();
        world.settle();
        assert_eq!(world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id, "v2");
        // Nor of an update that alters nothing: the version that brought the content stays.
        world.edit(&[("a", "2")]);
        world.settle();
        assert_eq!(world.placement.as_ref().unwrap().status.as_ref().unwrap().version_id, "v2");
    }
}

#[test]
fn a_placement_of_the_original_is_taken_over_without_an_event() {
    let mut world = World::nested(&[("a", "1")]);
    world.settle();
    world.take_events();
    for condition in &mut world.placement.as_mut().unwrap().status.as_mut().unwrap().conditions {
        condition.observed_generation = None;
    }
    world.restart();
    world.settle();
    assert!(world.take_events().is_empty());
    assert_eq!(world.commits.len(), 1);
}

#[test]
fn only_changes_that_matter_bring_a_placement_back() {
    let old = placement("p", &[("a", "1")]);
    let mut new = old.clone();
    new.status =
        Some(kratix_api::WorkPlacementStatus { conditions: vec![Condition::default()], version_id: "x".into() });
    new.metadata.resource_version = Some("9".into());
    assert!(!concerns_itself(Some(&old), Some(&new)));
    new.metadata.generation = Some(2);
    assert!(concerns_itself(Some(&old), Some(&new)));
    let mut misplaced = old.clone();
    misplaced.metadata.labels.as_mut().unwrap().insert(keys::MISPLACED.into(), "true".into());
    assert!(concerns_itself(Some(&old), Some(&misplaced)));
    let moving = |mut placement: WorkPlacement| {
        placement.annotations_mut().insert(FILES_AT.into(), "[]".into());
        placement
    };
    new.metadata.generation = Some(1);
    assert!(
        concerns_itself(Some(&moving(old.clone())), Some(&moving(new))),
        "what was left is cleaned after the status"
    );
    assert!(concerns_itself(Some(&old), None));
}

#[test]
fn warnings_are_warnings() {
    let mut world = World::nested(&[("a", "1")]);
    world.store = not_ready();
    let plan = decide(&world.snapshot()).plan;
    assert_eq!(plan.events[0].type_, EventType::Warning);
    world.store = ready();
    let effect = decide(&world.snapshot()).effect.unwrap();
    let outcome = Ok(Written { version: None, changed: false });
    let plan = record(&world.snapshot(), Attempt { stamp: effect.stamp, at: at(0), outcome }).plan;
    assert_eq!((plan.events[0].type_, plan.events[0].reporter), (EventType::Normal, Reporter::WorkPlacement));
    assert_eq!(plan.events[0].note, "successfully written to Destination: worker-1");
}

proptest! {
    #[test]
    fn any_path_stays_below_the_prefix_or_keeps_what_the_store_refuses(path in "[a./]{0,12}") {
        let cleaned = location::clean(&path);
        let escapes = cleaned.starts_with("..") || cleaned.starts_with('/') || cleaned.is_empty();
        let mut depth = 0i32;
        let mut left = path.starts_with('/');
        for segment in path.split('/') {
            depth += match segment { "" | "." => 0, ".." => -1, _ => 1 };
            left |= depth < 0;
        }
        if !escapes {
            prop_assert!(!left, "{path} -> {cleaned}");
            prop_assert!(!cleaned.split('/').any(|segment| segment.is_empty() || segment == "." || segment == ".."));
        }
    }

    #[test]
    fn whatever_happens_the_end_is_silent_and_truthful(steps in prop::collection::vec(0u8..9, 0..12)) {
        let mut world = World::nested(&[("a", "1")]);
        let destination = world.destination.clone();
        for step in steps {
            match step {
                0 => world.store = not_ready(),
                1 => world.store = ready(),
                2 => world.refuses = Some(trouble("no")),
                3 => world.refuses = None,
                4 => world.edit(&[("a", "2"), ("b", "2")]),
                5 => world.edit(&[("c", "3")]),
                6 => world.restart(),
                7 => world.destination = None,
                _ => world.destination.clone_from(&destination),
            }
            world.now += 20;
            world.pass();
            let placement = world.placement.as_ref().unwrap();
            if is_written(placement) && world.destination.is_some() {
                for workload in &placement.spec.workloads {
                    let path = format!("worker-1/resources/default/redis/my-cache/configure/5058f/{}", workload.filepath);
                    prop_assert!(world.files.contains_key(&path), "claims {path}, holds {:?}", world.paths());
                }
            }
        }
        world.store = ready();
        world.refuses = None;
        world.destination = destination;
        world.now += 20;
        world.settle();
        prop_assert!(is_written(world.placement.as_ref().unwrap()));
        prop_assert_eq!(world.condition("Ready").2, "Ready");
        world.delete();
        world.settle();
        prop_assert!(world.files.is_empty());
    }
}
