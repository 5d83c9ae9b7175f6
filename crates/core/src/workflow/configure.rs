//! The configure workflow: every pipeline in order, one Job at a time.

use std::cmp::Ordering;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::condition::{self, Status, whole_seconds};
use kratix_api::promise::Phase;
use kratix_api::{WorkflowType, keys};

use super::history::{self, History, State};
use super::status::{Document, Entry, PENDING};
use super::{
    Outcome, PROMISE_GENERATION, Progress, RESUME, RUN, Snapshot, describe, failure, retention, stop, suspension, works,
};
use crate::plan::{Event, Next, Write};
use crate::refusal;

const IN_PROGRESS: &str = "PipelinesInProgress";
const FAILED: &str = "ConfigureWorkflowFailed";
const SUCCEEDED: &str = "PipelinesExecutedSuccessfully";

/// How a pipeline comes to be started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The first of a run.
    Fresh,
    /// After its predecessor, or once more after a suspension.
    Within,
}

/// Decides the next step of a configure workflow.
///
/// # Guarantees
/// With no pipelines the workflow is finished once the last Job has ended, and the status keeps what it says of workflows, but for
/// what kept them from getting on; control labels that would start a run are removed, and so is the suspension that a pipeline has
/// asked for. A finished or failed workflow on record asks for nothing but the removal of surplus Jobs and stale Works.
/// # Source
/// `02-workflows.md` §8, §9, §12.3
pub fn configure(snapshot: &Snapshot<'_>) -> Outcome {
    let parent = snapshot.parent;
    let history = History::of(snapshot.jobs, snapshot.workflow);
    let latest = history.latest();
    let running = latest.filter(|job| history::state(job) == State::Running).map(AsRef::as_ref);
    let manual = parent.has_label(keys::MANUAL_RECONCILIATION);
    let restart = parent.has_label(keys::RUN_FROM_START);
    let triggers = [(keys::MANUAL_RECONCILIATION, None), (keys::RUN_FROM_START, None)];

    if snapshot.workflow.pipelines.is_empty() {
        return match running {
            Some(job) if manual => stop_for_manual_run(snapshot, job),
            Some(_) if restart => snapshot.relabel(&triggers, &[]),
            Some(job) => wait_for_the_last(snapshot, job),
            None => without_pipelines(snapshot),
        };
    }
    if latest.is_none() && parent.annotations.contains_key(RESUME) {
        // It speaks of a Job that is gone, or of one of an earlier object whose document somebody has applied again.
        return snapshot.forget_resume();
    }
    if let Some(run) = latest.map(|job| history::run(job)).filter(|run| *run > parent.run()) {
        // Either the parent in hand is older than the one that started the Job, and the write conflicts; or somebody has
        // put back an old copy of the object, and its number is restored, before anything else is decided by it.
        return snapshot.relabel(&[], &[(RUN, run.to_string())]);
    }
    let starts_over = latest.is_none_or(|job| history::run(job) < parent.run());
    // Once the run after the pause is on record nothing is left to do but to start it.
    let is_left = starts_over && parent.run() > 0 && !restart && !parent.has_label(keys::WORKFLOW_SUSPENDED);
    if is_paused(&snapshot.document()) && !is_left {
        return leave_pause(snapshot);
    }
    if latest.is_some()
        && !starts_over
        && !manual
        && !restart
        && running.is_none()
        && is_overdue(snapshot, &snapshot.document())
    {
        return snapshot.relabel(&[(keys::WORKFLOW_SUSPENDED, None)], &[snapshot.next_run()]);
    }
    // A manual run that is asked for besides stops the Job first.
    if parent.has_label(keys::WORKFLOW_SUSPENDED) && !(manual && running.is_some()) {
        return suspension::hold(snapshot, &history);
    }
    if restart && !manual && latest.is_some_and(|job| !starts_over && is_spared(snapshot, job)) {
        return snapshot.relabel(&[(keys::RUN_FROM_START, None)], &[]);
    }
    match running {
        Some(job) if manual => stop_for_manual_run(snapshot, job),
        Some(job) => wait_for(snapshot, job, starts_over),
        None if manual || restart => snapshot.relabel(&triggers, &[snapshot.next_run()]),
        None if starts_over => start(snapshot, 0, &history, Start::Fresh),
        None => advance(snapshot, &history),
    }
}

/// Removes what an earlier spec with pipelines has left, and what would hold or start the pipelines of a later one. A suspension that
/// nobody but a person can have asked for stays.
fn without_pipelines(snapshot: &Snapshot<'_>) -> Outcome {
    let mut document = snapshot.document();
    let mut labels = vec![keys::MANUAL_RECONCILIATION, keys::RUN_FROM_START];
    if document.suspended().is_some() {
        labels.push(keys::WORKFLOW_SUSPENDED);
    }
    if labels.iter().any(|label| snapshot.parent.has_label(label)) {
        let removed: Vec<_> = labels.into_iter().map(|label| (label, None)).collect();
        return snapshot.relabel(&removed, &[]);
    }
    let mut writes = surplus(snapshot);
    // No start will do it.
    writes.extend(snapshot.outdated_access());
    failure::clear(&mut document);
    Outcome { writes, ..Outcome::new(document, Progress::Finished) }
}

/// Waits for the Job of a pipeline that is gone, as for that of any other that was removed: its pod reports to the list of pipelines.
fn wait_for_the_last(snapshot: &Snapshot<'_>, job: &Job) -> Outcome {
    let mut outcome = wait_for(snapshot, job, true);
    outcome.writes.splice(0..0, surplus(snapshot));
    let mut document = Document::read(&outcome.status);
    let name = history::pipeline(job);
    if document.phase(name).is_none() {
        // Its start was never written down: a pod that asks to be held waits for its place in the list.
        document.reset(&[name], snapshot.now);
        document.set_phase(name, Phase::Running, snapshot.now);
        outcome.status = document.into_value();
    }
    outcome
}

/// Returns whether the Promise asks for a run only because its spec has changed, and the latest Job was already made for
/// that spec: the request has noticed the new revision before its label came.
fn is_spared(snapshot: &Snapshot<'_>, latest: &Job) -> bool {
    let round = snapshot.parent.annotations.get(crate::promise::RERUN);
    let wanted = round.and_then(|round| round.strip_prefix("generation-")?.parse::<i64>().ok());
    let made = latest.metadata.annotations.as_ref().and_then(|annotations| annotations.get(PROMISE_GENERATION));
    let made = made.and_then(|generation| generation.parse::<i64>().ok());
    let names = snapshot.workflow.pipeline_names();
    let is_current = names.iter().any(|name| history::belongs_to(latest, snapshot.workflow, name));
    is_current && wanted.zip(made).is_some_and(|(wanted, made)| made >= wanted)
}

/// Decides what follows the latest Job, which has ended and belongs to the present run.
fn advance(snapshot: &Snapshot<'_>, history: &History<'_>) -> Outcome {
    let names = snapshot.workflow.pipeline_names();
    let latest = history.latest().expect("a workflow without Jobs starts over");
    let Some(index) = names.iter().position(|name| history::belongs_to(latest, snapshot.workflow, name)) else {
        return start(snapshot, 0, history, Start::Fresh);
    };
    let document = snapshot.document();
    let suspended = document.suspended().and_then(|entry| names.iter().position(|name| *name == entry.name()));
    if suspension::is_resumed(snapshot, history) {
        return start(snapshot, suspended.unwrap_or(index), history, Start::Within);
    }
    if suspended.is_some() {
        return suspension::resume(snapshot, history);
    }
    if history::state(latest) == State::Failed {
        return failed(snapshot, latest, index);
    }
    let mut recorded = document.clone();
    record_success(&mut recorded, snapshot, index);
    let is_last = index + 1 == names.len();
    if recorded != document {
        // The next pipeline waits for this record: see the module's order of writes.
        let progress = match is_last {
            true => Progress::Finished,
            false => Progress::InProgress { waits_for: format!("pipeline {} to start", names[index + 1]) },
        };
        return Outcome { next: next_run_after(snapshot, &recorded), ..Outcome::new(recorded, progress) };
    }
    if !is_last {
        return start(snapshot, index + 1, history, Start::Within);
    }
    let writes = surplus(snapshot);
    let next = next_run_after(snapshot, &document);
    Outcome { writes, next, ..Outcome::new(document, Progress::Finished) }
}

fn surplus(snapshot: &Snapshot<'_>) -> Vec<Write> {
    let mut writes = retention::removals(snapshot);
    writes.extend(works::removals(snapshot));
    writes
}

fn record_success(document: &mut Document, snapshot: &Snapshot<'_>, index: usize) {
    let names = snapshot.workflow.pipeline_names();
    if !document.lists(&names) {
        document.reset(&names, snapshot.now);
    }
    for name in &names[..=index] {
        document.set_phase(name, Phase::Succeeded, snapshot.now);
    }
    set_counters(document, names.len(), index + 1, 0);
    failure::clear(document);
    let completed = document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED);
    if index + 1 == names.len() && completed.is_none_or(|completed| completed.status != Status::True) {
        // The last pipeline says so itself; this heals a status that somebody else has overwritten since.
        let r#type = condition::CONFIGURE_WORKFLOW_COMPLETED;
        document.set_condition(r#type, Status::True, SUCCEEDED, "Pipelines completed", snapshot.now);
    }
    if index + 1 == names.len() && (!document.has("message") || document.text("message") == PENDING) {
        // Its pod has ended before the start of the run was written down, or what it wrote was overwritten by that.
        document.set("message", message_of_success(snapshot.workflow.kind));
    }
}

/// Returns what the last pipeline says when it says nothing of its own.
pub(crate) fn message_of_success(kind: WorkflowType) -> &'static str {
    match kind {
        WorkflowType::Promise => "Promise configured",
        WorkflowType::Resource => "Resource requested",
    }
}

fn set_counters(document: &mut Document, pipelines: usize, succeeded: usize, failed: usize) {
    let wanted = [("workflows", pipelines), ("workflowsSucceeded", succeeded), ("workflowsFailed", failed)];
    let differ = wanted.iter().any(|(key, count)| document.number(key) != i64::try_from(*count).ok());
    if differ {
        document.set_counters(pipelines, succeeded, failed);
    }
}

/// Starts a pipeline. A status that still asks for a run is brought up to date first: if it were written after the Job and lost, it would
/// ask for another run once this Job has ended.
///
/// Two pods of one parent never run at once: those of a Job that was stopped or removed may still be at work.
fn start(snapshot: &Snapshot<'_>, index: usize, history: &History<'_>, how: Start) -> Outcome {
    let before = snapshot.document();
    let mut document = before.clone();
    let last_pods = snapshot.last_pods();
    let pending = last_pods.as_ref().map_or(PENDING.to_owned(), |them| format!("{PENDING}: waits for {them}"));
    begin(&mut document, snapshot, index, how, &pending);
    let name = snapshot.workflow.pipelines[index].name();
    if let Some(waits_for) = last_pods {
        return waiting(document, waits_for);
    }
    if is_paused(&before) || before.suspended().is_some() || is_overdue(snapshot, &before) {
        return Outcome::new(document, Progress::InProgress { waits_for: format!("pipeline {name} to start") });
    }
    let progress = Progress::InProgress { waits_for: format!("configure pipeline {name} to end") };
    let mut outcome = Outcome::new(document, progress);
    let started = snapshot.event(Event::normal, "PipelineStarted", format!("Configure Pipeline started: {name}"));
    outcome.start(snapshot.start(index, history.next_sequence()), started);
    outcome
}

/// Returns whether the status says already what it says when a run begins with the pipeline at `index`.
fn is_begun(document: &Document, names: &[&str], index: usize) -> bool {
    let expected = |at: usize| match at.cmp(&index) {
        Ordering::Less => Phase::Succeeded,
        Ordering::Equal => Phase::Running,
        Ordering::Greater => Phase::Pending,
    };
    let phases: Vec<Phase> = document.pipelines().iter().map(Entry::phase).collect();
    let is_told = |(at, phase): (usize, &Phase)| *phase == expected(at);
    document.lists(names) && phases.iter().enumerate().all(is_told) && document.suspended_generation() == 0
}

/// Writes down that the pipeline at `index` runs, or is about to: `pending` is what `Reconciled` says.
fn begin(document: &mut Document, snapshot: &Snapshot<'_>, index: usize, how: Start, pending: &str) {
    let now = snapshot.now;
    let names = snapshot.workflow.pipeline_names();
    if !document.lists(&names) || (how == Start::Fresh && !is_begun(document, &names, index)) {
        document.reset(&names, now);
    }
    // A message of an earlier pipeline of the same run stays.
    if how == Start::Fresh || document.text("message").is_empty() {
        document.set("message", PENDING);
    }
    for name in &names[..index] {
        document.set_phase(name, Phase::Succeeded, now);
    }
    document.set_phase(names[index], Phase::Running, now);
    set_counters(document, names.len(), index, 0);
    failure::clear(document);
    let (completed, message) = (condition::CONFIGURE_WORKFLOW_COMPLETED, "Pipelines are still in progress");
    document.set_condition(completed, Status::False, IN_PROGRESS, message, now);
    document.set_condition(condition::RECONCILED, Status::Unknown, "WorkflowPending", pending, now);
}

fn failed(snapshot: &Snapshot<'_>, job: &Job, index: usize) -> Outcome {
    let name = snapshot.workflow.pipelines[index].name();
    let names = snapshot.workflow.pipeline_names();
    let now = snapshot.now;
    let before = snapshot.document();
    let mut document = before.clone();
    if !document.lists(&names) {
        document.reset(&names, now);
    }
    document.set_phase(name, Phase::Failed, now);
    set_counters(&mut document, names.len(), index, 1);
    let message = format!("A Configure Pipeline has failed: {name}");
    document.set_condition(condition::CONFIGURE_WORKFLOW_COMPLETED, Status::False, FAILED, &message, now);
    // Told by what nobody but the engine writes: others say on `Reconciled` what became of the removals below.
    let is_new = document != before;
    document.set_condition(condition::RECONCILED, Status::False, FAILED, "Failing", now);
    let trouble = failure::tell_failed(snapshot.view(), job, &mut document);
    let next = next_run_after(snapshot, &document);
    let mut outcome = Outcome { next, ..Outcome::new(document, Progress::Failed { pipeline: name.to_owned() }) };
    if is_new {
        let note = format!("A {}/configure Pipeline has failed: {name}", snapshot.workflow.kind.as_str());
        outcome.events.push(snapshot.event(Event::warning, FAILED, note));
    } else {
        outcome.writes = retention::removals(snapshot);
    }
    outcome.events.extend(trouble);
    outcome
}

fn stop_for_manual_run(snapshot: &Snapshot<'_>, job: &Job) -> Outcome {
    let mut outcome = waiting(snapshot.document(), describe(job));
    if !history::is_told_to_suspend(job) {
        outcome.writes.push(stop(job));
    }
    outcome
}

/// Waits for a running Job and puts right a status whose write was lost when the Job was made. One that is followed by a run from
/// the start, and that would perhaps never begin, is not waited for.
fn wait_for(snapshot: &Snapshot<'_>, job: &Job, starts_over: bool) -> Outcome {
    let mut document = snapshot.document();
    if is_paused(&document) {
        document.set_condition(condition::RECONCILED, Status::Unknown, "Unpaused", PENDING, snapshot.now);
    }
    let names = snapshot.workflow.pipeline_names();
    let index = names.iter().position(|name| history::belongs_to(job, snapshot.workflow, name));
    if let Some(index) = index.filter(|_| !starts_over) {
        let begun = matches!(document.phase(names[index]), Some(Phase::Running | Phase::Suspended));
        let told = document.has_condition(condition::CONFIGURE_WORKFLOW_COMPLETED, &Status::False, IN_PROGRESS);
        let recorded = document.lists(&names) && begun && told;
        if is_completed_since(&document, job) {
            // Its pod is about to end; what it wrote stays.
        } else if recorded {
            document.set_condition(condition::RECONCILED, Status::Unknown, "WorkflowPending", PENDING, snapshot.now);
        } else {
            begin(&mut document, snapshot, index, if index == 0 { Start::Fresh } else { Start::Within }, PENDING);
        }
    }
    let told = failure::tell_running(snapshot.view(), job, &mut document);
    let mut outcome = Outcome { writes: told.writes, events: told.events, ..waiting(document, describe(job)) };
    if starts_over || index.is_none() || snapshot.parent.has_label(keys::RUN_FROM_START) {
        snapshot.stop_before_start(job, &mut outcome);
    }
    outcome
}

/// Returns whether the pipeline itself has reported completion since the Job was made: its pod is about to end.
fn is_completed_since(document: &Document, job: &Job) -> bool {
    let completed = document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED);
    completed.is_some_and(|completed| {
        let since = completed.last_transition_time.map(|time| time.0);
        completed.status == Status::True && since >= history::created(job).map(whole_seconds)
    })
}

fn waiting(document: Document, waits_for: String) -> Outcome {
    Outcome::new(document, Progress::InProgress { waits_for })
}

fn is_paused(document: &Document) -> bool {
    document.has_condition(condition::RECONCILED, &Status::Unknown, refusal::PAUSED)
}

/// Starts over and releases what was suspended before the pause; a run that the Promise has asked for is this very one.
fn leave_pause(snapshot: &Snapshot<'_>) -> Outcome {
    let labels = [(keys::WORKFLOW_SUSPENDED, None), (keys::RUN_FROM_START, None)];
    let mut annotations = vec![snapshot.next_run()];
    annotations.extend(snapshot.annotations_after_pause.iter().map(|(key, value)| (*key, (*value).to_owned())));
    snapshot.relabel(&labels, &annotations)
}

/// Returns how long ago the workflow settled, if it did in a way that the interval repeats.
fn settled_for(snapshot: &Snapshot<'_>, document: &Document) -> Option<Duration> {
    let completed = document.condition(condition::CONFIGURE_WORKFLOW_COMPLETED)?;
    let repeats = match completed.status {
        Status::True => true,
        Status::False => completed.reason == FAILED && snapshot.settings.config.workflows.reconcile_after_failure,
        _ => false,
    };
    let since = completed.last_transition_time?.0;
    repeats.then(|| Duration::try_from(snapshot.now.duration_since(since)).unwrap_or_default())
}

fn is_overdue(snapshot: &Snapshot<'_>, document: &Document) -> bool {
    let settled = settled_for(snapshot, document);
    settled.zip(snapshot.interval).is_some_and(|(settled, interval)| settled > interval)
}

/// Returns when a settled workflow is to be looked at for its next regular run.
pub(super) fn next_run_after(snapshot: &Snapshot<'_>, document: &Document) -> Next {
    // One second more: times are stored in whole seconds, and a run is due only after more than the interval.
    let wait = |(settled, interval): (Duration, Duration)| interval.saturating_sub(settled) + Duration::from_secs(1);
    settled_for(snapshot, document).zip(snapshot.interval).map_or(Next::OnChange, |pair| Next::After(wait(pair)))
}
