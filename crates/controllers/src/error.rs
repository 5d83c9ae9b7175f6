//! Why a pass did not finish, typed by who must act next.

use std::time::Duration;

use kratix_core::plan::Write;

const CREATE: &str = "create";

/// What brings a failed pass back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// A newer object is on its way to the cache: at once, silently.
    Soon,
    /// Network, overload, refused push: exponential, capped, with jitter.
    Backoff,
    /// A person must change something first: a slow safety net, since the cure may lie where no watch sees it.
    OnChange,
}

/// Why a pass did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The API server refused or lost a write.
    #[error("{verb} of {target} failed: {}", text_of(source))]
    Write {
        /// What was tried: `create`, `patch`, `status patch` or `delete`.
        verb: &'static str,
        /// Kind, namespace and name.
        target: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
    /// The API server refused or lost a read.
    #[error("reading {target} failed: {}", text_of(source))]
    Read {
        /// Kind, namespace and name.
        target: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
    /// The name of an object that is to be made is in use.
    #[error("{target} exists and is not of this Promise; delete or rename it")]
    Taken {
        /// Kind, namespace and name.
        target: String,
    },
    /// A refusal that the object itself tells, in its conditions and by an event.
    #[error(transparent)]
    Told(Box<Error>),
    /// Nothing has failed: what the last pass made is not in the caches yet, and a pass without it would make it again.
    #[error("what the last pass made is still on its way")]
    Unseen {
        /// When to look again if no watch brings it sooner.
        after: Duration,
    },
}

impl Error {
    pub(crate) fn write(write: &Write, source: kube::Error) -> Self {
        let verb = match write {
            Write::Create { .. } => CREATE,
            Write::Patch { .. } => "patch",
            Write::PatchStatus { .. } => "status patch",
            Write::Delete { .. } => "delete",
        };
        let (kind, key) = write.address();
        Self::Write { verb, target: format!("{} {key}", kind.kind), source: Box::new(source) }
    }

    pub(crate) fn read(target: impl ToString, source: kube::Error) -> Self {
        Self::Read { target: target.to_string(), source: Box::new(source) }
    }

    pub(crate) fn retry(&self) -> Retry {
        match self {
            // What is to be made has no place yet, a namespace or a kind: no watch tells when it has.
            Self::Write { verb: CREATE, source, .. } if code(source) == Some(404) => Retry::Backoff,
            Self::Write { source, .. } | Self::Read { source, .. } => match code(source) {
                // Both mean that the snapshot was older than the object: its successor is on its way.
                Some(404 | 409) => Retry::Soon,
                Some(400 | 403 | 405 | 413 | 415 | 422) => Retry::OnChange,
                _ => Retry::Backoff,
            },
            Self::Taken { .. } => Retry::OnChange,
            Self::Told(error) => error.retry(),
            Self::Unseen { .. } => Retry::Soon,
        }
    }

    /// Returns whether the API server has understood and said no: it will say so again until somebody changes something.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Write { verb: CREATE, source, .. } if code(source) == Some(404) => true,
            Self::Write { .. } | Self::Taken { .. } => self.retry() == Retry::OnChange,
            Self::Told(error) => error.is_refusal(),
            Self::Read { .. } | Self::Unseen { .. } => false,
        }
    }

    /// Returns whether the write may have been executed although no reply says so.
    pub(crate) fn may_have_happened(&self) -> bool {
        matches!(self, Self::Write { source, .. } if is_lost(source))
    }

    /// Returns a CamelCase category: a metric label, never a message.
    pub(crate) fn category(&self) -> &'static str {
        match self {
            Self::Write { source, .. } | Self::Read { source, .. } => match code(source) {
                Some(409) => "Conflict",
                Some(404) => "NotFound",
                Some(403) => "Forbidden",
                Some(400 | 422) => "Invalid",
                Some(429) => "TooManyRequests",
                Some(_) => "ServerError",
                None => "Unreachable",
            },
            Self::Taken { .. } => "Conflict",
            Self::Told(error) => error.category(),
            Self::Unseen { .. } => "Unseen",
        }
    }
}

/// Returns whether what was asked for may have been done although no reply says so.
pub(crate) fn is_lost(source: &kube::Error) -> bool {
    code(source).is_none_or(|code| code >= 500)
}

/// Returns what the API server says, without the client's wrapping.
pub(crate) fn text_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("{} ({})", status.reason, status.code),
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kratix_core::object::{Kind, ObjectKey, Target};

    fn failed(write: &Write, code: u16) -> Error {
        let status = kube::core::Status::failure("m", "r").with_code(code);
        Error::write(write, kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_text_holds_what_the_api_server_says_and_no_debug_output() {
        let write = Write::create(
            Kind::new("", "v1", "ConfigMap", "configmaps"),
            serde_json::json!({ "metadata": { "name": "a", "namespace": "n" } }),
        );
        assert_eq!(failed(&write, 403).to_string(), "create of ConfigMap n/a failed: m");
        let silent = kube::core::Status::failure("", "Forbidden").with_code(403).boxed();
        let read = Error::read("Job n/a", kube::Error::Api(silent));
        assert_eq!(Error::Told(Box::new(read)).to_string(), "reading Job n/a failed: Forbidden (403)");
    }

    #[test]
    fn what_is_missing_on_creation_is_told_and_what_is_gone_is_not() {
        let target = Target {
            kind: Kind::new("batch", "v1", "Job", "jobs"),
            key: ObjectKey::namespaced("absent", "a"),
            uid: None,
            resource_version: None,
        };
        let object = serde_json::json!({ "metadata": { "name": "a", "namespace": "absent" } });
        let create = Write::create(target.kind.clone(), object);
        let patch = Write::Patch { target, patch: serde_json::Value::Null };
        for (write, code, retry, is_refusal) in [
            (&create, 404, Retry::Backoff, true),
            (&patch, 404, Retry::Soon, false),
            (&create, 409, Retry::Soon, false),
            (&create, 403, Retry::OnChange, true),
            (&patch, 422, Retry::OnChange, true),
            (&patch, 503, Retry::Backoff, false),
        ] {
            let error = failed(write, code);
            assert_eq!((error.retry(), error.is_refusal()), (retry, is_refusal), "{error}");
        }
    }
}
