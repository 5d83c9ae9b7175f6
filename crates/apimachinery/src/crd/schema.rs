//! What the schema of a CRD may say: words, lists and maps, rules, defaults.

use kube_cel::compile_schema;
use serde_json::{Value, json};

use super::structural;
use crate::field::{Error, Mistake, Path};
use crate::object::{items, text};
use crate::schema::Schema;
use crate::text as words;

/// Adds the mistakes in a schema; `path` is its own.
pub(super) fn validate(schema: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    if schema["nullable"] == true {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let mut may_have_rules = false;
    if !structural::is_foreign(schema) {
        let found = structural::validate(schema, path);
        let found = if found.is_empty() { default_errors(schema, path) } else { found };
        may_have_rules = found.is_empty();
        errors.extend(found);
    }
    let inside = Inside { may_have_rules, is_root: true, ..Inside::default() };
    let mut found = check(schema, path, &inside);
    if !may_have_rules && errors.is_empty() && found.words.is_empty() {
        // Of all foreign words this is the one that nothing else complains about.
        found.words.push(Error::invalid(path, "", "OpenAPIV3Schema 'schema' is not supported"));
    }
    errors.extend(found.words);
    errors.extend(found.rules);
}

/// What holds for a part of a schema because of where it stands.
#[derive(Clone, Default)]
struct Inside {
    is_root: bool,
    /// Type or metadata of an object.
    metadata: bool,
    /// Why defaults may not be set here.
    no_defaults: Option<String>,
    /// Path of the first list or map above whose old and new elements do not belong together.
    uncorrelated: Option<String>,
    may_have_rules: bool,
}

impl Inside {
    fn below(&self) -> Self {
        Self { is_root: false, ..self.clone() }
    }
}

/// Mistakes: those of rules do not count before the others are gone.
#[derive(Default)]
struct Found {
    words: Vec<Error>,
    rules: Vec<Error>,
}

impl Found {
    fn merge(&mut self, other: Self) {
        self.words.extend(other.words);
        self.rules.extend(other.rules);
    }
}

fn check(schema: &Value, path: &Path<'_>, inside: &Inside) -> Found {
    let mut out = Found::default();
    check_words(schema, path, inside, &mut out.words);
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    let fields = schema["properties"].as_object();
    if schema["additionalProperties"].is_object() {
        let mut below = inside.below();
        if inside.metadata {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        out.merge(check(&schema["additionalProperties"], &path.child("additionalProperties"), &below));
    }
    let properties = path.child("properties");
    for (name, child) in fields.into_iter().flatten() {
        let mut below = inside.below();
        if (inside.is_root || embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            below.metadata = true;
            if inside.is_root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        out.merge(check(child, &properties.key(name), &below));
    }
    let branch = Inside { may_have_rules: false, ..inside.below() };
    for (name, index, child) in branches(schema) {
        let list = path.child(name);
        let at = index.map_or(list, |index| list.index(index));
        out.merge(check(child, &at, &branch));
    }
    if schema["items"].is_object() {
        let mut below = inside.below();
        if text(schema, "x-kubernetes-list-type") != "map" {
            below.uncorrelated.get_or_insert_with(|| path.to_string());
        }
        out.merge(check(&schema["items"], &path.child("items"), &below));
    }
    check_lists(schema, path, &mut out.words);
    check_rules(schema, path, inside, &mut out);
    out
}

fn branches(schema: &Value) -> impl Iterator<Item = (&'static str, Option<usize>, &Value)> {
    let lists = ["allOf", "oneOf", "anyOf"]
        .into_iter()
        .flat_map(|name| items(schema, name).iter().enumerate().map(move |(index, child)| (name, Some(index), child)));
    let not = Some(&schema["not"]).filter(|not| not.is_object());
    not.into_iter().map(|not| ("not", None, not)).chain(lists)
}

/// Words of OpenAPI that Kubernetes leaves out.
fn check_words(schema: &Value, path: &Path<'_>, inside: &Inside, errors: &mut Vec<Error>) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &TYPES));
    }
    if let Some(why) = inside.no_defaults.as_ref().filter(|_| !schema["default"].is_null()) {
        errors.push(Error::forbidden(&path.child("default"), &format!("must not be set {why}")));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let is_set = match name {
            "$ref" | "additionalItems" => !schema[name].is_null(),
            _ => !crate::object::is_empty(&schema[name]),
        };
        if is_set {
            errors.push(Error::forbidden(&path.child(name), &format!("{name} is not supported")));
        }
    }
    if kind == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), why));
    }
    if schema["items"].is_array() {
        errors.push(Error::forbidden(&path.child("items"), "items must be a schema object and not an array"));
    }
    if inside.metadata && schema["x-kubernetes-embedded-resource"] == true {
        let at = path.child("x-kubernetes-embedded-resource");
        errors.push(Error::forbidden(&at, "must not be used inside of resource meta"));
    }
    if schema["uniqueItems"] == true {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), why));
    }
    let has_fields = schema["properties"].as_object().is_some_and(|fields| !fields.is_empty());
    if has_fields && !matches!(&schema["additionalProperties"], Value::Null | Value::Bool(true)) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(Error::invalid(&at, false, "must be true or undefined"));
    }
}

fn check_lists(schema: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let kind = text(schema, "type");
    for (name, wanted, supported) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"]),
    ] {
        let Some(found) = schema[name].as_str() else { continue };
        if kind != wanted {
            let why = format!("must be {wanted} if {name} is specified");
            let at = path.child("type");
            errors.push(if kind.is_empty() { Error::required(&at, &why) } else { Error::invalid(&at, kind, &why) });
        } else if found == "set" {
            check_set(&schema["items"], &path.child("items"), errors);
        }
        if !supported.contains(&found) {
            errors.push(Error::not_supported(&path.child(name), found, supported));
        }
    }
    let keys = items(schema, "x-kubernetes-list-map-keys");
    let list_type = schema["x-kubernetes-list-type"].as_str();
    if !keys.is_empty() && list_type != Some("map") {
        let (at, why) =
            (path.child("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        errors.push(match list_type {
            None => Error::required(&at, why),
            Some(found) => Error::invalid(&at, found, why),
        });
    }
    if list_type == Some("map") {
        check_map(schema, keys, path, errors);
    }
    if let Some(list_type @ ("set" | "map")) = list_type
        && schema["items"].is_object()
    {
        check_keys(&schema["items"], list_type, keys, &path.child("items"), errors);
    }
}

/// Elements of sets are owned as a whole.
fn check_set(element: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list_type = element["x-kubernetes-list-type"].clone();
    match text(element, "type") {
        "array" if !matches!(list_type.as_str(), None | Some("atomic")) => {
            errors.push(Error::invalid(&path.child("x-kubernetes-list-type"), list_type, why));
        }
        "object" if text(element, "x-kubernetes-map-type") != "atomic" => {
            errors.push(Error::invalid(&path.child("x-kubernetes-map-type"), list_type, why));
        }
        _ => {}
    }
}

fn check_map(schema: &Value, keys: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    let keys_at = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(Error::required(&keys_at, "must not be empty if x-kubernetes-list-type is map"));
    }
    let at = path.child("items");
    let element = &schema["items"];
    if element.is_null() {
        errors.push(Error::required(&at, "must have a schema if x-kubernetes-list-type is map"));
        return;
    }
    if !element.is_object() {
        return;
    }
    let kind = text(element, "type");
    if kind != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(&at.child("type"), kind, why));
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match text(&element["properties"][name], "type") {
            _ if element["properties"][name].is_null() => {
                errors.push(Error::invalid(&keys_at, keys.to_vec(), "entries must all be names of item properties"));
            }
            "array" | "object" => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&at.child("properties").key(name).child("type"), kind, why));
            }
            _ => {}
        }
        if keys[..index].contains(key) {
            errors.push(Error::invalid(&keys_at, keys.to_vec(), "must not contain duplicate entries"));
        }
    }
}

fn check_keys(element: &Value, list_type: &str, keys: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    if element["nullable"] == true {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(Error::forbidden(&path.child("nullable"), &why));
    }
    let keys = keys.iter().filter(|_| list_type == "map");
    for key in keys {
        let name = key.as_str().unwrap_or_default();
        let property = &element["properties"][name];
        let properties = path.child("properties");
        let at = properties.key(name);
        if property.is_null() {
            continue;
        }
        if !items(element, "required").contains(key) && property["default"].is_null() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&at.child("default"), why));
        }
        if property["nullable"] == true {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&at.child("nullable"), why));
        }
    }
}

fn has_line_break(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

fn check_rules(schema: &Value, path: &Path<'_>, inside: &Inside, out: &mut Found) {
    let rules = items(schema, "x-kubernetes-validations");
    let list = path.child("x-kubernetes-validations");
    for (index, rule) in rules.iter().enumerate() {
        check_rule_words(rule, schema, &list.index(index), &mut out.words);
    }
    if !out.words.is_empty() || !inside.may_have_rules {
        return;
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = list.index(index);
        for (name, what) in [("rule", ""), ("messageExpression", "messageExpression ")] {
            let expression = text(rule, name);
            if expression.is_empty() {
                continue;
            }
            if let Err(why) = kube_cel::cel::Program::compile(expression) {
                let why = why.to_string().replace("\n|", "\n |");
                let detail = format!("{what}compilation failed: {}", why.trim_end());
                out.rules.push(rule_error(&at.child(name), rule, &detail));
            }
        }
        let compiled = compile_schema(&json!({"x-kubernetes-validations": [rule]}));
        let uses_old = compiled.validations.iter().flatten().any(|one| one.is_transition_rule);
        match (&inside.uncorrelated, uses_old) {
            (Some(above), true) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
                out.rules.push(Error::invalid(&at.child("rule"), text(rule, "rule"), &why));
            }
            (_, false) if !rule["optionalOldSelf"].is_null() => {
                let why = "may not be set if oldSelf is not used in rule";
                out.rules.push(Error::invalid(&at.child("optionalOldSelf"), rule["optionalOldSelf"].clone(), why));
            }
            _ => {}
        }
    }
}

fn check_rule_words(rule: &Value, schema: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let [expression, message, message_expression, field] =
        ["rule", "message", "messageExpression", "fieldPath"].map(|name| text(rule, name));
    let at = path.child("message");
    if expression.trim().is_empty() {
        errors.push(Error::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&at, message, "must be non-empty if specified"));
    } else if has_line_break(message.trim()) {
        errors.push(Error::invalid(&at, message, "must not contain line breaks"));
    } else if has_line_break(expression.trim()) && message.trim().is_empty() {
        errors.push(Error::required(&at, "message must be specified if rule contains line breaks"));
    }
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        let why = "messageExpression must be non-empty if specified";
        errors.push(Error::required(&path.child("messageExpression"), why));
    }
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(Error::not_supported(&path.child("reason"), reason, &REASONS));
    }
    let at = path.child("fieldPath");
    if !field.is_empty() && field.trim().is_empty() {
        errors.push(Error::invalid(&at, field, "must be non-empty if specified"));
    }
    if has_line_break(field) {
        errors.push(Error::invalid(&at, field, "must not contain line breaks"));
    }
    if !field.is_empty() && field_schema(field, schema, Brackets::Allowed).is_err() {
        errors.push(Error::invalid(&at, field, "must be a valid path"));
    }
}

/// Builds the error of a rule, which shows all of it in the server's own spelling.
fn rule_error(path: &Path<'_>, rule: &Value, detail: &str) -> Error {
    let names = ["rule", "message", "messageExpression"].map(|name| words::json(&text(rule, name).into()));
    let [expression, message, message_expression] = names;
    let (reason, field) = (words::json(&rule["reason"]), words::json(&text(rule, "fieldPath").into()));
    let old = words::json(&rule["optionalOldSelf"]);
    let body = format!(
        "Invalid value: {{\"Rule\":{expression},\"Message\":{message},\"MessageExpression\":{message_expression},\
         \"Reason\":{reason},\"FieldPath\":{field},\"OptionalOldSelf\":{old}}}: {detail}"
    );
    Error { mistake: Mistake::Invalid, field: path.to_string(), body }
}

/// Whether a path may hold `['keys in quotes']`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Brackets {
    Allowed,
    Forbidden,
}

/// Follows `.spec.size`; returns the schema there, and the names on the way.
pub(super) fn field_schema<'a>(
    path: &str,
    schema: &'a Value,
    brackets: Brackets,
) -> Result<(&'a Value, Vec<String>), String> {
    let (mut schema, mut names, mut rest) = (schema, Vec::new(), path);
    while let Some(first) = rest.chars().next() {
        let name;
        match first {
            '.' => {
                let end = rest[1..].find(['.', '[', ']']).map_or(rest.len(), |end| end + 1);
                if end == 1 {
                    return Err("unexpected end of JSON path".to_owned());
                }
                name = rest[1..end].to_owned();
                rest = &rest[end..];
            }
            '[' if brackets == Brackets::Allowed => {
                let quoted = rest[1..].strip_prefix('\'').and_then(|rest| rest.split_once("']"));
                let Some((inner, after)) = quoted else {
                    return Err(format!("expected single quoted string but got {rest}"));
                };
                name = inner.replace("\\'", "'");
                rest = after;
            }
            '[' => return Err("array notation is not allowed".to_owned()),
            _ => {
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(first.len_utf8());
                return Err(format!("expected [ or . but got: {}", &rest[..end]));
            }
        }
        let next = match (&schema["properties"], &schema["additionalProperties"]) {
            (Value::Object(fields), _) => fields.get(&name),
            (_, additional) => Some(additional).filter(|additional| additional.is_object()),
        };
        schema = next.ok_or_else(|| "does not refer to a valid field".to_owned())?;
        names.push(name);
    }
    Ok((schema, names))
}

/// Returns what is wrong with defaults: they must be valid, and hold nothing that would be pruned.
fn default_errors(schema: &Value, path: &Path<'_>) -> Vec<Error> {
    let mut root = schema.clone();
    if !root["default"].is_null() {
        root["x-kubernetes-embedded-resource"] = json!(true);
    }
    let mut errors = Vec::new();
    check_defaults(&root, true, false, path, &mut errors);
    errors
}

fn check_defaults(schema: &Value, root: bool, metadata: bool, path: &Path<'_>, errors: &mut Vec<Error>) {
    let embedded = schema["x-kubernetes-embedded-resource"] == true;
    let metadata = metadata && !embedded;
    let default = &schema["default"];
    if !default.is_null() {
        check_default(schema, default, metadata, &path.child("default"), errors);
    }
    if schema["items"].is_object() {
        check_defaults(&schema["items"], false, metadata, &path.child("items"), errors);
    }
    let properties = path.child("properties");
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        let is_meta = (embedded || root) && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        check_defaults(child, false, metadata || is_meta, &properties.key(name), errors);
    }
}

fn check_default(schema: &Value, default: &Value, metadata: bool, path: &Path<'_>, errors: &mut Vec<Error>) {
    let parsed = Schema::parse(schema);
    if !metadata {
        let mut pruned = default.clone();
        parsed.prune_part(&mut pruned);
        if pruned != *default {
            errors.push(Error::invalid(path, default.clone(), "must not have unknown fields"));
        }
    }
    errors.extend(parsed.validate_part(default, &path.to_string()));
}
