//! What decisions ask of a state store, and what came of it, as plain data.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::part::FILE_BYTES;

/// How the commit of a change is spoken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// `Update from: <id>`
    Update,
    /// `Delete from: <id>`
    Delete,
}

/// Brings a part of a store into a given form. Applying it twice gives what applying it once gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who asks: the placement's name, or `kratix-canary`.
    pub id: String,
    /// How its commit is spoken of.
    pub kind: ChangeKind,
    /// The directory it may touch, relative to the store's path; empty for all of it.
    pub prefix: String,
    /// What is done in the directory.
    pub operation: Operation,
}

/// What is done in the directory of a change. Paths are relative to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It holds these files and nothing else; without any it disappears.
    Replace(Vec<File>),
    /// These files are written, those paths removed; the rest stays.
    Edit {
        /// The files.
        write: Vec<File>,
        /// The paths.
        remove: Vec<String>,
    },
    /// It holds these files beside those of others, remembered in a ledger; `None` removes them and the ledger.
    Share {
        /// Where the ledger is.
        ledger: String,
        /// The files, in the order in which the ledger lists them.
        files: Option<Vec<File>>,
    },
}

impl Change {
    /// Returns what its files take in memory, about: many without content are as much as a few with.
    pub fn held_bytes(&self) -> usize {
        let files = match &self.operation {
            Operation::Replace(files) | Operation::Edit { write: files, .. } => files.as_slice(),
            Operation::Share { files, .. } => files.as_deref().unwrap_or_default(),
        };
        files.iter().map(|file| FILE_BYTES + file.path.len() + file.content.len()).sum()
    }
}

/// A file to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: String,
    /// What.
    pub content: Vec<u8>,
}

/// Contents may be large, and may be secret.
impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.content.len())
    }
}

/// One attempt to apply a change, remembered by the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was applied and where: equal stamps are equal content at an equal place.
    pub stamp: String,
    /// When the outcome was known.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Result<Written, Failure>,
}

/// The store has durably accepted a state that contains the change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// A version that contains the change.
    pub version: Option<String>,
    /// Whether the change altered anything.
    pub changed: bool,
}

/// Why a change did not become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error, for people.
    pub message: String,
    /// What it is about.
    pub about: About,
    /// Whether another attempt can help although nothing changes in the cluster.
    pub retry: bool,
    /// For how long the store asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// Time between attempts that fail.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// The longest that a store is left alone because it asks for that.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Returns the time between a failed attempt and the next: what the store asks for counts within bounds.
pub(crate) fn pause(retry_after: Option<Duration>) -> Duration {
    retry_after.map_or(RETRY_AFTER, |asked| asked.clamp(RETRY_AFTER, RETRY_AFTER_MAX))
}

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The store as a whole.
    Store,
    /// The state file of a shared directory: what it says is not understood.
    Ledger,
    /// The state file of a shared directory: it cannot be read as a file.
    LedgerUnread,
    /// Combining the documents of a Destination into one file.
    Aggregate,
    /// This change alone: a path, a content.
    Content,
    /// Nothing that is known: the change was tried together with others only, and those are refused.
    Turn,
}

impl Failure {
    /// Returns a failure that only another content can heal.
    pub fn content(message: impl Into<String>) -> Self {
        Self { message: message.into(), about: About::Content, retry: false, retry_after: None }
    }
}
