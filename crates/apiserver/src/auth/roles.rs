//! Role-based access control over Roles, ClusterRoles and their bindings.

use std::sync::Arc;

use embedded_apimachinery::selector::Labels;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

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

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rule {
    pub(super) api_groups: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) resource_names: Vec<String>,
    pub(super) verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    pub(super) non_resource_urls: Vec<String>,
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
#[serde(rename_all = "camelCase", default)]
struct Role {
    rules: Option<Vec<Rule>>,
    aggregation_rule: Option<Value>,
    #[serde(skip)]
    namespace: String,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    labels: Map<String, Value>,
    /// Roles whose rules it has as well, by their place in the list.
    #[serde(skip)]
    members: Vec<usize>,
}

impl Role {
    /// Whether its aggregation rule names a cluster role.
    fn selects(&self, selectors: &[Labels]) -> bool {
        self.namespace.is_empty() && selectors.iter().any(|selector| selector.matches(Some(&self.labels)))
    }

    fn selectors(&self) -> Vec<Labels> {
        let selectors = self.aggregation_rule.as_ref().and_then(|rule| rule["clusterRoleSelectors"].as_array());
        // A selector that cannot be read selects nothing.
        selectors.into_iter().flatten().filter_map(|selector| Labels::from_object(selector).ok()).collect()
    }
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

    /// Returns the rules of a role that a binding in `namespace` refers to; `None` if there is no such role.
    pub(super) fn referenced(&self, store: &Store, kind: &str, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        let parsed = self.current(store);
        let home = if kind == "Role" { namespace } else { "" };
        let role = parsed.roles.iter().find(|role| role.namespace == home && role.name == name)?;
        Some(parsed.rules(role).cloned().collect())
    }

    /// Returns the rules that a user has in a namespace, or cluster-wide if it is empty.
    pub(super) fn held(&self, store: &Store, user: &User, namespace: &str) -> Vec<Rule> {
        self.current(store).rules_of(user, namespace).cloned().collect()
    }

    /// Returns the `status` of a review of everything a user may do in a namespace.
    pub(crate) fn summary(&self, store: &Store, user: &User, namespace: &str) -> Value {
        let (paths, resources): (Vec<Rule>, Vec<Rule>) =
            self.held(store, user, namespace).into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let resources = resources.into_iter().map(|rule| {
            let mut out = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
            if !rule.resource_names.is_empty() {
                out["resourceNames"] = json!(rule.resource_names);
            }
            out
        });
        let paths =
            paths.into_iter().map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        json!({
            "resourceRules": resources.collect::<Vec<_>>(), "nonResourceRules": paths.collect::<Vec<_>>(),
            "incomplete": false,
        })
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
            let mut role: Role = serde_json::from_slice(&record.json()).unwrap_or_default();
            role.namespace = record.name().namespace.to_string();
            role.name = record.name().name.to_string();
            role.labels = record.labels().map(|(key, value)| (key.to_owned(), value.into())).collect();
            parsed.roles.push(role);
        }
        parsed.aggregate();
        for record in records(ROLE_BINDINGS).into_iter().chain(records(CLUSTER_ROLE_BINDINGS)) {
            let mut binding: Binding = serde_json::from_slice(&record.json()).unwrap_or_default();
            binding.namespace = record.name().namespace.to_string();
            parsed.bindings.push(binding);
        }
        parsed
    }

    /// Finds the members of aggregating roles, and the members of these.
    fn aggregate(&mut self) {
        let direct: Vec<Vec<usize>> = (self.roles.iter())
            .map(|role| {
                let selectors = role.selectors();
                let selected = |(_, other): &(usize, &Role)| other.selects(&selectors);
                self.roles.iter().enumerate().filter(selected).map(|(index, _)| index).collect()
            })
            .collect();
        for (index, role) in self.roles.iter_mut().enumerate() {
            let mut queue = direct[index].clone();
            while let Some(next) = queue.pop() {
                if next != index && !role.members.contains(&next) {
                    role.members.push(next);
                    queue.extend(&direct[next]);
                }
            }
        }
    }

    fn rules<'a>(&'a self, role: &'a Role) -> impl Iterator<Item = &'a Rule> {
        let members = role.members.iter().map(|index| &self.roles[*index]);
        std::iter::once(role).chain(members).flat_map(|role| role.rules.iter().flatten())
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
        roles.flat_map(|role| self.rules(role))
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
