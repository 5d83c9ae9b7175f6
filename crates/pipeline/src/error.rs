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
    #[error("failed to {what} {}: {source}{}", path.display(), advice(source))]
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
    /// More output than is carried.
    #[error(
        "the pipeline's output is too large: {bytes} bytes in {files} files, the limit is {bytes_max} ({} MiB) before \
         compression; largest: {largest}", bytes_max >> 20
    )]
    TooLarge {
        /// Size of all files.
        bytes: u64,
        /// Number of files.
        files: usize,
        /// Limit.
        bytes_max: u64,
        /// The largest files with their sizes.
        largest: String,
    },
    /// What a Work says besides its files is more than one object can hold.
    #[error(
        "work {work} takes {bytes} bytes without the files in it, the limit is {bytes_max}; \
         destination-selectors.yaml has too many entries"
    )]
    Unstorable {
        /// Name of the Work.
        work: String,
        /// Its size.
        bytes: usize,
        /// Limit.
        bytes_max: usize,
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
    /// The manager has not written the part of the parent's status that the pipeline is to be found in.
    #[error("{cause}; it was not written within {seconds} seconds: is the manager running?")]
    Unprepared {
        /// What is missing.
        cause: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Several Works carry the labels of one.
    #[error(
        "more than 1 work exist with the matching labels: map[{labels}]. Unable to update; delete all but one of {works}"
    )]
    Ambiguous {
        /// The labels.
        labels: String,
        /// Their names.
        works: String,
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
    /// Returns whether doing the same again is useless: what the pipeline has left is at fault, and stays as it is.
    ///
    /// The container then exits with [`kratix_api::keys::EXIT_FINAL`], and no further attempt is made. Whatever may change by
    /// itself (the API server, permissions that are on their way, a clash with another writer) is worth another attempt.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Usage(_)
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::Unstorable { .. }
            | Self::Selectors(_)
            | Self::Control(_)
            | Self::Status(_) => true,
            Self::File { source, .. } => {
                use io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied};
                matches!(source.kind(), PermissionDenied | NotADirectory | IsADirectory)
            }
            // What does not fit the schema of the object, or into a request at all, does not fit the next time either.
            Self::Api { source, .. } => {
                matches!(source.as_ref(), kube::Error::Api(status) if matches!(status.code, 413 | 422))
            }
            Self::Client(_)
            | Self::Parent(_)
            | Self::Unprepared { .. }
            | Self::Ambiguous { .. }
            | Self::Contended { .. } => false,
            Self::WorkWriter(error) => error.is_final(),
        }
    }

    /// Returns what is told beyond the log: the text, without the prefix that a log line of the original has.
    pub fn last_words(&self) -> String {
        match self {
            Self::WorkWriter(error) => error.last_words(),
            other => other.to_string(),
        }
    }

    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}

/// Returns what helps against an error of the file system, if that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; hint: let everybody read it (chmod -R a+rX), Kratix's containers run as a user of their own"
        }
        io::ErrorKind::StorageFull => "; hint: the volume is full, write less or make space on the node",
        _ => "",
    }
}

/// Returns what the API server says, without the client's wrapping.
fn text_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
