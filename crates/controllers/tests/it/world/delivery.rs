//! The turns of scenes about delivery: Secrets, stores, Destinations and Works as users make them, and what is said of them.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kratix_api::{BucketStateStore, Condition, Destination, GitStateStore, Work, WorkPlacement};
use kratix_api::{compression, condition, keys};
use kratix_testing::wait;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{World, typed};

/// Hash of the directory `.`, which is the id of the group that holds everything.
const DOT: &str = "5058f1af8388633f609cadb75a75dc9d";

impl World {
    pub(crate) fn secrets(&self) -> Api<Secret> {
        self.of_default()
    }

    pub(crate) fn works(&self) -> Api<Work> {
        self.of_default()
    }

    pub(crate) fn placements(&self) -> Api<WorkPlacement> {
        self.of_default()
    }

    pub(crate) fn git_stores(&self) -> Api<GitStateStore> {
        Api::all(self.user.clone())
    }

    pub(crate) fn bucket_stores(&self) -> Api<BucketStateStore> {
        Api::all(self.user.clone())
    }

    pub(crate) fn destinations(&self) -> Api<Destination> {
        Api::all(self.user.clone())
    }

    fn of_default<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.user.clone(), "default")
    }

    pub(crate) async fn add_secret(&self, name: &str, values: Value) {
        let secret = json!({ "metadata": { "name": name }, "stringData": values });
        self.secrets().create(&PostParams::default(), &typed(secret)).await.unwrap();
    }

    /// Changes values of a Secret.
    pub(crate) async fn put(&self, secret: &str, values: Value) {
        let patch = json!({ "stringData": values });
        self.secrets().patch(secret, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn add_git_store(&self, name: &str, url: &str, more: Value) {
        let spec = merged(json!({ "url": url, "branch": "main" }), more);
        create(&self.git_stores(), "GitStateStore", name, spec).await;
    }

    pub(crate) async fn add_bucket_store(&self, name: &str, spec: Value) {
        create(&self.bucket_stores(), "BucketStateStore", name, spec).await;
    }

    /// Creates a Destination whose path is its name.
    pub(crate) async fn add_destination(&self, name: &str, (kind, store): (&str, &str), mode: &str, more: Value) {
        let reference = json!({ "kind": kind, "name": store });
        let spec = json!({ "path": name, "filepath": { "mode": mode }, "stateStoreRef": reference });
        create(&self.destinations(), "Destination", name, merged(spec, more)).await;
    }

    /// Applies a Work of one group.
    pub(crate) async fn apply_work(
        &self,
        (namespace, name): (&str, &str),
        request: &str,
        labels: Value,
        files: &[(&str, &str)],
    ) {
        let stored = files.iter().map(|(path, text)| (*path, compression::compress(text.as_bytes()))).collect();
        self.apply_stored_work((namespace, name), request, labels, stored).await;
    }

    /// As [`World::apply_work`], of contents as they are stored.
    pub(crate) async fn apply_stored_work(
        &self,
        (namespace, name): (&str, &str),
        request: &str,
        labels: Value,
        files: Vec<(&str, String)>,
    ) {
        let workloads = files.iter().map(|(path, content)| json!({ "filepath": path, "content": content }));
        let work = json!({
            "apiVersion": keys::API_VERSION, "kind": "Work",
            "metadata": { "name": name, "namespace": namespace, "labels": labels },
            "spec": {
                "promiseName": "redis", "resourceName": request,
                "workloadGroups": [{ "id": DOT, "directory": ".", "workloads": workloads.collect::<Vec<_>>() }],
            },
        });
        let works = Api::<Work>::namespaced(self.user.clone(), namespace);
        works.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(work)).await.unwrap();
    }

    /// Applies the Work of a request, as the work-writer makes it.
    pub(crate) async fn apply_work_of(&self, request: &str, files: &[(&str, &str)]) {
        let labels = json!({
            keys::PROMISE_NAME: "redis", keys::WORK_TYPE: "resource", keys::RESOURCE_NAME: request,
            keys::PIPELINE_NAME: "configure",
        });
        self.apply_work(("default", request), request, labels, files).await;
    }

    /// Sets how often what is in the stores is compared with what was written.
    pub(crate) async fn set_interval(&self, interval: &str) {
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": keys::CONFIG_MAP },
            "data": { keys::CONFIG_KEY: format!("stateStoreReconciliationInterval: {interval}") },
        });
        let maps = Api::<ConfigMap>::namespaced(self.user.clone(), keys::SYSTEM_NAMESPACE);
        maps.patch(keys::CONFIG_MAP, &PatchParams::apply("user"), &Patch::Apply(config)).await.unwrap();
    }

    /// Waits for an event.
    pub(crate) async fn event(&self, what: &str, is: impl Fn(&Event) -> bool + Send) -> Event {
        wait::any(&Api::<Event>::all(self.user.clone()), watcher::Config::default(), what, is).await
    }

    /// Returns all events of a reason.
    pub(crate) async fn events(&self, reason: &str) -> Vec<Event> {
        let events = Api::<Event>::all(self.user.clone()).list(&ListParams::default()).await.unwrap();
        events.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect()
    }
}

/// Tells whether an event is about an object, for this reason.
pub(crate) fn is_about(event: &Event, regarding: &str, reason: &str) -> bool {
    let name = event.regarding.as_ref().and_then(|object| object.name.as_deref());
    name == Some(regarding) && event.reason.as_deref() == Some(reason)
}

/// An object with conditions.
pub(crate) trait Conditioned:
    Clone + std::fmt::Debug + DeserializeOwned + Resource<DynamicType = ()> + Send + 'static
{
    fn conditions(&self) -> &[Condition];

    fn condition(&self, r#type: &str) -> Option<Condition> {
        condition::find(self.conditions(), r#type).cloned()
    }
}

macro_rules! conditioned {
    ($($kind:ty),*) => { $(
        impl Conditioned for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |status| &status.conditions)
            }
        }
    )* };
}

conditioned!(BucketStateStore, Destination, GitStateStore, WorkPlacement);

/// Waits until the `Ready` of an object is as asked for.
pub(crate) async fn ready<K: Conditioned>(
    api: &Api<K>,
    name: &str,
    what: &str,
    is: impl Fn(&Condition) -> bool,
) -> Condition {
    let find = |object: &K| object.condition(condition::READY).filter(|ready| is(ready));
    find(&wait::until(api, name, &format!("{name}: {what}"), |object| find(object).is_some()).await).unwrap()
}

/// Waits until the `Ready` of an object has this reason and speaks of this.
pub(crate) async fn says<K: Conditioned>(api: &Api<K>, name: &str, reason: &str, text: &str) -> Condition {
    ready(api, name, &format!("{reason}: {text}"), |ready| ready.reason == reason && ready.message.contains(text)).await
}

/// Waits until a store holds exactly this.
pub(crate) async fn holds<T, F>(expected: &T, found: impl Fn() -> F)
where
    T: PartialEq + std::fmt::Debug,
    F: Future<Output = T>,
{
    wait::poll(&format!("the store to hold {expected:?}"), || async {
        let found = found().await;
        if found == *expected { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .await;
}

fn merged(mut into: Value, more: Value) -> Value {
    if let (Value::Object(into), Value::Object(more)) = (&mut into, more) {
        into.extend(more);
    }
    into
}

async fn create<K>(api: &Api<K>, kind: &str, name: &str, spec: Value)
where
    K: Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object = json!({
        "apiVersion": keys::API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    api.create(&PostParams::default(), &typed(object)).await.unwrap();
}
