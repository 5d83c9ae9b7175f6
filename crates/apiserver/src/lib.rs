//! An embeddable Kubernetes-compatible API server.
//!
//! `kubectl`, `kube` and client-go cannot tell it from the real one for the resources it serves: the built-in kinds
//! that controllers live on, and whatever CustomResourceDefinitions define. It schedules nothing and runs nothing.
//!
//! Reading order: [`store`] (revisions, watch) → `catalog` (what is served) → `rest` (verbs) → `http` → [`Server`];
//! `chores` is what happens without a request. The rules of objects live in `embedded-apimachinery`.

mod admission;
mod auth;
mod catalog;
mod chores;
mod core;
mod counters;
mod events;
mod failure;
mod http;
mod logs;
mod request;
mod rest;
mod server;
pub mod store;
mod subresource;
mod user;

pub use admission::{Admission, AdmissionRequest, AdmitAll, Admitted, Denial, Operation};
pub use counters::WriteKind;
pub use http::Body;
pub use logs::{LogError, LogOptions, NoLogs, PodLogs};
pub use server::{Builder, ListenError, Listening, Server, Service, StartError, Storage};
pub use user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
