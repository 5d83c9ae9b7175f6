//! The rules of a Kubernetes API server without the server: what an object of a kind looks like, when it is valid,
//! how patches and applies change it, and how it is described and shown to clients.
//!
//! Everything here is a function of its arguments: no I/O, no async, no clock (time is passed in), no randomness.
//! Objects are [`serde_json::Value`]. The reference is kube-apiserver 1.34, messages included.
//!
//! Reading order: [`resource`] is what everything hangs on, one descriptor per served resource, whether built in
//! ([`builtin`]) or defined by a CRD ([`crd`]); [`discovery`], [`openapi`] and [`table`] derive from it. [`schema`]
//! holds the structural schema that pruning, defaulting, validation, [`patch`] and [`apply`] walk along.
//! [`status`] and [`field`] are the errors.

pub mod apply;
pub mod builtin;
pub mod crd;
pub mod decode;
pub mod depth;
pub mod discovery;
pub mod field;
pub mod jsonpath;
pub mod meta;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod text;

pub use resource::Resource;
pub use status::{Qualified, Status};
