//! Which changes of other objects bring requests back.

use super::*;

fn promise(patch: Value) -> Promise {
    let mut object = json!({
        "metadata": { "name": PROMISE, "labels": { keys::PROMISE_VERSION: "v1" } }, "spec": {},
        "status": {
            "conditions": [{ "type": "Available", "status": "True", "reason": "R", "message": "m" }],
            "requiredPromises": [{ "name": "r", "state": "Requirement installed" }],
            "workflows": 0, "workflowsSucceeded": 0, "workflowsFailed": 0,
        },
    });
    merge(&mut object, &patch);
    typed(&object)
}

#[test]
fn requests_come_back_when_their_promise_takes_them_or_does_not_any_more() {
    let before = promise(json!({}));
    let unavailable = json!([{ "type": "Available", "status": "False", "reason": "R", "message": "m" }]);
    let missing = json!([{ "name": "r", "state": "Requirement not installed" }]);
    let table = [
        (json!({ "status": { "conditions": unavailable } }), true),
        (json!({ "status": { "requiredPromises": missing } }), true),
        (json!({ "metadata": { "labels": { keys::PAUSED: "true" } } }), true),
        (json!({ "metadata": { "labels": { keys::PROMISE_VERSION: "v2" } } }), true),
        (json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }), true),
        (json!({ "metadata": { "labels": { "team": "a" } } }), false),
        (json!({ "status": { "message": "m" } }), false),
    ];
    for (patch, concerns) in table {
        let after = promise(patch.clone());
        let expected = if concerns { Concerned::Everybody } else { Concerned::Nobody };
        assert_eq!(concerned_by_promise(Some(&before), Some(&after)), expected, "{patch}");
        assert_eq!(concerned_by_promise(Some(&after), Some(&before)), expected, "{patch}");
    }
    assert_eq!(concerned_by_promise(None, Some(&before)), Concerned::Everybody);
    assert_eq!(concerned_by_promise(Some(&before), None), Concerned::Everybody);
    // Who waits for the word of the Promise goes on when the round is over.
    let observed = |generation| {
        promise(json!({ "metadata": { "generation": 2 }, "status": { "observedGeneration": generation } }))
    };
    let over = concerned_by_promise(Some(&observed(1)), Some(&observed(2)));
    let of_round = |annotations: Value| {
        let object = json!({ "apiVersion": "e.org/v1", "kind": "Env", "metadata": { "annotations": annotations } });
        over.includes(&serde_json::from_value(object).unwrap())
    };
    assert!(of_round(json!({})) && of_round(json!({ crate::promise::RERUN: "generation-1" })));
    assert!(!of_round(json!({ crate::promise::RERUN: "generation-2" })));
    assert_eq!(concerned_by_promise(Some(&observed(2)), Some(&observed(2))), Concerned::Nobody);
}

#[test]
fn requests_come_back_when_a_revision_appears_becomes_the_latest_or_says_something_else() {
    let revision = |patch: Value| {
        let mut object = json!({
            "metadata": { "name": "env-1" }, "spec": { "promiseRef": { "name": PROMISE }, "promiseSpec": {}, "version": "v1" },
            "status": { "latest": false },
        });
        merge(&mut object, &patch);
        typed::<PromiseRevision>(&object)
    };
    let before = revision(json!({}));
    let interval = json!({ "kratix.io/reconciliation-interval": "5m" });
    let table = [
        (json!({ "status": { "latest": true } }), true),
        (json!({ "spec": { "promiseSpec": { "dependencies": [{ "kind": "A" }] } } }), true),
        (json!({ "metadata": { "annotations": interval } }), true),
        (json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }), true),
        (json!({ "metadata": { "resourceVersion": "7" } }), false),
    ];
    for (patch, concerns) in table {
        let after = revision(patch.clone());
        assert_eq!(revision_concerns_requests(Some(&before), Some(&after)), concerns, "{patch}");
    }
    assert!(revision_concerns_requests(None, Some(&before)) && revision_concerns_requests(Some(&before), None));
}

/// One that somebody else's finalizer keeps is there long after its pods.
#[test]
fn a_request_comes_back_when_the_last_pod_of_a_deleted_job_has_ended() {
    let deleted = |active: i32, ready: i32| {
        typed::<Job>(&json!({
            "metadata": { "name": "j", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/keep"] },
            "status": { "active": active, "ready": ready },
        }))
    };
    assert!(job_concerns_request(Some(&deleted(1, 1)), Some(&deleted(0, 0))));
    assert!(!job_concerns_request(Some(&deleted(1, 1)), Some(&deleted(1, 0))));
}

#[test]
fn a_request_comes_back_when_its_binding_asks_for_something_else_but_not_for_what_it_wrote_there_itself() {
    let binding = |patch: Value| {
        let mut object = json!({
            "metadata": { "name": "b", "namespace": "a", "labels": { "team": "a" } },
            "spec": { "version": "v1", "promiseRef": { "name": PROMISE }, "resourceRef": { "name": "x", "namespace": "a" } },
        });
        merge(&mut object, &patch);
        typed::<ResourceBinding>(&object)
    };
    let before = binding(json!({}));
    let table = [
        (json!({ "spec": { "version": "v2" } }), true),
        (json!({ "metadata": { "labels": { "team": "b" } } }), true),
        (json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }), true),
        (json!({ "status": { "lastAppliedVersion": "v1" } }), false),
    ];
    for (patch, concerns) in table {
        let after = binding(patch.clone());
        assert_eq!(binding_concerns_request(Some(&before), Some(&after)), concerns, "{patch}");
    }
}

#[test]
fn a_status_that_somebody_has_written_waits_for_company_and_everything_else_does_not() {
    let request = |patch: Value| {
        let mut object = json!({
            "apiVersion": "example.org/v1", "kind": "Env",
            "metadata": { "name": "x", "resourceVersion": "1", "labels": { "team": "a" } },
            "spec": { "size": "small" }, "status": { "message": "Pending" },
        });
        merge(&mut object, &patch);
        typed::<DynamicObject>(&object)
    };
    let before = request(json!({}));
    let table = [
        (json!({ "metadata": { "resourceVersion": "2" }, "status": { "message": "made" } }), false),
        (json!({ "metadata": { "managedFields": [{ "manager": "m" }] } }), false),
        (json!({ "spec": { "size": "large" } }), true),
        (json!({ "metadata": { "labels": { keys::MANUAL_RECONCILIATION: "true" } } }), true),
        (json!({ "metadata": { "annotations": { "a": "b" } } }), true),
        (json!({ "metadata": { "finalizers": ["f"] } }), true),
        (json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }), true),
        (json!({ "metadata": { "uid": "another" } }), true),
    ];
    for (patch, is_urgent_) in table {
        let after = request(patch.clone());
        assert_eq!(is_urgent(Some(&before), Some(&after)), is_urgent_, "{patch}");
    }
    assert!(is_urgent(None, Some(&before)) && is_urgent(Some(&before), None));
}
