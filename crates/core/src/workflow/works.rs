//! What the Works of a parent tell about its workflow's output.
//!
//! # Source
//! `02-workflows.md` §6.4, §13.3; `04-resource-requests.md` §11, weakness 7

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::condition::whole_seconds;
use kratix_api::pipeline::WorkflowType;
use kratix_api::{Work, keys};
use kube_core::{Resource, ResourceExt};

use super::history::{self, History, State};
use super::{SEQUENCE, Snapshot, number};
use crate::object::Target;
use crate::plan::Write;
use crate::work::{Readiness, readiness};

/// The Works of a parent by how they stand. Names are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// A placement could not be written.
    pub failing: Vec<String>,
    /// Not placed or not written yet.
    pub pending: Vec<String>,
    /// On a Destination that does not match any more.
    pub misplaced: Vec<String>,
    /// Written.
    pub ready: Vec<String>,
    /// Pipelines whose Job has completed but whose Work is not visible yet.
    pub awaited: Vec<String>,
}

/// Sums up the parent's Works.
///
/// Each pipeline writes a Work, even an empty one, so a completed Job without the Work that it wrote means that the cache is
/// behind. That is told only as long as `is_settled` is false: a Work that somebody removed later is not waited for.
pub fn summary(snapshot: &Snapshot<'_>, is_settled: bool) -> Summary {
    let current = current(snapshot);
    let mut summary = by_readiness(&current);
    if !is_settled {
        let history = History::of(snapshot.jobs, snapshot.workflow);
        for pipeline in snapshot.workflow.pipeline_names() {
            let Some(job) = history.latest_of(pipeline) else { continue };
            let is_fresh = |work: &&Arc<Work>| pipeline_of(work) == pipeline && is_written_since(work, job);
            if history::state(job) == State::Completed && !current.iter().any(is_fresh) {
                summary.awaited.push(pipeline.to_owned());
            }
        }
    }
    summary
}

/// Sums up what the last run of a request has left, whatever its workflow would write now.
pub fn of_last_run(works: &[Arc<Work>]) -> Summary {
    let counts = |work: &&Arc<Work>| counts(work, WorkflowType::Resource);
    by_readiness(&works.iter().filter(counts).collect::<Vec<_>>())
}

fn by_readiness(works: &[&Arc<Work>]) -> Summary {
    let mut summary = Summary::default();
    for work in works {
        let name = work.name_any();
        match readiness(work) {
            Readiness::Ready => summary.ready.push(name),
            Readiness::Pending => summary.pending.push(name),
            Readiness::Misplaced => summary.misplaced.push(name),
            Readiness::Failing => summary.failing.push(name),
        }
    }
    for names in [&mut summary.failing, &mut summary.pending, &mut summary.misplaced, &mut summary.ready] {
        names.sort();
    }
    summary
}

/// Returns the number of the Job that wrote the Work last; `None` for Works of the original.
pub(super) fn written_by(work: &Work) -> Option<i64> {
    number(work.annotations(), SEQUENCE)
}

/// Returns whether the Work was written by this Job or a later one.
fn is_written_since(work: &Work, job: &Job) -> bool {
    match (written_by(work), history::sequence(job)) {
        (Some(by), sequence) if sequence > 0 => by >= sequence,
        // Of the original: only the clocks of node and API server can tell, as far as they agree.
        _ => {
            let written = work.spec.last_execution_timestamp.as_ref().map(|time| time.0);
            written >= history::created(job).map(whole_seconds)
        }
    }
}

fn current<'a>(snapshot: &Snapshot<'a>) -> Vec<&'a Arc<Work>> {
    snapshot.works.iter().filter(|work| counts(work, snapshot.workflow.kind) && !is_stale(work, snapshot)).collect()
}

fn counts(work: &Work, kind: WorkflowType) -> bool {
    // Dependencies of a Promise are Works too, but of no workflow.
    if work.labels().get(keys::WORK_TYPE).map(String::as_str) != Some(kind.as_str()) {
        return false;
    }
    !keys::is_set(work.labels(), keys::DRY_RUN_SUMMARY) && work.meta().deletion_timestamp.is_none()
}

fn pipeline_of(work: &Work) -> &str {
    work.labels().get(keys::PIPELINE_NAME).map_or("", String::as_str)
}

/// Returns whether no pipeline of the workflow writes this Work any more: its pipeline was removed, pipelines moved to
/// another namespace, it was a preview and the workflow is none, or it has a successor.
fn is_stale(work: &Work, snapshot: &Snapshot<'_>) -> bool {
    let workflow = snapshot.workflow;
    let moved = work.namespace().as_deref() != Some(workflow.namespace.as_str());
    let previewed = is_preview(work) && !workflow.is_dry_run;
    moved || previewed || !workflow.pipeline_names().contains(&pipeline_of(work)) || has_successor(work, snapshot)
}

/// Returns whether the pipeline has another Work since the namespace of the request has become its `pipelineNamespace`, or is that no
/// more: Works of a shared namespace name that of their request, and are found by that.
fn has_successor(work: &Work, snapshot: &Snapshot<'_>) -> bool {
    let is_shared = snapshot.workflow.is_shared;
    let is_of_now = |work: &Work| work.labels().contains_key(keys::RESOURCE_NAMESPACE) == is_shared;
    let succeeds = |other: &Arc<Work>| {
        counts(other, snapshot.workflow.kind)
            && is_of_now(other)
            && other.namespace() == work.namespace()
            && pipeline_of(other) == pipeline_of(work)
            && is_preview(other) == is_preview(work)
    };
    !is_of_now(work) && snapshot.works.iter().any(succeeds)
}

fn is_preview(work: &Work) -> bool {
    keys::is_set(work.labels(), keys::DRY_RUN)
}

/// Returns the removal of Works that no pipeline writes any more. A preview removes nothing but previews.
pub(super) fn removals(snapshot: &Snapshot<'_>) -> Vec<Write> {
    let workflow = snapshot.workflow;
    let stale = |work: &&Arc<Work>| counts(work, workflow.kind) && is_stale(work, snapshot);
    let allowed = |work: &&Arc<Work>| is_preview(work) || !workflow.is_dry_run;
    snapshot
        .works
        .iter()
        .filter(stale)
        .filter(allowed)
        .map(|work| Write::Delete { target: Target::of(work.as_ref()) })
        .collect()
}
