//! Where objects lie: in namespaces or in the cluster. The cluster knows, or a definition that comes with them.
//!
//! What a document says of its namespace may be missing or stray; the object's identity is where it really lies.

use std::collections::{HashMap, HashSet};

use kube::core::GroupVersionKind;
use kube::discovery::Scope;

use crate::cluster::Cluster;
use crate::document::{Definition, ObjectId, Reach};

/// What is known of the kinds of one synchronisation, by group and kind.
#[derive(Debug, Default)]
pub(crate) struct Reaches {
    known: HashMap<(String, String), Reach>,
    /// Kinds that the cluster could not be asked about, and why. Nothing is decided about their objects.
    trouble: HashMap<(String, String), String>,
}

impl Reaches {
    /// Asks for all kinds in `kinds`; what the cluster does not serve yet, `definitions` may say.
    pub(crate) async fn find(
        cluster: &mut Cluster,
        kinds: HashSet<GroupVersionKind>,
        definitions: impl Iterator<Item = &Definition>,
    ) -> Self {
        let mut reaches = Self::default();
        for kind in kinds {
            let served = cluster.served(&kind).await;
            let key = (kind.group, kind.kind);
            match served {
                Ok(Some((_, scope))) => {
                    let reach = if scope == Scope::Cluster { Reach::Cluster } else { Reach::Namespace };
                    reaches.known.insert(key, reach);
                }
                Ok(None) => {}
                Err(message) => {
                    reaches.trouble.insert(key, message);
                }
            }
        }
        for definition in definitions {
            let key = (definition.group.clone(), definition.kind.clone());
            reaches.known.entry(key).or_insert(definition.reach);
        }
        // One version that answers tells enough.
        reaches.trouble.retain(|key, _| !reaches.known.contains_key(key));
        reaches
    }

    /// Returns the object with the namespace that it has; as it is if nobody knows the kind.
    pub(crate) fn place(&self, id: &ObjectId) -> ObjectId {
        self.known.get(&key(id)).map_or_else(|| id.clone(), |reach| id.placed(*reach))
    }

    /// Returns why nothing can be decided about an object.
    pub(crate) fn trouble(&self, id: &ObjectId) -> Option<&str> {
        self.trouble.get(&key(id)).map(String::as_str)
    }
}

fn key(id: &ObjectId) -> (String, String) {
    (id.group.clone(), id.kind.clone())
}
