//! Where files go: Git repositories and buckets of object stores.
//!
//! A store takes [`Change`]s from many callers and makes them durable: everything that waits becomes one commit and one
//! push, and every caller gets its own result. The crate knows paths and bytes; what they mean is its callers' affair. It
//! never keeps a work tree, never follows a symbolic link, and never forces a push.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kratix_state_store::{Change, File, GitConfig, open};
//!
//! let store = open(GitConfig::new("default", "/srv/git/state.git"), "/var/cache/kratix")?;
//! store.check().await?;
//! let files = vec![File::new("redis.yaml", "kind: RedisFailover\n")];
//! let written = store.write(Change::replace("redis-my-cache", "worker-1/redis/my-cache", files)).await?;
//! assert!(written.version.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`Change`] (what is asked), [`Handle`] (the queue and its task), `git` (one batch: sync, build, publish),
//! `git::tree` (editing trees as objects), `git::local` and `git::remote` (the two ways to publish); for buckets `bucket`,
//! `bucket::batch` and `bucket::share` (what is requested in which order), `bucket::objects` (the requests).
//!
//! # Assumptions
//! A ref of a remote moves atomically, and only if it still has the value that the push names. The file system keeps what
//! `fsync` has acknowledged, and renames atomically.

mod authority;
mod backend;
mod bucket;
mod change;
mod checked;
mod config;
mod connection;
mod error;
mod exchange;
mod git;
mod ledger;
mod queue;
mod retry_after;
mod tls;

pub use change::{Change, File, Imprint, Kind, Operation, Tree, Version, Written};
pub use config::{
    Auth, Author, BucketAuth, BucketConfig, Environment, GitConfig, GithubApp, Proxies, Secret, StoreConfig, Tls, Trace,
};
pub use error::{AppRemedy, Error, Place, Retry, Trouble, WriteError};
pub use git::init_bare;
pub use kratix_store_path::Reason;
pub use ledger::Liveness;
pub use queue::{CHANGE_BYTES_MAX, Handle, QUEUE_MAX, Slot, open, open_with};
