//! Kubernetes' protobuf encoding of request bodies, decoded to the JSON form.
//!
//! A body is the magic bytes and an envelope (`runtime.Unknown`) that names the kind and holds the object. What the
//! object looks like is data: `messages.txt`, walked by [`object`]. The outcome is what a client of the same object
//! would have sent as JSON.

mod messages;
mod object;
mod wire;

use serde_json::{Map, Value};

use messages::Messages;
use wire::{Content, Fields};

/// The first bytes of every body.
const MAGIC: &[u8] = b"k8s\0";

/// Why a body could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body does not start with the magic bytes.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes end early or are malformed.
    #[error("proto: malformed {message}")]
    Malformed {
        /// Message type being read.
        message: String,
    },
    /// The kind is not known in this encoding.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// apiVersion in the envelope.
        api_version: String,
        /// Kind in the envelope.
        kind: String,
    },
}

impl Error {
    fn malformed(message: &str) -> Self {
        Self::Malformed { message: message.to_owned() }
    }
}

/// Decodes an `application/vnd.kubernetes.protobuf` body: envelope and object, kind and apiVersion set.
///
/// Unknown fields are skipped. Encoding and content type of the envelope are not looked at, as in the real server.
///
/// # Limits
/// Nesting is bounded by the messages, none of which contains itself; unknown groups nest up to 100 levels.
/// # Errors
/// [`Error`]; answer with 400.
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let envelope = Envelope::parse(body.strip_prefix(MAGIC).ok_or(Error::Magic)?)?;
    let messages = Messages::get();
    let Some(root) = messages.root(envelope.api_version, envelope.kind) else {
        return Err(Error::UnknownKind {
            api_version: envelope.api_version.to_owned(),
            kind: envelope.kind.to_owned(),
        });
    };
    let mut out = Map::new();
    out.insert("apiVersion".to_owned(), envelope.api_version.into());
    out.insert("kind".to_owned(), envelope.kind.into());
    object::merge(messages, root, envelope.raw, &mut out)?;
    Ok(Value::Object(out))
}

/// `runtime.Unknown`: what kind of object the bytes are.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    const NAME: &'static str = "runtime.Unknown";

    fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut out = Self::default();
        for field in Fields::new(bytes, Self::NAME) {
            match field? {
                (1, Content::Bytes(type_meta)) => out.parse_type(type_meta)?,
                (2, Content::Bytes(raw)) => out.raw = raw,
                (1 | 2, _) => return Err(Error::malformed(Self::NAME)),
                _ => {}
            }
        }
        Ok(out)
    }

    fn parse_type(&mut self, bytes: &'a [u8]) -> Result<(), Error> {
        const NAME: &str = "runtime.TypeMeta";
        for field in Fields::new(bytes, NAME) {
            match field? {
                (1, content) => self.api_version = content.text(NAME)?,
                (2, content) => self.kind = content.text(NAME)?,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
