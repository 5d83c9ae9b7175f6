//! Binding, eviction, and what the other subresources may change.

use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};

use super::{World, create, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pods(world: &World) -> Api<DynamicObject> {
    world.api("v1", "Pod", "pods")
}

fn binding(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    })
}

#[tokio::test]
async fn a_pod_is_assigned_to_a_node_once() {
    let world = World::new().await;
    create(&pods(&world), pod("p")).await.unwrap();
    let path = format!("{PODS}/p/binding");
    let bound = world.send("POST", &path, &binding("p", "one")).await;
    assert_eq!((bound.code, bound.value()["status"].clone()), (201, json!("Success")));
    let assigned = pods(&world).get("p").await.unwrap();
    assert_eq!(assigned.data["spec"]["nodeName"], "one");
    let conditions = assigned.data["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "True"));
    let again = world.send("POST", &path, &binding("p", "two")).await;
    assert_eq!(again.code, 409);
    assert_eq!(
        again.message(),
        r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "one""#
    );
}

#[tokio::test]
async fn a_binding_must_name_a_node_and_the_pod_that_is_meant() {
    let world = World::new().await;
    create(&pods(&world), pod("p")).await.unwrap();
    let path = format!("{PODS}/p/binding");
    assert_eq!(world.send("POST", &path, &binding("q", "one")).await.code, 400);
    assert_eq!(world.send("POST", &path, &binding("p", "")).await.code, 422);
    assert_eq!(world.send("POST", &path, &pod("p")).await.code, 400);
    let mut other = binding("p", "one");
    other["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    assert_eq!(world.send("POST", &path, &other).await.code, 409);
    assert_eq!(world.send("POST", &format!("{PODS}/none/binding"), &binding("none", "one")).await.code, 404);
    let dry = world.send("POST", &format!("{path}?dryRun=All"), &binding("p", "one")).await;
    assert_eq!(dry.code, 201);
    assert!(pods(&world).get("p").await.unwrap().data["spec"].get("nodeName").is_none());
}

#[tokio::test]
async fn an_eviction_deletes_the_pod() {
    let world = World::new().await;
    create(&pods(&world), pod("p")).await.unwrap();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(world.send("POST", &format!("{PODS}/p/eviction"), &eviction).await.code, 201);
    assert!(pods(&world).get_opt("p").await.unwrap().is_none());
}

#[tokio::test]
async fn subresources_know_the_verbs_that_discovery_lists_and_no_others() {
    let world = World::new().await;
    create(&pods(&world), pod("p")).await.unwrap();
    let main = pods(&world).get("p").await.unwrap();
    let whole = serde_json::to_value(&main).unwrap();
    for (method, path) in [
        ("PUT", "p/log"),
        ("PUT", "p/binding"),
        ("GET", "p/binding"),
        ("POST", "p/status"),
        ("DELETE", "p/status"),
        ("PATCH", "p/eviction"),
    ] {
        let sent = world.send(method, &format!("{PODS}/{path}"), &whole).await;
        assert_eq!(sent.code, 405, "{method} {path}: {}", sent.text);
    }
    assert_eq!(pods(&world).get("p").await.unwrap().resource_version(), main.resource_version());
    assert_eq!(world.send("PATCH", "/api/v1/namespaces/default/finalize", &json!({})).await.code, 405);
}

#[tokio::test]
async fn debug_containers_are_added_and_nothing_else_changes() {
    let world = World::new().await;
    create(&pods(&world), pod("p")).await.unwrap();
    let path = format!("{PODS}/p/ephemeralcontainers");
    let change = json!({
        "metadata": {"labels": {"a": "b"}}, "status": {"phase": "Succeeded"},
        "spec": {"nodeName": "stolen", "ephemeralContainers": [{"name": "debug", "image": "busybox"}]},
    });
    let sent = world.send("PATCH", &path, &change).await;
    assert_eq!(sent.code, 200, "{}", sent.text);
    let after = pods(&world).get("p").await.unwrap();
    assert_eq!(after.data["spec"]["ephemeralContainers"][0]["name"], "debug");
    assert!(after.data["spec"].get("nodeName").is_none() && after.labels().is_empty());
    assert_ne!(after.data["status"]["phase"], "Succeeded");
    let removal = json!({"spec": {"ephemeralContainers": null}});
    assert_eq!(world.send("PATCH", &path, &removal).await.code, 422);
}

#[tokio::test]
async fn finalizing_a_namespace_does_not_set_its_status() {
    let world = World::new().await;
    let namespaces = world.all("v1", "Namespace", "namespaces");
    create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await.unwrap();
    let mut whole = serde_json::to_value(namespaces.get("team").await.unwrap()).unwrap();
    whole["status"]["phase"] = json!("Terminating");
    let sent = world.send("PUT", "/api/v1/namespaces/team/finalize", &whole).await;
    assert_eq!(sent.code, 200, "{}", sent.text);
    assert_eq!(namespaces.get("team").await.unwrap().data["status"]["phase"], "Active");
}
