//! Starts and stops everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use embedded_apiserver::{Server, Storage};
use embedded_gitops::Agent;
use embedded_node::{ApiAddress, Node, RuntimeKind};
use kratix_controllers::Controllers;
use kratix_state_store::GitConfig;
use kube::Client;

use crate::admission::Rules;
use crate::bootstrap::{self, WORKER};
use crate::data_dir::{self, DataDir, Running};
use crate::hub::{self, Hub, Reach, client};
use crate::kubeconfig::{self, Access};
use crate::logs::Logs;
use crate::metrics::Metrics;

/// The branch of the state store.
const BRANCH: &str = "main";
/// Image of Kratix's own containers in a workflow pod: this very program.
const ADAPTER_IMAGE: &str = "kratix.local/pipeline-adapter:builtin";
/// The image that is this machine's own root file system.
const HOST_IMAGE: &str = "kratix.local/host";
/// Kubeconfig context of the platform.
const PLATFORM: &str = "platform";
/// How long containers may take to end when the platform stops.
const CONTAINERS_STOP: Duration = Duration::from_secs(5);
/// How long a platform may take to stop; then it is given up where it stands, as by a crash.
///
/// 40 seconds: running passes have ten, containers five and the node's own work ten more, open requests ten; the rest is
/// for closing the files.
pub const STOP_MAX: Duration = Duration::from_secs(40);

/// What runs the containers of pipelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// The best this machine offers.
    #[default]
    Auto,
    /// Linux namespaces.
    Native,
}

/// How a platform is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory that holds everything.
    pub data_dir: PathBuf,
    /// Address of the platform's API server; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written beside the data directory.
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig of an API server to use instead of the embedded one. Its pods must be nobody else's: they run here.
    pub api_server: Option<PathBuf>,
    /// What runs the containers of pipelines.
    pub runtime: Runtime,
}

/// Why a platform did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// An API server cannot be started.
    #[error("starting the API server {name} failed")]
    Server {
        /// `platform` or `worker-1`.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API server that is to be used cannot be.
    #[error(transparent)]
    Hub(#[from] hub::Error),
    /// The address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] embedded_apiserver::ListenError),
    /// The Git repository cannot be made.
    #[error("creating the Git repository {path:?} failed: {cause}")]
    Repository {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The prepared objects cannot be made.
    #[error(transparent)]
    Bootstrap(#[from] bootstrap::Error),
    /// Pods cannot be run.
    #[error("starting the node failed")]
    Node(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The worker cannot be synced.
    #[error("starting the GitOps agent failed")]
    Agent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kubeconfig cannot be written.
    #[error("writing the kubeconfig {path:?} failed")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl StartError {
    /// Returns what the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DataDir(error) => error.hint(),
            Self::Listen(_) => Some("choose another address with --listen, for instance 127.0.0.1:0".into()),
            _ => None,
        }
    }
}

/// A running platform.
///
/// # Guarantees
/// What the API has acknowledged survives the end of the process, however it ends. The next start on the same directory
/// carries on, and no pipeline runs twice for one input.
pub struct Platform {
    running: Running,
    rules: Connected,
    hub: Hub,
    worker: Server,
    controllers: Controllers,
    node: embedded_node::NodeHandle,
    agent: Agent,
    /// After everything that writes to it, so that nobody can take it before.
    data_dir: DataDir,
}

/// Rules that ask a server which itself holds them, until this value goes: they would keep each other alive, and with them
/// the file of the server, whatever else fails.
struct Connected(Arc<Rules>);

impl Connected {
    fn new(rules: Arc<Rules>, platform: Client) -> Self {
        rules.connect(platform);
        Self(rules)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

impl Platform {
    /// Starts everything and returns when requests are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let data_dir = DataDir::open(&options.data_dir).await?;
        let repository = data_dir.repository();
        kratix_state_store::init_bare(&repository, BRANCH)
            .map_err(|trouble| StartError::Repository { path: repository.clone(), cause: trouble.to_string() })?;

        let logs = Arc::new(Logs::default());
        let metrics = Arc::new(Metrics::default());
        let rules = Arc::new(Rules::new(ADAPTER_IMAGE));
        let hub = async {
            match &options.api_server {
                Some(kubeconfig) => Ok(hub::connect(kubeconfig, PLATFORM).await?),
                None => embedded(&data_dir, &rules, &logs, &metrics, options.listen).await,
            }
        };
        let worker = async {
            let worker = Server::builder().storage(Storage::File(data_dir.worker_store()));
            worker.build().await.map_err(|error| server_error(WORKER, error))
        };
        let ((hub, reach), worker) = tokio::try_join!(hub, worker)?;
        let (worker_access, _) = listen_beside(&worker, WORKER, reach.address).await?;

        let running = Running {
            pid: std::process::id(),
            started: data_dir::process_started(std::process::id()).unwrap_or_default(),
            platform: reach.access.server().to_owned(),
            worker: worker_access.server().to_owned(),
            kubeconfig: data_dir.kubeconfig(),
        };
        let document = kubeconfig::document(&[reach.access, worker_access]);
        let failed = |path| |source| StartError::Kubeconfig { path, source };
        kubeconfig::write(&data_dir.kubeconfig(), &document).map_err(failed(data_dir.kubeconfig()))?;
        if let Some(path) = options.kubeconfig {
            kubeconfig::merge(&path, &document).map_err(failed(path))?;
        }

        let platform = hub.client();
        let rules = Connected::new(rules, platform.clone());
        bootstrap::prepare(&platform, &repository).await?;
        let node = Node::builder(hub.node_client())
            .data_dir(data_dir.node())
            .runtime(match options.runtime {
                Runtime::Auto => RuntimeKind::Auto,
                Runtime::Native => RuntimeKind::Native,
            })
            .host_image(HOST_IMAGE)
            .image_hint("load it with kratix image load")
            .hide(data_dir.root())
            .own_binary(vec![ADAPTER_IMAGE.into()], vec!["kratix".into(), "pipeline".into()])
            .api_server(reach.node)
            .stop_deadline(CONTAINERS_STOP)
            .start();
        let agent = Agent::builder(client(&worker))
            .repository(repository.to_string_lossy())
            .branch(BRANCH)
            .directory(WORKER)
            .start()
            .map_err(|error| StartError::Agent(error.into()))?;
        let controllers = Controllers::start(
            platform,
            kratix_controllers::Options {
                adapter_image: ADAPTER_IMAGE.into(),
                adapter_pull_secret: kratix_controllers::pull_secret(),
                cache_dir: data_dir.cache(),
                git: kratix_controllers::git_environment(),
                host: "embedded".into(),
                clock: kratix_controllers::Clock::default(),
            },
        );
        let (node, controllers) = tokio::join!(node, controllers);
        let node = match node {
            Ok(node) => node,
            Err(error) => {
                controllers.stop().await;
                return Err(StartError::Node(error.into()));
            }
        };
        logs.connect(node.clone());
        metrics.connect(controllers.metrics());

        // From here on there is something that must be told to stop.
        let platform = Self { running, rules, hub, worker, controllers, node, agent, data_dir };
        if let Err(error) = platform.data_dir.announce(&platform.running) {
            platform.stop().await;
            return Err(error.into());
        }
        Ok(platform)
    }

    /// Returns where the platform is.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Returns a client of the platform's API server, without sockets.
    pub fn platform_client(&self) -> Client {
        self.hub.client()
    }

    /// Returns a client of the worker's API server, without sockets.
    pub fn worker_client(&self) -> Client {
        client(&self.worker)
    }

    /// Returns the worker's API server.
    pub fn worker_server(&self) -> &Server {
        &self.worker
    }

    /// Returns the data directory.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Returns true when no object is waiting for a controller.
    pub fn is_at_rest(&self) -> bool {
        self.controllers.is_at_rest()
    }

    /// Returns the paths of all files in the state store.
    ///
    /// # Errors
    /// When the repository cannot be read.
    pub async fn files(&self) -> Result<Vec<String>, kratix_state_store::WriteError> {
        let repository = self.data_dir.repository();
        let config = GitConfig::new(bootstrap::STORE, repository.to_string_lossy());
        kratix_state_store::open(config, self.data_dir.cache())?.list("").await
    }

    /// Stops everything in the opposite order of the start.
    ///
    /// # Limits
    /// [`STOP_MAX`].
    pub async fn stop(self) {
        if tokio::time::timeout(STOP_MAX, self.stop_parts()).await.is_err() {
            tracing::warn!(seconds = STOP_MAX.as_secs(), "the platform did not stop in time and is given up");
        }
    }

    async fn stop_parts(self) {
        self.controllers.stop().await;
        self.node.shutdown().await;
        drop(self.agent);
        drop(self.rules);
        let hub = async {
            if let Hub::Embedded(hub) = self.hub {
                hub.shutdown().await;
            }
        };
        tokio::join!(hub, self.worker.shutdown());
        drop(self.data_dir);
    }
}

/// Starts the platform's API server in this process.
async fn embedded(
    data_dir: &DataDir,
    rules: &Arc<Rules>,
    logs: &Arc<Logs>,
    metrics: &Arc<Metrics>,
    listen_on: SocketAddr,
) -> Result<(Hub, Reach), StartError> {
    let server = Server::builder()
        .storage(Storage::File(data_dir.platform_store()))
        .admission(rules.clone())
        .pod_logs(logs.clone())
        .exposition(metrics.clone());
    let server = server.build().await.map_err(|error| server_error(PLATFORM, error))?;
    let (access, address, ca_pem) = listen(&server, PLATFORM, listen_on).await?;
    let node = ApiAddress { host: address.ip().to_string(), port: address.port(), ca_pem };
    Ok((Hub::Embedded(server), Reach { access, node, address }))
}

fn server_error(name: &'static str, error: embedded_apiserver::StartError) -> StartError {
    StartError::Server { name, source: error.into() }
}

async fn listen(
    server: &Server,
    context: &'static str,
    address: SocketAddr,
) -> Result<(Access, SocketAddr, String), StartError> {
    let listening = server.listen(address).await?;
    let server_url = format!("https://{}", listening.addr);
    let token = server.token("kratix-admin", ["system:masters"]);
    let access = Access::by_token(context, &server_url, &listening.ca_pem, &token);
    Ok((access, listening.addr, listening.ca_pem))
}

/// Takes the port after `beside`, so that addresses stay the same from start to start; any other one if it is taken.
async fn listen_beside(
    server: &Server,
    context: &'static str,
    beside: SocketAddr,
) -> Result<(Access, SocketAddr), StartError> {
    let next = SocketAddr::new(beside.ip(), beside.port().wrapping_add(1));
    let (access, address, _) = match listen(server, context, next).await {
        Ok(listening) => listening,
        Err(_) => listen(server, context, SocketAddr::new(beside.ip(), 0)).await?,
    };
    Ok((access, address))
}

#[cfg(test)]
mod tests;
