//! Placements on real repositories: where files go when Destinations and stores change, what waits and why, and what is left
//! when objects go in whatever order.

use std::collections::BTreeSet;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kratix_api::{Condition, Destination, GitStateStore, Work, WorkPlacement, condition, keys};
use kratix_state_store::{Change, File, GitConfig, init_bare, open};
use kratix_testing::git_http::{Fault, Server};
#[cfg(unix)]
use kratix_testing::hook;
use kratix_testing::wait;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::World;
use crate::world::delivery::{self, Conditioned, is_about};

/// A platform and repositories.
pub(crate) struct Scene {
    pub(crate) world: World,
    directory: tempfile::TempDir,
}

impl Scene {
    /// Starts with the store `default` in the repository `a`.
    pub(crate) async fn start() -> Self {
        let scene = Self { world: World::start().await, directory: tempfile::tempdir().unwrap() };
        scene.add_store("default", "a", json!({})).await;
        scene
    }

    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        if !path.exists() {
            init_bare(&path, "main").unwrap();
        }
        path
    }

    pub(crate) fn url(&self, repository: &str) -> String {
        format!("file://{}", self.repository(repository).display())
    }

    pub(crate) async fn add_store(&self, name: &str, repository: &str, more: Value) {
        self.world.add_git_store(name, &self.url(repository), more).await;
    }

    /// Creates the Destination `worker-1` in the store `default`.
    pub(crate) async fn add_destination(&self, mode: &str, more: Value) {
        self.world.add_destination("worker-1", ("GitStateStore", "default"), mode, more).await;
    }

    pub(crate) async fn edit_destination(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.destinations().patch("worker-1", &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn edit_store(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.stores().patch("default", &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn add_work(&self, namespace: &str, name: &str, labels: Value) {
        let request = labels.get(keys::RESOURCE_NAME).and_then(Value::as_str).unwrap_or(name).to_owned();
        let file = format!("{name}.yaml");
        self.world.apply_work((namespace, name), &request, labels, &[(&file, "a: 1\n")]).await;
    }

    pub(crate) fn works(&self) -> Api<Work> {
        self.world.works()
    }

    pub(crate) fn placements(&self) -> Api<WorkPlacement> {
        self.world.placements()
    }

    pub(crate) fn destinations(&self) -> Api<Destination> {
        self.world.destinations()
    }

    pub(crate) fn stores(&self) -> Api<GitStateStore> {
        self.world.git_stores()
    }

    /// Waits until the placement of a Work says that its files are written.
    pub(crate) async fn written(&self, work: &str) -> WorkPlacement {
        self.says(work, "its files are written", |placement| {
            let write = told(placement, condition::WRITE_SUCCEEDED);
            write.is_some_and(|write| write.status == condition::Status::True)
                && told(placement, condition::READY).is_some_and(|ready| ready.message == "Ready")
        })
        .await
    }

    pub(crate) async fn says(&self, work: &str, what: &str, is: impl Fn(&WorkPlacement) -> bool) -> WorkPlacement {
        wait::until(&self.placements(), &placement_of(work), &format!("{work}: {what}"), is).await
    }

    /// Returns the files of a repository, of which the last change may just be on its way.
    pub(crate) async fn files(&self, repository: &str) -> BTreeSet<String> {
        let store = open(GitConfig::new("look", self.url(repository)), self.directory.path()).unwrap();
        store.list("").await.unwrap().into_iter().collect()
    }

    pub(crate) async fn holds(&self, repository: &str, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|path| (*path).to_owned()).collect();
        delivery::holds(&expected, || self.files(repository)).await;
    }

    /// Changes a repository as somebody else.
    pub(crate) async fn edit(&self, repository: &str, write: &[(&str, &str)], remove: &[&str]) {
        let store = open(GitConfig::new("foreign", self.url(repository)), self.directory.path()).unwrap();
        let write = write.iter().map(|(path, content)| File::new(*path, (*content).to_owned())).collect();
        let remove = remove.iter().map(|path| (*path).to_owned()).collect();
        store.write(Change::edit("somebody", "", write, remove)).await.unwrap();
    }

    pub(crate) async fn read(&self, repository: &str, path: &str) -> Option<String> {
        let store = open(GitConfig::new("look", self.url(repository)), self.directory.path()).unwrap();
        let content = store.read(path).await.unwrap()?;
        Some(String::from_utf8_lossy(&content).into_owned())
    }

    /// Waits for an event and returns its note.
    pub(crate) async fn event(&self, regarding: &str, reason: &str) -> String {
        let what = format!("{reason} about {regarding}");
        let event = self.world.event(&what, |event: &Event| is_about(event, regarding, reason)).await;
        event.note.unwrap_or_default()
    }

    /// Waits for an event with this note; the same reason may have been given for another cause before.
    pub(crate) async fn told(&self, regarding: &str, reason: &str, note: &str) {
        let is = |event: &Event| is_about(event, regarding, reason) && event.note.as_deref() == Some(note);
        self.world.event(&format!("{reason} about {regarding}: {note}"), is).await;
    }

    pub(crate) async fn has_event(&self, reason: &str) -> bool {
        !self.world.events(reason).await.is_empty()
    }

    /// Waits for an event whose note contains this.
    async fn told_of(&self, regarding: &str, reason: &str, text: &str) {
        let contains = |event: &Event| event.note.as_ref().is_some_and(|note| note.contains(text));
        let is = |event: &Event| is_about(event, regarding, reason) && contains(event);
        self.world.event(&format!("{reason} about {regarding}: {text}"), is).await;
    }

    /// Makes a repository refuse every push, and returns the hook that does it.
    #[cfg(unix)]
    fn refuse(&self, repository: &str) -> PathBuf {
        hook::install(&self.repository(repository), "pre-receive", "echo 'no changes on Friday'\nexit 1")
    }
}

pub(crate) fn placement_of(work: &str) -> String {
    format!("{work}.worker-1-5058f")
}

pub(crate) fn told(placement: &WorkPlacement, r#type: &str) -> Option<Condition> {
    placement.condition(r#type)
}

fn nested(root: &str, work: &str) -> String {
    format!("{root}/resources/default/redis/{work}/5058f/{work}.yaml")
}

fn documents(root: &str) -> [String; 2] {
    [
        format!("{root}/dependencies/kratix-canary-namespace.yaml"),
        format!("{root}/resources/kratix-canary-configmap.yaml"),
    ]
}

fn listed<'a>(files: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    files.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

/// Weakness 19: the path of a Destination changes
#[tokio::test(flavor = "multi_thread")]
async fn files_follow_the_path_of_their_destination_and_leave_nothing_behind() {
    for mode in ["nestedByMetadata", "none", "aggregatedYAML"] {
        let scene = Scene::start().await;
        scene.edit("a", &[("worker-1/foreign", "x"), ("elsewhere/foreign", "x")], &[]).await;
        scene.add_destination(mode, json!({})).await;
        for work in ["x", "y"] {
            scene.add_work("default", work, json!({})).await;
            scene.written(work).await;
        }
        let at = |root: &str| -> Vec<String> {
            let own = match mode {
                "nestedByMetadata" => vec![nested(root, "x"), nested(root, "y")],
                "none" => {
                    let ledger = |work: &str| format!("{root}/.kratix/default-{}.yaml", placement_of(work));
                    vec![format!("{root}/x.yaml"), format!("{root}/y.yaml"), ledger("x"), ledger("y")]
                }
                _ => vec![format!("{root}/aggregated.yaml")],
            };
            let canaries = match mode {
                "nestedByMetadata" => documents(root).to_vec(),
                _ => {
                    vec![format!("{root}/kratix-canary-namespace.yaml"), format!("{root}/kratix-canary-configmap.yaml")]
                }
            };
            [own, canaries].concat()
        };
        let foreign = ["worker-1/foreign", "elsewhere/foreign"];
        scene.holds("a", &listed(&at("worker-1"), &foreign)).await;
        scene.edit_destination(json!({ "path": "elsewhere" })).await;
        scene.holds("a", &listed(&at("elsewhere"), &foreign)).await;
        scene.written("x").await;
        for work in ["x", "y"] {
            let what = "nothing is noted elsewhere";
            scene.says(work, what, |placement| !placement.annotations().contains_key("kratix.io/files-at")).await;
        }
        assert!(
            !scene.has_event("FilesLeftBehind").await && !scene.has_event("FailedWriteToDestination").await,
            "{mode}"
        );
    }
}

/// Weakness 19: the Destination gets another store, while nobody looks
#[tokio::test(flavor = "multi_thread")]
async fn files_follow_their_destination_to_another_store_across_a_restart() {
    let mut scene = Scene::start().await;
    scene.add_store("other", "b", json!({})).await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    scene.world.stop_controllers().await;
    scene.edit_destination(json!({ "path": "there", "stateStoreRef": { "name": "other" } })).await;
    scene.world.start_controllers().await;
    scene.holds("b", &listed(&documents("there"), &[&nested("there", "x")])).await;
    scene.holds("a", &[]).await;
    scene.written("x").await;
    assert!(!scene.has_event("FilesLeftBehind").await);
}

/// A removal that waits for its turn in the queue of the process waits for no server.
#[tokio::test(flavor = "multi_thread")]
async fn files_at_a_store_that_takes_few_pushes_are_removed_in_their_turn_and_nobody_is_warned() {
    let mut scene = Scene::start().await;
    // Two repositories of one commit are not told apart.
    scene.edit("b", &[("README.md", "x")], &[]).await;
    scene.add_store("other", "b", json!({})).await;
    scene.world.stop_controllers().await;
    let six_a_minute = json!({ "metadata": { "annotations": { keys::MAXIMUM_PUSHES_PER_MINUTE: "6" } } });
    scene.stores().patch("default", &PatchParams::default(), &Patch::Merge(six_a_minute)).await.unwrap();
    scene.world.start_controllers().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    scene.edit_destination(json!({ "stateStoreRef": { "name": "other" } })).await;
    scene.holds("b", &["README.md", &nested("worker-1", "x")]).await;
    scene.holds("a", &[]).await;
    let what = "nothing is noted elsewhere";
    scene.says("x", what, |placement| !placement.annotations().contains_key("kratix.io/files-at")).await;
    assert!(!scene.has_event("FilesLeftBehind").await);
}

/// Weakness 19: the same store gets another branch, path or address
#[tokio::test(flavor = "multi_thread")]
async fn files_follow_the_address_of_their_store_and_one_repository_of_two_names_keeps_them() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    // A directory of the same repository.
    scene.edit_store(json!({ "path": "deep" })).await;
    let at = |root: &str| [documents(root).to_vec(), vec![nested(root, "x")]].concat();
    scene.holds("a", &listed(&at("deep/worker-1"), &[])).await;
    // Another repository, with something in it already.
    scene.edit("b", &[("README.md", "x")], &[]).await;
    scene.edit_store(json!({ "url": scene.url("b") })).await;
    scene.holds("b", &listed(&at("deep/worker-1"), &["README.md"])).await;
    scene.holds("a", &[]).await;
    // The same repository by another name.
    std::os::unix::fs::symlink(scene.repository("b"), scene.repository("b").with_file_name("link")).unwrap();
    scene.edit_store(json!({ "url": scene.url("link") })).await;
    scene
        .says("x", "nothing is noted elsewhere and all is written", |placement| {
            let place = placement.annotations().get("kratix.io/store-location").cloned().unwrap_or_default();
            let write = told(placement, condition::WRITE_SUCCEEDED);
            !placement.annotations().contains_key("kratix.io/files-at")
                && place.contains("/deep")
                && write.is_some_and(|write| write.status == condition::Status::True)
        })
        .await;
    scene.holds("b", &listed(&at("deep/worker-1"), &["README.md"])).await;
    assert!(!scene.has_event("FilesLeftBehind").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_reached_is_named_and_holds_up_nothing() {
    let scene = Scene::start().await;
    scene.add_store("other", "b", json!({})).await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    scene.stores().delete("default", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.stores(), "default").await;
    scene.edit_destination(json!({ "stateStoreRef": { "name": "other" } })).await;
    let note = scene.event(&placement_of("x"), "FilesLeftBehind").await;
    let expected = "files in worker-1/resources/default/redis/x/5058f of GitStateStore/default stay: GitStateStore/default: not found";
    assert_eq!(note, expected);
    scene.event("worker-1", "FilesLeftBehind").await;
    scene.written("x").await;
    scene.holds("b", &listed(&documents("worker-1"), &[&nested("worker-1", "x")])).await;
}

/// Weakness 21
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_name_made_at_the_same_moment_get_a_directory_each() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    let labels = |namespace: &str| json!({ keys::PROMISE_NAME: "redis", keys::RESOURCE_NAME: "cache", keys::RESOURCE_NAMESPACE: namespace });
    let spaces = ["team-a", "team-b", "team-c", "team-d"];
    let made = spaces.map(|namespace| scene.add_work("default", namespace, labels(namespace)));
    futures::future::join_all(made).await;
    for namespace in spaces {
        scene.written(namespace).await;
    }
    let files = scene.files("a").await;
    assert_eq!(files.len(), spaces.len(), "{files:?}");
    for namespace in spaces {
        let own = files.iter().find(|file| file.ends_with(&format!("{namespace}.yaml"))).unwrap();
        let first = format!("worker-1/resources/default/redis/cache/5058f/{namespace}.yaml");
        let apart = format!("worker-1/resources/{namespace}/redis/cache/5058f/{namespace}.yaml");
        assert!(*own == first || *own == apart, "{own}");
    }
    assert!(!scene.has_event("FailedWriteToDestination").await);
}

/// §8.4, §14.3, weaknesses 16, 20, 29
#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_lacks_is_said_by_everybody_who_waits_and_its_return_heals_all() {
    const WAITING: usize = 50;
    let scene = Scene::start().await;
    scene.edit_store(json!({ "secretRef": { "name": "credentials" } })).await;
    scene.add_destination("nestedByMetadata", json!({})).await;
    let cause =
        "Secret credentials not found in namespace default; hint: create it, or correct spec.secretRef of the store";
    let message = format!("GitStateStore/default: not ready: {cause}");
    assert_eq!(scene.event("default", "NotReady").await, cause);
    assert_eq!(scene.event("worker-1", "DestinationNotReady").await, message);
    for n in 0..WAITING {
        scene.add_work("default", &format!("w{n}"), json!({})).await;
    }
    for n in 0..WAITING {
        let placement = scene
            .says(&format!("w{n}"), "why it waits", |placement| {
                told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| write.message == message)
            })
            .await;
        let ready = told(&placement, condition::READY).unwrap();
        assert_eq!((ready.message.as_str(), ready.reason.as_str()), ("Pending", "StateStoreNotReady"));
    }
    assert_eq!(scene.event(&placement_of("w0"), "StateStoreNotReady").await, message);
    scene.world.add_secret("credentials", json!({ "username": "u", "password": "p" })).await;
    for n in 0..WAITING {
        scene.written(&format!("w{n}")).await;
    }
    delivery::ready(&scene.destinations(), "worker-1", "ready", |ready| ready.status == condition::Status::True).await;
    let store = scene.stores().get("default").await.unwrap();
    assert!(condition::is_true(&store.status.unwrap().conditions, condition::READY));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_long_says_for_which_store_and_how_many_wait() {
    let scene = Scene::start().await;
    scene.repository("remote");
    let server = Server::plain(scene.directory.path()).await;
    scene.add_store("remote", "remote", json!({ "url": server.url("remote") })).await;
    let store = json!({ "kind": "GitStateStore", "name": "remote" });
    scene.add_destination("nestedByMetadata", json!({ "stateStoreRef": store })).await;
    scene.event("worker-1", "DestinationReady").await;
    server.fail(Fault::Hang);
    for work in ["x", "y", "z"] {
        scene.add_work("default", work, json!({})).await;
    }
    // How many there were when it was said first; that is not said again for each of them.
    let begins = "waiting for GitStateStore/remote: ";
    let ends = format!(" in its queue, no answer from {} yet", server.url("remote"));
    for work in ["x", "y", "z"] {
        scene
            .says(work, "how many wait", |placement| {
                let says = |message: &str| message.starts_with(begins) && message.ends_with(&ends);
                told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| says(&write.message))
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_changed_is_written_again_after_the_interval_and_nothing_else_is_touched() {
    for mode in ["nestedByMetadata", "aggregatedYAML"] {
        let scene = Scene::start().await;
        scene.add_destination(mode, json!({})).await;
        for work in ["x", "y"] {
            scene.add_work("default", work, json!({})).await;
            scene.written(work).await;
        }
        let own =
            if mode == "nestedByMetadata" { nested("worker-1", "x") } else { "worker-1/aggregated.yaml".to_owned() };
        let before = scene.read("a", &own).await;
        let version = |placement: WorkPlacement| placement.status.unwrap().version_id;
        let untouched = version(scene.written("y").await);
        scene.edit("a", &[(&own, "foreign"), ("worker-1/beside", "foreign")], &[]).await;
        scene.world.set_interval("100ms").await;
        wait::poll("the file to be as it was", || async {
            let found = scene.read("a", &own).await;
            if found == before { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        assert_eq!(scene.read("a", "worker-1/beside").await.as_deref(), Some("foreign"));
        let repaired = |event: &Event| event.reason.as_deref() == Some("DriftRepaired");
        let event = scene.world.event("the repair to be told", repaired).await;
        let note = event.note.unwrap();
        assert!(
            note.contains(
                "were changed by others and have been written again to Destination: worker-1 with versionID: "
            ),
            "{note}"
        );
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        if mode == "nestedByMetadata" {
            assert_eq!(event.regarding.unwrap().name.unwrap(), placement_of("x"));
            assert_eq!(version(scene.written("y").await), untouched);
        }
    }
}

/// §14.22: never written, store gone, Destination gone, Work gone
#[tokio::test(flavor = "multi_thread")]
async fn a_placement_goes_in_whatever_order_the_others_go() {
    // Never written: its store was never there.
    let scene = Scene::start().await;
    scene.add_destination("none", json!({ "stateStoreRef": { "kind": "GitStateStore", "name": "absent" } })).await;
    scene.add_work("default", "never", json!({})).await;
    scene.says("never", "it waits", |placement| told(placement, condition::READY).is_some()).await;
    scene.works().delete("never", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.placements(), &placement_of("never")).await;

    // The Work goes first: the files, then the placement.
    scene.edit_destination(json!({ "stateStoreRef": { "name": "default" } })).await;
    for work in ["x", "y", "z"] {
        scene.add_work("default", work, json!({})).await;
        scene.written(work).await;
    }
    scene.works().delete("x", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.placements(), &placement_of("x")).await;
    assert!(!scene.files("a").await.contains("worker-1/x.yaml"));

    // The store's object is away, and comes back.
    scene.stores().delete("default", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.stores(), "default").await;
    scene.works().delete("y", &DeleteParams::default()).await.unwrap();
    let waits = "GitStateStore/default: not found";
    scene
        .says("y", "it waits for its store", |placement| {
            told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| write.message == waits)
        })
        .await;
    scene.add_store("default", "a", json!({})).await;
    wait::gone(&scene.placements(), &placement_of("y")).await;
    assert!(!scene.files("a").await.contains("worker-1/y.yaml"));
    scene.written("z").await;

    // The Destination goes first: the files stay, and somebody is told.
    scene.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.destinations(), "worker-1").await;
    scene.event(&placement_of("z"), "DestinationNotFound").await;
    scene.works().delete("z", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.placements(), &placement_of("z")).await;
    assert!(scene.files("a").await.contains("worker-1/z.yaml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_namespace_that_terminates_go_with_it() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.world.add_namespace("team").await;
    scene.add_work("team", "x", json!({})).await;
    scene.holds("a", &["worker-1/resources/team/redis/x/5058f/x.yaml"]).await;
    let namespaces = Api::<Namespace>::all(scene.world.user.clone());
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    scene.holds("a", &[]).await;
    let placements = Api::<WorkPlacement>::namespaced(scene.world.user.clone(), "team");
    wait::gone(&placements, &placement_of("x")).await;
    wait::gone(&namespaces, "team").await;
}

/// Weakness 12
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_returns_gets_its_files_again() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.add_work("default", "x", json!({})).await;
    scene.written("x").await;
    scene.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.destinations(), "worker-1").await;
    let told_of = scene.event(&placement_of("x"), "DestinationNotFound").await;
    assert!(told_of.starts_with("destination \"worker-1\" not found; hint: "), "{told_of}");
    let gone = scene.says("x", "it is misplaced", |placement| {
        told(placement, condition::READY).is_some_and(|ready| ready.message == "Misplaced")
    });
    let finalizers = gone.await.finalizers().to_vec();
    assert!(finalizers.iter().any(|finalizer| finalizer == keys::FINALIZER_REPO_CLEANUP), "{finalizers:?}");
    let own = nested("worker-1", "x");
    scene.edit("a", &[], &[&own]).await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.holds("a", &[&own]).await;
    scene.written("x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_placements_are_back_once_it_is_noticed_that_their_repository_is_empty() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    for name in ["one", "two"] {
        scene.add_work("default", name, json!({})).await;
        scene.written(name).await;
    }
    std::fs::remove_dir_all(scene.repository("a")).unwrap();
    scene.repository("a");
    // The next write meets the empty repository, and brings back the others.
    scene.add_work("default", "three", json!({})).await;
    let file = |name: &str| format!("worker-1/resources/default/redis/{name}/5058f/{name}.yaml");
    let all = ["one", "three", "two"].map(file);
    scene.holds("a", &all.each_ref().map(String::as_str)).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_hook_refuses_says_so_itself_until_the_hook_is_gone() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.add_work("default", "one", json!({})).await;
    scene.written("one").await;
    let hook = scene.refuse("a");
    scene.add_work("default", "two", json!({})).await;
    const ACCEPTED: &str = "PushesAccepted";
    let said = wait::until(&scene.stores(), "default", "the store to say what was refused", |store: &GitStateStore| {
        store.condition(ACCEPTED).is_some()
    })
    .await;
    let message = said.condition(ACCEPTED).unwrap().message;
    assert!(
        message.contains("no changes on Friday") && message.contains("hint: a hook of the repository"),
        "{message}"
    );
    scene
        .says("two", "it is refused", |placement| {
            told(placement, condition::WRITE_SUCCEEDED)
                .is_some_and(|write| write.message.contains("no changes on Friday"))
        })
        .await;
    // Its Destinations say so beside their own state, and are told of once.
    let is_marked = |destination: &Destination| destination.condition(ACCEPTED).is_some();
    let marked = wait::until(&scene.destinations(), "worker-1", "the Destination to say so", is_marked).await;
    let mark = marked.condition(ACCEPTED).unwrap();
    let said_there = format!("GitStateStore/default: {message}");
    assert_eq!(
        (mark.status, mark.reason, &mark.message),
        (condition::Status::False, "PushRefused".into(), &said_there)
    );
    assert!(condition::is_true(marked.conditions(), condition::READY), "{marked:?}");
    scene.told("worker-1", "PushRefused", &said_there).await;
    std::fs::remove_file(&hook).unwrap();
    scene.add_work("default", "three", json!({})).await;
    wait::until(&scene.stores(), "default", "the store to take it back", |store: &GitStateStore| {
        store.condition(ACCEPTED).is_none()
    })
    .await;
    let is_unmarked = |destination: &Destination| !is_marked(destination);
    wait::until(&scene.destinations(), "worker-1", "the Destination to take it back", is_unmarked).await;
    scene.written("two").await;
    let told: Vec<Event> = scene.world.events("PushRefused").await;
    let of_destination: Vec<&Event> = told.iter().filter(|event| is_about(event, "worker-1", "PushRefused")).collect();
    assert!(of_destination.len() == 1 && of_destination[0].series.is_none(), "{of_destination:?}");
}

/// The store's own refusal goes with the last one who asks for what it refuses, and is not the store's once it takes others.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_store_refuses_for_as_long_as_somebody_waits_and_not_when_it_takes_others() {
    let scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.add_work("default", "one", json!({})).await;
    scene.written("one").await;
    let hook = scene.refuse("a");
    let script = "#!/bin/sh\nwhile read old new ref; do\n\
                  git diff --name-only $old $new | grep -q bad && { echo 'no changes on Friday'; exit 1; }\ndone\nexit 0\n";
    kratix_testing::executable::write(&hook, script);
    scene.add_work("default", "bad", json!({})).await;
    let is_marked = |store: &GitStateStore| store.condition("PushesAccepted").is_some();
    wait::until(&scene.stores(), "default", "the store to say what was refused", is_marked).await;
    scene.works().delete("bad", &DeleteParams::default()).await.unwrap();
    let is_unmarked = |store: &GitStateStore| !is_marked(store);
    wait::until(&scene.stores(), "default", "nothing refused to wait any more", is_unmarked).await;
    wait::gone(&scene.works(), "bad").await;

    // Alone in its batch, and the store has taken another one since.
    scene.add_work("default", "bad", json!({})).await;
    wait::until(&scene.stores(), "default", "the store to say what was refused", is_marked).await;
    scene.add_work("default", "two", json!({})).await;
    scene.written("two").await;
    wait::until(&scene.stores(), "default", "the store to take it back", is_unmarked).await;
    let is_its_own = |placement: &WorkPlacement| {
        told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| write.reason == "WorkloadsFailedWrite")
    };
    scene.says("bad", "it is refused by itself", is_its_own).await;
    let store = scene.stores().get("default").await.unwrap();
    assert!(is_unmarked(&store), "{store:?}");
}

/// Nobody pushes again what was refused before the process was started: what its objects show decides.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_whose_work_went_while_nothing_ran_is_taken_back_with_the_next_start() {
    let mut scene = Scene::start().await;
    scene.add_destination("nestedByMetadata", json!({ "initWorkloads": { "enabled": false } })).await;
    scene.add_work("default", "one", json!({})).await;
    scene.written("one").await;
    scene.refuse("a");
    scene.add_work("default", "bad", json!({})).await;
    let is_marked = |store: &GitStateStore| store.condition("PushesAccepted").is_some();
    wait::until(&scene.stores(), "default", "the store to say what was refused", is_marked).await;
    let is_refused = |placement: &WorkPlacement| {
        told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| write.reason == "WorkloadsFailedWrite")
    };
    scene.says("bad", "it is refused", is_refused).await;
    scene.world.stop_controllers().await;
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    scene.placements().patch(&placement_of("bad"), &PatchParams::default(), &free).await.unwrap();
    scene.placements().delete(&placement_of("bad"), &DeleteParams::default()).await.unwrap();
    scene.works().patch("bad", &PatchParams::default(), &free).await.unwrap();
    scene.works().delete("bad", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.works(), "bad").await;
    assert!(is_marked(&scene.stores().get("default").await.unwrap()));
    scene.world.start_controllers().await;
    let is_unmarked = |store: &GitStateStore| !is_marked(store);
    wait::until(&scene.stores(), "default", "nothing refused to wait any more", is_unmarked).await;
    let is_unmarked = |destination: &Destination| destination.condition("PushesAccepted").is_none();
    wait::until(&scene.destinations(), "worker-1", "the Destination to take it back", is_unmarked).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn test_documents_that_a_hook_refused_are_written_as_soon_as_the_store_takes_something() {
    let scene = Scene::start().await;
    let hook = scene.refuse("a");
    scene.add_destination("nestedByMetadata", json!({})).await;
    let refused =
        delivery::says(&scene.destinations(), "worker-1", "StateStoreWriteFailed", "no changes on Friday").await;
    assert!(refused.message.starts_with("Failed to write test documents to State Store: "), "{refused:?}");
    scene.told_of("worker-1", "PushRefused", "no changes on Friday").await;
    std::fs::remove_file(&hook).unwrap();
    // Another Destination of the store has something to write, and the first one hears of it.
    let other = json!({ "path": "worker-2" });
    scene.world.add_destination("worker-2", ("GitStateStore", "default"), "nestedByMetadata", other).await;
    delivery::says(&scene.destinations(), "worker-1", "TestDocumentsWritten", "").await;
    scene.holds("a", &listed(&[documents("worker-1"), documents("worker-2")].concat(), &[])).await;
    let is_unmarked = |destination: &Destination| destination.condition("PushesAccepted").is_none();
    wait::until(&scene.destinations(), "worker-1", "nothing to be refused any more", is_unmarked).await;
}
