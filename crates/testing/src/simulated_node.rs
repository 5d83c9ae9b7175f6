//! A node without containers: plays the Jobs of any API server as the Job controller and the kubelet would.
//!
//! Kratix's own containers are the real programs of `kratix-pipeline`, run in this process with directories for volumes; a
//! container of the pipeline's author is a closure. No Pods exist but those that cannot begin. A container that fails is run again as often as the Job's
//! `backoffLimit` allows: a closure at once, a program of Kratix after a short pause.
//!
//! ```no_run
//! # use kratix_testing::simulated_node::{Outcome, SimulatedNode, Stage};
//! # fn start(client: kube::Client) {
//! let node = SimulatedNode::builder(client).at_once(20).start(|stage: &Stage| {
//!     let size = stage.object()["spec"]["size"].clone();
//!     stage.output("config.yaml", &format!("size: {size}\n"));
//!     stage.metadata("status.yaml", "message: built\n");
//!     Outcome::Succeeded
//! });
//! # drop(node); // every container ends
//! # }
//! ```

mod job;
mod play;
mod pod;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Container;
use kratix_api::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// How a container of a pipeline's author ended.
pub enum Outcome {
    /// With 0.
    Succeeded,
    /// With another code.
    Failed,
    /// Not yet: the closure is asked again when the future is done.
    Later(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It cannot begin, because its image is not there for instance: a Pod says so until the future is done, and then the
    /// closure is asked again.
    Waiting {
        /// Of the container's state, `ErrImagePull` for instance.
        reason: &'static str,
        /// For people.
        message: String,
        /// What it waits for.
        until: Pin<Box<dyn Future<Output = ()> + Send>>,
    },
}

impl Outcome {
    /// Runs until the Job is deleted or suspended.
    pub fn never() -> Self {
        Self::Later(Box::pin(std::future::pending()))
    }
}

/// A container of a pipeline's author that is about to run, and the volumes it sees.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The Job; its labels and annotations say whose it is.
    pub job: &'a Job,
    /// The container.
    pub container: &'a Container,
    /// How many containers of this Job have failed before.
    pub failures: i32,
    input: &'a Path,
    output: &'a Path,
    metadata: &'a Path,
}

impl Stage<'_> {
    /// Returns a label of the Job, or an empty text.
    pub fn label(&self, key: &str) -> &str {
        self.job.labels().get(key).map_or("", String::as_str)
    }

    /// Returns `/kratix/input/object.yaml`.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn object(&self) -> Value {
        let text = std::fs::read_to_string(self.input.join("object.yaml")).expect("the reader has written the object");
        serde_saphyr::from_str(&text).expect("the reader writes YAML")
    }

    /// Writes a file below `/kratix/output`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn output(&self, path: &str, text: &str) {
        write(&self.output.join(path), text);
    }

    /// Writes a file below `/kratix/metadata`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn metadata(&self, path: &str, text: &str) {
        write(&self.metadata.join(path), text);
    }

    /// Returns the directories of the pod, each with where it is on this machine.
    pub fn mounts(&self) -> [(&'static str, &Path); 3] {
        [("/kratix/input", self.input), ("/kratix/output", self.output), ("/kratix/metadata", self.metadata)]
    }

    /// Returns where `/kratix/output` is on this machine.
    pub fn output_directory(&self) -> &Path {
        self.output
    }
}

fn write(path: &Path, text: &str) {
    let directory = path.parent().expect("a file has a directory");
    std::fs::create_dir_all(directory).expect("a directory in the volume");
    std::fs::write(path, text).expect("a file in the volume");
}

type Play = Arc<dyn Fn(&Stage<'_>) -> Outcome + Send + Sync>;
type ClientOf = Arc<dyn Fn(&str, &str) -> Client + Send + Sync>;
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a running Job needs.
#[derive(Clone)]
struct Context {
    client: Client,
    pods: ClientOf,
    clock: Clock,
    play: Play,
    places: Option<Arc<Semaphore>>,
}

/// Collects what a node is made of.
pub struct Builder(Context);

impl Builder {
    /// Sets how many Jobs run at once; without limit unless told otherwise.
    #[must_use]
    pub fn at_once(mut self, jobs: usize) -> Self {
        self.0.places = Some(Arc::new(Semaphore::new(jobs)));
        self
    }

    /// Sets the client of the programs in a pod, by namespace and name of its service account; the node's own unless told
    /// otherwise. `|namespace, name| Client::new(server.service(User::service_account(namespace, name)), namespace)`
    /// gives them the permissions that they have in a cluster.
    #[must_use]
    pub fn pods(mut self, client: impl Fn(&str, &str) -> Client + Send + Sync + 'static) -> Self {
        self.0.pods = Arc::new(client);
        self
    }

    /// Sets the clock; that of this machine unless told otherwise.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.0.clock = Arc::new(now);
        self
    }

    /// Starts the node; `play` stands for the containers of pipelines' authors and must not block.
    #[must_use]
    pub fn start(mut self, play: impl Fn(&Stage<'_>) -> Outcome + Send + Sync + 'static) -> SimulatedNode {
        self.0.play = Arc::new(play);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(self.0));
        SimulatedNode { _tasks: tasks }
    }
}

/// A node that runs for as long as the value lives. Dropping it is like a power cut: another one on the same API server
/// begins the Jobs again that have not ended.
pub struct SimulatedNode {
    _tasks: JoinSet<()>,
}

impl SimulatedNode {
    /// Begins to put a node together for an API server, as a user who may do everything to Jobs.
    pub fn builder(client: Client) -> Builder {
        let pods = client.clone();
        Builder(Context {
            client,
            pods: Arc::new(move |_, _| pods.clone()),
            clock: Arc::new(Timestamp::now),
            play: Arc::new(|_| Outcome::Succeeded),
            places: None,
        })
    }
}

/// What the node does about a Job at the moment.
#[derive(PartialEq, Eq)]
enum Doing {
    Running,
    Suspending,
}

/// Watches Jobs and starts and ends their tasks.
async fn follow(cx: Context) {
    let jobs: Api<Job> = Api::all(cx.client.clone());
    let mut events = watcher(jobs, watcher::Config::default()).default_backoff().boxed();
    let mut tasks = JoinSet::new();
    let mut known: BTreeMap<String, (Doing, AbortHandle)> = BTreeMap::new();
    let mut listed: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        // What has ended is taken out of the set now and then, so that it does not grow for ever.
        while tasks.try_join_next().is_some() {}
        let job = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                known.retain(|uid, (_, task)| listed.contains(uid) || abort(task));
                continue;
            }
            Ok(watcher::Event::InitApply(job)) => {
                listed.extend(job.uid());
                job
            }
            Ok(watcher::Event::Apply(job)) => job,
            Ok(watcher::Event::Delete(job)) => {
                if let Some((_, task)) = job.uid().and_then(|uid| known.remove(&uid)) {
                    task.abort();
                }
                continue;
            }
            // The kind of answer that a server gives while it starts or stops; the watcher tries again.
            Err(_) => continue,
        };
        let Some(uid) = job.uid() else { continue };
        if job::is_over(&job) {
            if let Some((_, task)) = known.remove(&uid) {
                task.abort();
            }
            continue;
        }
        let wanted = if job::is_suspended(&job) { Doing::Suspending } else { Doing::Running };
        if known.get(&uid).is_some_and(|(doing, _)| *doing == wanted) {
            continue;
        }
        if let Some((_, task)) = known.remove(&uid) {
            task.abort();
        }
        let task = match wanted {
            Doing::Running => tasks.spawn(play::run(cx.clone(), job)),
            Doing::Suspending => tasks.spawn(play::suspend(cx.clone(), job)),
        };
        known.insert(uid, (wanted, task));
    }
}

/// Ends a task; false, as an answer to whether it stays.
fn abort(task: &AbortHandle) -> bool {
    task.abort();
    false
}

/// A file system in memory, where there is one.
const MEMORY: &str = "/dev/shm";

/// The volumes of one run of a pod.
struct Volumes {
    root: tempfile::TempDir,
}

impl Volumes {
    fn new() -> std::io::Result<Self> {
        // What disks do with a thousand small directories is not what is tested or measured.
        let root = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir())?;
        let volumes = Self { root };
        for directory in [volumes.input(), volumes.output(), volumes.metadata(), volumes.scheduling()] {
            std::fs::create_dir_all(directory)?;
        }
        Ok(volumes)
    }

    fn input(&self) -> PathBuf {
        self.root.path().join("object")
    }

    /// The directory that the work-writer sees as `/work-creator-files`.
    fn files(&self) -> PathBuf {
        self.root.path().join("files")
    }

    fn output(&self) -> PathBuf {
        self.files().join("input")
    }

    fn metadata(&self) -> PathBuf {
        self.files().join("metadata")
    }

    fn scheduling(&self) -> PathBuf {
        self.files().join("kratix-system")
    }
}
