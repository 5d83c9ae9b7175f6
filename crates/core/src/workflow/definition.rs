//! What a Promise spec says about workflows.

use std::collections::BTreeMap;
use std::sync::Arc;

use kratix_api::pipeline::{Action, Pipeline, WorkflowError, WorkflowType, decode_workflow};
use kratix_api::promise::DestinationSelector;
use kratix_api::{PromiseSpec, hash, keys};
use kube_core::{DynamicObject, ResourceExt};
use serde_json::Value;

use super::access;

/// What one Promise spec says about workflows, decoded once: decoding and hashing cost more than a whole pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    hash: String,
    /// The `pipelineNamespace`, empty where none is chosen.
    pub(super) namespace: String,
    /// Selectors of the Promise.
    pub(super) selectors: Vec<DestinationSelector>,
    pipelines: BTreeMap<(WorkflowType, Action), Decoded>,
}

type Decoded = Result<Arc<[Pipeline]>, WorkflowError>;

impl Definition {
    /// Decodes the workflows of a Promise spec. One that is broken is reported only when it is asked for.
    pub fn of(spec: &PromiseSpec) -> Self {
        let all = WorkflowType::ALL.into_iter().flat_map(|kind| Action::ALL.map(|action| (kind, action)));
        let decode = |(kind, action)| ((kind, action), decode_workflow(spec, kind, action).map(Arc::from));
        Self {
            hash: hash::promise_spec(spec),
            namespace: spec.workflows.config.pipeline_namespace.clone(),
            selectors: spec.destination_selectors.clone(),
            pipelines: all.map(decode).collect(),
        }
    }

    /// Returns a workflow without what depends on its parent.
    pub(super) fn workflow(
        &self,
        promise: &str,
        kind: WorkflowType,
        action: Action,
    ) -> Result<Workflow, WorkflowError> {
        Ok(Workflow {
            kind,
            action,
            promise: promise.to_owned(),
            pipelines: self.pipelines[&(kind, action)].clone()?,
            counterpart: self.pipelines[&(kind, action.other())].clone().ok(),
            hash: self.hash.clone(),
            spec_hash: self.hash.clone(),
            namespace: self.namespace.clone(),
            is_shared: !self.namespace.is_empty(),
            selectors: self.selectors.clone(),
            scheduling_key: access::SCHEDULING_KEY.to_owned(),
            is_cluster_scoped: false,
            is_dry_run: false,
        })
    }

    /// Returns a workflow of the Promise itself.
    ///
    /// # Errors
    /// The first of its pipelines that cannot be decoded.
    pub fn promise_workflow(&self, promise: &str, action: Action) -> Result<Workflow, WorkflowError> {
        let mut workflow = self.workflow(promise, WorkflowType::Promise, action)?;
        workflow.is_cluster_scoped = true;
        if !workflow.is_shared {
            workflow.namespace = keys::SYSTEM_NAMESPACE.to_owned();
        }
        Ok(workflow)
    }

    /// Returns a workflow of one request; `self` is that of the revision the request is on, `honours_dry_run` tells
    /// whether the platform acts on the dry-run label.
    ///
    /// # Errors
    /// As [`Definition::promise_workflow`].
    pub fn request_workflow(
        &self,
        promise: &str,
        request: &DynamicObject,
        action: Action,
        honours_dry_run: bool,
    ) -> Result<Workflow, WorkflowError> {
        let mut workflow = self.workflow(promise, WorkflowType::Resource, action)?;
        let own = request.namespace().unwrap_or_default();
        workflow.is_cluster_scoped = own.is_empty();
        if !workflow.is_shared {
            workflow.namespace = own;
        }
        workflow.is_dry_run =
            honours_dry_run && hash::Run::of_labels(request.metadata.labels.as_ref()) == hash::Run::Dry;
        let suffix = if workflow.is_dry_run { "-dry-run" } else { "" };
        let spec = hash::value(request.data.get("spec").unwrap_or(&Value::Null));
        workflow.hash = hash::text(&format!("{}-{spec}{suffix}", self.hash));
        Ok(workflow)
    }
}

/// One workflow and what its Jobs are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// Whose pipelines they are.
    pub kind: WorkflowType,
    /// What they are run for.
    pub action: Action,
    /// Name of the Promise.
    pub promise: String,
    /// The pipelines in order.
    pub pipelines: Arc<[Pipeline]>,
    /// Those of the other action, `None` when they cannot be decoded.
    pub counterpart: Option<Arc<[Pipeline]>>,
    /// Hash of everything the Jobs depend on.
    pub hash: String,
    /// Hash of the Promise spec alone.
    pub spec_hash: String,
    /// Namespace of Jobs, ServiceAccounts and Works.
    pub namespace: String,
    /// Whether the Promise chose that namespace (`pipelineNamespace`), so that requests of many namespaces meet in it.
    pub is_shared: bool,
    /// Selectors of the Promise.
    pub selectors: Vec<DestinationSelector>,
    /// Where the ConfigMap keeps them.
    pub scheduling_key: String,
    /// Whether the parent has no namespace.
    pub is_cluster_scoped: bool,
    /// Whether its output is a preview only.
    pub is_dry_run: bool,
}

impl Workflow {
    /// Returns the names of the pipelines in order.
    pub fn pipeline_names(&self) -> Vec<&str> {
        self.pipelines.iter().map(Pipeline::name).collect()
    }

    /// Returns the workflow of the same parent for an action, `None` when its pipelines cannot be decoded. Its hash is that
    /// of both: Jobs are told apart by their labels.
    pub(super) fn for_action(&self, action: Action) -> Option<Self> {
        if action == self.action {
            return Some(self.clone());
        }
        let (pipelines, counterpart) = (self.counterpart.clone()?, Some(Arc::clone(&self.pipelines)));
        Some(Self { action, pipelines, counterpart, ..self.clone() })
    }
}
