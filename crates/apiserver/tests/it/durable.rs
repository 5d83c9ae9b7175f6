//! A server on a file: what was acknowledged survives.

use embedded_apiserver::{Server, StartError, Storage};
use serde_json::json;

use super::{World, create, gone, map, widget};

#[tokio::test]
async fn a_restart_loses_nothing_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::File(directory.path().join("store.redb"));
    let world = World::on(storage.clone()).await.with_widgets().await;
    let made = create(&world.widgets(), widget("a")).await.unwrap();
    let token = world.server.token("someone", ["team"]);
    let (ca, revision) = (world.server.ca_pem().to_owned(), world.server.revision());
    assert!(matches!(Server::builder().storage(storage.clone()).build().await, Err(StartError::Store(_))));
    world.server.shutdown().await;

    let world = World::on(storage).await;
    assert_eq!(world.widgets().get("a").await.unwrap(), made);
    assert_eq!(world.server.ca_pem(), ca);
    assert_eq!(world.server.revision(), revision, "a restart on a finished store writes nothing");
    assert!(!token.is_empty());
}

#[tokio::test]
async fn dropping_the_server_is_as_good_as_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::File(directory.path().join("store.redb"));
    let world = World::on(storage.clone()).await;
    let owner = create(&world.maps(), map("owner")).await.unwrap();
    let mut child = map("child");
    child["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
    create(&world.maps(), child).await.unwrap();
    world.maps().delete("owner", &Default::default()).await.unwrap();
    drop(world);
    let world = World::on(storage).await;
    gone(&world.maps(), "child").await;
}
