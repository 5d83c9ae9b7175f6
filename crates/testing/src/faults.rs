//! Faults between a program and its API server: calls that are answered wrongly or not at all, watches that show less or
//! later, lists from the past, and the end of the program at any of its writes.
//!
//! An [`Injector`] stands between a `kube::Client` and the service that answers it. It counts the calls that change
//! something, and does to them what its [`Fault`] says. [`Commits`] does the same to the commits of state stores, as far as
//! ends of the program go. Every choice follows from a seed.
//!
//! Reading order: [`Fault`] (what can happen, and how it is written), [`Injector`] (the calls), [`Commits`], `watch` (the
//! streams).

mod commits;
mod fault;
mod gate;
mod injector;
mod seed;
mod watch;

pub use commits::Commits;
pub use fault::{Blow, Disturbance, Fault, Unknown, Whose};
pub use gate::Gate;
pub use injector::{Call, Injector, Life};
pub use seed::Seed;
