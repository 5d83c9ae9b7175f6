//! The node: watches Jobs and Pods, gives each its worker, and stops in order.

mod builder;
mod handle;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::SignedDuration;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Key};
use crate::downward::Place;
use crate::event::Recorder;
use crate::image;
use crate::job::controller;
use crate::log::Logs;
use crate::objects::Objects;
use crate::pod::worker::{Outcome, Worker};
use crate::runtime::{Prepared, Runtime};

#[cfg(test)]
mod tests;

pub use builder::{ApiAddress, Builder, RuntimeKind, StartError};
pub use handle::NodeHandle;

/// Pods and Jobs that are asked for at once when all are listed: most are over, and of those little is kept.
const PAGE: u32 = 100;

/// Entry point: [`Node::builder`].
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Begins to describe a node that serves the API server behind `client`.
    pub fn builder(client: Client) -> Builder {
        Builder::new(client)
    }
}

/// An image name that stands for this executable.
#[derive(Clone, Debug)]
pub(crate) struct OwnBinary {
    pub(crate) image: image::Name,
    pub(crate) entrypoint: Vec<String>,
}

/// What all workers share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) node: String,
    pub(crate) data: PathBuf,
    pub(crate) place: Place,
    /// Variables that tell where the API server is.
    pub(crate) service: Vec<(String, String)>,
    pub(crate) ca_pem: Option<String>,
    pub(crate) own: Vec<OwnBinary>,
    pub(crate) host: Prepared,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) store: image::Store,
    /// What to do about an image that is missing.
    pub(crate) image_hint: String,
    pub(crate) objects: Objects,
    pub(crate) logs: Logs,
    /// Speaks as the kubelet does.
    pub(crate) recorder: Recorder,
    /// Speaks as the job controller does.
    pub(crate) job_recorder: Recorder,
    pub(crate) pods: Cache<Pod>,
    pub(crate) jobs: Cache<Job>,
    /// Pods that may run at once.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) max_pods: usize,
    /// Containers that may be in the middle of being started at once.
    pub(crate) starts: Semaphore,
    pub(crate) restart_backoff: SignedDuration,
    pub(crate) failure_backoff: SignedDuration,
    pub(crate) stop_deadline: Duration,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    actors: Mutex<HashMap<String, Arc<Actor>>>,
    /// Both caches have been filled once; before, a Job's Pods may be there without being known.
    ready: AtomicBool,
    me: std::sync::Weak<Context>,
}

/// The running task of one object, as others see it: something to wake.
#[derive(Debug, Default)]
pub(crate) struct Actor {
    notify: Notify,
    dirty: AtomicBool,
}

impl Actor {
    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }

    fn wake(&self) {
        self.dirty.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }
}

impl Context {
    pub(crate) fn pod_directory(&self, uid: &str) -> PathBuf {
        self.data.join("pods").join(uid)
    }

    fn me(&self) -> Arc<Self> {
        self.me.upgrade().expect("a context is only used through its Arc")
    }

    /// Takes a version of a Pod, from the watch or as an answer, and wakes whom it concerns.
    pub(crate) fn observe_pod(&self, pod: Pod) {
        if let Some(pod) = self.pods.apply(pod) {
            self.wake_pod(&pod);
        }
    }

    /// Takes note that a Pod is gone.
    pub(crate) fn forget_pod(&self, pod: &Pod) {
        let Some(known) = self.pods.remove(pod) else { return };
        self.wake_owner(&known);
        let Some(uid) = known.metadata.uid.clone() else { return };
        let actor = self.actors.lock().get(&uid).cloned();
        match actor {
            Some(actor) => actor.wake(),
            None if self.is_ours(&known) => {
                let (directory, logs) = (self.pod_directory(&uid), self.logs.clone());
                self.tasks.spawn_blocking(move || {
                    let _ = image::remove_tree(&directory);
                    let _ = logs.remove(&uid);
                });
            }
            None => {}
        }
    }

    pub(crate) fn observe_job(&self, job: Job) {
        if let Some(job) = self.jobs.apply(job) {
            self.wake_job(&job);
        }
    }

    pub(crate) fn forget_job(&self, job: &Job) {
        let Some(known) = self.jobs.remove(job) else { return };
        if let Some(uid) = known.metadata.uid.clone()
            && self.pods.owned_by(&uid).iter().any(|pod| controller::controller_of(pod) == Some(uid.as_str()))
        {
            self.tasks.spawn(controller::sweep(self.me(), uid));
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(self.node.as_str())
    }

    /// Tells whether a Pod needs a worker: ours or nobody's, and not over.
    fn concerns_us(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let unassigned = spec.is_some_and(|spec| {
            let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
            spec.node_name.is_none() && scheduler == "default-scheduler" && spec.scheduling_gates.is_none()
        });
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        let deleting = pod.metadata.deletion_timestamp.is_some();
        (self.is_ours(pod) && (deleting || !over)) || (unassigned && !deleting)
    }

    fn wake_pod(&self, pod: &Arc<Pod>) {
        self.wake_owner(pod);
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let key = Key::of(pod.as_ref());
        self.wake(uid.clone(), self.concerns_us(pod), move |cx, actor| {
            let (key, uid) = (key.clone(), uid.clone());
            async move {
                let concerned = |pod: &Arc<Pod>| pod.metadata.uid.as_deref() == Some(&uid) && cx.concerns_us(pod);
                if cx.pods.get(&key).as_ref().is_some_and(concerned) {
                    return Worker::new(cx, key, uid).run(actor).await;
                }
                Outcome::Done
            }
        });
    }

    fn wake_owner(&self, pod: &Pod) {
        let Some(uid) = controller::controller_of(pod) else { return };
        let namespace = pod.metadata.namespace.as_deref();
        let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.uid == uid);
        let key =
            owner.map(|owner| Key { namespace: namespace.unwrap_or_default().to_owned(), name: owner.name.clone() });
        if let Some(job) = key.and_then(|key| self.jobs.get(&key))
            && job.metadata.uid.as_deref() == Some(uid)
        {
            self.wake_job(&job);
        }
    }

    fn wake_job(&self, job: &Arc<Job>) {
        let Some(uid) = job.metadata.uid.clone() else { return };
        let key = Key::of(job.as_ref());
        self.wake(uid.clone(), true, move |cx, actor| {
            let (key, uid) = (key.clone(), uid.clone());
            async move {
                controller::run(cx, key, uid, actor).await;
                Outcome::Done
            }
        });
    }

    /// Wakes the task of an object, or starts one if `start`.
    ///
    /// **Invariant:** one object never has two tasks, and a change that arrives while its task is ending starts it again.
    fn wake<F, R>(&self, uid: String, start: bool, run: F)
    where
        F: Fn(Arc<Context>, Arc<Actor>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        if !self.ready.load(Ordering::SeqCst) || self.stopping.is_cancelled() {
            return;
        }
        let actor = {
            let mut actors = self.actors.lock();
            if let Some(actor) = actors.get(&uid) {
                actor.wake();
                return;
            }
            if !start {
                return;
            }
            let actor = Arc::new(Actor::default());
            actors.insert(uid.clone(), actor.clone());
            actor
        };
        let cx = self.me();
        self.tasks.spawn(async move {
            loop {
                actor.dirty.store(false, Ordering::SeqCst);
                let outcome = AssertUnwindSafe(run.clone()(cx.clone(), actor.clone())).catch_unwind().await;
                if outcome.is_err() {
                    tracing::error!(uid, "a worker panicked; it starts again in a while");
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(5)) => continue,
                        () = cx.stopping.cancelled() => {}
                    }
                }
                let mut actors = cx.actors.lock();
                let stopped = matches!(outcome, Ok(Outcome::Stopped)) || cx.stopping.is_cancelled();
                if stopped || !actor.dirty.load(Ordering::SeqCst) {
                    actors.remove(&uid);
                    return;
                }
            }
        });
    }

    /// Begins to work, once both caches are filled.
    fn begin(&self) {
        self.ready.store(true, Ordering::SeqCst);
        self.remove_leftovers();
        for pod in self.pods.all() {
            self.wake_pod(&pod);
        }
        for job in self.jobs.all() {
            self.wake_job(&job);
        }
    }

    /// Removes what pods have left that were deleted while no node was running.
    fn remove_leftovers(&self) {
        let known = self.pods.uids();
        let names = |directory: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        for uid in names(&self.data.join("pods")).into_iter().filter(|uid| !known.contains(uid)) {
            let directory = self.pod_directory(&uid);
            self.tasks.spawn_blocking(move || drop(image::remove_tree(&directory)));
        }
        for uid in self.logs.pods().into_iter().filter(|uid| !known.contains(uid)) {
            let logs = self.logs.clone();
            self.tasks.spawn_blocking(move || drop(logs.remove(&uid)));
        }
    }
}

/// Keeps the cache of Pods up to date until the node stops; calls `filled` once it is complete for the first time.
async fn watch_pods(cx: Arc<Context>, filled: impl FnOnce()) {
    let api: Api<Pod> = Api::all(cx.client.clone());
    let mut filled = Some(filled);
    let events = watcher(api.clone(), watcher::Config::default().page_size(PAGE)).default_backoff();
    let mut events = std::pin::pin!(events.take_until(cx.stopping.cancelled()));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => cx.pods.relist(),
            Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) => cx.observe_pod(pod),
            Ok(watcher::Event::Delete(pod)) => cx.forget_pod(&pod),
            Ok(watcher::Event::InitDone) => {
                for pod in cx.pods.unlisted() {
                    let key = Key::of(pod.as_ref());
                    let live = Api::<Pod>::namespaced(cx.client.clone(), &key.namespace).get_opt(&key.name).await;
                    if live.is_ok_and(|live| live.is_none_or(|live| live.metadata.uid != pod.metadata.uid)) {
                        cx.forget_pod(&pod);
                    }
                }
                if let Some(filled) = filled.take() {
                    filled();
                }
            }
            Err(error) => tracing::warn!(error = %error, "the watch on pods was interrupted; it is tried again"),
        }
    }
}

/// Keeps the cache of Jobs up to date until the node stops; calls `filled` once it is complete for the first time.
async fn watch_jobs(cx: Arc<Context>, filled: impl FnOnce()) {
    let api: Api<Job> = Api::all(cx.client.clone());
    let mut filled = Some(filled);
    let events = watcher(api.clone(), watcher::Config::default().page_size(PAGE)).default_backoff();
    let mut events = std::pin::pin!(events.take_until(cx.stopping.cancelled()));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => cx.jobs.relist(),
            Ok(watcher::Event::InitApply(job) | watcher::Event::Apply(job)) => cx.observe_job(job),
            Ok(watcher::Event::Delete(job)) => cx.forget_job(&job),
            Ok(watcher::Event::InitDone) => {
                for job in cx.jobs.unlisted() {
                    let key = Key::of(job.as_ref());
                    let live = Api::<Job>::namespaced(cx.client.clone(), &key.namespace).get_opt(&key.name).await;
                    if live.is_ok_and(|live| live.is_none_or(|live| live.metadata.uid != job.metadata.uid)) {
                        cx.forget_job(&job);
                    }
                }
                if let Some(filled) = filled.take() {
                    filled();
                }
            }
            Err(error) => tracing::warn!(error = %error, "the watch on jobs was interrupted; it is tried again"),
        }
    }
}
