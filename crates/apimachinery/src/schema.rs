//! Structural schemas: what CRDs carry and what built-in kinds are described by.
//!
//! A schema is parsed once into a tree that is cheap to walk and shared by reference: built-in definitions refer to
//! each other, and every custom kind shares the one of `metadata`.

mod default;
mod embedded;
mod format;
mod lists;
mod number;
mod parse;
mod prune;
mod rules;
mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde_json::{Map, Value};

pub(crate) use parse::{Definitions, Facts};
pub(crate) use rules::Rules;

/// The schema of one node.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// JSON type.
    pub kind: Kind,
    /// Whether `null` is a value.
    pub nullable: bool,
    /// Fields by name.
    pub properties: BTreeMap<Box<str>, Arc<Schema>>,
    /// What other fields may hold.
    pub additional: Additional,
    /// What list elements hold.
    pub items: Option<Arc<Schema>>,
    /// How lists are merged by server-side apply.
    pub list: List,
    /// Whether a map or struct is owned as one piece (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// How a strategic merge patch treats the node.
    pub strategic: Strategic,
    /// Whether unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub preserve_unknown: bool,
    /// Whether the node is an object of its own (`x-kubernetes-embedded-resource`).
    pub embedded: bool,
    /// Value that an absent field gets.
    pub default: Option<Box<Value>>,
    /// Limits on the value.
    pub(crate) checks: Option<Box<Checks>>,
    /// Name of the Go type of a built-in definition with its package version, `v1.PodSpec`.
    pub(crate) go_type: Option<Box<str>>,
    /// CEL rules of this node.
    pub(crate) rules: Option<Rules>,
}

/// JSON type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Kind {
    /// Not said.
    #[default]
    Any,
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
}

/// What fields beside the named ones may hold.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// None are known.
    #[default]
    None,
    /// Anything (`additionalProperties: true`).
    Any,
    /// Values of one schema.
    Of(Arc<Schema>),
}

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum List {
    /// As one piece.
    #[default]
    Atomic,
    /// By element; elements are scalars.
    Set,
    /// By element; elements are known by these fields.
    Map(Vec<Box<str>>),
}

/// How a strategic merge patch treats a node (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Strategic {
    /// Lists are merged instead of replaced.
    pub merge: bool,
    /// Field that identifies elements.
    pub key: Option<Box<str>>,
    /// The patch may say `$retainKeys`.
    pub retain_keys: bool,
}

/// Limits on a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    pub(crate) required: Vec<Box<str>>,
    pub(crate) allowed: Vec<Value>,
    pub(crate) format: Option<Box<str>>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) minimum: Option<f64>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length_min: Option<u64>,
    pub(crate) length_max: Option<u64>,
    pub(crate) items_min: Option<u64>,
    pub(crate) items_max: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) properties_min: Option<u64>,
    pub(crate) properties_max: Option<u64>,
    pub(crate) all_of: Vec<Arc<Schema>>,
    pub(crate) any_of: Vec<Arc<Schema>>,
    pub(crate) one_of: Vec<Arc<Schema>>,
    pub(crate) not: Option<Arc<Schema>>,
}

/// A pattern, compiled at first use: large CRDs hold thousands that no object ever meets.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) text: Box<str>,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.into(), regex: OnceLock::new() }
    }

    /// Returns whether `value` matches, or `None` if the pattern cannot be compiled.
    pub(crate) fn is_match(&self, value: &str) -> Option<bool> {
        self.regex.get_or_init(|| Regex::new(&self.text).ok()).as_ref().map(|regex| regex.is_match(value))
    }
}

impl Schema {
    /// Returns a schema that says nothing.
    pub(crate) fn new() -> Self {
        <Self as Default>::default()
    }

    /// Returns the schema of field `name`: the named property, or what additional properties hold.
    pub fn field(&self, name: &str) -> Option<&Arc<Schema>> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::Any | Additional::None => None,
        })
    }
}

/// Fields of `metadata` and the type meta that every object has, whatever its schema says.
pub(crate) const ROOT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Returns the key of a list-map element: its key fields in order, defaults filled in; `None` if one is missing.
pub(crate) fn element_key(keys: &[Box<str>], items: Option<&Schema>, element: &Value) -> Option<Map<String, Value>> {
    let object = element.as_object()?;
    let mut out = Map::new();
    for key in keys {
        let found = object.get(&**key).filter(|value| !value.is_null());
        let default = || items?.properties.get(key)?.default.as_deref();
        // A key that is absent and has no default is left out; at least one must be there.
        if let Some(value) = found.or_else(default) {
            out.insert(key.to_string(), value.clone());
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests;
