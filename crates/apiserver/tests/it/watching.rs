//! Watches: order, resuming, initial events, expiry.

use futures::{StreamExt, TryStreamExt};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{DEADLINE, World, create, map, revision};

async fn next(stream: &mut (impl futures::Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Unpin)) -> String {
    let event = tokio::time::timeout(DEADLINE, stream.next()).await.expect("an event comes").expect("not ended");
    match event.unwrap() {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        WatchEvent::Bookmark(mark) => format!("bookmark {:?}", mark.metadata.annotations.keys().collect::<Vec<_>>()),
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

#[tokio::test]
async fn a_watch_shows_each_change_in_order_and_resumes() {
    let world = World::new().await;
    let start = world.server.revision().to_string();
    let maps = world.maps();
    let first = create(&maps, map("a")).await.unwrap();
    let mut stream = maps.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "added a");
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "2"}}))).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(next(&mut stream).await, "modified a");
    assert_eq!(next(&mut stream).await, "deleted a");
    let mut resumed = maps.watch(&WatchParams::default(), &revision(&first).to_string()).await.unwrap().boxed();
    assert_eq!(next(&mut resumed).await, "modified a");
    assert_eq!(next(&mut resumed).await, "deleted a");
}

#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_for_the_watcher() {
    let world = World::new().await;
    let maps = world.maps();
    let selected = WatchParams::default().labels("in=yes");
    let mut stream = maps.watch(&selected, &world.server.revision().to_string()).await.unwrap().boxed();
    create(&maps, map("a")).await.unwrap();
    for value in ["yes", "no"] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"in": value}}}));
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    assert_eq!(next(&mut stream).await, "added a");
    assert_eq!(next(&mut stream).await, "deleted a");
}

#[tokio::test]
async fn initial_events_end_with_the_annotated_bookmark() {
    let world = World::new().await;
    let maps = world.maps();
    create(&maps, map("a")).await.unwrap();
    let params = WatchParams::default().initial_events().fields("metadata.name=a");
    let mut stream = maps.watch(&params, "0").await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "added a");
    assert_eq!(next(&mut stream).await, r#"bookmark ["k8s.io/initial-events-end"]"#);
}

#[tokio::test]
async fn a_position_that_left_the_log_is_gone() {
    let world = World::new().await;
    let maps = world.maps();
    let start = world.server.revision();
    create(&maps, map("a")).await.unwrap();
    for n in 0..9_000 {
        let patch = Patch::Merge(json!({"data": {"key": n.to_string()}}));
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    let mut stream = maps.watch(&WatchParams::default(), &start.to_string()).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, "error 410");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn the_watcher_of_kube_follows_in_both_ways_of_starting() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let world = World::new().await;
        create(&world.maps(), map("a")).await.unwrap();
        let config = config.fields("metadata.name!=kube-root-ca.crt");
        let mut stream = watcher(world.maps(), config).applied_objects().boxed();
        let first = tokio::time::timeout(DEADLINE, stream.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.name_any(), "a");
        create(&world.maps(), map("b")).await.unwrap();
        let second = tokio::time::timeout(DEADLINE, stream.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(second.name_any(), "b");
    }
}

#[tokio::test]
async fn a_position_in_the_future_is_refused_as_lists_refuse_it() {
    let world = World::new().await;
    let ahead = world.server.revision() + 100;
    let path = format!("/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion={ahead}");
    let sent = world.send("GET", &path, &serde_json::Value::Null).await;
    assert_eq!(sent.code, 504);
    assert!(sent.message().contains("Too large resource version"), "{}", sent.message());
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up() {
    let world = World::new().await;
    let path = format!("/api/v1/secrets?watch=true&timeoutSeconds=1&resourceVersion={}", world.server.revision());
    let whole = world.send("GET", &path, &serde_json::Value::Null);
    let sent = tokio::time::timeout(DEADLINE, whole).await.expect("it ends");
    assert_eq!((sent.code, sent.text.as_str()), (200, ""));
}

#[tokio::test]
async fn an_idle_watch_ends_with_its_crd_after_the_last_event() {
    let world = World::new().await.with_widgets().await;
    create(&world.widgets(), super::widget("a")).await.unwrap();
    let start = world.server.revision().to_string();
    let mut stream = world.widgets().watch(&WatchParams::default(), &start).await.unwrap().boxed();
    let team = Api::namespaced_with(
        world.client.clone(),
        "kube-system",
        &super::resource("example.com/v1", "Widget", "widgets"),
    );
    let mut idle = team.watch(&WatchParams::default(), &start).await.unwrap().boxed();
    world.crds().delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    assert_eq!(next(&mut stream).await, "deleted a");
    for stream in [&mut stream, &mut idle] {
        let end = tokio::time::timeout(DEADLINE, stream.next()).await.expect("it ends with the CRD");
        assert!(end.is_none(), "{end:?}");
    }
}
