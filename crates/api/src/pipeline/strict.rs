//! Brings an element into the one form that the types read, and finds what a lenient decoder would drop: fields that no
//! type knows, and quantities that are none.
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
    /// A text that is no quantity, and the path of its field.
    Quantity { path: String, text: String },
}

impl Fault {
    /// Returns the fault as it is seen from one level further up.
    fn below(self, step: &str) -> Self {
        match self {
            Self::Quantity { path, text } => {
                let separator = if path.is_empty() || path.starts_with('[') { "" } else { "." };
                Self::Quantity { path: format!("{step}{separator}{path}"), text }
            }
            other => other,
        }
    }
}

/// Returns the element with every field under its own name and without fields that are `null`, which mean "not given"; or
/// the first fault in order of sorted keys.
///
/// Names of fields match in any letter case, as the reference reads them; of several spellings of one field the last in
/// order of sorted keys holds, which is the usual one. Keys of free maps, such as labels, are left as they are.
pub(super) fn canonical(element: &Value) -> Result<Value, Fault> {
    walk(element, &SCHEMA)
}

fn walk(value: &Value, schema: &'static Value) -> Result<Value, Fault> {
    let (schema, is_quantity) = resolve(schema);
    if is_quantity {
        return match value.as_str() {
            Some(text) if !is_quantity_text(text) => {
                Err(Fault::Quantity { path: String::new(), text: text.to_owned() })
            }
            _ => Ok(value.clone()),
        };
    }
    match (value, schema.get("items")) {
        (Value::Object(map), _) => walk_object(map, schema).map(Value::Object),
        (Value::Array(items), Some(item)) => {
            let items = items.iter().enumerate();
            items.map(|(index, value)| walk(value, item).map_err(|fault| fault.below(&format!("[{index}]")))).collect()
        }
        _ => Ok(value.clone()),
    }
}

fn walk_object(map: &Map<String, Value>, schema: &'static Value) -> Result<Map<String, Value>, Fault> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.as_str());
    let mut canonical = Map::new();
    let free = schema.get("additionalProperties").filter(|schema| schema.is_object());
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, value) in entries {
        let (name, value) = match (free, properties) {
            (Some(schema), _) => (key, walk(value, schema).map_err(|fault| fault.below(key))?),
            (None, Some(properties)) => {
                let (name, schema) = field(properties, key).ok_or_else(|| Fault::UnknownField(key.clone()))?;
                (name, walk(value, schema).map_err(|fault| fault.below(name))?)
            }
            (None, None) => (key, value.clone()), // free-form, or a wrong type that the decoder reports
        };
        if !value.is_null() {
            canonical.insert(name.clone(), value);
        }
    }
    Ok(canonical)
}

/// Returns the field that a key means: the one of that name, or else the one whose name differs in letter case alone.
fn field<'a>(properties: &'a Map<String, Value>, key: &str) -> Option<(&'a String, &'a Value)> {
    let in_any_case = || properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    properties.get_key_value(key).or_else(in_any_case)
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
