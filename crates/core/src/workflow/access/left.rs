//! What was made in a `pipelineNamespace` in which no pipeline runs any more.
//!
//! What every pipeline may do carries no label but the Promise's, and nothing tells a pipeline namespace from that of a request but the
//! bindings that are made for it alone: those that let an account of it work for requests, or the Promise, elsewhere. They go last, so
//! that a removal which was cut short is gone on with.
//!
//! # Source
//! `02-workflows.md` §5.1–§5.3

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kratix_api::pipeline::{Action, WorkflowType};
use kratix_api::{keys, name};
use kube_core::{Resource, ResourceExt};

use super::{Existing, InUse, scheduling_name, service_account_name};
use crate::object::Target;
use crate::plan::Write;
use crate::workflow::Workflow;

/// Returns the namespaces whose accounts work for pipelines of this type elsewhere: each that is or was a `pipelineNamespace`, from before
/// its first Job until nothing runs there any more. Only who may bind an account for the whole cluster can add one.
pub fn bound_namespaces(promise: &str, kind: WorkflowType, bindings: &[Arc<ClusterRoleBinding>]) -> BTreeSet<String> {
    let ours = Ours::of(promise, kind);
    let bindings = bindings.iter().filter(|binding| ours.has(binding.as_ref()));
    bindings.flat_map(|binding| subject_namespaces(binding).map(str::to_owned)).collect()
}

/// Returns the removal of accounts, default permissions and selectors of this type from the namespaces that were left. `existing_in`
/// returns what there is in one of them.
pub(in crate::workflow) fn left_behind(
    workflow: &Workflow,
    in_use: &InUse,
    existing_in: impl Fn(&str) -> Existing,
) -> Vec<Write> {
    let ours = Ours::of(&workflow.promise, workflow.kind);
    let mut writes = Vec::new();
    for namespace in &in_use.left {
        let there = existing_in(namespace);
        writes.extend(removals(namespace, &there.role_bindings, |binding| ours.has(binding)));
        writes.extend(removals(namespace, &there.roles, |role| ours.has(role)));
        let named = accounts(workflow, in_use);
        writes.extend(removals(namespace, &there.service_accounts, |account| {
            ours.has(account) || (ours.is_of_promise(account) && named.contains(&account.name_any()))
        }));
        // The workflow of the Promise mounts it as well: where that runs, it stays.
        let is_common = workflow.kind == WorkflowType::Promise || namespace == keys::SYSTEM_NAMESPACE;
        writes.extend(removals(namespace, &there.config_maps, |map| {
            !is_common && ours.is_of_promise(map) && map.name_any() == scheduling_name(workflow)
        }));
    }
    writes
}

/// Returns the removal of the bindings that tell of the namespaces that were left, each after its role. There is one for each namespace
/// with requests, and those to come would want it again, unless all pipelines run beside their requests.
pub(in crate::workflow) fn last_of_left(workflow: &Workflow, in_use: &InUse, existing: &Existing) -> Vec<Write> {
    if workflow.kind != WorkflowType::Resource || !in_use.namespaces.is_empty() {
        return Vec::new();
    }
    let ours = Ours::of(&workflow.promise, workflow.kind);
    let is_left = |binding: &&Arc<ClusterRoleBinding>| {
        ours.has(binding.as_ref()) && subject_namespaces(binding).all(|namespace| in_use.left.contains(namespace))
    };
    let mut writes = Vec::new();
    for binding in existing.cluster_role_bindings.iter().filter(is_left) {
        let role = existing.cluster_roles.iter().find(|role| role.name_any() == binding.name_any());
        let role = role.filter(|role| ours.has(role.as_ref()));
        writes.extend(role.map(|role| Write::Delete { target: Target::of(role.as_ref()) }));
        writes.push(Write::Delete { target: Target::of(binding.as_ref()) });
    }
    writes
}

/// Returns the removal of what is in a namespace and is ours.
fn removals<'a, K: Resource<DynamicType = ()> + 'a>(
    namespace: &'a str,
    objects: &'a [Arc<K>],
    is_ours: impl Fn(&K) -> bool + 'a,
) -> impl Iterator<Item = Write> + 'a {
    let here = objects.iter().map(AsRef::as_ref).filter(move |object| {
        let is_here = object.meta().namespace.as_deref() == Some(namespace);
        is_here && object.meta().deletion_timestamp.is_none() && is_ours(object)
    });
    here.map(|object| Write::Delete { target: Target::of(object) })
}

/// Returns the accounts that pipelines of this type name.
fn accounts(workflow: &Workflow, in_use: &InUse) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for one in std::iter::once(workflow).chain(&in_use.workflows) {
        for action in Action::ALL {
            let one = one.for_action(action);
            names.extend(one.iter().flat_map(|one| one.pipelines.iter().map(|own| service_account_name(one, own))));
        }
    }
    names
}

fn subject_namespaces(binding: &ClusterRoleBinding) -> impl Iterator<Item = &str> {
    binding.subjects.iter().flatten().filter_map(|subject| subject.namespace.as_deref())
}

/// What Kratix makes for every pipeline of one type.
struct Ours<'a> {
    promise: &'a str,
    prefixes: [String; 2],
}

impl<'a> Ours<'a> {
    fn of(promise: &'a str, kind: WorkflowType) -> Self {
        let of_type = |action| name::pipeline_id(promise, kind, action, "");
        Self { promise, prefixes: Action::ALL.map(of_type) }
    }

    fn is_of_promise<K: Resource>(&self, object: &K) -> bool {
        object.labels().get(keys::PROMISE_NAME).is_some_and(|promise| promise == self.promise)
    }

    /// Returns whether an object is an account, or tells what every pipeline of this type may do.
    fn has<K: Resource>(&self, object: &K) -> bool {
        let name = object.meta().name.as_deref().unwrap_or_default();
        self.is_of_promise(object)
            && !object.labels().contains_key(keys::PIPELINE_NAME)
            && self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}
