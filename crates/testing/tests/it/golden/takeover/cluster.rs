//! A cluster of the original, on an API server of ours: its objects and its repository as they were recorded at rest.
//!
//! The uids in owners are those that the server gives, and times are of its clock; what was changed there is changed here as
//! often, so generations are the same. The random ends of names, which the recordings count, are texts of the same length.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{PromiseSpec, compression, keys, promise_api};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::super::recorded::{Recorded, address};
use crate::scenario::Step;
use crate::world::{World, collection};

/// Between two objects, on the runtime's clock: whoever tells them apart by their age can.
const PAUSE: Duration = Duration::from_secs(5);
/// What a user brings beside the objects of Kratix.
const OF_THE_USER: [&str; 5] = ["Namespace", "Secret", "ConfigMap", "ServiceAccount", "Role"];
/// On the Work of a Promise's dependencies and on its placements, which have it from there: when it was written.
const LAST_UPDATED: &str = "kratix.io/last-updated-at";
/// One such time, the way the original writes it.
const REFRESHED: &str = "2025-12-31 23:00:00.123456789 +0000 UTC";
/// When the Job of a Work's pipeline has written it.
const LAST_EXECUTION: &str = "lastExecutionTimestamp";
/// What the original's manager calls itself when it writes.
const WRITER: &str = "manager";

/// Puts a cluster on the server of a world in which nothing happens yet. Returns the addresses of what the user had there
/// beside the objects of Kratix.
pub(super) async fn load(world: &World, recorded: &Recorded, stage: &str) -> BTreeSet<String> {
    let head = write(&world.repository(), recorded, stage);
    let client = Client::new(world.as_manager(), "default");
    let mut loading = Loading { world, client, head, uids: BTreeMap::new(), unfinished: Vec::new() };
    let sent = recorded.sent();
    for object in sent.into_iter().filter(|object| OF_THE_USER.iter().any(|kind| object["kind"] == *kind)) {
        loading.create(object).await;
    }
    // The server adds something to each namespace.
    world.step(&Step::Calm).await.unwrap();
    let of_the_user = super::look(world).await.into_keys().collect();
    let (crds, objects): (Vec<Value>, Vec<Value>) =
        objects(recorded, stage).into_iter().partition(|object| object["kind"] == "CustomResourceDefinition");
    for crd in crds {
        loading.serve(crd).await;
    }
    for object in objects {
        if !loading.uids.contains_key(&address(&object)) {
            loading.create(object).await;
        }
    }
    tokio::time::sleep(PAUSE).await;
    loading.finish().await;
    of_the_user
}

/// Returns the objects of a stage in the order in which they came, whole.
fn objects(recorded: &Recorded, stage: &str) -> Vec<Value> {
    let (mut objects, jobs) = (recorded.objects(stage), recorded.jobs(stage));
    let contents = recorded.contents(stage);
    let crds: Vec<Value> = objects.values().filter_map(crd).collect();
    for crd in crds {
        // Most captures leave it out. That ours are the original's is shown in `kratix-api`.
        objects.entry(address(&crd)).or_insert(crd);
    }
    let order: BTreeMap<String, usize> =
        (recorded.order().into_iter().enumerate().rev()).map(|(number, address)| (address, number + 1)).collect();
    for object in objects.values_mut() {
        match object["kind"].as_str().unwrap_or_default() {
            "Job" => complete(object, &jobs),
            "Work" => {
                let work = object["metadata"]["name"].clone();
                for group in object["spec"]["workloadGroups"].as_array_mut().into_iter().flatten() {
                    let group_id = group["id"].clone();
                    fill(&mut group["workloads"], &[&work, &group_id], &contents);
                }
            }
            "WorkPlacement" => {
                let work = object["metadata"]["labels"][keys::WORK].clone();
                let group_id = object["spec"]["id"].clone();
                fill(&mut object["spec"]["workloads"], &[&work, &group_id], &contents);
            }
            "GitStateStore" => object["spec"]["url"] = json!("<store>"),
            _ => {}
        }
    }
    let mut objects: Vec<Value> = objects.into_values().collect();
    // Accounts, roles and the like are nobody's children, so they may come first.
    objects.sort_by_key(|object| order.get(&address(object)).copied().unwrap_or(0));
    objects
}

/// Returns the CRD that a Promise has installed.
fn crd(object: &Value) -> Option<Value> {
    let spec: PromiseSpec =
        (object["kind"] == "Promise").then(|| serde_json::from_value(object["spec"].clone()).unwrap())?;
    let crd = promise_api::read(&spec).ok()?.prepared(object["metadata"]["name"].as_str()?);
    let mut crd = serde_json::to_value(crd).unwrap();
    crd["kind"] = json!("CustomResourceDefinition");
    crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
    Some(crd)
}

/// Gives a Job what it runs, and its status what the recordings leave out of it.
fn complete(job: &mut Value, jobs: &BTreeMap<String, Value>) {
    static SAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^<as Job (.+); template labels as").unwrap());
    if let Some(told) = job["spec"].as_str() {
        let name = SAME.captures(told).unwrap()[1].to_owned();
        job["spec"] = jobs[&name].clone();
        job["spec"]["template"]["metadata"]["labels"] = job["metadata"]["labels"].clone();
    }
    let status = &mut job["status"];
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastProbeTime"] = json!("<time>");
        condition["lastTransitionTime"] = json!("<time>");
    }
    let has = |kind: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == kind)
    };
    let (is_complete, is_failed) = (has("Complete"), has("Failed"));
    assert!(is_complete || is_failed, "{} is not at rest", job["metadata"]["name"]);
    job["status"]["startTime"] = json!("<time>");
    if is_complete {
        job["status"]["completionTime"] = json!("<time>");
        job["status"]["succeeded"] = json!(1);
    } else {
        job["status"]["failed"] = json!(1);
    }
}

/// Gives workloads their contents.
fn fill(workloads: &mut Value, of: &[&Value; 2], contents: &BTreeMap<[String; 3], Vec<u8>>) {
    for workload in workloads.as_array_mut().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = [text(of[0]), text(of[1]), text(&workload["filepath"])];
        let content = contents.get(&key).unwrap_or_else(|| panic!("nobody knows the content of {key:?}"));
        workload["content"] = json!(stored(content));
    }
}

/// Returns a content as somebody else would have compressed it: other bytes than ours that lead to the same.
fn stored(content: &[u8]) -> String {
    let [content, nothing] = [content, b""].map(|part| STANDARD.decode(compression::compress(part)).unwrap());
    STANDARD.encode([content, nothing].concat())
}

/// Returns what an object may have had in its spec before.
fn earlier(object: &Value, number: i64) -> Map<String, Value> {
    let text = json!(format!("earlier-{number}"));
    let fields = match object["kind"].as_str().unwrap_or_default() {
        "Promise" => json!({ "destinationSelectors": [{ "matchLabels": { "earlier": text } }] }),
        "PromiseRevision" => {
            json!({ "promiseSpec": { "destinationSelectors": [{ "matchLabels": { "earlier": text } }] } })
        }
        "ResourceBinding" => json!({ "version": text }),
        "Work" => json!({ "promiseName": text, LAST_EXECUTION: null }),
        "WorkPlacement" => json!({ "promiseName": text }),
        _ => json!({ "v": text }),
    };
    fields.as_object().cloned().unwrap()
}

struct Loading<'a> {
    world: &'a World,
    client: Client,
    head: String,
    /// By kind, namespace and name.
    uids: BTreeMap<String, String>,
    /// What lacks its last change and its status.
    unfinished: Vec<Value>,
}

impl Loading<'_> {
    async fn create(&mut self, object: Value) {
        tokio::time::sleep(PAUSE).await;
        let told = address(&object);
        let mut object = self.filled(object);
        let status = object["status"].take();
        let own = object["metadata"]["namespace"].as_str().map(|namespace| format!("{namespace}/"));
        for owner in object["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
            let [kind, name] = ["kind", "name"].map(|field| owner[field].as_str().unwrap_or_default());
            let places = [own.clone().unwrap_or_default(), String::new()];
            let uid = places.iter().find_map(|place| self.uids.get(&format!("{kind}/{place}{name}")));
            owner["uid"] = json!(uid.unwrap_or_else(|| panic!("{told}: its owner {kind}/{name} is not there")));
        }
        let uid = self.make(&object).await.metadata.uid.unwrap();
        self.uids.insert(address(&object), uid);
        object["status"] = status;
        self.unfinished.push(object);
    }

    /// Creates an object, and changes it as often as it was changed but once.
    async fn make(&self, object: &Value) -> DynamicObject {
        let (api, told, name) = (self.api(object), address(object), object["metadata"]["name"].as_str().unwrap());
        let changes = changes(object);
        let mut first = object.clone();
        if changes > 0 {
            first["spec"].as_object_mut().unwrap().extend(earlier(object, 0));
        }
        let new: DynamicObject = serde_json::from_value(first).unwrap_or_else(|error| panic!("{told}: {error}"));
        let by = PostParams { field_manager: Some(WRITER.to_owned()), ..PostParams::default() };
        let mut made = api.create(&by, &new).await.unwrap_or_else(|error| panic!("{told}: {error}"));
        for number in 1..changes {
            let patch = Patch::Merge(json!({ "spec": earlier(object, number) }));
            made = api.patch(name, &written(), &patch).await.unwrap_or_else(|error| panic!("{told}: {error}"));
        }
        made
    }

    /// Has a CRD served.
    async fn serve(&self, mut crd: Value) {
        // Only the server says how often it was changed, and nobody looks at it.
        crd["metadata"].as_object_mut().unwrap().remove("generation");
        self.make(&crd).await;
        let crds = Api::<CustomResourceDefinition>::all(self.client.clone());
        await_condition(crds, crd["metadata"]["name"].as_str().unwrap(), conditions::is_crd_established())
            .await
            .unwrap();
    }

    /// Makes the last changes, once everything is there, and writes the statuses, of which a new object has none.
    async fn finish(&mut self) {
        for object in std::mem::take(&mut self.unfinished) {
            let (api, told, name) = (self.api(&object), address(&object), object["metadata"]["name"].as_str().unwrap());
            if changes(&object) > 0 {
                let fields = earlier(&object, 0).into_iter().map(|(field, _)| field);
                let mut spec: Map<String, Value> =
                    fields.map(|field| (field.clone(), object["spec"][field].clone())).collect();
                if let Some(time) = spec.get_mut(LAST_EXECUTION).filter(|time| time.is_string()) {
                    // The last Job has written it.
                    *time = json!(self.world.time());
                }
                let made = api.patch(name, &written(), &Patch::Merge(json!({ "spec": spec }))).await;
                let made = made.unwrap_or_else(|error| panic!("{told}: {error}"));
                assert_eq!(made.metadata.generation, object["metadata"]["generation"].as_i64(), "generation of {told}");
            }
            if object["status"].as_object().is_some_and(|status| !status.is_empty()) {
                let status = Patch::Merge(json!({ "status": object["status"] }));
                let made = api.patch_status(name, &written(), &status).await;
                let made = made.unwrap_or_else(|error| panic!("status of {told}: {error}"));
                assert!(!made.data["status"].is_null(), "{told} has no status");
            }
        }
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        collection(&self.client, text("/apiVersion"), text("/kind"), text("/metadata/namespace"))
    }

    /// Returns a value with something for every stand-in.
    fn filled(&self, value: Value) -> Value {
        match value {
            Value::Object(members) => {
                let filled = |(key, value): (String, Value)| match key == LAST_UPDATED {
                    true => (key, json!(REFRESHED)),
                    false => (key, self.filled(value)),
                };
                Value::Object(members.into_iter().map(filled).collect())
            }
            Value::Array(items) => items.into_iter().map(|item| self.filled(item)).collect(),
            Value::String(text) if text == "<time>" => json!(self.world.time()),
            Value::String(text) if text == "<commit>" => json!(self.head),
            Value::String(text) if text == "<store>" => {
                json!(format!("file://{}", self.world.repository().display()))
            }
            Value::String(text) => json!(ended(&text)),
            other => other,
        }
    }
}

/// Returns how often an object was changed.
fn changes(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().map_or(0, |generation| generation - 1)
}

fn written() -> PatchParams {
    PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() }
}

/// Returns a text with random ends of names.
fn ended(text: &str) -> String {
    static END: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"<sfx(\d+)>").unwrap());
    END.replace_all(text, |found: &regex::Captures<'_>| format!("x{:0>4}", &found[1])).into_owned()
}

/// Writes the files of a stage as one commit, and returns it.
fn write(repository: &Path, recorded: &Recorded, stage: &str) -> String {
    let message = "Update from: the original";
    let mut stream = b"commit refs/heads/main\ncommitter kratix <> 1767225600 +0000\n".to_vec();
    stream.extend(format!("data {}\n{message}\n", message.len()).bytes());
    for (path, file) in recorded.tree(stage) {
        assert!(file.is_whole(), "{stage}: {path} is not told as it was");
        stream.extend(format!("M 100644 inline {}\ndata {}\n", ended(&path), file.content.len()).bytes());
        stream.extend([&file.content[..], b"\n"].concat());
    }
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(repository).args(["fast-import", "--quiet"]);
    let mut git = git.stdin(Stdio::piped()).spawn().unwrap();
    git.stdin.take().unwrap().write_all(&stream).unwrap();
    assert!(git.wait().unwrap().success(), "git takes no files at {stage}");
    super::head(repository)
}
