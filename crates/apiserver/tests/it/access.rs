//! Who may do what: roles, admission.

use std::sync::Arc;

use async_trait::async_trait;
use embedded_apiserver::{Admission, AdmissionRequest, Admitted, Denial, Operation, Server, User};
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::json;

use super::{World, create, map, refusal, resource};

#[tokio::test]
async fn roles_allow_what_they_say_and_nothing_else() {
    let world = World::new().await;
    let roles = world.api("rbac.authorization.k8s.io/v1", "Role", "roles");
    let bindings = world.api("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings");
    let client = Client::new(world.server.service(User::service_account("default", "reader")), "default");
    let maps: Api<kube::api::DynamicObject> =
        Api::default_namespaced_with(client, &resource("v1", "ConfigMap", "configmaps"));
    let (code, reason, message) = refusal(maps.list(&ListParams::default()).await);
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "configmaps is forbidden: User \"system:serviceaccount:default:reader\" cannot list resource \"configmaps\" in API \
         group \"\" in the namespace \"default\""
    );
    create(
        &roles,
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
        }),
    )
    .await
    .unwrap();
    create(
        &bindings,
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        }),
    )
    .await
    .unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(refusal(create(&maps, map("a")).await).0, 403);
}

struct House;

#[async_trait]
impl Admission for House {
    async fn admit(&self, mut request: AdmissionRequest) -> Result<Admitted, Denial> {
        if request.name == "forbidden" && request.operation == Operation::Create {
            return Err(Denial::webhook("house.example.com", "not in this house"));
        }
        if request.kind == "ConfigMap" && request.operation != Operation::Delete {
            request.object["metadata"]["labels"]["seen"] = json!("yes");
            request.object["metadata"]["managedFields"] = json!([{"manager": "house", "operation": "Update"}]);
        }
        Ok(Admitted { object: request.object, warnings: vec!["be careful".into()] })
    }

    fn concerns(&self, group: &str) -> bool {
        group.is_empty()
    }
}

#[tokio::test]
async fn admission_changes_and_refuses() {
    let server = Server::builder().admission(Arc::new(House)).build().await.unwrap();
    let client = Client::new(server.service(User::admin("admin")), "default");
    let maps: Api<kube::api::DynamicObject> =
        Api::default_namespaced_with(client.clone(), &resource("v1", "ConfigMap", "configmaps"));
    let made = create(&maps, map("a")).await.unwrap();
    assert_eq!(made.metadata.labels.unwrap()["seen"], "yes");
    let owners = made.metadata.managed_fields.unwrap();
    assert!(owners.iter().all(|entry| entry.manager.as_deref() != Some("house") && entry.fields_v1.is_some()));
    // Nor does it own anything where nobody does.
    let mut given_up = map("a");
    given_up["metadata"]["managedFields"] = json!([{}]);
    let given_up: kube::api::DynamicObject = serde_json::from_value(given_up).unwrap();
    let replaced = maps.replace("a", &Default::default(), &given_up).await.unwrap();
    let owners = replaced.metadata.managed_fields.unwrap_or_default();
    assert!(owners.iter().all(|entry| entry.manager.as_deref() != Some("house")), "{owners:?}");
    // What does not concern it is not shown to it.
    let roles = resource("rbac.authorization.k8s.io/v1", "Role", "roles");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "forbidden"}});
    create(&Api::default_namespaced_with(client, &roles), role).await.unwrap();
    let (code, _, message) = refusal(create(&maps, map("forbidden")).await);
    assert_eq!(
        (code, message.as_str()),
        (403, r#"admission webhook "house.example.com" denied the request: not in this house"#)
    );
}
