//! Reading from trees as they are stored.

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use kratix_store_path::Path;

use super::{Mode, Stored, object};
use crate::error::Trouble;

/// How long a path may be that is read; what is longer was not made by a file system.
const WALK_BYTES_MAX: usize = 64 << 10;

fn find(repository: &gix::Repository, tree: ObjectId, path: &Path) -> Result<Option<(Mode, ObjectId)>, Trouble> {
    let mut found = (Mode::TREE, tree);
    for segment in path.segments() {
        if !found.0.is_tree() {
            return Ok(None);
        }
        match Stored::load(repository, found.1)?.find(segment.as_bytes()) {
            Some(entry) => found = entry,
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

pub(in crate::git) fn find_directory(
    repository: &gix::Repository,
    tree: Option<ObjectId>,
    path: &Path,
) -> Result<Option<ObjectId>, Trouble> {
    let Some(tree) = tree else { return Ok(None) };
    Ok(find(repository, tree, path)?.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id))
}

pub(in crate::git) fn read(
    repository: &gix::Repository,
    tree: Option<ObjectId>,
    path: &Path,
) -> Result<Option<Bytes>, Trouble> {
    let Some(tree) = tree else { return Ok(None) };
    match find(repository, tree, path)? {
        Some((mode, id)) if mode.is_blob() => object(repository, id, Kind::Blob).map(|data| Some(data.into())),
        _ => Ok(None),
    }
}

/// Returns the paths of the files below `path`, relative to `root`. Names that are not UTF-8 are shown with replacements.
pub(in crate::git) fn list(
    repository: &gix::Repository,
    tree: Option<ObjectId>,
    root: &Path,
    path: &Path,
) -> Result<Vec<String>, Trouble> {
    let mut files = Vec::new();
    if let Some(directory) = find_directory(repository, tree, path)? {
        let mut prefix = path.below(root).unwrap_or_default().to_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        walk(repository, directory, prefix, &mut files)?;
    }
    Ok(files)
}

/// Collects the files below a tree in its order. Others may have nested it as deep as they like, so it does not call itself.
fn walk(repository: &gix::Repository, tree: ObjectId, prefix: String, files: &mut Vec<String>) -> Result<(), Trouble> {
    let mut open = vec![(prefix, Stored::load(repository, tree)?, 0)];
    while let Some((prefix, stored, next)) = open.last_mut() {
        let Some(entry) = stored.entries.get(*next) else {
            open.pop();
            continue;
        };
        *next += 1;
        let path = format!("{prefix}{}", String::from_utf8_lossy(stored.name(entry)));
        if entry.mode.is_tree() {
            if path.len() > WALK_BYTES_MAX {
                return Err(Trouble::Damaged(format!(
                    "{:?} is nested too deep",
                    path.chars().take(64).collect::<String>()
                )));
            }
            let stored = Stored::load(repository, stored.id(entry))?;
            open.push((format!("{path}/"), stored, 0));
        } else if entry.mode.is_blob() {
            files.push(path);
        }
    }
    Ok(())
}
