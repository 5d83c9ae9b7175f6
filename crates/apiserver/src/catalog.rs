//! What is served: built-in resources and those of the installed CRDs, in one list that everything derives from.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use embedded_apimachinery::{Resource, builtin, crd};
use parking_lot::RwLock;
use serde_json::Value;

/// A resource together with where and how its objects are stored.
#[derive(Debug)]
pub(crate) struct Served {
    resource: Arc<Resource>,
    /// Table of the store.
    pub(crate) table: Arc<str>,
    /// apiVersion in which objects are stored.
    pub(crate) stored_as: String,
    /// Identity of the schema; records written under another are pruned and defaulted again when read.
    pub(crate) schema: u64,
}

impl Deref for Served {
    type Target = Resource;
    fn deref(&self) -> &Resource {
        &self.resource
    }
}

impl Served {
    fn builtin(resource: Arc<Resource>) -> Self {
        let (group, plural) = resource.storage_key();
        let table = format!("{group}/{plural}").into();
        let stored_as = if group == resource.group { resource.api_version() } else { "v1".to_owned() };
        Self { table, stored_as, schema: 0, resource }
    }

    fn custom(resource: Arc<Resource>, stored_as: &str) -> Self {
        let (group, plural) = resource.storage_key();
        let table = format!("{group}/{plural}").into();
        // 0 is kept for "no schema"; a record never has it by chance.
        let schema = fingerprint(&resource.fingerprint()).max(1);
        Self { table, stored_as: stored_as.to_owned(), schema, resource }
    }

    /// Whether requests use the version that is stored.
    pub(crate) fn is_storage_version(&self) -> bool {
        self.resource.api_version() == self.stored_as
    }
}

/// FNV-1a: stable across builds, because it is stored with each record.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Everything served at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    all: Vec<Arc<Served>>,
    /// Storage versions that are not served: no request reaches them, but their objects still have to end.
    hidden: Vec<Arc<Served>>,
    by_path: HashMap<(String, String, String), Arc<Served>>,
    /// For discovery, OpenAPI and name conflicts.
    resources: Vec<Arc<Resource>>,
}

impl Snapshot {
    fn new(all: Vec<Arc<Served>>, hidden: Vec<Arc<Served>>) -> Self {
        let path = |one: &Arc<Served>| (one.group.clone(), one.version.clone(), one.plural.clone());
        Self {
            by_path: all.iter().map(|one| (path(one), one.clone())).collect(),
            resources: all.iter().map(|one| one.resource.clone()).collect(),
            all,
            hidden,
        }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Returns a stored resource of a group and kind, as owner references name it, whatever its version.
    pub(crate) fn find_kind(&self, group: &str, kind: &str) -> Option<&Arc<Served>> {
        let mut all = self.all.iter().chain(&self.hidden);
        all.find(|one| one.group == group && one.kind == kind && one.is_stored())
    }

    /// Returns one way to reach the objects of a table, preferably the stored version.
    pub(crate) fn find_table(&self, table: &str) -> Option<&Arc<Served>> {
        let mut of_table = self.all.iter().filter(|one| &*one.table == table);
        let first = of_table.clone().next();
        let hidden = self.hidden.iter().find(|one| &*one.table == table);
        of_table.find(|one| one.is_storage_version()).or(first).or(hidden)
    }

    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }
}

/// The list of what is served, replaced as a whole when a CRD changes.
#[derive(Debug)]
pub(crate) struct Catalog {
    current: RwLock<Arc<Snapshot>>,
    /// Resources by CRD; the lock also orders replacements.
    custom: parking_lot::Mutex<BTreeMap<String, Custom>>,
    /// Counts replacements, for watches that end with what they watch.
    replaced: tokio::sync::watch::Sender<u64>,
}

/// What one CRD defines.
#[derive(Debug, Default)]
struct Custom {
    served: Vec<Arc<Served>>,
    /// The storage version, where it is not among them.
    hidden: Option<Arc<Served>>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        let replaced = tokio::sync::watch::Sender::new(0);
        let catalog = Self { current: RwLock::default(), custom: parking_lot::Mutex::default(), replaced };
        catalog.rebuild(&catalog.custom.lock());
        catalog
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// Returns a receiver that is told of each replacement from now on.
    pub(crate) fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Serves what an established CRD defines, in place of what it defined before.
    pub(crate) fn install(&self, crds: impl IntoIterator<Item = Value>) {
        let mut custom = self.custom.lock();
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let defined = if is_established(&crd) { define(&crd) } else { Custom::default() };
            custom.insert(name, defined);
        }
        self.rebuild(&custom);
    }

    pub(crate) fn remove(&self, crd: &str) {
        let mut custom = self.custom.lock();
        if custom.remove(crd).is_some() {
            self.rebuild(&custom);
        }
    }

    /// Returns what is served without the named CRD: what its names must not collide with.
    pub(crate) fn others(&self, crd: &str) -> Vec<Arc<Resource>> {
        let custom = self.custom.lock();
        let other =
            custom.iter().filter(|(name, _)| *name != crd).flat_map(|(_, all)| all.served.iter().chain(&all.hidden));
        builtin::resources().iter().cloned().chain(other.map(|one| one.resource.clone())).collect()
    }

    fn rebuild(&self, custom: &BTreeMap<String, Custom>) {
        let builtin = builtin::resources().iter().map(|one| Arc::new(Served::builtin(one.clone())));
        let all = builtin.chain(custom.values().flat_map(|one| one.served.iter().cloned())).collect();
        let hidden = custom.values().filter_map(|one| one.hidden.clone()).collect();
        *self.current.write() = Arc::new(Snapshot::new(all, hidden));
        self.replaced.send_modify(|count| *count += 1);
    }
}

fn define(crd: &Value) -> Custom {
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions.clone().find(|version| version["storage"] == true);
    let stored_as = format!(
        "{}/{}",
        crd["spec"]["group"].as_str().unwrap_or_default(),
        storage.and_then(|version| version["name"].as_str()).unwrap_or_default()
    );
    let make = |crd: &Value| -> Vec<Arc<Served>> {
        crd::resources(crd).into_iter().map(|one| Arc::new(Served::custom(one, &stored_as))).collect()
    };
    let served = make(crd);
    let hidden = (!served.iter().any(|one| one.is_storage_version())).then(|| {
        let mut storage_alone = crd.clone();
        for version in storage_alone["spec"]["versions"].as_array_mut().into_iter().flatten() {
            version["served"] = version["storage"].clone();
        }
        make(&storage_alone).pop()
    });
    Custom { served, hidden: hidden.flatten() }
}

pub(crate) fn is_established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Established" && one["status"] == "True")
}
