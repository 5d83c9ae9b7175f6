//! What changes have left in a bucket, compared by listing.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use sha2::{Digest, Sha256};

use super::objects::{Failure, Key, Meta, Objects, hex};
use crate::change::{Imprint, Marks};

/// How many objects one request lists.
const PAGE: usize = 1000;

/// What a change left at one place of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// Everything below a directory.
    Tree { prefix: String, identity: String },
    /// One object, or none.
    Object { key: String, identity: Option<String> },
}

impl Mark {
    pub(super) fn tree<'m>(prefix: &Key, objects: impl Iterator<Item = (&'m Key, &'m Meta)>) -> Self {
        let identity = identity(objects.map(|(key, meta)| (key.as_ref(), meta)));
        Self::Tree { prefix: prefix.to_string(), identity }
    }

    pub(super) fn object(key: &Key, meta: Option<&Meta>) -> Self {
        Self::Object { key: key.to_string(), identity: meta.map(of_object) }
    }

    /// Returns the directory whose listing tells whether it holds.
    fn directory(&self) -> &str {
        match self {
            Self::Tree { prefix, .. } => prefix,
            Self::Object { key, .. } => key.rsplit_once('/').map_or("", |(directory, _)| directory),
        }
    }

    fn holds(&self, listed: &BTreeMap<String, Meta>) -> bool {
        match self {
            Self::Tree { prefix, identity: left } => {
                let start = format!("{prefix}/");
                let below = listed.range(start.clone()..).take_while(|(key, _)| key.starts_with(&start));
                identity(below.map(|(key, meta)| (key.as_str(), meta))) == *left
            }
            Self::Object { key, identity } => listed.get(key).map(of_object) == *identity,
        }
    }
}

fn of_object(meta: &Meta) -> String {
    format!("{} {}", meta.size, meta.identity())
}

/// Returns one identity for many objects, which come in the order of their keys.
pub(super) fn identity<'m>(objects: impl Iterator<Item = (&'m str, &'m Meta)>) -> String {
    let mut hasher = Sha256::new();
    for (key, meta) in objects {
        // No key has a control character, and no identity one.
        hasher.update(format!("{key}\n{}\n", of_object(meta)));
    }
    hex(&hasher.finalize())
}

/// Tells of each imprint whether the bucket still has it: by one listing of all that they have in common, unless that holds much
/// else.
pub(super) async fn verify(objects: &Objects, imprints: &[Imprint]) -> Result<Vec<bool>, Failure> {
    let marks = || imprints.iter().filter_map(|imprint| Marks::bucket(&imprint.0)).flatten();
    let directories: BTreeSet<&str> = marks().map(Mark::directory).collect();
    let Some(common) = common(&directories) else {
        return Ok(imprints.iter().map(|imprint| Marks::bucket(&imprint.0).is_some()).collect());
    };
    let listed = match objects.list(&parse(common), PAGE * directories.len()).await? {
        Some(listed) => listed,
        None => {
            let listings = outermost(&directories).into_iter().map(|directory| list(objects, directory));
            try_join_all(listings).await?.into_iter().flatten().collect::<BTreeMap<_, _>>()
        }
    };
    let listed = listed.into_iter().map(|(key, meta)| (String::from(key), meta)).collect();
    let holds =
        |imprint: &Imprint| Marks::bucket(&imprint.0).is_some_and(|marks| marks.iter().all(|mark| mark.holds(&listed)));
    Ok(imprints.iter().map(holds).collect())
}

async fn list(objects: &Objects, directory: &str) -> Result<BTreeMap<Key, Meta>, Failure> {
    Ok(objects.list(&parse(directory), usize::MAX).await?.unwrap_or_default())
}

fn parse(directory: &str) -> Key {
    Key::parse(directory).unwrap_or_default()
}

/// Returns the directory that all of these are in or below, `None` without any.
fn common<'d>(directories: &BTreeSet<&'d str>) -> Option<&'d str> {
    let (first, last) = (directories.first()?, directories.last()?);
    let mut end = 0;
    for (at, (one, other)) in first.bytes().zip(last.bytes()).enumerate() {
        if one != other {
            return Some(&first[..end]);
        }
        if one == b'/' {
            end = at;
        }
    }
    // One of the two is how the other one begins.
    let shorter = first.len().min(last.len());
    let is_whole = [first, last].iter().all(|text| text.len() == shorter || text.as_bytes()[shorter] == b'/');
    Some(if is_whole { &first[..shorter] } else { &first[..end] })
}

/// Leaves out directories below others.
fn outermost<'d>(directories: &BTreeSet<&'d str>) -> Vec<&'d str> {
    let is_below = |directory: &str, other: &str| {
        other.is_empty() || directory.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
    };
    let is_inner = |directory: &str| directories.iter().any(|other| *other != directory && is_below(directory, other));
    directories.iter().copied().filter(|directory| !is_inner(directory)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_directories_have_in_common_ends_at_a_segment() {
        for (directories, expected) in [
            (vec!["a/b", "a/c"], "a"),
            (vec!["a/bc", "a/bd"], "a"),
            (vec!["a/b", "a/b/c"], "a/b"),
            (vec!["a/b", "a/bc"], "a"),
            (vec!["a", "b"], ""),
            (vec!["", "b"], ""),
            (vec!["a/b/c"], "a/b/c"),
            (vec!["a/b/c", "a/b/d", "a/x"], "a"),
        ] {
            assert_eq!(common(&directories.iter().copied().collect()), Some(expected), "{directories:?}");
        }
        assert_eq!(common(&BTreeSet::new()), None);
        assert_eq!(outermost(&BTreeSet::from(["a", "a/b", "ab", "c/d", "c/d/e/f"])), ["a", "ab", "c/d"]);
        assert_eq!(outermost(&BTreeSet::from(["", "a"])), [""]);
    }

    #[test]
    fn a_tree_is_told_from_its_siblings_and_from_another_content() {
        let meta = |size| Meta::local(size, "t".to_owned());
        let key = |text: &str| Key::parse(text).expect("a key");
        let mut listed: BTreeMap<String, Meta> =
            ["d-x/a", "d/a", "d/b/c", "d0", "e"].map(|text| (text.to_owned(), meta(1))).into();
        let own: BTreeMap<Key, Meta> = ["d/a", "d/b/c"].map(|text| (key(text), meta(1))).into();
        let tree = Mark::tree(&key("d"), own.iter());
        let object = Mark::object(&key("d/a"), Some(&meta(1)));
        let absent = Mark::object(&key("d/z"), None);
        assert!(tree.holds(&listed) && object.holds(&listed) && absent.holds(&listed));
        listed.insert("d/z".to_owned(), meta(1));
        assert!(!tree.holds(&listed) && object.holds(&listed) && !absent.holds(&listed));
        listed.remove("d/z");
        listed.insert("d/a".to_owned(), meta(2));
        assert!(!tree.holds(&listed) && !object.holds(&listed));
    }
}
