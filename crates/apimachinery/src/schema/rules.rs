//! CEL rules (`x-kubernetes-validations`).
//!
//! The tree is walked here, not by the evaluator, because old and new elements of a keyed list belong together by key
//! and elements of other lists do not belong together at all. Each node with rules has its own compiled programs.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use kube_cel::{CompilationResult, CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::{Map, Value};

use super::{Additional, Kind, Schema};
use crate::field::{Error, Path};
use crate::object::text;

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
    /// For values that were there before.
    changed: OnceLock<CompiledSchema>,
    /// For new values.
    created: OnceLock<CompiledSchema>,
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
        Some(Self(Arc::new(Inner { schema, changed: OnceLock::new(), created: OnceLock::new() })))
    }

    fn compiled(&self, has_old: bool) -> &CompiledSchema {
        // The evaluator has no optional `oldSelf`, but it has optional values.
        let (slot, old) = match has_old {
            true => (&self.0.changed, "optional.of(oldSelf)"),
            false => (&self.0.created, "optional.none()"),
        };
        slot.get_or_init(|| compile_schema(&with_optional_old(&self.0.schema, old)))
    }

    /// Returns the rule, as written, whose compiled form has that text.
    fn written(&self, compiled: &CompiledSchema, text: &str) -> Option<&Value> {
        let is_it = |one: &Result<CompilationResult, _>| one.as_ref().is_ok_and(|one| one.rule.rule == text);
        self.0.schema[KEYWORD].get(compiled.validations.iter().position(is_it)?)
    }

    fn check(&self, schema: &Schema, value: &Value, old: Before<'_>, path: &Path<'_>, errors: &mut Vec<Error>) {
        let before = old.own.filter(|old| !old.is_null()).map(|old| schema.without_nulls(old));
        let compiled = self.compiled(before.is_some());
        let shown = schema.without_nulls(value);
        let failures = VALIDATOR.with(|validator| validator.validate_compiled(compiled, &shown, before.as_deref()));
        let Err(failures) = failures else { return };
        for failure in failures.into_vec() {
            let rule = self.written(compiled, &failure.rule).unwrap_or(&Value::Null);
            let expression = if rule.is_null() { failure.rule.as_str() } else { text(rule, "rule") };
            // Rules that compare with the old value are about changes, the others about what was there before too.
            let is_transition = replace_old(expression, "").is_some();
            if failure.kind == ErrorKind::ValidationFailure && !is_transition && old.is_unchanged() {
                continue;
            }
            let found = Value::from(if schema.kind == Kind::IntOrString { "" } else { schema.kind.name() });
            let below = failure.field_path.trim_start_matches('.');
            let child;
            let at = if below.is_empty() {
                path
            } else {
                child = path.child(below);
                &child
            };
            let own = text(rule, "message").trim();
            let message = match failure.kind {
                ErrorKind::EvaluationError => {
                    evaluation_message(&failure.message, if own.is_empty() { expression.trim() } else { own })
                }
                ErrorKind::ValidationFailure if own.is_empty() && text(rule, "messageExpression").is_empty() => {
                    format!("failed rule: {}", expression.trim())
                }
                _ => failure.message.trim().to_owned(),
            };
            errors.push(match failure.reason.as_deref() {
                Some("FieldValueForbidden") => Error::forbidden(at, &message),
                Some("FieldValueRequired") => Error::required(at, &message),
                Some("FieldValueDuplicate") => Error::duplicate(at, found),
                _ => Error::invalid(at, found, &message),
            });
        }
    }
}

/// Says what went wrong in the order of words of the real server: `no such key: a evaluating rule: has(self.a.b)`.
fn evaluation_message(message: &str, rule: &str) -> String {
    let why = message.strip_prefix("rule evaluation error: ").unwrap_or(message);
    let mut chars = why.chars();
    let first = chars.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
    format!("{first}{} evaluating rule: {rule}", chars.as_str())
}

/// Puts `old` in the place of `oldSelf` in rules that want to know whether there was one.
fn with_optional_old(schema: &Value, old: &str) -> Value {
    let mut out = schema.clone();
    for rule in out[KEYWORD].as_array_mut().into_iter().flatten() {
        if rule["optionalOldSelf"] == true {
            for name in ["rule", "messageExpression"] {
                if let Some(replaced) = replace_old(text(rule, name), old) {
                    rule[name] = replaced.into();
                }
            }
        }
    }
    out
}

/// Replaces the variable `oldSelf`; `None` if the expression does not use it.
fn replace_old(expression: &str, with: &str) -> Option<String> {
    let mut out = String::new();
    let mut is_used = false;
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let end = if first == '\'' || first == '"' {
            end_of_text(rest, first)
        } else if first.is_alphabetic() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(end);
        if word == "oldSelf" && !out.trim_end().ends_with('.') {
            is_used = true;
            out.push_str(with);
        } else {
            out.push_str(word);
        }
        rest = after;
    }
    is_used.then_some(out)
}

/// Returns where the quoted text that `rest` begins with ends.
fn end_of_text(rest: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// What a node was before an update.
#[derive(Clone, Copy, Default)]
struct Before<'a> {
    /// The old value that rules know as `oldSelf`.
    own: Option<&'a Value>,
    /// New and old value of the node, or of the nearest one above that both objects have: where these are the same,
    /// what rules say is not news.
    near: Option<(&'a Schema, &'a Value, &'a Value)>,
    /// Whether `near` is the node itself.
    is_own: bool,
}

impl<'a> Before<'a> {
    fn is_unchanged(self) -> bool {
        self.near.is_some_and(|(schema, new, old)| schema.is_unchanged(new, old))
    }

    fn below(self, schema: &'a Schema, value: &'a Value, own: Option<&'a Value>) -> Self {
        match own.filter(|_| self.is_own) {
            Some(old) => Self { own, near: Some((schema, value, old)), is_own: true },
            None => Self { own, is_own: false, ..self },
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
            || matches!(&self.additional, Additional::Of(schema) if schema.has_rules())
    }

    pub(super) fn check_rules(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<Error>) {
        let before = Before { own: old, near: old.map(|old| (self, object, old)), is_own: old.is_some() };
        self.walk_rules(object, before, &Path::Root, errors);
    }

    /// Checks a value that may come to be without a change of its own, as defaults do: as one that stays, and as a new
    /// one.
    pub(super) fn check_part_rules(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        self.walk_rules(value, Before { own: Some(value), ..Before::default() }, path, errors);
        if errors.is_empty() {
            self.walk_rules(value, Before::default(), path, errors);
        }
    }

    fn walk_rules<'a>(&'a self, value: &'a Value, old: Before<'a>, path: &Path<'_>, errors: &mut Vec<Error>) {
        if value.is_null() {
            return;
        }
        if let Some(rules) = &self.rules {
            rules.check(self, value, old, path, errors);
        }
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let (schema, at) = match (self.properties.get(name.as_str()), &self.additional) {
                        (Some(schema), _) => (schema, path.child(name)),
                        (None, Additional::Of(schema)) => (schema, path.key(name)),
                        (None, _) => continue,
                    };
                    let mut before = old.below(schema, value, old.own.and_then(|old| old.get(name)));
                    // Both objects are shown in one version, so that these two never tell what was there before.
                    if matches!((path, name.as_str()), (Path::Root, "apiVersion" | "kind")) {
                        before.near = None;
                    }
                    schema.walk_rules(value, before, &at, errors);
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                for (index, element) in list.iter().enumerate() {
                    let before = old.below(items, element, self.twin(old.own, element));
                    items.walk_rules(element, before, &path.index(index), errors);
                }
            }
            _ => {}
        }
    }

    /// Returns the value as rules see it: a named field that is `null` is not there.
    fn without_nulls<'a>(&self, value: &'a Value) -> Cow<'a, Value> {
        if !self.has_null(value) {
            return Cow::Borrowed(value);
        }
        let mut out = value.clone();
        self.drop_nulls(&mut out);
        Cow::Owned(out)
    }

    fn has_null(&self, value: &Value) -> bool {
        match value {
            Value::Object(object) => object.iter().any(|(name, value)| {
                (value.is_null() && !self.properties.is_empty())
                    || self.field(name).is_some_and(|schema| schema.has_null(value))
            }),
            Value::Array(list) => {
                self.items.as_ref().is_some_and(|items| list.iter().any(|element| items.has_null(element)))
            }
            _ => false,
        }
    }

    fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                if !self.properties.is_empty() {
                    object.retain(|_, value| !value.is_null());
                }
                for (name, value) in object.iter_mut() {
                    if let Some(schema) = self.field(name) {
                        schema.drop_nulls(value);
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = &self.items else { return };
                list.iter_mut().for_each(|element| items.drop_nulls(element));
            }
            _ => {}
        }
    }
}
