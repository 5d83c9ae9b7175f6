use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::documents;

/// Differences from the reference that are meant, as JSON pointer below the CRD and the reason.
const ACCEPTED: [(&str, &str, &str); 9] = [
    (
        "destinations",
        "spec/filepath/properties/mode/default",
        "the mode is known even if `filepath` is given without it (§9.3.7)",
    ),
    ("destinations", "spec/filepath/properties/mode/x-kubernetes-validations", "moved to the object (§9.3.7)"),
    ("destinations", "spec/filepath/x-kubernetes-validations", "holds if either side lacks the mode (§9.3.7)"),
    ("promisereleases", "spec/sourceRef/properties/type/default", "a source with a URL alone means http (§9.3.3)"),
    ("gitstatestores", "spec/insecureSkipTLSVerify", "skipping verification takes a visible setting (decision 8)"),
    ("bucketstatestores", "spec/insecureSkipTLSVerify", "skipping verification takes a visible setting (decision 8)"),
    ("*", "/metadata/labels", "the reference file lacks the labels of the install manifest (§1.1)"),
    ("*", "/spec/conversion", "written out; the API server's default (§1.1)"),
    ("promises", "/metadata/annotations", "no conversion webhook, no certificate to inject (§1.1)"),
];

fn reference(plural: &str) -> Option<Value> {
    let path = format!("{}/../../../shared/reference/crds/{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_saphyr::from_str(&text).unwrap())
}

fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| flatten(format!("{path}/{key}"), value, into));
        }
        Value::Array(items) if path.ends_with("/required") => {
            let mut items = items.clone();
            items.sort_by_key(ToString::to_string); // their order means nothing
            into.insert(path, Value::Array(items));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(index, value)| flatten(format!("{path}/{index}"), value, into));
        }
        leaf => {
            into.insert(path, leaf.clone());
        }
    }
}

#[test]
fn every_crd_has_the_structure_of_the_reference_but_for_listed_differences() {
    for ours in documents() {
        let plural = ours["spec"]["names"]["plural"].as_str().unwrap();
        let Some(theirs) = reference(plural) else {
            eprintln!("skipped: no reference CRD for {plural}");
            return;
        };
        let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
        flatten(String::new(), &ours, &mut left);
        flatten(String::new(), &theirs, &mut right);
        let accepted = |path: &str| {
            ACCEPTED.iter().any(|(kind, place, _)| {
                let place = match place.strip_prefix("spec/") {
                    Some(field) => {
                        format!("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{field}")
                    }
                    None => (*place).to_owned(),
                };
                (*kind == "*" || *kind == plural) && path.starts_with(&place)
            })
        };
        let differences: Vec<String> = left
            .keys()
            .chain(right.keys())
            .filter(|path| left.get(*path) != right.get(*path) && !accepted(path))
            .map(|path| format!("{path}: ours {:?}, theirs {:?}", left.get(path), right.get(path)))
            .collect();
        assert!(differences.is_empty(), "{plural}:\n{}", differences.join("\n"));
    }
}

#[test]
fn all_eleven_kinds_are_there_in_a_stable_order() {
    let names: Vec<String> = super::crds().into_iter().map(|crd| crd.metadata.name.unwrap()).collect();
    assert_eq!(names.len(), 11);
    assert!(names.is_sorted());
}

#[test]
fn typed_and_written_crds_are_the_same() {
    let typed: Vec<Value> = super::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
    for (typed, written) in typed.iter().zip(documents()) {
        let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
        flatten(String::new(), typed, &mut left);
        flatten(String::new(), &written, &mut right);
        right.iter_mut().filter(|(path, _)| path.ends_with("/minimum")).for_each(|(_, value)| *value = json!(0.0));
        assert_eq!(left, right);
    }
}

/// Makes a value in which every field that the schema knows is set.
fn fill(schema: &Value) -> Value {
    if let Some(words) = schema["enum"].as_array() {
        return words.last().unwrap().clone();
    }
    match schema["type"].as_str().unwrap() {
        "string" if schema["format"] == "date-time" => json!("2026-01-02T03:04:05Z"),
        "string" => json!("text"),
        "boolean" => json!(true),
        "integer" => json!(7),
        "array" => json!([fill(&schema["items"])]),
        "object" => match (&schema["properties"], &schema["additionalProperties"]) {
            (Value::Object(properties), _) => {
                properties.iter().map(|(key, schema)| (key.clone(), fill(schema))).collect::<Map<_, _>>().into()
            }
            (_, Value::Object(_)) => json!({"key": "text"}),
            _ => json!({"anything": [1, null]}),
        },
        other => panic!("unexpected type {other}"),
    }
}

fn round_trip<K: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
}

#[test]
fn a_type_keeps_every_field_of_its_schema() {
    for crd in documents() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let mut object = fill(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        object["apiVersion"] = json!("platform.kratix.io/v1alpha1");
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": "x"});
        let back = match kind {
            "BucketStateStore" => round_trip::<crate::BucketStateStore>(&object),
            "Destination" => round_trip::<crate::Destination>(&object),
            "DryRun" => round_trip::<crate::DryRun>(&object),
            "GitStateStore" => round_trip::<crate::GitStateStore>(&object),
            "HealthRecord" => round_trip::<crate::HealthRecord>(&object),
            "Promise" => round_trip::<crate::Promise>(&object),
            "PromiseRelease" => round_trip::<crate::PromiseRelease>(&object),
            "PromiseRevision" => round_trip::<crate::PromiseRevision>(&object),
            "ResourceBinding" => round_trip::<crate::ResourceBinding>(&object),
            "Work" => round_trip::<crate::Work>(&object),
            "WorkPlacement" => round_trip::<crate::WorkPlacement>(&object),
            other => panic!("unexpected kind {other}"),
        };
        assert_eq!(back, object, "{kind}");
    }
}

#[test]
fn a_destination_without_store_and_a_promise_with_a_broken_element_are_readable() {
    let destination: crate::Destination =
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"path": "p"}})).unwrap();
    assert_eq!(destination.spec.state_store_ref, None);
    assert!(destination.spec.init_workloads.enabled);
    let promise = json!({"metadata": {"name": "p"}, "spec": {
        "dependencies": [{"no": "kind"}, 7],
        "workflows": {"config": {"reconciliationInterval": "soon"}, "resource": {"configure": [{}]}},
    }});
    let promise: crate::Promise = serde_json::from_value(promise).unwrap();
    assert_eq!(promise.spec.dependencies.len(), 2);
}
