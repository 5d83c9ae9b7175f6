//! Asks for requests and looks on: how far each of them is, and whether anything is said too early.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future, stream};
use kratix_api::{Promise, WorkPlacement, condition};
use kratix_core::work_placement::is_written;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

pub(super) const PROMISE: &str = include_str!("../../../../examples/database/promise.yaml");
const DEADLINE: Duration = Duration::from_secs(600);
/// Requests of users that are on their way at once.
const USERS: usize = 16;

/// How long it took.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Took {
    /// Until the files of all are in the repository.
    pub(in crate::bench) written: Duration,
    /// Until all say that they are reconciled.
    pub(in crate::bench) reconciled: Duration,
}

fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.kratix.io", "v1", "Database"), "databases")
}

pub(super) fn promise() -> Result<Value> {
    Ok(serde_saphyr::from_str(PROMISE)?)
}

/// Makes the Promise of the example and waits until it is available.
pub(in crate::bench) async fn publish(client: &Client) -> Result<()> {
    let promises: Api<Promise> = Api::all(client.clone());
    promises.create(&PostParams::default(), &serde_json::from_value(promise()?)?).await?;
    let config = watcher::Config::default().fields("metadata.name=database");
    let mut changes = watcher(promises, config).default_backoff().applied_objects().boxed();
    let available = async {
        while let Some(promise) = changes.try_next().await? {
            let conditions = promise.status.map(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.r#type == "Available" && c.status == condition::Status::True) {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(DEADLINE, available).await.context("waiting for the Promise")?
}

/// Asks for databases of these names at once and waits until all of them are there.
///
/// # Errors
/// One of them said that it is reconciled before its files were written.
pub(in crate::bench) async fn ask(client: &Client, names: &[String]) -> Result<Took> {
    let requests: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource());
    let mut onlooker = Onlooker::new(client, names);
    let began = Instant::now();
    let create = stream::iter(names).map(Ok::<_, anyhow::Error>).try_for_each_concurrent(USERS, |name| {
        let requests = requests.clone();
        async move {
            let request = DynamicObject::new(name, &resource()).data(json!({"spec": {"size": "small"}}));
            requests.create(&PostParams::default(), &request).await?;
            Ok(())
        }
    });
    let done = onlooker.until(began, |_| true);
    let (_, took) = in_time(future::try_join(create, done)).await?;
    onlooker.check()?;
    Ok(took)
}

/// Changes what the Promise runs, and waits until all requests have run it.
///
/// # Errors
/// As [`ask`].
pub(super) async fn update_promise(client: &Client, version: &str, names: &[String]) -> Result<Took> {
    let promises: Api<Promise> = Api::all(client.clone());
    let mut changed = serde_json::to_value(promises.get("database").await?)?;
    changed["metadata"]["labels"]["kratix.io/promise-version"] = json!(version);
    let run = "/spec/workflows/resource/configure/0/spec/containers/0";
    changed.pointer_mut(run).context("the container of the example")?["env"] = json!([{"name": "V", "value": version}]);
    let mut onlooker = Onlooker::new(client, names);
    let began = Instant::now();
    promises.replace("database", &PostParams::default(), &serde_json::from_value(changed)?).await?;
    let is_at = |request: &DynamicObject| request.data["status"]["promiseVersion"] == version;
    let took = in_time(onlooker.until(began, is_at)).await?;
    onlooker.check()?;
    Ok(took)
}

async fn in_time<T>(done: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, done).await.context("waiting for all requests to be reconciled")?
}

/// What is seen of one request.
#[derive(Default)]
struct Seen {
    /// Whether the present content of its placement is written, at which version of the world.
    written: Vec<(u64, bool)>,
    /// Whether it says that it is reconciled.
    reconciled: Vec<(u64, bool)>,
    is_reconciled: bool,
}

/// Follows requests and their placements.
struct Onlooker {
    placements: BoxStream<'static, watcher::Result<WorkPlacement>>,
    requests: BoxStream<'static, watcher::Result<DynamicObject>>,
    seen: BTreeMap<String, Seen>,
}

impl Onlooker {
    fn new(client: &Client, names: &[String]) -> Self {
        let placements: Api<WorkPlacement> = Api::namespaced(client.clone(), "default");
        let requests: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource());
        let config = watcher::Config::default;
        Self {
            placements: watcher(placements, config()).default_backoff().applied_objects().boxed(),
            requests: watcher(requests, config()).default_backoff().applied_objects().boxed(),
            seen: names.iter().map(|name| (name.clone(), Seen::default())).collect(),
        }
    }

    /// Waits until all requests are reconciled, in the form that is wanted.
    async fn until(&mut self, began: Instant, is_wanted: impl Fn(&DynamicObject) -> bool) -> Result<Took> {
        let (mut written, mut reconciled) = (Duration::ZERO, Duration::ZERO);
        let mut missing = self.seen.len();
        let mut unwritten: BTreeMap<String, ()> = self.seen.keys().map(|name| (name.clone(), ())).collect();
        while missing > 0 || !unwritten.is_empty() {
            tokio::select! {
                placement = self.placements.try_next() => {
                    let placement = placement?.context("the watch on placements ended")?;
                    let Some(seen) = self.seen.get_mut(&placement.spec.resource_name) else { continue };
                    let is_written = is_written(&placement);
                    seen.written.push((version(&placement)?, is_written));
                    if is_written && unwritten.remove(&placement.spec.resource_name).is_some() {
                        written = began.elapsed();
                    }
                }
                request = self.requests.try_next() => {
                    let request = request?.context("the watch on requests ended")?;
                    let Some(seen) = self.seen.get_mut(&request.name_any()) else { continue };
                    let says_so = is_reconciled(&request);
                    seen.reconciled.push((version(&request)?, says_so));
                    let is_done = says_so && is_wanted(&request);
                    if is_done != seen.is_reconciled {
                        seen.is_reconciled = is_done;
                        missing = if is_done { missing - 1 } else { missing + 1 };
                        reconciled = began.elapsed();
                    }
                }
            }
        }
        Ok(Took { written, reconciled })
    }

    /// Compares the order in which things were said, by the versions of the world.
    fn check(&self) -> Result<()> {
        for (name, seen) in &self.seen {
            let mut was_reconciled = None;
            for (at, says_so) in &seen.reconciled {
                let turned = *says_so && was_reconciled == Some(false);
                was_reconciled = Some(*says_so);
                let before = seen.written.iter().rev().find(|(version, _)| version < at);
                if turned && !before.is_some_and(|(_, is_written)| *is_written) {
                    bail!("{name} says that it is reconciled before its files are written");
                }
            }
        }
        Ok(())
    }
}

fn version(object: &impl kube::Resource) -> Result<u64> {
    object.resource_version().and_then(|version| version.parse().ok()).context("a version that counts")
}

fn is_reconciled(request: &DynamicObject) -> bool {
    let conditions = request.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Reconciled" && one["status"] == "True")
}
