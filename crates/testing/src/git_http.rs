//! A real Git server over HTTP for tests: `git http-backend` behind basic authentication, on a loopback port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::authority::Identity;

/// The largest body that is taken or given.
const BODY_BYTES_MAX: usize = 256 << 20;

/// What the server does wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Answers every request with this status.
    Status(u16),
    /// Executes a push and closes the connection instead of answering it, once.
    LosePushReply,
    /// Takes requests and never answers.
    Hang,
    /// Sends whoever asks for the first path to the second address.
    Redirect(String, String),
}

/// A running server; it ends when dropped.
pub struct Server {
    state: Arc<State>,
    address: SocketAddr,
    ca_pem: Option<String>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    root: PathBuf,
    account: Mutex<Option<(String, String)>>,
    fault: Mutex<Fault>,
    pushes: AtomicUsize,
    fetches: AtomicUsize,
}

impl Server {
    /// Serves the repositories below `root` in clear.
    pub async fn plain(root: impl AsRef<Path>) -> Self {
        Self::start(root.as_ref(), None).await
    }

    /// Serves the repositories below `root` with a certificate of an authority made for this server.
    pub async fn tls(root: impl AsRef<Path>) -> Self {
        let identity = Identity::local();
        let private = rustls::pki_types::PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.der().clone()], private)
            .expect("a usable certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut server = Self::start(root.as_ref(), Some(acceptor)).await;
        server.ca_pem = Some(identity.ca_pem);
        server
    }

    async fn start(root: &Path, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            root: root.to_owned(),
            account: Mutex::default(),
            fault: Mutex::default(),
            pushes: AtomicUsize::default(),
            fetches: AtomicUsize::default(),
        });
        let task = tokio::spawn(accept(listener, tls, state.clone()));
        Self { state, address, ca_pem: None, task }
    }

    /// Returns the URL of a repository below the root.
    pub fn url(&self, repository: &str) -> String {
        let scheme = if self.ca_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost:{}/{repository}", self.address.port())
    }

    /// Returns the certificate of the server's authority as PEM.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Lets in who knows this account only.
    pub fn require(&self, username: &str, password: &str) {
        *self.state.account.lock() = Some((username.to_owned(), password.to_owned()));
    }

    /// Makes the server fail from now on.
    pub fn fail(&self, fault: Fault) {
        *self.state.fault.lock() = fault;
    }

    /// Returns how many pushes came in, accepted or not.
    pub fn pushes(&self) -> usize {
        self.state.pushes.load(Ordering::Relaxed)
    }

    /// Returns how many times objects or refs were asked for.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), state.clone());
        connections.spawn(async move {
            match tls {
                None => serve(TokioIo::new(stream), state).await,
                Some(tls) => serve_tls(&tls, stream, state).await,
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_tls(tls: &tokio_rustls::TlsAcceptor, stream: TcpStream, state: Arc<State>) {
    if let Ok(stream) = tls.accept(stream).await {
        serve(TokioIo::new(stream), state).await;
    }
}

async fn serve(stream: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static, state: Arc<State>) {
    let service = hyper::service::service_fn(move |request| {
        let state = state.clone();
        async move { respond(&state, request).await }
    });
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // A client that leaves, or a reply that is lost on purpose.
    let _ = server.serve_connection(stream, service).await;
}

/// Closes the connection without an answer.
#[derive(Debug)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reply is lost")
    }
}

impl std::error::Error for Lost {}

async fn respond(state: &State, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Lost> {
    let fault = state.fault.lock().clone();
    match fault {
        Fault::Status(status) => return Ok(plain(StatusCode::from_u16(status).expect("a status"))),
        Fault::Hang => std::future::pending().await,
        Fault::Redirect(from, to) => {
            if let Some(rest) = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(&from)) {
                let mut response = plain(StatusCode::MOVED_PERMANENTLY);
                let location = http::HeaderValue::try_from(format!("{to}{rest}")).expect("an address");
                response.headers_mut().insert("location", location);
                return Ok(response);
            }
        }
        Fault::None | Fault::LosePushReply => {}
    }
    if let Some((username, password)) = state.account.lock().clone() {
        let expected = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if given != Some(format!("Basic {expected}").as_str()) {
            let mut response = plain(StatusCode::UNAUTHORIZED);
            response.headers_mut().insert("www-authenticate", http::HeaderValue::from_static("Basic realm=\"git\""));
            return Ok(response);
        }
    }
    let pushes = request.uri().path().ends_with("/git-receive-pack");
    let counter = if pushes { &state.pushes } else { &state.fetches };
    counter.fetch_add(1, Ordering::Relaxed);
    let response = cgi(state, request).await;
    if pushes && *state.fault.lock() == Fault::LosePushReply {
        *state.fault.lock() = Fault::None;
        return Err(Lost);
    }
    Ok(response)
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(status.to_string())));
    *response.status_mut() = status;
    response
}

async fn cgi(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else { return plain(StatusCode::BAD_REQUEST) };
    let body = body.to_bytes();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut command = tokio::process::Command::new("git");
    command.arg("http-backend").kill_on_drop(true).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &state.root).env("LC_ALL", "C");
    command.env("GIT_PROJECT_ROOT", &state.root).env("GIT_HTTP_EXPORT_ALL", "1").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "http.receivepack").env("GIT_CONFIG_VALUE_0", "true");
    command.env("REQUEST_METHOD", parts.method.as_str()).env("PATH_INFO", parts.uri.path());
    command.env("QUERY_STRING", parts.uri.query().unwrap_or_default()).env("REMOTE_ADDR", "127.0.0.1");
    command.env("CONTENT_TYPE", header("content-type")).env("CONTENT_LENGTH", body.len().to_string());
    command.env("HTTP_CONTENT_ENCODING", header("content-encoding")).env("GIT_PROTOCOL", header("git-protocol"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("git is installed");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A backend that refuses does not read its input.
    let feed = tokio::spawn(async move { drop(stdin.write_all(&body).await) });
    let output = child.wait_with_output().await.expect("git ends");
    feed.abort();
    answer(&output.stdout)
}

/// Turns what a CGI program prints into a response.
fn answer(output: &[u8]) -> Response<Full<Bytes>> {
    let Some(end) = output.windows(4).position(|window| window == b"\r\n\r\n") else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(&output[end + 4..])));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok());
            *response.status_mut() = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or_default();
        } else if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
