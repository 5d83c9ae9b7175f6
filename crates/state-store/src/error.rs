//! Why a store did not do what it was asked, and who can change that.

use std::sync::Arc;
use std::time::Duration;

/// When trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// At once: the world moved in between, nobody needs to hear of it.
    Soon,
    /// After a growing pause: the cause may go away by itself.
    Backoff,
    /// After a person has changed something.
    OnChange,
}

/// A store as messages name it: never with user information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The store's name.
    pub store: String,
    /// Where it is, without user information.
    pub url: String,
    /// The branch.
    pub branch: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "state store {} ({})", self.store, self.url)
    }
}

/// Trouble with a store as a whole; it concerns everybody who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which store.
    pub place: Arc<Place>,
    /// What is the matter.
    pub trouble: Trouble,
}

impl std::error::Error for Error {}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Texts of refused pushes have always begun like this, and are searched for.
        let is_push = matches!(self.trouble, Trouble::Refused { .. } | Trouble::CheckedOut(_) | Trouble::Moved(_));
        let verb = if is_push { "failed to push: " } else { "" };
        write!(f, "{verb}{}: {}", self.place, self.trouble)
    }
}

/// What is the matter with a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// Credentials would travel in clear.
    #[error("plain http is only allowed for loopback hosts")]
    PlainHttp,
    /// The host's name does not resolve.
    #[error("host {0:?} is unknown")]
    UnknownHost(String),
    /// The host does not answer.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The server answered that it cannot serve now.
    #[error("the server fails: {0}")]
    ServerFailed(String),
    /// The credentials were refused, or none were given where some are needed.
    #[error("the credentials were refused")]
    Unauthorized,
    /// The credentials are good, but do not allow this.
    #[error("access is forbidden: {0}")]
    Forbidden(String),
    /// The server's certificate is not trusted.
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(String),
    /// The server sends elsewhere.
    #[error("the server redirects to another address")]
    Redirected,
    /// There is nothing at this address.
    #[error("there is no repository here")]
    NotFound,
    /// There is something else at this address.
    #[error("not a git repository: {0}")]
    NotARepository(String),
    /// The repository has branches, but not this one.
    #[error("Remote branch {0} not found in upstream origin")]
    BranchMissing(String),
    /// The remote refused the push by a rule or a hook.
    #[error("branch {branch:?} refuses it: {message}")]
    Refused {
        /// The branch.
        branch: String,
        /// What the remote said.
        message: String,
    },
    /// The repository has a work tree, in which the branch is checked out: nobody can push to it.
    #[error("branch {0:?} refuses it: it is checked out in a work tree; use a bare repository")]
    CheckedOut(String),
    /// The branch kept moving while the change was being built.
    #[error("branch {0:?} moved each time")]
    Moved(String),
    /// A lock in the repository is held by somebody else.
    #[error("branch {branch:?} is locked by {path}")]
    Locked {
        /// The branch.
        branch: String,
        /// The lock file.
        path: String,
    },
    /// An exchange took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// There is no space left.
    #[error("no space is left on the disk of {0}")]
    DiskFull(String),
    /// A file of this machine cannot be read or written.
    #[error("{0}")]
    Io(String),
    /// The repository's content is damaged or not understood.
    #[error("the repository is damaged: {0}")]
    Damaged(String),
    /// There is no usable `git` program.
    #[error("the program git is not usable: {0}")]
    NoGit(String),
    /// Git failed in a way that has no name here.
    #[error("{0}")]
    Git(String),
    /// The store has been closed.
    #[error("closed")]
    Closed,
}

impl Error {
    /// Returns a constant for metrics and documentation.
    pub fn category(&self) -> &'static str {
        match self.trouble {
            Trouble::Config(_) => "StoreConfigInvalid",
            Trouble::PlainHttp => "StorePlainHttp",
            Trouble::UnknownHost(_) => "StoreHostUnknown",
            Trouble::Unreachable(_) => "StoreUnreachable",
            Trouble::ServerFailed(_) => "StoreServerFailed",
            Trouble::Unauthorized => "StoreUnauthorized",
            Trouble::Forbidden(_) => "StoreForbidden",
            Trouble::Untrusted(_) => "StoreUntrusted",
            Trouble::Redirected => "StoreRedirected",
            Trouble::NotFound => "StoreNotFound",
            Trouble::NotARepository(_) => "StoreNotARepository",
            Trouble::BranchMissing(_) => "StoreBranchMissing",
            Trouble::Refused { .. } => "PushRefused",
            Trouble::CheckedOut(_) => "StoreCheckedOut",
            Trouble::Moved(_) => "PushRejected",
            Trouble::Locked { .. } => "StoreLocked",
            Trouble::Timeout(_) => "StoreTimeout",
            Trouble::DiskFull(_) => "DiskFull",
            Trouble::Io(_) => "StoreIo",
            Trouble::Damaged(_) => "StoreDamaged",
            Trouble::NoGit(_) => "GitMissing",
            Trouble::Git(_) => "GitFailed",
            Trouble::Closed => "StoreClosed",
        }
    }

    /// Returns when trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self.trouble {
            Trouble::Config(_) | Trouble::PlainHttp | Trouble::Unauthorized | Trouble::Untrusted(_) => Retry::OnChange,
            Trouble::Moved(_) | Trouble::Closed => Retry::Soon,
            // A repository, branch or hook is mended outside the cluster, where no watch reports it.
            _ => Retry::Backoff,
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match &self.trouble {
            Trouble::PlainHttp => "use https:// in the URL of the store",
            Trouble::UnknownHost(_) => "check the host name in the URL of the store",
            Trouble::Unauthorized => {
                "check username and password in the secret of the store; a trailing newline in the password also has this effect"
            }
            Trouble::Forbidden(_) => "give the user write access to the repository",
            Trouble::Untrusted(_) => {
                "put the certificate authority as PEM under the key caFile into the secret of the store, or set the store's insecure switch"
            }
            Trouble::Redirected => "use the address that the server redirects to",
            Trouble::NotFound | Trouble::NotARepository(_) => {
                "check the URL of the store, and that its user may see the repository"
            }
            Trouble::BranchMissing(branch) => {
                return Some(format!("create branch {branch} in the repository, or set another branch on the store"));
            }
            Trouble::Refused { .. } => "allow the user of the store to push to this branch",
            Trouble::Locked { path, .. } => {
                return Some(format!("if no git process runs in the repository, remove {path}"));
            }
            Trouble::DiskFull(_) => "make space on the disk",
            Trouble::NoGit(_) => "install git 2.31 or newer",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

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
        reason: crate::path::Reason,
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
            Self::Ambiguous { .. } => "PathAmbiguous",
            Self::Owned { .. } => "PathOwned",
            Self::Ledger { .. } => "LedgerUnreadable",
            Self::TooLarge { .. } => "ChangeTooLarge",
        }
    }

    /// Returns when trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(error) | Self::Refused(error) | Self::Untried(error) => error.retry(),
            // What stands in the way is removed in the repository, where no watch reports it.
            Self::Blocked { .. } | Self::Owned { .. } | Self::Ledger { .. } => Retry::Backoff,
            Self::Path { .. } | Self::Ambiguous { .. } | Self::TooLarge { .. } => Retry::OnChange,
        }
    }

    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) | Self::Refused(error) => error.hint(),
            Self::Path { .. } | Self::Ambiguous { .. } => Some("give the file another name".to_owned()),
            Self::Blocked { obstacle, .. } => Some(format!("remove {obstacle} from the repository")),
            Self::Owned { owner, .. } => Some(format!("rename the file, or delete {owner}")),
            Self::Ledger { path, .. } => Some(format!("repair or remove {path} in the repository")),
            Self::Untried(_) | Self::TooLarge { .. } => None,
        }
    }
}
