//! Paths that may become entries of a state store: what the stores hold to, and what admission refuses before anything waits for
//! a store.
//!
//! **Invariant:** a [`Path`] is relative, has no empty, `.` or `..` segment, no segment that any file system takes for
//! `.git`, and no segment longer than a file system allows. Nothing else is ever turned into a tree entry.

use gix_validate::path::component;
use unicode_normalization::UnicodeNormalization;

/// The longest name that common file systems hold.
const SEGMENT_BYTES_MAX: usize = 255;
/// The longest path that Linux opens.
const PATH_BYTES_MAX: usize = 4096;

/// How many names a path may have. Far more than anything has, and few enough that whoever walks down a tree has room for it.
const SEGMENTS_MAX: usize = 255;

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It starts with a slash.
    #[error("it is absolute")]
    Absolute,
    /// It has a `..` segment.
    #[error("it leaves its directory by \"..\"")]
    Escapes,
    /// It contains a control character.
    #[error("it contains a control character")]
    Control,
    /// It contains a backslash, which some systems take for a separator.
    #[error("it contains a backslash")]
    Backslash,
    /// A segment is `.git`, or is taken for it by some file system.
    #[error("it names a .git directory")]
    DotGit,
    /// A segment or the whole is too long.
    #[error("a name in it is longer than {SEGMENT_BYTES_MAX} bytes, or all of it longer than {PATH_BYTES_MAX}")]
    TooLong,
    /// It has too many segments.
    #[error("it has more than {SEGMENTS_MAX} names")]
    TooDeep,
    /// The root of the store is to be replaced.
    #[error("the root of a state store is never replaced as a whole")]
    Root,
}

/// A checked path; the empty one is the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// Checks `text`; `.` segments, doubled and trailing slashes are dropped.
    ///
    /// # Errors
    /// Says which part of the invariant the text would break.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        if text.starts_with('/') {
            return Err(Reason::Absolute);
        }
        let mut path = String::with_capacity(text.len());
        for segment in text.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
            check(segment)?;
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(segment);
        }
        let path = Self(path);
        path.check_size()?;
        Ok(path)
    }

    /// Checks `text` as the path of a file: it must not be empty.
    ///
    /// # Errors
    /// As [`Path::parse`], and [`Reason::Empty`].
    pub fn parse_file(text: &str) -> Result<Self, Reason> {
        let path = Self::parse(text)?;
        if path.is_root() || text.ends_with('/') || text.ends_with("/.") {
            return Err(Reason::Empty);
        }
        Ok(path)
    }

    /// Checks `text` as a directory; leading slashes are dropped, as in the `path` of a store.
    ///
    /// # Errors
    /// As [`Path::parse`].
    pub fn parse_directory(text: &str) -> Result<Self, Reason> {
        Self::parse(text.trim_start_matches('/'))
    }

    /// Returns the path `below` in this directory; [`Path::check_size`] tells whether it is still one.
    pub fn join(&self, below: &Path) -> Path {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Path(format!("{}/{}", self.0, below.0)),
        }
    }

    /// Returns the path relative to `directory`, if it is below it.
    pub fn below(&self, directory: &Path) -> Option<&str> {
        if directory.is_root() {
            return Some(&self.0);
        }
        self.0.strip_prefix(&directory.0)?.strip_prefix('/')
    }

    /// Tells whether one of the two is the other, or below it.
    pub fn touches(&self, other: &Path) -> bool {
        self == other || self.below(other).is_some() || other.below(self).is_some()
    }

    /// Returns the same text for all paths that some file system takes for this one: those that differ in case, or in the form
    /// in which Unicode composes its characters.
    pub fn folded(&self) -> String {
        if self.0.is_ascii() {
            return self.0.to_ascii_lowercase();
        }
        // There and back again: some letters have two forms in one case and one in the other.
        let lower = self.0.nfd().flat_map(char::to_lowercase);
        lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfd().collect()
    }

    /// Checks what only shows when a path is put together.
    ///
    /// # Errors
    /// [`Reason::TooLong`] and [`Reason::TooDeep`].
    pub fn check_size(&self) -> Result<(), Reason> {
        if self.0.len() > PATH_BYTES_MAX {
            return Err(Reason::TooLong);
        }
        if self.segments().count() > SEGMENTS_MAX {
            return Err(Reason::TooDeep);
        }
        Ok(())
    }

    /// Tells whether this is the root of the store.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the path of its first segments.
    pub fn first(&self, count: usize) -> Path {
        let end = self.0.match_indices('/').nth(count.saturating_sub(1)).map_or(self.0.len(), |(at, _)| at);
        Path(self.0[..end].to_owned())
    }

    /// Returns the names on the way from the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// Returns the directory that the path is in, and its last segment.
    pub fn split(&self) -> Option<(Path, &str)> {
        match self.0.rsplit_once('/') {
            Some((directory, name)) => Some((Path(directory.to_owned()), name)),
            None if self.is_root() => None,
            None => Some((Path::default(), &self.0)),
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(segment: &str) -> Result<(), Reason> {
    if segment == ".." {
        return Err(Reason::Escapes);
    }
    if segment.len() > SEGMENT_BYTES_MAX {
        return Err(Reason::TooLong);
    }
    if segment.chars().any(char::is_control) {
        return Err(Reason::Control);
    }
    if segment.contains('\\') {
        return Err(Reason::Backslash);
    }
    // Names that only Windows refuses (`con`, a colon) stay allowed: Kubernetes names contain them.
    let options = component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };
    component(segment.into(), None, options).map(|_| ()).map_err(|_| Reason::DotGit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_brought_into_clean_form() {
        for (given, clean) in [
            ("a", "a"),
            ("a/b.yaml", "a/b.yaml"),
            ("./a//b/./c", "a/b/c"),
            ("..a/b..", "..a/b.."),
            (".gitignore", ".gitignore"),
            (".github/x", ".github/x"),
            ("con:1", "con:1"),
            ("NUL", "NUL"),
            ("aux.yaml", "aux.yaml"),
            ("a./b ", "a./b "),
            (" ", " "),
            ("...", "..."),
            (".gitmodules", ".gitmodules"),
            (".kratix/x", ".kratix/x"),
            ("git~2", "git~2"),
            ("-rf", "-rf"),
            ("x~1", "x~1"),
            ("ä/日本", "ä/日本"),
        ] {
            assert_eq!(Path::parse_file(given).map(|p| p.0), Ok(clean.to_owned()), "{given:?}");
        }
    }

    #[test]
    fn paths_that_some_file_systems_take_for_one_fold_to_one() {
        let folded = |text: &str| Path::parse_file(text).expect("a path").folded();
        for (one, other) in [
            ("A.yaml", "a.YAML"),
            ("Dir/x", "dir/X"),
            ("caf\u{e9}", "cafe\u{301}"),
            ("CAF\u{c9}", "cafe\u{301}"),
            ("\u{1e9e}", "ss"),
            ("\u{3a3}", "\u{3c2}"),
            (".\u{212a}ratix/x", ".kratix/x"),
            ("\u{d55c}", "\u{1112}\u{1161}\u{11ab}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one:?} {other:?}");
        }
        for (one, other) in [("a", "a."), ("a", "b"), ("a/b", "a-b"), ("e", "\u{e9}"), ("con", "con.yaml")] {
            assert_ne!(folded(one), folded(other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_path_that_could_leave_its_place_is_refused() {
        let long = "x".repeat(256);
        for (given, reason) in [
            ("", Reason::Empty),
            (".", Reason::Empty),
            ("a/", Reason::Empty),
            ("a/.", Reason::Empty),
            ("/etc/passwd", Reason::Absolute),
            ("../a", Reason::Escapes),
            ("a/../../b", Reason::Escapes),
            ("a/..", Reason::Escapes),
            ("a\0b", Reason::Control),
            ("a\nb", Reason::Control),
            ("a\\..\\b", Reason::Backslash),
            (".git/config", Reason::DotGit),
            ("a/.GIT/hooks/x", Reason::DotGit),
            (".git", Reason::DotGit),
            ("git~1/config", Reason::DotGit),
            (".git. /config", Reason::DotGit),
            (".git::$INDEX_ALLOCATION/x", Reason::DotGit),
            (".g\u{200c}it/config", Reason::DotGit),
            (".\u{200d}git/config", Reason::DotGit),
            ("\u{feff}.git", Reason::DotGit),
            (".GI\u{206f}T", Reason::DotGit),
            ("a/GIT~1", Reason::DotGit),
            (".git ", Reason::DotGit),
            (".git...", Reason::DotGit),
            (".git::$INDEX_ALLOCATION", Reason::DotGit),
            (".git:stream", Reason::DotGit),
            ("a\u{7f}b", Reason::Control),
            ("a\u{85}b", Reason::Control),
            ("a\tb", Reason::Control),
            (long.as_str(), Reason::TooLong),
        ] {
            assert_eq!(Path::parse_file(given), Err(reason), "{given:?}");
        }
        assert!(Path::parse_file(&"x".repeat(255)).is_ok());
        assert!(Path::parse_file("a/".repeat(255).trim_end_matches('/')).is_ok());
        assert_eq!(Path::parse_file("a/".repeat(256).trim_end_matches('/')), Err(Reason::TooDeep));
        assert_eq!(Path::parse_file("ab/".repeat(2000).trim_end_matches('/')), Err(Reason::TooLong));
    }
}
