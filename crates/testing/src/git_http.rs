//! A real Git server over HTTP for tests: `git http-backend` behind basic authentication, on a loopback port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
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
    /// Answers every request with this status and this `Retry-After`.
    Busy(u16, String),
    /// Takes pushes and never answers them, whether it executes them or not.
    HangPush {
        /// It executes them.
        executed: bool,
    },
    /// Takes requests for objects and never answers them.
    HangFetch,
    /// Resets the connection after so many bytes of a push.
    ResetPush {
        /// How many.
        after: usize,
    },
    /// Answers a push of more bytes than this with the status 413.
    LimitPush {
        /// How many.
        bytes: usize,
    },
    /// Executes pushes and breaks off in the middle of the answer.
    TruncatePush,
    /// Breaks off in the middle of the objects asked for.
    TruncateFetch,
    /// Does not offer to say what becomes of a push.
    NoReport,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client asks for the branches, to fetch or to list them.
    Read,
    /// The client asks for the branches, to push.
    Ask,
    /// The client sends what it pushes.
    Send,
}

/// What happens before a request is served.
pub type Interference = Arc<dyn Fn(Step) + Send + Sync>;

type Body = BoxBody<Bytes, Lost>;

/// Whom a server lets in, user name and password; `None`: everybody.
pub(crate) type Account = Arc<Mutex<Option<(String, String)>>>;

/// Answers requests that are not Git's.
pub type Handler = Arc<dyn Fn(&http::request::Parts) -> Response<Full<Bytes>> + Send + Sync>;

/// A running server; it ends when dropped.
pub struct Server {
    state: Arc<State>,
    address: SocketAddr,
    ca_pem: Option<String>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    root: PathBuf,
    account: Account,
    fault: Mutex<Fault>,
    interference: Mutex<Option<Interference>>,
    handler: Mutex<Option<(String, Handler)>>,
    connections: AtomicUsize,
    requests: AtomicUsize,
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
        Self::tls_as(root, Identity::local()).await
    }

    /// Serves the repositories below `root` with this certificate.
    pub async fn tls_as(root: impl AsRef<Path>, identity: Identity) -> Self {
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
            account: Account::default(),
            fault: Mutex::default(),
            interference: Mutex::default(),
            handler: Mutex::default(),
            connections: AtomicUsize::default(),
            requests: AtomicUsize::default(),
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

    /// Returns whom the server lets in, to be changed.
    pub(crate) fn account(&self) -> Account {
        self.state.account.clone()
    }

    /// Has requests below this path answered by `handler`, whoever asks.
    pub fn handle(&self, path: &str, handler: Handler) {
        *self.state.handler.lock() = Some((path.to_owned(), handler));
    }

    /// Makes the server fail from now on.
    pub fn fail(&self, fault: Fault) {
        *self.state.fault.lock() = fault;
    }

    /// Calls `interference` before each request of these kinds is served.
    pub fn before_requests(&self, interference: impl Fn(Step) + Send + Sync + 'static) {
        *self.state.interference.lock() = Some(Arc::new(interference));
    }

    /// Returns how many connections were made.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Returns how many requests came in, whatever became of them.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Relaxed)
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
        state.connections.fetch_add(1, Ordering::Relaxed);
        let line = Line::of(&stream);
        connections.spawn(async move {
            match tls {
                None => serve(TokioIo::new(stream), state, line).await,
                Some(tls) => serve_tls(&tls, stream, state, line).await,
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A second hold on a connection, to end it without a word.
#[derive(Clone)]
struct Line(Arc<TcpStream>);

impl Line {
    fn of(stream: &TcpStream) -> Self {
        let second = std::os::fd::AsFd::as_fd(stream).try_clone_to_owned().expect("a descriptor is free");
        Self(Arc::new(TcpStream::from_std(second.into()).expect("it does not block")))
    }

    /// Has the connection reset instead of closed at its end.
    fn reset(&self) {
        self.0.set_zero_linger().expect("a socket");
    }
}

async fn serve_tls(tls: &tokio_rustls::TlsAcceptor, stream: TcpStream, state: Arc<State>, line: Line) {
    if let Ok(stream) = tls.accept(stream).await {
        serve(TokioIo::new(stream), state, line).await;
    }
}

async fn serve(
    stream: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    state: Arc<State>,
    line: Line,
) {
    let service = hyper::service::service_fn(move |request| {
        let (state, line) = (state.clone(), line.clone());
        async move { respond(&state, &line, request).await }
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

/// Answers a request, as far as the connection holds.
async fn respond(state: &State, line: &Line, request: Request<Incoming>) -> Result<Response<Body>, Lost> {
    let (is_push, is_fetch) = {
        let path = request.uri().path();
        (path.ends_with("/git-receive-pack"), path.ends_with("/git-upload-pack"))
    };
    state.requests.fetch_add(1, Ordering::Relaxed);
    interfere(state, &request, is_push).await;
    let fault = state.fault.lock().clone();
    match fault {
        Fault::HangFetch if is_fetch => std::future::pending().await,
        Fault::HangPush { executed: false } if is_push => std::future::pending().await,
        Fault::ResetPush { after } if is_push => {
            swallow(request.into_body(), after).await;
            line.reset();
            return Err(Lost);
        }
        Fault::LimitPush { bytes } if is_push && body_bytes(&request) > bytes => {
            // Read all the same, so that the answer is not lost.
            swallow(request.into_body(), usize::MAX).await;
            let response = plain(StatusCode::PAYLOAD_TOO_LARGE);
            return Ok(response.map(|body| body.map_err(|never| match never {}).boxed()));
        }
        _ => {}
    }
    let response = respond_right(state, request).await?;
    let fault = state.fault.lock().clone();
    match fault {
        Fault::HangPush { executed: true } if is_push => std::future::pending().await,
        Fault::LosePushReply if is_push => {
            *state.fault.lock() = Fault::None;
            Err(Lost)
        }
        Fault::TruncatePush if is_push => Ok(truncated(response).await),
        Fault::TruncateFetch if is_fetch => Ok(truncated(response).await),
        Fault::NoReport if !is_push => Ok(without_report(response).await),
        _ => Ok(response.map(|body| body.map_err(|never| match never {}).boxed())),
    }
}

async fn interfere(state: &State, request: &Request<Incoming>, is_push: bool) {
    let asks_for = |service: &str| request.uri().query().is_some_and(|query| query.contains(service));
    let step = match is_push {
        true => Step::Send,
        false if asks_for("service=git-receive-pack") => Step::Ask,
        false if asks_for("service=git-upload-pack") => Step::Read,
        false => return,
    };
    let interference = state.interference.lock().clone();
    if let Some(interference) = interference {
        tokio::task::spawn_blocking(move || interference(step)).await.expect("it does not panic");
    }
}

/// Returns how much a request says that it carries.
fn body_bytes(request: &Request<Incoming>) -> usize {
    let length = request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

/// Reads so many bytes, or all if there are fewer.
async fn swallow(mut body: Incoming, bytes: usize) {
    let mut read = 0;
    while read < bytes
        && let Some(Ok(frame)) = body.frame().await
    {
        read += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// Takes what a server can report out of what it says that it can, in words of the same length.
async fn without_report(response: Response<Full<Bytes>>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut body = body.collect().await.expect("it is in memory").to_bytes().to_vec();
    let word = b"report-status";
    while let Some(at) = body.windows(word.len()).position(|window| window == word) {
        body[at..at + word.len()].copy_from_slice(b"unknown-thing");
    }
    Response::from_parts(parts, Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed())
}

/// Promises all of a body and gives half of it.
async fn truncated(response: Response<Full<Bytes>>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let body = body.collect().await.expect("it is in memory").to_bytes();
    parts.headers.insert("content-length", body.len().into());
    let half = body.slice(..body.len() / 2);
    let frames = futures::stream::iter([Ok(Frame::data(half)), Err(Lost)]);
    Response::from_parts(parts, StreamBody::new(frames).boxed())
}

async fn respond_right(state: &State, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Lost> {
    let handler = state.handler.lock().clone();
    if let Some((_, handler)) = handler.filter(|(path, _)| request.uri().path().starts_with(path)) {
        return Ok(handler(&request.into_parts().0));
    }
    let fault = state.fault.lock().clone();
    match fault {
        Fault::Status(status) => return Ok(plain(StatusCode::from_u16(status).expect("a status"))),
        Fault::Busy(status, retry_after) => {
            let mut response = plain(StatusCode::from_u16(status).expect("a status"));
            response.headers_mut().insert("retry-after", retry_after.parse().expect("a value of a header"));
            return Ok(response);
        }
        Fault::Hang => std::future::pending().await,
        Fault::Redirect(from, to) => {
            if let Some(rest) = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix(&from)) {
                let mut response = plain(StatusCode::MOVED_PERMANENTLY);
                let location = http::HeaderValue::try_from(format!("{to}{rest}")).expect("an address");
                response.headers_mut().insert("location", location);
                return Ok(response);
            }
        }
        _ => {}
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
    Ok(cgi(state, request).await)
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
