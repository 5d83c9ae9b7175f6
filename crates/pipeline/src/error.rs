//! Why a program of a workflow pod failed.

use std::io;
use std::path::PathBuf;

/// Why a program of a workflow pod failed. Texts name the file and the field, because the pod's log is all a user sees.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Arguments or environment.
    #[error("{0}")]
    Usage(String),
    /// No connection to the API server.
    #[error("failed to create Kubernetes client: {0}")]
    Client(#[source] kube::Error),
    /// A call to the API server.
    #[error("failed to {what}: {}", text_of(source))]
    Api {
        /// What was tried.
        what: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// A file could not be read or written.
    #[error("failed to {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in the output that is not written anywhere.
    #[error("refused {path:?} in the pipeline's output: {reason}")]
    Refused {
        /// Path below the output directory.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// More output than one Work can hold.
    #[error(
        "output of pipeline {pipeline} is too large: {bytes} bytes as stored in a Work, the limit is {bytes_max}; \
         largest file {largest:?} takes {largest_bytes}"
    )]
    TooLarge {
        /// The pipeline.
        pipeline: String,
        /// Size of the Work.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
        /// Path of the largest file.
        largest: String,
        /// What it takes of the Work.
        largest_bytes: usize,
    },
    /// `destination-selectors.yaml`.
    #[error("{0}")]
    Selectors(String),
    /// `workflow-control.yaml`.
    #[error("{0}")]
    Control(String),
    /// `status.yaml`.
    #[error("failed to load incoming status: {0}")]
    Status(String),
    /// The parent's status is not what the engine writes.
    #[error("{0}")]
    Parent(String),
    /// Several Works carry the labels of one.
    #[error("more than 1 work exist with the matching labels: map[{labels}]. Unable to update")]
    Ambiguous {
        /// The labels.
        labels: String,
    },
    /// Others kept changing the object.
    #[error("failed to {what}: the object changed {attempts} times in a row")]
    Contended {
        /// What was tried.
        what: String,
        /// How often.
        attempts: usize,
    },
    /// A step of the work writer.
    #[error("work creator execution failed: {0}")]
    WorkWriter(#[source] Box<Error>),
}

impl Error {
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Returns what the API server says, without the client's wrapping.
fn text_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
