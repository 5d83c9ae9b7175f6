//! `work-creator`: turns what a pipeline left into a Work.
//!
//! The Work is found by its labels and made with a name that follows from them: a container that died after the write
//! and is run again meets its own Work. Files that one object cannot hold are in parts ([`kratix_api::part`]), which are
//! written first: a container that dies before the Work refers to them meets its own parts.
//!
//! # Source
//! `02-workflows.md` §14.2, §14.3; decisions 6, 10

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kratix_api::part::{self, INLINE_BYTES_MAX, Split};
use kratix_api::{Time, Timestamp, Work, WorkSpec, Workload, WorkloadGroup, compression, condition, keys, name};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::control::{self, Control};
use crate::parts::{self, Whole};
use crate::{Error, output, selectors};

/// Most that one request to the API server may have, by default of etcd.
const REQUEST_BYTES_MAX: usize = 1_572_864;
/// Room for what the server adds to an object: managed fields, ids, labels of others.
const RESERVED_BYTES: usize = 24 * 1024;
/// Largest Work that is written; its files take at most [`INLINE_BYTES_MAX`] of that.
const WORK_BYTES_MAX: usize = REQUEST_BYTES_MAX - RESERVED_BYTES;
/// Largest content of an existing Work that is compared byte by byte.
const COMPARED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Generation of an object that has just been made.
const FIRST_GENERATION: &str = "1";
/// Writers of one Work are few; more attempts mean that something is wrong.
const ATTEMPTS_MAX: usize = 8;
/// Time for a part of an earlier Work to go, before the first of several attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// What the work writer needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Directory with `input/`, `metadata/` and `kratix-system/`.
    pub root: PathBuf,
    /// The Promise.
    pub promise: String,
    /// The pipeline.
    pub pipeline: String,
    /// Namespace of the Work.
    pub namespace: String,
    /// The request; empty in a promise workflow.
    pub resource: String,
    /// Its namespace, if the Work is in another one that requests share.
    pub resource_namespace: String,
    /// `promise` or `resource`.
    pub workflow_type: String,
    /// Whether this is a preview.
    pub is_dry_run: bool,
    /// Number of the Job that runs the pipeline, or empty.
    pub sequence: String,
    /// W3C `traceparent`, or empty.
    pub trace_parent: String,
    /// W3C `tracestate`, or empty.
    pub trace_state: String,
}

/// Reads what the pipeline left, writes the Work and returns what to print.
///
/// # Errors
/// [`Error`].
pub async fn run(config: &Config, client: &Client, now: Timestamp) -> Result<Vec<String>, Error> {
    let wrapped = |error| Error::WorkWriter(Box::new(error));
    let mut lines = misnamed(&config.root.join("metadata"));
    lines.push(match collect(config).map_err(wrapped)? {
        None => "workflow suspended by workflow-control.yaml, no Work written".to_owned(),
        Some(groups) => write(config, groups, client, now).await.map_err(wrapped)?,
    });
    Ok(lines)
}

/// Returns a warning for each file beside those that Kratix reads whose name looks as if one of them was meant.
fn misnamed(metadata: &Path) -> Vec<String> {
    const READ: [&str; 3] = ["destination-selectors.yaml", "status.yaml", "workflow-control.yaml"];
    let names = std::fs::read_dir(metadata).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| {
        !READ.contains(&name.as_str()) && ["selector", "status", "control"].iter().any(|word| name.contains(word))
    });
    names.sort();
    let read = READ.join(", ");
    let warning = |name: &String| {
        let name = name.escape_debug();
        format!("Warning: /kratix/metadata/{name} is not read; Kratix reads {read} there")
    };
    names.iter().map(warning).collect()
}

/// Reads what the pipeline left; nothing when it asked to be suspended or run again.
///
/// # Errors
/// [`Error`] naming the file.
pub fn collect(config: &Config) -> Result<Option<Vec<WorkloadGroup>>, Error> {
    let metadata = config.root.join("metadata");
    let entries = selectors::read(&metadata.join("destination-selectors.yaml"))?;
    if control::read(&metadata.join("workflow-control.yaml"))? != Control::Continue {
        return Ok(None);
    }
    let output = output::read(&config.root.join("input"))?;
    let scheduling = selectors::read_scheduling(&config.root.join("kratix-system/promise-scheduling"))?;
    output::groups(output, &entries, scheduling, &config.workflow_type).map(Some)
}

/// The files of a Work in the form in which they are stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// In the Work, as the reference has them.
    Inline(Vec<WorkloadGroup>),
    /// In parts beside it.
    Split(Split),
}

impl Content {
    /// Returns the form for these groups.
    pub fn of(groups: Vec<WorkloadGroup>) -> Self {
        if part::json_bytes(&groups) <= INLINE_BYTES_MAX {
            Self::Inline(groups)
        } else {
            Self::Split(Split::of(groups))
        }
    }

    fn parts(&self) -> &[part::Part] {
        match self {
            Self::Inline(_) => &[],
            Self::Split(split) => &split.parts,
        }
    }
}

async fn write(config: &Config, groups: Vec<WorkloadGroup>, client: &Client, now: Timestamp) -> Result<String, Error> {
    let works: Api<Work> = Api::namespaced(client.clone(), &config.namespace);
    let selector: Vec<String> = config.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    let content = Content::of(groups);
    let parts = content.parts();
    let mut taken = 0;
    for attempt in 0..ATTEMPTS_MAX {
        let existing = works.list(&params).await.map_err(Error::api("list Works"))?.items;
        let plan = plan(config, &content, &existing, taken, now)?;
        if let Plan::Superseded { name } = plan {
            return Ok(format!("Work {}/{name} is of a later run: nothing written", config.namespace));
        }
        if !parts.is_empty() && !parts::store(&works, &plan.whole(config, &existing), parts, now).await? {
            tokio::time::sleep(PAUSE * (attempt as u32 + 1)).await;
            continue;
        }
        let outcome = match plan {
            Plan::Create(work) => works.create(&PostParams::default(), &work).await,
            Plan::Superseded { .. } => unreachable!("nothing is written"),
            Plan::Patch { name, patch } => works.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await,
        };
        match outcome {
            // Removed since they were found there: the Work refers to them now, so those that are made again stay.
            Ok(work) if !parts.is_empty() && parts::lacks(&works, &work.name_any(), parts).await? => {}
            Ok(work) if parts.is_empty() => {
                return Ok(format!("Work {}/{} written", config.namespace, work.name_any()));
            }
            Ok(work) => {
                return Ok(format!("Work {}/{} written, in {} parts", config.namespace, work.name_any(), parts.len()));
            }
            // Taken: by this very run (then the list shows it next time) or by one that is being deleted.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Any other conflict says nothing about the name.
                taken += usize::from(status.reason == "AlreadyExists");
                tracing::debug!(attempt, reason = %status.reason, "work changed meanwhile");
            }
            Err(error) => return Err(Error::api("write Work")(error)),
        }
    }
    Err(Error::Contended { what: "write Work".to_owned(), attempts: ATTEMPTS_MAX })
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// A new Work.
    Create(Box<Work>),
    /// A change of the existing one, with the version it is about.
    Patch {
        /// Name of the Work.
        name: String,
        /// Merge patch.
        patch: Value,
    },
    /// Nothing: a later Job has written the Work, and this one was stopped or removed before it came so far.
    Superseded {
        /// Name of the Work.
        name: String,
    },
}

impl Plan {
    /// Returns the Work that is written, as it is now.
    fn whole(&self, config: &Config, existing: &[Work]) -> Whole {
        let name = match self {
            Self::Create(work) => work.name_any(),
            Self::Patch { name, .. } | Self::Superseded { name } => name.clone(),
        };
        let old = existing.iter().find(|old| matches!(self, Self::Patch { .. }) && old.name_any() == name);
        let groups = old.map(|old| old.spec.workload_groups.as_slice()).unwrap_or_default();
        Whole {
            namespace: config.namespace.clone(),
            name,
            uid: old.and_then(Work::uid),
            generation: old.and_then(|old| old.metadata.generation).unwrap_or_default(),
            referred: part::references(groups).map(|reference| reference.name).collect(),
        }
    }
}

/// Decides what to write. `attempt` counts names that were taken by something else.
///
/// # Errors
/// [`Error::Ambiguous`], [`Error::Unstorable`].
pub fn plan(
    config: &Config,
    content: &Content,
    existing: &[Work],
    attempt: usize,
    now: Timestamp,
) -> Result<Plan, Error> {
    let mine: Vec<&Work> = existing.iter().filter(|work| config.owns(work)).collect();
    if mine.len() > 1 {
        let labels: Vec<String> = config.labels().iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
        let works: Vec<String> = mine.iter().map(|work| format!("{}/{}", config.namespace, work.name_any())).collect();
        return Err(Error::Ambiguous { labels: labels.join(" "), works: works.join(", ") });
    }
    let old = mine.first();
    if let Some(old) = old.filter(|old| config.is_superseded_by(old)) {
        return Ok(Plan::Superseded { name: old.name_any() });
    }
    let name = old.map_or_else(|| config.free_name(attempt, existing), |old| old.name_any());
    let mut groups = match content {
        Content::Inline(groups) => groups.clone(),
        Content::Split(split) => split.groups(&name),
    };
    if let Some(old) = old {
        keep_equal_content(&mut groups, &old.spec.workload_groups);
    }
    let work = config.work(name, groups, now);
    check_size(&work)?;
    let Some(old) = old else { return Ok(Plan::Create(Box::new(work))) };

    let mut patch = json!({
        "metadata": {"resourceVersion": old.resource_version()},
        "spec": {"lastExecutionTimestamp": work.spec.last_execution_timestamp},
    });
    if let Some(annotations) = &work.metadata.annotations {
        patch["metadata"]["annotations"] = json!(annotations);
    }
    if !config.trace_parent.is_empty() {
        let is_changed = old.spec != work.spec;
        let generation = old.metadata.generation.unwrap_or_default() + i64::from(is_changed);
        // What is left of an earlier trace would make the next pass take the new one for stale.
        patch["metadata"]["annotations"][keys::TRACE_GENERATION] = json!(generation.to_string());
        if config.trace_state.is_empty() && old.annotations().contains_key(keys::TRACE_STATE) {
            patch["metadata"]["annotations"][keys::TRACE_STATE] = Value::Null;
        }
    }
    let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    if old.spec.workload_groups != work.spec.workload_groups {
        let groups = &work.spec.workload_groups;
        patch["spec"]["workloadGroups"] = if groups.is_empty() { Value::Null } else { json!(groups) };
    }
    if old.spec.promise_name != work.spec.promise_name {
        patch["spec"]["promiseName"] = text(&work.spec.promise_name);
    }
    if old.spec.resource_name != work.spec.resource_name {
        patch["spec"]["resourceName"] = text(&work.spec.resource_name);
    }
    Ok(Plan::Patch { name: old.name_any(), patch })
}

/// Keeps the stored text where it stands for the same bytes: compressors differ, and a different text would be a change.
fn keep_equal_content(groups: &mut [WorkloadGroup], old: &[WorkloadGroup]) {
    let key = |group: &WorkloadGroup, file: &Workload| (group.id.clone(), file.filepath.clone());
    let stored: HashMap<_, &str> = old
        .iter()
        .flat_map(|group| group.workloads.iter().map(move |file| (key(group, file), file.content.as_str())))
        .collect();
    for group in groups {
        let id = group.id.clone();
        for file in &mut group.workloads {
            let Some(old) = stored.get(&(id.clone(), file.filepath.clone())).filter(|old| **old != file.content) else {
                continue;
            };
            let bytes = |content: &str| compression::decompress(content, COMPARED_BYTES_MAX).ok();
            if bytes(old).is_some_and(|old| Some(old) == bytes(&file.content)) {
                file.content = (*old).to_owned();
            }
        }
    }
}

fn check_size(work: &Work) -> Result<(), Error> {
    let bytes = part::json_bytes(work);
    if bytes <= WORK_BYTES_MAX {
        return Ok(());
    }
    Err(Error::Unstorable { work: work.name_any(), bytes, bytes_max: WORK_BYTES_MAX })
}

impl Config {
    fn is_resource(&self) -> bool {
        self.workflow_type.starts_with("resource")
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                labels.insert(key.to_owned(), name::label_value(value));
            }
        };
        put(keys::PROMISE_NAME, &self.promise);
        put(keys::WORK_TYPE, &self.workflow_type);
        put(keys::PIPELINE_NAME, &self.pipeline);
        put(keys::RESOURCE_NAME, &self.resource);
        put(keys::RESOURCE_NAMESPACE, &self.resource_namespace);
        put(keys::DRY_RUN, if self.is_dry_run { keys::TRUE } else { "" });
        labels
    }

    /// Tells whether an existing Work is that of this pipeline and request, and of nothing else that shares its labels:
    /// not a preview's, not one of a request of the same name elsewhere, not one that is about to vanish. Only Works of a shared
    /// namespace name that of their request: one of the time when this namespace was the `pipelineNamespace`, or was not, gets a
    /// successor, as if it was elsewhere.
    fn owns(&self, work: &Work) -> bool {
        let labels = work.labels();
        let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
        let is_of_another_namespace =
            self.resource_namespace.is_empty() && labels.contains_key(keys::RESOURCE_NAMESPACE);
        self.labels().iter().all(|(key, value)| is(key, value))
            && is(keys::DRY_RUN, keys::TRUE) == self.is_dry_run
            && !is(keys::DRY_RUN_SUMMARY, keys::TRUE)
            && !is_of_another_namespace
            && work.metadata.deletion_timestamp.is_none()
    }

    fn is_superseded_by(&self, work: &Work) -> bool {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number <= keys::SEQUENCE_MAX);
        let writer = work.annotations().get(keys::SEQUENCE).and_then(|text| number(text));
        writer.zip(number(&self.sequence)).is_some_and(|(writer, own)| writer > own)
    }

    fn work_name(&self, attempt: usize) -> String {
        let mut base = self.promise.clone();
        if self.is_resource() {
            base.push_str(&format!("-{}", self.resource));
            if !self.resource_namespace.is_empty() {
                base.push_str(&format!("-{}", self.resource_namespace));
            }
        }
        base.push_str(&format!("-{}", self.pipeline));
        let kind = if self.is_dry_run { "dry-run" } else { "" };
        let attempt = if attempt == 0 { String::new() } else { attempt.to_string() };
        let inputs = [
            self.workflow_type.as_str(),
            &self.promise,
            &self.resource,
            &self.resource_namespace,
            &self.namespace,
            &self.pipeline,
            kind,
            &attempt,
        ];
        name::derived(&base, &inputs)
    }

    /// Returns a name that no Work has which is known to be there: parts that lie beside one that is being deleted may be
    /// deleted with it.
    fn free_name(&self, attempt: usize, existing: &[Work]) -> String {
        let names = (attempt..).map(|attempt| self.work_name(attempt));
        let mut free = names.filter(|name| !existing.iter().any(|work| work.name_any() == *name));
        free.next().expect("there are more names than Works")
    }

    fn work(&self, name: String, groups: Vec<WorkloadGroup>, now: Timestamp) -> Work {
        let spec = WorkSpec {
            last_execution_timestamp: Some(Time(condition::whole_seconds(now))),
            promise_name: self.promise.clone(),
            resource_name: if self.is_resource() { self.resource.clone() } else { String::new() },
            workload_groups: groups,
        };
        let mut work = Work::new(&name, spec);
        work.metadata.namespace = Some(self.namespace.clone());
        work.metadata.labels = Some(self.labels());
        // The scheduler would add it: one write less for each Work, and its files are protected from the first moment.
        work.metadata.finalizers = Some(vec![keys::FINALIZER_WORK_CLEANUP.to_owned()]);
        let known = [
            (keys::TRACE_PARENT, &self.trace_parent),
            (keys::TRACE_STATE, &self.trace_state),
            (keys::SEQUENCE, &self.sequence),
        ];
        let given = known.into_iter().filter(|(_, value)| !value.is_empty());
        let mut annotations: BTreeMap<_, _> = given.map(|(key, value)| (key.to_owned(), value.clone())).collect();
        if !self.trace_parent.is_empty() {
            // Said here, the scheduler does not have to add it: one write less.
            annotations.insert(keys::TRACE_TIMESTAMP.to_owned(), now.to_string());
            annotations.insert(keys::TRACE_GENERATION.to_owned(), FIRST_GENERATION.to_owned());
        }
        work.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        work
    }
}

#[cfg(test)]
mod tests;
