//! The embedded platform: API servers, node, controllers and GitOps in one process, on one data directory.
//!
//! All wiring and no rules. What the parts do is told where they live; this crate starts them in the right order,
//! connects them without sockets, and stops them again.
//!
//! Reading order: [`Platform`] (start and stop), [`data_dir`] (what is on disk), [`bootstrap`] (what a fresh platform
//! holds), [`Rules`] (how the rules of `kratix-core` get their say in the API server).

mod admission;
pub mod bootstrap;
pub mod data_dir;
pub mod hub;
mod kubeconfig;
mod logs;
mod metrics;
mod platform;

pub use admission::Rules;
pub use platform::{Options, Platform, Runtime, STOP_MAX, StartError};
