//! What a Work's status says: one verdict for a pass, written once.

use std::time::Duration;

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};

use super::group::{Outcome, Placed};
use super::{FIRST_STATUS_GRACE, Snapshot, is_request, scheduler_event};
use crate::object::Target;
use crate::patch::to_value;
use crate::plan::{Event, Reporter, Write};
use crate::text;

/// What decides the conditions, the weightiest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Refused,
    Failing,
    Unscheduled,
    Misplaced,
    Unwritten,
    Ready,
}

pub(super) struct Verdict {
    pub(super) kind: Kind,
    schedule: Condition,
    ready: Condition,
}

impl Verdict {
    pub(super) fn of(groups: &[Placed]) -> Self {
        let ids = |matches: fn(&Outcome) -> bool| -> Vec<&str> {
            groups.iter().filter(|group| matches(&group.outcome)).map(|group| group.group.as_str()).collect()
        };
        let refused = ids(|outcome| matches!(outcome, Outcome::Refused(_)));
        let unscheduled = ids(|outcome| *outcome == Outcome::Unscheduled);
        let misplaced = ids(|outcome| *outcome == Outcome::Misplaced);
        let mut failing: Vec<&str> = groups.iter().flat_map(|group| &group.failing).map(String::as_str).collect();
        failing.sort_unstable();

        if !refused.is_empty() {
            let cause = groups.iter().find_map(|group| match &group.outcome {
                Outcome::Refused(cause) => Some(cause.as_str()),
                _ => None,
            });
            let text = format!(
                "Failed to schedule or update for workloadGroups: [{}]: {}",
                refused.join(","),
                cause.unwrap_or_default()
            );
            return Self::negative(Kind::Refused, "FailedToScheduleWorkloads", text, "Pending");
        }
        if !failing.is_empty() {
            let text = format!("Workplacements failed to write: [{}]", failing.join(","));
            return Self::negative(Kind::Failing, "WorkplacementsFailing", text, "Failing");
        }
        if !unscheduled.is_empty() {
            let text = format!("No matching destination found for workloadGroups: [{}]", unscheduled.join(","));
            let mut verdict = Self::negative(Kind::Unscheduled, "UnscheduledWorkloads", text, "Pending");
            verdict.schedule.reason = "UnscheduledWorkloadGroups".to_owned();
            return verdict;
        }
        if !misplaced.is_empty() {
            let text = format!(
                "Target destination no longer matches destinationSelectors for workloadGroups: [{}]",
                misplaced.join(",")
            );
            let mut verdict = Self::negative(Kind::Misplaced, "DestinationSelectorMismatch", text, "Misplaced");
            verdict.ready.reason = "Misplaced".to_owned();
            return verdict;
        }
        let scheduled = |status, reason, message| Condition::new(condition::READY, status, reason, message);
        let (kind, ready) = if groups.iter().any(|group| !group.unwritten.is_empty()) {
            (Kind::Unwritten, scheduled(Status::False, "WorkplacementsPending", "Pending"))
        } else {
            (Kind::Ready, scheduled(Status::True, "AllWorkplacementsScheduled", "Ready"))
        };
        let text = "All workplacements scheduled successfully";
        let schedule = Condition::new(condition::SCHEDULE_SUCCEEDED, Status::True, "AllWorkplacementsScheduled", text);
        Self { kind, schedule, ready }
    }

    fn negative(kind: Kind, reason: &str, message: String, ready: &str) -> Self {
        Self {
            kind,
            schedule: Condition::new(condition::SCHEDULE_SUCCEEDED, Status::False, reason, text::message(message)),
            ready: Condition::new(condition::READY, Status::False, reason, ready),
        }
    }

    /// Returns for how long a Work without status still waits for the first writes, if it does.
    pub(super) fn grace(&self, snapshot: &Snapshot, groups: &[Placed]) -> Option<Duration> {
        let conditions = snapshot.work.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if self.kind != Kind::Unwritten || condition::find(conditions, condition::READY).is_some() {
            return None;
        }
        let youngest = groups.iter().flat_map(|group| &group.unwritten).map(|at| at.unwrap_or(snapshot.now)).max()?;
        let age = Duration::try_from(snapshot.now.duration_since(youngest)).unwrap_or_default();
        FIRST_STATUS_GRACE.checked_sub(age).filter(|rest| !rest.is_zero())
    }

    /// Returns the status write and the events that tell of a transition.
    pub(super) fn status(&self, snapshot: &Snapshot, groups: &[Placed]) -> (Option<Write>, Vec<Event>) {
        let work = &snapshot.work;
        let old = work.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let generation = work.metadata.generation;
        let turned = set_condition(&mut new.conditions, self.schedule.clone(), generation, snapshot.now);
        set_condition(&mut new.conditions, self.ready.clone(), generation, snapshot.now);
        let unscheduled = groups.iter().filter(|group| group.outcome == Outcome::Unscheduled).count();
        new.work_placements = count(groups.len());
        new.work_placements_created = count(groups.len() - unscheduled);
        let write = Write::status(Target::of(&**work), &to_value(&old), &to_value(&new));
        let events = if turned { self.events(snapshot, groups) } else { Vec::new() };
        (write, events)
    }

    fn events(&self, snapshot: &Snapshot, groups: &[Placed]) -> Vec<Event> {
        let work = &*snapshot.work;
        let text = &self.schedule.message;
        match self.kind {
            Kind::Refused => Vec::new(),
            Kind::Failing => {
                vec![Event::warning(Reporter::Work, Target::of(work), "WorkplacementsFailing", text.clone())]
            }
            Kind::Unscheduled => {
                let waiting: Vec<&str> = groups
                    .iter()
                    .filter(|group| group.outcome == Outcome::Unscheduled)
                    .map(|group| group.group.as_str())
                    .collect();
                let mut events: Vec<Event> = waiting
                    .iter()
                    .map(|id| {
                        let note = format!("waiting for a destination with labels for workloadGroup: {id}");
                        scheduler_event(work, "NoMatchingDestination", note)
                    })
                    .collect();
                if is_request(work) {
                    let note = format!("waiting for destination for workload group: [{}]", waiting.join(","));
                    events.push(Event::normal(Reporter::Work, Target::of(work), "WaitingDestination", note));
                }
                events
            }
            Kind::Misplaced => {
                // The note ends with a space in the original, and event series are compared by it.
                let note = format!("{text} ");
                vec![Event::warning(Reporter::Scheduler, Target::of(work), "DestinationSelectorMismatch", note)]
            }
            Kind::Unwritten | Kind::Ready => {
                vec![scheduler_event(work, "AllWorkplacementsScheduled", text.clone())]
            }
        }
    }
}

/// A counter; zero is left out.
fn count(groups: usize) -> Option<i64> {
    i64::try_from(groups).ok().filter(|count| *count > 0)
}

/// Sets a condition by the standard rule, with the generation it speaks of. Returns whether status, reason or message changed.
pub(crate) fn set_condition(
    conditions: &mut Vec<Condition>,
    new: Condition,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let r#type = new.r#type.clone();
    let turned = condition::set(conditions, new, now);
    if let Some(set) = conditions.iter_mut().find(|condition| condition.r#type == r#type) {
        set.observed_generation = generation;
    }
    turned
}
