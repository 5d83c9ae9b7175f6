//! Strategic merge: maps merge by field, lists by the strategy of the field's type, directives change both.
//!
//! # Source
//! `sig-api-machinery/strategic-merge-patch` of the Kubernetes community documents.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::depth;
use crate::field::quote;
use crate::schema::Schema;
use crate::status::Status;

/// What a map or list element of the patch asks for.
const DIRECTIVE: &str = "$patch";
/// Fields of a union that survive.
const RETAIN_KEYS: &str = "$retainKeys";
/// Prefix of fields that name the wanted order of a list.
const ORDER: &str = "$setElementOrder/";
/// Prefix of fields that name scalars to take out of a list.
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
/// Maps and lists in each other; deeper ones are not merged any more but refused.
const DEPTH_MAX: usize = depth::OBJECT_MAX;

type Object = Map<String, Value>;

/// Merges `patch` into `original`.
pub(super) fn merge_map(schema: Option<&Schema>, original: Object, patch: &Object) -> Result<Object, Status> {
    map(schema, original, patch, 0)
}

fn map(schema: Option<&Schema>, mut original: Object, patch: &Object, depth: usize) -> Result<Object, Status> {
    if depth > DEPTH_MAX {
        return Err(Status::bad_request("the patch is nested too deeply"));
    }
    match directive(patch)? {
        Some(Directive::Replace) => return Ok(without(patch, &[DIRECTIVE])),
        Some(Directive::Delete) => return Ok(Object::new()),
        Some(Directive::Merge) | None => {}
    }
    retain_keys(&mut original, patch)?;
    for (name, values) in patch {
        if let Some(field) = name.strip_prefix(DELETE_FROM)
            && let Some(list) = original.get_mut(field).and_then(Value::as_array_mut)
        {
            let unwanted: HashSet<&Value> = values.as_array().ok_or_else(|| not_a_list(name))?.iter().collect();
            list.retain(|value| !unwanted.contains(value));
        }
    }
    for (name, value) in patch {
        if name.starts_with('$') {
            continue;
        }
        let child = schema.and_then(|schema| schema.field(name)).map(|schema| &**schema);
        match value {
            Value::Null => {
                original.remove(name);
            }
            Value::Object(patch) => {
                let old = original.remove(name).and_then(into_object).unwrap_or_default();
                original.insert(name.clone(), Value::Object(map(child, old, patch, depth + 1)?));
            }
            Value::Array(items) if child.is_some_and(|child| child.strategic.merge) => {
                let old = original.remove(name).and_then(into_list).unwrap_or_default();
                let merged = list(child, old, items, depth + 1)?;
                original.insert(name.clone(), Value::Array(merged));
            }
            other => {
                original.insert(name.clone(), other.clone());
            }
        }
    }
    for (name, order) in patch {
        if let Some(field) = name.strip_prefix(ORDER)
            && let Some(merged) = original.get_mut(field).and_then(Value::as_array_mut)
        {
            let order = order.as_array().ok_or_else(|| not_a_list(name))?;
            let child = schema.and_then(|schema| schema.field(field));
            let key = child.and_then(|child| child.strategic.key.as_deref());
            arrange(merged, order, key);
        }
    }
    Ok(original)
}

enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Object) -> Result<Option<Directive>, Status> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if text == "merge" => Ok(Some(Directive::Merge)),
        Some(Value::String(text)) if text == "replace" => Ok(Some(Directive::Replace)),
        Some(Value::String(text)) if text == "delete" => Ok(Some(Directive::Delete)),
        Some(other) => Err(Status::bad_request(format!("unknown patch type found: {other}"))),
    }
}

/// Drops what a union's patch does not name: the fields of its other members.
fn retain_keys(original: &mut Object, patch: &Object) -> Result<(), Status> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = keys.as_array().ok_or_else(|| not_a_list(RETAIN_KEYS))?;
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let is_kept = |name: &str| keys.contains(name);
    for name in patch.keys().filter(|name| !name.starts_with('$')) {
        if !is_kept(name) && !patch[name].is_null() {
            let text = format!("{RETAIN_KEYS} does not contain {}, a field of the patch", quote(name));
            return Err(Status::bad_request(text));
        }
    }
    original.retain(|name, _| is_kept(name));
    Ok(())
}

fn list(schema: Option<&Schema>, old: Vec<Value>, patch: &[Value], depth: usize) -> Result<Vec<Value>, Status> {
    let key = schema.and_then(|schema| schema.strategic.key.as_deref());
    let Some(key) = key else {
        // Scalars: a set that keeps its order.
        let mut known: HashSet<Value> = old.iter().cloned().collect();
        let mut merged = old;
        merged.extend(patch.iter().filter(|value| known.insert((*value).clone())).cloned());
        return Ok(merged);
    };
    let items = schema.and_then(|schema| schema.items.as_deref());
    let replaces = |value: &Value| value[DIRECTIVE] == "replace";
    if patch.iter().any(replaces) {
        return Ok(patch.iter().filter(|value| !replaces(value)).cloned().collect());
    }
    // Places by identity, and deleted elements leave theirs empty: nothing is searched for or moved up.
    let mut places: HashMap<Value, Vec<usize>> = HashMap::new();
    for (at, element) in old.iter().enumerate() {
        if let Some(identity) = element.get(key) {
            places.entry(identity.clone()).or_default().push(at);
        }
    }
    let mut merged: Vec<Option<Value>> = old.into_iter().map(Some).collect();
    for value in patch {
        let Some(element) = value.as_object() else {
            return Err(Status::bad_request(format!("{value} is no object and cannot be merged by its {key}")));
        };
        let Some(identity) = element.get(key) else {
            return Err(Status::bad_request(format!("map: {value} does not contain declared merge key: {key}")));
        };
        if matches!(directive(element)?, Some(Directive::Delete)) {
            for at in places.remove(identity).unwrap_or_default() {
                merged[at] = None;
            }
            continue;
        }
        match places.get(identity).and_then(|found| found.first()) {
            Some(&at) => {
                let old = merged[at].take().and_then(into_object).unwrap_or_default();
                merged[at] = Some(Value::Object(map(items, old, element, depth + 1)?));
            }
            None => {
                places.insert(identity.clone(), vec![merged.len()]);
                merged.push(Some(Value::Object(map(items, Object::new(), element, depth + 1)?)));
            }
        }
    }
    Ok(merged.into_iter().flatten().collect())
}

/// Puts the elements that `order` names into its order. Those it does not name stay before the first named element that
/// they were before.
fn arrange(list: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let identity = |value: &Value| match key {
        Some(key) => value.get(key).cloned().unwrap_or(Value::Null),
        None => value.clone(),
    };
    let identities: Vec<Value> = list.iter().map(identity).collect();
    let mut places: HashMap<&Value, usize> = HashMap::new();
    for (at, identity) in identities.iter().enumerate() {
        places.entry(identity).or_insert(at);
    }
    let wanted: Vec<Value> = order.iter().map(identity).collect();
    let mut named: HashSet<&Value> = HashSet::new();
    let order: Vec<&Value> = wanted.iter().filter(|identity| named.insert(*identity)).collect();
    let mut others = (0..list.len()).filter(|at| !named.contains(&identities[*at])).peekable();
    let mut arranged = Vec::with_capacity(list.len());
    for at in order.into_iter().filter_map(|identity| places.get(identity).copied()) {
        while let Some(other) = others.next_if(|other| places[&identities[*other]] < at) {
            arranged.push(list[other].clone());
        }
        arranged.push(list[at].clone());
    }
    arranged.extend(others.map(|other| list[other].clone()));
    *list = arranged;
}

fn without(patch: &Object, names: &[&str]) -> Object {
    patch.iter().filter(|(name, _)| !names.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn into_object(value: Value) -> Option<Object> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn into_list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn not_a_list(name: &str) -> Status {
    Status::bad_request(format!("{name} of the patch must be a list"))
}
