use serde_json::{Value, json};

use super::*;
use crate::Promise;
use crate::keys;

fn promise(api: Value) -> PromiseSpec {
    PromiseSpec { api: Some(api), ..Default::default() }
}

fn crd(versions: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "dbs.example.org", "labels": {"mine": "yes"}},
        "spec": {
            "group": "Example.org",
            "names": {"kind": "Db", "plural": "dbs", "singular": "db"},
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

fn version(name: &str, storage: bool, properties: Value) -> Value {
    let schema = json!({"type": "object", "properties": properties});
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
}

fn schema(crd: &CustomResourceDefinition, version: usize) -> Value {
    let schema = crd.spec.versions[version].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    serde_json::to_value(schema).unwrap()
}

#[test]
fn nothing_null_and_empty_are_no_api() {
    for api in [None, Some(Value::Null), Some(json!({}))] {
        let spec = PromiseSpec { api, ..Default::default() };
        assert_eq!(read(&spec), Err(Error::Absent));
        assert_eq!(check_kind(&spec), Ok(()));
    }
    assert_eq!(Error::Absent.to_string(), "promise does not contain an API");
}

#[test]
fn an_api_without_versions_is_an_error_and_not_a_crash() {
    for api in [crd(json!([])), json!({"spec": {}}), json!({"metadata": {}}), crd(json!([{"name": "v1"}]))] {
        let _ = read(&promise(api)).map(|api| api.prepared("p"));
    }
    let error = read(&promise(crd(json!([])))).unwrap_err();
    assert_eq!(error.to_string(), "api is not a valid CRD: spec.versions must not be empty");
    let odd = crd(
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]),
    );
    assert_eq!(
        schema(&read(&promise(odd)).unwrap().prepared("p"), 0)["properties"]["metadata"]["properties"]["name"]["maxLength"],
        63
    );
}

#[test]
fn a_version_without_a_schema_or_without_properties_is_no_crash() {
    let bare = |name: &str, schema: Value| json!({ "name": name, "served": true, "storage": false, "schema": schema });
    let api = crd(json!([
        version("v1", true, json!({})),
        bare("v2", Value::Null),
        bare("v3", json!({})),
        bare("v4", json!({ "openAPIV3Schema": {} })),
    ]));
    let prepared = read(&promise(api)).unwrap().prepared("p");
    for version in &prepared.spec.versions {
        assert!(version.subresources.as_ref().is_some_and(|of| of.status.is_some()), "{}", version.name);
        assert!(version.additional_printer_columns.as_ref().is_some_and(|columns| columns.len() == 2));
    }
    assert!(prepared.spec.versions[1].schema.is_none());
    assert!(prepared.spec.versions[2].schema.as_ref().unwrap().open_api_v3_schema.is_none());
    for with_schema in [0, 3] {
        assert_eq!(schema(&prepared, with_schema)["properties"]["status"]["type"], "object");
    }
}

#[test]
fn the_storage_version_is_used_or_else_the_first() {
    let api = read(&promise(crd(json!([version("v1", false, json!({})), version("V2", true, json!({}))])))).unwrap();
    assert_eq!((api.group(), api.version(), api.kind(), api.plural()), ("Example.org", "V2", "Db", "dbs"));
    assert_eq!(api.status_api_version(), "example.org/v2");
    assert_eq!(api.controller_key("p"), "p_dbs.example.org");
    let none = read(&promise(crd(json!([version("v1", false, json!({})), version("v2", false, json!({}))])))).unwrap();
    assert_eq!(none.version(), "v1");
}

/// While objects are stored in a version that is not served any more, all are read in one that is.
#[test]
fn a_storage_version_that_is_not_served_is_not_used() {
    let mut old = version("v1", true, json!({}));
    old["served"] = false.into();
    let api = read(&promise(crd(json!([old, version("v2", false, json!({}))])))).unwrap();
    assert_eq!((api.version(), api.status_api_version().as_str()), ("v2", "example.org/v2"));
}

#[test]
fn names_of_requests_are_limited_in_every_version_and_stricter_authors_kept() {
    let named = |name: Value| json!({"metadata": {"type": "object", "properties": {"name": name}}});
    let api = read(&promise(crd(json!([
        version("v1", true, json!({})),
        version("v2", false, json!({"metadata": {"type": "object"}})),
        version("v3", false, named(json!({"type": "string", "maxLength": 20, "description": "short"}))),
        version("v4", false, named(json!({"type": "string", "maxLength": 200}))),
        version("v5", false, named(json!({"description": "no type"}))),
    ]))))
    .unwrap();
    let name = |version: usize| schema(api.crd(), version)["properties"]["metadata"]["properties"]["name"].clone();
    let plain = json!({"type": "string", "maxLength": 63});
    assert_eq!(name(0), plain);
    assert_eq!(name(1), plain);
    assert_eq!(name(2), json!({"type": "string", "maxLength": 20, "description": "short"}));
    assert_eq!(name(3), plain);
    assert_eq!(name(4), plain);
}

#[test]
fn columns_scale_and_status_of_the_author_survive() {
    let mut first = version(
        "v1",
        true,
        json!({"status": {"type": "object", "properties": {
            "url": {"type": "string"}, "message": {"type": "integer"},
        }}}),
    );
    first["subresources"] = json!({"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}});
    first["additionalPrinterColumns"] = json!([{"name": "Mine", "type": "string", "jsonPath": ".spec.x"}]);
    let api = read(&promise(crd(json!([first, version("v2", false, json!({}))])))).unwrap();
    let prepared = api.prepared("redis");
    let written = serde_json::to_value(&prepared).unwrap();
    assert_eq!(written["metadata"]["labels"], json!({"mine": "yes", "kratix.io/promise-name": "redis"}));
    let versions = &written["spec"]["versions"];
    assert_eq!(versions[0]["subresources"]["status"], json!({}));
    assert_eq!(versions[0]["subresources"]["scale"]["specReplicasPath"], ".spec.n");
    assert_eq!(versions[0]["additionalPrinterColumns"][0]["name"], "Mine");
    assert_eq!(versions[1]["additionalPrinterColumns"][1]["name"], "status");
    let status = &schema(&prepared, 0)["properties"]["status"];
    assert_eq!(status["properties"]["url"], json!({"type": "string"}));
    assert_eq!(status["properties"]["message"], json!({"type": "string"}));
    assert_eq!(status["x-kubernetes-preserve-unknown-fields"], true);
}

#[test]
fn only_a_crd_calls_itself_one() {
    let mut api = crd(json!([version("v1", true, json!({}))]));
    assert_eq!(check_kind(&promise(api.clone())), Ok(()));
    api["kind"] = json!("Deployment");
    let error = check_kind(&promise(api.clone())).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"api is not a valid CRD: spec.api.kind must be "CustomResourceDefinition", found "Deployment""#
    );
    assert!(read(&promise(api)).is_ok(), "what is already installed keeps working");
}

fn stored(crd: &CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(crd).unwrap();
    value["spec"]["conversion"] = json!({"strategy": "None"});
    value["spec"]["names"]["listKind"] = json!("DbList");
    value["metadata"]["uid"] = json!("u");
    value["status"] =
        json!({"storedVersions": ["v1"], "conditions": [], "acceptedNames": {"kind": "Db", "plural": "dbs"}});
    serde_json::from_value(value).unwrap()
}

#[test]
fn an_installed_api_is_written_again_only_when_it_differs() {
    let api = crd(json!([version("v1", true, json!({"a": {"type": "string", "default": {}}}))]));
    let prepared = read(&promise(api.clone())).unwrap().prepared("p");
    let existing = stored(&prepared);
    assert_eq!(merge(&existing, &prepared), None);

    let mut changed = api;
    changed["spec"]["names"]["shortNames"] = json!(["d"]);
    changed["metadata"]["annotations"] = json!({"note": "x"});
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["required"] = json!([]);
    let merged = merge(&existing, &read(&promise(changed)).unwrap().prepared("p")).unwrap();
    assert_eq!(merged.spec.names.short_names, Some(vec!["d".to_owned()]));
    assert_eq!(merged.spec.names.list_kind.as_deref(), Some("DbList"));
    assert_eq!(merged.metadata.annotations.as_ref().unwrap()["note"], "x");
    assert_eq!(merged.metadata.uid.as_deref(), Some("u"));
}

#[test]
fn a_crd_of_somebody_else_is_not_taken_over_unless_told_so() {
    let existing = |owner: Option<&str>| {
        let mut crd = crd(json!([version("v1", true, json!({}))]));
        crd["metadata"]["labels"] = owner.map_or(json!({}), |owner| json!({"kratix.io/promise-name": owner}));
        serde_json::from_value::<CustomResourceDefinition>(crd).unwrap()
    };
    let mut mine = Promise::new("p", PromiseSpec::default());
    assert_eq!(ownership(&existing(Some("p")), &mine.metadata), Ownership::Ours);
    assert_eq!(ownership(&existing(Some("q")), &mine.metadata), Ownership::Foreign { promise: Some("q".into()) });
    assert_eq!(ownership(&existing(None), &mine.metadata), Ownership::Foreign { promise: None });
    mine.metadata.annotations = Some([(keys::ADOPT_API_CRD.to_owned(), "true".to_owned())].into());
    assert_eq!(ownership(&existing(None), &mine.metadata), Ownership::Adopted);
}

#[test]
fn recorded_apis_come_out_as_the_reference_installed_them() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/golden");
    let mut compared = 0;
    for scenario in ["02-resource-pipeline-two-files-status", "11-promise-update-revisions-bindings"] {
        let Ok(stages) = std::fs::read_dir(format!("{root}/{scenario}/captured")) else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no reference data at {root}");
            eprintln!("skipped: no reference data at {root}");
            return;
        };
        for stage in stages {
            let Ok(text) = std::fs::read_to_string(stage.unwrap().path().join("objects.yaml")) else {
                continue;
            };
            let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            let of_kind =
                |kind: &str| objects.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
            for installed in of_kind(CRD_KIND) {
                let owner = installed["metadata"]["labels"][keys::PROMISE_NAME].as_str().unwrap_or_default().to_owned();
                for promise in
                    of_kind("Promise").into_iter().filter(|promise| promise["metadata"]["name"] == owner.as_str())
                {
                    let promise: Promise = serde_json::from_value(promise).unwrap();
                    let prepared = read(&promise.spec).unwrap().prepared(&owner);
                    let installed: CustomResourceDefinition = serde_json::from_value(installed.clone()).unwrap();
                    assert_eq!(merge(&installed, &prepared), None, "{scenario} {owner}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 0);
}
