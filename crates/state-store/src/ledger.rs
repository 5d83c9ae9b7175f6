//! Ledgers: files that remember which files of a shared directory belong to whom.
//!
//! A ledger is YAML with the list `files`, paths relative to the store's path:
//!
//! ```yaml
//! files:
//! - worker-1/namespace.yaml
//! ```
//!
//! Ledgers of one shared directory lie side by side; the file's name without its extension names the owner.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use gix::ObjectId;
use serde::Deserialize;

use crate::error::Trouble;
use crate::path::Path;

/// How many shared directories are remembered; with more, the least useful ones are read again.
const DIRECTORIES_MAX: usize = 64;

/// Where a ledger is. All paths are relative to the repository.
pub(crate) struct Place<'a> {
    /// The store's path: entries are relative to it.
    pub(crate) root: &'a Path,
    /// The shared directory: entries outside are from older versions, and relative to it.
    pub(crate) prefix: &'a Path,
    /// The ledger.
    pub(crate) path: Path,
}

impl Place<'_> {
    fn directory(&self) -> (Path, &str) {
        self.path.split().expect("a ledger is a file")
    }

    /// Returns the place of another ledger of the same shared directory.
    pub(crate) fn beside(&self, name: &str) -> Option<Self> {
        let path = self.directory().0.join(&Path::parse_file(name).ok()?);
        Some(Self { root: self.root, prefix: self.prefix, path })
    }

    /// Tells whether `path` is where ledgers are; nobody owns those.
    pub(crate) fn is_ledger(&self, path: &Path) -> bool {
        let (directory, _) = self.directory();
        directory != *self.prefix && path.below(&directory).is_some()
    }
}

/// What a ledger says.
pub(crate) struct List {
    /// The entries as they are written.
    pub(crate) entries: Vec<String>,
    /// The usable entries, relative to the repository.
    pub(crate) paths: Vec<Path>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    files: Option<Vec<String>>,
}

impl List {
    pub(crate) fn parse(content: &Bytes, place: &Place<'_>) -> Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let document: Document = if text.trim().is_empty() {
            Document { files: None }
        } else {
            serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))?
        };
        let entries = document.files.unwrap_or_default();
        // An entry that this store refuses to write was never written by it, and nothing is removed for it.
        let paths = entries.iter().filter_map(|entry| resolve(entry, place)).collect();
        Ok(Self { entries, paths })
    }

    /// Returns the entries, as they are written, that name none of these paths.
    pub(crate) fn without(&self, taken: &HashSet<&Path>, place: &Place<'_>) -> Vec<&str> {
        let is_kept = |entry: &&str| resolve(entry, place).is_none_or(|path| !taken.contains(&path));
        self.entries.iter().map(String::as_str).filter(is_kept).collect()
    }
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn resolve(entry: &str, place: &Place<'_>) -> Option<Path> {
    let path = place.root.join(&Path::parse_file(entry.trim_start_matches('/')).ok()?);
    if place.prefix.is_root() || path.below(place.prefix).is_some() {
        return Some(path);
    }
    Some(place.prefix.join(&Path::parse_file(entry).ok()?))
}

/// Returns the text of a ledger that lists `entries`.
pub(crate) fn render(entries: &[&str]) -> String {
    if entries.is_empty() {
        return "files: []\n".to_owned();
    }
    let mut text = String::from("files:\n");
    for entry in entries {
        text.push_str("- ");
        if is_plain(entry) {
            text.push_str(entry);
        } else {
            // A single-quoted YAML text has one escape only. Paths contain no line breaks.
            text.push('\'');
            text.push_str(&entry.replace('\'', "''"));
            text.push('\'');
        }
        text.push('\n');
    }
    text
}

/// Tells whether YAML takes the text as it is for a text: it has a letter first, and nothing with a meaning.
fn is_plain(text: &str) -> bool {
    let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'.');
    // Without a slash or dot it could be a keyword such as `true` or `null`; `.inf` and `.nan` are numbers.
    let keyword = !text.contains(['/', '.']) || matches!(text.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    word && starts && !keyword
}

/// Tells whether the owner with a ledger of this name (without its extension) still exists.
///
/// A ledger that was left behind by an owner who is gone owns nothing: its paths are free for others. It stops listing what
/// others take, so that an owner of the same name who comes later meets them as any other does.
pub type Liveness = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Who owns what in shared directories, as far as it was asked for.
pub(crate) struct Index {
    directories: HashMap<Path, Ledgers>,
    lives: Liveness,
}

#[derive(Default)]
struct Ledgers {
    /// For each ledger its content's id and the paths that it lists.
    lists: BTreeMap<String, (ObjectId, Vec<Path>)>,
    /// For each path the ledgers that list it.
    owners: HashMap<Path, Vec<String>>,
}

/// The owners of the paths of one shared directory, as one of them sees it.
pub(crate) struct Owners<'i> {
    ledgers: &'i Ledgers,
    own: String,
    lives: &'i Liveness,
}

impl Owners<'_> {
    /// Returns who else owns `path`: the name of the ledger without its extension.
    pub(crate) fn other(&self, path: &Path) -> Option<&str> {
        self.claim(path).err()
    }

    /// Returns the file names of the ledgers that list `path` although their owners are gone.
    ///
    /// Whoever takes the path takes it out of these: their owners may come back.
    ///
    /// # Errors
    /// The owner who is not gone: the name of the ledger without its extension.
    pub(crate) fn claim(&self, path: &Path) -> Result<Vec<&str>, &str> {
        let Some(owners) = self.ledgers.owners.get(path) else { return Ok(Vec::new()) };
        let mut left = Vec::new();
        for ledger in owners.iter().filter(|ledger| **ledger != self.own) {
            let name = ledger.rsplit_once('.').map_or(ledger.as_str(), |(name, _)| name);
            if (self.lives)(name) {
                return Err(name);
            }
            left.push(ledger.as_str());
        }
        Ok(left)
    }
}

impl Index {
    pub(crate) fn new(lives: Liveness) -> Self {
        Self { directories: HashMap::new(), lives }
    }

    /// Takes what is known out of the index.
    pub(crate) fn take(&mut self) -> Self {
        Self { directories: std::mem::take(&mut self.directories), lives: Arc::clone(&self.lives) }
    }

    /// Brings the index of the ledger's directory up to date; only ledgers that have changed are read.
    pub(crate) fn owners(
        &mut self,
        overlay: &mut crate::git::Overlay<'_>,
        place: &Place<'_>,
    ) -> Result<Owners<'_>, Trouble> {
        let (directory, own) = place.directory();
        let own = own.to_owned();
        if self.directories.len() >= DIRECTORIES_MAX && !self.directories.contains_key(&directory) {
            self.directories.clear();
        }
        let files = overlay.files(&directory)?;
        let ledgers = self.directories.entry(directory.clone()).or_default();
        let mut unseen: HashSet<String> = ledgers.lists.keys().cloned().collect();
        for (name, id, content) in files {
            unseen.remove(&name);
            if ledgers.lists.get(&name).is_some_and(|(known, _)| *known == id) {
                continue;
            }
            let content = overlay.content(id, content)?;
            // What cannot be understood owns nothing; its own owner is told when it writes.
            let list = List::parse(&content, place).map(|list| list.paths).unwrap_or_default();
            ledgers.forget(&name);
            for path in &list {
                ledgers.owners.entry(path.clone()).or_default().push(name.clone());
            }
            ledgers.lists.insert(name, (id, list));
        }
        for name in unseen {
            ledgers.forget(&name);
        }
        Ok(Owners { ledgers, own, lives: &self.lives })
    }
}

impl Ledgers {
    fn forget(&mut self, name: &str) {
        for path in self.lists.remove(name).map(|(_, list)| list).unwrap_or_default() {
            if let Some(owners) = self.owners.get_mut(&path) {
                owners.retain(|owner| owner != name);
                if owners.is_empty() {
                    self.owners.remove(&path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::parse_file(text).expect("a path")
    }

    #[test]
    fn a_ledger_reads_back_what_was_written() {
        let entries = ["worker-1/ns.yaml", "a b", "it's", "true", "12", "-x", "x: y", "#c", ".nan", "ä/ü", "0/1"];
        let (root, prefix) = (Path::default(), Path::default());
        let place = Place { root: &root, prefix: &prefix, path: path(".kratix/a.yaml") };
        let list = List::parse(&Bytes::from(render(&entries)), &place).expect("readable");
        assert_eq!(list.entries, entries);
        assert_eq!(render(&["worker-1/ns.yaml"]), "files:\n- worker-1/ns.yaml\n");
        assert_eq!(render(&[]), "files: []\n");
        assert!(List::parse(&Bytes::from("files: []\n"), &place).expect("readable").entries.is_empty());
        assert!(List::parse(&Bytes::from("files: {"), &place).is_err());
    }

    #[test]
    fn entries_of_older_versions_are_relative_to_the_shared_directory() {
        let (root, prefix) = (path("s"), path("s/d"));
        let place = Place { root: &root, prefix: &prefix, path: path("s/d/.kratix/a.yaml") };
        let text = "files:\n- d/new.yaml\n- old.yaml\n- ../../escape\n- d/.git/config\n";
        let list = List::parse(&Bytes::from(text), &place).expect("readable");
        assert_eq!(list.paths, [path("s/d/new.yaml"), path("s/d/old.yaml")]);
    }
}
