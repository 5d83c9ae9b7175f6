use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{builtin, crd};

fn maps() -> &'static Resource {
    builtin::find("", "v1", "configmaps").expect("config maps are built in")
}

fn deployments() -> &'static Resource {
    builtin::find("apps", "v1", "deployments").expect("deployments are built in")
}

fn widgets() -> std::sync::Arc<Resource> {
    let crd = json!({"spec": {
    "group": "example.org", "scope": "Namespaced",
    "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
    "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"},
                "pin": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                    "a": {"type": "string"}, "b": {"type": "string"}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {
                        "port": {"type": "integer"}, "name": {"type": "string"}}}},
                "auth": {"type": "object", "properties": {
                    "modes": {"type": "array", "items": {"type": "string"}}, "strict": {"type": "boolean"}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }},
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
        }}}}]}});
    crd::resources(&crd).remove(0)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "v1", subresource: "", now: at(1) }
}

/// A widget with this spec.
fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "d"}, "spec": spec})
}

/// Applies specs one after the other, each by its manager, and returns the object.
fn applied(steps: &[(&str, Value)]) -> Value {
    let mut live: Option<Value> = None;
    for (manager, spec) in steps {
        live = Some(apply(&widgets(), live.as_ref(), &widget(spec.clone()), writer(manager), false).unwrap());
    }
    live.unwrap()
}

fn entry<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|entry| entry["manager"] == manager).unwrap_or(&Value::Null)
}

#[test]
fn an_apply_owns_exactly_what_it_says() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "labels": {"a": "b"}},
        "data": {"k": "v"}});
    let out = apply(maps(), None, &map, writer("me"), false).unwrap();
    assert_eq!(
        out["metadata"]["managedFields"],
        json!([{
            "manager": "me", "operation": "Apply", "apiVersion": "v1", "time": "1970-01-01T00:00:01Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:k": {}}, "f:metadata": {"f:labels": {"f:a": {}}}},
        }])
    );
}

#[test]
fn a_write_owns_what_it_changes_and_the_maps_it_creates() {
    let mut map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "uid": "u"}, "data": {"k": "v"}});
    update(maps(), None, &mut map, writer("creator"));
    assert_eq!(entry(&map, "creator")["fieldsV1"], json!({"f:data": {".": {}, "f:k": {}}}));
    assert_eq!(entry(&map, "creator")["operation"], "Update");
    let mut changed = map.clone();
    changed["data"]["l"] = json!("w");
    update(maps(), Some(&map), &mut changed, writer("other"));
    assert_eq!(entry(&changed, "other")["fieldsV1"], json!({"f:data": {"f:l": {}}}));
    let mut taken = changed.clone();
    taken["data"] = json!({"k": "new"});
    update(maps(), Some(&changed), &mut taken, writer("other"));
    assert_eq!(entry(&taken, "creator")["fieldsV1"], json!({"f:data": {}}));
    assert_eq!(entry(&taken, "other")["fieldsV1"], json!({"f:data": {"f:k": {}}}));
}

#[test]
fn what_an_apply_no_longer_names_goes_unless_somebody_else_owns_it() {
    let out = applied(&[
        ("a", json!({"size": 1, "tags": ["x", "y"], "pin": {"a": "1", "b": "2"}, "free": {"deep": {"er": 1}, "k": 2}})),
        ("b", json!({"tags": ["y"], "free": {"k": 2}})),
        ("a", json!({"tags": []})),
    ]);
    assert_eq!(out["spec"], json!({"tags": ["y"], "free": {"k": 2}}));
    let out = applied(&[("a", json!({"size": 1})), ("a", json!({}))]);
    assert_eq!(out["spec"], json!({}));
    let gone = apply(
        &widgets(),
        Some(&applied(&[("a", json!({"ports": [{"port": 1}]}))])),
        &json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "d"}}),
        writer("a"),
        false,
    )
    .unwrap();
    assert!(gone.get("spec").is_none(), "{gone}");
    assert!(gone["metadata"].get("managedFields").is_none(), "{gone}");
}

/// As kube-apiserver 1.34 does: what is left of the default would lack what is required beside it.
#[test]
fn with_a_given_up_field_of_the_schema_goes_its_default_unless_somebody_else_owns_something_in_it() {
    let with_default = |mut live: Value| {
        live["spec"]["auth"]["strict"] = json!(true);
        live["metadata"]["uid"] = json!("u");
        live
    };
    let again = |live: &Value, spec: Value| apply(&widgets(), Some(live), &widget(spec), writer("a"), false).unwrap();
    let live = with_default(applied(&[("a", json!({"size": 1, "auth": {"modes": []}}))]));
    let out = again(&live, json!({"size": 1}));
    assert_eq!((&out["spec"], &out["metadata"]["uid"]), (&json!({"size": 1}), &json!("u")));
    let live =
        with_default(applied(&[("a", json!({"auth": {"modes": []}})), ("b", json!({"auth": {"strict": true}}))]));
    assert_eq!(again(&live, json!({}))["spec"], json!({"auth": {"strict": true}}));
    let live = with_default(applied(&[("a", json!({"auth": {"modes": []}}))]));
    assert_eq!(again(&live, json!({"auth": {}}))["spec"], json!({"auth": {"strict": true}}));
}

#[test]
fn lists_are_merged_by_element() {
    let out = applied(&[
        ("a", json!({"ports": [{"port": 1, "name": "one"}, {"port": 2}]})),
        ("b", json!({"ports": [{"port": 3}, {"port": 2, "name": "two"}]})),
    ]);
    assert_eq!(out["spec"]["ports"], json!([{"port": 3}, {"port": 1, "name": "one"}, {"port": 2, "name": "two"}]));
    assert_eq!(
        entry(&out, "b")["fieldsV1"],
        json!({"f:spec": {"f:ports": {
            "k:{\"port\":2}": {".": {}, "f:name": {}, "f:port": {}}, "k:{\"port\":3}": {".": {}, "f:port": {}}}}})
    );
    // `a` gives up 2, which `b` keeps with its name.
    let out = apply(&widgets(), Some(&out), &widget(json!({"ports": [{"port": 1}]})), writer("a"), false).unwrap();
    assert_eq!(out["spec"]["ports"], json!([{"port": 3}, {"port": 1}, {"port": 2, "name": "two"}]));
}

#[test]
fn an_element_named_twice_is_refused() {
    let config = widget(json!({"ports": [{"port": 1}, {"port": 1}]}));
    let error = apply(&widgets(), None, &config, writer("a"), false).unwrap_err();
    assert_eq!(error.code(), 400);
    assert!(error.message().ends_with(".spec.ports: duplicate entries for key [port=1]"), "{error}");
}

#[test]
fn a_value_of_somebody_else_is_a_conflict_that_force_ends() {
    let live = applied(&[("a", json!({"size": 1, "tags": ["x"]}))]);
    let config = widget(json!({"size": 2}));
    let error = apply(&widgets(), Some(&live), &config, writer("b"), false).unwrap_err();
    assert_eq!((error.code(), error.reason()), (409, "Conflict"));
    assert_eq!(error.message(), "Apply failed with 1 conflict: conflict with \"a\": .spec.size");
    assert_eq!(
        error.body()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".spec.size"}])
    );
    let forced = apply(&widgets(), Some(&live), &config, writer("b"), true).unwrap();
    assert_eq!(forced["spec"]["size"], 2);
    assert_eq!(entry(&forced, "a")["fieldsV1"], json!({"f:spec": {"f:tags": {"v:\"x\"": {}}}}));
    // The same value is shared.
    let shared = apply(&widgets(), Some(&live), &widget(json!({"size": 1})), writer("b"), false).unwrap();
    assert_eq!(entry(&shared, "b")["fieldsV1"], json!({"f:spec": {"f:size": {}}}));
    assert!(!entry(&shared, "a")["fieldsV1"]["f:spec"]["f:size"].is_null());
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let mut live = applied(&[("a", json!({"size": 1, "pin": {"a": "1"}}))]);
    let before = live.clone();
    live["spec"]["free"] = json!({"k": 1});
    update(&widgets(), Some(&before), &mut live, writer("u"));
    let config = widget(json!({"size": 2, "pin": {"a": "2"}, "free": {"k": 2}}));
    let error = apply(&widgets(), Some(&live), &config, writer("b"), false).unwrap_err();
    assert_eq!(
        error.message(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .spec.pin\n- .spec.size\nconflicts with \"u\" using v1:\n- .spec.free.k"
    );
}

#[test]
fn objects_without_owners_belong_to_before_first_apply() {
    let live = widget(json!({"size": 1}));
    let error = apply(&widgets(), Some(&live), &widget(json!({"size": 2})), writer("a"), false).unwrap_err();
    assert!(error.message().contains("conflict with \"before-first-apply\" using v1: .spec.size"), "{error}");
}

#[test]
fn the_status_has_owners_of_its_own() {
    let live = applied(&[("a", json!({"size": 1}))]);
    let mut config = widget(json!({"size": 5}));
    config["status"] = json!({"ready": true});
    let status = Writer { subresource: "status", ..writer("controller") };
    // What the status write does not change is no conflict, and stays whose it was.
    let out = apply(&widgets(), Some(&live), &config, status, false).unwrap();
    assert_eq!(entry(&out, "a"), entry(&live, "a"));
    assert_eq!(apply(&widgets(), Some(&live), &config, status, true).unwrap(), out);
    assert_eq!(entry(&out, "controller")["fieldsV1"], json!({"f:status": {"f:ready": {}}}));
    assert_eq!(entry(&out, "controller")["subresource"], "status");
    let main = apply(&widgets(), None, &config, writer("a"), false).unwrap();
    assert_eq!(entry(&main, "a")["fieldsV1"], json!({"f:spec": {"f:size": {}}}));
    config["status"]["ready"] = json!(false);
    let main = apply(&widgets(), Some(&out), &config, writer("b"), false).unwrap();
    assert_eq!(entry(&main, "controller"), entry(&out, "controller"));
}

#[test]
fn a_write_to_the_status_does_not_change_who_manages_the_rest() {
    let live = applied(&[("a", json!({"size": 1}))]);
    for entries in [
        json!([{}]),
        json!([]),
        json!([{"manager": "thief", "operation": "Update", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:size": {}}}}]),
    ] {
        let mut new = live.clone();
        new["status"] = json!({"ready": true});
        new["metadata"]["managedFields"] = entries;
        update(&widgets(), Some(&live), &mut new, Writer { subresource: "status", ..writer("controller") });
        assert_eq!(entry(&new, "a"), entry(&live, "a"));
        assert!(entry(&new, "thief").is_null());
        assert_eq!(entry(&new, "controller")["fieldsV1"], json!({"f:status": {".": {}, "f:ready": {}}}));
    }
}

#[test]
fn kubectl_may_move_from_the_client_side_to_the_server_side() {
    let mut live = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "annotations": {
        LAST_APPLIED: r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"k":"v"}}"#}},
        "data": {"k": "v", "other": "x"}});
    update(maps(), None, &mut live, writer("kubectl-client-side-apply"));
    let config =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data});
    let out = apply(maps(), Some(&live), &config(json!({"k": "w"})), writer("kubectl"), false).unwrap();
    assert_eq!(out["data"], json!({"k": "w", "other": "x"}));
    let error = apply(maps(), Some(&live), &config(json!({"other": "y"})), writer("kubectl"), false).unwrap_err();
    assert!(error.message().contains("kubectl-client-side-apply"), "{error}");
    // Somebody else has set it since: not kubectl's own work any more, whatever the annotation says.
    let mut edited = live.clone();
    edited["data"]["k"] = json!("edited");
    update(maps(), Some(&live), &mut edited, writer("editor"));
    let error = apply(maps(), Some(&edited), &config(json!({"k": "w"})), writer("kubectl"), false).unwrap_err();
    assert!(error.message().contains("conflict with \"editor\" using v1: .data.k"), "{error}");
}

#[test]
fn giving_up_a_deep_tree_and_merging_a_long_list_take_little_time() {
    let start = std::time::Instant::now();
    let deep = (0..80).fold(json!({}), |below, _| json!({"a": below}));
    let mut live = applied(&[("a", json!({"free": {"k": 1, "a": deep["a"]}}))]);
    // What nobody owns keeps the keys that it is in.
    *live.pointer_mut(&format!("/spec/free{}", "/a".repeat(80))).unwrap() = json!({"stray": 1});
    let out = apply(&widgets(), Some(&live), &widget(json!({"free": {"k": 1}})), writer("a"), false).unwrap();
    assert_eq!(out["spec"], live["spec"]);

    let ports =
        |name: &str| json!({"ports": (0..5000).map(|port| json!({"port": port, "name": name})).collect::<Vec<_>>()});
    let out = applied(&[("a", ports("x")), ("a", ports("y"))]);
    assert_eq!(out["spec"], ports("y"));
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_repeated_apply_changes_nothing_whatever_the_time() {
    let spec = json!({"size": 1, "tags": ["x"], "ports": [{"port": 1}], "free": {"a": [1]}, "pin": {}});
    let live = applied(&[("a", spec.clone())]);
    let later = Writer { now: at(99), ..writer("a") };
    let mut again = apply(&widgets(), Some(&live), &widget(spec), later, false).unwrap();
    assert!(keep_times(&live, &mut again));
    assert_eq!(live, again);
    let mut touched = live.clone();
    update(&widgets(), Some(&live), &mut touched, later);
    assert!(keep_times(&live, &mut touched));
    touched["spec"]["size"] = json!(2);
    update(&widgets(), Some(&live), &mut touched, later);
    assert!(!keep_times(&live, &mut touched));
}

#[test]
fn ownership_can_be_given_up_and_is_not_made_up_afterwards() {
    let live = applied(&[("a", json!({"size": 1}))]);
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    update(&widgets(), Some(&live), &mut reset, writer("b"));
    assert!(reset["metadata"].get("managedFields").is_none());
    let mut changed = reset.clone();
    changed["spec"]["size"] = json!(3);
    update(&widgets(), Some(&reset), &mut changed, writer("b"));
    assert!(changed["metadata"].get("managedFields").is_none());
}

#[test]
fn many_writers_become_ancient_changes() {
    let mut live = widget(json!({"free": {"k0": 0}}));
    update(&widgets(), None, &mut live, writer("w0"));
    for n in 1..20 {
        let before = live.clone();
        live["spec"]["free"][format!("k{n}")] = json!(n);
        let name = format!("w{n}");
        update(&widgets(), Some(&before), &mut live, Writer { now: at(n), ..writer(&name) });
    }
    let entries = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    let ancient = &entry(&live, "ancient-changes")["fieldsV1"]["f:spec"]["f:free"];
    assert!(!ancient["f:k0"].is_null() && !ancient["f:k10"].is_null(), "{ancient}");
}

#[test]
fn a_foreign_entry_survives_as_it_was() {
    let fields = json!({"f:spec": {"f:ports": {"k:{\"port\":1}": {".": {}, "f:name": {}}}, "f:tags": {"v:\"a\"": {}}},
        "f:metadata": {"f:labels": {"f:a": {}}, "f:annotations": {".": {}, "f:b": {}}}});
    assert_eq!(Set::decode(&fields).encode(), fields);
    assert!(Set::decode(&json!({})).is_empty());
    assert!(Set::decode(&json!({"x:unknown": {}, "k:not json": {}})).is_empty());
}

#[test]
fn deployments_keep_what_others_scale() {
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 1, "template": {"spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}]}]}}}});
    let live = apply(deployments(), None, &config, writer("me"), false).unwrap();
    let ports = &entry(&live, "me")["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"];
    assert!(!ports["f:ports"]["k:{\"containerPort\":80,\"protocol\":\"TCP\"}"].is_null(), "{ports}");
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(7);
    update(deployments(), Some(&live), &mut scaled, writer("hpa"));
    let mut without = config.clone();
    without["spec"].as_object_mut().unwrap().remove("replicas");
    let out = apply(deployments(), Some(&scaled), &without, writer("me"), false).unwrap();
    assert_eq!(out["spec"]["replicas"], 7);
    assert!(apply(deployments(), Some(&scaled), &config, writer("me"), false).is_err());
}

/// One change of a widget: what is merged into it, by whom, to which subresource.
fn change() -> impl Strategy<Value = (Value, &'static str, &'static str)> {
    let spec = prop_oneof![
        (0..3).prop_map(|size| json!({"size": size})),
        Just(json!({"size": null})),
        ("[ab]", "[ab]").prop_map(|(a, b)| json!({"pin": {"a": a, "b": b}})),
        prop::sample::subsequence(vec!["x", "y", "z"], 0..3).prop_map(|tags| json!({"tags": tags})),
        (1..4, "[mn]").prop_map(|(port, name)| json!({"ports": [{"port": 0}, {"port": port, "name": name}]})),
        ("[ab]", 0..3).prop_map(|(name, value)| json!({"free": {name: {"deep": value}}})),
    ];
    let labels = ("[ab]", "[ab]").prop_map(|(key, value)| json!({"metadata": {"labels": {key: value}}}));
    let main = prop_oneof![spec.prop_map(|spec| json!({"spec": spec})), labels].prop_map(|change| (change, ""));
    let status = any::<bool>().prop_map(|ready| (json!({"status": {"ready": ready}}), "status"));
    let manager = prop::sample::select(vec!["one", "two", "three"]);
    (prop_oneof![3 => main, 1 => status], manager).prop_map(|((change, part), manager)| (change, manager, part))
}

proptest! {
    /// Entries that a write does not concern are taken over unread; that must not make a difference.
    #[test]
    fn entries_that_are_taken_over_as_stored_end_as_those_that_are_read(
        changes in prop::collection::vec(change(), 1..12),
    ) {
        let widgets = widgets();
        let mut live = widget(json!({"size": 1}));
        update(&widgets, None, &mut live, writer("creator"));
        for (second, (patch, manager, subresource)) in (2..).zip(changes) {
            let by = Writer { subresource, now: at(second), ..writer(manager) };
            let mut stored = crate::patch::merge(&live, &patch);
            let mut read = stored.clone();
            // With one more, which nobody understands, they are not what is stored.
            let entries = read.pointer_mut("/metadata/managedFields").unwrap().as_array_mut().unwrap();
            entries.push(json!({"manager": "nobody", "operation": "?"}));
            update(&widgets, Some(&live), &mut stored, by);
            update(&widgets, Some(&live), &mut read, by);
            prop_assert_eq!(&stored, &read);
            live = stored;
        }
    }
}
