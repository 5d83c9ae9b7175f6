//! What must hold at every moment, and at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use kratix_api::{Destination, Work, WorkPlacement, compression, keys};
use kratix_testing::faults::Call;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::Value;

use crate::record::{Files, Found, everything};
use crate::world::World;

/// Largest file that is looked into.
const BYTES_MAX: usize = 1 << 20;

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
            if of.as_deref() != Some(namespace) || work.metadata.deletion_timestamp.is_some() {
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

    /// Returns which file of a placement is not in the repository as the placement wants it.
    async fn missing(&self, placement: &WorkPlacement) -> Option<String> {
        let destination = &placement.spec.target_destination_name;
        let destination = Api::<Destination>::all(self.client.clone()).get(destination).await.ok()?;
        let files = self.files.read().await;
        missing(placement, &destination, &files)
    }
}

fn missing(placement: &WorkPlacement, destination: &Destination, files: &BTreeMap<String, String>) -> Option<String> {
    let directory = serde_json::to_value(&destination.spec).unwrap()["path"].as_str().unwrap_or_default().to_owned();
    placement.spec.workloads.iter().find_map(|workload| {
        let content = compression::decompress(&workload.content, BYTES_MAX).unwrap();
        let content = crate::record::text(&String::from_utf8_lossy(&content));
        let is_it = |(path, text): (&String, &String)| {
            path.starts_with(&directory) && path.ends_with(&workload.filepath) && *text == content
        };
        let path = &workload.filepath;
        (!files.iter().any(is_it)).then(|| format!("{path} of {} is not below {directory}", placement.name_any()))
    })
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
    broken.extend(strangers(world));
    let files = world.observer.files.read().await;
    let of = |plural: &'static str| objects.iter().filter(move |found| found.collection.ends_with(plural));
    let destinations: Vec<Destination> =
        of("/destinations").map(|found| serde_json::from_value(found.value.clone()).unwrap()).collect();
    for found in of("/workplacements").filter(|found| says(&found.value, "WriteSucceeded")) {
        let placement: WorkPlacement = serde_json::from_value(found.value.clone()).unwrap();
        let wanted = &placement.spec.target_destination_name;
        let destination = destinations.iter().find(|destination| destination.name_any() == *wanted);
        broken.extend(destination.and_then(|destination| missing(&placement, destination, &files)));
    }
    let is_placed =
        |path: &&String| path.starts_with("worker-") || path.starts_with("moved/") || path.starts_with(".kratix");
    broken.extend(
        files.keys().filter(|path| !is_placed(path)).map(|path| format!("{path} is outside of every Destination")),
    );
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

/// Status fields of requests and Promises that the manager may write.
const MANAGED: [&str; 20] = [
    "message",
    "conditions",
    "observedGeneration",
    "workflows",
    "workflowsSucceeded",
    "workflowsFailed",
    "kratix",
    "lastSuccessfulConfigureWorkflowTime",
    "lastAvailableTime",
    "status",
    "version",
    "apiVersion",
    "kind",
    "requiredPromises",
    "requiredBy",
    "promiseVersion",
    "resourceBindingVersion",
    "destinations",
    "available",
    "promises",
];

/// Returns writes of programs to what is not theirs.
fn strangers(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    for call in world.manager.calls() {
        let is_of = |part: &str| call.path.contains(part);
        let status = call.body.get("status").and_then(Value::as_object);
        if is_of("/example.org/") {
            let foreign =
                status.into_iter().flat_map(|status| status.keys()).filter(|key| !MANAGED.contains(&key.as_str()));
            found
                .extend(foreign.map(|key| format!("{call}: the manager writes status.{key}, which is the pipeline's")));
        }
        if (is_of("/works/") && !is_of("-static-deps-") && call.body.pointer("/spec/workloadGroups").is_some())
            || (is_of("/jobs/") && status.is_some())
        {
            found.push(format!("{call}: the manager writes what is not its own"));
        }
    }
    for call in world.pods.calls() {
        let is_own =
            call.path.contains("/works") || call.path.contains("/example.org/") || call.path.contains("/promises/");
        if !is_own {
            found.push(format!("{call}: a program of a pod writes what is not its own"));
        }
    }
    found
}
