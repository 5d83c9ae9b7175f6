//! Pod: which containers to start next, and when it is over. Pure: the API's Pod, the node's record of it, and the time.
//!
//! The record is the node's own memory, kept in a file beside the pod's volumes. Together with the files of runs ([`run`]) it
//! says after a crash of the node which steps were done.
//!
//! **Invariant:** a container that ended of its own accord with 0 is never run again for that, whenever the node dies. One that was
//! interrupted ended, nobody knows how: policy decides, as after a restart of a kubelet's machine.

pub(crate) mod launch;
pub(crate) mod run;
mod status;
pub(crate) mod worker;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use serde::{Deserialize, Serialize};

pub(crate) use status::render;

/// Pause before the second restart of a container; it doubles with each further one. The first restart is immediate.
pub(crate) const RESTART_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// Longest pause before a restart.
const RESTART_BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(5);

/// What the node knows of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) containers: BTreeMap<String, ContainerRecord>,
    /// Why the whole pod was ended or is waiting, as `(reason, message)`.
    pub(crate) note: Option<(String, String)>,
    /// The pod is to be ended and has failed, for the reason in `note`.
    pub(crate) doomed: bool,
}

/// What the node knows of one container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) state: State,
    /// How the run before the current one ended.
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    /// Runs so far; also the number of the next log file.
    pub(crate) runs: u32,
    pub(crate) image_id: String,
    pub(crate) container_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Not started, or not again; the reason is `None` while nothing is wrong.
    Waiting {
        problem: Option<(String, String)>,
    },
    Running {
        started_at: Timestamp,
    },
    Ended(Ended),
}

impl Default for State {
    fn default() -> Self {
        Self::Waiting { problem: None }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
    pub(crate) container_id: Option<String>,
}

impl Ended {
    /// Says how a program ended.
    pub(crate) fn of(code: i32, signal: Option<i32>, finished_at: Timestamp) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" }.into();
        Self { code, signal, reason, message: None, started_at: None, finished_at, container_id: None }
    }
}

impl Record {
    pub(crate) fn container(&mut self, name: &str) -> &mut ContainerRecord {
        self.containers.entry(name.to_owned()).or_default()
    }

    fn state(&self, name: &str) -> &State {
        const WAITING: &State = &State::Waiting { problem: None };
        self.containers.get(name).map_or(WAITING, |container| &container.state)
    }

    /// Takes note of a run that an earlier process began, whether or not the record heard of it.
    ///
    /// `ended` is how it ended of its own accord; without, it is taken for running, see [`Self::after_restart`].
    pub(crate) fn recall(&mut self, name: &str, run: u32, ended: Option<Ended>, began: Timestamp) {
        let container = self.container(name);
        let known = container.runs > run;
        if known && (container.runs > run + 1 || !matches!(container.state, State::Running { .. })) {
            return; // to its end
        }
        if !known {
            container.begin();
            container.runs = run + 1;
            container.state = State::Running { started_at: began };
        }
        if let Some(mut ended) = ended {
            if let State::Running { started_at } = container.state {
                ended.started_at = Some(started_at);
            }
            ended.container_id.clone_from(&container.container_id);
            container.state = State::Ended(ended);
        }
    }

    /// Turns what ran when the node stopped into what it is now: ended, nobody knows how.
    pub(crate) fn after_restart(&mut self, now: Timestamp) {
        for container in self.containers.values_mut() {
            if let State::Running { started_at } = container.state {
                container.state = State::Ended(Ended {
                    code: 137,
                    signal: Some(9),
                    reason: "ContainerStatusUnknown".into(),
                    message: Some("The container ended together with the node that ran it".into()),
                    started_at: Some(started_at),
                    finished_at: now,
                    container_id: container.container_id.clone(),
                });
            }
        }
    }
}

impl ContainerRecord {
    /// Another run begins: what ended before becomes the last one.
    pub(crate) fn begin(&mut self) {
        if let State::Ended(ended) = &self.state {
            self.last = Some(ended.clone());
            self.restarts += 1;
            self.state = State::default();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Succeeded,
    Failed,
}

/// Everything the decision may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot<'a> {
    pub(crate) now: Timestamp,
    pub(crate) pod: &'a Pod,
    pub(crate) record: &'a Record,
    /// Containers that are being started or stopped at the moment.
    pub(crate) busy: &'a BTreeSet<String>,
    /// See [`RESTART_BACKOFF`].
    pub(crate) backoff: SignedDuration,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Steps {
    pub(crate) start: Vec<String>,
    /// Containers to stop: their work is over.
    pub(crate) stop: Vec<String>,
    /// The pod is over.
    pub(crate) finish: Option<Phase>,
    /// When a back-off ends.
    pub(crate) next: Option<Timestamp>,
    /// Nothing is running or about to: the pod's place among the running pods may go to another.
    pub(crate) idle: bool,
}

/// Decides what a pod needs.
pub(crate) fn decide(snapshot: &Snapshot<'_>) -> Steps {
    let Some(spec) = snapshot.pod.spec.as_ref() else { return Steps::default() };
    let (record, policy) = (snapshot.record, RestartPolicy::of(snapshot.pod));
    let mut steps = Steps::default();
    if record.doomed {
        return wind_up(snapshot, Phase::Failed);
    }
    let expired = spec
        .active_deadline_seconds
        .zip(record.started_at)
        .map(|(seconds, start)| start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX));
    steps.next = expired;

    // Sidecars serve the others: once these are through, one that has ended is not needed again.
    let through = spec.containers.iter().all(|container| match record.state(&container.name) {
        State::Ended(ended) => !restarts(policy, ended),
        _ => false,
    });
    for container in spec.init_containers.iter().flatten() {
        let name = &container.name;
        if is_sidecar(container) {
            match record.state(name) {
                State::Running { .. } => continue,
                _ if through => continue,
                _ => {
                    steps.start_when_due(snapshot, name);
                    return steps.settle(snapshot);
                }
            }
        }
        match record.state(name) {
            State::Ended(ended) if ended.code == 0 => {}
            State::Ended(_) if policy == RestartPolicy::Never => return wind_up(snapshot, Phase::Failed),
            State::Running { .. } => return steps.settle(snapshot),
            State::Waiting { .. } | State::Ended(_) => {
                steps.start_when_due(snapshot, name);
                return steps.settle(snapshot);
            }
        }
    }

    let (mut over, mut failed) = (true, false);
    for container in &spec.containers {
        let name = &container.name;
        let again = match record.state(name) {
            State::Running { .. } => {
                over = false;
                false
            }
            State::Waiting { .. } => true,
            State::Ended(ended) => {
                failed |= ended.code != 0;
                restarts(policy, ended)
            }
        };
        if again {
            over = false;
            steps.start_when_due(snapshot, name);
        }
    }
    if over {
        return wind_up(snapshot, if failed { Phase::Failed } else { Phase::Succeeded });
    }
    steps.settle(snapshot)
}

/// Tells whether a container that is not an init container runs again.
fn restarts(policy: RestartPolicy, ended: &Ended) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => ended.code != 0,
        RestartPolicy::Never => false,
    }
}

/// Stops what still runs and then finishes.
fn wind_up(snapshot: &Snapshot<'_>, phase: Phase) -> Steps {
    let stop: Vec<String> = snapshot.running().map(str::to_owned).collect();
    let finish = (stop.is_empty() && snapshot.busy.is_empty()).then_some(phase);
    Steps { stop, finish, ..Steps::default() }
}

impl<'a> Snapshot<'a> {
    fn running(&self) -> impl Iterator<Item = &'a str> {
        let running = |record: &ContainerRecord| matches!(record.state, State::Running { .. });
        self.record.containers.iter().filter(move |(_, record)| running(record)).map(|(name, _)| name.as_str())
    }
}

impl Steps {
    fn start_when_due(&mut self, snapshot: &Snapshot<'_>, name: &str) {
        if snapshot.busy.contains(name) {
            return;
        }
        match snapshot.record.containers.get(name).and_then(|container| due(container, snapshot.backoff)) {
            Some(due) if due > snapshot.now => self.next = Some(self.next.map_or(due, |next| next.min(due))),
            _ => self.start.push(name.to_owned()),
        }
    }

    fn settle(mut self, snapshot: &Snapshot<'_>) -> Self {
        self.idle = self.start.is_empty() && snapshot.busy.is_empty() && snapshot.running().next().is_none();
        self
    }
}

/// Returns when a container that has ended may run again.
pub(crate) fn due(container: &ContainerRecord, backoff: SignedDuration) -> Option<Timestamp> {
    let State::Ended(ended) = &container.state else { return None };
    let pause = restart_pause(container.restarts, backoff);
    Some(ended.finished_at.saturating_add(pause).unwrap_or(Timestamp::MAX))
}

/// Returns the pause before the next restart after `restarts` of them.
pub(crate) fn restart_pause(restarts: i32, backoff: SignedDuration) -> SignedDuration {
    match u32::try_from(restarts) {
        Ok(0) | Err(_) => SignedDuration::ZERO,
        Ok(n) => backoff.checked_mul(1 << (n - 1).min(16)).unwrap_or(RESTART_BACKOFF_MAX).min(RESTART_BACKOFF_MAX),
    }
}

/// Tells whether an init container is to keep running beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Rebuilds a record from the API's status, for a node whose own files are lost. `None` for a pod that never began.
pub(crate) fn from_status(pod: &Pod) -> Option<Record> {
    let status = pod.status.as_ref()?;
    let mut record = Record { started_at: Some(status.start_time.as_ref()?.0), ..Record::default() };
    let statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for status in statuses {
        let state = status.state.clone().unwrap_or_default();
        let ended = state.terminated.or_else(|| status.last_state.clone().unwrap_or_default().terminated);
        let running = state.running.map(|running| running.started_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0));
        let state = match (running, ended) {
            (Some(started_at), _) => State::Running { started_at },
            (None, Some(ended)) => State::Ended(Ended {
                code: ended.exit_code,
                signal: ended.signal,
                reason: ended.reason.unwrap_or_default(),
                message: ended.message,
                started_at: ended.started_at.map(|time| time.0),
                finished_at: ended.finished_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
                container_id: ended.container_id,
            }),
            (None, None) => continue,
        };
        let container = record.container(&status.name);
        container.state = state;
        container.restarts = status.restart_count;
        container.runs = u32::try_from(status.restart_count).unwrap_or(0) + 1;
        container.image_id.clone_from(&status.image_id);
        container.container_id.clone_from(&status.container_id);
    }
    Some(record)
}

/// Returns when a pod has to end at the latest.
pub(crate) fn deadline(pod: &Pod, record: &Record) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    record.started_at?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests;
