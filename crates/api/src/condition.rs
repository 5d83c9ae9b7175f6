//! Conditions and the two rules by which they change.
//!
//! # Source
//! `01-api.md` §8

use serde::{Deserialize, Serialize};

use crate::keyword::keyword;
use crate::{Time, Timestamp};

/// One statement about an object.
///
/// Read leniently: a workflow may add conditions of its own, and no schema checks those on a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// When it last changed.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::time_or_none")]
    pub last_transition_time: Option<Time>,
    /// A sentence for people.
    pub message: String,
    /// Never set by Kratix, kept when somebody else did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// A word for programs.
    pub reason: String,
    /// Whether it holds.
    pub status: Status,
    /// What it is about.
    pub r#type: String,
}

keyword! {
    /// Whether a condition holds.
    Status {
        /// It holds.
        True = "True",
        /// It does not.
        False = "False",
        /// Not known yet.
        #[default]
        Unknown = "Unknown",
    }
}

/// Whether an object can be used.
pub const READY: &str = "Ready";
/// Whether a Promise takes requests.
pub const AVAILABLE: &str = "Available";
/// Whether everything a Promise requires is there.
pub const REQUIREMENTS_FULFILLED: &str = "RequirementsFulfilled";
/// Whether the configure workflow is done.
pub const CONFIGURE_WORKFLOW_COMPLETED: &str = "ConfigureWorkflowCompleted";
/// Whether the delete workflow is done.
pub const DELETE_WORKFLOW_COMPLETED: &str = "DeleteWorkflowCompleted";
/// What keeps the present pipeline from getting on; absent while nothing does.
pub const PIPELINE_FAILING: &str = "PipelineFailing";
/// Whether all Works are ready.
pub const WORKS_SUCCEEDED: &str = "WorksSucceeded";
/// The sum of the others.
pub const RECONCILED: &str = "Reconciled";
/// Whether the Promise of a request can be used.
pub const PROMISE_AVAILABLE: &str = "PromiseAvailable";
/// Whether a PromiseRelease is installed.
pub const INSTALLED: &str = "Installed";
/// Whether all groups of a Work have a Destination.
pub const SCHEDULE_SUCCEEDED: &str = "ScheduleSucceeded";
/// Whether the content of a placement is in its store.
pub const WRITE_SUCCEEDED: &str = "WriteSucceeded";
/// Whether a request has the version it should have.
pub const UPGRADE_SUCCEEDED: &str = "UpgradeSucceeded";
/// Whether a preview is done.
pub const COMPLETED: &str = "Completed";
/// Whether the previews of all components are done.
pub const COMPONENTS_SUCCEEDED: &str = "ComponentsSucceeded";
/// Reason of [`UPGRADE_SUCCEEDED`] during a roll-out.
pub const UPGRADE_IN_PROGRESS: &str = "UpgradeInProgress";

impl Condition {
    /// Returns a condition without transition time; [`set`] and [`set_by_workflow`] give it one.
    pub fn new(r#type: &str, status: Status, reason: &str, message: impl Into<String>) -> Self {
        Self {
            last_transition_time: None,
            message: message.into(),
            observed_generation: None,
            reason: reason.to_owned(),
            status,
            r#type: r#type.to_owned(),
        }
    }

    fn says_the_same_as(&self, other: &Self) -> bool {
        self.status == other.status && self.reason == other.reason && self.message == other.message
    }
}

/// Returns the beginning of what [`PIPELINE_FAILING`] says: which pipeline, and what has happened to which of its containers,
/// without details and commands. An object says it as its `message` as long as no pipeline has left another.
pub fn failing_in_short(message: &str) -> &str {
    let cause = message.rsplit_once("; kubectl ").map_or(message, |(cause, _)| cause);
    cause.match_indices(": ").nth(1).map_or(cause, |(end, _)| &cause[..end])
}

/// Returns the condition of the given type.
pub fn find<'a>(conditions: &'a [Condition], r#type: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == r#type)
}

/// Returns whether the condition of the given type is there and holds.
pub fn is_true(conditions: &[Condition], r#type: &str) -> bool {
    find(conditions, r#type).is_some_and(|condition| condition.status == Status::True)
}

/// Sets a condition by the standard rule and returns whether anything changed.
///
/// The transition time moves only when the status changes; a new condition is appended.
pub fn set(conditions: &mut Vec<Condition>, new: Condition, now: Timestamp) -> bool {
    put(conditions, new, now, |old, new| old.status != new.status)
}

/// Sets a condition by the workflow rule and returns whether anything changed.
///
/// The transition time moves when status, reason or message changes; afterwards the list is sorted by type, `Ready` first.
pub fn set_by_workflow(conditions: &mut Vec<Condition>, new: Condition, now: Timestamp) -> bool {
    let changed = put(conditions, new, now, |_, _| true);
    let is_sorted = conditions.is_sorted_by_key(rank);
    if !is_sorted {
        conditions.sort_by(|a, b| rank(a).cmp(&rank(b)));
    }
    changed || !is_sorted
}

/// Removes the condition of the given type and returns whether it was there.
pub fn remove(conditions: &mut Vec<Condition>, r#type: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.r#type != r#type);
    conditions.len() != before
}

fn rank(condition: &Condition) -> (bool, &str) {
    (condition.r#type != READY, &condition.r#type)
}

fn put(
    conditions: &mut Vec<Condition>,
    mut new: Condition,
    now: Timestamp,
    moves: fn(&Condition, &Condition) -> bool,
) -> bool {
    let now = Some(Time(whole_seconds(now)));
    let Some(old) = conditions.iter_mut().find(|condition| condition.r#type == new.r#type) else {
        new.last_transition_time = now;
        conditions.push(new);
        return true;
    };
    if old.says_the_same_as(&new) {
        return false;
    }
    let time = if moves(old, &new) { now } else { old.last_transition_time.clone().or(now) };
    new.last_transition_time = time;
    new.observed_generation = new.observed_generation.or(old.observed_generation);
    *old = new;
    true
}

/// Cuts a timestamp to whole seconds, which is all that is stored: what is compared must equal what is read back.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a timestamp without its fraction is a timestamp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_failing_is_told_in_short_without_details_and_commands() {
        let short = "pipeline build: image host:5000/i of container a cannot be had";
        for rest in ["", "; kubectl describe pod -n a p", ": no: such: image; kubectl describe pod -n a p"] {
            assert_eq!(failing_in_short(&format!("{short}{rest}")), short);
        }
        assert_eq!(failing_in_short(""), "");
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 999).unwrap()
    }

    fn time_of(conditions: &[Condition], r#type: &str) -> i64 {
        find(conditions, r#type).unwrap().last_transition_time.as_ref().unwrap().0.as_second()
    }

    #[test]
    fn standard_rule_moves_the_time_only_with_the_status() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, Condition::new("B", Status::False, "R", "m"), at(1)));
        assert!(set(&mut conditions, Condition::new("A", Status::True, "R", "m"), at(1)));
        assert!(!set(&mut conditions, Condition::new("B", Status::False, "R", "m"), at(2)));
        assert!(set(&mut conditions, Condition::new("B", Status::False, "Other", "m"), at(3)));
        assert_eq!(time_of(&conditions, "B"), 1);
        assert!(set(&mut conditions, Condition::new("B", Status::True, "Other", "m"), at(4)));
        assert_eq!(time_of(&conditions, "B"), 4);
        assert_eq!(conditions.iter().map(|c| c.r#type.as_str()).collect::<Vec<_>>(), ["B", "A"]);
    }

    #[test]
    fn workflow_rule_moves_the_time_with_every_change_and_sorts_ready_first() {
        let mut conditions = Vec::new();
        for r#type in ["Reconciled", "Ready", "Available"] {
            assert!(set_by_workflow(&mut conditions, Condition::new(r#type, Status::Unknown, "R", "m"), at(1)));
        }
        assert_eq!(
            conditions.iter().map(|c| c.r#type.as_str()).collect::<Vec<_>>(),
            ["Ready", "Available", "Reconciled"]
        );
        assert!(!set_by_workflow(&mut conditions, Condition::new("Ready", Status::Unknown, "R", "m"), at(2)));
        assert!(set_by_workflow(&mut conditions, Condition::new("Ready", Status::Unknown, "R", "n"), at(3)));
        assert_eq!(time_of(&conditions, "Ready"), 3);
    }

    #[test]
    fn times_are_stored_in_whole_seconds() {
        let mut conditions = Vec::new();
        set(&mut conditions, Condition::new("A", Status::True, "R", ""), at(5));
        let read: Vec<Condition> = serde_json::from_str(&serde_json::to_string(&conditions).unwrap()).unwrap();
        assert_eq!(read, conditions);
    }

    #[test]
    fn an_odd_condition_of_a_workflow_is_read_and_written_back() {
        let odd = serde_json::json!({"type": "Mine", "status": "Maybe", "message": "", "reason": ""});
        let read: Condition = serde_json::from_value(odd.clone()).unwrap();
        assert_eq!(read.status, Status::Other("Maybe".into()));
        assert_eq!(serde_json::to_value(&read).unwrap(), odd);
        let no_time = serde_json::json!({"type": "Mine", "lastTransitionTime": "yesterday"});
        assert_eq!(serde_json::from_value::<Condition>(no_time).unwrap().last_transition_time, None);
    }
}
