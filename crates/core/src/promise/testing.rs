//! A platform in memory: holds objects as an API server would, executes plans, and plays everybody else's part.

mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kratix_api::{Promise, PromiseRevision, keys, promise_api};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Decision, Finding, Requests, Snapshot, decide, revision_names};
use crate::config::Config;
use crate::object::{Kind, ObjectKey};
use crate::plan::{Event, Next, Plan, Write};
use crate::promise_revision;
use crate::workflow::{Definition, Parent, Settings, Surroundings, access, history};

pub(crate) const NAME: &str = "redis";

/// The objects of one platform.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) objects: BTreeMap<(String, ObjectKey), Value>,
    pub(crate) events: Vec<String>,
    pub(crate) now: Timestamp,
    /// Writes executed so far.
    pub(crate) writes: Vec<Write>,
    pub(crate) requests: Requests,
    pub(crate) config: Config,
    /// Requests that the API server does not take in any more, and when it said so.
    pub(crate) refuses: BTreeMap<String, Option<Timestamp>>,
    versions: u64,
}

struct Nearby {
    existing: access::Existing,
    jobs: Vec<ObjectKey>,
}

impl Surroundings for Nearby {
    fn existing(&self, _promise: &str, _namespace: &str) -> access::Existing {
        self.existing.clone()
    }

    fn is_taken(&self, key: &ObjectKey, _parent: &Parent) -> bool {
        self.jobs.contains(key)
    }
}

/// Why a write was not executed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conflict;

pub(crate) fn api() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "redises.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "kind": "Redis", "plural": "redises", "singular": "redis" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": { "type": "object" } } } },
            }],
        },
    })
}

pub(crate) fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": keys::API_VERSION, "kind": "Pipeline", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "a", "image": "busybox:1" }] },
    })
}

pub(crate) fn dependency(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// Returns a Promise named [`NAME`] with this spec.
pub(crate) fn promise(spec: Value) -> Value {
    json!({ "apiVersion": keys::API_VERSION, "kind": "Promise", "metadata": { "name": NAME }, "spec": spec })
}

fn key_of(object: &Value) -> (String, ObjectKey) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let key = ObjectKey { namespace: text("/metadata/namespace"), name: text("/metadata/name").unwrap() };
    (text("/kind").unwrap(), key)
}

pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        match value.is_null() {
            true => drop(target.remove(key)),
            false => merge(target.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            events: Vec::new(),
            now: "2025-01-02T03:04:05Z".parse().unwrap(),
            writes: Vec::new(),
            requests: Requests::Unchanged,
            config: Config::default(),
            refuses: BTreeMap::new(),
            versions: 0,
        }
    }

    pub(crate) fn with(spec: Value) -> Self {
        let mut world = Self::new();
        world.create(promise(spec));
        world
    }

    fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }

    /// Creates an object as a user would.
    pub(crate) fn create(&mut self, mut object: Value) {
        let version = self.next_version();
        object["metadata"]["uid"] = json!(format!("uid-{version}"));
        object["metadata"]["resourceVersion"] = json!(version);
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        if object["kind"] == "CustomResourceDefinition" {
            object["status"] = json!({
                "conditions": [{ "type": "Established", "status": "True", "lastTransitionTime": null, "reason": "", "message": "" }],
                "storedVersions": ["v1"], "acceptedNames": { "kind": "", "plural": "" },
            });
        }
        self.objects.insert(key_of(&object), object);
    }

    /// Merge-patches an object as a user would.
    pub(crate) fn patch(&mut self, kind: &str, key: &ObjectKey, patch: &Value) {
        let version = self.next_version();
        let address = (kind.to_owned(), key.clone());
        let object = self.objects.get_mut(&address).unwrap_or_else(|| panic!("{kind} {key} exists"));
        let spec = object["spec"].clone();
        merge(object, patch);
        if object["spec"] != spec {
            object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        object["metadata"]["resourceVersion"] = json!(version);
        let is_deleting = object.pointer("/metadata/deletionTimestamp").is_some();
        let has_finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        if is_deleting && !has_finalizers {
            self.remove(&address);
        }
    }

    pub(crate) fn patch_promise(&mut self, patch: Value) {
        self.patch("Promise", &ObjectKey::cluster(NAME), &patch);
    }

    pub(crate) fn label(&mut self, key: &str, value: Value) {
        self.patch_promise(json!({ "metadata": { "labels": { key: value } } }));
    }

    pub(crate) fn delete(&mut self, kind: &str, key: &ObjectKey) {
        let address = (kind.to_owned(), key.clone());
        let Some(object) = self.objects.get_mut(&address) else { return };
        if object["metadata"]["finalizers"].as_array().is_none_or(|list| list.is_empty()) {
            self.remove(&address);
        } else if object.pointer("/metadata/deletionTimestamp").is_none() {
            object["metadata"]["deletionTimestamp"] = json!(self.now.to_string());
            let version = self.next_version();
            self.objects.get_mut(&address).unwrap()["metadata"]["resourceVersion"] = json!(version);
        }
    }

    pub(crate) fn delete_promise(&mut self) {
        self.delete("Promise", &ObjectKey::cluster(NAME));
    }

    /// Removes an object and deletes what it owns, as the garbage collector would.
    fn remove(&mut self, address: &(String, ObjectKey)) {
        let Some(gone) = self.objects.remove(address) else { return };
        let uid = &gone["metadata"]["uid"];
        let owned = self.objects.iter().filter(|(_, object)| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            owners.into_iter().flatten().any(|owner| owner["uid"] == *uid)
        });
        let owned: Vec<_> = owned.map(|(address, _)| address.clone()).collect();
        for (kind, key) in owned {
            self.delete(&kind, &key);
        }
    }

    pub(crate) fn execute(&mut self, write: &Write) -> Result<(), Conflict> {
        self.writes.push(write.clone());
        let (kind, key) = write.address();
        let address = (kind.kind.clone(), key.clone());
        let stale = |target: &crate::object::Target, object: Option<&Value>| {
            let Some(object) = object else { return true };
            let differs = |pinned: &Option<String>, field| {
                pinned.as_ref().is_some_and(|pinned| object["metadata"][field] != **pinned)
            };
            differs(&target.resource_version, "resourceVersion") || differs(&target.uid, "uid")
        };
        match write {
            Write::Create { object, .. } => {
                if !self.objects.contains_key(&address) {
                    self.create(object.clone());
                }
            }
            Write::Patch { target, patch } | Write::PatchStatus { target, patch } => {
                if stale(target, self.objects.get(&address)) {
                    return Err(Conflict);
                }
                let is_status = matches!(write, Write::PatchStatus { .. });
                assert_eq!(is_status, patch.get("status").is_some(), "{write:?}");
                self.patch(&kind.kind, key, patch);
            }
            Write::Delete { target } => {
                if !stale(target, self.objects.get(&address)) {
                    self.delete(&kind.kind, key);
                }
            }
        }
        Ok(())
    }

    /// Executes the first `count` writes of a plan, status included; all of them also publish the events.
    pub(crate) fn act<F>(&mut self, plan: &Plan<F>, count: usize) {
        let all: Vec<&Write> = plan.writes.iter().chain(&plan.status).collect();
        for write in all.iter().take(count) {
            if self.execute(write).is_err() {
                return;
            }
        }
        if count >= all.len() {
            self.events.extend(plan.events.iter().map(shown));
        }
    }

    pub(crate) fn all<K: DeserializeOwned>(&self, kind: &str) -> Vec<Arc<K>> {
        let of_kind = self.objects.iter().filter(|((found, _), _)| found == kind);
        of_kind.map(|(_, object)| Arc::new(serde_json::from_value(object.clone()).unwrap())).collect()
    }

    /// Returns the objects of a kind labelled with a Promise.
    fn labelled<K: DeserializeOwned>(&self, kind: &str, promise: &str) -> Vec<Arc<K>> {
        let of_kind = self.objects.iter().filter(|((found, _), object)| {
            found == kind && object["metadata"]["labels"][keys::PROMISE_NAME] == promise
        });
        of_kind.map(|(_, object)| Arc::new(serde_json::from_value(object.clone()).unwrap())).collect()
    }

    pub(crate) fn get(&self, kind: &str, key: &ObjectKey) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), key.clone()))
    }

    fn get_typed<K: DeserializeOwned>(&self, kind: &str, name: &str) -> Option<Arc<K>> {
        let object = self.get(kind, &ObjectKey::cluster(name))?;
        Some(Arc::new(serde_json::from_value(object.clone()).unwrap()))
    }

    pub(crate) fn promise(&self) -> &Value {
        self.get("Promise", &ObjectKey::cluster(NAME)).expect("the Promise exists")
    }

    /// Returns status, reason and message of a condition of the Promise.
    pub(crate) fn condition(&self, r#type: &str) -> Option<(String, String, String)> {
        let conditions = self.promise().pointer("/status/conditions")?.as_array()?;
        let found = conditions.iter().find(|condition| condition["type"] == r#type)?;
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    /// Returns `status/reason/message` of a condition, `-` without it.
    pub(crate) fn says(&self, r#type: &str) -> String {
        self.condition(r#type).map_or("-".into(), |(status, reason, message)| format!("{status}/{reason}/{message}"))
    }

    pub(crate) fn kinds(&self, kind: &str) -> Vec<&ObjectKey> {
        self.objects.keys().filter(|(found, _)| found == kind).map(|(_, key)| key).collect()
    }

    pub(crate) fn request(&mut self, name: &str) {
        self.create(json!({
            "apiVersion": "example.com/v1", "kind": "Redis",
            "metadata": { "name": name, "namespace": "default", "finalizers": ["example.com/hold"] }, "spec": {},
        }));
    }

    pub(crate) fn snapshot_of(&self, name: &str) -> Snapshot {
        let promise: Arc<Promise> = self.get_typed("Promise", name).expect("the Promise exists");
        let names = revision_names(&promise);
        let revisions: Vec<Arc<PromiseRevision>> = self.all("PromiseRevision");
        let required: Vec<String> =
            promise.spec.required_promises.iter().map(|required| required.name.clone()).collect();
        let jobs: Vec<Arc<Job>> = self.labelled("Job", name);
        let existing = access::Existing {
            service_accounts: self.labelled("ServiceAccount", name),
            config_maps: self.labelled("ConfigMap", name),
            roles: self.labelled("Role", name),
            role_bindings: self.labelled("RoleBinding", name),
            cluster_roles: self.labelled("ClusterRole", name),
            cluster_role_bindings: self.labelled("ClusterRoleBinding", name),
        };
        let crd = match promise_api::read(&promise.spec) {
            Ok(api) => self.get_typed("CustomResourceDefinition", api.crd_name()),
            Err(_) => self.labelled("CustomResourceDefinition", name).pop(),
        };
        let access_name = format!("{name}-promise-controller");
        // The list comes and goes with the controller of the requests.
        let requests: Option<Vec<_>> = (self.requests != Requests::Stopped).then(|| {
            let requests = self.all::<kube_core::DynamicObject>("Redis");
            requests.iter().map(|request| Arc::new(self.request_of(request))).collect()
        });
        let awaited: Vec<ObjectKey> = super::awaited(&promise, requests.as_deref().unwrap_or_default())
            .map(|request| ObjectKey::namespaced(&request.namespace, &request.name))
            .collect();
        let is_awaited = |job: &&Arc<Job>| {
            let kind = job.metadata.annotations.as_ref().and_then(|given| given.get(keys::JOB_RESOURCE_KIND));
            kind.is_some_and(|kind| kind == "Redis")
                && history::parent_key(job).is_some_and(|parent| awaited.contains(&parent))
        };
        let remains = || super::Remains {
            works: self.labelled("Work", name),
            jobs: jobs.clone(),
            bindings: self.labelled("ResourceBinding", name),
        };
        Snapshot {
            now: self.now,
            definition: Arc::new(Definition::of(&promise.spec)),
            promises: self.all("Promise"),
            revisions: revisions
                .iter()
                .filter(|revision| {
                    let label = revision.metadata.labels.as_ref().and_then(|labels| labels.get(keys::PROMISE_NAME));
                    label.is_some_and(|label| label == name) || names.contains(revision.metadata.name.as_ref().unwrap())
                })
                .cloned()
                .collect(),
            required_revisions: revisions
                .iter()
                .filter(|revision| required.contains(&revision.spec.promise_ref.name))
                .cloned()
                .collect(),
            crd,
            cluster_role: self.get_typed("ClusterRole", &access_name),
            cluster_role_binding: self.get_typed("ClusterRoleBinding", &access_name),
            own_works: self.labelled("Work", name).into_iter().filter(|work| super::is_own_work(work)).collect(),
            awaited_jobs: jobs.iter().filter(is_awaited).cloned().collect(),
            remains: promise.metadata.deletion_timestamp.as_ref().map(|_| remains()).unwrap_or_default(),
            requests,
            surroundings: Arc::new(Nearby { existing: existing.clone(), jobs: Vec::new() }),
            own_jobs: jobs.iter().filter(|job| super::is_own_job(job)).cloned().collect(),
            access: existing,
            settings: Settings {
                adapter_image: "kratix-adapter:1".into(),
                adapter_pull_secret: None,
                config: Arc::new(self.config.clone()),
            },
            promise,
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_of(NAME)
    }

    /// Runs one pass over the Promise; returns what was decided.
    pub(crate) fn pass(&mut self) -> Decision {
        let decision = decide(&self.snapshot());
        self.act(&decision.plan, usize::MAX);
        self.call(&decision);
        self.requests = decision.requests.clone();
        decision
    }

    /// Lets everybody else do their part once; returns whether anything changed.
    pub(crate) fn others(&mut self) -> bool {
        let before = self.versions;
        for revision in self.all::<PromiseRevision>("PromiseRevision") {
            let promise = self.get_typed("Promise", &revision.spec.promise_ref.name);
            let snapshot =
                promise_revision::Snapshot { now: self.now, revision, promise, requests: None, bound: vec![] };
            let plan = promise_revision::decide(&snapshot);
            self.act(&plan, usize::MAX);
        }
        self.finish_works();
        self.finish_deletions();
        self.versions != before
    }

    /// Schedules and writes every Work, and lets go of those being deleted.
    fn finish_works(&mut self) {
        for key in self.kinds("Work").into_iter().cloned().collect::<Vec<_>>() {
            let work = self.get("Work", &key).unwrap();
            let generation = work["metadata"]["generation"].clone();
            let ready = json!([{
                "type": "Ready", "status": "True", "reason": "AllWorkplacementsScheduled", "message": "Ready",
                "lastTransitionTime": self.now.to_string(), "observedGeneration": generation,
            }]);
            if !work["hold"].is_null() {
                continue;
            }
            if work.pointer("/metadata/deletionTimestamp").is_some() {
                self.patch("Work", &key, &json!({ "metadata": { "finalizers": [] } }));
            } else if work.pointer("/status/conditions") != Some(&ready) {
                self.patch("Work", &key, &json!({ "status": { "conditions": ready } }));
            }
        }
    }

    fn finish_deletions(&mut self) {
        for key in self.kinds("Redis").into_iter().cloned().collect::<Vec<_>>() {
            if self.get("Redis", &key).unwrap().pointer("/metadata/deletionTimestamp").is_some() {
                self.patch("Redis", &key, &json!({ "metadata": { "finalizers": [] } }));
            }
        }
    }

    /// Completes every running Job as its containers would: a Work, the status of the last pipeline, then the Job.
    pub(crate) fn finish_jobs(&mut self) {
        for job in self.all::<Job>("Job") {
            let done = job.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some();
            let label = |key: &str| job.metadata.labels.as_ref().unwrap().get(key).cloned().unwrap_or_default();
            if done || label(keys::WORKFLOW_TYPE) != "promise" {
                continue;
            }
            let key = ObjectKey::of(&*job);
            if label(keys::WORKFLOW_ACTION) == "configure" {
                let pipeline = label(keys::PIPELINE_NAME);
                let work = ObjectKey::namespaced(keys::SYSTEM_NAMESPACE, format!("{NAME}-{pipeline}-12345"));
                if self.get("Work", &work).is_none() {
                    self.create(json!({
                        "apiVersion": keys::API_VERSION, "kind": "Work",
                        "metadata": {
                            "name": work.name, "namespace": keys::SYSTEM_NAMESPACE,
                            "labels": {
                                keys::PROMISE_NAME: NAME, keys::WORK_TYPE: "promise", keys::PIPELINE_NAME: pipeline,
                            },
                            "finalizers": [keys::FINALIZER_WORK_CLEANUP],
                        },
                        "spec": { "promiseName": NAME, "lastExecutionTimestamp": self.now.to_string() },
                    }));
                } else {
                    let patch = json!({ "spec": { "lastExecutionTimestamp": self.now.to_string() } });
                    self.patch("Work", &work, &patch);
                }
                self.report_completion();
            }
            let condition = json!([{ "type": "Complete", "status": "True" }]);
            self.patch("Job", &key, &json!({ "status": { "conditions": condition, "succeeded": 1 } }));
        }
    }

    fn report_completion(&mut self) {
        let mut conditions =
            self.promise().pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "ConfigureWorkflowCompleted");
        conditions.push(json!({
            "type": "ConfigureWorkflowCompleted", "status": "True", "reason": "PipelinesExecutedSuccessfully",
            "message": "Pipelines completed", "lastTransitionTime": self.now.to_string(),
        }));
        let mut patch = json!({ "status": { "conditions": conditions, "message": "Promise configured" } });
        // The schema requires the counters, so a status that would lack them is never stored.
        for counter in ["workflows", "workflowsSucceeded", "workflowsFailed"] {
            if self.promise().pointer(&format!("/status/{counter}")).is_none() {
                patch["status"][counter] = json!(0);
            }
        }
        self.patch_promise(patch);
    }

    pub(crate) fn fail_jobs(&mut self) {
        for job in self.all::<Job>("Job") {
            let condition = json!([{ "type": "Failed", "status": "True" }]);
            let patch = json!({ "status": { "conditions": condition, "failed": 1 } });
            self.patch("Job", &ObjectKey::of(&*job), &patch);
        }
    }

    /// Runs passes and everybody else until nothing changes; Jobs finish at once.
    pub(crate) fn settle(&mut self) {
        self.settle_with(|_, _, _| usize::MAX);
    }

    /// As [`World::settle`], executing only as many writes of each plan as `limit` allows for pass and plan.
    pub(crate) fn settle_with(&mut self, mut limit: impl FnMut(usize, &World, &Plan<Finding>) -> usize) {
        for number in 0..200 {
            let mut changed = false;
            if self.kinds("Promise").contains(&&ObjectKey::cluster(NAME)) {
                let decision = decide(&self.snapshot());
                changed |= !decision.plan.is_silent() || !decision.calls.is_empty();
                changed |= decision.requests != self.requests;
                let limit = limit(number, self, &decision.plan);
                self.act(&decision.plan, limit);
                // A crash hits the plan or what comes after it.
                if limit == usize::MAX {
                    self.call(&decision);
                }
                self.requests = decision.requests;
            }
            changed |= self.others();
            let before = self.versions;
            self.finish_jobs();
            changed |= self.versions != before;
            if !changed {
                return;
            }
        }
        panic!("the Promise does not come to rest: {:#?}", decide(&self.snapshot()).plan);
    }

    /// Runs passes over every Promise and everybody else until nothing changes.
    pub(crate) fn settle_all(&mut self) {
        for _ in 0..100 {
            let mut changed = false;
            for name in self.kinds("Promise").into_iter().map(|key| key.name.clone()).collect::<Vec<_>>() {
                if self.get("Promise", &ObjectKey::cluster(&name)).is_some() {
                    let decision = decide(&self.snapshot_of(&name));
                    changed |= !decision.plan.is_silent();
                    self.act(&decision.plan, usize::MAX);
                    self.call(&decision);
                }
            }
            changed |= self.others();
            if !changed {
                return;
            }
        }
        panic!("the Promises do not come to rest");
    }

    /// Returns the objects without identities and versions, for comparison of two ways to the same end.
    pub(crate) fn end(&self) -> BTreeMap<String, Value> {
        let normal = |object: &Value| {
            let mut object = object.clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            for field in ["uid", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
            if let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
                owners.iter_mut().for_each(|owner| owner["uid"] = Value::Null);
            }
            if let Some(conditions) = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
                conditions.iter_mut().for_each(|condition| condition["observedGeneration"] = Value::Null);
            }
            object
        };
        self.objects.iter().map(|((kind, key), object)| (format!("{kind} {key}"), normal(object))).collect()
    }

    pub(crate) fn is_silent(&self) -> bool {
        let decision = decide(&self.snapshot());
        decision.plan.is_silent() && decision.calls.is_empty()
    }
}

/// Returns the delay of a plan, if it has one.
pub(crate) fn delay(next: Next) -> Option<std::time::Duration> {
    match next {
        Next::OnChange => None,
        Next::After(delay) => Some(delay),
    }
}

/// The kind of the requests of [`api`].
pub(crate) fn redis() -> Kind {
    Kind::new("example.com", "v1", "Redis", "redises")
}

fn shown(event: &Event) -> String {
    format!("{:?} {}: {}", event.type_, event.reason, event.note)
}
