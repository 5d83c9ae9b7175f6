//! Telling all requests of an API to run their workflow again, each exactly once per round, a bounded number at a time.
//!
//! A round begins with a new generation of the Promise, with the label `kratix.io/reconcile-resources`, or with the end of
//! a pause. It is named by a token that every request keeps once it was told, so whom it has still to reach is read from
//! the requests themselves: a pass that was interrupted goes on where it stopped, and a request that has consumed its label
//! meanwhile is not told twice. A request that would run only because the Promise has changed waits until it is told
//! (`request/turn.rs`), so that the setting `workflows.maxConcurrentReruns` bounds how many of them run.
//!
//! **Order.** Who has succeeded before, the longest ago first; then who has failed; then who is busy. So neither a
//! workflow that never ends nor one that fails each time keeps the others waiting. Nor does one whose pod cannot begin: it
//! gives its place to the next, and is named at the end.
//!
//! # Source
//! `03-promises.md` §13, §25 (8, 12, 13, 24, 29)

mod progress;
mod request;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kratix_api::pipeline::WorkflowType;
use kratix_api::{Promise, condition, keys};
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use super::{Finding, SAFETY_NET, Seen, Snapshot, Walk, Workflows, api, pause, requirement, revision};
use crate::object::Kind;
use crate::plan::Write;
use crate::workflow::history;

pub use progress::REQUESTS_UP_TO_DATE;
pub use request::{Refusal, Request, Standing};

/// The write that tells one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The request, as it was seen.
    pub request: Request,
    /// What it is told.
    pub write: Write,
    round: String,
}

impl Call {
    /// Returns the request as it is once it was told, for whoever looks again before a cache shows it.
    pub fn told(&self) -> Request {
        Request { round: Some(self.round.clone()), is_told: true, refusal: None, ..self.request.clone() }
    }
}

/// Annotation: on a Promise the round that is going on, on a request the last round it was told of.
pub const RERUN: &str = "internal.workflows.kratix.io/rerun";

/// How the token of a round ends which has begun with the end of a pause of the Promise.
const AFTER_PAUSE: &str = ".pause";

/// Requests told per pass: one pass stays short beside the passes of other Promises.
const REQUESTS_MAX: usize = 100;

/// Returns the round that is going on: the one that the Promise's annotation names, else that of its generation.
///
/// A new generation overtakes a round that began before it: whoever runs for the one need not run for the other.
pub(crate) fn going_on(promise: &Promise) -> Option<String> {
    let generation = promise.metadata.generation.unwrap_or_default();
    // The first generation has nothing to repeat: every request starts with it.
    let is_new = generation > 1 && observed_generation(promise) != generation;
    match promise.annotations().get(RERUN) {
        Some(round) if !is_new || covers(round, generation) => Some(round.clone()),
        _ if is_new => Some(format!("generation-{generation}")),
        _ => None,
    }
}

/// Returns whether a round has begun with the end of a pause of the Promise, which has paused its requests as well: they wait
/// until they are told. After a pause of its own a request does not wait for anybody.
pub(crate) fn is_after_pause(round: &str) -> bool {
    round.ends_with(AFTER_PAUSE)
}

/// Returns whether it matters to the Promise how the workflows of its requests stand.
pub fn follows_requests(promise: &Promise) -> bool {
    going_on(promise).is_some() || progress::is_open(promise)
}

/// Returns the requests whose Jobs it takes to see whether they run.
pub fn awaited<'a>(promise: &Promise, requests: &'a [Arc<Request>]) -> impl Iterator<Item = &'a Request> {
    let (is_followed, token) = (follows_requests(promise), going_on(promise));
    let requests = requests.iter().map(|request| &**request);
    requests.filter(move |request| is_followed && has_told(token.as_deref(), request) && hangs_on_jobs(request))
}

/// The requests that a round concerns and that are not being deleted.
struct Round<'a> {
    members: Vec<Member<'a>>,
}

/// How the round stands with one request.
#[derive(Clone, Copy)]
struct Member<'a> {
    request: &'a Request,
    /// Whether it was told of the round; once everybody was, of any.
    has_told: bool,
    /// Whether it is about to run or runs, if it was told.
    is_running: bool,
}

/// What the Jobs of one request tell.
#[derive(Clone, Copy, Default, PartialEq)]
struct Begun {
    /// Number of the last run that has a Job.
    run: i64,
    /// Whether one of them may still do something; a cache may show it before it shows what the request says of it.
    is_live: bool,
    /// When the last one was made.
    created: Option<Timestamp>,
}

impl Begun {
    /// Returns what is told with one Job more.
    fn and(self, job: &Job) -> Self {
        Self {
            run: history::run(job).max(self.run),
            is_live: self.is_live || history::is_live(job),
            created: history::created(job).max(self.created),
        }
    }
}

impl<'a> Round<'a> {
    /// Looks at the round named `token`; once everybody was told there is no such name.
    fn of(token: Option<&str>, requests: &'a [Arc<Request>], snapshot: &'a Snapshot, kind: &Kind) -> Self {
        let homes = snapshot.pipeline_namespaces(WorkflowType::Resource);
        let known: HashMap<_, _> = awaited(&snapshot.promise, requests)
            .map(|request| ((request.namespace.as_str(), request.name.as_str()), request.subject(kind)))
            .collect();
        let mut begun: HashMap<_, Begun> = HashMap::new();
        for job in &snapshot.awaited_jobs {
            let annotation = |key: &str| job.annotations().get(key).map(String::as_str);
            let key = annotation(keys::JOB_RESOURCE_NAMESPACE).zip(annotation(keys::JOB_RESOURCE_NAME));
            let Some((key, request)) = key.and_then(|key| Some((key, known.get(&key)?))) else { continue };
            let told = begun.get(&key).copied().unwrap_or_default();
            let now = told.and(job);
            // Most are old and say nothing new: whose they are is looked at last.
            if now != told && history::is_made_for(job, *request, &homes) {
                begun.insert(key, now);
            }
        }
        // Once everybody was told, who has come since began with what the others were told of.
        let concerns = |request: &&Request| !request.is_deleting && (token.is_some() || request.round.is_some());
        let member = |request: &'a Request| {
            let begun = begun.get(&(request.namespace.as_str(), request.name.as_str()));
            let has_told = has_told(token, request);
            Member { request, has_told, is_running: has_told && is_running(request, begun) }
        };
        let members = requests.iter().map(|request| &**request).filter(concerns).map(member).collect();
        Self { members }
    }

    /// Returns whom the round has still to reach, in the order in which they are told.
    fn untold(&self) -> Vec<&'a Request> {
        let untold = self.members.iter().filter(|member| !member.has_told);
        let mut untold: Vec<&Request> = untold.map(|member| member.request).collect();
        untold.sort_by_key(|request| {
            let never = request.last_success.is_none();
            (request.standing, never, &request.last_success, &request.namespace, &request.name)
        });
        untold
    }

    /// Returns how many of those that were told run.
    fn running(&self) -> usize {
        self.members.iter().filter(|member| member.is_running).count()
    }
}

/// Returns whether a request that was told is about to run or runs. One that is held does not, whatever it was told; nor does
/// one whose pod does not get on, which may last for ever: what it says of that is about its last Job.
fn is_running(request: &Request, begun: Option<&Begun>) -> bool {
    let begins = request.is_told || begun.is_some_and(|begun| begun.run < request.run);
    match request.standing {
        Standing::Held => false,
        Standing::Running => true,
        Standing::Hanging => begins || begun.is_some_and(|begun| request.hangs_since < begun.created),
        Standing::Settled | Standing::Failed => begins || begun.is_some_and(|begun| begun.is_live),
    }
}

/// Returns whether a request was told of a round; once everybody was, of any.
fn has_told(token: Option<&str>, request: &Request) -> bool {
    request.round.is_some() && (token.is_none() || request.round.as_deref() == token)
}

/// Returns whether it takes the Jobs of a request to see that it runs, see [`is_running`].
fn hangs_on_jobs(request: &Request) -> bool {
    !request.is_told && !matches!(request.standing, Standing::Held | Standing::Running)
}

/// Returns the round that the Promise's annotation names.
fn round_by_annotation(snapshot: &Snapshot) -> Option<&str> {
    snapshot.promise.annotations().get(RERUN).map(String::as_str)
}

/// Returns whether a round includes a generation, so that this does not need a round of its own.
fn covers(round: &str, generation: i64) -> bool {
    round.split_once('.').is_some_and(|(covered, _)| covered == generation.to_string())
}

fn observed_generation(promise: &Promise) -> i64 {
    promise.status.as_ref().map_or(0, |status| status.observed_generation)
}

fn left<'a>(requests: &'a [Arc<Request>], round: &'a str) -> impl Iterator<Item = &'a Arc<Request>> {
    requests.iter().filter(move |request| !request.is_deleting && request.round.as_deref() != Some(round))
}

/// Returns the write that begins a round asked for by label or by the end of a pause, or ends the one that is over.
///
/// The end of a pause is acted upon by this one write, whatever it starts; only then does the status forget the pause.
pub(super) fn own_metadata(snapshot: &Snapshot) -> Option<Write> {
    let round = round_by_annotation(snapshot);
    let was_paused = pause::is_recorded(snapshot);
    let by_label = snapshot.has_label(keys::RECONCILE_RESOURCES);
    let mut labels = Map::new();
    if by_label {
        labels.insert(keys::RECONCILE_RESOURCES.into(), Value::Null);
    }
    if was_paused && snapshot.configure_pipelines() > 0 && !snapshot.has_label(keys::RUN_FROM_START) {
        labels.insert(keys::RUN_FROM_START.into(), keys::TRUE.into());
        if snapshot.promise.labels().contains_key(keys::WORKFLOW_SUSPENDED) {
            labels.insert(keys::WORKFLOW_SUSPENDED.into(), Value::Null);
        }
    }
    let mut patch = Map::new();
    // Whoever a pause has left waiting goes on waiting, whatever begins meanwhile.
    let is_after_pause = round.is_some_and(is_after_pause);
    let is_overtaken = round.is_some() && going_on(&snapshot.promise).as_deref() != round;
    let is_continued = if was_paused { !is_after_pause } else { is_after_pause && is_overtaken };
    if by_label || (snapshot.promise.spec.has_api() && is_continued) {
        let version = snapshot.promise.resource_version().unwrap_or_default();
        let cause = if was_paused || is_after_pause { AFTER_PAUSE } else { "" };
        let round = format!("{}.{version}{cause}", snapshot.generation());
        patch.insert("annotations".into(), json!({ RERUN: round }));
    }
    if !labels.is_empty() {
        patch.insert("labels".into(), labels.into());
    }
    if !patch.is_empty() {
        return Write::metadata(snapshot.target(), &patch.into());
    }
    let round = round?;
    let generation = snapshot.generation();
    let is_told = snapshot.requests.as_ref().is_some_and(|requests| left(requests, round).next().is_none());
    let is_recorded = observed_generation(&snapshot.promise) == generation || !covers(round, generation);
    if snapshot.promise.spec.has_api() && (was_paused || !(is_overtaken || (is_told && is_recorded))) {
        return None;
    }
    Write::metadata(snapshot.target(), &json!({ "annotations": { RERUN: Value::Null } }))
}

/// Tells the next requests, and records the generation once all are told.
pub(super) fn keep(walk: &mut Walk<'_>, seen: &Seen) {
    let snapshot = walk.snapshot;
    if seen.workflow != Workflows::Finished || seen.requirements != requirement::State::Fulfilled {
        return;
    }
    let generation = snapshot.generation();
    let Some(kind) = api::established_kind(snapshot) else {
        if seen.api == api::State::Absent {
            walk.status.now.observed_generation = generation;
            condition::remove(&mut walk.status.now.conditions, REQUESTS_UP_TO_DATE);
        }
        return;
    };
    let Some(token) = going_on(&snapshot.promise) else {
        walk.status.now.observed_generation = generation;
        follow(walk, &kind);
        return;
    };
    // Requests that follow the latest revision must find the one of this spec.
    if seen.revision != revision::State::Latest {
        return;
    }
    let Some(requests) = &snapshot.requests else { return };
    let round = Round::of(Some(&token), requests, snapshot, &kind);
    let untold = round.untold();
    let free = snapshot.settings.config.workflows.reruns_max.saturating_sub(round.running()).min(REQUESTS_MAX);
    let is_asked = |request: &&&Request| request.refusal.as_ref().is_none_or(|refusal| is_over(refusal, snapshot.now));
    for request in untold.iter().filter(is_asked).take(free) {
        let patch = json!({
            "metadata": { "labels": { keys::RUN_FROM_START: keys::TRUE }, "annotations": { RERUN: token } }
        });
        let write = Write::Patch { target: request.target(&kind), patch };
        walk.calls.push(Call { request: (*request).clone(), write, round: token.clone() });
    }
    let left = untold.len() - walk.calls.len();
    let by_annotation = round_by_annotation(snapshot).is_some();
    // Told once: when the round reaches its first request, or with its end if there is none.
    let begins = || snapshot.normal("ReconcilingResources", "Reconciling all resource requests");
    if !walk.calls.is_empty() && untold.len() == round.members.len() {
        walk.announcement = Some(begins());
    } else if round.members.is_empty() && !by_annotation {
        walk.events.push(begins());
    }
    if untold.is_empty() {
        walk.status.now.observed_generation = generation;
    } else {
        walk.findings.push(Finding::Rerunning { left });
        walk.look_again(SAFETY_NET);
    }
    progress::tell(walk, &round);
}

/// Returns whether a request that could not be told is to be told once more: the cause may lie where no watch sees it.
fn is_over(refusal: &Refusal, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(refusal.at)).is_ok_and(|since| since >= SAFETY_NET)
}

/// Follows those that were told last, once everybody was, until they have run.
fn follow(walk: &mut Walk<'_>, kind: &Kind) {
    let snapshot = walk.snapshot;
    let Some(requests) = snapshot.requests.as_ref().filter(|_| progress::is_open(&snapshot.promise)) else { return };
    progress::tell(walk, &Round::of(None, requests, snapshot, kind));
    walk.look_again(SAFETY_NET);
}
