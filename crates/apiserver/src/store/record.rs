//! One version of one object: encoded once, shared by everybody.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::packing::Body;

/// Name of an object inside its table; the namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Returns the name of an object; pass an empty namespace for cluster scope.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// The parts of the metadata that lists, watches and garbage collection look at without parsing the object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    uid: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
    marks: Marks,
    owners: Box<[Box<str>]>,
    deleting: bool,
}

/// A Bloom filter of labels. A list by labels passes thousands of objects for the one that it finds, and each is then a
/// comparison of two numbers instead of many strings all over the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u64);

impl Marks {
    /// Returns the marks of labels, keys with values.
    pub fn of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let bits = labels.into_iter().map(|label| {
            let mut hasher = DefaultHasher::new();
            label.hash(&mut hasher);
            let hash = hasher.finish();
            1 << (hash & 63) | 1 << ((hash >> 6) & 63)
        });
        Self(bits.fold(0, |all, bits: u64| all | bits))
    }

    fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An object encoded and ready to be stored, but for its revision.
///
/// The encoding begins `{"apiVersion":…,"kind":…,"metadata":{"resourceVersion":"`, so that the revision is spliced in
/// under the lock and the version is replaced without parsing.
#[derive(Debug)]
pub struct Draft {
    json: Vec<u8>,
    revision_at: usize,
    schema: u64,
    facts: Facts,
}

impl Draft {
    /// Encodes `object`. `schema` identifies the schema it was defaulted and pruned with; 0 means none.
    pub fn encode(object: &Value, schema: u64) -> Self {
        let mut json = Vec::with_capacity(512);
        let empty = Map::new();
        let root = object.as_object().unwrap_or(&empty);
        let metadata = root.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        json.extend_from_slice(b"{\"apiVersion\":");
        append(&mut json, root.get("apiVersion").unwrap_or(&Value::Null));
        json.extend_from_slice(b",\"kind\":");
        append(&mut json, root.get("kind").unwrap_or(&Value::Null));
        json.extend_from_slice(b",\"metadata\":{\"resourceVersion\":\"");
        let revision_at = json.len();
        json.push(b'"');
        for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
            append_member(&mut json, key, value);
        }
        json.push(b'}');
        for (key, value) in root {
            if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                append_member(&mut json, key, value);
            }
        }
        json.push(b'}');
        Self { json, revision_at, schema, facts: Facts::of(metadata) }
    }

    /// Returns the size of the encoding in bytes.
    pub fn size(&self) -> usize {
        self.json.len()
    }

    pub(super) fn into_record(self, name: ObjectName, revision: u64, written_at: u64) -> Record {
        let digits = revision.to_string();
        let mut json = Vec::with_capacity(self.json.len() + digits.len());
        json.extend_from_slice(&self.json[..self.revision_at]);
        json.extend_from_slice(digits.as_bytes());
        json.extend_from_slice(&self.json[self.revision_at..]);
        Record {
            name,
            revision,
            revision_at: self.revision_at,
            schema: self.schema,
            written_at,
            body: Body::Plain(json.into()),
            facts: self.facts,
        }
    }
}

fn append(json: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(json, value).expect("a JSON value always encodes");
}

fn append_member(json: &mut Vec<u8>, key: &str, value: &Value) {
    json.push(b',');
    serde_json::to_writer(&mut *json, key).expect("a string always encodes");
    json.push(b':');
    append(json, value);
}

/// One stored version of an object.
#[derive(Debug)]
pub struct Record {
    pub(super) name: ObjectName,
    pub(super) revision: u64,
    pub(super) revision_at: usize,
    pub(super) schema: u64,
    pub(super) written_at: u64,
    pub(super) body: Body,
    pub(super) facts: Facts,
}

impl Record {
    /// Name of the object.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// Revision of the change that wrote it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Identity of the schema it was written with.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// Time of the write in seconds since 1970.
    pub fn written_at(&self) -> u64 {
        self.written_at
    }

    /// The object as JSON, in its storage version; of an object at rest it is unpacked for each call.
    pub fn json(&self) -> Bytes {
        self.body.bytes()
    }

    /// Length of the object as JSON.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Returns the same record with its JSON kept in another way.
    pub(super) fn with_body(&self, body: Body) -> Self {
        Self {
            name: self.name.clone(),
            revision: self.revision,
            revision_at: self.revision_at,
            schema: self.schema,
            written_at: self.written_at,
            body,
            facts: self.facts.clone(),
        }
    }

    /// Returns the object as a value; of one that cannot be decoded, such as one nested more deeply than parsers go,
    /// no more than its name and uid.
    pub fn value(&self) -> Value {
        self.parse().unwrap_or_else(|error| {
            tracing::error!(name = %self.name, %error, "a stored object cannot be decoded");
            let revision = self.revision.to_string();
            let mut shell = json!({"metadata": {
                "name": &*self.name.name, "uid": &*self.facts.uid, "resourceVersion": revision,
            }});
            if !self.name.namespace.is_empty() {
                shell["metadata"]["namespace"] = json!(&*self.name.namespace);
            }
            shell
        })
    }

    /// Returns the object's `metadata`; the rest, which is most of it, is not decoded, and may be nested more deeply than
    /// parsers go.
    pub fn metadata(&self) -> Value {
        #[derive(Deserialize)]
        struct Alone {
            metadata: Value,
        }
        match serde_json::from_slice::<Alone>(&self.json()) {
            Ok(alone) => alone.metadata,
            Err(_) => self.value()["metadata"].take(),
        }
    }

    /// Decodes the object.
    ///
    /// # Errors
    /// What the decoder says of bytes that are no JSON, or nested too deeply.
    pub fn parse(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.json())
    }

    /// Returns the object's `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.facts.uid
    }

    /// Returns the labels, sorted by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.facts.labels.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Returns the value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.facts.labels;
        labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|index| &*labels[index].1)
    }

    /// Tells whether the object may have all labels of these marks; `false` is certain.
    pub fn may_have(&self, labels: Marks) -> bool {
        self.facts.marks.contains(labels)
    }

    /// Returns the uids of its owners.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.facts.owners.iter().map(|uid| &**uid)
    }

    /// Whether it has a `deletionTimestamp`.
    pub fn is_deleting(&self) -> bool {
        self.facts.deleting
    }

    /// Returns the same state under another revision: what a deletion shows to watchers.
    pub fn at_revision(&self, revision: u64) -> Record {
        let old = self.json();
        let (head, rest) = old.split_at(self.revision_at);
        let rest = &rest[rest.iter().take_while(|byte| byte.is_ascii_digit()).count()..];
        let mut json = Vec::with_capacity(old.len() + 1);
        json.extend_from_slice(head);
        json.extend_from_slice(revision.to_string().as_bytes());
        json.extend_from_slice(rest);
        Record { revision, ..self.with_body(Body::Plain(json.into())) }
    }
}

impl Facts {
    fn of(metadata: &Map<String, Value>) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().into();
        let mut labels: Vec<(Box<str>, Box<str>)> = metadata
            .get("labels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str().into(), text(Some(value))))
            .collect();
        labels.sort_unstable();
        let owners = metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten();
        Self {
            uid: text(metadata.get("uid")),
            marks: Marks::of(labels.iter().map(|(key, value)| (&**key, &**value))),
            labels: labels.into(),
            owners: owners.map(|owner| text(owner.get("uid"))).collect(),
            deleting: metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()),
        }
    }

    /// Reads the facts back from an encoded object without building a tree of it.
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            #[serde(default)]
            uid: Box<str>,
            #[serde(default)]
            labels: std::collections::BTreeMap<Box<str>, Box<str>>,
            #[serde(default)]
            owner_references: Vec<Owner>,
            deletion_timestamp: Option<serde::de::IgnoredAny>,
        }
        #[derive(Deserialize)]
        struct Owner {
            #[serde(default)]
            uid: Box<str>,
        }
        let Object { metadata } = serde_json::from_slice(json)?;
        Ok(Self {
            uid: metadata.uid,
            marks: Marks::of(metadata.labels.iter().map(|(key, value)| (&**key, &**value))),
            labels: metadata.labels.into_iter().collect(),
            owners: metadata.owner_references.into_iter().map(|owner| owner.uid).collect(),
            deleting: metadata.deletion_timestamp.is_some(),
        })
    }
}
