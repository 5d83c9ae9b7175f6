//! Tokens of service accounts: each pod its own, renewed in time.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use embedded_apiserver::User;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::DeleteParams;
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{World, container};

/// Returns a client for which tokens expire after two seconds; the server gives them ten minutes at least.
fn impatient(world: &embedded_apiserver::Server) -> Client {
    let service = world.service(User::admin("node"));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (service, is_token) = (service.clone(), request.uri().path().ends_with("/token"));
        async move {
            let (head, body) = service.oneshot(request).await?.into_parts();
            if !is_token {
                let body = body.map_err(tower::BoxError::from).boxed_unsync();
                return Ok::<_, tower::BoxError>(http::Response::from_parts(head, body));
            }
            let text = body.collect().await?.to_bytes();
            let mut answer: Value = serde_json::from_slice(&text)?;
            if answer.get("status").is_some_and(Value::is_object) {
                let soon = Timestamp::now() + Duration::from_secs(2);
                answer["status"]["expirationTimestamp"] = format!("{soon:.0}").into();
            }
            let body = Full::new(Bytes::from(serde_json::to_vec(&answer)?)).map_err(tower::BoxError::from);
            Ok(http::Response::from_parts(head, body.boxed_unsync()))
        }
    });
    Client::new(service, "default")
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn token_of(world: &World, pod: &Pod) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().unwrap();
    let volumes = world.directory.path().join("pods").join(uid).join("volumes");
    let found = std::fs::read_dir(volumes).unwrap().map(|entry| entry.unwrap().path().join("token"));
    found.into_iter().find(|path| path.exists()).expect("the pod has a token")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pod_has_its_own_token_of_the_account_as_it_is_now() {
    let world = World::new().await;
    let accounts: Api<ServiceAccount> = world.api();
    let mut seen = Vec::new();
    for name in ["first", "second"] {
        let account = world.create::<ServiceAccount>(json!({"metadata": {"name": "builder"}})).await;
        let spec = json!({"serviceAccountName": "builder", "containers": [container("main", "exec sleep 600")],
                          "terminationGracePeriodSeconds": 0});
        world.pod(name, spec).await;
        let pod = world.until_phase(name, "Running").await;
        let token = std::fs::read_to_string(token_of(&world, &pod)).unwrap();
        let claims = &claims(&token)["kubernetes.io"];
        assert_eq!(claims["pod"]["uid"], pod.metadata.uid.unwrap());
        assert_eq!(claims["serviceaccount"]["uid"], account.metadata.uid.unwrap(), "the token of a dead account");
        seen.push(token);
        // The same account again, but another one.
        accounts.delete("builder", &DeleteParams::default()).await.unwrap();
        world.until_gone::<ServiceAccount>("builder").await;
    }
    assert_ne!(seen[0], seen[1]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_while_the_pod_runs() {
    let world = World::with_client(impatient, |builder| builder).await;
    world.create::<ServiceAccount>(json!({"metadata": {"name": "builder"}})).await;
    let spec = json!({"serviceAccountName": "builder", "containers": [container("main", "exec sleep 600")]});
    world.pod("long", spec).await;
    let pod = world.until_phase("long", "Running").await;
    let path = token_of(&world, &pod);
    let file = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    let first = file();
    let renewed = async {
        while file() == first {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("the token is replaced before it expires");
    let token = std::fs::read_to_string(&path).unwrap();
    assert_eq!(claims(&token)["kubernetes.io"]["pod"]["uid"], pod.metadata.uid.unwrap());
    world.node.shutdown().await;
}
