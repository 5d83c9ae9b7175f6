//! Brings a cluster to what a directory of a Git repository says, and keeps it there.
//!
//! The agent reads manifests at the head of a branch, applies what has changed by server-side apply in the order of their
//! dependencies, and removes what has left the directory. What it applied is remembered in a ConfigMap of the cluster, so that
//! it never removes what it did not apply, and writes nothing when nothing changed, restarts included. It does not render
//! templates, knows no other sources than a repository on this machine, and takes no part in what the objects mean.
//!
//! ```no_run
//! # async fn example(worker: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use embedded_gitops::Agent;
//!
//! let agent = Agent::builder(worker).repository("/srv/git/state.git").directory("worker-1").start()?;
//! let mut status = agent.status();
//! status.wait_for(|status| status.commit.is_some()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: `agent` (when to synchronise), `sync` (one synchronisation), `source` (files at a commit), `document` (objects
//! in files, and their order), `reach` (their namespaces), `inventory` (what was applied), `cluster` (the requests).

mod agent;
mod cluster;
mod document;
mod inventory;
mod reach;
mod source;
mod sync;
mod wake;

pub use agent::{Agent, Builder, Poke};
pub use document::ObjectId;
pub use source::Error;
pub use sync::{Failure, Skipped, Status};
