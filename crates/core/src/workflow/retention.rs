//! Which Jobs are kept: the newest few of each pipeline, and none of pipelines and namespaces that are gone.
//!
//! # Source
//! `02-workflows.md` §13.1, weakness 22

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kube_core::ResourceExt;

use super::Snapshot;
use super::history::{self, History};
use crate::object::Target;
use crate::plan::Write;

/// Returns the removal of the surplus of a workflow that is suspended. What the latest Job tells is needed until it is resumed.
pub(super) fn removals_while_suspended(snapshot: &Snapshot<'_>, history: &History<'_>) -> Vec<Write> {
    let latest = history.latest().map(|job| Target::of(job.as_ref()));
    let is_needed = |write: &Write| matches!(write, Write::Delete { target } if Some(target) == latest.as_ref());
    removals(snapshot).into_iter().filter(|write| !is_needed(write)).collect()
}

/// Returns the removal of the surplus, oldest first within each pipeline. Jobs that may still do something are kept.
pub(super) fn removals(snapshot: &Snapshot<'_>) -> Vec<Write> {
    let keep = snapshot.settings.config.number_of_jobs_to_keep.max(1);
    let current = snapshot.workflow.pipeline_names();
    let history = History::of(snapshot.jobs, snapshot.workflow);
    let mut by_pipeline: BTreeMap<&str, Vec<&Arc<Job>>> = BTreeMap::new();
    for job in history.jobs() {
        by_pipeline.entry(history::pipeline(job)).or_default().push(*job);
    }
    let mut writes = Vec::new();
    for (pipeline, jobs) in by_pipeline {
        let keep = if current.contains(&pipeline) { keep } else { 0 };
        let surplus = jobs.len().saturating_sub(keep);
        let moved = |job: &&&Arc<Job>| job.namespace().as_deref() != Some(&snapshot.workflow.namespace);
        let outdated = jobs[surplus..].iter().filter(moved);
        let ended = jobs[..surplus].iter().chain(outdated).filter(|job| !history::is_live(job));
        writes.extend(ended.map(|job| Write::Delete { target: Target::of(job.as_ref()) }));
    }
    writes
}
