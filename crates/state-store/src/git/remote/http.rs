//! Git's smart protocol over HTTP, spoken in this process: which branches there are, and pushing a pack that is at hand.
//!
//! The programs that `git push` starts would look through the whole repository for what the server lacks, which the batch
//! knows. Bringing objects is left to them, and so is whatever [`Unable`] names.

mod advertisement;
mod body;
mod packet;
mod push;
mod report;

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub(super) use self::advertisement::Advertisement;
pub(super) use self::push::Push;

use self::body::Pieces;
use self::packet::Packets;
use self::push::Offer;
use super::answer;
use super::credentials::Basic;
use crate::authority;
use crate::config::{GitConfig, Proxies, Tls};
use crate::connection::{self, Connector, Trust};
use crate::error::Trouble;
use crate::retry_after;

/// How long a connection is kept for the next exchange.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How much is read of an answer that is none of git's.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// How much is told of what such an answer is.
const TYPE_CHARS_MAX: usize = 60;
/// Servers tell browsers and git apart by how this begins, and some turn away what has no version of git, or an old one.
const USER_AGENT: &str = concat!("git/2.0 (", env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"), ")");

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// To be read.
    UploadPack,
    /// To be written.
    ReceivePack,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::UploadPack => "git-upload-pack",
            Self::ReceivePack => "git-receive-pack",
        }
    }
}

/// Why an exchange did not have its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Trouble(Trouble),
    /// The server sends elsewhere, to this address if it says one.
    Redirected(Option<String>),
    /// The server speaks git's protocol to say that it will not.
    Refusal(String),
    /// It is for git to do.
    Unable(Unable),
}

/// What is left to the program git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unable {
    /// The address is not one of HTTP, or has a form that other programs may understand.
    Address,
    /// The way leads through a proxy with another protocol.
    Proxy,
    /// The server's certificate is not trusted here, for this reason. Git's libraries also take the certificate of a server
    /// itself in place of its authority's, and such without alternative names.
    Certificate(String),
    /// The server speaks TLS in ways that are not known here only, for this reason. Git's libraries know older ones too.
    Handshake(String),
    /// The repository has other object ids than SHA-1.
    ObjectFormat,
    /// The answer is not in the form of the protocol's first version.
    Answer,
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Untrusted(reason) => Self::Unable(Unable::Certificate(reason)),
            trouble => Self::Trouble(trouble),
        }
    }
}

/// A server, as far as HTTP goes.
pub(super) struct Http {
    host: String,
    branch: String,
    tls: Tls,
    proxies: Proxies,
    /// How long an exchange may take, with all its requests.
    deadline: Duration,
    /// Packets are logged.
    is_traced: bool,
    link: Option<Link>,
    /// What the server has said that it takes, as long as nothing speaks against that.
    offer: Option<Offer>,
}

/// Connections that were made as long as these authorities vouched for the server.
struct Link {
    pem: Option<Vec<u8>>,
    connector: Connector,
    client: Client<Connector, Pieces>,
}

impl Http {
    pub(super) fn new(config: &GitConfig, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            branch: config.branch.clone(),
            tls: config.tls.clone(),
            proxies: Proxies::of_process(),
            deadline: config.deadline,
            is_traced: config.trace.packets,
            link: None,
            offer: None,
        }
    }

    /// Asks the server at `address` for its branches.
    pub(super) async fn look(
        &mut self,
        address: &str,
        basic: Option<&Basic>,
        service: Service,
    ) -> Result<Advertisement, Fault> {
        let deadline = self.deadline;
        let seen = within(deadline, self.ask(address, basic, service)).await?;
        if service == Service::ReceivePack {
            self.offer = Some(Offer::new(address, seen.clone()));
        }
        Ok(seen)
    }

    async fn ask(&mut self, address: &str, basic: Option<&Basic>, service: Service) -> Result<Advertisement, Fault> {
        let name = service.name();
        let response = match self.get(address, basic, name).await {
            // A connection that was kept may turn out to be closed only when it is used.
            Err(Lost { fault: Fault::Trouble(Trouble::Unreachable(_)), is_stale: true }) => {
                self.get(address, basic, name).await
            }
            result => result,
        };
        let response = response.map_err(|lost| lost.fault)?;
        let body = expect(response, &format!("application/x-{name}-advertisement"), basic).await?;
        let mut packets = Packets::new(body);
        let is_traced = self.is_traced;
        let note = |line: &[u8]| {
            if is_traced {
                trace(name, '<', line);
            }
        };
        let read = Advertisement::read(&mut packets, &self.branch, note).await?;
        packets.finish().await;
        Ok(read)
    }

    async fn get(&mut self, address: &str, basic: Option<&Basic>, service: &str) -> Result<Response<Incoming>, Lost> {
        let uri = uri(address, &format!("info/refs?service={service}")).map_err(Lost::from)?;
        let request = Request::get(uri).header(header::PRAGMA, "no-cache").header(header::ACCEPT, "*/*");
        self.exchange(request, Pieces::default(), basic).await
    }

    async fn exchange(
        &mut self,
        request: http::request::Builder,
        body: Pieces,
        basic: Option<&Basic>,
    ) -> Result<Response<Incoming>, Lost> {
        let mut request = request
            .header(header::USER_AGENT, USER_AGENT)
            .body(body)
            .map_err(|_| Lost::from(Fault::Unable(Unable::Address)))?;
        let link = self.link().map_err(Lost::from)?;
        if !link.connector.has_way(request.uri()) {
            return Err(Fault::Unable(Unable::Proxy).into());
        }
        if let Some(authorization) = link.connector.authorization(request.uri()) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
        }
        if let Some(basic) = basic {
            request.headers_mut().insert(header::AUTHORIZATION, basic.header());
        }
        let client = link.client.clone();
        client.request(request).await.map_err(|error| {
            if let Some(reason) = connection::discord(&error).filter(|_| error.is_connect()) {
                return Fault::Unable(Unable::Handshake(reason)).into();
            }
            let trouble = match connection::trouble(&self.host, &error) {
                // There is no switch for plain HTTP that could be told of.
                trouble @ Trouble::NotTls => Trouble::Unreachable(trouble.to_string()),
                trouble => trouble,
            };
            Lost { fault: trouble.into(), is_stale: !error.is_connect() }
        })
    }

    /// Returns the connections, others than before if other authorities are to be trusted.
    fn link(&mut self) -> Result<&Link, Fault> {
        let pem = if self.tls.insecure { None } else { authority::pem(&self.tls, &self.host)? };
        if self.link.as_ref().is_none_or(|link| link.pem != pem) {
            let connector = Connector::new(&self.tls, Trust::Instead, &self.proxies, self.deadline)?;
            let client = Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(1)
                .build(connector.clone());
            self.link = Some(Link { pem, connector, client });
        }
        Ok(self.link.as_ref().expect("it was just made"))
    }
}

/// A request without an answer.
struct Lost {
    fault: Fault,
    /// It was sent on a connection that had come about, then or before.
    is_stale: bool,
}

impl From<Fault> for Lost {
    fn from(fault: Fault) -> Self {
        Self { fault, is_stale: false }
    }
}

async fn within<T>(deadline: Duration, exchange: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let timeout = |_| Err(Fault::Trouble(Trouble::Timeout(deadline)));
    tokio::time::timeout(deadline, exchange).await.unwrap_or_else(timeout)
}

/// Returns a text of the server without what is secret.
fn redacted(basic: Option<&Basic>, text: &str) -> String {
    basic.map_or_else(|| text.to_owned(), |basic| basic.redact(text))
}

/// Returns the address of something below a repository's.
fn uri(address: &str, below: &str) -> Result<Uri, Fault> {
    let unusable = || Fault::Unable(Unable::Address);
    if address.contains(['?', '#']) {
        return Err(unusable());
    }
    format!("{}/{below}", address.trim_end_matches('/')).parse().map_err(|_| unusable())
}

/// Returns the body of an answer of this kind.
async fn expect(response: Response<Incoming>, content_type: &str, basic: Option<&Basic>) -> Result<Incoming, Fault> {
    if !response.status().is_success() {
        return Err(refusal(response, basic).await);
    }
    let found = text(response.headers(), &header::CONTENT_TYPE).unwrap_or_default();
    if found.split(';').next().map(str::trim) != Some(content_type) {
        // A page to sign in at, mostly. Servers without the smart protocol cannot be written by git either.
        let kind: String = found.chars().filter(|c| !c.is_control()).take(TYPE_CHARS_MAX).collect();
        let kind = if kind.is_empty() { "something unknown".to_owned() } else { kind };
        return Err(Fault::Trouble(Trouble::NotARepository(format!("the server answers with {kind}"))));
    }
    Ok(response.into_body())
}

/// Finds out what a server means with another status than success.
async fn refusal(response: Response<Incoming>, basic: Option<&Basic>) -> Fault {
    let (parts, body) = response.into_parts();
    let (status, headers) = (parts.status, parts.headers);
    if status.is_redirection() {
        return Fault::Redirected(text(&headers, &header::LOCATION).map(str::to_owned));
    }
    let is_text = text(&headers, &header::CONTENT_TYPE).is_some_and(|found| found.starts_with("text/plain"));
    // Also read if it is not wanted, so that the connection serves again.
    let page = Limited::new(body, PAGE_BYTES_MAX).collect().await.map(|page| page.to_bytes()).unwrap_or_default();
    let page = String::from_utf8_lossy(&page);
    let answered = format!("The requested URL returned error: {}", status.as_u16());
    let trouble = match status {
        StatusCode::UNAUTHORIZED => Trouble::Unauthorized,
        StatusCode::FORBIDDEN => {
            let said: String = page.lines().filter(|_| is_text).map(|line| format!("remote: {line}\n")).collect();
            answer::forbidden(answer::remote_text(&redacted(basic, &said)))
        }
        StatusCode::NOT_FOUND => Trouble::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Trouble::ServerFailed(answered),
        status if status.is_server_error() => Trouble::ServerFailed(answered),
        _ => Trouble::Unreachable(answered),
    };
    let retry_after =
        text(&headers, &header::RETRY_AFTER).and_then(|value| retry_after::parse(value, text(&headers, &header::DATE)));
    Fault::Trouble(trouble.with_retry_after(retry_after))
}

fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| HeaderValue::to_str(value).ok())
}

/// Logs a packet, as git does. There are no credentials in one.
fn trace(service: &str, direction: char, line: &[u8]) {
    let line = String::from_utf8_lossy(line).replace('\0', "\\0");
    tracing::debug!("packet: {service}{direction} {}", line.trim_end());
}
