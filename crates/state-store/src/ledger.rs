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
use kratix_store_path::Path;
use serde::Deserialize;

use crate::error::{Trouble, WriteError};

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
    /// Returns the directory of the ledgers, and the name of this one.
    pub(crate) fn directory(&self) -> (Path, &str) {
        self.path.split().expect("a ledger is a file")
    }

    /// Returns the place of another ledger of the same shared directory.
    pub(crate) fn beside(&self, name: &str) -> Option<Self> {
        let path = self.directory().0.join(&Path::parse_file(name).ok()?);
        Some(Self { root: self.root, prefix: self.prefix, path })
    }

    /// Tells whether `path` is where ledgers are, on whatever file system; nobody owns those.
    pub(crate) fn is_ledger(&self, path: &Path) -> bool {
        let (directory, _) = self.directory();
        let is_below = || path.folded().strip_prefix(&directory.folded()).is_some_and(|rest| rest.starts_with('/'));
        directory != *self.prefix && is_below()
    }
}

/// What a ledger says.
pub(crate) struct List {
    /// The entries as they are written.
    pub(crate) entries: Vec<String>,
    /// For each entry what it may name, relative to the repository: nothing for an unusable one, and several paths for one that
    /// another store of the same repository may have written.
    named: Vec<Vec<Path>>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    files: Option<Vec<String>>,
}

impl List {
    pub(crate) fn parse(content: &Bytes, place: &Place<'_>) -> Result<Self, String> {
        let entries = entries(content)?;
        // An entry that this store refuses to write was never written by it, and nothing is removed for it.
        let named = entries.iter().map(|entry| claims(entry, place)).collect();
        Ok(Self { entries, named })
    }

    /// Returns what the entries name.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.named.iter().flatten()
    }

    /// Returns the paths of which it depends on what is there whether an entry means them.
    pub(crate) fn doubtful(&self) -> impl Iterator<Item = &Path> {
        self.named.iter().filter(|named| named.len() > 1).flatten()
    }

    /// Decides for each entry which path it means, once it is known which of the [doubtful](Self::doubtful) ones are `there`.
    ///
    /// What is there comes first, since only that can be left behind. Of several, none that another owner has or that another
    /// entry can only mean: two entries never meant one path. Where nothing is there, the likeliest is removed in vain, and
    /// another writer of the ledger that is about to write it notices.
    pub(crate) fn settle(&mut self, there: &HashSet<Path>, owners: &Owners<'_>) {
        let (clear, doubtful): (Vec<_>, Vec<_>) = self.named.iter_mut().partition(|named| named.len() <= 1);
        if doubtful.is_empty() {
            return;
        }
        let clear: HashSet<&Path> = clear.iter().flat_map(|named| named.iter()).collect();
        for named in doubtful {
            let rank = |path: &Path| (!there.contains(path), clear.contains(path) || owners.has_other(path));
            let meant = named.iter().min_by_key(|path| rank(path)).cloned();
            *named = meant.into_iter().collect();
        }
    }

    /// Returns the entries, as they are written, that name none of these paths.
    pub(crate) fn without(&self, taken: &HashSet<&Path>) -> Vec<&str> {
        let entries = self.entries.iter().zip(&self.named);
        let kept = entries.filter(|(_, named)| !named.iter().any(|path| taken.contains(path)));
        kept.map(|(entry, _)| entry.as_str()).collect()
    }
}

fn entries(content: &Bytes) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(content).map_err(|_| "it is not UTF-8 text".to_owned())?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let document: Document = serde_saphyr::from_str(text).map_err(|error| one_line(&error.to_string()))?;
    Ok(document.files.unwrap_or_default())
}

fn one_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Returns the paths that an entry may name, the likeliest first. Who has written it may be another store of the same repository
/// or bucket, whose path lies above the shared directory too: what is not below that, seen from this store, is seen from there.
/// Last comes what older versions have meant.
fn claims(entry: &str, place: &Place<'_>) -> Vec<Path> {
    let Ok(path) = Path::parse_file(entry.trim_start_matches('/')) else { return Vec::new() };
    let own = place.root.join(&path);
    if place.prefix.is_root() || own.below(place.prefix).is_some() {
        return vec![own];
    }
    let above = (1..=place.prefix.segments().count()).map(|count| place.prefix.first(count));
    let named = [Path::default()].into_iter().chain(above).map(|root| root.join(&path));
    named.filter(|path| path.below(place.prefix).is_some()).collect()
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

/// Tells whether the owner with a ledger of this name (without its extension) still exists, and is not about to go.
///
/// A ledger of an owner who is gone owns nothing: its paths are free for others. It stops listing what others take, so that an
/// owner of the same name who comes later meets them as any other does, and one who is about to go removes the rest only.
pub type Liveness = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Who owns what in shared directories, as far as it was asked for.
///
/// `I` identifies contents: ledgers are read again only when theirs has changed.
pub(crate) struct Index<I = ObjectId> {
    directories: HashMap<Path, Ledgers<I>>,
    lives: Liveness,
}

struct Ledgers<I> {
    /// For each ledger its content's id and the paths that it lists.
    lists: BTreeMap<String, (I, Vec<Path>)>,
    owners: Listed,
}

/// For each path, [folded](Path::folded), the ledgers that list it, and as what.
type Listed = HashMap<String, Vec<(String, Path)>>;

/// The owners of the paths of one shared directory, as one of them sees it.
pub(crate) struct Owners<'i> {
    owners: &'i Listed,
    own: String,
    lives: &'i Liveness,
}

/// Why a path cannot be had.
#[derive(Debug, PartialEq)]
pub(crate) struct Taken<'o> {
    /// The name of the owner's ledger, without its extension.
    pub(crate) owner: &'o str,
    /// What the owner calls the path: the same, or one that some file systems take for it.
    pub(crate) path: &'o Path,
}

impl Taken<'_> {
    /// Returns what whoever asked for `path` is told.
    pub(crate) fn refuse(&self, path: &Path) -> WriteError {
        let (path, owner) = (path.to_string(), self.owner.to_owned());
        match self.path.to_string() {
            other if other == path => WriteError::Owned { path, owner },
            other => WriteError::AlikeOwned { path, other, owner },
        }
    }
}

impl Owners<'_> {
    /// Tells whether somebody else owns exactly this path.
    pub(crate) fn has_other(&self, path: &Path) -> bool {
        self.others(path).any(|(ledger, listed)| listed == path && (self.lives)(owner(ledger)))
    }

    /// Returns the file names of the ledgers that list `path` although their owners are gone.
    ///
    /// Whoever takes the path takes it out of these: their owners may come back.
    ///
    /// # Errors
    /// The owner who is not gone.
    pub(crate) fn claim(&self, path: &Path) -> Result<Vec<&str>, Taken<'_>> {
        let mut left = Vec::new();
        for (ledger, listed) in self.others(path) {
            if (self.lives)(owner(ledger)) {
                return Err(Taken { owner: owner(ledger), path: listed });
            }
            if listed == path {
                left.push(ledger);
            }
        }
        Ok(left)
    }

    /// Returns the file names of the ledgers that list exactly this path although their owners are gone.
    pub(crate) fn left(&self, path: &Path) -> impl Iterator<Item = &str> {
        let others = self.others(path).filter(move |(_, listed)| *listed == path).map(|(ledger, _)| ledger);
        others.filter(|ledger| !(self.lives)(owner(ledger)))
    }

    /// Finds out whose a path is that several ledgers list, as those of other programs may: the first of the living, in the order
    /// of the ledgers' names.
    ///
    /// # Errors
    /// The owner, if that is somebody else.
    pub(crate) fn keep(&self, path: &Path) -> Result<(), Taken<'_>> {
        let before = self.others(path).filter(|(ledger, listed)| *ledger < self.own.as_str() && *listed == path);
        match before.filter(|(ledger, _)| (self.lives)(owner(ledger))).min_by_key(|(ledger, _)| *ledger) {
            Some((ledger, path)) => Err(Taken { owner: owner(ledger), path }),
            None => Ok(()),
        }
    }

    fn others(&self, path: &Path) -> impl Iterator<Item = (&str, &Path)> {
        let owners = self.owners.get(&path.folded()).into_iter().flatten();
        owners.filter(|(ledger, _)| *ledger != self.own).map(|(ledger, listed)| (ledger.as_str(), listed))
    }
}

/// Returns the name of a ledger without its extension.
fn owner(ledger: &str) -> &str {
    ledger.rsplit_once('.').map_or(ledger, |(name, _)| name)
}

impl<I: PartialEq> Index<I> {
    pub(crate) fn new(lives: Liveness) -> Self {
        Self { directories: HashMap::new(), lives }
    }

    /// Takes what is known out of the index.
    pub(crate) fn take(&mut self) -> Self {
        Self { directories: std::mem::take(&mut self.directories), lives: Arc::clone(&self.lives) }
    }

    /// Forgets the ledgers of the place's directory that are not `present` any more, and returns the names of those whose content
    /// is not known.
    pub(crate) fn stale<'n>(&mut self, place: &Place<'_>, present: &'n [(String, I)]) -> Vec<&'n str> {
        let (directory, _) = place.directory();
        if self.directories.len() >= DIRECTORIES_MAX && !self.directories.contains_key(&directory) {
            self.directories.clear();
        }
        let ledgers = self.directories.entry(directory).or_default();
        let names: HashSet<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
        let gone: Vec<String> = ledgers.lists.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| ledgers.forget(name));
        let is_known = |name: &str, id: &I| ledgers.lists.get(name).is_some_and(|(known, _)| known == id);
        present.iter().filter(|(name, id)| !is_known(name, id)).map(|(name, _)| name.as_str()).collect()
    }

    /// Remembers the content of a ledger of the place's directory.
    pub(crate) fn learn(&mut self, place: &Place<'_>, name: &str, id: I, content: &Bytes) {
        // What cannot be understood owns nothing; its own owner is told when it writes.
        let entries = entries(content).unwrap_or_default();
        let list = entries.iter().flat_map(|entry| claims(entry, place)).collect();
        self.directories.entry(place.directory().0).or_default().learn(name, id, list);
    }

    /// Remembers that a ledger of the place's directory is gone.
    pub(crate) fn unlearn(&mut self, place: &Place<'_>, name: &str) {
        self.directories.entry(place.directory().0).or_default().forget(name);
    }

    /// Forgets the place's directory.
    pub(crate) fn forget(&mut self, place: &Place<'_>) {
        self.directories.remove(&place.directory().0);
    }

    /// Returns the owners of the paths of the place's directory, as far as they are known.
    pub(crate) fn known(&mut self, place: &Place<'_>) -> Owners<'_> {
        let (directory, own) = place.directory();
        let own = own.to_owned();
        let ledgers = self.directories.entry(directory).or_default();
        Owners { owners: &ledgers.owners, own, lives: &self.lives }
    }
}

impl Index {
    /// Brings the index of the ledger's directory up to date; only ledgers that have changed are read.
    pub(crate) fn owners(
        &mut self,
        overlay: &mut crate::git::Overlay<'_>,
        place: &Place<'_>,
    ) -> Result<Owners<'_>, Trouble> {
        let mut contents = HashMap::new();
        let files = overlay.files(&place.directory().0)?.into_iter().map(|(name, id, content)| {
            contents.insert(name.clone(), (id, content));
            (name, id)
        });
        let files: Vec<(String, ObjectId)> = files.collect();
        for name in self.stale(place, &files) {
            let Some((id, content)) = contents.remove(name) else { continue };
            let content = overlay.content(id, content)?;
            self.learn(place, name, id, &content);
        }
        Ok(self.known(place))
    }
}

impl<I> Default for Ledgers<I> {
    fn default() -> Self {
        Self { lists: BTreeMap::new(), owners: HashMap::new() }
    }
}

impl<I> Ledgers<I> {
    fn learn(&mut self, name: &str, id: I, list: Vec<Path>) {
        self.forget(name);
        for path in &list {
            self.owners.entry(path.folded()).or_default().push((name.to_owned(), path.clone()));
        }
        self.lists.insert(name.to_owned(), (id, list));
    }

    fn forget(&mut self, name: &str) {
        for path in self.lists.remove(name).map(|(_, list)| list).unwrap_or_default() {
            let folded = path.folded();
            if let Some(owners) = self.owners.get_mut(&folded) {
                owners.retain(|(ledger, listed)| ledger != name || *listed != path);
                if owners.is_empty() {
                    self.owners.remove(&folded);
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
        assert_eq!(list.paths().collect::<Vec<_>>(), [&path("s/d/new.yaml"), &path("s/d/old.yaml")]);
    }
}
