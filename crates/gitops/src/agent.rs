//! When to synchronise: at the start, after a push, again after failures, and now and then to find drift.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::{Cluster, Memory};
use crate::source::{Error, Source};
use crate::sync::{Depth, Status, Sync};
use crate::wake::Watch;

/// The first pause after a failure; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest pause after failures.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the branch is looked at when no event reports a push: a packed ref, a network file system.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The same where the branch cannot be watched.
const LOOK_EVERY_UNWATCHED: Duration = Duration::from_secs(1);

/// Settings of an agent.
#[derive(Clone)]
pub struct Builder {
    client: Client,
    repository: String,
    branch: String,
    directory: String,
    name: Option<String>,
    namespace: String,
    manager: String,
    drift: Duration,
    look_every: Duration,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("repository", &self.repository)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Sets the repository: a path or a `file://` URL.
    #[must_use]
    pub fn repository(mut self, address: impl Into<String>) -> Self {
        self.repository = address.into();
        self
    }

    /// Sets the branch; `main` by default.
    #[must_use]
    pub fn branch(mut self, branch: impl Into<String>) -> Self {
        self.branch = branch.into();
        self
    }

    /// Sets the directory; the whole repository by default.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<String>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Sets the name in messages and in the ConfigMap's name; by default that of the directory.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the namespace of the ConfigMap that remembers what was applied; `default` by default. It must exist.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the field manager; `embedded-gitops` by default. Two agents of one cluster need two.
    #[must_use]
    pub fn field_manager(mut self, manager: impl Into<String>) -> Self {
        self.manager = manager.into();
        self
    }

    /// Sets how often unchanged objects are compared with the cluster; ten minutes by default.
    #[must_use]
    pub fn drift_check(mut self, every: Duration) -> Self {
        self.drift = every;
        self
    }

    /// Sets how often the branch is looked at although no event has reported a push; 30 s by default. A branch that cannot be
    /// watched is looked at each second.
    #[must_use]
    pub fn look_every(mut self, every: Duration) -> Self {
        self.look_every = every;
        self
    }

    /// Starts the agent in the current Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Address`] for a repository that is not on this machine. One that does not exist yet is waited for.
    pub fn start(self) -> Result<Agent, Error> {
        let source = Source::new(&self.repository, self.branch, &self.directory)?;
        let name = self.name.unwrap_or_else(|| match self.directory.trim_matches('/') {
            "" => "root".to_owned(),
            directory => directory.to_owned(),
        });
        let memory = Memory { namespace: self.namespace, name: format!("{}-{}", self.manager, label(&name)) };
        let watch = Watch::new(source.branch_file());
        let cluster = Cluster::new(self.client, self.manager);
        let sync = Sync { source, cluster, memory, name, remembered: None };
        let (status, statuses) = watch::channel(Status::default());
        let (poke, pokes) = watch::channel(());
        let times = Times { drift: self.drift, look: self.look_every };
        let task = tokio::spawn(run(sync, watch, status, pokes, times));
        Ok(Agent { statuses, poke: Poke(poke), task })
    }
}

/// Returns `text` as part of an object's name.
fn label(text: &str) -> String {
    let text: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    text.trim_matches('-').chars().take(200).collect()
}

/// A running agent; it ends when dropped.
#[derive(Debug)]
pub struct Agent {
    statuses: watch::Receiver<Status>,
    poke: Poke,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    /// Starts the description of an agent for this cluster.
    pub fn builder(client: Client) -> Builder {
        Builder {
            client,
            repository: String::new(),
            branch: "main".to_owned(),
            directory: String::new(),
            name: None,
            namespace: "default".to_owned(),
            manager: "embedded-gitops".to_owned(),
            drift: Duration::from_secs(600),
            look_every: LOOK_EVERY,
        }
    }

    /// Returns a view of how far the cluster is.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.statuses.clone()
    }

    /// Returns a handle that makes the agent look at once.
    pub fn poke(&self) -> Poke {
        self.poke.clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Any request may be the last: what was applied is remembered before it is.
        self.task.abort();
    }
}

/// Makes an agent look at the branch now.
#[derive(Clone, Debug)]
pub struct Poke(watch::Sender<()>);

impl Poke {
    /// Makes the agent look. Many calls at once count as one.
    pub fn look(&self) {
        self.0.send_replace(());
    }
}

/// When to look without being told to.
struct Times {
    drift: Duration,
    look: Duration,
}

async fn run(
    mut sync: Sync,
    mut watch: Watch,
    status: watch::Sender<Status>,
    mut pokes: watch::Receiver<()>,
    times: Times,
) {
    let mut pause = RETRY_MIN;
    let mut next_drift = Instant::now() + times.drift;
    let mut seen: Option<Option<String>> = None;
    loop {
        watch.renew();
        let due = Instant::now() >= next_drift;
        let head = sync.source.head().ok().map(|head| head.map(|head| head.commit));
        let moved = head.is_none() || seen != head;
        let healthy = {
            let status = status.borrow();
            status.trouble.is_none() && status.failed.is_empty()
        };
        if moved || due || !healthy {
            if moved && head.is_some() {
                pause = RETRY_MIN;
            }
            let depth = if due { Depth::Drift } else { Depth::Changes };
            let next = match sync.run(depth).await {
                Ok(next) => next,
                Err(trouble) => Status { trouble: Some(trouble), ..status.borrow().clone() },
            };
            if due {
                next_drift = Instant::now() + times.drift;
            }
            seen = head;
            publish(&status, next, &sync.name);
        }
        let healthy = {
            let status = status.borrow();
            status.trouble.is_none() && status.failed.is_empty()
        };
        let look = if watch.is_live() { times.look } else { LOOK_EVERY_UNWATCHED };
        let wait = if healthy { look } else { pause.min(look) };
        let until = (Instant::now() + wait).min(next_drift);
        tokio::select! {
            () = watch.changed() => {}
            Ok(()) = pokes.changed() => {}
            () = tokio::time::sleep_until(until) => {
                if !healthy {
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

fn publish(status: &watch::Sender<Status>, next: Status, name: &str) {
    let before = status.borrow().clone();
    if before.trouble != next.trouble
        && let Some(trouble) = &next.trouble
    {
        tracing::warn!(agent = name, trouble, "cannot synchronise");
    }
    if before.failed != next.failed {
        for failure in &next.failed {
            tracing::warn!(agent = name, %failure, "failed");
        }
    }
    if before != next {
        status.send_replace(next);
    }
}
