//! What the agent has applied, so that it removes that and nothing else.
//!
//! Kept in a ConfigMap of the cluster. New entries are stored before their objects are applied: whatever the moment of a crash,
//! every applied object is listed. An entry without a uid may not have been applied at all; such an object is removed only if
//! the cluster says that this agent manages it.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::document::ObjectId;

/// The most that an inventory may unfold to: some hundred thousand objects.
const BYTES_MAX: u64 = 64 << 20;

/// An applied object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) id: ObjectId,
    /// The uid that the cluster gave it; absent until it was applied.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// The digest of the content that was applied; absent while that has not succeeded.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// The file that it came from.
    #[serde(rename = "p")]
    pub(crate) path: String,
}

/// Everything that was applied and not removed, by identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    entries: BTreeMap<Key, Entry>,
}

type Key = (String, String, String, String);

fn key(id: &ObjectId) -> Key {
    let (group, kind, namespace, name) = id.identity();
    (group.to_owned(), kind.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Inventory {
    pub(crate) fn get(&self, id: &ObjectId) -> Option<&Entry> {
        self.entries.get(&key(id))
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.entries.insert(key(&entry.id), entry);
    }

    /// Names the file that an object comes from; it may have been renamed.
    pub(crate) fn move_to(&mut self, id: &ObjectId, path: &str) {
        if let Some(entry) = self.entries.get_mut(&key(id))
            && entry.path != path
        {
            path.clone_into(&mut entry.path);
        }
    }

    /// Names all objects as `placed` says. Where two entries turn out to be one object, the one that was applied stays.
    pub(crate) fn place(&mut self, placed: impl Fn(&ObjectId) -> ObjectId) {
        let wrong: Vec<Entry> = self.entries.values().filter(|entry| placed(&entry.id) != entry.id).cloned().collect();
        for mut entry in wrong {
            self.remove(&entry.id);
            entry.id = placed(&entry.id);
            if self.get(&entry.id).is_none_or(|other| other.uid.is_none()) {
                self.insert(entry);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &ObjectId) {
        self.entries.remove(&key(id));
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        for entry in self.entries.values() {
            serde_json::to_writer(&mut gzip, entry)?;
            gzip.write_all(b"\n")?;
        }
        gzip.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> std::io::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(bytes).take(BYTES_MAX).read_to_string(&mut text)?;
        let mut inventory = Self::default();
        for line in text.lines() {
            inventory.insert(serde_json::from_str(line)?);
        }
        Ok(inventory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(namespace: &str, name: &str) -> ObjectId {
        ObjectId {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn an_inventory_survives_being_stored() {
        let mut inventory = Inventory::default();
        for at in 0..5_000 {
            let digest = Some(format!("{at:024x}"));
            let uid = Some(format!("{at:08x}-aaaa-bbbb-cccc-0123456789ab"));
            inventory.insert(Entry { id: id("ns", &format!("n{at}")), uid, digest, path: format!("d/{at}.yaml") });
        }
        let bytes = inventory.encode().expect("encoded");
        assert!(bytes.len() < 500_000, "{} bytes do not fit into a ConfigMap", bytes.len());
        assert_eq!(Inventory::decode(&bytes).expect("decoded"), inventory);
        assert!(Inventory::decode(b"garbage").is_err());
        let empty = Inventory::default().encode().expect("encoded");
        assert_eq!(Inventory::decode(&empty).expect("decoded").len(), 0);
    }

    #[test]
    fn two_entries_of_one_object_become_one() {
        for applied_is_bare in [true, false] {
            let entry = |namespace: &str, applied: bool| Entry {
                id: id(namespace, "x"),
                uid: applied.then(|| "u".to_owned()),
                digest: None,
                path: String::new(),
            };
            let mut inventory = Inventory::default();
            inventory.insert(entry("", applied_is_bare));
            inventory.insert(entry("default", !applied_is_bare));
            inventory.place(|id| id.placed(crate::document::Reach::Namespace));
            assert_eq!(inventory.entries().collect::<Vec<_>>(), [&entry("default", true)]);
        }
    }

    #[test]
    fn the_version_is_not_part_of_the_identity() {
        let mut inventory = Inventory::default();
        inventory.insert(Entry { id: id("a", "x"), uid: None, digest: None, path: "p".to_owned() });
        let mut newer = id("a", "x");
        newer.version = "v2".to_owned();
        assert!(inventory.get(&newer).is_some());
        assert!(inventory.get(&id("b", "x")).is_none());
    }
}
