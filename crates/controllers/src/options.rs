//! How the controllers are started.

use std::path::PathBuf;

use kratix_api::keys;
use kratix_core::config::GitEnvironment;

use crate::clock::Clock;

/// Settings of one process, from its command line and environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Image of the three Kratix containers in a workflow pod.
    pub adapter_image: String,
    /// Name of a pull secret put first into every workflow pod.
    pub adapter_pull_secret: Option<String>,
    /// Directory for caches of remote repositories; its content may be deleted while the process is stopped.
    pub cache_dir: PathBuf,
    /// How Git stores are reached.
    pub git: GitEnvironment,
    /// Name of this instance, shown as reporting instance of events.
    pub host: String,
    /// What the time is.
    pub clock: Clock,
}

/// Reads how Git stores are reached from the environment of this process. A value that cannot be used is told in the log.
pub fn git_environment() -> GitEnvironment {
    let (git, warnings) = GitEnvironment::read(&|name| std::env::var(name).ok());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    git
}

/// Reads the name of the pull secret of workflow pods from the environment of this process.
pub fn pull_secret() -> Option<String> {
    std::env::var(keys::env::PIPELINE_ADAPTER_PULL_SECRET).ok().filter(|name| !name.is_empty())
}
