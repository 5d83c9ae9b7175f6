//! How decisions name the objects they read and write.

use std::fmt;

use kube_core::{Resource, ResourceExt};

/// A resource of the Kubernetes API: enough to address it without discovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Kind, such as `Job`.
    pub kind: String,
    /// Plural name in URLs, such as `jobs`.
    pub plural: String,
}

impl Kind {
    /// Returns the kind with these four names.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into(), plural: plural.into() }
    }

    /// Returns the kind of a statically typed resource.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self::new(&K::group(&()), &K::version(&()), &K::kind(&()), &K::plural(&()))
    }

    /// Returns `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Namespace and name. Objects of different namespaces are never the same object (decision 10).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace; `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// Returns the key of a namespaced object.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }

    /// Returns the key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// Returns the key of an existing object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self { namespace: object.namespace(), name: object.name_any() }
    }
}

/// `namespace/name`, or the name alone for cluster-scoped objects.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The object a write is aimed at, as the snapshot saw it.
///
/// # Guarantees
/// A write with a `uid` never reaches a newer object of the same name; one with a `resource_version` conflicts instead
/// of overwriting what the snapshot did not see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Resource.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Identity of the object, if the write must not reach a successor of the same name.
    pub uid: Option<String>,
    /// Version the write was computed from, if it must conflict with anything newer.
    pub resource_version: Option<String>,
}

impl Target {
    /// Returns the target for an existing statically typed object, pinned to its uid and resourceVersion.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::with_kind(Kind::of::<K>(), object)
    }

    /// Returns the target for an existing object of a kind known at run time, pinned to its uid and resourceVersion.
    pub fn with_kind<K: Resource>(kind: Kind, object: &K) -> Self {
        Self { kind, key: ObjectKey::of(object), uid: object.uid(), resource_version: object.resource_version() }
    }

    /// Returns the same target without the resourceVersion: the last writer wins.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.resource_version = None;
        self
    }
}

/// `Kind namespace/name`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.kind, self.key)
    }
}
