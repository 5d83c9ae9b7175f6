//! Checking values, with the texts of the real server.
//!
//! The order of checks, which of them hide others, and how numbers are compared and shown is that of kube-openapi's
//! validator, oddities included: what a client sees is compared with the real server.

use serde_json::{Map, Value};

use super::number::{self, Number};
use super::{Additional, Checks, Kind, List, Schema, element_key, format};
use crate::field::{Error, Mistake, Path, quote};

/// What is added when CEL rules could not run because the value has the wrong shape.
const RULES_SKIPPED: &str = "some validation rules were not checked because the object was invalid; correct the \
                             existing errors to complete validation";

impl Schema {
    /// Returns every violation, CEL rules included; `old` is the object before an update.
    ///
    /// Parts that an update leaves as they were are not held against it, so that a schema may become stricter.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        let mut errors = self.check(object, None, &Path::Root).errors;
        // Only what is wrong is compared with what was.
        if let Some(value) = old.filter(|_| !errors.is_empty()) {
            errors = self.check(object, Some(Old { spine: self, value }), &Path::Root).errors;
        }
        self.check_embedded(object, &Path::Root, &mut errors);
        let of_lists = self.list_errors(object);
        if !of_lists.is_empty() && old.is_none_or(|old| self.list_errors(old).is_empty()) {
            errors.extend(of_lists);
        }
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

    /// Returns the violations of a value that is not a whole object, such as a default; `at` is its path.
    pub(crate) fn validate_part(&self, value: &Value, at: &str) -> Vec<Error> {
        let path = Path::Root.child(at);
        if let Err(error) = self.decode_embedded(&mut value.clone(), &path) {
            return vec![error];
        }
        let mut errors = Vec::new();
        self.check_embedded(value, &path, &mut errors);
        if errors.is_empty() {
            // Texts name the place in the value, paths the place in what holds it.
            let below = |error: Error| match error.field.as_str() {
                "<nil>" => Error { field: at.to_owned(), ..error },
                field => Error { field: format!("{at}.{field}"), ..error },
            };
            errors.extend(self.check(value, None, &Path::Root).errors.into_iter().map(below));
        }
        if errors.is_empty() {
            self.check_part_rules(value, &path, &mut errors);
        }
        errors
    }

    /// Checks a value; what is wrong with one that is as it was does not count.
    fn check(&self, value: &Value, old: Option<Old<'_>>, path: &Path<'_>) -> Outcome {
        let mut outcome = self.check_node(value, old, path);
        if !outcome.errors.is_empty() && old.is_some_and(|old| old.spine.is_unchanged(value, old.value)) {
            outcome.errors.clear();
        }
        outcome
    }

    fn check_node(&self, value: &Value, old: Option<Old<'_>>, path: &Path<'_>) -> Outcome {
        let mut out = Outcome::default();
        let checks = self.checks.as_deref();
        let format = checks.and_then(Checks::known_format);
        if value.is_null() {
            out.matches = self.check_type(value, format, path, &mut out.errors);
            out.extend(checks.and_then(|checks| checks.check_allowed(value, path)));
            return out;
        }
        if self.kind != Kind::Any || format.is_some() {
            out.matches = 1 + self.check_type(value, format, path, &mut out.errors);
        }
        // Every check that applies counts, and so does the node.
        out.matches += 4;
        out.merge(checks.map(|checks| checks.check_branches(value, path)).unwrap_or_default());
        match value {
            Value::String(text) => {
                out.extend(checks.and_then(|checks| checks.check_string(text, path)));
                out.extend(format.and_then(|format| check_format(format, text, path)));
                out.matches += 1 + usize::from(format.is_some());
            }
            Value::Number(found) => {
                let found = Number::from(found);
                out.extend(checks.into_iter().flat_map(|checks| checks.check_number(found, value, path)));
                out.matches += 2;
            }
            Value::Array(list) => {
                self.check_elements(list, old, path, &mut out);
                out.extend(checks.into_iter().flat_map(|checks| checks.check_list(list, path)));
                out.matches += 2;
            }
            Value::Object(_) | Value::Bool(_) | Value::Null => {}
        }
        out.extend(checks.and_then(|checks| checks.check_allowed(value, path)));
        if let Value::Object(object) = value {
            out.extend(checks.into_iter().flat_map(|checks| checks.check_properties(object, path)));
            self.check_fields(object, old, path, &mut out);
            out.extend(checks.into_iter().flat_map(|checks| checks.check_required(object, path)));
            out.matches += 1;
        }
        out
    }

    /// Returns 1 if the value has the right type.
    fn check_type(&self, value: &Value, format: Option<&str>, path: &Path<'_>, errors: &mut Vec<Error>) -> usize {
        let found = type_name(value);
        if value.is_null() {
            if self.kind == Kind::Any || self.nullable {
                return 1;
            }
            errors.push(type_error(path, self.kind.name(), found));
            return 0;
        }
        let fits = self.kind.admits(value);
        match (format, value) {
            // A string format says enough of strings and lists, unless numbers are wanted.
            (Some(_), Value::String(_) | Value::Array(_)) if !self.kind.is_numeric() => 1,
            (Some(format), Value::Number(_) | Value::Bool(_) | Value::Object(_)) if !fits => {
                errors.push(type_error(path, format, number::format_name(value)));
                0
            }
            _ if !fits => {
                errors.push(type_error(path, self.kind.name(), found));
                0
            }
            _ => 1,
        }
    }

    fn check_fields(&self, object: &Map<String, Value>, old: Option<Old<'_>>, path: &Path<'_>, out: &mut Outcome) {
        for (name, value) in object {
            let schema = match (self.properties.get(name.as_str()), &self.additional) {
                (Some(schema), _) | (None, Additional::Of(schema)) => schema,
                (None, _) => continue,
            };
            // Both objects are shown in one version, so that these two never tell whether something was there before.
            let is_type = matches!((path, name.as_str()), (Path::Root, "apiVersion" | "kind"));
            let before = old.filter(|_| !is_type).and_then(|old| old.field(name));
            out.merge(schema.check(value, before, &path.child(name)));
        }
    }

    fn check_elements(&self, list: &[Value], old: Option<Old<'_>>, path: &Path<'_>, out: &mut Outcome) {
        let Some(items) = &self.items else { return };
        for (index, element) in list.iter().enumerate() {
            let before = old.and_then(|old| old.element(element));
            out.merge(items.check(element, before, &path.index(index)));
        }
    }
}

/// What a value was before an update, and the schema that says what belongs together.
#[derive(Clone, Copy)]
struct Old<'a> {
    spine: &'a Schema,
    value: &'a Value,
}

impl<'a> Old<'a> {
    fn field(self, name: &str) -> Option<Self> {
        let value = self.value.as_object()?.get(name)?;
        Some(Self { spine: self.spine.field(name)?, value })
    }

    /// Finds the old element with the keys of `element`; other lists than maps are taken as a whole.
    fn element(self, element: &Value) -> Option<Self> {
        let items = self.spine.items.as_deref()?;
        Some(Self { spine: items, value: self.spine.twin(Some(self.value), element)? })
    }
}

impl Schema {
    /// Returns the element of `old`, a list, that has the keys of `element`.
    pub(super) fn twin<'a>(&self, old: Option<&'a Value>, element: &Value) -> Option<&'a Value> {
        let List::Map(keys) = &self.list else { return None };
        let items = self.items.as_deref();
        if keys.iter().any(|key| element.get(&**key).is_none()) {
            return None;
        }
        let key = element_key(keys, items, element)?;
        old?.as_array()?.iter().find(|twin| element_key(keys, items, twin).as_ref() == Some(&key))
    }

    /// Returns whether a value is what it was, as far as the schema can tell: the order of keyed elements does not
    /// matter, and a field that no schema describes is never known to be the same.
    pub(super) fn is_unchanged(&self, new: &Value, old: &Value) -> bool {
        match (new, old) {
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len()
                    && new.iter().all(|(name, value)| match (self.field(name), old.get(name)) {
                        (Some(schema), Some(before)) => schema.is_unchanged(value, before),
                        _ => false,
                    })
            }
            (Value::Array(list), Value::Array(before)) => match (&self.list, &self.items) {
                (List::Map(_), Some(items)) => {
                    let is_same =
                        |one: &Value| self.twin(Some(old), one).is_some_and(|had| items.is_unchanged(one, had));
                    list.len() == before.len() && list.iter().all(is_same)
                }
                _ => new == old,
            },
            _ => new == old,
        }
    }
}

/// What is wrong with a value, and how many checks went well: the branch of an `anyOf` where most did is the one that
/// was meant.
#[derive(Default)]
struct Outcome {
    errors: Vec<Error>,
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.extend(other.errors);
        self.matches += other.matches;
    }

    /// Adds errors, but none twice: branches often find what others found.
    fn extend(&mut self, errors: impl IntoIterator<Item = Error>) {
        for error in errors {
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
    }
}

impl Kind {
    fn admits(self, value: &Value) -> bool {
        match self {
            Kind::Any => false,
            Kind::Object => value.is_object(),
            Kind::Array => value.is_array(),
            Kind::String => value.is_string(),
            Kind::Integer => number::is_integer(value),
            Kind::Number => value.is_number(),
            Kind::Boolean => value.is_boolean(),
            Kind::IntOrString => number::is_integer(value) || value.is_string(),
        }
    }

    fn is_numeric(self) -> bool {
        matches!(self, Kind::Integer | Kind::Number | Kind::IntOrString)
    }

    pub(super) fn name(self) -> &'static str {
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

/// Names the JSON type of a value.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(found) => match Number::from(found) {
            Number::Whole(_) => "integer",
            Number::Float(_) => "number",
        },
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn type_error(path: &Path<'_>, wanted: &str, found: &str) -> Error {
    Error::type_invalid(path, found, &format!("{path} in body must be of type {wanted}: {}", quote(found)))
}

fn check_format(format: &str, text: &str, path: &Path<'_>) -> Option<Error> {
    (format::is_valid(format, text) == Some(false)).then(|| type_error(path, format, text))
}

impl Checks {
    /// Returns the format if it is one that is checked; others say nothing.
    fn known_format(&self) -> Option<&str> {
        self.format.as_deref().filter(|format| format::is_valid(format, "").is_some())
    }

    fn check_allowed(&self, value: &Value, path: &Path<'_>) -> Option<Error> {
        if self.allowed.is_empty() || self.allowed.iter().any(|allowed| number::is_same(value, allowed)) {
            return None;
        }
        let allowed: Vec<String> =
            self.allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        Some(Error::not_supported(path, value.clone(), &allowed))
    }

    /// Stops at the first mistake.
    fn check_string(&self, text: &str, path: &Path<'_>) -> Option<Error> {
        let length = || text.chars().count() as u64;
        if let Some(max) = self.length_max.filter(|max| length() > *max) {
            return Some(Error::too_long(path, max.cast_signed()));
        }
        if let Some(min) = self.length_min.filter(|min| length() < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            return Some(Error::invalid(path, text, &detail));
        }
        let pattern = self.pattern.as_ref().filter(|pattern| pattern.is_match(text) != Some(true))?;
        Some(Error::invalid(path, text, &format!("{path} in body should match '{}'", pattern.text)))
    }

    fn check_number(&self, found: Number, value: &Value, path: &Path<'_>) -> Vec<Error> {
        let mut errors = Vec::new();
        if let Some(factor) = self.multiple_of.map(|factor| found.limit(factor)) {
            if !factor.is_positive() {
                let detail = format!("factor MultipleOf declared for {path} must be positive: {factor}");
                errors.push(Error::invalid(path, factor.value(), &detail));
            } else if !found.is_multiple_of(factor) {
                let detail = format!("{path} in body should be a multiple of {factor}");
                errors.push(Error::invalid(path, value.clone(), &detail));
            }
        }
        let mut fail = |detail: String| errors.push(Error::invalid(path, value.clone(), &detail));
        if let Some(min) = self.minimum.map(|min| found.limit(min))
            && !(found.is_above(min) || (!self.exclusive_minimum && found.equals(min)))
        {
            let how = if self.exclusive_minimum { "greater than" } else { "greater than or equal to" };
            fail(format!("{path} in body should be {how} {min}"));
        }
        if let Some(max) = self.maximum.map(|max| found.limit(max))
            && !(max.is_above(found) || (!self.exclusive_maximum && found.equals(max)))
        {
            let how = if self.exclusive_maximum { "less than" } else { "less than or equal to" };
            fail(format!("{path} in body should be {how} {max}"));
        }
        errors
    }

    fn check_list(&self, list: &[Value], path: &Path<'_>) -> Vec<Error> {
        let mut errors = Vec::new();
        let count = list.len() as u64;
        if let Some(min) = self.items_min.filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} items");
            errors.push(Error::invalid(path, count, &detail));
        }
        if let Some(max) = self.items_max.filter(|max| count > *max) {
            errors.push(Error::too_many(path, count.cast_signed(), max.cast_signed()));
        }
        if self.unique_items && list.iter().enumerate().any(|(at, one)| list[..at].contains(one)) {
            errors.push(Error::invalid(path, "", &format!("{path} in body shouldn't contain duplicates")));
        }
        errors
    }

    fn check_properties(&self, object: &Map<String, Value>, path: &Path<'_>) -> Vec<Error> {
        let mut errors = Vec::new();
        let count = object.len() as u64;
        if let Some(min) = self.properties_min.filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} properties");
            errors.push(Error::invalid(path, count, &detail));
        }
        if let Some(max) = self.properties_max.filter(|max| count > *max) {
            errors.push(Error::too_many(path, count.cast_signed(), max.cast_signed()));
        }
        errors
    }

    fn check_required(&self, object: &Map<String, Value>, path: &Path<'_>) -> Vec<Error> {
        let missing = self.required.iter().filter(|name| !object.contains_key(&***name));
        missing.map(|name| Error::required(&path.child(name), "")).collect()
    }

    /// What branches say holds for the value as a whole: they do not ask what parts of it were before.
    fn check_branches(&self, value: &Value, path: &Path<'_>) -> Outcome {
        let mut out = Outcome::default();
        let run = |schema: &Schema| schema.check_node(value, None, path);
        let at = quote(&path.to_string());
        let composite = |detail: String| Error::invalid(&Path::Root, "", &detail);
        if !self.any_of.is_empty() {
            let (success, best) = tried(self.any_of.iter().map(|schema| run(schema)), Until::FirstSuccess);
            if success.is_none() {
                out.extend([composite(format!("{at} must validate at least one schema (anyOf)"))]);
            }
            out.merge(success.map(|(first, _)| first).or(best).unwrap_or_default());
        }
        if !self.one_of.is_empty() {
            let (success, best) = tried(self.one_of.iter().map(|schema| run(schema)), Until::End);
            let fail =
                |found: String| composite(format!("{at} must validate one and only one schema (oneOf). {found}"));
            match success {
                Some((first, 1)) => out.merge(first),
                Some((_, many)) => out.extend([fail(format!("Found {many} valid alternatives"))]),
                None => {
                    out.extend([fail("Found none valid".to_owned())]);
                    out.merge(best.unwrap_or_default());
                }
            }
        }
        if !self.all_of.is_empty() {
            let mut valid = 0;
            for outcome in self.all_of.iter().map(|schema| run(schema)) {
                valid += usize::from(outcome.errors.is_empty());
                out.merge(outcome);
            }
            if valid < self.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                out.extend([composite(format!("{at} must validate all the schemas (allOf){none}"))]);
            }
        }
        if self.not.as_ref().is_some_and(|not| run(not).errors.is_empty()) {
            out.extend([composite(format!("{at} must not validate the schema (not)"))]);
        }
        out
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    FirstSuccess,
    End,
}

/// Goes through the outcomes of branches: the first success and how many there are, or the failure that came closest.
fn tried(outcomes: impl Iterator<Item = Outcome>, until: Until) -> (Option<(Outcome, usize)>, Option<Outcome>) {
    let (mut success, mut best): (Option<(Outcome, usize)>, Option<Outcome>) = (None, None);
    for outcome in outcomes {
        if outcome.errors.is_empty() {
            success = Some(success.map_or((outcome, 1), |(first, count)| (first, count + 1)));
            if until == Until::FirstSuccess {
                break;
            }
        } else if best.as_ref().is_none_or(|best| outcome.matches > best.matches) {
            best = Some(outcome);
        }
    }
    (success, best)
}
