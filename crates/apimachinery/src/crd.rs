//! CustomResourceDefinitions: validity, acceptance, and the resources they define.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::field;
use crate::resource::Resource;
use crate::schema::Schema;

/// One version of a CRD, parsed.
#[derive(Debug)]
pub struct Version {
    schema: Arc<Schema>,
}

impl Version {
    /// Returns the schema of the whole object, metadata included.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }
}

/// Fills in what the server defaults in a CRD: singular, listKind, conversion, storage of one version.
pub fn default(crd: &mut Value) {
    let _ = crd;
}

/// Returns the mistakes of a CRD; `old` is given on update.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<field::Error> {
    let _ = (crd, old);
    Vec::new()
}

/// Returns the resources of the served versions, in discovery's order of preference.
///
/// Parsing compiles nothing: CEL programs and patterns are compiled at first use and kept.
pub fn resources(crd: &Value) -> Vec<Arc<Resource>> {
    let _ = crd;
    Vec::new()
}

/// Sets the status that the CRD controllers would reach: accepted names, `NamesAccepted`, `Established`,
/// `storedVersions`; with a conflict of names against `others` (other CRDs and built-ins) `NamesAccepted` is false.
/// Returns whether anything changed.
pub fn establish(crd: &mut Value, others: &[Arc<Resource>], now: Timestamp) -> bool {
    let _ = (crd, others, now);
    false
}

/// Converts an object between versions of one CRD with strategy `None`: only apiVersion changes.
pub fn convert(object: &mut Value, api_version: &str) {
    object["apiVersion"] = Value::from(api_version);
}
