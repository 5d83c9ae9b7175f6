//! What changes have left in a tree, and whether it is still there. Only trees are read, never the files.

use std::collections::HashMap;

use gix::ObjectId;
use kratix_store_path::Path;

use super::tree::{Mode, Stored};
use crate::change::Imprint;
use crate::error::Trouble;

/// So many imprints are remembered as verified; with more, all are looked at anew once.
const REMEMBERED_MAX: usize = 100_000;

/// One place, and what a change left there. The path is relative to the repository.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark {
    pub(super) path: Path,
    pub(super) left: Left,
}

/// What a change left at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Left {
    /// A directory of exactly these files.
    Directory(ObjectId),
    /// A file.
    File(ObjectId),
    /// Nothing.
    Nothing,
    /// Nothing, or a submodule: those of others are not removed.
    NothingRemovable,
}

impl Left {
    fn holds(self, found: Option<(Mode, ObjectId)>) -> bool {
        match (self, found) {
            (Self::Directory(id), Some((mode, found))) => mode.is_tree() && id == found,
            (Self::File(id), Some((mode, found))) => mode == Mode::FILE && id == found,
            (Self::Nothing | Self::NothingRemovable, None) => true,
            (Self::NothingRemovable, Some((mode, _))) => mode.is_submodule(),
            (Self::Nothing, Some(_)) | (_, None) => false,
        }
    }
}

/// Remembers which imprints held in which root tree, so that only what has changed since is looked into.
#[derive(Default)]
pub(super) struct Verified(HashMap<Imprint, Option<ObjectId>>);

impl Verified {
    /// Takes what is known out of the memory.
    pub(super) fn take(&mut self) -> Self {
        Self(std::mem::take(&mut self.0))
    }

    /// Tells of each imprint whether it holds in the tree `root`, `None` being an empty repository.
    pub(super) fn verify(
        &mut self,
        repository: &gix::Repository,
        root: Option<ObjectId>,
        imprints: &[Imprint],
    ) -> Result<Vec<bool>, Trouble> {
        let mut held = vec![true; imprints.len()];
        // One walk for each state in which some of them were last seen.
        let mut walks: HashMap<Option<ObjectId>, Vec<Asked<'_>>> = HashMap::new();
        for (at, imprint) in imprints.iter().enumerate() {
            let Some(marks) = imprint.0.git() else {
                held[at] = false;
                continue;
            };
            let before = self.0.get(imprint).copied();
            if before != Some(root) {
                let asked = marks.iter().map(|mark| Asked { mark, at });
                walks.entry(before.flatten()).or_default().extend(asked);
            }
        }
        for (before, mut asked) in walks {
            asked.sort_by(|a, b| a.mark.path.segments().cmp(b.mark.path.segments()));
            Walk { repository, held: &mut held }.directory(root, before, 0, &asked)?;
        }
        for (imprint, held) in imprints.iter().zip(&held) {
            if !held {
                self.0.remove(imprint);
            } else if self.0.len() < REMEMBERED_MAX || self.0.contains_key(imprint) {
                self.0.insert(imprint.clone(), root);
            } else {
                self.0.clear();
            }
        }
        Ok(held)
    }
}

/// A mark, and whose it is.
struct Asked<'i> {
    mark: &'i Mark,
    at: usize,
}

impl Asked<'_> {
    fn segment(&self, depth: usize) -> Option<&str> {
        self.mark.path.segments().nth(depth)
    }
}

struct Walk<'w> {
    repository: &'w gix::Repository,
    held: &'w mut [bool],
}

impl Walk<'_> {
    /// Looks at the marks, in the order of their segments, that lie below a directory `depth` segments deep. All of them
    /// held when it was `before`.
    fn directory(
        &mut self,
        now: Option<ObjectId>,
        before: Option<ObjectId>,
        depth: usize,
        marks: &[Asked<'_>],
    ) -> Result<(), Trouble> {
        if now.is_some() && now == before {
            return Ok(());
        }
        let now = now.map(|id| Stored::load(self.repository, id)).transpose()?;
        // History may be gone. Then nothing is known of it.
        let before = before.and_then(|id| Stored::load(self.repository, id).ok());
        for group in marks.chunk_by(|a, b| a.segment(depth) == b.segment(depth)) {
            let Some(name) = group[0].segment(depth) else { continue };
            let found = now.as_ref().and_then(|tree| tree.find(name.as_bytes()));
            let known = before.as_ref().map(|tree| tree.find(name.as_bytes()));
            if known == Some(found) {
                continue;
            }
            let here = group.partition_point(|asked| asked.segment(depth + 1).is_none());
            for asked in &group[..here] {
                self.held[asked.at] &= asked.mark.left.holds(found);
            }
            if here < group.len() {
                let tree = |found: Option<(Mode, ObjectId)>| found.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id);
                self.directory(tree(found), known.and_then(tree), depth + 1, &group[here..])?;
            }
        }
        Ok(())
    }
}
