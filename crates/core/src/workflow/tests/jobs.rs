//! The Job of a pipeline, field by field.

use super::super::job::Attempt;
use super::*;

const ATTEMPT: Attempt<'_> = Attempt { index: 0, sequence: 7, run: 2, previous_version: "v1" };

/// Returns the Job of the workflow's pipeline at `index` as it is sent.
fn sent(parent: &Parent, workflow: &Workflow, settings: &Settings, index: usize) -> Value {
    crate::patch::to_value(&job::job(parent, workflow, settings, Attempt { index, ..ATTEMPT }))
}

fn with_config(text: &str) -> Settings {
    Settings::new("kratix-adapter:1", None, Arc::new(Config::parse(text).unwrap().0))
}

fn variables(values: &[(&str, &str)]) -> Vec<Value> {
    let variable = |(name, value): &(&str, &str)| match *value {
        "" => json!({ "name": name }),
        value => json!({ "name": name, "value": value }),
    };
    values.iter().map(variable).collect()
}

fn standard(action: &str, pipeline: &str) -> Vec<Value> {
    variables(&[
        ("KRATIX_WORKFLOW_ACTION", action),
        ("KRATIX_WORKFLOW_TYPE", "resource"),
        ("KRATIX_PROMISE_NAME", "env"),
        ("KRATIX_PIPELINE_NAME", pipeline),
        ("KRATIX_OBJECT_KIND", "Env"),
        ("KRATIX_OBJECT_GROUP", "example.org"),
        ("KRATIX_OBJECT_VERSION", "v1"),
        ("KRATIX_OBJECT_NAME", "x"),
        ("KRATIX_OBJECT_NAMESPACE", "a"),
        ("KRATIX_CRD_PLURAL", "envs"),
        ("KRATIX_CLUSTER_SCOPED", "false"),
    ])
}

fn mounts(places: &[(&str, &str)]) -> Value {
    places.iter().map(|(name, path)| json!({ "name": name, "mountPath": path })).collect()
}

/// Returns a container of Kratix.
fn adapter(name: &str, args: &[&str], env: Vec<Value>, places: &[(&str, &str)]) -> Value {
    let amounts = |cpu, memory| json!({ "cpu": cpu, "memory": memory, "ephemeral-storage": memory });
    json!({
        "name": name, "image": "kratix-adapter:1", "command": ["/bin/pipeline-adapter"], "args": args, "env": env,
        "volumeMounts": mounts(places),
        "resources": { "requests": amounts("100m", "128Mi"), "limits": amounts("200m", "256Mi") },
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "privileged": false,
            "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// A pipeline that uses every field there is.
fn rich() -> Value {
    json!({
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Pipeline",
        "metadata": { "name": "p", "namespace": "ignored", "labels": { "team": "t" }, "annotations": { "note": "n" } },
        "spec": {
            "imagePullSecrets": [{ "name": "own" }],
            "nodeSelector": { "disk": "ssd" },
            "tolerations": [{ "key": "k", "operator": "Exists" }],
            "restartPolicy": "Never",
            "jobOptions": { "backoffLimit": 3 },
            "volumes": [{ "name": "v", "emptyDir": {} }],
            "rbac": { "serviceAccount": "mine" },
            "containers": [{
                "name": "c", "image": "i:1", "command": ["sh"], "args": ["-c", "true"],
                "env": [{ "name": "KRATIX_PROMISE_NAME", "value": "mine" }],
                "envFrom": [{ "configMapRef": { "name": "m" } }],
                "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
                "imagePullPolicy": "Always",
                "securityContext": { "runAsUser": 1000 },
                "resources": { "limits": { "cpu": "1" } },
            }],
        },
    })
}

/// §2.1, §4.1–§4.7
#[test]
fn every_field_of_a_pipeline_reaches_job_and_pod() {
    let (mut parent, workflow) = of_request(&spec(&[rich()], &[], ""), "a", Action::Configure);
    parent.annotations.insert(keys::TRACE_PARENT.into(), "00-trace".into());
    parent.annotations.insert(keys::TRACE_STATE.into(), String::new());
    parent.promise_generation = Some(4);
    let labels = json!({
        "team": "t", "kratix.io/promise-name": "env", "kratix.io/workflow-type": "resource",
        "kratix.io/workflow-action": "configure", "kratix.io/pipeline-name": "p", "kratix.io/resource-name": "x",
        "app.kubernetes.io/managed-by": "Kratix", "kratix.io/hash": workflow.hash,
    });
    let reader = [("shared-input", "/kratix/input"), ("shared-output", "/kratix/output")];
    let mut step_env = standard("configure", "p");
    step_env.push(json!({ "name": "KRATIX_PROMISE_NAME", "value": "mine" }));
    let step = json!({
        "name": "c", "image": "i:1", "command": ["sh"], "args": ["-c", "true"], "env": step_env,
        "envFrom": [{ "configMapRef": { "name": "m" } }],
        "volumeMounts": [
            { "name": "shared-input", "mountPath": "/kratix/input", "readOnly": true },
            { "name": "shared-output", "mountPath": "/kratix/output" },
            { "name": "shared-metadata", "mountPath": "/kratix/metadata" },
            { "name": "v", "mountPath": "/v" },
        ],
        "imagePullPolicy": "Always", "securityContext": { "runAsUser": 1000 }, "resources": { "limits": { "cpu": "1" } },
    });
    let annotation = |name: &str, key: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.annotations['{key}']") } } });
    let work_writer_env = vec![
        json!({ "name": "KRATIX_JOB_SEQUENCE", "value": "7" }),
        annotation("KRATIX_TRACE_PARENT", "kratix.io/trace-parent"),
        annotation("KRATIX_TRACE_STATE", "kratix.io/trace-state"),
    ];
    let work_writer_args = [
        "work-creator",
        "--input-directory",
        "/work-creator-files",
        "--promise-name",
        "env",
        "--pipeline-name",
        "p",
        "--namespace",
        "a",
        "--workflow-type",
        "resource",
        "--resource-name",
        "x",
    ];
    let work_writer_mounts = [
        ("shared-output", "/work-creator-files/input"),
        ("shared-metadata", "/work-creator-files/metadata"),
        ("promise-scheduling", "/work-creator-files/kratix-system"),
    ];
    let mut status_writer_env = variables(&[("IS_LAST_PIPELINE", "true")]);
    status_writer_env.extend(standard("configure", "p"));
    let expected = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": job::job_name(&parent, &workflow, &workflow.pipelines[0], 7), "namespace": "a", "labels": labels,
            "annotations": {
                "kratix.io/job-resource-namespace": "a", "kratix.io/job-resource-name": "x",
                "kratix.io/job-resource-kind": "Env", "kratix.io/job-resource-api-version": "example.org/v1",
                "kratix.io/trace-parent": "00-trace",
            },
            "ownerReferences": [{ "apiVersion": "example.org/v1", "kind": "Env", "name": "x", "uid": "uid-a" }],
        },
        "spec": {
            "backoffLimit": 3,
            "template": {
                "metadata": { "labels": labels, "annotations": { "note": "n", "kratix.io/trace-parent": "00-trace" } },
                "spec": {
                    "serviceAccountName": "mine", "restartPolicy": "Never",
                    "imagePullSecrets": [{ "name": "platform" }, { "name": "own" }],
                    "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "k", "operator": "Exists" }],
                    "initContainers": [
                        adapter("reader", &["reader"], standard("configure", "p"), &reader),
                        step,
                        adapter("work-writer", &work_writer_args, work_writer_env, &work_writer_mounts),
                    ],
                    "containers": [adapter(
                        "status-writer",
                        &["update-status"],
                        status_writer_env,
                        &[("shared-metadata", "/work-creator-files/metadata")],
                    )],
                    "volumes": [
                        { "name": "promise-scheduling", "configMap": {
                            "name": "destination-selectors-env",
                            "items": [{ "key": "destinationSelectors", "path": "promise-scheduling" }],
                        }},
                        { "name": "shared-input", "emptyDir": {} }, { "name": "shared-output", "emptyDir": {} },
                        { "name": "shared-metadata", "emptyDir": {} }, { "name": "v", "emptyDir": {} },
                    ],
                },
            },
        },
    });
    let settings = Settings::new("kratix-adapter:1", Some("platform"), Arc::default());
    let mut found = sent(&parent, &workflow, &settings, 0);
    let annotations = found["metadata"]["annotations"].as_object_mut().unwrap();
    assert_eq!((&annotations[SEQUENCE], &annotations[RUN]), (&json!("7"), &json!("2")));
    annotations.retain(|key, _| !key.starts_with("internal."));
    assert_eq!(crate::patch::between(&expected, &found), None, "{found:#}");
}

/// §4.2, §4.6, §4.7, §12.4
#[test]
fn the_configuration_gives_defaults_and_what_a_pipeline_says_wins() {
    let settings = with_config(
        "workflows:
          jobOptions: {defaultBackoffLimit: 4, defaultActiveDeadlineSeconds: 600}
          defaultImagePullPolicy: Never
          defaultContainerSecurityContext: {runAsUser: 7}
          defaultContainerResources: {limits: {memory: 1Gi}}",
    );
    let plain = pipeline("plain", json!([]));
    let (parent, workflow) = of_request(&spec(&[plain, rich()], &[], ""), "a", Action::Configure);
    let part = |index: usize, path: &str| {
        let job = sent(&parent, &workflow, &settings, index);
        job.pointer(&format!("/spec/{path}")).cloned().unwrap_or_default()
    };
    let step = "template/spec/initContainers/1";
    for (path, plain, rich) in [
        ("backoffLimit".to_owned(), json!(4), json!(3)),
        ("activeDeadlineSeconds".to_owned(), json!(600), json!(600)),
        ("template/spec/restartPolicy".to_owned(), json!("OnFailure"), json!("Never")),
        (format!("{step}/imagePullPolicy"), json!("Never"), json!("Always")),
        (format!("{step}/securityContext"), json!({ "runAsUser": 7 }), json!({ "runAsUser": 1000 })),
        (format!("{step}/resources"), json!({ "limits": { "memory": "1Gi" } }), json!({ "limits": { "cpu": "1" } })),
    ] {
        assert_eq!((part(0, &path), part(1, &path)), (plain, rich), "{path}");
    }
    // Kratix's own containers: policy and resources are the platform's, the security context never changes.
    let own = "template/spec/initContainers/0";
    assert_eq!(part(0, &format!("{own}/imagePullPolicy")), "Never");
    assert_eq!(part(0, &format!("{own}/resources")), json!({ "limits": { "memory": "1Gi" } }));
    assert_eq!(part(0, &format!("{own}/securityContext/runAsNonRoot")), true);
    // Without a platform configuration nothing is set; with one that leaves it out, an empty security context is.
    let context = |settings: &Settings| {
        sent(&parent, &workflow, settings, 0).pointer(&format!("/spec/{step}/securityContext")).cloned()
    };
    assert_eq!(context(&super::settings()), None);
    assert_eq!(context(&with_config("")), Some(json!({})));
    for unset in ["backoffLimit", "activeDeadlineSeconds"] {
        assert_eq!(sent(&parent, &workflow, &super::settings(), 0)["spec"].get(unset), None, "{unset}");
    }
}

/// §4.2: an empty name is none.
#[test]
fn without_a_pull_secret_of_the_platform_only_those_of_the_pipeline_are_used() {
    let (parent, workflow) = of_request(&spec(&[rich(), pipeline("p2", json!([]))], &[], ""), "a", Action::Configure);
    let settings = Settings::new("kratix-adapter:1", Some(""), Arc::default());
    let secrets =
        |index| sent(&parent, &workflow, &settings, index)["spec"]["template"]["spec"]["imagePullSecrets"].take();
    assert_eq!(secrets(0), json!([{ "name": "own" }]));
    assert_eq!(secrets(1), Value::Null);
}

/// §4.2, §4.3
#[test]
fn a_delete_pipeline_writes_no_work_and_the_one_that_runs_is_not_the_last_of_several() {
    let both = [pipeline("one", json!([])), pipeline("two", json!([]))];
    let (parent, workflow) = of_request(&spec(&[], &both, ""), "a", Action::Delete);
    let pod = sent(&parent, &workflow, &settings(), 0)["spec"]["template"]["spec"].take();
    let names = |list: &Value| list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&pod["initContainers"]), ["reader", "a"]);
    assert_eq!(names(&pod["volumes"]), ["shared-input", "shared-output", "shared-metadata"]);
    let mut env = variables(&[("IS_LAST_PIPELINE", "false")]);
    env.extend(standard("delete", "one"));
    assert_eq!(pod["containers"][0]["env"], json!(env));
}

/// §4.5, weakness 6: also when the object that was read carries no kind.
#[test]
fn the_environment_of_a_promise_workflow_names_the_promise() {
    let promise: Promise = serde_json::from_value(json!({
        "metadata": { "name": "env", "uid": "u" },
        "spec": { "workflows": { "promise": { "configure": [pipeline("p", json!([]))] } } },
    }))
    .unwrap();
    let workflow = Definition::of(&promise.spec).promise_workflow("env", Action::Configure).unwrap();
    let job = sent(&Parent::of_promise(&promise), &workflow, &settings(), 0);
    let expected = variables(&[
        ("KRATIX_WORKFLOW_ACTION", "configure"),
        ("KRATIX_WORKFLOW_TYPE", "promise"),
        ("KRATIX_PROMISE_NAME", "env"),
        ("KRATIX_PIPELINE_NAME", "p"),
        ("KRATIX_OBJECT_KIND", "Promise"),
        ("KRATIX_OBJECT_GROUP", "platform.kratix.io"),
        ("KRATIX_OBJECT_VERSION", "v1alpha1"),
        ("KRATIX_OBJECT_NAME", "env"),
        ("KRATIX_OBJECT_NAMESPACE", ""),
        ("KRATIX_CRD_PLURAL", "promises"),
        ("KRATIX_CLUSTER_SCOPED", "true"),
    ]);
    assert_eq!(job["spec"]["template"]["spec"]["initContainers"][1]["env"], json!(expected));
    assert_eq!(job["metadata"]["namespace"], keys::SYSTEM_NAMESPACE);
    assert_eq!(job["metadata"]["annotations"]["kratix.io/job-resource-namespace"], "");
    let owner = json!([{
        "apiVersion": "platform.kratix.io/v1alpha1", "kind": "Promise", "name": "env", "uid": "u",
        "controller": true, "blockOwnerDeletion": true,
    }]);
    assert_eq!(job["metadata"]["ownerReferences"], owner);
}

/// §4.1, §4.3: the label and the flag come with `pipelineNamespace`, also when it is the request's own namespace.
#[test]
fn a_namespace_for_pipelines_is_told_by_label_flag_and_the_missing_owner() {
    for (namespace, label, has_owner) in [("", None, true), ("pipes", Some("a"), false), ("a", Some("a"), true)] {
        let (parent, workflow) = of_request(&spec(&[pipeline("p", json!([]))], &[], namespace), "a", Action::Configure);
        let job = sent(&parent, &workflow, &settings(), 0);
        let labels = &job["metadata"]["labels"];
        assert_eq!(labels.get("kratix.io/resource-namespace").and_then(Value::as_str), label, "{namespace}");
        assert_eq!(job["metadata"].get("ownerReferences").is_some(), has_owner, "{namespace}");
        let args = job["spec"]["template"]["spec"]["initContainers"][2]["args"].as_array().unwrap().clone();
        let flag = args.iter().position(|arg| arg == "--resource-namespace").map(|at| args[at + 1].as_str().unwrap());
        assert_eq!(flag, label, "{namespace}");
        assert_eq!(args[8], if namespace.is_empty() { "a" } else { namespace });
    }
}

/// §3.5
#[test]
fn hashes_of_jobs_are_those_of_the_specification() {
    let spec: PromiseSpec =
        serde_json::from_value(json!({ "destinationSelectors": [{ "matchLabels": { "env": "dev" } }] })).unwrap();
    let definition = Definition::of(&spec);
    let promise = definition.promise_workflow("env", Action::Configure).unwrap();
    assert_eq!(promise.hash, "9f7a094ed983bcbce02cadb610a4e910");
    let (_, mut request) = request("a");
    request.metadata.labels = Some([(keys::DRY_RUN.to_owned(), "true".to_owned())].into());
    let hash = |honours_dry_run| {
        definition.request_workflow("env", &request, Action::Configure, honours_dry_run).unwrap().hash
    };
    assert_eq!(hash(false), "e903608505430cabe4be47a9918d0425");
    assert_eq!(hash(true), "fd44665116d071e8709803578f59d1df");
}
