//! The server as a whole: built, served in process or over TLS, shut down.

pub(crate) mod activity;
pub(crate) mod bodies;
mod identity;
mod listen;
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admission::{Admission, AdmitAll};
use crate::auth::{Roles, Tokens, default_roles};
use crate::catalog::Catalog;
use crate::chores::{self, Chores};
use crate::core::{Call, Core};
use crate::counters::{Counters, Exposition, WriteKind};
use crate::logs::{NoLogs, PodLogs};
use crate::store::{ObjectName, OpenError, Scope, Store};
use crate::user::User;

pub use listen::{ListenError, Listening};
pub use service::Service;

use identity::Identity;

/// Time for everything to end when the server stops; longer than connections may take. What is left is cut off.
const SHUTDOWN_MAX: Duration = Duration::from_secs(15);

/// Where objects live.
#[derive(Clone, Debug, Default)]
pub enum Storage {
    /// In memory, as long as the server.
    #[default]
    Memory,
    /// In one file; created if it does not exist.
    File(PathBuf),
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be opened.
    #[error("cannot open the store of the API server")]
    Store(#[from] OpenError),
    /// The key or certificate cannot be made or kept.
    #[error("cannot prepare the identity of the API server: {0}")]
    Identity(String),
}

/// Collects what a server is made of.
pub struct Builder {
    storage: Storage,
    admission: Arc<dyn Admission>,
    logs: Arc<dyn PodLogs>,
    expositions: Vec<Arc<dyn Exposition>>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    draws: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("storage", &self.storage).finish_non_exhaustive()
    }
}

impl Builder {
    /// Sets where objects live; memory unless told otherwise.
    #[must_use]
    pub fn storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets who decides on writes; everything is let through unless told otherwise.
    #[must_use]
    pub fn admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admission = admission;
        self
    }

    /// Sets where `pods/log` comes from.
    #[must_use]
    pub fn pod_logs(mut self, logs: Arc<dyn PodLogs>) -> Self {
        self.logs = logs;
        self
    }

    /// Adds something that is told at `/metrics` beside the server's own counts.
    #[must_use]
    pub fn exposition(mut self, exposition: Arc<dyn Exposition>) -> Self {
        self.expositions.push(exposition);
        self
    }

    /// Sets what tells the time of requests: creation, deletion, managed fields. The clock of this machine unless told
    /// otherwise.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(now);
        self
    }

    /// Sets where uids and the ends of generated names come from: numbers that do not come again, and that differ in their first
    /// bytes as well, of which ends of names are made. Random unless told otherwise.
    #[must_use]
    pub fn draws(mut self, draw: impl Fn() -> u128 + Send + Sync + 'static) -> Self {
        self.draws = Arc::new(draw);
        self
    }

    /// Opens the store and prepares what every cluster has: namespaces, default roles, keys.
    ///
    /// # Errors
    /// [`StartError::Store`] for a file that is in use, unreadable, or of a newer version.
    pub async fn build(self) -> Result<Server, StartError> {
        let store = match self.storage {
            Storage::Memory => Store::memory(),
            Storage::File(path) => tokio::task::spawn_blocking(move || Store::open(&path))
                .await
                .map_err(|error| StartError::Identity(error.to_string()))??,
        };
        let identity = Identity::load(&store).await?;
        let core = Arc::new(Core {
            catalog: Catalog::new(),
            admission: self.admission,
            logs: self.logs,
            counters: Counters::default(),
            expositions: self.expositions,
            roles: Roles::default(),
            tokens: Tokens::new(&identity.token_key),
            chores: Chores::default(),
            ca_pem: identity.ca_pem.clone(),
            address: parking_lot::RwLock::new("localhost".into()),
            crd_writes: tokio::sync::Mutex::default(),
            bodies: bodies::Bodies::default(),
            clock: self.clock,
            draws: self.draws,
            shutdown: CancellationToken::new(),
            store,
        });
        bootstrap(&core).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(chores::run(core.clone()));
        Ok(Server { core, identity: Arc::new(identity), tasks: Mutex::new(tasks) })
    }
}

/// A running API server.
///
/// Dropping it stops it at once; [`Server::shutdown`] lets open requests end.
#[derive(Debug)]
pub struct Server {
    core: Arc<Core>,
    identity: Arc<Identity>,
    tasks: Mutex<JoinSet<()>>,
}

impl Server {
    /// Begins to put a server together.
    pub fn builder() -> Builder {
        Builder {
            storage: Storage::Memory,
            admission: Arc::new(AdmitAll),
            logs: Arc::new(NoLogs),
            expositions: Vec::new(),
            clock: Arc::new(Timestamp::now),
            draws: Arc::new(|| Uuid::new_v4().as_u128()),
        }
    }

    /// Returns the server as a `tower` service whose requests are those of `user`: no sockets, no tokens.
    ///
    /// Made for `kube::Client::new(server.service(user), "default")`.
    pub fn service(&self, user: User) -> Service {
        Service::new(self.core.clone(), Some(user))
    }

    /// Serves HTTPS on an address; port 0 chooses a free one. May be called more than once.
    ///
    /// # Errors
    /// [`ListenError::Bind`] when the address cannot be had.
    pub async fn listen(&self, address: SocketAddr) -> Result<Listening, ListenError> {
        let (listening, task) = listen::listen(self.core.clone(), &self.identity, address).await?;
        *self.core.address.write() = listening.addr.to_string();
        self.tasks.lock().spawn(task);
        Ok(listening)
    }

    /// Returns the bearer token of a user in these groups; it does not expire, survives restarts on the same store, and
    /// is the same one then.
    pub fn token<G: Into<String>>(&self, user: &str, groups: impl IntoIterator<Item = G>) -> String {
        self.core.tokens.for_user(&User::new(user, groups))
    }

    /// Returns the certificate of the authority that signs this server's certificates.
    pub fn ca_pem(&self) -> &str {
        &self.core.ca_pem
    }

    /// Returns a kubeconfig with one context for a user who reaches the server at `address`.
    pub fn kubeconfig(&self, context: &str, address: SocketAddr, token: &str) -> String {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": context,
            "clusters": [{"name": context, "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": ca}}],
            "users": [{"name": context, "user": {"token": token}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        });
        // JSON is YAML too, and every kubeconfig reader takes it.
        serde_json::to_string_pretty(&config).expect("a JSON value always encodes")
    }

    /// Returns how many writes each user made of each kind since the start.
    pub fn counters(&self) -> BTreeMap<WriteKind, u64> {
        self.core.counters.snapshot()
    }

    /// Returns the revision of the newest write.
    pub fn revision(&self) -> u64 {
        self.core.store.revision()
    }

    /// Stops: watches end, connections finish what they are at (ten seconds at most), the file is closed.
    ///
    /// Takes fifteen seconds at most, and as many again if the disk does not take what is to be written.
    pub async fn shutdown(self) {
        self.core.shutdown.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_MAX, ended).await.is_err() {
            tracing::warn!("tasks were cut off after {} s", SHUTDOWN_MAX.as_secs());
            tasks.abort_all();
        }
        let store = self.core.store.clone();
        // The writer is joined: a blocking wait, though a short one.
        let closed = tokio::task::spawn_blocking(move || store.close());
        if tokio::time::timeout(SHUTDOWN_MAX, closed).await.is_err() {
            tracing::error!("the store was not closed within {} s", SHUTDOWN_MAX.as_secs());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.core.shutdown.cancel();
        self.core.store.close();
    }
}

/// Prepares what every cluster has; on a store that has it already, nothing is written.
async fn bootstrap(core: &Arc<Core>) {
    let crds = Scope::table("apiextensions.k8s.io/customresourcedefinitions");
    let page = core.store.list(&crds, None, None, None, |_| true).expect("the present is never compacted");
    core.catalog.install(page.records.iter().map(|record| record.value()));
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| ("", "namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})));
    let roles = default_roles().into_iter().map(|(plural, role)| ("rbac.authorization.k8s.io", plural, role));
    // All at once: concurrent writes share the commits of a durable store.
    let writes = namespaces.into_iter().chain(roles).map(async |(group, plural, object)| {
        let Some(served) = core.catalog.snapshot().find(group, "v1", plural).cloned() else { return };
        let name = ObjectName::new("", object["metadata"]["name"].as_str().unwrap_or_default());
        if core.store.get(&served.table, &name).is_some() {
            return;
        }
        let mut call = Call::internal("system:apiserver", served, &name, core.now());
        if let Err(failure) = core.create(&mut call, object, &[]).await {
            tracing::error!(%name, resource = plural, error = failure.message(), "cannot prepare the cluster");
        }
    });
    futures::future::join_all(writes).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_takes_a_limited_time() {
        let server = Server::builder().build().await.unwrap();
        server.tasks.lock().spawn(std::future::pending());
        // Nobody has anything to do but to wait: the clock jumps to the deadline.
        tokio::time::pause();
        tokio::time::timeout(SHUTDOWN_MAX * 3, server.shutdown()).await.expect("it stops");
    }

    #[tokio::test]
    async fn a_server_whose_store_takes_no_more_writes_does_not_say_that_it_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::File(directory.path().join("store.redb"));
        let server = Server::builder().storage(storage).build().await.unwrap();
        for code in [200, 503] {
            for path in ["/readyz", "/livez", "/healthz/ping"] {
                let request = ::http::Request::get(path).body(String::new()).unwrap();
                let answer = tower::Service::call(&mut server.service(User::anonymous()), request).await.unwrap();
                assert_eq!(answer.status(), code, "{path}");
            }
            server.core.store.close();
        }
    }
}
