//! The controllers of resource requests: one for each API that a Promise brings, started and stopped at run time.
//!
//! [`Requests`] is the handle by which the Promise controller starts, stops and lists them; [`Supervisor`] is the one task
//! that owns them all, so that they end with the process's other controllers.

mod rests;
mod surroundings;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use kratix_api::{Promise, PromiseRevision, ResourceBinding, Work, keys};
use kratix_core::config::Config;
use kratix_core::object::{Kind, ObjectKey, Target};
use kratix_core::plan::{Next, Plan, Reporter};
use kratix_core::request::{self, Concerned, Finding, Snapshot};
use kratix_core::trace::Subject;
use kratix_core::workflow::{Settings, history};
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::act;
use crate::cache::Cache;
use crate::caches;
use crate::context::Context;
use crate::controller::{self, Reconcile};
use crate::error::Error;
use crate::expected::Expected;
use crate::pods;
use crate::queue::Queue;
use crate::telemetry::Pass;
use rests::Rests;
use surroundings::Definitions;

/// Passes of one Promise's requests at the same time. A pass is a few API writes; more would only queue at the API server.
const CONCURRENCY: usize = 16;
/// Decisions of one pass, each about what the one before has written: more of them would be a circle.
const ROUNDS_MAX: usize = 8;
/// A change that is no news by itself waits so long for what usually follows it: the status that a pod writes for the end of
/// its Job, the Job that a pass has made for its own status.
const COMPANY: Duration = Duration::from_millis(50);
/// Controllers waiting to be spawned; a full channel makes the Promise's pass wait.
const STARTING_MAX: usize = 64;

/// Called with the Promise's name and the request before and after a change.
type Observer = Box<dyn Fn(&str, Option<&Arc<DynamicObject>>, Option<&Arc<DynamicObject>>) + Send + Sync>;

/// Starts, stops and looks into the controllers of requests.
#[derive(Clone)]
pub(crate) struct Requests {
    inner: Arc<Inner>,
}

struct Inner {
    cx: Arc<Context>,
    starting: mpsc::Sender<BoxFuture<'static, ()>>,
    running: RwLock<BTreeMap<String, Arc<Running>>>,
    observers: RwLock<Vec<Observer>>,
    definitions: Definitions,
    shutdown: CancellationToken,
}

/// One controller.
struct Running {
    kind: Kind,
    cache: Cache<DynamicObject>,
    is_listed: AtomicBool,
    queue: Queue<ObjectKey>,
    stop: CancellationToken,
    expected: Expected,
    rests: Rests,
}

/// Owns the tasks of all controllers of requests. Dropping it aborts them.
pub(crate) struct Supervisor {
    starting: mpsc::Receiver<BoxFuture<'static, ()>>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// Runs controllers until the shutdown, which stops them; passes that have begun are finished.
    pub(crate) async fn run(mut self) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased; // Nothing more is begun once the process stops.
                () = self.shutdown.cancelled() => break,
                Some(task) = self.starting.recv() => drop(tasks.spawn(task)),
            }
            while tasks.try_join_next().is_some() {}
        }
        // What is to be started now has begun nothing.
        self.starting.close();
        while tasks.join_next().await.is_some() {}
    }
}

impl Requests {
    /// Returns the handle and what must be spawned. Registers for everything that concerns requests.
    /// Everything stops with `shutdown`.
    pub(crate) fn new(cx: &Arc<Context>, shutdown: &CancellationToken) -> (Self, Supervisor) {
        let (sender, receiver) = mpsc::channel(STARTING_MAX);
        let inner = Arc::new(Inner {
            cx: Arc::clone(cx),
            starting: sender,
            running: RwLock::default(),
            observers: RwLock::default(),
            definitions: Definitions::default(),
            shutdown: shutdown.clone(),
        });
        inner.follow();
        inner.follow_config();
        (Self { inner }, Supervisor { starting: receiver, shutdown: shutdown.clone() })
    }

    /// Runs the controller for the requests of a Promise. One that runs for the same API is left alone, one for another
    /// group, version or kind is replaced.
    pub(crate) async fn start(&self, promise: &str, kind: &Kind) {
        let running = {
            let mut all = self.inner.running.write();
            match all.get(promise) {
                Some(running) if running.kind == *kind => return,
                Some(running) => running.stop.cancel(),
                None => {}
            }
            let running = Arc::new(Running::new(kind.clone(), self.inner.shutdown.child_token()));
            all.insert(promise.to_owned(), Arc::clone(&running));
            running
        };
        tracing::info!(promise, kind = %kind.kind, version = %kind.api_version(), "requests are looked after");
        self.inner.observe(promise, &running);
        let task = Box::pin(run(Arc::clone(&self.inner), promise.to_owned(), running));
        // The supervisor takes no more only when the process is shutting down.
        let _ = self.inner.starting.send(task).await;
    }

    /// Looks after what a Promise that is gone has left: without a controller its requests, and with them their CRD, could
    /// never go. Ends once nothing carries a finalizer of Kratix any more. Called again with each change of the CRD and
    /// with the end of each request.
    pub(crate) async fn outlive(&self, promise: &str) {
        let crd = self.inner.cx.caches.crds.indexed(&caches::promise_entry(promise)).pop();
        let left = self.list(promise);
        let is_over = left.is_some_and(|left| !left.iter().any(|left| request::is_held(left)));
        match crd.and_then(|crd| request::kind_of(&crd)) {
            Some(kind) if !is_over => self.start(promise, &kind).await,
            _ => self.stop(promise),
        }
    }

    /// Stops the controller for the requests of a Promise; passes that have begun are finished.
    pub(crate) fn stop(&self, promise: &str) {
        if let Some(running) = self.inner.running.write().remove(promise) {
            running.stop.cancel();
            tracing::info!(promise, kind = %running.kind.kind, "requests are no longer looked after");
        }
    }

    /// Returns the resource of a Promise's requests while their controller runs.
    pub(crate) fn kind(&self, promise: &str) -> Option<Kind> {
        self.inner.running.read().get(promise).map(|running| running.kind.clone())
    }

    /// Returns all requests of a Promise, sorted by key; `None` before the first complete list.
    pub(crate) fn list(&self, promise: &str) -> Option<Vec<Arc<DynamicObject>>> {
        let running = self.inner.running.read().get(promise).cloned()?;
        running.is_listed.load(Ordering::Acquire).then(|| running.cache.all())
    }

    /// Returns one request.
    pub(crate) fn get(&self, promise: &str, key: &ObjectKey) -> Option<Arc<DynamicObject>> {
        self.inner.running.read().get(promise)?.cache.get(key)
    }

    /// Calls `observer` with every change of any request from now on, and with neither side once a list is complete.
    pub(crate) fn on_change(
        &self,
        observer: impl Fn(&str, Option<&Arc<DynamicObject>>, Option<&Arc<DynamicObject>>) + Send + Sync + 'static,
    ) {
        self.inner.observers.write().push(Box::new(observer));
    }

    /// Returns true when no request is waiting for a pass or having one; timers do not count.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.inner.running.read().values().all(|running| running.queue.is_at_rest())
    }
}

impl Running {
    fn new(kind: Kind, stop: CancellationToken) -> Self {
        Self {
            kind,
            cache: Cache::new(|_| Vec::new()),
            is_listed: AtomicBool::new(false),
            queue: Queue::new(),
            stop,
            expected: Expected::default(),
            rests: Rests::default(),
        }
    }
}

/// Watches and reconciles the requests of one Promise until it is stopped.
async fn run(inner: Arc<Inner>, promise: String, running: Arc<Running>) {
    let api = Api::<DynamicObject>::all_with(inner.cx.platform.clone(), &act::api_resource(&running.kind));
    let (queue, stop) = (running.queue.clone(), running.stop.clone());
    let context = Arc::clone(&inner.cx);
    let pass = Controller { inner: Arc::clone(&inner), promise: promise.clone(), running: Arc::clone(&running) };
    let passes = controller::run(Arc::new(pass), queue, CONCURRENCY, context, stop);
    let listed = async {
        running.cache.ready().await;
        running.is_listed.store(true, Ordering::Release);
        inner.tell(&promise, None, None);
        std::future::pending::<()>().await;
    };
    // The passes alone end by themselves, once they are told to stop; the others only follow the API.
    tokio::select! {
        biased; // A repeatable order. Passes are tasks of their own, so that beginning them holds up no news.
        () = passes => {}
        () = running.cache.feed(api, watcher::Config::default()) => {}
        () = listed => {}
    }
}

impl Inner {
    fn tell(&self, promise: &str, old: Option<&Arc<DynamicObject>>, new: Option<&Arc<DynamicObject>>) {
        for observer in self.observers.read().iter() {
            observer(promise, old, new);
        }
    }

    /// Brings back a request with each of its own changes.
    fn observe(self: &Arc<Self>, promise: &str, running: &Arc<Running>) {
        let (inner, promise, queue) = (Arc::downgrade(self), promise.to_owned(), running.queue.clone());
        running.cache.on_change(move |old, new| {
            if let Some(request) = new.or(old) {
                let key = ObjectKey::of(request.as_ref());
                match request::is_urgent(old.map(AsRef::as_ref), new.map(AsRef::as_ref)) {
                    true => queue.add(key),
                    false => queue.add_after(key, COMPANY),
                }
            }
            if let Some(inner) = inner.upgrade() {
                inner.tell(&promise, old, new);
            }
        });
    }

    /// Brings back requests with changes of what they depend on.
    fn follow(self: &Arc<Self>) {
        let caches = &self.cx.caches;
        let weak = Arc::downgrade(self);
        caches.jobs.on_change(with::<Job>(&weak, |inner, old, new| {
            if request::job_concerns_request(old.map(AsRef::as_ref), new.map(AsRef::as_ref)) {
                new.or(old).into_iter().for_each(|job| inner.add_for_job(job, old.is_none()));
            }
        }));
        let inner = Weak::clone(&weak);
        pods::on_trouble(caches, move |job| {
            if let Some(inner) = inner.upgrade() {
                inner.add_for_job(job, false);
            }
        });
        caches.works.on_change(with::<Work>(&weak, |inner, old, new| {
            if request::work_concerns_request(old.map(AsRef::as_ref), new.map(AsRef::as_ref)) {
                new.or(old).into_iter().for_each(|work| inner.add_for_work(work));
            }
        }));
        caches.bindings.on_change(with::<ResourceBinding>(&weak, |inner, old, new| {
            if request::binding_concerns_request(old.map(AsRef::as_ref), new.map(AsRef::as_ref)) {
                for binding in old.into_iter().chain(new) {
                    let request = &binding.spec.resource_ref;
                    let key = ObjectKey::namespaced(&request.namespace, &request.name);
                    let made = old.is_none().then(|| ObjectKey::of(&**binding));
                    inner.add(&binding.spec.promise_ref.name, key, made.as_ref());
                }
            }
        }));
        caches.promises.on_change(with::<Promise>(&weak, |inner, old, new| {
            let concerned = request::concerned_by_promise(old.map(AsRef::as_ref), new.map(AsRef::as_ref));
            if let Some(promise) = new.or(old).filter(|_| concerned != Concerned::Nobody) {
                inner.add_all(&promise.name_any(), &concerned);
            }
        }));
        caches.revisions.on_change(with::<PromiseRevision>(&weak, |inner, old, new| {
            if new.is_none() {
                old.into_iter()
                    .for_each(|revision: &Arc<PromiseRevision>| inner.definitions.forget(&revision.name_any()));
            }
            if request::revision_concerns_requests(old.map(AsRef::as_ref), new.map(AsRef::as_ref)) {
                let promise = new.or(old).and_then(|revision| revision.labels().get(keys::PROMISE_NAME));
                promise.into_iter().for_each(|promise| inner.add_all(promise, &Concerned::Everybody));
            }
        }));
    }

    /// Brings back all requests when the configuration says something else about when they run again.
    fn follow_config(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.cx.on_setting_change(Config::repetition, move || {
            let Some(inner) = weak.upgrade() else { return };
            let promises: Vec<String> = inner.running.read().keys().cloned().collect();
            promises.iter().for_each(|promise| inner.add_all(promise, &Concerned::Everybody));
        });
    }

    /// Brings back a request for what has happened to something else. What its last pass has `made` was to be expected.
    fn add(&self, promise: &str, key: ObjectKey, made: Option<&ObjectKey>) {
        if let Some(running) = self.running.read().get(promise)
            && running.cache.get(&key).is_some()
        {
            running.rests.wake(&key);
            match made.is_some_and(|made| running.expected.awaits(&key, made)) {
                true => running.queue.add_after(key, COMPANY),
                false => running.queue.add(key),
            }
        }
    }

    fn add_all(&self, promise: &str, concerned: &Concerned) {
        let running = self.running.read().get(promise).cloned();
        if let Some(running) = running {
            for request in running.cache.all().iter().filter(|request| concerned.includes(request)) {
                let key = ObjectKey::of(request.as_ref());
                running.rests.wake(&key);
                running.queue.add(key);
            }
        }
    }

    fn add_for_job(&self, job: &Job, is_new: bool) {
        let promise = job.labels().get(keys::PROMISE_NAME);
        if let (Some(promise), Some(key)) = (promise, history::parent_key(job)) {
            self.add(promise, key, is_new.then(|| ObjectKey::of(job)).as_ref());
        }
    }

    fn add_for_work(&self, work: &Work) {
        let label = |key: &str| work.labels().get(key).cloned();
        let namespace = label(keys::RESOURCE_NAMESPACE).or_else(|| work.namespace());
        if let (Some(promise), Some(name), Some(namespace)) =
            (label(keys::PROMISE_NAME), label(keys::RESOURCE_NAME), namespace)
        {
            self.add(&promise, ObjectKey::namespaced(namespace, name), None);
        }
    }
}

/// What a change of something that requests depend on leads to.
type Follow<K> = fn(&Inner, Option<&Arc<K>>, Option<&Arc<K>>);

/// Returns an observer that does nothing once the controllers are gone.
fn with<K: 'static>(
    inner: &Weak<Inner>,
    observer: Follow<K>,
) -> impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static {
    let inner = Weak::clone(inner);
    move |old, new| {
        if let Some(inner) = inner.upgrade() {
            observer(&inner, old, new);
        }
    }
}

/// Reconciles the requests of one Promise.
struct Controller {
    inner: Arc<Inner>,
    promise: String,
    running: Arc<Running>,
}

impl Controller {
    fn observe(&self, request: Arc<DynamicObject>, settings: &Settings) -> Plan<Finding> {
        let cx = &self.inner.cx;
        let caches = &cx.caches;
        let (namespace, name) = (request.namespace().unwrap_or_default(), request.name_any());
        let entry = caches::request_entry(&self.promise, &namespace, &name);
        let derived = kratix_api::name::resource_binding(&name, &self.promise);
        let mut bindings = caches.bindings.indexed(&entry);
        if let Some(adoptable) = caches.bindings.get(&ObjectKey::namespaced(&namespace, derived))
            && !bindings.iter().any(|binding| binding.meta().uid == adoptable.meta().uid)
        {
            bindings.push(adoptable);
        }
        let mut jobs = caches.jobs.indexed(&caches::parent_entry(&self.running.kind.kind, &namespace, &name));
        jobs.extend(caches.jobs.indexed(&entry));
        let surroundings =
            surroundings::View { caches, definitions: &self.inner.definitions, requests: &self.running.cache };
        request::decide(&Snapshot {
            now: cx.now(),
            kind: &self.running.kind,
            promise_name: &self.promise,
            promise: caches.promises.get(&ObjectKey::cluster(&self.promise)),
            revisions: caches.revisions.indexed(&caches::promise_entry(&self.promise)),
            bindings,
            jobs,
            works: caches.works.indexed(&entry),
            request,
            settings,
            surroundings: &surroundings,
        })
    }
}

impl Reconcile for Controller {
    const NAME: &'static str = "request";

    fn rest(&self, key: &ObjectKey) -> Option<Next> {
        let request = self.running.cache.get(key)?;
        self.running.rests.next(key, request.metadata.resource_version.as_deref())
    }

    async fn ready(&self, key: &ObjectKey) -> Result<(), Error> {
        match self.running.cache.get(key) {
            Some(_) => self.running.expected.arrived(key, &self.inner.cx).await,
            None => Ok(()),
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let cx = &self.inner.cx;
        self.running.rests.begin(key);
        let Some(request) = self.running.cache.get(key) else {
            self.running.rests.forget(key);
            self.running.expected.forget(key);
            return Ok(Next::OnChange);
        };
        let kind = &self.running.kind;
        let pass = cx.begin(&request.metadata, || Subject::request(&self.promise, kind, &request));
        pass.run(self.pass(key, request, &pass)).await
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        let request = self.running.cache.get(key)?;
        Some((Reporter::ResourceRequest, Target::with_kind(self.running.kind.clone(), request.as_ref())))
    }
}

impl Controller {
    /// Decides and acts until nothing is left to do or something that was made is on its way: what a decision has written
    /// to the request itself is known from the answer, no watch event needs to be waited for.
    async fn pass(&self, key: &ObjectKey, mut request: Arc<DynamicObject>, pass: &Pass) -> Result<Next, Error> {
        let cx = &self.inner.cx;
        let settings = cx.settings();
        let address = (self.running.kind.clone(), key.clone());
        let mut next = Next::OnChange;
        for _ in 0..ROUNDS_MAX {
            let mut plan = self.observe(pass.carry(Arc::clone(&request)), &settings);
            next = plan.next;
            if plan.is_silent() {
                self.running.rests.end(key, request.metadata.resource_version.clone(), next);
                break;
            }
            pass.note_if_busy(&mut plan);
            let mut acted = cx.execute(&plan).await;
            let is_on_its_way = !acted.made.is_empty();
            // Also after a failure: objects may have been made before it.
            self.running.expected.note(key, acted.made);
            if let Err(error) = acted.outcome {
                let promise = cx.caches.promises.get(&ObjectKey::cluster(&self.promise));
                let subject = (request.as_ref(), promise.as_deref());
                let refused = |cause: &str| request::refused(cx.now(), &self.running.kind, subject, cause);
                return Err(cx.tell_refusal(error, refused).await);
            }
            match acted.altered.remove(&address) {
                Some(altered) if !is_on_its_way => request = Arc::new(altered),
                _ => break,
            }
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn at_the_shutdown_what_has_begun_is_finished_and_nothing_more_begins() {
        let (sender, starting) = mpsc::channel::<BoxFuture<'static, ()>>(2);
        let shutdown = CancellationToken::new();
        let supervisor = tokio::spawn(Supervisor { starting, shutdown: shutdown.clone() }.run());
        let ((begin, begun), (go, goes), (end, ended)) = (oneshot::channel(), oneshot::channel(), oneshot::channel());
        let pass = async move {
            begin.send(()).unwrap();
            goes.await.unwrap();
            end.send(()).unwrap();
        };
        sender.send(Box::pin(pass)).await.unwrap();
        begun.await.unwrap();
        shutdown.cancel();
        sender.closed().await;
        assert!(!supervisor.is_finished());
        assert!(sender.send(Box::pin(async { unreachable!("it is too late") })).await.is_err());
        go.send(()).unwrap();
        supervisor.await.unwrap();
        ended.await.unwrap();
    }
}
