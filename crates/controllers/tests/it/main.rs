//! The controllers on a real API server, in one process: what the caches, the queue and the API server's answers do to
//! the decisions. No Pods run here; tests play them.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bindings;
mod buckets;
mod destinations;
mod github_app;
mod orphans;
mod outage;
mod placements;
mod refusals;
mod scheduling;
mod ssh;
mod stopping;
mod telemetry;
mod world;
