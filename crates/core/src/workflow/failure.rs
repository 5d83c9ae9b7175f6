//! What keeps the pod of a pipeline from getting on: which container, why, and where to look.
//!
//! A Job tells that it has failed only once Kubernetes has given up on it, and not why. The status of its pods tells at once:
//! an image that cannot be pulled, a container that exits, is killed or refused. It is shown by the condition
//! [`PIPELINE_FAILING`], which exists only as long as something is wrong, and by one event for each cause. Conditions and
//! events of the original keep their words.
//!
//! Trouble that repeating cannot heal (a malformed file, a path that leads outside) is told by Kratix's own containers with
//! an exit code of its own. Then the Job's `backoffLimit` is set to 0, so that it fails by Kubernetes' own rules, once.
//!
//! A Job that may wait for ever ([`Sight::is_before_start`]) can be stopped once it is no longer wanted: see `configure` and `delete`.
//!
//! # Guarantees
//! One cause, one event. A cause is a pipeline, what has happened to which of its containers, and the reason; what others say about
//! it may hold numbers and times that differ from attempt to attempt: the condition follows that, and nobody is told again.
//! # Source
//! `02-workflows.md` §14, §15

mod turn;

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::batch::v1;
use k8s_openapi::api::core::v1 as core;
use kratix_api::condition::{Status, failing_in_short, whole_seconds};
use kratix_api::{Condition, Timestamp, keys};
use kube_core::ResourceExt;
use serde_json::json;

pub use self::turn::Turn;
use super::history::State;
use super::status::{Document, PENDING};
use super::{Parent, Surroundings, history};
use crate::object::{ObjectKey, Target};
use crate::plan::{Event, Write};
use crate::text::line;

/// Condition of a parent whose pipeline does not get on. It is there, and True, only while that lasts.
pub use kratix_api::condition::PIPELINE_FAILING;

/// Reason for what repeating cannot heal.
const REFUSED: &str = "InvalidOutput";
/// Reason of a container that has not come to run.
const NOT_STARTED: &str = "ContainerNotStarted";
const IMAGE: &str = "ImageUnavailable";
const POD_NOT_STARTED: &str = "PodNotStarted";
const POD_REFUSED: &str = "PodRefused";

/// Returns whether a pod with this reason cannot begin for want of something that may never come.
pub(crate) fn may_wait_for_ever(reason: &str) -> bool {
    [IMAGE, NOT_STARTED, POD_NOT_STARTED, POD_REFUSED].contains(&reason)
}
/// The containers that Kratix puts around those of a pipeline.
const OWN_CONTAINERS: [&str; 3] = ["reader", "work-writer", "status-writer"];
/// Longest name of an image that is repeated; users write what they like.
const IMAGE_BYTES_MAX: usize = 255;
/// Longest cause that is repeated from a pod's status.
const DETAIL_BYTES_MAX: usize = 400;
/// Exit codes above this one stand for signals.
const SIGNAL_BASE: i32 = 128;
const SIGKILL: i32 = 9;
/// How a container ends whose pod is removed.
const STOPPED: [i32; 2] = [SIGNAL_BASE + SIGKILL, SIGNAL_BASE + 15];
/// A node that runs as many pods as it can says so with this reason; it is no trouble of the pipeline.
const WAITS_FOR_A_PLACE: &str = "TooManyPods";

/// Something that keeps a pod, or the making of one, from getting on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Reason of the condition and of the event.
    reason: &'static str,
    /// What has happened to what: `container render exited with code 1`.
    subject: String,
    /// The cause in the words of whoever noticed it; may be empty.
    detail: String,
    /// The command that shows more.
    command: String,
    /// Whether doing the same again is useless.
    is_final: bool,
    /// Whether it may last for ever and no container of a pipeline has begun.
    is_before_start: bool,
}

/// What is known of a Job's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing: there is none yet, or they cannot be seen.
    Unseen,
    /// They get on.
    Fine,
    /// They do not.
    Trouble(Trouble),
    /// Nothing was wrong with them, and they are on their way out.
    Going {
        /// See [`Turn::when`].
        when: Option<String>,
    },
    /// None is left.
    Gone {
        /// How far the last one had come when it was removed, where that is known.
        when: Option<String>,
    },
}

/// A pod of a Job, as far as anything of it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// What keeps it from getting on.
    pub trouble: Option<Trouble>,
    /// It is being deleted, so that it gets on no more says nothing.
    pub is_going: bool,
    /// How far it has come.
    pub turn: Turn,
}

impl Sight {
    /// Sums up what is known of one Job. `refusal` is what the API server said when a pod was to be made.
    ///
    /// The newest trouble counts, also while another attempt is under way: it is over only when the pipeline is.
    pub fn of(job: &v1::Job, pods: &[Attempt], refusal: Option<&str>) -> Self {
        let troubled = pods.iter().filter(|pod| pod.trouble.is_some());
        if let Some(mut trouble) = troubled.max_by_key(|pod| pod.created).and_then(|pod| pod.trouble.clone()) {
            trouble.is_before_start &= !pods.iter().any(|pod| pod.turn.has_begun);
            return Self::Trouble(trouble);
        }
        let newest = pods.iter().max_by_key(|pod| pod.created);
        match (newest, refusal) {
            _ if pods.iter().any(|pod| !pod.is_going) => Self::Fine,
            (Some(newest), _) => Self::Going { when: newest.turn.when.clone() },
            (None, _) if has_had_pods(job) => Self::Gone { when: None },
            // An old refusal says nothing about a pod that was there since.
            (None, Some(refusal)) => Self::Trouble(refused(job, refusal)),
            // A pod that was removed is not always counted.
            (None, None) if history::state(job) == State::Failed => Self::Gone { when: None },
            (None, None) => Self::Unseen,
        }
    }

    fn trouble(self) -> Option<Trouble> {
        match self {
            Self::Trouble(trouble) => Some(trouble),
            Self::Unseen | Self::Fine | Self::Going { .. } | Self::Gone { .. } => None,
        }
    }

    /// Adds what is remembered of the last pod, where none is left.
    #[must_use]
    pub fn with_last(self, when: impl FnOnce() -> Option<String>) -> Self {
        match self {
            Self::Gone { when: None } => Self::Gone { when: when() },
            known => known,
        }
    }

    /// Returns whether the Job waits for something that may never come, while no container of a pipeline runs or has run in
    /// any of its pods: ending it interrupts nothing.
    pub fn is_before_start(&self) -> bool {
        matches!(self, Self::Trouble(trouble) if trouble.is_before_start)
    }
}

impl Attempt {
    /// Returns how far the pod has come, if it is removed before anything was wrong with it.
    pub fn cut_short(&self) -> Option<&str> {
        self.turn.when.as_deref().filter(|_| self.is_going && self.trouble.is_none())
    }
}

impl Trouble {
    /// Returns whether doing the same again is useless.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Returns what has happened to what, without what others say about it.
    fn about(&self, pipeline: &str) -> String {
        format!("pipeline {pipeline}: {}", self.subject)
    }

    /// Returns what is wrong, without the command that shows more.
    fn cause(&self, pipeline: &str) -> String {
        let about = self.about(pipeline);
        if self.detail.is_empty() { about } else { format!("{about}: {}", self.detail) }
    }
}

/// Returns what keeps a pod from getting on. What became of its containers because it is being deleted is no trouble.
pub fn of_pod(pod: &core::Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let place = Place { namespace: pod.namespace().unwrap_or_default(), pod: pod.name_any() };
    let phase = status.phase.as_deref().unwrap_or_default();
    let detail = detail(status.message.as_deref().unwrap_or_default());
    match status.reason.as_deref() {
        Some("Evicted") if phase == "Failed" => {
            return Some(place.described("PodEvicted", &during("the pod was evicted", pod), detail));
        }
        Some("DeadlineExceeded") if phase == "Failed" => {
            let subject = during("the pod ran longer than its deadline", pod);
            return Some(place.described("DeadlineExceeded", &subject, detail));
        }
        Some(reason) if phase == "Failed" => {
            return Some(place.described("PodFailed", &during(&format!("the pod has failed ({reason})"), pod), detail));
        }
        _ => {}
    }
    let init = status.init_container_statuses.iter().flatten();
    let mut containers = init.chain(status.container_statuses.iter().flatten());
    let removed_at = removal(pod);
    if let Some(trouble) = containers.find_map(|container| place.of_container(pod, container, removed_at)) {
        return Some(trouble);
    }
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.is_some()
    });
    if let Some(condition) = unscheduled {
        let detail = self::detail(condition.message.as_deref().unwrap_or_default());
        return Some(place.waits("PodUnschedulable", "no node takes the pod", detail));
    }
    match status.reason.as_deref() {
        Some(reason) if phase == "Pending" && reason != WAITS_FOR_A_PLACE => {
            Some(place.waits(POD_NOT_STARTED, "the pod cannot be started", detail))
        }
        _ => None,
    }
}

/// Adds to what has happened to a pod which of its containers it has happened to.
fn during(subject: &str, pod: &core::Pod) -> String {
    while_it(subject, Turn::of(pod).when.as_deref())
}

fn while_it(subject: &str, when: Option<&str>) -> String {
    when.map_or_else(|| subject.to_owned(), |when| format!("{subject} {when}"))
}

/// Returns when the removal of a pod was asked for.
fn removal(pod: &core::Pod) -> Option<Timestamp> {
    let grace = jiff::SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}

/// Where the pod is found.
struct Place {
    namespace: String,
    pod: String,
}

impl Place {
    fn logs(&self, container: &str) -> String {
        format!("kubectl logs -n {} {} -c {container}", self.namespace, self.pod)
    }

    fn describe(&self) -> String {
        format!("kubectl describe pod -n {} {}", self.namespace, self.pod)
    }

    fn described(&self, reason: &'static str, subject: &str, detail: String) -> Trouble {
        Trouble {
            reason,
            subject: subject.to_owned(),
            detail,
            command: self.describe(),
            is_final: false,
            is_before_start: false,
        }
    }

    /// As [`Place::described`], of what may last for ever.
    fn waits(&self, reason: &'static str, subject: &str, detail: String) -> Trouble {
        Trouble { is_before_start: true, ..self.described(reason, subject, detail) }
    }

    fn of_container(
        &self,
        pod: &core::Pod,
        container: &core::ContainerStatus,
        removed_at: Option<Timestamp>,
    ) -> Option<Trouble> {
        let name = container.name.as_str();
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref())
            && let Some(trouble) = self.of_waiting(container, waiting)
        {
            return removed_at.is_none().then_some(trouble);
        }
        let is_stopped = |ended: &core::ContainerStateTerminated| {
            let finished_at = ended.finished_at.as_ref().map(|time| time.0);
            // Times have whole seconds, and a container may take less to stop.
            let at_once = STOPPED.contains(&ended.exit_code) && ended.reason.as_deref() != Some("OOMKilled");
            let is_after = |finished, removed| finished > removed || (at_once && finished == removed);
            removed_at.is_some_and(|removed| finished_at.is_none_or(|finished| is_after(finished, removed)))
        };
        let ended = state.and_then(|state| state.terminated.as_ref()).filter(|ended| !is_stopped(ended));
        // While it runs or waits for its next attempt, how the last one ended is still what is wrong.
        let ended = ended.or_else(|| container.last_state.as_ref()?.terminated.as_ref())?;
        if ended.exit_code == 0 || is_stopped(ended) {
            return None;
        }
        let words = detail(ended.message.as_deref().unwrap_or_default());
        let code = ended.exit_code;
        let is_own = OWN_CONTAINERS.contains(&name);
        let (reason, subject, is_final) = match ended.reason.as_deref() {
            Some("OOMKilled") => ("OutOfMemory", out_of_memory(pod, name), false),
            Some("ContainerCannotRun" | "StartError") => {
                (NOT_STARTED, format!("container {name} cannot be started"), false)
            }
            _ if is_own && code == i32::from(keys::EXIT_FINAL) => {
                (REFUSED, format!("container {name} refuses what the pipeline has left"), true)
            }
            _ if code > SIGNAL_BASE => {
                let signal = match code - SIGNAL_BASE {
                    SIGKILL => "SIGKILL".to_owned(),
                    number => format!("signal {number}"),
                };
                ("ContainerKilled", format!("container {name} was killed ({signal}, exit code {code})"), false)
            }
            _ => ("ContainerFailed", format!("container {name} exited with code {code}"), false),
        };
        // What was never started has written no log.
        let command = if reason == NOT_STARTED { self.describe() } else { self.logs(name) };
        Some(Trouble { reason, subject, detail: words, command, is_final, is_before_start: false })
    }

    fn of_waiting(&self, container: &core::ContainerStatus, waiting: &core::ContainerStateWaiting) -> Option<Trouble> {
        let (name, image) = (&container.name, &container.image);
        let message = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref()? {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable" => {
                let shown = line(image, IMAGE_BYTES_MAX);
                let subject = format!("image {shown} of container {name} cannot be had");
                Some(self.waits(IMAGE, &subject, detail(&without_back_off(message, image))))
            }
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PostStartHookError" => {
                let subject = format!("container {name} cannot be started");
                Some(self.waits(NOT_STARTED, &subject, detail(message)))
            }
            _ => None,
        }
    }
}

fn out_of_memory(pod: &core::Pod, name: &str) -> String {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let mut all = init.chain(spec.into_iter().flat_map(|spec| &spec.containers));
    let limit = all.find(|container| container.name == name).and_then(|container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        limits.get("memory").map(|limit| limit.0.clone())
    });
    match limit {
        Some(limit) => format!("container {name} was killed because it used more memory than its limit of {limit}"),
        None => format!("container {name} was killed because there was no memory left"),
    }
}

/// A kubelet says the same in two ways in turn, and the second time at times without the cause: what is left is the cause, or
/// nothing. The image has been named already.
fn without_back_off<'a>(message: &'a str, image: &str) -> Cow<'a, str> {
    let quoted = format!("Back-off pulling image {image:?}");
    let rest = message.strip_prefix(&quoted).map_or(message, |rest| rest.strip_prefix(": ").unwrap_or(rest));
    let cause = rest.strip_prefix("ErrImagePull: ").unwrap_or(rest);
    let state = cause.strip_prefix("image \"").and_then(|named| named.split_once("\" is "));
    match state {
        Some((name, state)) if name.contains(image) => Cow::Owned(format!("it is {state}")),
        _ => Cow::Borrowed(cause),
    }
}

/// Returns a cause in one line, cut to what is needed to act; what to do follows it, so it ends without a full stop.
fn detail(text: &str) -> String {
    let text = text.trim_end();
    line(text.strip_suffix('.').filter(|text| !text.ends_with('.')).unwrap_or(text), DETAIL_BYTES_MAX)
}

/// No pod could be made at all: a quota, an admission webhook, a ServiceAccount that is not there.
fn refused(job: &v1::Job, refusal: &str) -> Trouble {
    let detail = detail(refusal.strip_prefix("Error creating: ").unwrap_or(refusal));
    Trouble {
        reason: POD_REFUSED,
        subject: "no pod can be made".to_owned(),
        detail,
        command: of_job(job),
        is_final: false,
        is_before_start: true,
    }
}

fn has_had_pods(job: &v1::Job) -> bool {
    let Some(status) = &job.status else { return false };
    [status.active, status.failed, status.succeeded].into_iter().flatten().any(|count| count > 0)
}

fn of_job(job: &v1::Job) -> String {
    format!("kubectl describe job -n {} {}", job.namespace().unwrap_or_default(), job.name_any())
}

/// Returns the command that shows what is left of a Job whose pods are gone, and how to keep them.
fn without_pods(job: &v1::Job) -> String {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let is_kept = pod.is_some_and(|pod| pod.restart_policy.as_deref() == Some("Never"));
    let hint = if is_kept { "" } else { "; restartPolicy: Never keeps it" };
    format!("{} (the pod is gone, and its log{hint})", of_job(job))
}

/// Returns what a Job that has failed tells of it by itself. `when` is what ran in its pod.
fn of_failed_job(job: &v1::Job, when: Option<&str>) -> Option<Trouble> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed" && condition.status == "True")?;
    let reason = match failed.reason.as_deref()? {
        "DeadlineExceeded" => "DeadlineExceeded",
        _ => "JobFailed",
    };
    let subject = while_it(&format!("Job {} has failed", ObjectKey::of(job)), when);
    let detail = detail(failed.message.as_deref().unwrap_or_default());
    Some(Trouble { reason, subject, detail, command: of_job(job), is_final: false, is_before_start: false })
}

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
pub(super) struct Told {
    pub(super) writes: Vec<Write>,
    pub(super) events: Vec<Event>,
}

/// Shows what keeps a running Job from getting on, takes back what is over, and ends a Job whose repetition is useless.
pub(super) fn tell_running(view: View<'_>, job: &v1::Job, document: &mut Document) -> Told {
    if history::is_told_to_suspend(job) {
        return Told::default();
    }
    let is_refused = is_refused(job, document);
    let sight = view.surroundings.sight(job);
    if sight == Sight::Fine && !is_refused {
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
    let since = |told: &kratix_api::Condition| told.last_transition_time.as_ref().map(|time| time.0);
    told.is_some_and(|told| since(&told) >= history::created(job).map(whole_seconds))
}

/// Shows why a Job has failed. Its pods may be gone with it: then what was shown while it ran stays.
pub(super) fn tell_failed(view: View<'_>, job: &v1::Job, document: &mut Document) -> Option<Event> {
    let is_refused = is_refused(job, document);
    let sight = view.surroundings.sight(job);
    if let Sight::Trouble(trouble) = &sight
        && (trouble.is_final || !is_refused)
    {
        return show(view, job, trouble, document);
    }
    if let Some(told) = document.condition(PIPELINE_FAILING) {
        if matches!(sight, Sight::Gone { .. }) {
            lead_to_job(view, job, &told, document);
        }
        return None;
    }
    let when = match sight {
        Sight::Going { when } | Sight::Gone { when } => when,
        _ => None,
    };
    let trouble = of_failed_job(job, when.as_deref())?;
    let event = show(view, job, &trouble, document);
    // The pod's own story may be on its way, and is the better one.
    event.filter(|_| trouble.reason != "JobFailed")
}

/// Replaces the command of what was told by one that still works: the Job controller removes a pod whose Job has failed, unless
/// it is never restarted.
fn lead_to_job(view: View<'_>, job: &v1::Job, told: &Condition, document: &mut Document) {
    let Some((cause, command)) = told.message.rsplit_once("; kubectl ") else { return };
    if command.starts_with("logs ") || command.starts_with("describe pod ") {
        let message = format!("{cause}; {}", without_pods(job));
        document.set_condition(PIPELINE_FAILING, told.status.clone(), &told.reason, &message, view.now);
    }
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
    let (reporter, target) = (view.parent.reporter, view.parent.target.clone());
    (!is_known).then(|| Event::warning(reporter, target, trouble.reason, message))
}

/// Returns whether a change of a pod matters to the workflow it belongs to. A pod that appears does so only where one `was_refused`
/// before.
pub fn concerns(old: Option<&Attempt>, new: Option<&Attempt>, was_refused: bool) -> bool {
    let trouble = |pod: Option<&Attempt>| pod.and_then(|pod| pod.trouble.clone());
    let may_act = |pod: &Attempt| pod.turn.has_begun;
    // What is to be stopped waits until nothing runs in an earlier pod.
    let has_stopped = old.is_some_and(|old| old.is_going && may_act(old)) && !new.is_some_and(may_act);
    trouble(old) != trouble(new) || (was_refused && old.is_none()) || has_stopped
}

/// Returns the digest of a pod.
pub fn attempt(pod: &core::Pod) -> Attempt {
    Attempt {
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        trouble: of_pod(pod),
        is_going: pod.metadata.deletion_timestamp.is_some(),
        turn: Turn::of(pod),
    }
}
