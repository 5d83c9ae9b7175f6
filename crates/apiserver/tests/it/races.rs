//! What happens between the checks of a request and its write, and chores that meet a refusal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use embedded_apiserver::{Admission, AdmissionRequest, Admitted, Denial, Operation};
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{World, create, gone, map, refusal, resource, until, widget, widget_crd};

/// Deletes something while an object called `late` is being admitted.
struct Meanwhile {
    client: OnceLock<Client>,
    api_version: &'static str,
    kind: &'static str,
    plural: &'static str,
    name: &'static str,
}

#[async_trait]
impl Admission for Meanwhile {
    async fn admit(&self, request: AdmissionRequest) -> Result<Admitted, Denial> {
        if request.name == "late" && request.operation == Operation::Create {
            let client = self.client.get().expect("set by the test").clone();
            let resource = resource(self.api_version, self.kind, self.plural);
            let api: Api<kube::api::DynamicObject> = Api::all_with(client, &resource);
            api.delete(self.name, &DeleteParams::default()).await.expect("it exists");
        }
        Ok(Admitted { object: request.object, warnings: Vec::new() })
    }
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_ends_during_admission() {
    let hook =
        Meanwhile { client: OnceLock::new(), api_version: "v1", kind: "Namespace", plural: "namespaces", name: "team" };
    let hook = Arc::new(hook);
    let world = World::with_admission(hook.clone()).await;
    hook.client.set(world.client.clone()).ok().unwrap();
    let namespaces = world.all("v1", "Namespace", "namespaces");
    create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await.unwrap();
    let maps = Api::namespaced_with(world.client.clone(), "team", &resource("v1", "ConfigMap", "configmaps"));
    let (code, _, message) = refusal(create(&maps, map("late")).await);
    assert!(code == 403 || code == 404, "{code} {message}");
    gone(&namespaces, "team").await;
    assert!(maps.list(&Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn no_custom_resource_is_created_while_its_crd_ends() {
    let hook = Meanwhile {
        client: OnceLock::new(),
        api_version: "apiextensions.k8s.io/v1",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        name: "widgets.example.com",
    };
    let hook = Arc::new(hook);
    let world = World::with_admission(hook.clone()).await.with_widgets().await;
    hook.client.set(world.client.clone()).ok().unwrap();
    let mut held = widget("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&world.widgets(), held).await.unwrap();
    let late = "create not allowed while custom resource definition is terminating";
    // The first meets the end of the CRD during its admission, the second comes after it.
    for name in ["late", "later"] {
        let (code, reason, message) = refusal(create(&world.widgets(), widget(name)).await);
        assert_eq!((code, reason.as_str(), message.as_str()), (405, "MethodNotAllowed", late));
    }
    let names: Vec<String> =
        world.widgets().list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["held"]);
}

#[tokio::test]
async fn a_crd_without_served_versions_takes_its_resources_with_it() {
    let world = World::new().await.with_widgets().await;
    create(&world.widgets(), widget("a")).await.unwrap();
    let mut versions = widget_crd()["spec"]["versions"].clone();
    versions[0]["served"] = json!(false);
    let patch = kube::api::Patch::Merge(json!({"spec": {"versions": versions}}));
    world.crds().patch("widgets.example.com", &Default::default(), &patch).await.unwrap();
    assert_eq!(refusal(world.widgets().get("a").await).0, 404);
    world.crds().delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    gone(&world.crds(), "widgets.example.com").await;
    let world = world.with_widgets().await;
    assert!(world.widgets().list(&Default::default()).await.unwrap().items.is_empty());
}

/// Refuses to delete objects called `a-stubborn` while the flag is set.
struct Stubborn(AtomicBool);

#[async_trait]
impl Admission for Stubborn {
    async fn admit(&self, request: AdmissionRequest) -> Result<Admitted, Denial> {
        let refused = request.operation == Operation::Delete && request.name == "a-stubborn";
        if refused && self.0.load(Ordering::SeqCst) {
            return Err(Denial::webhook("stubborn.example.com", "not yet"));
        }
        Ok(Admitted { object: request.object, warnings: Vec::new() })
    }
}

#[tokio::test]
async fn one_refused_deletion_holds_up_no_other_and_is_tried_again_however_busy_the_server_is() {
    let hook = Arc::new(Stubborn(AtomicBool::new(true)));
    let world = World::with_admission(hook.clone()).await.with_widgets().await;
    let namespaces = world.all("v1", "Namespace", "namespaces");
    create(&namespaces, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await.unwrap();
    let maps = Api::namespaced_with(world.client.clone(), "team", &resource("v1", "ConfigMap", "configmaps"));
    for name in ["a-stubborn", "b-free"] {
        create(&maps, map(name)).await.unwrap();
        create(&world.widgets(), widget(name)).await.unwrap();
    }
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    world.crds().delete("widgets.example.com", &DeleteParams::default()).await.unwrap();
    gone(&maps, "b-free").await;
    gone(&world.widgets(), "b-free").await;
    until("the namespace says what is refused", async || {
        let team = namespaces.get("team").await.unwrap();
        let conditions = team.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let failure = conditions.into_iter().find(|one| one["type"] == "NamespaceDeletionContentFailure")?;
        failure["message"].as_str().unwrap_or_default().contains("not yet").then_some(())
    })
    .await;
    hook.0.store(false, Ordering::SeqCst);
    // Every look makes more work for the worker; the retry has to come all the same.
    let mut stray = map("stray-");
    stray["metadata"] = json!({"generateName": "stray-", "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "11111111-2222-3333-4444-555555555555",
    }]});
    until("namespace and CRD are gone", async || {
        create(&world.maps(), stray.clone()).await.unwrap();
        let namespace = namespaces.get_opt("team").await.unwrap();
        let crd = world.crds().get_opt("widgets.example.com").await.unwrap();
        (namespace.is_none() && crd.is_none()).then_some(())
    })
    .await;
}
