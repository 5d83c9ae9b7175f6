//! How trouble becomes a condition, an event, and the end of a Job whose repetition is useless.

use std::sync::Arc;

use k8s_openapi::api::batch::v1;
use kratix_api::condition::{Status, failing_in_short, whole_seconds};
use kratix_api::{Condition, Timestamp};
use serde_json::json;

use super::{JOB_FAILED, PIPELINE_FAILING, REFUSED, Sight, Trouble, of_failed_job, of_job, without_pods};
use crate::object::Target;
use crate::plan::{Event, Write};
use crate::workflow::history::{self, State};
use crate::workflow::status::{Document, PENDING};
use crate::workflow::{Parent, Surroundings};

/// What telling of a Job's pods takes into account.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) now: Timestamp,
    /// On whose status it is told.
    pub(crate) parent: &'a Parent,
    pub(crate) surroundings: &'a dyn Surroundings,
}

/// What a look at the pods of a Job leads to.
#[derive(Default)]
pub(in crate::workflow) struct Told {
    pub(in crate::workflow) writes: Vec<Write>,
    pub(in crate::workflow) events: Vec<Event>,
}

/// Shows what keeps a running Job from getting on, takes back what is over, and ends a Job whose repetition is useless.
pub(in crate::workflow) fn tell_running(view: View<'_>, job: &v1::Job, document: &mut Document) -> Told {
    if history::is_told_to_suspend(job) {
        return Told::default();
    }
    let is_refused = is_refused(job, document);
    let sight = view.surroundings.sight(job);
    if matches!(sight, Sight::Fine { .. }) && !is_refused {
        clear(document);
    }
    let trouble = sight.trouble().filter(|trouble| trouble.is_final || !is_refused);
    let limit = job.spec.as_ref().and_then(|spec| spec.backoff_limit);
    let is_final = is_refused || trouble.as_ref().is_some_and(Trouble::is_final);
    let writes = (is_final && limit != Some(0)).then(|| give_up(job)).into_iter().collect();
    let event = trouble.and_then(|trouble| show(view, job, &trouble, document));
    Told { writes, events: event.into_iter().collect() }
}

/// Returns whether it is on record that what this Job has left was refused: nothing that its pods do afterwards changes that.
fn is_refused(job: &v1::Job, document: &Document) -> bool {
    let told = document.condition(PIPELINE_FAILING).filter(|told| told.reason == REFUSED);
    let since = |told: &Condition| told.last_transition_time.as_ref().map(|time| time.0);
    told.is_some_and(|told| since(&told) >= history::created(job).map(whole_seconds))
}

/// Shows why a Job has failed. Its pods may be gone with it: then what was shown while it ran stays.
pub(in crate::workflow) fn tell_failed(view: View<'_>, job: &v1::Job, document: &mut Document) -> Option<Event> {
    let is_refused = is_refused(job, document);
    let sight = view.surroundings.sight(job);
    if let Sight::Trouble(trouble) = &sight
        && (trouble.is_final || !is_refused)
    {
        return show(view, job, trouble, document);
    }
    let is_gone = matches!(sight, Sight::Gone { .. });
    if let Some(told) = document.condition(PIPELINE_FAILING) {
        return is_gone.then(|| lead_to_job(view, job, &told, document)).flatten();
    }
    let when = match sight {
        Sight::Going { when } | Sight::Gone { when } => when,
        _ => None,
    };
    let mut trouble = of_failed_job(job, when.as_deref())?;
    let may_be_explained = trouble.reason == JOB_FAILED && !is_gone;
    if trouble.reason == JOB_FAILED && is_gone {
        trouble.command = without_pods(job);
    }
    // The pod's own story may be on its way, and is the better one.
    show(view, job, &trouble, document).filter(|_| !may_be_explained)
}

/// Replaces the command of what was told by one that still works: the Job controller removes a pod whose Job has failed, unless
/// it is never restarted. Returns the event that waited for the pod's own story, which does not come any more.
fn lead_to_job(view: View<'_>, job: &v1::Job, told: &Condition, document: &mut Document) -> Option<Event> {
    let (cause, command) = told.message.rsplit_once("; kubectl ")?;
    let is_of_pod = command.starts_with("logs ") || command.starts_with("describe pod ");
    // The command tells whether it was said that the pod is gone, and the event with it.
    let is_untold = told.reason == JOB_FAILED && of_job(job).strip_prefix("kubectl ") == Some(command);
    if !is_of_pod && !is_untold {
        return None;
    }
    let message = format!("{cause}; {}", without_pods(job));
    document.set_condition(PIPELINE_FAILING, told.status.clone(), &told.reason, &message, view.now);
    is_untold.then(|| event(view, JOB_FAILED, message))
}

fn event(view: View<'_>, reason: &'static str, message: String) -> Event {
    Event::warning(view.parent.reporter, view.parent.target.clone(), reason, message)
}

/// Tells what becomes of the last of a parent's Jobs while something else holds up the parent: nothing of its workflow is decided
/// then, but the pod runs on.
pub(crate) fn follow(view: View<'_>, jobs: &[Arc<v1::Job>], document: &mut Document) -> Option<Event> {
    let present = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
    let latest = present.max_by_key(|job| history::order(job));
    match latest.map(|job| (job, history::state(job))) {
        Some((job, State::Running)) => tell_running(view, job, document).events.pop(),
        Some((job, State::Failed)) => tell_failed(view, job, document),
        Some((_, State::Completed)) | None => {
            clear(document);
            None
        }
    }
}

/// Returns what is wrong, in short, if it is on record that something is.
pub(crate) fn in_short(document: &Document) -> Option<String> {
    document.condition(PIPELINE_FAILING).map(|told| failing_in_short(&told.message).to_owned())
}

/// Forgets what was wrong.
pub(crate) fn clear(document: &mut Document) {
    if in_short(document).is_some_and(|told| told == document.text("message")) {
        document.set("message", PENDING);
    }
    document.remove_condition(PIPELINE_FAILING);
}

/// Returns the write after which Kubernetes makes no further attempt.
fn give_up(job: &v1::Job) -> Write {
    Write::Patch { target: Target::of(job).unpinned(), patch: json!({ "spec": { "backoffLimit": 0 } }) }
}

/// Puts trouble on the status; returns the event if the cause is a new one.
///
/// The text that `kubectl get` shows says it as well, unless a pipeline has left one of its own.
fn show(view: View<'_>, job: &v1::Job, trouble: &Trouble, document: &mut Document) -> Option<Event> {
    let pipeline = history::pipeline(job);
    let cause = trouble.cause(pipeline);
    let told = document.condition(PIPELINE_FAILING);
    let known = told
        .as_ref()
        .map(|told| told.message.rsplit_once("; kubectl ").map_or(told.message.as_str(), |(cause, _)| cause));
    let about = trouble.about(pipeline);
    let in_full = known.filter(|known| known.starts_with(&format!("{about}: ")));
    let is_known = told.as_ref().is_some_and(|told| told.reason == trouble.reason)
        && (in_full.is_some() || known == Some(about.as_str()));
    let message = match in_full {
        // A cause that is only hinted at now does not replace one that was told in full.
        Some(known) if is_known && trouble.detail.is_empty() => format!("{known}; {}", trouble.command),
        _ => format!("{cause}; {}", trouble.command),
    };
    let shown = document.text("message");
    let is_ours = ["", PENDING].contains(&shown) || in_short(document).is_some_and(|told| told == shown);
    if is_ours {
        document.set("message", failing_in_short(&message));
    }
    document.set_condition(PIPELINE_FAILING, Status::True, trouble.reason, &message, view.now);
    (!is_known).then(|| event(view, trouble.reason, message))
}
