//! Publishes what has happened as `events.k8s.io/v1` Events.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event as Published, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kratix_core::plan::{Event, EventType};
use kratix_core::text::truncated;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

/// Notes the API server accepts.
const NOTE_BYTES_MAX: usize = 1024;

/// Names the API server accepts.
const NAME_BYTES_MAX: usize = 253;

/// Lanes in which events are published side by side: a thousand objects that change at once have much to tell, and one write
/// after the other would end long after they are done. More of them would take the API server from the passes.
const LANES: usize = 4;

/// Events waiting in a lane. At the limit the newest is dropped and logged: an event is a help for people, never a reason to
/// hold a pass.
const WAITING_MAX: usize = 8192;

/// How long a repetition counts as one of the same series, as client-go has it.
const SERIES_AGE_MAX: SignedDuration = SignedDuration::from_mins(6);

/// Series that a lane remembers. At the limit the old ones are forgotten, and all if there are none: their next repetition is
/// a new event.
const SERIES_MAX: usize = 1024;

/// Hands events to the task that publishes them.
///
/// # Guarantees
/// What is told of one object is published in the order in which it was told.
#[derive(Clone)]
pub(crate) struct Events {
    lanes: Arc<[mpsc::Sender<Queued>]>,
}

enum Queued {
    /// What has happened, and when.
    Event(Box<Event>, Timestamp),
    /// Answered once everything before it was published.
    Flush(oneshot::Sender<()>),
}

/// The publishing half.
pub(crate) struct Publisher {
    lanes: Vec<Lane>,
}

/// Publishes one event after the other.
///
/// kube's own recorder folds events of one reason into a series whatever they say; here the text counts too, or the
/// second commit of a placement would be shown as a repetition of the first.
struct Lane {
    queue: mpsc::Receiver<Queued>,
    platform: Client,
    instance: String,
    series: HashMap<Key, Series>,
    /// Of the latest event.
    last: Timestamp,
}

/// What makes two events the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Option<String>,
    object: String,
    reason: &'static str,
    note: String,
    reporter: &'static str,
}

/// An event that was published, and how often it happened.
struct Series {
    name: String,
    count: i32,
    last: Timestamp,
}

/// Returns both halves. `host` distinguishes several instances of the process.
pub(crate) fn channel(platform: Client, host: &str) -> (Events, Publisher) {
    let lanes = (0..LANES).map(|_| {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        (
            sender,
            Lane {
                queue,
                platform: platform.clone(),
                instance: host.to_owned(),
                series: HashMap::new(),
                last: Timestamp::UNIX_EPOCH,
            },
        )
    });
    let (senders, lanes): (Vec<_>, _) = lanes.unzip();
    (Events { lanes: senders.into() }, Publisher { lanes })
}

impl Events {
    /// Queues an event; never waits.
    pub(crate) fn publish(&self, event: &Event) {
        let queued = Queued::Event(Box::new(event.clone()), Timestamp::now());
        if let Err(error) = self.lanes[lane(event)].try_send(queued) {
            tracing::warn!(reason = event.reason, object = %event.regarding, %error, "event dropped");
        }
    }

    /// Waits until everything that was queued before is published, or could not be.
    pub(crate) async fn flush(&self) {
        let flush = |lane: &mpsc::Sender<Queued>| {
            let lane = lane.clone();
            async move {
                let (sender, flushed) = oneshot::channel();
                // An error of either means that nothing is published any more.
                if lane.send(Queued::Flush(sender)).await.is_ok() {
                    let _ = flushed.await;
                }
            }
        };
        join_all(self.lanes.iter().map(flush)).await;
    }
}

/// Returns the lane of the object that an event is about, the same in every process.
fn lane(event: &Event) -> usize {
    let mut hasher = DefaultHasher::new();
    (&event.regarding.kind.kind, &event.regarding.key).hash(&mut hasher);
    usize::try_from(hasher.finish() % LANES as u64).unwrap_or_default()
}

impl Publisher {
    /// Publishes until every [`Events`] is dropped.
    pub(crate) async fn run(self) {
        join_all(self.lanes.into_iter().map(Lane::run)).await;
    }
}

impl Lane {
    async fn run(mut self) {
        while let Some(queued) = self.queue.recv().await {
            let (event, at) = match queued {
                Queued::Event(event, at) => (event, at),
                Queued::Flush(sender) => {
                    let _ = sender.send(());
                    continue;
                }
            };
            let at = self.after_the_last(at);
            if let Err(error) = self.publish(&event, at).await {
                tracing::debug!(reason = event.reason, object = %event.regarding, %error, "event not published");
            }
        }
    }

    /// Returns a time that no other event of the lane has: the name of an event is made of its object's and of its time, and a
    /// clock may say the same twice.
    fn after_the_last(&mut self, at: Timestamp) -> Timestamp {
        let next = self.last.saturating_add(SignedDuration::from_nanos(1)).unwrap_or(at);
        self.last = at.max(next);
        self.last
    }

    async fn publish(&mut self, event: &Event, now: Timestamp) -> Result<(), kube::Error> {
        // Events of objects without a namespace live in `default`.
        let namespace = event.regarding.key.namespace.as_deref().unwrap_or("default");
        let events: Api<Published> = Api::namespaced(self.platform.clone(), namespace);
        let key = key(event);
        let goes_on = |series: &Series| now.duration_since(series.last) < SERIES_AGE_MAX;
        if self.series.len() >= SERIES_MAX {
            self.series.retain(|_, series| goes_on(series));
        }
        if self.series.len() >= SERIES_MAX {
            self.series.clear();
        }
        if let Some(series) = self.series.get_mut(&key).filter(|series| goes_on(series)) {
            series.count += 1;
            series.last = now;
            let count = EventSeries { count: series.count, last_observed_time: MicroTime(now) };
            match events.patch(&series.name, &PatchParams::default(), &Patch::Merge(json!({"series": count}))).await {
                Ok(_) => return Ok(()),
                // It has expired or was deleted: told anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let published = published(event, namespace, &self.instance, now);
        let name = published.metadata.name.clone().unwrap_or_default();
        events.create(&PostParams::default(), &published).await?;
        self.series.insert(key, Series { name, count: 1, last: now });
        Ok(())
    }
}

fn key(event: &Event) -> Key {
    Key {
        uid: event.regarding.uid.clone(),
        object: event.regarding.to_string(),
        reason: event.reason,
        note: event.note.clone(),
        reporter: event.reporter.name(),
    }
}

fn published(event: &Event, namespace: &str, instance: &str, now: Timestamp) -> Published {
    let target = &event.regarding;
    let type_ = match event.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let regarding = ObjectReference {
        api_version: Some(target.kind.api_version()),
        kind: Some(target.kind.kind.clone()),
        name: Some(target.key.name.clone()),
        namespace: target.key.namespace.clone(),
        uid: target.uid.clone(),
        resource_version: target.resource_version.clone(),
        field_path: None,
    };
    Published {
        metadata: ObjectMeta {
            name: Some(name(&target.key.name, now)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(type_.to_owned()),
        reason: Some(event.reason.to_owned()),
        action: Some(event.reason.to_owned()),
        note: Some(truncated(&event.note, NOTE_BYTES_MAX).to_owned()),
        event_time: Some(MicroTime(now)),
        regarding: Some(regarding),
        reporting_controller: Some(event.reporter.name().to_owned()),
        reporting_instance: Some(format!("{}-{instance}", event.reporter.name())),
        ..Published::default()
    }
}

/// Returns the name of an event as client-go has it, of a long object's name the beginning.
fn name(object: &str, now: Timestamp) -> String {
    let suffix = format!(".{:x}", now.as_nanosecond());
    let prefix = truncated(object, NAME_BYTES_MAX - suffix.len());
    // A label of a name ends with a letter or a digit.
    format!("{}{suffix}", prefix.trim_end_matches(|end: char| !end.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_apiserver::{Server, User};
    use kratix_core::object::{Kind, ObjectKey, Target};
    use kratix_core::plan::Reporter;
    use kube::api::ListParams;

    fn written(version: &str) -> Event {
        let target = Target {
            kind: Kind::new("platform.kratix.io", "v1alpha1", "WorkPlacement", "workplacements"),
            key: ObjectKey { namespace: Some("default".into()), name: "w".into() },
            uid: Some("u".into()),
            resource_version: None,
        };
        Event::normal(Reporter::WorkPlacement, target, "WorkloadsWrittenToStateStore", format!("versionID: {version}"))
    }

    fn lane_of(platform: &Client) -> Lane {
        let (_events, publisher) = channel(platform.clone(), "host");
        publisher.lanes.into_iter().next().unwrap()
    }

    #[tokio::test]
    async fn what_is_said_again_is_counted_and_what_differs_is_told() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut lane = lane_of(&platform);
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        for (version, seconds) in [("a", 0), ("b", 1), ("a", 2), ("a", 1_000)] {
            lane.publish(&written(version), at(seconds)).await.unwrap();
        }
        let list = Api::<Published>::namespaced(platform, "default").list(&ListParams::default()).await.unwrap();
        let mut told: Vec<(String, i32)> = (list.items.into_iter())
            .map(|event| (event.note.unwrap_or_default(), event.series.map_or(1, |series| series.count)))
            .collect();
        told.sort();
        let expected = [("versionID: a", 1), ("versionID: a", 2), ("versionID: b", 1)];
        assert_eq!(told, expected.map(|(note, count)| (note.to_owned(), count)));
        server.shutdown().await;
    }

    #[test]
    fn the_name_of_an_event_fits_whatever_the_objects_is() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_eq!(name("w", now), "w.18fae27693b40000");
        let long = name(&"w".repeat(253), now);
        assert_eq!(long.len(), NAME_BYTES_MAX);
        // The cut is right behind a dot and a dash.
        let odd = format!("{}-.{}", "w".repeat(234), "x".repeat(17));
        assert_eq!(name(&odd, now), format!("{}.18fae27693b40000", "w".repeat(234)));
    }

    #[tokio::test]
    async fn events_of_one_moment_have_names_of_their_own() {
        let server = Server::builder().build().await.unwrap();
        let mut lane = lane_of(&Client::new(server.service(User::admin("test")), "default"));
        let at = |nanos| Timestamp::from_nanosecond(nanos).unwrap();
        let times = [7, 7, 7, 3, 20].map(|nanos| lane.after_the_last(at(nanos)).as_nanosecond());
        assert_eq!(times, [7, 8, 9, 10, 20]);
        server.shutdown().await;
    }

    #[tokio::test]
    async fn what_happens_to_an_object_with_a_long_name_is_told() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut event = written("a");
        event.regarding.key.name = "w".repeat(253);
        event.note = "é".repeat(2000);
        lane_of(&platform).publish(&event, Timestamp::now()).await.unwrap();
        let told = Api::<Published>::namespaced(platform, "default").list(&ListParams::default()).await.unwrap();
        assert_eq!(told.items[0].note, Some("é".repeat(NOTE_BYTES_MAX / 2)), "cut to what an event holds");
        server.shutdown().await;
    }

    #[tokio::test]
    async fn a_flush_waits_for_what_was_told_before_it() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let (events, publisher) = channel(platform.clone(), "host");
        // Ten objects, ten events each.
        for at in 0..100 {
            let mut event = written(&at.to_string());
            event.regarding.key.name = format!("w{}", at % 10);
            events.publish(&event);
        }
        let publisher = tokio::spawn(publisher.run());
        events.flush().await;
        let told = Api::<Published>::namespaced(platform, "default").list(&ListParams::default()).await.unwrap();
        assert_eq!(told.items.len(), 100);
        let mut told = told.items;
        told.sort_by_key(|event| event.metadata.resource_version.clone().unwrap().parse::<u64>().unwrap());
        for object in 0..10 {
            let of_object = told
                .iter()
                .filter(|event| event.regarding.as_ref().unwrap().name.as_ref().unwrap() == &format!("w{object}"));
            let notes: Vec<String> = of_object.map(|event| event.note.clone().unwrap()).collect();
            let expected: Vec<String> = (0..10).map(|at| format!("versionID: {}", at * 10 + object)).collect();
            assert_eq!(notes, expected, "those of one object keep their order");
        }
        publisher.abort();
        let _ = publisher.await;
        events.flush().await; // nobody is there any more
        server.shutdown().await;
    }
}
