//! Destination: a labelled directory in a state store.
//!
//! Order of writes: finalizer; then the test documents in the store; then status. On deletion with `cleanup: all`: the placements,
//! each with its files; then the test documents; then the finalizer. A crash between any two is harmless: every step is
//! applied again and then changes nothing, and the finalizer outlives what it protects.
//!
//! # Source
//! `05-scheduling-and-writing.md` §7; weaknesses 10, 26, 28, 35

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::destination::{Cleanup, FilepathMode};
use kratix_api::{Destination, WorkPlacement, hash, keys};
use kratix_store_path::Path;
use kube_core::ResourceExt;
use serde_json::json;

use crate::object::Target;
use crate::patch::to_value;
use crate::plan::{Event, EventType, Next, Plan, Reporter, Write};
use crate::state_store::{
    Attempt, Availability, Change, ChangeKind, Complaint, Failure, File, Operation, display, pause,
};
use crate::text;
use crate::work_placement::{Cleaned, FILES_AT, RETRY_AFTER, Site, join};

mod leftover;
mod refusal;

pub use self::leftover::{Former, former_sites, leftovers};

/// Reason of `Ready` while test documents cannot be written, or removed.
const WRITE_FAILED: &str = "StateStoreWriteFailed";

/// Reason of `Ready` while a store with which nothing is wrong is waited for.
const WAITING: &str = "WaitingForStateStore";

/// Named in the commits of test documents.
const CANARY: &str = "kratix-canary";

const NAMESPACE_DOCUMENT: &str =
    "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: kratix-worker-system\nspec: {}\nstatus: {}\n";

const CONFIG_MAP_DOCUMENT: &str = "apiVersion: v1\ndata:\n  canary: this confirms your infrastructure is reading from \
    Kratix state stores\nkind: ConfigMap\nmetadata:\n  name: kratix-info\n  namespace: kratix-worker-system\n";

/// Everything that the decision about one Destination may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The Destination.
    pub destination: Arc<Destination>,
    /// Whether its state store can be written.
    pub store: Availability,
    /// What the store says of its last push, unless that was accepted
    /// ([`state_store::complaint`](crate::state_store::complaint)).
    pub refusal: Option<Complaint>,
    /// The placements on it, sorted by key; needed only while it is being deleted.
    pub placements: Vec<Arc<WorkPlacement>>,
    /// Other Destinations of stores at the address of its own, each with the place of its store; needed only while no test
    /// documents of its own are to be there ([`forgoes_documents`]).
    pub beside: Vec<(Arc<Destination>, String)>,
    /// What the process last tried for it.
    pub attempt: Option<Attempt>,
    /// How often the test documents are written again; `None` for never.
    pub interval: Option<Duration>,
    /// The sites of test documents that it has left ([`former_sites`]).
    pub former: Vec<Former>,
    /// What came of cleaning them ([`leftovers`]), if this pass has tried.
    pub cleaned: Option<Vec<(Site, Cleaned)>>,
}

/// What is to be done about a Destination: first the plan, then the effect, then [`record`] tells what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Writes to the API.
    pub plan: Plan<Finding>,
    /// A change in the store.
    pub effect: Option<Effect>,
    /// The [`leftovers`] are to be removed; another decision with [`Snapshot::cleaned`] tells what follows from it.
    pub cleans: bool,
}

/// A change for the Destination's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What it does.
    pub change: Change,
    /// Identifies content and place, for the [`Attempt`].
    pub stamp: String,
}

/// What was found out about a Destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It can be written.
    Ready,
    /// It cannot be written.
    NotReady {
        /// Why.
        message: String,
    },
    /// It waits for something.
    Waiting {
        /// For what.
        for_: String,
    },
}

/// Returns the test documents of a Destination; paths are relative to its directory.
pub fn test_documents(destination: &Destination) -> [File; 2] {
    let (dependencies, resources) = match destination.spec.filepath.mode {
        FilepathMode::None | FilepathMode::AggregatedYaml => ("", ""),
        FilepathMode::NestedByMetadata | FilepathMode::Other(_) => ("dependencies", "resources"),
    };
    [
        File {
            path: join(&[dependencies, "kratix-canary-namespace.yaml"]),
            content: NAMESPACE_DOCUMENT.as_bytes().to_vec(),
        },
        File {
            path: join(&[resources, "kratix-canary-configmap.yaml"]),
            content: CONFIG_MAP_DOCUMENT.as_bytes().to_vec(),
        },
    ]
}

/// Tells whether test documents of the Destination are to be removed where it is, if there are any.
pub fn forgoes_documents(destination: &Destination) -> bool {
    destination.metadata.deletion_timestamp.is_some() || !destination.spec.init_workloads.enabled
}

/// Tells whether a change of a Destination concerns itself: its own status writes do not.
pub fn concerns_itself(old: Option<&Destination>, new: Option<&Destination>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    old.spec != new.spec
        || old.metadata.uid != new.metadata.uid
        || old.metadata.finalizers != new.metadata.finalizers
        || old.annotations().get(FILES_AT) != new.annotations().get(FILES_AT)
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
}

/// Decides what is to be done about a Destination.
///
/// # Guarantees
/// A converged snapshot, whose attempt has the present stamp, gives a silent plan and no effect.
pub fn decide(snapshot: &Snapshot) -> Decision {
    let destination = &*snapshot.destination;
    if destination.metadata.deletion_timestamp.is_some() {
        return decide_deletion(snapshot);
    }
    if let Some(align) = finalizer(destination) {
        return Decision::from(Plan::from(align));
    }
    match &snapshot.store {
        Availability::Ready { place, epoch } => {
            let purpose = if destination.spec.init_workloads.enabled { Purpose::Write } else { Purpose::Remove };
            decide_ready(snapshot, &format!("{place}/{epoch}"), purpose)
        }
        Availability::Opening { .. } => wait(display(destination.spec.state_store_ref.as_ref())),
        _ => unavailable(snapshot),
    }
}

/// Returns what follows from an attempt.
pub fn record(snapshot: &Snapshot, attempt: Attempt) -> Decision {
    let repaired = repaired(snapshot, &attempt);
    let snapshot = Snapshot { attempt: Some(attempt), ..snapshot.clone() };
    let mut decision = decide(&snapshot);
    decision.plan.events.extend(repaired);
    decision
}

/// Returns the plan that says on a Destination which is not ready, or is being deleted, that its documents wait for the store, and
/// of the store what it does not answer. What was found out about the Destination already is not taken back.
pub fn queued(snapshot: &Snapshot, silence: Option<&str>) -> Plan<Finding> {
    let destination = &*snapshot.destination;
    let conditions = destination.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ready = condition::find(conditions, condition::READY);
    let is_open = match destination.metadata.deletion_timestamp {
        Some(_) => {
            let is_last = has_finalizer(destination) && snapshot.placements.is_empty();
            is_last && ready.is_none_or(|ready| ![WRITE_FAILED, WAITING].contains(&ready.reason.as_str()))
        }
        None => ready.is_none_or(|ready| ready.reason == "StateStoreNotReady"),
    };
    if !is_open {
        return Plan::silent();
    }
    waits(snapshot, &format!("waiting for {}", display(destination.spec.state_store_ref.as_ref())), silence)
}

/// Returns the plan that says on a Destination that is being deleted where test documents are left at a site before, and what the
/// store there does not answer.
pub fn clearing(snapshot: &Snapshot, site: &Site, silence: Option<&str>) -> Plan<Finding> {
    if snapshot.destination.metadata.deletion_timestamp.is_none() {
        return Plan::silent();
    }
    waits(snapshot, &format!("waiting for test documents ({CANARY}) in {} to be removed", site.shown()), silence)
}

fn waits(snapshot: &Snapshot, wait: &str, silence: Option<&str>) -> Plan<Finding> {
    let message = silence.map_or_else(|| wait.to_owned(), |silence| format!("{wait}: {silence}"));
    let waiting = Condition::new(condition::READY, Status::Unknown, WAITING, text::message(message.clone()));
    let mut plan = settled(snapshot, waiting, message, Next::OnChange).plan;
    // A wait is no failure.
    plan.events.retain(|event| event.reason == refusal::REASON);
    plan
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Write,
    Remove,
}

fn decide_ready(snapshot: &Snapshot, place: &str, purpose: Purpose) -> Decision {
    let destination = &*snapshot.destination;
    if purpose == Purpose::Write
        && let Some((note, given_up)) = leftover::note(snapshot)
    {
        let mut decision = wait(display(destination.spec.state_store_ref.as_ref()));
        decision.plan.events.extend(given_up);
        decision.plan.writes.push(note);
        return decision;
    }
    let stamp = stamp(destination, place, purpose);
    let attempt = snapshot.attempt.as_ref().filter(|attempt| attempt.stamp == stamp);
    let mut decision = match attempt.map(|attempt| (&attempt.outcome, since(attempt.at, snapshot.now))) {
        None => wait(display(destination.spec.state_store_ref.as_ref())),
        Some((Ok(_), age)) => {
            let (reason, message) = match purpose {
                Purpose::Write => ("TestDocumentsWritten", "Test documents written to State Store"),
                Purpose::Remove => ("DestinationReady", "Destination is ready"),
            };
            let ready = Condition::new(condition::READY, Status::True, reason, message);
            let next = snapshot.interval.map_or(Next::OnChange, |interval| Next::After(interval.saturating_sub(age)));
            let decision = settled(snapshot, ready, "Destination is Ready".to_owned(), next);
            let decision = leftover::clean(snapshot, decision);
            if decision.cleans || snapshot.interval.is_none_or(|interval| age < interval) {
                return decision;
            }
            decision
        }
        Some((Err(failure), age)) => {
            let decision = not_written(snapshot, purpose, failure);
            let pause = pause(failure.retry_after);
            // Somebody's push has just been accepted: there is nothing to wait for.
            if age < pause && !refusal::is_over(snapshot) {
                return decision.and_next(Next::After(pause - age));
            }
            decision
        }
    };
    decision.effect = Some(Effect { change: change(snapshot, purpose), stamp });
    decision
}

fn decide_deletion(snapshot: &Snapshot) -> Decision {
    let destination = &*snapshot.destination;
    if !has_finalizer(destination) {
        return Decision::from(Plan::silent());
    }
    // The way out for who cannot wait: its files stay, and its placements go without it.
    if destination.spec.cleanup != Cleanup::All {
        return drop_finalizer(destination);
    }
    if !snapshot.placements.is_empty() {
        let alive = snapshot.placements.iter().filter(|placement| placement.metadata.deletion_timestamp.is_none());
        let writes = alive.map(|placement| Write::Delete { target: Target::of(&**placement).unpinned() }).collect();
        let message = "Destination is being deleted: waiting for its workplacements to remove their files";
        let leaving = Condition::new(condition::READY, Status::False, "WaitingForWorkPlacements", message);
        let mut decision = settled(snapshot, leaving, message.to_owned(), Next::After(RETRY_AFTER));
        // The placements tell of themselves.
        decision.plan.events.retain(|event| event.reason == refusal::REASON);
        decision.plan.writes = writes;
        return decision;
    }
    if let Err(reason) = Path::parse_directory(&join(&[&destination.spec.path])) {
        return leftover::leave(snapshot, Some(reason));
    }
    match &snapshot.store {
        Availability::Ready { place, epoch } => {
            let place = &format!("{place}/{epoch}");
            let is_done = snapshot.attempt.as_ref().is_some_and(|attempt| {
                attempt.outcome.is_ok() && attempt.stamp == stamp(destination, place, Purpose::Remove)
            });
            if is_done { leftover::leave(snapshot, None) } else { decide_ready(snapshot, place, Purpose::Remove) }
        }
        Availability::Opening { .. } => wait(display(destination.spec.state_store_ref.as_ref())),
        Availability::NotReady { .. } => unavailable(snapshot),
        // Without a store there is nothing left to clean.
        Availability::Unset | Availability::UnknownKind | Availability::NotFound => {
            let mut decision = drop_finalizer(destination);
            let (_, problem) = snapshot.store.problem(destination.spec.state_store_ref.as_ref());
            let note = format!("{problem}, files written there stay");
            let target = Target::of(destination);
            decision.plan.events.push(Event::warning(Reporter::Destination, target, "DestinationNotReady", note));
            decision
        }
    }
}

fn unavailable(snapshot: &Snapshot) -> Decision {
    let reference = snapshot.destination.spec.state_store_ref.as_ref();
    let (reason, message) = snapshot.store.problem(reference);
    let condition = Condition::new(condition::READY, Status::False, reason, message.clone());
    settled(snapshot, condition, message, Next::After(RETRY_AFTER))
}

fn not_written(snapshot: &Snapshot, purpose: Purpose, failure: &Failure) -> Decision {
    let what = match purpose {
        Purpose::Write => "Failed to write test documents to State Store",
        Purpose::Remove => "Failed to delete test documents from State Store",
    };
    let text = format!("{what}: {}", failure.message);
    let condition = Condition::new(condition::READY, Status::False, WRITE_FAILED, text::message(text.clone()));
    settled(snapshot, condition, text, Next::After(RETRY_AFTER))
}

/// Returns the plan that brings the condition and, if it has turned, the event; and with it what the store refuses.
fn settled(snapshot: &Snapshot, condition: Condition, note: String, next: Next) -> Decision {
    let destination = &*snapshot.destination;
    let is_ready = condition.status == Status::True;
    let finding = if is_ready { Finding::Ready } else { Finding::NotReady { message: condition.message.clone() } };
    let old = destination.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let turned = condition::set(&mut new.conditions, condition, snapshot.now);
    let refusal = refusal::record(snapshot, &mut new.conditions);
    let status = Write::status(Target::of(destination), &to_value(&old), &to_value(&new));
    let (type_, reason) = match is_ready {
        true => (EventType::Normal, "DestinationReady"),
        false => (EventType::Warning, "DestinationNotReady"),
    };
    let reporter = Reporter::Destination;
    let event = Event { regarding: Target::of(destination), type_, reason, note, reporter, of: None };
    let events = turned.then_some(event).into_iter().chain(refusal).collect();
    Decision::from(Plan { writes: Vec::new(), status, events, next, findings: vec![finding] })
}

fn wait(for_: String) -> Decision {
    let plan = Plan { findings: vec![Finding::Waiting { for_ }], next: Next::After(RETRY_AFTER), ..Plan::silent() };
    Decision::from(plan)
}

/// Returns the event that tells of test documents which were not any more as they were written, if the attempt has shown that.
fn repaired(snapshot: &Snapshot, attempt: &Attempt) -> Option<Event> {
    let destination = &*snapshot.destination;
    let has_changed = attempt.outcome.as_ref().is_ok_and(|written| written.changed);
    let was_written = snapshot.attempt.as_ref().is_some_and(|last| last.stamp == attempt.stamp && last.outcome.is_ok());
    if !has_changed || !was_written || destination.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let path = join(&[&destination.spec.path]);
    let note = format!("test documents in {path} were changed by others and have been put right");
    Some(Event::warning(Reporter::Destination, Target::of(destination), "DriftRepaired", note))
}

fn change(snapshot: &Snapshot, purpose: Purpose) -> Change {
    let destination = &*snapshot.destination;
    let (kind, write, remove) = match purpose {
        Purpose::Write => (ChangeKind::Update, test_documents(destination).into(), Vec::new()),
        Purpose::Remove => (ChangeKind::Delete, Vec::new(), leftover::removable(snapshot)),
    };
    let operation = Operation::Edit { write, remove };
    change_at(&join(&[&destination.spec.path]), kind, operation)
}

fn change_at(directory: &str, kind: ChangeKind, operation: Operation) -> Change {
    Change { id: CANARY.to_owned(), kind, prefix: directory.to_owned(), operation }
}

fn stamp(destination: &Destination, place: &str, purpose: Purpose) -> String {
    let spec = &destination.spec;
    let store = display(spec.state_store_ref.as_ref());
    let uid = destination.uid();
    hash::text(&format!("{uid:?}\n{}\n{:?}\n{store}\n{place}\n{purpose:?}", spec.path, spec.filepath.mode))
}

fn has_finalizer(destination: &Destination) -> bool {
    destination.finalizers().iter().any(|finalizer| finalizer == keys::FINALIZER_DESTINATION_CLEANUP)
}

fn finalizer(destination: &Destination) -> Option<Write> {
    let wants = destination.spec.cleanup == Cleanup::All;
    if wants == has_finalizer(destination) {
        return None;
    }
    if !wants {
        return Some(without_finalizer(destination));
    }
    let all: Vec<&str> =
        destination.finalizers().iter().map(String::as_str).chain([keys::FINALIZER_DESTINATION_CLEANUP]).collect();
    Some(metadata(destination, &all))
}

fn drop_finalizer(destination: &Destination) -> Decision {
    Decision::from(Plan::from(without_finalizer(destination)))
}

fn without_finalizer(destination: &Destination) -> Write {
    let rest: Vec<&str> = destination
        .finalizers()
        .iter()
        .map(String::as_str)
        .filter(|finalizer| *finalizer != keys::FINALIZER_DESTINATION_CLEANUP)
        .collect();
    metadata(destination, &rest)
}

fn metadata(destination: &Destination, finalizers: &[&str]) -> Write {
    let patch = json!({ "finalizers": finalizers });
    Write::metadata(Target::of(destination), &patch).expect("the patch has a member")
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl From<Plan<Finding>> for Decision {
    fn from(plan: Plan<Finding>) -> Self {
        Self { plan, effect: None, cleans: false }
    }
}

impl Decision {
    fn and_next(mut self, next: Next) -> Self {
        self.plan.next = next;
        self
    }
}

#[cfg(test)]
pub(crate) mod tests;
