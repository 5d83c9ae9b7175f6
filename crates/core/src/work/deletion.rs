//! A Work that is being deleted: its placements go first, each with its files; then the finalizer.

use std::time::Duration;

use kratix_api::condition::{self, Condition, Status};
use kratix_api::{Work, keys};
use kube_core::ResourceExt;
use serde_json::json;

use super::status::set_condition;
use super::{Course, Finding, Snapshot, is_terminating};
use crate::object::{ObjectKey, Target};
use crate::patch::to_value;
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::text;

/// How long a deletion may take before the status names what it waits for: most are over earlier, without a word.
const SILENCE: Duration = Duration::from_secs(5);

pub(super) fn decide(snapshot: &Snapshot) -> Plan<Finding> {
    let work = &snapshot.work;
    if !work.finalizers().iter().any(|finalizer| finalizer == keys::FINALIZER_WORK_CLEANUP) {
        return Plan::silent();
    }
    if snapshot.placements.is_empty() {
        let rest: Vec<&String> =
            work.finalizers().iter().filter(|finalizer| *finalizer != keys::FINALIZER_WORK_CLEANUP).collect();
        let drop = Write::metadata(Target::of(&**work), &json!({ "finalizers": rest }));
        return drop.map_or_else(Plan::silent, Plan::from);
    }
    let alive = snapshot.placements.iter().filter(|placement| !is_terminating(placement));
    let writes: Vec<Write> = alive.map(|p| Write::Delete { target: Target::of(&**p).unpinned() }).collect();
    let waiting = snapshot.placements.iter().map(|placement| ObjectKey::of(&**placement)).collect();
    let findings = vec![Finding::Terminating { placements: waiting }];
    let since = work.metadata.deletion_timestamp.as_ref().map_or(snapshot.now, |time| time.0);
    let age = Duration::try_from(snapshot.now.duration_since(since)).unwrap_or_default();
    if let Some(rest) = SILENCE.checked_sub(age).filter(|rest| !rest.is_zero()) {
        return Plan { writes, status: None, events: Vec::new(), next: Next::After(rest), findings };
    }
    Plan { writes, status: status(snapshot), events: Vec::new(), next: Next::OnChange, findings }
}

/// Returns the plan that says which placements could not be deleted.
pub(super) fn refused(snapshot: &Snapshot, course: &Course<'_>) -> Plan<Finding> {
    let placements: Vec<ObjectKey> = snapshot.placements.iter().map(|placement| ObjectKey::of(&**placement)).collect();
    let causes = placements.iter().filter_map(|placement| course.causes().get(placement));
    let events = causes.map(|cause| failed(&snapshot.work, cause)).collect();
    Plan { events, findings: vec![Finding::Terminating { placements }], ..Plan::silent() }
}

/// Returns the event that tells why a placement could not be deleted.
pub(super) fn failed(work: &Work, cause: &str) -> Event {
    let note = format!("deleting associated workplacement failed: {cause}");
    Event::warning(Reporter::Work, Target::of(work), "FailedDelete", note)
}

fn status(snapshot: &Snapshot) -> Option<Write> {
    let work = &snapshot.work;
    let names: Vec<String> = snapshot.placements.iter().map(|placement| placement.name_any()).collect();
    let message = format!("Waiting for workplacements to remove their files: [{}]", names.join(","));
    let old = work.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let reason = "WorkplacementsTerminating";
    let schedule = Condition::new(condition::SCHEDULE_SUCCEEDED, Status::False, reason, text::message(message));
    let ready = Condition::new(condition::READY, Status::False, reason, "Pending");
    set_condition(&mut new.conditions, schedule, work.metadata.generation, snapshot.now);
    set_condition(&mut new.conditions, ready, work.metadata.generation, snapshot.now);
    Write::status(Target::of(&**work), &to_value(&old), &to_value(&new))
}
