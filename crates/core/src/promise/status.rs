//! The status of a Promise while a pass works on it: read once, written once.

use kratix_api::condition::{self, Condition, Status};
use kratix_api::promise::{AVAILABLE, KratixStatus, PromiseStatus, RequiredBy, UNAVAILABLE};
use kratix_api::{Time, Timestamp, keys};
use kube_core::ResourceExt;
use serde_json::Value;

use super::Snapshot;
use crate::patch::to_value;
use crate::plan::Write;
use crate::workflow::status::PENDING;

/// The status as it is to be after the pass.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) now: PromiseStatus,
    before: PromiseStatus,
    time: Timestamp,
}

impl Draft {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let before = snapshot.promise.status.clone().unwrap_or_default();
        Self { now: before.clone(), before, time: snapshot.now }
    }

    /// Returns the write of the status, if anything differs from what is stored.
    pub(super) fn write(mut self, snapshot: &Snapshot) -> Option<Write> {
        if self.now == self.before && snapshot.promise.status.is_some() {
            return None;
        }
        // The engine and the status-writer sort as well: one order for everybody means that nobody rewrites it.
        self.now.conditions.sort_by(|a, b| a.r#type.cmp(&b.r#type));
        let old = snapshot.promise.status.as_ref().map_or(Value::Null, to_value);
        Write::status(snapshot.target(), &old, &to_value(&self.now))
    }

    pub(super) fn kratix(&mut self) -> &mut KratixStatus {
        self.now
            .kratix
            .get_or_insert_with(|| KratixStatus { workflows: Some(Default::default()), ..Default::default() })
    }

    /// Sets a condition by the standard rule; returns whether status, reason or message changed.
    pub(super) fn set(&mut self, r#type: &str, status: Status, reason: &str, message: impl Into<String>) -> bool {
        condition::set(&mut self.now.conditions, Condition::new(r#type, status, reason, message), self.time)
    }

    pub(super) fn condition(&self, r#type: &str) -> Option<&Condition> {
        condition::find(&self.now.conditions, r#type)
    }

    /// Returns the condition as it was before the pass.
    pub(super) fn before(&self, r#type: &str) -> Option<&Condition> {
        condition::find(&self.before.conditions, r#type)
    }

    pub(super) fn stored(&self) -> &PromiseStatus {
        &self.before
    }

    pub(super) fn was_available(&self) -> bool {
        condition::is_true(&self.before.conditions, condition::AVAILABLE)
    }

    /// Takes over the document that the workflow engine returned.
    pub(super) fn take_over(&mut self, document: Value) {
        // The engine changes fields of its own only; a document it could not keep readable would be a defect of the
        // engine, and keeping what is stored is then the harmless answer.
        let Ok(engine) = serde_json::from_value::<PromiseStatus>(document) else { return };
        let mine = std::mem::take(&mut self.now);
        self.now = PromiseStatus {
            version: mine.version,
            kind: mine.kind,
            api_version: mine.api_version,
            required_promises: mine.required_promises,
            required_by: mine.required_by,
            observed_generation: mine.observed_generation,
            ..engine
        };
        let theirs = self.now.kratix.take().and_then(|kratix| kratix.workflows).unwrap_or_default();
        self.now.kratix = Some(KratixStatus { workflows: Some(theirs), ..mine.kratix.unwrap_or_default() });
        for condition in mine.conditions {
            if condition.r#type == condition::REQUIREMENTS_FULFILLED {
                condition::remove(&mut self.now.conditions, &condition.r#type);
                self.now.conditions.push(condition);
            }
        }
    }

    /// Forgets that a pipeline is failing, and the message that says so.
    pub(super) fn forget_failing(&mut self) {
        let told = self.condition(condition::PIPELINE_FAILING);
        if told.is_some_and(|told| condition::failing_in_short(&told.message) == self.now.message) {
            PENDING.clone_into(&mut self.now.message);
        }
        condition::remove(&mut self.now.conditions, condition::PIPELINE_FAILING);
    }

    /// Resets what is said of pipelines of a Promise that has none any more.
    pub(super) fn forget_workflow(&mut self) {
        (self.now.workflows, self.now.workflows_succeeded, self.now.workflows_failed) = (0, 0, 0);
        self.kratix().workflows = Some(Default::default());
        condition::remove(&mut self.now.conditions, condition::CONFIGURE_WORKFLOW_COMPLETED);
        if self.now.message == PENDING {
            self.now.message.clear();
        }
    }

    pub(super) fn set_version(&mut self, snapshot: &Snapshot) {
        let version = snapshot.promise.labels().get(keys::PROMISE_VERSION).cloned().unwrap_or_default();
        self.kratix().version.clone_from(&version);
        self.now.version = version;
    }

    pub(super) fn set_api(&mut self, kind: &str, api_version: &str) {
        self.now.kind = kind.to_owned();
        self.now.api_version = api_version.to_owned();
        let kratix = self.kratix();
        kratix.kind = kind.to_owned();
        kratix.api_version = api_version.to_owned();
    }

    pub(super) fn required_by(&mut self, required_by: Vec<RequiredBy>) {
        self.now.required_by = required_by;
    }

    /// Sets the three signals of availability together; returns whether the Promise became available.
    pub(super) fn set_available(&mut self, status: Status, reason: &str, message: &str) -> bool {
        let is_available = status == Status::True;
        let turned = is_available && !self.was_available();
        self.set(condition::AVAILABLE, status, reason, message);
        let word = if is_available { AVAILABLE } else { UNAVAILABLE };
        word.clone_into(&mut self.now.status);
        word.clone_into(&mut self.kratix().status);
        if turned {
            let now = Some(Time(condition::whole_seconds(self.time)));
            self.now.last_available_time.clone_from(&now);
            self.kratix().last_available_time = now;
        }
        turned
    }
}
