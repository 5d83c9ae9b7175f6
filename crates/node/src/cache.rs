//! What this process knows of Jobs and Pods: the watch's view, and what its own writes have answered since.
//!
//! **Invariant:** an object never goes back in time. The answer to an own write is newer than the watch events that are still on
//! their way, and a deleted object is not brought back by one of them. So a decision always sees the writes before it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::Resource;
use lz4_flex::block;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deleted objects that are remembered; a watch is never this many events behind without starting over.
const DELETED_MAX: usize = 4096;

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn of(object: &impl Resource) -> Self {
        let meta = object.meta();
        Self { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
    }
}

/// An object of which less is remembered once it is over: hundreds of finished Pods are kept for one that runs, and a typed
/// Pod takes as much memory as fifty of its names.
pub(crate) trait Kept: Resource + Clone + Serialize + DeserializeOwned {
    /// Forgets what nobody asks of an object that is over: how to run it. Returns whether it is over.
    fn settle(&mut self) -> bool;
}

impl Kept for Pod {
    fn settle(&mut self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        let over = matches!(phase, Some("Succeeded" | "Failed"));
        if over && let Some(spec) = &mut self.spec {
            *spec = known_by_name(spec);
        }
        over
    }
}

impl Kept for Job {
    fn settle(&mut self) -> bool {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let mut ends = conditions.filter(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
        let over = ends.any(|end| end.status == "True");
        if over
            && let Some(spec) = &mut self.spec
            && let Some(pod) = &mut spec.template.spec
        {
            *pod = PodSpec { restart_policy: pod.restart_policy.take(), ..PodSpec::default() };
        }
        over
    }
}

/// Returns what the status of a Pod that is over still refers to.
fn known_by_name(spec: &mut PodSpec) -> PodSpec {
    let named = |container: &mut Container| Container {
        name: std::mem::take(&mut container.name),
        image: container.image.take(),
        resources: container.resources.take(),
        restart_policy: container.restart_policy.take(),
        ..Container::default()
    };
    PodSpec {
        containers: spec.containers.iter_mut().map(named).collect(),
        init_containers: spec.init_containers.as_mut().map(|all| all.iter_mut().map(named).collect()),
        node_name: spec.node_name.take(),
        restart_policy: spec.restart_policy.take(),
        scheduler_name: spec.scheduler_name.take(),
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        ..PodSpec::default()
    }
}

/// The latest version of each object.
pub(crate) struct Cache<K> {
    inner: Mutex<Inner<K>>,
}

struct Inner<K> {
    objects: HashMap<Key, Known<K>>,
    /// Objects by the uids of their owners.
    owned: HashMap<String, BTreeSet<Key>>,
    deleted: HashSet<String>,
    deleted_order: VecDeque<String>,
    /// Keys seen since the watch started over.
    listed: HashSet<Key>,
}

/// What is known of one object.
struct Known<K> {
    uid: Option<String>,
    revision: u64,
    version: Version<K>,
}

enum Version<K> {
    /// Something may still be to do.
    Live(Arc<K>),
    /// Over: kept as compressed JSON, for a typed object reserves room for every field that it does not have.
    Over(Box<[u8]>),
}

impl<K: Kept> Known<K> {
    fn of(mut object: K) -> (Self, Arc<K>) {
        object.meta_mut().managed_fields = None;
        let over = object.settle();
        let (uid, revision) = (object.meta().uid.clone(), revision(&object));
        let object = Arc::new(object);
        let version = match serde_json::to_vec(object.as_ref()) {
            Ok(json) if over => Version::Over(block::compress_prepend_size(&json).into()),
            _ => Version::Live(object.clone()),
        };
        (Self { uid, revision, version }, object)
    }

    fn object(&self) -> Arc<K> {
        match &self.version {
            Version::Live(object) => object.clone(),
            Version::Over(packed) => {
                let json = block::decompress_size_prepended(packed).expect("what was packed here unpacks");
                Arc::new(serde_json::from_slice(&json).expect("an object reads what it has written of itself"))
            }
        }
    }
}

impl<K: Kept> Cache<K> {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            objects: HashMap::new(),
            owned: HashMap::new(),
            deleted: HashSet::new(),
            deleted_order: VecDeque::new(),
            listed: HashSet::new(),
        };
        Self { inner: Mutex::new(inner) }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.lock().objects.get(key).map(Known::object)
    }

    /// Returns all objects, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        let inner = self.inner.lock();
        let mut keys: Vec<_> = inner.objects.keys().collect();
        keys.sort_unstable();
        keys.into_iter().map(|key| inner.objects[key].object()).collect()
    }

    /// Returns the objects that have an owner with this uid, sorted by name.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let inner = self.inner.lock();
        inner.owned.get(uid).into_iter().flatten().map(|key| inner.objects[key].object()).collect()
    }

    /// Returns the uids of all objects.
    pub(crate) fn uids(&self) -> HashSet<String> {
        self.inner.lock().objects.values().filter_map(|known| known.uid.clone()).collect()
    }

    /// Takes a version of an object; returns it if it is news.
    pub(crate) fn apply(&self, object: K) -> Option<Arc<K>> {
        let key = Key::of(&object);
        let mut inner = self.inner.lock();
        if object.meta().uid.as_ref().is_some_and(|uid| inner.deleted.contains(uid)) {
            return None;
        }
        inner.listed.insert(key.clone());
        if let Some(known) = inner.objects.get(&key)
            && known.uid == object.meta().uid
            && known.revision >= revision(&object)
        {
            return None;
        }
        let (known, object) = Known::of(object);
        if let Some(former) = inner.objects.insert(key.clone(), known) {
            inner.disown(&key, former.object().as_ref());
        }
        for owner in owners(object.as_ref()) {
            inner.owned.entry(owner.to_owned()).or_default().insert(key.clone());
        }
        Some(object)
    }

    /// Forgets an object that is gone for good; returns what was known of it.
    pub(crate) fn remove(&self, object: &K) -> Option<Arc<K>> {
        let mut inner = self.inner.lock();
        if let Some(uid) = object.meta().uid.clone()
            && inner.deleted.insert(uid.clone())
        {
            inner.deleted_order.push_back(uid);
            if inner.deleted_order.len() > DELETED_MAX
                && let Some(oldest) = inner.deleted_order.pop_front()
            {
                inner.deleted.remove(&oldest);
            }
        }
        let key = Key::of(object);
        // Another object may live under the name by now.
        if inner.objects.get(&key).is_none_or(|known| known.uid != object.meta().uid) {
            return None;
        }
        let known = inner.objects.remove(&key)?.object();
        inner.disown(&key, known.as_ref());
        Some(known)
    }

    /// The watch starts over.
    pub(crate) fn relist(&self) {
        self.inner.lock().listed.clear();
    }

    /// Returns the objects that the watch has not named since it started over: deleted meanwhile, or newer than its list.
    pub(crate) fn unlisted(&self) -> Vec<Arc<K>> {
        let mut inner = self.inner.lock();
        let listed = std::mem::take(&mut inner.listed);
        let unlisted = inner.objects.iter().filter(|(key, _)| !listed.contains(key));
        unlisted.map(|(_, known)| known.object()).collect()
    }
}

impl<K: Kept> Inner<K> {
    fn disown(&mut self, key: &Key, object: &K) {
        for owner in owners(object) {
            if let Some(owned) = self.owned.get_mut(owner) {
                owned.remove(key);
                if owned.is_empty() {
                    self.owned.remove(owner);
                }
            }
        }
    }
}

fn owners(object: &impl Resource) -> impl Iterator<Item = &str> {
    object.meta().owner_references.iter().flatten().map(|owner| owner.uid.as_str())
}

/// Orders versions of one object. Every known API server counts upward.
fn revision(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, version: u64) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(uid.into());
        pod.metadata.resource_version = Some(version.to_string());
        pod
    }

    #[test]
    fn an_object_never_goes_back_in_time() {
        let cache = Cache::new();
        assert!(cache.apply(pod("a", "1", 5)).is_some());
        assert!(cache.apply(pod("a", "1", 4)).is_none(), "an older version changed something");
        assert!(cache.apply(pod("a", "1", 5)).is_none(), "the same version is no news");
        assert!(cache.apply(pod("a", "1", 6)).is_some());
        assert!(cache.remove(&pod("a", "1", 7)).is_some());
        assert!(cache.apply(pod("a", "1", 6)).is_none(), "a deleted object came back");
        assert!(cache.apply(pod("a", "2", 3)).is_some(), "a new object of that name is another object");
        assert!(cache.remove(&pod("a", "1", 7)).is_none(), "its deletion concerned the old one");
    }

    #[test]
    fn of_what_is_over_only_the_names_are_kept() {
        let spec = json!({
            "nodeName": "n", "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 7,
            "initContainers": [{ "name": "i", "image": "one", "env": [{ "name": "A" }] }],
            "containers": [{ "name": "c", "image": "two", "command": ["x"] }],
            "volumes": [{ "name": "v", "emptyDir": {} }],
        });
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({ "spec": spec, "status": { "phase": phase, "podIP": "1" } })).unwrap()
        };
        let job = |status: &str| -> Job {
            let conditions = json!([{ "type": "Failed", "status": status }]);
            let spec = json!({ "backoffLimit": 3, "template": { "spec": spec } });
            serde_json::from_value(json!({ "spec": spec, "status": { "conditions": conditions } })).unwrap()
        };
        let settled_pod = |phase| {
            let mut settled = pod(phase);
            settled.settle();
            settled
        };
        let settled_job = |status| {
            let mut settled = job(status);
            settled.settle();
            settled
        };
        assert_eq!(settled_pod("Running"), pod("Running"));
        assert_eq!(settled_job("False"), job("False"));
        for phase in ["Succeeded", "Failed"] {
            let over = settled_pod(phase);
            assert_eq!(over.status, pod(phase).status);
            let expected = json!({
                "nodeName": "n", "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 7,
                "initContainers": [{ "name": "i", "image": "one" }], "containers": [{ "name": "c", "image": "two" }],
            });
            assert_eq!(serde_json::to_value(over.spec).unwrap(), expected);
        }
        let over = serde_json::to_value(settled_job("True").spec).unwrap();
        let expected =
            json!({ "backoffLimit": 3, "template": { "spec": { "restartPolicy": "OnFailure", "containers": [] } } });
        assert_eq!(over, expected);
    }

    #[test]
    fn an_object_is_found_by_its_owner_however_it_is_kept() {
        let cache = Cache::<Pod>::new();
        let owned = |version: u64, owner: &str, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {
                    "name": "a", "uid": "1", "resourceVersion": version.to_string(),
                    "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner }],
                },
                "spec": { "nodeName": "n", "containers": [] },
                "status": { "phase": phase, "podIP": "10.0.0.1" },
            }))
            .unwrap()
        };
        let versions = |owner: &str| -> Vec<Option<String>> {
            cache.owned_by(owner).iter().map(|pod| pod.metadata.resource_version.clone()).collect()
        };
        cache.apply(owned(1, "j1", "Running"));
        cache.apply(owned(2, "j1", "Succeeded"));
        assert_eq!(versions("j1"), [Some("2".to_owned())]);
        assert!(cache.apply(owned(2, "j1", "Succeeded")).is_none(), "the same version is no news");
        let key = Key::of(&owned(2, "j1", ""));
        assert_eq!(*cache.get(&key).unwrap(), owned(2, "j1", "Succeeded"));
        cache.apply(owned(3, "j2", "Succeeded"));
        assert!(versions("j1").is_empty());
        assert_eq!(versions("j2"), [Some("3".to_owned())]);
        assert_eq!(cache.uids(), HashSet::from(["1".to_owned()]));
        assert_eq!(*cache.remove(&owned(4, "j2", "Succeeded")).unwrap(), owned(3, "j2", "Succeeded"));
        assert!(versions("j2").is_empty() && cache.all().is_empty());
    }

    #[test]
    fn what_a_new_list_does_not_name_is_found() {
        let cache = Cache::new();
        cache.apply(pod("a", "1", 1));
        cache.apply(pod("b", "2", 2));
        cache.relist();
        cache.apply(pod("b", "2", 2));
        cache.apply(pod("c", "3", 3));
        let names: Vec<_> = cache.unlisted().iter().map(|pod| Key::of(pod.as_ref()).name).collect();
        assert_eq!(names, ["a"]);
    }
}
