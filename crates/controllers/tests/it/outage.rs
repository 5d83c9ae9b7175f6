//! State stores that are away, busy or gone, and placements that cannot be written, end to end: nothing is lost, nothing is
//! written twice, and everybody is told what it waits for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use k8s_openapi::api::events::v1::Event;
use kratix_api::{Condition, Destination, GitStateStore, WorkPlacement, condition, keys};
use kratix_state_store::{GitConfig, open};
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::wait;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::world::World;
use crate::world::delivery::{self, Conditioned};

/// A platform whose only store is a repository behind a server that can be made to fail.
struct Scene {
    world: World,
    server: Server,
    directory: tempfile::TempDir,
}

impl Scene {
    async fn start(mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        kratix_state_store::init_bare(directory.path().join("state.git"), "main").unwrap();
        let server = Server::plain(directory.path()).await;
        let scene = Self { world: World::start().await, server, directory };
        scene.add_store().await;
        let without_documents = json!({ "initWorkloads": { "enabled": false } });
        scene.world.add_destination("worker-1", ("GitStateStore", "default"), mode, without_documents).await;
        scene.destination_is("True", "").await;
        scene
    }

    async fn add_store(&self) {
        self.world.add_git_store("default", &self.server.url("state.git"), json!({})).await;
    }

    /// Creates a Work of one request with these files.
    async fn work(&self, request: &str, files: &[&str]) {
        let files: Vec<(&str, &str)> = files.iter().map(|path| (*path, request)).collect();
        self.world.apply_work_of(request, &files).await;
    }

    async fn store_is(&self, status: &str, text: &str) -> Condition {
        let is = |ready: &Condition| is(ready, status, text);
        delivery::ready(&self.world.git_stores(), "default", &format!("{status} ({text})"), is).await
    }

    async fn destination_is(&self, status: &str, text: &str) {
        let is = |ready: &Condition| is(ready, status, text);
        delivery::ready(&self.world.destinations(), "worker-1", &format!("{status} ({text})"), is).await;
    }

    /// Waits until so many placements are written, or are not, and returns what their conditions say by request.
    async fn placements_are(&self, count: usize, status: &str) -> BTreeMap<String, Condition> {
        let mut found = BTreeMap::new();
        let last = std::cell::RefCell::new(&mut found);
        wait::poll(&format!("{count} placements with WriteSucceeded {status}"), || async {
            let placements = self.world.placements().list(&ListParams::default()).await.unwrap();
            let with_status = placements.iter().filter_map(|placement| {
                let write = write_of(placement)?;
                (write.status.to_string() == status).then(|| (placement.spec.resource_name.clone(), write))
            });
            let with_status: BTreeMap<String, Condition> = with_status.collect();
            let state = format!("{} of {}", with_status.len(), placements.items.len());
            **last.borrow_mut() = with_status;
            if last.borrow().len() == count { Ok(()) } else { Err(state) }
        })
        .await;
        found
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("state.git")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").args(arguments).current_dir(self.repository()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn files(&self) -> Vec<String> {
        self.git(&["ls-tree", "-r", "--name-only", "main"]).lines().map(str::to_owned).collect()
    }

    fn commits(&self) -> usize {
        self.git(&["rev-list", "--count", "main"]).trim().parse().unwrap()
    }

    /// Every placement was committed once, and its file is there.
    async fn all_are_written_once(&self, count: usize) {
        let mut written: BTreeMap<String, usize> = BTreeMap::new();
        for line in self.git(&["log", "--format=%B", "main"]).lines() {
            if let Some(name) = line.strip_prefix("Update from: ").filter(|name| !name.ends_with(" changes")) {
                *written.entry(name.to_owned()).or_default() += 1;
            }
        }
        let placements = self.world.placements().list(&ListParams::default()).await.unwrap();
        assert_eq!((placements.items.len(), self.files().len()), (count, count));
        for placement in placements {
            assert_eq!(written.remove(&placement.name_any()), Some(1), "{}", placement.name_any());
        }
        assert!(written.is_empty(), "{written:?}");
    }
}

fn is(found: &Condition, status: &str, text: &str) -> bool {
    found.status.to_string() == status && found.message.contains(text)
}

fn write_of(placement: &WorkPlacement) -> Option<Condition> {
    placement.condition(condition::WRITE_SUCCEEDED)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_placements_outlast_an_outage_of_their_store_and_are_written_once_each() {
    const COUNT: usize = 200;
    let scene = Scene::start("nestedByMetadata").await;
    scene.server.fail(Fault::Status(503));
    for at in 0..COUNT {
        scene.work(&format!("r{at:03}"), &["a.yaml"]).await;
    }
    // The store, its Destination and all who wait say so.
    let told = scene.store_is("False", "the server fails").await;
    assert!(!told.message.contains('\n'), "{}", told.message);
    scene.destination_is("False", "GitStateStore/default: not ready").await;
    wait::poll("all placements to exist", || async {
        let placements = scene.world.placements().list(&ListParams::default()).await.unwrap().items;
        let claims = placements.iter().filter_map(write_of).any(|write| write.status == condition::Status::True);
        assert!(!claims, "nothing is written");
        if placements.len() == COUNT { Ok(()) } else { Err(placements.len().to_string()) }
    })
    .await;
    // However many wait, only the store itself is tried.
    let requests = scene.server.requests();
    assert!(requests < 60, "{requests} requests");
    scene.server.fail(Fault::None);
    scene.store_is("True", "").await;
    scene.destination_is("True", "").await;
    scene.placements_are(COUNT, "True").await;
    scene.all_are_written_once(COUNT).await;
    assert!(scene.commits() < COUNT / 4, "{} commits", scene.commits());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_object_that_is_deleted_and_made_again_gets_what_is_new_and_nothing_twice() {
    let mut scene = Scene::start("nestedByMetadata").await;
    for at in 0..10 {
        scene.work(&format!("old{at}"), &["a.yaml"]).await;
    }
    scene.placements_are(10, "True").await;
    let before = scene.commits();
    scene.world.git_stores().delete("default", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.world.git_stores(), "default").await;
    scene.destination_is("False", "GitStateStore/default: not found").await;
    for at in 0..10 {
        scene.work(&format!("new{at}"), &["a.yaml"]).await;
    }
    wait::poll("all placements to exist", || async {
        let placements = scene.world.placements().list(&ListParams::default()).await.unwrap().items;
        if placements.len() == 20 { Ok(()) } else { Err(placements.len().to_string()) }
    })
    .await;
    // Weakness 27: nothing is committed while the object is away, although the repository is there.
    wait::poll("all of them to say what they wait for", || async {
        let placements = scene.world.placements().list(&ListParams::default()).await.unwrap().items;
        let told = placements.iter().filter_map(write_of).filter(|write| write.reason == "StateStoreNotFound").count();
        if told == 20 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let commits = scene.commits();
    assert_eq!(commits, before, "commits while there was no store");
    scene.add_store().await;
    scene.destination_is("True", "").await;
    scene.placements_are(20, "True").await;
    scene.all_are_written_once(20).await;
    // Also not by another process.
    let after = scene.commits();
    assert!(after > commits);
    scene.world.stop_controllers().await;
    scene.world.start_controllers().await;
    scene.work("last", &["a.yaml"]).await;
    scene.placements_are(21, "True").await;
    scene.all_are_written_once(21).await;
    assert_eq!(scene.commits(), after + 1);
}

/// A server that takes what it is asked and does not answer: everybody says so, and nobody waits for it once it is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_server_that_hangs_says_so_and_is_served_as_soon_as_another_one_is_named() {
    for mode in ["nestedByMetadata", "aggregatedYAML"] {
        let scene = Scene::start(mode).await;
        let other = tempfile::tempdir().unwrap();
        kratix_state_store::init_bare(other.path().join("other.git"), "main").unwrap();
        scene.server.fail(Fault::Hang);
        for at in 0..4 {
            scene.work(&format!("r{at}"), &["a.yaml"]).await;
        }
        let silence = format!("no answer from {} yet", scene.server.url("state.git"));
        // In the queue, and before it where one waits for the other.
        wait::poll(&format!("all to name the silence in mode {mode}"), || async {
            let waiting = scene.placements_are(4, "Unknown").await;
            let mut others = waiting.values().filter(|write| {
                write.reason != "WaitingForStateStore" || !write.message.ends_with(&format!(" in its queue, {silence}"))
            });
            others.next().map_or(Ok(()), |write| Err(format!("{}: {}", write.reason, write.message)))
        })
        .await;
        let is_silent = |found: &Option<Condition>, said: &str| {
            let is_unknown = |found: &Condition| found.status == condition::Status::Unknown && found.message == said;
            found.as_ref().is_some_and(is_unknown)
        };
        wait::until(&scene.world.git_stores(), "default", "the store to say so", |store: &GitStateStore| {
            is_silent(&store.condition("PushesAccepted"), &silence)
        })
        .await;
        let said = format!("GitStateStore/default: {silence}");
        wait::until(&scene.world.destinations(), "worker-1", "the Destination to say so", |found: &Destination| {
            is_silent(&found.condition("PushesAccepted"), &said)
        })
        .await;
        // The deadline of an exchange is longer than that of this test's waits.
        let url = json!({ "spec": { "url": format!("file://{}", other.path().join("other.git").display()) } });
        let stores = scene.world.git_stores();
        stores.patch("default", &PatchParams::default(), &Patch::Merge(url)).await.unwrap();
        scene.placements_are(4, "True").await;
        wait::until(&stores, "default", "the store to say nothing more of it", |store: &GitStateStore| {
            store.condition("PushesAccepted").is_none()
        })
        .await;
    }
}

/// The same of a server that has never answered, and of a Secret that changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_on_a_server_that_hangs_says_so_to_all_and_is_ready_as_soon_as_it_is_mended() {
    let scene = Scene::start("nestedByMetadata").await;
    scene.server.fail(Fault::Hang);
    // Before the other one is made, so that whoever speaks of that one knows that this one is gone.
    scene.world.destinations().delete("worker-1", &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.world.destinations(), "worker-1").await;
    scene.world.add_git_store("new", &scene.server.url("state.git"), json!({})).await;
    let without_documents = json!({ "initWorkloads": { "enabled": false }, "strictMatchLabels": false });
    scene.world.add_destination("new-1", ("GitStateStore", "new"), "nestedByMetadata", without_documents).await;
    let silence = format!("no answer from {} yet", scene.server.url("state.git"));
    delivery::says(&scene.world.git_stores(), "new", "NoAnswerYet", &silence).await;
    let not_ready = format!("GitStateStore/new: not ready: {silence}");
    delivery::says(&scene.world.destinations(), "new-1", "StateStoreNotReady", &not_ready).await;
    scene.work("x", &["a.yaml"]).await;
    // Before, it may have said how many wait.
    wait::poll("the placement to say the same", || async {
        let waiting = scene.placements_are(1, "Unknown").await;
        if waiting["x"].message == not_ready { Ok(()) } else { Err(waiting["x"].message.clone()) }
    })
    .await;
    let url = json!({ "spec": { "url": format!("file://{}", scene.repository().display()) } });
    scene.world.git_stores().patch("new", &PatchParams::default(), &Patch::Merge(url)).await.unwrap();
    scene.placements_are(1, "True").await;
    delivery::ready(&scene.world.destinations(), "new-1", "ready", |ready| is(ready, "True", "")).await;
}

/// A comparison is no push, and stands behind none.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_compared_while_more_wait_for_their_push_than_there_are_passes() {
    // More than there are passes for one store at once.
    const MANY: usize = 256;
    let mut scene = Scene::start("nestedByMetadata").await;
    scene.work("first", &["a.yaml"]).await;
    scene.placements_are(1, "True").await;
    scene.world.stop_controllers().await;
    let one_a_minute = json!({ "metadata": { "annotations": { keys::MAXIMUM_PUSHES_PER_MINUTE: "1" } } });
    let stores = scene.world.git_stores();
    stores.patch("default", &PatchParams::default(), &Patch::Merge(one_a_minute)).await.unwrap();
    scene.world.set_interval("100ms").await;
    for at in 0..MANY + 44 {
        scene.work(&format!("r{at:03}"), &["a.yaml"]).await;
    }
    scene.world.start_controllers().await;
    let waiting = || {
        let text = scene.world.metrics();
        let begins = "kratix_statestore_queue_length{kind=\"GitStateStore\",name=\"default\"} ";
        text.lines().find_map(|line| line.strip_prefix(begins)?.parse::<usize>().ok()).unwrap_or_default()
    };
    let before = std::cell::Cell::new(None);
    wait::poll("the store to be asked although nothing is pushed", || async {
        let (many, found) = (waiting() > MANY, (scene.commits(), scene.server.requests()));
        match before.replace(many.then_some(found)) {
            Some((commits, requests)) if many && commits == found.0 && requests < found.1 => Ok(()),
            _ => Err(format!("{} wait, {found:?}", waiting())),
        }
    })
    .await;
}

/// The deadline of an exchange is longer than that of this test's waits.
#[tokio::test(flavor = "multi_thread")]
async fn files_at_a_former_address_whose_server_hangs_are_told_of_and_hold_up_nothing_at_the_new_one() {
    let scene = Scene::start("nestedByMetadata").await;
    scene.work("x", &["a.yaml"]).await;
    scene.placements_are(1, "True").await;
    let other = tempfile::tempdir().unwrap();
    kratix_state_store::init_bare(other.path().join("other.git"), "main").unwrap();
    let url = format!("file://{}", other.path().join("other.git").display());
    scene.server.fail(Fault::Hang);
    let patch = Patch::Merge(json!({ "spec": { "url": url } }));
    scene.world.git_stores().patch("default", &PatchParams::default(), &patch).await.unwrap();
    let silence = format!("no answer from {} yet", scene.server.url("state.git"));
    let is_told = |event: &Event| {
        let note = event.note.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some("FilesLeftBehind") && note.ends_with(&format!(" stay for now: {silence}"))
    };
    scene.world.event("that files stay for now", is_told).await;
    let files = || async {
        let store = open(GitConfig::new("look", &url), other.path()).unwrap();
        store.list("").await.unwrap()
    };
    for file in ["b.yaml", "c.yaml"] {
        scene.work("x", &[file]).await;
        delivery::holds(&vec![format!("worker-1/resources/default/redis/x/configure/5058f/{file}")], files).await;
    }
}

/// Of a server that refuses at once nobody has to be asked twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_address_whose_server_refuses_is_asked_once_for_all_who_have_left_it() {
    const COUNT: usize = 40;
    let scene = Scene::start("nestedByMetadata").await;
    for at in 0..COUNT {
        scene.work(&format!("r{at:02}"), &["a.yaml"]).await;
    }
    scene.placements_are(COUNT, "True").await;
    let other = tempfile::tempdir().unwrap();
    kratix_state_store::init_bare(other.path().join("other.git"), "main").unwrap();
    let url = format!("file://{}", other.path().join("other.git").display());
    scene.server.fail(Fault::Status(401));
    let before = scene.server.requests();
    let patch = Patch::Merge(json!({ "spec": { "url": url } }));
    scene.world.git_stores().patch("default", &PatchParams::default(), &patch).await.unwrap();
    wait::poll("all to say that files stay", || async {
        let told = scene.world.events("FilesLeftBehind").await;
        let causes = told.iter().filter_map(|event| event.note.as_deref()?.split_once(" stay for now: "));
        let (mut refused, mut silent) = (0, 0);
        for (_, cause) in causes {
            // On a machine that is busy for seconds the answer may come later than it is waited for, and this is told once.
            let count = if cause.contains("the credentials were refused") { &mut refused } else { &mut silent };
            *count += 1;
        }
        if refused > 0 && refused + silent == COUNT { Ok(()) } else { Err(format!("{refused} and {silent}")) }
    })
    .await;
    let requests = scene.server.requests() - before;
    assert!(requests < COUNT / 2, "{requests} requests");
}

/// Whoever goes for good waits for the server to the end, and says so as soon as others do.
#[tokio::test(flavor = "multi_thread")]
async fn a_placement_and_a_destination_that_go_name_the_server_that_hangs_at_their_present_and_at_a_former_place() {
    for has_moved in [false, true] {
        let scene = Scene::start("nestedByMetadata").await;
        let clean_up = json!({ "spec": { "cleanup": "all", "initWorkloads": { "enabled": true } } });
        let destinations = scene.world.destinations();
        destinations.patch("worker-1", &PatchParams::default(), &Patch::Merge(clean_up)).await.unwrap();
        let is_noted = |found: &Destination| found.annotations().contains_key("kratix.io/files-at");
        wait::until(&destinations, "worker-1", "its documents to be noted", is_noted).await;
        delivery::says(&destinations, "worker-1", "TestDocumentsWritten", "").await;
        scene.work("x", &["a.yaml"]).await;
        scene.placements_are(1, "True").await;
        scene.server.fail(Fault::Hang);
        let other = tempfile::tempdir().unwrap();
        if has_moved {
            kratix_state_store::init_bare(other.path().join("other.git"), "main").unwrap();
            let url = format!("file://{}", other.path().join("other.git").display());
            scene.world.add_git_store("other", &url, json!({})).await;
            let reference = json!({ "spec": { "stateStoreRef": { "kind": "GitStateStore", "name": "other" } } });
            destinations.patch("worker-1", &PatchParams::default(), &Patch::Merge(reference)).await.unwrap();
            let is_told = |event: &Event, name: &str| {
                event.reason.as_deref() == Some("FilesLeftBehind") && delivery::is_about(event, name, "FilesLeftBehind")
            };
            for name in ["x.worker-1-5058f", "worker-1"] {
                scene.world.event("that files stay for now", |event| is_told(event, name)).await;
            }
        }
        let silence = format!("no answer from {} yet", scene.server.url("state.git"));
        scene.world.works().delete("x", &DeleteParams::default()).await.unwrap();
        let directory = "worker-1/resources/default/redis/x/configure/5058f";
        let expected = match has_moved {
            false => format!("waiting for GitStateStore/default: 1 changes are in its queue, {silence}"),
            true => format!("waiting for files in {directory} of GitStateStore/default to be removed: {silence}"),
        };
        let says = |found: &WorkPlacement| {
            write_of(found).is_some_and(|write| write.reason == "WaitingForStateStore" && write.message == expected)
        };
        let placements = scene.world.placements();
        wait::until(&placements, "x.worker-1-5058f", &format!("the placement to say {expected}"), says).await;

        // Without an answer the files stay, and the placement with them; its finalizers are not ours to wait for here.
        let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        placements.patch("x.worker-1-5058f", &PatchParams::default(), &free).await.unwrap();
        wait::gone(&placements, "x.worker-1-5058f").await;
        destinations.delete("worker-1", &DeleteParams::default()).await.unwrap();
        let expected = match has_moved {
            false => format!("waiting for GitStateStore/default: {silence}"),
            true => format!(
                "waiting for test documents (kratix-canary) in worker-1 of GitStateStore/default to be removed: {silence}"
            ),
        };
        delivery::ready(&destinations, "worker-1", &expected, |ready| ready.message == expected).await;

        // Mended: it is asked again at once, and goes with its documents.
        scene.server.fail(Fault::None);
        let author = Patch::Merge(json!({ "spec": { "gitAuthor": { "name": "another" } } }));
        scene.world.git_stores().patch("default", &PatchParams::default(), &author).await.unwrap();
        wait::gone(&destinations, "worker-1").await;
        assert!(scene.files().iter().all(|file| !file.contains("kratix-canary")), "{:?}", scene.files());
    }
}

/// So many wait at once for one store; who comes then has to say by himself for what he waits.
#[tokio::test(flavor = "multi_thread")]
async fn more_destinations_than_may_wait_at_a_former_place_whose_server_hangs_all_say_so_and_go_once_it_answers() {
    const MANY: usize = 64;
    let scene = Scene::start("nestedByMetadata").await;
    let destinations = scene.world.destinations();
    let names: Vec<String> = (0..MANY + 3).map(|at| format!("many-{at}")).collect();
    for name in &names {
        scene.world.add_destination(name, ("GitStateStore", "default"), "none", json!({ "cleanup": "all" })).await;
    }
    for name in &names {
        delivery::says(&destinations, name, "TestDocumentsWritten", "").await;
    }
    scene.server.fail(Fault::Hang);
    let other = tempfile::tempdir().unwrap();
    kratix_state_store::init_bare(other.path().join("other.git"), "main").unwrap();
    let url = format!("file://{}", other.path().join("other.git").display());
    scene.world.add_git_store("other", &url, json!({})).await;
    let reference = json!({ "spec": { "stateStoreRef": { "kind": "GitStateStore", "name": "other" } } });
    for name in &names {
        destinations.patch(name, &PatchParams::default(), &Patch::Merge(&reference)).await.unwrap();
    }
    // Each has noted the new place before it goes.
    for name in &names {
        let is_noted = |found: &Destination| found.annotations()["kratix.io/files-at"].contains("other");
        wait::until(&destinations, name, "the new place to be noted", is_noted).await;
        destinations.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let silence = format!("no answer from {} yet", scene.server.url("state.git"));
    for name in &names {
        let what = format!("test documents (kratix-canary) in {name} of GitStateStore/default");
        let expected = format!("waiting for {what} to be removed: {silence}");
        delivery::ready(&destinations, name, &expected, |ready| ready.message == expected).await;
    }
    scene.server.fail(Fault::None);
    let author = Patch::Merge(json!({ "spec": { "gitAuthor": { "name": "another" } } }));
    scene.world.git_stores().patch("default", &PatchParams::default(), &author).await.unwrap();
    for name in &names {
        wait::gone(&destinations, name).await;
    }
    assert!(scene.files().iter().all(|file| !file.contains("kratix-canary")), "{:?}", scene.files());
}

/// What the metric tells: everybody who waits, also for a store that is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn the_length_of_a_queue_counts_who_waits_for_a_turn_and_for_a_store_that_is_not_ready() {
    let scene = Scene::start("aggregatedYAML").await;
    let has = async |length: usize| {
        let line = format!("kratix_statestore_queue_length{{kind=\"GitStateStore\",name=\"default\"}} {length}");
        wait::poll(&line, || async {
            let text = scene.world.metrics();
            if text.lines().any(|found| found == line) { Ok(()) } else { Err(text) }
        })
        .await;
    };
    has(0).await;
    scene.server.fail(Fault::Hang);
    for at in 0..5 {
        scene.work(&format!("r{at}"), &["a.yaml"]).await;
    }
    has(5).await;
    let secret = json!({ "spec": { "secretRef": { "name": "absent" } } });
    scene.world.git_stores().patch("default", &PatchParams::default(), &Patch::Merge(secret)).await.unwrap();
    scene.store_is("False", "Secret absent not found").await;
    has(5).await;
}

/// Weakness 17, decisions 9, 12 and 16
#[tokio::test(flavor = "multi_thread")]
async fn a_placement_with_a_bad_path_says_so_and_the_others_are_written() {
    let bad = [
        ("escape", "../../x", "it leaves its directory"),
        ("absolute", "/etc/passwd", "it is absolute"),
        ("git", ".GIT/config", "it names a .git directory"),
        ("hidden", ".g\u{200c}it/config", "it names a .git directory"),
        ("backslash", "a\\..\\b", "it contains a backslash"),
        ("long", &"x".repeat(300), "is longer than 255 bytes"),
    ];
    for mode in ["nestedByMetadata", "none"] {
        let scene = Scene::start(mode).await;
        for (request, path, _) in bad {
            scene.work(request, &[&format!("{request}.yaml"), path]).await;
        }
        scene.work("case", &["Case.yaml", "case.yaml"]).await;
        for at in 0..5 {
            scene.work(&format!("good{at}"), &[&format!("good{at}.yaml")]).await;
        }
        scene.placements_are(5, "True").await;
        let refused = scene.placements_are(bad.len() + 1, "False").await;
        for (request, path, reason) in bad {
            let told = &refused[request];
            assert_eq!(told.reason, "WorkloadsFailedWrite");
            let shown = format!("path {path:?} cannot be written: ");
            assert!(told.message.starts_with(&shown) && told.message.contains(reason), "{mode} {}", told.message);
        }
        let case = &refused["case"].message;
        assert!(case.contains("Case.yaml") && case.contains("case.yaml"), "{case}");
        let good = scene.files().into_iter().filter(|path| !path.contains("/.kratix/"));
        assert!(good.clone().all(|path| path.contains("/good")), "{:?}", scene.files());
        assert_eq!(good.count(), 5);
    }
}
