//! What a Job needs around it: a ServiceAccount, the Promise's selectors in a ConfigMap, and permissions.
//!
//! # Source
//! `02-workflows.md` §5

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kratix_api::pipeline::{Action, Pipeline, WorkflowType};
use kratix_api::{hash, keys, name};
use kube_core::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::history::{self, State};
use super::{Parent, Workflow};
use crate::object::{Kind, ObjectKey, Target};
use crate::patch::to_value;
use crate::plan::Write;

/// Key of the scheduling ConfigMap.
pub const SCHEDULING_KEY: &str = "destinationSelectors";

/// Digits by which the selectors of one revision are told from those of another.
const KEY_DIGITS: usize = 8;
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const VERBS: [&str; 5] = ["get", "list", "update", "create", "patch"];
const ANYWHERE: &str = "*";
/// A role for one permission namespace serves pipelines of several namespaces, of which its label names one.
const SHARED: &str = "ClusterRole";

/// The supporting objects of a Promise that exist.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// ServiceAccounts.
    pub service_accounts: Vec<Arc<ServiceAccount>>,
    /// ConfigMaps.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// Roles.
    pub roles: Vec<Arc<Role>>,
    /// RoleBindings.
    pub role_bindings: Vec<Arc<RoleBinding>>,
    /// ClusterRoles.
    pub cluster_roles: Vec<Arc<ClusterRole>>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Vec<Arc<ClusterRoleBinding>>,
}

/// Returns the name of the account a pipeline runs as.
pub fn service_account_name(workflow: &Workflow, pipeline: &Pipeline) -> String {
    let own = pipeline.spec.rbac.as_ref().map(|rbac| rbac.service_account.as_str()).filter(|own| !own.is_empty());
    own.map_or_else(|| id(workflow, pipeline), str::to_owned)
}

/// Returns the name of the ConfigMap with the Promise's selectors.
pub fn scheduling_name(workflow: &Workflow) -> String {
    format!("destination-selectors-{}", workflow.promise)
}

fn id(workflow: &Workflow, pipeline: &Pipeline) -> String {
    name::pipeline_id(&workflow.promise, workflow.kind, workflow.action, pipeline.name())
}

/// Returns the writes that bring the supporting objects of a pipeline to what its Job needs: permissions that no pipeline
/// has any more are removed (configure only), missing objects created, differing ones patched.
///
/// # Guarantees
/// Nothing is written for what exists as it should; labels, annotations and fields that others added stay. Accounts and
/// roles come before the bindings that name them. What `others`, the same workflow in the revisions in use, may do stays
/// allowed: names do not tell revisions apart, and a pod of another one may be running. `jobs` returns the Jobs of the Promise
/// and its requests that were made for an earlier spec, asked for only if there is something to remove: see [`outdated`].
pub fn writes(
    parent: &Parent,
    workflow: &Workflow,
    pipeline: &Pipeline,
    existing: &Existing,
    others: &[Workflow],
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Vec<Write> {
    let mut wanted = objects(parent, workflow, pipeline);
    let mut kept = Vec::new();
    for other in others {
        let same = other.pipelines.iter().find(|other| other.name() == pipeline.name());
        kept.extend(same.map(|same| objects(parent, other, same)).unwrap_or_default());
    }
    wanted.iter_mut().for_each(|wanted| wanted.allow(&kept));
    let mut writes = match workflow.action {
        Action::Configure => outdated(workflow, others, existing, jobs),
        Action::Delete => Vec::new(),
    };
    writes.extend(wanted.iter().flat_map(|wanted| wanted.writes(existing)));
    writes
}

/// One object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    kind: Kind,
    key: ObjectKey,
    labels: BTreeMap<String, String>,
    /// Top-level fields beside metadata that Kratix owns.
    body: BTreeMap<&'static str, Value>,
    /// A user's own object of that name does as well.
    is_anybodys: bool,
}

impl Wanted {
    fn new<K: Resource<DynamicType = ()>>(
        namespace: Option<&str>,
        name: String,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let key = ObjectKey { namespace: namespace.map(str::to_owned), name };
        Self { kind: Kind::of::<K>(), key, labels, body: BTreeMap::new(), is_anybodys: false }
    }

    fn with(mut self, field: &'static str, value: impl Serialize) -> Self {
        self.body.insert(field, to_value(&value));
        self
    }

    /// Returns the object to be created.
    pub fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": self.kind.api_version(),
            "kind": self.kind.kind,
            "metadata": { "name": self.key.name, "labels": self.labels },
        });
        if let Some(namespace) = &self.key.namespace {
            object["metadata"]["namespace"] = namespace.as_str().into();
        }
        for (field, value) in &self.body {
            object[*field] = value.clone();
        }
        object
    }

    fn writes(&self, existing: &Existing) -> Vec<Write> {
        let create = || match self.is_anybodys {
            true => Write::create(self.kind.clone(), self.object()).unless_present(),
            false => Write::create(self.kind.clone(), self.object()),
        };
        let Some((target, found)) = existing.find(&self.kind, &self.key) else { return vec![create()] };
        // The role of a binding cannot be changed; it has to be made anew.
        if let (Some(wanted), Some(found)) = (self.body.get("roleRef"), found.get("roleRef"))
            && wanted != found
        {
            return vec![Write::Delete { target }, create()];
        }
        let mut patch = serde_json::Map::new();
        for (field, value) in &self.body {
            let is_there = found.get(*field).is_some_and(|found| match *field {
                // Two revisions must not reorder the same rules, nor remove each other's selectors, in turns.
                "rules" => is_part_of(value, found) && is_part_of(found, value),
                "data" => crate::patch::between(found, value).is_none_or(|change| is_removal(&change)),
                _ => found == value,
            });
            if !is_there {
                patch.insert((*field).to_owned(), value.clone());
            }
        }
        let labels = self.missing_labels(&found);
        if !labels.is_empty() {
            patch.insert("metadata".into(), json!({ "labels": labels }));
        }
        if patch.is_empty() {
            return Vec::new();
        }
        vec![Write::Patch { target: target.unpinned(), patch: Value::Object(patch) }]
    }

    /// Adds the rules of the same role as `others` want it.
    fn allow(&mut self, others: &[Self]) {
        let Some(Value::Array(rules)) = self.body.get_mut("rules") else { return };
        let same = others.iter().filter(|other| other.kind == self.kind && other.key == self.key);
        for rule in same.filter_map(|other| other.body.get("rules")?.as_array()).flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }

    fn missing_labels(&self, found: &Value) -> BTreeMap<&String, &String> {
        let has = |key: &str, value: &str| found["metadata"]["labels"].get(key).and_then(Value::as_str) == Some(value);
        // A role for one permission namespace serves pipelines of several namespaces; the label names one of them, and
        // two requests must not rewrite it in turns.
        let shared = |key: &str| key == keys::PIPELINE_NAMESPACE && self.key.namespace.is_none();
        self.labels.iter().filter(|(key, value)| !shared(key) && !has(key, value)).collect()
    }
}

fn is_part_of(some: &Value, all: &Value) -> bool {
    let (Some(some), Some(all)) = (some.as_array(), all.as_array()) else { return false };
    some.iter().all(|rule| all.contains(rule))
}

fn is_removal(patch: &Value) -> bool {
    patch.as_object().is_some_and(|members| members.values().all(Value::is_null))
}

/// Returns the key under which the ConfigMap keeps the workflow's selectors: the usual one for those of the latest
/// revision, the first of `others`; one of its own for a revision that says something else.
pub(super) fn scheduling_key(workflow: &Workflow, others: &[Workflow]) -> String {
    let own = scheduling(workflow);
    match others.first() {
        Some(latest) if scheduling(latest) != own => format!("{SCHEDULING_KEY}-{}", &hash::text(&own)[..KEY_DIGITS]),
        _ => SCHEDULING_KEY.to_owned(),
    }
}

/// Returns everything a pipeline's Job needs, in the order of creation.
pub fn objects(parent: &Parent, workflow: &Workflow, pipeline: &Pipeline) -> Vec<Wanted> {
    let promise = || BTreeMap::from([(keys::PROMISE_NAME.to_owned(), workflow.promise.clone())]);
    let namespace = Some(workflow.namespace.as_str());
    // A pipeline can name an account that its author has made.
    let account = Wanted::new::<ServiceAccount>(namespace, service_account_name(workflow, pipeline), promise());
    let mut wanted = vec![Wanted { is_anybodys: true, ..account }];
    if workflow.action == Action::Configure {
        let data = json!({ workflow.scheduling_key.as_str(): scheduling(workflow) });
        wanted.push(Wanted::new::<ConfigMap>(namespace, scheduling_name(workflow), promise()).with("data", data));
    }
    wanted.extend(default_permissions(parent, workflow, pipeline, &promise()));
    wanted.extend(user_permissions(workflow, pipeline));
    wanted
}

/// Returns the selectors as the original writes them: keys in lower case, one entry for each selector.
fn scheduling(workflow: &Workflow) -> String {
    if workflow.selectors.is_empty() {
        return "[]\n".into();
    }
    let mut text = String::new();
    for selector in &workflow.selectors {
        match selector.match_labels.is_empty() {
            true => text.push_str("- matchlabels: {}\n"),
            false => text.push_str("- matchlabels:\n"),
        }
        for (key, value) in &selector.match_labels {
            text.push_str(&format!("    {}: {}\n", scalar(key), scalar(value)));
        }
        text.push_str("  source: promise\n");
    }
    text
}

/// Returns a text as YAML, quoted unless it certainly reads back as the same text in YAML 1.1 and 1.2.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = starts_plain && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
    if is_plain && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        json!(text).to_string()
    }
}

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

fn default_permissions(
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

fn user_permissions(workflow: &Workflow, pipeline: &Pipeline) -> Vec<Wanted> {
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

fn permission_labels(workflow: &Workflow, pipeline: &Pipeline) -> BTreeMap<String, String> {
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

/// Returns the removal of permissions beyond the default ones that no pipeline of this Promise, type and namespace has any
/// more: of the present pipelines, of those that were removed or renamed, and of delete pipelines, which remove nothing
/// themselves. What cannot be decoded is not judged, and a Job that still runs for another parent keeps what its pod may do:
/// the start that follows it removes that.
pub(super) fn outdated(
    workflow: &Workflow,
    others: &[Workflow],
    existing: &Existing,
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Vec<Write> {
    let mut kept = Vec::new();
    let mut judged = Vec::from(Action::ALL);
    for action in Action::ALL {
        for one in std::iter::once(workflow).chain(others) {
            match one.for_action(action) {
                Some(one) => kept.extend(one.pipelines.iter().flat_map(|pipeline| user_permissions(&one, pipeline))),
                None => judged.retain(|judged| *judged != action),
            }
        }
    }
    let rule = Outdated { workflow, kept, judged };
    let mut found = Vec::new();
    // Bindings first: a binding never names a role that is gone.
    rule.apply(&existing.cluster_role_bindings, &mut found);
    rule.apply(&existing.role_bindings, &mut found);
    rule.apply(&existing.cluster_roles, &mut found);
    rule.apply(&existing.roles, &mut found);
    if found.is_empty() {
        return Vec::new();
    }
    let mut running = jobs();
    running.retain(|job| history::state(job) == State::Running);
    let unused =
        found.into_iter().filter(|(target, labels)| !running.iter().any(|job| serves(&target.kind, labels, job)));
    unused.map(|(target, _)| Write::Delete { target }).collect()
}

/// Returns whether the pod of a Job of the same Promise may do what it does because of a permission with these labels.
fn serves(kind: &Kind, labels: &BTreeMap<String, String>, job: &Job) -> bool {
    let of_job = job.labels();
    let r#type = label(labels, keys::WORKFLOW_TYPE, keys::WORK_TYPE);
    labels.get(keys::PIPELINE_NAME).map(String::as_str) == Some(history::pipeline(job))
        && r#type == label(of_job, keys::WORKFLOW_TYPE, keys::WORK_TYPE)
        && label(labels, keys::WORKFLOW_ACTION, keys::WORK_ACTION) == Some(history::action(job).as_str())
        && (kind.kind == SHARED || labels.get(keys::PIPELINE_NAMESPACE) == job.namespace().as_ref())
}

/// Returns the value of a label, in the spelling of early versions as well.
fn label<'a>(labels: &'a BTreeMap<String, String>, key: &str, legacy: &str) -> Option<&'a str> {
    labels.get(key).or_else(|| labels.get(legacy)).map(String::as_str)
}

/// Which permission objects are to be removed.
struct Outdated<'a> {
    workflow: &'a Workflow,
    kept: Vec<Wanted>,
    /// Actions of which all pipelines in use are known.
    judged: Vec<Action>,
}

impl Outdated<'_> {
    fn apply<'a, K: Resource<DynamicType = ()>>(
        &self,
        objects: &'a [Arc<K>],
        found: &mut Vec<(Target, &'a BTreeMap<String, String>)>,
    ) {
        let kind = Kind::of::<K>();
        for object in objects {
            let key = ObjectKey::of(object.as_ref());
            let is_kept = self.kept.iter().any(|kept| kept.kind == kind && kept.key == key);
            let is_ours = self.covers(&kind, object.labels()) && is_named_by_us(&key.name, object.labels());
            if !is_kept && is_ours && object.meta().deletion_timestamp.is_none() {
                found.push((Target::of(object.as_ref()), object.labels()));
            }
        }
    }

    /// Returns whether the labels are those of a permission of this Promise, type and namespace; in the spelling of early
    /// versions as well.
    fn covers(&self, kind: &Kind, labels: &BTreeMap<String, String>) -> bool {
        let action = label(labels, keys::WORKFLOW_ACTION, keys::WORK_ACTION);
        let namespace = labels.get(keys::PIPELINE_NAMESPACE);
        let is_here = kind.kind == SHARED || namespace == Some(&self.workflow.namespace);
        labels.get(keys::PROMISE_NAME) == Some(&self.workflow.promise)
            && labels.contains_key(keys::PIPELINE_NAME)
            && namespace.is_some()
            && is_here
            && label(labels, keys::WORKFLOW_TYPE, keys::WORK_TYPE) == Some(self.workflow.kind.as_str())
            && self.judged.iter().any(|judged| action == Some(judged.as_str()))
    }
}

/// Returns whether a permission object with these labels has a name that Kratix gives: a copy that somebody has made of it,
/// labels and all, is theirs.
fn is_named_by_us(name: &str, labels: &BTreeMap<String, String>) -> bool {
    let text = |key: &str| labels.get(key).map_or("", String::as_str);
    let r#type = label(labels, keys::WORKFLOW_TYPE, keys::WORK_TYPE).unwrap_or_default();
    let action = label(labels, keys::WORKFLOW_ACTION, keys::WORK_ACTION).unwrap_or_default();
    let id = [text(keys::PROMISE_NAME), r#type, action, text(keys::PIPELINE_NAME)].join("-");
    name.starts_with(name::stem(&id))
}

impl Existing {
    fn find(&self, kind: &Kind, key: &ObjectKey) -> Option<(Target, Value)> {
        fn among<K>(objects: &[Arc<K>], key: &ObjectKey) -> Option<(Target, Value)>
        where
            K: Resource<DynamicType = ()> + Serialize,
        {
            let object = objects.iter().find(|object| ObjectKey::of(object.as_ref()) == *key)?;
            Some((Target::of(object.as_ref()), to_value(object.as_ref())))
        }
        match kind.kind.as_str() {
            "ServiceAccount" => among(&self.service_accounts, key),
            "ConfigMap" => among(&self.config_maps, key),
            "Role" => among(&self.roles, key),
            "RoleBinding" => among(&self.role_bindings, key),
            "ClusterRole" => among(&self.cluster_roles, key),
            "ClusterRoleBinding" => among(&self.cluster_role_bindings, key),
            _ => None,
        }
    }
}
