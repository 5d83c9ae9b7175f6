//! What is written for what is there.

use super::*;

fn now() -> Timestamp {
    "2026-01-01T10:00:00.5Z".parse().unwrap()
}

fn config() -> Config {
    Config {
        promise: "env".into(),
        pipeline: "slack-notify".into(),
        namespace: "team-a".into(),
        resource: "demo".into(),
        workflow_type: "resource".into(),
        ..Config::default()
    }
}

fn group(files: &[(&str, &str)]) -> Vec<WorkloadGroup> {
    let file = |(path, content): &(&str, &str)| Workload {
        filepath: (*path).to_owned(),
        content: compression::compress(content.as_bytes()),
    };
    vec![WorkloadGroup { workloads: files.iter().map(file).collect(), ..WorkloadGroup::for_directory(".") }]
}

fn content(files: &[(&str, &str)]) -> Content {
    Content::of(group(files))
}

fn create(config: &Config, existing: &[Work]) -> Work {
    match plan(config, &content(&[("a.yaml", "a: 1")]), existing, 0, now()).unwrap() {
        Plan::Create(work) => *work,
        Plan::Patch { name, .. } | Plan::Superseded { name } => panic!("leads to {name}"),
    }
}

#[test]
fn the_trace_of_the_pod_is_handed_over_as_one_about_the_work_as_it_is_then() {
    let traced =
        |parent: &str, state: &str| Config { trace_parent: parent.into(), trace_state: state.into(), ..config() };
    let mut first = create(&traced("00-a", "s=1"), &[]);
    let trace = |key: &str| first.annotations()[&format!("kratix.io/trace-{key}")].clone();
    assert_eq!([trace("parent"), trace("state"), trace("generation")], ["00-a", "s=1", "1"]);
    assert_eq!(trace("timestamp"), now().to_string());
    first.metadata.generation = Some(4);
    let annotations = |config: &Config, files: &[(&str, &str)]| {
        let planned = plan(config, &content(files), std::slice::from_ref(&first), 0, now()).unwrap();
        let Plan::Patch { patch, .. } = planned else { panic!("makes a second one") };
        patch["metadata"]["annotations"].clone()
    };
    let again = annotations(&traced("00-b", ""), &[("a.yaml", "a: 2")]);
    assert_eq!(again["kratix.io/trace-parent"], "00-b");
    assert_eq!(again["kratix.io/trace-state"], Value::Null);
    assert_eq!(again["kratix.io/trace-generation"], "5", "the content changes");
    let same = annotations(&traced("00-b", "s=2"), &[("a.yaml", "a: 1")]);
    assert_eq!((&same["kratix.io/trace-generation"], &same["kratix.io/trace-state"]), (&json!("4"), &json!("s=2")));
    assert_eq!(annotations(&config(), &[]), Value::Null, "without a trace nothing is said about it");
}

#[test]
fn a_work_tells_which_job_wrote_it_last() {
    let first = create(&Config { sequence: "3".into(), ..config() }, &[]);
    assert_eq!(first.annotations()[keys::SEQUENCE], "3");
    assert_eq!(first.finalizers(), [keys::FINALIZER_WORK_CLEANUP]);
    let again = Config { sequence: "4".into(), ..config() };
    let Plan::Patch { patch, .. } = plan(&again, &content(&[("a.yaml", "a: 1")]), &[first], 0, now()).unwrap() else {
        panic!("makes a second one")
    };
    assert_eq!(patch["metadata"]["annotations"], json!({ keys::SEQUENCE: "4" }));
}

/// Its Job was stopped or removed while it ran, and the next one was faster.
#[test]
fn an_earlier_job_leaves_the_work_of_a_later_one_alone() {
    let of = |sequence: &str| Config { sequence: sequence.into(), ..config() };
    let planned = |writer: &str, own: &str| {
        let work = create(&of(writer), &[]);
        plan(&of(own), &content(&[("a.yaml", "a: 2")]), &[work], 0, now()).unwrap()
    };
    let name = create(&config(), &[]).name_any();
    assert_eq!(planned("4", "3"), Plan::Superseded { name });
    for (writer, own) in [("3", "3"), ("3", "4"), ("", "3"), ("4", ""), ("x", "3"), ("9223372036854775807", "3")] {
        assert!(matches!(planned(writer, own), Plan::Patch { .. }), "{writer:?} and then {own:?}");
    }
}

/// Weakness 21: the namespace of a request has become its `pipelineNamespace`, or is that no more.
#[test]
fn of_two_works_in_the_namespace_of_the_request_the_one_of_its_kind_is_written() {
    let shared = Config { resource_namespace: config().namespace, ..config() };
    let works = [create(&config(), &[]), create(&shared, &[])];
    assert_ne!(works[0].name_any(), works[1].name_any());
    for (config, work) in [config(), shared].iter().zip(&works) {
        let Plan::Patch { name, .. } = plan(config, &content(&[]), &works, 0, now()).unwrap() else { panic!() };
        assert_eq!(name, work.name_any());
        let of_before: Vec<Work> = works.iter().filter(|other| *other != work).cloned().collect();
        assert_eq!(create(config, &of_before).name_any(), work.name_any(), "as if there had never been the other one");
    }
}

#[test]
fn a_new_work_has_the_labels_and_the_form_of_name_of_the_reference() {
    let work = create(&config(), &[]);
    let written = serde_json::to_value(&work).unwrap();
    assert_eq!(
        written["metadata"]["labels"],
        json!({
            "kratix.io/promise-name": "env", "kratix.io/resource-name": "demo",
            "kratix.io/pipeline-name": "slack-notify", "kratix.io/work-type": "resource",
        })
    );
    assert_eq!(written["spec"]["lastExecutionTimestamp"], "2026-01-01T10:00:00Z");
    assert_eq!(written["spec"]["resourceName"], "demo");
    let suffix = work.name_any().strip_prefix("env-demo-slack-notify-").unwrap().to_owned();
    assert!(suffix.len() == 5 && suffix.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(create(&config(), &[]), work, "a second attempt meets the first");
}

#[test]
fn shared_namespaces_previews_and_promises_have_their_own_works() {
    let shared = Config { resource_namespace: "team-b".into(), namespace: "pipelines".into(), ..config() };
    let work = create(&shared, &[]);
    assert!(work.name_any().starts_with("env-demo-team-b-slack-notify-"));
    assert_eq!(work.labels()[keys::RESOURCE_NAMESPACE], "team-b");
    let preview = create(&Config { is_dry_run: true, ..config() }, &[]);
    assert_ne!(preview.name_any(), create(&config(), &[]).name_any());
    let promise = Config { workflow_type: "promise".into(), resource: String::new(), ..config() };
    let work = create(&promise, &[]);
    assert!(work.name_any().starts_with("env-slack-notify-"));
    assert_eq!(work.spec.resource_name, "");
}

#[test]
fn works_of_others_with_the_same_labels_are_left_alone() {
    let own = create(&config(), &[]);
    let with = |key: &str, value: &str| {
        let mut work = own.clone();
        work.labels_mut().insert(key.to_owned(), value.to_owned());
        work
    };
    let mut deleting = own.clone();
    deleting.metadata.deletion_timestamp = Some(Time(now()));
    let others = [
        with(keys::DRY_RUN, "true"),
        with(keys::DRY_RUN_SUMMARY, "true"),
        with(keys::RESOURCE_NAMESPACE, "team-z"),
        with(keys::PIPELINE_NAME, "other"),
        deleting,
    ];
    create(&config(), &others);
}

#[test]
fn a_name_that_is_taken_leads_to_another_one() {
    let names: Vec<String> = (0..3).map(|attempt| config().work_name(attempt)).collect();
    assert!(names[0] != names[1] && names[1] != names[2]);
}

#[test]
fn an_existing_work_keeps_its_name_and_what_did_not_change() {
    let config = Config { trace_parent: "00-new".into(), ..config() };
    let mut old = create(&config, &[]);
    old.metadata.name = Some("made-by-the-reference-0a1b2".into());
    old.metadata.resource_version = Some("7".into());
    old.metadata.generation = Some(4);
    let plan_for =
        |groups, old: &Work| match plan(&config, &Content::of(groups), std::slice::from_ref(old), 0, now()).unwrap() {
            Plan::Patch { name, patch } => (name, patch),
            Plan::Create(_) | Plan::Superseded { .. } => panic!("does not patch"),
        };
    let (name, patch) = plan_for(group(&[("a.yaml", "a: 1")]), &old);
    assert_eq!(name, "made-by-the-reference-0a1b2");
    let trace = json!({
        "kratix.io/trace-parent": "00-new",
        "kratix.io/trace-timestamp": now().to_string(),
        "kratix.io/trace-generation": "4",
    });
    let unchanged = json!({
        "metadata": {"resourceVersion": "7", "annotations": trace},
        "spec": {"lastExecutionTimestamp": "2026-01-01T10:00:00Z"},
    });
    assert_eq!(patch, unchanged);

    // The same bytes, written by somebody else.
    old.spec.workload_groups[0].workloads[0].content.insert(8, '\n');
    let (_, patch) = plan_for(group(&[("a.yaml", "a: 1")]), &old);
    assert_eq!(patch, unchanged, "compared by content, not by text");

    let (_, patch) = plan_for(vec![], &old);
    assert_eq!(patch["spec"]["workloadGroups"], Value::Null);
    let (_, patch) = plan_for(group(&[("b.yaml", "b")]), &old);
    assert_eq!(patch["spec"]["workloadGroups"][0]["workloads"][0]["filepath"], "b.yaml");
}

#[test]
fn two_works_with_the_same_labels_are_an_error() {
    let work = create(&config(), &[]);
    let name = work.name_any();
    let error = plan(&config(), &content(&[]), &[work.clone(), work], 0, now()).unwrap_err().to_string();
    assert_eq!(
        error,
        r#"more than 1 work exist with the matching labels: map["kratix.io/pipeline-name":"slack-notify" "kratix.io/promise-name":"env" "kratix.io/resource-name":"demo" "kratix.io/work-type":"resource"]. Unable to update; delete all but one of team-a/NAME, team-a/NAME"#
            .replace("NAME", &name)
    );
}

/// Returns one file whose stored content has so many bytes.
fn stored(bytes: usize) -> Vec<WorkloadGroup> {
    let mut groups = group(&[]);
    groups[0].workloads = vec![Workload { filepath: "huge.bin".into(), content: "x".repeat(bytes) }];
    groups
}

#[test]
fn files_are_in_the_work_as_long_as_they_fit_and_in_parts_beyond() {
    let empty = serde_json::to_vec(&stored(0)).unwrap().len() + r#","content":"""#.len();
    assert!(matches!(Content::of(stored(INLINE_BYTES_MAX - empty)), Content::Inline(_)));
    let large = Content::of(stored(INLINE_BYTES_MAX - empty + 1));
    let Content::Split(split) = &large else { panic!("one object for all") };
    let Plan::Create(work) = plan(&config(), &large, &[], 0, now()).unwrap() else { panic!("no Work is there") };
    assert_eq!(work.spec.workload_groups, split.groups(&work.name_any()));
    let whole = Plan::Create(work.clone()).whole(&config(), &[]);
    assert_eq!((whole.uid, whole.generation, whole.referred.len()), (None, 0, 0));
    assert_eq!(whole.name, work.name_any());

    // The next one keeps the name, knows what is in use, and changes nothing.
    let mut old = *work;
    old.metadata.name = Some("made-before-0a1b2".into());
    old.spec.workload_groups = split.groups("made-before-0a1b2");
    (old.metadata.uid, old.metadata.generation) = (Some("u".into()), Some(4));
    let next = plan(&config(), &large, std::slice::from_ref(&old), 0, now()).unwrap();
    let whole = next.whole(&config(), std::slice::from_ref(&old));
    assert_eq!((whole.generation, whole.referred.len()), (4, split.parts.len()));
    let Plan::Patch { patch, .. } = next else { panic!("makes a second one") };
    assert_eq!(patch["spec"].as_object().unwrap().len(), 1, "{patch}");
}

#[test]
fn a_name_that_a_work_has_which_goes_is_not_taken() {
    let mut going = create(&config(), &[]);
    going.metadata.deletion_timestamp = Some(Time(now()));
    assert_ne!(create(&config(), std::slice::from_ref(&going)).name_any(), going.name_any());
}

#[test]
fn selectors_that_no_object_can_hold_are_refused() {
    let mut groups = group(&[("a.yaml", "a")]);
    let labels = (0..50_000).map(|at| (format!("a-label-of-some-length-{at}"), "value".to_owned()));
    groups[0].destination_selectors =
        vec![kratix_api::WorkloadGroupSelector { match_labels: labels.collect(), source: None }];
    let error = plan(&config(), &Content::of(groups), &[], 0, now()).unwrap_err().to_string();
    assert!(error.contains(&format!("the limit is {WORK_BYTES_MAX}; destination-selectors.yaml")), "{error}");
}

#[test]
fn a_file_whose_name_looks_like_one_that_is_read_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(misnamed(&dir.path().join("metadata")), Vec::<String>::new());
    for name in ["destinaion-selectors.yaml", "status.yml", "status.yaml", "workflow-control.yaml", "notes.yaml"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let warning = |name: &str| {
        format!(
            "Warning: /kratix/metadata/{name} is not read; Kratix reads destination-selectors.yaml, status.yaml, \
             workflow-control.yaml there"
        )
    };
    assert_eq!(misnamed(dir.path()), [warning("destinaion-selectors.yaml"), warning("status.yml")]);
}

#[test]
fn what_a_pipeline_left_is_collected_unless_it_asked_to_be_suspended() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { root: dir.path().to_owned(), ..config() };
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("input/cm.yaml", "kind: ConfigMap");
    put("input/baz/ns.yaml", "kind: Namespace");
    put("metadata/destination-selectors.yaml", "- matchLabels: {environment: staging}\n  directory: baz\n");
    put("kratix-system/promise-scheduling", "- matchlabels: {environment: dev}\n  source: promise\n");
    let groups = collect(&config).unwrap().unwrap();
    assert_eq!(groups.iter().map(|group| group.directory.as_str()).collect::<Vec<_>>(), ["baz", "."]);
    assert_eq!(groups[1].destination_selectors[0].match_labels["environment"], "dev");
    put("metadata/workflow-control.yaml", "suspend: true");
    assert_eq!(collect(&config).unwrap(), None);
    put("metadata/destination-selectors.yaml", "broken");
    assert!(collect(&config).is_err(), "broken selectors fail also when suspended");
}
