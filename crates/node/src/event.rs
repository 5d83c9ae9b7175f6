//! Events: what happened to a Pod or Job, for `kubectl describe`.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longest message that the API accepts.
const MESSAGE_BYTES_MAX: usize = 1024;

/// How much the node tells through events. Each event is a write to the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Events {
    /// What happens to Jobs, and every failure.
    #[default]
    Economical,
    /// Also each step of a Pod that goes well: `Scheduled`, `Pulled`, `Created`, `Started`.
    Full,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// One step of a normal run, told only if everything is to be told.
    pub(crate) routine: bool,
}

impl Event {
    pub(crate) fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), message: message.into(), routine: false }
    }

    pub(crate) fn routine(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { routine: true, ..Self::normal(reason, message) }
    }

    pub(crate) fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, message) }
    }
}

/// Events that wait to be written. More than this means an API server that does not answer: further ones are dropped.
const QUEUE_MAX: usize = 1024;

/// Queues events. A lost event is logged and otherwise harmless: nothing depends on them.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<ApiEvent>,
    level: Events,
    component: &'static str,
    host: String,
}

/// Writes what recorders queue, in order, until the node stops and the queue is empty.
pub(crate) async fn write(client: Client, mut queue: mpsc::Receiver<ApiEvent>, stopping: CancellationToken) {
    loop {
        let event = tokio::select! {
            biased; // what is queued when the node stops is still written
            event = queue.recv() => event,
            () = stopping.cancelled() => None,
        };
        let Some(event) = event else { return };
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<ApiEvent> = Api::namespaced(client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            // Most often the namespace is going away, and its events with it.
            tracing::debug!(error = %error, "an event was not recorded");
        }
    }
}

/// Creates a queue of events.
pub(crate) fn queue() -> (mpsc::Sender<ApiEvent>, mpsc::Receiver<ApiEvent>) {
    mpsc::channel(QUEUE_MAX)
}

impl Recorder {
    pub(crate) fn new(queue: mpsc::Sender<ApiEvent>, level: Events, component: &'static str, host: &str) -> Self {
        Self { queue, level, component, host: host.to_owned() }
    }

    /// Records `event` about `object`, or about one container of it (`spec.containers{name}`).
    pub(crate) fn record<K>(&self, object: &K, container: Option<String>, event: Event)
    where
        K: Resource<DynamicType = ()>,
    {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if event.routine && self.level != Events::Full {
            return;
        }
        let meta = object.meta();
        let now = Timestamp::now();
        // As unique as the time in nanoseconds that other recorders use, also within one of them.
        let unique = u64::try_from(now.as_nanosecond()).unwrap_or(0) ^ (COUNT.fetch_add(1, Ordering::Relaxed) << 48);
        let mut message = event.message;
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        }
        let body = ApiEvent {
            metadata: ObjectMeta {
                name: Some(format!("{}.{unique:016x}", meta.name.as_deref().unwrap_or_default())),
                namespace: meta.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(K::api_version(&()).into_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                field_path: container,
            },
            type_: Some(if event.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(event.reason),
            message: Some(message),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            source: Some(EventSource { component: Some(self.component.into()), host: Some(self.host.clone()) }),
            reporting_component: Some(self.component.into()),
            reporting_instance: Some(self.host.clone()),
            ..ApiEvent::default()
        };
        if self.queue.try_send(body).is_err() {
            tracing::warn!(limit = QUEUE_MAX, "an event was dropped because too many wait to be written");
        }
    }
}
