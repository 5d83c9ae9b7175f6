//! Runs Jobs and Pods of any Kubernetes API server on this machine.
//!
//! [`Node::builder`] describes a node, [`Builder::start`] runs it inside the calling process: it watches Jobs and Pods, makes Pods
//! for Jobs as Kubernetes' job controller does, runs Pods assigned to it (and assigns those that nobody has assigned) as a kubelet
//! does, and reports through the API. Containers run in Linux namespaces that this executable sets up itself; nothing needs to be installed.
//!
//! The embedding program calls [`sandbox_main`] first thing in its `main`: it is executed again as the init of each container.
//!
//! # What it never does
//! Write anything on this machine outside of its data directory; let a container see that directory; reach for other nodes; pull
//! images over the network (archives are loaded into its [`image::Store`]).
//!
//! # Limits
//! Containers share the machine's network (as with `hostNetwork`). CPU, memory and `emptyDir` sizes are not enforced; a container
//! has at most 4,096 processes and threads. A node that is not run by root gives its containers its own user: that user's
//! further groups go along, seen inside as nobody's, because the kernel lets only the privileged leave them; start such a node
//! without them. Probes and lifecycle hooks
//! are not executed: a running container is ready. Indexed Jobs and Job success or failure policies are refused visibly. ConfigMaps and Secrets
//! in volumes are those of the pod's start. A pod that is deleted does not count as a failed attempt of its Job. Linux 5.12 or newer.
//!
//! # Reading order
//! `job` and `pod` (decisions, pure) → `job::controller`, `pod::worker`, `pod::launch` (shells) → `volume`, `environment`, `log` → `runtime` and
//! `sandbox` → `node` (wiring).

mod cache;
mod downward;
mod environment;
mod event;
mod ids;
pub mod image;
mod job;
mod log;
mod node;
mod objects;
mod pod;
mod quantity;
mod resolve;
mod runtime;
mod sandbox;
mod volume;

pub use event::Events;
pub use log::{LogError, LogOptions};
pub use node::{ApiAddress, Builder, Node, NodeHandle, RuntimeKind, StartError};
pub use sandbox::sandbox_main;

#[cfg(test)]
sandbox_hook!();
