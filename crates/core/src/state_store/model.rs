//! A store in memory, as tests of decisions need it.

use std::collections::BTreeMap;

use super::{Change, File, Operation};
use crate::work_placement::{Cleaned, join};

/// The files by path; those of other places than [`HERE`] begin with the place and a colon.
pub(crate) type Files = BTreeMap<String, String>;

/// The place of a store that has only one.
pub(crate) const HERE: &str = "here";

/// What meets whoever cleans a site that was left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cleaning {
    /// The server of another place is this one, under another name.
    pub(crate) has_twin: bool,
    /// That cannot be told.
    pub(crate) hides_twin: bool,
    /// Nothing is removed.
    pub(crate) is_refused: bool,
}

/// Applies a change and returns whether it altered anything.
pub(crate) fn apply(files: &mut Files, change: &Change, place: &str) -> bool {
    let before = files.clone();
    let root = root(place);
    let path = |file: &str| format!("{root}{}", join(&[&change.prefix, file]));
    let write = |files: &mut Files, new: &[File]| {
        files.extend(new.iter().map(|file| (path(&file.path), String::from_utf8_lossy(&file.content).into_owned())));
    };
    match &change.operation {
        Operation::Replace(new) => {
            assert!(!change.prefix.is_empty(), "the root is never replaced");
            files.retain(|file, _| !file.starts_with(&format!("{root}{}/", change.prefix)));
            write(files, new);
        }
        Operation::Edit { write: new, remove } => {
            files.retain(|file, _| !remove.iter().any(|gone| path(gone) == *file));
            write(files, new);
        }
        Operation::Share { ledger, files: new } => {
            let ledger = path(ledger);
            for file in files.remove(&ledger).unwrap_or_default().lines() {
                files.remove(file);
            }
            if let Some(new) = new {
                let listed: Vec<String> = new.iter().map(|file| path(&file.path)).collect();
                files.insert(ledger, listed.join("\n"));
                write(files, new);
            }
        }
    }
    *files != before
}

/// Returns the files below the directory of a change.
pub(crate) fn below(files: &Files, change: &Change, place: &str) -> Files {
    let root = root(place);
    let prefix = if change.prefix.is_empty() { root } else { format!("{root}{}/", change.prefix) };
    let below = files.iter().filter(|(path, _)| path.starts_with(&prefix));
    below.map(|(path, content)| (path.clone(), content.clone())).collect()
}

/// Removes what was left at a place, and returns what came of it.
pub(crate) fn clean(files: &mut Files, change: &Change, place: &str, needs_proof: bool, cleaning: Cleaning) -> Cleaned {
    if needs_proof && cleaning.has_twin {
        return if cleaning.hides_twin { Cleaned::Doubtful } else { Cleaned::Same };
    }
    if cleaning.is_refused {
        return Cleaned::Failed("no".into());
    }
    apply(files, change, place);
    Cleaned::Removed
}

fn root(place: &str) -> String {
    if place == HERE { String::new() } else { format!("{place}:") }
}
