//! The Job that runs one pipeline: metadata, containers in order, volumes, environment.
//!
//! # Source
//! `02-workflows.md` §4, `01-api.md` §4.4

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath,
    LocalObjectReference, ObjectFieldSelector, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kratix_api::pipeline::{self, Action, Pipeline, WorkflowType};
use kratix_api::{ObjectMeta, OwnerReference, keys, name};

use super::{Parent, Settings, Workflow, access};
use crate::config;
use crate::object::ObjectKey;

const ADAPTER: &str = "/bin/pipeline-adapter";
const SHARED_INPUT: &str = "shared-input";
const SHARED_OUTPUT: &str = "shared-output";
const SHARED_METADATA: &str = "shared-metadata";
const PROMISE_SCHEDULING: &str = "promise-scheduling";
const ON_FAILURE: &str = "OnFailure";

/// What makes one Job of a pipeline different from the others.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Place of the pipeline in the workflow.
    pub index: usize,
    /// Number among the parent's Jobs.
    pub sequence: i64,
    /// Run it belongs to.
    pub run: i64,
    /// Version of the Promise that the parent has so far.
    pub previous_version: &'a str,
}

/// Returns the name of the Job for an attempt.
///
/// # Guarantees
/// Derived from the parent's identity, the pipeline, the hash and the number: a repeated pass gives the same name.
pub fn job_name(parent: &Parent, workflow: &Workflow, pipeline: &Pipeline, sequence: i64) -> String {
    let mut base = format!("kratix-{}", workflow.promise);
    if workflow.kind == WorkflowType::Resource {
        base.push_str(&format!("-{}", parent.target.key.name));
        if workflow.is_shared {
            base.push_str(&format!("-{}", parent.namespace()));
        }
    }
    base.push_str(&format!("-{}", pipeline.name()));
    let uid = parent.target.uid.as_deref().unwrap_or_default();
    let action = workflow.action.as_str();
    name::derived(&base, &[uid, action, pipeline.name(), &workflow.hash, &sequence.to_string()])
}

/// Returns the key of the Job for an attempt.
pub fn key(parent: &Parent, workflow: &Workflow, pipeline: &Pipeline, sequence: i64) -> ObjectKey {
    ObjectKey::namespaced(workflow.namespace.clone(), job_name(parent, workflow, pipeline, sequence))
}

/// Labels of Jobs by which Kratix finds them, in early versions too: whatever a pipeline gives them is dropped.
pub const RESERVED_LABELS: [&str; 12] = [
    keys::PROMISE_NAME,
    keys::WORKFLOW_TYPE,
    keys::WORKFLOW_ACTION,
    keys::PIPELINE_NAME,
    keys::MANAGED_BY,
    keys::HASH,
    keys::RESOURCE_NAME,
    keys::RESOURCE_NAMESPACE,
    keys::PIPELINE_HASH,
    keys::PIPELINE_NAMESPACE,
    keys::WORK_TYPE,
    keys::WORK_ACTION,
];

/// Returns the labels of the Job and its Pod. Labels that Kratix selects by win over those of the pipeline: a pipeline
/// that overwrote them would hide its own Jobs.
pub fn labels(parent: &Parent, workflow: &Workflow, pipeline: &Pipeline) -> BTreeMap<String, String> {
    let mut labels = pipeline.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !RESERVED_LABELS.contains(&key.as_str()));
    let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
    set(keys::PROMISE_NAME, &workflow.promise);
    set(keys::WORKFLOW_TYPE, workflow.kind.as_str());
    set(keys::WORKFLOW_ACTION, workflow.action.as_str());
    set(keys::PIPELINE_NAME, pipeline.name());
    set(keys::MANAGED_BY, keys::MANAGED_BY_KRATIX);
    set(keys::HASH, &workflow.hash);
    if workflow.kind == WorkflowType::Resource {
        set(keys::RESOURCE_NAME, &name::label_value(&parent.target.key.name));
        if workflow.is_shared {
            set(keys::RESOURCE_NAMESPACE, parent.namespace());
        }
    }
    labels
}

/// Returns the Job that runs the pipeline at `attempt.index`.
pub fn job(parent: &Parent, workflow: &Workflow, settings: &Settings, attempt: Attempt<'_>) -> Job {
    let pipeline = &workflow.pipelines[attempt.index];
    let labels = labels(parent, workflow, pipeline);
    let spec = &pipeline.spec;
    let defaults = &settings.config.workflows;
    let own_limit = spec.job_options.as_ref().and_then(|options| options.backoff_limit);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(parent, workflow, pipeline, attempt.sequence)),
            namespace: Some(workflow.namespace.clone()),
            labels: Some(labels.clone()),
            annotations: Some(job_annotations(parent, workflow, attempt)),
            owner_references: owner(parent, workflow).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: own_limit.or(defaults.default_backoff_limit),
            active_deadline_seconds: defaults.default_active_deadline,
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: not_empty(pod_annotations(parent, pipeline)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(parent, workflow, settings, attempt)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn not_empty(map: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

fn traces(parent: &Parent) -> impl Iterator<Item = (String, String)> {
    let traces = [keys::TRACE_PARENT, keys::TRACE_STATE, keys::TRACE_TIMESTAMP, keys::TRACE_GENERATION];
    traces.into_iter().filter_map(|key| {
        let value = parent.annotations.get(key).filter(|value| !value.is_empty())?;
        Some((key.to_owned(), value.clone()))
    })
}

fn job_annotations(parent: &Parent, workflow: &Workflow, attempt: Attempt<'_>) -> BTreeMap<String, String> {
    let target = &parent.target;
    let mut annotations: BTreeMap<String, String> = traces(parent).collect();
    let mut set = |key: &str, value: String| annotations.insert(key.to_owned(), value);
    set(keys::JOB_RESOURCE_NAMESPACE, parent.namespace().to_owned());
    set(keys::JOB_RESOURCE_NAME, target.key.name.clone());
    set(keys::JOB_RESOURCE_KIND, target.kind.kind.clone());
    set(keys::JOB_RESOURCE_API_VERSION, target.kind.api_version());
    set(super::SEQUENCE, attempt.sequence.to_string());
    set(super::RUN, attempt.run.to_string());
    if workflow.kind == WorkflowType::Resource && owner(parent, workflow).is_none() {
        set(super::PARENT_UID, target.uid.clone().unwrap_or_default());
    }
    if workflow.kind == WorkflowType::Resource {
        set(super::SPEC_HASH, workflow.spec_hash.clone());
    }
    if let Some(generation) = parent.promise_generation {
        set(super::PROMISE_GENERATION, generation.to_string());
        set(super::GENERATION, parent.generation.to_string());
    }
    if !attempt.previous_version.is_empty() {
        set(super::PREVIOUS_VERSION, attempt.previous_version.to_owned());
    }
    annotations
}

fn pod_annotations(parent: &Parent, pipeline: &Pipeline) -> BTreeMap<String, String> {
    let mut annotations = pipeline.metadata.annotations.clone().unwrap_or_default();
    annotations.extend(traces(parent));
    annotations
}

fn owner(parent: &Parent, workflow: &Workflow) -> Option<OwnerReference> {
    let target = &parent.target;
    let reference = OwnerReference {
        api_version: target.kind.api_version(),
        kind: target.kind.kind.clone(),
        name: target.key.name.clone(),
        uid: target.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    match workflow.kind {
        WorkflowType::Promise => {
            Some(OwnerReference { controller: Some(true), block_owner_deletion: Some(true), ..reference })
        }
        // An owner in another namespace does not exist for the garbage collector: it would delete the Job at once.
        WorkflowType::Resource => (workflow.namespace == parent.namespace()).then_some(reference),
    }
}

fn pod(parent: &Parent, workflow: &Workflow, settings: &Settings, attempt: Attempt<'_>) -> PodSpec {
    let index = attempt.index;
    let pipeline = &workflow.pipelines[index];
    let spec = &pipeline.spec;
    let is_last = index + 1 == workflow.pipelines.len();
    let parts = Parts { parent, workflow, settings, pipeline, is_last, sequence: attempt.sequence };

    let mut steps = vec![parts.reader()];
    steps.extend(spec.containers.iter().map(|container| parts.step(container)));
    if workflow.action == Action::Configure {
        steps.push(parts.work_writer());
    }
    let platform_secret = settings.adapter_pull_secret.iter().filter(|name| !name.is_empty());
    let mut pull_secrets: Vec<_> = platform_secret.map(|name| LocalObjectReference { name: name.clone() }).collect();
    pull_secrets.extend(spec.image_pull_secrets.iter().cloned());

    PodSpec {
        service_account_name: Some(access::service_account_name(workflow, pipeline)),
        init_containers: Some(steps),
        containers: vec![parts.status_writer()],
        volumes: Some(volumes(workflow, pipeline)),
        restart_policy: Some(
            spec.restart_policy.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| ON_FAILURE.into()),
        ),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        node_selector: not_empty(spec.node_selector.clone()),
        tolerations: (!spec.tolerations.is_empty()).then(|| spec.tolerations.clone()),
        ..PodSpec::default()
    }
}

fn volumes(workflow: &Workflow, pipeline: &Pipeline) -> Vec<Volume> {
    let mut volumes = Vec::new();
    if workflow.action == Action::Configure {
        volumes.push(Volume {
            name: PROMISE_SCHEDULING.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: access::scheduling_name(workflow),
                items: Some(vec![KeyToPath {
                    key: workflow.scheduling_key.clone(),
                    path: PROMISE_SCHEDULING.into(),
                    mode: None,
                }]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    volumes.extend([SHARED_INPUT, SHARED_OUTPUT, SHARED_METADATA].map(|name| Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }));
    volumes.extend(pipeline.spec.volumes.iter().cloned());
    volumes
}

/// Builds the containers of one pod.
struct Parts<'a> {
    parent: &'a Parent,
    workflow: &'a Workflow,
    settings: &'a Settings,
    pipeline: &'a Pipeline,
    is_last: bool,
    sequence: i64,
}

impl Parts<'_> {
    fn reader(&self) -> Container {
        let mounts = vec![mount(SHARED_INPUT, "/kratix/input"), mount(SHARED_OUTPUT, "/kratix/output")];
        self.adapter("reader", vec!["reader".into()], self.environment(), mounts)
    }

    fn work_writer(&self) -> Container {
        let mut args: Vec<String> = ["work-creator", "--input-directory", "/work-creator-files"].map(Into::into).into();
        let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        flag("--promise-name", &self.workflow.promise);
        flag("--pipeline-name", self.pipeline.name());
        flag("--namespace", &self.workflow.namespace);
        flag("--workflow-type", self.workflow.kind.as_str());
        if self.workflow.kind == WorkflowType::Resource {
            flag("--resource-name", &self.parent.target.key.name);
            if self.workflow.is_shared {
                flag("--resource-namespace", self.parent.namespace());
            }
        }
        let mut env = vec![
            variable(keys::env::SEQUENCE, &self.sequence.to_string()),
            annotation(keys::env::TRACE_PARENT, keys::TRACE_PARENT),
            annotation(keys::env::TRACE_STATE, keys::TRACE_STATE),
        ];
        env.extend(self.dry_run());
        let mounts = vec![
            mount(SHARED_OUTPUT, "/work-creator-files/input"),
            mount(SHARED_METADATA, "/work-creator-files/metadata"),
            mount(PROMISE_SCHEDULING, "/work-creator-files/kratix-system"),
        ];
        self.adapter("work-writer", args, env, mounts)
    }

    fn status_writer(&self) -> Container {
        let mut env = vec![variable(keys::env::IS_LAST_PIPELINE, truth(self.is_last))];
        env.extend(self.environment());
        let mounts = vec![mount(SHARED_METADATA, "/work-creator-files/metadata")];
        self.adapter("status-writer", vec!["update-status".into()], env, mounts)
    }

    fn adapter(&self, name: &str, args: Vec<String>, env: Vec<EnvVar>, mounts: Vec<VolumeMount>) -> Container {
        let defaults = &self.settings.config.workflows;
        Container {
            name: name.into(),
            image: Some(self.settings.adapter_image.clone()),
            command: Some(vec![ADAPTER.into()]),
            args: Some(args),
            env: Some(env),
            volume_mounts: Some(mounts),
            image_pull_policy: defaults.default_image_pull_policy.clone(),
            resources: Some(resources(defaults)),
            security_context: Some(confined()),
            ..Container::default()
        }
    }

    /// Returns a container of the pipeline's author.
    fn step(&self, own: &pipeline::Container) -> Container {
        let defaults = &self.settings.config.workflows;
        let mut env = self.environment();
        env.extend(own.env.iter().cloned());
        let mut mounts = vec![
            VolumeMount { read_only: Some(true), ..mount(SHARED_INPUT, "/kratix/input") },
            mount(SHARED_OUTPUT, "/kratix/output"),
            mount(SHARED_METADATA, "/kratix/metadata"),
        ];
        mounts.extend(own.volume_mounts.iter().cloned());
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Container {
            name: own.name.clone(),
            image: Some(own.image.clone()),
            command: (!own.command.is_empty()).then(|| own.command.clone()),
            args: (!own.args.is_empty()).then(|| own.args.clone()),
            env: Some(env),
            env_from: (!own.env_from.is_empty()).then(|| own.env_from.clone()),
            volume_mounts: Some(mounts),
            image_pull_policy: given(&own.image_pull_policy).or_else(|| defaults.default_image_pull_policy.clone()),
            resources: own.resources.clone().or_else(|| Some(resources(defaults))),
            security_context: own
                .security_context
                .clone()
                .or_else(|| defaults.default_container_security_context.clone()),
            ..Container::default()
        }
    }

    fn environment(&self) -> Vec<EnvVar> {
        use keys::env;
        let kind = &self.parent.target.kind;
        let mut variables: Vec<EnvVar> = [
            (env::WORKFLOW_ACTION, self.workflow.action.as_str()),
            (env::WORKFLOW_TYPE, self.workflow.kind.as_str()),
            (env::PROMISE_NAME, &self.workflow.promise),
            (env::PIPELINE_NAME, self.pipeline.name()),
            (env::OBJECT_KIND, &kind.kind),
            (env::OBJECT_GROUP, &kind.group),
            (env::OBJECT_VERSION, &kind.version),
            (env::OBJECT_NAME, &self.parent.target.key.name),
            (env::OBJECT_NAMESPACE, self.parent.namespace()),
            (env::CRD_PLURAL, &kind.plural),
            (env::CLUSTER_SCOPED, truth(self.workflow.is_cluster_scoped)),
        ]
        .into_iter()
        .map(|(name, value)| variable(name, value))
        .collect();
        variables.extend(self.dry_run());
        variables
    }

    fn dry_run(&self) -> Option<EnvVar> {
        self.workflow.is_dry_run.then(|| variable(keys::env::DRY_RUN, keys::TRUE))
    }
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn variable(name: &str, value: &str) -> EnvVar {
    // The API server does not store an empty value; leaving it out keeps what is sent equal to what is read back.
    EnvVar { name: name.into(), value: (!value.is_empty()).then(|| value.into()), value_from: None }
}

fn annotation(name: &str, key: &str) -> EnvVar {
    let field_path = format!("metadata.annotations['{key}']");
    let field_ref = Some(ObjectFieldSelector { api_version: None, field_path });
    EnvVar { name: name.into(), value: None, value_from: Some(EnvVarSource { field_ref, ..EnvVarSource::default() }) }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), ..VolumeMount::default() }
}

fn resources(defaults: &config::Workflows) -> ResourceRequirements {
    let amounts = |cpu: &str, memory: &str, storage: &str| {
        let amount = |name: &str, quantity: &str| (name.to_owned(), Quantity(quantity.to_owned()));
        Some(BTreeMap::from([amount("cpu", cpu), amount("memory", memory), amount("ephemeral-storage", storage)]))
    };
    defaults.default_container_resources.clone().unwrap_or_else(|| ResourceRequirements {
        requests: amounts("100m", "128Mi", "128Mi"),
        limits: amounts("200m", "256Mi", "256Mi"),
        claims: None,
    })
}

/// The security context of Kratix's own containers.
fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        privileged: Some(false),
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}
