//! Takes settings out of a YAML mapping one by one, so that what is left over is what nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Error, Warning};

/// One mapping of the document.
pub(super) struct Section {
    path: String,
    /// Lower-cased key to the key as written and its value: keys match in any letter case.
    members: BTreeMap<String, (String, Value)>,
    warnings: Vec<Warning>,
}

/// A duration of either sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signed(i64);

impl Signed {
    /// Returns the duration if it is greater than zero.
    pub(super) fn positive(self) -> Option<Duration> {
        self.not_negative().filter(|duration| !duration.is_zero())
    }

    /// Returns the duration if it is zero or greater.
    pub(super) fn not_negative(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl Section {
    /// Reads the whole document; an empty one has no members.
    pub(super) fn document(text: &str) -> Result<Self, Error> {
        let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
        let parsed: Option<Value> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let cause = error.to_string();
            Error::Syntax { cause: cause.lines().next().unwrap_or_default().to_owned() }
        })?;
        match parsed {
            None | Some(Value::Null) => Ok(Self::new(String::new(), Map::new())),
            Some(Value::Object(members)) => Ok(Self::new(String::new(), members)),
            Some(Value::Array(_)) => Err(Error::NotAMapping { found: "a list" }),
            Some(Value::String(_)) => Err(Error::NotAMapping { found: "text" }),
            Some(Value::Number(_)) => Err(Error::NotAMapping { found: "a number" }),
            Some(Value::Bool(_)) => Err(Error::NotAMapping { found: "a boolean" }),
        }
    }

    fn new(path: String, members: Map<String, Value>) -> Self {
        let members = members.into_iter().map(|(key, value)| (key.to_lowercase(), (key, value))).collect();
        Self { path, members, warnings: Vec::new() }
    }

    /// Returns everything there is to say about this section; what was not taken is unknown.
    pub(super) fn finish(mut self) -> Vec<Warning> {
        let unknown: Vec<_> = self.members.into_values().map(|(key, _)| path_of(&self.path, &key)).collect();
        self.warnings.extend(unknown.into_iter().map(|key| Warning::UnknownKey { key }));
        self.warnings
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    pub(super) fn unreadable(&mut self, key: &str, value: &Value, expected: &'static str) {
        let key = path_of(&self.path, key);
        self.warnings.push(Warning::Unreadable { key, value: shown(value), expected });
    }

    pub(super) fn adjusted(&mut self, key: &str, value: &Value, consequence: &'static str) {
        let key = path_of(&self.path, key);
        self.warnings.push(Warning::Adjusted { key, value: shown(value), consequence });
    }

    /// Warns about the section as a whole.
    pub(super) fn adjusted_whole(&mut self, value: String, consequence: &'static str) {
        self.warnings.push(Warning::Adjusted { key: self.path.clone(), value, consequence });
    }

    /// Returns whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.members.contains_key(&key.to_lowercase())
    }

    /// Takes a value; `null` counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let (_, value) = self.members.remove(&key.to_lowercase())?;
        (!value.is_null()).then_some(value)
    }

    fn take_as<T>(&mut self, key: &str, expected: &'static str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(key)?;
        let read = read(&value);
        if read.is_none() {
            self.unreadable(key, &value, expected);
        }
        read
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        self.take_as(key, "true or false", Value::as_bool).unwrap_or(default)
    }

    pub(super) fn integer(&mut self, key: &str) -> Option<i64> {
        self.take_as(key, "a whole number", Value::as_i64)
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take_as(key, "text", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a duration and returns it with its spelling. An unquoted `0` is zero because users are told to write it.
    pub(super) fn duration(&mut self, key: &str) -> Option<(Value, Signed)> {
        self.take_as(key, "a duration such as 90s, 10m or 6h", |value| {
            let nanos = match value {
                Value::Number(number) if number.as_i64() == Some(0) => 0,
                Value::String(text) => text.parse::<kratix_api::Duration>().ok()?.as_nanoseconds(),
                _ => return None,
            };
            Some((value.clone(), Signed(nanos)))
        })
    }

    pub(super) fn decode<T: DeserializeOwned>(&mut self, key: &str, expected: &'static str) -> Option<T> {
        self.take_as(key, expected, |value| serde_json::from_value(value.clone()).ok())
    }

    /// Takes resource requirements; quantities may be written as numbers.
    pub(super) fn resources(&mut self, key: &str) -> Option<ResourceRequirements> {
        self.take_as(key, "a ResourceRequirements object", |value| {
            let mut value = value.clone();
            for side in ["requests", "limits"] {
                let quantities = value.get_mut(side).and_then(Value::as_object_mut);
                for quantity in quantities.into_iter().flat_map(|members| members.values_mut()) {
                    if quantity.is_number() {
                        *quantity = Value::String(quantity.to_string());
                    }
                }
            }
            serde_json::from_value(value).ok()
        })
    }

    /// Takes a mapping of text to text, trimmed on both sides. Its values are secret and never shown.
    pub(super) fn headers(&mut self, key: &str) -> BTreeMap<String, String> {
        let Some(value) = self.take(key) else {
            return BTreeMap::new();
        };
        let Value::Object(members) = value else {
            self.unreadable(key, &Value::String("(not shown)".into()), "a mapping of text to text");
            return BTreeMap::new();
        };
        let mut headers = BTreeMap::new();
        for (name, value) in members {
            match value.as_str() {
                Some(text) => {
                    headers.insert(name.trim().to_owned(), text.trim().to_owned());
                }
                None => {
                    let key = format!("{key}.{name}");
                    self.unreadable(&key, &Value::String("(not shown)".into()), "text");
                }
            }
        }
        headers
    }

    /// Reads a nested section with `read`; an absent or unreadable one counts as empty.
    pub(super) fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Section) -> T) -> T {
        let members = match self.take(key) {
            Some(Value::Object(members)) => members,
            None => Map::new(),
            Some(other) => {
                self.unreadable(key, &other, "a mapping of settings");
                Map::new()
            }
        };
        let mut section = Section::new(path_of(&self.path, key), members);
        let read = read(&mut section);
        self.warnings.extend(section.finish());
        read
    }
}

fn path_of(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Renders a value for a message: JSON, one line, at most 80 characters.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 80 {
        return text;
    }
    let cut: String = text.chars().take(79).collect();
    format!("{cut}…")
}
