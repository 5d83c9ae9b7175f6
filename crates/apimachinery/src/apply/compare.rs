//! Which fields an object has, and which of them differ from another's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fields::{Set, Step};
use crate::schema::{List, Schema, element_key};

/// How a node is owned.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'a> {
    /// In one piece.
    Leaf,
    /// By field.
    Map(Option<&'a Schema>),
    /// By element.
    List(&'a Schema),
}

/// Returns how a value with this schema is owned. What no schema speaks of is owned by field as far as it is a map.
pub(super) fn shape<'a>(schema: Option<&'a Schema>, value: &Value) -> Shape<'a> {
    match (value, schema) {
        (Value::Object(_), Some(schema)) if schema.atomic => Shape::Leaf,
        (Value::Object(_), schema) => Shape::Map(schema),
        (Value::Array(_), Some(schema)) if schema.list != List::Atomic => Shape::List(schema),
        _ => Shape::Leaf,
    }
}

/// Returns the schema of a field.
pub(super) fn field<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema.and_then(|schema| schema.field(name)).map(|schema| &**schema)
}

/// Whether the schema names the field, as opposed to a map that may have any key.
pub(super) fn is_named(schema: Option<&Schema>, name: &str) -> bool {
    schema.is_some_and(|schema| schema.properties.contains_key(name))
}

/// Returns the steps to the elements of a list.
pub(super) fn steps(schema: &Schema, list: &[Value]) -> Vec<Step> {
    let items = schema.items.as_deref();
    let step = |(index, value): (usize, &Value)| match &schema.list {
        List::Map(keys) => element_key(keys, items, value).map_or(Step::Index(index), |key| Step::key(&key)),
        List::Set => Step::Value(value.to_string()),
        List::Atomic => Step::Index(index),
    };
    list.iter().enumerate().map(step).collect()
}

/// Returns the fields of an object as the configuration of an apply owns them: every value that is owned in one piece,
/// and every element of a list that is owned by element.
pub(super) fn members(schema: Option<&Schema>, value: &Value) -> Set {
    match (shape(schema, value), value) {
        (Shape::Map(schema), Value::Object(map)) => {
            let mut out = Set::default();
            for (name, value) in map {
                let mut below = members(field(schema, name), value);
                let is_hollow = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                if is_hollow || !is_named(schema, name) {
                    below.add_self();
                }
                out.add(Step::Field(name.clone()), below);
            }
            out
        }
        (Shape::List(schema), Value::Array(list)) => {
            let mut out = Set::default();
            for (step, value) in steps(schema, list).into_iter().zip(list) {
                let mut below = members(schema.items.as_deref(), value);
                below.add_self();
                out.add(step, below);
            }
            out
        }
        _ => Set::leaf(),
    }
}

/// Returns the text about the first element that appears twice in a list that is owned by element.
pub(super) fn duplicate(schema: Option<&Schema>, value: &Value) -> Option<String> {
    match (shape(schema, value), value) {
        (Shape::Map(schema), Value::Object(map)) => map
            .iter()
            .find_map(|(name, value)| duplicate(field(schema, name), value).map(|text| format!(".{name}{text}"))),
        (Shape::List(schema), Value::Array(list)) => {
            let mut seen = BTreeSet::new();
            for step in steps(schema, list) {
                let mut set = Set::default();
                set.add(step.clone(), Set::leaf());
                if !seen.insert(step) {
                    return Some(format!(": duplicate entries for key {}", set.paths().concat()));
                }
            }
            list.iter().find_map(|value| duplicate(schema.items.as_deref(), value))
        }
        _ => None,
    }
}

/// What differs between two objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Differences {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

impl Differences {
    fn add(&mut self, step: &Step, below: Differences) {
        self.added.add(step.clone(), below.added);
        self.modified.add(step.clone(), below.modified);
        self.removed.add(step.clone(), below.removed);
    }
}

/// Compares two objects; `None` has no fields at all.
pub(super) fn differences(schema: Option<&Schema>, old: Option<&Value>, new: &Value) -> Differences {
    compare(schema, old, Some(new))
}

fn compare(schema: Option<&Schema>, old: Option<&Value>, new: Option<&Value>) -> Differences {
    match (old, new) {
        (None, None) => Differences::default(),
        (Some(old), Some(new)) if old == new => Differences::default(),
        (None, Some(new)) => Differences { added: everything(schema, new), ..Differences::default() },
        (Some(old), None) => Differences { removed: everything(schema, old), ..Differences::default() },
        (Some(old), Some(new)) => match (shape(schema, old), shape(schema, new)) {
            (Shape::Map(schema), Shape::Map(_)) => compare_maps(schema, old, new),
            (Shape::List(schema), Shape::List(_)) => compare_lists(schema, old, new),
            _ => Differences { modified: Set::leaf(), ..Differences::default() },
        },
    }
}

/// Returns all fields of a value that exists on one side only, the maps and lists on the way included.
fn everything(schema: Option<&Schema>, value: &Value) -> Set {
    let mut out = match (shape(schema, value), value) {
        (Shape::Map(schema), Value::Object(map)) => {
            let mut out = Set::default();
            for (name, value) in map {
                out.add(Step::Field(name.clone()), everything(field(schema, name), value));
            }
            out
        }
        (Shape::List(schema), Value::Array(list)) => {
            let mut out = Set::default();
            for (step, value) in steps(schema, list).into_iter().zip(list) {
                out.add(step, everything(schema.items.as_deref(), value));
            }
            out
        }
        _ => Set::default(),
    };
    out.add_self();
    out
}

fn compare_maps(schema: Option<&Schema>, old: &Value, new: &Value) -> Differences {
    let mut out = Differences::default();
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return out };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let below = compare(field(schema, name), old.get(name), new.get(name));
        if below != Differences::default() {
            out.add(&Step::Field(name.clone()), below);
        }
    }
    out
}

fn compare_lists(schema: &Schema, old: &Value, new: &Value) -> Differences {
    let mut out = Differences::default();
    fn by_step<'a>(schema: &Schema, list: &'a Value) -> BTreeMap<Step, &'a Value> {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        steps(schema, list).into_iter().zip(list).collect()
    }
    let (old, new) = (by_step(schema, old), by_step(schema, new));
    let all: BTreeSet<&Step> = old.keys().chain(new.keys()).collect();
    for step in all {
        out.add(step, compare(schema.items.as_deref(), old.get(step).copied(), new.get(step).copied()));
    }
    out
}
