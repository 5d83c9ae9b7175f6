//! Owner references: what goes with whom, and what must not.

use std::sync::Arc;

use embedded_apiserver::{Admission, AdmissionRequest, Admitted, Denial, Operation};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{World, create, gone, map, until, widget, widget_crd};

const NOBODY: &str = "11111111-2222-3333-4444-555555555555";

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": true})
}

fn owned(name: &str, by: Value) -> Value {
    let mut object = map(name);
    object["metadata"]["ownerReferences"] = json!([by]);
    object
}

/// Waits until the collector has looked at everything that was noticed before: it takes things in order.
async fn collected(world: &World) {
    create(&world.maps(), owned("canary", reference("v1", "ConfigMap", "nobody", NOBODY))).await.unwrap();
    gone(&world.maps(), "canary").await;
}

async fn touch(api: &Api<DynamicObject>, name: &str) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn set_served(world: &World, served: Value) {
    let crd = world.crds().get("widgets.example.com").await.unwrap();
    let mut versions = crd.data["spec"]["versions"].clone();
    for (version, served) in versions.as_array_mut().unwrap().iter_mut().zip(served.as_array().unwrap()) {
        version["served"] = served.clone();
    }
    let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
    world.crds().patch("widgets.example.com", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_dependent_stays_when_the_version_that_names_its_owner_is_served_no_longer() {
    let world = World::new().await;
    let mut crd = widget_crd();
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    create(&world.crds(), crd).await.unwrap();
    let owner = create(&world.widgets(), widget("owner")).await.unwrap();
    let uid = owner.uid().unwrap();
    create(&world.maps(), owned("child", reference("example.com/v2", "Widget", "owner", &uid))).await.unwrap();
    for served in [json!([true, false]), json!([false, false])] {
        set_served(&world, served).await;
        touch(&world.maps(), "child").await;
        collected(&world).await;
        assert!(world.maps().get_opt("child").await.unwrap().is_some());
    }
    set_served(&world, json!([true, false])).await;
    world.widgets().delete("owner", &DeleteParams::background()).await.unwrap();
    gone(&world.maps(), "child").await;
}

#[tokio::test]
async fn a_dependent_of_an_unknown_kind_waits_until_the_kind_is_known() {
    let world = World::new().await;
    create(&world.maps(), owned("child", reference("example.com/v1", "Widget", "owner", NOBODY))).await.unwrap();
    collected(&world).await;
    assert!(world.maps().get_opt("child").await.unwrap().is_some());
    create(&world.crds(), widget_crd()).await.unwrap();
    gone(&world.maps(), "child").await;
}

#[tokio::test]
async fn a_cluster_scoped_object_is_not_collected_for_an_owner_in_a_namespace() {
    let world = World::new().await;
    let roles = world.all("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles");
    let owner = create(&world.maps(), map("owner")).await.unwrap();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [],
        "metadata": {"name": "child", "ownerReferences": [reference("v1", "ConfigMap", "owner", &owner.uid().unwrap())]},
    });
    create(&roles, role).await.unwrap();
    collected(&world).await;
    world.maps().delete("owner", &DeleteParams::background()).await.unwrap();
    collected(&world).await;
    assert!(roles.get_opt("child").await.unwrap().is_some());
}

#[tokio::test]
async fn dependents_go_with_custom_resources_that_go_with_their_crd() {
    let world = World::new().await.with_widgets().await;
    let owner = create(&world.widgets(), widget("owner")).await.unwrap();
    let by = reference("example.com/v1", "Widget", "owner", &owner.uid().unwrap());
    create(&world.maps(), owned("child", by)).await.unwrap();
    world.crds().delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    gone(&world.crds(), "widgets.example.com").await;
    gone(&world.maps(), "child").await;
}

#[tokio::test]
async fn a_foreground_owner_goes_when_a_dependent_lets_go_of_it() {
    let world = World::new().await;
    let maps = world.maps();
    for change in [
        json!({"metadata": {"ownerReferences": null}}),
        json!({"metadata": {"ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "UID", "blockOwnerDeletion": false,
        }]}}),
    ] {
        let uid = create(&maps, map("owner")).await.unwrap().uid().unwrap();
        let mut held = owned("held", reference("v1", "ConfigMap", "owner", &uid));
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        create(&maps, held).await.unwrap();
        let foreground = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..Default::default() };
        maps.delete("owner", &foreground).await.unwrap();
        until("the dependent is being deleted", async || {
            maps.get("held").await.unwrap().metadata.deletion_timestamp.map(drop)
        })
        .await;
        collected(&world).await;
        assert!(maps.get_opt("owner").await.unwrap().is_some());
        let change: Value = serde_json::from_str(&change.to_string().replace("UID", &uid)).unwrap();
        maps.patch("held", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
        gone(&maps, "owner").await;
        let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        maps.patch("held", &PatchParams::default(), &release).await.unwrap();
        gone(&maps, "held").await;
    }
}

/// Panics, or never answers, when the collector deletes certain objects.
struct Moody(tokio::sync::Notify);

#[async_trait::async_trait]
impl Admission for Moody {
    async fn admit(&self, request: AdmissionRequest) -> Result<Admitted, Denial> {
        match (request.operation, request.name.as_str()) {
            (Operation::Delete, "cursed") => panic!("this one is cursed"),
            (Operation::Delete, "stuck") => {
                self.0.notify_one();
                std::future::pending().await
            }
            _ => Ok(Admitted { object: request.object, warnings: Vec::new() }),
        }
    }
}

#[tokio::test]
async fn one_object_that_makes_the_collector_panic_does_not_stop_it() {
    let world = World::with_admission(Arc::new(Moody(tokio::sync::Notify::new()))).await;
    create(&world.maps(), owned("cursed", reference("v1", "ConfigMap", "nobody", NOBODY))).await.unwrap();
    collected(&world).await;
    assert!(world.maps().get_opt("cursed").await.unwrap().is_some());
}

#[tokio::test]
async fn the_server_stops_while_a_chore_waits() {
    let moody = Arc::new(Moody(tokio::sync::Notify::new()));
    let world = World::with_admission(moody.clone()).await;
    create(&world.maps(), owned("stuck", reference("v1", "ConfigMap", "nobody", NOBODY))).await.unwrap();
    moody.0.notified().await;
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(5), world.server.shutdown()).await;
    assert!(stopped.is_ok(), "the chore holds the server up");
}
