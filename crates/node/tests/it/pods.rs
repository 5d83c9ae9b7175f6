//! The kubelet's contract.

use embedded_node::LogOptions;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{World, container, log_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_reaches_the_container() {
    let world = World::new().await;
    world.create::<ConfigMap>(json!({"metadata": {"name": "config"}, "data": {"color": "blue", "other": "x"}})).await;
    world.create::<Secret>(json!({"metadata": {"name": "secret"}, "data": {"key": "czNjcmV0"}})).await;
    let mut main = container(
        "main",
        "echo $COLOR $PRE_color $KEY $NAME $EXPANDED $MISSING; cat /config/c /secret/key /info/labels; echo; \
         stat -c %a /secret/key; touch /config/x || echo read-only; id -u; echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT; pwd; echo $0 $1",
    );
    main["args"] = json!(["zero-$(COLOR)", "one"]);
    main["workingDir"] = "/tmp/work".into();
    main["envFrom"] = json!([{"prefix": "PRE_", "configMapRef": {"name": "config"}}, {"secretRef": {"name": "nope", "optional": true}}]);
    main["env"] = json!([
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "color"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "key"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "EXPANDED", "value": "is-$(COLOR)"},
        {"name": "MISSING", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "nope", "optional": true}}},
    ]);
    main["volumeMounts"] = json!([
        {"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"}, {"name": "info", "mountPath": "/info"},
    ]);
    world
        .create::<Pod>(json!({"metadata": {"name": "configured", "labels": {"a": "b"}}, "spec": {
            "restartPolicy": "Never", "nodeName": "embedded",
            "securityContext": {"runAsUser": 1234, "runAsNonRoot": true, "fsGroup": 77},
            "volumes": [
                {"name": "config", "configMap": {"name": "config", "items": [{"key": "color", "path": "c"}]}},
                {"name": "secret", "secret": {"secretName": "secret", "defaultMode": 0o400}},
                {"name": "info", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            ],
            "containers": [main],
        }}))
        .await;
    world.until_phase("configured", "Succeeded").await;
    let log = world.log("configured", log_of("main")).await;
    let lines: Vec<_> = log.lines().filter(|line| !line.starts_with("touch")).collect();
    assert_eq!(
        lines,
        [
            "blue blue s3cret configured is-blue",
            "blues3creta=\"b\"",
            "440",
            "read-only",
            "1234",
            "127.0.0.1:6443",
            "/tmp/work",
            "zero-blue one"
        ]
    );
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_get_the_token_of_their_service_account() {
    let world = World::new().await;
    world.create::<ServiceAccount>(json!({"metadata": {"name": "builder"}})).await;
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; echo; head -1 ca.crt; cut -d. -f1 token | wc -c; touch x || echo read-only";
    world.pod("with-token", json!({"restartPolicy": "Never", "serviceAccountName": "builder", "containers": [container("main", script)]})).await;
    world.until_phase("with-token", "Succeeded").await;
    let log = world.log("with-token", log_of("main")).await;
    // The other stream has its own order.
    let lines: Vec<_> = log.lines().filter(|line| !line.starts_with("touch")).collect();
    assert_eq!(lines[..2], ["default", "-----BEGIN CERTIFICATE-----"]);
    assert!(lines[2].trim().parse::<u32>().unwrap() > 10, "{log}");
    assert!(log.contains("read-only"));

    world.pod("without", json!({"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": [container("main", "ls /var/run/secrets || echo none")]})).await;
    world.until_phase("without", "Succeeded").await;
    assert!(world.log("without", log_of("main")).await.lines().any(|line| line == "none"));
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_refers_to_may_come_later() {
    let world = World::new().await;
    let mut main = container("main", "echo $COLOR");
    main["env"] = json!([{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "color"}}}]);
    world.pod("waiting", json!({"restartPolicy": "Never", "containers": [main]})).await;
    world
        .until("waiting", "waiting for its configuration", |pod: &Pod| {
            let status = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref()?.first()?.state.clone()?.waiting);
            status.is_some_and(|waiting| {
                waiting.reason.as_deref() == Some("CreateContainerConfigError")
                    && waiting.message.as_deref() == Some("configmap \"late\" not found")
            })
        })
        .await;
    assert!(world.event("waiting", "Failed").await.contains("configmap \"late\" not found"));
    // The node learns of its own write a moment after everybody else may.
    let told = async {
        let wanted = "container \"main\" in pod \"waiting\" is waiting to start: CreateContainerConfigError";
        let error = || world.node.logs("default", "waiting", &LogOptions::default()).err().unwrap().to_string();
        while error() != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), told).await.expect("the log says what it waits for");
    world.create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"color": "red"}})).await;
    world.until_phase("waiting", "Succeeded").await;
    assert_eq!(world.log("waiting", log_of("main")).await, "red\n");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_paths_and_privileges_are_refused_visibly() {
    let world = World::new().await;
    let mut main = container("main", "true");
    main["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    world.pod("nosy", json!({"restartPolicy": "Never", "volumes": [{"name": "host", "hostPath": {"path": "/"}}], "containers": [main]})).await;
    let text = world.event("nosy", "FailedMount").await;
    assert!(text.contains("\"host\"") && text.contains("hostPath"), "{text}");

    let mut main = container("main", "true");
    main["securityContext"] = json!({"privileged": true});
    world.pod("mighty", json!({"restartPolicy": "Never", "containers": [main]})).await;
    assert!(world.event("mighty", "Failed").await.contains("privileged"));

    let mut main = container("main", "true");
    main["securityContext"] = json!({"runAsNonRoot": true, "runAsUser": 0});
    world.pod("rooted", json!({"restartPolicy": "Never", "containers": [main]})).await;
    assert!(world.event("rooted", "Failed").await.contains("runAsUser breaks non-root policy"));
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_pod_lets_it_end_in_order() {
    let world = World::new().await;
    let mut main = container("main", "trap 'echo bye > /v/last; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    world
        .pod(
            "polite",
            json!({"restartPolicy": "Always", "volumes": [{"name": "v", "emptyDir": {}}], "containers": [main]}),
        )
        .await;
    let pod = world.until_phase("polite", "Running").await;
    let ready = pod.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
    let follow = world.node.logs("default", "polite", &LogOptions { follow: true, ..LogOptions::default() }).unwrap();
    let api: Api<Pod> = world.api();
    api.delete("polite", &DeleteParams::default()).await.unwrap();
    world.until_gone::<Pod>("polite").await;
    let chunks: Vec<_> = futures::StreamExt::collect::<Vec<_>>(follow).await;
    assert_eq!(chunks[0].as_ref().unwrap().as_ref(), b"up\n", "the log is followed to the end");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_nobody_has_assigned_is_taken() {
    let world = World::new().await;
    world.create::<Pod>(json!({"metadata": {"name": "free"}, "spec": {"restartPolicy": "Never", "containers": [container("main", "true")]}})).await;
    let pod = world.until_phase("free", "Succeeded").await;
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("embedded"));
    assert_eq!(pod.name_any(), "free");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_beyond_the_limit_wait_their_turn() {
    let world = World::with(|builder| builder.max_pods(1)).await;
    let spec = |script: &str| json!({"restartPolicy": "Never", "containers": [container("main", script)]});
    world.pod("first", spec("sleep 600")).await;
    world.until_phase("first", "Running").await;
    world.pod("second", spec("true")).await;
    let pod = world
        .until("second", "told to wait", |pod: &Pod| {
            pod.status.as_ref().is_some_and(|s| s.reason.as_deref() == Some("TooManyPods"))
        })
        .await;
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    let api: Api<Pod> = world.api();
    api.delete("first", &DeleteParams::default().grace_period(1)).await.unwrap();
    world.until_phase("second", "Succeeded").await;
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_containers_run_side_by_side_and_the_failed_one_counts() {
    let world = World::new().await;
    let mut one = container("one", "until test -e /v/go; do sleep 0.01; done");
    let mut two = container("two", "touch /v/go; exit 4");
    for container in [&mut one, &mut two] {
        container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        container["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    }
    world
        .pod(
            "pair",
            json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}], "containers": [one, two]}),
        )
        .await;
    let pod = world.until_phase("pair", "Failed").await;
    let codes: Vec<_> = pod
        .status
        .unwrap()
        .container_statuses
        .unwrap()
        .into_iter()
        .map(|c| c.state.unwrap().terminated.unwrap().exit_code)
        .collect();
    assert_eq!(codes, [0, 4]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_filled_its_volume_is_evicted_before_the_next_container_starts() {
    let world = World::new().await;
    let mount = json!([{"name": "small", "mountPath": "/small"}]);
    let mut fill = container("fill", "head -c 2000000 /dev/zero > /small/file");
    fill["volumeMounts"] = mount.clone();
    let volumes = json!([{"name": "small", "emptyDir": {"sizeLimit": "1Mi"}}]);
    let spec = json!({
        "restartPolicy": "OnFailure", "volumes": volumes,
        "initContainers": [fill], "containers": [container("next", "echo never")],
    });
    world.pod("full", spec).await;
    let status = world.until_phase("full", "Failed").await.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let text = "Usage of EmptyDir volume \"small\" exceeds the limit \"1Mi\".";
    assert_eq!(status.message.as_deref(), Some(text));
    assert_eq!(world.event("full", "Evicted").await, text);
    let next = &status.container_statuses.unwrap()[0];
    assert!(next.state.as_ref().unwrap().waiting.is_some(), "{next:#?}");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_waits_for_a_volume_says_so_in_its_status_until_the_volume_is_there() {
    let world = World::new().await;
    let volumes = json!([{"name": "v", "secret": {"secretName": "later"}}]);
    let spec = json!({"restartPolicy": "Never", "volumes": volumes, "containers": [container("main", "true")]});
    world.pod("waits", spec).await;
    let waits = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        status.reason.as_deref() == Some("FailedMount") && status.message.is_some_and(|text| text.contains("later"))
    };
    world.until::<Pod>("waits", "its status to name the Secret", waits).await;
    world.create::<Secret>(json!({"metadata": {"name": "later"}})).await;
    let status = world.until_phase("waits", "Succeeded").await.status.unwrap();
    assert_eq!((status.reason, status.message), (None, None));
    world.node.shutdown().await;
}
