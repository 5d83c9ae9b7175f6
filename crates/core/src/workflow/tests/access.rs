use super::super::access::{SCHEDULING_KEY, objects, scheduling_key, writes};
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
        assert_eq!(told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[])), Vec::<String>::new());
    }
}

#[test]
fn accounts_and_roles_are_made_before_the_bindings_that_name_them() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &Existing::default(), &[]));
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
    let writes = writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[]);
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
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[]));
    assert_eq!(told.iter().filter(|line| line.starts_with("delete")).count(), 2, "{told:?}");
    assert!(told[0].starts_with("delete RoleBinding one/"), "{told:?}");
}

#[test]
fn permissions_of_a_delete_pipeline_of_the_same_name_are_left_alone() {
    let spec = spec(&[pipeline("p", json!([]))], &[pipeline("p", permissions("get"))], "");
    let (parent, delete) = case(&spec, Action::Delete);
    let existing = existing(&parent, &delete);
    let (parent, configure) = case(&spec, Action::Configure);
    let told = told(&writes(&parent, &configure, &configure.pipelines[0], &existing, &[]));
    assert!(told.iter().all(|line| !line.starts_with("delete")), "{told:?}");
}

#[test]
fn a_binding_to_another_role_is_made_anew_because_it_cannot_be_changed() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let mut existing = existing(&parent, &workflow);
    Arc::make_mut(&mut existing.role_bindings[0]).role_ref.name = "other".into();
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[]));
    let name = "RoleBinding a/env-resource-configure-p";
    assert_eq!(told, [format!("delete {name}"), format!("create {name}")]);
}

#[test]
fn requests_of_two_namespaces_do_not_rewrite_their_common_role_in_turns() {
    let spec = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = of_request(&spec, "a", Action::Configure);
    let mut existing = existing(&parent, &workflow);
    let (parent, workflow) = of_request(&spec, "b", Action::Configure);
    let first = writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[]);
    assert!(first.iter().all(|write| matches!(write, Write::Create { .. })), "{:?}", told(&first));
    for write in first {
        let Write::Create { object, .. } = write else { continue };
        add(&mut existing, object);
    }
    for namespace in ["a", "b"] {
        let (parent, workflow) = of_request(&spec, namespace, Action::Configure);
        assert!(writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[]).is_empty(), "{namespace}");
    }
}

#[test]
fn an_account_may_be_a_users_own_and_nothing_else_may() {
    let spec = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = of_request(&spec, "a", Action::Configure);
    let all = writes(&parent, &workflow, &workflow.pipelines[0], &Existing::default(), &[]);
    let anybodys = |write: &&Write| matches!(write, Write::Create { owner: crate::plan::Owner::Anybody, .. });
    let kinds: Vec<&str> = all.iter().filter(anybodys).map(|write| write.address().0.kind.as_str()).collect();
    assert_eq!(kinds, ["ServiceAccount"]);
    assert!(all.len() > 3);
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

/// Returns the workflow of a Promise's request with these permissions and selectors.
fn revision(verb: &str, selector: &str) -> (Parent, Workflow) {
    let mut spec = spec(&[pipeline("p", permissions(verb))], &[], "");
    spec.destination_selectors = vec![serde_json::from_value(json!({ "matchLabels": { "env": selector } })).unwrap()];
    case(&spec, Action::Configure)
}

#[test]
fn two_revisions_in_use_keep_each_others_permissions_and_selectors() {
    let (parent, old) = revision("get", "dev");
    let (_, new) = revision("list", "prod");
    let others = [new.clone(), old.clone()];
    let mut existing = existing(&parent, &old);
    for (this, is_latest) in [(&new, true), (&old, false), (&new, true)] {
        let this = Workflow { scheduling_key: scheduling_key(this, &others), ..this.clone() };
        assert_eq!(this.scheduling_key == SCHEDULING_KEY, is_latest);
        let writes = writes(&parent, &this, &this.pipelines[0], &existing, &others);
        assert!(writes.iter().all(|write| matches!(write, Write::Patch { .. })), "{:?}", told(&writes));
        for write in &writes {
            apply(&mut existing, write);
        }
        let text = |verb: &str| format!("\"verbs\":[\"{verb}\"]");
        for role in existing.cluster_roles.iter().map(|role| serde_json::to_string(role).unwrap()) {
            assert!(role.contains(&text("get")) && role.contains(&text("list")), "{role}");
        }
    }
    let data = existing.config_maps[0].data.clone().unwrap();
    assert_eq!(data.len(), 2);
    assert!(data["destinationSelectors"].contains("prod"));
    // Both are at rest now.
    for this in [&new, &old] {
        let this = Workflow { scheduling_key: scheduling_key(this, &others), ..this.clone() };
        assert_eq!(told(&writes(&parent, &this, &this.pipelines[0], &existing, &others)), Vec::<String>::new());
        let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
        let job = serde_json::to_string(&job::job(&parent, &this, &settings(), attempt)).unwrap();
        assert!(job.contains(&format!("\"key\":\"{}\"", this.scheduling_key)));
    }
    // What only the old one may do goes with its last request.
    let writes = writes(&parent, &new, &new.pipelines[0], &existing, std::slice::from_ref(&new));
    assert!(!writes.is_empty());
    writes.iter().for_each(|write| apply(&mut existing, write));
    let role = serde_json::to_string(&existing.cluster_roles[0]).unwrap();
    assert!(!role.contains("\"get\""), "{role}");
}

/// Applies a patch to what exists.
fn apply(existing: &mut Existing, write: &Write) {
    fn patch<K: serde::Serialize + serde::de::DeserializeOwned + kube_core::Resource>(
        objects: &mut [Arc<K>],
        key: &ObjectKey,
        patch: &Value,
    ) {
        for object in objects.iter_mut().filter(|object| ObjectKey::of(object.as_ref()) == *key) {
            let mut value = serde_json::to_value(object.as_ref()).unwrap();
            crate::promise::testing::merge(&mut value, patch);
            *object = Arc::new(serde_json::from_value(value).unwrap());
        }
    }
    let Write::Patch { target, patch: change } = write else { panic!("{write:?}") };
    match target.kind.kind.as_str() {
        "ConfigMap" => patch(&mut existing.config_maps, &target.key, change),
        "Role" => patch(&mut existing.roles, &target.key, change),
        "ClusterRole" => patch(&mut existing.cluster_roles, &target.key, change),
        kind => panic!("{kind}"),
    }
}
