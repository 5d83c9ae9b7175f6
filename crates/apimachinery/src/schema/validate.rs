//! Checking values, with the texts of the real server.

use std::collections::HashMap;

use serde_json::Value;

use super::{Additional, Checks, Kind, List, Schema, element_key, format};
use crate::field::{Error, Mistake, Path, quote};

/// What is added when CEL rules could not run because the value has the wrong shape.
const RULES_SKIPPED: &str = "some validation rules were not checked because the object was invalid; correct the \
                             existing errors to complete validation";

impl Schema {
    /// Returns every violation, CEL rules included; `old` is the object before an update.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        let mut errors = Vec::new();
        self.check(object, &Path::Root, &mut errors);
        self.check_lists(object, &Path::Root, &mut errors);
        let blocked = |error: &Error| {
            matches!(
                error.mistake,
                Mistake::Required | Mistake::NotSupported | Mistake::TooLong | Mistake::TooMany | Mistake::TypeInvalid
            )
        };
        if errors.iter().any(blocked) {
            if self.has_rules() {
                errors.push(Error::invalid(&Path::Root, Value::Null, RULES_SKIPPED));
            }
            return errors;
        }
        self.check_rules(object, old, &mut errors);
        errors
    }

    /// Checks everything but list keys and rules.
    pub(super) fn check(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        if value.is_null() && self.nullable {
            return;
        }
        if !self.kind.admits(value) {
            let text = format!("{path} in body must be of type {}: {}", self.kind.name(), quote(type_name(value)));
            errors.push(Error::type_invalid(path, type_name(value), text.trim_start()));
        }
        if let Some(checks) = &self.checks {
            checks.check(value, path, errors);
        }
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    match (self.properties.get(name.as_str()), &self.additional) {
                        (Some(schema), _) => schema.check(value, &path.child(name), errors),
                        (None, Additional::Of(schema)) => schema.check(value, &path.child(name), errors),
                        (None, _) => {}
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (index, element) in list.iter().enumerate() {
                        items.check(element, &path.index(index), errors);
                    }
                }
            }
            _ => {}
        }
    }

    /// Checks that sets and maps hold no element twice.
    fn check_lists(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    if let Some(schema) = self.field(name) {
                        schema.check_lists(value, &path.child(name), errors);
                    }
                }
            }
            Value::Array(list) => {
                let items = self.items.as_deref();
                let identity = |element: &Value| -> Option<Value> {
                    match &self.list {
                        List::Atomic => None,
                        List::Set => Some(element.clone()),
                        List::Map(keys) => element_key(keys, items, element).map(Value::Object),
                    }
                };
                let mut seen: HashMap<String, u32> = HashMap::new();
                for (index, element) in list.iter().enumerate() {
                    if let Some(key) = identity(element) {
                        let count = seen.entry(key.to_string()).or_default();
                        *count += 1;
                        // The second is reported, further ones are not.
                        if *count == 2 {
                            errors.push(Error::duplicate(&path.index(index), key));
                        }
                    }
                    if let Some(items) = items {
                        items.check_lists(element, &path.index(index), errors);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Kind {
    fn admits(self, value: &Value) -> bool {
        match self {
            Kind::Any => true,
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::String => value.is_string(),
            Kind::Integer => is_integer(value),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::IntOrString => is_integer(value) || value.is_string(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Any => "",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::IntOrString => "integer,string",
        }
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Names the JSON type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Renders a number as the real server does: no exponent, no `.0`.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value:.0}") } else { value.to_string() }
}

impl Checks {
    fn check(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        match value {
            Value::String(text) => self.check_string(text, path, errors),
            Value::Number(found) => {
                if let Some(found) = found.as_f64() {
                    self.check_number(found, value, path, errors);
                }
            }
            Value::Array(list) => self.check_list(list, path, errors),
            Value::Object(object) => {
                for name in &self.required {
                    if !object.contains_key(&**name) {
                        errors.push(Error::required(&path.child(name), ""));
                    }
                }
                let count = object.len() as u64;
                if self.properties_min.is_some_and(|min| count < min) {
                    let min = self.properties_min.unwrap_or_default();
                    let text = format!("{path} in body should have at least {min} properties");
                    errors.push(Error::invalid(path, count, text.trim_start()));
                }
                if let Some(max) = self.properties_max.filter(|max| count > *max) {
                    errors.push(Error::too_many(path, count.cast_signed(), max.cast_signed()));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) && !value.is_null() {
            let allowed: Vec<String> =
                self.allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
            errors.push(Error::not_supported(path, value.clone(), &allowed));
        }
        self.check_branches(value, path, errors);
    }

    fn check_string(&self, text: &str, path: &Path<'_>, errors: &mut Vec<Error>) {
        let length = || text.chars().count() as u64;
        if let Some(max) = self.length_max.filter(|max| length() > *max) {
            errors.push(Error::too_long(path, max.cast_signed()));
        }
        if let Some(min) = self.length_min.filter(|min| length() < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            errors.push(Error::invalid(path, text, detail.trim_start()));
        }
        if let Some(pattern) = &self.pattern
            && pattern.is_match(text) != Some(true)
        {
            let detail = format!("{path} in body should match '{}'", pattern.text);
            errors.push(Error::invalid(path, text, detail.trim_start()));
        }
        if let Some(name) = &self.format
            && format::is_valid(name, text) == Some(false)
        {
            let detail = format!("{path} in body must be of type {name}: {}", quote(text));
            errors.push(Error::type_invalid(path, text, detail.trim_start()));
        }
    }

    fn check_number(&self, found: f64, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        let mut fail = |detail: String| errors.push(Error::invalid(path, value.clone(), detail.trim_start()));
        if let Some(factor) = self.multiple_of.filter(|factor| *factor > 0.0) {
            let quotient = found / factor;
            if (quotient - quotient.round()).abs() > 1e-9 {
                fail(format!("{path} in body should be a multiple of {}", number(factor)));
            }
        }
        match self.maximum {
            Some(max) if self.exclusive_maximum && found >= max => {
                fail(format!("{path} in body should be less than {}", number(max)));
            }
            Some(max) if found > max => {
                fail(format!("{path} in body should be less than or equal to {}", number(max)));
            }
            _ => {}
        }
        match self.minimum {
            Some(min) if self.exclusive_minimum && found <= min => {
                fail(format!("{path} in body should be greater than {}", number(min)));
            }
            Some(min) if found < min => {
                fail(format!("{path} in body should be greater than or equal to {}", number(min)));
            }
            _ => {}
        }
        let fits = match self.format.as_deref() {
            Some("int32") => found >= f64::from(i32::MIN) && found <= f64::from(i32::MAX),
            Some("int64") => value.is_i64() || found.abs() < 9.3e18 && !value.is_u64(),
            _ => true,
        };
        if !fits {
            let name = self.format.as_deref().unwrap_or_default();
            let detail = format!("{path} in body must be of type {name}: {}", quote(&value.to_string()));
            errors.push(Error::type_invalid(path, value.clone(), detail.trim_start()));
        }
    }

    fn check_list(&self, list: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
        let count = list.len() as u64;
        if let Some(min) = self.items_min.filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            errors.push(Error::invalid(path, count, detail.trim_start()));
        }
        if let Some(max) = self.items_max.filter(|max| count > *max) {
            errors.push(Error::too_many(path, count.cast_signed(), max.cast_signed()));
        }
        if self.unique_items && list.iter().enumerate().any(|(at, one)| list[..at].contains(one)) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            errors.push(Error::invalid(path, "", detail.trim_start()));
        }
    }

    fn check_branches(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        let run = |schema: &Schema| {
            let mut found = Vec::new();
            schema.check(value, path, &mut found);
            found
        };
        let at = || quote(&path.to_string());
        let mut fail = |detail: String, best: Vec<Error>| {
            errors.push(Error::invalid(&Path::Root, "", &detail));
            errors.extend(best);
        };
        if !self.any_of.is_empty() {
            let results: Vec<_> = self.any_of.iter().map(|schema| run(schema)).collect();
            if !results.iter().any(Vec::is_empty) {
                fail(format!("{} must validate at least one schema (anyOf)", at()), best(results));
            }
        }
        if !self.one_of.is_empty() {
            let results: Vec<_> = self.one_of.iter().map(|schema| run(schema)).collect();
            match results.iter().filter(|found| found.is_empty()).count() {
                1 => {}
                0 => {
                    let text = format!("{} must validate one and only one schema (oneOf). Found none valid", at());
                    fail(text, best(results));
                }
                many => {
                    let found = format!("Found {many} valid alternatives");
                    fail(format!("{} must validate one and only one schema (oneOf). {found}", at()), Vec::new());
                }
            }
        }
        if !self.all_of.is_empty() {
            let results: Vec<_> = self.all_of.iter().map(|schema| run(schema)).collect();
            let valid = results.iter().filter(|found| found.is_empty()).count();
            if valid < results.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                let all = results.into_iter().flatten().collect();
                fail(format!("{} must validate all the schemas (allOf){none}", at()), all);
            }
        }
        if let Some(not) = &self.not
            && run(not).is_empty()
        {
            fail(format!("{} must not validate the schema (not)", at()), Vec::new());
        }
    }
}

/// Returns the errors of the branch that came closest.
fn best(results: Vec<Vec<Error>>) -> Vec<Error> {
    results.into_iter().min_by_key(Vec::len).unwrap_or_default()
}
