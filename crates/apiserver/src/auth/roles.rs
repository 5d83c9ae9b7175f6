//! Role-based access control over Roles, ClusterRoles and their bindings.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::request::Target;
use crate::store::{Scope, Store};
use crate::user::User;

const ROLES: &str = "rbac.authorization.k8s.io/roles";
const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const CLUSTER_ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";

/// What is to be decided on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) verb: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Set for paths that are no resources.
    pub(crate) path: Option<String>,
}

impl Attributes {
    pub(crate) fn resource(verb: &str, target: &Target) -> Self {
        // Requests for a namespace itself are decided inside that namespace.
        let own = target.group.is_empty() && target.resource == "namespaces";
        Self {
            verb: verb.to_owned(),
            group: target.group.clone(),
            version: target.version.clone(),
            resource: target.resource.clone(),
            subresource: target.subresource.clone(),
            namespace: if own { target.name.clone() } else { target.namespace.clone() },
            name: target.name.clone(),
            path: None,
        }
    }

    pub(crate) fn path(verb: &str, path: &str) -> Self {
        Self { verb: verb.to_owned(), path: Some(path.to_owned()), ..Self::default() }
    }

    /// Says why nothing allows it, in the words of the real server.
    pub(super) fn refusal(&self, user: &User) -> String {
        if let Some(path) = &self.path {
            return format!("User {:?} cannot {} path {path:?}", user.name, self.verb);
        }
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        let what = format!("{}{slash}{}", self.resource, self.subresource);
        let scope = if self.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {:?}", self.namespace)
        };
        format!("User {:?} cannot {} resource {what:?} in API group {:?} {scope}", user.name, self.verb, self.group)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Binding {
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
    #[serde(skip)]
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Role {
    rules: Option<Vec<Rule>>,
    #[serde(skip)]
    namespace: String,
    #[serde(skip)]
    name: String,
}

#[derive(Debug, Default)]
struct Parsed {
    revisions: [u64; 4],
    roles: Vec<Role>,
    bindings: Vec<Binding>,
}

/// Decides by the roles in the store; parses them again only when they changed.
#[derive(Debug, Default)]
pub(crate) struct Roles(Mutex<Arc<Parsed>>);

impl Roles {
    pub(crate) fn allow(&self, store: &Store, user: &User, attributes: &Attributes) -> bool {
        let parsed = self.current(store);
        parsed.rules_of(user, &attributes.namespace).any(|rule| rule.allows(attributes))
    }

    fn current(&self, store: &Store) -> Arc<Parsed> {
        let tables = [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS];
        let revisions = tables.map(|table| store.table_revision(table));
        let mut parsed = self.0.lock();
        if parsed.revisions != revisions || parsed.roles.is_empty() {
            *parsed = Arc::new(Parsed::load(store, revisions));
        }
        parsed.clone()
    }
}

impl Parsed {
    fn load(store: &Store, revisions: [u64; 4]) -> Self {
        let records = |table: &str| {
            let page = store.list(&Scope::table(table), None, None, None, |_| true);
            page.expect("the present is never compacted").records
        };
        let mut parsed = Self { revisions, ..Self::default() };
        for record in records(ROLES).into_iter().chain(records(CLUSTER_ROLES)) {
            let mut role: Role = serde_json::from_slice(record.json()).unwrap_or_default();
            role.namespace = record.name().namespace.to_string();
            role.name = record.name().name.to_string();
            parsed.roles.push(role);
        }
        for record in records(ROLE_BINDINGS).into_iter().chain(records(CLUSTER_ROLE_BINDINGS)) {
            let mut binding: Binding = serde_json::from_slice(record.json()).unwrap_or_default();
            binding.namespace = record.name().namespace.to_string();
            parsed.bindings.push(binding);
        }
        parsed
    }

    fn rules_of<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Rule> {
        let binds = move |binding: &&Binding| {
            (binding.namespace.is_empty() || binding.namespace == namespace)
                && binding.subjects.iter().flatten().any(|subject| subject.is(user, &binding.namespace))
        };
        let roles = self.bindings.iter().filter(binds).flat_map(move |binding| {
            let home = if binding.role_ref.kind == "Role" { binding.namespace.as_str() } else { "" };
            self.roles.iter().filter(move |role| role.namespace == home && role.name == binding.role_ref.name)
        });
        roles.flat_map(|role| role.rules.iter().flatten())
    }
}

impl Subject {
    fn is(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                let rest = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                rest == Some((namespace, &self.name))
            }
            _ => false,
        }
    }
}

impl Rule {
    fn allows(&self, attributes: &Attributes) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        if let Some(path) = &attributes.path {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => url == path,
            });
        }
        let resource = if attributes.subresource.is_empty() {
            has(&self.resources, &attributes.resource)
        } else {
            let (whole, any) = (
                format!("{}/{}", attributes.resource, attributes.subresource),
                format!("*/{}", attributes.subresource),
            );
            self.resources.iter().any(|one| one == "*" || *one == whole || *one == any)
        };
        resource
            && has(&self.api_groups, &attributes.group)
            && (self.resource_names.is_empty() || self.resource_names.contains(&attributes.name))
    }
}

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
        role("admin", admin),
        role("edit", namespaced),
        role("view", view),
        role("system:discovery", discovery),
        role("system:basic-user", basic),
        binding("cluster-admin", "system:masters"),
        binding("system:discovery", "system:authenticated"),
        binding("system:basic-user", "system:authenticated"),
    ]
}
