//! The objects of Kratix as values: what is stored, how it is named, hashed, compressed and described.
//!
//! This crate never does I/O, starts no task, reads no clock and draws no random number. A function that needs the time
//! or something unique takes it as an argument.
//!
//! ```
//! use kratix_api::{Promise, PromiseSpec, hash, name};
//!
//! let promise = Promise::new("redis", PromiseSpec::default());
//! assert_eq!(hash::promise_spec(&promise.spec), "45f61254c7c9e14646cafa4324e64a82");
//! assert_eq!(name::deterministic("redis", &["not-set"]), "redis-5a7f3");
//! ```
//!
//! Reading order: [`keys`] (every label, annotation, finalizer), the kinds ([`promise`], [`work`], …), [`crd`] (how they are
//! registered), [`pipeline`] (the document inside a Promise), [`promise_api`] (the API a Promise brings), then the derived
//! values: [`hash`], [`name`], [`selector`], [`compression`], [`duration`], [`condition`].

mod keyword;
mod object;

pub mod compression;
pub mod condition;
pub mod crd;
pub mod destination;
pub mod dry_run;
pub mod duration;
pub mod hash;
pub mod health_record;
pub mod keys;
pub mod name;
pub mod part;
pub mod pipeline;
pub mod promise;
pub mod promise_api;
pub mod promise_release;
pub mod promise_revision;
pub mod request;
pub mod resource_binding;
pub mod selector;
pub mod state_store;
pub mod work;
pub mod work_placement;

pub use condition::Condition;
pub use crd::crds;
pub use destination::{Destination, DestinationSpec, DestinationStatus};
pub use dry_run::{DryRun, DryRunSpec, DryRunStatus};
pub use duration::Duration;
pub use health_record::{HealthRecord, HealthRecordData};
pub use object::SecretRef;
pub use pipeline::{Action, Pipeline, WorkflowType};
pub use promise::{Promise, PromiseSpec, PromiseStatus};
pub use promise_release::{PromiseRelease, PromiseReleaseSpec, PromiseReleaseStatus};
pub use promise_revision::{PromiseRevision, PromiseRevisionSpec, PromiseRevisionStatus};
pub use resource_binding::{ResourceBinding, ResourceBindingSpec, ResourceBindingStatus};
pub use state_store::{BucketStateStore, BucketStateStoreSpec, GitStateStore, GitStateStoreSpec, StateStoreStatus};
pub use work::{Work, WorkSpec, WorkStatus, Workload, WorkloadGroup, WorkloadGroupSelector};
pub use work_placement::{WorkPlacement, WorkPlacementSpec, WorkPlacementStatus};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
pub use k8s_openapi::jiff::Timestamp;
