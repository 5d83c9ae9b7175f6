//! The document that a PromiseRelease fetches: exactly one Promise, as YAML or JSON.
//!
//! **Invariant:** what is no Promise is not quoted. The platform can reach addresses that the author of a release cannot, and
//! must not read them out.
//!
//! # Source
//! `01-api.md` §7.8

use kratix_api::Promise;
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Download};

/// Why there is no Promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was sent.
    #[error("failed to get url: {cause}")]
    Unreachable {
        /// Why.
        cause: String,
        /// Whether it may be had later without anybody changing the request.
        is_passing: bool,
    },
    /// The server has no such document, or does not give it.
    #[error("failed to get Promise from URL: status code {status}")]
    Status {
        /// HTTP code.
        status: u16,
    },
    /// No object.
    #[error("failed to unmarshal into Kubernetes object: {cause}")]
    NoObject {
        /// What is wrong.
        cause: String,
    },
    /// An object of another kind.
    #[error("expected single Promise object but found object of kind: {kind}")]
    OtherKind {
        /// Which kind.
        kind: String,
    },
    /// A Promise with a field of the wrong type.
    #[error("failed to unmarshal into Promise: {cause}")]
    Malformed {
        /// What is wrong.
        cause: String,
    },
    /// Another object follows.
    #[error("expected single document yaml, but found multiple documents")]
    SeveralObjects,
}

impl Error {
    /// Returns whether trying again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { is_passing, .. } => *is_passing,
            // The server is overloaded, restarts or waits for somebody else.
            Self::Status { status } => matches!(status, 408 | 425 | 429 | 500..),
            _ => false,
        }
    }
}

/// Reads the Promise out of the answer to a [`Download`].
///
/// # Errors
/// What is wrong with the answer, or with the document in it.
pub fn read(answer: &Answer) -> Result<Promise, Error> {
    match answer {
        Answer::Document { status: 200, body } => parse(body),
        Answer::Document { status, .. } => Err(Error::Status { status: *status }),
        Answer::Unreachable { message, is_passing } => {
            Err(Error::Unreachable { cause: message.clone(), is_passing: *is_passing })
        }
        _ => Err(Error::Unreachable { cause: "no document was looked for".to_owned(), is_passing: true }),
    }
}

/// Keys of the Secret of a PromiseRelease.
mod key {
    /// Value of the header `Authorization`.
    pub(super) const AUTHORIZATION: &str = "authorizationHeader";
    /// PEM certificates to trust.
    pub(super) const CA_FILE: &str = "caFile";
}

/// Returns what is to be fetched, given the contents of the Secret that the release names.
pub fn download(url: &str, secret: &std::collections::BTreeMap<String, Vec<u8>>) -> Download {
    let authorization = secret.get(key::AUTHORIZATION).filter(|value| !value.is_empty());
    Download {
        url: url.to_owned(),
        authorization: authorization.map(|value| String::from_utf8_lossy(value).into_owned()),
        ca_pem: secret.get(key::CA_FILE).cloned(),
    }
}

fn parse(body: &[u8]) -> Result<Promise, Error> {
    let text = std::str::from_utf8(body).map_err(|error| Error::NoObject { cause: error.to_string() })?;
    let mut documents = documents(text);
    let first = documents.next().unwrap_or_default();
    let object = object(first).map_err(|cause| Error::NoObject { cause })?;
    let kind = object["kind"].as_str().unwrap_or_default();
    if kind != Promise::KIND {
        let kind = if is_name_of_kind(kind) { kind } else { "(no name of a kind)" };
        return Err(Error::OtherKind { kind: kind.to_owned() });
    }
    let promise = Promise::deserialize(&object).map_err(|error| Error::Malformed { cause: error.to_string() })?;
    if let Some(cause) = super::promise::malformed(&promise.spec) {
        return Err(Error::Malformed { cause });
    }
    match documents.next().map(self::object) {
        Some(Ok(_)) => Err(Error::SeveralObjects),
        _ => Ok(promise),
    }
}

/// Splits a stream where Kubernetes does: at each line that begins with three dashes, except the first line.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.split_once("\n---") {
            Some((document, after)) => {
                rest = Some(after.split_once('\n').map_or("", |(_, after)| after));
                Some(document)
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// Reads one document as an object of Kubernetes.
fn object(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Err("the document is empty".to_owned());
    }
    // Not the library's words: they may quote the document.
    let value: Value = serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(location) => format!("line {} column {} is not valid YAML", location.line(), location.column()),
        None => "it is not valid YAML".to_owned(),
    })?;
    match value["kind"].as_str() {
        Some(kind) if !kind.is_empty() => Ok(value),
        _ => Err("Object 'Kind' is missing".to_owned()),
    }
}

/// Tells whether this can be the name of a kind, and not something that is to be read out.
fn is_name_of_kind(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
