//! What the workflow engine looks at only when it starts a pipeline, read from the caches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::pipeline::WorkflowType;
use kratix_api::{PromiseRevision, keys};
use kratix_core::object::ObjectKey;
use kratix_core::promise_revision;
use kratix_core::request;
use kratix_core::workflow::access::{self, Existing};
use kratix_core::workflow::failure::Sight;
use kratix_core::workflow::{self, Definition, Parent, history};
use kube::api::DynamicObject;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;

use crate::cache::Cache;
use crate::caches::{self, Caches};

impl workflow::Surroundings for Caches {
    fn existing(&self, promise: &str, namespace: &str) -> Existing {
        Existing {
            service_accounts: near(&self.service_accounts, promise, namespace),
            config_maps: near(&self.config_maps, promise, namespace),
            roles: near(&self.roles, promise, namespace),
            role_bindings: near(&self.role_bindings, promise, namespace),
            cluster_roles: near(&self.cluster_roles, promise, namespace),
            cluster_role_bindings: near(&self.cluster_role_bindings, promise, namespace),
        }
    }

    fn bound_namespaces(&self, promise: &str, kind: WorkflowType) -> BTreeSet<String> {
        let bindings = self.cluster_role_bindings.indexed(&caches::promise_entry(promise));
        access::bound_namespaces(promise, kind, &bindings)
    }

    fn jobs(&self, promise: &str) -> Vec<Arc<Job>> {
        self.jobs.indexed(&caches::promise_entry(promise))
    }

    fn is_taken(&self, key: &ObjectKey, parent: &Parent) -> bool {
        self.jobs.get(key).is_some_and(|job| !history::is_of(&job, parent))
    }

    fn sight(&self, job: &Job) -> Sight {
        self.pods.sight(job)
    }
}

/// Returns the Promise's objects that are in `namespace`, labelled with a pipeline namespace, be it a former one, or without
/// namespace.
fn near<K>(cache: &Cache<K>, promise: &str, namespace: &str) -> Vec<Arc<K>>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let mut objects = cache.indexed(&caches::promise_entry(promise));
    objects.retain(|object| {
        let own = object.meta().namespace.as_deref();
        own.is_none_or(|own| own == namespace) || object.labels().contains_key(keys::PIPELINE_NAMESPACE)
    });
    objects
}

/// The version of a revision, and its workflows.
type Decoded = (Option<String>, Arc<Definition>);

/// Decoded workflows of revisions, one for each revision that exists.
#[derive(Default)]
pub(super) struct Definitions {
    by_revision: Mutex<HashMap<String, Decoded>>,
}

impl Definitions {
    /// Returns the workflows of a revision, decoded at most once for each of its versions.
    fn get(&self, revision: &PromiseRevision) -> Arc<Definition> {
        let (name, version) = (revision.name_any(), revision.resource_version());
        if let Some((known, definition)) = self.by_revision.lock().get(&name)
            && *known == version
        {
            return Arc::clone(definition);
        }
        let definition = Arc::new(Definition::of(&revision.spec.promise_spec));
        self.by_revision.lock().insert(name, (version, Arc::clone(&definition)));
        definition
    }

    /// Forgets a revision that is gone.
    pub(super) fn forget(&self, revision: &str) {
        self.by_revision.lock().remove(revision);
    }
}

/// The surroundings of requests.
pub(super) struct View<'a> {
    pub(super) caches: &'a Caches,
    pub(super) definitions: &'a Definitions,
    pub(super) requests: &'a Cache<DynamicObject>,
}

impl workflow::Surroundings for View<'_> {
    fn existing(&self, promise: &str, namespace: &str) -> Existing {
        self.caches.existing(promise, namespace)
    }

    fn in_use(&self, promise: &str) -> Vec<Arc<Definition>> {
        let revisions = self.caches.revisions.indexed(&caches::promise_entry(promise));
        if revisions.len() < 2 {
            return Vec::new();
        }
        let is_bound = |version: &str| self.caches.bindings.has(&caches::version_entry(promise, version));
        let latest = self.caches.promises.get(&ObjectKey::cluster(promise));
        let used = promise_revision::in_use(&revisions, latest.as_deref(), is_bound);
        used.into_iter().map(|revision| self.definitions.get(revision)).collect()
    }

    fn request_namespaces(&self, _promise: &str) -> BTreeSet<String> {
        let requests = self.requests.all();
        let namespaces: BTreeSet<&str> =
            requests.iter().filter_map(|request| request.metadata.namespace.as_deref()).collect();
        namespaces.into_iter().map(str::to_owned).collect()
    }

    fn bound_namespaces(&self, promise: &str, kind: WorkflowType) -> BTreeSet<String> {
        self.caches.bound_namespaces(promise, kind)
    }

    fn jobs(&self, promise: &str) -> Vec<Arc<Job>> {
        workflow::Surroundings::jobs(self.caches, promise)
    }

    fn is_taken(&self, key: &ObjectKey, parent: &Parent) -> bool {
        self.caches.is_taken(key, parent)
    }

    fn sight(&self, job: &Job) -> Sight {
        self.caches.sight(job)
    }
}

impl request::Surroundings for View<'_> {
    fn definition(&self, revision: &PromiseRevision) -> Arc<Definition> {
        self.definitions.get(revision)
    }
}
