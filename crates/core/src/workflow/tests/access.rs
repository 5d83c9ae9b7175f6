mod earlier;

use super::super::access::{self, InUse, SCHEDULING_KEY, objects, scheduling_key};
use super::*;

/// As [`access::writes`], where pipelines run beside their requests.
fn writes(
    parent: &Parent,
    workflow: &Workflow,
    pipeline: &Pipeline,
    existing: &Existing,
    others: &[Workflow],
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Vec<Write> {
    let in_use = InUse { workflows: others.to_vec(), is_beside_requests: true, ..InUse::default() };
    access::writes(parent, workflow, pipeline, existing, &in_use, jobs)
}

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
        assert_eq!(
            told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new)),
            Vec::<String>::new()
        );
    }
}

#[test]
fn accounts_and_roles_are_made_before_the_bindings_that_name_them() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &Existing::default(), &[], Vec::new));
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
    let writes = writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new);
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
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new));
    assert_eq!(told.iter().filter(|line| line.starts_with("delete")).count(), 2, "{told:?}");
    assert!(told[0].starts_with("delete RoleBinding one/"), "{told:?}");
}

#[test]
fn permissions_of_a_delete_pipeline_of_the_same_name_are_left_alone() {
    let spec = spec(&[pipeline("p", json!([]))], &[pipeline("p", permissions("get"))], "");
    let (parent, delete) = case(&spec, Action::Delete);
    let existing = existing(&parent, &delete);
    let (parent, configure) = case(&spec, Action::Configure);
    let told = told(&writes(&parent, &configure, &configure.pipelines[0], &existing, &[], Vec::new));
    assert!(told.iter().all(|line| !line.starts_with("delete")), "{told:?}");
}

fn is_there(existing: &Existing, object: &Value) -> bool {
    let shared =
        |map: &Arc<k8s_openapi::api::core::v1::ConfigMap>| object["metadata"]["name"] == map.name_any().as_str();
    object["kind"] == "ConfigMap" && existing.config_maps.iter().any(shared)
}

/// Executes the removals of a plan.
fn remove(existing: &mut Existing, writes: &[Write]) {
    let gone: Vec<_> =
        writes.iter().filter(|write| matches!(write, Write::Delete { .. })).map(Write::address).collect();
    fn keep<K: kube_core::Resource<DynamicType = ()>>(objects: &mut Vec<Arc<K>>, gone: &[(&Kind, &ObjectKey)]) {
        objects.retain(|object| !gone.contains(&(&Kind::of::<K>(), &ObjectKey::of(object.as_ref()))));
    }
    keep(&mut existing.roles, &gone);
    keep(&mut existing.role_bindings, &gone);
    keep(&mut existing.cluster_roles, &gone);
    keep(&mut existing.cluster_role_bindings, &gone);
}

fn deleted(writes: &[Write]) -> Vec<String> {
    told(writes).into_iter().filter_map(|line| line.strip_prefix("delete ").map(str::to_owned)).collect()
}

/// §5.6: the pipeline itself, one that is gone or has another name, and a delete pipeline, which removes nothing itself.
#[test]
fn permissions_that_no_pipeline_has_any_more_go_with_the_next_start_of_any_of_them() {
    let before =
        spec(&[pipeline("p", json!([])), pipeline("q", permissions("get"))], &[pipeline("d", permissions("get"))], "");
    let (parent, workflow) = case(&before, Action::Configure);
    let mut existing = existing(&parent, &workflow);
    for (action, index) in [(Action::Configure, 1), (Action::Delete, 0)] {
        let (parent, workflow) = case(&before, action);
        let all = objects(&parent, &workflow, &workflow.pipelines[index]);
        all.into_iter().filter(|one| !is_there(&existing, &one.object())).collect::<Vec<_>>().into_iter().for_each(
            |one| {
                add(&mut existing, one.object());
            },
        );
    }
    let start = |spec: &PromiseSpec, existing: &Existing| {
        let (parent, workflow) = case(spec, Action::Configure);
        writes(&parent, &workflow, &workflow.pipelines[0], existing, &[], Vec::new)
    };
    assert_eq!(told(&start(&before, &existing)), Vec::<String>::new());
    // Renamed, and the delete pipeline is left with one permission of three.
    let one = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"] }]);
    let after = spec(&[pipeline("p", json!([])), pipeline("r", json!([]))], &[pipeline("d", one)], "");
    let first = start(&after, &existing);
    let gone = deleted(&first);
    let of = |id: &str| gone.iter().filter(|line| line.contains(id)).count();
    assert_eq!((of("env-resource-configure-q"), of("env-resource-delete-d"), gone.len()), (6, 4, 10), "{gone:#?}");
    let bindings = gone.iter().rposition(|line| line.contains("Binding ")).unwrap();
    let roles = gone.iter().position(|line| line.contains("Role ")).unwrap();
    assert!(bindings < roles, "no binding names a role that is gone: {gone:#?}");
    remove(&mut existing, &first);
    assert_eq!(told(&start(&after, &existing)), Vec::<String>::new());
    // One that cannot be decoded is not judged by.
    let mut broken = after.clone();
    broken.workflows.resource.delete = vec![json!({ "kind": "Pipeline" })];
    assert_eq!(deleted(&start(&broken, &existing)), Vec::<String>::new());
}

/// A Promise that changes while requests run takes nothing away from their pods.
#[test]
fn permissions_of_a_pipeline_stay_as_long_as_a_job_of_it_runs() {
    let before = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, old) = case(&before, Action::Configure);
    let all = existing(&parent, &old);
    let after = spec(&[pipeline("r", json!([]))], &[], "");
    let (parent, new) = case(&after, Action::Configure);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let running = job::job(&parent, &old, &settings(), attempt);
    let start = |change: &dyn Fn(&mut Job)| {
        let mut job = running.clone();
        change(&mut job);
        deleted(&writes(&parent, &new, &new.pipelines[0], &all, &[], || vec![Arc::new(job)]))
    };
    assert_eq!(start(&|_| {}), Vec::<String>::new());
    let relabelled = |key: &'static str, value: &'static str| {
        move |job: &mut Job| drop(job.metadata.labels.get_or_insert_default().insert(key.into(), value.into()))
    };
    let ended = |job: &mut Job| {
        job.status =
            serde_json::from_value(json!({ "conditions": [{ "type": "Complete", "status": "True" }] })).unwrap();
    };
    assert_eq!(start(&ended).len(), 6);
    assert_eq!(start(&relabelled(keys::PIPELINE_NAME, "q")).len(), 6);
    assert_eq!(start(&relabelled(keys::WORKFLOW_TYPE, "promise")).len(), 6);
    assert_eq!(start(&relabelled(keys::WORKFLOW_ACTION, "delete")).len(), 6);
    let elsewhere = start(&|job| job.metadata.namespace = Some("b".into()));
    assert_eq!(elsewhere.len(), 4, "what is bound here serves nobody there, the common roles do: {elsewhere:?}");
    assert!(elsewhere.iter().all(|line| !line.starts_with("ClusterRole ")), "{elsewhere:?}");
}

/// §5.6
#[test]
fn a_copy_that_somebody_has_made_of_a_permission_is_theirs() {
    let (parent, old) = case(&spec(&[pipeline("p", permissions("get"))], &[], ""), Action::Configure);
    let mut copied = existing(&parent, &old);
    for role in &mut copied.roles {
        Arc::make_mut(role).metadata.name = Some("my-copy".into());
    }
    let (parent, new) = case(&spec(&[pipeline("r", json!([]))], &[], ""), Action::Configure);
    let gone = deleted(&writes(&parent, &new, &new.pipelines[0], &copied, &[], Vec::new));
    assert_eq!((gone.len(), gone.iter().any(|line| line.contains("my-copy"))), (5, false), "{gone:?}");
}

/// §5.6: those of the default kind carry only the Promise's label, users' own none of ours.
#[test]
fn permissions_of_other_promises_types_and_namespaces_and_of_users_are_left_alone() {
    let rich = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = case(&rich, Action::Configure);
    let all = existing(&parent, &workflow);
    let none = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&none, Action::Configure);
    let start =
        |existing: &Existing| deleted(&writes(&parent, &workflow, &workflow.pipelines[0], existing, &[], Vec::new));
    assert_eq!(start(&all).len(), 6);
    for (key, value) in [
        (keys::PROMISE_NAME, Some("other")),
        (keys::WORKFLOW_TYPE, Some("promise")),
        (keys::WORKFLOW_ACTION, None),
        (keys::PIPELINE_NAME, None),
        (keys::PIPELINE_NAMESPACE, None),
    ] {
        let mut foreign = all.clone();
        relabel(&mut foreign, key, value);
        assert_eq!(start(&foreign), Vec::<String>::new(), "{key}");
    }
    // What is bound in the namespace of other requests is theirs; a role for all of them is not wanted by anybody.
    let mut elsewhere = all.clone();
    relabel(&mut elsewhere, keys::PIPELINE_NAMESPACE, Some("b"));
    assert!(start(&elsewhere).iter().all(|line| line.starts_with("ClusterRole ")), "{:?}", start(&elsewhere));
    assert_eq!(start(&elsewhere).len(), 2);
    // Early versions spelled two of the labels differently.
    let mut early = all.clone();
    relabel(&mut early, keys::WORKFLOW_TYPE, None);
    relabel(&mut early, keys::WORKFLOW_ACTION, None);
    relabel(&mut early, keys::WORK_TYPE, Some("resource"));
    relabel(&mut early, keys::WORK_ACTION, Some("configure"));
    assert_eq!(start(&early).len(), 6);
}

/// Sets a label of all permission objects, or removes it.
fn relabel(existing: &mut Existing, key: &str, value: Option<&str>) {
    fn set<K: kube_core::Resource + Clone>(objects: &mut [Arc<K>], key: &str, value: Option<&str>) {
        for object in objects {
            let labels = Arc::make_mut(object).meta_mut().labels.get_or_insert_default();
            match value {
                // Default ones have no more labels than the Promise's.
                Some(value) if labels.len() > 1 => drop(labels.insert(key.to_owned(), value.to_owned())),
                Some(_) => {}
                None => drop(labels.remove(key)),
            }
        }
    }
    set(&mut existing.roles, key, value);
    set(&mut existing.role_bindings, key, value);
    set(&mut existing.cluster_roles, key, value);
    set(&mut existing.cluster_role_bindings, key, value);
}

/// §5.1, §5.3
#[test]
fn another_account_is_bound_in_place_and_names_of_roles_stay() {
    let before = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = case(&before, Action::Configure);
    let existing = existing(&parent, &workflow);
    let mut own = pipeline("p", permissions("get"));
    own["spec"]["rbac"]["serviceAccount"] = "mine".into();
    let (parent, workflow) = case(&spec(&[own], &[], ""), Action::Configure);
    let writes = writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new);
    assert_eq!(told(&writes)[0], "create ServiceAccount a/mine");
    assert_eq!(writes.len(), 5, "{:?}", told(&writes));
    for write in &writes[1..] {
        let Write::Patch { patch, .. } = write else { panic!("{write:?}") };
        let subject = json!([{ "kind": "ServiceAccount", "name": "mine", "namespace": "a" }]);
        assert_eq!(patch, &json!({ "subjects": subject }));
    }
}

/// Weakness 26
#[test]
fn what_users_add_to_accounts_and_permissions_stays() {
    let spec = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let mut existing = existing(&parent, &workflow);
    let account = Arc::make_mut(&mut existing.service_accounts[0]);
    account.image_pull_secrets = Some(vec![Default::default()]);
    account.metadata.annotations = Some([("eks.example/role".to_owned(), "r".to_owned())].into());
    Arc::make_mut(&mut existing.roles[0]).metadata.labels.get_or_insert_default().insert("team".into(), "t".into());
    assert_eq!(
        told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new)),
        Vec::<String>::new()
    );
}

#[test]
fn a_binding_to_another_role_is_made_anew_because_it_cannot_be_changed() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "");
    let (parent, workflow) = case(&spec, Action::Configure);
    let mut existing = existing(&parent, &workflow);
    Arc::make_mut(&mut existing.role_bindings[0]).role_ref.name = "other".into();
    let told = told(&writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new));
    let name = "RoleBinding a/env-resource-configure-p";
    assert_eq!(told, [format!("delete {name}"), format!("create {name}")]);
}

#[test]
fn requests_of_two_namespaces_do_not_rewrite_their_common_role_in_turns() {
    let spec = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = of_request(&spec, "a", Action::Configure);
    let mut existing = existing(&parent, &workflow);
    let (parent, workflow) = of_request(&spec, "b", Action::Configure);
    let first = writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new);
    assert!(first.iter().all(|write| matches!(write, Write::Create { .. })), "{:?}", told(&first));
    for write in first {
        let Write::Create { object, .. } = write else { continue };
        add(&mut existing, object);
    }
    for namespace in ["a", "b"] {
        let (parent, workflow) = of_request(&spec, namespace, Action::Configure);
        assert!(writes(&parent, &workflow, &workflow.pipelines[0], &existing, &[], Vec::new).is_empty(), "{namespace}");
    }
}

#[test]
fn an_account_may_be_a_users_own_and_nothing_else_may() {
    let spec = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, workflow) = of_request(&spec, "a", Action::Configure);
    let all = writes(&parent, &workflow, &workflow.pipelines[0], &Existing::default(), &[], Vec::new);
    let anybodys = |write: &&Write| matches!(write, Write::Create { owner: crate::plan::Owner::User, .. });
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
        let writes = writes(&parent, &this, &this.pipelines[0], &existing, &others, Vec::new);
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
        assert_eq!(
            told(&writes(&parent, &this, &this.pipelines[0], &existing, &others, Vec::new)),
            Vec::<String>::new()
        );
        let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
        let job = serde_json::to_string(&job::job(&parent, &this, &settings(), attempt)).unwrap();
        assert!(job.contains(&format!("\"key\":\"{}\"", this.scheduling_key)));
    }
    // What only the old one may do goes with its last request.
    let writes = writes(&parent, &new, &new.pipelines[0], &existing, std::slice::from_ref(&new), Vec::new);
    assert!(!writes.is_empty());
    writes.iter().for_each(|write| apply(&mut existing, write));
    let role = serde_json::to_string(&existing.cluster_roles[0]).unwrap();
    assert!(!role.contains("\"get\""), "{role}");
}

#[test]
fn two_revisions_in_use_keep_each_others_accounts_bound() {
    let (parent, old) = case(&spec(&[pipeline("p", permissions("get"))], &[], ""), Action::Configure);
    let mut own = pipeline("p", permissions("get"));
    own["spec"]["rbac"]["serviceAccount"] = "mine".into();
    let (_, new) = case(&spec(&[own], &[], ""), Action::Configure);
    let others = [new.clone(), old.clone()];
    let mut existing = existing(&parent, &old);
    let patches = |existing: &Existing, this: &Workflow, others: &[Workflow]| {
        let mut patches = writes(&parent, this, &this.pipelines[0], existing, others, Vec::new);
        patches.retain(|write| matches!(write, Write::Patch { .. }));
        patches
    };
    let bound = |existing: &Existing, account: &str| {
        let subject = format!("\"kind\":\"ServiceAccount\",\"name\":\"{account}\"");
        let here = existing.role_bindings.iter().map(|binding| serde_json::to_string(binding).unwrap());
        let everywhere = existing.cluster_role_bindings.iter().map(|binding| serde_json::to_string(binding).unwrap());
        here.chain(everywhere).filter(|binding| binding.contains(&subject)).count()
    };
    let both = |existing: &Existing| (bound(existing, "env-resource-configure-p"), bound(existing, "mine"));
    let first = patches(&existing, &new, &others);
    first.iter().for_each(|write| apply(&mut existing, write));
    assert_eq!(both(&existing), (4, 4));
    for this in [&old, &new] {
        assert_eq!(told(&patches(&existing, this, &others)), Vec::<String>::new());
    }
    // Once nothing is left on the old one its account loses what it might do.
    let last = patches(&existing, &new, std::slice::from_ref(&new));
    last.iter().for_each(|write| apply(&mut existing, write));
    assert_eq!(both(&existing), (0, 4));
}

#[test]
fn selectors_that_no_revision_in_use_has_are_removed_once_no_pod_needs_them() {
    let (parent, first) = revision("get", "dev");
    let (_, second) = revision("get", "test");
    let (_, latest) = revision("get", "prod");
    let all = [latest.clone(), second.clone(), first.clone()];
    let keyed = |this: &Workflow| Workflow { scheduling_key: scheduling_key(this, &all), ..this.clone() };
    let mut existing = existing(&parent, &latest);
    for this in [keyed(&second), keyed(&first)] {
        let writes = writes(&parent, &this, &this.pipelines[0], &existing, &all, Vec::new);
        writes.iter().for_each(|write| apply(&mut existing, write));
    }
    let own = json!({ "data": { "destinationSelectors-of-mine": "", "notes": "" } });
    let target = Target::of(existing.config_maps[0].as_ref());
    apply(&mut existing, &Write::Patch { target, patch: own });
    let outdated = |existing: &Existing, in_use: &[&Workflow], jobs: &[&Job]| {
        let selectors: Vec<_> = in_use.iter().map(|one| one.selectors.as_slice()).collect();
        let jobs = || jobs.iter().map(|job| Arc::new((*job).clone())).collect();
        access::outdated_selectors(&keyed(in_use[0]), &selectors, existing, jobs)
    };
    assert_eq!(outdated(&existing, &[&latest, &second, &first], &[]), None);
    // A pod of the first revision may still have to begin.
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let running = job::job(&parent, &keyed(&first), &settings(), attempt);
    assert_eq!(outdated(&existing, &[&latest, &second], &[&running]), None);
    for (in_use, left) in [(vec![&latest, &second], 4), (vec![&latest], 3)] {
        let write = outdated(&existing, &in_use, &[]).unwrap();
        apply(&mut existing, &write);
        let data = existing.config_maps[0].data.clone().unwrap();
        assert_eq!(data.len(), left, "{data:?}");
        assert!(["notes", "destinationSelectors-of-mine", SCHEDULING_KEY].iter().all(|key| data.contains_key(*key)));
        assert_eq!(outdated(&existing, &in_use, &[]), None);
    }
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
        "RoleBinding" => patch(&mut existing.role_bindings, &target.key, change),
        "ClusterRoleBinding" => patch(&mut existing.cluster_role_bindings, &target.key, change),
        kind => panic!("{kind}"),
    }
}
