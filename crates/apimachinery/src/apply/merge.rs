//! The object that an apply leads to.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::compare::{Shape, field, is_named, shape, steps};
use super::fields::{Set, Step};
use crate::schema::Schema;

/// Lays `config` over `live`: maps by field, lists by element, everything else in one piece.
pub(super) fn merge(schema: Option<&Schema>, live: &Value, config: &Value) -> Value {
    match (shape(schema, live), shape(schema, config), live, config) {
        (Shape::Map(schema), Shape::Map(_), Value::Object(live), Value::Object(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let merged = match live.get(name) {
                    Some(old) => merge(field(schema, name), old, value),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Shape::List(schema), Shape::List(_), Value::Array(live), Value::Array(config)) => {
            Value::Array(merge_lists(schema, live, config))
        }
        _ => config.clone(),
    }
}

/// Merges by element. The order is that of the configuration; elements it does not name keep their place behind the
/// element that they followed.
fn merge_lists(schema: &Schema, live: &[Value], config: &[Value]) -> Vec<Value> {
    let items = schema.items.as_deref();
    let (live_steps, config_steps) = (steps(schema, live), steps(schema, config));
    let wanted: BTreeSet<&Step> = config_steps.iter().collect();
    let mut places: BTreeMap<&Step, usize> = BTreeMap::new();
    for (at, step) in live_steps.iter().enumerate() {
        places.entry(step).or_insert(at);
    }
    let mut out = Vec::with_capacity(live.len() + config.len());
    let mut taken = 0;
    let mut take = |until: usize, out: &mut Vec<Value>| {
        while taken < until {
            if !wanted.contains(&live_steps[taken]) {
                out.push(live[taken].clone());
            }
            taken += 1;
        }
    };
    for (step, value) in config_steps.iter().zip(config) {
        match places.get(step) {
            Some(&at) => {
                take(at, &mut out);
                out.push(merge(items, &live[at], value));
            }
            None => out.push(value.clone()),
        }
    }
    take(live.len(), &mut out);
    out
}

/// Removes what the applier owned last time (`last`) and nobody owns any longer.
pub(super) fn drop_abandoned(schema: Option<&Schema>, merged: Value, last: &Set, owned: &Set) -> Value {
    if last.is_empty() {
        return merged;
    }
    match (shape(schema, &merged), merged) {
        (Shape::Map(schema), Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let (step, child) = (Step::Field(name.clone()), field(schema, &name));
                let is_given_up = |step| last.get(step).is_some() && owned.get(step).is_none_or(Set::is_empty);
                // With a field of the schema goes what nobody owns in it, defaults above all.
                if is_named(schema, &name) && is_given_up(&step) {
                    continue;
                }
                out.extend(survivor(child, value, &step, last, owned).map(|value| (name, value)));
            }
            Value::Object(out)
        }
        (Shape::List(schema), Value::Array(list)) => {
            let known = steps(schema, &list);
            let items = schema.items.as_deref();
            let left = known.iter().zip(list).filter_map(|(step, value)| survivor(items, value, step, last, owned));
            Value::Array(left.collect())
        }
        (_, other) => other,
    }
}

fn survivor(schema: Option<&Schema>, value: Value, step: &Step, last: &Set, owned: &Set) -> Option<Value> {
    let Some(last) = last.get(step) else { return Some(value) };
    let nobody = Set::default();
    let owned = owned.get(step).unwrap_or(&nobody);
    let is_branch = |value: &Value| match (shape(schema, value), value) {
        (Shape::Map(_), Value::Object(map)) => !map.is_empty(),
        (Shape::List(_), Value::Array(list)) => !list.is_empty(),
        _ => false,
    };
    let is_element = !matches!(step, Step::Field(_));
    let had_content = is_branch(&value);
    // A map that was empty when it was applied and holds somebody's fields now stays.
    if last.is_member() && !owned.is_member() && (is_element || owned.is_empty() && !had_content) {
        return None;
    }
    let left = drop_abandoned(schema, value, last, owned);
    // What is only empty because its last field was given up goes with it, unless somebody wants it empty.
    (!had_content || is_branch(&left) || owned.is_member()).then_some(left)
}
