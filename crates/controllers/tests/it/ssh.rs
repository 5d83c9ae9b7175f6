//! A state store that is reached with ssh, from its Secret to its conditions.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::{GitStateStore, keys};
use kratix_testing::sshd::Server;
use kratix_testing::wait;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::world::{World, typed};

const NAME: &str = "over-ssh";

fn conditions(store: &GitStateStore) -> &[Condition] {
    store.status.as_ref().map_or(&[], |status| &status.conditions)
}

/// Waits until the store says this of itself.
async fn told(world: &World, reason: &str, text: &str) -> Condition {
    let stores = Api::<GitStateStore>::all(world.client.clone());
    let find = |store: &GitStateStore| {
        condition::find(conditions(store), condition::READY)
            .filter(|ready| ready.reason == reason && ready.message.contains(text))
            .cloned()
    };
    let store = wait::until(&stores, NAME, &format!("{reason}: {text}"), |store| find(store).is_some()).await;
    find(&store).unwrap()
}

async fn put(world: &World, key: &str, value: &str) {
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "default");
    let patch = json!({ "stringData": { key: value } });
    secrets.patch("creds", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn annotate(world: &World, limit: Value) {
    let stores = Api::<GitStateStore>::all(world.client.clone());
    let patch = json!({ "metadata": { "annotations": { keys::MAXIMUM_PUSHES_PER_MINUTE: limit } } });
    stores.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// §14.4
#[tokio::test(flavor = "multi_thread")]
async fn a_store_over_ssh_says_what_its_secret_lacks_and_is_ready_as_soon_as_it_has_it() {
    let root = tempfile::tempdir().unwrap();
    kratix_state_store::init_bare(root.path().join("state.git"), "main").unwrap();
    let Some(server) = Server::start(root.path()).await else { return };
    let world = World::start().await;
    let secret = json!({ "metadata": { "name": "creds" }, "stringData": { "sshPrivateKey": "none" } });
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "default");
    secrets.create(&PostParams::default(), &typed(secret)).await.unwrap();
    let store = json!({
        "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": { "name": NAME },
        "spec": { "url": server.url("state.git"), "authMethod": "ssh", "secretRef": { "name": "creds" } },
    });
    let stores = Api::<GitStateStore>::all(world.client.clone());
    stores.create(&PostParams::default(), &typed(store)).await.unwrap();

    let writer = "unable to create git writer: could not create auth method: ";
    let initialising = "ErrorInitialisingWriter";
    told(&world, initialising, &format!("{writer}knownHosts not found in secret default/creds")).await;
    put(&world, "knownHosts", "other.example.org ssh-ed25519 AAAA").await;
    told(&world, initialising, &format!("{writer}error parsing ssh private key: no key found")).await;
    put(&world, "sshPrivateKey", &server.private_key()).await;
    let unknown = told(&world, initialising, "unable to clone repository: ").await;
    assert!(unknown.message.contains(&format!("no ED25519 host key is known for {}", server.host())), "{unknown:?}");
    assert!(unknown.message.contains("ssh-keyscan -p "), "{unknown:?}");
    put(&world, "knownHosts", &server.known_hosts()).await;
    let ready = told(&world, "StateStoreReady", "State store is ready").await;
    assert_eq!(ready.status, Status::True);

    server.refuse_pushes("ERROR: read only\n");
    put(&world, "signingKey", "none").await;
    let place = format!("state store {NAME} ({})", server.url("state.git"));
    let unusable = told(&world, initialising, "error parsing signing key: ").await;
    let cause = "no key found: it begins with -----BEGIN and ends with PRIVATE KEY-----";
    let hint = "put an SSH private key without passphrase, as ssh-keygen writes it, under the key signingKey into the secret of the store";
    let text = format!("unable to create git writer: {place}: error parsing signing key: {cause}; hint: {hint}");
    assert_eq!(unusable.message, text);
    put(&world, "signingKey", &server.private_key()).await;
    told(&world, "ErrorValidatingPermissions", "access is forbidden: ERROR: read only").await;
    server.refuse_pushes("");
    put(&world, "note", "another version").await;
    told(&world, "StateStoreReady", "State store is ready").await;

    let rotated = server.rotate_user_key("ed25519");
    put(&world, "note", "yet another version").await;
    told(&world, initialising, "unable to clone repository: Authentication failed: ").await;
    put(&world, "sshPrivateKey", &rotated).await;
    told(&world, "StateStoreReady", "State store is ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_limit_that_is_none_is_shown_on_the_store_until_it_is_mended() {
    let root = tempfile::tempdir().unwrap();
    let repository = root.path().join("state.git");
    kratix_state_store::init_bare(&repository, "main").unwrap();
    let world = World::start().await;
    let store = json!({
        "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": { "name": NAME },
        "spec": { "url": repository.to_str().unwrap() },
    });
    let stores = Api::<GitStateStore>::all(world.client.clone());
    stores.create(&PostParams::default(), &typed(store)).await.unwrap();
    told(&world, "StateStoreReady", "State store is ready").await;
    annotate(&world, json!("lots")).await;
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    wait::any(&events, watcher::Config::default(), "an event about it", |event: &Event| {
        event.reason.as_deref() == Some("InvalidAnnotation")
            && event.note.as_ref().is_some_and(|note| note.contains("\"lots\""))
    })
    .await;
    let is_complaining = |store: &GitStateStore| condition::find(conditions(store), "AnnotationsAccepted").is_some();
    wait::until(&stores, NAME, "a condition about it", is_complaining).await;
    annotate(&world, json!("6")).await;
    wait::until(&stores, NAME, "the condition to go", |store| !is_complaining(store)).await;
    told(&world, "StateStoreReady", "State store is ready").await;
}
