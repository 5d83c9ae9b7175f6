//! From creating Works to their files being written: the controllers on an API server in the same process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use embedded_apiserver::{Server, Storage, User};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{Destination, GitStateStore, Work, WorkPlacement, compression, condition, keys};
use kratix_controllers::{Controllers, Options};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cell::Task;
use super::process::Used;
use super::{Table, process, repository};

const WORKS: usize = 1000;
const FILES: usize = 10_000;
const DESTINATIONS: usize = 10;
const DEADLINE: Duration = Duration::from_secs(300);
/// So long nothing was written, and all is done that will be.
const REST: Duration = Duration::from_secs(4);
/// The user whose writes are counted.
const CONTROLLERS: &str = "kratix";

/// What one process is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setting {
    works: usize,
    directory: PathBuf,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    created: Duration,
    written: Duration,
    ready: Duration,
    removed: Duration,
    deleted: Duration,
    deletion_cpu: Duration,
    deletion_commits: usize,
    writes: BTreeMap<String, u64>,
    events: BTreeMap<String, u64>,
    deletion_writes: BTreeMap<String, u64>,
    restart_writes: BTreeMap<String, u64>,
    commits: usize,
    cpu: Duration,
    peak_kib: u64,
}

/// Measures and prints.
pub(super) fn run(quick: bool) -> Result<()> {
    let works = if quick { WORKS / 10 } else { WORKS };
    let directory = tempfile::tempdir()?;
    repository::make(&directory.path().join("state.git"), FILES)?;
    let setting = Setting { works, directory: directory.path().to_owned() };
    let measured: Measured = process::alone(&Task::Works(setting))?;

    let mut table = Table::new(&["What", "Measured"]);
    let mut line = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
    let rate = |time: Duration| format!("{:.0}/s ({:.2} s)", works as f64 / time.as_secs_f64(), time.as_secs_f64());
    let each = |count: u64| format!("{:.2}", count as f64 / works as f64);
    line(&format!("{works} Works into {FILES} files, created → `WriteSucceeded`"), rate(measured.written));
    line("… the creating alone", rate(measured.created));
    line("… until all Works are `Ready`", rate(measured.ready));
    line("Commits", measured.commits.to_string());
    line("CPU for each Work", format!("{:.2} ms", measured.cpu.as_secs_f64() * 1e3 / works as f64));
    line("API writes for each Work", each(total(&measured.writes)));
    line("… without Events", each(total(&measured.writes) - events(&measured.writes)));
    line("… by kind", kinds(&measured.writes));
    line("… Events by kind and reason", kinds(&measured.events));
    line("Restart with nothing changed", format!("{} API writes", total(&measured.restart_writes)));
    line("Deleted, until the last placement is gone with its files", rate(measured.removed));
    line("… until everything is gone", rate(measured.deleted));
    line("… Commits", measured.deletion_commits.to_string());
    let deletion_cpu = measured.deletion_cpu.as_secs_f64() * 1e3 / works as f64;
    line("… CPU for each Work", format!("{deletion_cpu:.2} ms"));
    line("API writes for each deletion", each(total(&measured.deletion_writes)));
    line("… by kind", kinds(&measured.deletion_writes));
    line("Peak memory, API server included", format!("{} MiB", measured.peak_kib / 1024));
    table.print();
    Ok(())
}

fn total(writes: &BTreeMap<String, u64>) -> u64 {
    writes.values().sum()
}

fn events(writes: &BTreeMap<String, u64>) -> u64 {
    writes.iter().filter(|(kind, _)| kind.contains(" events")).map(|(_, count)| count).sum()
}

fn kinds(writes: &BTreeMap<String, u64>) -> String {
    writes.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

type Clients = Box<dyn Fn(&Server, User) -> Client + Send + Sync>;

pub(super) struct World {
    pub(super) server: Arc<Server>,
    pub(super) user: Client,
    /// Makes the clients of the controllers.
    clients: Clients,
    controllers: Option<Controllers>,
    cache: PathBuf,
}

pub(super) async fn measure(setting: Setting) -> Result<Measured> {
    let mut world = World::start(&setting.directory).await?;
    let repository = setting.directory.join("state.git");
    world.add_destinations(&repository).await?;
    world.rest().await?;

    let names: Vec<String> = (0..setting.works).map(|at| format!("work-{at}")).collect();
    let (writes, head, used) = (world.writes(), commits(&repository)?, Used::now()?);
    let works: Api<Work> = Api::namespaced(world.user.clone(), "default");
    let placements: Api<WorkPlacement> = Api::namespaced(world.user.clone(), "default");
    let seen = placements.list(&ListParams::default().limit(1)).await?;
    anyhow::ensure!(seen.items.is_empty(), "the world is not empty");

    let began = Instant::now();
    let create = async {
        futures::stream::iter(names.iter().enumerate())
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(16, |(at, name)| {
                let works = works.clone();
                async move {
                    works.create(&PostParams::default(), &work(at, name)?).await?;
                    Ok(())
                }
            })
            .await?;
        Ok(began.elapsed())
    };
    let written = async {
        let mut missing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let mut changes =
            watcher(placements.clone(), watcher::Config::default()).default_backoff().applied_objects().boxed();
        while !missing.is_empty() {
            let placement = changes.try_next().await?.context("the watch ended")?;
            let conditions = placement.status.map(|status| status.conditions).unwrap_or_default();
            if condition::find(&conditions, condition::WRITE_SUCCEEDED)
                .is_some_and(|written| written.status == condition::Status::True)
            {
                missing.remove(placement.spec.resource_name.as_str());
            }
        }
        Ok(began.elapsed())
    };
    let (created, written) = in_time(async { futures::future::try_join(create, written).await }).await?;
    let cpu = Used::now()?.cpu_since(&used);
    in_time(all_ready(&works, &names)).await?;
    let ready = began.elapsed();
    world.rest().await?;
    let events = world.events().await?;
    let (writes, commits) = (difference(&world.writes(), &writes), commits(&repository)? - head);

    let before = world.writes();
    world.restart().await?;
    world.rest().await?;
    let restart_writes = difference(&world.writes(), &before);

    let (before, head, used) = (world.writes(), self::commits(&repository)?, Used::now()?);
    let began = Instant::now();
    let delete = async {
        futures::stream::iter(&names)
            .map(Ok::<_, anyhow::Error>)
            .try_for_each_concurrent(16, |name| {
                let works = works.clone();
                async move { works.delete(name, &DeleteParams::background()).await.map(drop).map_err(Into::into) }
            })
            .await
    };
    in_time(delete).await?;
    in_time(gone(&placements)).await?;
    let removed = began.elapsed();
    in_time(gone(&works)).await?;
    let deleted = began.elapsed();
    let deletion_cpu = Used::now()?.cpu_since(&used);
    world.rest().await?;
    let deletion_commits = self::commits(&repository)? - head;
    let deletion_writes = difference(&world.writes(), &before);
    let left = std::process::Command::new("git")
        .args(["grep", "-c", "work-", repository::BRANCH, "--", "clusters"])
        .current_dir(&repository)
        .output()?;
    anyhow::ensure!(left.stdout.is_empty(), "files of deleted Works are left");
    if let Some(controllers) = world.controllers.take() {
        controllers.stop().await;
    }
    let peak_kib = Used::now()?.peak_kib;
    Ok(Measured {
        created,
        written,
        ready,
        removed,
        deleted,
        deletion_cpu,
        deletion_commits,
        writes,
        events,
        deletion_writes,
        restart_writes,
        commits,
        cpu,
        peak_kib,
    })
}

/// Waits until all Works say that they are done.
async fn all_ready(works: &Api<Work>, names: &[String]) -> Result<()> {
    let mut missing: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut changes = watcher(works.clone(), watcher::Config::default()).default_backoff().applied_objects().boxed();
    while !missing.is_empty() {
        let work = changes.try_next().await?.context("the watch ended")?;
        if kratix_core::work::readiness(&work) == kratix_core::work::Readiness::Ready {
            missing.remove(work.name_any().as_str());
        }
    }
    Ok(())
}

pub(super) async fn in_time<T>(done: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(DEADLINE, done).await.context("waiting for everything to be done")?
}

async fn gone<K>(api: &Api<K>) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
{
    let mut changes = watcher(api.clone(), watcher::Config::default()).default_backoff().boxed();
    let mut left = BTreeSet::new();
    while let Some(change) = changes.try_next().await? {
        match change {
            watcher::Event::Init => left.clear(),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => drop(left.insert(object.name_any())),
            watcher::Event::Delete(object) => drop(left.remove(&object.name_any())),
            watcher::Event::InitDone => {}
        }
        // Between the first and the last object of a list, nothing is known.
        if left.is_empty() && api.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

pub(super) fn commits(repository: &Path) -> Result<usize> {
    let mut command = std::process::Command::new("git");
    command.args(["rev-list", "--count", repository::BRANCH]).current_dir(repository);
    Ok(super::run_to_end(&mut command)?.trim().parse()?)
}

pub(super) fn difference(after: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = |(kind, count): (&String, &u64)| (kind.clone(), count - before.get(kind).copied().unwrap_or_default());
    after.iter().map(more).filter(|(_, count)| *count > 0).collect()
}

fn work(at: usize, name: &str) -> Result<Work> {
    let mut files = Vec::new();
    for file in repository::contents(name, 0) {
        files.push(json!({"filepath": file.path, "content": compression::compress(&file.content)}));
    }
    let work = json!({
        "apiVersion": keys::API_VERSION, "kind": "Work",
        // As the work-writer makes them; a Work without the finalizer costs one write more, which adds it.
        "metadata": {"name": name, "namespace": "default", "finalizers": [keys::FINALIZER_WORK_CLEANUP], "labels": {
            keys::PROMISE_NAME: "redis", keys::WORK_TYPE: "resource", keys::RESOURCE_NAME: name,
            keys::PIPELINE_NAME: "instance-configure",
        }},
        "spec": {
            "promiseName": "redis", "resourceName": name,
            "workloadGroups": [{
                "id": "5058f1af8388633f609cadb75a75dc9d", "directory": ".", "workloads": files,
                "destinationSelectors": [{"source": "promise", "matchLabels": {"worker": (at % DESTINATIONS).to_string()}}],
            }],
        },
    });
    Ok(serde_json::from_value(work)?)
}

impl World {
    pub(super) async fn start(directory: &Path) -> Result<Self> {
        Self::start_with(directory, |server, user| Client::new(server.service(user), "default")).await
    }

    /// As [`World::start`], with clients of the controllers' that are made by `clients`.
    pub(super) async fn start_with(
        directory: &Path,
        clients: impl Fn(&Server, User) -> Client + Send + Sync + 'static,
    ) -> Result<Self> {
        let server = Server::builder().storage(Storage::File(directory.join("objects"))).build().await?;
        let server = Arc::new(server);
        let user = Client::new(server.service(User::admin("bench")), "default");
        let crds = Api::<CustomResourceDefinition>::all(user.clone());
        for crd in kratix_api::crds() {
            crds.create(&PostParams::default(), &crd).await?;
            let established = kube::runtime::conditions::is_crd_established();
            in_time(async {
                let name = crd.name_any();
                let wait = kube::runtime::wait::await_condition(crds.clone(), &name, established);
                wait.await.map(drop).map_err(Into::into)
            })
            .await?;
        }
        let (clients, cache) = (Box::new(clients), directory.join("cache"));
        let mut world = Self { server, user, clients, controllers: None, cache };
        world
            .create::<Namespace>(json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": keys::SYSTEM_NAMESPACE},
            }))
            .await?;
        world.restart().await?;
        Ok(world)
    }

    async fn restart(&mut self) -> Result<()> {
        if let Some(controllers) = self.controllers.take() {
            controllers.stop().await;
        }
        let options = Options {
            adapter_image: "adapter".into(),
            adapter_pull_secret: None,
            cache_dir: self.cache.clone(),
            git: kratix_controllers::git_environment(),
            host: "bench".into(),
            clock: kratix_controllers::Clock::default(),
        };
        let client = (self.clients)(&self.server, User::admin(CONTROLLERS));
        self.controllers = Some(Controllers::start(client, options).await);
        Ok(())
    }

    pub(super) async fn create<K>(&self, object: Value) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        Api::<K>::all(self.user.clone()).create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    async fn add_destinations(&self, repository: &Path) -> Result<()> {
        self.create::<GitStateStore>(json!({
            "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": {"name": "store"},
            "spec": {"url": format!("file://{}", repository.display()), "branch": repository::BRANCH, "path": "clusters"},
        }))
        .await?;
        for at in 0..DESTINATIONS {
            self.create::<Destination>(json!({
                "apiVersion": keys::API_VERSION, "kind": "Destination",
                "metadata": {"name": format!("worker-{at}"), "labels": {"worker": at.to_string()}},
                "spec": {
                    "path": format!("worker-{at}"), "filepath": {"mode": "nestedByMetadata"},
                    "stateStoreRef": {"kind": "GitStateStore", "name": "store"},
                },
            }))
            .await?;
        }
        Ok(())
    }

    /// Writes so far, by user, verb and resource.
    pub(super) fn writes_of_all(&self) -> BTreeMap<String, u64> {
        let counters = self.server.counters().into_iter();
        counters.map(|(kind, count)| (format!("{} {} {}", kind.user, kind.verb, kind.resource), count)).collect()
    }

    /// Writes of the controllers so far, by verb and resource.
    pub(super) fn writes(&self) -> BTreeMap<String, u64> {
        let counters = self.server.counters().into_iter().filter(|(kind, _)| kind.user == CONTROLLERS);
        counters.map(|(kind, count)| (format!("{} {}", kind.verb, kind.resource), count)).collect()
    }

    async fn events(&self) -> Result<BTreeMap<String, u64>> {
        let mut counts = BTreeMap::new();
        for event in Api::<Event>::namespaced(self.user.clone(), "default").list(&ListParams::default()).await? {
            let kind = event.regarding.and_then(|object| object.kind).unwrap_or_default();
            *counts.entry(format!("{kind} {}", event.reason.unwrap_or_default())).or_default() += 1;
        }
        Ok(counts)
    }

    /// Waits until nothing was written for a while. Returns since when.
    pub(super) async fn rest(&self) -> Result<Instant> {
        in_time(async {
            let mut last = (self.server.revision(), Instant::now());
            while last.1.elapsed() < REST {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let is_at_rest = self.controllers.as_ref().is_none_or(Controllers::is_at_rest);
                if self.server.revision() != last.0 || !is_at_rest {
                    last = (self.server.revision(), Instant::now());
                }
            }
            Ok(last.1)
        })
        .await
    }
}
