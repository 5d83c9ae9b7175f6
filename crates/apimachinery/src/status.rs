//! The `Status` error object that every failed request answers with.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::field;

/// A failed request: HTTP code and body.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    code: u16,
    body: Value,
}

/// The text of a conflict found by comparing `resourceVersion`.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Names a resource or a kind together with its group, for error texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qualified<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural resource name, or kind for [`Status::invalid`].
    pub name: &'a str,
}

impl<'a> Qualified<'a> {
    /// Names `name` in `group`.
    pub fn new(group: &'a str, name: &'a str) -> Self {
        Self { group, name }
    }
}

impl fmt::Display for Qualified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(self.name) } else { write!(f, "{}.{}", self.name, self.group) }
    }
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// CamelCase reason.
    pub reason: String,
    /// Explanation.
    pub message: String,
    /// Field path, may be empty.
    pub field: String,
}

impl Status {
    fn new(code: u16, reason: &str, message: String, details: Option<Value>) -> Self {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        if let Some(details) = details {
            body["details"] = details;
        }
        Self { code, body }
    }

    /// Returns the HTTP status code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Returns the JSON body.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// Returns the JSON body, consuming the error.
    pub fn into_body(self) -> Value {
        self.body
    }

    /// Returns the machine-readable reason.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    /// Returns the text that kubectl shows.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// Sets `details.retryAfterSeconds`.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.body["details"]["retryAfterSeconds"] = json!(seconds);
        self
    }

    /// Sets `details.uid`, which names one incarnation of the object.
    pub fn uid(mut self, uid: &str) -> Self {
        self.body["details"]["uid"] = json!(uid);
        self
    }

    /// The object does not exist.
    pub fn not_found(resource: Qualified<'_>, name: &str) -> Self {
        let message = format!("{resource} {} not found", field::quote(name));
        Self::new(404, "NotFound", message, Some(details(resource, name)))
    }

    /// The path names no resource that is served.
    pub fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(404, "NotFound", message, Some(json!({})))
    }

    /// An object of that name exists.
    pub fn already_exists(resource: Qualified<'_>, name: &str) -> Self {
        let message = format!("{resource} {} already exists", field::quote(name));
        Self::new(409, "AlreadyExists", message, Some(details(resource, name)))
    }

    /// Every generated name was taken.
    pub fn generate_name_conflict(resource: Qualified<'_>, name: &str) -> Self {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for the object",
            field::quote(name)
        );
        Self::new(409, "AlreadyExists", message, Some(details(resource, name))).retry_after(1)
    }

    /// The write was based on an old state; `why` is usually [`MODIFIED`].
    pub fn conflict(resource: Qualified<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", field::quote(name));
        Self::new(409, "Conflict", message, Some(details(resource, name)))
    }

    /// Server-side apply met fields that others own.
    pub fn apply_conflict(causes: &[Cause], message: String) -> Self {
        let causes: Vec<Value> = causes.iter().map(Cause::to_value).collect();
        Self::new(409, "Conflict", message, Some(json!({"causes": causes})))
    }

    /// The object breaks rules of its kind; `kind` holds the kind, not the resource.
    pub fn invalid(kind: Qualified<'_>, name: &str, errors: &[field::Error]) -> Self {
        let mut message = format!("{kind} {} is invalid", field::quote(name));
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [] => {}
            [one] => message = format!("{message}: {one}"),
            many => message = format!("{message}: [{}]", many.join(", ")),
        }
        let mut details = details(kind, name);
        if !errors.is_empty() {
            details["causes"] = errors.iter().map(field::Error::cause).collect();
        }
        Self::new(422, "Invalid", message, Some(details))
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), None)
    }

    /// Nobody is known by these credentials.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned(), None)
    }

    /// The user may not do this.
    pub fn forbidden(resource: Qualified<'_>, name: &str, why: &str) -> Self {
        let message = match (resource.name, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {} is forbidden: {why}", field::quote(name)),
        };
        Self::new(403, "Forbidden", message, Some(details(resource, name)))
    }

    /// The watch or list position is no longer held (410).
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message.into(), None)
    }

    /// The object or revision is gone for good (410).
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message.into(), None)
    }

    /// The resource knows no such action (405), for example `delete`.
    pub fn method_not_supported(resource: Qualified<'_>, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", field::quote(&resource.to_string()));
        Self::new(405, "MethodNotAllowed", message, Some(details(resource, "")))
    }

    /// The HTTP method is not served at this path (405).
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    /// No answer in a format the client accepts (406).
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message, None)
    }

    /// The body is in a format not understood here (415).
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message, None)
    }

    /// A patch is well formed and cannot be carried out on this object (422).
    pub fn unprocessable(why: &str) -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        let causes = json!([{"reason": "UnexpectedServerResponse", "message": why}]);
        Self::new(422, "Invalid", message, Some(json!({"causes": causes})))
    }

    /// A patch has more operations than the server carries out at once (413).
    pub fn too_many_operations(operations: usize, operations_max: usize) -> Self {
        let message = format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {operations_max}, got \
             {operations}"
        );
        Self::new(413, "RequestEntityTooLarge", message, None)
    }

    /// The body exceeds `bytes_max` (413).
    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("Request entity too large: limit is {bytes_max}");
        Self::new(413, "RequestEntityTooLarge", message, None)
    }

    /// The server sheds load (429).
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message.into(), None).retry_after(retry_after_seconds)
    }

    /// The server has failed (500).
    pub fn internal(error: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {error}");
        let details = json!({"causes": [{"message": error.to_string()}]});
        Self::new(500, "InternalError", message, Some(details))
    }

    /// The server cannot answer now (503).
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message.into(), None)
    }

    /// The request took longer than it may (504).
    pub fn timeout(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let message = format!("Timeout: {}", message.into());
        Self::new(504, "Timeout", message, None).retry_after(retry_after_seconds)
    }

    /// The object is of a group and version that the request path does not name (400).
    pub fn wrong_version(found: &str, expected: &str) -> Self {
        Self::bad_request(format!(
            "the API version in the data ({found}) does not match the expected API version ({expected})"
        ))
    }

    /// Returns the answer to a deletion that is complete.
    pub fn deleted(resource: Qualified<'_>, name: &str, uid: &str) -> Value {
        let mut details = details(resource, name);
        details["uid"] = json!(uid);
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Status {}

impl Cause {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !value.is_empty() {
                out.insert(key.to_owned(), Value::from(value.as_str()));
            }
        }
        Value::Object(out)
    }
}

fn details(of: Qualified<'_>, name: &str) -> Value {
    let mut out = Map::new();
    for (key, value) in [("name", name), ("group", of.group), ("kind", of.name)] {
        if !value.is_empty() {
            out.insert(key.to_owned(), Value::from(value));
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn texts_are_those_of_the_real_server() {
        let jobs = Qualified::new("batch", "jobs");
        let spec = Path::Root.child("spec");
        let one = [Error::required(&spec.child("x"), "")];
        let two = [one[0].clone(), Error::required(&spec.child("y"), ""), one[0].clone()];
        let cases = [
            (Status::not_found(jobs, "a"), 404, r#"jobs.batch "a" not found"#),
            (Status::already_exists(Qualified::new("", "pods"), "a"), 409, r#"pods "a" already exists"#),
            (
                Status::conflict(Qualified::new("", "pods"), "x", MODIFIED),
                409,
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes \
                 to the latest version and try again",
            ),
            (
                Status::invalid(Qualified::new("batch", "Job"), "n", &one),
                422,
                r#"Job.batch "n" is invalid: spec.x: Required value"#,
            ),
            (
                Status::invalid(Qualified::new("", "Pod"), "n", &two),
                422,
                r#"Pod "n" is invalid: [spec.x: Required value, spec.y: Required value]"#,
            ),
            (Status::forbidden(jobs, "", "no"), 403, "jobs.batch is forbidden: no"),
            (Status::internal("boom"), 500, "Internal error occurred: boom"),
        ];
        for (status, code, message) in cases {
            assert_eq!((status.code(), status.message()), (code, message));
            assert_eq!(status.body()["code"], code);
        }
    }

    #[test]
    fn invalid_lists_every_cause_with_its_field() {
        let errors = [Error::required(&Path::Root.child("spec").child("x"), "")];
        let status = Status::invalid(Qualified::new("batch", "Job"), "n", &errors);
        assert_eq!(
            status.body()["details"],
            json!({"name": "n", "group": "batch", "kind": "Job", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.x"}]})
        );
    }
}
