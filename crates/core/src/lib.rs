//! The decisions of Kratix: one module per resource, each `decide(&Snapshot) -> Plan`.
//!
//! Deliberately absent: I/O, async, a Kubernetes client, randomness, and any clock but the `now` of a snapshot. The
//! same snapshot always gives the same plan, so a decision serves the controllers (which execute the plan), previews
//! (which print it) and explanations (which read its findings).
//!
//! Reading order: [`object`] (how objects are named), [`plan`] (what a decision may ask for), [`patch`] (how a change
//! becomes the smallest write), then the resources along the path of a request, and [`admission`] (what may be stored at
//! all).

pub mod admission;
pub mod config;
pub mod destination;
#[cfg(test)]
mod golden;
pub mod metrics;
pub mod object;
pub mod patch;
pub mod plan;
pub mod promise;
pub mod promise_revision;
mod refusal;
pub mod request;
pub mod resource_binding;
pub mod state_store;
pub mod text;
pub mod trace;
pub mod work;
pub mod work_placement;
pub mod workflow;
