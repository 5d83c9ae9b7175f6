//! The pipelines of a Promise: whether they can be read, and whether the API server would take their Jobs.
//!
//! Always in the same order, and all faults at once: promise before resource, configure before delete.
//!
//! # Source
//! `01-api.md` §7.3 C2 and C3, §9.2 (2, 5)

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kratix_api::pipeline::{self, Action, Pipeline, WorkflowError, WorkflowType};
use kratix_api::promise_api::{self, Api};
use kratix_api::{PromiseSpec, keys, name};
use kube_core::DynamicObject;

use super::promise::{Case, VALIDATING};
use super::{Denial, Question, Ruling, Snapshot, joined, label};
use crate::config::Config;
use crate::object::{Kind, ObjectKey};
use crate::patch::to_value;
use crate::workflow::job::{Attempt, RESERVED_LABELS, job};
use crate::workflow::{Definition, Parent, Settings, Workflow};

/// Name of the request for which the Jobs of resource workflows are tried.
const SAMPLE: &str = "webhook-dry-run";
/// Stands for the uid of what has none yet.
const SAMPLE_UID: &str = "00000000-0000-0000-0000-000000000000";

/// Checks all pipelines.
pub(super) fn check(case: &Case<'_>) -> Ruling<()> {
    let workflows = WorkflowType::ALL.into_iter().flat_map(|kind| Action::ALL.map(|action| (kind, action)));
    let examined: Vec<Examined> = workflows.map(|(kind, action)| examine(case, kind, action)).collect();
    let has_trials = examined.iter().any(|one| one.trials().next().is_some());
    let settings = if has_trials { settings(case.snapshot)? } else { case.snapshot.settings.clone() };
    let questions = |one: &Examined| {
        let question = |pipeline| one.question(case, &settings, pipeline);
        one.trials().filter_map(question).collect::<Vec<_>>()
    };
    case.snapshot.know(examined.iter().flat_map(questions))?;
    let mut faults = Vec::new();
    for one in examined {
        for finding in &one.findings {
            match finding {
                Finding::Fault(fault) => faults.push(fault.clone()),
                Finding::Sound(pipeline) => faults.extend(one.refusal(case, &settings, pipeline)?),
            }
        }
    }
    joined(faults).map_or(Ok(()), |message| Err(Denial::rule(VALIDATING, message).into()))
}

/// One workflow, looked at without the API server.
struct Examined {
    kind: WorkflowType,
    action: Action,
    /// In the order of the pipelines.
    findings: Vec<Finding>,
    /// The API, for workflows of requests.
    api: Option<Api>,
}

/// What is found out about a pipeline without the API server.
enum Finding {
    Fault(String),
    /// Nothing is wrong; its Job is to be tried.
    Sound(Box<Pipeline>),
}

fn examine(case: &Case<'_>, kind: WorkflowType, action: Action) -> Examined {
    let spec = &case.promise.spec;
    let api = match kind {
        WorkflowType::Promise => None,
        WorkflowType::Resource => Some(promise_api::read(spec)),
    };
    let mut names = BTreeSet::new();
    let mut findings = Vec::new();
    for (index, element) in spec.pipelines(kind, action).iter().enumerate() {
        let pipeline = match pipeline::decode(element) {
            Ok(pipeline) => pipeline,
            Err(source) => {
                let error = WorkflowError { workflow: kind, action, index, source };
                findings.push(Finding::Fault(error.to_string()));
                continue;
            }
        };
        let mut faults = label_faults(&pipeline, kind, action);
        let name = pipeline.name();
        if !names.insert(name.to_owned()) {
            faults.push(format!("duplicate pipeline name {name:?} in workflow \"{kind}\" action \"{action}\""));
        }
        faults.extend(permission_faults(&pipeline, kind, action));
        let id = name::pipeline_id(case.name(), kind, action, name);
        if id.len() > name::PIPELINE_ID_BYTES_MAX {
            faults.push(format!(
                "{kind}.{action} pipeline with name {name:?} is too long. The name is used when generating resources for \
                 the pipeline,including the ServiceAccount which follows the format of {id:?}, which cannot be longer than \
                 {} characters in total",
                name::PIPELINE_ID_BYTES_MAX
            ));
        }
        if let Some(Err(error)) = &api {
            faults.push(format!("failed to generate pipeline resources {error}"));
        }
        if faults.is_empty() {
            findings.push(Finding::Sound(Box::new(pipeline)));
        }
        findings.extend(faults.into_iter().map(Finding::Fault));
    }
    Examined { kind, action, findings, api: api.and_then(Result::ok) }
}

fn label_faults(pipeline: &Pipeline, kind: WorkflowType, action: Action) -> Vec<String> {
    let place = format!("in workflow \"{kind}\" action \"{action}\"");
    let mut faults = Vec::new();
    for (key, value) in pipeline.metadata.labels.iter().flatten() {
        let complaints = label::value_complaints(value);
        if !complaints.is_empty() {
            faults.push(format!("invalid label value {value:?} for key {key:?} {place}: {}", complaints.join(",")));
        }
        let complaints = label::key_complaints(key);
        if !complaints.is_empty() {
            faults.push(format!("invalid label key {key:?} {place}: {}", complaints.join(",")));
        }
    }
    faults
}

/// Finds permissions of which the API server takes no role: they would refuse every run.
fn permission_faults(pipeline: &Pipeline, kind: WorkflowType, action: Action) -> Vec<String> {
    const MISSING: &str = "is empty; a permission needs at least one";
    let permissions = pipeline.spec.rbac.iter().flat_map(|rbac| &rbac.permissions).enumerate();
    let wrong = permissions.flat_map(|(index, permission)| {
        let has_urls = !permission.non_resource_urls.is_empty();
        let (has_groups, has_resources) = (!permission.api_groups.is_empty(), !permission.resources.is_empty());
        let all = [
            ("verbs", permission.verbs.is_empty(), MISSING),
            ("apiGroups", !has_urls && !has_groups, MISSING),
            ("resources", !has_urls && !has_resources, MISSING),
            (
                "nonResourceURLs",
                has_urls && permission.resource_namespace.is_empty(),
                "are in no namespace; a permission for them needs resourceNamespace: \"*\"",
            ),
            (
                "nonResourceURLs",
                has_urls && (has_groups || has_resources),
                "stand beside apiGroups or resources; a permission is for either",
            ),
        ];
        all.into_iter().filter(|(_, is_wrong, _)| *is_wrong).map(move |(field, _, why)| (index, field, why))
    });
    let name = pipeline.name();
    let fault = |(index, field, why)| {
        format!("{kind}.{action} pipeline with name {name:?}: spec.rbac.permissions[{index}].{field} {why}")
    };
    wrong.map(fault).collect()
}

/// Warns of labels of pipelines that have no effect: Kratix needs their keys itself. They are no reason to refuse a Promise that
/// has worked so far.
pub(super) fn reserved_labels(spec: &PromiseSpec) -> Vec<String> {
    let workflows = WorkflowType::ALL.into_iter().flat_map(|kind| Action::ALL.map(|action| (kind, action)));
    let of = |(kind, action): (WorkflowType, Action)| {
        let pipelines = spec.pipelines(kind, action).iter().filter_map(|element| pipeline::decode(element).ok());
        pipelines.flat_map(move |pipeline| {
            let keys: Vec<String> = pipeline.metadata.labels.iter().flatten().map(|(key, _)| key.clone()).collect();
            let warning = |key: String| {
                let name = pipeline.name();
                format!(
                    "label {key:?} of pipeline {name:?} in workflow \"{kind}\" action \"{action}\" is set by Kratix; the pipeline's \
                     value has no effect"
                )
            };
            keys.into_iter().filter(|key| RESERVED_LABELS.contains(&key.as_str())).map(warning).collect::<Vec<_>>()
        })
    };
    workflows.flat_map(of).collect()
}

impl Examined {
    fn trials(&self) -> impl Iterator<Item = &Pipeline> {
        self.findings.iter().filter_map(|finding| match finding {
            Finding::Sound(pipeline) => Some(&**pipeline),
            Finding::Fault(_) => None,
        })
    }

    /// Asks the API server what it makes of the Job of a pipeline.
    fn question(&self, case: &Case<'_>, settings: &Settings, pipeline: &Pipeline) -> Option<Question> {
        let (parent, workflow) = self.workflow(case, pipeline)?;
        let attempt = Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
        let mut object = to_value(&job(&parent, &workflow, settings, attempt));
        let kind = Kind::of::<Job>();
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.as_str().into();
        Some(Question::Create { kind, object })
    }

    /// Returns what the API server has against the Job of a pipeline.
    fn refusal(&self, case: &Case<'_>, settings: &Settings, pipeline: &Pipeline) -> Ruling<Option<String>> {
        let Some(question) = self.question(case, settings, pipeline) else { return Ok(None) };
        let Err(refusal) = case.snapshot.object(question)? else { return Ok(None) };
        let (kind, action, name) = (self.kind, self.action, pipeline.name());
        let what = format!("{kind}.{action} pipeline with name {name} failed to generate Job definition");
        // The line breaks are part of the contract.
        Ok(Some(format!("\n{what}: \n{}", refusal.message)))
    }

    /// Returns the pipeline alone as a workflow, and what it is run for: the Promise, or some request for it.
    fn workflow(&self, case: &Case<'_>, pipeline: &Pipeline) -> Option<(Parent, Workflow)> {
        let config = case.promise.spec.workflows.config.clone();
        let alone = PromiseSpec {
            destination_selectors: case.promise.spec.destination_selectors.clone(),
            workflows: kratix_api::promise::Workflows { config, ..Default::default() },
            ..PromiseSpec::default()
        };
        let definition = Definition::of(&alone);
        let (parent, workflow) = match self.kind {
            WorkflowType::Promise => {
                let parent = Parent::of_promise(&case.promise);
                (parent, definition.promise_workflow(case.name(), self.action))
            }
            WorkflowType::Resource => {
                let resource = self.api.as_ref()?.resource();
                let kind = Kind::new(&resource.group, &resource.version, &resource.kind, &resource.plural);
                let request = DynamicObject::new(SAMPLE, &resource).within(keys::SYSTEM_NAMESPACE);
                let workflow = definition.request_workflow(case.name(), &request, self.action, false);
                (Parent::of_request(kind, &request), workflow)
            }
        };
        let mut parent = parent;
        parent.target.uid.get_or_insert_with(|| SAMPLE_UID.to_owned());
        let pipelines: Arc<[Pipeline]> = Arc::new([pipeline.clone()]);
        Some((parent, Workflow { pipelines, ..workflow.ok()? }))
    }
}

/// Returns the settings that Jobs are made with.
fn settings(snapshot: &Snapshot) -> Ruling<Settings> {
    let key = ObjectKey::namespaced(keys::SYSTEM_NAMESPACE, keys::CONFIG_MAP);
    let mut settings = snapshot.settings.clone();
    // One that cannot be had or read changes nothing: the controllers report it, and run on what they have.
    let config_map = snapshot.get::<ConfigMap>(key)?.ok();
    let text = config_map.and_then(|config_map| config_map.data?.remove(keys::CONFIG_KEY));
    if let Some(Ok((config, _))) = text.map(|text| Config::parse(&text)) {
        settings.config = Arc::new(config);
    }
    Ok(settings)
}
