//! What a Job needs around it: a ServiceAccount, the Promise's selectors in a ConfigMap, and permissions.
//!
//! # Source
//! `02-workflows.md` §5

mod outdated;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kratix_api::pipeline::{Action, Pipeline, WorkflowType};
use kratix_api::promise::DestinationSelector;
use kratix_api::{hash, keys, name};
use kube_core::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Parent, Workflow};
use crate::object::{Kind, ObjectKey, Target};
use crate::patch::to_value;
use crate::plan::Write;

pub(super) use outdated::outdated;
use outdated::{running, serves};

/// Key of the scheduling ConfigMap.
pub const SCHEDULING_KEY: &str = "destinationSelectors";

/// Digits by which the selectors of one revision are told from those of another.
const KEY_DIGITS: usize = 8;
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const VERBS: [&str; 5] = ["get", "list", "update", "create", "patch"];
const ANYWHERE: &str = "*";

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

/// What the revisions say that requests of a Promise use or may use next.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// The same workflow in each of them, as if it ran in the same namespace; the latest first.
    pub workflows: Vec<Workflow>,
    /// The namespaces in which pipelines of this type run; `None` if some run where their requests are.
    pub namespaces: Option<BTreeSet<String>>,
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
/// roles come before the bindings that name them. What the same pipeline may do in the revisions `in_use` stays allowed: names do not
/// tell revisions apart, and a pod of another one may be running. So does what it was allowed before, as long as a Job of it runs that
/// was made for an earlier spec. `jobs` returns the Jobs of the Promise and its requests that were, asked for only if there is
/// something to remove: see [`outdated`].
pub fn writes(
    parent: &Parent,
    workflow: &Workflow,
    pipeline: &Pipeline,
    existing: &Existing,
    in_use: &InUse,
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Vec<Write> {
    let mut wanted = objects(parent, workflow, pipeline);
    let mut kept = Vec::new();
    for other in &in_use.workflows {
        let same = other.pipelines.iter().find(|other| other.name() == pipeline.name());
        kept.extend(same.map(|same| objects(parent, other, same)).unwrap_or_default());
    }
    let jobs = LazyCell::new(|| running(jobs()));
    let labels = permission_labels(workflow, pipeline);
    for wanted in &mut wanted {
        wanted.allow(&kept);
        let more = wanted.allowed_before(existing);
        if !more.is_empty() && jobs.iter().any(|job| serves(&wanted.kind, &labels, job)) {
            wanted.keep(more);
        }
    }
    let mut writes = match workflow.action {
        Action::Configure => outdated(workflow, in_use, existing, || LazyCell::force(&jobs).clone()),
        Action::Delete => Vec::new(),
    };
    writes.extend(wanted.iter().flat_map(|wanted| wanted.writes(existing)));
    writes
}

/// Fields of which an object may hold more than is wanted, while somebody needs it: what an account may do, and which may.
const GRANTS: [&str; 2] = ["rules", "subjects"];

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
                field if GRANTS.contains(&field) => is_part_of(value, found) && is_part_of(found, value),
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

    /// Adds what the same role or binding grants as `others` want it: their rules, and the accounts that they name.
    fn allow(&mut self, others: &[Self]) {
        let same: Vec<_> = others.iter().filter(|other| other.kind == self.kind && other.key == self.key).collect();
        for field in GRANTS {
            let Some(Value::Array(own)) = self.body.get_mut(field) else { continue };
            for grant in same.iter().filter_map(|other| other.body.get(field)?.as_array()).flatten() {
                if !own.contains(grant) {
                    own.push(grant.clone());
                }
            }
        }
    }

    /// Returns what the object allows as it exists, and is not wanted any more.
    fn allowed_before(&self, existing: &Existing) -> Vec<(&'static str, Value)> {
        if !GRANTS.iter().any(|field| self.body.contains_key(field)) {
            return Vec::new();
        }
        let Some((_, found)) = existing.find(&self.kind, &self.key) else { return Vec::new() };
        let mut more = Vec::new();
        for field in GRANTS {
            let (Some(wanted), Some(found)) = (self.body.get(field), found.get(field)) else { continue };
            let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
            let surplus = found.as_array().into_iter().flatten().filter(|found| !wanted.contains(found));
            more.extend(surplus.map(|found| (field, found.clone())));
        }
        more
    }

    fn keep(&mut self, more: Vec<(&'static str, Value)>) {
        for (field, value) in more {
            if let Some(Value::Array(wanted)) = self.body.get_mut(field) {
                wanted.push(value);
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
    selectors_key(&workflow.selectors, others.first().map(|latest| latest.selectors.as_slice()))
}

fn selectors_key(own: &[DestinationSelector], latest: Option<&[DestinationSelector]>) -> String {
    let own = scheduling(own);
    match latest {
        Some(latest) if scheduling(latest) != own => format!("{SCHEDULING_KEY}-{}", &hash::text(&own)[..KEY_DIGITS]),
        _ => SCHEDULING_KEY.to_owned(),
    }
}

/// Returns the removal of selectors that no revision in use has any more. `in_use` are theirs, the latest first; `jobs` returns
/// the Jobs of the Promise and its requests, asked for only if there is something to remove: a pod that has not begun yet cannot
/// begin without the key that its Job names.
pub(super) fn outdated_selectors(
    workflow: &Workflow,
    in_use: &[&[DestinationSelector]],
    existing: &Existing,
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Option<Write> {
    let name = scheduling_name(workflow);
    let is_here =
        |map: &&Arc<ConfigMap>| map.namespace().as_ref() == Some(&workflow.namespace) && map.name_any() == name;
    let map = existing.config_maps.iter().find(is_here)?;
    let is_ours = |key: &str| {
        let digits = key.strip_prefix(SCHEDULING_KEY).and_then(|rest| rest.strip_prefix('-'));
        digits.is_some_and(|digits| digits.len() == KEY_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let used: BTreeSet<String> = in_use.iter().map(|own| selectors_key(own, in_use.first().copied())).collect();
    let is_used = |key: &String| used.contains(key) || workflow.scheduling_key == *key;
    let mut left: Vec<&String> =
        map.data.iter().flatten().map(|(key, _)| key).filter(|key| is_ours(key) && !is_used(key)).collect();
    if left.is_empty() {
        return None;
    }
    let running = running(jobs());
    left.retain(|key| !running.iter().any(|job| mounts(job, &name, key)));
    let removed: serde_json::Map<_, _> = left.into_iter().map(|key| (key.clone(), Value::Null)).collect();
    (!removed.is_empty())
        .then(|| Write::Patch { target: Target::of(map.as_ref()).unpinned(), patch: json!({ "data": removed }) })
}

/// Returns whether the pod of a Job mounts a key of a ConfigMap.
fn mounts(job: &Job, name: &str, key: &str) -> bool {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let volumes = pod.into_iter().flat_map(|pod| pod.volumes.iter().flatten());
    let mut maps = volumes.filter_map(|volume| volume.config_map.as_ref()).filter(|map| map.name == name);
    maps.any(|map| map.items.iter().flatten().any(|item| item.key == key))
}

/// Returns everything a pipeline's Job needs, in the order of creation.
pub fn objects(parent: &Parent, workflow: &Workflow, pipeline: &Pipeline) -> Vec<Wanted> {
    let promise = || BTreeMap::from([(keys::PROMISE_NAME.to_owned(), workflow.promise.clone())]);
    let namespace = Some(workflow.namespace.as_str());
    // A pipeline can name an account that its author has made.
    let account = Wanted::new::<ServiceAccount>(namespace, service_account_name(workflow, pipeline), promise());
    let mut wanted = vec![Wanted { is_anybodys: true, ..account }];
    if workflow.action == Action::Configure {
        let data = json!({ workflow.scheduling_key.as_str(): scheduling(&workflow.selectors) });
        wanted.push(Wanted::new::<ConfigMap>(namespace, scheduling_name(workflow), promise()).with("data", data));
    }
    wanted.extend(default_permissions(parent, workflow, pipeline, &promise()));
    wanted.extend(user_permissions(workflow, pipeline));
    wanted
}

/// Returns the selectors as the original writes them: keys in lower case, one entry for each selector.
fn scheduling(selectors: &[DestinationSelector]) -> String {
    if selectors.is_empty() {
        return "[]\n".into();
    }
    let mut text = String::new();
    for selector in selectors {
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
