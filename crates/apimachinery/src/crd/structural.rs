//! What makes a schema structural: every field has a type in one place, and branches (`allOf`, `anyOf`, `oneOf`, `not`)
//! only narrow what is said there.

use serde_json::{Map, Value, json};

use crate::field::{Error, Path};
use crate::object::{items, text};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Returns what keeps `schema` from being structural, sorted.
pub(super) fn validate(schema: &Value, path: &Path<'_>) -> Vec<Error> {
    let mut errors = Vec::new();
    check(schema, Level::Root, path, &mut errors);
    check_complete(schema, Some(schema), &path.to_string(), &path.to_string(), &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

/// Returns whether a schema uses words that structural schemas do not know at all; nothing else is said of it then.
pub(super) fn is_foreign(schema: &Value) -> bool {
    const FOREIGN: [&str; 6] = ["id", "$schema", "patternProperties", "definitions", "dependencies", "additionalItems"];
    let Some(fields) = schema.as_object() else { return false };
    let has = |name: &str| fields.get(name).is_some_and(|value| !crate::object::is_empty(value));
    FOREIGN.iter().any(|name| has(name))
        || !schema["$ref"].is_null()
        || schema["items"].is_array()
        || schema["x-kubernetes-preserve-unknown-fields"] == false
        || children(schema).any(|(_, child)| is_foreign(child))
}

/// Returns every schema below, with the keyword that holds it.
pub(super) fn children(schema: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let maps = ["properties"]
        .into_iter()
        .flat_map(|name| schema[name].as_object().into_iter().flatten().map(move |(_, child)| (name, child)));
    let lists = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|name| items(schema, name).iter().map(move |child| (name, child)));
    let single = ["items", "additionalProperties", "not"].into_iter().map(|name| (name, &schema[name]));
    maps.chain(lists).chain(single.filter(|(_, child)| child.is_object()))
}

fn fields(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn flag(schema: &Value, name: &str) -> bool {
    schema[name] == true
}

fn check(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Vec<Error>) {
    if text(schema, "type") == "array" && !schema["items"].is_object() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if schema["items"].is_object() {
        check(&schema["items"], Level::Item, &path.child("items"), errors);
    }
    let properties = path.child("properties");
    for (name, child) in fields(schema) {
        check(child, Level::Field, &properties.key(name), errors);
    }
    let additional = path.child("additionalProperties");
    if !schema["additionalProperties"].is_null() {
        if level == Level::Root {
            errors.push(Error::forbidden(&additional, "must not be used at the root"));
        }
        if schema["additionalProperties"].is_object() {
            check(&schema["additionalProperties"], Level::Field, &additional, errors);
        }
    }
    if flag(schema, "x-kubernetes-int-or-string") {
        for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if flag(schema, name) {
                let why = "must be false if x-kubernetes-int-or-string is true";
                errors.push(Error::invalid(&path.child(name), true, why));
            }
        }
    }
    let skip = Skip {
        any_of: is_int_or_string(&schema["anyOf"]),
        first_all_of: is_int_or_string(&schema["allOf"][0]["anyOf"]),
    };
    check_values(schema, skip, path, errors);
    check_type(schema, level, path, errors);
    check_metadata(schema, level, path, errors);
}

fn check_type(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Vec<Error>) {
    let kind = text(schema, "type");
    let at = path.child("type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let may_be_untyped =
        flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() { Error::required(&at, why) } else { Error::invalid(&at, kind, why) });
    } else if kind.is_empty() && !may_be_untyped {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at, why));
    }
    if embedded && !schema["additionalProperties"].is_null() {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(&path.child("additionalProperties"), why));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(Error::invalid(&at, kind, "must be object at the root"));
    }
}

/// Type and metadata of objects are not the schema's to give; of metadata it may narrow the names.
fn check_metadata(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Vec<Error>) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let is_object = level == Level::Root || embedded;
    let properties = path.child("properties");
    let has = |name: &str| !schema["properties"][name].is_null();
    for name in ["kind", "apiVersion"] {
        let kind = text(&schema["properties"][name], "type");
        if is_object && has(name) && kind != "string" {
            errors.push(Error::invalid(&properties.key(name).child("type"), kind, "must be string"));
        }
    }
    if has("metadata") {
        let metadata = &schema["properties"]["metadata"];
        let at = properties.key("metadata");
        let kind = text(metadata, "type");
        if is_object && kind != "object" {
            errors.push(Error::invalid(&at.child("type"), kind, "must be object"));
        }
        if level == Level::Root && says_more_than_names(metadata) {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(Error::forbidden(&at, why));
        }
    }
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && !preserves && fields(schema).next().is_none() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&properties, why));
    }
}

fn says_more_than_names(metadata: &Value) -> bool {
    let others = fields(metadata).any(|(name, _)| !matches!(name.as_str(), "name" | "generateName"));
    let said = metadata.as_object().into_iter().flatten();
    let mut said = said.filter(|(_, value)| !crate::object::is_empty(value)).map(|(name, _)| name.as_str());
    others || said.any(|name| !matches!(name, "type" | "properties" | "default"))
}

fn is_int_or_string(any_of: &Value) -> bool {
    *any_of == json!([{"type": "integer"}, {"type": "string"}])
}

/// The spelled-out form of `x-kubernetes-int-or-string` is the one place where branches may have types.
#[derive(Clone, Copy, Default)]
struct Skip {
    any_of: bool,
    first_all_of: bool,
}

fn check_values(schema: &Value, skip: Skip, path: &Path<'_>, errors: &mut Vec<Error>) {
    for (name, skipped) in [("anyOf", skip.any_of), ("allOf", false), ("oneOf", false)] {
        let list = path.child(name);
        for (index, branch) in items(schema, name).iter().enumerate().filter(|_| !skipped) {
            let skip_any_of = name == "allOf" && index == 0 && skip.first_all_of;
            check_branch(branch, Skip { any_of: skip_any_of, first_all_of: false }, &list.index(index), errors);
        }
    }
    if schema["not"].is_object() {
        check_branch(&schema["not"], Skip::default(), &path.child("not"), errors);
    }
    let pattern = text(schema, "pattern");
    if regex::Regex::new(pattern).is_err() {
        let why = format!("must be a valid regular expression, but isn't: {pattern}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, &why));
    }
}

/// Words that branches may not use: name, what it must be instead.
const NOT_IN_BRANCHES: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
];

fn check_branch(branch: &Value, skip: Skip, path: &Path<'_>, errors: &mut Vec<Error>) {
    check_values(branch, skip, path, errors);
    if branch["items"].is_object() {
        check_branch(&branch["items"], Skip::default(), &path.child("items"), errors);
    }
    let properties = path.child("properties");
    for (name, child) in fields(branch) {
        check_branch(child, Skip::default(), &properties.key(name), errors);
    }
    let empty = Map::new();
    let said = branch.as_object().unwrap_or(&empty);
    for (name, why) in NOT_IN_BRANCHES {
        let is_set = match (name, said.get(name)) {
            (_, None | Some(Value::Null)) => false,
            ("default", Some(_)) => true,
            ("additionalProperties", Some(value)) => *value != false,
            (_, Some(value)) => !crate::object::is_empty(value),
        };
        if is_set {
            errors.push(Error::forbidden(&path.child(name), why));
        }
    }
    if !items(branch, "x-kubernetes-validations").is_empty() {
        errors.push(Error::forbidden(&path.child("x-kubernetes-validations"), "must be empty to be structural"));
    }
    if !branch["properties"]["metadata"].is_null() {
        errors.push(Error::forbidden(&properties.key("metadata"), "must not be specified in a nested context"));
    }
}

/// Checks that what branches of `values` speak of is there in `spine`; `at` and `said` are the paths of the two.
fn check_complete(values: &Value, spine: Option<&Value>, at: &str, said: &str, errors: &mut Vec<Error>) {
    if values["not"].is_object() {
        check_branch_complete(&values["not"], spine, at, &format!("{said}.not"), errors);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, branch) in items(values, name).iter().enumerate() {
            check_branch_complete(branch, spine, at, &format!("{said}.{name}[{index}]"), errors);
        }
    }
}

fn check_branch_complete(branch: &Value, spine: Option<&Value>, at: &str, said: &str, errors: &mut Vec<Error>) {
    let missing = |at: &str, said: &str| {
        let path = Path::Root.child(at);
        Error::required(&path, &format!("because it is defined in {said}"))
    };
    let Some(spine) = spine else {
        errors.push(missing(at, said));
        return;
    };
    check_complete(branch, Some(spine), at, said, errors);
    if branch["items"].is_object() {
        let inner = Some(&spine["items"]).filter(|items| items.is_object());
        check_branch_complete(&branch["items"], inner, &format!("{at}.items"), &format!("{said}.items"), errors);
    }
    for (name, child) in fields(branch) {
        let (at, said) = (format!("{at}.properties[{name}]"), format!("{said}.properties[{name}]"));
        match spine["properties"].get(name) {
            Some(inner) => check_branch_complete(child, Some(inner), &at, &said, errors),
            None => errors.push(missing(&at, &said)),
        }
    }
}
