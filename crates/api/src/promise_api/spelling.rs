//! Field names of a CRD in any letter case: published Promises were written for a decoder that does not mind
//! (`JSONPath` for `jsonPath`), while API servers do.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<CustomResourceDefinition>().into()
});

/// Documents nest schemas; what lies deeper is left as it is, and refused by decoding if it is wrong.
const DEPTH_MAX: usize = 100;

/// Gives every field of a CRD the spelling of the API. Names that users give (of properties, labels) are left alone.
pub(super) fn correct(crd: &mut Value) {
    walk(&SCHEMA, crd, 0);
}

fn walk(schema: &Value, value: &mut Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = resolve(schema);
    match value {
        Value::Object(fields) => {
            if let Some(known) = schema["properties"].as_object() {
                respell(known, fields);
                for (name, field) in fields.iter_mut() {
                    if let Some(schema) = known.get(name) {
                        walk(schema, field, depth + 1);
                    }
                }
            }
            if schema["additionalProperties"].is_object() {
                fields.values_mut().for_each(|field| walk(&schema["additionalProperties"], field, depth + 1));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(&schema["items"], item, depth + 1)),
        _ => {}
    }
}

/// Renames what is a known field but for its letter case. A field that is there in its right spelling wins.
fn respell(known: &Map<String, Value>, fields: &mut Map<String, Value>) {
    let odd: Vec<String> = fields.keys().filter(|name| !known.contains_key(*name)).cloned().collect();
    for name in odd {
        let Some(right) = known.keys().find(|known| known.eq_ignore_ascii_case(&name)) else { continue };
        if let Some(value) = fields.remove(&name)
            && !fields.contains_key(right)
        {
            fields.insert(right.clone(), value);
        }
    }
}

/// Follows a reference, also one that optional fields wrap.
fn resolve(schema: &Value) -> &Value {
    let one = |list: &str| schema[list].as_array().and_then(|list| list.iter().find(|one| one["$ref"].is_string()));
    let reference = schema["$ref"].as_str().or_else(|| one("anyOf").or_else(|| one("allOf"))?["$ref"].as_str());
    let name = reference.and_then(|reference| reference.strip_prefix("#/$defs/"));
    // A definition's name holds dots, not slashes: no escapes to undo.
    name.map_or(schema, |name| &SCHEMA["$defs"][name])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_get_their_spelling_and_names_of_users_keep_theirs() {
        let mut crd = json!({"spec": {"Names": {"KIND": "A"}, "versions": [{
            "Name": "v1",
            "additionalPrinterColumns": [{"JSONPath": ".spec.size", "name": "Size"}],
            "schema": {"openAPIV3Schema": {"Type": "object", "properties": {"JSONPath": {"Type": "string"}, "Name": {}}}},
        }]}, "metadata": {"Labels": {"Name": "x"}}});
        correct(&mut crd);
        assert_eq!(
            crd,
            json!({"spec": {"names": {"kind": "A"}, "versions": [{
                "name": "v1",
                "additionalPrinterColumns": [{"jsonPath": ".spec.size", "name": "Size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"JSONPath": {"type": "string"}, "Name": {}}}},
            }]}, "metadata": {"labels": {"Name": "x"}}})
        );
    }

    #[test]
    fn the_right_spelling_wins() {
        let mut crd = json!({"spec": {"Scope": "Cluster", "scope": "Namespaced"}});
        correct(&mut crd);
        assert_eq!(crd, json!({"spec": {"scope": "Namespaced"}}));
    }
}
