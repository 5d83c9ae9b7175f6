//! The status document of a parent: the fields of workflows, read tolerantly and changed in place.
//!
//! A document is JSON, not a typed value: everything that others put there survives untouched.
//!
//! # Source
//! `02-workflows.md` §6, `04-resource-requests.md` §4–§5

use kratix_api::condition::{self, Condition, Status};
use kratix_api::promise::Phase;
use kratix_api::{Timestamp, condition::whole_seconds};
use serde_json::{Map, Value, json};

const WORKFLOWS: &str = "workflows";
const SUCCEEDED: &str = "workflowsSucceeded";
const FAILED: &str = "workflowsFailed";
const SUSPENDED_GENERATION: &str = "suspendedGeneration";
const PIPELINES: &str = "pipelines";
const CONDITIONS: &str = "conditions";

/// Text of `status.message` before a workflow says anything.
pub const PENDING: &str = "Pending";

/// The status of a Promise or a request.
///
/// # Guarantees
/// Values of a wrong type count as absent when they are read and are replaced when their field is written; nothing else
/// is touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    fields: Map<String, Value>,
}

/// Where one pipeline stands, as stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    fields: &'a Map<String, Value>,
}

impl<'a> Entry<'a> {
    /// Returns the name of the pipeline.
    pub fn name(&self) -> &'a str {
        text(self.fields, "name")
    }

    /// Returns how far it is.
    pub fn phase(&self) -> Phase {
        Phase::from(text(self.fields, "phase"))
    }

    /// Returns what it has said when it was suspended, empty if nothing.
    pub fn message(&self) -> &'a str {
        text(self.fields, "message")
    }

    /// Returns when it is to be run again, if it asked for that.
    pub fn next_retry_at(&self) -> Option<&'a str> {
        Some(text(self.fields, "nextRetryAt")).filter(|text| !text.is_empty())
    }
}

fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> &'a str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the time in the only form in which it is stored: whole seconds, UTC.
pub fn rfc3339(time: Timestamp) -> String {
    whole_seconds(time).to_string()
}

impl Document {
    /// Reads a stored status.
    pub fn read(status: &Value) -> Self {
        Self { fields: status.as_object().cloned().unwrap_or_default() }
    }

    /// Returns the status to be stored.
    pub fn into_value(self) -> Value {
        Value::Object(self.fields)
    }

    /// Returns a number at the top level; JSON integers and whole floating-point numbers count.
    pub fn number(&self, key: &str) -> Option<i64> {
        let value = self.fields.get(key)?;
        value.as_i64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64))
    }

    /// Returns a text at the top level, empty when absent.
    pub fn text(&self, key: &str) -> &str {
        text(&self.fields, key)
    }

    /// Returns whether there is such a field at the top level.
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// Returns whether the top-level field holds exactly this value.
    pub fn holds(&self, key: &str, value: &Value) -> bool {
        self.fields.get(key) == Some(value)
    }

    /// Sets a top-level field.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.insert(key.to_owned(), value.into());
    }

    /// Removes a top-level field.
    pub fn remove(&mut self, key: &str) {
        self.fields.remove(key);
    }

    /// Sets the three counters.
    pub fn set_counters(&mut self, pipelines: usize, succeeded: usize, failed: usize) {
        self.set(WORKFLOWS, pipelines);
        self.set(SUCCEEDED, succeeded);
        self.set(FAILED, failed);
    }

    /// Returns the workflow fields below `kratix`.
    fn workflows(&self) -> Option<&Map<String, Value>> {
        self.fields.get("kratix")?.get(WORKFLOWS)?.as_object()
    }

    fn workflows_mut(&mut self) -> &mut Map<String, Value> {
        object(object(&mut self.fields, "kratix"), WORKFLOWS)
    }

    /// Returns the pipelines in order; entries that are no objects are left out.
    pub fn pipelines(&self) -> Vec<Entry<'_>> {
        let list = self.workflows().and_then(|workflows| workflows.get(PIPELINES)).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_object).map(|fields| Entry { fields }).collect()
    }

    /// Returns whether the list names exactly these pipelines in this order.
    pub fn lists(&self, names: &[&str]) -> bool {
        let list = self.workflows().and_then(|workflows| workflows.get(PIPELINES)).and_then(Value::as_array);
        list.is_some_and(|list| {
            list.len() == names.len()
                && list.iter().zip(names).all(|(entry, name)| entry.get("name") == Some(&json!(name)))
        })
    }

    /// Returns the position of the first suspended pipeline of the list.
    pub fn suspended(&self) -> Option<Entry<'_>> {
        self.pipelines().into_iter().find(|entry| entry.phase() == Phase::Suspended)
    }

    /// Returns the phase of a pipeline.
    pub fn phase(&self, pipeline: &str) -> Option<Phase> {
        self.pipelines().into_iter().find(|entry| entry.name() == pipeline).map(|entry| entry.phase())
    }

    /// Replaces the list by these pipelines, all pending, and forgets the suspension.
    pub fn reset(&mut self, names: &[&str], now: Timestamp) {
        let now = rfc3339(now);
        let entry = |name: &&str| json!({"name": name, "phase": Phase::Pending.as_str(), "lastTransitionTime": now});
        let list: Vec<Value> = names.iter().map(entry).collect();
        let workflows = self.workflows_mut();
        workflows.insert(PIPELINES.to_owned(), list.into());
        workflows.remove(SUSPENDED_GENERATION);
    }

    /// Drops the list of pipelines.
    pub fn drop_pipelines(&mut self) {
        if self.workflows().is_some_and(|workflows| workflows.contains_key(PIPELINES)) {
            self.workflows_mut().remove(PIPELINES);
        }
    }

    /// Sets the phase of a pipeline; one that is not in the list, or has the phase already, changes nothing. Leaving
    /// `Suspended` drops the message.
    pub fn set_phase(&mut self, pipeline: &str, phase: Phase, now: Timestamp) {
        if self.phase(pipeline).is_none_or(|current| current == phase) {
            return;
        }
        let Some(Value::Array(list)) = self.workflows_mut().get_mut(PIPELINES) else { return };
        for entry in list.iter_mut().filter_map(Value::as_object_mut).filter(|entry| text(entry, "name") == pipeline) {
            if text(entry, "phase") == Phase::Suspended.as_str() {
                entry.remove("message");
            }
            entry.insert("phase".into(), phase.as_str().into());
            entry.insert("lastTransitionTime".into(), rfc3339(now).into());
        }
    }

    /// Returns the generation at which the workflow was suspended; 0 when it was not.
    pub fn suspended_generation(&self) -> i64 {
        let workflows = self.workflows();
        workflows.and_then(|workflows| workflows.get(SUSPENDED_GENERATION)).and_then(Value::as_i64).unwrap_or_default()
    }

    /// Returns a text among the workflow fields, empty when absent.
    pub fn workflow_text(&self, key: &str) -> &str {
        self.workflows().map_or("", |workflows| text(workflows, key))
    }

    /// Sets a field among the workflow fields.
    pub fn set_workflow(&mut self, key: &str, value: impl Into<Value>) {
        self.workflows_mut().insert(key.to_owned(), value.into());
    }

    /// Returns the condition of a type.
    pub fn condition(&self, r#type: &str) -> Option<Condition> {
        let list = self.fields.get(CONDITIONS)?.as_array()?;
        let entry = list.iter().find(|entry| entry.get("type").and_then(Value::as_str) == Some(r#type))?;
        serde_json::from_value(entry.clone()).ok()
    }

    /// Returns whether the condition of a type has this status and reason.
    pub fn has_condition(&self, r#type: &str, status: &Status, reason: &str) -> bool {
        self.condition(r#type).is_some_and(|condition| condition.status == *status && condition.reason == reason)
    }

    /// Sets a condition by the workflow rule and returns whether it changed: the time moves with any change of status,
    /// reason or message, and the list is sorted by type, `Ready` first. Conditions of others are kept as they are,
    /// whatever they hold.
    pub fn set_condition(&mut self, r#type: &str, status: Status, reason: &str, message: &str, now: Timestamp) -> bool {
        let same = |old: &Condition| old.status == status && old.reason == reason && old.message == message;
        if self.condition(r#type).is_some_and(|old| same(&old)) {
            return false;
        }
        let new = json!({
            "type": r#type,
            "status": status.as_str(),
            "reason": reason,
            "message": message,
            "lastTransitionTime": rfc3339(now),
        });
        let list = self.conditions_mut();
        match list.iter_mut().find(|entry| text_of(entry, "type") == r#type) {
            Some(entry) => *entry = new,
            None => list.push(new),
        }
        list.sort_by(|a, b| rank(a).cmp(&rank(b)));
        true
    }

    /// Removes the condition of a type and returns whether it was there.
    pub fn remove_condition(&mut self, r#type: &str) -> bool {
        if self.condition(r#type).is_none() {
            return false;
        }
        self.conditions_mut().retain(|entry| text_of(entry, "type") != r#type);
        true
    }

    fn conditions_mut(&mut self) -> &mut Vec<Value> {
        let list = self.fields.entry(CONDITIONS).or_insert_with(|| Value::Array(Vec::new()));
        if !list.is_array() {
            *list = Value::Array(Vec::new());
        }
        list.as_array_mut().expect("made a list above")
    }
}

fn text_of<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn rank(entry: &Value) -> (bool, &str) {
    let r#type = text_of(entry, "type");
    (r#type != condition::READY, r#type)
}

fn object<'a>(fields: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = fields.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("made an object above")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 7).unwrap()
    }

    #[test]
    fn what_others_wrote_survives_every_change() {
        let stored = json!({"endpoint": "x", "kratix": {"workflows": 5}, "conditions": [{"type": "Mine", "n": 1}, 7]});
        let mut document = Document::read(&stored);
        document.reset(&["a"], at(0));
        document.set_condition("Reconciled", Status::Unknown, "R", "m", at(0));
        let value = document.into_value();
        assert_eq!(value["endpoint"], "x");
        assert_eq!(value["conditions"][0], 7);
        assert_eq!(value["conditions"][1], json!({"type": "Mine", "n": 1}));
        assert_eq!(value["kratix"]["workflows"]["pipelines"][0]["name"], "a");
    }

    #[test]
    fn wrong_types_count_as_absent() {
        let document =
            Document::read(&json!({"workflows": "3", "workflowsFailed": 1.0, "conditions": {}, "message": 1}));
        assert_eq!(document.number("workflows"), None);
        assert_eq!(document.number("workflowsFailed"), Some(1));
        assert_eq!(document.condition("Reconciled"), None);
        assert_eq!(document.text("message"), "");
        assert_eq!(Document::read(&json!([])), Document::default());
    }

    #[test]
    fn leaving_suspension_drops_the_message_and_keeps_the_attempts() {
        let entry = json!({"name": "a", "phase": "Suspended", "message": "m", "attempts": 2, "nextRetryAt": "t"});
        let mut document = Document::read(&json!({"kratix": {"workflows": {"pipelines": [entry]}}}));
        document.set_phase("a", Phase::Running, at(1));
        let value = document.into_value();
        let expected = json!({
            "name": "a", "phase": "Running", "attempts": 2, "nextRetryAt": "t", "lastTransitionTime": "1970-01-01T00:00:01Z"
        });
        assert_eq!(value["kratix"]["workflows"]["pipelines"][0], expected);
    }

    #[test]
    fn the_time_of_a_condition_moves_only_when_it_says_something_else() {
        let mut document = Document::default();
        assert!(document.set_condition("A", Status::True, "R", "m", at(1)));
        assert!(!document.set_condition("A", Status::True, "R", "m", at(2)));
        assert!(document.set_condition("A", Status::True, "R", "n", at(3)));
        assert!(document.set_condition("Ready", Status::True, "R", "n", at(3)));
        let value = document.into_value();
        assert_eq!(value["conditions"][0]["type"], "Ready");
        assert_eq!(value["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:03Z");
    }

    #[test]
    fn a_phase_set_twice_keeps_its_time() {
        let mut document = Document::default();
        document.reset(&["a", "b"], at(0));
        document.set_phase("b", Phase::Running, at(1));
        let once = document.clone();
        document.set_phase("b", Phase::Running, at(2));
        document.set_phase("unknown", Phase::Running, at(2));
        assert_eq!(document, once);
        assert!(document.lists(&["a", "b"]) && !document.lists(&["a"]));
    }
}
