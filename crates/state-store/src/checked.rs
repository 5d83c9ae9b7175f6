//! Changes whose paths are checked, before any store sees them.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use kratix_store_path::{Path, Reason};

use crate::change::{Change, Kind, Operation};
use crate::error::WriteError;
use crate::queue::CHANGE_BYTES_MAX;

/// A change whose paths are checked.
#[derive(Debug)]
pub(crate) struct Checked {
    id: String,
    kind: Kind,
    bytes: usize,
    pub(crate) prefix: Path,
    pub(crate) work: Work,
}

pub(crate) type Files = Vec<(Path, Bytes)>;

/// What is done below the prefix. No path is given twice with different contents, and none is a file and a directory.
#[derive(Debug, Hash)]
pub(crate) enum Work {
    Replace(Files),
    Edit { write: Files, remove: Vec<Path> },
    Share { ledger: Path, files: Option<Files> },
}

impl Checked {
    /// Checks everything that can be checked without the store.
    pub(crate) fn new(change: Change) -> Result<Self, WriteError> {
        let bytes = change.content_bytes();
        if bytes > CHANGE_BYTES_MAX {
            return Err(WriteError::TooLarge { bytes, limit: CHANGE_BYTES_MAX });
        }
        let prefix = checked(&change.prefix, Path::parse_directory)?;
        let work = match change.operation {
            Operation::Replace(_) if prefix.is_root() => {
                return Err(WriteError::Path { path: change.prefix, reason: Reason::Root });
            }
            Operation::Replace(files) => {
                let files = paths(files)?;
                ambiguous(&files)?;
                Work::Replace(files)
            }
            Operation::Edit { write, remove } => {
                let remove = remove.iter().map(|path| checked(path, Path::parse_file)).collect::<Result<_, _>>()?;
                let write = paths(write)?;
                ambiguous(&write)?;
                Work::Edit { write, remove }
            }
            Operation::Share { ledger, files } => {
                let ledger = checked(&ledger, Path::parse_file)?;
                let files = files.map(paths).transpose()?;
                if let Some(files) = &files {
                    ambiguous(files)?;
                    if let Some((path, _)) = files.iter().find(|(path, _)| *path == ledger) {
                        return Err(WriteError::Ambiguous { path: path.to_string() });
                    }
                }
                Work::Share { ledger, files }
            }
        };
        Ok(Self { id: change.id, kind: change.kind, bytes, prefix, work })
    }

    pub(crate) fn content_bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns a number that tells changes of one asker apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.kind, &self.prefix, &self.work).hash(&mut hasher);
        hasher.finish()
    }

    /// Tells whether the order of the two can matter. It may say so although it does not.
    pub(crate) fn interferes(&self, other: &Self) -> bool {
        match (&self.work, &other.work) {
            // Whose path it is, the ledgers say.
            (Work::Share { ledger: one, .. }, Work::Share { ledger: two, .. }) if self.prefix == other.prefix => {
                one == two
            }
            _ => self.prefix.touches(&other.prefix),
        }
    }

    /// Tells whether both keep one ledger.
    pub(crate) fn has_ledger_of(&self, other: &Self) -> bool {
        match (&self.work, &other.work) {
            (Work::Share { ledger: one, .. }, Work::Share { ledger: two, .. }) => {
                self.prefix == other.prefix && one == two
            }
            _ => false,
        }
    }
}

fn checked(path: &str, rule: fn(&str) -> Result<Path, Reason>) -> Result<Path, WriteError> {
    rule(path).map_err(|reason| WriteError::Path { path: path.to_owned(), reason })
}

fn paths(files: Vec<crate::File>) -> Result<Files, WriteError> {
    files.into_iter().map(|file| Ok((checked(&file.path, Path::parse_file)?, file.content))).collect()
}

/// Refuses a file whose path some file system takes for that of another file, or of a directory.
fn alike(files: &Files) -> Result<(), WriteError> {
    let clash = |path: &Path, other: &Path| Err(WriteError::Alike { path: path.to_string(), other: other.to_string() });
    let mut taken: HashMap<String, &Path> = HashMap::with_capacity(files.len());
    for (path, _) in files {
        if let Some(other) = taken.insert(path.folded(), path).filter(|other| *other != path) {
            return clash(path, other);
        }
    }
    let mut directories: HashSet<Path> = HashSet::new();
    for (path, _) in files {
        let mut above = path.clone();
        while let Some((directory, _)) = above.split().filter(|(directory, _)| !directory.is_root()) {
            if let Some(other) = taken.get(&directory.folded()).filter(|other| ***other != directory) {
                return clash(path, other);
            }
            if !directories.insert(directory.clone()) {
                break;
            }
            above = directory;
        }
    }
    Ok(())
}

/// Refuses one path with two contents, and a path below another one. The same holds for
/// paths that only some file systems take for one.
fn ambiguous(files: &Files) -> Result<(), WriteError> {
    alike(files)?;
    let mut taken: HashMap<&Path, &Bytes> = HashMap::with_capacity(files.len());
    let mut directories: HashSet<Path> = HashSet::new();
    for (path, content) in files {
        let refuse = || WriteError::Ambiguous { path: path.to_string() };
        if directories.contains(path) || taken.insert(path, content).is_some_and(|other| other != content) {
            return Err(refuse());
        }
        let mut above = path.clone();
        while let Some((directory, _)) = above.split().filter(|(directory, _)| !directory.is_root()) {
            if taken.contains_key(&directory) {
                return Err(refuse());
            }
            if !directories.insert(directory.clone()) {
                break;
            }
            above = directory;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_holds_the_content_of_its_asker_and_no_copy() {
        let content = Bytes::from(vec![b'x'; 1 << 10]);
        let file = |path: &str| crate::File::new(path, content.clone());
        let share = Operation::Share { ledger: "l".into(), files: Some(vec![file("a")]) };
        for operation in
            [Operation::Replace(vec![file("a")]), Operation::Edit { write: vec![file("a")], remove: Vec::new() }, share]
        {
            let change = Change { id: "p".into(), kind: Kind::Update, prefix: "d".into(), operation };
            let checked = Checked::new(change).expect("good");
            let (Work::Replace(files) | Work::Edit { write: files, .. } | Work::Share { files: Some(files), .. }) =
                &checked.work
            else {
                panic!("no files")
            };
            assert_eq!(files[0].1.as_ptr(), content.as_ptr());
        }
    }
}
