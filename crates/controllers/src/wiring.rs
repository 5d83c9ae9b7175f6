//! All wiring of the process in one place: caches, controllers, their triggers, start and stop.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kratix_api::keys;
use kratix_core::config::Config;
use kratix_core::object::ObjectKey;
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::context::Context;
use crate::controller::{self, Reconcile};
use crate::events;
use crate::options::Options;
use crate::queue::Queue;

/// The running controllers of one platform.
///
/// # Cancel safety
/// Dropping the value aborts every pass where it stands, as a crash of the process would; [`Controllers::stop`] lets
/// running passes finish.
pub struct Controllers {
    tasks: JoinSet<()>,
    queues: Vec<Queue<ObjectKey>>,
    shutdown: CancellationToken,
}

impl Controllers {
    /// Starts watching and, once every cache is filled, reconciling.
    pub async fn start(platform: Client, options: Options) -> Self {
        let mut tasks = JoinSet::new();
        let (events, publisher) = events::channel(platform.clone(), &options.host);
        tasks.spawn(publisher.run());
        let caches = Caches::start(&platform, &mut tasks);
        caches.ready().await;
        let config = follow_config(&caches);
        let context = Arc::new(Context { platform, caches, events, config, options });
        let mut started = Self { tasks, queues: Vec::new(), shutdown: CancellationToken::new() };
        started.wire(&context);
        started
    }

    /// Returns true when no object is waiting for a pass or having one; timers do not count.
    pub fn is_at_rest(&self) -> bool {
        self.queues.iter().all(Queue::is_at_rest)
    }

    /// Stops taking new passes and waits until the running ones have finished.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }

    fn wire(&mut self, _context: &Arc<Context>) {}

    fn spawn<R: Reconcile>(&mut self, context: &Arc<Context>, controller: R, concurrency: usize) -> Queue<ObjectKey> {
        let queue = Queue::new();
        self.queues.push(queue.clone());
        let events = context.events.clone();
        let passes = controller::run(Arc::new(controller), queue.clone(), concurrency, events, self.shutdown.clone());
        self.tasks.spawn(passes);
        queue
    }
}

/// Returns the platform configuration, read again whenever the ConfigMap changes.
fn follow_config(caches: &Caches) -> watch::Receiver<Arc<Config>> {
    let (sender, receiver) = watch::channel(Arc::new(Config::default()));
    caches.config.on_change(move |_, config_map| {
        let config = match config_map {
            Some(config_map) => read_config(config_map),
            None => Some(Config::default()),
        };
        if let Some(config) = config {
            sender.send_if_modified(|current| {
                let changed = **current != config;
                if changed {
                    tracing::info!("platform configuration taken over");
                    *current = Arc::new(config);
                }
                changed
            });
        }
    });
    receiver
}

fn read_config(config_map: &ConfigMap) -> Option<Config> {
    let text = config_map.data.as_ref().and_then(|data| data.get(keys::CONFIG_KEY)).map_or("", String::as_str);
    match Config::parse(text) {
        Ok((config, warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            Some(config)
        }
        Err(error) => {
            tracing::error!("{error}; the previous configuration stays in force");
            None
        }
    }
}
