//! What must hold at every moment, and at rest.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kratix_api::{Destination, Promise, Work, WorkPlacement, keys};
use kratix_testing::faults::Call;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::Value;

use crate::record::{Files, Found, everything};
use crate::world::World;
use crate::{owners, places};

/// Looks at every write of the manager before it is made: nothing may be said that is not true yet.
pub(crate) struct Observer {
    client: Client,
    repository: PathBuf,
    pub(crate) files: Files,
    violations: Mutex<Vec<String>>,
}

impl Observer {
    pub(crate) fn new(client: Client, repository: PathBuf) -> Self {
        Self { client, files: Files::new(repository.clone()), repository, violations: Mutex::default() }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().clone()
    }

    pub(crate) fn look(self: Arc<Self>, call: Call) -> BoxFuture<'static, ()> {
        async move {
            if !call.path.ends_with("/status") || !self.repository.exists() {
                return;
            }
            let found = match call.path.contains("/workplacements/") {
                true if says(&call.body, "WriteSucceeded") => self.written(&call).await,
                false if says(&call.body, "Reconciled") => self.reconciled(&call).await,
                _ => return,
            };
            self.violations.lock().extend(found);
        }
        .boxed()
    }

    /// A placement says that it is written: its files are there.
    async fn written(&self, call: &Call) -> Option<String> {
        let (namespace, name) = address(&call.path)?;
        let placement = Api::<WorkPlacement>::namespaced(self.client.clone(), namespace).get(name).await.ok()?;
        // A statement about an older version is refused.
        if call.body["metadata"]["resourceVersion"] != placement.resource_version()? {
            return None;
        }
        let missing = self.missing(&placement).await?;
        Some(format!("{call}: says that it is written, and {missing}"))
    }

    /// A request says that it is reconciled: all its placements say that they are written, and their files are there.
    async fn reconciled(&self, call: &Call) -> Option<String> {
        let current = http::Request::get(call.path.trim_end_matches("/status")).body(Vec::new()).unwrap();
        let current: Value = self.client.request(current).await.ok()?;
        let is_older = call.body["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"];
        if is_older || says(&current, "Reconciled") {
            return None;
        }
        let (namespace, name) = address(&call.path)?;
        let of_request = ListParams::default().labels(&format!("{}={name}", keys::RESOURCE_NAME));
        for work in Api::<Work>::all(self.client.clone()).list(&of_request).await.ok()? {
            let of = work.labels().get(keys::RESOURCE_NAMESPACE).cloned().or_else(|| work.namespace());
            // What is on its way out, the Work of a pipeline that is no more for instance, is waited for by nobody.
            let is_leaving = work.metadata.deletion_timestamp.is_some() || !self.is_current(&work).await;
            if of.as_deref() != Some(namespace) || is_leaving {
                continue;
            }
            let of_work = ListParams::default().labels(&format!("{}={}", keys::WORK, work.name_any()));
            let placements = Api::<WorkPlacement>::namespaced(self.client.clone(), &work.namespace()?);
            for placement in placements.list(&of_work).await.ok()? {
                let status = serde_json::to_value(&placement).unwrap();
                if placement.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                if !says(&status, "WriteSucceeded") {
                    return Some(format!("{call}: says Reconciled, and {} is not written", placement.name_any()));
                }
                if let Some(missing) = self.missing(&placement).await {
                    return Some(format!("{call}: says Reconciled, and {missing}"));
                }
            }
        }
        None
    }

    /// Tells whether the Promise still has the pipeline of a Work.
    async fn is_current(&self, work: &Work) -> bool {
        let [promise, pipeline] = [keys::PROMISE_NAME, keys::PIPELINE_NAME].map(|key| work.labels().get(key));
        let promises = Api::<Promise>::all(self.client.clone());
        match promises.get(promise.map_or("", String::as_str)).await {
            Ok(promise) => {
                let mut names = promise.spec.workflows.resource.configure.iter().map(|it| &it["metadata"]["name"]);
                names.any(|name| name.as_str() == pipeline.map(String::as_str))
            }
            Err(_) => true,
        }
    }

    /// Returns which file of a placement is not in the repository as the placement wants it.
    async fn missing(&self, placement: &WorkPlacement) -> Option<String> {
        let destination = &placement.spec.target_destination_name;
        let destination = Api::<Destination>::all(self.client.clone()).get(destination).await.ok()?;
        let files = self.files.read().await;
        places::missing(placement, &destination, &files)
    }
}

/// Tells whether a condition is true in a status.
fn says(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|found| found["type"] == condition && found["status"] == "True")
}

/// Returns namespace and name of a namespaced object from the path of its status.
fn address(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.trim_end_matches("/status").rsplit('/');
    let name = parts.next()?;
    let (_plural, namespace) = (parts.next()?, parts.next()?);
    Some((namespace, name))
}

/// Returns what does not hold at rest.
pub(crate) async fn broken_at_rest(world: &World) -> Vec<String> {
    let mut broken = world.observer.violations();
    let objects = everything(&world.user).await;
    broken.extend(orphans(&objects));
    broken.extend(owners::strangers(world));
    let files = world.observer.files.read().await;
    let of = |plural: &'static str| objects.iter().filter(move |found| found.collection.ends_with(plural));
    let destinations: Vec<Destination> =
        of("/destinations").map(|found| serde_json::from_value(found.value.clone()).unwrap()).collect();
    let placements: Vec<WorkPlacement> =
        of("/workplacements").map(|found| serde_json::from_value(found.value.clone()).unwrap()).collect();
    for found in of("/workplacements").filter(|found| says(&found.value, "WriteSucceeded")) {
        let placement: WorkPlacement = serde_json::from_value(found.value.clone()).unwrap();
        let wanted = &placement.spec.target_destination_name;
        let destination = destinations.iter().find(|destination| destination.name_any() == *wanted);
        broken.extend(destination.and_then(|destination| places::missing(&placement, destination, &files)));
    }
    broken.extend(places::strays(&placements, &destinations, &world.left(), &files));
    broken
}

/// Returns objects whose Promise, request, Work or owner does not exist.
fn orphans(objects: &[Found]) -> Vec<String> {
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let uids: BTreeSet<String> = objects.iter().map(|found| text(&found.value, "/metadata/uid")).collect();
    let there: BTreeSet<(String, String, String)> = objects
        .iter()
        .map(|found| {
            let (namespace, name) = (text(&found.value, "/metadata/namespace"), text(&found.value, "/metadata/name"));
            (text(&found.value, "/kind"), namespace, name)
        })
        .collect();
    let is_there = |kind: &str, namespace: &str, name: &str| {
        there.contains(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))
    };
    let mut orphans = Vec::new();
    for found in objects {
        let value = &found.value;
        let (namespace, name) = (text(value, "/metadata/namespace"), text(value, "/metadata/name"));
        let mut report =
            |cause: String| orphans.push(format!("orphan: {} {namespace}/{name}: {cause}", found.collection));
        for owner in value["metadata"]["ownerReferences"].as_array().into_iter().flatten() {
            let uid = owner["uid"].as_str().unwrap_or_default();
            if !uids.contains(uid) {
                report(format!("its owner {} {} does not exist", owner["kind"], owner["name"]));
            }
        }
        let label = |key: &str| value["metadata"]["labels"][key].as_str();
        if let Some(promise) = label(keys::PROMISE_NAME)
            && !is_there("Promise", "", promise)
        {
            report(format!("Promise {promise} does not exist"));
        }
        if let Some(work) = label(keys::WORK)
            && found.collection.ends_with("/workplacements")
            && !is_there("Work", &namespace, work)
        {
            report(format!("Work {work} does not exist"));
        }
        if let Some(request) = label(keys::RESOURCE_NAME) {
            let of = label(keys::RESOURCE_NAMESPACE).unwrap_or(&namespace);
            let is_request = |(kind, namespace, name): &(String, String, String)| {
                !["Job", "Work", "WorkPlacement", "ResourceBinding", "PromiseRevision"].contains(&kind.as_str())
                    && namespace == of
                    && name == request
            };
            if !there.iter().any(is_request) {
                report(format!("request {of}/{request} does not exist"));
            }
        }
    }
    orphans
}
