use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kratix_api::Timestamp;

use super::super::pods::{Due, Snapshot, concerned};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn job(status: Value) -> Job {
    serde_json::from_value(json!({ "metadata": { "name": "j", "namespace": "a", "uid": "1" }, "status": status }))
        .unwrap()
}

fn completed(second: i64) -> Value {
    json!({ "completionTime": at(second).to_string(), "conditions": [{ "type": "Complete", "status": "True" }] })
}

fn failed(second: i64, status: &str) -> Value {
    let time = at(second).to_string();
    json!({ "conditions": [{ "type": "Failed", "status": status, "lastTransitionTime": time }] })
}

/// §13.2
#[test]
fn pods_are_due_some_time_after_their_job_has_ended_and_only_if_that_is_configured() {
    let soon = Duration::from_secs(1);
    for (status, keep, expected) in [
        (completed(0), Some(HOUR), Due::Now),
        (completed(1), Some(HOUR), Due::After(soon)),
        (failed(0, "True"), Some(HOUR), Due::Now),
        (failed(1, "True"), Some(HOUR), Due::After(soon)),
        (completed(0), None, Due::Never),
        (completed(0), Some(Duration::MAX), Due::After(Duration::try_from(Timestamp::MAX - at(3600)).unwrap())),
        (json!({ "active": 1 }), Some(HOUR), Due::Never),
        (failed(0, "False"), Some(HOUR), Due::Never),
        (json!({ "completionTime": at(0).to_string() }), Some(HOUR), Due::Never),
        (json!({ "conditions": [{ "type": "Complete", "status": "True" }] }), Some(HOUR), Due::Never),
        (json!({ "conditions": [{ "type": "Suspended", "status": "True" }] }), Some(HOUR), Due::Never),
    ] {
        let job = job(status.clone());
        assert_eq!(Snapshot { now: at(3600), job: &job, keep }.due(), expected, "{status}");
    }
}

/// §13.2
#[test]
fn only_pods_of_the_very_job_go_and_none_twice() {
    let pod = |name: &str, owner: Value, going: Value| -> Pod {
        let metadata = json!({
            "name": name, "namespace": "a", "uid": name, "ownerReferences": [owner], "deletionTimestamp": going,
        });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    };
    let owner =
        |kind: &str, name: &str, uid: &str| json!({ "apiVersion": "v1", "kind": kind, "name": name, "uid": uid });
    let pods = [
        pod("own", owner("Job", "j", "1"), Value::Null),
        pod("going", owner("Job", "j", "1"), json!("2026-01-01T00:00:00Z")),
        pod("of-a-successor", owner("Job", "j", "2"), Value::Null),
        pod("of-another", owner("Job", "k", "1"), Value::Null),
        pod("of-another-kind", owner("ReplicaSet", "j", "1"), Value::Null),
    ];
    let job = job(completed(0));
    let due = Snapshot { now: at(3600), job: &job, keep: Some(HOUR) };
    let plan = due.decide(&pods);
    let removed: Vec<String> = plan.writes.iter().map(|write| write.address().1.to_string()).collect();
    assert_eq!(removed, ["a/own"]);
    assert!(due.decide(&pods[1..]).is_silent());
    let later = Snapshot { now: at(3599), ..due.clone() };
    assert_eq!(later.decide(&pods).next, crate::plan::Next::After(Duration::from_secs(1)));
    assert!(Snapshot { keep: None, ..due }.decide(&pods).is_silent());
}

/// What is told of a failed Job is what its newest pod tells, until none is left.
#[test]
fn the_newest_pod_goes_last() {
    let pod = |name: &str, second: i64| -> Pod {
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "1" });
        let created = at(second).to_string();
        let metadata =
            json!({ "name": name, "namespace": "a", "creationTimestamp": created, "ownerReferences": [owner] });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    };
    let job = job(failed(0, "True"));
    let due = Snapshot { now: at(3600), job: &job, keep: Some(HOUR) };
    let plan = due.decide(&[pod("a", 3), pod("b", 1), pod("c", 2)]);
    let removed: Vec<&str> = plan.writes.iter().map(|write| write.address().1.name.as_str()).collect();
    assert_eq!(removed, ["b", "c", "a"]);
}

#[test]
fn a_job_is_looked_at_when_it_has_ended_and_not_when_it_goes() {
    let (running, ended) = (Arc::new(job(json!({ "active": 1 }))), Arc::new(job(completed(0))));
    assert!(!concerned(None, Some(&running)));
    assert!(concerned(Some(&running), Some(&ended)) && concerned(None, Some(&ended)));
    assert!(!concerned(Some(&ended), Some(&ended)) && !concerned(Some(&ended), None));
}
