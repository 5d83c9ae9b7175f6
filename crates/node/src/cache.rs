//! What this process knows of Jobs and Pods: the watch's view, and what its own writes have answered since.
//!
//! **Invariant:** an object never goes back in time. The answer to an own write is newer than the watch events that are still on
//! their way, and a deleted object is not brought back by one of them. So a decision always sees the writes before it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::Resource;
use parking_lot::Mutex;

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
pub(crate) trait Kept: Resource + Clone {
    /// Forgets what nobody asks of an object that is over: how to run it.
    fn settle(&mut self);
}

impl Kept for Pod {
    fn settle(&mut self) {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed"))
            && let Some(spec) = &mut self.spec
        {
            *spec = known_by_name(spec);
        }
    }
}

impl Kept for Job {
    fn settle(&mut self) {
        let conditions = self.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        let mut ends = conditions.filter(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
        if ends.any(|end| end.status == "True")
            && let Some(spec) = &mut self.spec
            && let Some(pod) = &mut spec.template.spec
        {
            *pod = PodSpec { restart_policy: pod.restart_policy.take(), ..PodSpec::default() };
        }
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
    objects: HashMap<Key, Arc<K>>,
    deleted: HashSet<String>,
    deleted_order: VecDeque<String>,
    /// Keys seen since the watch started over.
    listed: HashSet<Key>,
}

impl<K: Kept> Cache<K> {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            objects: HashMap::new(),
            deleted: HashSet::new(),
            deleted_order: VecDeque::new(),
            listed: HashSet::new(),
        };
        Self { inner: Mutex::new(inner) }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.lock().objects.get(key).cloned()
    }

    /// Returns the objects that fit, sorted by name.
    pub(crate) fn select(&self, fits: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let mut found: Vec<_> = self.inner.lock().objects.values().filter(|object| fits(object)).cloned().collect();
        found.sort_by_key(|object| Key::of(object.as_ref()));
        found
    }

    /// Takes a version of an object; returns it if it is news.
    pub(crate) fn apply(&self, mut object: K) -> Option<Arc<K>> {
        object.meta_mut().managed_fields = None;
        object.settle();
        let key = Key::of(&object);
        let mut inner = self.inner.lock();
        if object.meta().uid.as_ref().is_some_and(|uid| inner.deleted.contains(uid)) {
            return None;
        }
        inner.listed.insert(key.clone());
        if let Some(known) = inner.objects.get(&key)
            && known.meta().uid == object.meta().uid
            && revision(known.as_ref()) >= revision(&object)
        {
            return None;
        }
        let object = Arc::new(object);
        inner.objects.insert(key, object.clone());
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
        if inner.objects.get(&key).is_some_and(|known| known.meta().uid == object.meta().uid) {
            return inner.objects.remove(&key);
        }
        None
    }

    /// The watch starts over.
    pub(crate) fn relist(&self) {
        self.inner.lock().listed.clear();
    }

    /// Returns the objects that the watch has not named since it started over: deleted meanwhile, or newer than its list.
    pub(crate) fn unlisted(&self) -> Vec<Arc<K>> {
        let mut inner = self.inner.lock();
        let listed = std::mem::take(&mut inner.listed);
        inner.objects.iter().filter(|(key, _)| !listed.contains(key)).map(|(_, object)| object.clone()).collect()
    }
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
