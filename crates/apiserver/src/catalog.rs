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
    by_path: HashMap<(String, String, String), Arc<Served>>,
    /// For discovery, OpenAPI and name conflicts.
    resources: Vec<Arc<Resource>>,
}

impl Snapshot {
    fn new(all: Vec<Arc<Served>>) -> Self {
        let path = |one: &Arc<Served>| (one.group.clone(), one.version.clone(), one.plural.clone());
        Self {
            by_path: all.iter().map(|one| (path(one), one.clone())).collect(),
            resources: all.iter().map(|one| one.resource.clone()).collect(),
            all,
        }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Returns the resource of an apiVersion and kind, as owner references name it.
    pub(crate) fn find_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Served>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.all.iter().find(|one| one.group == group && one.version == version && one.kind == kind && one.is_stored())
    }

    /// Returns one way to reach the objects of a table, preferably the stored version.
    pub(crate) fn find_table(&self, table: &str) -> Option<&Arc<Served>> {
        let mut of_table = self.all.iter().filter(|one| &*one.table == table);
        let first = of_table.clone().next();
        of_table.find(|one| one.is_storage_version()).or(first)
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
    custom: parking_lot::Mutex<BTreeMap<String, Vec<Arc<Served>>>>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        let catalog = Self { current: RwLock::default(), custom: parking_lot::Mutex::default() };
        catalog.rebuild(&catalog.custom.lock());
        catalog
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// Serves what an established CRD defines, in place of what it defined before.
    pub(crate) fn install(&self, crds: impl IntoIterator<Item = Value>) {
        let mut custom = self.custom.lock();
        for crd in crds {
            let name = crd["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let served = if is_established(&crd) { served(&crd) } else { Vec::new() };
            custom.insert(name, served);
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
        let other = custom.iter().filter(|(name, _)| *name != crd).flat_map(|(_, all)| all);
        builtin::resources().iter().cloned().chain(other.map(|one| one.resource.clone())).collect()
    }

    fn rebuild(&self, custom: &BTreeMap<String, Vec<Arc<Served>>>) {
        let builtin = builtin::resources().iter().map(|one| Arc::new(Served::builtin(one.clone())));
        let all = builtin.chain(custom.values().flatten().cloned()).collect();
        *self.current.write() = Arc::new(Snapshot::new(all));
    }
}

fn served(crd: &Value) -> Vec<Arc<Served>> {
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions.clone().find(|version| version["storage"] == true);
    let stored_as = format!(
        "{}/{}",
        crd["spec"]["group"].as_str().unwrap_or_default(),
        storage.and_then(|version| version["name"].as_str()).unwrap_or_default()
    );
    crd::resources(crd).into_iter().map(|one| Arc::new(Served::custom(one, &stored_as))).collect()
}

pub(crate) fn is_established(crd: &Value) -> bool {
    let conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|one| one["type"] == "Established" && one["status"] == "True")
}
