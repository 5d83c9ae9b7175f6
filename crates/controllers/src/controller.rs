//! Runs the passes of one controller: takes keys from its queue, many at once, each key never twice at once.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Event, Next, Reporter};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::context::Context;
use crate::error::{Error, Retry};
use crate::events::Events;
use crate::queue::Queue;

/// First delay after a failure, as the original's.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest delay after repeated failures: a minute bounds how long a recovery outside the cluster goes unnoticed.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Delay after a write conflict: the newer object needs about a millisecond to reach the cache.
const CONFLICT: Duration = Duration::from_millis(3);
/// Delay while the cache is behind: not every change that ends it brings the object back to the queue.
const LOOK: Duration = Duration::from_millis(3);
/// Conflicts in a row that are retried at once; more of them mean a busy object and back off like failures.
const CONFLICTS_MAX: u32 = 8;

/// One controller: observe, decide, act for one object.
pub(crate) trait Reconcile: Send + Sync + 'static {
    /// Name in logs and metrics.
    const NAME: &'static str;

    /// Returns when to look again if nothing that concerns the object has happened since a pass has found nothing to do.
    fn rest(&self, _key: &ObjectKey) -> Option<Next> {
        None
    }

    /// Returns once a pass can begin: the caches show what earlier ones have made.
    fn ready(&self, _key: &ObjectKey) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Runs one pass.
    fn reconcile(&self, key: &ObjectKey) -> impl Future<Output = Result<Next, Error>> + Send;

    /// Returns who reports about which object when a pass fails for a reason that a person should see.
    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)>;
}

/// Runs passes until `shutdown` is cancelled; passes that have begun are finished.
pub(crate) async fn run<R: Reconcile>(
    controller: Arc<R>,
    queue: Queue<ObjectKey>,
    concurrency: usize,
    context: Arc<Context>,
    shutdown: CancellationToken,
) {
    let failures = Arc::new(Failures::default());
    let slots = Arc::new(Semaphore::new(concurrency));
    let mut passes = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        while passes.try_join_next().is_some() {}
        let key = tokio::select! {
            biased; // Nothing more is begun once the process stops.
            () = shutdown.cancelled() => break,
            key = queue.take() => key,
        };
        let (controller, queue) = (Arc::clone(&controller), queue.clone());
        let (failures, context) = (Arc::clone(&failures), Arc::clone(&context));
        passes.spawn(async move {
            let _slot = slot;
            // A panic counts as a failed pass of this object alone; no state of ours is shared but behind locks.
            let outcome = AssertUnwindSafe(pass(&*controller, &context, &key)).catch_unwind().await;
            queue.finish(&key);
            match outcome {
                Ok(Ok(next)) => {
                    failures.forget(&key);
                    if let Next::After(delay) = next {
                        queue.add_after(key, delay);
                    }
                }
                // Neither a failure nor the end of a series of them.
                Ok(Err(Error::Unseen { after })) => queue.add_after(key, after),
                Ok(Err(error)) => {
                    let count = failures.count(&key);
                    let delay = delay(error.retry(), count, &key);
                    report(&*controller, &key, &error, count, &failures, &context.events);
                    queue.add_after(key, delay);
                }
                Err(_panic) => {
                    let count = failures.count(&key);
                    tracing::error!(controller = R::NAME, object = %key, "pass panicked, see the message above");
                    queue.add_after(key.clone(), delay(Retry::Backoff, count, &key));
                }
            }
        });
    }
    while passes.join_next().await.is_some() {}
}

/// Runs a pass, if there is a reason for it, once the caches show what this process has last written and made.
async fn pass<R: Reconcile>(controller: &R, context: &Context, key: &ObjectKey) -> Result<Next, Error> {
    let shown = controller.subject(key);
    if shown.is_some_and(|(_, object)| context.superseded.shows(&object)) {
        return Err(Error::Unseen { after: LOOK });
    }
    if let Some(next) = controller.rest(key) {
        return Ok(next);
    }
    controller.ready(key).await?;
    let trace_id = tracing::field::Empty;
    let span = tracing::debug_span!("pass", controller = R::NAME, object = %key, trace_id);
    controller.reconcile(key).instrument(span).await
}

/// Tells of a failure: people once in a series, the first time that it is more than a conflict which goes by itself.
fn report<R: Reconcile>(
    controller: &R,
    key: &ObjectKey,
    error: &Error,
    count: u32,
    failures: &Failures,
    events: &Events,
) {
    let category = error.category();
    if error.retry() == Retry::Soon && count <= CONFLICTS_MAX {
        tracing::debug!(controller = R::NAME, object = %key, category, %error, "pass will be repeated");
        return;
    }
    tracing::warn!(controller = R::NAME, object = %key, category, count, %error, "pass failed");
    // What the object tells itself, it tells by an event of its own.
    if !matches!(error, Error::Told(_))
        && let Some((reporter, target)) = controller.subject(key)
        && failures.tell(key)
    {
        events.publish(&Event::warning(reporter, target, "ReconcileFailed", error.to_string()));
    }
}

fn delay(retry: Retry, count: u32, key: &ObjectKey) -> Duration {
    match retry {
        Retry::Soon if count <= CONFLICTS_MAX => CONFLICT,
        Retry::Soon | Retry::Backoff => {
            let exponential = BACKOFF_MIN.saturating_mul(1 << count.min(20).saturating_sub(1));
            jitter(exponential.min(BACKOFF_MAX), count, key)
        }
        Retry::OnChange => BACKOFF_MAX,
    }
}

/// Spreads the retries of many objects over a fifth of the delay. Derived from the key, so that runs are repeatable.
fn jitter(delay: Duration, count: u32, key: &ObjectKey) -> Duration {
    let seed =
        key.name.bytes().fold(u64::from(count) + 1, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    delay - delay.mul_f64((seed % 1000) as f64 / 5000.0)
}

/// The failures in a row of each object.
#[derive(Default)]
struct Failures(Mutex<HashMap<ObjectKey, Series>>);

/// Failures of one object since its last pass that was none.
#[derive(Default)]
struct Series {
    count: u32,
    is_told: bool,
}

impl Failures {
    fn count(&self, key: &ObjectKey) -> u32 {
        let mut failures = self.0.lock();
        let series = failures.entry(key.clone()).or_default();
        series.count = series.count.saturating_add(1);
        series.count
    }

    /// Notes that people are told of the series; returns whether they were not before.
    fn tell(&self, key: &ObjectKey) -> bool {
        let mut failures = self.0.lock();
        !std::mem::replace(&mut failures.entry(key.clone()).or_default().is_told, true)
    }

    fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use embedded_apiserver::{Server, User};
    use k8s_openapi::api::events::v1::Event as Published;
    use kratix_core::object::Kind;
    use kube::api::ListParams;
    use kube::{Api, Client};

    use super::*;
    use crate::context::tests::context;
    use crate::events;

    #[test]
    fn delays_grow_to_a_cap_and_conflicts_are_retried_at_once_a_few_times() {
        let key = ObjectKey::cluster("a");
        assert_eq!(delay(Retry::Soon, 1, &key), CONFLICT);
        let second = delay(Retry::Backoff, 2, &key);
        assert!(second > Duration::from_millis(7) && second <= Duration::from_millis(10), "{second:?}");
        let last = delay(Retry::Backoff, u32::MAX, &key);
        assert!(last >= BACKOFF_MAX.mul_f64(0.8) && last <= BACKOFF_MAX, "{last:?}");
        assert!(delay(Retry::Soon, CONFLICTS_MAX + 1, &key) > CONFLICT);
        assert_eq!(delay(Retry::OnChange, 1, &key), BACKOFF_MAX);
    }

    /// Counts its passes; its cache shows a version that the test sets.
    struct Counting {
        version: Mutex<&'static str>,
        passes: tokio::sync::watch::Sender<usize>,
    }

    impl Reconcile for Counting {
        const NAME: &'static str = "Counting";

        async fn reconcile(&self, _: &ObjectKey) -> Result<Next, Error> {
            self.passes.send_modify(|passes| *passes += 1);
            Ok(Next::OnChange)
        }

        fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
            let (kind, version) = (Kind::new("", "v1", "ConfigMap", "configmaps"), self.version.lock().to_string());
            Some((Reporter::Work, Target { kind, key: key.clone(), uid: None, resource_version: Some(version) }))
        }
    }

    #[tokio::test]
    async fn no_pass_looks_at_what_this_process_has_replaced() {
        let server = Server::builder().build().await.unwrap();
        let mut tasks = JoinSet::new();
        let context = Arc::new(context(Client::new(server.service(User::admin("test")), "default"), &mut tasks));
        let (passes, mut counted) = tokio::sync::watch::channel(0);
        let counting = Arc::new(Counting { version: Mutex::new("1"), passes });
        let (key, queue, stop) = (ObjectKey::cluster("a"), Queue::new(), CancellationToken::new());
        let (_, object) = counting.subject(&key).unwrap();
        context.superseded.note(vec![((object.kind, object.key), "1".into())]);
        tasks.spawn(run(Arc::clone(&counting), queue.clone(), 1, Arc::clone(&context), stop.clone()));
        queue.add(key.clone());
        // Another object has its passes meanwhile, and in between the first one is looked at.
        for name in ["b", "c", "d"] {
            let before = *counted.borrow();
            queue.add(ObjectKey::cluster(name));
            counted.wait_for(|passes| *passes > before).await.unwrap();
        }
        assert_eq!(*counted.borrow(), 3);
        *counting.version.lock() = "2";
        counted.wait_for(|passes| *passes == 4).await.unwrap();
        stop.cancel();
        drop(tasks);
        server.shutdown().await;
    }

    /// Its passes fail with the codes that a test gives, the last of which comes first.
    struct Failing {
        codes: Mutex<Vec<u16>>,
        passes: tokio::sync::watch::Sender<usize>,
    }

    impl Reconcile for Failing {
        const NAME: &'static str = "Failing";

        async fn reconcile(&self, _: &ObjectKey) -> Result<Next, Error> {
            self.passes.send_modify(|passes| *passes += 1);
            let Some(code) = self.codes.lock().pop() else { return Ok(Next::OnChange) };
            let status = kube::core::Status::failure(&format!("code {code}"), "r").with_code(code);
            Err(Error::read("ConfigMap a", kube::Error::Api(status.boxed())))
        }

        fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
            let kind = Kind::new("", "v1", "ConfigMap", "configmaps");
            Some((Reporter::Work, Target { kind, key: key.clone(), uid: None, resource_version: None }))
        }
    }

    #[tokio::test]
    async fn a_series_of_failures_is_told_once_whatever_it_begins_with() {
        let server = Server::builder().build().await.unwrap();
        let client = Client::new(server.service(User::admin("test")), "default");
        let mut tasks = JoinSet::new();
        let (events, publisher) = events::channel(client.clone(), "host");
        tasks.spawn(publisher.run());
        let context = Arc::new(Context { events, ..context(client.clone(), &mut tasks) });
        let (passes, mut counted) = tokio::sync::watch::channel(0);
        let failing = Arc::new(Failing { codes: Mutex::default(), passes });
        let (queue, stop) = (Queue::new(), CancellationToken::new());
        // One pass after the other: with the next one, all is told of the one before.
        tasks.spawn(run(Arc::clone(&failing), queue.clone(), 1, Arc::clone(&context), stop.clone()));
        let mut told = 0;
        for (codes, expected) in [
            (&[409, 500, 500][..], Some("reading ConfigMap a failed: code 500")),
            (&[500, 409, 403], Some("reading ConfigMap a failed: code 500")),
            (&[409; CONFLICTS_MAX as usize], None),
            (&[409; CONFLICTS_MAX as usize + 2], Some("reading ConfigMap a failed: code 409")),
        ] {
            *failing.codes.lock() = codes.iter().rev().copied().collect();
            let before = *counted.borrow();
            // At the end some succeed: one that was asked for by a timer may have come before the codes.
            for pass in 1..=codes.len() + 3 {
                queue.add(ObjectKey::cluster("a"));
                counted.wait_for(|passes| *passes >= before + pass).await.unwrap();
            }
            context.events.flush().await;
            let published = Api::<Published>::all(client.clone()).list(&ListParams::default()).await.unwrap();
            let failed = published.iter().filter(|event| event.reason.as_deref() == Some("ReconcileFailed"));
            let notes: Vec<(&str, i32)> = failed
                .map(|event| {
                    let count = event.series.as_ref().map_or(1, |series| series.count);
                    (event.note.as_deref().unwrap_or_default(), count)
                })
                .collect();
            told += usize::from(expected.is_some());
            assert_eq!(notes.iter().map(|(_, count)| *count as usize).sum::<usize>(), told, "{codes:?}: {notes:?}");
            assert!(expected.is_none_or(|text| notes.iter().any(|(note, _)| *note == text)), "{notes:?}");
        }
        stop.cancel();
        drop(tasks);
        server.shutdown().await;
    }
}
