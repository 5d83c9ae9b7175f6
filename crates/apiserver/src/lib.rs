//! An embeddable Kubernetes-compatible API server.
//!
//! `kubectl`, `kube` and client-go cannot tell it from the real one for the resources it serves: the built-in kinds
//! that controllers live on, and whatever CustomResourceDefinitions define. It schedules nothing and runs nothing.
//!
//! ```
//! use embedded_apiserver::{Server, User};
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::api::{Api, PostParams};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().build().await?;
//! let client = kube::Client::new(server.service(User::admin("me")), "default");
//! let maps: Api<ConfigMap> = Api::default_namespaced(client);
//! let map = ConfigMap { metadata: kube::core::ObjectMeta { name: Some("a".into()), ..Default::default() }, ..Default::default() };
//! maps.create(&PostParams::default(), &map).await?;
//! assert!(maps.get("a").await?.metadata.uid.is_some());
//!
//! let listening = server.listen(([127, 0, 0, 1], 0).into()).await?; // for kubectl
//! let token = server.token("me", ["system:masters"]);
//! let kubeconfig = server.kubeconfig("platform", listening.addr, &token);
//! # let _ = kubeconfig;
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
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
mod unserved;
mod user;

pub use admission::{Admission, AdmissionRequest, AdmitAll, Admitted, Denial, Operation};
pub use counters::{Exposition, WriteKind};
pub use http::Body;
pub use logs::{LogError, LogOptions, NoLogs, PodLogs};
pub use server::{Builder, ListenError, Listening, Server, Service, StartError, Storage};
pub use user::{AUTHENTICATED, MASTERS, UNAUTHENTICATED, User};
