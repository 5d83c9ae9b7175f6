//! One cell of a table, measured in a process of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use kratix_state_store::{BucketAuth, BucketConfig, Change, GitConfig, Handle, Secret, StoreConfig};
use serde::{Deserialize, Serialize};

use super::process::Used;
use super::repository::{BRANCH, contents, directory};
use super::{reference, requests, scheduler, works};

/// What a process is asked to measure.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// This store, on a repository.
    Store(Place, Load),
    /// This store, on a bucket of a server.
    Bucket(Bucket, Load),
    /// One `git` command after another.
    Reference(Place, Load),
    /// Works, until their files are written.
    Works(works::Setting),
    /// Scheduling at scale.
    Scheduler(scheduler::Setting),
    /// Requests whose pods are played.
    Requests(requests::Setting),
}

/// Where a repository is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) url: String,
    pub(super) ca_pem: Option<String>,
    /// For caches and clones.
    pub(super) scratch: PathBuf,
}

/// A bucket of a server that speaks plain HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bucket {
    pub(super) endpoint: String,
    pub(super) name: String,
    pub(super) access_key: String,
    pub(super) secret_key: String,
}

/// How much is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Load {
    /// So many placements wait at the same time.
    pub(super) waiting: usize,
    /// So many times.
    pub(super) rounds: usize,
}

/// What was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// The time until a fresh process knows the repository.
    pub(super) first: Duration,
    pub(super) write: Phase,
    pub(super) delete: Phase,
    pub(super) peak_kib: u64,
    pub(super) child_peak_kib: u64,
}

/// Several rounds of one kind.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Phase {
    /// How long each round took, in order of length.
    pub(super) rounds: Vec<Duration>,
    pub(super) cpu: Duration,
}

impl Phase {
    pub(super) fn median(&self) -> Duration {
        self.rounds[self.rounds.len() / 2]
    }
}

/// Does a task that [`super::process::alone`] gave, and prints the result.
#[expect(clippy::print_stdout, reason = "that is how the parent gets it")]
pub(super) fn run(task: &str) -> Result<()> {
    let task = serde_json::from_str(task)?;
    let mut runtime = match task {
        // On one thread, the store's task sees what waits when all of it waits, and not its first change alone.
        Task::Store(..) | Task::Bucket(..) => tokio::runtime::Builder::new_current_thread(),
        Task::Reference(..) | Task::Works(_) | Task::Scheduler(_) | Task::Requests(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
    };
    let runtime = runtime.enable_all().build()?;
    let result = match task {
        Task::Store(place, load) => serde_json::to_string(&runtime.block_on(repository(place, load))?)?,
        Task::Bucket(bucket, load) => serde_json::to_string(&runtime.block_on(self::bucket(bucket, load))?)?,
        Task::Reference(place, load) => serde_json::to_string(&reference::measure(&place, load)?)?,
        Task::Works(setting) => serde_json::to_string(&runtime.block_on(works::measure(setting))?)?,
        Task::Scheduler(setting) => serde_json::to_string(&runtime.block_on(scheduler::measure(setting))?)?,
        Task::Requests(setting) => serde_json::to_string(&runtime.block_on(requests::measure(setting))?)?,
    };
    println!("{result}");
    Ok(())
}

async fn repository(place: Place, load: Load) -> Result<Measured> {
    let mut config = GitConfig::new("bench", place.url);
    config.branch = BRANCH.to_owned();
    config.tls.ca_pem = place.ca_pem.map(String::into_bytes);
    measure(config.into(), place.scratch, load).await
}

async fn bucket(bucket: Bucket, load: Load) -> Result<Measured> {
    let auth = BucketAuth::Keys { id: bucket.access_key, secret: Secret::new(bucket.secret_key) };
    let mut config = BucketConfig::new("bench", bucket.endpoint, bucket.name, auth);
    config.plain_http = true;
    measure(config.into(), PathBuf::new(), load).await
}

async fn measure(config: StoreConfig, cache: PathBuf, load: Load) -> Result<Measured> {
    let began = Instant::now();
    let store = kratix_state_store::open(config, cache)?;
    store.check().await?;
    let first = began.elapsed();
    // The first write also makes a branch, directories, connections.
    all(&store, (0..1).map(|at| update(at, 0)).collect()).await?;

    let mut write = Phase::default();
    let mut delete = Phase::default();
    let names = |round: usize| round * load.waiting + 1..(round + 1) * load.waiting + 1;
    for round in 0..load.rounds {
        write.round(&store, names(round).map(|at| update(at, round))).await?;
    }
    for round in 0..load.rounds {
        delete.round(&store, names(round).map(removal)).await?;
    }
    // Whoever is measured next in the same bucket begins with the same write, which has to alter something.
    all(&store, vec![removal(0)]).await?;
    write.rounds.sort();
    delete.rounds.sort();
    let used = Used::now()?;
    Ok(Measured { first, write, delete, peak_kib: used.peak_kib, child_peak_kib: used.child_peak_kib })
}

impl Phase {
    async fn round(&mut self, store: &Handle, changes: impl Iterator<Item = Change>) -> Result<()> {
        let changes = changes.collect();
        let (before, began) = (Used::now()?, Instant::now());
        all(store, changes).await?;
        self.rounds.push(began.elapsed());
        self.cpu += Used::now()?.cpu_since(&before);
        Ok(())
    }
}

fn name(at: usize) -> String {
    format!("bench-{at}")
}

fn update(at: usize, round: usize) -> Change {
    Change::replace(name(at), directory(at, &name(at)), contents(&name(at), round))
}

fn removal(at: usize) -> Change {
    Change::remove(name(at), directory(at, &name(at)))
}

/// Queues all changes at once and waits for the last one.
async fn all(store: &Handle, changes: Vec<Change>) -> Result<()> {
    let mut answers = Vec::with_capacity(changes.len());
    // A task that waits without end in one go is interrupted, and what is queued by then would be a batch of its own.
    let queued = tokio::task::unconstrained(async {
        for change in changes {
            answers.push(store.reserve().await?.send(change));
        }
        anyhow::Ok(())
    });
    queued.await?;
    for answer in answers {
        anyhow::ensure!(answer.await?.changed, "a change altered nothing");
    }
    Ok(())
}
