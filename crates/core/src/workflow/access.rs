//! What a Job needs around it: a ServiceAccount, the Promise's selectors in a ConfigMap, and permissions.
//!
//! # Source
//! `02-workflows.md` §5

mod left;
mod outdated;
mod permissions;
mod selectors;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kratix_api::pipeline::{Action, Pipeline};
use kratix_api::{keys, name};
use kube_core::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Parent, Workflow};
use crate::object::{Kind, ObjectKey, Target};
use crate::patch::to_value;
use crate::plan::Write;

pub use left::bound_namespaces;
pub(super) use left::{last_of_left, left_behind};
pub(super) use outdated::outdated;
use outdated::{is_of_pipeline, running, serves};
use permissions::{default_permissions, permission_labels, user_permissions};
pub use selectors::SCHEDULING_KEY;
use selectors::scheduling;
pub(super) use selectors::{outdated_selectors, scheduling_key};

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
    /// The namespaces that they name as those in which pipelines of this type run.
    pub namespaces: BTreeSet<String>,
    /// Some run where their requests are.
    pub is_beside_requests: bool,
    /// The namespaces in which pipelines of this type ran because a `pipelineNamespace` said so, and run no more.
    pub left: BTreeSet<String>,
}

impl InUse {
    /// Returns whether no pipeline of this type runs in a namespace in which one ran.
    fn is_left(&self, namespace: &str) -> bool {
        self.left.contains(namespace) || (!self.is_beside_requests && !self.namespaces.contains(namespace))
    }

    /// Returns whether a Job of the Promise was made for a spec that is neither that of `workflow` nor one in use, be it of an earlier
    /// revision or of the same one before it was changed: what its pod may do is not among what these want.
    fn is_earlier(&self, workflow: &Workflow, job: &Job) -> bool {
        let known = std::iter::once(workflow).chain(&self.workflows);
        let specs: Vec<&str> = known.map(|one| one.spec_hash.as_str()).collect();
        super::history::spec_hash(job).is_none_or(|hash| !specs.contains(&hash))
    }
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
/// was made for a spec which is not in use, and an account of another namespace as long as a Job of it runs there. `jobs` returns the
/// Jobs of the Promise and its requests, asked for only if there is something to remove: see [`outdated`].
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
        let mut more = wanted.allowed_before(existing);
        more.retain(|(field, grant)| {
            jobs.iter().any(|job| {
                let (own, namespace) = (job.namespace(), grant.get("namespace").and_then(Value::as_str));
                let is_elsewhere = own.as_ref() != Some(&workflow.namespace);
                match *field {
                    "subjects" => {
                        let is_needed = is_elsewhere || in_use.is_earlier(workflow, job);
                        is_needed && own.as_deref() == namespace && is_of_pipeline(&labels, job)
                    }
                    _ => in_use.is_earlier(workflow, job) && serves(&wanted.kind, &labels, job),
                }
            })
        });
        wanted.keep(more);
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
