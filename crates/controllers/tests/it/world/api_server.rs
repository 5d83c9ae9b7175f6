//! The API server under the controllers: in memory, or the real one where the tests are asked to hold there as well.

use std::collections::BTreeMap;

use embedded_apiserver::{Server, User};
use kratix_testing::kube_apiserver::{self, KubeApiServer};
use kube::Client;
use kube::client::Body;
use tower::util::BoxCloneSyncService;

/// What answers a user's requests.
pub(crate) type Service = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, kube::Error>;

pub(crate) enum ApiServer {
    Embedded(Server),
    Real(Box<KubeApiServer>),
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        match kube_apiserver::assets() {
            Some(assets) => Self::Real(Box::new(KubeApiServer::start(&assets).await)),
            None => Self::Embedded(Server::builder().build().await.unwrap()),
        }
    }

    /// Returns a client of a user who may do everything.
    pub(crate) fn client(&self, user: &str) -> Client {
        match self {
            Self::Embedded(server) => Client::new(server.service(User::admin(user)), "default"),
            Self::Real(server) => server.client(user),
        }
    }

    pub(crate) fn service(&self, user: &str) -> Service {
        let client = self.client(user);
        BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<Body>| {
            let client = client.clone();
            async move { client.send(request).await }
        }))
    }

    /// Returns how many writes of a user were accepted, by verb and resource.
    pub(crate) fn writes(&self, user: &str) -> BTreeMap<String, u64> {
        match self {
            Self::Embedded(server) => {
                let counters = server.counters().into_iter().filter(|(kind, _)| kind.user == user);
                counters.map(|(kind, count)| (format!("{} {}", kind.verb, kind.resource), count)).collect()
            }
            Self::Real(server) => server.writes(user),
        }
    }
}
