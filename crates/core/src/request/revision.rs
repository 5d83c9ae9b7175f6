//! Which revision of its Promise a request uses.
//!
//! # Source
//! `04-resource-requests.md` §7, `03-promises.md` §20.2

use std::sync::Arc;

use kratix_api::{PromiseRevision, ResourceBinding, keys, name};
use kube_core::{Resource, ResourceExt};

use super::Pass;
use crate::promise_revision::{self, Purpose};

/// The revision a pass works with.
pub(super) struct Chosen<'a> {
    /// The revision.
    pub(super) revision: &'a Arc<PromiseRevision>,
    /// The request's binding, if it has one.
    pub(super) binding: Option<&'a Arc<ResourceBinding>>,
}

impl Chosen<'_> {
    /// Returns the version of the revision.
    pub(super) fn version(&self) -> &str {
        &self.revision.spec.version
    }
}

/// Why there is no revision to work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "cannot find any PromiseRevision for Promise {promise} with status.latest set to true: no latest promise revision yet"
    )]
    NoLatest { promise: String },
    #[error("cannot find a PromiseRevision for Promise {promise} with version {version}: promise revision not found")]
    NoVersion { promise: String, version: String },
    #[error("multiple PromiseRevisions for Promise {promise} with version {version}")]
    Ambiguous { promise: String, version: String },
    #[error(
        "found multiple ResourceBindings for Resource {name} in namespace {namespace};there should be one ResourceBinding per Resource"
    )]
    ManyBindings { name: String, namespace: String },
}

impl Error {
    /// Returns the reason of the condition that shows the error.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoLatest { .. } | Self::NoVersion { .. } | Self::Ambiguous { .. } => "PromiseRevisionNotFound",
            Self::ManyBindings { .. } => "MultipleResourceBindings",
        }
    }
}

impl Pass<'_> {
    /// Chooses by the binding while the request lives, by what was applied when it goes.
    pub(super) fn chosen_revision(&self) -> Result<Chosen<'_>, Error> {
        let binding = match self.binding() {
            // A second binding must not hold up the removal of the request; both are removed with it.
            Err(_) if self.is_deleting() => None,
            found => found?,
        };
        let document = self.document();
        let applied = document.text("promiseVersion");
        if self.is_deleting() {
            let last = binding.and_then(|binding| binding.status.as_ref()).map(|status| &status.last_applied_version);
            let version = if applied.is_empty() { last.map_or("", String::as_str) } else { applied };
            return Ok(Chosen { revision: self.revision(version)?, binding });
        }
        // One that is to be adopted counts at once: no run with another version precedes the one it asks for.
        let binding = binding.or_else(|| self.adoptable());
        let version = binding.map_or_else(|| applied.to_owned(), |binding| self.version_of(binding));
        Ok(Chosen { revision: self.revision(&version)?, binding })
    }

    /// Returns the binding that carries the request's labels, wherever its name comes from.
    fn binding(&self) -> Result<Option<&Arc<ResourceBinding>>, Error> {
        let found: Vec<_> = self.bindings().collect();
        match found.as_slice() {
            [] => Ok(None),
            [binding] => Ok(Some(binding)),
            _ => {
                let namespace = self.parent.namespace().to_owned();
                Err(Error::ManyBindings { name: self.parent.target.key.name.clone(), namespace })
            }
        }
    }

    /// Returns all bindings that carry the request's labels.
    pub(super) fn bindings(&self) -> impl Iterator<Item = &Arc<ResourceBinding>> {
        let name = name::label_value(&self.parent.target.key.name);
        self.snapshot.bindings.iter().filter(move |binding| {
            let label = |key: &str| binding.labels().get(key).map(String::as_str);
            label(keys::PROMISE_NAME) == Some(self.snapshot.promise_name)
                && label(keys::RESOURCE_NAME) == Some(&name)
                && binding.meta().deletion_timestamp.is_none()
        })
    }

    /// Returns the revision of a version; empty and `latest` mean the latest.
    fn revision(&self, version: &str) -> Result<&Arc<PromiseRevision>, Error> {
        if version.is_empty() || version == keys::VERSION_LATEST {
            return self.latest_revision();
        }
        let promise = || self.snapshot.promise_name.to_owned();
        match promise_revision::at_version(&self.snapshot.revisions, version, self.purpose()).as_slice() {
            [revision] => Ok(revision),
            [] => Err(Error::NoVersion { promise: promise(), version: version.to_owned() }),
            _ => Err(Error::Ambiguous { promise: promise(), version: version.to_owned() }),
        }
    }

    /// Returns the latest revision.
    pub(super) fn latest_revision(&self) -> Result<&Arc<PromiseRevision>, Error> {
        let latest =
            promise_revision::latest(&self.snapshot.revisions, self.snapshot.promise.as_deref(), self.purpose());
        latest.ok_or_else(|| Error::NoLatest { promise: self.snapshot.promise_name.to_owned() })
    }

    fn purpose(&self) -> Purpose {
        if self.is_deleting() { Purpose::Delete } else { Purpose::Configure }
    }
}
