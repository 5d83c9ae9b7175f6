//! Two state stores with one address: what one Destination has there is not another one's to overwrite or to remove (decision 16).

use kratix_api::{Condition, Destination, Promise, Work, WorkPlacement, condition, keys};
use kratix_testing::wait;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::placements::{Scene, told};
use crate::world::delivery;

/// Waits until the only placement of the Work `dep` on a Destination says this of its write.
async fn says(scene: &Scene, destination: &str, status: condition::Status, text: &str) -> WorkPlacement {
    let name = format!("dep.{destination}-5058f");
    wait::until(&scene.placements(), &name, &format!("{name}: {text}"), |placement: &WorkPlacement| {
        told(placement, condition::WRITE_SUCCEEDED)
            .is_some_and(|write| write.status == status && write.message.contains(text))
    })
    .await
}

async fn is_written(scene: &Scene, destination: &str) {
    says(scene, destination, condition::Status::True, "Workloads written to State Store").await;
}

async fn is_ready(scene: &Scene, destination: &str) {
    let is = |ready: &Condition| ready.status == condition::Status::True;
    delivery::ready(&scene.destinations(), destination, "ready", is).await;
}

async fn delete(scene: &Scene, destination: &str) {
    scene.destinations().delete(destination, &DeleteParams::default()).await.unwrap();
    wait::gone(&scene.destinations(), destination).await;
    wait::gone(&scene.placements(), &format!("dep.{destination}-5058f")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_goes_leaves_the_files_of_another_one_with_the_same_address_and_path() {
    let scene = Scene::start().await;
    scene.add_store("twin", "a", json!({})).await;
    let at = |store| ("GitStateStore", store);
    scene.world.add_destination("t1", at("default"), "nestedByMetadata", json!({ "path": "shared" })).await;
    is_ready(&scene, "t1").await;
    scene.world.apply_work(("default", "dep"), "", json!({}), &[("dep.yaml", "a: 1\n")]).await;
    is_written(&scene, "t1").await;
    let shared = json!({ "path": "shared", "cleanup": "all" });
    scene.world.add_destination("t2", at("twin"), "nestedByMetadata", shared).await;
    is_ready(&scene, "t2").await;
    let taken = "path \"shared/dependencies/redis/5058f\" already belongs to workplacement default/dep.t1-5058f; hint: give one \
                 of the two Destinations another path";
    says(&scene, "t2", condition::Status::False, taken).await;
    delete(&scene, "t2").await;
    let files = [
        "shared/dependencies/kratix-canary-namespace.yaml",
        "shared/dependencies/redis/5058f/dep.yaml",
        "shared/resources/kratix-canary-configmap.yaml",
    ];
    scene.holds("a", &files).await;
    is_written(&scene, "t1").await;
    // Whoever is the last one there cleans up.
    let all = Patch::Merge(json!({ "spec": { "cleanup": "all" } }));
    scene.destinations().patch("t1", &PatchParams::default(), &all).await.unwrap();
    let cleans_up = |t1: &Destination| t1.finalizers().iter().any(|it| it == keys::FINALIZER_DESTINATION_CLEANUP);
    wait::until(&scene.destinations(), "t1", "t1 to clean up", cleans_up).await;
    delete(&scene, "t1").await;
    scene.holds("a", &[]).await;
}

/// Whoever may make Works in a namespace can give them the name of any Promise.
#[tokio::test(flavor = "multi_thread")]
async fn the_dependencies_of_a_promise_have_their_directory_whoever_was_there_before() {
    for home in [keys::SYSTEM_NAMESPACE, "pipes"] {
        let scene = Scene::start().await;
        if home == "pipes" {
            scene.world.add_namespace(home).await;
            let spec = json!({ "workflows": { "config": { "pipelineNamespace": home } } });
            let promise = Promise::new("redis", serde_json::from_value(spec).unwrap());
            Api::all(scene.world.client.clone()).create(&PostParams::default(), &promise).await.unwrap();
        }
        let own_path = json!({ "path": "shared" });
        scene.world.add_destination("t1", ("GitStateStore", "default"), "nestedByMetadata", own_path).await;
        is_ready(&scene, "t1").await;
        scene.world.apply_work(("default", "dep"), "", json!({}), &[("theirs.yaml", "a: 1\n")]).await;
        is_written(&scene, "t1").await;
        scene.world.apply_work((home, "own"), "", json!({}), &[("own.yaml", "a: 1\n")]).await;
        let taken = format!("already belongs to workplacement {home}/own.t1-5058f");
        says(&scene, "t1", condition::Status::False, &taken).await;
        let files = [
            "shared/dependencies/kratix-canary-namespace.yaml",
            "shared/dependencies/redis/5058f/own.yaml",
            "shared/resources/kratix-canary-configmap.yaml",
        ];
        scene.holds("a", &files).await;
        if home == keys::SYSTEM_NAMESPACE {
            let works = Api::<Work>::namespaced(scene.world.client.clone(), home);
            works.delete("own", &DeleteParams::default()).await.unwrap();
            is_written(&scene, "t1").await;
            scene.holds("a", &[files[0], "shared/dependencies/redis/5058f/theirs.yaml", files[2]]).await;
            continue;
        }
        scene.works().delete("dep", &DeleteParams::default()).await.unwrap();
        wait::gone(&scene.placements(), "dep.t1-5058f").await;
        scene.holds("a", &files).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_with_other_paths_in_one_repository_share_no_file() {
    for mode in ["none", "aggregatedYAML"] {
        let scene = Scene::start().await;
        scene.add_store("deep", "a", json!({ "path": "sh2" })).await;
        let more = |path: &str| json!({ "path": path, "cleanup": "all", "initWorkloads": { "enabled": false } });
        scene.world.add_destination("u1", ("GitStateStore", "default"), mode, more("sh2/x")).await;
        scene.world.apply_work(("default", "dep"), "", json!({}), &[("a.yaml", "a: 1\n")]).await;
        is_written(&scene, "u1").await;
        let files = scene.files("a").await;
        scene.world.add_destination("u2", ("GitStateStore", "deep"), mode, more("x")).await;
        says(&scene, "u2", condition::Status::False, "already belongs to").await;
        delete(&scene, "u2").await;
        assert_eq!(scene.files("a").await, files, "{mode}");
        if mode == "none" {
            continue; // a path in a state file is asked for again after a pause
        }
        scene.world.add_destination("u2", ("GitStateStore", "deep"), mode, more("x")).await;
        says(&scene, "u2", condition::Status::False, "already belongs to").await;
        delete(&scene, "u1").await;
        is_written(&scene, "u2").await;
    }
}

/// Weaknesses 22, 24
#[tokio::test(flavor = "multi_thread")]
async fn placements_whose_state_files_would_have_one_name_lose_nothing_to_each_other() {
    let scene = Scene::start().await;
    let flat = json!({ "path": "flat", "initWorkloads": { "enabled": false } });
    scene.world.add_destination("d", ("GitStateStore", "default"), "none", flat).await;
    is_ready(&scene, "d").await;
    let spaces = ["a-b", "a"];
    for namespace in spaces {
        scene.world.add_namespace(namespace).await;
    }
    let placements = spaces.map(|namespace| Api::<WorkPlacement>::namespaced(scene.world.user.clone(), namespace));
    let write = |status: condition::Status| {
        move |placement: &WorkPlacement| {
            told(placement, condition::WRITE_SUCCEEDED).is_some_and(|write| write.status == status)
        }
    };
    scene.world.apply_work(("a-b", "c"), "", json!({}), &[("x.yaml", "x: 1\n")]).await;
    wait::until(&placements[0], "c.d-5058f", "the first", write(condition::Status::True)).await;
    scene.world.apply_work(("a", "b-c"), "", json!({}), &[("y.yaml", "y: 1\n")]).await;
    let refused = wait::until(&placements[1], "b-c.d-5058f", "the second", write(condition::Status::False)).await;
    let message = told(&refused, condition::WRITE_SUCCEEDED).unwrap().message.clone();
    let taken = "path \"flat/.kratix/a-b-c.d-5058f.yaml\" already belongs to workplacement a-b/c.d-5058f; hint: ";
    assert!(message.starts_with(taken), "{message}");
    scene.holds("a", &["flat/.kratix/a-b-c.d-5058f.yaml", "flat/x.yaml"]).await;

    let works = Api::<Work>::namespaced(scene.world.user.clone(), "a-b");
    works.delete("c", &DeleteParams::default()).await.unwrap();
    wait::until(&placements[1], "b-c.d-5058f", "its turn", write(condition::Status::True)).await;
    scene.holds("a", &["flat/.kratix/a-b-c.d-5058f.yaml", "flat/y.yaml"]).await;
}
