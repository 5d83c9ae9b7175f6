//! The platform's API server: the embedded one, or one that is there already.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use embedded_apiserver::{Server, User};
use embedded_node::ApiAddress;
use kratix_api::keys;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::kubeconfig::Access;

/// Why an API server that is there already cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig cannot be read.
    #[error("reading the kubeconfig {path:?} failed")]
    Kubeconfig {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kubeconfig is readable and of no use.
    #[error("kubeconfig {path:?}: {what}")]
    Incomplete {
        /// The file.
        path: std::path::PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

/// The API server that holds Promises and requests.
pub(crate) enum Hub {
    /// In this process.
    Embedded(Server),
    /// Somewhere else.
    External(Client),
}

/// How others reach the platform's API server.
pub(crate) struct Reach {
    pub(crate) access: Access,
    pub(crate) node: ApiAddress,
    /// Where the worker's API server listens next to.
    pub(crate) address: SocketAddr,
}

impl Hub {
    /// Returns the client of Kratix itself.
    pub(crate) fn client(&self) -> Client {
        match self {
            Self::Embedded(server) => client(server),
            Self::External(client) => client.clone(),
        }
    }

    /// Returns the client of the node, whose writes are counted apart.
    pub(crate) fn node_client(&self) -> Client {
        match self {
            Self::Embedded(server) => Client::new(server.service(User::admin("system:node:embedded")), "default"),
            Self::External(client) => client.clone(),
        }
    }
}

/// Returns Kratix's own client of an embedded server, without sockets: it needs no roles, and admission knows it by the
/// name of the manager.
pub(crate) fn client(server: &Server) -> Client {
    let account = User::service_account(keys::SYSTEM_NAMESPACE, keys::MANAGER_SERVICE_ACCOUNT);
    Client::new(server.service(User::admin(account.name)), "default")
}

/// Connects to the current context of a kubeconfig.
pub(crate) async fn connect(path: &Path, context: &'static str) -> Result<(Hub, Reach), Error> {
    let unreadable =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::Kubeconfig { path: path.to_owned(), source };
    let incomplete = |what| Error::Incomplete { path: path.to_owned(), what };
    let file = Kubeconfig::read_from(path).map_err(|error| unreadable(error.into()))?;
    let named = |list: Value, name: &str, key: &str| -> Option<Value> {
        let entry = list.as_array()?.iter().find(|entry| entry["name"] == name)?;
        Some(entry[key].clone())
    };
    let current = file.current_context.clone().ok_or_else(|| incomplete("there is no current context"))?;
    let document = serde_json::to_value(&file).map_err(|error| unreadable(error.into()))?;
    let chosen = named(document["contexts"].clone(), &current, "context")
        .ok_or_else(|| incomplete("its current context is not defined"))?;
    let part = |list: &str, key: &str| named(document[list].clone(), chosen[key].as_str().unwrap_or_default(), key);
    let cluster = part("clusters", "cluster").ok_or_else(|| incomplete("the cluster of its context is not defined"))?;
    let user = part("users", "user").ok_or_else(|| incomplete("the user of its context is not defined"))?;

    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unreadable(error.into()))?;
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let ca_pem = authority(&cluster).map_err(|error| unreadable(error.into()))?;
    let client = Client::try_from(config).map_err(|error| unreadable(error.into()))?;
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let access = Access { context, cluster, user };
    Ok((Hub::External(client), Reach { access, node: ApiAddress { host, port, ca_pem }, address }))
}

/// Returns the PEM of the authority that a cluster entry names, or nothing.
fn authority(cluster: &Value) -> std::io::Result<String> {
    use base64::Engine;
    if let Some(data) = cluster["certificate-authority-data"].as_str() {
        let pem = base64::engine::general_purpose::STANDARD.decode(data).map_err(std::io::Error::other)?;
        return String::from_utf8(pem).map_err(std::io::Error::other);
    }
    match cluster["certificate-authority"].as_str() {
        Some(path) => std::fs::read_to_string(path),
        None => Ok(String::new()),
    }
}
