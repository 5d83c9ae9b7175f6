//! A platform in memory: it holds objects as an API server would, executes plans, and plays pods, scheduler and users.

mod binding;
mod columns;
mod concern;
mod deletion;
mod emptied;
mod engine;
mod failure;
mod golden;
mod held;
mod left;
mod life;
mod namesakes;
mod properties;
mod stuck;
mod triggers;
mod turn;
mod waiting;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kratix_api::pipeline::WorkflowType;
use kratix_api::{ResourceBinding, Timestamp, keys};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::plan::Next;
use crate::promise_revision::bound_versions;
use crate::workflow::access::Existing;
use crate::workflow::failure::Sight;
use crate::workflow::status::PENDING;

const PROMISE: &str = "env";

/// The objects of one platform.
#[derive(Clone)]
pub(super) struct World {
    pub(super) objects: BTreeMap<(String, ObjectKey), Value>,
    pub(super) now: Timestamp,
    pub(super) events: Vec<String>,
    /// Writes executed so far.
    pub(super) writes: Vec<Write>,
    pub(super) config: Config,
    /// Crashes before the write of this number, once.
    pub(super) crash_before: Option<usize>,
    /// In the pass of this number, the newest Job and the newest version of the request are not seen yet.
    pub(super) stale_in: Option<usize>,
    /// Seconds by which the clock of the nodes differs from that of the API server.
    pub(super) node_clock_ahead: i64,
    /// What the API server says when a pod is to be made.
    pub(super) refusal: Option<String>,
    passes: usize,
    versions: u64,
    previous: Option<(ObjectKey, Value)>,
    newest_job: Option<ObjectKey>,
    /// Jobs already decoded, by key and version: decoding them again in each pass is most of the cost.
    decoded: RefCell<BTreeMap<(ObjectKey, String), Arc<Job>>>,
}

/// How a pod ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pod {
    Succeeds,
    Fails,
    Suspends,
    RetriesAfter(i64),
}

struct Nearby<'a>(&'a World);

impl workflow::Surroundings for Nearby<'_> {
    fn existing(&self, _promise: &str, _namespace: &str) -> Existing {
        Existing {
            service_accounts: self.0.list("ServiceAccount"),
            config_maps: self.0.list("ConfigMap"),
            roles: self.0.list("Role"),
            role_bindings: self.0.list("RoleBinding"),
            cluster_roles: self.0.list("ClusterRole"),
            cluster_role_bindings: self.0.list("ClusterRoleBinding"),
        }
    }

    fn in_use(&self, _promise: &str) -> Vec<Arc<Definition>> {
        let (revisions, bindings) = (self.0.list("PromiseRevision"), self.0.list::<ResourceBinding>("ResourceBinding"));
        let promise = self.0.objects.get(&("Promise".to_owned(), ObjectKey::cluster(PROMISE))).map(typed::<Promise>);
        let is_bound = |version: &str| bindings.iter().any(|one| bound_versions(one).contains(version));
        let used = crate::promise_revision::in_use(&revisions, promise.as_ref(), is_bound);
        used.into_iter().map(|revision| self.definition(revision)).collect()
    }

    fn request_namespaces(&self, _promise: &str) -> BTreeSet<String> {
        self.0.keys("Env").into_iter().filter_map(|request| request.namespace).collect()
    }

    fn bound_namespaces(&self, promise: &str, kind: WorkflowType) -> BTreeSet<String> {
        workflow::access::bound_namespaces(promise, kind, &self.0.list("ClusterRoleBinding"))
    }

    fn jobs(&self, _promise: &str) -> Vec<Arc<Job>> {
        self.0.list("Job")
    }

    fn is_taken(&self, key: &ObjectKey, parent: &Parent) -> bool {
        let job = self.0.objects.get(&("Job".to_owned(), key.clone()));
        job.is_some_and(|job| !workflow::history::is_of(&typed::<Job>(job), parent))
    }

    fn sight(&self, job: &Job) -> Sight {
        let mut pods: Vec<Arc<k8s_openapi::api::core::v1::Pod>> = self.0.list("Pod");
        pods.retain(|pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.meta().uid.as_ref()));
        let pods: Vec<_> = pods.iter().map(|pod| workflow::failure::attempt(pod)).collect();
        Sight::of(job, &pods, self.0.refusal.as_deref())
    }
}

impl Surroundings for Nearby<'_> {
    fn definition(&self, revision: &PromiseRevision) -> Arc<Definition> {
        Arc::new(Definition::of(&revision.spec.promise_spec))
    }
}

fn typed<K: DeserializeOwned>(object: &Value) -> K {
    K::deserialize(object).unwrap_or_else(|error| panic!("{error}: {object}"))
}

pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

pub(super) fn pipeline(name: &str) -> Value {
    json!({
        "apiVersion": keys::API_VERSION, "kind": "Pipeline", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "a", "image": "i" }] },
    })
}

/// Returns a Promise spec with these resource pipelines.
pub(super) fn spec(configure: &[&str], delete: &[&str], namespace: &str) -> Value {
    let pipelines = |names: &[&str]| names.iter().map(|name| pipeline(name)).collect::<Vec<_>>();
    json!({ "workflows": {
        "config": { "pipelineNamespace": namespace },
        "resource": { "configure": pipelines(configure), "delete": pipelines(delete) },
    }})
}

pub(super) fn key(namespace: &str) -> ObjectKey {
    ObjectKey::namespaced(namespace, "x")
}

/// Returns a platform whose Promise has two pipelines, and a request that nobody has looked at.
pub(super) fn two_pipelines() -> World {
    let mut world = World::new(spec(&["first", "second"], &[], ""));
    world.ask("a");
    world
}

impl World {
    /// Returns a platform with an available Promise of this spec.
    pub(super) fn new(spec: Value) -> Self {
        let mut world = Self {
            objects: BTreeMap::new(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            events: Vec::new(),
            writes: Vec::new(),
            config: Config::default(),
            crash_before: None,
            stale_in: None,
            node_clock_ahead: 0,
            refusal: None,
            passes: 0,
            versions: 0,
            previous: None,
            newest_job: None,
            decoded: RefCell::default(),
        };
        let available =
            json!({ "conditions": [{ "type": "Available", "status": "True", "reason": "R", "message": "m" }] });
        let promise = json!({ "kind": "Promise", "metadata": { "name": PROMISE, "generation": 1 }, "spec": spec });
        world.put(promise, ObjectKey::cluster(PROMISE));
        world.change("Promise", &ObjectKey::cluster(PROMISE), json!({ "status": available }));
        world.revise("not-set", spec);
        world
    }

    /// Gives the Promise a version, and makes its revision the latest.
    pub(super) fn revise(&mut self, version: &str, spec: Value) {
        let label = json!({ "metadata": { "labels": { keys::PROMISE_VERSION: version } } });
        self.change("Promise", &ObjectKey::cluster(PROMISE), label);
        for ((kind, _), object) in &mut self.objects {
            if kind == "PromiseRevision" {
                object["status"] = json!({});
            }
        }
        let name = format!("{PROMISE}-{version}");
        let object = json!({
            "kind": "PromiseRevision",
            "metadata": { "name": name, "labels": { keys::PROMISE_NAME: PROMISE } },
            "spec": { "promiseRef": { "name": PROMISE }, "promiseSpec": spec, "version": version },
            "status": { "latest": true },
        });
        self.put(object, ObjectKey::cluster(name));
    }

    /// Adds the request `x` in a namespace.
    pub(super) fn ask(&mut self, namespace: &str) {
        let object = json!({
            "apiVersion": "example.org/v1", "kind": "Env",
            "metadata": { "name": "x", "namespace": namespace, "generation": 1 }, "spec": { "size": "small" },
        });
        self.put(object, key(namespace));
    }

    fn put(&mut self, mut object: Value, key: ObjectKey) {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let metadata = &mut object["metadata"];
        metadata["uid"] = format!("uid of {kind} {key}").into();
        metadata["creationTimestamp"] = self.now.to_string().into();
        self.objects.insert((kind.clone(), key.clone()), object);
        self.touch(&kind, &key);
        if kind == "Job" {
            self.newest_job = Some(key);
        }
    }

    fn touch(&mut self, kind: &str, key: &ObjectKey) {
        self.versions += 1;
        if let Some(object) = self.objects.get_mut(&(kind.to_owned(), key.clone())) {
            object["metadata"]["resourceVersion"] = self.versions.to_string().into();
        }
    }

    /// Merges a patch into an object, as a user or another program would.
    pub(super) fn change(&mut self, kind: &str, key: &ObjectKey, patch: Value) {
        let Some(object) = self.objects.get_mut(&(kind.to_owned(), key.clone())) else { panic!("no {kind} {key}") };
        if kind == "Env" {
            self.previous = Some((key.clone(), object.clone()));
        }
        let spec = object["spec"].clone();
        merge(object, &patch);
        if object["spec"] != spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
            object["metadata"]["generation"] = (generation + 1).into();
        }
        let released = object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        if released && object["metadata"].get("deletionTimestamp").is_some() {
            self.objects.remove(&(kind.to_owned(), key.clone()));
        }
        self.touch(kind, key);
    }

    pub(super) fn label(&mut self, namespace: &str, label: &str, value: Option<&str>) {
        self.change("Env", &key(namespace), json!({ "metadata": { "labels": { label: value } } }));
    }

    pub(super) fn delete(&mut self, kind: &str, key: &ObjectKey) {
        let generation = self.get(kind, key)["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        let now = self.now.to_string();
        let patch = json!({ "metadata": { "deletionTimestamp": now, "generation": generation } });
        self.change(kind, key, patch);
    }

    pub(super) fn get(&self, kind: &str, key: &ObjectKey) -> &Value {
        self.objects.get(&(kind.to_owned(), key.clone())).unwrap_or_else(|| panic!("no {kind} {key}"))
    }

    pub(super) fn request(&self, namespace: &str) -> &Value {
        self.get("Env", &key(namespace))
    }

    pub(super) fn status(&self, namespace: &str) -> &Value {
        &self.request(namespace)["status"]
    }

    /// Returns `status/reason` of a condition, empty when absent.
    pub(super) fn told(&self, namespace: &str, r#type: &str) -> String {
        let document = Document::read(self.status(namespace));
        let told = document.condition(r#type).map(|condition| format!("{}/{}", condition.status, condition.reason));
        told.unwrap_or_default()
    }

    pub(super) fn keys(&self, kind: &str) -> Vec<ObjectKey> {
        self.objects.keys().filter(|(found, _)| found == kind).map(|(_, key)| key.clone()).collect()
    }

    fn list<K: DeserializeOwned>(&self, kind: &str) -> Vec<Arc<K>> {
        let found = self.objects.iter().filter(|((found, _), _)| found == kind);
        found.map(|(_, object)| Arc::new(typed(object))).collect()
    }

    pub(super) fn decide(&mut self, namespace: &str) -> Plan<Finding> {
        self.passes += 1;
        let is_stale = self.stale_in == Some(self.passes);
        let request = match &self.previous {
            Some((of, previous)) if is_stale && *of == key(namespace) => previous.clone(),
            _ => self.request(namespace).clone(),
        };
        let mut jobs = self.all_jobs();
        if is_stale {
            jobs.retain(|job| Some(ObjectKey::of(job.as_ref())) != self.newest_job);
        }
        let kind = Kind::new("example.org", "v1", "Env", "envs");
        let config = Arc::new(self.config.clone());
        let settings = Settings { adapter_image: "adapter".into(), adapter_pull_secret: None, config };
        let bindings: Vec<Arc<ResourceBinding>> = self.list("ResourceBinding");
        let promise = self.objects.get(&("Promise".to_owned(), ObjectKey::cluster(PROMISE)));
        decide(&Snapshot {
            now: self.now,
            kind: &kind,
            promise_name: PROMISE,
            promise: promise.map(|promise| Arc::new(typed(promise))),
            request: Arc::new(typed(&request)),
            revisions: self.list("PromiseRevision"),
            bindings: bindings
                .into_iter()
                .filter(|binding| {
                    let bound = &binding.spec.resource_ref.namespace;
                    bound == namespace || binding.namespace().as_deref() == Some(namespace)
                })
                .collect(),
            jobs,
            works: self.list("Work"),
            settings: &settings,
            surroundings: &Nearby(self),
        })
    }

    /// Executes a plan; stops at a conflict or at the crash that was asked for.
    pub(super) fn act(&mut self, plan: &Plan<Finding>) {
        let mut produced = BTreeMap::new();
        for write in plan.writes.iter().chain(&plan.status) {
            if self.crash_before == Some(self.writes.len()) {
                self.crash_before = None;
                return;
            }
            if !self.execute(write, &mut produced) {
                return;
            }
            self.writes.push(write.clone());
        }
        self.events.extend(plan.events.iter().map(|event| format!("{} {}", event.reason, event.note)));
    }

    fn execute(&mut self, write: &Write, produced: &mut BTreeMap<(String, ObjectKey), String>) -> bool {
        let (kind, address) = write.address();
        let id = (kind.kind.clone(), address.clone());
        match write {
            Write::Create { object, .. } => {
                if !self.objects.contains_key(&id) {
                    self.put(object.clone(), address.clone());
                }
            }
            Write::Delete { .. } => {
                if self.objects.contains_key(&id) {
                    self.delete(&id.0, &id.1);
                }
            }
            Write::Patch { target, patch } | Write::PatchStatus { target, patch } => {
                let Some(object) = self.objects.get(&id) else { return false };
                let version = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
                let pinned = target.resource_version.is_some() && target.resource_version != version;
                if pinned && produced.get(&id) != version.as_ref() {
                    return false;
                }
                self.change(&id.0, &id.1, patch.clone());
                let version = self.versions.to_string();
                produced.insert(id, version);
            }
        }
        true
    }

    /// Runs passes until nothing is asked for.
    pub(super) fn settle(&mut self, namespace: &str) -> Plan<Finding> {
        for _ in 0..60 {
            if !self.objects.contains_key(&("Env".to_owned(), key(namespace))) {
                return Plan::silent();
            }
            let plan = self.decide(namespace);
            if plan.is_silent() && self.stale_in.is_none_or(|pass| pass < self.passes) {
                return plan;
            }
            self.act(&plan);
        }
        panic!("never at rest; last writes: {:#?}", &self.writes[self.writes.len() - 6..]);
    }

    fn all_jobs(&self) -> Vec<Arc<Job>> {
        let mut decoded = self.decoded.borrow_mut();
        let found = self.objects.iter().filter(|((kind, _), _)| kind == "Job");
        found
            .map(|((_, key), object)| {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
                Arc::clone(decoded.entry((key.clone(), version)).or_insert_with(|| Arc::new(typed(object))))
            })
            .collect()
    }

    /// Returns the Jobs of a request in the order in which they were made.
    pub(super) fn jobs(&self, namespace: &str) -> Vec<Job> {
        let of =
            |job: &Job| job.annotations().get(keys::JOB_RESOURCE_NAMESPACE).is_some_and(|found| found == namespace);
        let mut jobs: Vec<Job> = self.all_jobs().iter().map(|job| job.as_ref().clone()).filter(of).collect();
        jobs.sort_by_key(workflow::history::sequence);
        jobs
    }

    /// Returns the pipelines of the Jobs of a request in the order in which they were made.
    pub(super) fn ran(&self, namespace: &str) -> Vec<String> {
        self.jobs(namespace).iter().map(|job| workflow::history::pipeline(job).to_owned()).collect()
    }

    pub(super) fn running(&self, namespace: &str) -> Option<Job> {
        self.jobs(namespace).into_iter().find(|job| workflow::history::state(job) == workflow::history::State::Running)
    }

    fn end_job(&mut self, job: &ObjectKey, condition: &str) {
        let conditions = json!([{ "type": condition, "status": "True" }]);
        self.change("Job", job, json!({ "status": { "conditions": conditions, "active": null } }));
    }

    /// Stops Jobs that were told to stop, as the Job controller does.
    pub(super) fn stop_jobs(&mut self, namespace: &str) {
        for job in self.jobs(namespace) {
            if workflow::history::is_told_to_suspend(&job) {
                self.end_job(&ObjectKey::of(&job), "Suspended");
            }
        }
    }

    /// Lets the running Job of a request end: plays its pod, then the Job controller.
    pub(super) fn finish(&mut self, namespace: &str, pod: Pod) {
        let job = self.running(namespace).expect("a Job runs");
        let job_key = ObjectKey::of(&job);
        if pod == Pod::Fails {
            return self.end_job(&job_key, "Failed");
        }
        let pipeline = workflow::history::pipeline(&job).to_owned();
        let configures = workflow::history::action(&job) == Action::Configure;
        let pod_spec = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let env = pod_spec.containers[0].env.as_ref().unwrap();
        let is_last = env[0].value.as_deref() == Some("true");
        if configures && pod == Pod::Succeeds {
            self.write_work(&job, &pipeline);
        }
        let mut document = Document::read(self.status(namespace));
        if pod == Pod::Succeeds {
            document.set_phase(&pipeline, kratix_api::promise::Phase::Running, self.now);
            if is_last && configures {
                if document.text("message") == PENDING {
                    document.set("message", "Resource requested");
                }
                let r#type = condition::CONFIGURE_WORKFLOW_COMPLETED;
                document.remove_condition(r#type);
                let reason = "PipelinesExecutedSuccessfully";
                document.set_condition(r#type, Status::True, reason, "Pipelines completed", self.now);
            }
        } else {
            self.label(namespace, keys::WORKFLOW_SUSPENDED, Some("true"));
            document.set_phase(&pipeline, kratix_api::promise::Phase::Suspended, self.now);
            let generation = self.request(namespace)["metadata"]["generation"].as_i64().unwrap();
            document.set_workflow("suspendedGeneration", generation);
        }
        let mut status = document.into_value();
        if let Pod::RetriesAfter(seconds) = pod {
            let entries = status["kratix"]["workflows"]["pipelines"].as_array_mut().unwrap();
            let entry = entries.iter_mut().find(|entry| entry["name"] == pipeline.as_str()).unwrap();
            let retry = Timestamp::from_second(self.now.as_second() + seconds).unwrap();
            entry["nextRetryAt"] = retry.to_string().into();
            entry["attempts"] = (entry["attempts"].as_i64().unwrap_or_default() + 1).into();
        }
        self.change("Env", &key(namespace), json!({ "status": null }));
        self.change("Env", &key(namespace), json!({ "status": status }));
        self.end_job(&job_key, "Complete");
    }

    fn write_work(&mut self, job: &Job, pipeline: &str) {
        let label = |key: &str| job.labels().get(key).cloned();
        let mut labels = json!({
            keys::PROMISE_NAME: PROMISE, keys::WORK_TYPE: "resource",
            keys::PIPELINE_NAME: pipeline, keys::RESOURCE_NAME: "x",
        });
        let own = label(keys::RESOURCE_NAMESPACE);
        if let Some(namespace) = &own {
            labels[keys::RESOURCE_NAMESPACE] = namespace.as_str().into();
        }
        let name = format!("{PROMISE}-x-{}-{pipeline}", own.unwrap_or_default());
        let work = ObjectKey::namespaced(job.namespace().unwrap(), name.clone());
        let written = Timestamp::from_second(self.now.as_second() + self.node_clock_ahead).unwrap();
        let spec = json!({ "promiseName": PROMISE, "lastExecutionTimestamp": written.to_string() });
        let writer = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap().init_containers.iter().flatten();
        let env = writer.filter(|container| container.name == "work-writer").flat_map(|container| &container.env);
        let sequence = env.flatten().find(|variable| variable.name == keys::env::SEQUENCE).unwrap().value.clone();
        let annotations = json!({ keys::SEQUENCE: sequence });
        if self.objects.contains_key(&("Work".to_owned(), work.clone())) {
            let metadata = json!({ "annotations": annotations });
            return self.change("Work", &work, json!({ "metadata": metadata, "spec": spec, "status": null }));
        }
        let metadata = json!({
            "name": name, "namespace": work.namespace, "labels": labels, "annotations": annotations, "generation": 1,
        });
        self.put(json!({ "kind": "Work", "metadata": metadata, "spec": spec }), work);
    }

    /// Gives every Work this word as the message of its `Ready` condition.
    pub(super) fn place(&mut self, message: &str) {
        for work in self.keys("Work") {
            let status = if message == "Ready" { "True" } else { "False" };
            let ready = json!([{ "type": "Ready", "status": status, "reason": "R", "message": message }]);
            self.change("Work", &work, json!({ "status": { "conditions": ready } }));
        }
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, seconds: i64) {
        self.now = Timestamp::from_second(self.now.as_second() + seconds).unwrap();
    }

    /// Runs the next pipeline of a request, which asks to be held.
    pub(super) fn suspend(&mut self, namespace: &str) -> Plan<Finding> {
        self.settle(namespace);
        self.finish(namespace, Pod::Suspends);
        self.settle(namespace)
    }

    /// Runs everything to its good end.
    pub(super) fn play(&mut self, namespace: &str) {
        for _ in 0..20 {
            self.settle(namespace);
            if self.running(namespace).is_none() {
                break;
            }
            self.wait(1);
            self.finish(namespace, Pod::Succeeds);
        }
        self.place("Ready");
        self.settle(namespace);
    }

    pub(super) fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|found| found.starts_with(event)).count()
    }
}
