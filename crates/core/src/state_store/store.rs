//! A state store of either kind as one value.

use std::sync::Arc;

use kratix_api::destination::{StateStoreKind, StateStoreRef};
use kratix_api::{BucketStateStore, GitStateStore, SecretRef, StateStoreStatus};
use kube_core::ResourceExt;

use super::push_limit;
use crate::object::{ObjectKey, Target};
use crate::plan::Reporter;

/// Namespace of a Secret that a Git store names without one.
const SECRET_NAMESPACE_DEFAULT: &str = "default";

/// A state store of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    /// A Git repository.
    Git(Arc<GitStateStore>),
    /// A bucket.
    Bucket(Arc<BucketStateStore>),
}

/// Returns the Secret that a store needs.
pub fn secret_of(store: &Store) -> Option<ObjectKey> {
    let reference = store.secret_ref()?;
    Some(ObjectKey::namespaced(namespace(reference), reference.name.clone()))
}

/// Tells whether a change of a store concerns itself: its own status writes do not.
pub fn concerns_itself(old: Option<&Store>, new: Option<&Store>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return true };
    let is_annotated = push_limit::annotation(old) != push_limit::annotation(new);
    match (old, new) {
        (Store::Git(old), Store::Git(new)) => {
            old.spec != new.spec || old.metadata.uid != new.metadata.uid || is_annotated
        }
        (Store::Bucket(old), Store::Bucket(new)) => old.spec != new.spec || old.metadata.uid != new.metadata.uid,
        _ => true,
    }
}

pub(super) fn namespace(reference: &SecretRef) -> &str {
    if reference.namespace.is_empty() { SECRET_NAMESPACE_DEFAULT } else { &reference.namespace }
}

impl Store {
    /// Returns how Destinations refer to it.
    pub fn reference(&self) -> StateStoreRef {
        let kind = match self {
            Self::Git(_) => StateStoreKind::GitStateStore,
            Self::Bucket(_) => StateStoreKind::BucketStateStore,
        };
        StateStoreRef { kind, name: self.name() }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Git(_) => GitStateStore::KIND,
            Self::Bucket(_) => BucketStateStore::KIND,
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Git(store) => store.name_any(),
            Self::Bucket(store) => store.name_any(),
        }
    }

    pub(super) fn uid(&self) -> String {
        match self {
            Self::Git(store) => store.uid(),
            Self::Bucket(store) => store.uid(),
        }
        .unwrap_or_default()
    }

    pub(super) fn generation(&self) -> Option<i64> {
        match self {
            Self::Git(store) => store.metadata.generation,
            Self::Bucket(store) => store.metadata.generation,
        }
    }

    pub(super) fn secret_ref(&self) -> Option<&SecretRef> {
        match self {
            Self::Git(store) => store.spec.secret_ref.as_ref(),
            Self::Bucket(store) => store.spec.secret_ref.as_ref(),
        }
    }

    pub(super) fn secret_name(&self) -> (&str, &str) {
        self.secret_ref().map_or(("", ""), |reference| (namespace(reference), reference.name.as_str()))
    }

    pub(super) fn status(&self) -> Option<&StateStoreStatus> {
        match self {
            Self::Git(store) => store.status.as_ref(),
            Self::Bucket(store) => store.status.as_ref(),
        }
    }

    pub(super) fn target(&self) -> Target {
        match self {
            Self::Git(store) => Target::of(&**store),
            Self::Bucket(store) => Target::of(&**store),
        }
    }

    pub(super) fn reporter(&self) -> Reporter {
        match self {
            Self::Git(_) => Reporter::GitStateStore,
            Self::Bucket(_) => Reporter::BucketStateStore,
        }
    }
}
