//! Trees as git stores them: reading one, finding names in it, and its bytes with other entries.

use std::ops::Range;

use gix::ObjectId;
use gix::objs::Kind;

use crate::error::Trouble;

/// The type bits of an entry of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::git) struct Mode(u32);

impl Mode {
    pub(in crate::git) const FILE: Self = Self(0o100_644);
    pub(super) const TREE: Self = Self(0o040_000);

    pub(in crate::git) fn is_tree(self) -> bool {
        self.0 & 0o170_000 == 0o040_000
    }

    pub(in crate::git) fn is_submodule(self) -> bool {
        self.0 & 0o170_000 == 0o160_000
    }

    pub(super) fn is_blob(self) -> bool {
        !self.is_tree() && !self.is_submodule()
    }

    pub(super) fn noun(self) -> &'static str {
        match self.0 & 0o170_000 {
            0o040_000 => "directory",
            0o120_000 => "symbolic link",
            0o160_000 => "submodule",
            _ => "file",
        }
    }
}

/// A tree object as it is stored.
pub(in crate::git) struct Stored {
    data: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

pub(super) struct Entry {
    pub(super) mode: Mode,
    name: Range<u32>,
}

impl Stored {
    pub(in crate::git) fn load(repository: &gix::Repository, id: ObjectId) -> Result<Self, Trouble> {
        let data = object(repository, id, Kind::Tree)?;
        let entries = parse(&data).ok_or_else(|| Trouble::Damaged(format!("tree {id} cannot be read")))?;
        Ok(Self { data, entries })
    }

    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        &self.data[entry.name.start as usize..entry.name.end as usize]
    }

    pub(super) fn id(&self, entry: &Entry) -> ObjectId {
        let start = entry.name.end as usize + 1;
        ObjectId::from_bytes_or_panic(&self.data[start..start + 20])
    }

    /// Git sorts directories as if their names ended in a slash, so a name has two possible places.
    pub(in crate::git) fn find(&self, name: &[u8]) -> Option<(Mode, ObjectId)> {
        [false, true].into_iter().find_map(|tree| {
            let order = |entry: &Entry| compare((self.name(entry), entry.mode.is_tree()), (name, tree));
            let at = self.entries.binary_search_by(order).ok()?;
            Some((self.entries[at].mode, self.id(&self.entries[at])))
        })
    }
}

fn parse(data: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::with_capacity(data.len() / 32);
    let mut at = 0;
    while at < data.len() {
        let space = at + data[at..].iter().position(|byte| *byte == b' ')?;
        let mode = u32::from_str_radix(std::str::from_utf8(&data[at..space]).ok()?, 8).ok()?;
        let start = space + 1;
        let end = start + data[start..].iter().position(|byte| *byte == 0)?;
        at = end + 21;
        if at > data.len() {
            return None;
        }
        entries.push(Entry { mode: Mode(mode), name: u32::try_from(start).ok()?..u32::try_from(end).ok()? });
    }
    Some(entries)
}

pub(super) fn compare(a: (&[u8], bool), b: (&[u8], bool)) -> std::cmp::Ordering {
    let key = |(name, tree): (&[u8], bool), at: usize| match name.get(at) {
        Some(byte) => u16::from(*byte),
        None if tree => u16::from(b'/'),
        None => 0,
    };
    let common = a.0.len().min(b.0.len());
    a.0[..common].cmp(&b.0[..common]).then_with(|| key(a, common).cmp(&key(b, common)))
}
/// Returns the bytes of a tree: the stored entries whose names are not in `hidden` (sorted), and the `new` ones, in git's order.
pub(super) fn merge(stored: Option<&Stored>, hidden: &[&[u8]], new: &[(&[u8], Mode, ObjectId)]) -> Vec<u8> {
    let mut data = Vec::with_capacity(stored.map_or(0, |stored| stored.data.len()) + new.len() * 48);
    let mut push = |name: &[u8], mode: Mode, id: &[u8]| {
        data.extend_from_slice(format!("{:o} ", mode.0).as_bytes());
        data.extend_from_slice(name);
        data.push(0);
        data.extend_from_slice(id);
    };
    let mut new = new.iter().peekable();
    for entry in stored.iter().flat_map(|stored| &stored.entries) {
        let stored = stored.expect("it has an entry");
        let name = stored.name(entry);
        if hidden.binary_search(&name).is_ok() {
            continue;
        }
        let key = (name, entry.mode.is_tree());
        while let Some((name, mode, id)) = new.next_if(|new| compare((new.0, new.1.is_tree()), key).is_lt()) {
            push(name, *mode, id.as_slice());
        }
        push(name, entry.mode, stored.id(entry).as_slice());
    }
    for (name, mode, id) in new {
        push(name, *mode, id.as_slice());
    }
    data
}

pub(in crate::git) fn hash(kind: Kind, data: &[u8]) -> ObjectId {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data).expect("hashing memory only fails on a forged collision")
}

pub(super) fn object(repository: &gix::Repository, id: ObjectId, kind: Kind) -> Result<Vec<u8>, Trouble> {
    let object = repository.find_object(id).map_err(|error| Trouble::Damaged(format!("object {id}: {error}")))?;
    if object.kind != kind {
        return Err(Trouble::Damaged(format!("object {id} is a {}, not a {kind}", object.kind)));
    }
    Ok(object.detach().data)
}

/// Returns the root tree of a commit.
pub(in crate::git) fn of_commit(repository: &gix::Repository, id: ObjectId) -> Result<ObjectId, Trouble> {
    let data = object(repository, id, Kind::Commit)?;
    let tree = data.strip_prefix(b"tree ").and_then(|rest| ObjectId::from_hex(rest.get(..40)?).ok());
    tree.ok_or_else(|| Trouble::Damaged(format!("commit {id} names no tree")))
}
