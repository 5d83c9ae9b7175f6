//! Why a store did not do what it was asked, and who can change that.

mod hint;
mod write;

use std::sync::Arc;
use std::time::Duration;

pub use self::write::WriteError;

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
    /// The branch; empty for a store that has none.
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
    /// As [`ServerFailed`](Self::ServerFailed), and the server asked to be left alone for a while.
    #[error("the server fails: {reason}")]
    Busy {
        /// What it answered.
        reason: String,
        /// For how long. It differs from answer to answer, so it is not part of the text.
        retry_after: Duration,
    },
    /// The credentials were refused, or none were given where some are needed.
    #[error("the credentials were refused")]
    Unauthorized,
    /// A private key cannot be read.
    #[error("error parsing ssh private key: {0}")]
    PrivateKey(String),
    /// The key that signs commits cannot be used.
    #[error("error parsing signing key: {0}")]
    SigningKey(String),
    /// The server does not let this key in.
    #[error("the server refuses the key of {0}")]
    KeyRefused(String),
    /// The server's key is not among those that are trusted.
    #[error("no {kind} host key is known for {host}")]
    HostKeyUnknown {
        /// The host, as `known_hosts` names it.
        host: String,
        /// The kind of key that the server has.
        kind: String,
    },
    /// The server has another key than the one that is trusted.
    #[error("the {kind} host key of {host} has changed to {fingerprint}")]
    HostKeyChanged {
        /// The host, as `known_hosts` names it.
        host: String,
        /// The kind of key that the server has.
        kind: String,
        /// Its fingerprint.
        fingerprint: String,
    },
    /// The server proves its identity in a way that is not accepted, or not at all.
    #[error("the host key is not accepted: {0}")]
    HostKeyRefused(String),
    /// The credentials are good, but do not allow this.
    #[error("access is forbidden: {0}")]
    Forbidden(String),
    /// The server's certificate is not trusted.
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(String),
    /// A file with certificates of authorities cannot be used.
    #[error("the certificate authorities in {file} cannot be used: {reason}")]
    Authority {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key of a GitHub App cannot be used.
    #[error("failed to generate GitHub App JWT: {0}")]
    AppKey(String),
    /// GitHub gives no token to an app.
    #[error("failed to get GitHub installation token: {reason}")]
    AppToken {
        /// What GitHub said, or what stood between.
        reason: String,
        /// What may help.
        remedy: AppRemedy,
        /// For how long GitHub asks to be left alone.
        retry_after: Option<Duration>,
    },
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
    /// More stores keep a cache of one branch than may do so.
    #[error("{directory}: all {count} caches are in use")]
    CachesInUse {
        /// Where the caches are.
        directory: String,
        /// How many there may be.
        count: usize,
    },
    /// The repository's content is damaged or not understood.
    #[error("the repository is damaged: {0}")]
    Damaged(String),
    /// There is no usable `git` program.
    #[error("the program git is not usable: {0}")]
    NoGit(String),
    /// There is no usable `ssh` program.
    #[error("the program ssh is not usable: {0}")]
    NoSsh(String),
    /// Git failed in a way that has no name here.
    #[error("{0}")]
    Git(String),
    /// The keys of an object store were refused, in the server's words.
    #[error("the credentials were refused: {0}")]
    AccessKeyRefused(String),
    /// The surroundings give no credentials.
    #[error("no credentials could be had: {0}")]
    NoCredentials(String),
    /// The server answers in clear where TLS was spoken to it.
    #[error("the server does not speak TLS")]
    NotTls,
    /// There is no such bucket.
    #[error("bucket {0:?} does not exist")]
    BucketMissing(String),
    /// A refusal of a server that has no name here, in its words.
    #[error("the server refuses it: {0}")]
    Answer(String),
    /// The server does as it is asked, and does not answer as such a server does.
    #[error("the answer of {0} is not understood")]
    NotUnderstood(String),
    /// Another writer was faster each time.
    #[error("object {0:?} was changed by another writer each time")]
    Contended(String),
    /// Objects that are not needed any more could not be removed.
    #[error("failed to delete {count} objects: {reason}")]
    Undeleted {
        /// How many.
        count: usize,
        /// Why the first of them.
        reason: String,
    },
    /// The store has been closed.
    #[error("closed")]
    Closed,
}

impl Trouble {
    /// Returns it as told by a server that says for how long it wants to be left alone. Some say with 403 that somebody asks
    /// too often.
    pub(crate) fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        match (self, retry_after) {
            (Self::ServerFailed(reason) | Self::Forbidden(reason), Some(retry_after)) => {
                Self::Busy { reason, retry_after }
            }
            (trouble, _) => trouble,
        }
    }
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
            Trouble::Busy { .. } => "StoreBusy",
            Trouble::Unauthorized => "StoreUnauthorized",
            Trouble::PrivateKey(_) => "SshKeyUnusable",
            Trouble::SigningKey(_) => "SigningKeyUnusable",
            Trouble::KeyRefused(_) => "SshKeyRefused",
            Trouble::HostKeyUnknown { .. } => "HostKeyUnknown",
            Trouble::HostKeyChanged { .. } => "HostKeyChanged",
            Trouble::HostKeyRefused(_) => "HostKeyRefused",
            Trouble::Forbidden(_) => "StoreForbidden",
            Trouble::Untrusted(_) => "StoreUntrusted",
            Trouble::Authority { .. } => "StoreAuthorityUnusable",
            Trouble::AppKey(_) => "GithubAppKeyUnusable",
            Trouble::AppToken { .. } => "GithubTokenRefused",
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
            Trouble::CachesInUse { .. } => "CachesInUse",
            Trouble::Damaged(_) => "StoreDamaged",
            Trouble::NoGit(_) => "GitMissing",
            Trouble::NoSsh(_) => "SshMissing",
            Trouble::Git(_) => "GitFailed",
            Trouble::AccessKeyRefused(_) => "StoreUnauthorized",
            Trouble::NoCredentials(_) => "StoreNoCredentials",
            Trouble::NotTls => "StoreNotTls",
            Trouble::BucketMissing(_) => "StoreNotFound",
            Trouble::Answer(_) => "StoreRefused",
            Trouble::NotUnderstood(_) => "StoreNotUnderstood",
            Trouble::Contended(_) => "StoreContended",
            Trouble::Undeleted { .. } => "StoreUndeleted",
            Trouble::Closed => "StoreClosed",
        }
    }

    /// Returns when trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self.trouble {
            Trouble::Config(_)
            | Trouble::PlainHttp
            | Trouble::Unauthorized
            | Trouble::AccessKeyRefused(_)
            | Trouble::Untrusted(_)
            | Trouble::PrivateKey(_)
            | Trouble::SigningKey(_)
            | Trouble::HostKeyUnknown { .. }
            | Trouble::HostKeyChanged { .. }
            | Trouble::HostKeyRefused(_)
            | Trouble::KeyRefused(_)
            | Trouble::AppKey(_)
            | Trouble::AppToken { remedy: AppRemedy::Identity | AppRemedy::Installation, .. } => Retry::OnChange,
            Trouble::Moved(_) | Trouble::Contended(_) | Trouble::Closed => Retry::Soon,
            // A repository, branch or hook is mended outside the cluster, where no watch reports it.
            _ => Retry::Backoff,
        }
    }

    /// Returns for how long the store asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.trouble {
            Trouble::Busy { retry_after, .. } => Some(retry_after),
            Trouble::AppToken { retry_after, .. } => retry_after,
            _ => None,
        }
    }
}

/// What may help when GitHub gives no token to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppRemedy {
    /// The app is not known by this number and key.
    Identity,
    /// The installation is not one of this app.
    Installation,
    /// The installation does not have what it needs.
    Permission,
    /// Other certificate authorities.
    Authority,
    /// A name that resolves.
    Host,
    /// Waiting.
    Time,
}
