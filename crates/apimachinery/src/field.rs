//! Field paths and the errors that name them, in the words of the Kubernetes API.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// A position in an object, built on the stack while walking down.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field of the parent.
    Child(&'a Path<'a>, &'a str),
    /// An element of the parent list.
    Index(&'a Path<'a>, usize),
    /// An entry of the parent map, or an element of a list known by its key.
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    /// Returns the path of field `name` below this one.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path::Child(self, name)
    }

    /// Returns the path of element `index` below this one.
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    /// Returns the path of entry `key` below this one.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    fn is_root(&self) -> bool {
        matches!(self, Path::Root)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Child(parent, name) if parent.is_root() => f.write_str(name),
            Path::Child(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// What kind of mistake a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The value refers to something that does not exist.
    NotFound,
    /// A needed value is absent.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// The value is malformed or out of bounds.
    Invalid,
    /// The value is not one of a fixed set.
    NotSupported,
    /// The field may not be set, or not changed, here.
    Forbidden,
    /// The string is too long.
    TooLong,
    /// The list is too long.
    TooMany,
    /// Something failed inside the server.
    Internal,
    /// The value has the wrong JSON type.
    TypeInvalid,
}

impl Mistake {
    /// Returns the machine-readable reason that `Status` causes carry.
    pub fn reason(self) -> &'static str {
        match self {
            Mistake::NotFound => "FieldValueNotFound",
            Mistake::Required => "FieldValueRequired",
            Mistake::Duplicate => "FieldValueDuplicate",
            Mistake::Invalid => "FieldValueInvalid",
            Mistake::NotSupported => "FieldValueNotSupported",
            Mistake::Forbidden => "FieldValueForbidden",
            Mistake::TooLong => "FieldValueTooLong",
            Mistake::TooMany => "FieldValueTooMany",
            Mistake::Internal => "InternalError",
            Mistake::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Mistake::NotFound => "Not found",
            Mistake::Required => "Required value",
            Mistake::Duplicate => "Duplicate value",
            Mistake::Invalid | Mistake::TypeInvalid => "Invalid value",
            Mistake::NotSupported => "Unsupported value",
            Mistake::Forbidden => "Forbidden",
            Mistake::TooLong => "Too long",
            Mistake::TooMany => "Too many",
            Mistake::Internal => "Internal error",
        }
    }
}

/// One mistake at one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What is wrong.
    pub mistake: Mistake,
    /// Where, `spec.containers[0].name`; the object itself is `<nil>`.
    pub field: String,
    /// The offending value and the explanation, without the field.
    pub body: String,
}

impl Error {
    fn new(mistake: Mistake, path: &Path<'_>, value: Option<&Value>, detail: &str) -> Self {
        let mut body = mistake.title().to_owned();
        if let Some(value) = value {
            body.push_str(": ");
            body.push_str(&show(value));
        }
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        let field = if path.is_root() { "<nil>".to_owned() } else { path.to_string() };
        Self { mistake, field, body }
    }

    /// A needed value is absent.
    pub fn required(path: &Path<'_>, detail: &str) -> Self {
        Self::new(Mistake::Required, path, None, detail)
    }

    /// The value is malformed or out of bounds.
    pub fn invalid(path: &Path<'_>, value: impl Into<Value>, detail: &str) -> Self {
        Self::new(Mistake::Invalid, path, Some(&value.into()), detail)
    }

    /// The value has the wrong JSON type; `found` names it.
    pub fn type_invalid(path: &Path<'_>, found: impl Into<Value>, detail: &str) -> Self {
        Self::new(Mistake::TypeInvalid, path, Some(&found.into()), detail)
    }

    /// The value is not one of `supported`.
    pub fn not_supported<S: AsRef<str>>(path: &Path<'_>, value: impl Into<Value>, supported: &[S]) -> Self {
        let list: Vec<String> = supported.iter().map(|one| quote(one.as_ref())).collect();
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::new(Mistake::NotSupported, path, Some(&value.into()), &detail)
    }

    /// The value occurs twice.
    pub fn duplicate(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::new(Mistake::Duplicate, path, Some(&value.into()), "")
    }

    /// The value names something that does not exist.
    pub fn not_found(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::new(Mistake::NotFound, path, Some(&value.into()), "")
    }

    /// The field may not be set here.
    pub fn forbidden(path: &Path<'_>, detail: &str) -> Self {
        Self::new(Mistake::Forbidden, path, None, detail)
    }

    /// The string is longer than `bytes_max`.
    pub fn too_long(path: &Path<'_>, bytes_max: i64) -> Self {
        let unit = if bytes_max == 1 { "byte" } else { "bytes" };
        Self::new(Mistake::TooLong, path, None, &format!("may not be more than {bytes_max} {unit}"))
    }

    /// The list holds `found` items.
    pub fn too_many(path: &Path<'_>, found: i64, items_max: i64) -> Self {
        let unit = if items_max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {items_max} {unit}");
        Self::new(Mistake::TooMany, path, Some(&Value::from(found)), &detail)
    }

    /// Checking itself failed.
    pub fn internal(path: &Path<'_>, detail: &str) -> Self {
        Self::new(Mistake::Internal, path, None, detail)
    }

    /// Returns the entry of `Status.details.causes`.
    pub fn cause(&self) -> Value {
        json!({"reason": self.mistake.reason(), "message": self.body, "field": self.field})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// Renders a value as error messages do: strings quoted, floats as Go prints them, the rest as JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Number(number) if !number.is_i64() => crate::text::float(number.as_f64().unwrap_or_default()),
        other => crate::text::json(other),
    }
}

/// Quotes `text` with the escapes of Go's `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_the_real_server_writes_them() {
        let spec = Path::Root.child("spec");
        let cases = [
            (Error::required(&spec.child("x"), ""), "spec.x: Required value"),
            (
                Error::not_supported(&spec.child("size"), "x", &["small", "large"]),
                r#"spec.size: Unsupported value: "x": supported values: "small", "large""#,
            ),
            (Error::duplicate(&spec.child("l").index(1), json!({"a": 1})), r#"spec.l[1]: Duplicate value: {"a":1}"#),
            (Error::invalid(&Path::Root, Value::Null, "why"), "<nil>: Invalid value: null: why"),
            (Error::too_long(&spec.key("k"), 63), "spec[k]: Too long: may not be more than 63 bytes"),
            (Error::too_many(&spec, 3, 2), "spec: Too many: 3: must have at most 2 items"),
        ];
        for (error, expected) in cases {
            assert_eq!(error.to_string(), expected);
        }
    }
}
