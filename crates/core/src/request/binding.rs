//! The request's ResourceBinding: made, kept in step, and told how the roll-out of a version goes.
//!
//! # Source
//! `04-resource-requests.md` §8, §12, weaknesses 9, 10; `03-promises.md` §20.3, §20.5

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kratix_api::condition::{self, Condition, Status};
use kratix_api::resource_binding::upgrading;
use kratix_api::{ResourceBinding, ResourceBindingStatus, keys, name};
use kube_core::ResourceExt;
use serde_json::{Value, json};

use super::revision::Chosen;
use super::{Finding, Pass};
use crate::config::BindingStrategy;
use crate::object::{Kind, Target};
use crate::plan::{Event, Plan, Write};
use crate::workflow::Progress;

/// Annotation on bindings: keys of the labels copied from the request, so that those of others are left alone.
const MIRRORED: &str = "internal.kratix.io/mirrored-labels";

/// Labels that steer a request and mean nothing on its binding.
const CONTROLS: [&str; 4] = [keys::MANUAL_RECONCILIATION, keys::RUN_FROM_START, keys::PAUSED, keys::WORKFLOW_SUSPENDED];

/// The binding as it is after this pass.
#[derive(Clone)]
pub(super) struct Bound {
    /// Version the binding asks for.
    pub(super) version: String,
    write: Option<Write>,
    event: Option<Event>,
}

impl Bound {
    /// Returns the plan that brings the binding about.
    pub(super) fn into_plan(self) -> Plan<Finding> {
        Plan { writes: self.write.into_iter().collect(), events: self.event.into_iter().collect(), ..Plan::silent() }
    }
}

impl Pass<'_> {
    /// Returns what the binding needs, and the version it asks for.
    pub(super) fn bound(&self, chosen: &Chosen<'_>) -> Bound {
        if let Some(binding) = chosen.binding {
            return self.kept(binding);
        }
        let (request, promise) = (&self.parent.target.key.name, self.snapshot.promise_name);
        let usual = name::resource_binding(request, promise);
        // Request `x-y` of Promise `z` and request `x` of Promise `y-z` have one usual name.
        let is_foreign = |binding: &Arc<ResourceBinding>| binding.name_any() == usual && !self.may_adopt(binding);
        match self.snapshot.bindings.iter().any(is_foreign) {
            true => self.made(name::unambiguous_resource_binding(request, promise)),
            false => self.made(usual),
        }
    }

    /// Returns a binding of the usual name that lacks the request's labels and is to get them.
    pub(super) fn adoptable(&self) -> Option<&Arc<ResourceBinding>> {
        let usual = name::resource_binding(&self.parent.target.key.name, self.snapshot.promise_name);
        let is_there = |binding: &ResourceBinding| binding.metadata.deletion_timestamp.is_none();
        let mut usual = self.snapshot.bindings.iter().filter(|binding| binding.name_any() == usual);
        usual.find(|binding| is_there(binding) && self.may_adopt(binding))
    }

    /// Returns whether nothing on the binding says that it is another request's.
    fn may_adopt(&self, binding: &ResourceBinding) -> bool {
        let (promise, request) = (self.snapshot.promise_name, &self.parent.target.key.name);
        let reference = &binding.spec.resource_ref;
        let label = |key: &str| binding.labels().get(key).map_or("", String::as_str);
        let pairs = [
            (binding.spec.promise_ref.name.as_str(), promise),
            (reference.name.as_str(), request),
            (reference.namespace.as_str(), self.parent.namespace()),
            (label(keys::PROMISE_NAME), promise),
            (label(keys::RESOURCE_NAME), &name::label_value(request)),
        ];
        pairs.iter().all(|(found, own)| found.is_empty() || found == own)
    }

    /// Returns the version that a binding asks for.
    pub(super) fn version_of(&self, binding: &ResourceBinding) -> String {
        let given = &binding.spec.version;
        if given.is_empty() { self.first_version() } else { given.clone() }
    }

    fn made(&self, name: String) -> Bound {
        let version = self.first_version();
        let labels = self.wanted_labels();
        let mirrored = self.mirrored(&labels);
        let mut object = json!({
            "apiVersion": keys::API_VERSION,
            "kind": ResourceBinding::KIND,
            "metadata": { "name": name, "namespace": self.parent.namespace(), "labels": labels },
            "spec": self.wanted_spec(&version),
        });
        if !mirrored.is_empty() {
            object["metadata"]["annotations"] = json!({ MIRRORED: mirrored });
        }
        let note = format!("Binding {name} created for promise {} version {version}", self.snapshot.promise_name);
        let write = Write::create(Kind::of::<ResourceBinding>(), object).given(&self.parent.target);
        let event = self.event(Event::normal, "BindingCreated", note).of(&write);
        Bound { version, write: Some(write), event: Some(event) }
    }

    fn kept(&self, binding: &Arc<ResourceBinding>) -> Bound {
        let version = self.version_of(binding);
        let mut patch = serde_json::Map::new();
        if let Some(metadata) = self.metadata_patch(binding) {
            patch.insert("metadata".into(), metadata);
        }
        let mut wanted = binding.spec.clone();
        wanted.version.clone_from(&version);
        wanted.promise_ref.name = self.snapshot.promise_name.to_owned();
        wanted.resource_ref.name.clone_from(&self.parent.target.key.name);
        wanted.resource_ref.namespace = self.parent.namespace().to_owned();
        if let Some(spec) = crate::patch::between_typed(&binding.spec, &wanted) {
            patch.insert("spec".into(), spec);
        }
        let target = Target::of(binding.as_ref());
        let write = if patch.is_empty() { None } else { Some(Write::Patch { target, patch: Value::Object(patch) }) };
        Bound { version, write, event: None }
    }

    fn wanted_spec(&self, version: &str) -> Value {
        let key = &self.parent.target.key;
        json!({
            "version": version,
            "promiseRef": { "name": self.snapshot.promise_name },
            "resourceRef": { "name": key.name, "namespace": self.parent.namespace() },
        })
    }

    /// Returns the version of a binding that names none: the one it had, or what the strategy says.
    fn first_version(&self) -> String {
        let document = self.document();
        let before = document.text("resourceBindingVersion");
        if !before.is_empty() {
            return before.to_owned();
        }
        let latest = match self.snapshot.settings.config.binding_strategy {
            BindingStrategy::Pinned => self.latest_revision().ok(),
            BindingStrategy::Floating => None,
        };
        latest.map_or_else(|| keys::VERSION_LATEST.to_owned(), |revision| revision.spec.version.clone())
    }

    fn wanted_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.parent.labels.clone();
        labels.retain(|key, _| !CONTROLS.contains(&key.as_str()));
        labels.insert(keys::PROMISE_NAME.into(), self.snapshot.promise_name.into());
        labels.insert(keys::RESOURCE_NAME.into(), name::label_value(&self.parent.target.key.name));
        labels
    }

    fn mirrored(&self, labels: &BTreeMap<String, String>) -> String {
        let own = |key: &&str| ![keys::PROMISE_NAME, keys::RESOURCE_NAME].contains(key);
        labels.keys().map(String::as_str).filter(own).collect::<Vec<_>>().join(",")
    }

    fn metadata_patch(&self, binding: &ResourceBinding) -> Option<Value> {
        let wanted = self.wanted_labels();
        let mirrored = self.mirrored(&wanted);
        let before = binding.annotations().get(MIRRORED).map_or("", String::as_str);
        // The original copied these as well; a manual run that is asked for on the binding is the user's.
        let copied = CONTROLS.into_iter().filter(|key| *key != keys::MANUAL_RECONCILIATION);
        let outdated: BTreeSet<&str> =
            before.split(',').chain(copied).filter(|key| !wanted.contains_key(*key)).collect();
        let mut labels = serde_json::Map::new();
        for (key, value) in &wanted {
            if binding.labels().get(key) != Some(value) {
                labels.insert(key.clone(), value.as_str().into());
            }
        }
        for key in outdated.into_iter().filter(|key| binding.labels().contains_key(*key)) {
            labels.insert(key.to_owned(), Value::Null);
        }
        let mut patch = serde_json::Map::new();
        if !labels.is_empty() {
            patch.insert("labels".into(), labels.into());
        }
        if mirrored != before {
            let value = if mirrored.is_empty() { Value::Null } else { mirrored.into() };
            patch.insert("annotations".into(), json!({ MIRRORED: value }));
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }

    /// Returns the write that tells the binding why its version cannot be had.
    pub(super) fn version_missing(&self, cause: &str) -> Option<Write> {
        let binding = self.bindings().next().filter(|_| !self.is_deleting())?;
        let old = binding.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let failed = Condition::new(condition::UPGRADE_SUCCEEDED, Status::False, "UpgradeFailed", cause);
        condition::set(&mut new.conditions, failed, self.snapshot.now);
        new.failed_version.clone_from(&binding.spec.version);
        let values = (crate::patch::to_value(&old), crate::patch::to_value(&new));
        Write::status(Target::of(binding.as_ref()), &values.0, &values.1)
    }

    /// Returns the write that tells the binding how its version fares, judged by what the request's stored status says.
    pub(super) fn upgrade_status(&self, progress: &Progress, chosen: &Chosen<'_>, bound: &Bound) -> Option<Write> {
        let binding = chosen.binding.filter(|binding| binding.spec.version == bound.version)?;
        let old = binding.status.clone().unwrap_or_default();
        let mut new = old.clone();
        let document = self.document();
        let completed = document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED);
        let told = |status: Status, reason: &str| {
            completed.as_ref().filter(|completed| completed.status == status && completed.reason == reason)
        };
        let attempted = chosen.version();
        let applied = document.text("promiseVersion");
        match progress {
            Progress::InProgress { .. } | Progress::Suspended { .. } => {
                told(Status::False, "PipelinesInProgress")?;
                self.in_progress(&mut new, &old, attempted)?;
            }
            Progress::Failed { .. } => {
                let failure = told(Status::False, "ConfigureWorkflowFailed")?;
                let failed =
                    Condition::new(condition::UPGRADE_SUCCEEDED, Status::False, "UpgradeFailed", &failure.message);
                condition::set(&mut new.conditions, failed, self.snapshot.now);
                new.failed_version = attempted.to_owned();
            }
            Progress::Finished if applied == attempted => self.at_version(&mut new, &old, applied),
            Progress::Finished | Progress::Relabelled => return None,
        }
        let values = (crate::patch::to_value(&old), crate::patch::to_value(&new));
        Write::status(Target::of(binding.as_ref()), &values.0, &values.1)
    }

    fn in_progress(&self, new: &mut ResourceBindingStatus, old: &ResourceBindingStatus, attempted: &str) -> Option<()> {
        let versioned = !attempted.is_empty() && attempted != keys::VERSION_NOT_SET;
        let moves = !old.last_applied_version.is_empty() && old.last_applied_version != attempted;
        if !versioned || !(moves || has_failed(old) || !old.failed_version.is_empty()) {
            return None;
        }
        let message = upgrading(attempted);
        let reason = condition::UPGRADE_IN_PROGRESS;
        let upgrade = Condition::new(condition::UPGRADE_SUCCEEDED, Status::Unknown, reason, message);
        condition::set(&mut new.conditions, upgrade, self.snapshot.now);
        new.failed_version.clear();
        Some(())
    }

    fn at_version(&self, new: &mut ResourceBindingStatus, old: &ResourceBindingStatus, applied: &str) {
        let upgrade = condition::find(&old.conditions, condition::UPGRADE_SUCCEEDED);
        let in_flight = upgrade.is_some_and(|upgrade| upgrade.reason == condition::UPGRADE_IN_PROGRESS);
        let moved = !old.last_applied_version.is_empty() && old.last_applied_version != applied;
        if !old.failed_version.is_empty() || in_flight || has_failed(old) || moved {
            let message = format!("Resource is at version {applied}");
            let complete = Condition::new(condition::UPGRADE_SUCCEEDED, Status::True, "UpgradeComplete", message);
            condition::set(&mut new.conditions, complete, self.snapshot.now);
        }
        new.last_applied_version = applied.to_owned();
        new.failed_version.clear();
    }
}

fn has_failed(status: &ResourceBindingStatus) -> bool {
    let upgrade = condition::find(&status.conditions, condition::UPGRADE_SUCCEEDED);
    upgrade.is_some_and(|upgrade| upgrade.status == Status::False)
}
