//! Trees, edited as objects.
//!
//! An [`Overlay`] loads only the directories on the way to what changes, and keeps what changed in memory until
//! [`write`](Overlay::write) turns it into objects, deepest first. So the cost follows the change, not the repository, and what
//! is overwritten before the batch ends never becomes an object.

mod lookup;
mod stored;

use std::collections::BTreeMap;

use bytes::Bytes;
use gix::ObjectId;
use gix::objs::Kind;
use kratix_store_path::Path;

pub(super) use self::lookup::{find_directory, list, read};
pub(super) use self::stored::{Mode, Stored, hash, of_commit};

use self::stored::{compare, merge, object};

use crate::error::Trouble;
/// One directory: what is stored, and what differs from it.
#[derive(Default)]
struct Node {
    stored: Option<(ObjectId, Stored)>,
    edits: BTreeMap<Vec<u8>, Edit>,
}

enum Edit {
    Gone,
    Blob {
        mode: Mode,
        id: ObjectId,
        /// Absent when the object is known to be stored already.
        content: Option<Bytes>,
    },
    /// A directory that was looked into or made; an empty one does not exist.
    Directory(Node),
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum At {
    Nothing,
    Blob { id: ObjectId, content: Option<Bytes>, plain: bool },
    Submodule,
    Directory,
}

/// Why a path cannot be used, or what else went wrong.
#[derive(Debug)]
pub(super) enum Fault {
    Trouble(Trouble),
    Blocked { obstacle: Path, kind: &'static str },
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Remembers how a name was edited before, so that a failing change can be taken back.
pub(super) struct Undo {
    directory: Path,
    name: Vec<u8>,
    before: Option<Edit>,
}

/// Receives new objects, each after those that it names.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Kind, ObjectId, Bytes);

/// A tree with edits on top.
pub(crate) struct Overlay<'r> {
    repository: &'r gix::Repository,
    root: Node,
}

impl<'r> Overlay<'r> {
    pub(super) fn new(repository: &'r gix::Repository, tree: Option<ObjectId>) -> Result<Self, Trouble> {
        let root = match tree {
            Some(tree) => Node::load(repository, tree)?,
            None => Node::default(),
        };
        Ok(Self { repository, root })
    }

    /// Returns what is at `path`; below a file, link or submodule there is nothing.
    pub(super) fn at(&mut self, path: &Path) -> Result<At, Trouble> {
        let Some((directory, name)) = path.split() else { return Ok(At::Directory) };
        match self.directory(&directory)? {
            Some(node) => Ok(node.at(name.as_bytes())),
            None => Ok(At::Nothing),
        }
    }

    /// Returns the id of the directory at `path`, as it would be written; `None` if there is none.
    pub(super) fn tree_id(&mut self, path: &Path) -> Result<Option<ObjectId>, Trouble> {
        let Some((directory, name)) = path.split() else { return self.root.write(&mut |_, _, _| {}) };
        match self.directory(&directory)? {
            Some(node) => node.tree_id(name.as_bytes()),
            None => Ok(None),
        }
    }

    /// Returns the names and ids of the files right below `directory`.
    pub(crate) fn files(&mut self, directory: &Path) -> Result<Vec<(String, ObjectId, Option<Bytes>)>, Trouble> {
        let Some(node) = self.directory(directory)? else { return Ok(Vec::new()) };
        let mut files = Vec::new();
        if let Some((_, stored)) = &node.stored {
            for entry in stored.entries.iter().filter(|entry| entry.mode.is_blob()) {
                if !node.edits.contains_key(stored.name(entry))
                    && let Ok(name) = std::str::from_utf8(stored.name(entry))
                {
                    files.push((name.to_owned(), stored.id(entry), None));
                }
            }
        }
        for (name, edit) in &node.edits {
            if let (Edit::Blob { id, content, .. }, Ok(name)) = (edit, std::str::from_utf8(name)) {
                files.push((name.to_owned(), *id, content.clone()));
            }
        }
        Ok(files)
    }

    pub(crate) fn content(&self, id: ObjectId, content: Option<Bytes>) -> Result<Bytes, Trouble> {
        match content {
            Some(content) => Ok(content),
            None => object(self.repository, id, Kind::Blob).map(Bytes::from),
        }
    }

    /// Puts a file at `path`; `None` if it is there already.
    pub(super) fn put(&mut self, path: &Path, content: &Bytes) -> Result<Option<Undo>, Fault> {
        let (directory, name) = path.split().expect("the path of a file is not empty");
        let id = hash(Kind::Blob, content);
        let blocked = |kind| Fault::Blocked { obstacle: path.clone(), kind };
        let node = self.make_directory(&directory)?;
        match node.at(name.as_bytes()) {
            At::Blob { id: present, plain: true, .. } if present == id => return Ok(None),
            At::Directory => return Err(blocked("directory")),
            At::Submodule => return Err(blocked("submodule")),
            At::Nothing | At::Blob { .. } => {}
        }
        let edit = Edit::Blob { mode: Mode::FILE, id, content: Some(content.clone()) };
        Ok(Some(node.edit(directory, name, edit)))
    }

    /// Removes what is at `path`; `None` if nothing is. A submodule of others stays.
    pub(super) fn remove(&mut self, path: &Path) -> Result<Option<Undo>, Trouble> {
        let Some((directory, name)) = path.split() else { return Ok(None) };
        let Some(node) = self.directory(&directory)? else { return Ok(None) };
        match node.at(name.as_bytes()) {
            At::Nothing | At::Submodule => Ok(None),
            At::Blob { .. } | At::Directory => Ok(Some(node.edit(directory, name, Edit::Gone))),
        }
    }

    /// Makes `path` hold exactly `files`; no undo if it does already. With the directory's id, `None` without files.
    pub(super) fn replace(&mut self, path: &Path, files: Directory) -> Result<(Option<ObjectId>, Option<Undo>), Fault> {
        let (parent, name) = path.split().expect("the root is never replaced");
        let Directory(mut new) = files;
        let wanted = new.write(&mut |_, _, _| {})?;
        if wanted.is_none() && self.at(path)? == At::Nothing {
            return Ok((None, None));
        }
        let repository = self.repository;
        let node = self.make_directory(&parent)?;
        let name_bytes = name.as_bytes();
        if node.at(name_bytes) == At::Submodule {
            return Err(Fault::Blocked { obstacle: path.clone(), kind: "submodule" });
        }
        let present = node.tree_id(name_bytes)?;
        if present.is_some() && present == wanted {
            return Ok((wanted, None));
        }
        let stored = node.stored.as_ref().and_then(|(_, stored)| stored.find(name_bytes));
        if wanted.is_some()
            && let Some((mode, id)) = stored
            && mode.is_tree()
        {
            new.forget_stored(repository, id)?;
        }
        let edit = if wanted.is_some() { Edit::Directory(new) } else { Edit::Gone };
        Ok((wanted, Some(node.edit(parent, name, edit))))
    }

    /// Takes edits back, the last one first.
    pub(super) fn undo(&mut self, edits: Vec<Undo>) -> Result<(), Trouble> {
        for Undo { directory, name, before } in edits.into_iter().rev() {
            let node = self.directory(&directory)?.expect("an edited directory stays loaded");
            match before {
                Some(edit) => node.edits.insert(name, edit),
                None => node.edits.remove(&name),
            };
        }
        Ok(())
    }

    /// Turns everything into objects and returns the root tree.
    pub(super) fn write(mut self, sink: Sink<'_>) -> Result<ObjectId, Trouble> {
        if let Some(id) = self.root.write(sink)? {
            return Ok(id);
        }
        let id = hash(Kind::Tree, &[]);
        sink(Kind::Tree, id, Bytes::new());
        Ok(id)
    }

    /// Returns the directory at `path`, loading what is needed; `None` if there is no directory.
    fn directory(&mut self, path: &Path) -> Result<Option<&mut Node>, Trouble> {
        let mut node = &mut self.root;
        for segment in path.segments() {
            match node.child(self.repository, segment.as_bytes())? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Returns the directory at `path`, making what is missing.
    fn make_directory(&mut self, path: &Path) -> Result<&mut Node, Fault> {
        let mut node = &mut self.root;
        for (depth, segment) in path.segments().enumerate() {
            let blocked = |kind| Fault::Blocked { obstacle: path.first(depth + 1), kind };
            let name = segment.as_bytes();
            match node.at(name) {
                At::Directory => {}
                At::Nothing => {
                    // A directory that was emptied in this batch is still loaded; anything else starts from nothing.
                    if !matches!(node.edits.get(name), Some(Edit::Directory(_))) {
                        node.edits.insert(name.to_vec(), Edit::Directory(Node::default()));
                    }
                }
                At::Submodule => return Err(blocked("submodule")),
                At::Blob { .. } => {
                    return Err(blocked(node.mode(name).map_or("file", Mode::noun)));
                }
            }
            node = node.child(self.repository, name)?.expect("it was just found or made");
        }
        Ok(node)
    }
}

/// Files of a directory that stands on its own.
#[derive(Default)]
pub(super) struct Directory(Node);

impl Directory {
    /// Adds a file; `false` if its path is taken by another one.
    pub(super) fn add(&mut self, path: &Path, content: &Bytes) -> bool {
        let (directory, name) = path.split().expect("the path of a file is not empty");
        let mut node = &mut self.0;
        for segment in directory.segments() {
            let edit = node.edits.entry(segment.as_bytes().to_vec()).or_insert(Edit::Directory(Node::default()));
            let Edit::Directory(child) = edit else { return false };
            node = child;
        }
        let id = hash(Kind::Blob, content);
        let file = Edit::Blob { mode: Mode::FILE, id, content: Some(content.clone()) };
        match node.edits.insert(name.as_bytes().to_vec(), file) {
            None => true,
            Some(Edit::Blob { id: other, .. }) => other == id,
            Some(_) => false,
        }
    }
}

impl Node {
    fn load(repository: &gix::Repository, id: ObjectId) -> Result<Self, Trouble> {
        Ok(Self { stored: Some((id, Stored::load(repository, id)?)), edits: BTreeMap::new() })
    }

    fn at(&self, name: &[u8]) -> At {
        match self.edits.get(name) {
            Some(Edit::Gone) => At::Nothing,
            Some(Edit::Directory(node)) if node.is_empty() => At::Nothing,
            Some(Edit::Directory(_)) => At::Directory,
            Some(Edit::Blob { mode, id, content }) => {
                At::Blob { id: *id, content: content.clone(), plain: *mode == Mode::FILE }
            }
            None => match self.stored.as_ref().and_then(|(_, stored)| stored.find(name)) {
                None => At::Nothing,
                Some((mode, _)) if mode.is_tree() => At::Directory,
                Some((mode, _)) if mode.is_submodule() => At::Submodule,
                Some((mode, id)) => At::Blob { id, content: None, plain: mode == Mode::FILE },
            },
        }
    }

    fn mode(&self, name: &[u8]) -> Option<Mode> {
        match self.edits.get(name) {
            Some(Edit::Blob { mode, .. }) => Some(*mode),
            Some(_) => None,
            None => self.stored.as_ref()?.1.find(name).map(|(mode, _)| mode),
        }
    }

    fn is_empty(&self) -> bool {
        // Each edit hides one entry at most.
        if self.stored.as_ref().is_some_and(|(_, stored)| stored.entries.len() > self.edits.len()) {
            return false;
        }
        let hidden = |name: &[u8]| match self.edits.get(name) {
            Some(Edit::Gone) => true,
            Some(Edit::Directory(node)) => node.is_empty(),
            Some(Edit::Blob { .. }) | None => false,
        };
        let stored = self.stored.iter().flat_map(|(_, stored)| stored.entries.iter().map(|entry| stored.name(entry)));
        stored.chain(self.edits.keys().map(Vec::as_slice)).all(hidden)
    }

    fn child(&mut self, repository: &gix::Repository, name: &[u8]) -> Result<Option<&mut Node>, Trouble> {
        if !self.edits.contains_key(name) {
            match self.stored.as_ref().and_then(|(_, stored)| stored.find(name)) {
                Some((mode, id)) if mode.is_tree() => {
                    self.edits.insert(name.to_vec(), Edit::Directory(Node::load(repository, id)?));
                }
                _ => return Ok(None),
            }
        }
        match self.edits.get_mut(name) {
            Some(Edit::Directory(node)) => Ok(Some(node)),
            _ => Ok(None),
        }
    }

    fn edit(&mut self, directory: Path, name: &str, edit: Edit) -> Undo {
        let name = name.as_bytes().to_vec();
        let before = self.edits.insert(name.clone(), edit);
        Undo { directory, name, before }
    }

    /// Returns the id of the directory `name`, as it would be written.
    fn tree_id(&mut self, name: &[u8]) -> Result<Option<ObjectId>, Trouble> {
        match self.edits.get_mut(name) {
            Some(Edit::Directory(node)) => node.write(&mut |_, _, _| {}),
            Some(_) => Ok(None),
            None => {
                let found = self.stored.as_ref().and_then(|(_, stored)| stored.find(name));
                Ok(found.filter(|(mode, _)| mode.is_tree()).map(|(_, id)| id))
            }
        }
    }

    /// Drops contents that the stored tree `id` holds under the same names: those objects need no writing.
    fn forget_stored(&mut self, repository: &gix::Repository, id: ObjectId) -> Result<(), Trouble> {
        let stored = Stored::load(repository, id)?;
        for (name, edit) in &mut self.edits {
            match (edit, stored.find(name)) {
                (Edit::Blob { id, content, .. }, Some((_, other))) if *id == other => *content = None,
                (Edit::Directory(node), Some((mode, id))) if mode.is_tree() => node.forget_stored(repository, id)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Passes new objects to `sink` and returns the id of this directory, `None` for an empty one.
    fn write(&mut self, sink: Sink<'_>) -> Result<Option<ObjectId>, Trouble> {
        if self.edits.is_empty() {
            return Ok(self.stored.as_ref().filter(|(_, stored)| !stored.entries.is_empty()).map(|(id, _)| *id));
        }
        let mut new: Vec<(&[u8], Mode, ObjectId)> = Vec::with_capacity(self.edits.len());
        let mut hidden: Vec<&[u8]> = Vec::with_capacity(self.edits.len());
        for (name, edit) in &mut self.edits {
            hidden.push(name);
            match edit {
                Edit::Gone => {}
                Edit::Blob { mode, id, content } => {
                    if let Some(content) = content {
                        sink(Kind::Blob, *id, content.clone());
                    }
                    new.push((name, *mode, *id));
                }
                Edit::Directory(node) => {
                    if let Some(id) = node.write(sink)? {
                        new.push((name, Mode::TREE, id));
                    }
                }
            }
        }
        new.sort_by(|a, b| compare((a.0, a.1.is_tree()), (b.0, b.1.is_tree())));
        let data = merge(self.stored.as_ref().map(|(_, stored)| stored), &hidden, &new);
        if data.is_empty() {
            return Ok(None);
        }
        let id = hash(Kind::Tree, &data);
        if self.stored.as_ref().is_none_or(|(stored, _)| *stored != id) {
            sink(Kind::Tree, id, Bytes::from(data));
        }
        Ok(Some(id))
    }
}
