//! What to do when a CRD of that name is already there.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::{ObjectMeta, keys};

/// Whose an existing CRD is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// It carries this Promise's name.
    Ours,
    /// It does not, but the Promise says that it may be taken over.
    Adopted,
    /// It belongs to another Promise, or to nobody that Kratix knows.
    Foreign {
        /// The other Promise.
        promise: Option<String>,
    },
}

/// Tells whether a Promise may install its API over an existing CRD.
pub fn ownership(existing: &CustomResourceDefinition, promise: &ObjectMeta) -> Ownership {
    let owner = existing.metadata.labels.as_ref().and_then(|labels| labels.get(keys::PROMISE_NAME));
    let adopts = promise.annotations.as_ref().is_some_and(|annotations| keys::is_set(annotations, keys::ADOPT_API_CRD));
    if owner.is_some() && owner == promise.name.as_ref() {
        Ownership::Ours
    } else if adopts {
        Ownership::Adopted
    } else {
        Ownership::Foreign { promise: owner.cloned() }
    }
}

/// Returns the CRD to write over an existing one, or nothing when it already says the same.
///
/// Versions, conversion, short names and categories are those of `prepared`; labels and annotations are added; group,
/// kind, plural, singular and scope stay, because the API server refuses to change them.
pub fn merge(
    existing: &CustomResourceDefinition,
    prepared: &CustomResourceDefinition,
) -> Option<CustomResourceDefinition> {
    let mut merged = existing.clone();
    let spec = &prepared.spec;
    merged.spec.versions.clone_from(&spec.versions);
    merged.spec.conversion.clone_from(&spec.conversion);
    merged.spec.preserve_unknown_fields = spec.preserve_unknown_fields;
    merged.spec.names.short_names.clone_from(&spec.names.short_names);
    merged.spec.names.categories.clone_from(&spec.names.categories);
    if let Some(labels) = &prepared.metadata.labels {
        merged.metadata.labels.get_or_insert_default().extend(labels.clone());
    }
    if let Some(annotations) = &prepared.metadata.annotations {
        merged.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    (normal(&merged) != normal(existing)).then_some(merged)
}

/// Returns the parts that count, as the API server stores them.
fn normal(crd: &CustomResourceDefinition) -> Value {
    let mut spec = serde_json::to_value(&crd.spec).expect("a CRD is JSON");
    let conversion = &mut spec["conversion"];
    if conversion.is_null() {
        *conversion = serde_json::json!({"strategy": "None"});
    }
    let service = conversion.pointer_mut("/webhook/clientConfig/service").and_then(Value::as_object_mut);
    if let Some(service) = service {
        service.entry("port").or_insert(443.into());
    }
    drop_empty(&mut spec);
    let empty_as_none =
        |map: &Option<std::collections::BTreeMap<String, String>>| map.clone().filter(|m| !m.is_empty());
    serde_json::json!({
        "spec": spec,
        "labels": empty_as_none(&crd.metadata.labels),
        "annotations": empty_as_none(&crd.metadata.annotations),
    })
}

/// Removes what the API server does not store: empty lists and maps, and flags that are off.
fn drop_empty(value: &mut Value) {
    const DATA: [&str; 3] = ["default", "example", "enum"]; // values of users, to be compared exactly
    const KEPT_EMPTY: [&str; 5] = ["items", "additionalProperties", "status", "schema", "not"]; // present means something
    const KEPT_FALSE: [&str; 3] = ["served", "storage", "additionalProperties"];
    match value {
        Value::Object(map) => map.retain(|key, value| {
            let key = key.as_str();
            if DATA.contains(&key) {
                return true;
            }
            drop_empty(value);
            match value {
                Value::Null => false,
                Value::Bool(false) => KEPT_FALSE.contains(&key),
                Value::Array(items) => !items.is_empty(),
                Value::Object(map) => !map.is_empty() || KEPT_EMPTY.contains(&key),
                _ => true,
            }
        }),
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}
