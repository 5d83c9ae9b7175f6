//! Request bodies to values.

use std::fmt;

use serde::de::{Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::field::quote;
use crate::status::{Qualified, Status};

/// What happens to fields the schema does not know (`fieldValidation` of a request).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

impl FieldValidation {
    /// Parses the query parameter; absent means `Warn`.
    ///
    /// # Errors
    /// 422 Invalid for other words.
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text.unwrap_or_default() {
            "Ignore" => Ok(Self::Ignore),
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            other => {
                let at = crate::field::Path::Root.child("fieldValidation");
                let error = crate::field::Error::not_supported(&at, other, &["Ignore", "Strict", "Warn"]);
                Err(Status::invalid(Qualified::new("meta.k8s.io", "CreateOptions"), "", &[error]))
            }
        }
    }
}

/// Parses a JSON body, remembering which fields occur twice (`spec.a`).
///
/// # Limits
/// Nesting up to 128 levels.
/// # Errors
/// 400 BadRequest with the position.
pub fn json(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let mut duplicates = Vec::new();
    let mut input = serde_json::Deserializer::from_slice(body);
    let seed = Node { path: "", duplicates: &mut duplicates };
    let value = seed
        .deserialize(&mut input)
        .and_then(|value| input.end().map(|()| value))
        .map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))?;
    Ok((value, duplicates))
}

/// Refuses unless every field of `duplicates` may be lost; for bodies that are not objects of a resource (patches).
///
/// # Errors
/// 400 BadRequest.
pub fn refuse_duplicates(duplicates: &[String], validation: FieldValidation) -> Result<(), Status> {
    if validation != FieldValidation::Strict || duplicates.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = duplicates.iter().map(|path| format!("duplicate field {}", quote(path))).collect();
    Err(Status::bad_request(format!("strict decoding error: {}", list.join(", "))))
}

struct Node<'a> {
    path: &'a str,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, out.len());
            match input.next_element_seed(Node { path: &path, duplicates: self.duplicates })? {
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = input.next_key_seed(Key)? {
            let path = if self.path.is_empty() { key.clone() } else { format!("{}.{key}", self.path) };
            let value = input.next_value_seed(Node { path: &path, duplicates: self.duplicates })?;
            if out.insert(key, value).is_some() && !self.duplicates.contains(&path) {
                self.duplicates.push(path);
            }
        }
        Ok(Value::Object(out))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<String, D::Error> {
        String::deserialize(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_fields_are_named_once_and_the_last_wins() {
        let (value, duplicates) = json(br#"{"spec":{"a":1,"a":2,"a":3,"l":[{"b":1,"b":1}]}}"#).expect("it is JSON");
        assert_eq!(value["spec"]["a"], 3);
        assert_eq!(duplicates, ["spec.a", "spec.l[0].b"]);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for body in ["", "{", "{} x", "nul"] {
            assert_eq!(json(body.as_bytes()).expect_err(body).code(), 400);
        }
    }
}
