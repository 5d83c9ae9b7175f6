//! The delete workflow: the first pipeline alone, before anything of the parent is removed.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::condition::{self, Status};
use kratix_api::keys;
use kratix_api::pipeline::Action;
use kratix_api::promise::Phase;

use super::history::{self, History, State};
use super::status::{Document, rfc3339};
use super::{Outcome, Progress, Snapshot, describe, failure, stop, suspension};
use crate::plan::{Event, Next};

/// A look in between, although Jobs are watched.
const SAFETY_NET: Duration = Duration::from_secs(15);
/// What runs longer may never end: from then on it is told what to do about it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Decides the next step of a delete workflow.
///
/// # Guarantees
/// Never runs beside another Job of the parent. [`Progress::Finished`] must be acted upon with a write that conflicts with
/// anything newer than the parent in hand (removing the finalizer, pinned): a completed Job may have asked for
/// suspension, and an old parent would not show it.
/// # Source
/// `02-workflows.md` §11.1; weaknesses 29, 30, 32
pub fn delete(snapshot: &Snapshot<'_>) -> Outcome {
    let parent = snapshot.parent;
    let Some(first) = snapshot.workflow.pipelines.first() else {
        return Outcome::new(snapshot.document(), Progress::Finished);
    };
    let history = History::of(snapshot.jobs, snapshot.workflow);
    let latest = history.latest();
    let running = latest.filter(|job| history::state(job) == State::Running);
    let manual = parent.has_label(keys::MANUAL_RECONCILIATION);

    // A manual run that is asked for besides stops the Job first.
    if parent.has_label(keys::WORKFLOW_SUSPENDED) && !(manual && running.is_some()) {
        // Without a delete Job it was the configure workflow that was held: nothing is left to hold.
        return match latest {
            None => snapshot.relabel(&[(keys::WORKFLOW_SUSPENDED, None)], &[]),
            Some(_) => suspension::hold(snapshot, &history),
        };
    }
    if let Some(job) = running {
        return if manual { stop_for_manual_run(snapshot, job) } else { wait_for(snapshot, job) };
    }
    if manual {
        // The run that is asked for waits for it, and so does the deletion.
        if let Some(job) = live_configure_job(snapshot) {
            return stop_configure_job(snapshot, job);
        }
        return snapshot.relabel(&[(keys::MANUAL_RECONCILIATION, None)], &[snapshot.next_run()]);
    }
    let ended = latest
        .filter(|job| history::run(job) >= parent.run() && history::belongs_to(job, snapshot.workflow, first.name()));
    let Some(job) = ended else { return start(snapshot, &history, false) };
    if suspension::is_resumed(snapshot, &history) {
        return start(snapshot, &history, true);
    }
    if snapshot.document().suspended().is_some() {
        return suspension::resume(snapshot, &history);
    }
    match history::state(job) {
        State::Completed => Outcome::new(snapshot.document(), Progress::Finished),
        State::Failed | State::Running => failed(snapshot, job, first.name()),
    }
}

/// Returns the configure Job that may still do something, if there is one.
pub fn live_configure_job<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Job> {
    let configures = |job: &&std::sync::Arc<Job>| history::action(job) == Action::Configure;
    snapshot.jobs.iter().filter(configures).find(|job| history::is_live(job)).map(AsRef::as_ref)
}

fn start(snapshot: &Snapshot<'_>, history: &History<'_>, resumes: bool) -> Outcome {
    if let Some(job) = live_configure_job(snapshot) {
        return told(waiting(snapshot, describe(job)), snapshot, job, snapshot.document(), Wanted::No);
    }
    if let Some(waits_for) = snapshot.last_pods() {
        return waiting(snapshot, waits_for);
    }
    let names = snapshot.workflow.pipeline_names();
    let name = names[0];
    let mut document = snapshot.document();
    let is_suspended = document.suspended().is_some();
    let is_listed = document.lists(&names) && document.phase(name) == Some(Phase::Running);
    let is_begun = is_listed && document.suspended_generation() == 0;
    if !resumes && !is_begun {
        document.reset(&names, snapshot.now);
    }
    document.set_phase(name, Phase::Running, snapshot.now);
    document.remove_condition(condition::DELETE_WORKFLOW_COMPLETED);
    failure::clear(&mut document);
    // If this were written after the Job and lost, the status would ask for another run once the Job has ended.
    if is_suspended {
        let waits_for = format!("delete pipeline {name} to start");
        return Outcome { next: Next::After(SAFETY_NET), ..Outcome::new(document, Progress::InProgress { waits_for }) };
    }
    let progress = Progress::InProgress { waits_for: format!("delete pipeline {name} to end") };
    let mut outcome = Outcome::new(document, progress);
    let started = snapshot.event(Event::normal, "PipelineStarted", format!("Delete Pipeline started: {name}"));
    outcome.start(snapshot.start(0, history.next_sequence()), started);
    outcome.next = Next::After(SAFETY_NET);
    outcome
}

fn stop_configure_job(snapshot: &Snapshot<'_>, job: &Job) -> Outcome {
    let mut outcome = waiting(snapshot, describe(job));
    if !history::is_told_to_suspend(job) {
        outcome.writes.push(stop(job));
    }
    outcome
}

fn stop_for_manual_run(snapshot: &Snapshot<'_>, job: &Job) -> Outcome {
    let mut outcome = waiting(snapshot, describe(job));
    if !history::is_told_to_suspend(job) {
        outcome.stop(snapshot, job);
    }
    outcome
}

/// Waits for a running Job and puts right a status whose write was lost when the Job was made.
fn wait_for(snapshot: &Snapshot<'_>, job: &Job) -> Outcome {
    let name = snapshot.workflow.pipelines[0].name();
    let mut document = snapshot.document();
    let begun = matches!(document.phase(name), Some(Phase::Running | Phase::Suspended));
    if history::pipeline(job) == name && !begun {
        document.reset(&snapshot.workflow.pipeline_names(), snapshot.now);
        document.set_phase(name, Phase::Running, snapshot.now);
    }
    document.remove_condition(condition::DELETE_WORKFLOW_COMPLETED);
    let wanted = if history::belongs_to(job, snapshot.workflow, name) { Wanted::Yes } else { Wanted::No };
    told(waiting(snapshot, describe(job)), snapshot, job, document, wanted)
}

/// Whether what a Job leads to is still wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Yes,
    /// The deletion waits for its end alone.
    No,
}

/// Adds what keeps a Job from getting on: the deletion waits for as long.
fn told(mut outcome: Outcome, snapshot: &Snapshot<'_>, job: &Job, mut document: Document, wanted: Wanted) -> Outcome {
    let told = failure::tell_running(snapshot.view(), job, &mut document);
    outcome.writes.extend(told.writes);
    outcome.events.extend(told.events);
    let stops =
        history::is_told_to_suspend(job) || (wanted == Wanted::No && snapshot.stop_before_start(job, &mut outcome));
    let cause = failure::in_short(&document).map(|cause| format!(", which does not get on: {cause}"));
    let told = cause.or_else(|| lasting(snapshot, job).filter(|_| !stops));
    if let (Progress::InProgress { waits_for }, Some(told)) = (&mut outcome.progress, told) {
        waits_for.push_str(&told);
        if !stops {
            let again = if history::action(job) == Action::Delete { " and runs it again" } else { "" };
            waits_for.push_str(&format!("; label {}=true stops it{again}", keys::MANUAL_RECONCILIATION));
        }
    }
    outcome.status = document.into_value();
    outcome
}

/// Returns since when a Job runs that nothing is wrong with, and in which container it is, once that has lasted.
fn lasting(snapshot: &Snapshot<'_>, job: &Job) -> Option<String> {
    let since = history::created(job)?;
    let lasts = Duration::try_from(snapshot.now.duration_since(since)).is_ok_and(|lasts| lasts >= PATIENCE);
    let container = match snapshot.surroundings.sight(job) {
        failure::Sight::Fine { container: Some(container) } => format!(", and is in container {container}"),
        _ => String::new(),
    };
    lasts.then(|| format!(", which has run since {}{container}", rfc3339(since)))
}

fn failed(snapshot: &Snapshot<'_>, job: &Job, name: &str) -> Outcome {
    let mut document = snapshot.document();
    document.set_phase(name, Phase::Failed, snapshot.now);
    let text = "The Delete Pipeline has failed";
    let r#type = condition::DELETE_WORKFLOW_COMPLETED;
    let is_new = document.set_condition(r#type, Status::False, "DeleteWorkflowFailed", text, snapshot.now);
    let trouble = failure::tell_failed(snapshot.view(), job, &mut document);
    let mut outcome = Outcome::new(document, Progress::Failed { pipeline: name.to_owned() });
    if is_new {
        outcome.events.push(snapshot.event(Event::warning, "Failed Pipeline", text.into()));
    }
    outcome.events.extend(trouble);
    outcome
}

fn waiting(snapshot: &Snapshot<'_>, waits_for: String) -> Outcome {
    let progress = Progress::InProgress { waits_for };
    Outcome { next: Next::After(SAFETY_NET), ..Outcome::new(snapshot.document(), progress) }
}
