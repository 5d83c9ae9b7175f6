//! A state store that an app of GitHub writes, from its Secret to its conditions.

use k8s_openapi::api::core::v1::Secret;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::{GitStateStore, keys};
use kratix_testing::git_http::Server;
use kratix_testing::github::{APP, Answer, Api as Github, INSTALLATION, KEY_PKCS8};
use kratix_testing::wait;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{World, typed};

const NAME: &str = "by-an-app";

/// Waits until the store says this of itself.
async fn told(world: &World, reason: &str, text: &str) -> Condition {
    let stores = Api::<GitStateStore>::all(world.client.clone());
    let find = |store: &GitStateStore| {
        let conditions = store.status.as_ref().map_or(&[][..], |status| &status.conditions);
        condition::find(conditions, condition::READY)
            .filter(|ready| ready.reason == reason && ready.message.contains(text))
            .cloned()
    };
    let store = wait::until(&stores, NAME, &format!("{reason}: {text}"), |store| find(store).is_some()).await;
    find(&store).unwrap()
}

async fn put(world: &World, values: Value) {
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "default");
    let patch = json!({ "stringData": values });
    secrets.patch("creds", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_says_what_its_secret_lacks_and_what_github_refuses_and_is_ready_as_soon_as_it_can_be() {
    let root = tempfile::tempdir().unwrap();
    kratix_state_store::init_bare(root.path().join("state.git"), "main").unwrap();
    let server = Server::tls(root.path()).await;
    let github = Github::serve(&server);
    let world = World::start().await;
    let secret = json!({ "metadata": { "name": "creds" }, "stringData": { "appID": "Iv1.x" } });
    let secrets = Api::<Secret>::namespaced(world.client.clone(), "default");
    secrets.create(&PostParams::default(), &typed(secret)).await.unwrap();
    let store = json!({
        "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": { "name": NAME },
        "spec": { "url": server.url("state.git"), "authMethod": "githubApp", "secretRef": { "name": "creds" } },
    });
    let stores = Api::<GitStateStore>::all(world.client.clone());
    stores.create(&PostParams::default(), &typed(store)).await.unwrap();

    let reason = "ErrorInitialisingWriter";
    let starts = "unable to create git writer: could not create auth method: ";
    let found = told(&world, reason, "installationID not found in secret default/creds").await;
    let expected = "installationID not found in secret default/creds; hint: add the key installationID to it";
    assert_eq!(found.message, format!("{starts}{expected}"));
    put(&world, json!({ "installationID": INSTALLATION.to_string(), "privateKey": "none" })).await;
    told(&world, reason, &format!("{starts}could not convert installation ID to int: ")).await;
    put(&world, json!({ "appID": "1" })).await;
    let jwt = "failed to generate GitHub App JWT: invalid private key: failed to parse PEM block; hint: ";
    told(&world, reason, &format!("{starts}{jwt}")).await;
    put(&world, json!({ "privateKey": KEY_PKCS8 })).await;
    let token = format!("{starts}failed to get GitHub installation token: ");
    told(&world, reason, &format!("{token}GitHub API request failed: POST ")).await;
    put(&world, json!({ "caFile": server.ca_pem().unwrap() })).await;
    told(&world, reason, &format!("{token}GitHub API error: status=401, message=Integration not found; hint: ")).await;
    put(&world, json!({ "appID": APP.to_string() })).await;
    assert_eq!(told(&world, "StateStoreReady", "State store is ready").await.status, Status::True);

    let suspended = json!({ "message": "This installation has been suspended" }).to_string();
    github.answer(Some(Answer { status: 403, headers: Vec::new(), body: suspended }));
    put(&world, json!({ "note": "another version" })).await;
    let told_of = told(&world, reason, "status=403, message=This installation has been suspended").await;
    assert!(told_of.message.starts_with(&token), "{told_of:?}");
    github.answer(None);
    put(&world, json!({ "note": "yet another version" })).await;
    told(&world, "StateStoreReady", "State store is ready").await;
}
