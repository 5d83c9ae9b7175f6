//! The shell around one pod: it observes, asks [`decide`](super::decide), starts and stops containers, and reports.
//!
//! A worker lives from the moment the pod is this node's until it is over or gone. Everything that happens comes through one
//! loop, so there is nothing to lock. The record is saved before anything is told to the API server: what others see has happened.

mod ending;
mod memory;
mod report;
mod volumes;
mod wake;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::launch::{Launch, Progress};
use super::run;
use super::{Ended, Phase, Record, Snapshot, State, Steps, deadline, decide};
use crate::cache::Key;
use crate::event::Event;
use crate::node::{Actor, Context};
use crate::volume::Volumes;
use wake::Wake;

/// How long the first status waits: a pod that is through by then is told about once.
const FIRST_WRITE: SignedDuration = SignedDuration::from_millis(250);
/// Least time between two statuses that are not the last.
const WRITE_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// Pause after a failed write, and before an obstacle is looked at again.
const RETRY: SignedDuration = SignedDuration::from_secs(2);
/// Reason of the status of a pod that waits for its turn.
const TOO_MANY_PODS: &str = "TooManyPods";
/// A pod that waits this long for its turn says so.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// A pod has a handful of containers, each with few things to say.
const REPORTS_MAX: usize = 64;

type Write = Pin<Box<dyn Future<Output = kube::Result<Pod>> + Send>>;

/// What became of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is nothing left to do for this pod.
    Done,
    /// The node is stopping.
    Stopped,
}

pub(crate) struct Worker {
    cx: Arc<Context>,
    key: Key,
    uid: String,
    record: Record,
    in_flight: BTreeMap<String, mpsc::Sender<i32>>,
    /// Containers that were told to end, and when they are killed.
    stopping: BTreeMap<String, Timestamp>,
    /// Containers that met an obstacle, and when it is looked at again.
    blocked: BTreeMap<String, Timestamp>,
    report: mpsc::Sender<Progress>,
    reports: mpsc::Receiver<Progress>,
    permit: Option<OwnedSemaphorePermit>,
    volumes: Option<Volumes>,
    volumes_retry: Option<(Timestamp, String)>,
    /// When the volumes are weighed next.
    weigh_at: Timestamp,
    finished: Option<Phase>,
    dirty: bool,
    write_at: Timestamp,
    writing: Option<Write>,
    queued_at: Timestamp,
}

impl Worker {
    pub(crate) fn new(cx: Arc<Context>, key: Key, uid: String) -> Self {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let now = Timestamp::now();
        Self {
            cx,
            key,
            uid,
            record: Record::default(),
            in_flight: BTreeMap::new(),
            stopping: BTreeMap::new(),
            blocked: BTreeMap::new(),
            report,
            reports,
            permit: None,
            volumes: None,
            volumes_retry: None,
            weigh_at: now,
            finished: None,
            dirty: false,
            write_at: now.saturating_add(FIRST_WRITE).unwrap_or(now),
            writing: None,
            queued_at: now,
        }
    }

    /// Takes care of the pod until it is over.
    pub(crate) async fn run(mut self, actor: Arc<Actor>) -> Outcome {
        let cx = self.cx.clone();
        tokio::select! {
            () = self.restore() => {}
            // Nothing was begun yet, and what an earlier process has left stays as it is.
            () = cx.stopping.cancelled() => return Outcome::Stopped,
        }
        let mut turn = None;
        loop {
            let now = Timestamp::now();
            if cx.stopping.is_cancelled() {
                return self.shut_down().await;
            }
            let current = cx.pods.get(&self.key).filter(|pod| pod.metadata.uid.as_deref() == Some(&self.uid));
            let mut wake = Wake::default();
            let Some(pod) = current else {
                return self.clean_up().await;
            };
            if pod.metadata.deletion_timestamp.is_some() {
                if self.terminate(&pod, now, &mut wake).await {
                    return self.clean_up().await;
                }
            } else if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
                self.bind(&pod).await;
                wake.at(now.saturating_add(RETRY).unwrap_or(now));
            } else if self.finished.is_none() {
                self.step(&pod, now, &mut wake, &mut turn).await;
            } else if !self.dirty && self.writing.is_none() {
                return self.conclude().await;
            }
            self.kill_overdue(now, &mut wake);
            self.write_when_due(&pod, now, &mut wake);

            let sleep = tokio::time::sleep(wake.until(Timestamp::now()));
            tokio::select! {
                () = actor.notified() => {}
                Some(progress) = self.reports.recv() => {
                    self.observe(&pod, progress);
                    // What came at the same moment is told in the same status.
                    while let Ok(progress) = self.reports.try_recv() {
                        self.observe(&pod, progress);
                    }
                }
                written = poll_some(&mut self.writing) => {
                    self.writing = None;
                    self.written(written).await;
                }
                permit = poll_some(&mut turn) => {
                    turn = None;
                    self.permit = permit.ok();
                }
                () = cx.stopping.cancelled() => {}
                () = sleep => {}
            }
        }
    }

    /// Decides and does the next steps.
    async fn step(&mut self, pod: &Arc<Pod>, now: Timestamp, wake: &mut Wake, turn: &mut Option<Turn>) {
        if !self.record.doomed && deadline(pod, &self.record).is_some_and(|deadline| deadline <= now) {
            self.doom(pod, "DeadlineExceeded", "Pod was active on the node longer than the specified deadline");
        }
        let busy: BTreeSet<String> = self.in_flight.keys().cloned().collect();
        let snapshot = Snapshot { now, pod, record: &self.record, busy: &busy, backoff: self.cx.restart_backoff };
        let Steps { mut start, stop, finish, next, mut idle } = decide(&snapshot);
        wake.maybe(next);
        for name in stop {
            self.stop(pod, &name, now);
        }
        if let Some(phase) = finish {
            self.finished = Some(phase);
            self.permit = None;
            *turn = None;
            self.withdraw(TOO_MANY_PODS);
            self.changed();
            self.write_at = now;
            return;
        }
        if !self.record.doomed && self.evict_if_overfull(pod, now, wake).await {
            wake.at(now);
            return;
        }
        start.retain(|name| match self.blocked.get(name) {
            Some(at) if *at > now => {
                wake.at(*at);
                false
            }
            _ => true,
        });
        if let Some((at, _)) = &self.volumes_retry
            && *at > now
        {
            wake.at(*at);
            start.clear();
        }
        idle |= start.is_empty() && self.in_flight.is_empty();
        if idle {
            // Waiting for a back-off or an image takes no one's place.
            self.permit = None;
        }
        if start.is_empty() {
            self.renew_tokens(pod, now, wake).await;
            return;
        }
        if self.permit.is_none() {
            if turn.is_none() {
                self.queued_at = now;
                let slots = self.cx.slots.clone();
                *turn = Some(Box::pin(slots.acquire_owned()));
            }
            self.complain_about_waiting(now, wake);
            return;
        }
        self.withdraw(TOO_MANY_PODS);
        if self.record.started_at.is_none() {
            self.record.started_at = Some(now);
            self.changed();
            let (namespace, name) = (&self.key.namespace, &self.key.name);
            let text = format!("Successfully assigned {namespace}/{name} to {}", self.cx.node);
            self.cx.recorder.record(pod.as_ref(), None, Event::routine("Scheduled", text));
            // The deadline counts from here.
            wake.maybe(deadline(pod, &self.record));
        }
        if !self.prepare_volumes(pod, now).await {
            wake.at(now.saturating_add(RETRY).unwrap_or(now));
            return;
        }
        for name in start {
            self.launch(pod, &name);
        }
        self.renew_tokens(pod, now, wake).await;
    }

    /// Decides that the pod ends and has failed.
    fn doom(&mut self, pod: &Pod, reason: &str, message: &str) {
        self.record.doomed = true;
        self.record.note = Some((reason.into(), message.into()));
        self.cx.recorder.record(pod, None, Event::warning(reason, message));
        self.changed();
    }

    /// Takes back what the pod's status says with this reason.
    fn withdraw(&mut self, reason: &str) {
        if self.record.note.as_ref().is_some_and(|(noted, _)| noted == reason) {
            self.record.note = None;
            self.changed();
        }
    }

    /// Starts one run of a container.
    fn launch(&mut self, pod: &Arc<Pod>, name: &str) {
        let Some(spec) = &pod.spec else { return };
        let is_init = spec.init_containers.iter().flatten().any(|container| container.name == name);
        let Some(container) = crate::downward::container(pod, name).cloned() else { return };
        let again = self.blocked.remove(name).is_some();
        let record = self.record.container(name);
        record.begin();
        let run = record.runs;
        let (signal, signals) = mpsc::channel(8);
        self.in_flight.insert(name.to_owned(), signal);
        let launch = Launch {
            cx: self.cx.clone(),
            pod: pod.clone(),
            container,
            is_init,
            volumes: self.volumes.clone().unwrap_or_default(),
            run,
            report: self.report.clone(),
            signals,
            again,
        };
        self.cx.tasks.spawn(launch.run());
    }

    /// Takes note of what a run reports.
    fn observe(&mut self, pod: &Pod, progress: Progress) {
        match progress {
            Progress::Blocked { container, reason, message } => {
                self.in_flight.remove(&container);
                let retry = Timestamp::now().saturating_add(RETRY).unwrap_or(Timestamp::MAX);
                self.blocked.insert(container.clone(), retry);
                let problem = Some((reason.to_owned(), message));
                let record = self.record.container(&container);
                if record.state != (State::Waiting { problem: problem.clone() }) {
                    record.state = State::Waiting { problem };
                    self.changed();
                }
            }
            Progress::Started { container, image_id, container_id, at } => {
                let record = self.record.container(&container);
                record.runs += 1;
                record.image_id = image_id;
                record.container_id = Some(container_id);
                record.state = State::Running { started_at: at };
                self.changed();
            }
            Progress::Ended { container, ended, interrupted } => {
                self.in_flight.remove(&container);
                self.stopping.remove(&container);
                self.weigh_at = Timestamp::now();
                if interrupted && self.cx.stopping.is_cancelled() {
                    // What this node interrupts by stopping is unknown at the next start, whatever its exit code: a program
                    // that ends in good order when it is told to has not done its work.
                    return;
                }
                self.ended(pod, &container, ended);
            }
        }
    }

    fn ended(&mut self, pod: &Pod, container: &str, ended: Ended) {
        let record = self.record.container(container);
        if matches!(record.state, State::Waiting { .. }) {
            record.runs += 1; // it never ran, but the attempt counts
        }
        record.container_id.clone_from(&ended.container_id);
        record.state = State::Ended(ended);
        let run = record.runs - 1;
        let snapshot = Snapshot {
            now: Timestamp::now(),
            pod,
            record: &self.record,
            busy: &self.in_flight.keys().cloned().collect(),
            backoff: self.cx.restart_backoff,
        };
        if let Some(at) = decide(&snapshot).next.filter(|at| *at > snapshot.now)
            && self.record.containers[container].restarts > 0
        {
            tracing::debug!(pod = %self.key.name, container, %at, "backing off");
            let meta = &pod.metadata;
            let text = format!(
                "Back-off restarting failed container {container} in pod {}_{}({})",
                self.key.name,
                self.key.namespace,
                meta.uid.as_deref().unwrap_or_default()
            );
            let field = format!("spec.containers{{{container}}}");
            self.cx.recorder.record(pod, Some(field), Event::warning("BackOff", text));
        }
        if self.changed() {
            // Known from the record from now on.
            let _ = std::fs::remove_file(run::file(&self.directory().join(run::DIRECTORY), container, run));
        }
    }

    fn complain_about_waiting(&mut self, now: Timestamp, wake: &mut Wake) {
        let patience = self.queued_at.saturating_add(PATIENCE).unwrap_or(now);
        if patience > now {
            wake.at(patience);
        } else if self.record.note.is_none() {
            let message =
                format!("waiting for one of the {} pods that run at once on node {}", self.cx.max_pods, self.cx.node);
            self.record.note = Some((TOO_MANY_PODS.into(), message));
            self.changed();
        }
    }

    /// Assigns a pod to this node that nobody has assigned.
    async fn bind(&mut self, pod: &Pod) {
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
        let target = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.cx.node.clone()),
            ..ObjectReference::default()
        };
        let metadata =
            ObjectMeta { name: pod.metadata.name.clone(), uid: pod.metadata.uid.clone(), ..ObjectMeta::default() };
        let binding = Binding { metadata, target };
        let parameters = PostParams::default();
        let bound =
            api.create_subresource::<_, serde_json::Value>("binding", &self.key.name, &parameters, &binding).await;
        if let Err(error) = bound {
            tracing::debug!(pod = %self.key.name, error = %error, "a pod could not be bound");
        }
        if let Ok(Some(latest)) = api.get_opt(&self.key.name).await {
            self.cx.observe_pod(latest);
        }
    }

    fn directory(&self) -> PathBuf {
        self.cx.pod_directory(&self.uid)
    }
}

type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, tokio::sync::AcquireError>> + Send>>;

/// Polls a future that may not be there; without one it never completes.
async fn poll_some<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
