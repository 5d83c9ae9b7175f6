//! Jobs and cron jobs.

use serde_json::{Value, json};

use super::{pod, pod_rules};
use crate::field::{Error, Path};
use crate::object::{child, fill, fill_text, items, items_mut, text};
use crate::resource::Part;
use crate::text::{check_label, check_subdomain};

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

pub(super) fn default_job(job: &mut Value) {
    default_job_spec(child(job, "spec"));
    child(job, "status");
}

fn default_job_spec(spec: &mut Value) {
    // Neither given: one pod. Only parallelism given: a work queue without a count.
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        fill(spec, "completions", 1);
        fill(spec, "parallelism", 1);
    }
    fill(spec, "parallelism", 1);
    let per_index = !spec["backoffLimitPerIndex"].is_null();
    fill(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    fill_text(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let policy = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    fill_text(spec, "podReplacementPolicy", policy);
    if let Some(rules) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(rules, "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                fill_text(pattern, "status", "True");
            }
        }
    }
    pod::default_template(child(spec, "template"));
}

pub(super) fn create_job(job: &mut Value, uid: &str) {
    job["status"] = json!({});
    if job["spec"]["manualSelector"] == true {
        return;
    }
    let name = text(&job["metadata"], "name").to_owned();
    let spec = &mut job["spec"];
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (key, value) in [("controller-uid", uid), ("job-name", &name), (UID_LABEL, uid), (NAME_LABEL, &name)] {
        fill(labels, key, value);
    }
    if spec["selector"].is_null() {
        spec["selector"] = json!({});
    }
    fill(child(&mut spec["selector"], "matchLabels"), UID_LABEL, uid);
}

pub(super) fn validate_job(job: &Value, errors: &mut Vec<Error>) {
    let spec = Path::Root.child("spec");
    let uid = text(&job["metadata"], "uid");
    if job["spec"]["manualSelector"] != true
        && let Some(found) = job["spec"]["selector"]["matchLabels"][UID_LABEL].as_str()
        && found != uid
    {
        let at = spec.child("selector");
        errors.push(Error::invalid(&at, job["spec"]["selector"].clone(), "`selector` not auto-generated"));
    }
    validate_job_spec(&job["spec"], &spec, errors);
    let name = text(&job["metadata"], "name");
    if job["spec"]["completionMode"] == "Indexed" && name.len() > 61 {
        errors.extend(
            check_label(name).iter().map(|why| Error::invalid(&Path::Root.child("metadata").child("name"), name, why)),
        );
    }
}

fn validate_job_spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        pod_rules::check_not_negative(spec, name, path, errors);
    }
    let mode = text(spec, "completionMode");
    if !["NonIndexed", "Indexed"].contains(&mode) {
        errors.push(Error::not_supported(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]));
    }
    if mode == "Indexed" && spec["completions"].is_null() {
        errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    let template = path.child("template");
    pod_rules::validate_template(&spec["template"], &template, errors);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    let at = template.child("spec");
    let at = at.child("restartPolicy");
    if !["OnFailure", "Never"].contains(&policy) {
        let detail = "valid values: \"OnFailure\", \"Never\"";
        if policy == "Always" || policy.is_empty() {
            errors.push(Error::required(&at, detail));
        } else {
            errors.push(Error::not_supported(&at, policy, &["OnFailure", "Never"]));
        }
    }
}

pub(super) fn validate_job_update(new: &Value, old: &Value, part: Part, errors: &mut Vec<Error>) {
    if part == Part::Status {
        return;
    }
    let path = Path::Root.child("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    let may_resize = new["completionMode"] == "Indexed" && new["completions"] == new["parallelism"];
    let mut names =
        vec!["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
    if !may_resize {
        names.insert(0, "completions");
    }
    for name in names {
        if new[name] != old[name] {
            errors.push(Error::invalid(&path.child(name), new[name].clone(), "field is immutable"));
        }
    }
    // A suspended job may still learn where and with what its pods are to run.
    let (mut wanted, mut had) = (new["template"].clone(), old["template"].clone());
    if old["suspend"] == true {
        for template in [&mut wanted, &mut had] {
            for name in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
                template["spec"].as_object_mut().map(|spec| spec.remove(name));
            }
            for name in ["labels", "annotations"] {
                template["metadata"].as_object_mut().map(|meta| meta.remove(name));
            }
        }
    }
    if wanted != had {
        let detail = "field is immutable";
        errors.push(Error::invalid(&path.child("template"), new["template"].clone(), detail));
    }
}

/// Names of jobs are made of the name and 11 characters of time.
pub(super) fn check_cron_job_name(name: &str) -> Vec<String> {
    if name.len() > 52 {
        return vec!["must be no more than 52 characters".to_owned()];
    }
    check_subdomain(name)
}

pub(super) fn default_cron_job(job: &mut Value) {
    let spec = child(job, "spec");
    fill_text(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    let template = child(spec, "jobTemplate");
    child(template, "metadata");
    // The job's own defaults come when the job is made; only the pod template has its own.
    pod::default_template(child(child(template, "spec"), "template"));
    child(job, "status");
}

pub(super) fn validate_cron_job(job: &Value, errors: &mut Vec<Error>) {
    let path = Path::Root.child("spec");
    let spec = &job["spec"];
    let schedule = text(spec, "schedule");
    let at = path.child("schedule");
    if schedule.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if let Err(why) = check_schedule(schedule) {
        errors.push(Error::invalid(&at, schedule, &why));
    }
    let policy = text(spec, "concurrencyPolicy");
    if !["Allow", "Forbid", "Replace"].contains(&policy) {
        errors.push(Error::not_supported(&path.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]));
    }
    let template = path.child("jobTemplate");
    let mut inner = spec["jobTemplate"]["spec"].clone();
    fill_text(&mut inner, "completionMode", "NonIndexed");
    validate_job_spec(&inner, &template.child("spec"), errors);
    for name in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        pod_rules::check_not_negative(spec, name, &path, errors);
    }
}

/// Checks the shape of a schedule: five fields, or a macro.
fn check_schedule(schedule: &str) -> Result<(), String> {
    const MACROS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    if let Some(every) = schedule.strip_prefix("@every ") {
        return crate::text::parse_go_duration(every).map(|_| ()).ok_or(format!("failed to parse duration {schedule}"));
    }
    if schedule.starts_with('@') {
        return if MACROS.contains(&schedule) { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for field in fields {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | ',' | '-' | '?');
        if !field.chars().all(allowed) {
            return Err(format!("failed to parse int from {field}: strconv.Atoi: parsing \"{field}\": invalid syntax"));
        }
    }
    Ok(())
}

/// Returns how many pods of a job have to succeed, for tables.
pub(crate) fn completions(job: &Value) -> String {
    let spec = &job["spec"];
    let succeeded = job["status"]["succeeded"].as_i64().unwrap_or(0);
    if let Some(wanted) = spec["completions"].as_i64() {
        return format!("{succeeded}/{wanted}");
    }
    let parallelism = spec["parallelism"].as_i64().unwrap_or(0);
    if parallelism > 1 { format!("{succeeded}/1 of {parallelism}") } else { format!("{succeeded}/1") }
}

/// Returns the state of a job in one word, for tables.
pub(crate) fn state(job: &Value) -> &'static str {
    let has = |kind: &str| {
        let first = items(&job["status"], "conditions").iter().find(|one| one["type"] == kind);
        first.is_some_and(|one| one["status"] == "True")
    };
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}
