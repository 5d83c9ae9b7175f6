//! CEL rules (`x-kubernetes-validations`).
//!
//! The tree is walked here, not by the evaluator, because old and new elements of a keyed list belong together by key
//! and elements of other lists do not belong together at all. Each node with rules has its own compiled programs.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::{Map, Value};

use super::{List, Schema, element_key, validate::type_name};
use crate::field::{Error, Mistake, Path};

const KEYWORD: &str = "x-kubernetes-validations";

thread_local! {
    /// Registering the function library costs far more than a rule.
    static VALIDATOR: Validator = Validator::new();
}

/// The rules of one node, compiled at first use.
#[derive(Clone)]
pub(crate) struct Rules(Arc<Inner>);

struct Inner {
    schema: Value,
    compiled: OnceLock<CompiledSchema>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rules").field(&self.0.schema[KEYWORD]).finish()
    }
}

impl Rules {
    pub(super) fn find(raw: &Map<String, Value>) -> Option<Self> {
        raw.get(KEYWORD)?.as_array().filter(|rules| !rules.is_empty())?;
        // Below this node only types and formats matter to its rules; rules there have nodes of their own.
        let mut schema = Value::Object(raw.clone());
        strip(&mut schema, true);
        Some(Self(Arc::new(Inner { schema, compiled: OnceLock::new() })))
    }

    fn compiled(&self) -> &CompiledSchema {
        self.0.compiled.get_or_init(|| compile_schema(&self.0.schema))
    }

    fn check(&self, value: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<Error>) {
        let compiled = self.compiled();
        let failures = VALIDATOR.with(|validator| validator.validate_compiled(compiled, value, old));
        let Err(failures) = failures else { return };
        for failure in failures.into_vec() {
            let found = Value::from(type_name(value));
            let below = failure.field_path.trim_start_matches('.');
            let child;
            let at = if below.is_empty() {
                path
            } else {
                child = path.child(below);
                &child
            };
            let mut error = match failure.reason.as_deref() {
                Some("FieldValueForbidden") => Error::forbidden(at, &failure.message),
                Some("FieldValueRequired") => Error::required(at, &failure.message),
                Some("FieldValueDuplicate") => {
                    let mut error = Error::invalid(at, found, &failure.message);
                    error.mistake = Mistake::Duplicate;
                    error.body = error.body.replacen("Invalid value", "Duplicate value", 1);
                    error
                }
                _ => Error::invalid(at, found, &failure.message),
            };
            if error.field.is_empty() {
                "<nil>".clone_into(&mut error.field);
            }
            errors.push(error);
        }
    }
}

/// Drops nested rules and descriptions.
fn strip(schema: &mut Value, root: bool) {
    match schema {
        Value::Object(object) => {
            if !root {
                object.remove(KEYWORD);
            }
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            for (key, value) in object.iter_mut() {
                if !matches!(key.as_str(), "default" | "enum" | "example") && key != KEYWORD {
                    strip(value, false);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| strip(one, false)),
        _ => {}
    }
}

impl Schema {
    /// Returns whether the tree holds any rule.
    pub(super) fn has_rules(&self) -> bool {
        self.rules.is_some()
            || self.properties.values().any(|schema| schema.has_rules())
            || self.items.as_ref().is_some_and(|items| items.has_rules())
            || matches!(&self.additional, super::Additional::Of(schema) if schema.has_rules())
    }

    pub(super) fn check_rules(&self, value: &Value, old: Option<&Value>, errors: &mut Vec<Error>) {
        self.walk_rules(value, old, &Path::Root, errors);
    }

    fn walk_rules(&self, value: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Vec<Error>) {
        if value.is_null() {
            return;
        }
        if let Some(rules) = &self.rules {
            rules.check(value, old.filter(|old| !old.is_null()), path, errors);
        }
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    if let Some(schema) = self.field(name) {
                        schema.walk_rules(value, old.and_then(|old| old.get(name)), &path.child(name), errors);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                let twins = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                for (index, element) in list.iter().enumerate() {
                    let twin = match &self.list {
                        List::Map(keys) => element_key(keys, Some(items), element).and_then(|key| {
                            twins.iter().find(|twin| element_key(keys, Some(items), twin).as_ref() == Some(&key))
                        }),
                        List::Set | List::Atomic => None,
                    };
                    items.walk_rules(element, twin, &path.index(index), errors);
                }
            }
            _ => {}
        }
    }
}
