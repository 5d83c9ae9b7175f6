//! What makes a CRD valid.

use serde_json::{Map, Value};

use crate::field::{Error, Path};
use crate::object::{items, text};
use crate::schema::Schema;
use crate::text::{check_label_1035, check_subdomain};

/// Returns the mistakes of a CRD; `old` is given on update.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<Error> {
    let mut errors = Vec::new();
    let spec = &crd["spec"];
    let path = Path::Root.child("spec");
    validate_name(crd, &mut errors);
    validate_group(crd, &path, &mut errors);
    match text(spec, "scope") {
        "" => errors.push(Error::required(&path.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    validate_versions(spec, &path, &mut errors);
    validate_names(&spec["names"], &path.child("names"), &mut errors);
    validate_conversion(spec, &path, &mut errors);
    if let Some(old) = old {
        validate_change(crd, old, &path, &mut errors);
    }
    errors
}

fn validate_name(crd: &Value, errors: &mut Vec<Error>) {
    let required = format!("{}.{}", text(&crd["spec"]["names"], "plural"), text(&crd["spec"], "group"));
    let name = text(&crd["metadata"], "name");
    if name != required {
        let at = Path::Root.child("metadata");
        errors.push(Error::invalid(&at.child("name"), name, "must be spec.names.plural+\".\"+spec.group"));
    }
}

fn validate_group(crd: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    const APPROVED: &str = "api-approved.kubernetes.io";
    let group = text(&crd["spec"], "group");
    let at = path.child("group");
    if group.is_empty() {
        errors.push(Error::required(&at, ""));
        return;
    }
    let found = check_subdomain(group);
    if found.is_empty() && !group.contains('.') {
        errors.push(Error::invalid(&at, group, "should be a domain with at least one dot"));
    }
    errors.extend(found.iter().map(|why| Error::invalid(&at, group, why)));
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    if is_protected && text(&crd["metadata"]["annotations"], APPROVED).is_empty() {
        let metadata = Path::Root.child("metadata");
        let at = metadata.child("annotations");
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
                   https://github.com/kubernetes/enhancements/pull/1111";
        errors.push(Error::required(&at.key(APPROVED), why));
    }
}

fn validate_versions(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let versions = items(spec, "versions");
    let list = path.child("versions");
    for (index, version) in versions.iter().enumerate() {
        let at = list.index(index);
        let name = text(version, "name");
        errors.extend(check_label_1035(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
        if version["deprecationWarning"].is_string() && version["deprecated"] != true {
            let field = at.child("deprecationWarning");
            let why = "can only be set for deprecated versions";
            errors.push(Error::invalid(&field, version["deprecationWarning"].clone(), why));
        }
        let schema = &version["schema"]["openAPIV3Schema"];
        let schema_path = at.child("schema");
        let schema_path = schema_path.child("openAPIV3Schema");
        if schema.is_null() {
            errors.push(Error::required(&schema_path, "schemas are required"));
        } else {
            validate_root(schema, &schema_path, errors);
        }
        validate_columns(items(version, "additionalPrinterColumns"), &at.child("additionalPrinterColumns"), errors);
    }
    let mut names: Vec<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    if names.len() != count {
        errors.push(Error::invalid(&list, versions.to_vec(), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&list, versions.to_vec(), why));
    }
}

fn validate_columns(columns: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 9] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password", "binary"];
    for (index, column) in columns.iter().enumerate() {
        let at = path.index(index);
        if text(column, "name").is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        match text(column, "type") {
            "" => {
                let why = "must be one of boolean,date,integer,number,string";
                errors.push(Error::required(&at.child("type"), why));
            }
            kind if TYPES.contains(&kind) => {}
            kind => {
                let why = "must be one of boolean,date,integer,number,string";
                errors.push(Error::invalid(&at.child("type"), kind, why));
            }
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            let why = "must be one of binary,byte,date,date-time,double,float,int32,int64,password";
            errors.push(Error::invalid(&at.child("format"), format, why));
        }
        let json_path = text(column, "jsonPath");
        if json_path.is_empty() {
            errors.push(Error::required(&at.child("jsonPath"), ""));
        } else if crate::jsonpath::Path::parse(json_path).is_err() || !json_path.starts_with('.') {
            let why = "is an invalid path: must be a simple json path starting with .";
            errors.push(Error::invalid(&at.child("jsonPath"), json_path, why));
        }
    }
}

fn validate_names(names: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let mut check = |name: &str, is_kind: bool| {
        let value = text(names, name);
        let at = path.child(name);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
            return;
        }
        let lower = if is_kind { value.to_lowercase() } else { value.to_owned() };
        for why in check_label_1035(&lower) {
            let why = if is_kind { format!("may have mixed case, but should otherwise match: {why}") } else { why };
            errors.push(Error::invalid(&at, value, &why));
        }
    };
    check("plural", false);
    check("singular", false);
    check("kind", true);
    check("listKind", true);
    for list in ["shortNames", "categories"] {
        let at = path.child(list);
        for (index, name) in items(names, list).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            errors.extend(check_label_1035(name).iter().map(|why| Error::invalid(&at.index(index), name, why)));
        }
    }
    if names["kind"] == names["listKind"] && !text(names, "kind").is_empty() {
        let why = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), names["listKind"].clone(), why));
    }
}

fn validate_conversion(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let at = path.child("conversion");
    let conversion = &spec["conversion"];
    match text(conversion, "strategy") {
        "None" => {}
        "" => errors.push(Error::required(&at.child("strategy"), "")),
        "Webhook" => {
            if conversion["webhook"]["clientConfig"].is_null() {
                let webhook = at.child("webhook");
                let why = "required when strategy is set to \"Webhook\"";
                errors.push(Error::required(&webhook.child("clientConfig"), why));
            }
        }
        other => errors.push(Error::not_supported(&at.child("strategy"), other, &["None", "Webhook"])),
    }
}

fn validate_change(crd: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    if super::is_established(old) {
        for (pointer, field) in [("/group", "group"), ("/scope", "scope")] {
            if crd["spec"].pointer(pointer) != old["spec"].pointer(pointer) {
                errors.push(Error::invalid(&path.child(field), crd["spec"][field].clone(), "field is immutable"));
            }
        }
        let names = path.child("names");
        for field in ["kind", "plural"] {
            let value = &crd["spec"]["names"][field];
            if *value != old["spec"]["names"][field] {
                errors.push(Error::invalid(&names.child(field), value.clone(), "field is immutable"));
            }
        }
    }
    let status = Path::Root.child("status");
    let stored = status.child("storedVersions");
    for (index, name) in items(&old["status"], "storedVersions").iter().filter_map(Value::as_str).enumerate() {
        if !items(&crd["spec"], "versions").iter().any(|version| version["name"] == name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(Error::invalid(&stored.index(index), name, &why));
        }
    }
}

fn validate_root(schema: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    match text(schema, "type") {
        "object" => {}
        "" => errors.push(Error::required(&path.child("type"), "must not be empty at the root")),
        other => errors.push(Error::invalid(&path.child("type"), other, "must be object at the root")),
    }
    if schema["nullable"] == true {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    if let Some(raw) = schema.as_object() {
        validate_schema(raw, path, errors);
    }
}

/// Checks one node of a structural schema and all below it.
fn validate_schema(schema: &Map<String, Value>, path: &Path<'_>, errors: &mut Vec<Error>) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let get = |name: &str| schema.get(name).unwrap_or(&Value::Null);
    let kind = get("type").as_str().unwrap_or_default();
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
    }
    for name in ["$ref", "definitions", "dependencies", "patternProperties", "id", "additionalItems"] {
        if !get(name).is_null() {
            errors.push(Error::forbidden(&path.child(name), &format!("{name} is not supported")));
        }
    }
    if *get("uniqueItems") == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), why));
    }
    if *get("additionalProperties") == false {
        let why = "additionalProperties cannot be set to false";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    let has_properties = get("properties").as_object().is_some_and(|properties| !properties.is_empty());
    if has_properties && !matches!(get("additionalProperties"), Value::Null | Value::Bool(false)) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    if *get("x-kubernetes-preserve-unknown-fields") == false {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(Error::invalid(&at, false, "must be true or undefined"));
    }
    if let Some(pattern) = get("pattern").as_str()
        && regex::Regex::new(pattern).is_err()
    {
        let why = format!("must be a valid regular expression, but isn't: {pattern}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, &why));
    }
    validate_lists(schema, kind, path, errors);
    validate_rules(get("x-kubernetes-validations"), path, errors);
    if !get("default").is_null() {
        validate_default(schema, path, errors);
    }
    let properties = path.child("properties");
    for (name, child) in get("properties").as_object().into_iter().flatten() {
        let at = properties.key(name);
        validate_child(child, &at, "must not be empty for specified object fields", errors);
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        validate_child(items, &path.child("items"), "must not be empty for specified array items", errors);
    }
    if let Some(additional) = schema.get("additionalProperties").filter(|additional| additional.is_object()) {
        let at = path.child("additionalProperties");
        validate_child(additional, &at, "must not be empty for specified object fields", errors);
    }
}

fn validate_child(child: &Value, path: &Path<'_>, untyped: &str, errors: &mut Vec<Error>) {
    let Some(raw) = child.as_object() else { return };
    let flag = |name: &str| child[name] == true;
    let may_be_untyped = flag("x-kubernetes-int-or-string") || flag("x-kubernetes-preserve-unknown-fields");
    if text(child, "type").is_empty() && !may_be_untyped {
        errors.push(Error::required(&path.child("type"), untyped));
    }
    validate_schema(raw, path, errors);
}

fn validate_lists(schema: &Map<String, Value>, kind: &str, path: &Path<'_>, errors: &mut Vec<Error>) {
    let get = |name: &str| schema.get(name).unwrap_or(&Value::Null);
    if kind == "array" && !get("items").is_object() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    let at = path.child("x-kubernetes-list-type");
    let keys_at = path.child("x-kubernetes-list-map-keys");
    let keys = get("x-kubernetes-list-map-keys").as_array().map(Vec::as_slice).unwrap_or_default();
    match get("x-kubernetes-list-type").as_str() {
        None => {
            if !keys.is_empty() {
                errors.push(Error::required(&at, "must be map if x-kubernetes-list-map-keys is non-empty"));
            }
        }
        Some("map") => {
            if keys.is_empty() {
                let why = "must not be empty if x-kubernetes-list-type is map";
                errors.push(Error::required(&keys_at, why));
            }
            let items = get("items");
            let required = items["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            for (index, key) in keys.iter().enumerate() {
                let name = key.as_str().unwrap_or_default();
                let property = &items["properties"][name];
                if property.is_null() {
                    let why = "entries must all be names of item properties";
                    errors.push(Error::invalid(&keys_at.index(index), name, why));
                } else if !required.contains(key) && property["default"].is_null() {
                    let items_at = path.child("items");
                    let properties = items_at.child("properties");
                    let field = properties.key(name);
                    let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                               required property";
                    errors.push(Error::required(&field.child("default"), why));
                }
            }
        }
        Some("set" | "atomic") => {}
        Some(other) => errors.push(Error::not_supported(&at, other, &["atomic", "map", "set"])),
    }
    if let Some(map_type) = get("x-kubernetes-map-type").as_str()
        && !["granular", "atomic"].contains(&map_type)
    {
        errors.push(Error::not_supported(&path.child("x-kubernetes-map-type"), map_type, &["atomic", "granular"]));
    }
}

fn validate_rules(rules: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let list = path.child("x-kubernetes-validations");
    for (index, rule) in rules.as_array().into_iter().flatten().enumerate() {
        let at = list.index(index);
        let expression = text(rule, "rule");
        if expression.trim().is_empty() {
            errors.push(Error::required(&at.child("rule"), "rule is not specified"));
        } else if let Err(why) = kube_cel::cel::Program::compile(expression) {
            let why = format!("compilation failed: {why}");
            errors.push(Error::invalid(&at.child("rule"), expression, &why));
        }
        let message = text(rule, "message");
        if rule["message"].is_string() && message.trim().is_empty() {
            errors.push(Error::invalid(&at.child("message"), message, "message must be non-empty if specified"));
        }
    }
}

/// A default must itself be valid, and hold nothing that would be pruned.
fn validate_default(schema: &Map<String, Value>, path: &Path<'_>, errors: &mut Vec<Error>) {
    let at = path.child("default");
    let value = schema.get("default").unwrap_or(&Value::Null);
    let parsed = Schema::parse(&Value::Object(schema.clone()));
    let mut pruned = value.clone();
    parsed.prune(&mut pruned);
    if pruned != *value {
        errors.push(Error::invalid(&at, value.clone(), "must not have unknown fields"));
    }
    for error in parsed.validate(value, None) {
        let field = if error.field == "<nil>" { at.to_string() } else { format!("{at}.{}", error.field) };
        errors.push(Error { field, ..error });
    }
}
