//! What is compared of objects.

use std::collections::{BTreeMap, BTreeSet};

use kratix_api::compression;
use serde_json::{Map, Value, json};

use crate::record;

/// Largest file that is looked into.
const BYTES_MAX: usize = 1 << 20;

/// Kinds that nobody but their user writes, and CRDs, which were not always captured. They are compared in `kratix-core`.
const OTHERS: [&str; 3] = ["Namespace", "Secret", "CustomResourceDefinition"];

/// Members that the API server writes.
const OF_THE_SERVER: [&str; 8] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "observedGeneration",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// Objects by kind, namespace and name without suffix, so several Jobs share one place.
pub(super) type View = BTreeMap<String, Vec<Value>>;

/// Returns what is compared of these objects, in which texts have gone through `mask`.
pub(super) fn view<'a>(objects: impl IntoIterator<Item = &'a Value>, mask: impl Fn(&str) -> String) -> View {
    let mut view = View::new();
    for object in objects.into_iter().filter(|object| is_of_the_scenario(object)) {
        let kind = object["kind"].as_str().unwrap();
        if OTHERS.contains(&kind) {
            continue;
        }
        // What a Job runs is compared in `kratix-core`.
        let mut seen = if kind == "Job" { json!({ "metadata": object["metadata"] }) } else { object.clone() };
        seen = normal(&seen, &mask);
        let members = seen.as_object_mut().unwrap();
        members.retain(|key, _| key != "apiVersion" && key != "kind");
        view.entry(mask(&super::recorded::address(object))).or_default().push(seen);
    }
    view.values_mut().for_each(|same| same.sort_by_key(Value::to_string));
    view
}

/// Tells whether an object is neither the server's own nor one that it makes in every namespace.
fn is_of_the_scenario(object: &Value) -> bool {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap();
    name.contains("g-") && !name.starts_with("kube-")
}

/// Returns a value without what differs from run to run; conditions by type.
fn normal(value: &Value, mask: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(members) => {
            let mut seen = Map::new();
            for (key, value) in members {
                let value = match (key.as_str(), value) {
                    (key, _) if OF_THE_SERVER.contains(&key) => continue,
                    (key, _) if key.starts_with("internal.") => continue,
                    ("conditions", Value::Array(conditions)) => by_type(conditions, mask),
                    ("content", Value::String(content)) if !content.starts_with('<') => {
                        let bytes = compression::decompress(content, BYTES_MAX).unwrap().len();
                        json!(format!("<{bytes} bytes, see files>"))
                    }
                    (_, value) => normal(value, mask),
                };
                // Absent and empty are one.
                if value != json!({}) && value != json!([]) && !value.is_null() {
                    seen.insert(mask(key), value);
                }
            }
            Value::Object(seen)
        }
        Value::Array(items) => items.iter().map(|item| normal(item, mask)).collect(),
        Value::String(text) => json!(mask(text)),
        value => value.clone(),
    }
}

fn by_type(conditions: &[Value], mask: &impl Fn(&str) -> String) -> Value {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let told = |condition: &Value| {
        let [status, reason, message] = ["status", "reason", "message"].map(|field| text(condition, field));
        (text(condition, "type"), json!(mask(&format!("{status}/{reason}/{message}"))))
    };
    Value::Object(conditions.iter().map(told).collect())
}

/// Says where two views differ.
pub(super) fn differences(theirs: &View, ours: &View) -> Vec<String> {
    let mut found = Vec::new();
    for address in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let [there, here] = [theirs, ours].map(|view| view.get(address).map(Vec::as_slice).unwrap_or_default());
        if there.len() != here.len() {
            found.push(format!("{address}: {} of them, not {}", here.len(), there.len()));
            continue;
        }
        for (there, here) in there.iter().zip(here) {
            record::differ(address, there, here, &mut found);
        }
    }
    found
}
