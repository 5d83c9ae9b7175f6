//! The roles and bindings that every cluster has.

use serde_json::{Value, json};

/// Prefix of labels by which a ClusterRole adds its rules to `admin`, `edit` or `view`.
const ADD_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// Returns the roles and bindings that every cluster has.
pub(crate) fn default_roles() -> Vec<(&'static str, Value)> {
    let all = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    let read = json!(["get", "list", "watch"]);
    let namespaced = json!([
        {"apiGroups": [""], "verbs": all, "resources": ["configmaps", "events", "persistentvolumeclaims", "pods",
            "pods/log", "pods/status", "replicationcontrollers", "secrets", "serviceaccounts", "services"]},
        {"apiGroups": ["apps", "batch", "coordination.k8s.io", "events.k8s.io", "networking.k8s.io", "policy"],
            "verbs": all, "resources": ["*"]},
        {"apiGroups": [""], "verbs": ["create"], "resources": ["serviceaccounts/token"]},
        {"apiGroups": [""], "verbs": read, "resources": ["namespaces", "namespaces/status"]},
    ]);
    let mut admin = namespaced.clone();
    admin.as_array_mut().expect("an array").push(json!({
        "apiGroups": ["rbac.authorization.k8s.io"], "verbs": all, "resources": ["roles", "rolebindings"],
    }));
    let view = json!([
        {"apiGroups": [""], "verbs": read, "resources": ["configmaps", "events", "namespaces",
            "persistentvolumeclaims", "pods", "pods/log", "pods/status", "replicationcontrollers", "serviceaccounts",
            "services"]},
        {"apiGroups": ["apps", "batch", "events.k8s.io", "networking.k8s.io", "policy"], "verbs": read,
            "resources": ["*"]},
    ]);
    let master = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]);
    let paths = [
        "/api",
        "/api/*",
        "/apis",
        "/apis/*",
        "/healthz",
        "/livez",
        "/openapi",
        "/openapi/*",
        "/readyz",
        "/version",
        "/version/",
    ];
    let discovery = json!([{"nonResourceURLs": paths, "verbs": ["get"]}]);
    let basic = json!([
        {"apiGroups": ["authorization.k8s.io"], "verbs": ["create"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"apiGroups": ["authentication.k8s.io"], "verbs": ["create"], "resources": ["selfsubjectreviews"]},
    ]);
    let role = |name: &str, rules: Value| {
        (
            "clusterroles",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": rules,
                "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            }),
        )
    };
    // Roles that others add to, by a label; each has all of the one before it.
    let open = |name: &str, rules: Value| {
        let (kind, mut role) = role(name, rules);
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {format!("{ADD_TO}{name}"): "true"}}]});
        (kind, role)
    };
    let binding = |name: &str, group: &str| {
        (
            "clusterrolebindings",
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
            }),
        )
    };
    vec![
        role("cluster-admin", master),
        open("admin", admin),
        open("edit", namespaced),
        open("view", view),
        role("system:discovery", discovery),
        role("system:basic-user", basic),
        binding("cluster-admin", "system:masters"),
        binding("system:discovery", "system:authenticated"),
        binding("system:basic-user", "system:authenticated"),
    ]
}
