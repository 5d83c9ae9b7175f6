//! What was made for earlier specs goes once nothing uses it: in a `pipelineNamespace` of earlier, and selectors of earlier revisions.

use super::*;

/// §5.1–§5.4: each place of a crash leads to the same end.
#[test]
fn accounts_and_permissions_in_a_pipeline_namespace_go_once_no_pipeline_runs_there() {
    let rich = |namespace: &str| {
        let mut spec = spec(&["build"], &["bye"], namespace);
        let rule = json!({ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get"] });
        for list in ["configure", "delete"] {
            spec["workflows"]["resource"][list][0]["spec"]["rbac"] = json!({ "permissions": [rule] });
        }
        spec
    };
    let mut world = World::new(rich("pipes"));
    for namespace in ["a", "b"] {
        world.ask(namespace);
        world.play(namespace);
    }
    let access = |world: &World, namespace: Option<&str>| {
        let kinds = ["ServiceAccount", "ConfigMap", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
        let all = world
            .objects
            .keys()
            .filter(|(kind, key)| kinds.contains(&kind.as_str()) && key.namespace.as_deref() == namespace);
        all.count()
    };
    assert_eq!(
        (access(&world, Some("pipes")), access(&world, None)),
        (6, 4),
        "a role and its binding for each namespace"
    );
    // Somebody's own.
    let own = json!({ "kind": "ServiceAccount", "metadata": { "name": "own", "namespace": "pipes" } });
    world.put(own, ObjectKey::namespaced("pipes", "own"));
    world.label("b", keys::MANUAL_RECONCILIATION, Some("true"));
    world.settle("b");
    world.revise("not-set", rich(""));
    world.play("a");
    assert_eq!((access(&world, Some("pipes")), access(&world, None)), (7, 4), "a pod runs there");
    world.finish("b", Pod::Succeeds);
    for crash in 0..24 {
        let mut world = world.clone();
        world.crash_before = Some(world.writes.len() + crash);
        world.play("b");
        assert_eq!((access(&world, Some("pipes")), access(&world, None)), (1, 0), "after {crash} writes");
        for namespace in ["a", "b"] {
            assert!(world.decide(namespace).is_silent());
            assert_eq!(access(&world, Some(namespace)), 6);
        }
    }
    // A namespace that has requests of its own is no place that was left.
    world.ask("pipes");
    world.play("b");
    assert!(access(&world, Some("pipes")) > 1);
}

/// §5.2
#[test]
fn selectors_of_a_revision_go_with_the_next_start_after_its_last_request() {
    let selecting = |environment: &str| {
        let mut spec = spec(&["build"], &[], "");
        spec["destinationSelectors"] = json!([{ "matchLabels": { "environment": environment } }]);
        spec
    };
    let mut world = World::new(selecting("test"));
    world.revise("v1", selecting("test"));
    world.config.binding_strategy = crate::config::BindingStrategy::Pinned;
    world.ask("a");
    world.play("a");
    world.revise("v2", selecting("prod"));
    let keys = |world: &World| {
        let map = world.get("ConfigMap", &ObjectKey::namespaced("a", "destination-selectors-env"));
        map["data"].as_object().unwrap().len()
    };
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    let binding = world.keys("ResourceBinding").remove(0);
    assert_eq!((keys(&world), world.status("a")["promiseVersion"].as_str()), (2, Some("v1")));
    world.change("ResourceBinding", &binding, json!({ "spec": { "version": "v2" } }));
    world.play("a");
    assert_eq!((keys(&world), world.status("a")["promiseVersion"].as_str()), (2, Some("v2")), "v1 is what it had");
    world.label("a", keys::MANUAL_RECONCILIATION, Some("true"));
    world.play("a");
    assert_eq!(keys(&world), 1);
}
