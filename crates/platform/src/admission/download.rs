//! Fetching a document over HTTP: certificates are verified, time, size and redirects have a limit.
//!
//! # Source
//! `01-api.md` §7.8, §9.3.2; decision 8

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, LOCATION};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kratix_core::admission::{Answer, Download};
use kube::client::ConfigExt;

/// Time for everything. Two seconds less than a write may take, so that the user learns what was slow.
const DEADLINE: Duration = Duration::from_secs(8);
/// Largest document. No API server takes a larger object.
const DOCUMENT_BYTES_MAX: usize = 3 << 20;
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 10;

/// Why a document could not be had.
#[derive(Debug)]
struct Trouble {
    message: String,
    is_passing: bool,
}

/// Fetches a document.
pub(super) async fn fetch(download: &Download) -> Answer {
    fetch_within(download, DEADLINE).await
}

async fn fetch_within(download: &Download, deadline: Duration) -> Answer {
    let fetched = tokio::time::timeout(deadline, follow(download)).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", deadline.as_secs_f32());
        Err(Trouble { message, is_passing: true })
    });
    match fetched {
        Ok((status, body)) => Answer::Document { status, body },
        Err(Trouble { message, is_passing }) => {
            Answer::Unreachable { message: format!("Get {:?}: {message}", shown(&download.url)), is_passing }
        }
    }
}

async fn follow(download: &Download) -> Result<(u16, Vec<u8>), Trouble> {
    let start: Uri = download.url.parse().map_err(|error| lasting(format!("invalid URL: {error}")))?;
    let authorization = authorization(download)?;
    // The TLS set-up of the Kubernetes client: verified against the machine's authorities, or against those given.
    let mut config = kube::Config::new(Uri::from_static("https://unused.invalid"));
    config.root_cert = download.ca_pem.as_deref().map(certificates).transpose()?;
    let connector = config.rustls_https_connector().map_err(|error| lasting(root(&error)))?;
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);

    let mut uri = start.clone();
    for _ in 0..=REDIRECTS_MAX {
        check_scheme(&uri)?;
        let mut request = Request::get(&uri);
        // A redirect must not carry the credential to somebody else, nor to the same one for everybody to read.
        if let Some(authorization) = authorization.as_ref().filter(|_| is_same_origin(&uri, &start)) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| lasting(error.to_string()))?;
        let response = client.request(request).await.map_err(|error| unreachable(&error))?;
        let status = response.status();
        if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status.as_u16(), response.headers().get(LOCATION)) {
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            uri = target(&uri, &location)?;
            continue;
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        return match body {
            Ok(body) => Ok((status.as_u16(), body.to_bytes().to_vec())),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(lasting(format!("the document is larger than {} MiB", DOCUMENT_BYTES_MAX >> 20)))
            }
            Err(error) => Err(Trouble { message: root(&*error), is_passing: true }),
        };
    }
    Err(lasting(format!("stopped after {REDIRECTS_MAX} redirects")))
}

fn lasting(message: String) -> Trouble {
    Trouble { message, is_passing: false }
}

fn authorization(download: &Download) -> Result<Option<HeaderValue>, Trouble> {
    let Some(text) = &download.authorization else { return Ok(None) };
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        lasting("the authorizationHeader in the Secret is no header value (does it end with a line break?)".into())
    })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

/// Refuses what nobody vouches for: a Promise is installed with all rights, so whoever can change it on its way has them.
fn check_scheme(uri: &Uri) -> Result<(), Trouble> {
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if uri.host().is_some_and(is_loopback) => Ok(()),
        Some("http") => Err(lasting("plain http is only allowed for loopback hosts, use https".into())),
        scheme => Err(lasting(format!("unsupported protocol scheme {:?}", scheme.unwrap_or_default()))),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Returns the certificates of a PEM file.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, Trouble> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let unusable = || lasting("the caFile in the Secret holds no PEM certificate".into());
    let text = std::str::from_utf8(pem).map_err(|_| unusable())?;
    let parts = text.split(BEGIN).skip(1).map(|part| {
        let (body, _) = part.split_once(END)?;
        let body: String = body.split_whitespace().collect();
        base64::engine::general_purpose::STANDARD.decode(body).ok()
    });
    let certificates: Option<Vec<Vec<u8>>> = parts.collect();
    certificates.filter(|certificates| !certificates.is_empty()).ok_or_else(unusable)
}

/// Returns where a redirect leads.
fn target(from: &Uri, location: &str) -> Result<Uri, Trouble> {
    let (scheme, authority) = (from.scheme_str().unwrap_or("https"), from.authority().map_or("", |host| host.as_str()));
    let absolute = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    absolute.parse().map_err(|error| lasting(format!("redirected to an invalid URL: {error}")))
}

/// Tells whether a reference names its scheme; a `://` further on belongs to a path or query.
fn has_scheme(reference: &str) -> bool {
    let end = reference.find([':', '/', '?', '#']);
    end.is_some_and(|end| end > 0 && reference[end..].starts_with(':'))
}

/// A connection that fails heals by itself, except where the other side is not who it should be.
fn unreachable(error: &(dyn Error + 'static)) -> Trouble {
    let is_untrusted = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_of_handshake);
    let mut message = root(error);
    if is_untrusted {
        message.push_str(
            "; put the PEM certificate of its authority under caFile into the Secret of spec.sourceRef.secretRef",
        );
    }
    Trouble { message, is_passing: !is_untrusted }
}

/// Tells whether the TLS library reports what it was sent: certificates above all. The connector wraps its errors.
fn is_of_handshake(error: &io::Error) -> bool {
    let inner = || error.get_ref()?.downcast_ref::<io::Error>();
    error.kind() == io::ErrorKind::InvalidData || inner().is_some_and(is_of_handshake)
}

/// Returns the first cause, which is the one that tells something.
fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns a URL without what could be a password.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests;
