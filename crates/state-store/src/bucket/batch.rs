//! One batch: changes that have nothing to do with each other at the same time, the others in their order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use kratix_store_path::Path;
use sha2::{Digest, Sha256};

use super::imprint::Mark;
use super::objects::{Failure, Key, Meta, Objects, When, hex, key};
use super::share::{self, Share};
use crate::change::{Imprint, Marks, Version, Written};
use crate::checked::{Checked, Files, Work};
use crate::error::{Error, Place, Trouble, WriteError};
use crate::ledger;

/// What changes are applied to.
#[derive(Clone, Copy)]
pub(super) struct Batch<'s> {
    pub(super) objects: &'s Objects,
    pub(super) place: &'s Arc<Place>,
    pub(super) root: &'s Path,
}

/// What a change came to.
#[derive(Default)]
pub(super) struct Done {
    /// The versions of the objects that were written, in the order in which the change names them.
    pub(super) versions: Vec<Option<String>>,
    /// Whether anything was removed.
    pub(super) removed: bool,
    pub(super) marks: Vec<Mark>,
}

/// An object as it is after a change.
pub(super) struct Left {
    pub(super) meta: Meta,
    pub(super) is_written: bool,
}

impl Batch<'_> {
    pub(super) async fn commit(
        &self,
        changes: &[Checked],
        ledgers: &mut ledger::Index<String>,
    ) -> Vec<Result<Written, WriteError>> {
        let mut outcomes: BTreeMap<usize, Result<Written, WriteError>> = BTreeMap::new();
        for wave in waves(changes) {
            let (mut plain, mut shares) = (Vec::new(), Vec::new());
            for index in wave {
                let change = &changes[index];
                let prefix = self.root.join(&change.prefix);
                match &change.work {
                    Work::Replace(files) => plain.push((index, Plain::Replace(prefix, files))),
                    Work::Edit { write, remove } => plain.push((index, Plain::Edit(prefix, write, remove))),
                    Work::Share { ledger, files } => {
                        shares.push(Share { index, ledger: prefix.join(ledger), prefix, files: files.as_ref() });
                    }
                }
            }
            let plain = plain.into_iter().map(async |(index, plain)| (index, plain.apply(self).await));
            let (plain, shared) = futures::join!(join_all(plain), share::apply(self, ledgers, shares));
            let all = plain.into_iter().chain(shared);
            outcomes.extend(all.map(|(index, outcome)| (index, outcome.map(Done::written))));
        }
        outcomes.into_values().collect()
    }

    /// Makes an object hold `content`; `present` is what is known to be there.
    pub(super) async fn fill(&self, key: &Key, present: Option<&Meta>, content: &Bytes) -> Result<Left, Failure> {
        if let Some(meta) = present
            && self.objects.holds(key, meta, content).await?
        {
            return Ok(Left { meta: meta.clone(), is_written: false });
        }
        Ok(Left { meta: self.objects.put(key, content, When::Always).await?, is_written: true })
    }

    /// Removes what is in the way of what is wanted, and returns it: in a directory of this machine a file and everything below it
    /// exclude each other.
    pub(super) async fn clear<'k>(
        &self,
        present: impl Iterator<Item = &'k Key>,
        wanted: impl Iterator<Item = &'k Key> + Clone,
    ) -> Result<HashSet<Key>, WriteError> {
        if !self.objects.are_paths() {
            return Ok(HashSet::new());
        }
        let files: HashSet<&str> = wanted.clone().map(Key::as_ref).collect();
        let directories: HashSet<&str> = wanted.flat_map(directories).collect();
        let is_obstacle = |key: &&Key| {
            directories.contains(key.as_ref()) || self::directories(key).any(|above| files.contains(above))
        };
        let obstacles: Vec<Key> = present.filter(is_obstacle).cloned().collect();
        self.remove(&obstacles).await?;
        Ok(obstacles.into_iter().collect())
    }

    /// Removes objects. All are attempted.
    pub(super) async fn remove(&self, keys: &[Key]) -> Result<(), WriteError> {
        let results = join_all(keys.iter().map(|key| self.objects.delete(key))).await;
        let mut failures: Vec<(Failure, &Key)> =
            results.into_iter().zip(keys).filter_map(|(result, key)| Some((result.err()?, key))).collect();
        let count = failures.len();
        let store = failures.iter().position(|(failure, _)| matches!(failure, Failure::Store(_))).unwrap_or_default();
        if count == 0 {
            return Ok(());
        }
        let (failure, key) = failures.swap_remove(store);
        Err(match self.failed(key, failure) {
            WriteError::Refused(error) => {
                let trouble = match error.trouble {
                    trouble @ Trouble::Forbidden(_) => trouble,
                    trouble => Trouble::Undeleted { count, reason: trouble.to_string() },
                };
                WriteError::Refused(self.error(trouble))
            }
            other => other,
        })
    }

    pub(super) fn failed(&self, key: &Key, failure: Failure) -> WriteError {
        match failure {
            Failure::Store(trouble) => WriteError::Store(self.error(trouble)),
            Failure::Refused(trouble) => WriteError::Refused(self.error(trouble)),
            Failure::Moved => WriteError::Refused(self.error(Trouble::Contended(key.to_string()))),
            Failure::Blocked { obstacle, kind } => WriteError::Blocked { path: key.to_string(), obstacle, kind },
        }
    }

    fn error(&self, trouble: Trouble) -> Error {
        Error { place: Arc::clone(self.place), trouble }
    }
}

/// Returns the directories that a file is in.
fn directories(key: &Key) -> impl Iterator<Item = &str> {
    key.as_ref().match_indices('/').map(|(at, _)| &key.as_ref()[..at])
}

/// A change that needs no ledger.
enum Plain<'c> {
    Replace(Path, &'c Files),
    Edit(Path, &'c Files, &'c [Path]),
}

impl Plain<'_> {
    async fn apply(&self, batch: &Batch<'_>) -> Result<Done, WriteError> {
        match self {
            Self::Replace(prefix, files) => replace(batch, prefix, files).await,
            Self::Edit(prefix, write, remove) => edit(batch, prefix, write, remove).await,
        }
    }
}

async fn replace(batch: &Batch<'_>, prefix: &Path, files: &Files) -> Result<Done, WriteError> {
    let directory = key(prefix);
    let listed =
        batch.objects.list(&directory, usize::MAX).await.map_err(|failure| batch.failed(&directory, failure))?;
    let listed = listed.unwrap_or_default();
    let wanted = targets(prefix, files);
    let cleared = batch.clear(listed.keys(), wanted.iter().map(|(key, _)| key)).await?;
    let left = join_all(wanted.iter().map(|(key, content)| batch.fill(key, listed.get(key), content))).await;
    let left = all(batch, &wanted, left)?;
    let keys: HashSet<&Key> = wanted.iter().map(|(key, _)| key).collect();
    let surplus = listed.iter().filter(|(key, _)| !keys.contains(key) && !cleared.contains(*key));
    let surplus: Vec<Key> = join_all(surplus.map(|(key, meta)| is_object(batch, key, meta)))
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect();
    batch.remove(&surplus).await?;
    let mut present: BTreeMap<&Key, &Meta> =
        wanted.iter().map(|(key, _)| key).zip(left.iter().map(|left| &left.meta)).collect();
    // What only looks like a file is there still.
    let gone: HashSet<&Key> = surplus.iter().chain(&cleared).collect();
    present.extend(listed.iter().filter(|(key, _)| !keys.contains(key) && !gone.contains(key)));
    let marks = vec![Mark::tree(&directory, present.into_iter())];
    Ok(Done { versions: versions(&left), removed: !surplus.is_empty(), marks })
}

/// Returns the key of a listed object if it is one: programs mark directories by empty objects whose keys end with a slash, which
/// the listing leaves out.
async fn is_object(batch: &Batch<'_>, key: &Key, meta: &Meta) -> Result<Option<Key>, WriteError> {
    if meta.size > 0 {
        return Ok(Some(key.clone()));
    }
    let found = batch.objects.head(key).await.map_err(|failure| batch.failed(key, failure))?;
    Ok(found.map(|_| key.clone()))
}

async fn edit(batch: &Batch<'_>, prefix: &Path, write: &Files, remove: &[Path]) -> Result<Done, WriteError> {
    let wanted = targets(prefix, write);
    let keys: HashSet<&Key> = wanted.iter().map(|(key, _)| key).collect();
    let removals: Vec<Key> = remove.iter().map(|path| key(&prefix.join(path))).collect();
    let found = join_all(removals.iter().map(async |removal| {
        let failed = |failure| batch.failed(removal, failure);
        let (file, below) = futures::join!(batch.objects.head(removal), batch.objects.list(removal, usize::MAX));
        let mut found: Vec<Key> = below.map_err(failed)?.unwrap_or_default().into_keys().collect();
        if file.map_err(failed)?.is_some() {
            found.push(removal.clone());
        }
        Ok(found)
    }));
    let found = found.await.into_iter().collect::<Result<Vec<_>, WriteError>>()?;
    let gone: HashSet<Key> = found.into_iter().flatten().filter(|key| !keys.contains(key)).collect();
    let cleared = batch.clear(gone.iter(), keys.iter().copied()).await?;
    let left = join_all(wanted.iter().map(async |(key, content)| {
        let present = batch.objects.head(key).await?;
        batch.fill(key, present.as_ref(), content).await
    }));
    let left = all(batch, &wanted, left.await)?;
    let rest: Vec<Key> = gone.difference(&cleared).cloned().collect();
    batch.remove(&rest).await?;
    let removed = removals.iter().filter(|key| !keys.contains(key)).map(|key| Mark::object(key, None));
    let marks = wanted.iter().zip(&left).map(|((key, _), left)| Mark::object(key, Some(&left.meta))).chain(removed);
    Ok(Done { versions: versions(&left), removed: !gone.is_empty(), marks: marks.collect() })
}

/// Returns keys and contents, each key once.
pub(super) fn targets<'f>(prefix: &Path, files: &'f Files) -> Vec<(Key, &'f Bytes)> {
    let mut met = HashSet::new();
    let all = files.iter().map(|(path, content)| (key(&prefix.join(path)), content));
    all.filter(|(key, _)| met.insert(key.clone())).collect()
}

fn all(
    batch: &Batch<'_>,
    wanted: &[(Key, &Bytes)],
    results: Vec<Result<Left, Failure>>,
) -> Result<Vec<Left>, WriteError> {
    let results = wanted.iter().zip(results);
    results.map(|((key, _), result)| result.map_err(|failure| batch.failed(key, failure))).collect()
}

pub(super) fn versions(left: &[Left]) -> Vec<Option<String>> {
    left.iter().filter(|left| left.is_written).map(|left| left.meta.version.clone()).collect()
}

impl Done {
    fn written(self) -> Written {
        let changed = self.removed || !self.versions.is_empty();
        Written {
            version: chain(&self.versions),
            changed,
            imprint: Imprint(Arc::new(Marks::Bucket(self.marks.into()))),
        }
    }
}

/// Returns one version for those of many objects: what was written before is part of what is hashed next.
fn chain(versions: &[Option<String>]) -> Option<Version> {
    let link = |id: String, version: &Option<String>| {
        hex(&Sha256::digest(format!("{id}{}", version.as_deref().unwrap_or_default())))
    };
    let id = versions.iter().fold(String::new(), link);
    (!id.is_empty()).then_some(Version(id))
}

/// Sorts changes into groups whose members do not interfere; what interferes keeps its order.
fn waves(changes: &[Checked]) -> Vec<Vec<usize>> {
    let mut levels: Vec<usize> = Vec::with_capacity(changes.len());
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for (index, change) in changes.iter().enumerate() {
        let before = changes[..index].iter().zip(&levels).filter(|(other, _)| change.interferes(other));
        let level = before.map(|(_, level)| level + 1).max().unwrap_or_default();
        levels.push(level);
        if waves.len() <= level {
            waves.push(Vec::new());
        }
        waves[level].push(index);
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, File};

    /// §10.3
    #[test]
    fn a_version_is_a_chain_over_those_of_the_objects() {
        let of = |versions: &[Option<&str>]| {
            let versions: Vec<_> = versions.iter().map(|version| version.map(str::to_owned)).collect();
            chain(&versions).map(|version| version.to_string())
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[None]).as_deref(), Some(empty));
        assert_eq!(of(&[None, None]), Some(hex(&Sha256::digest(empty))));
        let first = hex(&Sha256::digest("v1"));
        assert_eq!(of(&[Some("v1"), Some("v2")]), Some(hex(&Sha256::digest(format!("{first}v2")))));
        assert_ne!(of(&[Some("v1"), Some("v2")]), of(&[Some("v2"), Some("v1")]));
    }

    #[test]
    fn changes_that_interfere_keep_their_order_and_others_share_a_wave() {
        let file = || vec![File::new("x", "x")];
        let changes = [
            Change::replace("a", "d/a", file()),
            Change::replace("b", "d/b", file()),
            Change::remove("a", "d/a"),
            Change::share("s", "e", ".kratix/s.yaml", Some(file())),
            Change::share("t", "e", ".kratix/t.yaml", Some(file())),
            Change::share("s", "e", ".kratix/s.yaml", None),
            Change::edit("c", "", file(), Vec::new()),
        ];
        let changes: Vec<Checked> = changes.into_iter().map(|change| Checked::new(change).expect("usable")).collect();
        assert_eq!(waves(&changes), [vec![0, 1, 3, 4], vec![2, 5], vec![6]]);
    }
}
