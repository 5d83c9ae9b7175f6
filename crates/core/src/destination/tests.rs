//! Tables over `decide`.

use kratix_api::destination::{InitWorkloads, StateStoreKind, StateStoreRef};
use kratix_api::{DestinationSpec, Time, WorkPlacementSpec};

use super::*;
use crate::state_store::model::{self, Cleaning, Files};
use crate::state_store::{About, Written};
use crate::work::tests::{at, patched, reasons};
use crate::work_placement::{Leftover, SITES_MAX};

mod beside;
mod refusal;

fn destination(mode: FilepathMode) -> Destination {
    let spec = DestinationSpec {
        path: "worker-1/".into(),
        state_store_ref: Some(StateStoreRef { kind: StateStoreKind::GitStateStore, name: "default".into() }),
        filepath: kratix_api::destination::Filepath { mode, filename: String::new() },
        ..Default::default()
    };
    let mut destination = Destination::new("worker-1", spec);
    destination.metadata.uid = Some("uid".into());
    destination.metadata.resource_version = Some("1".into());
    destination
}

/// As after the pass that notes where the test documents are about to be.
pub(crate) fn noted(mut destination: Destination) -> Destination {
    let site = Site::of_test_documents(&destination, "here").expect("it has a store");
    let sites = crate::work_placement::rendered_sites(&[site]).expect("there is one");
    destination.annotations_mut().insert(FILES_AT.into(), sites);
    destination
}

fn ready() -> Availability {
    Availability::Ready { place: "here".into(), epoch: 0 }
}

fn not_ready() -> Availability {
    Availability::NotReady { place: "here".into(), cause: String::new() }
}

#[derive(Clone)]
struct World {
    destination: Option<Destination>,
    store: Availability,
    placements: Vec<WorkPlacement>,
    attempt: Option<Attempt>,
    interval: Option<Duration>,
    refuses: Option<Failure>,
    now: i64,
    files: Files,
    notes: Vec<String>,
    deleted: Vec<String>,
    statuses: usize,
    /// The stores of sites that were left, where they are not ready.
    former: Option<Availability>,
    others: Vec<(Arc<Destination>, String)>,
    beside: Vec<(Arc<Destination>, String)>,
    cleaning: Cleaning,
    refusal: Option<Complaint>,
}

impl World {
    fn new(destination: Destination) -> Self {
        Self {
            destination: Some(destination),
            store: ready(),
            placements: Vec::new(),
            attempt: None,
            interval: None,
            refuses: None,
            now: 0,
            files: Files::new(),
            notes: Vec::new(),
            deleted: Vec::new(),
            statuses: 0,
            former: None,
            others: Vec::new(),
            beside: Vec::new(),
            cleaning: Cleaning::default(),
            refusal: None,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            now: at(self.now),
            destination: Arc::new(self.destination.clone().expect("the destination exists")),
            store: self.store.clone(),
            refusal: self.refusal.clone(),
            placements: self.placements.iter().cloned().map(Arc::new).collect(),
            beside: self.beside.clone(),
            attempt: self.attempt.clone(),
            interval: self.interval,
            former: self.formers(),
            cleaned: None,
        }
    }

    fn formers(&self) -> Vec<Former> {
        let sites = former_sites(self.destination.as_ref().unwrap(), self.store.place().unwrap_or_default());
        let former = |site: Site| {
            let ready = Availability::Ready { place: site.place.clone(), epoch: 0 };
            let store = self.former.clone().unwrap_or(ready);
            Former { site, store, is_reachable: self.former.is_none(), others: self.others.clone() }
        };
        sites.into_iter().map(former).collect()
    }

    fn clean(&mut self, snapshot: &Snapshot) -> Vec<(Site, Cleaned)> {
        let clean = |leftover: Leftover| {
            let (change, place) = (&leftover.change, leftover.site.place.as_str());
            let outcome = model::clean(&mut self.files, change, place, leftover.needs_proof, self.cleaning);
            (leftover.site, outcome)
        };
        leftovers(snapshot).into_iter().map(clean).collect()
    }

    fn execute(&mut self, plan: &Plan<Finding>) {
        for write in plan.writes.iter().chain(&plan.status) {
            match write {
                Write::Delete { target } => self.deleted.push(target.key.name.clone()),
                Write::Patch { target, patch } | Write::PatchStatus { target, patch } => {
                    self.statuses += usize::from(matches!(write, Write::PatchStatus { .. }));
                    let destination = self.destination.as_mut().unwrap();
                    patched(destination, target, patch, 2);
                    if destination.metadata.deletion_timestamp.is_some() && destination.finalizers().is_empty() {
                        self.destination = None;
                    }
                }
                Write::Create { .. } => panic!("{write:?}"),
            }
        }
        self.notes.extend(plan.events.iter().map(|event| event.note.clone()));
    }

    fn pass(&mut self) -> bool {
        let mut snapshot = self.snapshot();
        let mut decision = decide(&snapshot);
        self.execute(&decision.plan);
        let mut is_silent = decision.plan.is_silent();
        if let Some(effect) = decision.effect.take() {
            let outcome = match self.refuses.clone() {
                Some(failure) => Err(failure),
                None => {
                    let place = snapshot.store.place().unwrap().to_owned();
                    Ok(Written {
                        version: Some("v".into()),
                        changed: model::apply(&mut self.files, &effect.change, &place),
                    })
                }
            };
            let attempt = Attempt { stamp: effect.stamp, at: at(self.now), outcome };
            self.attempt = Some(attempt.clone());
            decision = record(&snapshot, attempt.clone());
            self.execute(&decision.plan);
            snapshot.attempt = Some(attempt);
            is_silent = false;
        }
        if decision.cleans {
            let cleaned = self.clean(&snapshot);
            let plan = decide(&Snapshot { cleaned: Some(cleaned), ..snapshot }).plan;
            self.execute(&plan);
            is_silent &= plan.is_silent();
        }
        !is_silent
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            if self.destination.is_none() || !self.pass() {
                return;
            }
        }
        panic!("does not come to rest");
    }

    fn ready(&self) -> (Status, String, String) {
        let status = self.destination.as_ref().unwrap().status.clone().unwrap_or_default();
        let ready = condition::find(&status.conditions, condition::READY).expect("there is a condition");
        (ready.status.clone(), ready.reason.clone(), ready.message.clone())
    }

    fn delete(&mut self) {
        self.destination.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(0)));
    }
}

fn said(condition: (Status, &str, &str)) -> (Status, String, String) {
    (condition.0, condition.1.to_owned(), condition.2.to_owned())
}

fn placement(name: &str) -> WorkPlacement {
    let mut placement = WorkPlacement::new(name, WorkPlacementSpec::default());
    placement.metadata.namespace = Some("default".into());
    placement
}

#[test]
fn test_documents_are_where_and_what_they_are_in_the_original() {
    for (mode, namespace, config_map) in [
        (
            FilepathMode::NestedByMetadata,
            "worker-1/dependencies/kratix-canary-namespace.yaml",
            "worker-1/resources/kratix-canary-configmap.yaml",
        ),
        (FilepathMode::None, "worker-1/kratix-canary-namespace.yaml", "worker-1/kratix-canary-configmap.yaml"),
        (
            FilepathMode::AggregatedYaml,
            "worker-1/kratix-canary-namespace.yaml",
            "worker-1/kratix-canary-configmap.yaml",
        ),
    ] {
        let mut world = World::new(destination(mode));
        world.settle();
        assert_eq!(world.files.len(), 2);
        // Sizes and digests are those of the recorded repositories.
        assert_eq!(world.files[namespace].len(), 90);
        assert_eq!(world.files[config_map].len(), 181);
        assert_eq!(
            world.ready(),
            said((Status::True, "TestDocumentsWritten", "Test documents written to State Store"))
        );
        assert_eq!(world.notes, ["Destination is Ready"]);
        assert_eq!(world.statuses, 1, "one write from nothing to ready");
        let change = decide(&Snapshot { attempt: None, ..world.snapshot() }).effect.unwrap().change;
        assert_eq!(change.id, "kratix-canary");
    }
    let [_, config_map] = test_documents(&destination(FilepathMode::None));
    let golden = "apiVersion: v1\ndata:\n  canary: this confirms your infrastructure is reading from Kratix state stores\nkind: ConfigMap\nmetadata:\n  name: kratix-info\n  namespace: kratix-worker-system\n";
    assert_eq!(config_map.content, golden.as_bytes());
}

#[test]
fn a_start_with_nothing_changed_is_silent() {
    let mut world = World::new(destination(FilepathMode::None));
    world.settle();
    world.notes.clear();
    world.attempt = None;
    world.settle();
    assert_eq!((world.statuses, world.notes.len()), (1, 0));
    assert!(decide(&world.snapshot()).effect.is_none());
}

#[test]
fn switching_test_documents_off_removes_them() {
    let mut world = World::new(destination(FilepathMode::NestedByMetadata));
    world.settle();
    world.destination.as_mut().unwrap().spec.init_workloads = InitWorkloads { enabled: false };
    world.settle();
    assert!(world.files.is_empty());
    assert_eq!(world.ready(), said((Status::True, "DestinationReady", "Destination is ready")));
}

#[test]
fn a_store_that_is_missing_or_not_ready_is_named_and_its_return_heals() {
    for (store, reason, message) in [
        (Availability::NotFound, "StateStoreNotFound", "GitStateStore/default: not found"),
        (not_ready(), "StateStoreNotReady", "GitStateStore/default: not ready"),
        (
            Availability::Unset,
            "StateStoreNotFound",
            "stateStoreRef is not set; hint: set spec.stateStoreRef of the Destination",
        ),
    ] {
        let mut world = World::new(destination(FilepathMode::None));
        world.store = store;
        world.settle();
        assert_eq!(world.ready(), said((Status::False, reason, message)));
        assert_eq!(world.notes, [message]);
        assert_eq!(decide(&world.snapshot()).plan.next, Next::After(RETRY_AFTER));
        world.store = ready();
        world.settle();
        assert_eq!(world.ready().0, Status::True);
        world.store = Availability::Opening { place: "here".into() };
        assert!(!world.pass(), "a store that is being opened takes nothing back");
    }
}

#[test]
fn a_refused_write_is_told_once_and_retried() {
    let mut world = World::new(destination(FilepathMode::None));
    world.refuses = Some(Failure { message: "no".into(), about: About::Store, retry: true, retry_after: None });
    world.pass();
    world.pass();
    let message = "Failed to write test documents to State Store: no";
    assert_eq!(world.ready(), said((Status::False, "StateStoreWriteFailed", message)));
    assert!(!world.pass());
    world.now = 15;
    world.pass();
    assert_eq!(world.notes, [message]);
    world.refuses = None;
    world.now = 30;
    world.settle();
    assert_eq!(world.ready().0, Status::True);
}

#[test]
fn the_finalizer_follows_the_clean_up_policy() {
    let mut world = World::new(destination(FilepathMode::None));
    world.destination.as_mut().unwrap().spec.cleanup = Cleanup::All;
    world.settle();
    assert_eq!(world.destination.as_ref().unwrap().finalizers(), [keys::FINALIZER_DESTINATION_CLEANUP]);
    world.destination.as_mut().unwrap().spec.cleanup = Cleanup::None;
    world.settle();
    assert!(world.destination.as_ref().unwrap().finalizers().is_empty());
    world.delete();
    assert!(!world.pass(), "without clean-up nothing is done");
    assert_eq!(world.files.len(), 2);
}

#[test]
fn deleting_with_clean_up_waits_for_placements_and_removes_the_test_documents() {
    let mut world = World::new(destination(FilepathMode::None));
    world.destination.as_mut().unwrap().spec.cleanup = Cleanup::All;
    world.settle();
    let mut leaving = placement("b");
    leaving.metadata.deletion_timestamp = Some(Time(at(0)));
    world.placements = vec![placement("a"), leaving];
    world.delete();
    world.pass();
    assert_eq!(world.deleted, ["a"]);
    assert_eq!(world.ready().1, "WaitingForWorkPlacements");
    assert_eq!(world.files.len(), 2);
    world.placements.clear();
    world.settle();
    assert!(world.destination.is_none() && world.files.is_empty());
}

// spec 05 §7.3 (2), §13.3
#[test]
fn clean_up_that_is_called_off_lets_a_destination_go_at_once() {
    let mut world = World::new(destination(FilepathMode::None));
    world.destination.as_mut().unwrap().spec.cleanup = Cleanup::All;
    world.settle();
    world.store = not_ready();
    world.placements = vec![placement("a")];
    world.delete();
    world.pass();
    assert_eq!(world.ready().1, "WaitingForWorkPlacements");
    world.destination.as_mut().unwrap().spec.cleanup = Cleanup::None;
    world.settle();
    assert!(world.destination.is_none());
    assert_eq!(world.files.len(), 2, "its files stay");
}

#[test]
fn deleting_with_clean_up_goes_on_without_a_store_but_waits_for_one_that_is_not_ready() {
    let mut start = destination(FilepathMode::None);
    start.metadata.finalizers = Some(vec![keys::FINALIZER_DESTINATION_CLEANUP.into(), "example.com/mine".into()]);
    start.spec.cleanup = Cleanup::All;
    let mut world = World::new(start);
    world.delete();
    world.store = not_ready();
    world.settle();
    assert_eq!(world.ready().2, "GitStateStore/default: not ready");
    world.store = Availability::NotFound;
    let plan = decide(&world.snapshot()).plan;
    assert_eq!(reasons(&plan), ["DestinationNotReady"]);
    world.settle();
    assert_eq!(world.destination.unwrap().finalizers(), ["example.com/mine"]);
    assert_eq!(world.notes.last().unwrap(), "GitStateStore/default: not found, files written there stay");
}

#[test]
fn own_status_writes_do_not_bring_a_destination_back() {
    let old = destination(FilepathMode::None);
    let mut new = old.clone();
    new.status = Some(kratix_api::DestinationStatus { conditions: vec![Condition::default()] });
    assert!(!concerns_itself(Some(&old), Some(&new)));
    new.spec.path = "x".into();
    assert!(concerns_itself(Some(&old), Some(&new)));
}

#[test]
fn test_documents_are_put_back_after_the_interval_and_when_the_store_may_have_lost_them() {
    let mut world = World::new(destination(FilepathMode::NestedByMetadata));
    world.interval = Some(Duration::from_secs(100));
    world.settle();
    assert_eq!(decide(&world.snapshot()).plan.next, Next::After(Duration::from_secs(100)));
    let statuses = world.statuses;
    world.files.clear();
    world.now = 99;
    assert_eq!(decide(&world.snapshot()).effect, None);
    world.now = 100;
    world.settle();
    assert_eq!(world.files.len(), 2);
    world.interval = None;
    world.files.clear();
    assert_eq!(decide(&world.snapshot()).effect, None);
    world.store = Availability::Ready { place: "here".into(), epoch: 1 };
    world.settle();
    assert_eq!(world.files.len(), 2);
    assert_eq!(world.statuses, statuses, "no condition changes for it");
}

#[test]
fn test_documents_that_others_have_changed_are_put_right_with_a_word() {
    let mut world = World::new(destination(FilepathMode::NestedByMetadata));
    world.interval = Some(Duration::from_secs(100));
    world.settle();
    world.notes.clear();
    world.now = 100;
    world.settle();
    assert!(world.notes.is_empty(), "all is as it was");
    world.files.values_mut().for_each(|content| content.push('x'));
    world.now = 200;
    world.settle();
    assert_eq!(world.notes, ["test documents in worker-1 were changed by others and have been put right"]);
}

#[test]
fn test_documents_follow_the_destination_and_leave_nothing_behind() {
    let mut world = World::new(destination(FilepathMode::NestedByMetadata));
    world.pass();
    assert!(world.files.is_empty(), "the place is noted first");
    world.settle();
    world.notes.clear();
    let paths = |world: &World| world.files.keys().cloned().collect::<Vec<_>>();
    let at = |root: &str| {
        [
            format!("{root}/dependencies/kratix-canary-namespace.yaml"),
            format!("{root}/resources/kratix-canary-configmap.yaml"),
        ]
    };
    world.destination.as_mut().unwrap().spec.path = "elsewhere".into();
    world.settle();
    assert_eq!(paths(&world), at("elsewhere"));
    world.store = Availability::Ready { place: "there".into(), epoch: 0 };
    let mut twin = World { cleaning: Cleaning { has_twin: true, ..Cleaning::default() }, ..world.clone() };
    let mut gone = World { former: Some(Availability::NotFound), ..world.clone() };
    let mut dead =
        World { former: Some(Availability::NotReady { place: "here".into(), cause: "dead".into() }), ..world.clone() };
    world.settle();
    assert_eq!(paths(&world), at("there:elsewhere"));
    assert!(world.notes.iter().all(|note| note == "Destination is Ready"), "{:?}", world.notes);
    assert!(!world.pass());

    twin.settle();
    assert_eq!(twin.files.len(), 4, "one repository under two addresses");
    gone.settle();
    assert_eq!(gone.files.len(), 4);
    assert!(gone.notes.last().unwrap().ends_with("stay: GitStateStore/default: not found"), "{:?}", gone.notes);
    dead.settle();
    assert_eq!(dead.ready().0, Status::True);
    assert!(dead.notes.last().unwrap().contains("elsewhere of GitStateStore/default stay for now"), "{:?}", dead.notes);
    let told = dead.notes.len();
    assert!(!dead.pass() && dead.notes.len() == told, "told once");
    dead.former = None;
    dead.settle();
    assert_eq!(paths(&dead), at("there:elsewhere"));
}

#[test]
fn test_documents_that_another_destination_has_there_by_now_stay() {
    let mut world = World::new(destination(FilepathMode::NestedByMetadata));
    world.settle();
    world.destination.as_mut().unwrap().spec.path = "elsewhere".into();
    let mut heir = destination(FilepathMode::NestedByMetadata);
    heir.metadata.name = Some("heir".into());
    world.others = vec![(Arc::new(heir.clone()), "here".into())];
    let mut without = world.clone();
    world.settle();
    assert_eq!(world.files.len(), 4);
    heir.spec.init_workloads = InitWorkloads { enabled: false };
    without.others = vec![(Arc::new(heir), "here".into())];
    without.settle();
    assert_eq!(without.files.len(), 2);
}

#[test]
fn deleting_with_clean_up_removes_test_documents_of_all_places() {
    for (is_cleaned, rest) in [(true, 0), (false, 2)] {
        let mut start = destination(FilepathMode::NestedByMetadata);
        start.spec.cleanup = Cleanup::All;
        let mut world = World::new(start);
        world.settle();
        world.cleaning.is_refused = true;
        world.destination.as_mut().unwrap().spec.path = "elsewhere".into();
        world.settle();
        assert_eq!(world.files.len(), 4);
        world.cleaning.is_refused = !is_cleaned;
        world.delete();
        world.settle();
        assert!(world.destination.is_none());
        assert_eq!(world.files.len(), rest);
    }
}

/// As made before admission knew the rule.
fn unwritable() -> World {
    let mut start = destination(FilepathMode::None);
    start.spec.cleanup = Cleanup::All;
    start.spec.path = "a/.git".into();
    let mut world = World::new(start);
    world.refuses = Some(Failure::content("path refused".to_owned()));
    world.settle();
    assert_eq!(world.ready().1, WRITE_FAILED);
    world.notes.clear();
    world
}

#[test]
fn a_destination_at_a_path_that_no_store_takes_goes_although_nothing_can_be_removed_there() {
    let mut world = unwritable();
    world.placements = vec![placement("a")];
    world.delete();
    world.pass();
    assert!(world.destination.is_some(), "its placements go first");
    world.placements.clear();
    world.notes.clear();
    world.settle();
    assert!(world.destination.is_none());
    let note = "test documents (kratix-canary) in a/.git of GitStateStore/default stay, if there are any: it names a .git directory";
    assert_eq!(world.notes, [note]);
}

#[test]
fn a_path_that_no_store_takes_can_be_left() {
    let mut world = unwritable();
    world.refuses = None;
    world.destination.as_mut().unwrap().spec.path = "a".into();
    world.settle();
    assert_eq!(world.ready().1, "TestDocumentsWritten");
    let left = "test documents (kratix-canary) in a/.git of GitStateStore/default stay: it names a .git directory";
    assert_eq!(world.notes, ["Destination is Ready", left]);
    assert_eq!(former_sites(world.destination.as_ref().unwrap(), "here"), []);
}

#[test]
fn too_many_places_of_test_documents_are_given_up_from_the_first() {
    let mut world = World::new(destination(FilepathMode::None));
    world.settle();
    world.cleaning.is_refused = true;
    for place in 1..=SITES_MAX {
        world.destination.as_mut().unwrap().spec.path = place.to_string();
        world.settle();
    }
    assert_eq!(former_sites(world.destination.as_ref().unwrap(), "here").len(), SITES_MAX - 1);
    let given_up: Vec<&String> = world.notes.iter().filter(|note| note.contains("too many places")).collect();
    let note =
        "test documents (kratix-canary) in worker-1 of GitStateStore/default stay: there are too many places like it";
    assert_eq!(given_up, [note]);
}
