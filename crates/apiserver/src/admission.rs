//! The embedder's say in every write.

use async_trait::async_trait;
use serde_json::Value;

use crate::failure::Failure;
use crate::user::User;

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A new state of an object.
    Update,
    /// An object is to go.
    Delete,
}

/// One write, before it is stored.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// What happens.
    pub operation: Operation,
    /// API group; empty for core.
    pub group: String,
    /// Version of the request.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Plural name.
    pub resource: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
    /// Name; already generated where it was to be.
    pub name: String,
    /// New state, defaulted and pruned; `Null` for a deletion.
    pub object: Value,
    /// State before; `Null` for a creation.
    pub old_object: Value,
    /// Who asks.
    pub user: User,
    /// Whether the write will be thrown away.
    pub dry_run: bool,
}

/// A write let through.
#[derive(Clone, Debug, Default)]
pub struct Admitted {
    /// What to store: the object of the request, changed or not (ignored for deletions).
    pub object: Value,
    /// Sent to the client as `Warning` headers.
    pub warnings: Vec<String>,
}

/// A write refused.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Name of the webhook that this decision stands for; puts `admission webhook "NAME" denied the request: ` first.
    pub webhook: Option<String>,
    /// HTTP code, 403 where the rule has no better one.
    pub code: u16,
    /// Machine-readable reason; empty means the usual one of the code.
    pub reason: String,
    /// Text for the user.
    pub message: String,
    /// `details` of the Status; `Null` for none.
    pub details: Value,
}

impl Denial {
    /// Returns the refusal of a webhook: code 403, reason Forbidden, as a webhook that only says "no" has it.
    pub fn webhook(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            webhook: Some(name.into()),
            code: 403,
            reason: "Forbidden".into(),
            message: message.into(),
            details: Value::Null,
        }
    }
}

/// Decides on writes of main resources, after decoding and defaulting and before storing.
///
/// Status and other subresources do not pass here.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Lets a write through, perhaps changed, or refuses it. What it says of `metadata.managedFields` counts for nothing.
    async fn admit(&self, request: AdmissionRequest) -> Result<Admitted, Denial>;

    /// Returns whether writes of this API group are to be shown to it; the others are not copied for it.
    fn concerns(&self, _group: &str) -> bool {
        true
    }
}

/// Lets everything through.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

#[async_trait]
impl Admission for AdmitAll {
    async fn admit(&self, request: AdmissionRequest) -> Result<Admitted, Denial> {
        Ok(Admitted { object: request.object, warnings: Vec::new() })
    }

    fn concerns(&self, _group: &str) -> bool {
        false
    }
}

/// The reply to a refused write.
pub(crate) fn refusal(denial: Denial) -> Failure {
    let message = match &denial.webhook {
        Some(name) if denial.message.is_empty() => {
            format!("admission webhook {name:?} denied the request without explanation")
        }
        Some(name) => format!("admission webhook {name:?} denied the request: {}", denial.message),
        None => denial.message,
    };
    let reason = match (denial.reason.as_str(), denial.code) {
        ("", 400) => "BadRequest",
        ("", 403) => "Forbidden",
        ("", 404) => "NotFound",
        ("", 409) => "Conflict",
        ("", 422) => "Invalid",
        ("", _) => "InternalError",
        (reason, _) => reason,
    };
    let mut failure = Failure::new(denial.code, reason, &message);
    if !denial.details.is_null() {
        failure.body["details"] = denial.details;
    }
    failure
}
