//! Does what the user of a recording did, to a platform of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use kratix_testing::faults::{Commits, Fault, Seed};
use kratix_testing::simulated_node::{Outcome, Stage};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use regex::Regex;
use serde_json::{Value, json};

use super::recorded::{Act, Recorded};
use crate::record::{self, Found};
use crate::scenario::{PLATFORM, Step};
use crate::world::World;

/// What was done and is not done here: pushes that are refused need another store, and what was sent dry leaves nothing.
const NOTHING: [&str; 3] = [
    "make the remote refuse every push",
    "let the remote accept pushes again",
    "every following input is sent with dryRun",
];

/// A platform in which a scenario happens again.
pub(super) struct Replay {
    pub(super) world: World,
    /// `g-NN`: the prefix of every name, and the namespace.
    scenario: String,
    was_looked_at: bool,
    /// How often each Event was told.
    told: BTreeMap<String, i64>,
    /// Every Work and Job there ever was: their names end in suffixes of their own.
    suffixed: BTreeSet<String>,
}

impl Replay {
    pub(super) async fn start(folder: &str, commits: &Commits) -> Self {
        let scenario = format!("g-{}", &folder[..2]);
        let world = World::start_with(&Seed::new(1), Fault::Nothing, commits, |_| Vec::new(), play).await;
        Self { world, scenario, was_looked_at: false, told: BTreeMap::new(), suffixed: BTreeSet::new() }
    }

    /// Does what was done, and waits until nothing is on its way any more.
    pub(super) async fn act(&mut self, recorded: &Recorded, act: &Act) {
        match act {
            Act::Create(file) => {
                for object in recorded.input(file) {
                    self.create(recorded, object).await;
                }
            }
            Act::Replace(file) => {
                for object in recorded.input(file) {
                    self.replace(recorded, object).await;
                }
            }
            Act::Patch { kind, name, file } => {
                let mut patch = recorded.input(file).remove(0);
                self.put_store(&mut patch);
                self.patch(kind, name, &patch).await;
            }
            Act::Delete { kind, name } if kind == "PromiseRelease" => {
                self.api_of("Promise").delete(name, &DeleteParams::background()).await.unwrap();
            }
            Act::Delete { kind, name } => {
                self.api_of(kind).delete(name, &DeleteParams::background()).await.unwrap();
            }
            Act::Told(told) => self.follow(told).await,
            Act::Stage(_) => {}
        }
        // The moment after the last act, unless it was looked at already.
        if matches!(act, Act::Stage(_)) && !std::mem::replace(&mut self.was_looked_at, true) {
            return;
        }
        self.was_looked_at = matches!(act, Act::Stage(_));
        self.world.step(&Step::Calm).await.unwrap();
    }

    async fn follow(&mut self, told: &str) {
        let is_told = |text: &str| told.starts_with(text);
        if is_told("delete the four Destinations") {
            let destinations = self.api_of("Destination");
            for destination in destinations.list(&ListParams::default()).await.unwrap() {
                let name = destination.metadata.name.unwrap();
                destinations.delete(&name, &DeleteParams::background()).await.unwrap();
            }
        } else if is_told("delete the Promise while request two still exists") {
            let name = self.scenario.clone();
            self.api_of("Promise").delete(&name, &DeleteParams::background()).await.unwrap();
        } else if is_told("remove label kratix.io/workflow-suspended") {
            let label = json!({ "metadata": { "labels": { "kratix.io/workflow-suspended": null } } });
            self.patch_request("one", &label).await;
        } else if is_told("set label kratix.io/manual-reconciliation=true again") {
            let label = json!({ "metadata": { "labels": { "kratix.io/manual-reconciliation": "true" } } });
            self.patch_request("one", &label).await;
        } else if is_told("set the password in the Secret to a wrong one") {
            // A store that is not there is as unusable as one that lets nobody in.
            self.world.step(&Step::BreakStore).await.unwrap();
        } else if is_told("put the right password back") {
            self.world.step(&Step::HealStore).await.unwrap();
            // It is noticed when it is tried again.
            self.world.step(&Step::Rest).await.unwrap();
        } else {
            assert!(NOTHING.iter().any(|nothing| is_told(nothing)), "nobody knows how to {told}");
        }
    }

    async fn patch_request(&self, name: &str, patch: &Value) {
        let kind = self.scenario.replace('-', "").to_uppercase();
        self.patch(&kind, &format!("{}-{name}", self.scenario), patch).await;
    }

    async fn create(&self, recorded: &Recorded, mut object: Value) {
        if object["kind"] == "PromiseRelease" {
            return self.release(recorded, &object).await;
        }
        self.put_store(&mut object);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.api(&object).create(&PostParams::default(), &object).await.unwrap();
    }

    /// Gives a state store the address of the repository here, or of none.
    fn put_store(&self, object: &mut Value) {
        if let Some(url) = object["spec"]["url"].as_str().filter(|url| url.starts_with("https://")) {
            let path = self.world.repository();
            let is_there = url.ends_with(&format!("/{}.git", self.scenario));
            let path = if is_there { path } else { path.with_file_name("nothing") };
            object["spec"]["url"] = json!(format!("file://{}", path.display()));
        }
    }

    /// Does what a PromiseRelease does: of the version that its document has, it installs the Promise.
    async fn release(&self, recorded: &Recorded, release: &Value) {
        let version = release["spec"]["version"].as_str().unwrap();
        let file = release["spec"]["sourceRef"]["url"].as_str().unwrap().rsplit('/').next().unwrap();
        if file != format!("{version}.yaml") {
            return;
        }
        for mut promise in recorded.input(&format!("served/{file}")) {
            promise["metadata"]["labels"]["kratix.io/promise-release-name"] = json!(self.scenario);
            let name = promise["metadata"]["name"].as_str().unwrap();
            match self.api_of("Promise").get_opt(name).await.unwrap() {
                None => Box::pin(self.create(recorded, promise)).await,
                Some(_) => Box::pin(self.replace(recorded, promise)).await,
            }
        }
    }

    async fn replace(&self, recorded: &Recorded, object: Value) {
        if object["kind"] == "PromiseRelease" {
            return self.release(recorded, &object).await;
        }
        let new: DynamicObject = serde_json::from_value(object).unwrap();
        let (api, name) = (self.api(&new), new.metadata.name.clone().unwrap());
        let mut object = api.get(&name).await.unwrap();
        object.data["spec"] = new.data["spec"].clone();
        object.metadata.labels.get_or_insert_default().extend(new.metadata.labels.unwrap_or_default());
        object.metadata.annotations.get_or_insert_default().extend(new.metadata.annotations.unwrap_or_default());
        api.replace(&name, &PostParams::default(), &object).await.unwrap();
    }

    async fn patch(&self, kind: &str, name: &str, patch: &Value) {
        self.api_of(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    fn api(&self, object: &DynamicObject) -> Api<DynamicObject> {
        let types = object.types.as_ref().unwrap();
        self.world.dynamic(&types.api_version, &types.kind, object.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// Returns the objects of a kind, in the namespace of the scenario if they have one.
    fn api_of(&self, kind: &str) -> Api<DynamicObject> {
        let namespace = self.scenario.as_str();
        match kind {
            "Promise" | "PromiseRevision" | "Destination" | "GitStateStore" => self.world.dynamic(PLATFORM, kind, ""),
            "Secret" => self.world.dynamic("v1", kind, namespace),
            "ResourceBinding" => self.world.dynamic(PLATFORM, kind, namespace),
            _ => self.world.dynamic(&format!("{namespace}.golden.example/v1"), kind, namespace),
        }
    }

    /// Returns the events that were told since the last call, without what differs from run to run.
    pub(super) async fn events(&mut self) -> BTreeSet<String> {
        let request = http::Request::get("/apis/events.k8s.io/v1/events").body(Vec::new()).unwrap();
        let list: Value = self.world.user.request(request).await.unwrap();
        let mut new = BTreeSet::new();
        for event in list["items"].as_array().unwrap() {
            let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let regarding = ["/regarding/kind", "/regarding/namespace", "/regarding/name"].map(text);
            if regarding[0] == "Work" {
                self.suffixed.insert(regarding[2].to_owned());
            }
            let regarding: Vec<&str> = regarding.into_iter().filter(|part| !part.is_empty()).collect();
            let reporter = text("/reportingController");
            let columns = [
                text("/type"),
                text("/reason"),
                reporter,
                &regarding.join("/"),
                text("/metadata/namespace"),
                text("/note"),
            ];
            let count = event.pointer("/series/count").and_then(Value::as_i64).unwrap_or(1);
            if self.told.insert(text("/metadata/name").to_owned(), count) != Some(count) {
                new.insert(columns.map(str::trim).join(" | "));
            }
        }
        new.iter().map(|event| self.masked(event)).collect()
    }

    /// Returns the files in the repository, without what differs from run to run.
    pub(super) async fn files(&self) -> BTreeMap<String, String> {
        let files = self.world.observer.files.read().await;
        files.iter().map(|(path, text)| (self.masked(path), self.masked(&text.replace("\r\n", "\n")))).collect()
    }

    /// Returns author and subject of all commits; of one that writes several things at once, those that each would have alone.
    pub(super) fn commits(&self) -> BTreeSet<String> {
        let mut git = Command::new("git");
        git.arg("--git-dir").arg(self.world.repository());
        let log = git.args(["log", "--format=%x00%an <%ae>%n%B", "main"]).output().unwrap();
        let log = String::from_utf8(log.stdout).unwrap();
        let of_commit = |commit: &str| -> Vec<String> {
            let (author, message) = commit.split_once('\n').unwrap();
            let lines: Vec<&str> = message.lines().filter(|line| !line.is_empty()).collect();
            let listed = if let [_, listed @ ..] = &lines[..]
                && !listed.is_empty()
            {
                listed
            } else {
                &lines[..]
            };
            listed.iter().map(|line| self.masked(&format!("{author} | {line}"))).collect()
        };
        log.split('\0').filter(|commit| !commit.is_empty()).flat_map(of_commit).collect()
    }

    /// Returns all objects.
    pub(super) async fn objects(&mut self) -> Vec<Value> {
        let objects: Vec<Value> =
            record::everything(&self.world.user).await.into_iter().map(|Found { value, .. }| value).collect();
        let suffixed = objects.iter().filter(|object| object["kind"] == "Work" || object["kind"] == "Job");
        self.suffixed.extend(suffixed.filter_map(|object| object["metadata"]["name"].as_str()).map(str::to_owned));
        objects
    }

    /// Returns a text with one stand-in for all suffixes, times and the like.
    pub(super) fn masked(&self, text: &str) -> String {
        let repository = self.world.repository();
        let stores = [repository.with_file_name("nothing"), repository];
        let text = stores
            .iter()
            .fold(text.to_owned(), |text, store| text.replace(&format!("file://{}", store.display()), "<store>"));
        let text = self.suffixed.iter().rev().fold(text, |text, name| {
            let stem = name.rsplit_once('-').unwrap().0;
            text.replace(name.as_str(), &format!("{stem}-<sfx>"))
        });
        super::masked(&text)
    }
}

/// Runs the containers of the recorded pipelines: scripts for a shell, which finds the directories of its pod elsewhere.
pub(super) fn play(stage: &Stage<'_>) -> Outcome {
    let args = stage.container.args.as_ref().unwrap();
    let scratch = stage.output_directory().parent().unwrap().with_file_name("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let mounted = |script: String, (path, on): (&str, &Path)| script.replace(path, on.to_str().unwrap());
    let mounts = stage.mounts().into_iter().chain([("/scratch", scratch.as_path())]);
    let script = mounts.fold(args[0].clone(), mounted);
    // Nobody looks meanwhile.
    let script = Regex::new(r"sleep \d+").unwrap().replace_all(&script, "true").into_owned();
    let variables = stage.container.env.iter().flatten();
    let variables = variables.filter_map(|variable| Some((&variable.name, variable.value.as_ref()?)));
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(variables);
    let ended = shell.current_dir(stage.output_directory()).output().unwrap();
    if ended.status.success() { Outcome::Succeeded } else { Outcome::Failed }
}
