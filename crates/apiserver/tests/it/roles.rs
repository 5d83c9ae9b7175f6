//! Roles: nobody gives away what they do not have, names, aggregation, impersonation.

use embedded_apiserver::User;
use serde_json::{Value, json};

use super::{DEADLINE, Sent, World, create, map, send, send_raw};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules})
}

fn cluster_role(name: &str, rules: Value) -> Value {
    let mut role = role(name, rules);
    role["kind"] = json!("ClusterRole");
    role
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    })
}

async fn as_user(world: &World, user: &str, method: &str, path: &str, body: &Value) -> Sent {
    send(&world.server, User::new(user, Vec::<String>::new()), method, path, body).await
}

/// Gives `user` rules in the namespace `default`, by the hand of the admin.
async fn grant(world: &World, user: &str, rules: Value) {
    let roles = world.api("rbac.authorization.k8s.io/v1", "Role", "roles");
    let bindings = world.api("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings");
    create(&roles, role(user, rules)).await.unwrap();
    create(&bindings, binding(user, "Role", user, user)).await.unwrap();
}

fn roles_writer() -> Value {
    json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["*"],
            "resourceNames": []},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
    ])
}

#[tokio::test]
async fn nobody_writes_a_role_with_more_than_they_have() {
    let world = World::new().await;
    let writer = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create", "get", "patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
    ]);
    grant(&world, "ann", writer).await;
    let path = format!("{RBAC}/namespaces/default/roles");
    let fits = role("fits", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]));
    let made = as_user(&world, "ann", "POST", &path, &fits).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let more = role("more", json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]));
    let refused = as_user(&world, "ann", "POST", &path, &more).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], \
         Verbs:[\"get\"]}"
    );
    let widen = json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    assert_eq!(as_user(&world, "ann", "PATCH", &format!("{path}/fits"), &widen).await.code, 403);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(as_user(&world, "ann", "PATCH", &format!("{path}/ann"), &label).await.code, 200);
}

#[tokio::test]
async fn nobody_binds_a_role_with_more_than_they_have_unless_they_may_bind_it() {
    let world = World::new().await;
    grant(&world, "ann", roles_writer()).await;
    let path = format!("{RBAC}/namespaces/default/rolebindings");
    // The verb `*` on roles includes `bind`, so somebody with less.
    let less =
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"], "verbs": ["create"]}]);
    grant(&world, "bob", less).await;
    let to_admin = |name: &str| binding(name, "ClusterRole", "cluster-admin", "bob");
    assert_eq!(as_user(&world, "bob", "POST", &path, &to_admin("up")).await.code, 403);
    let own = binding("own", "Role", "bob", "carl");
    assert_eq!(as_user(&world, "bob", "POST", &path, &own).await.code, 201);
    let missing = binding("missing", "Role", "nowhere", "carl");
    assert_eq!(as_user(&world, "bob", "POST", &path, &missing).await.code, 404);
    let may_bind = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"],
        "resourceNames": ["view"]}]);
    let roles = world.api("rbac.authorization.k8s.io/v1", "Role", "roles");
    create(&roles, role("binder", may_bind)).await.unwrap();
    let bindings = world.api("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings");
    create(&bindings, binding("binder", "Role", "binder", "bob")).await.unwrap();
    let to_view = binding("viewer", "ClusterRole", "view", "carl");
    assert_eq!(as_user(&world, "bob", "POST", &path, &to_view).await.code, 201);
    assert_eq!(as_user(&world, "bob", "POST", &path, &to_admin("up")).await.code, 403);
    let role_of_ann = binding("ann-too", "Role", "ann", "bob");
    assert_eq!(as_user(&world, "ann", "POST", &path, &role_of_ann).await.code, 201);
}

#[tokio::test]
async fn a_rule_with_names_allows_the_lists_of_one() {
    let world = World::new().await;
    create(&world.maps(), map("mine")).await.unwrap();
    let named = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"],
        "verbs": ["get", "list", "watch"]}]);
    grant(&world, "ann", named).await;
    let code = async |query: &str| as_user(&world, "ann", "GET", &format!("{MAPS}{query}"), &Value::Null).await.code;
    assert_eq!(code("?fieldSelector=metadata.name%3Dmine").await, 200);
    assert_eq!(code("?fieldSelector=metadata.name%3Dmine&watch=true&timeoutSeconds=1").await, 200);
    assert_eq!(code("?fieldSelector=metadata.name%3Dother").await, 403);
    assert_eq!(code("?fieldSelector=metadata.name%21%3Dmine").await, 403);
    assert_eq!(code("").await, 403);
}

#[tokio::test]
async fn cluster_roles_add_up_by_their_labels() {
    let world = World::new().await;
    let roles = world.all("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles");
    let bindings = world.api("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings");
    let mut sum = cluster_role("sum", json!([]));
    sum["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"add-to": "sum"}}]});
    create(&roles, sum.clone()).await.unwrap();
    create(&bindings, binding("sum", "ClusterRole", "sum", "ann")).await.unwrap();
    create(&bindings, binding("edit", "ClusterRole", "edit", "eve")).await.unwrap();
    let list = async |user: &str| as_user(&world, user, "GET", MAPS, &Value::Null).await.code;
    assert_eq!(list("ann").await, 403);
    let mut part = cluster_role("part", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]));
    part["metadata"]["labels"] = json!({"add-to": "sum"});
    create(&roles, part).await.unwrap();
    assert_eq!(list("ann").await, 200);
    // What operators add to the usual roles.
    let widgets = json!([{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["list"]}]);
    let mut more = cluster_role("more", widgets);
    more["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-edit": "true"});
    create(&roles, more).await.unwrap();
    let world = world.with_widgets().await;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    assert_eq!(as_user(&world, "eve", "GET", path, &Value::Null).await.code, 200);
    // Writing one without having everything would be a way around the check of grants.
    let writer = cluster_role(
        "writer",
        json!([{"apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["clusterroles"], "verbs": ["create"]}]),
    );
    create(&roles, writer).await.unwrap();
    let cluster_bindings = world.all("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings");
    let mut to_writer = binding("writer", "ClusterRole", "writer", "eve");
    to_writer["kind"] = json!("ClusterRoleBinding");
    create(&cluster_bindings, to_writer).await.unwrap();
    sum["metadata"]["name"] = json!("sneaky");
    assert_eq!(as_user(&world, "eve", "POST", &format!("{RBAC}/clusterroles"), &sum).await.code, 403);
}

#[tokio::test]
async fn a_group_without_a_user_is_nobody() {
    let world = World::new().await;
    let mut service = world.server.service(User::admin("admin"));
    let mut ask = async |headers: &[(&str, &str)]| {
        let mut request = http::Request::builder().method("POST");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
        let request = request.uri("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        let request = request.header("content-type", "application/json").body(body.to_owned()).unwrap();
        let response = tower::Service::call(&mut service, request).await.unwrap();
        let code = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (code, serde_json::from_slice::<Value>(&bytes).unwrap())
    };
    assert_eq!(ask(&[("impersonate-group", "dev")]).await.0, 400);
    assert_eq!(ask(&[("impersonate-uid", "1")]).await.0, 400);
    assert_eq!(ask(&[("impersonate-extra-team", "a")]).await.0, 400);
    let (code, review) =
        ask(&[("impersonate-user", "ann"), ("impersonate-group", "dev"), ("impersonate-extra-team", "a")]).await;
    assert_eq!(code, 201);
    let info = &review["status"]["userInfo"];
    assert_eq!((&info["username"], &info["groups"]), (&json!("ann"), &json!(["dev", "system:authenticated"])));
    assert_eq!(info["extra"], json!({"team": ["a"]}));
}

#[tokio::test]
async fn users_can_ask_for_everything_they_may_do() {
    let world = World::new().await;
    grant(&world, "ann", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])).await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let sent = as_user(&world, "ann", "POST", path, &review).await;
    assert_eq!(sent.code, 201, "{}", sent.text);
    let status = &sent.value()["status"];
    let rules = status["resourceRules"].as_array().unwrap();
    assert!(rules.contains(&json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]})), "{status}");
    let paths = status["nonResourceRules"].as_array().unwrap();
    assert!(paths[0]["nonResourceURLs"].as_array().unwrap().contains(&json!("/healthz")));
    assert_eq!(status["incomplete"], false);
}

/// Applies a config map as `user`.
async fn apply_map(world: &World, user: &str, name: &str) -> (u16, Value) {
    let request = http::Request::patch(format!("{MAPS}/{name}?fieldManager=test"));
    let request = request.header("content-type", "application/apply-patch+yaml").body(map(name).to_string()).unwrap();
    let mut service = world.server.service(User::new(user, Vec::<String>::new()));
    let response = tower::Service::call(&mut service, request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn an_apply_that_creates_needs_the_verb_create() {
    let world = World::new().await;
    grant(&world, "ann", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}])).await;
    create(&world.maps(), map("old")).await.unwrap();
    assert_eq!(apply_map(&world, "ann", "old").await.0, 200);
    let (code, status) = apply_map(&world, "ann", "new").await;
    assert_eq!(code, 403, "{status}");
    assert_eq!(
        status["message"],
        "configmaps \"new\" is forbidden: User \"ann\" cannot create resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    assert!(world.maps().get_opt("new").await.unwrap().is_none());
    grant(&world, "bob", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "create"]}])).await;
    assert_eq!(apply_map(&world, "bob", "new").await.0, 201);
}

#[tokio::test]
async fn a_request_that_is_refused_need_not_send_its_body() {
    let world = World::new().await;
    grant(&world, "ann", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])).await;
    for (user, path, code) in [
        (User::anonymous(), MAPS, 403),
        (User::new("ann", Vec::<String>::new()), MAPS, 403),
        (User::anonymous(), "/api", 403),
        (User::anonymous(), "/version", 405),
    ] {
        let frames = futures::stream::pending::<Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>>();
        let sent = send_raw(&world.server, user, "POST", path, http_body_util::StreamBody::new(frames));
        let sent = tokio::time::timeout(DEADLINE, sent).await.expect("it is answered before its body arrives");
        assert_eq!(sent.code, code, "{path}: {}", sent.text);
    }
}
