//! Sets of paths into an object, and their form in `managedFields` (`FieldsV1`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::depth;

/// Nesting of a set that is read: no object is deeper. Deeper parts of a foreign entry are nobody's.
const DEPTH_MAX: usize = depth::OBJECT_MAX;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A field of a map.
    Field(String),
    /// An element of a list that is known by fields of its own: their names and JSON values, sorted.
    Key(Vec<(String, String)>),
    /// An element of a set: its JSON.
    Value(String),
    /// An element known by nothing but its place.
    Index(usize),
}

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Whether the path that leads here is in the set.
    is_member: bool,
    children: BTreeMap<Step, Set>,
}

impl Step {
    pub(super) fn key(fields: &Map<String, Value>) -> Self {
        let mut pairs: Vec<(String, String)> =
            fields.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        pairs.sort();
        Self::Key(pairs)
    }

    fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let name = |name: &String| Value::from(name.as_str());
                let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{}:{value}", name(key))).collect();
                format!("k:{{{}}}", pairs.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Self::Field(rest.to_owned())),
            "k" => Some(Self::key(serde_json::from_str::<Value>(rest).ok()?.as_object()?)),
            "v" => Some(Self::Value(serde_json::from_str::<Value>(rest).ok()?.to_string())),
            "i" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    fn show(&self, out: &mut String) {
        let written = match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Key(fields) => {
                let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(out, "[{}]", pairs.join(","))
            }
            Self::Value(value) => write!(out, "[={value}]"),
            Self::Index(index) => write!(out, "[{index}]"),
        };
        written.expect("text takes everything");
    }
}

impl Set {
    /// Returns the set that holds the path to itself alone.
    pub(super) fn leaf() -> Self {
        Self { is_member: true, children: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.children.is_empty()
    }

    /// Returns whether the path that leads here is in the set.
    pub(super) fn is_member(&self) -> bool {
        self.is_member
    }

    pub(super) fn add_self(&mut self) {
        self.is_member = true;
    }

    /// Adds `below` under `step`; an empty set leaves no trace.
    pub(super) fn add(&mut self, step: Step, below: Set) {
        if below.is_empty() {
            return;
        }
        match self.children.get_mut(&step) {
            Some(known) => *known = known.union(&below),
            None => {
                self.children.insert(step, below);
            }
        }
    }

    /// Returns what is below `step`.
    pub(super) fn get(&self, step: &Step) -> Option<&Set> {
        self.children.get(step)
    }

    pub(super) fn union(&self, other: &Set) -> Set {
        let mut out = self.clone();
        out.is_member |= other.is_member;
        for (step, theirs) in &other.children {
            out.add(step.clone(), theirs.clone());
        }
        out
    }

    pub(super) fn difference(&self, other: &Set) -> Set {
        let mut out = Set { is_member: self.is_member && !other.is_member, children: BTreeMap::new() };
        for (step, ours) in &self.children {
            let left = match other.children.get(step) {
                Some(theirs) => ours.difference(theirs),
                None => ours.clone(),
            };
            out.add(step.clone(), left);
        }
        out
    }

    pub(super) fn intersection(&self, other: &Set) -> Set {
        let mut out = Set { is_member: self.is_member && other.is_member, children: BTreeMap::new() };
        for (step, ours) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                out.add(step.clone(), ours.intersection(theirs));
            }
        }
        out
    }

    /// Returns whether a path of the set is also in one that is encoded as [`Set::encode`] does, as
    /// [`Set::intersection`] would find it.
    pub(super) fn touches(&self, encoded: &Value) -> bool {
        let Some(fields) = encoded.as_object() else { return false };
        (self.is_member && (fields.is_empty() || fields.contains_key(".")))
            || (self.children.iter())
                .any(|(step, below)| fields.get(&step.encode()).is_some_and(|encoded| below.touches(encoded)))
    }

    /// Drops a field of the object and all below it.
    pub(super) fn drop_field(&mut self, name: &str) {
        self.children.remove(&Step::Field(name.to_owned()));
    }

    /// Drops what nobody manages: type, identity and what the server alone writes.
    pub(super) fn strip_identity(&mut self) {
        self.is_member = false;
        self.drop_field("apiVersion");
        self.drop_field("kind");
        let step = Step::Field("metadata".to_owned());
        if let Some(metadata) = self.children.get_mut(&step) {
            metadata.is_member = false;
            let identity = [
                "name",
                "namespace",
                "creationTimestamp",
                "selfLink",
                "uid",
                "generation",
                "managedFields",
                "resourceVersion",
            ];
            for name in identity {
                metadata.drop_field(name);
            }
            if metadata.is_empty() {
                self.children.remove(&step);
            }
        }
    }

    /// Returns every path of the set as conflicts name it, `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        if self.is_member {
            out.push(prefix.to_owned());
        }
        for (step, below) in &self.children {
            let mut path = prefix.to_owned();
            step.show(&mut path);
            below.collect(&path, out);
        }
    }

    /// Returns the set as `fieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let mut out = Map::new();
        if self.is_member && !self.children.is_empty() {
            out.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, below) in &self.children {
            out.insert(step.encode(), below.encode());
        }
        Value::Object(out)
    }

    /// Reads `fieldsV1`; what is not understood is left out.
    pub(super) fn decode(fields: &Value) -> Self {
        let mut out = Self::decode_below(fields, 0);
        // An empty document is an empty set, not one that holds the object itself.
        if out.children.is_empty() {
            out.is_member = false;
        }
        out
    }

    fn decode_below(fields: &Value, depth: usize) -> Self {
        let mut out = Self::default();
        let Some(fields) = fields.as_object().filter(|_| depth < DEPTH_MAX) else { return out };
        for (name, below) in fields {
            if name == "." {
                out.is_member = true;
            } else if let Some(step) = Step::decode(name) {
                out.add(step, Self::decode_below(below, depth + 1));
            }
        }
        if fields.is_empty() {
            out.is_member = true;
        }
        out
    }
}
