//! `work-creator`: turns what a pipeline left into a Work.
//!
//! The Work is found by its labels and made with a name that follows from them: a container that died after the write
//! and is run again meets its own Work.
//!
//! # Source
//! `02-workflows.md` §14.2, §14.3; decisions 6, 10

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use kratix_api::{Time, Timestamp, Work, WorkSpec, Workload, WorkloadGroup, compression, condition, keys, name};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::control::{self, Control};
use crate::{Error, output, selectors};

/// Most that one request to the API server may have, by default of etcd.
const REQUEST_BYTES_MAX: usize = 1_572_864;
/// Room for what the server adds to an object: managed fields, ids, labels of others.
const RESERVED_BYTES: usize = 24 * 1024;
/// Largest Work that is written.
pub const WORK_BYTES_MAX: usize = REQUEST_BYTES_MAX - RESERVED_BYTES;
/// Largest content of an existing Work that is compared byte by byte.
const COMPARED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Generation of an object that has just been made.
const FIRST_GENERATION: &str = "1";
/// Writers of one Work are few; more attempts mean that something is wrong.
const ATTEMPTS_MAX: usize = 8;

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
    match collect(config).map_err(wrapped)? {
        None => Ok(vec!["workflow suspended by workflow-control.yaml, no Work written".to_owned()]),
        Some(groups) => write(config, groups, client, now).await.map(|line| vec![line]).map_err(wrapped),
    }
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

async fn write(config: &Config, groups: Vec<WorkloadGroup>, client: &Client, now: Timestamp) -> Result<String, Error> {
    let works: Api<Work> = Api::namespaced(client.clone(), &config.namespace);
    let selector: Vec<String> = config.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&selector.join(","));
    for attempt in 0..ATTEMPTS_MAX {
        let existing = works.list(&params).await.map_err(Error::api("list Works"))?.items;
        let outcome = match plan(config, groups.clone(), &existing, attempt, now)? {
            Plan::Create(work) => works.create(&PostParams::default(), &work).await,
            Plan::Patch { name, patch } => works.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await,
        };
        match outcome {
            Ok(work) => return Ok(format!("Work {}/{} written", config.namespace, work.name_any())),
            // Taken: by this very run (then the list shows it next time) or by one that is being deleted.
            Err(kube::Error::Api(status)) if status.code == 409 => {
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
}

/// Decides what to write. `attempt` counts names that were taken by something else.
///
/// # Errors
/// [`Error::Ambiguous`], [`Error::TooLarge`].
pub fn plan(
    config: &Config,
    mut groups: Vec<WorkloadGroup>,
    existing: &[Work],
    attempt: usize,
    now: Timestamp,
) -> Result<Plan, Error> {
    let mine: Vec<&Work> = existing.iter().filter(|work| config.owns(work)).collect();
    if mine.len() > 1 {
        let labels: Vec<String> = config.labels().iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect();
        return Err(Error::Ambiguous { labels: labels.join(" ") });
    }
    let old = mine.first();
    if let Some(old) = old {
        keep_equal_content(&mut groups, &old.spec.workload_groups);
    }
    let work = config.work(groups, attempt, now);
    check_size(config, &work)?;
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

fn check_size(config: &Config, work: &Work) -> Result<(), Error> {
    let bytes = serde_json::to_vec(work).map_or(0, |text| text.len());
    if bytes <= WORK_BYTES_MAX {
        return Ok(());
    }
    let files = work.spec.workload_groups.iter().flat_map(|group| &group.workloads);
    let largest = files.max_by_key(|file| file.content.len());
    Err(Error::TooLarge {
        pipeline: config.pipeline.clone(),
        bytes,
        bytes_max: WORK_BYTES_MAX,
        largest: largest.map(|file| file.filepath.clone()).unwrap_or_default(),
        largest_bytes: largest.map(|file| file.content.len()).unwrap_or_default(),
    })
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
    /// not a preview's, not one of a request of the same name elsewhere, not one that is about to vanish.
    fn owns(&self, work: &Work) -> bool {
        let labels = work.labels();
        let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
        let other_namespace = labels.get(keys::RESOURCE_NAMESPACE).is_some_and(|namespace| {
            let own = if self.resource_namespace.is_empty() { &self.namespace } else { &self.resource_namespace };
            namespace != own
        });
        self.labels().iter().all(|(key, value)| is(key, value))
            && is(keys::DRY_RUN, keys::TRUE) == self.is_dry_run
            && !is(keys::DRY_RUN_SUMMARY, keys::TRUE)
            && !other_namespace
            && work.metadata.deletion_timestamp.is_none()
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

    fn work(&self, groups: Vec<WorkloadGroup>, attempt: usize, now: Timestamp) -> Work {
        let spec = WorkSpec {
            last_execution_timestamp: Some(Time(condition::whole_seconds(now))),
            promise_name: self.promise.clone(),
            resource_name: if self.is_resource() { self.resource.clone() } else { String::new() },
            workload_groups: groups,
        };
        let mut work = Work::new(&self.work_name(attempt), spec);
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
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T10:00:00.5Z".parse().unwrap()
    }

    fn config() -> Config {
        Config {
            promise: "env".into(),
            pipeline: "slack-notify".into(),
            namespace: "team-a".into(),
            resource: "demo".into(),
            workflow_type: "resource".into(),
            ..Config::default()
        }
    }

    fn group(files: &[(&str, &str)]) -> Vec<WorkloadGroup> {
        let file = |(path, content): &(&str, &str)| Workload {
            filepath: (*path).to_owned(),
            content: compression::compress(content.as_bytes()),
        };
        vec![WorkloadGroup { workloads: files.iter().map(file).collect(), ..WorkloadGroup::for_directory(".") }]
    }

    fn create(config: &Config, existing: &[Work]) -> Work {
        match plan(config, group(&[("a.yaml", "a: 1")]), existing, 0, now()).unwrap() {
            Plan::Create(work) => *work,
            Plan::Patch { name, .. } => panic!("patches {name}"),
        }
    }

    #[test]
    fn the_trace_of_the_pod_is_handed_over_as_one_about_the_work_as_it_is_then() {
        let traced =
            |parent: &str, state: &str| Config { trace_parent: parent.into(), trace_state: state.into(), ..config() };
        let mut first = create(&traced("00-a", "s=1"), &[]);
        let trace = |key: &str| first.annotations()[&format!("kratix.io/trace-{key}")].clone();
        assert_eq!([trace("parent"), trace("state"), trace("generation")], ["00-a", "s=1", "1"]);
        assert_eq!(trace("timestamp"), now().to_string());
        first.metadata.generation = Some(4);
        let annotations = |config: &Config, files: &[(&str, &str)]| {
            let planned = plan(config, group(files), std::slice::from_ref(&first), 0, now()).unwrap();
            let Plan::Patch { patch, .. } = planned else { panic!("makes a second one") };
            patch["metadata"]["annotations"].clone()
        };
        let again = annotations(&traced("00-b", ""), &[("a.yaml", "a: 2")]);
        assert_eq!(again["kratix.io/trace-parent"], "00-b");
        assert_eq!(again["kratix.io/trace-state"], Value::Null);
        assert_eq!(again["kratix.io/trace-generation"], "5", "the content changes");
        let same = annotations(&traced("00-b", "s=2"), &[("a.yaml", "a: 1")]);
        assert_eq!((&same["kratix.io/trace-generation"], &same["kratix.io/trace-state"]), (&json!("4"), &json!("s=2")));
        assert_eq!(annotations(&config(), &[]), Value::Null, "without a trace nothing is said about it");
    }

    #[test]
    fn a_work_tells_which_job_wrote_it_last() {
        let first = create(&Config { sequence: "3".into(), ..config() }, &[]);
        assert_eq!(first.annotations()[keys::SEQUENCE], "3");
        assert_eq!(first.finalizers(), [keys::FINALIZER_WORK_CLEANUP]);
        let again = Config { sequence: "4".into(), ..config() };
        let Plan::Patch { patch, .. } = plan(&again, group(&[("a.yaml", "a: 1")]), &[first], 0, now()).unwrap() else {
            panic!("makes a second one")
        };
        assert_eq!(patch["metadata"]["annotations"], json!({ keys::SEQUENCE: "4" }));
    }

    #[test]
    fn a_new_work_has_the_labels_and_the_form_of_name_of_the_reference() {
        let work = create(&config(), &[]);
        let written = serde_json::to_value(&work).unwrap();
        assert_eq!(
            written["metadata"]["labels"],
            json!({
                "kratix.io/promise-name": "env", "kratix.io/resource-name": "demo",
                "kratix.io/pipeline-name": "slack-notify", "kratix.io/work-type": "resource",
            })
        );
        assert_eq!(written["spec"]["lastExecutionTimestamp"], "2026-01-01T10:00:00Z");
        assert_eq!(written["spec"]["resourceName"], "demo");
        let suffix = work.name_any().strip_prefix("env-demo-slack-notify-").unwrap().to_owned();
        assert!(suffix.len() == 5 && suffix.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(create(&config(), &[]), work, "a second attempt meets the first");
    }

    #[test]
    fn shared_namespaces_previews_and_promises_have_their_own_works() {
        let shared = Config { resource_namespace: "team-b".into(), namespace: "pipelines".into(), ..config() };
        let work = create(&shared, &[]);
        assert!(work.name_any().starts_with("env-demo-team-b-slack-notify-"));
        assert_eq!(work.labels()[keys::RESOURCE_NAMESPACE], "team-b");
        let preview = create(&Config { is_dry_run: true, ..config() }, &[]);
        assert_ne!(preview.name_any(), create(&config(), &[]).name_any());
        let promise = Config { workflow_type: "promise".into(), resource: String::new(), ..config() };
        let work = create(&promise, &[]);
        assert!(work.name_any().starts_with("env-slack-notify-"));
        assert_eq!(work.spec.resource_name, "");
    }

    #[test]
    fn works_of_others_with_the_same_labels_are_left_alone() {
        let own = create(&config(), &[]);
        let with = |key: &str, value: &str| {
            let mut work = own.clone();
            work.labels_mut().insert(key.to_owned(), value.to_owned());
            work
        };
        let mut deleting = own.clone();
        deleting.metadata.deletion_timestamp = Some(Time(now()));
        let others = [
            with(keys::DRY_RUN, "true"),
            with(keys::DRY_RUN_SUMMARY, "true"),
            with(keys::RESOURCE_NAMESPACE, "team-z"),
            with(keys::PIPELINE_NAME, "other"),
            deleting,
        ];
        create(&config(), &others);
    }

    #[test]
    fn a_name_that_is_taken_leads_to_another_one() {
        let names: Vec<String> = (0..3).map(|attempt| config().work_name(attempt)).collect();
        assert!(names[0] != names[1] && names[1] != names[2]);
    }

    #[test]
    fn an_existing_work_keeps_its_name_and_what_did_not_change() {
        let config = Config { trace_parent: "00-new".into(), ..config() };
        let mut old = create(&config, &[]);
        old.metadata.name = Some("made-by-the-reference-0a1b2".into());
        old.metadata.resource_version = Some("7".into());
        old.metadata.generation = Some(4);
        let plan_for = |groups, old: &Work| match plan(&config, groups, std::slice::from_ref(old), 0, now()).unwrap() {
            Plan::Patch { name, patch } => (name, patch),
            Plan::Create(_) => panic!("creates"),
        };
        let (name, patch) = plan_for(group(&[("a.yaml", "a: 1")]), &old);
        assert_eq!(name, "made-by-the-reference-0a1b2");
        let trace = json!({
            "kratix.io/trace-parent": "00-new",
            "kratix.io/trace-timestamp": now().to_string(),
            "kratix.io/trace-generation": "4",
        });
        let unchanged = json!({
            "metadata": {"resourceVersion": "7", "annotations": trace},
            "spec": {"lastExecutionTimestamp": "2026-01-01T10:00:00Z"},
        });
        assert_eq!(patch, unchanged);

        // The same bytes, written by somebody else.
        old.spec.workload_groups[0].workloads[0].content.insert(8, '\n');
        let (_, patch) = plan_for(group(&[("a.yaml", "a: 1")]), &old);
        assert_eq!(patch, unchanged, "compared by content, not by text");

        let (_, patch) = plan_for(vec![], &old);
        assert_eq!(patch["spec"]["workloadGroups"], Value::Null);
        let (_, patch) = plan_for(group(&[("b.yaml", "b")]), &old);
        assert_eq!(patch["spec"]["workloadGroups"][0]["workloads"][0]["filepath"], "b.yaml");
    }

    #[test]
    fn two_works_with_the_same_labels_are_an_error() {
        let work = create(&config(), &[]);
        let error = plan(&config(), vec![], &[work.clone(), work], 0, now()).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"more than 1 work exist with the matching labels: map["kratix.io/pipeline-name":"slack-notify" "kratix.io/promise-name":"env" "kratix.io/resource-name":"demo" "kratix.io/work-type":"resource"]. Unable to update"#
        );
    }

    #[test]
    fn too_much_output_is_refused_with_its_size_and_the_largest_file() {
        let file = |path: &str, bytes: usize| Workload { filepath: path.into(), content: "x".repeat(bytes) };
        let mut groups = group(&[]);
        groups[0].workloads = vec![file("small.yaml", 10), file("huge.bin", WORK_BYTES_MAX), file("mid.bin", 1000)];
        let error = plan(&config(), groups, &[], 0, now()).unwrap_err().to_string();
        assert!(error.starts_with("output of pipeline slack-notify is too large: "), "{error}");
        assert!(error.contains(&format!("the limit is {WORK_BYTES_MAX}")), "{error}");
        assert!(error.ends_with(&format!(r#"largest file "huge.bin" takes {WORK_BYTES_MAX}"#)), "{error}");
    }

    #[test]
    fn what_a_pipeline_left_is_collected_unless_it_asked_to_be_suspended() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { root: dir.path().to_owned(), ..config() };
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("input/cm.yaml", "kind: ConfigMap");
        put("input/baz/ns.yaml", "kind: Namespace");
        put("metadata/destination-selectors.yaml", "- matchLabels: {environment: staging}\n  directory: baz\n");
        put("kratix-system/promise-scheduling", "- matchlabels: {environment: dev}\n  source: promise\n");
        let groups = collect(&config).unwrap().unwrap();
        assert_eq!(groups.iter().map(|group| group.directory.as_str()).collect::<Vec<_>>(), ["baz", "."]);
        assert_eq!(groups[1].destination_selectors[0].match_labels["environment"], "dev");
        put("metadata/workflow-control.yaml", "suspend: true");
        assert_eq!(collect(&config).unwrap(), None);
        put("metadata/destination-selectors.yaml", "broken");
        assert!(collect(&config).is_err(), "broken selectors fail also when suspended");
    }
}
