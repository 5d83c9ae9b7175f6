//! How objects end: finalizers, owners, namespaces.

use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{World, create, gone, map, refusal, resource, until};

fn owned(name: &str, owner: &kube::api::DynamicObject, kind: &str, api_version: &str) -> Value {
    let mut object = map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": api_version, "kind": kind, "name": owner.name_any(), "uid": owner.uid(),
        "blockOwnerDeletion": true,
    }]);
    object
}

#[tokio::test]
async fn a_finalizer_keeps_an_object_until_it_is_removed() {
    let world = World::new().await;
    let mut object = map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&world.maps(), object).await.unwrap();
    world.maps().delete("a", &DeleteParams::default()).await.unwrap();
    let held = world.maps().get("a").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.maps().patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert!(world.maps().get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn dependents_go_with_their_last_owner() {
    let world = World::new().await;
    let maps = world.maps();
    let owner = create(&maps, map("owner")).await.unwrap();
    let other = create(&maps, map("other")).await.unwrap();
    create(&maps, owned("only", &owner, "ConfigMap", "v1")).await.unwrap();
    let mut shared = owned("shared", &owner, "ConfigMap", "v1");
    let second = owned("x", &other, "ConfigMap", "v1")["metadata"]["ownerReferences"][0].clone();
    shared["metadata"]["ownerReferences"].as_array_mut().unwrap().push(second);
    create(&maps, shared).await.unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    gone(&maps, "only").await;
    let shared = until("the reference to the dead owner goes", async || {
        let shared = maps.get("shared").await.unwrap();
        (shared.owner_references().len() == 1).then_some(shared)
    })
    .await;
    assert_eq!(shared.owner_references()[0].name, "other");
}

#[tokio::test]
async fn an_owner_of_another_uid_is_no_owner() {
    let world = World::new().await;
    let maps = world.maps();
    let mut owner = create(&maps, map("owner")).await.unwrap();
    owner.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    create(&maps, owned("stray", &owner, "ConfigMap", "v1")).await.unwrap();
    gone(&maps, "stray").await;
    // Nor is one that is named later.
    create(&maps, map("late")).await.unwrap();
    let named = owned("late", &owner, "ConfigMap", "v1");
    maps.patch("late", &PatchParams::default(), &Patch::Merge(named)).await.unwrap();
    gone(&maps, "late").await;
}

#[tokio::test]
async fn foreground_waits_for_dependents_and_orphan_lets_them_live() {
    let world = World::new().await;
    let maps = world.maps();
    let owner = create(&maps, map("owner")).await.unwrap();
    let mut held = owned("held", &owner, "ConfigMap", "v1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&maps, held).await.unwrap();
    let foreground = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..Default::default() };
    maps.delete("owner", &foreground).await.unwrap();
    until("the dependent is being deleted", async || {
        maps.get("held").await.unwrap().metadata.deletion_timestamp.map(drop)
    })
    .await;
    assert!(maps.get_opt("owner").await.unwrap().is_some());
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &patch).await.unwrap();
    gone(&maps, "held").await;
    gone(&maps, "owner").await;

    let owner = create(&maps, map("owner")).await.unwrap();
    create(&maps, owned("child", &owner, "ConfigMap", "v1")).await.unwrap();
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..Default::default() };
    maps.delete("owner", &orphan).await.unwrap();
    gone(&maps, "owner").await;
    assert!(maps.get("child").await.unwrap().owner_references().is_empty());
}

#[tokio::test]
async fn a_namespace_is_furnished_emptied_and_gone() {
    let world = World::new().await;
    let namespaces = world.all("v1", "Namespace", "namespaces");
    let maps = Api::namespaced_with(world.client.clone(), "team", &resource("v1", "ConfigMap", "configmaps"));
    let accounts: Api<kube::api::DynamicObject> =
        Api::namespaced_with(world.client.clone(), "team", &resource("v1", "ServiceAccount", "serviceaccounts"));
    let (code, _, message) = refusal(create(&maps, map("a")).await);
    assert_eq!((code, message.as_str()), (404, r#"namespaces "team" not found"#));
    let team = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    let made = create(&namespaces, team).await.unwrap();
    assert_eq!(made.labels()["kubernetes.io/metadata.name"], "team");
    assert_eq!(made.data["status"]["phase"], "Active");
    assert!(accounts.get_opt("default").await.unwrap().is_some());
    assert!(maps.get_opt("kube-root-ca.crt").await.unwrap().is_some());
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&maps, held).await.unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    until("the namespace says what remains", async || {
        let team = namespaces.get("team").await.unwrap();
        let conditions = team.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["reason"] == "SomeFinalizersRemain").then_some(())
    })
    .await;
    let (code, reason, message) = refusal(create(&maps, map("late")).await);
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert!(
        message.ends_with("unable to create new content in namespace team because it is being terminated"),
        "{message}"
    );
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &patch).await.unwrap();
    gone(&namespaces, "team").await;
    assert_eq!(refusal(namespaces.delete("default", &DeleteParams::default()).await).0, 403);
}
