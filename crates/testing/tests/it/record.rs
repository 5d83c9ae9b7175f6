//! What a run has left: objects, files, and what was ever created.
//!
//! Times, ids, versions and what is derived from them differ from run to run and are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use kratix_state_store::{GitConfig, open};
use kratix_testing::faults::Call;
use kube::Client;
use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Value, json};

use crate::world::World;

/// Collections whose objects are compared. Those of Promises' APIs come on top.
const COLLECTIONS: [&str; 18] = [
    "/api/v1/namespaces",
    "/api/v1/configmaps",
    "/api/v1/serviceaccounts",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/batch/v1/jobs",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/platform.kratix.io/v1alpha1/promises",
    "/apis/platform.kratix.io/v1alpha1/promiserevisions",
    "/apis/platform.kratix.io/v1alpha1/promisereleases",
    "/apis/platform.kratix.io/v1alpha1/resourcebindings",
    "/apis/platform.kratix.io/v1alpha1/works",
    "/apis/platform.kratix.io/v1alpha1/workplacements",
    "/apis/platform.kratix.io/v1alpha1/destinations",
    "/apis/platform.kratix.io/v1alpha1/gitstatestores",
    "/apis/platform.kratix.io/v1alpha1/bucketstatestores",
];

/// What a run has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// By collection, namespace and name.
    pub(crate) objects: BTreeMap<String, Value>,
    /// By path.
    pub(crate) files: BTreeMap<String, String>,
    /// How often something of this name was created by Kratix.
    pub(crate) created: BTreeMap<String, usize>,
}

impl Record {
    pub(crate) async fn of(world: &World) -> Self {
        let mut objects = BTreeMap::new();
        for object in everything(&world.user).await {
            let mut key = format!("{} {}", object.collection, name_of(&object.value));
            let mut value = object.value;
            if key.ends_with("/kube-root-ca.crt") {
                continue;
            }
            let generation = value["metadata"]["generation"].take();
            normalise(&mut value, &generation);
            if key.contains("/jobs ") {
                // The name ends with a hash of ids.
                let annotations = &value["metadata"]["annotations"];
                let sequence = &annotations["internal.workflows.kratix.io/sequence"];
                key = format!("{} #{sequence}", text(&key));
            }
            let previous = objects.insert(key.clone(), value);
            assert!(previous.is_none(), "two objects look the same: {key}");
        }
        forget_vacuous_rounds(&mut objects);
        let calls = world.manager.calls().into_iter().chain(world.pods.calls());
        let mut created = BTreeMap::new();
        for call in calls.filter(is_creation) {
            let name = call.answer.as_ref().map(|(_, object)| name_of(object)).unwrap_or_default();
            *created.entry(text(&format!("{} {name}", call.path))).or_default() += 1;
        }
        Self { objects, files: world.observer.files.read().await.as_ref().clone(), created }
    }

    /// Returns what is different in another record.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        compare("object", &self.objects, &other.objects, &mut found, |expected, actual| {
            let mut lines = Vec::new();
            differ("", expected, actual, &mut lines);
            lines.join("; ")
        });
        compare("file", &self.files, &other.files, &mut found, |expected, actual| {
            format!("{expected:?}, not {actual:?}")
        });
        for (name, count) in &other.created {
            let expected = self.created.get(name).copied().unwrap_or_default();
            if *count > expected {
                found.push(format!("created {name}: {count} times, not {expected}"));
            }
        }
        // What is removed before the end may go before it was placed; what was to be run has to run.
        for (name, expected) in self.created.iter().filter(|(name, _)| name.contains("/jobs ")) {
            let count = other.created.get(name).copied().unwrap_or_default();
            if count < *expected {
                found.push(format!("created {name}: {count} times, not {expected}"));
            }
        }
        found
    }
}

fn compare<T: PartialEq>(
    what: &str,
    expected: &BTreeMap<String, T>,
    actual: &BTreeMap<String, T>,
    found: &mut Vec<String>,
    describe: impl Fn(&T, &T) -> String,
) {
    for (key, value) in expected {
        match actual.get(key) {
            None => found.push(format!("{what} {key}: is missing")),
            Some(other) if other != value => found.push(format!("{what} {key}: {}", describe(value, other))),
            Some(_) => {}
        }
    }
    let more = actual.keys().filter(|key| !expected.contains_key(*key));
    found.extend(more.map(|key| format!("{what} {key}: is too much")));
}

/// Says where two values differ.
pub(crate) fn differ(path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                differ(
                    &format!("{path}.{key}"),
                    &a.get(key).cloned().unwrap_or_default(),
                    &b.get(key).cloned().unwrap_or_default(),
                    found,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{at}]"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{path} is {b}, not {a}")),
    }
}

/// An object as the server has it.
pub(crate) struct Found {
    pub(crate) collection: String,
    pub(crate) value: Value,
}

/// Returns all objects, except Events.
pub(crate) async fn everything(client: &Client) -> Vec<Found> {
    let mut found = Vec::new();
    let mut collections: Vec<String> = COLLECTIONS.map(str::to_owned).to_vec();
    for crd in list(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await {
        let spec = &crd["spec"];
        let group = spec["group"].as_str().unwrap();
        if group != "platform.kratix.io" {
            let version =
                spec["versions"].as_array().unwrap().iter().find(|version| version["storage"] == true).unwrap();
            let (version, plural) = (version["name"].as_str().unwrap(), spec["names"]["plural"].as_str().unwrap());
            collections.push(format!("/apis/{group}/{version}/{plural}"));
        }
    }
    for collection in collections {
        for value in list(client, &collection).await {
            found.push(Found { collection: collection.clone(), value });
        }
    }
    found
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match client.request::<Value>(request).await {
        Ok(mut list) => match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        },
        // A CRD that is about to go is served no more.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => panic!("cannot list {path}: {error}"),
    }
}

/// The files of a repository, read again only when its branch has moved.
pub(crate) struct Files {
    repository: PathBuf,
    known: Mutex<(String, Arc<BTreeMap<String, String>>)>,
}

impl Files {
    pub(crate) fn new(repository: PathBuf) -> Self {
        Self { repository, known: Mutex::default() }
    }

    pub(crate) async fn read(&self) -> Arc<BTreeMap<String, String>> {
        // Behind what a store is doing on the one thread for it, never in the middle.
        let branch = self.repository.join("refs/heads/main");
        let branch = tokio::task::spawn_blocking({
            let span = tracing::Span::current();
            move || span.in_scope(|| std::fs::read_to_string(branch).unwrap_or_default())
        });
        let branch = branch.await.unwrap();
        if self.known.lock().0 == branch {
            return self.known.lock().1.clone();
        }
        let cache = tempfile::tempdir().unwrap();
        let url = format!("file://{}", self.repository.display());
        let store = open(GitConfig::new("look", url), cache.path()).unwrap();
        let mut files = BTreeMap::new();
        for path in store.list("").await.unwrap_or_default() {
            let content = store.read(&path).await.unwrap().unwrap_or_default();
            files.insert(path, text(&String::from_utf8_lossy(&content)));
        }
        let files = Arc::new(files);
        // Had the branch moved meanwhile, the next look reads again.
        *self.known.lock() = (branch, files.clone());
        files
    }
}

fn is_creation(call: &Call) -> bool {
    call.method == http::Method::POST && call.succeeded() && !call.is_event()
}

fn name_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    let part = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", part("namespace"), part("name"))
}

/// What differs from run to run, in an object.
const VOLATILE: [&str; 4] = ["uid", "resourceVersion", "creationTimestamp", "managedFields"];

/// Leaves out what differs. How often a Work was written depends on the clock; whether its status is about what it is now
/// does not.
fn normalise(value: &mut Value, generation: &Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !VOLATILE.contains(&key.as_str()));
            if map.contains_key("workloads") {
                map.remove("generation");
            }
            if let Some(rerun) = map.get_mut("internal.workflows.kratix.io/rerun") {
                *rerun = json!("<round>");
            }
            if let Some(observed) = map.get_mut("observedGeneration") {
                *observed = json!(if observed == generation { "current" } else { "old" });
            }
            map.values_mut().for_each(|value| normalise(value, generation));
        }
        Value::Array(items) => {
            items.retain(|item| !is_recovery(item));
            items.iter_mut().for_each(|value| normalise(value, generation));
        }
        Value::String(string) => *string = text(string),
        _ => {}
    }
}

/// Whether the last request went before or after it was told of a round does not show where no request is left: that all have run
/// may then be said or not.
fn forget_vacuous_rounds(objects: &mut BTreeMap<String, Value>) {
    let collections: BTreeSet<String> =
        objects.keys().filter_map(|key| key.split(' ').next()).map(str::to_owned).collect();
    for promise in objects.iter_mut().filter(|(key, _)| key.contains("/promises ")).map(|(_, promise)| promise) {
        let Some((plural, group)) =
            promise["spec"]["api"]["metadata"]["name"].as_str().and_then(|it| it.split_once('.'))
        else {
            continue;
        };
        let is_of_it =
            |path: &String| path.starts_with(&format!("/apis/{group}/")) && path.ends_with(&format!("/{plural}"));
        if !collections.iter().any(is_of_it)
            && let Some(conditions) = promise["status"]["conditions"].as_array_mut()
        {
            conditions.retain(|it| !(it["type"] == "RequestsUpToDate" && it["status"] == "True"));
        }
    }
}

/// That its Promise is available again is told by a request that came while it was not, and by no other.
fn is_recovery(condition: &Value) -> bool {
    condition["type"] == "PromiseAvailable" && condition["status"] == "True"
}

/// Returns a text without what differs from run to run.
pub(crate) fn text(text: &str) -> String {
    static TIME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").unwrap());
    static UID: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap());
    static COMMIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b[0-9a-f]{40}\b").unwrap());
    static JOB: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b(kratix-[a-z0-9-]+)-[0-9a-f]{5}\b").unwrap());
    static DIRECTORY: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"/[^\s\"]*/\.tmp\w{6}\b"#).unwrap());
    static PLACE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b[0-9a-f]{16}/[0-9a-f]{16}/").unwrap());
    static OF_PROMISE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"-static-deps-[0-9a-f]{5}\b").unwrap());
    let text = TIME.replace_all(text, "<time>");
    let text = OF_PROMISE.replace_all(&text, "-static-deps-<hash>");
    let text = DIRECTORY.replace_all(&text, "<directory>");
    let text = PLACE.replace_all(&text, "<place>");
    let text = UID.replace_all(&text, "<uid>");
    let text = COMMIT.replace_all(&text, "<commit>");
    JOB.replace_all(&text, "$1-<hash>").into_owned()
}
