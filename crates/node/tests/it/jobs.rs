//! The job controller's contract.

use embedded_apiserver::User;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::world::{World, container, has_condition, log_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_runs_its_containers_in_order_and_completes() {
    let world = World::new().await;
    let mounts = json!([{"name": "shared", "mountPath": "/kratix/output"}]);
    let step = |name: &str, script: &str| {
        let mut step = container(name, script);
        step["volumeMounts"] = mounts.clone();
        step
    };
    world
        .job(
            "pipeline",
            json!({"template": {"metadata": {"labels": {"app": "x"}}, "spec": {
                "restartPolicy": "OnFailure",
                "volumes": [{"name": "shared", "emptyDir": {}}],
                "initContainers": [
                    step("reader", "echo 1 >> /kratix/output/steps; echo reading"),
                    step("user", "echo 2 >> /kratix/output/steps"),
                    step("writer", "echo 3 >> /kratix/output/steps"),
                ],
                "containers": [step("status", "cat /kratix/output/steps; echo done > /dev/termination-log")],
            }}}),
        )
        .await;
    let job = world.until_job("pipeline", "Complete").await;
    let status = job.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(1), None, None));
    assert!(status.start_time.is_some() && status.completion_time.is_some());
    assert!(status.uncounted_terminated_pods.is_some());
    let conditions: Vec<_> = status.conditions.unwrap().into_iter().map(|c| (c.type_, c.reason.unwrap())).collect();
    assert_eq!(
        conditions,
        [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
    );

    let pods = world.pods().await;
    assert_eq!(pods.len(), 1);
    let pod = &pods[0];
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["batch.kubernetes.io/job-name"], "pipeline");
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], job.metadata.uid.unwrap());
    assert_eq!(labels["app"], "x");
    let status = pod.status.as_ref().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let ended = status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(
        (ended.exit_code, ended.reason.as_deref(), ended.message.as_deref()),
        (0, Some("Completed"), Some("done\n"))
    );
    for init in status.init_container_statuses.as_ref().unwrap() {
        assert_eq!(init.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
        assert!(init.ready && init.restart_count == 0);
    }
    let name = pod.metadata.name.as_ref().unwrap();
    assert!(name.starts_with("pipeline-") && name.len() == "pipeline-".len() + 5);
    assert_eq!(world.log(name, log_of("status")).await, "1\n2\n3\n");
    assert_eq!(world.log(name, log_of("reader")).await, "reading\n");
    assert_eq!(world.event("pipeline", "SuccessfulCreate").await, format!("Created pod: {name}"));
    assert_eq!(world.event("pipeline", "Completed").await, "Job completed");

    let writes: Vec<_> = world.server.counters().into_iter().collect();
    eprintln!("writes: {writes:?}");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_up_after_its_limit_of_failed_pods() {
    let world = World::new().await;
    let spec = json!({"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [container("main", "echo no >&2; exit 3")]}}});
    world.job("failing", spec).await;
    let job = world.until_job("failing", "Failed").await;
    let status = job.status.unwrap();
    assert_eq!(status.failed, Some(2));
    let conditions = status.conditions.unwrap();
    for (condition, kind) in conditions.iter().zip(["FailureTarget", "Failed"]) {
        assert_eq!(condition.type_, kind);
        assert_eq!(condition.reason.as_deref(), Some("BackoffLimitExceeded"));
        assert_eq!(condition.message.as_deref(), Some("Job has reached the specified backoff limit"));
    }
    assert_eq!(world.event("failing", "BackoffLimitExceeded").await, "Job has reached the specified backoff limit");
    let pods = world.pods().await;
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let ended = pod.status.unwrap().container_statuses.unwrap().remove(0).state.unwrap().terminated.unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (3, Some("Error")));
    }
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_container_is_restarted_in_place_and_sees_its_files() {
    let world = World::new().await;
    let mut step = container("flaky", "echo x >> /v/tries; test $(wc -l < /v/tries) -ge 3");
    step["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let spec = json!({"template": {"spec": {
        "restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [step], "containers": [container("main", "true")],
    }}});
    world.job("flaky", spec).await;
    world.until_job("flaky", "Complete").await;
    let pods = world.pods().await;
    assert_eq!(pods.len(), 1, "restarts happen in the pod");
    let init = &pods[0].status.as_ref().unwrap().init_container_statuses.as_ref().unwrap()[0];
    assert_eq!(init.restart_count, 2);
    assert_eq!(init.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_in_place_count_towards_the_limit() {
    let world = World::new().await;
    let spec = json!({"backoffLimit": 2, "template": {"spec": {"restartPolicy": "OnFailure", "containers": [container("main", "exit 1")]}}});
    world.job("hopeless", spec).await;
    let job = world.until_job("hopeless", "Failed").await;
    let reasons: Vec<_> = job.status.unwrap().conditions.unwrap().into_iter().filter_map(|c| c.reason).collect();
    assert_eq!(reasons, ["BackoffLimitExceeded", "BackoffLimitExceeded"]);
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_job_and_its_pod() {
    let world = World::new().await;
    let spec = json!({"activeDeadlineSeconds": 1, "template": {"spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container("main", "sleep 600")],
    }}});
    world.job("late", spec).await;
    let job = world.until_job("late", "Failed").await;
    let condition = job.status.unwrap().conditions.unwrap().pop().unwrap();
    assert_eq!(condition.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(condition.message.as_deref(), Some("Job was active longer than specified deadline"));
    assert!(world.pods().await.is_empty(), "its pod was stopped");
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_job_stops_and_resumes() {
    let world = World::new().await;
    let spec = json!({"template": {"spec": {
        "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 1, "containers": [container("main", "sleep 600")],
    }}});
    world.job("paused", spec).await;
    world.until("paused", "active", |job: &Job| job.status.as_ref().is_some_and(|s| s.active == Some(1))).await;
    let api: Api<Job> = world.api();
    let suspend = |suspend: bool| Patch::Merge(json!({"spec": {"suspend": suspend}}));
    api.patch("paused", &PatchParams::default(), &suspend(true)).await.unwrap();
    let job = world
        .until("paused", "at rest", |job: &Job| {
            has_condition(job, "Suspended") && job.status.as_ref().unwrap().terminating == Some(0)
        })
        .await;
    let status = job.status.unwrap();
    assert_eq!((status.active, status.start_time), (None, None));
    assert!(world.pods().await.is_empty());
    assert_eq!(world.event("paused", "Suspended").await, "Job suspended");
    api.patch("paused", &PatchParams::default(), &suspend(false)).await.unwrap();
    world
        .until("paused", "resumed", |job: &Job| {
            !has_condition(job, "Suspended") && job.status.as_ref().unwrap().active == Some(1)
        })
        .await;
    api.delete("paused", &DeleteParams::background()).await.unwrap();
    world.until_gone::<Job>("paused").await;
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_job_is_removed_after_its_time() {
    let world = World::new().await;
    let spec = json!({"ttlSecondsAfterFinished": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container("main", "true")]}}});
    world.job("brief", spec).await;
    world.until_gone::<Job>("brief").await;
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_job_ends_its_processes_and_leaves_nothing() {
    let world = World::new().await;
    let spec = json!({"template": {"spec": {
        "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 1, "containers": [container("main", "trap '' TERM; echo up; while :; do sleep 1; done")],
    }}});
    world.job("doomed", spec).await;
    let pods = loop {
        world.until("doomed", "active", |job: &Job| job.status.as_ref().is_some_and(|s| s.active == Some(1))).await;
        let pods = world.pods().await;
        if !pods.is_empty() {
            break pods;
        }
    };
    let name = pods[0].metadata.name.clone().unwrap();
    world.until_phase(&name, "Running").await;
    let api: Api<Job> = world.api();
    api.delete("doomed", &DeleteParams::background()).await.unwrap();
    world.until_gone::<Pod>(&name).await;
    world.node.shutdown().await;
    let left = |path: &str| std::fs::read_dir(world.directory.path().join(path)).unwrap().count();
    assert_eq!((left("pods"), left("logs")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_at_once_have_exactly_one_pod_each() {
    const JOBS: usize = 40;
    let world = World::new().await;
    let begun = std::time::Instant::now();
    for n in 0..JOBS {
        let spec = json!({"template": {"spec": {
            "restartPolicy": "OnFailure",
            "initContainers": [container("a", "true"), container("b", "true"), container("c", "true")],
            "containers": [container("main", "true")],
        }}});
        world.job(&format!("job-{n}"), spec).await;
    }
    for n in 0..JOBS {
        world.until_job(&format!("job-{n}"), "Complete").await;
    }
    eprintln!("{JOBS} jobs of 4 containers took {:?}; writes: {:?}", begun.elapsed(), world.server.counters());
    let pods = world.pods().await;
    assert_eq!(pods.len(), JOBS);
    let warnings = world.api::<Event>().list(&ListParams::default()).await.unwrap();
    let warnings: Vec<_> = warnings.iter().filter(|event| event.type_.as_deref() == Some("Warning")).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    // A second client sees the same: nothing was decided on a private view.
    let other = Client::new(world.server.service(User::admin("other")), "default");
    assert_eq!(Api::<Pod>::default_namespaced(other).list(&ListParams::default()).await.unwrap().items.len(), JOBS);
    world.node.shutdown().await;
}
