//! How a node is described and started.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Context, NodeHandle, OwnBinary, watch_jobs, watch_pods};
use crate::cache::Cache;
use crate::downward::Place;
use crate::event::{self, Events, Recorder};
use crate::image;
use crate::log::Logs;
use crate::objects::Objects;
use crate::runtime::native::Native;
use crate::runtime::{Container, Runtime};
use crate::{job, pod};

/// Where containers find the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Certificates that its own is signed with.
    pub ca_pem: String,
}

/// What runs the containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeKind {
    /// The best that this machine offers.
    #[default]
    Auto,
    /// Linux namespaces, set up by this executable itself.
    Native,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("cannot use data directory {path:?}")]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The image store cannot be opened.
    #[error("cannot open the image store")]
    Images(#[from] image::Error),
    /// An image name given to the builder is no image name.
    #[error(transparent)]
    Name(#[from] image::InvalidName),
    /// This machine does not let us make containers.
    #[error(
        "containers cannot be started on this machine: {reason}; unprivileged user namespaces and Linux 5.12 or newer are needed"
    )]
    Unsupported {
        /// What failed.
        reason: String,
    },
}

#[cfg(test)]
pub(super) type Disturb = fn(Arc<dyn Runtime>) -> Arc<dyn Runtime>;

/// Describes a node; made by [`Node::builder`](super::Node::builder).
pub struct Builder {
    client: Client,
    data: PathBuf,
    name: String,
    api: Option<ApiAddress>,
    own: Vec<(String, Vec<String>)>,
    host_image: Option<String>,
    image_hint: String,
    hidden: Vec<PathBuf>,
    max_pods: usize,
    events: Events,
    restart_backoff: Duration,
    failure_backoff: Duration,
    stop_deadline: Duration,
    host_ip: Option<IpAddr>,
    /// Stands before the runtime, to make it misbehave.
    #[cfg(test)]
    pub(super) disturb: Option<Disturb>,
}

impl Builder {
    pub(super) fn new(client: Client) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let positive = |duration: SignedDuration| Duration::try_from(duration).unwrap_or_default();
        Self {
            client,
            data: std::env::temp_dir().join("embedded-node"),
            name: "embedded".into(),
            api: None,
            own: Vec::new(),
            host_image: None,
            image_hint: "load it into the store from an archive".into(),
            hidden: Vec::new(),
            // Steps of workflows mostly wait for each other: some more than there are cores keeps these busy.
            max_pods: cores * 2 + 8,
            events: Events::default(),
            restart_backoff: positive(pod::RESTART_BACKOFF),
            failure_backoff: positive(job::FAILURE_BACKOFF),
            stop_deadline: Duration::from_secs(5),
            host_ip: None,
            #[cfg(test)]
            disturb: None,
        }
    }

    /// Sets where images, volumes and logs lie. One node at a time may use a directory.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data = path.into();
        self
    }

    /// Sets the node's name, `embedded` unless given. It is what `spec.nodeName` of its pods says.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Chooses what runs the containers. There is one implementation today, so this only states a requirement.
    #[must_use]
    pub fn runtime(self, kind: RuntimeKind) -> Self {
        match kind {
            RuntimeKind::Auto | RuntimeKind::Native => self,
        }
    }

    /// Tells containers where the API server is; without it they get neither address nor token.
    #[must_use]
    pub fn api_server(mut self, address: ApiAddress) -> Self {
        self.api = Some(address);
        self
    }

    /// Makes image names stand for this executable: the container runs `entrypoint` followed by its own arguments, `command`
    /// without its first word included. The first word of `entrypoint` is the name that the program sees for itself.
    #[must_use]
    pub fn own_binary(mut self, images: Vec<String>, entrypoint: Vec<String>) -> Self {
        self.own.extend(images.into_iter().map(|image| (image, entrypoint.clone())));
        self
    }

    /// Sets what a pod whose image is missing says about how to add it, as a clause after a semicolon.
    #[must_use]
    pub fn image_hint(mut self, hint: impl Into<String>) -> Self {
        self.image_hint = hint.into();
        self
    }

    /// Offers this machine's own programs, read-only, as an image of that name (any tag).
    #[must_use]
    pub fn host_image(mut self, name: impl Into<String>) -> Self {
        self.host_image = Some(name.into());
        self
    }

    /// Hides a further directory from containers of the host image; the data directory always is.
    #[must_use]
    pub fn hide(mut self, path: impl Into<PathBuf>) -> Self {
        self.hidden.push(path.into());
        self
    }

    /// Bounds how many pods run at once; others wait as `Pending`.
    #[must_use]
    pub fn max_pods(mut self, count: usize) -> Self {
        self.max_pods = count.max(1);
        self
    }

    /// Sets how much is told through events.
    #[must_use]
    pub fn events(mut self, level: Events) -> Self {
        self.events = level;
        self
    }

    /// Sets the pause before a container's second restart (10 s unless given); it doubles up to five minutes.
    #[must_use]
    pub fn restart_backoff(mut self, pause: Duration) -> Self {
        self.restart_backoff = pause;
        self
    }

    /// Sets the pause before a Job's next Pod after one has failed (10 s unless given); it doubles up to ten minutes.
    #[must_use]
    pub fn failure_backoff(mut self, pause: Duration) -> Self {
        self.failure_backoff = pause;
        self
    }

    /// Sets how long containers may take to end when the node stops (5 s unless given).
    #[must_use]
    pub fn stop_deadline(mut self, deadline: Duration) -> Self {
        self.stop_deadline = deadline;
        self
    }

    /// Sets the address that pods report as theirs; found out unless given. They share this machine's network.
    #[must_use]
    pub fn host_ip(mut self, address: IpAddr) -> Self {
        self.host_ip = Some(address);
        self
    }

    /// Starts the node. It begins to work as soon as it has read all Jobs and Pods, and tries for as long as that takes.
    ///
    /// # Errors
    /// See [`StartError`]: whatever would keep every pod from running is found here.
    pub async fn start(self) -> Result<NodeHandle, StartError> {
        let fail = |source| StartError::DataDirectory { path: self.data.clone(), source };
        for name in ["pods", "logs"] {
            let path = self.data.join(name);
            std::fs::create_dir_all(&path).map_err(fail)?;
            // Volumes belong to container users; no other user of this machine needs a way in.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).map_err(fail)?;
        }
        let data = self.data.canonicalize().map_err(fail)?;
        let store = image::Store::open(data.join("images"))?;
        store.prune()?;
        let host_image = self.host_image.as_deref().map(str::parse::<image::Name>).transpose()?;
        let mut own = Vec::new();
        for (image, entrypoint) in self.own {
            own.push(OwnBinary { image: image.parse()?, entrypoint });
        }
        let mut hidden = self.hidden;
        hidden.push(data.clone());
        let native = Native::new(store.clone(), host_image, hidden);
        let host = native.host();
        let runtime: Arc<dyn Runtime> = Arc::new(native);
        #[cfg(test)]
        let runtime = self.disturb.map_or(runtime.clone(), |disturb| disturb(runtime));
        probe(runtime.as_ref(), &host, &data).await?;

        let (events, queued) = event::queue();
        let signed = |duration: Duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let ip = self.host_ip.unwrap_or_else(own_address).to_string();
        let stopping = CancellationToken::new();
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let cx = Arc::new_cyclic(|me| Context {
            objects: Objects::new(self.client.clone()),
            client: self.client.clone(),
            place: Place { host_ip: ip.clone(), pod_ip: ip, node: self.name.clone() },
            service: self.api.as_ref().map(service).unwrap_or_default(),
            ca_pem: self.api.map(|api| api.ca_pem),
            own,
            host,
            runtime,
            store,
            image_hint: self.image_hint,
            logs: Logs::new(data.join("logs")),
            recorder: Recorder::new(events.clone(), self.events, "kubelet", &self.name),
            job_recorder: Recorder::new(events, self.events, "job-controller", &self.name),
            pods: Cache::new(),
            jobs: Cache::new(),
            slots: Arc::new(Semaphore::new(self.max_pods)),
            max_pods: self.max_pods,
            starts: Semaphore::new(cores * 2),
            restart_backoff: signed(self.restart_backoff),
            failure_backoff: signed(self.failure_backoff),
            stop_deadline: self.stop_deadline,
            stopping: stopping.clone(),
            tasks: TaskTracker::new(),
            actors: Mutex::new(HashMap::new()),
            ready: AtomicBool::new(false),
            node: self.name,
            data,
            me: me.clone(),
        });
        let missing = Arc::new(AtomicUsize::new(2));
        let filled = || {
            let (cx, missing) = (cx.clone(), missing.clone());
            move || {
                if missing.fetch_sub(1, Ordering::SeqCst) == 1 {
                    cx.begin();
                }
            }
        };
        cx.tasks.spawn(watch_pods(cx.clone(), filled()));
        cx.tasks.spawn(watch_jobs(cx.clone(), filled()));
        let recording = tokio::spawn(event::write(self.client, queued, stopping));
        Ok(NodeHandle::new(cx, recording))
    }
}

/// Starts one container that does nothing, so that a machine without the means says so at once.
async fn probe(
    runtime: &dyn Runtime,
    host: &crate::runtime::Prepared,
    data: &std::path::Path,
) -> Result<(), StartError> {
    let scratch = data.join("pods").join(format!("probe-{}", std::process::id()));
    let container = Container {
        hostname: "probe".into(),
        image: host.clone(),
        program: "true".into(),
        argv: vec!["true".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: "/".into(),
        user: host.user,
        groups: Vec::new(),
        mounts: Vec::new(),
        read_only_root: true,
        scratch: scratch.clone(),
        run_file: None,
    };
    let outcome = match runtime.start(container).await {
        Ok(mut running) => {
            running.process.wait().await;
            Ok(())
        }
        // No such program on this machine, but a container to look for it in.
        Err(error) if matches!(error.code, 126 | 127) => Ok(()),
        Err(error) => Err(StartError::Unsupported { reason: error.message }),
    };
    let _ = image::remove_tree(&scratch);
    outcome
}

fn service(api: &ApiAddress) -> Vec<(String, String)> {
    let (host, port) = (api.host.clone(), api.port.to_string());
    let url = format!("tcp://{}:{port}", if host.contains(':') { format!("[{host}]") } else { host.clone() });
    [
        ("KUBERNETES_SERVICE_HOST", host),
        ("KUBERNETES_SERVICE_PORT", port.clone()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port),
        ("KUBERNETES_PORT", url),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Finds the address that this machine would use towards others; nothing is sent.
fn own_address() -> IpAddr {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    ask().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}
