//! The controllers on a real API server, in one process: what the caches, the queue and the API server's answers do to
//! the decisions. No Pods run here; tests play them.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bindings;
mod buckets;
mod configuration;
mod destinations;
mod failing_pods;
mod github_app;
mod handover;
mod large;
mod orphans;
mod outage;
mod placements;
mod promise_changes;
mod promptness;
mod refusals;
mod request_deletion;
mod requests;
mod retention;
mod scheduling;
mod ssh;
mod status_writer;
mod stopping;
mod telemetry;
mod twins;
mod watches;
mod world;
