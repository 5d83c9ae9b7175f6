//! What pipelines might do before: as long as a pod needs it, and no longer.

use super::*;

/// A Promise that changes while requests run takes nothing away from their pods, and nothing stays when they have ended.
#[test]
fn what_a_pipeline_might_do_before_stays_allowed_as_long_as_a_job_of_the_earlier_spec_runs() {
    let before = spec(&[pipeline("p", permissions("get"))], &[], "");
    let (parent, old) = case(&before, Action::Configure);
    let mut all = existing(&parent, &old);
    let mut changed = pipeline("p", permissions("list"));
    changed["spec"]["rbac"]["serviceAccount"] = "mine".into();
    let (parent, new) = case(&spec(&[changed], &[], ""), Action::Configure);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let mut job = job::job(&parent, &old, &settings(), attempt);
    let start = |existing: &Existing, job: &Job| {
        let writes = writes(&parent, &new, &new.pipelines[0], existing, &[], || vec![Arc::new(job.clone())]);
        writes.into_iter().filter(|write| !matches!(write, Write::Create { .. })).collect::<Vec<_>>()
    };
    let first = start(&all, &job);
    assert_eq!(first.len(), 7, "three roles, and the default binding beside theirs: {:?}", told(&first));
    first.iter().for_each(|write| apply(&mut all, write));
    let says = |existing: &Existing, text: &str| {
        let roles = existing.roles.iter().map(|role| serde_json::to_string(role).unwrap());
        let common = existing.cluster_roles.iter().map(|role| serde_json::to_string(role).unwrap());
        let here = existing.role_bindings.iter().map(|binding| serde_json::to_string(binding).unwrap());
        let everywhere = existing.cluster_role_bindings.iter().map(|binding| serde_json::to_string(binding).unwrap());
        roles.chain(common).chain(here).chain(everywhere).filter(|object| object.contains(text)).count()
    };
    let counts = |existing: &Existing| {
        ["[\"get\"]", "[\"list\"]", "\"name\":\"env-resource-configure-p\",\"namespace\":\"a\"}]", "\"name\":\"mine\""]
            .map(|text| says(existing, text))
    };
    assert_eq!(counts(&all), [3, 3, 4, 4]);
    assert_eq!(told(&start(&all, &job)), Vec::<String>::new(), "another request that starts meanwhile");
    job.status = serde_json::from_value(json!({ "conditions": [{ "type": "Complete", "status": "True" }] })).unwrap();
    start(&all, &job).iter().for_each(|write| apply(&mut all, write));
    assert_eq!(counts(&all), [0, 3, 0, 4]);
    // A Job of another pipeline, or elsewhere, is none of its business.
    let (_, other) = case(&spec(&[pipeline("q", permissions("get"))], &[], ""), Action::Configure);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let other = job::job(&parent, &other, &settings(), attempt);
    let mut again = existing(&parent, &old);
    start(&again.clone(), &other).iter().for_each(|write| apply(&mut again, write));
    assert_eq!(counts(&again), [0, 3, 0, 4]);
}

/// §15: the Jobs and Works of a former namespace are not all that is left there.
#[test]
fn permissions_in_a_former_pipeline_namespace_go_unless_a_revision_in_use_or_a_job_needs_them() {
    let rich = |namespace: &str| spec(&[pipeline("p", permissions("get"))], &[], namespace);
    let (parent, old) = case(&rich("before"), Action::Configure);
    let mut all = existing(&parent, &old);
    let (parent, new) = case(&rich("after"), Action::Configure);
    let start = |existing: &Existing, namespaces: Option<&[&str]>, jobs: Vec<Arc<Job>>| {
        let is_beside_requests = namespaces.is_none();
        let namespaces = namespaces.unwrap_or_default().iter().map(|&one| one.to_owned()).collect();
        let in_use = InUse { namespaces, is_beside_requests, ..InUse::default() };
        access::writes(&parent, &new, &new.pipelines[0], existing, &in_use, || jobs)
    };
    let gone = |existing: &Existing, namespaces, jobs| deleted(&start(existing, namespaces, jobs));
    let none = Vec::<String>::new();
    assert_eq!(gone(&all, None, Vec::new()), none, "requests may be in any namespace");
    assert_eq!(gone(&all, Some(&["after", "before"]), Vec::new()), none);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let job = job::job(&parent, &old, &settings(), attempt);
    assert_eq!(gone(&all, Some(&["after"]), vec![Arc::new(job)]), none);
    let removals = start(&all, Some(&["after"]), Vec::new());
    let told = deleted(&removals);
    // The common roles go on to serve.
    let kinds: Vec<&str> = told.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(kinds, ["ClusterRoleBinding", "RoleBinding", "RoleBinding", "Role"], "{told:?}");
    remove(&mut all, &removals);
    assert_eq!(gone(&all, Some(&["after"]), Vec::new()), none);
    let left: Vec<String> = all.roles.iter().map(|role| role.name_any()).collect();
    assert_eq!(left, ["env-resource-configure-p"], "what every pipeline may do is looked for elsewhere");
}

/// A request on an earlier revision runs for that, whatever the Promise has become meanwhile; and a spec may change without a
/// revision of its own.
#[test]
fn a_job_keeps_what_its_spec_allows_however_new_the_promise_was_when_it_was_made() {
    let (mut parent, old) = case(&spec(&[pipeline("p", permissions("get"))], &[], ""), Action::Configure);
    let all = existing(&parent, &old);
    let (_, new) = case(&spec(&[pipeline("r", json!([]))], &[], ""), Action::Configure);
    parent.promise_generation = Some(2);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let job = Arc::new(job::job(&parent, &old, &settings(), attempt));
    let start = |in_use: &[Workflow], job: &Arc<Job>| {
        deleted(&writes(&parent, &new, &new.pipelines[0], &all, in_use, || vec![Arc::clone(job)]))
    };
    assert_eq!(start(&[], &job), Vec::<String>::new(), "made for a spec that is not in use");
    let mut unknown = job.as_ref().clone();
    unknown.metadata.annotations.as_mut().unwrap().remove(SPEC_HASH);
    assert_eq!(start(&[], &Arc::new(unknown)), Vec::<String>::new(), "of the original");
    // One that was made for what is in use needs nothing more than that, however long it runs.
    let current = Arc::new(job::job(&parent, &new, &settings(), attempt));
    let mut alike = current.as_ref().clone();
    alike.metadata.labels.as_mut().unwrap().insert(keys::PIPELINE_NAME.into(), "p".into());
    assert_eq!(start(&[], &Arc::new(alike)).len(), 6);
}

/// Bindings for the whole cluster serve pipelines of several namespaces.
#[test]
fn an_account_in_a_former_pipeline_namespace_stays_bound_as_long_as_a_job_of_it_runs_there() {
    let in_namespace = |namespace: &str| {
        let spec = spec(&[pipeline("p", json!([]))], &[], namespace);
        case(&spec, Action::Configure)
    };
    let (parent, old) = in_namespace("before");
    let all = existing(&parent, &old);
    let (_, new) = in_namespace("after");
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let job = Arc::new(job::job(&parent, &old, &settings(), attempt));
    let subjects = |in_use: &[Workflow], jobs: Vec<Arc<Job>>| {
        let writes = writes(&parent, &new, &new.pipelines[0], &all, in_use, || jobs);
        let patch = writes.into_iter().find_map(|write| match write {
            Write::Patch { target, patch } if target.kind.kind == "ClusterRoleBinding" => Some(patch),
            _ => None,
        });
        let subjects = patch.unwrap()["subjects"].as_array().unwrap().clone();
        subjects.iter().map(|subject| subject["namespace"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(subjects(&[], vec![Arc::clone(&job)]), ["after", "before"]);
    let here = Workflow { namespace: new.namespace.clone(), ..old.clone() };
    assert_eq!(subjects(&[new.clone(), here], vec![job]), ["after", "before"], "also of a revision in use");
    assert_eq!(subjects(&[], Vec::new()), ["after"]);
}
