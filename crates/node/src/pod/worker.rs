//! The shell around one pod: it observes, asks [`decide`](super::decide), starts and stops containers, and reports.
//!
//! A worker lives from the moment the pod is this node's until it is over or gone. Everything that happens comes through one
//! loop, so there is nothing to lock. The record is saved before anything is told to the API server: what others see has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::launch::{self, Launch, Progress};
use super::run::{self, Left};
use super::{Ended, Phase, Record, Snapshot, State, Steps, deadline, decide, from_status, render};
use crate::cache::Key;
use crate::event::Event;
use crate::node::{Actor, Context};
use crate::objects::CALL;
use crate::volume::{Setup, Volumes};

/// How long the first status waits: a pod that is through by then is told about once.
const FIRST_WRITE: SignedDuration = SignedDuration::from_millis(250);
/// Least time between two statuses that are not the last.
const WRITE_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// Pause after a failed write, and before an obstacle is looked at again.
const RETRY: SignedDuration = SignedDuration::from_secs(2);
/// A pod that waits this long for its turn says so.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// Kubernetes' default.
const GRACE_SECONDS: i64 = 30;
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
            self.record.doomed = true;
            let message = "Pod was active on the node longer than the specified deadline";
            self.record.note = Some(("DeadlineExceeded".into(), message.into()));
            self.cx.recorder.record(pod.as_ref(), None, Event::warning("DeadlineExceeded", message));
            self.changed();
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
            if self.record.note.as_ref().is_some_and(|(reason, _)| reason == "TooManyPods") {
                self.record.note = None;
            }
            self.changed();
            self.write_at = now;
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
        if self.record.note.as_ref().is_some_and(|(reason, _)| reason == "TooManyPods") {
            self.record.note = None;
        }
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

    /// Makes the volumes if they are not there yet; `false` if that has to wait.
    async fn prepare_volumes(&mut self, pod: &Pod, now: Timestamp) -> bool {
        if self.volumes.is_some() {
            return true;
        }
        match set_up_volumes(&self.cx, &self.directory(), pod).await {
            Ok(volumes) => {
                self.volumes = Some(volumes);
                self.volumes_retry = None;
                true
            }
            Err(message) => {
                let known = self.volumes_retry.as_ref().is_some_and(|(_, text)| *text == message);
                if !known {
                    self.cx.recorder.record(pod, None, Event::warning("FailedMount", message.clone()));
                }
                self.volumes_retry = Some((now.saturating_add(RETRY).unwrap_or(now), message));
                false
            }
        }
    }

    /// Replaces tokens before they expire.
    async fn renew_tokens(&mut self, pod: &Pod, now: Timestamp, wake: &mut Wake) {
        let Some(at) = self.volumes.as_ref().and_then(|volumes| volumes.renew_at) else { return };
        if at > now {
            wake.at(at);
            return;
        }
        match set_up_volumes(&self.cx, &self.directory(), pod).await {
            Ok(volumes) => self.volumes = Some(volumes),
            Err(error) => {
                tracing::warn!(pod = %self.key.name, error, "tokens could not be renewed");
                if let Some(volumes) = &mut self.volumes {
                    volumes.renew_at = now.saturating_add(RETRY).ok();
                }
            }
        }
        wake.maybe(self.volumes.as_ref().and_then(|volumes| volumes.renew_at));
    }

    fn complain_about_waiting(&mut self, now: Timestamp, wake: &mut Wake) {
        let patience = self.queued_at.saturating_add(PATIENCE).unwrap_or(now);
        if patience > now {
            wake.at(patience);
        } else if self.record.note.is_none() {
            let message =
                format!("waiting for one of the {} pods that run at once on node {}", self.cx.max_pods, self.cx.node);
            self.record.note = Some(("TooManyPods".into(), message));
            self.changed();
        }
    }

    /// Asks a container to end; it is killed if it takes longer than the pod allows.
    fn stop(&mut self, pod: &Pod, name: &str, now: Timestamp) {
        if self.stopping.contains_key(name) {
            return;
        }
        let deleting = pod.metadata.deletion_grace_period_seconds;
        let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = deleting.or(own).unwrap_or(GRACE_SECONDS).clamp(0, 86_400);
        let signal = if seconds == 0 { libc::SIGKILL } else { libc::SIGTERM };
        if let Some(container) = self.in_flight.get(name) {
            let _ = container.try_send(signal);
        }
        let kill_at = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        self.stopping.insert(name.to_owned(), kill_at);
        self.cx.recorder.record(
            pod,
            Some(format!("spec.containers{{{name}}}")),
            Event::routine("Killing", format!("Stopping container {name}")),
        );
    }

    fn kill_overdue(&mut self, now: Timestamp, wake: &mut Wake) {
        for (name, at) in &mut self.stopping {
            if *at > now {
                wake.at(*at);
            } else if let Some(container) = self.in_flight.get(name) {
                let _ = container.try_send(libc::SIGKILL);
                // Once is enough, but a container that is only just being started would miss it.
                *at = now.saturating_add(WRITE_INTERVAL).unwrap_or(now);
                wake.at(*at);
            }
        }
    }

    /// Ends a pod that is being deleted; `true` once it is gone from the API server.
    async fn terminate(&mut self, pod: &Pod, now: Timestamp, wake: &mut Wake) -> bool {
        let names: Vec<String> = self.in_flight.keys().cloned().collect();
        for name in &names {
            self.stop(pod, name, now);
        }
        self.permit = None;
        if !names.is_empty() {
            return false;
        }
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match tokio::time::timeout(CALL, api.delete(&self.key.name, &parameters)).await {
            Ok(Ok(answer)) => {
                // Finalizers of others may still hold the object; there is nothing left for us to do.
                match answer.left() {
                    Some(left)
                        if left.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty()) => {}
                    _ => self.cx.forget_pod(pod),
                }
                true
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                self.cx.forget_pod(pod);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(pod = %self.key.name, error = %error, "a pod could not be removed");
                wake.at(now.saturating_add(RETRY).unwrap_or(now));
                false
            }
            Err(_) => {
                wake.at(now);
                false
            }
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

    /// There is something to tell; `true` if it is saved as well.
    fn changed(&mut self) -> bool {
        self.dirty = true;
        self.save()
    }

    /// Starts writing the status if something has changed and enough time has passed.
    fn write_when_due(&mut self, pod: &Arc<Pod>, now: Timestamp, wake: &mut Wake) {
        if !self.dirty || self.writing.is_some() || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        if self.write_at > now {
            wake.at(self.write_at);
            return;
        }
        self.dirty = false;
        let status = render(pod, &self.record, self.finished, &self.cx.place, self.cx.restart_backoff, now);
        if pod.status.as_ref() == Some(&status) {
            wake.at(now);
            return;
        }
        let mut body = pod.as_ref().clone();
        body.status = Some(status);
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
        let name = self.key.name.clone();
        self.write_at = now.saturating_add(WRITE_INTERVAL).unwrap_or(now);
        self.writing = Some(Box::pin(async move {
            let parameters = PostParams::default();
            let write = api.replace_status(&name, &parameters, &body);
            match tokio::time::timeout(CALL, write).await {
                Ok(written) => written,
                Err(_) => Err(kube::Error::Service("no answer in time".into())),
            }
        }));
    }

    async fn written(&mut self, written: kube::Result<Pod>) {
        let now = Timestamp::now();
        match written {
            Ok(pod) => self.cx.observe_pod(pod),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                // Somebody else has changed the pod: write again on top of that.
                self.dirty = true;
                self.write_at = now;
                let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
                match tokio::time::timeout(CALL, api.get_opt(&self.key.name)).await {
                    Ok(Ok(Some(pod))) if pod.metadata.uid.as_deref() == Some(&self.uid) => self.cx.observe_pod(pod),
                    Ok(Ok(_)) => {
                        if let Some(pod) = self.cx.pods.get(&self.key) {
                            self.cx.forget_pod(&pod);
                        }
                    }
                    _ => self.write_at = now.saturating_add(RETRY).unwrap_or(now),
                }
            }
            Err(error) => {
                tracing::warn!(pod = %self.key.name, error = %error, "a pod's status could not be written");
                self.dirty = true;
                self.write_at = now.saturating_add(RETRY).unwrap_or(now);
            }
        }
    }

    fn directory(&self) -> PathBuf {
        self.cx.pod_directory(&self.uid)
    }

    /// Reads what an earlier process knew of this pod, or what the API server knows if that is lost.
    async fn restore(&mut self) {
        let directory = self.directory();
        let path = directory.join("record.json");
        let saved = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = self.cx.pods.get(&self.key);
        self.record = saved.or_else(|| known.as_deref().and_then(from_status)).unwrap_or_default();
        let before = self.record.clone();
        // None of these is running any more.
        let left = run::left(&directory.join(run::DIRECTORY)).await;
        for Left { container, run, exited, at, .. } in &left {
            let ended = exited.map(|exited| Ended {
                message: launch::termination_message(&launch::scratch(&directory, container, *run)),
                ..Ended::of(exited.code, exited.signal, *at)
            });
            self.record.recall(container, *run, ended, *at);
        }
        self.record.after_restart(Timestamp::now());
        if self.record == before || self.changed() {
            left.iter().for_each(|left| drop(std::fs::remove_file(&left.path)));
        }
        remove(directory.join(launch::SCRATCH)).await;
    }

    /// Saves the record: small, in the page cache, replaced as a whole. It need not survive a power failure, only this process.
    fn save(&self) -> bool {
        let directory = self.directory();
        let write = || {
            std::fs::create_dir_all(&directory)?;
            let temporary = directory.join("record.new");
            std::fs::write(&temporary, serde_json::to_vec(&self.record)?)?;
            std::fs::rename(temporary, directory.join("record.json"))
        };
        let saved = write();
        if let Err(error) = &saved {
            tracing::warn!(pod = %self.key.name, error = %error, "a pod's record could not be saved");
        }
        saved.is_ok()
    }

    /// The pod is over and everybody knows: its volumes go, its logs stay.
    async fn conclude(self) -> Outcome {
        remove(self.directory()).await;
        Outcome::Done
    }

    /// The pod is gone: nothing of it may stay.
    async fn clean_up(mut self) -> Outcome {
        for container in self.in_flight.values() {
            let _ = container.try_send(libc::SIGKILL);
        }
        let waiting = std::mem::take(&mut self.in_flight);
        let mut left = waiting.len();
        drop(waiting);
        while left > 0 {
            match self.reports.recv().await {
                Some(Progress::Started { .. }) => {}
                Some(_) => left -= 1,
                None => break,
            }
        }
        remove(self.directory()).await;
        let (logs, uid) = (self.cx.logs.clone(), self.uid.clone());
        let _ = tokio::task::spawn_blocking(move || logs.remove(&uid)).await;
        Outcome::Done
    }

    /// The node stops: containers get a moment to end, and the record keeps what is needed to go on later.
    async fn shut_down(mut self) -> Outcome {
        for container in self.in_flight.values() {
            let _ = container.try_send(libc::SIGTERM);
        }
        let deadline = tokio::time::Instant::now() + self.cx.stop_deadline;
        let pod = self.cx.pods.get(&self.key).unwrap_or_default();
        while !self.in_flight.is_empty() {
            match tokio::time::timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(progress)) => self.observe(&pod, progress),
                _ => break, // dropping the channels kills what is left
            }
        }
        self.save();
        Outcome::Stopped
    }
}

/// Makes or renews the volumes of a pod below `directory`.
async fn set_up_volumes(cx: &Context, directory: &Path, pod: &Pod) -> Result<Volumes, String> {
    let spec = pod.spec.as_ref();
    for (asked, what) in
        [(spec.and_then(|spec| spec.host_pid), "spec.hostPID"), (spec.and_then(|spec| spec.host_ipc), "spec.hostIPC")]
    {
        if asked == Some(true) {
            return Err(format!("{what} is refused by this node"));
        }
    }
    let directory = directory.join("volumes");
    let setup =
        Setup { objects: &cx.objects, pod, place: &cx.place, directory: &directory, ca_pem: cx.ca_pem.as_deref() };
    setup.run().await.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        _ => error.to_string(),
    })
}

type Turn = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, tokio::sync::AcquireError>> + Send>>;

/// Polls a future that may not be there; without one it never completes.
async fn poll_some<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn remove(directory: PathBuf) {
    let removed = tokio::task::spawn_blocking(move || crate::image::remove_tree(&directory)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(error = %error, "a pod's directory could not be removed");
    }
}

/// When to look again although nothing has happened.
#[derive(Default)]
struct Wake {
    at: Option<Timestamp>,
}

impl Wake {
    fn at(&mut self, at: Timestamp) {
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }

    fn maybe(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.at(at);
        }
    }

    fn until(&self, now: Timestamp) -> Duration {
        // Without a reason to wake an hour is as good as never, and heals whatever was forgotten.
        let at = self.at.map_or(SignedDuration::from_hours(1), |at| at.duration_since(now));
        Duration::try_from(at).unwrap_or(Duration::ZERO)
    }
}
