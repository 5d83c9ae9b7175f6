use serde_json::json;

use super::*;
use crate::builtin;

fn pods() -> &'static Resource {
    builtin::find("", "v1", "pods").expect("pods are built in")
}

fn strategic_on(object: Value, patch: Value) -> Value {
    strategic(pods(), &object, &patch).unwrap()
}

#[test]
fn json_patches_do_what_they_say_or_fail_whole() {
    let object = json!({"metadata": {"labels": {"a": "1"}}, "list": [1, 2]});
    let patch = json!([
        {"op": "test", "path": "/metadata/labels/a", "value": "1"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "remove", "path": "/metadata/labels/a"},
    ]);
    assert_eq!(json(&object, &patch).unwrap(), json!({"metadata": {"labels": {}}, "list": [1, 2, 3]}));

    let failing = json!([{"op": "add", "path": "/x", "value": 1}, {"op": "test", "path": "/list", "value": []}]);
    let error = json(&object, &failing).unwrap_err();
    assert_eq!((error.code(), error.reason()), (422, "Invalid"));
    let malformed = json(&object, &json!({"op": "add"})).unwrap_err();
    assert_eq!(malformed.code(), 400);
    let many: Vec<Value> = (0..=OPERATIONS_MAX).map(|_| json!({"op": "remove", "path": "/x"})).collect();
    assert_eq!(json(&object, &Value::Array(many)).unwrap_err().code(), 413);
}

#[test]
fn copies_that_double_an_object_end_at_a_limit() {
    let object = json!({"list": ["0123456789"]});
    let double = |_| json!({"op": "copy", "from": "/list", "path": "/list/-"});
    let few: Vec<Value> = (0..5).map(double).collect();
    assert!(json(&object, &Value::Array(few)).is_ok());
    let many: Vec<Value> = (0..64).map(double).collect();
    let error = json(&object, &Value::Array(many)).unwrap_err();
    assert_eq!(error.code(), 422);
    let why = error.body()["details"]["causes"][0]["message"].as_str().unwrap();
    assert!(why.ends_with("exceeding the limit 3145728"), "{why}");
}

#[test]
fn operations_that_nest_too_deeply_are_refused() {
    // Each doubles the depth: thirty of them would need a stack of 2^30 frames.
    let double = |n: u32| json!({"op": "copy", "from": "/a", "path": "/a".repeat(2_usize.pow(n) + 1)});
    let many: Vec<Value> = (0..12).map(double).collect();
    let error = json(&json!({"a": {}}), &Value::Array(many)).unwrap_err();
    assert_eq!(error.code(), 422);
    let why = error.body()["details"]["causes"][0]["message"].as_str().unwrap();
    assert_eq!(why, "operation 6 would nest the object 129 levels deep, exceeding the limit 100");

    let deep = |levels: usize| (0..levels).fold(json!(1), |below, _| json!({"a": below}));
    let add = |levels: usize| json!([{"op": "add", "path": "/x", "value": deep(levels)}]);
    assert!(json(&json!({}), &add(depth::PATCHED_MAX - 1)).is_ok());
    assert_eq!(json(&json!({}), &add(depth::PATCHED_MAX)).unwrap_err().code(), 422);
    // Moves are bounded by what they can add; back and forth is not deeper than there.
    let object = json!({"a": deep(90), "b": {"c": {}}});
    let there = json!({"op": "move", "from": "/a", "path": "/b/c/a"});
    let back = json!({"op": "move", "from": "/b/c/a", "path": "/a"});
    let trips: Vec<Value> = (0..100).flat_map(|_| [there.clone(), back.clone()]).collect();
    assert_eq!(json(&object, &Value::Array(trips)).unwrap(), object);
    let too_deep = json!([{"op": "move", "from": "/a", "path": "/b/c/a"}, {"op": "copy", "from": "/b", "path": "/b/c/b"},
        {"op": "move", "from": "/b", "path": "/d"}, {"op": "add", "path": "/b", "value": deep(8)},
        {"op": "move", "from": "/d", "path": "/b/a/a/a/a/a/a/a/a"}]);
    assert_eq!(json(&object, &too_deep).unwrap_err().code(), 422);
}

#[test]
fn a_failing_operation_is_named_by_its_place() {
    let patch = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/b"}]);
    let error = json(&json!({}), &patch).unwrap_err();
    assert!(error.body()["details"]["causes"][0]["message"].as_str().unwrap().contains("/1"), "{error:?}");
}

#[test]
fn merge_patches_delete_with_null_and_replace_lists() {
    let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    assert_eq!(merge(&object, &json!({"a": {"b": null, "d": 3}, "l": [3]})), json!({"a": {"c": 2, "d": 3}, "l": [3]}));
}

#[test]
fn strategic_patches_merge_containers_by_name() {
    let pod = json!({"spec": {"containers": [
        {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "two"},
    ]}});
    let patch = json!({"spec": {"containers": [
        {"name": "b", "image": "three"},
        {"name": "a", "env": [{"name": "Y", "value": "2"}]},
        {"name": "c", "image": "new", "command": null},
    ]}});
    assert_eq!(
        strategic_on(pod, patch),
        json!({"spec": {"containers": [
            {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b", "image": "three"},
            {"name": "c", "image": "new"},
        ]}})
    );
}

#[test]
fn directives_delete_replace_and_order() {
    let pod = || {
        json!({"metadata": {"finalizers": ["x/a", "x/b"]}, "spec": {"nodeSelector": {"a": "1"}, "containers": [
            {"name": "a"}, {"name": "b"}, {"name": "c"},
        ]}})
    };
    let deleted = strategic_on(pod(), json!({"spec": {"containers": [{"$patch": "delete", "name": "b"}]}}));
    assert_eq!(deleted["spec"]["containers"], json!([{"name": "a"}, {"name": "c"}]));
    let replaced = strategic_on(pod(), json!({"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}}));
    assert_eq!(replaced["spec"]["containers"], json!([{"name": "z"}]));
    let map = strategic_on(pod(), json!({"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}}));
    assert_eq!(map["spec"]["nodeSelector"], json!({"b": "2"}));
    let scalars = strategic_on(
        pod(),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"], "finalizers": ["x/c", "x/b"]}}),
    );
    assert_eq!(scalars["metadata"]["finalizers"], json!(["x/b", "x/c"]));
    let ordered = strategic_on(
        pod(),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
            "containers": [{"name": "d"}],
        }}),
    );
    let names: Vec<&str> =
        ordered["spec"]["containers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    // `b` is not named and was before `c`.
    assert_eq!(names, ["b", "c", "d", "a"]);
}

#[test]
fn retained_keys_clear_the_other_members_of_a_union() {
    let deployments = builtin::find("apps", "v1", "deployments").unwrap();
    let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let patched = strategic(deployments, &object, &patch).unwrap();
    assert_eq!(patched["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let pod = json!({"spec": {"containers": [{"name": "a"}]}});
    for patch in [
        json!({"spec": {"containers": [{"image": "x"}]}}),
        json!({"spec": {"containers": ["x"]}}),
        json!({"spec": {"$patch": "explode"}}),
        json!({"spec": {"$retainKeys": ["a"], "b": 1}}),
        json!([1]),
    ] {
        assert_eq!(strategic(pods(), &pod, &patch).unwrap_err().code(), 400, "{patch}");
    }
}

#[test]
fn long_lists_are_merged_in_little_time() {
    let named = |n: usize| json!({"name": format!("c{n}")});
    let count = 20_000;
    let pod = json!({"spec": {"containers": (0..count).map(named).collect::<Vec<_>>()}});
    let order: Vec<Value> = (0..count).rev().map(named).collect();
    let mut elements: Vec<Value> = (0..count / 2).map(|n| json!({"name": format!("c{n}"), "image": "x"})).collect();
    elements.push(json!({"name": "c7", "$patch": "delete"}));
    let start = std::time::Instant::now();
    let patched = strategic_on(pod, json!({"spec": {"$setElementOrder/containers": order, "containers": elements}}));
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    let containers = patched["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers.len(), count - 1);
    assert_eq!(containers[0], named(count - 1));
    assert_eq!(containers[count - 2], json!({"name": "c0", "image": "x"}));
}
