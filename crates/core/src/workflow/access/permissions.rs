//! What the account of a pipeline may do: what every pipeline needs, and what its author asks for.
//!
//! # Source
//! `02-workflows.md` §5.3, §5.4

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kratix_api::pipeline::{Pipeline, WorkflowType};
use kratix_api::{keys, name};
use serde_json::{Value, json};

use super::{Wanted, id, service_account_name};
use crate::patch::to_value;
use crate::workflow::{Parent, Workflow};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const VERBS: [&str; 5] = ["get", "list", "update", "create", "patch"];
const ANYWHERE: &str = "*";

/// A ServiceAccount's role and the binding that gives it, of equal name.
struct Grant<'a> {
    workflow: &'a Workflow,
    account: String,
}

impl Grant<'_> {
    fn subjects(&self) -> Value {
        json!([{ "kind": "ServiceAccount", "name": self.account, "namespace": self.workflow.namespace }])
    }

    fn bind(&self, binding: Wanted, role_kind: &str, role: &str) -> Wanted {
        let role = json!({ "apiGroup": RBAC_GROUP, "kind": role_kind, "name": role });
        binding.with("roleRef", role).with("subjects", self.subjects())
    }

    fn in_namespace(&self, name: &str, labels: &BTreeMap<String, String>, rules: &Value) -> [Wanted; 2] {
        let namespace = Some(self.workflow.namespace.as_str());
        let role = Wanted::new::<Role>(namespace, name.to_owned(), labels.clone()).with("rules", rules);
        let binding = Wanted::new::<RoleBinding>(namespace, name.to_owned(), labels.clone());
        [role, self.bind(binding, "Role", name)]
    }

    fn in_cluster(&self, name: &str, labels: &BTreeMap<String, String>, rules: &Value) -> [Wanted; 2] {
        let role = Wanted::new::<ClusterRole>(None, name.to_owned(), labels.clone()).with("rules", rules);
        let binding = Wanted::new::<ClusterRoleBinding>(None, name.to_owned(), labels.clone());
        [role, self.bind(binding, "ClusterRole", name)]
    }
}

pub(super) fn default_permissions(
    parent: &Parent,
    workflow: &Workflow,
    pipeline: &Pipeline,
    labels: &BTreeMap<String, String>,
) -> Vec<Wanted> {
    let grant = Grant { workflow, account: service_account_name(workflow, pipeline) };
    let id = id(workflow, pipeline);
    match workflow.kind {
        WorkflowType::Promise => {
            let rules = json!([rule(keys::GROUP, &["promises", "promises/status", "works"], &VERBS)]);
            grant.in_cluster(&id, labels, &rules).into()
        }
        WorkflowType::Resource => {
            let kind = &parent.target.kind;
            let own = rule(&kind.group, &[&kind.plural, &format!("{}/status", kind.plural)], &VERBS);
            let rules = json!([own, rule(keys::GROUP, &["works"], &[ANYWHERE])]);
            let mut wanted: Vec<Wanted> = grant.in_namespace(&id, labels, &rules).into();
            if workflow.namespace != parent.namespace() {
                let name = format!("{id}-{}", parent.namespace());
                wanted.extend(grant.in_cluster(&name, labels, &json!([own])));
            }
            wanted
        }
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    to_value(&PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(resources.iter().map(|&resource| resource.into()).collect()),
        verbs: verbs.iter().map(|&verb| verb.into()).collect(),
        ..PolicyRule::default()
    })
}

pub(super) fn user_permissions(workflow: &Workflow, pipeline: &Pipeline) -> Vec<Wanted> {
    let grant = Grant { workflow, account: service_account_name(workflow, pipeline) };
    let id = id(workflow, pipeline);
    let labels = permission_labels(workflow, pipeline);
    let mut wanted = Vec::new();
    for (scope, rules) in rules_by_namespace(pipeline) {
        let rules = Value::Array(rules);
        if scope.is_empty() {
            wanted.extend(grant.in_namespace(&name::deterministic(&id, &[]), &labels, &rules));
            continue;
        }
        let everywhere = scope == ANYWHERE;
        let (in_name, in_label) =
            if everywhere { (keys::ALL_NAMESPACES_NAME, keys::ALL_NAMESPACES_LABEL) } else { (scope, scope) };
        let role = name::deterministic(&format!("{id}-{in_name}"), &[]);
        let mut role_labels = labels.clone();
        role_labels.insert(keys::RESOURCE_NAMESPACE.to_owned(), in_label.to_owned());
        let binding = name::deterministic(&format!("{id}-{}", workflow.namespace), &[]);
        wanted.push(Wanted::new::<ClusterRole>(None, role.clone(), role_labels.clone()).with("rules", rules));
        let binding = if everywhere {
            Wanted::new::<ClusterRoleBinding>(None, binding, labels.clone())
        } else {
            Wanted::new::<RoleBinding>(Some(scope), binding, role_labels)
        };
        wanted.push(grant.bind(binding, "ClusterRole", &role));
    }
    wanted
}

pub(super) fn permission_labels(workflow: &Workflow, pipeline: &Pipeline) -> BTreeMap<String, String> {
    [
        (keys::PROMISE_NAME, workflow.promise.as_str()),
        (keys::WORKFLOW_TYPE, workflow.kind.as_str()),
        (keys::WORKFLOW_ACTION, workflow.action.as_str()),
        (keys::PIPELINE_NAME, pipeline.name()),
        (keys::PIPELINE_NAMESPACE, workflow.namespace.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// Groups the permissions by the namespace they are for, empty for the pipeline's own; order within a group is kept.
fn rules_by_namespace(pipeline: &Pipeline) -> BTreeMap<&str, Vec<Value>> {
    let mut groups: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
    for permission in pipeline.spec.rbac.iter().flat_map(|rbac| &rbac.permissions) {
        let rule = PolicyRule {
            api_groups: list(&permission.api_groups),
            non_resource_urls: list(&permission.non_resource_urls),
            resource_names: list(&permission.resource_names),
            resources: list(&permission.resources),
            verbs: permission.verbs.clone(),
        };
        groups.entry(permission.resource_namespace.as_str()).or_default().push(to_value(&rule));
    }
    groups
}
