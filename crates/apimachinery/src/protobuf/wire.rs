//! The wire format: fields of one message.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::Error;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a wire type that no known field has.
    Other,
}

/// The fields of one message in the order of the bytes; ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    message: &'a str,
}

impl<'a> Fields<'a> {
    /// `message` names the message in errors.
    pub(super) fn new(bytes: &'a [u8], message: &'a str) -> Self {
        Self { rest: bytes, message }
    }

    fn read(&mut self) -> Option<(u32, Content<'a>)> {
        let (number, wire_type) = decode_key(&mut self.rest).ok()?;
        let content = match wire_type {
            WireType::Varint => Content::Number(decode_varint(&mut self.rest).ok()?),
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut self.rest).ok()?).ok()?;
                let (bytes, rest) = self.rest.split_at_checked(len)?;
                self.rest = rest;
                Content::Bytes(bytes)
            }
            other => {
                skip_field(other, number, &mut self.rest, DecodeContext::default()).ok()?;
                Content::Other
            }
        };
        Some((number, content))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Content<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let found = self.read();
        if found.is_none() {
            self.rest = &[];
        }
        Some(found.ok_or_else(|| Error::malformed(self.message)))
    }
}

impl<'a> Content<'a> {
    /// Returns the bytes of a field of `message`.
    pub(super) fn bytes(self, message: &str) -> Result<&'a [u8], Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Error::malformed(message)),
        }
    }

    /// Returns the text of a field of `message`.
    pub(super) fn text(self, message: &str) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(message)?).map_err(|_| Error::malformed(message))
    }

    /// Returns the number of a field of `message`; negative ones are written in two's complement.
    pub(super) fn number(self, message: &str) -> Result<i64, Error> {
        match self {
            Self::Number(number) => Ok(number.cast_signed()),
            _ => Err(Error::malformed(message)),
        }
    }
}

/// Returns the numbers of a packed list.
pub(super) fn packed(mut bytes: &[u8], message: &str) -> Result<Vec<i64>, Error> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let number = decode_varint(&mut bytes).map_err(|_| Error::malformed(message))?;
        out.push(number.cast_signed());
    }
    Ok(out)
}
