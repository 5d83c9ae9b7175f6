//! What the containers of pipelines do, as a scenario says.

use std::collections::{BTreeMap, BTreeSet};

use kratix_api::keys;
use kratix_testing::simulated_node::{Outcome, Stage};
use serde_json::Value;
use tokio::sync::watch;

use crate::scenario::EXAMPLE;

/// What a pipeline's containers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Act {
    /// Write a file made from the object, and a status.
    #[default]
    Write,
    /// End with an error.
    Fail,
    /// Run until told otherwise.
    Hold,
    /// Cannot begin until told otherwise: the image is not there.
    Stuck,
    /// Ask to be suspended.
    Suspend,
    /// Ask to be run again until there were so many attempts.
    Retry(i64),
    /// Write a request for the Promise `base`.
    Ask,
    /// Write these files, and nothing else, relative to `/kratix`.
    Files(Vec<(&'static str, &'static str)>),
}

/// The acts by pipeline, and which pipelines are held at the moment.
#[derive(Clone)]
pub(crate) struct Script {
    acts: watch::Sender<BTreeMap<&'static str, Act>>,
    held: watch::Sender<BTreeSet<String>>,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { acts: watch::Sender::default(), held: watch::Sender::default() }
    }

    pub(crate) fn set(&self, pipeline: &'static str, act: Act) {
        self.held.send_modify(|held| {
            held.remove(pipeline);
        });
        self.acts.send_modify(|acts| {
            acts.insert(pipeline, act);
        });
    }

    /// Waits until a container of the pipeline is held.
    pub(crate) async fn held(&self, pipeline: &str) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| held.contains(pipeline)).await.unwrap();
    }

    pub(crate) fn play(&self, stage: &Stage<'_>) -> Outcome {
        let pipeline = stage.label(keys::PIPELINE_NAME);
        let mut changes = self.acts.subscribe();
        let act = changes.borrow_and_update().get(pipeline).cloned().unwrap_or_default();
        let act = told(stage).unwrap_or(act);
        match act {
            Act::Write => write(stage, pipeline),
            Act::Fail => return Outcome::Failed,
            Act::Hold => {
                self.held.send_modify(|held| {
                    held.insert(pipeline.to_owned());
                });
                return Outcome::Later(Box::pin(async move {
                    let _ = changes.changed().await;
                }));
            }
            Act::Stuck => {
                let until = Box::pin(async move {
                    let _ = changes.changed().await;
                });
                return Outcome::Waiting { reason: "ErrImagePull", message: "not found".to_owned(), until };
            }
            Act::Suspend => stage.metadata("workflow-control.yaml", "suspend: true\nmessage: wait for approval\n"),
            Act::Retry(attempts_max) if attempts(&stage.object(), pipeline) < attempts_max => {
                stage.metadata("workflow-control.yaml", "retryAfter: 20s\nmessage: not yet\n");
            }
            Act::Retry(_) => write(stage, pipeline),
            Act::Ask => {
                let object = stage.object();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let request = serde_json::json!({
                    "apiVersion": EXAMPLE, "kind": "Base", "spec": object["spec"],
                    "metadata": { "name": format!("{name}-base"), "namespace": "default" },
                });
                stage.output("base.yaml", &request.to_string());
            }
            Act::Files(files) => {
                for (path, text) in files {
                    match path.split_once('/') {
                        Some(("output", path)) => stage.output(path, text),
                        Some(("metadata", path)) => stage.metadata(path, text),
                        _ => panic!("{path} is neither below output nor below metadata"),
                    }
                }
            }
        }
        Outcome::Succeeded
    }
}

/// Annotation of an object: what the configure pipelines that run for it do. As the image of a container it says the same.
pub(crate) const ACT: &str = "suite/act";
/// The acts that can be told by name.
pub(crate) const TOLD: [(&str, Act); 4] =
    [("fail", Act::Fail), ("stuck", Act::Stuck), ("suspend", Act::Suspend), ("retry", Act::Retry(2))];

/// Returns what the object or the container says that is to be done.
fn told(stage: &Stage<'_>) -> Option<Act> {
    if stage.label(keys::WORKFLOW_ACTION) != "configure" {
        return None;
    }
    let object = stage.object();
    let annotation = object["metadata"]["annotations"][ACT].as_str();
    let image = stage.container.image.as_deref();
    let named = |name: &str| TOLD.iter().find(|(known, _)| *known == name).map(|(_, act)| act.clone());
    annotation.and_then(named).or_else(|| image.and_then(named))
}

/// How often the pipeline has asked to be run again.
fn attempts(object: &Value, pipeline: &str) -> i64 {
    let pipelines = object.pointer("/status/kratix/workflows/pipelines").and_then(Value::as_array);
    let mine = pipelines.into_iter().flatten().find(|entry| entry["name"] == pipeline);
    mine.and_then(|entry| entry["attempts"].as_i64()).unwrap_or(0)
}

fn write(stage: &Stage<'_>, pipeline: &str) {
    if stage.label(keys::WORKFLOW_ACTION) != "configure" {
        return;
    }
    let object = stage.object();
    let text = |pointer: &str| object.pointer(pointer).map(ToString::to_string).unwrap_or_default();
    let (container, size) = (&stage.container.name, text("/spec/size"));
    let image = stage.container.image.as_deref().unwrap_or_default();
    let variables: Vec<String> = (stage.container.env.iter().flatten())
        .filter(|variable| !variable.name.starts_with("KRATIX_"))
        .map(|variable| format!("{}={}", variable.name, variable.value.as_deref().unwrap_or_default()))
        .collect();
    let (name, spec) = (text("/metadata/name"), text("/spec"));
    // A Promise as a whole is not what it writes about: it would differ with every change of another workflow.
    let spec = if stage.label(keys::WORKFLOW_TYPE) == "promise" { "of a Promise" } else { &spec };
    let content = format!("by: {pipeline} {image} {variables:?}\nfor: {name}\nspec: {spec}\n");
    stage.output(&format!("{pipeline}/{container}.yaml"), &content);
    let size = if size.is_empty() { size } else { format!("size: {size}\n") };
    stage.metadata("status.yaml", &format!("{size}{pipeline}: {container}\n"));
}
