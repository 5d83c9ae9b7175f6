use kratix_api::name;

use super::*;

fn world() -> World {
    let mut world = World::new(spec(&["build"], &[], ""));
    world.revise("v1", spec(&["build"], &[], ""));
    world.objects.remove(&("PromiseRevision".to_owned(), ObjectKey::cluster("env-not-set")));
    world.ask("a");
    world
}

fn binding(world: &World) -> (ObjectKey, Value) {
    let keys = world.keys("ResourceBinding");
    assert_eq!(keys.len(), 1);
    (keys[0].clone(), world.get("ResourceBinding", &keys[0]).clone())
}

fn v2(world: &mut World) {
    world.revise("v2", spec(&["build", "more"], &[], ""));
}

#[test]
fn a_floating_request_follows_and_a_pinned_one_stays() {
    let mut world = world();
    world.play("a");
    assert_eq!(world.status("a")["promiseVersion"], "v1");
    v2(&mut world);
    world.settle("a");
    let (_, told) = binding(&world);
    assert_eq!(told["status"]["conditions"][0]["message"], "Upgrade to version v2 is in progress");
    assert_eq!(told["status"]["lastAppliedVersion"], "v1");
    world.play("a");
    assert_eq!(world.status("a")["promiseVersion"], "v2");
    let (key_of_binding, told) = binding(&world);
    assert_eq!(told["status"]["lastAppliedVersion"], "v2");
    assert_eq!(told["status"]["conditions"][0]["message"], "Resource is at version v2");
    assert_eq!(world.count("ReconcileSucceeded Resource request reconciled with promise env version v2"), 1);
    world.change("ResourceBinding", &key_of_binding, json!({ "spec": { "version": "v1" } }));
    world.play("a");
    assert_eq!(world.status("a")["promiseVersion"], "v1");
    assert_eq!(world.status("a")["resourceBindingVersion"], "v1");
    assert_eq!(world.count("ResourceBindingVersionUpdated Resource binding version updated to v1"), 1);
    world.revise("v3", spec(&["other"], &[], ""));
    assert!(world.decide("a").is_silent());
}

#[test]
fn a_first_deployment_records_the_version_and_no_upgrade() {
    let mut world = world();
    world.play("a");
    assert_eq!(binding(&world).1["status"], json!({ "lastAppliedVersion": "v1" }));
}

#[test]
fn a_failed_upgrade_is_told_and_the_next_success_clears_it() {
    let mut world = world();
    world.play("a");
    v2(&mut world);
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    let (_, told) = binding(&world);
    assert_eq!(told["status"]["failedVersion"], "v2");
    assert_eq!(told["status"]["lastAppliedVersion"], "v1");
    assert_eq!(told["status"]["conditions"][0]["reason"], "UpgradeFailed");
    assert_eq!(told["status"]["conditions"][0]["message"], "A Configure Pipeline has failed: build");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    let (_, told) = binding(&world);
    assert_eq!(told["status"].get("failedVersion"), None);
    assert_eq!(told["status"]["conditions"][0]["reason"], "UpgradeComplete");
}

#[test]
fn a_failed_first_deployment_is_told_too() {
    let mut world = world();
    world.settle("a");
    world.finish("a", Pod::Fails);
    world.settle("a");
    assert_eq!(binding(&world).1["status"]["failedVersion"], "v1");
}

#[test]
fn a_binding_made_first_is_adopted_whatever_its_name() {
    let mut world = world();
    v2(&mut world);
    let own = ObjectKey::namespaced("a", "mine");
    let labels = json!({ keys::PROMISE_NAME: PROMISE, keys::RESOURCE_NAME: "x", "team": "t" });
    let object = json!({
        "kind": "ResourceBinding", "metadata": { "name": "mine", "namespace": "a", "labels": labels },
        "spec": { "version": "v1", "promiseRef": { "name": PROMISE }, "resourceRef": { "name": "x", "namespace": "a" } },
    });
    world.put(object, own.clone());
    world.play("a");
    assert_eq!(binding(&world).0, own);
    assert_eq!(binding(&world).1["metadata"]["labels"]["team"], "t");
    assert_eq!(world.status("a")["promiseVersion"], "v1");
    assert_eq!(world.count("BindingCreated"), 0);
}

#[test]
fn labels_of_the_request_are_mirrored_and_those_of_others_stay() {
    let mut world = world();
    world.label("a", "team", Some("one"));
    world.play("a");
    let (name, made) = binding(&world);
    assert_eq!(made["metadata"]["labels"]["team"], "one");
    world.change("ResourceBinding", &name, json!({ "metadata": { "labels": { "own": "1" } } }));
    world.label("a", "team", None);
    world.label("a", keys::WORKFLOW_SUSPENDED, Some("true"));
    world.settle("a");
    let labels = json!({ keys::PROMISE_NAME: PROMISE, keys::RESOURCE_NAME: "x", "own": "1" });
    assert_eq!(binding(&world).1["metadata"]["labels"], labels);
}

#[test]
fn a_removed_binding_comes_back_at_the_version_it_had() {
    let mut world = world();
    world.play("a");
    let (name, _) = binding(&world);
    world.change("ResourceBinding", &name, json!({ "spec": { "version": "v1" } }));
    world.play("a");
    v2(&mut world);
    world.objects.remove(&("ResourceBinding".to_owned(), name));
    world.settle("a");
    assert_eq!(binding(&world).1["spec"]["version"], "v1");
    assert_eq!(world.status("a")["resourceBindingVersion"], "v1");
    assert_eq!(world.count("ResourceBindingVersionUpdated"), 2);
    assert_eq!(world.ran("a").len(), 1);
}

#[test]
fn the_pinned_strategy_pins_new_bindings_alone() {
    let mut world = world();
    world.config.binding_strategy = crate::config::BindingStrategy::Pinned;
    world.play("a");
    assert_eq!(binding(&world).1["spec"]["version"], "v1");
}

#[test]
fn a_missing_version_blocks_until_it_exists_and_is_told_once() {
    let mut world = world();
    world.play("a");
    let (name, _) = binding(&world);
    world.change("ResourceBinding", &name, json!({ "spec": { "version": "v9" } }));
    let plan = world.settle("a");
    let text = "cannot find a PromiseRevision for Promise env with version v9: promise revision not found";
    assert_eq!(plan.findings, [Finding::Blocked { cause: text.into() }]);
    world.settle("a");
    assert_eq!(world.count(&format!("FailedPromiseRevisionLookup {text}")), 1);
    // What was applied decides about the end, not what is wished for.
    let mut deleting = world.clone();
    deleting.delete("Env", &key("a"));
    deleting.settle("a");
    assert!(deleting.keys("Env").is_empty());
    world.change("ResourceBinding", &name, json!({ "spec": { "version": "latest" } }));
    world.play("a");
    assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
}

#[test]
fn two_bindings_block_the_request_which_is_told_once_and_go_with_it() {
    let mut world = world();
    world.play("a");
    let (_, mut second) = binding(&world);
    second["metadata"]["name"] = "second".into();
    world.put(second, ObjectKey::namespaced("a", "second"));
    let before = world.events.len();
    let plan = world.settle("a");
    let Finding::Blocked { cause } = &plan.findings[0] else { panic!() };
    assert_eq!(
        cause,
        "found multiple ResourceBindings for Resource x in namespace a;there should be one ResourceBinding per Resource"
    );
    assert_eq!(world.events[before..], [format!("MultipleResourceBindings {cause}")]);
    world.delete("Env", &key("a"));
    world.settle("a");
    assert!(world.keys("Env").is_empty() && world.keys("ResourceBinding").is_empty());
}

#[test]
fn an_unlabelled_binding_is_adopted_and_counts_from_the_first_run() {
    let mut world = world();
    v2(&mut world);
    let usual = ObjectKey::namespaced("a", kratix_api::name::resource_binding("x", PROMISE));
    let metadata = json!({ "name": usual.name, "namespace": "a" });
    world.put(json!({ "kind": "ResourceBinding", "metadata": metadata, "spec": { "version": "v1" } }), usual.clone());
    world.play("a");
    assert_eq!(binding(&world).0, usual);
    assert_eq!(world.ran("a"), ["build"], "no run with the latest version");
    assert_eq!(world.status("a")["promiseVersion"], "v1");
    assert_eq!(binding(&world).1["spec"]["resourceRef"]["name"], "x");
}

#[test]
fn the_binding_of_another_request_is_never_taken_whatever_its_name() {
    let usual = ObjectKey::namespaced("a", kratix_api::name::resource_binding("x", PROMISE));
    // As Promise `nv` would make it for its request `x-e`.
    let labels = json!({ keys::PROMISE_NAME: "nv", keys::RESOURCE_NAME: "x-e" });
    let spec =
        json!({ "version": "v7", "promiseRef": { "name": "nv" }, "resourceRef": { "name": "x-e", "namespace": "a" } });
    for (labels, spec) in [(json!({}), spec.clone()), (labels, json!({ "version": "v7" }))] {
        let mut world = world();
        let metadata = json!({ "name": usual.name, "namespace": "a", "labels": labels });
        world.put(json!({ "kind": "ResourceBinding", "metadata": metadata, "spec": spec }), usual.clone());
        let before = world.get("ResourceBinding", &usual).clone();
        world.play("a");
        assert_eq!(world.get("ResourceBinding", &usual), &before);
        assert_eq!(world.keys("ResourceBinding").len(), 2);
        assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
        assert_eq!(world.status("a")["promiseVersion"], "v1");
        world.delete("Env", &key("a"));
        world.settle("a");
        assert_eq!(world.keys("ResourceBinding"), std::slice::from_ref(&usual));
    }
}

/// Somebody who may make bindings in another namespace only.
#[test]
fn a_binding_of_another_namespace_is_never_taken_whatever_it_says() {
    let usual = name::resource_binding("x", PROMISE);
    let labels = json!({ keys::PROMISE_NAME: PROMISE, keys::RESOURCE_NAME: "x" });
    let foreign_labels = json!({ keys::PROMISE_NAME: "nv", keys::RESOURCE_NAME: "x-e" });
    for (name, version) in [(usual.as_str(), "not-set"), (&usual, "v9"), ("mine", "not-set")] {
        for labels in [&json!({}), &labels, &foreign_labels] {
            let mut world = world();
            world.revise("not-set", spec(&["before"], &[], ""));
            v2(&mut world);
            let forged = ObjectKey::namespaced("b", name);
            let metadata = json!({ "name": name, "namespace": "b", "labels": labels });
            let reference = json!({ "name": "x", "namespace": "a" });
            let spec = json!({ "version": version, "promiseRef": { "name": PROMISE }, "resourceRef": reference });
            world.put(json!({ "kind": "ResourceBinding", "metadata": metadata, "spec": spec }), forged.clone());
            world.label("a", "team", Some("one"));
            let before = world.get("ResourceBinding", &forged).clone();
            world.play("a");
            let own = ObjectKey::namespaced("a", usual.clone());
            assert_eq!(world.keys("ResourceBinding"), [own.clone(), forged.clone()], "{labels}");
            assert_eq!(world.get("ResourceBinding", &own)["spec"]["version"], "latest");
            assert_eq!(world.told("a", "Reconciled"), "True/Reconciled");
            assert_eq!(world.status("a")["promiseVersion"], "v2");
            world.delete("Env", &key("a"));
            world.settle("a");
            assert_eq!(world.keys("ResourceBinding"), std::slice::from_ref(&forged));
            assert_eq!(world.get("ResourceBinding", &forged), &before);
        }
    }
}

#[test]
fn a_missing_version_is_told_on_the_binding_until_it_is_there() {
    let mut world = world();
    world.play("a");
    let (name, _) = binding(&world);
    world.change("ResourceBinding", &name, json!({ "spec": { "version": "v2" } }));
    world.settle("a");
    let (_, told) = binding(&world);
    assert_eq!(told["status"]["failedVersion"], "v2");
    assert_eq!(told["status"]["conditions"][0]["reason"], "UpgradeFailed");
    let text = "cannot find a PromiseRevision for Promise env with version v2: promise revision not found";
    assert_eq!(told["status"]["conditions"][0]["message"], text);
    v2(&mut world);
    world.play("a");
    let (_, told) = binding(&world);
    assert_eq!(told["status"]["conditions"][0]["message"], "Resource is at version v2");
    assert_eq!(told["status"].get("failedVersion"), None);
}

#[test]
fn between_two_versions_the_promise_says_which_is_the_latest() {
    let mut world = world();
    v2(&mut world);
    // The older one, first by name, has not noticed yet.
    world.change("PromiseRevision", &ObjectKey::cluster("env-v1"), json!({ "status": { "latest": true } }));
    world.play("a");
    assert_eq!(world.status("a")["promiseVersion"], "v2");
    world.change("PromiseRevision", &ObjectKey::cluster("env-v1"), json!({ "status": null }));
    // One that goes is used by nothing but the end of a request.
    let going = json!({ "metadata": { "deletionTimestamp": world.now.to_string(), "finalizers": ["f"] } });
    world.change("PromiseRevision", &ObjectKey::cluster("env-v2"), going);
    let plan = world.settle("a");
    assert!(matches!(&plan.findings[0], Finding::Blocked { cause } if cause.contains("no latest")), "{plan:?}");
    world.delete("Env", &key("a"));
    world.settle("a");
    assert!(world.keys("Env").is_empty());
}
