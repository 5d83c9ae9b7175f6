//! One watch per resource, shared by all controllers, and the indexes by which passes find what is theirs.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::destination::StateStoreRef;
use kratix_api::{
    BucketStateStore, Destination, GitStateStore, Promise, PromiseRevision, ResourceBinding, Work, WorkPlacement, keys,
};
use kratix_core::promise::{is_own_job, is_own_work};
use kratix_core::promise_revision::bound_versions;
use kratix_core::state_store::{self, Address, Store};
use kratix_core::work::selection_entries;
use kratix_core::work_placement::{ledger_name, noted_sites, other_sites};
use kratix_core::workflow::history;
use kube::api::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::parts;
use crate::pods::Pods;

/// Watch caches of everything the decisions look at, but the requests themselves: those have a cache for each API.
#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) promises: Cache<Promise>,
    /// Indexed by [`promise_entry`].
    pub(crate) revisions: Cache<PromiseRevision>,
    /// Indexed by [`promise_entry`], [`request_entry`] and [`version_entry`].
    pub(crate) bindings: Cache<ResourceBinding>,
    /// Indexed by [`store_entry`], [`site_entry`] and [`former_entry`].
    pub(crate) destinations: Cache<Destination>,
    /// Indexed by [`secret_entry`] and [`address_entry`].
    pub(crate) git_stores: Cache<GitStateStore>,
    /// Indexed by [`secret_entry`] and [`address_entry`].
    pub(crate) bucket_stores: Cache<BucketStateStore>,
    /// All but parts; indexed by [`promise_entry`], [`request_entry`] and [`selection_entries`], a Promise's own by [`own_entry`].
    pub(crate) works: Cache<Work>,
    /// Metadata only of the parts of large Works, which are read when they are written; indexed by [`work_entry`].
    pub(crate) parts: Cache<PartialObjectMeta<Work>>,
    /// Indexed by [`work_entry`], [`owner_entry`], [`destination_entry`], [`promise_entry`], [`ledger_entry`],
    /// [`site_entry`] and, where something was left, [`former_entry`].
    pub(crate) placements: Cache<WorkPlacement>,
    /// Jobs made by Kratix; indexed by [`parent_entry`] and [`promise_entry`], those of a Promise's own workflows by
    /// [`own_entry`], those of early versions by [`request_entry`].
    pub(crate) jobs: Cache<Job>,
    /// Objects that carry a Promise's label; all of them indexed by [`promise_entry`].
    pub(crate) service_accounts: Cache<ServiceAccount>,
    pub(crate) config_maps: Cache<ConfigMap>,
    pub(crate) roles: Cache<Role>,
    pub(crate) role_bindings: Cache<RoleBinding>,
    pub(crate) cluster_roles: Cache<ClusterRole>,
    pub(crate) cluster_role_bindings: Cache<ClusterRoleBinding>,
    pub(crate) crds: Cache<CustomResourceDefinition>,
    /// Metadata only: contents are read when they are used, so that no Secret stays in memory.
    pub(crate) secrets: Cache<PartialObjectMeta<Secret>>,
    /// The platform configuration: at most one object.
    pub(crate) config: Cache<ConfigMap>,
    /// Why pods of workflows do not get on.
    pub(crate) pods: Pods,
}

/// Index entry of everything labelled with a Promise.
pub(crate) fn promise_entry(promise: &str) -> String {
    format!("promise={promise}")
}

/// Index entry of the Jobs of a Promise's own workflows, and of its own Works.
pub(crate) fn own_entry(promise: &str) -> String {
    format!("own={promise}")
}

/// Index entry of the bindings through which requests of a Promise have a version, or are to have it.
pub(crate) fn version_entry(promise: &str, version: &str) -> String {
    format!("version={promise}/{version}")
}

/// Index entry of Works and bindings of one request. `namespace` is the request's own.
pub(crate) fn request_entry(promise: &str, namespace: &str, name: &str) -> String {
    format!("request={promise}/{namespace}/{name}")
}

/// Index entry of the placements of one Work.
pub(crate) fn work_entry(namespace: &str, name: &str) -> String {
    format!("work={namespace}/{name}")
}

/// Index entry of the placements that one Work owns.
pub(crate) fn owner_entry(uid: &str) -> String {
    format!("owner={uid}")
}

/// Index entry of the placement with one state file ([`kratix_core::work_placement::ledger_name`]).
pub(crate) fn ledger_entry(name: &str) -> String {
    format!("ledger={name}")
}

/// Index entry of the placements on one Destination.
pub(crate) fn destination_entry(name: &str) -> String {
    format!("destination={name}")
}

/// Index entry of the Destinations of one state store.
pub(crate) fn store_entry(kind: &str, name: &str) -> String {
    format!("store={kind}/{name}")
}

/// Index entry of everything that is noted to have files in one place of a store.
pub(crate) fn site_entry(store: &StateStoreRef, place: &str) -> String {
    format!("site={}/{}/{place}", store.kind, store.name)
}

/// Index entry of the placements that are noted to have files in a store besides those of which their status speaks, and of
/// the Destinations that are noted to have test documents there.
pub(crate) fn former_entry(store: &StateStoreRef) -> String {
    format!("former={}/{}", store.kind, store.name)
}

/// Index entry of the state stores that use one Secret.
pub(crate) fn secret_entry(namespace: &str, name: &str) -> String {
    format!("secret={namespace}/{name}")
}

/// Index entry of the state stores whose files are in the repository or bucket of `place`.
pub(crate) fn address_entry(place: &str) -> String {
    format!("address={}", Address::of(place))
}

/// Index entry of the Jobs of one parent: a Promise (`namespace` empty) or a request.
pub(crate) fn parent_entry(kind: &str, namespace: &str, name: &str) -> String {
    format!("parent={kind}/{namespace}/{name}")
}

impl Caches {
    /// Creates the caches and starts their watches in `tasks`.
    pub(crate) fn start(platform: &Client, tasks: &mut JoinSet<()>) -> Self {
        let promise_label = || watcher::Config::default().labels(keys::PROMISE_NAME);
        let everything = watcher::Config::default;
        let pods = Pods::start(platform, tasks);
        let mut spawn = Spawn { platform, tasks };
        let caches = Self {
            pods,
            promises: spawn.all(|_| Vec::new(), everything()),
            revisions: spawn.all(labelled_promise, everything()),
            bindings: spawn.all(binding_entries, everything()),
            destinations: spawn.all(destination_store, everything()),
            git_stores: spawn.all(git_store_entries, everything()),
            bucket_stores: spawn.all(bucket_store_entries, everything()),
            works: spawn.all(work_entries, everything().labels(&format!("!{}", keys::WORK_PART))),
            parts: spawn.all(part_entries, everything().labels(keys::WORK_PART)),
            placements: spawn.all(placement_entries, everything()),
            jobs: spawn.jobs(),
            service_accounts: spawn.all(labelled_promise, promise_label()),
            config_maps: spawn.all(labelled_promise, promise_label()),
            roles: spawn.all(labelled_promise, promise_label()),
            role_bindings: spawn.all(labelled_promise, promise_label()),
            cluster_roles: spawn.all(labelled_promise, promise_label()),
            cluster_role_bindings: spawn.all(labelled_promise, promise_label()),
            crds: spawn.all(labelled_promise, promise_label()),
            secrets: spawn.all(|_| Vec::new(), everything()),
            config: spawn.config(),
        };
        caches.pods.follow_jobs(&caches.jobs);
        caches
    }

    /// Waits until every cache that decisions need has held a complete list.
    pub(crate) async fn ready(&self) {
        self.promises.ready().await;
        self.revisions.ready().await;
        self.bindings.ready().await;
        self.destinations.ready().await;
        self.git_stores.ready().await;
        self.bucket_stores.ready().await;
        self.works.ready().await;
        self.parts.ready().await;
        self.placements.ready().await;
        self.jobs.ready().await;
        self.service_accounts.ready().await;
        self.config_maps.ready().await;
        self.roles.ready().await;
        self.role_bindings.ready().await;
        self.cluster_roles.ready().await;
        self.cluster_role_bindings.ready().await;
        self.crds.ready().await;
        self.secrets.ready().await;
        self.config.ready().await;
    }
}

struct Spawn<'a> {
    platform: &'a Client,
    tasks: &'a mut JoinSet<()>,
}

impl Spawn<'_> {
    fn all<K>(&mut self, index: fn(&K) -> Vec<String>, config: watcher::Config) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        self.feed(Api::all(self.platform.clone()), Cache::new(index), config)
    }

    fn feed<K>(&mut self, api: Api<K>, cache: Cache<K>, config: watcher::Config) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        let fed = cache.clone();
        self.tasks.spawn(async move { fed.feed(api, config).await });
        cache
    }

    fn config(&mut self) -> Cache<ConfigMap> {
        let api = Api::namespaced(self.platform.clone(), keys::SYSTEM_NAMESPACE);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", keys::CONFIG_MAP));
        self.feed(api, Cache::new(|_| Vec::new()), only)
    }

    fn jobs(&mut self) -> Cache<Job> {
        let ours = watcher::Config::default().labels(&format!("{}={}", keys::MANAGED_BY, keys::MANAGED_BY_KRATIX));
        self.feed(Api::all(self.platform.clone()), Cache::trimmed(job_entries, forget_template), ours)
    }
}

/// Returns whether an object is in the cache in which one with the labels of `wanted` would be.
pub(crate) fn holds<K: Resource>(wanted: &K, existing: &K) -> bool {
    let selectors = [keys::PROMISE_NAME, keys::MANAGED_BY];
    selectors.iter().all(|key| label(wanted, key).is_none() || label(existing, key).is_some())
}

/// Returns whether an object that exists is one that a cache of its kind selects, so that it will be shown in time.
pub(crate) fn selects<K: Resource>(kind: &str, existing: &K) -> bool {
    match kind {
        "Job" => label(existing, keys::MANAGED_BY) == Some(keys::MANAGED_BY_KRATIX),
        "ServiceAccount"
        | "ConfigMap"
        | "Role"
        | "RoleBinding"
        | "ClusterRole"
        | "ClusterRoleBinding"
        | "CustomResourceDefinition" => label(existing, keys::PROMISE_NAME).is_some(),
        _ => true,
    }
}

fn label<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

fn labelled_promise<K: Resource>(object: &K) -> Vec<String> {
    label(object, keys::PROMISE_NAME).map(promise_entry).into_iter().collect()
}

fn binding_entries(binding: &ResourceBinding) -> Vec<String> {
    let mut entries = labelled_promise(binding);
    if let Some(promise) = label(binding, keys::PROMISE_NAME) {
        entries.extend(bound_versions(binding).into_iter().map(|version| version_entry(promise, version)));
    }
    let request = &binding.spec.resource_ref;
    entries.push(request_entry(&binding.spec.promise_ref.name, &request.namespace, &request.name));
    entries
}

/// A request's Works carry its namespace as a label when they live elsewhere, in the Promise's pipeline namespace.
fn work_entries(work: &Work) -> Vec<String> {
    let mut entries = labelled_promise(work);
    entries.extend(label(work, keys::PROMISE_NAME).filter(|_| is_own_work(work)).map(own_entry));
    if let (Some(promise), Some(name)) = (label(work, keys::PROMISE_NAME), label(work, keys::RESOURCE_NAME)) {
        let own = work.namespace().unwrap_or_default();
        let namespace = label(work, keys::RESOURCE_NAMESPACE).unwrap_or(&own);
        entries.push(request_entry(promise, namespace, name));
    }
    entries.extend(selection_entries(work));
    entries
}

fn part_entries(part: &PartialObjectMeta<Work>) -> Vec<String> {
    let work = parts::work_of(part);
    work.map(|work| work_entry(work.namespace.as_deref().unwrap_or_default(), &work.name)).into_iter().collect()
}

fn placement_entries(placement: &WorkPlacement) -> Vec<String> {
    let mut entries = labelled_promise(placement);
    if let Some(work) = label(placement, keys::WORK) {
        entries.push(work_entry(&placement.namespace().unwrap_or_default(), work));
    }
    let owners = placement.owner_references().iter().filter(|owner| owner.kind == Work::KIND);
    entries.extend(owners.map(|owner| owner_entry(&owner.uid)));
    entries.push(destination_entry(&placement.spec.target_destination_name));
    entries.push(ledger_entry(&ledger_name(placement)));
    entries.extend(noted_sites(placement).iter().map(|site| site_entry(&site.store, &site.place)));
    entries.extend(other_sites(placement).iter().map(|site| former_entry(&site.store)));
    entries
}

/// What a Job runs was decided when it was made. One pod template takes more memory than all that is kept of a request.
fn forget_template(job: &mut Job) {
    if let Some(spec) = &mut job.spec {
        spec.template = PodTemplateSpec::default();
    }
}

pub(crate) fn job_entries(job: &Job) -> Vec<String> {
    let mut entries = labelled_promise(job);
    entries.extend(label(job, keys::PROMISE_NAME).filter(|_| is_own_job(job)).map(own_entry));
    let of = |key| annotation(job, key);
    if let (Some(kind), Some(name)) = (of(keys::JOB_RESOURCE_KIND), of(keys::JOB_RESOURCE_NAME)) {
        let namespace = of(keys::JOB_RESOURCE_NAMESPACE).unwrap_or_default();
        entries.push(parent_entry(kind, namespace, name));
    }
    // Of an early version: its labels tell the request, nothing tells the kind.
    if let (Some(key), Some(promise)) = (history::early_parent_key(job), label(job, keys::PROMISE_NAME)) {
        entries.push(request_entry(promise, key.namespace.as_deref().unwrap_or_default(), &key.name));
    }
    entries
}

fn destination_store(destination: &Destination) -> Vec<String> {
    let store = destination.spec.state_store_ref.as_ref();
    let store = store.map(|store| store_entry(store.kind.as_str(), &store.name));
    let sites = other_sites(destination);
    let noted = sites.iter().flat_map(|site| [site_entry(&site.store, &site.place), former_entry(&site.store)]);
    store.into_iter().chain(noted).collect()
}

fn git_store_entries(store: &GitStateStore) -> Vec<String> {
    store_entries(store.spec.secret_ref.as_ref(), &Store::Git(Arc::new(store.clone())))
}

fn bucket_store_entries(store: &BucketStateStore) -> Vec<String> {
    store_entries(store.spec.secret_ref.as_ref(), &Store::Bucket(Arc::new(store.clone())))
}

fn store_entries(secret: Option<&kratix_api::SecretRef>, store: &Store) -> Vec<String> {
    let secret = secret.map(|secret| {
        let namespace = if secret.namespace.is_empty() { "default" } else { &secret.namespace };
        secret_entry(namespace, &secret.name)
    });
    let address = address_entry(&state_store::place(store));
    secret.into_iter().chain([address]).collect()
}

#[cfg(test)]
mod tests {
    use kratix_api::state_store::BucketAuthMethod;
    use kratix_api::{BucketStateStoreSpec, SecretRef, WorkPlacementSpec};

    use super::*;

    // spec 05 weaknesses 5 and 23
    #[test]
    fn a_placement_is_found_by_the_namespace_of_its_work_and_by_the_destination_of_its_spec() {
        let spec = WorkPlacementSpec { target_destination_name: "d".into(), ..Default::default() };
        let mut placement = WorkPlacement::new("w.d-5058f", spec);
        placement.metadata.namespace = Some("here".into());
        placement.labels_mut().insert(keys::WORK.into(), "w".into());
        let entries = placement_entries(&placement);
        assert!(entries.contains(&work_entry("here", "w")) && !entries.contains(&work_entry("there", "w")));
        // The label that says the same may be missing, or wrong.
        assert!(entries.contains(&destination_entry("d")));
        placement.labels_mut().insert(keys::TARGET_DESTINATION_NAME.into(), "other".into());
        assert!(!placement_entries(&placement).contains(&destination_entry("other")));
    }

    #[test]
    fn a_version_is_found_by_the_bindings_that_ask_for_it_or_have_it() {
        let binding = serde_json::json!({
            "metadata": { "name": "b", "namespace": "n", "labels": { keys::PROMISE_NAME: "p" } },
            "spec": {
                "version": "v2", "promiseRef": { "name": "p" }, "resourceRef": { "name": "r", "namespace": "n" },
            },
            "status": { "lastAppliedVersion": "v1" },
        });
        let mut binding: ResourceBinding = serde_json::from_value(binding).unwrap();
        let entries = binding_entries(&binding);
        assert!(["v1", "v2"].iter().all(|version| entries.contains(&version_entry("p", version))), "{entries:?}");
        binding.spec.resource_ref.namespace = "other".into();
        assert!(!binding_entries(&binding).contains(&version_entry("p", "v1")), "it can bind no request");
    }

    #[test]
    fn jobs_of_a_promises_own_workflows_are_found_apart_from_those_of_its_requests() {
        for (kind, is_own) in [("promise", true), ("resource", false)] {
            let mut job = Job::default();
            job.labels_mut().extend(
                [keys::PROMISE_NAME, keys::WORKFLOW_TYPE]
                    .map(String::from)
                    .into_iter()
                    .zip(["p", kind].map(String::from)),
            );
            let entries = job_entries(&job);
            assert!(entries.contains(&promise_entry("p")));
            assert_eq!(entries.contains(&own_entry("p")), is_own, "{kind}");
        }
    }

    #[test]
    fn works_of_a_promise_itself_are_found_apart_from_those_of_its_requests() {
        let origins = [
            (keys::WORK_TYPE_PROMISE, None, true),
            (keys::WORK_TYPE_STATIC_DEPENDENCY, None, true),
            (keys::WORK_TYPE_PROMISE, Some(keys::DRY_RUN_SUMMARY), false),
            (keys::WORK_TYPE_RESOURCE, None, false),
        ];
        for (origin, label, is_own) in origins {
            let mut work = Work::new("w", kratix_api::WorkSpec::default());
            let labels = [(keys::PROMISE_NAME, "p"), (keys::WORK_TYPE, origin)];
            let labels = labels.into_iter().chain(label.map(|label| (label, keys::TRUE)));
            work.labels_mut().extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
            let entries = work_entries(&work);
            assert!(entries.contains(&promise_entry("p")));
            assert_eq!(entries.contains(&own_entry("p")), is_own, "{origin} {label:?}");
        }
    }

    // spec 05 weakness 29
    #[test]
    fn a_store_is_found_by_its_secret_whatever_its_method_of_authentication() {
        for (namespace, found) in [("n", "n"), ("", "default")] {
            for auth_method in [BucketAuthMethod::AccessKey, BucketAuthMethod::Iam] {
                let secret = SecretRef { name: "s".into(), namespace: namespace.into() };
                let spec = BucketStateStoreSpec { auth_method, secret_ref: Some(secret), ..Default::default() };
                let entries = bucket_store_entries(&BucketStateStore::new("b", spec));
                assert!(entries.contains(&secret_entry(found, "s")), "{entries:?}");
            }
        }
    }
}
