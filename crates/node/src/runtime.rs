//! What runs containers: one trait, so that namespaces, podman or docker can stand behind the same pods.

pub(crate) mod native;

use std::path::PathBuf;

use tokio::net::unix::pipe;

use crate::image;

/// Runs containers; the pod decides which, when, and what to do when they end.
#[async_trait::async_trait]
pub(crate) trait Runtime: Send + Sync + 'static {
    /// Returns the scheme of container ids, such as `native` in `native://3f…`.
    fn name(&self) -> &'static str;

    /// Makes an image ready to run and tells what it says about its processes.
    async fn prepare(&self, image: &str) -> Result<Prepared, image::Error>;

    /// Starts a container and returns once its program is executed, or within a limit of time if that does not come about.
    ///
    /// # Cancel safety
    /// Dropping the future kills what there is of the container.
    async fn start(&self, container: Container) -> Result<Running, StartError>;
}

/// An image that containers can be started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// What `imageID` of a container status shows.
    pub(crate) id: String,
    pub(crate) root: Root,
    pub(crate) config: image::Config,
    /// The image's own user, with names looked up in it.
    pub(crate) user: User,
    /// That user's home directory.
    pub(crate) home: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// An unpacked image.
    Directory(PathBuf),
    /// This machine's own programs, read-only.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// One container, fully decided.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) hostname: String,
    pub(crate) image: Prepared,
    pub(crate) program: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: User,
    pub(crate) groups: Vec<u32>,
    pub(crate) mounts: Vec<crate::sandbox::Mount>,
    pub(crate) read_only_root: bool,
    /// Directory for this one run; nobody else uses it, and the caller removes it afterwards.
    pub(crate) scratch: PathBuf,
    /// Takes how the run ended even if nobody is there to be told; see [`crate::pod::run`].
    pub(crate) run_file: Option<PathBuf>,
}

/// A container whose program is running.
pub(crate) struct Running {
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    pub(crate) process: Box<dyn Process>,
}

/// A running program. Dropping it kills everything in the container.
#[async_trait::async_trait]
pub(crate) trait Process: Send {
    /// Sends a signal to the program; one that has ended is left alone.
    async fn signal(&mut self, signal: i32);

    /// Waits until no process of the container is left.
    ///
    /// Cancel-safe: a later call carries on.
    async fn wait(&mut self) -> Exit;
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code; 128 + signal if a signal ended it.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    /// It was sent a signal before: it did not end of its own accord.
    pub(crate) asked: bool,
}

/// Why a container's program never ran.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct StartError {
    pub(crate) message: String,
    /// 126 not executable, 127 not found, 128 everything else.
    pub(crate) code: i32,
}

impl StartError {
    fn new(what: &str, error: impl std::fmt::Display) -> Self {
        Self { message: format!("{what}: {error}"), code: 128 }
    }
}
