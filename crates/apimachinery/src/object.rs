//! Small steps on JSON objects that defaulting and strategies are made of.

use serde_json::{Map, Value};

/// Returns `value` as an object, turning anything else into an empty one.
pub(crate) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was just made an object")
}

/// Sets `name` unless it is there.
pub(crate) fn fill(value: &mut Value, name: &str, default: impl Into<Value>) {
    let Some(fields) = value.as_object_mut() else { return };
    let slot = fields.entry(name).or_insert(Value::Null);
    if slot.is_null() {
        *slot = default.into();
    }
}

/// Sets `name` unless it is there and not empty text.
pub(crate) fn fill_text(value: &mut Value, name: &str, default: &str) {
    if value[name].as_str().is_none_or(str::is_empty)
        && let Some(fields) = value.as_object_mut()
    {
        fields.insert(name.to_owned(), default.into());
    }
}

/// Returns field `name`, making it an empty object if it is absent.
pub(crate) fn child<'a>(value: &'a mut Value, name: &str) -> &'a mut Value {
    let slot = object(value).entry(name).or_insert(Value::Null);
    object(slot);
    slot
}

/// Returns field `name` if it is an object.
pub(crate) fn present<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    value.get_mut(name).filter(|value| value.is_object())
}

/// Returns the elements of list `name`.
pub(crate) fn items_mut<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Returns the elements of list `name`.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns text `name`, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Takes over `name` from `old`, or drops it if `old` has none.
pub fn copy(new: &mut Value, old: &Value, name: &str) {
    let Some(fields) = new.as_object_mut() else { return };
    match (old.get(name), fields.get_mut(name)) {
        // Most are the same already, and to compare is cheaper than to copy.
        (Some(value), Some(slot)) if value == slot => {}
        (Some(value), Some(slot)) => slot.clone_from(value),
        (Some(value), None) => drop(fields.insert(name.to_owned(), value.clone())),
        (None, _) => drop(fields.remove(name)),
    }
}

/// Takes over all fields from `old` except those that `may_change`.
pub(crate) fn keep(new: &mut Value, old: &Value, may_change: &[&str]) {
    let fields = [&*new, old].into_iter().filter_map(Value::as_object).flat_map(Map::keys);
    let kept: Vec<String> = fields.filter(|name| !may_change.contains(&name.as_str())).cloned().collect();
    kept.iter().for_each(|name| copy(new, old, name));
}

/// Returns whether a value is absent or empty in the sense of Go's `omitempty`.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
