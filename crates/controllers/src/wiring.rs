//! All wiring of the process in one place: caches, controllers, their triggers, start and stop.

use std::sync::{Arc, Weak};
use std::time::Duration;

use kratix_api::destination::StateStoreKind;
use kratix_core::object::ObjectKey;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::config;
use crate::context::Context;
use crate::controller::{self, Reconcile};
use crate::destination::{self, Destinations};
use crate::events;
use crate::gates::Gates;
use crate::job_pods::{self, JobPods};
use crate::options::Options;
use crate::promise::{self, Promises};
use crate::promise_revision::{self, Revisions};
use crate::queue::Queue;
use crate::request::Requests;
use crate::resource_binding::Bindings;
use crate::state_store::{self, Exchanges, Registry, StateStores};
use crate::superseded::Superseded;
use crate::telemetry::{Metrics, Telemetry};
use crate::work::{self, Works};
use crate::work_placement::{self, Namesakes, WorkPlacements};

/// Passes over state stores at once: each waits for the API server alone, and what asks a store has a task of its own.
const STORE_PASSES_MAX: usize = 16;
/// Passes at once over Destinations, of which those of one store have a part ([`destination::STORE_PASSES_MAX`]).
const DESTINATION_PASSES_MAX: usize = 8 * destination::STORE_PASSES_MAX;
/// Passes at once over placements: what waits for a store shares a commit, so many must be able to wait, and each store
/// has a limit of its own ([`work_placement::STORE_PASSES_MAX`]), so that eight stores must hang before others wait.
const PLACEMENT_PASSES_MAX: usize = 8 * (work_placement::STORE_PASSES_MAX + work_placement::ASKING_PASSES_MAX);
/// Passes over Works at once: each waits for the API server alone.
const WORK_PASSES_MAX: usize = 64;

/// Passes over Promises or revisions at once: there are few of them, and each waits for the API server alone.
const PROMISE_PASSES_MAX: usize = 8;
/// Passes over Jobs whose pods are to go at once: nobody waits for them.
const JOB_PASSES_MAX: usize = 4;
/// Passes over bindings at once.
const BINDING_PASSES_MAX: usize = 16;

/// How long running passes may take to finish when the process stops.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The running controllers of one platform.
///
/// # Cancel safety
/// Dropping the value aborts every pass where it stands, as a crash of the process would; [`Controllers::stop`] lets
/// running passes finish.
pub struct Controllers {
    /// Watches and the publisher of events: what passes rely on.
    background: JoinSet<()>,
    /// The loops that run passes.
    controllers: JoinSet<()>,
    queues: Vec<Queue<ObjectKey>>,
    exchanges: Arc<Exchanges>,
    requests: Option<Requests>,
    shutdown: CancellationToken,
    context: Arc<Context>,
}

impl Controllers {
    /// Starts watching and, once every cache is filled, reconciling.
    pub async fn start(platform: Client, options: Options) -> Self {
        let mut background = JoinSet::new();
        let (events, publisher) = events::channel(platform.clone(), &options.host);
        background.spawn(publisher.run());
        let caches = Caches::start(&platform, &mut background);
        caches.ready().await;
        let config = config::follow(&caches, &events);
        let telemetry = Telemetry::start(config.borrow().telemetry.as_ref());
        let context = Arc::new(Context {
            platform,
            caches,
            events,
            config,
            options,
            telemetry,
            superseded: Superseded::default(),
        });
        background.spawn(follow_telemetry(Arc::downgrade(&context)));
        let shutdown = CancellationToken::new();
        let (controllers, queues, exchanges) = (JoinSet::new(), Vec::new(), Arc::default());
        let mut started = Self { background, controllers, queues, exchanges, requests: None, shutdown, context };
        let context = Arc::clone(&started.context);
        started.wire(&context);
        started
    }

    /// Returns true when no object is waiting for a pass or having one, and no store is being opened; timers do not count.
    pub fn is_at_rest(&self) -> bool {
        self.exchanges.is_idle()
            && self.queues.iter().all(Queue::is_at_rest)
            && self.requests.as_ref().is_none_or(Requests::is_at_rest)
    }

    /// Returns what is counted; it stays readable after the end.
    pub fn metrics(&self) -> Metrics {
        self.context.telemetry.metrics().clone()
    }

    /// Stops taking new passes and waits until the running ones, those of requests included, have finished and what they have
    /// told is published.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let finished = async {
            while self.controllers.join_next().await.is_some() {}
            self.context.events.flush().await;
        };
        if tokio::time::timeout(STOP_MAX, finished).await.is_err() {
            tracing::warn!("a pass did not finish in time and is given up, as a crash would");
        }
        self.context.telemetry.stop().await;
        self.background.shutdown().await;
    }

    fn wire(&mut self, context: &Arc<Context>) {
        self.wire_delivery(context);
        self.wire_promises(context);
    }

    /// The way of documents from Works to state stores.
    fn wire_delivery(&mut self, context: &Arc<Context>) {
        let stores = Arc::new(Registry::new(context.options.cache_dir.clone()));
        let (git, bucket) = (Queue::new(), Queue::new());
        for (kind, queue) in [(StateStoreKind::GitStateStore, &git), (StateStoreKind::BucketStateStore, &bucket)] {
            let controller = StateStores::new(context, &stores, &self.exchanges, queue, kind);
            self.run(context, controller, queue, STORE_PASSES_MAX);
        }
        let (destinations, placements) = (Queue::new(), Queue::new());
        let of_destinations = Gates::new(&destinations, destination::STORE_PASSES_MAX);
        let of_placements = Gates::new(&placements, work_placement::STORE_PASSES_MAX);
        let controller = Destinations::new(context, &stores, &of_destinations);
        self.run(context, controller, &destinations, DESTINATION_PASSES_MAX);
        let namesakes = Namesakes::follow(&context.caches.placements);
        let controller = WorkPlacements::new(context, &stores, &namesakes, (&placements, &of_placements));
        self.run(context, controller, &placements, PLACEMENT_PASSES_MAX);
        let (cx, registry, gates) =
            (Arc::downgrade(context), Arc::downgrade(&stores), [of_destinations, of_placements]);
        context.telemetry.metrics().watch_queues(move || {
            let (Some(cx), Some(stores)) = (cx.upgrade(), registry.upgrade()) else { return Vec::new() };
            let lengths = state_store::backlog(&cx, &stores, &gates).into_iter();
            lengths.map(|(store, length)| (store.kind.as_str().to_owned(), store.name, length)).collect()
        });
        let works = self.spawn(context, Works::new(context, &namesakes), WORK_PASSES_MAX);

        state_store::watch(context, &stores, &git, &bucket);
        destination::watch(context, &stores, &destinations);
        work_placement::watch(context, &stores, &namesakes, &placements);
        work::watch(context, &works);
    }

    /// The way from Promises and requests to Works.
    fn wire_promises(&mut self, context: &Arc<Context>) {
        let (requests, supervisor) = Requests::new(context, &self.shutdown);
        self.controllers.spawn(supervisor.run());
        let promises = self.spawn(context, Promises::new(context, &requests), PROMISE_PASSES_MAX);
        let revisions = self.spawn(context, Revisions::new(context, &requests), PROMISE_PASSES_MAX);
        let bindings = self.spawn(context, Bindings::new(context, &requests), BINDING_PASSES_MAX);
        let job_pods = self.spawn(context, JobPods::new(context), JOB_PASSES_MAX);

        promise::watch(context, &requests, &promises);
        promise_revision::watch(context, &requests, &revisions);
        Bindings::follow(context, &requests, &bindings);
        job_pods::watch(context, &job_pods);
        self.requests = Some(requests);
    }

    fn spawn<R: Reconcile>(&mut self, context: &Arc<Context>, controller: R, concurrency: usize) -> Queue<ObjectKey> {
        let queue = Queue::new();
        self.run(context, controller, &queue, concurrency);
        queue
    }

    fn run<R: Reconcile>(
        &mut self,
        context: &Arc<Context>,
        controller: R,
        queue: &Queue<ObjectKey>,
        concurrency: usize,
    ) {
        self.queues.push(queue.clone());
        let context = Arc::clone(context);
        let passes = controller::run(Arc::new(controller), queue.clone(), concurrency, context, self.shutdown.clone());
        self.controllers.spawn(passes);
    }
}

/// Switches telemetry with the configuration.
async fn follow_telemetry(context: Weak<Context>) {
    let Some(mut config) = context.upgrade().map(|context| context.config.clone()) else { return };
    while config.changed().await.is_ok() {
        let Some(context) = context.upgrade() else { return };
        context.telemetry.follow(config.borrow_and_update().telemetry.as_ref());
    }
}
