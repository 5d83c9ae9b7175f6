//! The entries of `metadata.managedFields`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fields::Set;
use crate::meta;

/// Entries of writers other than appliers; the oldest ones beyond this number become one.
const UPDATERS_MAX: usize = 10;
/// The manager that stands for the oldest ones.
const ANCIENT: &str = "ancient-changes";

/// How an entry came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One manager. Two entries with different versions are two managers for updates, but one for applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
}

/// What tells managers apart: an applier stays the same one when it moves to another version.
type Identity = (String, Operation, String, String);

impl Manager {
    fn identity(&self) -> Identity {
        let version = match self.operation {
            Operation::Apply => String::new(),
            Operation::Update => self.api_version.clone(),
        };
        (self.name.clone(), self.operation, version, self.subresource.clone())
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    manager: Manager,
    fields: Fields,
    time: Option<Timestamp>,
}

/// What a manager owns.
#[derive(Clone, Debug)]
enum Fields {
    /// Read.
    Known(Set),
    /// The whole entry as this server has stored it: most writes change the entry of one manager alone.
    Stored(Value),
}

impl Fields {
    /// Returns the fields themselves.
    fn read(&self) -> Cow<'_, Set> {
        match self {
            Self::Known(fields) => Cow::Borrowed(fields),
            Self::Stored(entry) => Cow::Owned(Set::decode(&entry["fieldsV1"])),
        }
    }

    fn touch(&self, others: &Set) -> bool {
        match self {
            Self::Known(fields) => !fields.intersection(others).is_empty(),
            Self::Stored(entry) => others.touches(&entry["fieldsV1"]),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Known(fields) => fields.is_empty(),
            // None that is empty is stored.
            Self::Stored(_) => false,
        }
    }

    fn take(&mut self, others: &Set) {
        if self.touch(others) {
            *self = Self::Known(self.read().difference(others));
        }
    }
}

/// All managers of one object.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers(BTreeMap<Identity, Entry>);

/// Returns whether the object carries the single empty entry by which a client gives up all ownership.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.is_some_and(|entries| match entries.as_slice() {
        [Value::Object(only)] => only.values().all(|value| value.is_null() || value == ""),
        _ => false,
    })
}

impl Managers {
    /// Reads the entries of an object; one that is not understood is dropped, as the real server does.
    pub(super) fn of(object: &Value) -> Self {
        let mut out = Self::default();
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let Some((manager, time)) = labels(entry) else { continue };
            let fields = Fields::Known(Set::decode(&entry["fieldsV1"]));
            if !fields.is_empty() {
                out.0.insert(manager.identity(), Entry { manager, fields, time });
            }
        }
        out
    }

    /// Takes over the entries that this server has stored with an object.
    pub(super) fn stored(entries: Vec<Value>) -> Self {
        let entry = |entry: Value| {
            let (manager, time) = labels(&entry)?;
            Some((manager.identity(), Entry { manager, fields: Fields::Stored(entry), time }))
        };
        Self(entries.into_iter().filter_map(entry).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `manager` exactly these fields and returns those it had. The time moves only if they differ.
    pub(super) fn put(&mut self, manager: Manager, fields: Set, now: Option<Timestamp>) -> Set {
        let (before, known_time) = match self.0.remove(&manager.identity()) {
            Some(before) => (before.fields.read().into_owned(), before.time),
            None => (Set::default(), now),
        };
        let time = if before == fields { known_time } else { now };
        if !fields.is_empty() {
            self.0.insert(manager.identity(), Entry { manager, fields: Fields::Known(fields), time });
        }
        before
    }

    /// Gives `manager` these fields in addition.
    pub(super) fn add(&mut self, manager: Manager, fields: &Set, now: Timestamp) {
        let identity = manager.identity();
        let known = self.0.get(&identity).map(|entry| entry.fields.read().union(fields));
        let fields = Fields::Known(known.unwrap_or_else(|| fields.clone()));
        self.0.insert(identity, Entry { manager, fields, time: Some(now) });
    }

    /// Returns every field that somebody owns.
    pub(super) fn all(&self) -> Set {
        self.0.values().fold(Set::default(), |all, entry| all.union(&entry.fields.read()))
    }

    /// Returns, for every manager but `me`, which of `changed` it owns.
    pub(super) fn conflicts(&self, me: &Manager, changed: &Set) -> Vec<(Manager, Set)> {
        let me = me.identity();
        let others = self.0.iter().filter(|(identity, _)| **identity != me).map(|(_, entry)| entry);
        let conflicts = others.filter(|entry| entry.fields.touch(changed));
        conflicts.map(|entry| (entry.manager.clone(), entry.fields.read().intersection(changed))).collect()
    }

    /// Takes fields away from one manager.
    pub(super) fn take(&mut self, manager: &Manager, fields: &Set) {
        let identity = manager.identity();
        if let Some(entry) = self.0.get_mut(&identity) {
            entry.fields.take(fields);
            if entry.fields.is_empty() {
                self.0.remove(&identity);
            }
        }
    }

    /// Takes fields away from everybody but `me`.
    pub(super) fn forget(&mut self, me: &Manager, fields: &Set) {
        let me = me.identity();
        self.0.iter_mut().filter(|(identity, _)| **identity != me).for_each(|(_, entry)| {
            entry.fields.take(fields);
        });
        self.0.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Takes fields away from everybody.
    pub(super) fn forget_all(&mut self, fields: &Set) {
        if !fields.is_empty() {
            self.0.values_mut().for_each(|entry| entry.fields.take(fields));
            self.0.retain(|_, entry| !entry.fields.is_empty());
        }
    }

    /// Merges the oldest updaters of one version while there are too many.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(Option<Timestamp>, Identity)> = (self.0.iter())
            .filter(|(_, entry)| entry.manager.operation == Operation::Update)
            .map(|(identity, entry)| (entry.time, identity.clone()))
            .collect();
        if updaters.len() <= UPDATERS_MAX {
            return;
        }
        updaters.sort();
        let surplus = updaters.len() - UPDATERS_MAX + 1;
        for (_, identity) in updaters.into_iter().take(surplus) {
            let Some(entry) = self.0.remove(&identity) else { continue };
            let ancient = Manager { name: ANCIENT.to_owned(), subresource: String::new(), ..entry.manager };
            let identity = ancient.identity();
            let known = self.0.get(&identity).map(|known| known.fields.read().union(&entry.fields.read()));
            let fields = Fields::Known(known.unwrap_or_else(|| entry.fields.read().into_owned()));
            self.0.insert(identity, Entry { manager: ancient, fields, time: entry.time });
        }
    }

    /// Writes the entries into an object.
    pub(super) fn write(self, object: &mut Value) {
        let mut entries: Vec<(Identity, Entry)> = self.0.into_iter().collect();
        entries.sort_by(|(a_identity, a), (b_identity, b)| {
            // By the second, as the times are stored: reading and writing entries must not change their order.
            let key = |entry: &Entry| (entry.manager.operation, entry.time.map(Timestamp::as_second));
            key(a).cmp(&key(b)).then_with(|| a_identity.cmp(b_identity))
        });
        let list: Vec<Value> = entries.into_iter().map(|(_, entry)| encode(entry)).collect();
        let Some(object) = object.as_object_mut() else { return };
        let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
        let Some(metadata) = metadata.as_object_mut() else { return };
        if list.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(list));
        }
    }
}

/// Returns whose an entry is and when it was written last; one of an unknown operation is not understood.
fn labels(entry: &Value) -> Option<(Manager, Option<Timestamp>)> {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let operation = match entry["operation"].as_str() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        _ => return None,
    };
    let manager =
        Manager { name: text("manager"), operation, api_version: text("apiVersion"), subresource: text("subresource") };
    Some((manager, text("time").parse().ok()))
}

fn encode(entry: Entry) -> Value {
    let fields = match entry.fields {
        Fields::Stored(stored) => return stored,
        Fields::Known(fields) => fields,
    };
    let operation = match entry.manager.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut out = json!({
        "manager": entry.manager.name,
        "operation": operation,
        "apiVersion": entry.manager.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.encode(),
    });
    if let Some(time) = entry.time {
        out["time"] = meta::time(time).into();
    }
    if !entry.manager.subresource.is_empty() {
        out["subresource"] = entry.manager.subresource.as_str().into();
    }
    out
}
