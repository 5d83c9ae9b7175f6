//! Promise: the order of its rules, and those that are too small for a file.
//!
//! # Source
//! `01-api.md` §7.3, §9.2; `03-promises.md` §25 (34)

use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::{Duration, Promise, PromiseSpec, hash, keys};
use serde_json::Value;

use super::{Allowed, Denial, Operation, Review, Ruling, Snapshot, api, interval, pipeline, requirement};
use crate::work::LABEL_BYTES_MAX;

/// The webhook that is asked first, and so refuses what cannot be read.
const MUTATING: &str = "mpromise.kb.io";
/// The webhook with the rules.
pub(super) const VALIDATING: &str = "vpromise.kb.io";

/// A Promise under review.
pub(super) struct Case<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) promise: Promise,
    /// Spec before, if there was one that can be read.
    pub(super) before: Option<PromiseSpec>,
}

impl Case<'_> {
    pub(super) fn name(&self) -> &str {
        &self.snapshot.review.name
    }
}

pub(super) fn rule(snapshot: &Snapshot) -> Ruling<Allowed> {
    let review = &snapshot.review;
    if review.operation == Operation::Delete {
        return Ok(Allowed::default());
    }
    let promise: Promise = review.read(MUTATING)?;
    let is_about_spec = review.is_about_spec();
    if let Some(message) = is_about_spec.then(|| malformed(&promise.spec)).flatten() {
        return Err(Denial::malformed(MUTATING, message).into());
    }
    interval::check_annotation(review, VALIDATING)?;
    check_version(review)?;
    if !is_about_spec {
        return Ok(Allowed::default());
    }
    let case = Case { snapshot, promise, before: review.read_old("/spec") };
    api::check(&case)?;
    pipeline::check(&case)?;
    let of = |spec: &PromiseSpec| spec.workflows.config.reconciliation_interval.clone();
    let (now, before) = (of(&case.promise.spec), case.before.as_ref().and_then(of));
    interval::check_spec(now.as_deref(), before.as_deref()).map_err(|message| Denial::rule(VALIDATING, message))?;
    check_name(review)?;
    api::check_immutable(&case)?;
    let mut warnings = requirement::warnings(&case)?;
    warnings.extend(idle_pipelines(&case.promise.spec));
    warnings.extend(pipeline::reserved_labels(&case.promise.spec));
    Ok(Allowed { warnings, ..Allowed::default() })
}

/// Returns why the reference could not decode a spec, in its order of reading.
///
/// # Source
/// `01-api.md` §1.7
pub(super) fn malformed(spec: &PromiseSpec) -> Option<String> {
    let without_kind = |element: &&Value| element["kind"].as_str().is_none_or(str::is_empty);
    let complaint = |element: &Value| format!("Object 'Kind' is missing in '{}'", hash::canonical_json(element));
    let interval = || {
        let text = spec.workflows.config.reconciliation_interval.as_deref()?;
        text.parse::<Duration>().err().map(|error| error.to_string())
    };
    let workflows = WorkflowType::ALL.into_iter().flat_map(|kind| Action::ALL.map(|action| (kind, action)));
    let mut pipelines = workflows.flat_map(|(kind, action)| spec.pipelines(kind, action));
    spec.dependencies
        .iter()
        .find(without_kind)
        .map(complaint)
        .or_else(interval)
        .or_else(|| pipelines.find(without_kind).map(complaint))
}

/// Refuses versions that stand for something else where versions are asked for.
fn check_version(review: &Review) -> Result<(), Denial> {
    let key = keys::PROMISE_VERSION;
    let reserved = [keys::VERSION_LATEST, keys::VERSION_NOT_SET];
    match review.news("labels", key).filter(|version| reserved.contains(version)) {
        Some(version) => {
            let complaint = "is reserved, a Promise needs another word for its version";
            Err(Denial::rule(VALIDATING, format!("metadata.labels[{key}]: Invalid value: {version:?}: {complaint}")))
        }
        None => Ok(()),
    }
}

/// Refuses new names that are too long for the labels of everything that belongs to the Promise.
fn check_name(review: &Review) -> Result<(), Denial> {
    let name = &review.name;
    if review.operation != Operation::Create || name.len() <= LABEL_BYTES_MAX {
        return Ok(());
    }
    let complaint = format!("must be no more than {LABEL_BYTES_MAX} bytes, because it becomes the value of labels");
    Err(Denial::rule(VALIDATING, format!("metadata.name: Invalid value: {name:?}: {complaint}")))
}

/// Warns of delete pipelines that are never run.
fn idle_pipelines(spec: &PromiseSpec) -> Vec<String> {
    let of = |kind| {
        let pipelines = spec.pipelines(kind, Action::Delete);
        let first = pipelines.first().filter(|_| pipelines.len() > 1)?;
        let name = first["metadata"]["name"].as_str().unwrap_or_default();
        Some(format!(
            "workflow \"{kind}\" action \"{}\" has {} pipelines, but only the first one, {name:?}, is executed",
            Action::Delete,
            pipelines.len()
        ))
    };
    WorkflowType::ALL.into_iter().filter_map(of).collect()
}
