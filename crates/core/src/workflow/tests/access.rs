use super::super::access::{objects, writes};
use super::*;

fn permissions(verb: &str) -> Value {
    json!([
        { "apiGroups": [""], "resources": ["configmaps"], "verbs": [verb] },
        { "resourceNamespace": "other", "apiGroups": [""], "resources": ["secrets"], "verbs": [verb] },
        { "resourceNamespace": "*", "apiGroups": [""], "resources": ["nodes"], "verbs": [verb] },
    ])
}

fn case(spec: &PromiseSpec, action: Action) -> (Parent, Workflow) {
    of_request(spec, "a", action)
}

/// Returns the world in which everything of this workflow's first pipeline exists.
fn existing(parent: &Parent, workflow: &Workflow) -> Existing {
    let mut existing = Existing::default();
    for wanted in objects(parent, workflow, &workflow.pipelines[0]) {
        add(&mut existing, wanted.object());
    }
    existing
}

fn add(existing: &mut Existing, object: Value) {
    fn typed<K: serde::de::DeserializeOwned>(object: Value) -> Arc<K> {
        Arc::new(serde_json::from_value(object).unwrap())
    }
    match object["kind"].as_str().unwrap() {
        "ServiceAccount" => existing.service_accounts.push(typed(object)),
        "ConfigMap" => existing.config_maps.push(typed(object)),
        "Role" => existing.roles.push(typed(object)),
        "RoleBinding" => existing.role_bindings.push(typed(object)),
        "ClusterRole" => existing.cluster_roles.push(typed(object)),
        "ClusterRoleBinding" => existing.cluster_role_bindings.push(typed(object)),
        kind => panic!("{kind}"),
    }
}

fn told(writes: &[Write]) -> Vec<String> {
    let verb = |write: &Write| match write {
        Write::Create { .. } => "create",
        Write::Patch { .. } => "patch",
        Write::PatchStatus { .. } => "status",
        Write::Delete { .. } => "delete",
    };
    writes.iter().map(|write| format!("{} {} {}", verb(write), write.address().0.kind, write.address().1)).collect()
}

#[test]
fn what_exists_as_it_should_is_not_written() {
    for namespace in ["", "pipes"] {
        let spec = spec(&[pipeline("p", permissions("get"))], &[], namespace);
        let (parent, workflow) = case(&spec, Action::Configure);
        let existing = existing(&parent, &workflow);
        assert_eq!(told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing)), Vec::<String>::new());
    }
}

#[test]
fn accounts_and_roles_are_made_before_the_bindings_that_name_them() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &Existing::default()));
    assert_eq!(
        told,
        [
            "create ServiceAccount a/env-resource-configure-p",
            "create ConfigMap a/destination-selectors-env",
            "create Role a/env-resource-configure-p",
            "create RoleBinding a/env-resource-configure-p",
        ]
    );
}

#[test]
fn changed_rules_are_patched_and_what_others_added_stays() {
    let before = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = case(&before, Action::Configure);
    let existing = existing(&parent, &workflow);
    let after = spec(&[pipeline("p", permissions("list"))], &[], "");
    let (parent, workflow) = case(&after, Action::Configure);
    let writes = writes(&parent, &workflow, &workflow.pipelines[0], &existing);
    assert_eq!(writes.len(), 3, "{:?}", told(&writes));
    for write in &writes {
        let Write::Patch { patch, .. } = write else { panic!("{write:?}") };
        assert_eq!(patch.as_object().unwrap().keys().collect::<Vec<_>>(), ["rules"]);
    }
}

#[test]
fn a_permission_that_moves_to_another_namespace_leaves_no_role_behind() {
    let before = spec(&[pipeline("p", json!([{ "resourceNamespace": "one", "verbs": ["get"] }]))], &[], "");
    let (parent, workflow) = case(&before, Action::Configure);
    let existing = existing(&parent, &workflow);
    let after = spec(&[pipeline("p", json!([{ "resourceNamespace": "two", "verbs": ["get"] }]))], &[], "");
    let (parent, workflow) = case(&after, Action::Configure);
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing));
    assert_eq!(told.iter().filter(|line| line.starts_with("delete")).count(), 2, "{told:?}");
    assert!(told[0].starts_with("delete RoleBinding one/"), "{told:?}");
}

#[test]
fn permissions_of_a_delete_pipeline_of_the_same_name_are_left_alone() {
    let spec = spec(&[pipeline("p", json!([]))], &[pipeline("p", permissions("get"))], "");
    let (parent, delete) = case(&spec, Action::Delete);
    let existing = existing(&parent, &delete);
    let (parent, configure) = case(&spec, Action::Configure);
    let told = told(&writes(&parent, &configure, &configure.pipelines[0], &existing));
    assert!(told.iter().all(|line| !line.starts_with("delete")), "{told:?}");
}

#[test]
fn a_binding_to_another_role_is_made_anew_because_it_cannot_be_changed() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let mut existing = existing(&parent, &workflow);
    Arc::make_mut(&mut existing.role_bindings[0]).role_ref.name = "other".into();
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing));
    let name = "RoleBinding a/env-resource-configure-p";
    assert_eq!(told, [format!("delete {name}"), format!("create {name}")]);
}

#[test]
fn requests_of_two_namespaces_do_not_rewrite_their_common_role_in_turns() {
    let spec = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = of_request(&spec, "a", Action::Configure);
    let mut existing = existing(&parent, &workflow);
    let (parent, workflow) = of_request(&spec, "b", Action::Configure);
    let first = writes(&parent, &workflow, &workflow.pipelines[0], &existing);
    assert!(first.iter().all(|write| matches!(write, Write::Create { .. })), "{:?}", told(&first));
    for write in first {
        let Write::Create { object, .. } = write else { continue };
        add(&mut existing, object);
    }
    for namespace in ["a", "b"] {
        let (parent, workflow) = of_request(&spec, namespace, Action::Configure);
        assert!(writes(&parent, &workflow, &workflow.pipelines[0], &existing).is_empty(), "{namespace}");
    }
}

#[test]
fn selectors_are_written_so_that_they_read_back_as_text() {
    let spec: PromiseSpec = serde_json::from_value(json!({
        "destinationSelectors": [{ "matchLabels": { "env": "dev", "n": "no", "one": "1", "v": "1.0", "ok": "a-b.c_d" } }, {}],
        "workflows": { "resource": { "configure": [pipeline("p", json!([]))] } },
    }))
    .unwrap();
    let (parent, workflow) = case(&spec, Action::Configure);
    let map = objects(&parent, &workflow, &workflow.pipelines[0])[1].object();
    assert_eq!(
        map["data"]["destinationSelectors"],
        "- matchlabels:\n    env: dev\n    \"n\": \"no\"\n    ok: a-b.c_d\n    one: \"1\"\n    v: \"1.0\"\n  source: promise\n\
         - matchlabels: {}\n  source: promise\n"
    );
}
