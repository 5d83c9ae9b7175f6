//! OpenAPI v3 documents, one per group and version.
//!
//! They hold what clients look for: every definition with its `x-kubernetes-group-version-kind`, and the paths with the
//! query parameters that writes take. Built from the resources each time; the caller caches by the hash in the index.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::builtin;
use crate::resource::{Origin, Resource};

const REFERENCE: &str = "#/components/schemas/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// Returns the index at `/openapi/v3`: every group/version with a hash that changes when its document does.
pub fn index(resources: &[Arc<Resource>]) -> Value {
    let mut paths = Map::new();
    let versions: BTreeSet<(&str, &str)> =
        resources.iter().map(|one| (one.group.as_str(), one.version.as_str())).collect();
    for (group, version) in versions {
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        let hash = hash(group, version, resources);
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
    }
    json!({"paths": paths})
}

/// Returns the hash of one document, without making it.
pub fn hash(group: &str, version: &str, resources: &[Arc<Resource>]) -> String {
    let mut hash = Sha256::new();
    for resource in resources.iter().filter(|one| one.group == group && one.version == version) {
        hash.update(resource.fingerprint());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Returns the document of one group and version (`/openapi/v3/apis/batch/v1`, `/openapi/v3/api/v1`);
/// `None` if no resource has it. Cache it by [`hash`].
pub fn document(group: &str, version: &str, resources: &[Arc<Resource>]) -> Option<Value> {
    let chosen: Vec<&Arc<Resource>> =
        resources.iter().filter(|one| one.group == group && one.version == version).collect();
    if chosen.is_empty() {
        return None;
    }
    let raw = builtin::raw_definitions();
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for resource in chosen {
        add_schemas(resource, &raw, &mut schemas);
        add_paths(resource, &mut paths);
    }
    for name in [DELETE_OPTIONS, STATUS] {
        add_definition(name, &raw, &mut schemas);
    }
    let description = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.";
    schemas.insert(PATCH.to_owned(), json!({"description": description, "type": "object"}));
    if let Some(options) = schemas.get_mut(DELETE_OPTIONS) {
        options["x-kubernetes-group-version-kind"] =
            json!([{"group": group, "kind": "DeleteOptions", "version": version}]);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.1"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication",
                "name": "authorization", "in": "header"}},
        },
    }))
}

/// Returns the name of a resource's definition: that of its Go type, or the group's labels reversed.
fn definition_name(resource: &Resource) -> String {
    match &resource.origin {
        Origin::Builtin(kind) => kind.definition.to_owned(),
        Origin::Custom(_) => {
            let mut labels: Vec<&str> = resource.group.split('.').collect();
            labels.reverse();
            format!("{}.{}.{}", labels.join("."), resource.version, resource.kind)
        }
    }
}

fn list_name(resource: &Resource) -> String {
    let name = definition_name(resource);
    let package = name.strip_suffix(&resource.kind).unwrap_or(&name);
    format!("{package}{}", resource.list_kind)
}

fn add_schemas(resource: &Resource, raw: &Map<String, Value>, schemas: &mut Map<String, Value>) {
    let name = definition_name(resource);
    let kind = |kind: &str| json!([{"group": resource.group, "version": resource.version, "kind": kind}]);
    match &resource.origin {
        Origin::Builtin(_) => add_definition(&name, raw, schemas),
        Origin::Custom(version) => {
            let mut schema: Value = serde_json::from_str(version.raw()).unwrap_or_else(|_| json!({"type": "object"}));
            if !schema.is_object() {
                schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            }
            add_definition(OBJECT_META, raw, schemas);
            let properties = &mut schema["properties"];
            if !properties.is_object() {
                *properties = json!({});
            }
            properties["metadata"] = json!({"description": "Standard object's metadata. More info: \
                https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
                "allOf": [{"$ref": format!("{REFERENCE}{OBJECT_META}")}]});
            for field in ["apiVersion", "kind"] {
                if let Some(meta) = raw.get(OBJECT_META).and(raw.get(DELETE_OPTIONS)) {
                    properties[field] = meta["properties"][field].clone();
                }
            }
            schemas.insert(name.clone(), schema);
        }
    }
    if let Some(schema) = schemas.get_mut(&name) {
        schema["x-kubernetes-group-version-kind"] = kind(&resource.kind);
    }
    if !resource.is_stored() {
        return;
    }
    add_definition(LIST_META, raw, schemas);
    let text = json!({"type": "string"});
    let list = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"allOf": [{"$ref": format!("{REFERENCE}{LIST_META}")}]},
            "items": {"type": "array", "items": {"allOf": [{"$ref": format!("{REFERENCE}{name}")}]}},
        },
        "x-kubernetes-group-version-kind": kind(&resource.list_kind),
    });
    schemas.insert(list_name(resource), list);
}

/// Adds a built-in definition and all it refers to.
fn add_definition(name: &str, raw: &Map<String, Value>, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(name) {
        return;
    }
    let Some(definition) = raw.get(name) else { return };
    let mut definition = definition.clone();
    let mut wanted = Vec::new();
    translate(&mut definition, &mut wanted);
    schemas.insert(name.to_owned(), definition);
    for name in wanted {
        add_definition(&name, raw, schemas);
    }
}

/// Turns references into those of OpenAPI, where a reference stands alone.
fn translate(schema: &mut Value, wanted: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(name) = object.get("$ref").and_then(Value::as_str).and_then(|text| text.rsplit('/').next()) {
                let reference = format!("{REFERENCE}{name}");
                wanted.push(name.to_owned());
                object.remove("$ref");
                if object.is_empty() {
                    object.insert("$ref".to_owned(), reference.into());
                } else {
                    object.insert("allOf".to_owned(), json!([{"$ref": reference}]));
                }
            }
            // Raw JSON is marked for our own parser only.
            if !object.contains_key("properties") && object.contains_key("description") {
                object.remove("x-kubernetes-preserve-unknown-fields");
            }
            if object.remove("x-kubernetes-int-or-string").is_some() {
                object.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": "number"}]));
                object.insert("format".to_owned(), "int-or-string".into());
            }
            for (key, value) in object.iter_mut() {
                match (key.as_str(), value) {
                    ("allOf" | "$ref", _) => {}
                    // A map of schemas: its keys are names of fields, even where they look like keywords.
                    ("properties", Value::Object(fields)) => {
                        fields.values_mut().for_each(|field| translate(field, wanted));
                    }
                    (_, value) => translate(value, wanted),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| translate(one, wanted)),
        _ => {}
    }
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn write_parameters(patch: bool) -> Vec<Value> {
    let mut out = vec![
        query("dryRun", "string", "Indicates that modifications should not be persisted. Valid value: All."),
        query("fieldManager", "string", "Name of the actor that is making these changes."),
        query("fieldValidation", "string", "How unknown and duplicate fields are treated: Ignore, Warn or Strict."),
    ];
    if patch {
        out.push(query("force", "boolean", "Takes over conflicting fields in apply requests."));
    }
    out
}

fn content(name: &str) -> Value {
    let schema = json!({"schema": {"$ref": format!("{REFERENCE}{name}")}});
    json!({"application/json": schema, "application/yaml": schema})
}

fn operation(resource: &Resource, action: &str, id: &str, answer: &str) -> Value {
    let tag = if resource.group.is_empty() {
        format!("core_{}", resource.version)
    } else {
        let group = resource.group.strip_suffix(".k8s.io").unwrap_or(&resource.group).replace('.', "");
        format!("{group}_{}", resource.version)
    };
    let group = resource.group.split(['.', '-']).map(capital).collect::<String>();
    json!({
        "tags": [tag],
        "operationId": format!("{id}{group}{}{}{}", capital(&resource.version),
            if resource.namespaced { "Namespaced" } else { "" }, resource.kind),
        "responses": {"200": {"description": "OK", "content": content(answer)}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.group, "version": resource.version, "kind": resource.kind},
    })
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn add_paths(resource: &Resource, paths: &mut Map<String, Value>) {
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let parameter = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let (collection, mut parameters) = if resource.namespaced {
        (format!("{root}/namespaces/{{namespace}}/{}", resource.plural), vec![parameter("namespace")])
    } else {
        (format!("{root}/{}", resource.plural), Vec::new())
    };
    let name = definition_name(resource);
    let mut item = json!({"parameters": parameters});
    if resource.has_verb("list") {
        item["get"] = operation(resource, "list", "list", &list_name(resource));
    }
    if resource.has_verb("create") {
        item["post"] = operation(resource, "post", "create", &name);
        item["post"]["parameters"] = json!(write_parameters(false));
        item["post"]["requestBody"] = json!({"content": {"*/*": {"schema": {"$ref": format!("{REFERENCE}{name}")}}}});
    }
    if resource.has_verb("deletecollection") {
        item["delete"] = operation(resource, "deletecollection", "deletecollection", STATUS);
    }
    paths.insert(collection.clone(), item);
    if !resource.is_stored() {
        return;
    }
    parameters.push(parameter("name"));
    let object = format!("{collection}/{{name}}");
    paths.insert(object.clone(), object_paths(resource, &name, &parameters, resource.has_verb("delete"), ""));
    for sub in resource.subresources.iter().filter(|sub| sub.verbs.contains(&"patch")) {
        let item = object_paths(resource, &name, &parameters, false, &capital(&sub.name));
        paths.insert(format!("{object}/{}", sub.name), item);
    }
}

fn object_paths(resource: &Resource, name: &str, parameters: &[Value], delete: bool, suffix: &str) -> Value {
    let mut item = json!({"parameters": parameters});
    let named = |mut operation: Value| {
        let id = format!("{}{suffix}", operation["operationId"].as_str().unwrap_or_default());
        operation["operationId"] = id.into();
        operation
    };
    item["get"] = named(operation(resource, "get", "read", name));
    item["put"] = named(operation(resource, "put", "replace", name));
    item["put"]["parameters"] = json!(write_parameters(false));
    item["put"]["requestBody"] = json!({"content": {"*/*": {"schema": {"$ref": format!("{REFERENCE}{name}")}}}});
    item["patch"] = named(operation(resource, "patch", "patch", name));
    item["patch"]["parameters"] = json!(write_parameters(true));
    let mut types = vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    if !resource.is_custom() {
        types.push("application/strategic-merge-patch+json");
    }
    let schema = json!({"schema": {"$ref": format!("{REFERENCE}{PATCH}")}});
    let content: Map<String, Value> = types.into_iter().map(|kind| (kind.to_owned(), schema.clone())).collect();
    item["patch"]["requestBody"] = json!({"content": content, "required": true});
    if delete {
        item["delete"] = named(operation(resource, "delete", "delete", STATUS));
        let body = json!({"schema": {"$ref": format!("{REFERENCE}{DELETE_OPTIONS}")}});
        item["delete"]["requestBody"] = json!({"content": {"*/*": body}});
        item["delete"]["parameters"] = json!([query("dryRun", "string", "Indicates that nothing is to be persisted.")]);
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_closed_and_say_what_kubectl_looks_for() {
        for (group, version) in [("batch", "v1"), ("", "v1"), ("apiextensions.k8s.io", "v1")] {
            let document = document(group, version, builtin::resources()).expect("it is served");
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            let text = document.to_string();
            for part in text.split(REFERENCE).skip(1) {
                let name = part.split('"').next().unwrap_or_default();
                assert!(schemas.contains_key(name), "{name}");
            }
        }
        let crds = document("apiextensions.k8s.io", "v1", builtin::resources()).expect("it is served");
        let schemas = &crds["components"]["schemas"];
        let schema = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let fields = schemas[schema]["properties"].as_object().expect("fields");
        assert!(fields.contains_key("x-kubernetes-int-or-string"), "a field, not a keyword");
        assert!(fields.values().all(Value::is_object));
        let document = document("batch", "v1", builtin::resources()).expect("it is served");
        let patch = &document["paths"]["/apis/batch/v1/namespaces/{namespace}/jobs/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Job");
        let parameters = patch["parameters"].to_string();
        assert!(parameters.contains("fieldValidation") && parameters.contains("dryRun"));
        let job = &document["components"]["schemas"]["io.k8s.api.batch.v1.Job"];
        assert_eq!(job["x-kubernetes-group-version-kind"][0]["kind"], "Job");
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["properties"]["containers"]["x-kubernetes-patch-merge-key"], "name");
    }

    #[test]
    fn the_index_lists_every_version_with_a_hash() {
        let index = index(builtin::resources());
        let url = index["paths"]["apis/batch/v1"]["serverRelativeURL"].as_str().expect("batch is listed");
        assert!(url.starts_with("/openapi/v3/apis/batch/v1?hash="), "{url}");
    }
}
