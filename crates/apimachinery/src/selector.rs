//! Label and field selectors.

use serde_json::{Map, Value};

use crate::resource::Resource;
use crate::status::Status;

/// A parsed label selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {}

impl Labels {
    /// Parses `a=b,c in (d,e),!f`.
    ///
    /// # Errors
    /// 400 with the text of the parser.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let _ = text;
        Ok(Self {})
    }

    /// Reads a `LabelSelector` object; `null` matches nothing, `{}` everything.
    ///
    /// # Errors
    /// 400 for unknown operators.
    pub fn from_object(selector: &Value) -> Result<Self, Status> {
        let _ = selector;
        Ok(Self {})
    }

    /// Returns whether every object matches.
    pub fn is_everything(&self) -> bool {
        true
    }

    /// Returns whether labels match; `None` is an object without labels.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let _ = labels;
        true
    }
}

/// A parsed field selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {}

impl Fields {
    /// Parses `metadata.name=a,status.phase!=Running`, refusing fields that the resource cannot select by.
    ///
    /// # Errors
    /// 400 with the text of the server, `field label not supported: x`.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, Status> {
        let _ = (resource, text);
        Ok(Self {})
    }

    /// Returns whether every object matches.
    pub fn is_everything(&self) -> bool {
        true
    }

    /// Returns the value that `field` must have, if the selector pins it (`metadata.name=x` reads one object).
    pub fn exact(&self, field: &str) -> Option<&str> {
        let _ = field;
        None
    }

    /// Returns whether the object matches.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        let _ = (resource, object);
        true
    }
}

pub(crate) fn field_value(resource: &Resource, object: &Value, field: &str) -> Option<String> {
    let _ = (resource, object, field);
    None
}
