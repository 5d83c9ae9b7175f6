//! Why a change did not become durable, and who can change that.

use std::time::Duration;

use super::{Error, Retry};

/// Why a change did not become durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The store as a whole has trouble.
    #[error(transparent)]
    Store(#[from] Error),
    /// The remote refuses this change, and takes others.
    #[error(transparent)]
    Refused(Error),
    /// The remote refused changes that were pushed together with this one, and takes others. Whether it takes this one was not
    /// found out yet.
    #[error("failed to push: {}: it was not tried without others that the branch refuses", .0.place)]
    Untried(Error),
    /// A path cannot be used.
    #[error("path {path:?} cannot be written: {reason}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: kratix_store_path::Reason,
    },
    /// Something that is not a directory stands where a directory is needed.
    #[error("path {path:?} cannot be written: {obstacle:?} is a {kind}")]
    Blocked {
        /// The path that was to be written.
        path: String,
        /// What stands in its way.
        obstacle: String,
        /// What that is.
        kind: &'static str,
    },
    /// Two files of one change have one path.
    #[error("path {path:?} is given twice, or as a file and as a directory")]
    Ambiguous {
        /// The path.
        path: String,
    },
    /// Two files have paths that some file systems take for one, because they differ in case or in the Unicode form only.
    #[error("path {path:?} is the same as {other:?} on file systems that ignore case or Unicode forms")]
    Alike {
        /// The path.
        path: String,
        /// The other one.
        other: String,
    },
    /// As [`Alike`](Self::Alike), and the other file belongs to another owner.
    #[error("path {path:?} is the same as {other:?} of {owner} on file systems that ignore case or Unicode forms")]
    AlikeOwned {
        /// The path.
        path: String,
        /// The other one.
        other: String,
        /// The ledger's file name without its extension.
        owner: String,
    },
    /// The path belongs to another owner.
    #[error("path {path:?} already belongs to {owner}")]
    Owned {
        /// The path.
        path: String,
        /// The ledger's file name without its extension.
        owner: String,
    },
    /// The ledger cannot be understood.
    #[error("{path:?}: {reason}")]
    Ledger {
        /// Where the ledger is.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The change is too big.
    #[error("the change carries {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// How big it is.
        bytes: usize,
        /// How big it may be.
        limit: usize,
    },
}

impl WriteError {
    /// Returns a constant for metrics and documentation.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Store(error) | Self::Refused(error) => error.category(),
            Self::Untried(_) => "PushUntried",
            Self::Path { .. } => "PathRefused",
            Self::Blocked { .. } => "PathBlocked",
            Self::Ambiguous { .. } | Self::Alike { .. } => "PathAmbiguous",
            Self::Owned { .. } | Self::AlikeOwned { .. } => "PathOwned",
            Self::Ledger { .. } => "LedgerUnreadable",
            Self::TooLarge { .. } => "ChangeTooLarge",
        }
    }

    /// Returns the name of the ledger, without its extension, of who has the path already.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Owned { owner, .. } | Self::AlikeOwned { owner, .. } => Some(owner),
            _ => None,
        }
    }

    /// Tells whether the path is somebody else's.
    pub(crate) fn is_of_owner(&self) -> bool {
        self.owner().is_some()
    }

    /// Returns when trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(error) | Self::Refused(error) | Self::Untried(error) => error.retry(),
            // What stands in the way is removed in the repository, where no watch reports it.
            Self::Blocked { .. } | Self::Owned { .. } | Self::AlikeOwned { .. } | Self::Ledger { .. } => Retry::Backoff,
            Self::Path { .. } | Self::Ambiguous { .. } | Self::Alike { .. } | Self::TooLarge { .. } => Retry::OnChange,
        }
    }

    /// Returns for how long the store asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) | Self::Refused(error) | Self::Untried(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) | Self::Refused(error) => error.hint(),
            Self::Path { .. } | Self::Ambiguous { .. } | Self::Alike { .. } => {
                Some("give the file another name".to_owned())
            }
            Self::Blocked { obstacle, .. } => Some(format!("remove {obstacle} from the state store")),
            Self::Owned { owner, .. } | Self::AlikeOwned { owner, .. } => {
                Some(format!("rename the file, or delete {owner}"))
            }
            Self::Ledger { path, .. } => Some(format!("repair or remove {path} in the state store")),
            Self::TooLarge { .. } => Some("let the pipeline write less".to_owned()),
            // It is tried again by itself.
            Self::Untried(_) => None,
        }
    }
}
