//! Which changes of other objects bring a Promise back: those that its decision looks at, and no others.
//!
//! # Source
//! `03-promises.md` §4, §25 (1, 25)

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use kratix_api::{Promise, PromiseRevision, Work, keys};
use kube_core::{DynamicObject, ResourceExt};

use super::Request;
use crate::request::{job_concerns_request, work_concerns_request};
use crate::workflow::history;

/// Returns the name of the CRD that a Promise wants.
pub fn api_name(promise: &Promise) -> Option<&str> {
    promise.spec.api.as_ref()?.pointer("/metadata/name")?.as_str()
}

/// Returns the other Promises that a change of one Promise concerns: those it requires, or has required, list it; those
/// that require it wait for it.
pub fn neighbours(old: Option<&Promise>, new: Option<&Promise>, all: &[Arc<Promise>]) -> Vec<String> {
    let view = |promise: Option<&Promise>| {
        promise.map(|promise| {
            let status = promise.status.as_ref();
            let shown = status.map(|status| (status.status.clone(), status.version.clone()));
            let deleting = promise.metadata.deletion_timestamp.is_some();
            (shown.unwrap_or_default(), deleting, promise.spec.required_promises.clone())
        })
    };
    let Some(changed) = new.or(old) else { return Vec::new() };
    if view(old) == view(new) {
        return Vec::new();
    }
    let required = old.into_iter().chain(new).flat_map(|promise| &promise.spec.required_promises);
    let mut names: Vec<String> = required.map(|required| required.name.clone()).collect();
    names.extend(requiring(&changed.name_any(), all));
    names.sort();
    names.dedup();
    names
}

/// Returns the Promises that require `name`.
pub fn requiring(name: &str, all: &[Arc<Promise>]) -> Vec<String> {
    let requires =
        |promise: &&Arc<Promise>| promise.spec.required_promises.iter().any(|required| required.name == name);
    all.iter().filter(requires).map(|promise| promise.name_any()).collect()
}

/// Returns the Promise that a change of a Job concerns. Jobs of requests concern it only while it is being deleted or
/// follows its requests, which the caller knows: `true` goes with those.
pub fn by_job(old: Option<&Job>, new: Option<&Job>) -> Option<(String, bool)> {
    let job = new.or(old).filter(|_| job_concerns_request(old, new))?;
    let promise = job.labels().get(keys::PROMISE_NAME)?.clone();
    Some((promise, history::parent_key(job).is_some_and(|key| key.namespace.is_some())))
}

/// Returns the Promise that a change of a Work concerns, as [`by_job`] does.
pub fn by_work(old: Option<&Work>, new: Option<&Work>) -> Option<(String, bool)> {
    let work = new.or(old).filter(|_| work_concerns_request(old, new))?;
    let promise = work.labels().get(keys::PROMISE_NAME)?.clone();
    Some((promise, work.labels().contains_key(keys::RESOURCE_NAME)))
}

/// Returns whether a change of a revision concerns Promises other than its own: one appeared, goes, or is of another version.
pub fn revision_concerns_others(old: Option<&PromiseRevision>, new: Option<&PromiseRevision>) -> bool {
    let view = |revision: Option<&PromiseRevision>| {
        revision.map(|revision| (revision.spec.version.clone(), revision.metadata.deletion_timestamp.is_some()))
    };
    view(old) != view(new)
}

/// Returns whether a change of a request concerns its Promise whatever this does: it has gone, or is going.
pub fn request_concerns(old: Option<&DynamicObject>, new: Option<&DynamicObject>) -> bool {
    match (old, new) {
        // The list of requests is complete.
        (None, None) => true,
        // A new one starts with the present spec.
        (None, Some(_)) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => {
            let is_deleting = |request: &DynamicObject| request.metadata.deletion_timestamp.is_some();
            is_deleting(old) != is_deleting(new)
        }
    }
}

/// Returns whether a change of a request concerns a Promise that follows how its requests run, see
/// [`super::follows_requests`]: it was told to run again, begins, or ends.
pub fn run_concerns(old: Option<&DynamicObject>, new: Option<&DynamicObject>) -> bool {
    let view = |request: &DynamicObject| {
        let request = Request::of(request);
        (request.round, request.is_told, request.run, request.standing, request.hangs_since)
    };
    old.zip(new).is_some_and(|(old, new)| view(old) != view(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn promise(name: &str, required: &[&str], status: &str) -> Arc<Promise> {
        let required: Vec<_> = required.iter().map(|name| json!({ "name": name })).collect();
        let object = json!({
            "metadata": { "name": name }, "spec": { "requiredPromises": required },
            "status": { "status": status, "workflows": 0, "workflowsSucceeded": 0, "workflowsFailed": 0 },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_change_reaches_those_on_both_sides_and_nobody_else() {
        let all = [promise("top", &["mid"], ""), promise("mid", &["low"], "Unavailable"), promise("other", &[], "")];
        let (down, up) = (promise("mid", &["low"], "Unavailable"), promise("mid", &["low"], "Available"));
        assert_eq!(neighbours(Some(&down), Some(&up), &all), ["low", "top"]);
        assert!(neighbours(Some(&up), Some(&up.clone()), &all).is_empty());
        assert_eq!(neighbours(Some(&promise("x", &["a"], "")), Some(&promise("x", &["b"], "")), &all), ["a", "b"]);
        assert_eq!(neighbours(None, Some(&down), &all), ["low", "top"]);
        assert_eq!(neighbours(Some(&down), None, &all), ["low", "top"]);
    }

    #[test]
    fn requests_matter_when_they_go() {
        let request = |metadata| {
            let object = json!({ "apiVersion": "a/v1", "kind": "A", "metadata": metadata });
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let plain = request(json!({ "name": "a" }));
        let going = request(json!({ "name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z" }));
        let labelled = request(json!({ "name": "a", "labels": { "a": "b" } }));
        let table = [
            (None, None, true),
            (None, Some(&plain), false),
            (Some(&plain), None, true),
            (Some(&plain), Some(&going), true),
            (Some(&plain), Some(&labelled), false),
        ];
        for (old, new, expected) in table {
            assert_eq!(request_concerns(old, new), expected);
        }
    }

    #[test]
    fn how_a_request_runs_matters_when_it_is_told_begins_and_ends() {
        let request = |metadata, status| {
            let mut object = json!({ "apiVersion": "a/v1", "kind": "A", "metadata": metadata });
            object["status"] = json!({ "message": status, "conditions": [
                { "type": "ConfigureWorkflowCompleted", "status": status, "reason": "PipelinesInProgress" },
            ]});
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let ended = request(json!({ "name": "a" }), "True");
        let told = json!({ "name": "a", "labels": { keys::RUN_FROM_START: "true" } });
        let run = json!({ "name": "a", "annotations": { crate::workflow::RUN: "2" } });
        let round = json!({ "name": "a", "annotations": { super::super::RERUN: "generation-2" } });
        let others = [(told, "True"), (run, "True"), (round, "True"), (json!({ "name": "a" }), "False")];
        for other in others.map(|(metadata, status)| request(metadata, status)) {
            assert!(run_concerns(Some(&ended), Some(&other)) && run_concerns(Some(&other), Some(&ended)));
        }
        let hangs = |time: &str| {
            let mut hangs = request(json!({ "name": "a" }), "False");
            let failing = json!({ "type": "PipelineFailing", "status": "True", "reason": "PodRefused",
                "lastTransitionTime": time });
            hangs.data["status"]["conditions"].as_array_mut().unwrap().push(failing);
            hangs
        };
        let (first, second) = (hangs("2025-01-01T00:00:00Z"), hangs("2025-01-01T00:00:01Z"));
        let runs = request(json!({ "name": "a" }), "False");
        assert!(run_concerns(Some(&runs), Some(&first)) && run_concerns(Some(&first), Some(&second)));
        assert!(!run_concerns(Some(&ended), Some(&request(json!({ "name": "a" }), "Unknown"))));
        assert!(!run_concerns(None, Some(&ended)) && !run_concerns(Some(&ended), None));
    }
}
