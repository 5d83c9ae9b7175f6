//! A failed request on its way out.

use embedded_apimachinery::Status;
use serde_json::{Value, json};

/// An HTTP code with a `Status` body; unlike [`Status`] it can be added to.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Failure {
    pub(crate) fn new(code: u16, reason: &str, message: &str) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        Self { code, body }
    }

    /// Adds an entry to `details.causes`.
    pub(crate) fn cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let mut cause = json!({"reason": reason, "message": message});
        if !field.is_empty() {
            cause["field"] = json!(field);
        }
        match self.body["details"]["causes"].as_array_mut() {
            Some(causes) => causes.push(cause),
            None => self.body["details"]["causes"] = json!([cause]),
        }
        self
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.code == 409 && self.body["reason"] == "Conflict"
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == 404
    }

    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { code: status.code(), body: status.into_body() }
    }
}
