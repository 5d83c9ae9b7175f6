//! The conditions that sum a Promise up: `WorksSucceeded` and `Reconciled`.
//!
//! # Source
//! `03-promises.md` §14.2, §25 (7, 9, 10); decision 14

use kratix_api::condition::{self, Status};
use kratix_api::pipeline::{Action, WorkflowType, decode_workflow};
use kratix_api::{Work, keys};
use kube_core::ResourceExt;

use super::{Fault, Seen, Snapshot, Walk, Workflows, api, fault, requirement, revision};
use crate::work::{Readiness, readiness};
use crate::workflow::works::Summary;

pub(super) fn keep(walk: &mut Walk<'_>, seen: &Seen, output: Summary) {
    walk.status.kratix();
    let other_workflows = [
        (WorkflowType::Promise, Action::Delete),
        (WorkflowType::Resource, Action::Configure),
        (WorkflowType::Resource, Action::Delete),
    ];
    for (kind, action) in other_workflows {
        if let Some(fault) = undecodable(walk.snapshot, kind, action) {
            walk.fault(fault);
        }
    }
    let is_settled = seen.workflow == Workflows::Finished
        && seen.requirements == requirement::State::Fulfilled
        && matches!(seen.api, api::State::Absent | api::State::Established | api::State::Changing);
    let works = is_settled.then(|| works_succeeded(walk, output));
    reconciled(walk, seen, works.as_ref());
    completed(walk, seen);
}

/// Returns the fault of a workflow that cannot be decoded; it holds up that workflow alone.
fn undecodable(snapshot: &Snapshot, kind: WorkflowType, action: Action) -> Option<Fault> {
    let error = decode_workflow(&snapshot.promise.spec, kind, action).err()?;
    Some(Fault::pipeline(&error))
}

/// Sums up the Works whose content is the Promise's own: what its workflow wrote (`output`) and its dependencies.
fn works_succeeded(walk: &mut Walk<'_>, output: Summary) -> Status {
    let snapshot = walk.snapshot;
    let Summary { mut failing, mut pending, mut misplaced, awaited, .. } = output;
    pending.extend(awaited);
    pending.extend(created_works(walk));
    let dependencies = snapshot.works_of(keys::WORK_TYPE_STATIC_DEPENDENCY);
    for work in dependencies.filter(|work| work.metadata.deletion_timestamp.is_none()) {
        let is_changing = walk.writes.iter().any(|write| is_about(write, work));
        match if is_changing { Readiness::Pending } else { readiness(work) } {
            Readiness::Ready => {}
            Readiness::Pending => pending.push(work.name_any()),
            Readiness::Misplaced => misplaced.push(work.name_any()),
            Readiness::Failing => failing.push(work.name_any()),
        }
    }
    for names in [&mut failing, &mut pending, &mut misplaced] {
        names.sort();
    }
    let (status, reason, message, event) = if !failing.is_empty() {
        let message = format!("Some works associated with this promise are not ready: [{}]", failing.join(" "));
        let note = format!("Some works associated with this promise has failed: [{}]", failing.join(","));
        (Status::False, "WorksFailing", message, Some(snapshot.warning("WorksFailing", note)))
    } else if !pending.is_empty() {
        let message = format!("Some works associated with this promise are not ready: [{}]", pending.join(" "));
        (Status::Unknown, "WorksPending", message, None)
    } else if !misplaced.is_empty() {
        let text = "Some works associated with this promise are misplaced";
        let note = format!("{text}: [{}]", misplaced.join(","));
        let message = format!("{text}: [{}]", misplaced.join(" "));
        (Status::False, "WorksMisplaced", message, Some(snapshot.warning("WorksMisplaced", note)))
    } else {
        let text = "All works associated with this promise are ready";
        (Status::True, "WorksSucceeded", text.to_owned(), Some(snapshot.normal("WorksSucceeded", text)))
    };
    if walk.status.set(condition::WORKS_SUCCEEDED, status.clone(), reason, message) {
        walk.events.extend(event);
    }
    status
}

fn is_about(write: &crate::plan::Write, work: &Work) -> bool {
    let (kind, key) = write.address();
    kind.kind == "Work" && *key == crate::object::ObjectKey::of(work)
}

/// Returns the names of Works that this very pass creates.
fn created_works<'a>(walk: &'a Walk<'_>) -> impl Iterator<Item = String> + 'a {
    walk.writes.iter().filter_map(|write| match write {
        crate::plan::Write::Create { kind, key, .. } if kind.kind == "Work" => Some(key.name.clone()),
        _ => None,
    })
}

fn reconciled(walk: &mut Walk<'_>, seen: &Seen, works: Option<&Status>) {
    let snapshot = walk.snapshot;
    // The workflow engine has said so in its own words, and tells by them what it has announced already.
    if matches!(seen.workflow, Workflows::Suspended | Workflows::Failed) {
        return;
    }
    if let Some(fault) = walk.faults.first().cloned() {
        let events = fault::show(&mut walk.status, snapshot, &fault);
        walk.events.extend(events);
        return;
    }
    if seen.workflow != Workflows::Finished {
        return;
    }
    let (status, reason, message) = if seen.requirements == requirement::State::Unfulfilled {
        (Status::Unknown, "RequirementsNotFulfilled", "Pending".to_owned())
    } else if seen.revision == revision::State::Leaving {
        let version = snapshot.promise.version();
        let message = format!(
            "Pending: waiting for the revision of version {version:?}, which is being deleted with its requests"
        );
        (Status::Unknown, "RevisionDeleting", message)
    } else {
        match works {
            Some(Status::True) => (Status::True, "Reconciled", "Reconciled".to_owned()),
            Some(Status::False) => (Status::False, "WorksFailing", "Failing".to_owned()),
            Some(_) => (Status::Unknown, "WorksPending", "Pending".to_owned()),
            None => return,
        }
    };
    let is_done = status == Status::True;
    if walk.status.set(condition::RECONCILED, status, reason, message) && is_done {
        walk.events.push(snapshot.normal("ReconcileSucceeded", "Successfully reconciled"));
    }
}

/// Tells once per run that the promise workflow is done: when its last pipeline goes on record.
fn completed(walk: &mut Walk<'_>, seen: &Seen) {
    let count = i64::try_from(walk.snapshot.configure_pipelines()).unwrap_or(i64::MAX);
    let before = walk.status.stored().workflows_succeeded;
    if seen.workflow == Workflows::Finished
        && count > 0
        && before != count
        && walk.status.now.workflows_succeeded == count
    {
        walk.events.push(walk.snapshot.normal("ConfigureWorkflowCompleted", "All workflows completed"));
    }
}
