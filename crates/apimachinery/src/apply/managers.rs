//! The entries of `metadata.managedFields`.

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
    fields: Set,
    time: Option<Timestamp>,
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
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let operation = match entry["operation"].as_str() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => continue,
            };
            let manager = Manager {
                name: text("manager"),
                operation,
                api_version: text("apiVersion"),
                subresource: text("subresource"),
            };
            let time = text("time").parse().ok();
            let fields = Set::decode(&entry["fieldsV1"]);
            if !fields.is_empty() {
                out.0.insert(manager.identity(), Entry { manager, fields, time });
            }
        }
        out
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `manager` exactly these fields and returns those it had. The time moves only if they differ.
    pub(super) fn put(&mut self, manager: Manager, fields: Set, now: Option<Timestamp>) -> Set {
        let before = self.0.remove(&manager.identity());
        let time = before.as_ref().filter(|before| before.fields == fields).map_or(now, |before| before.time);
        if !fields.is_empty() {
            self.0.insert(manager.identity(), Entry { manager, fields, time });
        }
        before.map(|before| before.fields).unwrap_or_default()
    }

    /// Gives `manager` these fields in addition.
    pub(super) fn add(&mut self, manager: Manager, fields: &Set, now: Timestamp) {
        let identity = manager.identity();
        let known = self.0.get(&identity).map(|entry| entry.fields.union(fields));
        let fields = known.unwrap_or_else(|| fields.clone());
        self.0.insert(identity, Entry { manager, fields, time: Some(now) });
    }

    /// Returns every field that somebody owns.
    pub(super) fn all(&self) -> Set {
        self.0.values().fold(Set::default(), |all, entry| all.union(&entry.fields))
    }

    /// Returns, for every manager but `me`, which of `changed` it owns.
    pub(super) fn conflicts(&self, me: &Manager, changed: &Set) -> Vec<(Manager, Set)> {
        let me = me.identity();
        let others = self.0.iter().filter(|(identity, _)| **identity != me).map(|(_, entry)| entry);
        let conflicts = others.map(|entry| (entry.manager.clone(), entry.fields.intersection(changed)));
        conflicts.filter(|(_, fields)| !fields.is_empty()).collect()
    }

    /// Takes fields away from one manager.
    pub(super) fn take(&mut self, manager: &Manager, fields: &Set) {
        let identity = manager.identity();
        if let Some(entry) = self.0.get_mut(&identity) {
            entry.fields = entry.fields.difference(fields);
            if entry.fields.is_empty() {
                self.0.remove(&identity);
            }
        }
    }

    /// Takes fields away from everybody but `me`.
    pub(super) fn forget(&mut self, me: &Manager, fields: &Set) {
        let me = me.identity();
        self.0.iter_mut().filter(|(identity, _)| **identity != me).for_each(|(_, entry)| {
            entry.fields = entry.fields.difference(fields);
        });
        self.0.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Takes fields away from everybody.
    pub(super) fn forget_all(&mut self, fields: &Set) {
        if !fields.is_empty() {
            self.0.values_mut().for_each(|entry| entry.fields = entry.fields.difference(fields));
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
            let known = self.0.get(&identity).map(|known| known.fields.union(&entry.fields));
            let fields = known.unwrap_or(entry.fields);
            self.0.insert(identity, Entry { manager: ancient, fields, time: entry.time });
        }
    }

    /// Writes the entries into an object.
    pub(super) fn write(self, object: &mut Value) {
        let mut entries: Vec<Entry> = self.0.into_values().collect();
        entries.sort_by(|a, b| {
            // By the second, as the times are stored: reading and writing entries must not change their order.
            let second = |entry: &Entry| entry.time.map(Timestamp::as_second);
            let key = |entry: &Entry| (entry.manager.operation, second(entry), entry.manager.identity());
            key(a).cmp(&key(b))
        });
        let list: Vec<Value> = entries.iter().map(encode).collect();
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

fn encode(entry: &Entry) -> Value {
    let operation = match entry.manager.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut out = json!({
        "manager": entry.manager.name,
        "operation": operation,
        "apiVersion": entry.manager.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields.encode(),
    });
    if let Some(time) = entry.time {
        out["time"] = meta::time(time).into();
    }
    if !entry.manager.subresource.is_empty() {
        out["subresource"] = entry.manager.subresource.as_str().into();
    }
    out
}
