//! Connections that this process makes itself: directly or by way of a proxy, and over TLS as the host demands it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::authority;
use crate::config::{Proxies, Tls};
use crate::error::Trouble;
use crate::tls;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to whatever servers a store needs. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
    settings: Arc<Settings>,
}

impl Connector {
    /// # Errors
    /// [`Trouble::Authority`] for certificates that came with the store and cannot be used.
    pub(crate) fn new(tls: &Tls, trust: Trust, proxies: &Proxies, timeout: Duration) -> Result<Self, Trouble> {
        let settings = Settings { tls: tls.clone(), trust, known: Mutex::default() };
        if tls.ca_pem.is_some() && !tls.insecure {
            authority::pem(tls, "")?;
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT.min(timeout)));
        tcp.set_nodelay(true);
        let proxies = Matcher::builder()
            .http(proxies.http.as_str())
            .https(proxies.https.as_str())
            .no(proxies.direct.as_str())
            .build();
        Ok(Self { tcp, proxies: Arc::new(proxies), settings: Arc::new(settings) })
    }

    /// Returns what a request has to carry for the proxy that forwards it. To servers with TLS proxies only make a way.
    pub(crate) fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        let proxy = self.proxy(uri).filter(|_| !is_https(uri))?;
        proxy.basic_auth().cloned()
    }

    /// Tells whether there is a way to a server: not by a proxy with another protocol than HTTP.
    pub(crate) fn has_way(&self, uri: &Uri) -> bool {
        self.proxy(uri).is_none_or(|proxy| is_http(&proxy))
    }

    fn proxy(&self, uri: &Uri) -> Option<Intercept> {
        self.proxies.intercept(uri).filter(|_| !is_near(uri))
    }

    async fn connect(mut self, uri: Uri) -> Result<Link, Fault> {
        let proxy = self.proxy(&uri);
        let is_forwarded = proxy.is_some() && !is_https(&uri);
        let tcp = match proxy {
            None => self.tcp.call(uri.clone()).await?,
            Some(proxy) => self.by_way_of(&proxy, &uri).await?,
        };
        if !is_https(&uri) {
            return Ok(Link { io: TokioIo::new(Box::new(tcp.into_inner())), is_forwarded });
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let (settings, name) = (Arc::clone(&self.settings), host.clone());
        // Files of this machine are read.
        let config = tokio::task::spawn_blocking(move || settings.of(&name)).await??;
        let stream = TlsConnector::from(config).connect(ServerName::try_from(host)?, tcp.into_inner()).await?;
        Ok(Link { io: TokioIo::new(Box::new(stream)), is_forwarded })
    }

    async fn by_way_of(&mut self, proxy: &Intercept, uri: &Uri) -> Result<TokioIo<tokio::net::TcpStream>, Trouble> {
        let place = proxy.uri().authority().map(ToString::to_string).unwrap_or_default();
        let failed = |reason: String| Trouble::Unreachable(format!("proxy {place}: {reason}"));
        if !is_http(proxy) {
            return Err(failed("only proxies with http:// are supported".to_owned()));
        }
        if !is_https(uri) {
            return self.tcp.call(proxy.uri().clone()).await.map_err(|error| failed(last_cause(&error)));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        tunnel.call(uri.clone()).await.map_err(|error| failed(last_cause(&error)))
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Link, Fault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Whom the certificates that are given with a store replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nobody: the machine's authorities are trusted too.
    Beside,
    /// The machine's authorities.
    Instead,
}

/// How TLS is spoken with each host. Authorities are looked up for every connection, so that a file that is replaced while the
/// process runs is in effect with the next one.
#[derive(Debug)]
struct Settings {
    tls: Tls,
    trust: Trust,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    pem: Option<Vec<u8>>,
    config: Arc<ClientConfig>,
}

impl Settings {
    fn of(&self, host: &str) -> Result<Arc<ClientConfig>, Trouble> {
        let pem = if self.tls.insecure { None } else { authority::pem(&self.tls, host)? };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(host).filter(|known| known.pem == pem) {
            return Ok(Arc::clone(&known.config));
        }
        let config = match &pem {
            _ if self.tls.insecure => tls::unverified(),
            Some(pem) => {
                let certificates = tls::certificates(pem).unwrap_or_default();
                match self.trust {
                    Trust::Beside => tls::verified(certificates),
                    Trust::Instead => tls::verified_by(certificates),
                }
            }
            None => tls::verified(Vec::new()),
        };
        let config = config.map_err(|error| Trouble::Config(format!("TLS cannot be used: {error}")))?;
        let config = Arc::new(config);
        known.insert(host.to_owned(), Known { pem, config: Arc::clone(&config) });
        Ok(config)
    }
}

/// A connection.
pub(crate) struct Link {
    io: TokioIo<Box<dyn Duplex>>,
    /// At the other end is a proxy that has to be told whole addresses.
    is_forwarded: bool,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_forwarded)
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// Finds out what was the matter with a connection or an exchange.
pub(crate) fn trouble(host: &str, error: &(dyn std::error::Error + 'static)) -> Trouble {
    if let Some(known) = tls::causes(error).find_map(|cause| cause.downcast_ref::<Trouble>()) {
        return known.clone();
    }
    let tls = tls::causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => Trouble::Untrusted(tls::reason(problem)),
        Some(rustls::Error::InvalidMessage(_)) => Trouble::NotTls,
        Some(other) => Trouble::Unreachable(other.to_string()),
        None if tls::causes(error).any(|cause| cause.to_string().starts_with("dns error")) => {
            Trouble::UnknownHost(host.to_owned())
        }
        None => Trouble::Unreachable(last_cause(error)),
    }
}

/// Returns why a server and this process find no way of speaking TLS in common; not what is wrong with a certificate.
pub(crate) fn discord(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match tls::causes(error).find_map(|cause| cause.downcast_ref())? {
        rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidMessage(_) => None,
        other => Some(other.to_string()),
    }
}

/// Returns the innermost reason of an error, in one line.
pub(crate) fn last_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let text = tls::causes(error).last().map(ToString::to_string).unwrap_or_default();
    // The operating system's number says nothing to people.
    text.split(" (os error").next().unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn is_http(proxy: &Intercept) -> bool {
    proxy.uri().scheme_str() == Some("http")
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
}

/// Tells whether a server is on this machine, or on its link, as those are that give a machine its credentials.
fn is_near(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || match host.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
            Err(_) => false,
        }
}
