//! Whose parts are, and when they go.

use kratix_api::part::{self, Split};
use kratix_api::{OwnerReference, WorkPlacementSpec};
use kube_core::metadata::PartialObjectMeta;

use super::*;
use crate::work::parts::{PATIENCE, Snapshot, Step, Upkeep, decide};

/// A Work that refers to parts, placements that do, and the parts that are there.
struct World {
    now: i64,
    work: Option<Work>,
    placements: Vec<WorkPlacement>,
    parts: Vec<PartialObjectMeta<Work>>,
}

/// Returns groups with references to parts with these contents, and the names of the parts.
fn split(contents: &[&str]) -> (Vec<WorkloadGroup>, Vec<String>) {
    let group = |content: &&str| WorkloadGroup {
        workloads: vec![Workload { filepath: "f".into(), content: (*content).into() }],
        ..WorkloadGroup::for_directory(content)
    };
    let split = Split::of(contents.iter().map(group).collect());
    (split.groups("w"), split.parts.iter().map(|part| part.name("w")).collect())
}

impl World {
    /// A Work of generation 3 that refers to the part `a`, written long ago.
    fn new() -> Self {
        let (groups, names) = split(&["a"]);
        let mut work = work("w", groups);
        work.metadata.generation = Some(3);
        Self { now: 0, work: Some(work), placements: Vec::new(), parts: vec![part(&names[0], 1, -100_000)] }
    }

    fn decide(&self) -> Upkeep {
        decide(&Snapshot {
            now: at(self.now),
            work: self.work.clone().map(Arc::new),
            placements: self.placements.iter().cloned().map(Arc::new).collect(),
            parts: self.parts.iter().cloned().map(Arc::new).collect(),
        })
    }

    /// Returns the names of the parts that are removed after everything else, and when to look again.
    fn removed(&self) -> (Vec<String>, Next) {
        let Upkeep { before, after } = self.decide();
        assert!(before.removals.is_empty() && before.plan.is_silent());
        (names(&after), after.plan.next)
    }

    fn place(&mut self, contents: &[&str]) {
        let (groups, _) = split(contents);
        let workloads = groups.into_iter().flat_map(|group| group.workloads).collect();
        let spec = WorkPlacementSpec { workloads, ..Default::default() };
        self.placements.push(WorkPlacement::new(&format!("w.{}", contents.concat()), spec));
    }

    fn delete(&mut self) {
        self.work.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(0)));
    }
}

fn names(step: &Step) -> Vec<String> {
    step.removals.iter().map(|target| target.key.name.clone()).collect()
}

fn part(name: &str, generation: i64, written: i64) -> PartialObjectMeta<Work> {
    let mut part = PartialObjectMeta::<Work>::default();
    part.metadata.name = Some(name.into());
    part.metadata.namespace = Some("default".into());
    part.metadata.uid = Some(format!("uid-{name}"));
    part.metadata.resource_version = Some("1".into());
    part.metadata.creation_timestamp = Some(Time(at(-200_000)));
    part.metadata.labels = Some(part::labels("w"));
    part.metadata.annotations = Some(part::annotations(generation, at(written)));
    let owner = OwnerReference { uid: "uid-w".into(), ..OwnerReference::default() };
    part.metadata.owner_references = Some(vec![owner]);
    part
}

#[test]
fn what_the_work_or_a_placement_refers_to_stays_and_the_rest_goes_as_it_was_seen() {
    let mut world = World::new();
    assert_eq!(world.removed(), (vec![], Next::OnChange), "in use");
    let (_, names) = split(&["b"]);
    world.parts.push(part(&names[0], 2, 0));
    world.place(&["b"]);
    assert_eq!(world.removed(), (vec![], Next::OnChange), "a placement is about to be brought in line");
    world.placements.clear();
    assert_eq!(world.removed().0, names);
    let target = &world.decide().after.removals[0];
    assert_eq!((target.resource_version.as_deref(), target.uid.is_some()), (Some("1"), true));
    assert_eq!(target.kind.kind, "Work");
}

#[test]
fn a_part_for_the_next_generation_waits_for_it_but_not_for_ever() {
    let mut world = World::new();
    let (_, names) = split(&["b"]);
    world.parts.push(part(&names[0], 4, 0));
    assert_eq!(world.removed(), (vec![], Next::After(PATIENCE)));
    world.now = 100;
    assert_eq!(world.removed().1, Next::After(PATIENCE - Duration::from_secs(100)));
    world.now = 3600;
    assert_eq!(world.removed().0, names, "its writer has died");
    world.now = 0;
    world.work.as_mut().unwrap().metadata.generation = Some(4);
    assert_eq!(world.removed().0, names, "it was written without it");
}

#[test]
fn parts_without_a_work_wait_for_one() {
    let mut world = World::new();
    world.work = None;
    world.parts[0].metadata.annotations = Some(part::annotations(1, at(0)));
    assert_eq!(world.removed(), (vec![], Next::After(PATIENCE)));
    world.now = 3600;
    assert_eq!(world.removed().0.len(), 1);
    world.place(&["a"]);
    assert_eq!(world.removed().0.len(), 0, "a placement outlives its work for a moment");
    world.placements.clear();
    world.parts[0].metadata.annotations = None;
    assert_eq!(world.removed().0.len(), 1, "the age of the object counts where nothing is said");
}

#[test]
fn parts_of_a_work_that_is_deleted_go_before_it_and_after_its_placements() {
    let mut world = World::new();
    world.place(&["a"]);
    let (_, unused) = split(&["b"]);
    world.parts.push(part(&unused[0], 9, 0));
    world.delete();
    let Upkeep { before, after } = world.decide();
    assert_eq!(names(&before), unused);
    assert!(after.removals.is_empty() && after.plan.is_silent());
    world.placements.clear();
    assert_eq!(names(&world.decide().before).len(), 2);
    world.parts[0].metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(names(&world.decide().before), unused, "asked for once");
}

#[test]
fn a_work_of_somebody_that_only_carries_labels_of_a_part_is_left_alone() {
    let mut world = World::new();
    let mut own = part("users-own", 0, -100_000);
    own.metadata.finalizers = Some(vec![keys::FINALIZER_WORK_CLEANUP.into()]);
    world.parts.push(own);
    let nothing = Step { plan: Plan::silent(), removals: Vec::new() };
    assert_eq!(world.decide().after, nothing);
    world.work = None;
    world.parts.remove(0);
    assert_eq!(world.decide().after, nothing);
}

#[test]
fn a_part_in_use_belongs_to_its_work_and_carries_no_finalizer_of_a_work() {
    let mut world = World::new();
    assert!(world.decide().after.plan.is_silent());
    let metadata = |world: &World| -> Value {
        let Upkeep { before, after } = world.decide();
        let writes: Vec<Write> = before.plan.writes.into_iter().chain(after.plan.writes).collect();
        let [Write::Patch { target, patch }] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!(target.resource_version.as_deref(), Some("1"));
        patch["metadata"].clone()
    };
    for owners in [None, Some(vec![OwnerReference { uid: "former".into(), ..OwnerReference::default() }])] {
        world.parts[0].metadata.owner_references = owners;
        let owner = json!({ "apiVersion": keys::API_VERSION, "kind": "Work", "name": "w", "uid": "uid-w" });
        assert_eq!(metadata(&world), json!({ "ownerReferences": [owner] }));
    }
    // Another scheduler has taken it for a Work.
    world.parts[0].metadata.finalizers = Some(vec!["user/own".into(), keys::FINALIZER_WORK_CLEANUP.into()]);
    assert_eq!(metadata(&world)["finalizers"], json!(["user/own"]));
    world.parts[0].metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(metadata(&world), json!({ "finalizers": ["user/own"] }));
    world.work = None;
    assert_eq!(metadata(&world), json!({ "finalizers": ["user/own"] }));
    world.parts[0].metadata.finalizers = None;
    assert!(world.decide().after.plan.is_silent());
}
