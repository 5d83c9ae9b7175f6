//! HTTPS: HTTP/1.1 and HTTP/2 over TLS, bearer tokens.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::Service;
use super::activity::Activity;
use super::identity::Identity;
use crate::core::Core;

/// Connections served at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 2048;
/// Requests of one HTTP/2 connection that are open at once, watches among them; more wait at the client.
const STREAMS_MAX: u32 = 250;
/// Time for the TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Time for open requests to end when the server stops, or for an idle connection to be closed by its client.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A TLS listener.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Address with the port actually chosen.
    pub addr: SocketAddr,
    /// Certificate of the authority to trust.
    pub ca_pem: String,
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No certificate could be made.
    #[error("cannot make the certificate of {address}: {cause}")]
    Certificate {
        /// Address.
        address: SocketAddr,
        /// Cause.
        cause: String,
    },
}

pub(super) async fn listen(
    core: Arc<Core>,
    identity: &Identity,
    address: SocketAddr,
) -> Result<(Listening, impl Future<Output = ()> + Send + use<>), ListenError> {
    let bind = |source| ListenError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let addr = listener.local_addr().map_err(bind)?;
    let config = config(identity, addr).map_err(|cause| ListenError::Certificate { address, cause })?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listening = Listening { addr, ca_pem: identity.ca_pem.clone() };
    Ok((listening, accept(core, listener, acceptor)))
}

fn config(identity: &Identity, address: SocketAddr) -> Result<ServerConfig, String> {
    let (certificate, key) = identity.certificate(address.ip()).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
    // Named here, because a process with two providers linked has no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![CertificateDer::from(certificate)], key)
        })
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept(core: Arc<Core>, listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = core.shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(core.clone(), acceptor.clone(), stream));
                }
                // Out of file descriptors, most likely: wait for one, do not spin.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::warn!("connections were cut after {} s", DRAIN_MAX.as_secs());
    }
}

async fn serve(core: Arc<Core>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await else { return };
    let shutdown = core.shutdown.clone();
    let activity = Activity::new();
    let service = TowerToHyperService::new(Service::network(core, activity.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS_MAX);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut ending: Option<Instant> = None;
    let ended = loop {
        let cut = async {
            match ending {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = shutdown.cancelled(), if ending.is_none() => {}
            () = activity.idle(), if ending.is_none() => {
                if activity.deadline().is_none_or(|at| at > Instant::now()) {
                    continue;
                }
            }
            // It does not even read that it is to end.
            () = cut => return,
        }
        connection.as_mut().graceful_shutdown();
        ending = Some(Instant::now() + DRAIN_MAX);
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
