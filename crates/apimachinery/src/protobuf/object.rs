//! Messages to JSON objects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Error;
use super::messages::{Field, Kind, Messages, Shape};
use super::wire::{Content, Fields, packed};
use crate::meta;

/// Reads message `index` from `bytes` into `out`. A field that comes twice is merged, as the format asks for.
pub(super) fn merge(
    messages: &Messages,
    index: usize,
    bytes: &[u8],
    out: &mut Map<String, Value>,
) -> Result<(), Error> {
    let message = messages.message(index);
    for field in Fields::new(bytes, message.name) {
        let (number, content) = field?;
        let Some(field) = message.fields.iter().find(|field| field.number == number) else { continue };
        let reader = Reader { messages, message: message.name };
        match (field.name, field.kind) {
            (None, Kind::Message(inner)) => merge(messages, inner, content.bytes(message.name)?, out)?,
            (Some(name), _) => reader.field(field, name, content, out)?,
            (None, _) => {}
        }
    }
    Ok(())
}

struct Reader<'a> {
    messages: &'a Messages,
    message: &'a str,
}

impl Reader<'_> {
    fn malformed(&self) -> Error {
        Error::malformed(self.message)
    }

    fn field(
        &self,
        field: &Field,
        name: &str,
        content: Content<'_>,
        out: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        match field.shape {
            Shape::One => {
                let value = self.value(field.kind, content, out.remove(name))?;
                let is_zero = match &value {
                    Value::Null => true,
                    Value::Bool(flag) => field.omits_zero && !flag,
                    Value::Number(number) => field.omits_zero && number.as_i64() == Some(0),
                    Value::String(text) => field.omits_zero && text.is_empty(),
                    Value::Array(_) | Value::Object(_) => false,
                };
                if !is_zero {
                    out.insert(name.to_owned(), value);
                }
            }
            Shape::List => {
                let slot = out.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = slot else { return Err(self.malformed()) };
                match (field.kind, content) {
                    (Kind::Int32 | Kind::Int64, Content::Bytes(bytes)) => {
                        list.extend(packed(bytes, self.message)?.into_iter().map(|one| integer(field.kind, one)));
                    }
                    (kind, content) => list.push(self.value(kind, content, None)?),
                }
            }
            Shape::Map => {
                let slot = out.entry(name).or_insert_with(|| Value::Object(Map::new()));
                let Value::Object(map) = slot else { return Err(self.malformed()) };
                let (key, value) = self.entry(field.kind, content.bytes(self.message)?)?;
                map.insert(key, value);
            }
        }
        Ok(())
    }

    /// Reads an entry of a map: key and value are fields of a message of their own.
    fn entry(&self, kind: Kind, bytes: &[u8]) -> Result<(String, Value), Error> {
        let (mut key, mut value) = (String::new(), None);
        for field in Fields::new(bytes, self.message) {
            match field? {
                (1, content) => content.text(self.message)?.clone_into(&mut key),
                (2, content) => value = Some(self.value(kind, content, value)?),
                _ => {}
            }
        }
        match value {
            Some(value) => Ok((key, value)),
            None => Ok((key, self.value(kind, Content::Bytes(&[]), None)?)),
        }
    }

    /// Reads one value; `before` is what the field held until now.
    fn value(&self, kind: Kind, content: Content<'_>, before: Option<Value>) -> Result<Value, Error> {
        Ok(match kind {
            Kind::Text => content.text(self.message)?.into(),
            Kind::Bytes => STANDARD.encode(content.bytes(self.message)?).into(),
            Kind::Int32 | Kind::Int64 => integer(kind, content.number(self.message)?),
            Kind::Bool => (content.number(self.message)? != 0).into(),
            Kind::Time | Kind::MicroTime => self.time(kind, content.bytes(self.message)?)?,
            Kind::Json => self.json(content.bytes(self.message)?)?,
            Kind::IntOrString => self.int_or_string(content.bytes(self.message)?)?,
            Kind::Quantity => match self.texts(content.bytes(self.message)?)?.pop() {
                Some(text) => text,
                None => "0".into(),
            },
            Kind::Texts => Value::Array(self.texts(content.bytes(self.message)?)?),
            Kind::Message(index) => {
                let mut out = match before {
                    Some(Value::Object(before)) => before,
                    _ => Map::new(),
                };
                merge(self.messages, index, content.bytes(self.message)?, &mut out)?;
                Value::Object(out)
            }
        })
    }

    /// Reads a message whose first field is text: a quantity, or a list under a name of its own.
    fn texts(&self, bytes: &[u8]) -> Result<Vec<Value>, Error> {
        let mut out = Vec::new();
        for field in Fields::new(bytes, self.message) {
            if let (1, content) = field? {
                out.push(content.text(self.message)?.into());
            }
        }
        Ok(out)
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, Error> {
        let mut raw: &[u8] = b"null";
        for field in Fields::new(bytes, self.message) {
            if let (1, content) = field? {
                raw = content.bytes(self.message)?;
            }
        }
        serde_json::from_slice(raw).map_err(|_| self.malformed())
    }

    fn int_or_string(&self, bytes: &[u8]) -> Result<Value, Error> {
        let (mut is_text, mut number, mut text) = (false, 0, "");
        for field in Fields::new(bytes, self.message) {
            match field? {
                (1, content) => is_text = content.number(self.message)? == 1,
                (2, content) => number = content.number(self.message)?,
                (3, content) => text = content.text(self.message)?,
                _ => {}
            }
        }
        Ok(if is_text { text.into() } else { integer(Kind::Int32, number) })
    }

    /// An empty message is the time that nobody set, `null`.
    fn time(&self, kind: Kind, bytes: &[u8]) -> Result<Value, Error> {
        /// First second of year 1, the earliest that JSON can tell.
        const SECONDS_MIN: i64 = -62_135_596_800;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let (mut seconds, mut nanos) = (0, 0);
        for field in Fields::new(bytes, self.message) {
            match field? {
                (1, content) => seconds = content.number(self.message)?,
                (2, content) => nanos = content.number(self.message)?,
                _ => {}
            }
        }
        let nanos = i32::try_from(nanos).ok().filter(|nanos| (0..1_000_000_000).contains(nanos));
        let time = nanos.and_then(|nanos| Timestamp::new(seconds, nanos).ok());
        let time = time.filter(|_| seconds >= SECONDS_MIN).ok_or_else(|| self.malformed())?;
        Ok(match kind {
            Kind::MicroTime => time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
            _ => meta::time(time).into(),
        })
    }
}

fn integer(kind: Kind, number: i64) -> Value {
    match kind {
        #[expect(clippy::cast_possible_truncation, reason = "what every reader of the format does with 32 bits")]
        Kind::Int32 => (number as i32).into(),
        _ => number.into(),
    }
}
