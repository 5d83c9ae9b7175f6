//! Files of a directory at the head of a branch, read as objects: no work tree, no links followed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gix::ObjectId as GitId;

use crate::document::{self, Parsed};

/// The largest file that is read; the cluster would not take more either.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How deep directories may be nested.
const DEPTH_MAX: usize = 64;

/// Why a repository or its branch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not that of a repository on this machine.
    #[error("repository {0:?} is not on this machine; give its path or a file:// URL")]
    Address(String),
    /// There is no repository.
    #[error("repository {path} cannot be opened: {reason}")]
    Open {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
    /// The branch does not exist (any more).
    #[error("branch {branch:?} does not exist in repository {path}")]
    Branch {
        /// The repository.
        path: String,
        /// The branch.
        branch: String,
    },
    /// An object is missing or damaged.
    #[error("repository {path} is damaged: {reason}")]
    Damaged {
        /// The repository.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// A directory of a branch of a repository.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    branch: String,
    directory: String,
    /// What was found in each file, by the file's content: most files do not change between two commits.
    known: HashMap<String, (GitId, File)>,
}

/// What a file was found to hold, without its content.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    /// Objects as they are written, with their digests.
    pub(crate) objects: Vec<(document::ObjectId, String)>,
    pub(crate) definitions: Vec<document::Definition>,
    pub(crate) skipped: Vec<String>,
    pub(crate) broken: Vec<String>,
}

/// A directory at a commit.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) commit: String,
    pub(crate) tree: Option<String>,
    repository: gix::ThreadSafeRepository,
    files: Vec<(String, GitId)>,
}

impl Source {
    pub(crate) fn new(address: &str, branch: String, directory: &str) -> Result<Self, Error> {
        let path = match address.split_once("://") {
            Some(("file", path)) => path,
            Some(_) => return Err(Error::Address(shown(address))),
            None if address.is_empty() => return Err(Error::Address(String::new())),
            None => address,
        };
        let segments = directory.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
        let directory = segments.collect::<Vec<_>>().join("/");
        Ok(Self { path: PathBuf::from(path), branch, directory, known: HashMap::new() })
    }

    /// Returns where the branch lies as a file, if it does.
    pub(crate) fn branch_file(&self) -> PathBuf {
        let dot_git = self.path.join(".git");
        let git_dir = if dot_git.is_dir() { dot_git } else { self.path.clone() };
        git_dir.join("refs/heads").join(&self.branch)
    }

    /// Looks at the head of the branch, without reading files; `None` for a repository without any commit.
    ///
    /// # Cost
    /// A handful of small files.
    pub(crate) fn head(&self) -> Result<Option<Snapshot>, Error> {
        let options = gix::open::Options::isolated().with(gix::sec::Trust::Full).bail_if_untrusted(false);
        let repository =
            options.open(&self.path).map_err(|error| Error::Open { path: self.shown(), reason: error.to_string() })?;
        let local = repository.to_thread_local();
        let name = format!("refs/heads/{}", self.branch);
        let reference = local.try_find_reference(&name).map_err(|error| self.damaged(error))?;
        let Some(mut reference) = reference else {
            let path = Path::new(&self.path).display().to_string();
            let any = local.references().ok().and_then(|all| Some(all.local_branches().ok()?.next().is_some()));
            return if any == Some(true) { Err(Error::Branch { path, branch: self.branch.clone() }) } else { Ok(None) };
        };
        let commit = reference.peel_to_id().map_err(|error| self.damaged(error))?.detach();
        let root = local
            .find_commit(commit)
            .map_err(|error| self.damaged(error))?
            .tree()
            .map_err(|error| self.damaged(error))?;
        let tree = if self.directory.is_empty() {
            Some(root.id)
        } else {
            let entry = root.lookup_entry_by_path(&self.directory).map_err(|error| self.damaged(error))?;
            entry.filter(|entry| entry.mode().is_tree()).map(|entry| entry.object_id())
        };
        let tree = tree.map(|tree| tree.to_string());
        Ok(Some(Snapshot { commit: commit.to_string(), tree, repository, files: Vec::new() }))
    }

    /// Finds out what each file holds; only files that have changed since the last call are read.
    pub(crate) fn scan(&mut self, snapshot: &mut Snapshot) -> Result<Vec<(String, File)>, Error> {
        let local = snapshot.repository.to_thread_local();
        snapshot.files.clear();
        if let Some(tree) = &snapshot.tree {
            let tree = GitId::from_hex(tree.as_bytes()).expect("it was written from an id");
            self.walk(&local, tree, "", 0, &mut snapshot.files)?;
        }
        let mut known = std::mem::take(&mut self.known);
        let mut found = Vec::with_capacity(snapshot.files.len());
        for (path, id) in &snapshot.files {
            let file = match known.remove(path) {
                Some((before, file)) if before == *id => file,
                _ => self.inspect(&local, path, *id)?,
            };
            self.known.insert(path.clone(), (*id, file.clone()));
            found.push((path.clone(), file));
        }
        Ok(found)
    }

    fn inspect(&self, repository: &gix::Repository, path: &str, id: GitId) -> Result<File, Error> {
        let size = repository.find_header(id).map_err(|error| self.damaged(error))?.size();
        if size > FILE_BYTES_MAX {
            let broken = vec![format!("it has {size} bytes, the limit is {FILE_BYTES_MAX}")];
            return Ok(File { broken, ..File::default() });
        }
        let Parsed { documents, skipped, broken } = self.parse(repository, path, id)?;
        let definitions = documents.iter().filter_map(document::Document::definition).collect();
        let objects = documents.into_iter().map(|document| (document.id, document.digest)).collect();
        Ok(File { objects, definitions, skipped, broken })
    }

    fn parse(&self, repository: &gix::Repository, path: &str, id: GitId) -> Result<Parsed, Error> {
        let blob = repository.find_object(id).map_err(|error| self.damaged(error))?;
        Ok(document::parse(path, &blob.data))
    }

    /// Reads the documents of one file of the snapshot.
    pub(crate) fn documents(&self, snapshot: &Snapshot, path: &str) -> Result<Vec<document::Document>, Error> {
        let at = snapshot.files.binary_search_by(|(other, _)| other.as_str().cmp(path));
        let Ok(at) = at else { return Ok(Vec::new()) };
        let parsed = self.parse(&snapshot.repository.to_thread_local(), path, snapshot.files[at].1)?;
        Ok(parsed.documents)
    }

    /// Lists manifests in the order of their paths.
    fn walk(
        &self,
        repository: &gix::Repository,
        tree: GitId,
        prefix: &str,
        depth: usize,
        files: &mut Vec<(String, GitId)>,
    ) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(self.damaged(format!("{prefix:?} is nested deeper than {DEPTH_MAX} directories")));
        }
        let tree = repository.find_tree(tree).map_err(|error| self.damaged(error))?;
        for entry in tree.iter() {
            let entry = entry.map_err(|error| self.damaged(error))?;
            let path = format!("{prefix}{}", entry.filename());
            if entry.mode().is_tree() {
                self.walk(repository, entry.object_id(), &format!("{path}/"), depth + 1, files)?;
            } else if entry.mode().is_blob() && document::is_manifest(&path) {
                files.push((path, entry.object_id()));
            }
        }
        if depth == 0 {
            files.sort();
        }
        Ok(())
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn damaged(&self, error: impl std::fmt::Display) -> Error {
        Error::Damaged { path: self.shown(), reason: error.to_string() }
    }
}

/// Returns the address without user information.
fn shown(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
            format!("{scheme}://{rest}")
        }
        None => address.to_owned(),
    }
}
