//! An embeddable Kubernetes-compatible API server.
pub mod store;
