//! Finds what a lenient decoder would drop: fields that no type knows, and quantities that are none.
//!
//! The generated Kubernetes types ignore unknown fields, but they describe themselves: the element is walked along the
//! schema of [`Pipeline`](super::Pipeline), which lists every field at every depth.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::Pipeline;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Pipeline).to_value());

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// What is wrong with an element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Last part of the path of a field that does not exist.
    UnknownField(String),
    /// A text that is no quantity.
    Quantity(String),
}

/// Walks an element and reports the first fault in order of sorted keys.
pub(super) fn check(element: &Value) -> Result<(), Fault> {
    walk(element, &SCHEMA)
}

fn walk(value: &Value, schema: &'static Value) -> Result<(), Fault> {
    let (schema, is_quantity) = resolve(schema);
    if is_quantity {
        return match value.as_str() {
            Some(text) if !is_quantity_text(text) => Err(Fault::Quantity(text.to_owned())),
            _ => Ok(()),
        };
    }
    match value {
        Value::Object(map) => walk_object(map, schema),
        Value::Array(items) => match schema.get("items") {
            Some(item_schema) => items.iter().try_for_each(|item| walk(item, item_schema)),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn walk_object(map: &Map<String, Value>, schema: &'static Value) -> Result<(), Fault> {
    if let Some(value_schema) = schema.get("additionalProperties").filter(|schema| schema.is_object()) {
        return map.values().try_for_each(|value| walk(value, value_schema));
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return Ok(()); // free-form, or a wrong type that the decoder reports
    };
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_str());
    entries.into_iter().try_for_each(|(key, value)| match properties.get(key) {
        Some(schema) => walk(value, schema),
        None => Err(Fault::UnknownField(key.clone())),
    })
}

/// Follows references and the wrappers around optional fields; tells whether the end is a quantity.
fn resolve(mut schema: &'static Value) -> (&'static Value, bool) {
    loop {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            if reference.ends_with(QUANTITY) {
                return (schema, true);
            }
            let name = reference.trim_start_matches("#/$defs/");
            schema = SCHEMA.get("$defs").and_then(|defs| defs.get(name)).unwrap_or(&Value::Null);
            continue;
        }
        let wrapped = ["anyOf", "allOf", "oneOf"].iter().find_map(|key| schema.get(key)?.as_array());
        match wrapped.and_then(|options| options.iter().find(|option| option.get("$ref").is_some())) {
            Some(option) => schema = option,
            None => return (schema, false),
        }
    }
}

/// Tells whether a text is a Kubernetes quantity.
fn is_quantity_text(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number_bytes = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_bytes);
    let is_number = number.contains(|c: char| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = suffix.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
    let is_exponent = exponent.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (is_exponent || SUFFIXES.contains(&suffix))
}

/// Returns the value without fields that are `null`, which mean "not given".
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let given = map.iter().filter(|(_, value)| !value.is_null());
            given.map(|(key, value)| (key.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}
