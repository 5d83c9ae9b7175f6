//! The node is killed without warning and started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use embedded_apiserver::{MASTERS, Server, User};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::json;

use crate::world::{World, builder, container, copy_of_this, log_of};

const CONFIG: &str = "NODE_TEST_KUBECONFIG";
const DATA: &str = "NODE_TEST_DATA";
const ADAPTER: &str = "ghcr.io/example/adapter:v1";

/// Not a test of its own: the process that the test below kills. Without its variables it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(config), Ok(data)) = (std::env::var(CONFIG), std::env::var(DATA)) else { return };
    let config: kube::config::Kubeconfig = serde_json::from_str(&config).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let entrypoint = ["node-test", "--exact", "crash::child", "--nocapture"].map(String::from).to_vec();
    let builder = builder(client, data.as_ref()).own_binary(vec![ADAPTER.into()], entrypoint);
    let _node = builder.start().await.unwrap();
    std::future::pending::<()>().await;
}

/// An API server and a directory for a node in a process of its own, and how that reaches the server. The node of this world
/// has nothing to do until the other one is dead.
async fn stage() -> (World, String) {
    let server = Server::builder().build().await.unwrap();
    let address = server.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap().addr;
    let client = Client::new(server.service(User::admin("test")), "default");
    let ca = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(server.ca_pem())
    };
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"token": server.token("node", [MASTERS])}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    })
    .to_string();
    let idle = tempfile::tempdir().unwrap();
    let node =
        embedded_node::Node::builder(client.clone()).data_dir(idle.path()).name("elsewhere").start().await.unwrap();
    (World { server, client, node, directory: tempfile::tempdir().unwrap() }, config)
}

impl World {
    /// Starts a node on the directory of one that is dead.
    async fn succeed(&mut self) {
        self.node.shutdown().await;
        self.node = builder(self.client.clone(), self.directory.path()).start().await.unwrap();
    }

    /// Returns the directory of the only pod.
    async fn pod_directory(&self) -> PathBuf {
        self.directory.path().join("pods").join(self.pods().await[0].metadata.uid.clone().unwrap())
    }
}

/// Waits for a condition that nothing reports.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never {what}"));
}

fn spawn_child(program: &Path, config: &str, data: &Path) -> Child {
    Command::new(program)
        .args(["--exact", "crash::child", "--nocapture"])
        .env(CONFIG, config)
        .env(DATA, data)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_leaves_no_process_and_its_successor_goes_on() {
    let (mut world, config) = stage().await;
    let mut child = spawn_child(&std::env::current_exe().unwrap(), &config, world.directory.path());
    let step = |name: &str, script: &str| {
        let mut step = container(name, script);
        step["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        step
    };
    let spec = json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": [step("done", "echo done >> /v/log"),
                           step("interrupted", "echo begun >> /v/log; test $(grep -c begun /v/log) -ge 2 || while :; do sleep 0.02; echo beat > /v/beat; done")],
        "containers": [step("main", "cat /v/log")]});
    world.pod("survivor", spec).await;
    world
        .until("survivor", "interrupted", |pod: &Pod| {
            let status =
                pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref()?.get(1)?.state.clone());
            status.is_some_and(|state| state.running.is_some())
        })
        .await;
    let volume = world.pod_directory().await.join("volumes/v");
    child.kill().unwrap();
    child.wait().unwrap();

    // Whoever still beats holds the volume's mount: wait until no process of that container is left.
    let beat = volume.join("beat");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        std::fs::remove_file(&beat).ok();
        // Twenty beats long.
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        if !beat.exists() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "processes of the killed node are still alive");
    }

    world.succeed().await;
    let pod = world.until_phase("survivor", "Succeeded").await;
    assert_eq!(world.log("survivor", log_of("main")).await, "done\nbegun\nbegun\n", "what was done is not done again");
    let init = pod.status.unwrap().init_container_statuses.unwrap();
    assert_eq!((init[0].restart_count, init[1].restart_count), (0, 1));
    let last = init[1].last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_ended_unheard_is_not_run_again() {
    let (mut world, config) = stage().await;
    let mut child = spawn_child(&std::env::current_exe().unwrap(), &config, world.directory.path());
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let mut step =
        container("step", "echo begun >> /v/log; until test -e /v/go; do sleep 0.01; done; echo done >> /v/log");
    let mut main = container("main", "cat /v/log");
    (step["volumeMounts"], main["volumeMounts"]) = (mounts.clone(), mounts);
    let spec = json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}],
                      "initContainers": [step], "containers": [main]});
    world.pod("unheard", spec).await;
    world
        .until("unheard", "running its step", |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
            statuses.and_then(|all| all.first()?.state.as_ref()?.running.as_ref()).is_some()
        })
        .await;
    // The node stands still while the step comes to its end, and dies before it hears of that.
    assert!(Command::new("kill").args(["-STOP", &child.id().to_string()]).status().unwrap().success());
    let directory = world.pod_directory().await;
    std::fs::write(directory.join("volumes/v/go"), "").unwrap();
    until("ended", || std::fs::metadata(directory.join("runs/step.0")).is_ok_and(|file| file.len() > 0)).await;
    child.kill().unwrap();
    child.wait().unwrap();

    world.succeed().await;
    let pod = world.until_phase("unheard", "Succeeded").await;
    assert_eq!(world.log("unheard", log_of("main")).await, "begun\ndone\n");
    let step = pod.status.unwrap().init_container_statuses.unwrap().remove(0);
    let ended = step.state.unwrap().terminated.unwrap();
    assert_eq!((step.restart_count, ended.exit_code, ended.reason.as_deref()), (0, 0, Some("Completed")));
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_a_stopping_node_interrupts_has_not_done_its_work() {
    let mut world = World::new().await;
    // It ends in good order when it is told to, and does its work only when it is not.
    let script = "trap 'exit 0' TERM; echo begun >> /v/log; \
                  test $(grep -c begun /v/log) -ge 2 && exit 0; while :; do sleep 0.02; done";
    for (name, policy) in [("retried", "OnFailure"), ("failed", "Never")] {
        let mut main = container("main", script);
        main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let spec = json!({"restartPolicy": policy, "volumes": [{"name": "v", "emptyDir": {}}], "containers": [main]});
        let pod = world.pod(name, spec).await;
        let volume = world.directory.path().join("pods").join(pod.metadata.uid.unwrap()).join("volumes/v");
        until("begun", || volume.join("log").exists()).await;
    }
    world.succeed().await;
    let reason = |ended: &k8s_openapi::api::core::v1::ContainerState| ended.terminated.as_ref().unwrap().reason.clone();
    let pod = world.until_phase("retried", "Succeeded").await;
    let main = pod.status.unwrap().container_statuses.unwrap().remove(0);
    assert_eq!(main.restart_count, 1);
    assert_eq!(reason(&main.last_state.unwrap()).as_deref(), Some("ContainerStatusUnknown"));
    let pod = world.until_phase("failed", "Failed").await;
    let main = pod.status.unwrap().container_statuses.unwrap().remove(0);
    assert_eq!(reason(&main.state.unwrap()).as_deref(), Some("ContainerStatusUnknown"));
    world.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_executable_was_replaced_goes_on() {
    let (world, config) = stage().await;
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("node");
    copy_of_this(&program);
    let mut child = spawn_child(&program, &config, world.directory.path());
    let run = async |name: &str, container: serde_json::Value| {
        world.pod(name, json!({"restartPolicy": "Never", "containers": [container]})).await;
        world.until_phase(name, "Succeeded").await;
    };
    run("before", container("main", "true")).await;
    std::fs::remove_file(&program).unwrap();
    run("after", container("main", "true")).await;
    run("own", json!({"name": "main", "image": ADAPTER, "securityContext": {"runAsNonRoot": true}})).await;
    child.kill().unwrap();
    child.wait().unwrap();
    world.node.shutdown().await;
}
