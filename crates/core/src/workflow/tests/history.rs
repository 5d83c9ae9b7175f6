use super::super::history::{State, is_left_behind, is_of, state};
use super::*;

fn job(status: Value) -> Job {
    serde_json::from_value(json!({ "status": status })).unwrap()
}

#[test]
fn only_conditions_that_hold_count() {
    let condition = |r#type: &str, status: &str| json!({ "type": r#type, "status": status });
    for (status, expected) in [
        (json!({}), State::Running),
        (json!({ "active": 1, "conditions": [condition("Complete", "True")] }), State::Running),
        (json!({ "conditions": [condition("Suspended", "False")] }), State::Running),
        (json!({ "conditions": [condition("Suspended", "False"), condition("Complete", "True")] }), State::Completed),
        (json!({ "conditions": [condition("Suspended", "True")] }), State::Failed),
        (json!({ "conditions": [condition("Failed", "True")] }), State::Failed),
        (json!({ "conditions": [condition("SuccessCriteriaMet", "True")] }), State::Running),
    ] {
        assert_eq!(state(&job(status.clone())), expected, "{status}");
    }
}

#[test]
fn jobs_of_an_earlier_object_of_the_same_name_or_of_another_kind_are_not_the_parents() {
    let (parent, workflow) = of_request(&spec(&[pipeline("p", json!([]))], &[], ""), "a", Action::Configure);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let own = job::job(&parent, &workflow, &settings(), attempt);
    assert!(is_of(&own, &parent));
    let mut newer_version = parent.clone();
    newer_version.target.kind.version = "v2".into();
    assert!(is_of(&own, &newer_version));
    let mut successor = parent.clone();
    successor.target.uid = Some("other".into());
    assert!(!is_of(&own, &successor));
    let mut other = parent.clone();
    other.target.kind.group = "other.org".into();
    assert!(!is_of(&own, &other));
    let (elsewhere, _) = of_request(&spec(&[], &[], ""), "b", Action::Configure);
    assert!(!is_of(&own, &elsewhere));
}

/// §1, §8.2: in the namespace of the request, or in a `pipelineNamespace`. Whoever may make Jobs anywhere else can give them any name,
/// and may read the uid.
#[test]
fn a_job_outside_the_namespaces_of_its_pipelines_is_nobodys_whether_or_not_it_knows_the_uid() {
    let pipelines = [pipeline("p", json!([]))];
    let attempt = job::Attempt { index: 0, sequence: 999_999, run: 999_999, previous_version: "" };
    let with_uid = |mut job: Job, namespace: &str| {
        job.metadata.namespace = Some(namespace.into());
        job.status = serde_json::from_value(json!({ "active": 1 })).unwrap();
        job
    };
    let without_uid = |job: Job, namespace: &str| {
        let mut job = with_uid(job, namespace);
        job.metadata.owner_references = None;
        job.metadata.annotations.as_mut().unwrap().remove(PARENT_UID);
        job
    };
    let (mut parent, workflow) = of_request(&spec(&pipelines, &[], "pipes"), "a", Action::Configure);
    let own = job::job(&parent, &workflow, &settings(), attempt);
    let of_nobody = |job: &Job, parent: &Parent| !is_of(job, parent) && !is_left_behind(job, parent);
    assert!(of_nobody(&without_uid(own.clone(), "pipes"), &parent));
    assert!(of_nobody(&with_uid(own.clone(), "pipes"), &parent), "one that runs is left alone");
    assert!(is_left_behind(&own_ended(&own), &parent), "nothing runs there any more");
    assert!(is_of(&without_uid(own.clone(), "a"), &parent), "its own");
    let pipes = |namespace: &str| Promise::new("redis", spec(&[], &[], namespace));
    parent.pipeline_namespaces = pipeline_namespaces(Some(&pipes("")), &[]);
    assert!(parent.pipeline_namespaces.is_empty());
    parent.pipeline_namespaces = pipeline_namespaces(Some(&pipes("pipes")), &[]);
    assert_eq!(parent.pipeline_namespaces, ["pipes".to_owned()].into());
    assert!(is_of(&without_uid(own.clone(), "pipes"), &parent), "of the original");
    assert!(is_of(&own, &parent) && !is_left_behind(&own_ended(&own), &parent));
    for (job, what) in [(with_uid(own.clone(), "elsewhere"), "uid"), (without_uid(own, "elsewhere"), "no uid")] {
        assert!(of_nobody(&job, &parent), "{what}");
    }

    let spec =
        json!({ "workflows": { "config": { "pipelineNamespace": "pipes" }, "promise": { "configure": pipelines } } });
    let mut promise = Promise::new("env", serde_json::from_value(spec).unwrap());
    promise.metadata.uid = Some("u".into());
    let parent = Parent::of_promise(&promise);
    let workflow = Definition::of(&promise.spec).promise_workflow("env", Action::Configure).unwrap();
    let own = job::job(&parent, &workflow, &settings(), attempt);
    assert_eq!(own.metadata.owner_references.as_ref().unwrap()[0].uid, "u");
    for (namespace, expected) in [("pipes", true), (keys::SYSTEM_NAMESPACE, true), ("elsewhere", false)] {
        assert_eq!(is_of(&with_uid(own.clone(), namespace), &parent), expected, "{namespace}");
        assert_eq!(is_of(&without_uid(own.clone(), namespace), &parent), expected, "{namespace}");
    }
}

fn own_ended(job: &Job) -> Job {
    let status = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
    Job { status: serde_json::from_value(status).unwrap(), ..job.clone() }
}

/// Its Jobs in another namespace have no owner.
#[test]
fn jobs_in_a_namespace_of_their_own_are_not_those_of_a_request_that_was_made_again() {
    let pipelines = [pipeline("p", json!([]))];
    let (parent, workflow) = of_request(&spec(&pipelines, &[], "pipes"), "a", Action::Configure);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let own = job::job(&parent, &workflow, &settings(), attempt);
    assert_eq!(own.metadata.owner_references, None);
    let mut parent = parent;
    parent.pipeline_namespaces = ["pipes".to_owned()].into();
    let mut successor = parent.clone();
    successor.target.uid = Some("other".into());
    assert!(is_of(&own, &parent) && !is_left_behind(&own, &parent));
    assert!(!is_of(&own, &successor) && is_left_behind(&own, &successor));
    let (elsewhere, _) = of_request(&spec(&[], &[], "pipes"), "b", Action::Configure);
    assert!(!is_left_behind(&own, &elsewhere));
    // One of an earlier version, or of the original, tells its request by name alone.
    let mut earlier = own;
    earlier.metadata.annotations.as_mut().unwrap().remove(PARENT_UID);
    assert!(is_of(&earlier, &successor) && !is_left_behind(&earlier, &successor));
    let (parent, workflow) = of_request(&spec(&pipelines, &[], ""), "a", Action::Configure);
    let owned = job::job(&parent, &workflow, &settings(), attempt);
    assert!(!owned.metadata.annotations.unwrap().contains_key(PARENT_UID), "its owner says so");
}

/// Weakness 2
#[test]
fn jobs_are_ordered_by_their_numbers_whatever_their_times_say() {
    let (parent, workflow) = of_request(&spec(&[pipeline("p", json!([]))], &[], ""), "a", Action::Configure);
    let made = |sequence: i64, time: &str| {
        let attempt = job::Attempt { index: 0, sequence, run: 0, previous_version: "" };
        let mut job = job::job(&parent, &workflow, &settings(), attempt);
        job.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
        Arc::new(job)
    };
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
    // Of the original: no number, so before all of ours, and by time and name among themselves.
    let of_original = |name: &str, time: &str| {
        let mut job = made(0, time);
        let metadata = &mut Arc::make_mut(&mut job).metadata;
        (metadata.name, metadata.annotations) = (Some(name.to_owned()), None);
        job
    };
    let jobs =
        [made(3, early), of_original("b", early), made(2, late), of_original("a", late), of_original("c", early)];
    let history = super::super::history::History::of(&jobs, &workflow);
    let order: Vec<usize> = history.jobs().iter().map(|job| jobs.iter().position(|own| own == *job).unwrap()).collect();
    assert_eq!(order, [1, 4, 3, 2, 0]);
    assert_eq!(history.next_sequence(), 4);
}

#[test]
fn names_of_jobs_follow_from_what_they_are_for() {
    let spec = spec(&[pipeline("p", json!([]))], &[], "pipes");
    let (parent, workflow) = of_request(&spec, "a", Action::Configure);
    let name = |sequence| job::job_name(&parent, &workflow, &workflow.pipelines[0], sequence);
    assert_eq!(name(1), name(1));
    assert_ne!(name(1), name(2));
    assert!(name(1).starts_with("kratix-env-x-a-p-"), "{}", name(1));
    assert!(name(1).len() <= 63);
}

#[test]
fn labels_that_kratix_selects_by_win_over_those_of_the_pipeline() {
    let mut own = pipeline("p", json!([]));
    own["metadata"]["labels"] = json!({
        "kratix.io/hash": "x", "kratix.io/promise-name": "x", "kratix.io/workflow-type": "x", "team": "t",
    });
    let (parent, workflow) = of_request(&spec(&[own], &[], ""), "a", Action::Configure);
    let labels = job::labels(&parent, &workflow, &workflow.pipelines[0]);
    assert_eq!(labels[keys::HASH], workflow.hash);
    assert_eq!(labels[keys::PROMISE_NAME], "env");
    assert_eq!(labels[keys::WORKFLOW_TYPE], "resource");
    assert_eq!(labels["team"], "t");
}

/// §19.5: those that Kratix does not set itself are not left to the pipeline either.
#[test]
fn no_reserved_label_of_a_pipeline_reaches_its_job_or_pod() {
    let mut own = pipeline("p", json!([]));
    own["metadata"]["labels"] = job::RESERVED_LABELS.iter().map(|key| (key.to_string(), json!("mine"))).collect();
    own["metadata"]["labels"]["team"] = "t".into();
    let spec: PromiseSpec = serde_json::from_value(json!({ "workflows": {
        "promise": { "configure": [own] }, "resource": { "configure": [own], "delete": [own] },
    }}))
    .unwrap();
    let promise = Promise::new("env", spec.clone());
    let of_promise = Definition::of(&spec).promise_workflow("env", Action::Configure).unwrap();
    let cases = [
        (Parent::of_promise(&promise), of_promise),
        of_request(&spec, "a", Action::Configure),
        of_request(&spec, "a", Action::Delete),
    ];
    for (parent, workflow) in cases {
        let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
        let job = job::job(&parent, &workflow, &settings(), attempt);
        let pod = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
        assert_eq!(job.metadata.labels.as_ref(), Some(&pod));
        assert!(pod.values().all(|value| value != "mine"), "{pod:?}");
        assert_eq!(pod["team"], "t");
    }
}

#[test]
fn a_preview_marks_every_container_and_only_where_the_platform_honours_it() {
    let mut own = pipeline("p", json!([]));
    own["spec"]["containers"] = json!([
        { "name": "a", "image": "i", "env": [{ "name": "A", "value": "1" }] },
        { "name": "b", "image": "i", "env": [{ "name": "B", "value": "2" }] },
    ]);
    let (kind, mut request) = request("a");
    request.metadata.labels = Some([(keys::DRY_RUN.to_owned(), "true".to_owned())].into());
    let definition = Definition::of(&spec(&[own], &[], ""));
    let parent = Parent::of_request(kind, &request);
    let attempt = job::Attempt { index: 0, sequence: 1, run: 0, previous_version: "" };
    let build = |honours| {
        let workflow = definition.request_workflow("env", &request, Action::Configure, honours).unwrap();
        job::job(&parent, &workflow, &settings(), attempt)
    };
    let pod = build(true).spec.unwrap().template.spec.unwrap();
    for container in pod.init_containers.unwrap().iter().chain(&pod.containers) {
        let env = container.env.as_ref().unwrap();
        let marks = env.iter().filter(|variable| variable.name == "KRATIX_DRY_RUN").count();
        assert_eq!(marks, 1, "{}", container.name);
        for (name, other) in [("a", "B"), ("b", "A")] {
            assert!(container.name != name || !env.iter().any(|variable| variable.name == other));
        }
    }
    assert_ne!(build(true).metadata.labels, build(false).metadata.labels, "another hash");
    assert!(!serde_json::to_string(&build(false)).unwrap().contains("KRATIX_DRY_RUN"));
}
