//! The parts of a Work whose files one object cannot hold ([`kratix_api::part`]): whose they are, and when they go.
//!
//! The work-writer writes parts first and then the Work that refers to them, so at every moment each reference leads to a
//! part. A part says for which generation of its Work it was written: one that the Work does not refer to although that
//! generation has come is of no use any more. Parts of a Work that does not exist, or does not come to refer to them, wait
//! for their writer for as long as [`PATIENCE`].
//!
//! # Guarantees
//! What a Work or one of its placements refers to stays. A part goes only as it was seen: a writer that uses one again
//! says so on it first, and then it stays. What only carries labels of a part is nobody's business here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::part::{self, Reference};
use kratix_api::{OwnerReference, Work, WorkPlacement, keys};
use kube_core::ResourceExt;
use kube_core::metadata::PartialObjectMeta;
use serde_json::{Map, Value, json};

use super::Finding;
use crate::object::Target;
use crate::patch::to_value;
use crate::plan::{Next, Plan, Write};

/// How long a part waits for a Work that refers to it: longer than any work-writer needs for its writes.
pub const PATIENCE: Duration = Duration::from_secs(3600);

/// What is known of the parts of one Work, which may not exist.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The Work.
    pub work: Option<Arc<Work>>,
    /// Its placements, those being deleted included.
    pub placements: Vec<Arc<WorkPlacement>>,
    /// Its parts, without what they hold.
    pub parts: Vec<Arc<PartialObjectMeta<Work>>>,
}

/// What is done about parts: first the plan, then the removals.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Writes.
    pub plan: Plan<Finding>,
    /// Parts to be deleted if they are as they were seen. One that has changed meanwhile brings the Work back.
    pub removals: Vec<Target>,
}

/// What is done about parts before and after everything else that a pass does.
#[derive(Clone, Debug, PartialEq)]
pub struct Upkeep {
    /// Before: the parts of a Work that is deleted go before its finalizer.
    pub before: Step,
    /// After: parts are no reason to hold up a placement.
    pub after: Step,
}

/// Decides which parts stay, whose they are, and which go.
pub fn decide(snapshot: &Snapshot) -> Upkeep {
    let nothing = Step { plan: Plan::silent(), removals: Vec::new() };
    let step = step(snapshot);
    match &snapshot.work {
        Some(work) if work.metadata.deletion_timestamp.is_some() => Upkeep { before: step, after: nothing },
        _ => Upkeep { before: nothing, after: step },
    }
}

/// What becomes of a part.
enum Fate {
    Stays,
    Goes,
    Waits(Duration),
}

fn step(snapshot: &Snapshot) -> Step {
    let work = snapshot.work.as_deref();
    let referred = |groups: &mut dyn Iterator<Item = Reference>| -> BTreeSet<String> {
        groups.map(|reference| reference.name).collect()
    };
    let own = referred(&mut work.into_iter().flat_map(|work| part::references(&work.spec.workload_groups)));
    let placements = snapshot.placements.iter().flat_map(|placement| &placement.spec.workloads);
    let placed = referred(&mut placements.filter_map(Reference::of));
    // A Work that goes lets its parts go last: the content of what still has a placement may be asked for.
    let is_over = work.is_some_and(|work| work.metadata.deletion_timestamp.is_some()) && snapshot.placements.is_empty();
    let mut step = Step { plan: Plan::silent(), removals: Vec::new() };
    for part in &snapshot.parts {
        let name = part.name_any();
        if part::work_of(&name, part.labels()).is_none() {
            continue;
        }
        let owner = work.filter(|_| own.contains(&name));
        step.plan.writes.extend(align(part, owner));
        if part.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let fate = match work {
            _ if !is_over && (own.contains(&name) || placed.contains(&name)) => Fate::Stays,
            Some(work) if work.metadata.deletion_timestamp.is_some() => Fate::Goes,
            // The Work has been written since, without it.
            Some(work) if generation(part) <= work.metadata.generation.unwrap_or_default() => Fate::Goes,
            _ => wait(part, snapshot.now),
        };
        match fate {
            Fate::Stays => {}
            Fate::Goes => step.removals.push(Target::of(&**part)),
            Fate::Waits(rest) => step.plan.next = step.plan.next.sooner(Next::After(rest)),
        }
    }
    step
}

fn wait(part: &PartialObjectMeta<Work>, now: Timestamp) -> Fate {
    let age = Duration::try_from(now.duration_since(written_at(part))).unwrap_or_default();
    match PATIENCE.checked_sub(age).filter(|rest| !rest.is_zero()) {
        Some(rest) => Fate::Waits(rest),
        None => Fate::Goes,
    }
}

/// Returns when a part was last written or asked to stay.
fn written_at(part: &PartialObjectMeta<Work>) -> Timestamp {
    let noted = part.annotations().get(keys::PART_WRITTEN_AT).and_then(|at| at.parse().ok());
    let created = part.metadata.creation_timestamp.as_ref().map(|at| at.0);
    noted.max(created).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn generation(part: &PartialObjectMeta<Work>) -> i64 {
    part.annotations().get(keys::PART_GENERATION).and_then(|generation| generation.parse().ok()).unwrap_or_default()
}

/// Returns the write that gives a part its owner, and takes the finalizer that another scheduler has put on it as on any
/// Work: nobody would remove it.
fn align(part: &PartialObjectMeta<Work>, owner: Option<&Work>) -> Option<Write> {
    let mut metadata = Map::new();
    let is_ours = |finalizer: &&String| *finalizer == keys::FINALIZER_WORK_CLEANUP;
    if part.finalizers().iter().any(|finalizer| is_ours(&finalizer)) {
        let rest: Vec<&String> = part.finalizers().iter().filter(|finalizer| !is_ours(finalizer)).collect();
        metadata.insert("finalizers".into(), json!(rest));
    }
    let alive = owner.filter(|work| work.metadata.deletion_timestamp.is_none());
    if part.metadata.deletion_timestamp.is_none()
        && let Some(work) = alive
        && !part.owner_references().iter().any(|owner| Some(&owner.uid) == work.metadata.uid.as_ref())
    {
        metadata.insert("ownerReferences".into(), to_value(&[owned_by(work)]));
    }
    Write::metadata(Target::of(part), &Value::Object(metadata))
}

/// It is deleted with the Work, and does not hold it up.
fn owned_by(work: &Work) -> OwnerReference {
    OwnerReference {
        api_version: keys::API_VERSION.to_owned(),
        kind: Work::KIND.to_owned(),
        name: work.name_any(),
        uid: work.uid().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}
