//! What holds a workflow and what releases it, asked of the engine itself.

use std::sync::LazyLock;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::Timestamp;

use super::super::access::Existing;
use super::*;

struct Nowhere;

impl Surroundings for Nowhere {
    fn existing(&self, _: &str, _: &str) -> Existing {
        Existing::default()
    }

    fn is_taken(&self, _: &ObjectKey, _: &Parent) -> bool {
        false
    }
}

/// Asks the engine about a Promise with one pipeline.
fn asked(parent: &Parent, workflow: &Workflow, jobs: &[Arc<Job>]) -> Outcome {
    configure(&seen(parent, workflow, jobs))
}

fn seen<'a>(parent: &'a Parent, workflow: &'a Workflow, jobs: &'a [Arc<Job>]) -> Snapshot<'a> {
    static SETTINGS: LazyLock<Settings> = LazyLock::new(settings);
    Snapshot {
        now: Timestamp::from_second(1_800_000_000).unwrap(),
        parent,
        workflow,
        jobs,
        works: &[],
        surroundings: &Nowhere,
        settings: &SETTINGS,
        interval: Some(Duration::from_secs(3600)),
        annotations_after_pause: &[],
    }
}

/// Returns a Promise whose only pipeline was suspended at generation 1 and is to be tried again at `retry`, and its Job.
fn suspended(generation: i64, retry: &str) -> (Parent, Workflow, Vec<Arc<Job>>) {
    let entry = json!({
        "name": "p", "phase": "Suspended", "message": "m", "attempts": 2, "nextRetryAt": retry, "lastTransitionTime": "t",
    });
    let promise: Promise = serde_json::from_value(json!({
        "metadata": {
            "name": "env", "uid": "u", "resourceVersion": "1", "generation": generation,
            "labels": { keys::WORKFLOW_SUSPENDED: "true" },
        },
        "spec": { "workflows": { "promise": { "configure": [pipeline("p", json!([]))] } } },
    }))
    .unwrap();
    let workflow = Definition::of(&promise.spec).promise_workflow("env", Action::Configure).unwrap();
    let mut parent = Parent::of_promise(&promise);
    parent.status = json!({ "kratix": { "workflows": { "pipelines": [entry], "suspendedGeneration": 1 } } });
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let mut job = job::job(&parent, &workflow, &settings(), attempt);
    let status = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
    job.status = Some(serde_json::from_value(status).unwrap());
    (parent, workflow, vec![Arc::new(job)])
}

/// Executes what an outcome changes on the parent.
fn relabelled(parent: &mut Parent, outcome: &Outcome) {
    assert_eq!(outcome.progress, Progress::Relabelled);
    let [Write::Patch { patch, .. }] = &outcome.writes[..] else { panic!("{:?}", outcome.writes) };
    for (key, value) in patch["metadata"]["labels"].as_object().into_iter().flatten() {
        assert_eq!(value, &Value::Null, "labels are only removed");
        parent.labels.remove(key);
    }
    for (key, value) in patch["metadata"]["annotations"].as_object().into_iter().flatten() {
        match value.as_str() {
            Some(value) => drop(parent.annotations.insert(key.clone(), value.to_owned())),
            None => drop(parent.annotations.remove(key)),
        }
    }
}

fn entry(outcome: &Outcome) -> Value {
    outcome.status["kratix"]["workflows"]["pipelines"][0].clone()
}

/// §10 (1), weakness 16
#[test]
fn a_workflow_that_starts_over_after_a_suspension_forgets_its_attempts() {
    let later = "2100-01-01T00:00:00Z";
    for by_label in [false, true] {
        let (mut parent, workflow, jobs) = suspended(if by_label { 1 } else { 2 }, later);
        if by_label {
            parent.labels.insert(keys::MANUAL_RECONCILIATION.into(), "true".into());
        }
        let outcome = asked(&parent, &workflow, &jobs);
        relabelled(&mut parent, &outcome);
        assert!(parent.labels.is_empty(), "{:?}", parent.labels);
        let outcome = asked(&parent, &workflow, &jobs);
        let fresh = json!({ "name": "p", "phase": "Running", "lastTransitionTime": "2027-01-15T08:00:00Z" });
        assert_eq!(entry(&outcome), fresh, "by label: {by_label}");
        assert_eq!(outcome.status["kratix"]["workflows"].get("suspendedGeneration"), None);
    }
}

/// §10 (3)
#[test]
fn a_retry_waits_for_its_time_and_one_that_cannot_be_read_has_come() {
    let (parent, workflow, jobs) = suspended(1, "2027-01-15T08:00:30Z");
    let outcome = asked(&parent, &workflow, &jobs);
    assert_eq!(outcome.progress, Progress::Suspended { pipeline: Some("p".into()) });
    assert_eq!(outcome.next, crate::plan::Next::After(Duration::from_secs(30)));
    for over in ["2027-01-15T07:59:59Z", "tomorrow"] {
        let (mut parent, workflow, jobs) = suspended(1, over);
        let outcome = asked(&parent, &workflow, &jobs);
        relabelled(&mut parent, &outcome);
        let outcome = asked(&parent, &workflow, &jobs);
        assert_eq!(entry(&outcome)["phase"], "Running", "{over}");
        assert_eq!(entry(&outcome)["attempts"], 2, "a retry goes on counting");
    }
}

/// §10 (1): what a Promise says may have changed since the pipeline that asks to be held has read it.
#[test]
fn a_promise_that_changes_while_the_pipeline_runs_that_asks_to_be_held_starts_over() {
    let (mut parent, mut workflow, jobs) = suspended(1, "2100-01-01T00:00:00Z");
    let held = Progress::Suspended { pipeline: Some("p".into()) };
    assert_eq!(asked(&parent, &workflow, &jobs).progress, held);
    workflow.hash = "another".into();
    let outcome = asked(&parent, &workflow, &jobs);
    relabelled(&mut parent, &outcome);
    assert!(parent.labels.is_empty(), "{:?}", parent.labels);
    let mut early = jobs[0].as_ref().clone();
    early.metadata.labels = None;
    let (parent, workflow, _) = suspended(1, "2100-01-01T00:00:00Z");
    assert_eq!(asked(&parent, &workflow, &[Arc::new(early)]).progress, held, "of that one nothing is known");
}

/// §10 (1): the number of a hold that is over says nothing of one by hand.
#[test]
fn a_hold_by_hand_outlasts_a_change_of_the_spec_also_after_a_pipeline_had_asked_for_one() {
    let (mut parent, workflow, mut jobs) = suspended(2, "2100-01-01T00:00:00Z");
    parent.status["kratix"]["workflows"]["pipelines"][0]["phase"] = "Failed".into();
    let failed = json!({ "conditions": [{ "type": "Failed", "status": "True" }] });
    Arc::make_mut(&mut jobs[0]).status = Some(serde_json::from_value(failed).unwrap());
    assert_eq!(asked(&parent, &workflow, &jobs).progress, Progress::Suspended { pipeline: None });
}

/// A status that asks for a run must not outlive the Job of that run: a manager that ends between the two would find it beside a Job
/// that has ended, and run the pipeline once more, or skip those before a suspended one.
#[test]
fn what_asks_for_a_run_is_gone_from_the_status_before_the_job_of_that_run_is_made() {
    let paused = json!({ "type": "Reconciled", "status": "Unknown", "reason": crate::refusal::PAUSED });
    let long_ago =
        json!({ "type": "ConfigureWorkflowCompleted", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z" });
    let over = "2020-01-01T00:00:00Z";
    for (what, generation, condition) in [
        ("a retry", 1, None),
        ("another spec", 2, None),
        ("a pause", 1, Some(paused)),
        ("the interval", 1, Some(long_ago)),
    ] {
        let (mut parent, workflow, mut jobs) = suspended(generation, over);
        if let Some(condition) = condition {
            parent.labels.clear();
            parent.status = json!({ "conditions": [condition] });
        }
        let outcome = asked(&parent, &workflow, &jobs);
        relabelled(&mut parent, &outcome);
        let first = asked(&parent, &workflow, &jobs);
        assert_eq!(first.writes, [], "{what}");
        assert_eq!(first.events, [], "{what}");
        assert_eq!(entry(&first)["phase"], "Running", "{what}");
        parent.status = first.status.clone();
        let second = asked(&parent, &workflow, &jobs);
        assert_eq!(second.writes.iter().filter(|write| write.is_irrevocable()).count(), 1, "{what}");
        assert_eq!(second.status, first.status, "{what}: one write of the status does for both");
        // The manager ends here, and finds that the Job has ended.
        let run = parent.annotations.get(RUN).map_or(0, |run| run.parse().unwrap());
        let attempt = job::Attempt { index: 0, sequence: 2, run, previous_version: "" };
        let mut job = job::job(&parent, &workflow, &settings(), attempt);
        job.status.clone_from(&jobs[0].status);
        jobs.push(Arc::new(job));
        let third = asked(&parent, &workflow, &jobs);
        assert_eq!(third.progress, Progress::Finished, "{what}");
        assert_eq!(entry(&third)["phase"], "Succeeded", "{what}");
    }
}

/// Returns the pipelines that run for a parent, each to its good end.
fn runs(parent: &mut Parent, workflow: &Workflow) -> Vec<String> {
    let mut jobs: Vec<Arc<Job>> = Vec::new();
    loop {
        let outcome = asked(parent, workflow, &jobs);
        let made = outcome.writes.iter().find_map(|write| match write {
            Write::Create { kind, object, .. } if kind.kind == "Job" => Some(object),
            _ => None,
        });
        if outcome.progress == Progress::Relabelled {
            relabelled(parent, &outcome);
        } else if let Some(object) = made {
            let mut job: Job = serde_json::from_value(object.clone()).unwrap();
            job.metadata.uid = Some(format!("uid of {}", jobs.len()));
            job.status = Some(
                serde_json::from_value(json!({ "conditions": [{ "type": "Complete", "status": "True" }] })).unwrap(),
            );
            jobs.push(Arc::new(job));
        } else if outcome.progress == Progress::Finished && outcome.status == parent.status {
            return jobs.iter().map(|job| super::super::history::pipeline(job).to_owned()).collect();
        }
        parent.status = outcome.status;
    }
}

/// A document that was saved and is applied again after the object is gone brings annotations along, and no status.
#[test]
fn a_saved_document_that_is_applied_again_runs_each_pipeline_once() {
    let spec = spec(&[pipeline("first", json!([])), pipeline("second", json!([]))], &[], "");
    let marks = [(RESUME, "1"), (RESUME, "2"), (RESUME, "uid of 1"), (RUN, "3")];
    for (key, value) in marks {
        let (mut parent, workflow) = of_request(&spec, "a", Action::Configure);
        parent.annotations.insert(key.into(), value.into());
        assert_eq!(runs(&mut parent, &workflow), ["first", "second"], "{key}={value}");
    }
}

/// The mark belongs to one Job, whatever the numbers of others.
#[test]
fn only_the_job_that_asked_to_be_held_is_resumed() {
    let (mut parent, workflow, jobs) = suspended(1, "2027-01-15T07:59:59Z");
    let mut job = jobs[0].as_ref().clone();
    job.metadata.uid = Some("the one".into());
    let outcome = asked(&parent, &workflow, &[Arc::new(job.clone())]);
    relabelled(&mut parent, &outcome);
    assert_eq!(parent.annotations[RESUME], "the one");
    // What follows is on record, and the manager ends before it makes the Job.
    parent.status = asked(&parent, &workflow, &[Arc::new(job.clone())]).status;
    let makes_a_job = |parent: &Parent, job: &Job| {
        let outcome = asked(parent, &workflow, &[Arc::new(job.clone())]);
        outcome.writes.iter().any(Write::is_irrevocable)
    };
    assert!(makes_a_job(&parent, &job));
    let mut another = job.clone();
    another.metadata.uid = Some("another".into());
    assert!(!makes_a_job(&parent, &another));
    // As an earlier version has left it.
    parent.annotations.insert(RESUME.into(), "1".into());
    assert!(makes_a_job(&parent, &job));
}
