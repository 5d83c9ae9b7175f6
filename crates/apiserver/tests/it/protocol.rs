//! HTTP as clients send it: bodies, parameters, discovery, warnings.

use std::sync::Arc;

use bytes::Bytes;
use embedded_apiserver::{Exposition, Server, User};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::{World, create, map, send_raw, widget, widget_crd};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn half_a_body_is_refused_and_nothing_is_deleted() {
    let world = World::new().await;
    create(&world.maps(), map("a")).await.unwrap();
    let parts = [
        Ok(Frame::data(Bytes::from_static(b"{\"preconditions\":"))),
        Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
    ];
    let cut = StreamBody::new(futures::stream::iter(parts));
    let sent = send_raw(&world.server, User::admin("admin"), "DELETE", &format!("{MAPS}/a"), cut).await;
    assert_eq!((sent.code, sent.value()["reason"].clone()), (400, json!("BadRequest")));
    assert!(world.maps().get_opt("a").await.unwrap().is_some());
    let broken = Full::new(Bytes::from_static(b"{\"preconditions\":"));
    let sent = send_raw(&world.server, User::admin("admin"), "DELETE", &format!("{MAPS}/a"), broken).await;
    assert_eq!(sent.code, 400);
    assert!(world.maps().get_opt("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    let world = World::new().await;
    let large = Full::new(Bytes::from(vec![b' '; (3 << 20) + 1]));
    let sent = send_raw(&world.server, User::admin("admin"), "POST", MAPS, large).await;
    assert_eq!((sent.code, sent.value()["reason"].clone()), (413, json!("RequestEntityTooLarge")));
}

#[tokio::test]
async fn a_patch_that_multiplies_an_object_is_refused() {
    let world = World::new().await;
    create(&world.maps(), map("a")).await.unwrap();
    let steps: Vec<Value> = (0..60).map(|n| json!({"op": "copy", "from": "", "path": format!("/data/k{n}")})).collect();
    let request = http::Request::builder().method("PATCH").uri(format!("{MAPS}/a"));
    let request = request.header("content-type", "application/json-patch+json");
    let request = request.body(Value::from(steps).to_string()).unwrap();
    let mut service = world.server.service(User::admin("admin"));
    let response = tower::Service::call(&mut service, request).await.unwrap();
    assert_eq!(response.status(), 422);
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped_as_asked() {
    let world = World::new().await.with_widgets().await;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let odd = |name: &str| {
        let mut object = widget(name);
        object["spec"]["colour"] = json!("red");
        object
    };
    let strict = world.send("POST", &format!("{path}?fieldValidation=Strict"), &odd("a")).await;
    assert_eq!(strict.code, 400);
    assert!(strict.message().contains(r#"unknown field "spec.colour""#), "{}", strict.message());
    let warn = world.send("POST", &format!("{path}?fieldValidation=Warn"), &odd("b")).await;
    assert_eq!(warn.code, 201);
    assert_eq!(warn.warnings, [r#"299 - "unknown field \"spec.colour\"""#]);
    let ignore = world.send("POST", &format!("{path}?fieldValidation=Ignore"), &odd("c")).await;
    assert_eq!((ignore.code, ignore.warnings.len()), (201, 0));
    assert!(ignore.value()["spec"].get("colour").is_none());
    assert_eq!(world.send("POST", &format!("{path}?fieldValidation=Perhaps"), &odd("d")).await.code, 422);
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let world = World::new().await;
    for (name, tier) in [("a", "gold"), ("b", "silver"), ("c", "gold")] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        create(&world.maps(), object).await.unwrap();
    }
    let gold = ListParams::default().labels("tier=gold");
    world.maps().delete_collection(&DeleteParams::default(), &gold).await.unwrap();
    let left = world.maps().list(&ListParams::default().labels("tier")).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn plain_discovery_lists_groups_versions_and_resources() {
    let world = World::new().await.with_widgets().await;
    let get = async |path: &str| {
        let sent = world.send("GET", path, &Value::Null).await;
        assert_eq!(sent.code, 200, "{path}: {}", sent.text);
        sent.value()
    };
    assert_eq!(get("/api").await["versions"], json!(["v1"]));
    let groups = get("/apis").await;
    assert!(groups["groups"].as_array().unwrap().iter().any(|one| one["name"] == "example.com"), "{groups}");
    assert_eq!(get("/apis/example.com").await["preferredVersion"]["version"], "v1");
    let names = async |path: &str| -> Vec<String> {
        let list = get(path).await;
        list["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("/apis/example.com/v1").await, ["widgets", "widgets/status"]);
    assert!(names("/api/v1").await.contains(&"pods/binding".to_owned()));
    assert_eq!(world.send("GET", "/apis/none.example.com", &Value::Null).await.code, 404);
}

#[tokio::test]
async fn what_is_not_served_is_said() {
    let world = World::new().await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut crd = widget_crd();
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://example.com/convert"}}});
    let one = world.send("POST", crds, &crd).await;
    assert_eq!(one.code, 201, "{}", one.text);
    assert!(one.warnings[0].contains("no conversion webhooks"), "{:?}", one.warnings);
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    let change = json!({"spec": {"versions": crd["spec"]["versions"]}});
    let two = world.send("PATCH", &format!("{crds}/widgets.example.com"), &change).await;
    assert_eq!(two.code, 422, "{}", two.text);
    assert!(two.message().contains("spec.conversion.strategy: Invalid value: \"Webhook\""), "{}", two.message());
    let hooks = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "w"}, "webhooks": []});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let sent = world.send("POST", path, &hooks).await;
    assert_eq!(sent.code, 201, "{}", sent.text);
    assert!(sent.warnings[0].contains("has no effect"), "{:?}", sent.warnings);
}

#[tokio::test]
async fn writes_are_counted_for_those_who_may_look() {
    let world = World::new().await;
    create(&world.maps(), map("a")).await.unwrap();
    let nothing = || Full::new(Bytes::new());
    let sent = send_raw(&world.server, User::admin("admin"), "GET", "/metrics", nothing()).await;
    assert_eq!(sent.code, 200);
    let text = sent.text;
    assert!(text.contains(r#"verb="create",resource="configmaps"} "#), "{text}");
    let sent = send_raw(&world.server, User::service_account("default", "nosy"), "GET", "/metrics", nothing()).await;
    assert_eq!(sent.code, 403);
}

struct Weather;

impl Exposition for Weather {
    fn exposition(&self) -> String {
        "weather_degrees 21\n".into()
    }
}

#[tokio::test]
async fn an_embedder_adds_its_own_metrics() {
    let server = Server::builder().exposition(Arc::new(Weather)).build().await.unwrap();
    let sent = send_raw(&server, User::admin("admin"), "GET", "/metrics", Full::new(Bytes::new())).await;
    assert_eq!(sent.code, 200);
    assert!(sent.text.contains("embedded_apiserver_writes_total"), "{}", sent.text);
    assert!(sent.text.ends_with("\nweather_degrees 21\n"), "{}", sent.text);
    server.shutdown().await;
}

/// Lists in each other.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!("x"), |below, _| json!([below]))
}

#[tokio::test]
async fn what_is_stored_can_be_read_whatever_its_depth() {
    let world = World::new().await;
    let mut crd = widget_crd();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["free"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    create(&world.crds(), crd).await.unwrap();
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    // Maps, because each of their levels is one more in managedFields as well.
    let deep = |levels: usize| (0..levels).fold(json!("x"), |below, _| json!({"a": below}));
    for (levels, code) in [(100, 201), (110, 201), (118, 400), (125, 400)] {
        let mut object = widget(&format!("w{levels}"));
        object["free"] = deep(levels);
        let sent = world.send("POST", path, &object).await;
        assert_eq!(sent.code, code, "{levels}: {}", sent.message());
        if code == 400 {
            assert!(
                sent.message().contains("levels deep (metadata.managedFields included), at most 120"),
                "{}",
                sent.text
            );
        }
    }
    let touch = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(world.send("PATCH", &format!("{path}/w110"), &touch).await.code, 200);
    let yaml = format!("apiVersion: example.com/v1\nkind: Widget\nfree: {}x{}", "[".repeat(5000), "]".repeat(5000));
    let request = http::Request::post(path).header("content-type", "application/yaml").body(yaml).unwrap();
    let response = tower::Service::call(&mut world.server.service(User::admin("admin")), request).await.unwrap();
    assert_eq!(response.status().as_u16(), 400);
    for (name, levels, code) in [("fits", 118, 201), ("over", 119, 400)] {
        let mut object = widget(name);
        object["free"] = json!({"a": nested(levels)});
        assert_eq!(world.send("POST", path, &object).await.code, code, "{name}");
    }
    let list = world.send("GET", path, &Value::Null).await;
    assert_eq!(list.value()["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_watch_may_ask_for_any_time() {
    let world = World::new().await;
    let request = http::Request::get("/api/v1/namespaces?watch=1&timeoutSeconds=18446744073709551615");
    let request = request.body(String::new()).unwrap();
    let response = tower::Service::call(&mut world.server.service(User::admin("admin")), request).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let mut events = response.into_body();
    let first = http_body_util::BodyExt::frame(&mut events).await.unwrap().unwrap();
    assert!(!first.into_data().unwrap().is_empty());
}
