//! CRDs and their resources.

use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{World, create, gone, refusal, revision, widget, widget_crd};

#[tokio::test]
async fn a_crd_is_established_and_serves_at_once() {
    let world = World::new().await;
    let (code, _, message) = refusal(create(&world.widgets(), widget("a")).await);
    assert_eq!((code, message.as_str()), (404, "the server could not find the requested resource"));
    let crd = create(&world.crds(), widget_crd()).await.unwrap();
    assert_eq!(crd.data["status"]["acceptedNames"]["kind"], "Widget");
    assert_eq!(crd.data["status"]["storedVersions"], json!(["v1"]));
    let made = create(&world.widgets(), widget("a")).await.unwrap();
    assert_eq!(made.data["spec"], json!({"size": 1, "color": "red"}));
    assert_eq!(made.metadata.generation, Some(1));
}

#[tokio::test]
async fn objects_are_pruned_and_validated() {
    let world = World::new().await.with_widgets().await;
    let mut object = widget("a");
    object["spec"]["unknown"] = json!(true);
    let made = create(&world.widgets(), object).await.unwrap();
    assert!(made.data["spec"].get("unknown").is_none());
    let mut object = widget("b");
    object["spec"] = json!({"size": 0, "color": "green"});
    let (code, reason, message) = refusal(create(&world.widgets(), object).await);
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(
        message.contains("spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        "{message}"
    );
    assert!(
        message.contains(r#"spec.color: Unsupported value: "green": supported values: "red", "blue""#),
        "{message}"
    );
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let world = World::new().await.with_widgets().await;
    let mut object = widget("a");
    object["status"] = json!({"phase": "Early"});
    let made = create(&world.widgets(), object).await.unwrap();
    assert!(made.data.get("status").is_none());
    let both = Patch::Merge(json!({"spec": {"size": 2}, "status": {"phase": "Done"}}));
    let status = world.widgets().patch_status("a", &PatchParams::default(), &both).await.unwrap();
    assert_eq!((&status.data["spec"]["size"], &status.data["status"]["phase"]), (&json!(1), &json!("Done")));
    assert_eq!(status.metadata.generation, Some(1));
    let main = world
        .widgets()
        .patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": 3}, "status": null})))
        .await
        .unwrap();
    assert_eq!((&main.data["spec"]["size"], &main.data["status"]["phase"]), (&json!(3), &json!("Done")));
    assert_eq!(main.metadata.generation, Some(2));
    let same = world.widgets().replace_status("a", &PostParams::default(), &main).await.unwrap();
    assert_eq!(revision(&same), revision(&main));
}

#[tokio::test]
async fn a_changed_schema_holds_at_once_also_for_old_objects() {
    let world = World::new().await.with_widgets().await;
    create(&world.widgets(), widget("a")).await.unwrap();
    let weight = json!({"type": "integer", "default": 5});
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/weight";
    let steps = serde_json::from_value(json!([{"op": "add", "path": path, "value": weight}])).unwrap();
    world.crds().patch("widgets.example.com", &PatchParams::default(), &Patch::<()>::Json(steps)).await.unwrap();
    assert_eq!(world.widgets().get("a").await.unwrap().data["spec"]["weight"], 5);
}

#[tokio::test]
async fn every_served_version_shows_the_same_object() {
    let world = World::new().await;
    let mut crd = widget_crd();
    let mut second = crd["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    second["storage"] = json!(false);
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    create(&world.crds(), crd).await.unwrap();
    create(&world.widgets(), widget("a")).await.unwrap();
    let two = world.api("example.com/v2", "Widget", "widgets");
    let seen = two.get("a").await.unwrap();
    assert_eq!(seen.types.unwrap().api_version, "example.com/v2");
    two.patch("a", &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": 9}}))).await.unwrap();
    let one = world.widgets().get("a").await.unwrap();
    assert_eq!((one.types.unwrap().api_version.as_str(), &one.data["spec"]["size"]), ("example.com/v1", &json!(9)));
}

#[tokio::test]
async fn a_crd_takes_its_resources_with_it() {
    let world = World::new().await.with_widgets().await;
    let mut held = widget("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&world.widgets(), held).await.unwrap();
    create(&world.widgets(), widget("free")).await.unwrap();
    world.crds().delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    gone(&world.widgets(), "free").await;
    let crd = world.crds().get("widgets.example.com").await.unwrap();
    assert!(crd.finalizers().contains(&"customresourcecleanup.apiextensions.k8s.io".to_owned()));
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.widgets().patch("held", &PatchParams::default(), &patch).await.unwrap();
    gone(&world.crds(), "widgets.example.com").await;
    let (code, _, message) = refusal(world.widgets().get("free").await);
    assert_eq!((code, message.as_str()), (404, "the server could not find the requested resource"));
}

#[tokio::test]
async fn an_invalid_crd_is_refused() {
    let world = World::new().await;
    let mut crd = widget_crd();
    crd["metadata"]["name"] = json!("gadgets.example.com");
    assert_eq!(refusal(create(&world.crds(), crd).await).0, 422);
    let mut crd = widget_crd();
    let second = crd["spec"]["versions"][0].clone();
    crd["spec"]["versions"].as_array_mut().unwrap().push(second);
    assert_eq!(refusal(create(&world.crds(), crd).await).0, 422);
}

#[tokio::test]
async fn an_object_from_before_a_stricter_schema_can_still_change_and_end() {
    let world = World::new().await.with_widgets().await;
    let mut old = widget("old");
    old["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&world.widgets(), old).await.unwrap();
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let steps = serde_json::from_value(json!([
        {"op": "replace", "path": format!("{path}/spec/properties/size/minimum"), "value": 5},
        {"op": "add", "path": format!("{path}/spec/x-kubernetes-validations"), "value": [
            {"rule": "!has(self.color) || self.color != 'red' || self.size > 7", "message": "red ones are large"},
        ]},
    ]));
    world
        .crds()
        .patch("widgets.example.com", &PatchParams::default(), &Patch::<()>::Json(steps.unwrap()))
        .await
        .unwrap();
    let (code, _, _) = refusal(create(&world.widgets(), widget("new")).await);
    assert_eq!(code, 422);
    let patch = async |value: serde_json::Value| {
        world.widgets().patch("old", &PatchParams::default(), &Patch::Merge(value)).await
    };
    patch(json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "Done"}}));
    world.widgets().patch_status("old", &PatchParams::default(), &status).await.unwrap();
    // What is changed has to be right, together with the rules that look at it.
    let (code, _, message) = refusal(patch(json!({"spec": {"size": 2}})).await);
    assert_eq!(code, 422);
    assert!(message.contains("should be greater than or equal to 5"), "{message}");
    let blue = patch(json!({"spec": {"color": "blue"}})).await.unwrap();
    assert_eq!(blue.data["spec"], json!({"size": 1, "color": "blue"}));
    let (code, _, message) = refusal(patch(json!({"spec": {"color": "red"}})).await);
    assert_eq!(code, 422);
    assert!(message.contains("red ones are large"), "{message}");
    world.widgets().delete("old", &DeleteParams::default()).await.unwrap();
    patch(json!({"metadata": {"finalizers": null}})).await.unwrap();
    gone(&world.widgets(), "old").await;
}
