//! What a caller asks of a store, and what it gets back.

use std::sync::Arc;

use bytes::Bytes;

use crate::{bucket, git};

/// One caller's request to bring a part of the store into a given form.
///
/// A change is complete data: applying it twice gives what applying it once gives, and it can be applied again on top
/// of whatever the remote holds by then. Changes of one batch are applied in the order in which they were queued, and
/// each sees the effect of those before it.
///
/// # Guarantees
/// Nothing outside [`prefix`](Self::prefix) is created, altered or removed. A change that cannot be applied fails alone and
/// leaves no trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who asks; shown in commit messages and errors, for instance a placement's name.
    pub id: String,
    /// Whether the commit message speaks of an update or of a removal. It does not alter what is done.
    pub kind: Kind,
    /// The directory that the change may touch, relative to the store's path; empty for all of it.
    pub prefix: String,
    /// What is done below the prefix.
    pub operation: Operation,
}

/// The word that the commit message uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `Update from: <id>`
    Update,
    /// `Delete from: <id>`
    Delete,
}

/// What a change does below its prefix. All paths are relative to the prefix, except where stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes the prefix hold exactly these files and nothing else; with no files the directory disappears.
    ///
    /// Refused with an empty prefix: a store's root is never cleared.
    Replace(Vec<File>),
    /// Writes these files, removes those paths (each a file, or a directory with everything in it), and leaves the rest alone.
    ///
    /// Removals come first, and a removed path that does not exist is no error.
    Edit {
        /// The files to create or overwrite.
        write: Vec<File>,
        /// The paths to remove.
        remove: Vec<String>,
    },
    /// Makes the directory hold these files beside those of other owners.
    ///
    /// The ledger is a file that remembers what its owner wrote (a YAML mapping with the list `files`, paths relative to the
    /// store's path). It is read and written inside the batch: files that it lists and that are not wanted any more are removed,
    /// unless another ledger of the same directory lists them too.
    ///
    /// # Errors
    /// [`WriteError::Owned`](crate::WriteError::Owned) for a path that another ledger in the ledger's directory already lists, unless
    /// its owner gives the path up in the same batch;
    /// [`WriteError::Ledger`](crate::WriteError::Ledger) for a ledger that cannot be understood.
    Share {
        /// Where the ledger is.
        ledger: String,
        /// The files, in the order in which the ledger is to list them. `None` removes the owner's files and the ledger.
        files: Option<Vec<File>>,
    },
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where, relative to the change's prefix. `.` segments and doubled slashes are dropped, `..` is refused.
    pub path: String,
    /// What.
    pub content: Bytes,
}

impl File {
    /// Returns a file of this content at this path.
    pub fn new(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self { path: path.into(), content: content.into() }
    }
}

impl Change {
    /// Returns a change that makes `directory` hold exactly `files`.
    pub fn replace(id: impl Into<String>, directory: impl Into<String>, files: Vec<File>) -> Self {
        Self { id: id.into(), kind: Kind::Update, prefix: directory.into(), operation: Operation::Replace(files) }
    }

    /// Returns a change that removes `directory` with everything in it.
    pub fn remove(id: impl Into<String>, directory: impl Into<String>) -> Self {
        Self { id: id.into(), kind: Kind::Delete, prefix: directory.into(), operation: Operation::Replace(Vec::new()) }
    }

    /// Returns a change that writes and removes single files below `prefix`.
    pub fn edit(id: impl Into<String>, prefix: impl Into<String>, write: Vec<File>, remove: Vec<String>) -> Self {
        let kind = if write.is_empty() { Kind::Delete } else { Kind::Update };
        Self { id: id.into(), kind, prefix: prefix.into(), operation: Operation::Edit { write, remove } }
    }

    /// Returns a change that makes `prefix` hold `files` beside other owners' files, remembered in `ledger`.
    pub fn share(
        id: impl Into<String>,
        prefix: impl Into<String>,
        ledger: impl Into<String>,
        files: Option<Vec<File>>,
    ) -> Self {
        let kind = if files.is_some() { Kind::Update } else { Kind::Delete };
        let operation = Operation::Share { ledger: ledger.into(), files };
        Self { id: id.into(), kind, prefix: prefix.into(), operation }
    }

    /// Returns how many bytes of content the change carries.
    pub fn content_bytes(&self) -> usize {
        let files = match &self.operation {
            Operation::Replace(files) | Operation::Edit { write: files, .. } => files.as_slice(),
            Operation::Share { files, .. } => files.as_deref().unwrap_or_default(),
        };
        files.iter().map(|file| file.content.len()).sum()
    }
}

/// The identity of a state of the store: for Git the 40 hexadecimal digits of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub(crate) String);

impl Version {
    /// Returns the version as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a change.
///
/// # Guarantees
/// The remote has durably accepted a state that contains the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// A version that contains the change; `None` only when the store is empty, and still is after the change.
    pub version: Option<Version>,
    /// Whether the change altered anything. Without, nothing was committed for it.
    pub changed: bool,
    /// What the change left in the store, to be compared later with [`Handle::verify`](crate::Handle::verify).
    pub imprint: Imprint,
}

/// What a change left in the store: the places that it spoke of, and the identity of what was there after it.
///
/// It is small, whatever the size of the files, and means the same to every handle of the same repository or bucket.
///
/// # Guarantees
/// As long as it holds, repeating the change alters nothing, unless owners of shared paths have come or gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Imprint(pub(crate) Arc<Marks>);

/// An imprint, as the kind of store that made it understands it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Marks {
    Git(Box<[git::Mark]>),
    Bucket(Box<[bucket::Mark]>),
}

impl Marks {
    pub(crate) fn git(&self) -> Option<&[git::Mark]> {
        match self {
            Self::Git(marks) => Some(marks),
            Self::Bucket(_) => None,
        }
    }

    pub(crate) fn bucket(&self) -> Option<&[bucket::Mark]> {
        match self {
            Self::Bucket(marks) => Some(marks),
            Self::Git(_) => None,
        }
    }
}

/// The identity of everything below a directory: equal trees hold equal files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tree(pub(crate) String);

impl Tree {
    /// Returns the identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
