//! State stores that fail: what waits for them says so, and nothing that waits is lost.

use std::path::Path;

use kratix_api::{GitStateStore, WorkPlacement};
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::wait;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::watcher;
use serde_json::json;

use crate::world::{World, condition_in, condition_of, git, is_reconciled, promise, request};

const SCRIPT: &str = "echo '{}' > /kratix/output/file.yaml";

/// A Git server with an empty repository, and a Destination `remote` behind it.
struct Remote {
    server: Server,
    directory: tempfile::TempDir,
}

impl Remote {
    async fn start(world: &World, password: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::tls(directory.path()).await;
        server.require("kratix", "right");
        let remote = Self { server, directory };
        git(&remote.repository(), &["init", "--quiet", "--bare"]);
        git(&remote.repository(), &["config", "http.receivepack", "true"]);
        remote.use_password(world, password).await;
        let documents = [
            json!({
                "apiVersion": "platform.kratix.io/v1alpha1", "kind": "GitStateStore", "metadata": {"name": "remote"},
                "spec": {
                    "url": remote.server.url("state.git"), "branch": "main", "authMethod": "basicAuth",
                    "secretRef": {"name": "remote", "namespace": "default"},
                },
            }),
            json!({
                "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Destination",
                "metadata": {"name": "remote", "labels": {"environment": "remote"}},
                "spec": {
                    "path": "remote", "stateStoreRef": {"kind": "GitStateStore", "name": "remote"},
                    "filepath": {"mode": "nestedByMetadata"},
                },
            }),
        ];
        for document in documents {
            world.apply(&document.to_string()).await;
        }
        remote
    }

    async fn use_password(&self, world: &World, password: &str) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "remote", "namespace": "default"},
            "stringData": {"username": "kratix", "password": password, "caFile": self.server.ca_pem()},
        });
        world.apply(&secret.to_string()).await;
    }

    fn repository(&self) -> std::path::PathBuf {
        self.directory.path().join("state.git")
    }

    /// Replaces the history by one that shares nothing with it, as a force push does.
    fn replace_history(&self) {
        let repository = self.repository();
        let empty = git(&repository, &["hash-object", "-t", "blob", "-w", "/dev/null"]);
        let tree = make_tree(&repository, &format!("100644 blob {}\tforeign.txt\n", empty.trim()));
        let identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"];
        let commit =
            git(&repository, &[&identity[..], &["commit-tree", "-m", "another history", tree.trim()]].concat());
        git(&repository, &["update-ref", "refs/heads/main", commit.trim()]);
    }

    fn files(&self) -> Vec<String> {
        git(&self.repository(), &["ls-tree", "-r", "--name-only", "main"]).lines().map(str::to_owned).collect()
    }
}

fn make_tree(repository: &Path, entries: &str) -> String {
    use std::io::Write;
    let mut command = std::process::Command::new("git");
    command.arg("--git-dir").arg(repository).arg("mktree");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(entries.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

async fn publish(world: &World) -> Api<DynamicObject> {
    world.apply(&promise("thing", "Thing", SCRIPT).replace("environment: dev", "environment: remote")).await;
    world.promise_available("thing").await;
    world.requests("test.kratix.io", "v1", "Thing", "things", "default")
}

async fn ask(world: &World, name: &str) {
    world.apply(&request("Thing", "default", name)).await;
}

async fn waiting_placement(world: &World, name: &str) -> WorkPlacement {
    let selected = watcher::Config::default().labels(&format!("kratix.io/resource-name={name}"));
    wait::any(&world.placements("default"), selected, &format!("the placement of {name}"), |_| true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_told_and_everything_that_waited_is_written_when_they_are_right() {
    let world = World::start().await;
    let remote = Remote::start(&world, "wrong").await;
    let stores: Api<GitStateStore> = Api::all(world.hub());
    let store = wait::until(&stores, "remote", "the store to refuse the password", |store: &GitStateStore| {
        store.status.as_ref().is_some_and(|status| condition_of(&status.conditions, "Ready").starts_with("False/"))
    })
    .await;
    let told = condition_of(&store.status.unwrap().conditions, "Ready");
    assert!(told.to_lowercase().contains("authentication"), "{told}");
    assert!(!told.contains("wrong"), "the password is nobody's business: {told}");

    status_says(&world, "stores     1 of 2 ready", "           GitStateStore/remote: unable to clone repository: ")
        .await;
    let json = world.kratix(&["status", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let remote_store = json["stores"].as_array().unwrap().iter().find(|store| store["name"] == "remote").unwrap();
    assert!(remote_store["cause"].as_str().unwrap().contains("Authentication failed"), "{json}");

    let requests = publish(&world).await;
    for name in ["a", "b", "c"] {
        ask(&world, name).await;
        let placement = waiting_placement(&world, name).await;
        let conditions = placement.status.map(|status| status.conditions).unwrap_or_default();
        assert!(!condition_of(&conditions, "WriteSucceeded").starts_with("True"), "{name}");
        assert!(!is_reconciled(&requests.get(name).await.unwrap()), "{name} is reconciled before it is written");
    }

    remote.use_password(&world, "right").await;
    for name in ["a", "b", "c"] {
        wait::until(&requests, name, "the request to be reconciled", is_reconciled).await;
    }
    for name in ["a", "b", "c"] {
        let file = format!("remote/resources/default/thing/{name}/configure/5058f/file.yaml");
        assert!(remote.files().contains(&file), "{:#?}", remote.files());
    }
    status_says(&world, "stores     2 ready", "").await;
}

/// Waits until `kratix status` ends with this line about stores and one that begins like this.
async fn status_says(world: &World, count: &str, about: &str) {
    wait::poll(&format!("the status to say {count:?}"), || async {
        let status = world.kratix(&["status"]).await;
        assert!(status.status.success(), "stores are no reason to fail");
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        let mut lines = text.lines().skip_while(|line| !line.starts_with("stores"));
        let is_said = lines.next() == Some(count) && lines.next().unwrap_or_default().starts_with(about);
        if is_said { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_unreachable_store_is_written_on_whatever_history_it_has_afterwards() {
    let world = World::start().await;
    let remote = Remote::start(&world, "right").await;
    let requests = publish(&world).await;
    ask(&world, "a").await;
    wait::until(&requests, "a", "the first request to be reconciled", is_reconciled).await;

    remote.server.fail(Fault::Status(503));
    for name in ["b", "c"] {
        ask(&world, name).await;
        waiting_placement(&world, name).await;
    }
    wait::until(&requests, "b", "the request to say that its Works are not there", |request: &DynamicObject| {
        let reconciled = condition_in(request, "Reconciled");
        !reconciled.is_empty()
            && !reconciled.starts_with("True")
            && !condition_in(request, "WorksSucceeded").starts_with("True")
    })
    .await;
    remote.replace_history();
    remote.server.fail(Fault::None);

    for name in ["b", "c"] {
        wait::until(&requests, name, "the request to be reconciled", is_reconciled).await;
    }
    let files = remote.files();
    for name in ["b", "c"] {
        let file = format!("remote/resources/default/thing/{name}/configure/5058f/file.yaml");
        assert!(files.contains(&file), "{files:#?}");
    }
    assert!(files.contains(&"foreign.txt".to_owned()), "what is not ours is left alone: {files:#?}");
    assert_eq!(world.jobs("default").list(&ListParams::default()).await.unwrap().items.len(), 3);
}
