//! JSON form of a schema to the tree.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Additional, Checks, Kind, List, Pattern, Rules, Schema, Strategic};

/// Nesting beyond this depth is cut off; the real server has the same order of limit on request bodies.
const DEPTH_MAX: usize = 200;

/// Facts about fields of built-in types that their JSON schema does not carry.
pub(crate) trait Facts {
    /// Amends definition `name` itself.
    fn amend_definition(&self, name: &str, schema: &mut Value);
    /// Amends the schema of `field` of definition `owner`.
    fn amend(&self, owner: &str, field: &str, schema: &mut Map<String, Value>);
}

/// Named definitions that schemas refer to with `$ref`.
pub(crate) struct Definitions<'a> {
    raw: &'a Map<String, Value>,
    facts: &'a dyn Facts,
    parsed: HashMap<String, Arc<Schema>>,
    open: Vec<String>,
}

impl Schema {
    /// Parses an OpenAPI v3 schema as CRDs hold it.
    ///
    /// Unknown keywords are skipped: whether a CRD is valid is for [`crate::crd::validate`] to say.
    pub fn parse(schema: &Value) -> Arc<Schema> {
        Arc::new(node(schema, None, 0))
    }
}

impl<'a> Definitions<'a> {
    pub(crate) fn new(raw: &'a Map<String, Value>, facts: &'a dyn Facts) -> Self {
        Self { raw, facts, parsed: HashMap::new(), open: Vec::new() }
    }

    /// Returns the parsed definition; a recursive one is open at the point where it meets itself.
    pub(crate) fn get(&mut self, name: &str) -> Arc<Schema> {
        if let Some(known) = self.parsed.get(name) {
            return Arc::clone(known);
        }
        let raw = self.raw;
        let Some(definition) = raw.get(name).filter(|_| !self.open.iter().any(|one| one == name)) else {
            return Arc::new(Schema { preserve_unknown: true, ..Schema::default() });
        };
        self.open.push(name.to_owned());
        let mut definition = definition.clone();
        self.facts.amend_definition(name, &mut definition);
        if let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) {
            for (field, schema) in properties.iter_mut() {
                if let Some(schema) = schema.as_object_mut() {
                    self.facts.amend(name, field, schema);
                }
            }
        }
        let mut schema = node(&definition, Some(self), 0);
        schema.go_type = Some(go_type(name).into());
        let schema = Arc::new(schema);
        self.open.pop();
        self.parsed.insert(name.to_owned(), Arc::clone(&schema));
        schema
    }
}

/// Turns `io.k8s.api.core.v1.PodSpec` into `v1.PodSpec`.
fn go_type(definition: &str) -> &str {
    let mut dots = definition.rmatch_indices('.').map(|(at, _)| at);
    dots.next();
    dots.next().map_or(definition, |at| &definition[at + 1..])
}

/// Where a reference leads while parsing; CRDs have none.
type Referred<'d, 'a> = Option<&'d mut Definitions<'a>>;

fn node(schema: &Value, mut definitions: Referred<'_, '_>, depth: usize) -> Schema {
    let Some(raw) = schema.as_object().filter(|_| depth < DEPTH_MAX) else {
        return Schema::default();
    };
    let flag = |key: &str| raw.get(key).and_then(Value::as_bool).unwrap_or(false);
    let mut child = |schema: &Value| -> Arc<Schema> { child_of(schema, definitions.as_deref_mut(), depth + 1) };
    let properties = raw
        .get("properties")
        .and_then(Value::as_object)
        .map(|all| all.iter().map(|(name, schema)| (name.as_str().into(), child(schema))).collect())
        .unwrap_or_default();
    let additional = match raw.get("additionalProperties") {
        None | Some(Value::Bool(false) | Value::Null) => Additional::None,
        Some(Value::Bool(true)) => Additional::Any,
        Some(schema) => Additional::Of(child(schema)),
    };
    let items = raw.get("items").filter(|items| items.is_object()).map(&mut child);
    let checks = checks(raw, &mut child);
    Schema {
        kind: kind(raw),
        nullable: flag("nullable"),
        properties,
        additional,
        items,
        list: list(raw),
        atomic: is_atomic(raw),
        strategic: strategic(raw),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        default: raw.get("default").cloned().map(Box::new),
        checks,
        go_type: None,
        rules: Rules::find(raw),
    }
}

/// Parses a schema below another one: inline, or a reference with amendments beside it.
fn child_of(schema: &Value, definitions: Referred<'_, '_>, depth: usize) -> Arc<Schema> {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.rsplit('/').next());
    let (Some(name), Some(raw)) = (reference, schema.as_object()) else {
        return Arc::new(node(schema, definitions, depth));
    };
    let Some(definitions) = definitions else {
        return Arc::new(Schema { preserve_unknown: true, ..Schema::default() });
    };
    let definition = definitions.get(name);
    let (atomic, default, strategic) = (is_atomic(raw), raw.get("default"), strategic(raw));
    if !atomic && default.is_none() && strategic == Strategic::default() {
        return definition;
    }
    let mut amended = Schema::clone(&definition);
    amended.atomic |= atomic;
    amended.default = default.cloned().map(Box::new);
    amended.strategic = strategic;
    Arc::new(amended)
}

fn is_atomic(raw: &Map<String, Value>) -> bool {
    raw.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
}

fn kind(raw: &Map<String, Value>) -> Kind {
    if raw.get("x-kubernetes-int-or-string").and_then(Value::as_bool) == Some(true) {
        return Kind::IntOrString;
    }
    match raw.get("type").and_then(Value::as_str) {
        Some("object") => Kind::Object,
        Some("array") => Kind::Array,
        Some("string") => Kind::String,
        Some("integer") => Kind::Integer,
        Some("number") => Kind::Number,
        Some("boolean") => Kind::Boolean,
        _ => Kind::Any,
    }
}

fn list(raw: &Map<String, Value>) -> List {
    match raw.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => List::Set,
        Some("map") => List::Map(texts(raw.get("x-kubernetes-list-map-keys"))),
        _ => List::Atomic,
    }
}

fn strategic(raw: &Map<String, Value>) -> Strategic {
    let strategies = raw.get("x-kubernetes-patch-strategy").and_then(Value::as_str).unwrap_or_default();
    Strategic {
        merge: strategies.split(',').any(|one| one == "merge"),
        retain_keys: strategies.split(',').any(|one| one == "retainKeys"),
        key: raw.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(Into::into),
    }
}

fn texts(list: Option<&Value>) -> Vec<Box<str>> {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(Into::into).collect()
}

fn checks(raw: &Map<String, Value>, child: &mut dyn FnMut(&Value) -> Arc<Schema>) -> Option<Box<Checks>> {
    const KEYWORDS: [&str; 21] = [
        "required",
        "enum",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "nullable",
    ];
    if !KEYWORDS.iter().any(|key| raw.contains_key(*key)) {
        return None;
    }
    let flag = |key: &str| raw.get(key).and_then(Value::as_bool).unwrap_or(false);
    let number = |key: &str| raw.get(key).and_then(Value::as_f64);
    let count = |key: &str| raw.get(key).and_then(Value::as_u64);
    let text = |key: &str| raw.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut branches = |key: &str| -> Vec<Arc<Schema>> {
        let list = raw.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().map(&mut *child).collect()
    };
    let (all_of, any_of, one_of) = (branches("allOf"), branches("anyOf"), branches("oneOf"));
    Some(Box::new(Checks {
        required: texts(raw.get("required")),
        allowed: raw.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        format: text("format").map(Into::into),
        pattern: text("pattern").map(Pattern::new),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        length_min: count("minLength"),
        length_max: count("maxLength"),
        items_min: count("minItems"),
        items_max: count("maxItems"),
        unique_items: flag("uniqueItems"),
        properties_min: count("minProperties"),
        properties_max: count("maxProperties"),
        all_of,
        any_of,
        one_of,
        not: raw.get("not").filter(|not| not.is_object()).map(&mut *child),
    }))
}
