//! Rows of what makes pods.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, labels};
use crate::builtin::batch;
use crate::meta;
use crate::object::{items, text};

/// Returns the cells of a job.
pub(super) fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let mut out = vec![
        meta::name(job).into(),
        batch::state(job).into(),
        batch::completions(job).into(),
        job_duration(&job["status"], now).into(),
        age::of(job, now).into(),
    ];
    out.extend(containers(&job["spec"]["template"]));
    out.push(labels::selector_cell(&job["spec"]["selector"]).into());
    out
}

fn job_duration(status: &Value, now: Timestamp) -> String {
    let Some(start) = age::at(&status["startTime"]) else { return String::new() };
    let end = age::at(&status["completionTime"]).unwrap_or(now);
    age::human(end.duration_since(start))
}

/// Returns the cells of a cron job.
pub(super) fn cron_job(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let suspend = match spec["suspend"].as_bool() {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    let last = match &status["lastScheduleTime"] {
        Value::Null => labels::NONE.to_owned(),
        time => age::since(time, now),
    };
    let mut out = vec![
        meta::name(job).into(),
        text(spec, "schedule").into(),
        spec["timeZone"].as_str().unwrap_or(labels::NONE).into(),
        suspend.into(),
        items(status, "active").len().into(),
        last.into(),
        age::of(job, now).into(),
    ];
    let inner = &spec["jobTemplate"]["spec"];
    out.extend(containers(&inner["template"]));
    out.push(labels::selector_cell(&inner["selector"]).into());
    out
}

/// Returns the cells of a deployment.
pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut out = vec![
        meta::name(object).into(),
        ready(object).into(),
        count(status, "updatedReplicas").into(),
        count(status, "availableReplicas").into(),
        age::of(object, now).into(),
    ];
    out.extend(containers(&spec["template"]));
    // Unlike in other tables an empty selector is an empty cell.
    out.push(labels::selector(&spec["selector"]).unwrap_or_else(|| "<invalid>".to_owned()).into());
    out
}

/// Returns the cells of a replica set.
pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut out = vec![
        meta::name(object).into(),
        count(spec, "replicas").into(),
        count(status, "replicas").into(),
        count(status, "readyReplicas").into(),
        age::of(object, now).into(),
    ];
    out.extend(containers(&spec["template"]));
    out.push(labels::selector_cell(&spec["selector"]).into());
    out
}

/// Returns the cells of a stateful set.
pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut out = vec![meta::name(object).into(), ready(object).into(), age::of(object, now).into()];
    out.extend(containers(&object["spec"]["template"]));
    out
}

/// Returns the cells of a daemon set.
pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut out = vec![meta::name(object).into()];
    let counts = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    out.extend(counts.map(|name| Value::from(count(status, name))));
    out.push(labels::map(&spec["template"]["spec"]["nodeSelector"]).into());
    out.push(age::of(object, now).into());
    out.extend(containers(&spec["template"]));
    out.push(labels::selector_cell(&spec["selector"]).into());
    out
}

fn count(of: &Value, name: &str) -> i64 {
    of[name].as_i64().unwrap_or(0)
}

fn ready(object: &Value) -> String {
    format!("{}/{}", count(&object["status"], "readyReplicas"), count(&object["spec"], "replicas"))
}

/// Returns names and images of the containers of a pod template.
fn containers(template: &Value) -> [Value; 2] {
    let containers = items(&template["spec"], "containers");
    ["name", "image"].map(|field| {
        let texts: Vec<&str> = containers.iter().map(|one| text(one, field)).collect();
        texts.join(",").into()
    })
}
