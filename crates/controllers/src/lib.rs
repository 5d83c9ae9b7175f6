//! The shell of Kratix: observe, decide, act.
//!
//! Watches the platform cluster, asks `kratix-core` what to do about each object, and does it: API writes, state store
//! writes, events. Deliberately absent: rules. An `if` on a value of the domain belongs in `kratix-core`.
//!
//! Reading order: [`Controllers`] (all wiring), `cache` and `queue` (what a pass sees and when it runs), `controller`
//! (how passes run), `act` (how plans are executed), then one module for each resource.

mod act;
mod cache;
mod caches;
mod clock;
mod config;
mod context;
mod controller;
mod destination;
mod error;
mod events;
mod expected;
mod gates;
mod job_pods;
mod leaving;
mod options;
mod parts;
mod pods;
mod promise;
mod promise_revision;
mod queue;
mod request;
mod resource_binding;
mod state_store;
mod superseded;
mod telemetry;
mod wiring;
mod work;
mod work_placement;

pub use clock::Clock;
pub use options::{Options, git_environment, pull_secret};
pub use telemetry::Metrics;
pub use wiring::Controllers;
