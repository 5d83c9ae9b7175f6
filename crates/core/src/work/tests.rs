//! Tables over `decide`, and a world in memory in which plans are executed.

mod acceptance;
mod choice;
mod concern;
mod golden;
mod names;
mod parts;
mod refusals;
mod traces;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kratix_api::condition::Status;
use kratix_api::{Condition, Time, Workload, WorkloadGroupSelector, compression};
use kratix_api::{DestinationSpec, WorkPlacementStatus, WorkSpec};
use kube_core::Resource;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::plan::EventType;

pub(crate) const NOW: i64 = 1_800_000_000;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn destination(name: &str, pairs: &[(&str, &str)]) -> Destination {
    let mut destination = Destination::new(name, DestinationSpec { path: name.into(), ..Default::default() });
    destination.metadata.uid = Some(format!("uid-{name}"));
    destination.metadata.resource_version = Some("1".into());
    destination.metadata.labels = Some(labels(pairs));
    destination
}

pub(crate) fn group(directory: &str, selectors: &[(&str, &[(&str, &str)])]) -> WorkloadGroup {
    let selector = |(source, pairs): &(&str, &[(&str, &str)])| WorkloadGroupSelector {
        match_labels: labels(pairs),
        source: Some((*source).into()),
    };
    WorkloadGroup {
        workloads: vec![Workload { filepath: "cm.yaml".into(), content: compression::compress(b"a: 1\n") }],
        destination_selectors: selectors.iter().map(selector).collect(),
        ..WorkloadGroup::for_directory(directory)
    }
}

pub(crate) fn work(name: &str, groups: Vec<WorkloadGroup>) -> Work {
    let mut work =
        Work::new(name, WorkSpec { promise_name: "redis".into(), workload_groups: groups, ..Default::default() });
    work.metadata.namespace = Some("default".into());
    work.metadata.uid = Some(format!("uid-{name}"));
    work.metadata.generation = Some(1);
    work.metadata.resource_version = Some("1".into());
    work.metadata.finalizers = Some(vec![keys::FINALIZER_WORK_CLEANUP.into()]);
    work.metadata.labels = Some(labels(&[(keys::PROMISE_NAME, "redis"), (keys::PIPELINE_NAME, "configure")]));
    work
}

pub(crate) fn request(name: &str, groups: Vec<WorkloadGroup>) -> Work {
    let mut work = work(name, groups);
    work.spec.resource_name = "mine".into();
    work.metadata
        .labels
        .as_mut()
        .unwrap()
        .extend(labels(&[(keys::RESOURCE_NAME, "mine"), (keys::WORK_TYPE, "resource")]));
    work
}

/// Objects in memory, with the few rules of an API server that plans rely on.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: i64,
    pub(crate) work: Option<Work>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) placements: BTreeMap<ObjectKey, WorkPlacement>,
    version: u64,
}

impl World {
    pub(crate) fn new(work: Work, destinations: Vec<Destination>) -> Self {
        Self { now: 0, work: Some(work), destinations, placements: BTreeMap::new(), version: 100 }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut destinations: Vec<Arc<Destination>> = self.destinations.iter().cloned().map(Arc::new).collect();
        destinations.sort_by_key(|destination| destination.name_any());
        let work = self.work.clone().expect("the work exists");
        let is_of_work = |placement: &&WorkPlacement| {
            let is_owned =
                placement.owner_references().iter().any(|owner| Some(&owner.uid) == work.metadata.uid.as_ref());
            let is_beside = placement.metadata.namespace == work.metadata.namespace;
            is_owned || (is_beside && placement.labels().get(keys::WORK) == Some(&work.name_any()))
        };
        Snapshot {
            now: at(self.now),
            places: BTreeMap::new(),
            placements: self.placements.values().filter(is_of_work).cloned().map(Arc::new).collect(),
            neighbours: self.placements.values().cloned().map(Arc::new).collect(),
            work: Arc::new(work),
            destinations,
        }
    }

    pub(crate) fn decide(&self) -> Plan<Finding> {
        decide(&self.snapshot())
    }

    /// Executes at most `limit` writes of a plan; returns whether all were executed.
    pub(crate) fn execute<F>(&mut self, plan: &Plan<F>, limit: usize) -> bool {
        let all: Vec<&Write> = plan.writes.iter().chain(&plan.status).collect();
        for write in all.iter().take(limit) {
            self.write(write);
        }
        all.len() <= limit
    }

    fn write(&mut self, write: &Write) {
        self.version += 1;
        let (_, key) = write.address();
        let key = key.clone();
        match write {
            Write::Create { object, .. } => {
                let mut placement: WorkPlacement = serde_json::from_value(object.clone()).unwrap();
                placement.metadata.uid = Some(format!("uid-{}", self.version));
                placement.metadata.generation = Some(1);
                placement.metadata.resource_version = Some(self.version.to_string());
                placement.metadata.creation_timestamp = Some(Time(at(self.now)));
                self.placements.entry(key).or_insert(placement);
            }
            Write::Patch { target, patch } | Write::PatchStatus { target, patch } => {
                if target.kind.kind == "Work" {
                    let Some(work) = &mut self.work else { return };
                    patched(work, target, patch, self.version);
                    let is_gone = work.metadata.deletion_timestamp.is_some() && work.finalizers().is_empty();
                    if is_gone {
                        self.work = None;
                    }
                } else if let Some(placement) = self.placements.get_mut(&key) {
                    let before = placement.spec.clone();
                    patched(placement, target, patch, self.version);
                    if placement.spec != before {
                        placement.metadata.generation = placement.metadata.generation.map(|generation| generation + 1);
                    }
                    if placement.metadata.deletion_timestamp.is_some() && placement.finalizers().is_empty() {
                        self.placements.remove(&key);
                    }
                }
            }
            Write::Delete { .. } => {
                if let Some(placement) = self.placements.get_mut(&key) {
                    placement.metadata.deletion_timestamp.get_or_insert(Time(at(self.now)));
                }
            }
        }
    }

    pub(crate) fn placement(&mut self, name: &str) -> &mut WorkPlacement {
        let found = self.placements.values_mut().find(|placement| placement.metadata.name.as_deref() == Some(name));
        found.unwrap_or_else(|| panic!("no placement {name}"))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.placements.values().map(|placement| placement.name_any()).collect()
    }

    /// Stands in for the placement controller.
    fn set_written(&mut self, name: &str, status: Status) {
        let placement = self.placement(name);
        let mut write = Condition::new(condition::WRITE_SUCCEEDED, status, "R", "m");
        write.observed_generation = placement.metadata.generation;
        placement.status = Some(WorkPlacementStatus { conditions: vec![write], ..Default::default() });
    }

    fn write_all(&mut self) {
        for name in self.names() {
            self.set_written(&name, Status::True);
        }
    }

    /// Runs passes until one is silent.
    fn converge(&mut self) {
        for _ in 0..20 {
            let plan = self.decide();
            if plan.is_silent() {
                return;
            }
            self.execute(&plan, usize::MAX);
            if self.work.is_none() {
                return;
            }
        }
        panic!("does not converge: {:?}", self.decide());
    }

    fn settle(&mut self) {
        self.converge();
        self.write_all();
        self.now += 10;
        self.converge();
    }

    fn condition(&self, r#type: &str) -> (Status, String, String) {
        let status = self.work.as_ref().unwrap().status.clone().unwrap_or_default();
        let found = condition::find(&status.conditions, r#type).unwrap_or_else(|| panic!("no condition {}", r#type));
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }
}

pub(crate) fn patched<K: Serialize + DeserializeOwned + Resource>(
    object: &mut K,
    target: &Target,
    patch: &Value,
    version: u64,
) {
    if let (Some(pinned), Some(present)) = (&target.resource_version, object.meta().resource_version.as_ref()) {
        // Two writes of one plan are pinned to what the snapshot saw; the executor pins the second to the first.
        assert!(pinned == present || version > 0, "write pinned to an old version");
    }
    let mut value = serde_json::to_value(&*object).unwrap();
    merge(&mut value, patch);
    value["metadata"]["resourceVersion"] = version.to_string().into();
    *object = serde_json::from_value(value).unwrap();
}

pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

pub(crate) fn reasons<F>(plan: &Plan<F>) -> Vec<&'static str> {
    plan.events.iter().map(|event| event.reason).collect()
}

fn text(condition: (Status, &str, &str)) -> (Status, String, String) {
    (condition.0, condition.1.to_owned(), condition.2.to_owned())
}

const DOT: &str = "5058f1af8388633f609cadb75a75dc9d";
const DEST1: &str = "ba6cb714c06b888c00431c31c4fc3f21";
const DEV: &[(&str, &[(&str, &str)])] = &[("promise", &[("env", "dev")])];

#[test]
fn a_dependency_goes_to_every_destination_that_matches() {
    let destinations =
        vec![destination("b", &[("env", "dev")]), destination("a", &[("env", "dev")]), destination("c", &[])];
    let mut world = World::new(work("deps", vec![group(".", DEV)]), destinations);
    let plan = world.decide();
    assert_eq!(reasons(&plan), ["WorkplacementReconciled", "WorkplacementReconciled"]);
    assert_eq!(plan.status, None, "the first status waits for the first writes");
    world.settle();
    assert_eq!(world.names(), ["deps.a-5058f", "deps.b-5058f"]);
    assert_eq!(
        world.condition("ScheduleSucceeded"),
        text((Status::True, "AllWorkplacementsScheduled", "All workplacements scheduled successfully"))
    );
    assert_eq!(world.condition("Ready"), text((Status::True, "AllWorkplacementsScheduled", "Ready")));
    let status = world.work.as_ref().unwrap().status.clone().unwrap();
    assert_eq!((status.work_placements, status.work_placements_created), (Some(1), Some(1)));
    assert_eq!(readiness(world.work.as_ref().unwrap()), Readiness::Ready);
}

#[test]
fn a_placement_carries_what_finds_and_protects_it() {
    let mut flat = destination("worker-1", &[]);
    flat.spec.filepath.mode = kratix_api::destination::FilepathMode::None;
    let mut work = request("w", vec![group(".", &[])]);
    work.metadata.annotations = Some(labels(&[
        ("kratix.io/trace-parent", "00-a"),
        ("note", "x"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
    ]));
    let mut world = World::new(work, vec![flat]);
    let plan = world.decide();
    world.execute(&plan, usize::MAX);
    let placement = world.placement("w.worker-1-5058f").clone();
    assert_eq!(
        *placement.labels(),
        labels(&[
            ("kratix.io/work", "w"),
            ("kratix.io/workload-group-id", DOT),
            ("kratix.io/targetDestinationName", "worker-1"),
            ("kratix.io/pipeline-name", "configure"),
            ("kratix.io/promise-name", "redis"),
            ("kratix.io/resource-name", "mine"),
            ("kratix.io/resource-namespace", "default"),
            ("kratix.io/work-type", "resource"),
        ])
    );
    assert_eq!(*placement.annotations(), labels(&[("kratix.io/trace-parent", "00-a"), ("note", "x")]));
    assert_eq!(placement.finalizers(), [keys::FINALIZER_REPO_CLEANUP, keys::FINALIZER_DOT_FILES_CLEANUP]);
    let owner = &placement.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str(), owner.uid.as_str()), ("Work", "w", "uid-w"));
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
    assert_eq!(placement.spec.generation, Some(1));
    assert_eq!(placement.spec.workloads, world.work.unwrap().spec.workload_groups[0].workloads);
}

#[test]
fn a_placement_of_the_original_gets_the_labels_and_keeps_those_of_users() {
    let mut world = World::new(request("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    world.settle();
    let placement = world.placement("w.d-5058f");
    let kept =
        ["kratix.io/work", "kratix.io/workload-group-id", "kratix.io/targetDestinationName", "kratix.io/pipeline-name"];
    placement.metadata.labels.as_mut().unwrap().retain(|key, _| kept.contains(&key.as_str()));
    placement.metadata.labels.as_mut().unwrap().insert("team".into(), "x".into());
    placement.metadata.annotations = Some(labels(&[("mine", "y")]));
    let plan = world.decide();
    assert_eq!((plan.writes.len(), plan.events.len()), (1, 0), "a label alone is no news: {plan:?}");
    world.converge();
    let placement = world.placement("w.d-5058f");
    assert_eq!(placement.labels()["kratix.io/resource-name"], "mine");
    assert_eq!(placement.labels()["team"], "x");
    assert_eq!(placement.annotations()["mine"], "y");
}

#[test]
fn the_promise_decides_a_conflict_of_selectors_and_the_rest_accumulates() {
    let selectors: &[(&str, &[(&str, &str)])] = &[
        ("promise-workflow", &[("environment", "dev"), ("region", "eu")]),
        ("promise", &[("environment", "prod")]),
        ("resource-workflow", &[("environment", "staging"), ("tier", "gold")]),
        ("something-else", &[("tier", "silver")]),
    ];
    let selector = Selector::of(&work("w", vec![]), &group(".", selectors));
    assert_eq!(selector.to_string(), "environment=prod,region=eu,tier=silver");
    let mut dry = work("w", vec![]);
    dry.metadata.labels.as_mut().unwrap().insert(keys::DRY_RUN.into(), "true".into());
    assert_eq!(Selector::of(&dry, &group(".", selectors)).to_string(), "kratix.io/dry-run=true");
}

#[test]
fn candidates_are_those_of_the_table() {
    let none: &[(&str, &str)] = &[];
    let dev: &[(&str, &str)] = &[("env", "dev")];
    let dev_eu: &[(&str, &str)] = &[("env", "dev"), ("zone", "eu")];
    let dry: &[(&str, &str)] = &[("kratix.io/dry-run", "true")];
    for (found, strict, wanted, is_candidate) in [
        (none, false, none, true),
        (none, true, none, true),
        (dev, false, none, true),
        (dev, true, none, false),
        (dev, true, dev, true),
        (dev_eu, false, dev, true),
        (dev, false, dev_eu, false),
        (none, false, dev, false),
        (dry, false, none, false),
        (dry, false, dev, false),
        (dry, false, dry, true),
        (&[("env", "")], false, &[("env", "")], true),
        (dev, false, &[("env", "")], false),
    ] {
        let mut candidate = destination("d", found);
        candidate.spec.strict_match_labels = strict;
        let selector = Selector::of(&work("w", vec![]), &group(".", &[("promise", wanted)]));
        assert_eq!(selector.obstacles(&candidate).is_empty(), is_candidate, "{found:?} strict={strict} {wanted:?}");
        assert_eq!(selector.takes(&candidate), is_candidate, "{found:?} strict={strict} {wanted:?}");
        candidate.metadata.deletion_timestamp = Some(Time(at(0)));
        assert!(selector.obstacles(&candidate).contains(&Obstacle::Terminating) && !selector.takes(&candidate));
    }
}

#[test]
fn a_request_without_destination_says_what_comes_closest_and_is_placed_when_one_appears() {
    let near = destination("prod-1", &[("env", "dev"), ("tier", "silver")]);
    let groups = vec![group(".", &[("promise", &[("env", "dev"), ("tier", "gold")])]), group("dest1", &[])];
    let mut world = World::new(request("w", groups), vec![near, destination("far", &[])]);
    let plan = world.decide();
    assert_eq!(reasons(&plan), ["WorkplacementReconciled", "NoMatchingDestination", "WaitingDestination"]);
    assert_eq!(plan.events[1].note, format!("waiting for a destination with labels for workloadGroup: {DOT}"));
    assert_eq!(plan.events[2].note, format!("waiting for destination for workload group: [{DOT}]"));
    assert_eq!(plan.next, Next::After(Duration::from_secs(60)));
    world.settle();
    let message = format!("No matching destination found for workloadGroups: [{DOT}]");
    assert_eq!(world.condition("ScheduleSucceeded"), text((Status::False, "UnscheduledWorkloadGroups", &message)));
    assert_eq!(world.condition("Ready"), text((Status::False, "UnscheduledWorkloads", "Pending")));
    let status = world.work.as_ref().unwrap().status.clone().unwrap();
    assert_eq!((status.work_placements, status.work_placements_created), (Some(2), Some(1)));
    assert_eq!(world.names().len(), 1, "the other group is placed regardless");

    let plan = world.decide();
    let Finding::NoDestination { selector, near, .. } = &plan.findings[0] else { panic!("{:?}", plan.findings) };
    assert_eq!(selector.to_string(), "env=dev,tier=gold");
    assert_eq!(near[0].destination, "prod-1");
    assert_eq!(near[0].obstacles.iter().map(ToString::to_string).collect::<Vec<_>>(), ["has tier=silver"]);
    assert_eq!(near[1].obstacles[0].to_string(), "has no env label");

    world.destinations.push(destination("new", &[("env", "dev"), ("tier", "gold")]));
    world.settle();
    assert_eq!(world.condition("Ready").2, "Ready");
    assert!(world.names().contains(&"w.new-5058f".to_owned()));
}

#[test]
fn a_request_keeps_its_destination_when_others_appear_and_when_it_stops_matching() {
    let mut world = World::new(request("w", vec![group(".", DEV)]), vec![destination("old", &[("env", "dev")])]);
    world.settle();
    world.destinations.extend((0..5).map(|n| destination(&format!("new-{n}"), &[("env", "dev")])));
    assert!(world.decide().is_silent());

    world.destinations[0].metadata.labels = Some(labels(&[("env", "prod")]));
    let plan = world.decide();
    assert_eq!(reasons(&plan), ["DestinationSelectorMismatch", "DestinationSelectorMismatch"]);
    assert_eq!(
        plan.events[0].note,
        "labels for destination: old no longer match the expected labels, marking this workplacement as misplaced"
    );
    assert_eq!(plan.events[0].regarding.kind.kind, "WorkPlacement");
    assert!(plan.events[1].note.ends_with("workloadGroups: [5058f1af8388633f609cadb75a75dc9d] "));
    assert!(plan.events.iter().all(|event| event.type_ == EventType::Warning && event.reporter == Reporter::Scheduler));
    world.converge();
    assert_eq!(world.names(), ["w.old-5058f"]);
    assert_eq!(world.placement("w.old-5058f").labels()[keys::MISPLACED], "true");
    let message = format!("Target destination no longer matches destinationSelectors for workloadGroups: [{DOT}]");
    assert_eq!(world.condition("ScheduleSucceeded"), text((Status::False, "DestinationSelectorMismatch", &message)));
    assert_eq!(world.condition("Ready"), text((Status::False, "Misplaced", "Misplaced")));

    // New content still arrives there.
    let work = world.work.as_mut().unwrap();
    work.metadata.generation = Some(2);
    work.spec.workload_groups[0].workloads[0].content = compression::compress(b"a: 2\n");
    world.converge();
    assert_eq!(world.placement("w.old-5058f").spec.generation, Some(2));

    world.destinations[0].metadata.labels = Some(labels(&[("env", "dev")]));
    world.settle();
    assert!(!world.placement("w.old-5058f").labels().contains_key(keys::MISPLACED), "the mark heals");
    assert_eq!(world.condition("Ready").2, "Ready");
}

#[test]
fn a_dependency_follows_new_matches_and_keeps_old_placements_up_to_date() {
    let mut world = World::new(work("deps", vec![group(".", DEV)]), vec![destination("a", &[("env", "dev")])]);
    world.settle();
    world.destinations[0].metadata.labels = Some(labels(&[]));
    world.destinations.push(destination("b", &[("env", "dev")]));
    world.settle();
    assert_eq!(world.names(), ["deps.a-5058f", "deps.b-5058f"]);
    assert_eq!(world.condition("Ready").2, "Misplaced");
    assert!(world.placement("deps.a-5058f").labels().contains_key(keys::MISPLACED));
    assert!(!world.placement("deps.b-5058f").labels().contains_key(keys::MISPLACED));
}

#[test]
fn a_group_that_is_gone_takes_its_placements_along() {
    let groups = vec![group(".", &[]), group("dest1", &[])];
    let mut world = World::new(request("w", groups), vec![destination("d", &[])]);
    world.settle();
    assert_eq!(world.names(), ["w.d-5058f", "w.d-ba6cb"]);
    world.work.as_mut().unwrap().spec.workload_groups.remove(0);
    let plan = world.decide();
    assert!(matches!(plan.writes.as_slice(), [Write::Delete { target }] if target.key.name == "w.d-5058f"));
    world.execute(&plan, usize::MAX);
    assert!(world.placement("w.d-ba6cb").metadata.deletion_timestamp.is_none());
    assert_eq!(world.work.as_ref().unwrap().spec.workload_groups[0].id, DEST1);
}

#[test]
fn an_update_is_pending_until_the_new_content_is_written() {
    let mut world = World::new(request("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    world.settle();
    world.work.as_mut().unwrap().metadata.generation = Some(2);
    assert_eq!(readiness(world.work.as_ref().unwrap()), Readiness::Pending, "its status speaks of what was before");
    world.converge();
    assert_eq!(world.condition("Ready"), text((Status::False, "WorkplacementsPending", "Pending")));
    assert_eq!(world.condition("ScheduleSucceeded").0, Status::True);
    world.write_all();
    world.converge();
    assert_eq!(world.condition("Ready").2, "Ready");
    assert_eq!(readiness(world.work.as_ref().unwrap()), Readiness::Ready);
}

#[test]
fn a_work_of_the_original_without_generations_in_its_conditions_stays_ready() {
    let mut world = World::new(request("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    world.settle();
    for condition in &mut world.work.as_mut().unwrap().status.as_mut().unwrap().conditions {
        condition.observed_generation = None;
    }
    for placement in world.placements.values_mut() {
        placement.status.as_mut().unwrap().conditions[0].observed_generation = None;
    }
    assert_eq!(readiness(world.work.as_ref().unwrap()), Readiness::Ready);
    let plan = world.decide();
    assert!(plan.events.is_empty() && plan.writes.is_empty());
    world.converge();
    assert_eq!(world.condition("Ready").2, "Ready");
}

#[test]
fn a_failing_write_is_one_verdict_with_sorted_names_and_no_flapping() {
    let destinations = vec![destination("b", &[]), destination("a", &[])];
    let mut world = World::new(work("deps", vec![group(".", &[])]), destinations);
    world.settle();
    world.set_written("deps.b-5058f", Status::False);
    world.set_written("deps.a-5058f", Status::False);
    let plan = world.decide();
    assert_eq!(reasons(&plan), ["WorkplacementsFailing"]);
    assert_eq!(plan.events[0].reporter, Reporter::Work);
    world.execute(&plan, usize::MAX);
    let message = "Workplacements failed to write: [deps.a-5058f,deps.b-5058f]";
    assert_eq!(world.condition("ScheduleSucceeded"), text((Status::False, "WorkplacementsFailing", message)));
    assert_eq!(world.condition("Ready"), text((Status::False, "WorkplacementsFailing", "Failing")));
    assert!(world.decide().is_silent());
    assert_eq!(readiness(world.work.as_ref().unwrap()), Readiness::Failing);
    world.write_all();
    world.converge();
    assert_eq!(world.condition("Ready").2, "Ready");
}

#[test]
fn what_cannot_be_scheduled_is_refused_with_the_cause_and_holds_up_nothing_else() {
    let mut short = group(".", &[]);
    short.id = "5058".into();
    let mut odd = group(".", &[]);
    odd.id = "日本語日本語".into();
    let mut twin = group("dest1", &[]);
    twin.id = format!("{}x", &DOT[..6]);
    let bad_key: &[(&str, &[(&str, &str)])] = &[("promise", &[("-bad-", "x")])];
    let bad_value: &[(&str, &[(&str, &str)])] = &[("promise", &[("env", "a b")])];
    for (groups, cause) in [
        (vec![short, group("dest1", &[])], "shorter than five characters"),
        (vec![odd, group("dest1", &[])], "cannot be part of a name"),
        (vec![group(".", &[]), twin], "is not unique in its first five characters"),
        (vec![group(".", bad_key), group("dest1", &[])], "invalid label key \"-bad-\""),
        (vec![group(".", bad_value), group("dest1", &[])], "invalid value \"a b\" for label env"),
    ] {
        let mut world = World::new(work("w", groups), vec![destination("d", &[])]);
        world.settle();
        let (status, reason, message) = world.condition("ScheduleSucceeded");
        assert_eq!((status, reason.as_str()), (Status::False, "FailedToScheduleWorkloads"));
        assert!(message.starts_with("Failed to schedule or update for workloadGroups: ["), "{message}");
        assert!(message.contains(cause), "{message} should contain {cause}");
        assert_eq!(world.condition("Ready"), text((Status::False, "FailedToScheduleWorkloads", "Pending")));
        assert_eq!(world.names().len(), 1);
    }
    let mut world =
        World::new(work("w", vec![group(".", &[])]), vec![destination(&"d".repeat(64), &[]), destination("e", &[])]);
    world.settle();
    assert!(world.condition("ScheduleSucceeded").2.contains("longer than 63 characters"));
    assert_eq!(world.names(), ["w.e-5058f"]);
    let mut world = World::new(work(&"w".repeat(64), vec![group(".", &[])]), vec![destination("e", &[])]);
    world.settle();
    assert!(world.condition("ScheduleSucceeded").2.contains("longer than 63 characters"));
}

#[test]
fn a_placement_of_another_owner_is_not_touched() {
    let mut world = World::new(work("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    world.settle();
    world.placement("w.d-5058f").metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    let plan = world.decide();
    assert!(plan.writes.is_empty());
    world.converge();
    assert!(world.condition("ScheduleSucceeded").2.contains("belongs to Work w (uid other)"));
}

#[test]
fn a_work_without_groups_is_ready() {
    let mut world = World::new(request("w", vec![]), vec![]);
    world.converge();
    assert_eq!(world.condition("Ready").2, "Ready");
    let status = world.work.as_ref().unwrap().status.clone().unwrap();
    assert_eq!((status.work_placements, status.work_placements_created), (None, None));
}

#[test]
fn the_finalizer_comes_before_the_first_placement() {
    let mut work = request("w", vec![group(".", &[])]);
    work.metadata.finalizers = None;
    let world = World::new(work, vec![destination("d", &[])]);
    let plan = world.decide();
    assert!(matches!(&plan.writes[0], Write::Patch { target, .. } if target.kind.kind == "Work"));
    assert!(matches!(&plan.writes[1], Write::Create { .. }));
    assert_eq!(plan.status, None);
}

#[test]
fn deleting_a_work_waits_for_its_placements_and_touches_no_namesake() {
    let mut world = World::new(request("w", vec![group(".", &[])]), vec![destination("d", &[])]);
    world.settle();
    let mut foreign = world.placement("w.d-5058f").clone();
    foreign.metadata.name = Some("other.d-5058f".into());
    foreign.metadata.labels.as_mut().unwrap().insert(keys::WORK.into(), "other".into());
    foreign.metadata.owner_references = None;
    world.placements.insert(ObjectKey::of(&foreign), foreign);

    world.work.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(world.now)));
    let plan = world.decide();
    assert!(matches!(plan.writes.as_slice(), [Write::Delete { target }] if target.key.name == "w.d-5058f"));
    world.execute(&plan, usize::MAX);
    let plan = world.decide();
    assert!(plan.is_silent() && plan.next != Next::OnChange, "{plan:?}");
    assert!(matches!(&plan.findings[0], Finding::Terminating { placements } if placements.len() == 1));
    world.now += 60;
    world.converge();
    assert_eq!(world.condition("Ready").2, "Pending");
    assert!(world.condition("ScheduleSucceeded").2.contains("w.d-5058f"));

    world.placements.retain(|key, _| key.name != "w.d-5058f");
    world.converge();
    assert!(world.work.is_none());
    assert_eq!(world.names(), ["other.d-5058f"]);
}

#[test]
fn a_namesake_of_another_namespace_gets_a_directory_of_its_own() {
    let of = |name: &str, namespace: &str| {
        let mut work = request(name, vec![group(".", &[])]);
        work.metadata.namespace = Some("pipelines".into());
        work.metadata.labels.as_mut().unwrap().insert(keys::RESOURCE_NAMESPACE.into(), namespace.into());
        work
    };
    let mut world = World::new(of("one", "team-a"), vec![destination("d", &[])]);
    world.settle();
    assert!(!world.placement("one.d-5058f").annotations().contains_key(crate::work_placement::DIRECTORY_NAMESPACE));
    world.work = Some(of("three", "pipelines"));
    world.settle();
    let three = world.placement("three.d-5058f");
    assert_eq!(three.annotations()[crate::work_placement::DIRECTORY_NAMESPACE], "pipelines.pipelines");
    world.work = Some(of("two", "team-b"));
    world.settle();
    let two = world.placement("two.d-5058f");
    assert_eq!(two.annotations()[crate::work_placement::DIRECTORY_NAMESPACE], "team-b");
    assert_eq!(two.labels()[keys::RESOURCE_NAMESPACE], "team-b");
    world.placements.retain(|key, _| key.name.starts_with("two"));
    assert!(world.decide().is_silent(), "its directory stays when the first is gone");
}

#[test]
fn a_destination_that_is_cleared_does_not_mark_its_placements() {
    let mut leaving = destination("d", &[]);
    leaving.metadata.finalizers = Some(vec![keys::FINALIZER_DESTINATION_CLEANUP.into()]);
    let mut world = World::new(request("w", vec![group(".", &[])]), vec![leaving, destination("e", &[("x", "y")])]);
    world.destinations[1].spec.strict_match_labels = true;
    world.settle();
    assert_eq!(world.names(), ["w.d-5058f"]);
    world.destinations[0].metadata.deletion_timestamp = Some(Time(at(0)));
    assert!(world.decide().is_silent());
    world.destinations[0].metadata.finalizers = None;
    assert!(!world.decide().is_silent(), "one that leaves its files behind does");
}

fn any_world() -> impl Strategy<Value = World> {
    let pair =
        prop::sample::select(vec![("env", "dev"), ("env", "prod"), ("tier", "gold"), ("kratix.io/dry-run", "true")]);
    let pairs = prop::collection::vec(pair, 0..3);
    let destinations = prop::collection::vec((pairs.clone(), any::<bool>(), prop::bool::weighted(0.1)), 0..4);
    let source = prop::sample::select(vec!["promise", "promise-workflow", "resource-workflow", "odd"]);
    let groups = prop::collection::vec((source, pairs), 0..4);
    (destinations, groups, any::<bool>(), any::<bool>()).prop_map(
        |(destinations, groups, is_request, has_finalizer)| {
            let destinations = destinations
                .into_iter()
                .enumerate()
                .map(|(n, (pairs, strict, leaving))| {
                    let mut made = destination(&format!("d{n}"), &pairs);
                    made.spec.strict_match_labels = strict;
                    made.metadata.deletion_timestamp = leaving.then(|| Time(at(0)));
                    made
                })
                .collect();
            let groups: Vec<WorkloadGroup> = groups
                .into_iter()
                .enumerate()
                .map(|(n, (source, pairs))| group(&format!("dir{n}"), &[(source, &pairs)]))
                .collect();
            let mut work = if is_request { request("w", groups) } else { work("w", groups) };
            if !has_finalizer {
                work.metadata.finalizers = None;
            }
            World::new(work, destinations)
        },
    )
}

fn end_state(world: &World) -> Vec<(ObjectKey, BTreeMap<String, String>, kratix_api::WorkPlacementSpec)> {
    world.placements.iter().map(|(key, p)| (key.clone(), p.labels().clone(), p.spec.clone())).collect()
}

proptest! {
    #[test]
    fn converged_is_silent_and_any_prefix_recovers(start in any_world(), stops in prop::collection::vec(0usize..4, 0..4)) {
        let mut calm = start.clone();
        calm.settle();
        prop_assert!(calm.decide().is_silent());
        let mut shaken = start;
        for stop in stops {
            let plan = shaken.decide();
            shaken.execute(&plan, stop);
        }
        shaken.settle();
        prop_assert_eq!(end_state(&calm), end_state(&shaken));
        let statuses = |world: &World| world.work.as_ref().unwrap().status.as_ref().map(|status| {
            let said = status.conditions.iter().map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()));
            (said.collect::<Vec<_>>(), status.work_placements, status.work_placements_created)
        });
        prop_assert_eq!(statuses(&calm), statuses(&shaken));
    }

    #[test]
    fn a_request_group_has_at_most_one_placement_whatever_destinations_do(
        start in any_world(), later in prop::collection::vec(any_world(), 1..4),
    ) {
        let mut world = start;
        prop_assume!(is_request(world.work.as_ref().unwrap()));
        world.settle();
        for next in later {
            world.destinations = next.destinations;
            world.settle();
            for group in &world.work.as_ref().unwrap().spec.workload_groups {
                let count = world.placements.values().filter(|p| p.spec.id == group.id).count();
                prop_assert!(count <= 1);
            }
        }
    }
}
