//! Why a pass did not finish, typed by who must act next.

use kratix_core::plan::Write;

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
    #[error("{verb} of {target} failed: {source}")]
    Write {
        /// What was tried: `create`, `patch`, `status patch` or `delete`.
        verb: &'static str,
        /// Kind, namespace and name.
        target: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
    /// The API server refused or lost a read.
    #[error("reading {target} failed: {source}")]
    Read {
        /// Kind, namespace and name.
        target: String,
        /// The API server's answer.
        source: Box<kube::Error>,
    },
    /// A state store did not do what was asked; the object's status says why.
    #[error("{message}")]
    Store {
        /// The store's own words.
        message: String,
        /// What brings the pass back.
        retry: Retry,
    },
}

impl Error {
    pub(crate) fn write(write: &Write, source: kube::Error) -> Self {
        let verb = match write {
            Write::Create { .. } => "create",
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
            Self::Write { source, .. } | Self::Read { source, .. } => match code(source) {
                // Both mean that the snapshot was older than the object: its successor is on its way.
                Some(404 | 409) => Retry::Soon,
                Some(400 | 403 | 405 | 413 | 415 | 422) => Retry::OnChange,
                _ => Retry::Backoff,
            },
            Self::Store { retry, .. } => *retry,
        }
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
            Self::Store { .. } => "StateStore",
        }
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
