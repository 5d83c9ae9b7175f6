//! A real S3 server for tests: versitygw, which keeps objects as files of a directory.
//!
//! It serves on a socket in its own directory, and this process relays a loopback port to it: ports are never guessed, requests can
//! be counted, and what a network and other servers do can be had.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ring::hmac;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::authority::Identity;
use crate::wait;

/// The public key of the only account.
pub const ACCESS_KEY: &str = "key-of-this-test";
/// The secret key of the only account.
pub const SECRET_KEY: &str = "secret-of-this-test";

const PROGRAM: &str = "versitygw";
/// Where `scripts/install-test-tools` puts programs, unless [`TOOLS`] says otherwise.
const TOOLS_DEFAULT: &str = ".cache/kratix-test-tools";
const TOOLS: &str = "KRATIX_TEST_TOOLS";

/// What a server is like.
#[derive(Default)]
pub struct Options {
    /// It speaks TLS as this one.
    pub tls: Option<Identity>,
    /// The region that requests have to be signed for, if it is not the usual one.
    pub region: Option<String>,
    /// Its identities of contents are none of their MD5 sums, as those of encrypted objects.
    pub opaque_tags: bool,
    /// It can be reached without the relay at [`S3::direct_endpoint`]: for measuring.
    pub direct: bool,
}

/// What a request meets instead of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, with this code of S3.
    Answer(u16, &'static str),
    /// The status 503, and the word that the server wants to be left alone for so many seconds.
    Busy(u64),
    /// All is well, says a server of something else.
    Welcome,
    /// The connection breaks before the server hears of it.
    Break,
    /// The server does it, and the connection breaks before the answer.
    BreakAfter,
    /// No answer ever.
    Hang,
}

type Interception = Arc<dyn Fn(&str) -> Option<Fault> + Send + Sync>;

/// A running server; it ends when dropped, and its data goes.
pub struct S3 {
    directory: TempDir,
    region: String,
    port: u16,
    direct: Option<u16>,
    ca_pem: Option<String>,
    shared: Arc<Shared>,
    relay: JoinHandle<()>,
    _process: Child,
}

struct Shared {
    socket: PathBuf,
    requests: Mutex<Vec<String>>,
    interception: Mutex<Option<Interception>>,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its content.
    pub content: Bytes,
}

/// Returns the program, `None` with a word about it where there is none.
///
/// # Panics
/// Without one under `CI=true`.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn program() -> Option<PathBuf> {
    let tools = match std::env::var_os(TOOLS) {
        Some(tools) => PathBuf::from(tools),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(TOOLS_DEFAULT),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(tools).chain(std::env::split_paths(&path));
    let found = places.map(|place| place.join(PROGRAM)).find(|program| program.is_file());
    if found.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{PROGRAM} is missing: run scripts/install-test-tools");
        eprintln!("skipped: {PROGRAM} is missing, run scripts/install-test-tools");
    }
    found
}

impl S3 {
    /// Starts a server without TLS. `None`, with a word about it, where there is none.
    ///
    /// # Panics
    /// Without one under `CI=true`, and when it does not come up.
    pub async fn start() -> Option<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a server. `None`, with a word about it, where there is none.
    ///
    /// # Panics
    /// Without one under `CI=true`, and when it does not come up.
    pub async fn start_with(options: Options) -> Option<Self> {
        let program = program()?;
        // Short, because the name of a socket is.
        let directory = tempfile::Builder::new().prefix("s3-").tempdir().expect("a directory");
        for name in ["buckets", "versions"] {
            std::fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        let socket = directory.path().join("socket");
        let region = options.region.unwrap_or_else(|| "us-east-1".to_owned());
        let direct = options.direct.then(free_port);
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let mut command = Command::new(program);
        command.env_clear().args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", &region]);
        command.args(["--health", "/health", "--quiet", "--port"]).arg(&socket);
        if let Some(port) = direct {
            command.args(["--port", &format!("127.0.0.1:{port}")]);
        }
        command.arg("posix");
        if options.opaque_tags {
            command.arg("--data-integrity-etag");
        }
        command.arg("--versioning-dir").arg(directory.path().join("versions")).arg(directory.path().join("buckets"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
        let process = command.spawn().expect("it can be run");

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { socket, requests: Mutex::default(), interception: Mutex::default() });
        let ca_pem = options.tls.as_ref().map(|identity| identity.ca_pem.clone());
        let relay = tokio::spawn(relay(listener, options.tls.map(|identity| acceptor(&identity)), Arc::clone(&shared)));
        let server = Self { directory, region, port, direct, ca_pem, shared, relay, _process: process };
        wait::poll("versitygw to answer", || async {
            let request = Request::get("/health").header("host", "s3").body(Full::default()).expect("a request");
            match server.shared.forward(request).await {
                Ok(response) if response.status() == StatusCode::OK => Ok(()),
                other => Err(format!("{other:?}; {}", server.log())),
            }
        })
        .await;
        Some(server)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Returns host and port of the relay.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns host and port of the server itself, which speaks plain HTTP.
    ///
    /// # Panics
    /// Unless it was asked for.
    pub fn direct_endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.direct.expect("Options::direct"))
    }

    /// Returns the certificate of the authority, PEM.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Has requests meet what `interception` returns; it is given `METHOD /bucket/key?query`, and ` if` for a request with a
    /// condition.
    pub fn intercept(&self, interception: impl Fn(&str) -> Option<Fault> + Send + Sync + 'static) {
        *self.shared.interception.lock() = Some(Arc::new(interception));
    }

    /// Lets all requests through again.
    pub fn relent(&self) {
        *self.shared.interception.lock() = None;
    }

    /// Returns the requests that came to the relay since the last call: `METHOD /bucket/key?query`.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock())
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn add_bucket(&self, bucket: &str) {
        self.expect(Method::PUT, bucket, "", "", Bytes::new()).await;
    }

    /// Removes an empty bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn remove_bucket(&self, bucket: &str) {
        self.expect(Method::DELETE, bucket, "", "", Bytes::new()).await;
    }

    /// Has a bucket keep versions.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn keep_versions(&self, bucket: &str) {
        let text = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <Status>Enabled</Status></VersioningConfiguration>";
        self.expect(Method::PUT, bucket, "", "versioning=", Bytes::from(text)).await;
    }

    /// Writes an object as somebody else does.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn put(&self, bucket: &str, key: &str, content: &str) {
        self.expect(Method::PUT, bucket, key, "", Bytes::from(content.to_owned())).await;
    }

    /// Removes an object as somebody else does.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn delete(&self, bucket: &str, key: &str) {
        self.expect(Method::DELETE, bucket, key, "", Bytes::new()).await;
    }

    /// Returns an object.
    ///
    /// # Panics
    /// When the server fails.
    pub async fn get(&self, bucket: &str, key: &str) -> Option<Object> {
        let (status, headers, content) = self.call(Method::GET, bucket, key, "", Bytes::new()).await;
        assert!(status.is_success() || status == StatusCode::NOT_FOUND, "{status}: {content:?}");
        status.is_success().then_some(Object { headers, content })
    }

    /// Returns the keys of all objects.
    ///
    /// # Panics
    /// When the server fails.
    pub async fn keys(&self, bucket: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut query = "list-type=2".to_owned();
        loop {
            let page = self.expect(Method::GET, bucket, "", &query, Bytes::new()).await;
            let page = String::from_utf8_lossy(&page).into_owned();
            let found = page.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            keys.extend(found.map(str::to_owned));
            let Some((_, rest)) = page.split_once("<NextContinuationToken>") else { return keys };
            let token = rest.split('<').next().unwrap_or_default();
            query = format!("continuation-token={}&list-type=2", encode(token, true));
        }
    }

    /// Returns the contents of all objects by key, without those that go between the listing and their turn.
    ///
    /// # Panics
    /// When the server fails.
    pub async fn files(&self, bucket: &str) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for key in self.keys(bucket).await {
            if let Some(object) = self.get(bucket, &key).await {
                files.insert(key, String::from_utf8_lossy(&object.content).into_owned());
            }
        }
        files
    }

    /// Returns how many uploads were begun and neither completed nor aborted.
    ///
    /// # Panics
    /// When the server fails.
    pub async fn uploads(&self, bucket: &str) -> usize {
        let page = self.expect(Method::GET, bucket, "", "uploads=", Bytes::new()).await;
        String::from_utf8_lossy(&page).matches("<UploadId>").count()
    }

    async fn expect(&self, method: Method, bucket: &str, key: &str, query: &str, body: Bytes) -> Bytes {
        let what = format!("{method} {bucket}/{key}?{query}");
        let (status, _, content) = self.call(method, bucket, key, query, body).await;
        assert!(status.is_success(), "{what}: {status}: {}", String::from_utf8_lossy(&content));
        content
    }

    /// Makes a signed request without the relay.
    async fn call(
        &self,
        method: Method,
        bucket: &str,
        key: &str,
        query: &str,
        body: Bytes,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let path = encode(&format!("/{bucket}/{key}"), false);
        let path = if key.is_empty() { path.trim_end_matches('/') } else { &path };
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let (day, hash) = (&now[..8], hex(&Sha256::digest(&body)));
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:s3\nx-amz-content-sha256:{hash}\nx-amz-date:{now}\n\n{signed}\n{hash}"
        );
        let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let steps = [day, &self.region, "s3", "aws4_request"];
        let key = steps.iter().fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, step| sign(&key, step));
        let signature = hex(&sign(&key, &text));
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={signature}");
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = Request::builder().method(method).uri(uri).header("host", "s3").header("x-amz-date", now);
        let request = request.header("x-amz-content-sha256", hash).header("authorization", authorization);
        let response = self.shared.forward(request.body(Full::new(body)).expect("a request")).await;
        let (parts, body) = response.expect("the server answers").into_parts();
        let content = body.collect().await.expect("it is in memory").to_bytes();
        (parts.status, parts.headers, content)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(text: &str, is_query: bool) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (byte == b'/' && !is_query);
    let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn acceptor(identity: &Identity) -> tokio_rustls::TlsAcceptor {
    let private = rustls::pki_types::PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.der().clone()], private)
        .expect("a certificate");
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn relay(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            match tls {
                None => serve(TokioIo::new(stream), shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(TokioIo::new(stream), shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<I>(io: I, shared: Arc<Shared>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(request).await }
    });
    // A client that leaves is none of the relay's business.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let is_conditional = ["if-match", "if-none-match"].iter().any(|name| request.headers().contains_key(*name));
        let line = format!("{} {path}{}", request.method(), if is_conditional { " if" } else { "" });
        self.requests.lock().push(line.clone());
        let interception = self.interception.lock().clone();
        let fault = interception.and_then(|interception| interception(&line));
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        match fault {
            Some(Fault::Break) => Err(std::io::Error::other("broken")),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Answer(status, code)) => {
                let text = format!("<Error><Code>{code}</Code><Message>As the test wants it.</Message></Error>");
                let text = if parts.method == Method::HEAD { Bytes::new() } else { Bytes::from(text) };
                Ok(Response::builder().status(status).body(Full::new(text)).expect("a response"))
            }
            Some(Fault::Busy(seconds)) => {
                let text = Bytes::from_static(b"<Error><Code>SlowDown</Code></Error>");
                let response = Response::builder().status(503).header("retry-after", seconds);
                Ok(response.body(Full::new(text)).expect("a response"))
            }
            Some(Fault::Welcome) => Ok(Response::new(Full::new(Bytes::from_static(b"<html>Welcome</html>")))),
            Some(Fault::BreakAfter) => {
                self.forward(Request::from_parts(parts, Full::new(body))).await?;
                Err(std::io::Error::other("broken"))
            }
            None => self.forward(Request::from_parts(parts, Full::new(body))).await,
        }
    }

    async fn forward(&self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let is_head = request.method() == Method::HEAD;
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        // The length of an object that is only asked about stays what it is.
        if !is_head {
            parts.headers.remove(http::header::CONTENT_LENGTH);
            parts.headers.remove(http::header::TRANSFER_ENCODING);
        }
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}
