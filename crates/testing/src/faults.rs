//! Faults between a program and its API server: calls that are answered wrongly or not at all, watches that show less or
//! later, lists from the past, and the end of the program at any of its writes.
//!
//! An [`Injector`] stands between a `kube::Client` and the service that answers it. It counts the calls that change
//! something, and does to them what its [`Fault`] says. Every choice follows from a seed.
//!
//! Reading order: [`Fault`] (what can happen, and how it is written), [`Injector`] (the calls), `watch` (the streams).

mod fault;
mod injector;
mod seed;
mod watch;

pub use fault::{Blow, Disturbance, Fault, Unknown, Whose};
pub use injector::{Call, Injector, Life};
pub use seed::Seed;
