//! Objects inside of objects (`x-kubernetes-embedded-resource`): they have a type and metadata of their own.

use serde_json::{Value, json};

use super::{Additional, Schema};
use crate::builtin;
use crate::field::{Error, Path};
use crate::meta;
use crate::text::{check_label_1035, check_path_segment};

impl Schema {
    /// Returns whether there is an embedded object anywhere.
    fn has_embedded(&self) -> bool {
        self.embedded
            || self.properties.values().any(|schema| schema.has_embedded())
            || self.items.as_ref().is_some_and(|items| items.has_embedded())
            || matches!(&self.additional, Additional::Of(schema) if schema.has_embedded())
    }

    /// Decodes type and metadata of embedded objects in place; returns the paths of unknown fields.
    ///
    /// # Errors
    /// The first field that does not have the type of its name.
    pub(crate) fn decode_embedded(&self, object: &mut Value, path: &Path<'_>) -> Result<Vec<String>, Error> {
        let mut unknown = Vec::new();
        if self.has_embedded() {
            self.decode_below(object, path, &mut unknown)?;
        }
        Ok(unknown)
    }

    fn decode_below(&self, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) -> Result<(), Error> {
        if self.embedded && value.is_object() {
            decode_one(value, path, unknown)?;
        }
        match value {
            Value::Object(object) => {
                for (name, value) in object.iter_mut() {
                    match (self.properties.get(name.as_str()), &self.additional) {
                        (Some(schema), _) => schema.decode_below(value, &path.child(name), unknown)?,
                        (None, Additional::Of(schema)) => schema.decode_below(value, &path.key(name), unknown)?,
                        (None, _) => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return Ok(()) };
                for (index, element) in list.iter_mut().enumerate() {
                    items.decode_below(element, &path.index(index), unknown)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Adds the mistakes in type and metadata of embedded objects.
    pub(super) fn check_embedded(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        match value {
            Value::Object(object) => {
                if self.embedded {
                    check_one(value, path, errors);
                }
                for (name, value) in object {
                    match (self.properties.get(name.as_str()), &self.additional) {
                        (Some(schema), _) => schema.check_embedded(value, &path.child(name), errors),
                        (None, Additional::Of(schema)) => schema.check_embedded(value, &path.key(name), errors),
                        (None, _) => {}
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (index, element) in list.iter().enumerate() {
                    items.check_embedded(element, &path.index(index), errors);
                }
            }
            _ => {}
        }
    }
}

fn decode_one(value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) -> Result<(), Error> {
    for name in ["apiVersion", "kind"] {
        if let Some(found) = value.get(name).filter(|found| !found.is_string()) {
            return Err(Error::invalid(&path.child(name), found.clone(), "must be a string"));
        }
    }
    let Some(metadata) = value.get_mut("metadata") else { return Ok(()) };
    let at = path.child("metadata");
    let mut decoded = if metadata.is_null() { json!({}) } else { metadata.clone() };
    let found = builtin::decode_typed(&builtin::object_meta(), &mut decoded)
        .map_err(|why| Error::invalid(&at, metadata.clone(), &why))?;
    unknown.extend(found.iter().map(|field| format!("{at}.{field}")));
    *metadata = decoded;
    Ok(())
}

fn check_one(object: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    for (name, check) in [("apiVersion", check_version as fn(&str) -> Option<String>), ("kind", check_kind)] {
        let at = path.child(name);
        match &object[name] {
            Value::Null if object.get(name).is_none() => errors.push(Error::required(&at, "")),
            Value::String(text) if text.is_empty() => {
                errors.push(Error::invalid(&at, text.as_str(), "must not be empty"));
            }
            Value::String(text) => {
                errors.extend(check(text).map(|why| Error::invalid(&at, text.as_str(), &why)));
            }
            other => errors.push(Error::invalid(&at, other.clone(), "must be a string")),
        }
    }
    if object["metadata"].is_object() {
        meta::validate_embedded(&object["metadata"], &path.child("metadata"), check_path_segment, errors);
    }
}

fn check_version(text: &str) -> Option<String> {
    (text.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {text}"))
}

fn check_kind(text: &str) -> Option<String> {
    let found = check_label_1035(&text.to_lowercase());
    (!found.is_empty()).then(|| format!("may have mixed case, but should otherwise match: {}", found.join(",")))
}
