//! One batch, built on one head: every change in turn, then one commit. Blocking, and without any effect but its result.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind as ObjectKind;
use kratix_store_path::Path;

use super::imprint::{Left, Mark};
use super::message::Committer;
use super::tree::{self, At, Directory, Fault, Overlay, Undo};
use crate::change::{Imprint, Marks};
use crate::checked::{Checked, Files, Work};
use crate::error::{Trouble, WriteError};
use crate::ledger::{self, Index, List};

/// What became of a batch.
pub(super) struct Batch {
    pub(super) outcomes: Vec<Result<Outcome, WriteError>>,
    /// What is to be published; `None` if nothing differs from the head.
    pub(super) commit: Option<Commit>,
}

/// What a change came to.
pub(super) struct Outcome {
    /// Whether it altered anything.
    pub(super) changed: bool,
    /// What it left.
    pub(super) imprint: Imprint,
}

/// A commit with all objects that the repository lacks, each after those that it names.
pub(super) struct Commit {
    pub(super) id: ObjectId,
    pub(super) objects: Vec<(ObjectKind, ObjectId, Bytes)>,
}

/// Builds the commit that brings `changes` onto `head`.
pub(super) fn build(
    repository: &gix::Repository,
    head: Option<ObjectId>,
    root: &Path,
    changes: &[&Checked],
    committer: &Committer,
    ledgers: &mut Index,
) -> Result<Batch, Trouble> {
    let base = head.map(|head| tree::of_commit(repository, head)).transpose()?;
    let mut overlay = Overlay::new(repository, base)?;
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        outcomes.push(apply(&mut overlay, root, change, ledgers)?);
    }
    take_over(&mut outcomes, changes, |change| apply(&mut overlay, root, change, ledgers))?;
    if !outcomes.iter().flatten().any(|outcome| outcome.changed) {
        return Ok(Batch { outcomes, commit: None });
    }

    let mut objects = Vec::new();
    let mut met = HashSet::new();
    let tree = overlay.write(&mut |kind, id, data| {
        if met.insert(id) {
            objects.push((kind, id, data));
        }
    })?;
    if base == Some(tree) {
        // Changes of one batch have undone each other.
        for outcome in outcomes.iter_mut().flatten() {
            outcome.changed = false;
        }
        return Ok(Batch { outcomes, commit: None });
    }
    let changed = |outcome: &Result<Outcome, WriteError>| outcome.as_ref().is_ok_and(|outcome| outcome.changed);
    let done = changes.iter().zip(&outcomes).filter(|(_, outcome)| changed(outcome));
    let done: Vec<&Checked> = done.map(|(change, _)| *change).collect();
    let data = Bytes::from(committer.commit(tree, head, &done)?);
    let id = tree::hash(ObjectKind::Commit, &data);
    objects.push((ObjectKind::Commit, id, data));
    Ok(Batch { outcomes, commit: Some(Commit { id, objects }) })
}

/// Tries changes again that were refused a path of another owner, for as long as that helps: a path that its owner gives up in the
/// same batch is free, whoever was queued first, and no state of the branch is without it.
fn take_over(
    outcomes: &mut [Result<Outcome, WriteError>],
    changes: &[&Checked],
    mut apply: impl FnMut(&Checked) -> Result<Result<Outcome, WriteError>, Trouble>,
) -> Result<(), Trouble> {
    let is_refused = |outcome: &Result<Outcome, WriteError>| outcome.as_ref().is_err_and(WriteError::is_of_owner);
    // What its own asker has replaced since must not come after that.
    let is_last = |at: usize| !changes[at + 1..].iter().any(|later| later.has_ledger_of(changes[at]));
    let mut refused: Vec<usize> = (0..changes.len()).filter(|at| is_refused(&outcomes[*at]) && is_last(*at)).collect();
    loop {
        let before = refused.len();
        for at in &refused {
            outcomes[*at] = apply(changes[*at])?;
        }
        refused.retain(|at| is_refused(&outcomes[*at]));
        if refused.is_empty() || refused.len() == before {
            return Ok(());
        }
    }
}

/// Applies one change; one that cannot be applied leaves nothing behind.
fn apply(
    overlay: &mut Overlay<'_>,
    root: &Path,
    change: &Checked,
    ledgers: &mut Index,
) -> Result<Result<Outcome, WriteError>, Trouble> {
    let mut edits = Edits { overlay, done: Vec::new() };
    let prefix = root.join(&change.prefix);
    let result = match &change.work {
        Work::Replace(files) => edits.replace(&prefix, files),
        Work::Edit { write, remove } => edits.edit(&prefix, write, remove),
        Work::Share { ledger, files } => {
            let place = ledger::Place { root, prefix: &prefix, path: prefix.join(ledger) };
            edits.share(&place, files.as_ref(), ledgers)
        }
    };
    let Edits { overlay, done } = edits;
    match result {
        Ok(marks) => {
            let imprint = Imprint(Arc::new(Marks::Git(marks.into())));
            Ok(Ok(Outcome { changed: !done.is_empty(), imprint }))
        }
        Err(refusal) => {
            overlay.undo(done)?;
            match refusal {
                Refusal::Trouble(trouble) => Err(trouble),
                Refusal::Change(error) => Ok(Err(error)),
            }
        }
    }
}

enum Refusal {
    Trouble(Trouble),
    Change(WriteError),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::Change(error)
    }
}

/// The edits of one change.
struct Edits<'o, 'r> {
    overlay: &'o mut Overlay<'r>,
    done: Vec<Undo>,
}

impl Edits<'_, '_> {
    fn replace(&mut self, prefix: &Path, files: &Files) -> Result<Vec<Mark>, Refusal> {
        let mut directory = Directory::default();
        for (path, content) in files {
            fitting(&prefix.join(path))?;
            if !directory.add(path, content) {
                return Err(WriteError::Ambiguous { path: path.to_string() }.into());
            }
        }
        let (id, undo) = self.overlay.replace(prefix, directory).map_err(|fault| refused(prefix, fault))?;
        self.done.extend(undo);
        Ok(vec![Mark { path: prefix.clone(), left: id.map_or(Left::Nothing, Left::Directory) }])
    }

    fn edit(&mut self, prefix: &Path, write: &Files, remove: &[Path]) -> Result<Vec<Mark>, Refusal> {
        let written: HashSet<&Path> = write.iter().map(|(path, _)| path).collect();
        for path in remove {
            let full = prefix.join(path);
            // A file that is written anyway is not removed first: it would look changed.
            if !(written.contains(path) && matches!(self.overlay.at(&full)?, At::Blob { .. })) {
                self.remove(&full)?;
            }
        }
        for (path, content) in write {
            self.put(&prefix.join(path), content)?;
        }
        remove.iter().chain(write.iter().map(|(path, _)| path)).map(|path| self.mark(prefix.join(path))).collect()
    }

    fn share(
        &mut self,
        place: &ledger::Place<'_>,
        files: Option<&Files>,
        ledgers: &mut Index,
    ) -> Result<Vec<Mark>, Refusal> {
        let mut old = self.ledger(place)?;
        if let Some(old) = old.as_mut().filter(|old| old.doubtful().next().is_some()) {
            let mut there = HashSet::new();
            for path in old.doubtful() {
                if matches!(self.overlay.at(path)?, At::Blob { .. }) {
                    there.insert(path.clone());
                }
            }
            old.settle(&there, &ledgers.owners(self.overlay, place)?);
        }
        let wanted: Vec<Path> = files.into_iter().flatten().map(|(path, _)| place.prefix.join(path)).collect();
        let old_paths: HashSet<&Path> = old.iter().flat_map(List::paths).collect();
        let wanted_paths: HashSet<&Path> = wanted.iter().collect();
        let new: Vec<&Path> = wanted.iter().filter(|path| !old_paths.contains(path)).collect();
        let gone: Vec<&Path> = old_paths.iter().copied().filter(|path| !wanted_paths.contains(path)).collect();

        if !new.is_empty() || !gone.is_empty() {
            let owners = ledgers.owners(self.overlay, place)?;
            let mut taken: BTreeMap<&str, HashSet<&Path>> = BTreeMap::new();
            for path in new {
                for ledger in owners.claim(path).map_err(|taken| taken.refuse(path))? {
                    taken.entry(ledger).or_default().insert(path);
                }
            }
            for (ledger, paths) in taken {
                self.disown(place, ledger, &paths)?;
            }
            let gone: Vec<&Path> = gone.into_iter().filter(|path| !owners.has_other(path)).collect();
            for path in gone {
                // Whatever became a directory, or a ledger, is not what the owner wrote.
                if matches!(self.overlay.at(path)?, At::Blob { .. }) && !place.is_ledger(path) {
                    self.remove(path)?;
                }
            }
        }
        match files {
            None => self.remove(&place.path)?,
            Some(files) => {
                let mut altered = Vec::new();
                for (path, (_, content)) in wanted.iter().zip(files) {
                    if place.is_ledger(path) {
                        let owner = "the ledgers of this directory".to_owned();
                        return Err(WriteError::Owned { path: path.to_string(), owner }.into());
                    }
                    let before = self.done.len();
                    self.put(path, content)?;
                    if self.done.len() > before && old_paths.contains(path) {
                        altered.push(path);
                    }
                }
                // Other programs let several ledgers list one path. Without a difference there is nothing to settle.
                if !altered.is_empty() {
                    let owners = ledgers.owners(self.overlay, place)?;
                    for path in altered {
                        owners.keep(path).map_err(|taken| taken.refuse(path))?;
                    }
                }
                // A list that says the same in other words stays as it is.
                let listed: Vec<&str> = wanted.iter().filter_map(|path| path.below(place.root)).collect();
                if old.is_none_or(|old| old.entries != listed) {
                    self.put(&place.path, &Bytes::from(ledger::render(&listed)))?;
                }
            }
        }
        wanted.into_iter().chain([place.path.clone()]).map(|path| self.mark(path)).collect()
    }

    /// Returns what is at a path now.
    fn mark(&mut self, path: Path) -> Result<Mark, Refusal> {
        let left = match self.overlay.at(&path)? {
            At::Blob { id, .. } => Left::File(id),
            At::Directory => self.overlay.tree_id(&path)?.map_or(Left::NothingRemovable, Left::Directory),
            At::Nothing | At::Submodule => Left::NothingRemovable,
        };
        Ok(Mark { path, left })
    }

    /// Takes paths out of the ledger of an owner who is gone, and the ledger away with its last entry.
    fn disown(&mut self, place: &ledger::Place<'_>, ledger: &str, taken: &HashSet<&Path>) -> Result<(), Refusal> {
        // Without a directory of their own, any file with a list of files looks like a ledger.
        let Some(left) = place.beside(ledger).filter(|left| place.is_ledger(&left.path)) else { return Ok(()) };
        let Some(list) = self.ledger(&left)? else { return Ok(()) };
        match list.without(taken).as_slice() {
            [] => self.remove(&left.path),
            kept => self.put(&left.path, &Bytes::from(ledger::render(kept))),
        }
    }

    fn ledger(&mut self, place: &ledger::Place<'_>) -> Result<Option<List>, Refusal> {
        let At::Blob { id, content, .. } = self.overlay.at(&place.path)? else { return Ok(None) };
        let content = self.overlay.content(id, content)?;
        let list = List::parse(&content, place)
            .map_err(|reason| WriteError::Ledger { path: place.path.to_string(), reason })?;
        Ok(Some(list))
    }

    fn put(&mut self, path: &Path, content: &Bytes) -> Result<(), Refusal> {
        fitting(path)?;
        let undo = self.overlay.put(path, content).map_err(|fault| refused(path, fault))?;
        self.done.extend(undo);
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> Result<(), Refusal> {
        self.done.extend(self.overlay.remove(path)?);
        Ok(())
    }
}

/// Refuses what is too long or too deep only with the store's path before it.
fn fitting(path: &Path) -> Result<(), WriteError> {
    path.check_size().map_err(|reason| WriteError::Path { path: path.to_string(), reason })
}

fn refused(path: &Path, fault: Fault) -> Refusal {
    match fault {
        Fault::Trouble(trouble) => Refusal::Trouble(trouble),
        Fault::Blocked { obstacle, kind } => {
            Refusal::Change(WriteError::Blocked { path: path.to_string(), obstacle: obstacle.to_string(), kind })
        }
    }
}
