//! A platform of its own for each test, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kratix_api::{Condition, Promise, Work, WorkPlacement, condition};
use kratix_testing::archive::{self, Entry};
use kratix_testing::hook;
use kratix_testing::kube_apiserver::{self, KubeApiServer};
use kratix_testing::kubectl::Kubectl;
use kratix_testing::wait;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The real program on a temporary directory.
pub(crate) struct World {
    program: Option<Child>,
    /// The platform's API server where it is not the embedded one.
    api_server: Option<KubeApiServer>,
    clients: Option<(Client, Client)>,
    pub(crate) directory: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let api_server = match kube_apiserver::assets() {
            Some(assets) => Some(KubeApiServer::start(&assets).await),
            None => None,
        };
        let mut world = Self { program: None, api_server, clients: None, directory: tempfile::tempdir().unwrap() };
        world.restart().await;
        world
    }

    /// Stops the platform if it runs, and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_kratix"));
        command.args(["up", "--listen", "127.0.0.1:0", "--output", "json", "--data-dir"]).arg(self.data_dir());
        if let Some(api_server) = &self.api_server {
            command.arg("--api-server").arg(api_server.kubeconfig());
        }
        let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let ready = tokio::time::timeout(wait::DEADLINE, lines.next_line()).await;
        let line = ready.expect("the program announces itself").unwrap().expect("the program starts");
        let _: Value = serde_json::from_str(&line).unwrap();
        self.program = Some(program);
        self.clients = Some((self.client("platform").await, self.client("worker-1").await));
    }

    /// Tells the program to stop and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let Some(mut program) = self.program.take() else { return };
        let output = self.kratix(&["down"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(program.wait().await.unwrap().success());
    }

    /// Kills the program where it stands.
    pub(crate) async fn kill(&mut self) {
        let mut program = self.program.take().expect("the program runs");
        program.kill().await.unwrap();
    }

    /// Kills the program and does not wait for its end.
    pub(crate) fn kill_unseen(&mut self) {
        self.program.take().expect("the program runs").start_kill().unwrap();
    }

    /// Runs the program with this world's data directory.
    pub(crate) async fn kratix(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kratix"));
        command.args(args).arg("--data-dir").arg(self.data_dir()).stdin(Stdio::null()).output().await.unwrap()
    }

    async fn client(&self, context: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.data_dir().join("kubeconfig")).unwrap();
        let options = KubeConfigOptions { context: Some(context.into()), ..KubeConfigOptions::default() };
        Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.data_dir().join("state.git")
    }

    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.data_dir().join("kubeconfig"), self.directory.path())
    }

    pub(crate) fn hub(&self) -> Client {
        self.clients.as_ref().expect("the platform runs").0.clone()
    }

    pub(crate) fn worker(&self) -> Client {
        self.clients.as_ref().expect("the platform runs").1.clone()
    }

    pub(crate) async fn apply(&self, document: &str) -> String {
        self.kubectl().apply(document).await.ok()
    }

    /// Whether the platform's API server is the embedded one. The rules of admission are asked in its process; a real one
    /// would need a webhook server, and a kubelet to ask for logs.
    pub(crate) fn is_embedded(&self) -> bool {
        let embedded = self.api_server.is_none();
        if !embedded {
            eprintln!("left out: the real API server has no webhook and no kubelet here");
        }
        embedded
    }

    /// Returns the log of a container of the only pod of a request: from kubectl, or where there is no kubelet, from the
    /// node's own file.
    pub(crate) async fn log(&self, request: &str, container: &str) -> String {
        let selector = format!("kratix.io/resource-name={request}");
        let pods: Api<Pod> = Api::namespaced(self.hub(), "default");
        let mut found = pods.list(&ListParams::default().labels(&selector)).await.unwrap().items;
        assert_eq!(found.len(), 1, "the pod of {request}");
        let pod = found.remove(0).metadata;
        if self.api_server.is_none() {
            return self.kubectl().run(&format!("logs {} -c {container}", pod.name.unwrap())).await.ok();
        }
        let file = self.data_dir().join("node/logs").join(pod.uid.unwrap()).join(container).join("0.log");
        // Each line begins with its time, stream and kind.
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.lines().map(|line| format!("{}\n", line.splitn(4, ' ').nth(3).unwrap_or_default())).collect()
    }

    /// Loads an image that runs `script`.
    pub(crate) async fn load_image(&self, name: &str, script: &str, entries: &[Entry]) {
        let path = self.directory.path().join("image.tar");
        archive::docker_archive(&path, name, script, entries).unwrap();
        let output = self.kratix(&["image", "load", path.to_str().unwrap()]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) async fn promise_available(&self, name: &str) -> Promise {
        let api = Api::<Promise>::all(self.hub());
        wait::until(&api, name, &format!("Promise {name} to be available"), |promise: &Promise| {
            promise.status.as_ref().is_some_and(|status| is_true(&status.conditions, "Available"))
        })
        .await
    }

    pub(crate) fn requests(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: &str,
    ) -> Api<DynamicObject> {
        custom(self.hub(), group, version, kind, plural, namespace)
    }

    pub(crate) fn works(&self, namespace: &str) -> Api<Work> {
        Api::namespaced(self.hub(), namespace)
    }

    pub(crate) fn placements(&self, namespace: &str) -> Api<WorkPlacement> {
        Api::namespaced(self.hub(), namespace)
    }

    pub(crate) fn jobs(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.hub(), namespace)
    }

    /// Returns the paths of all files in the state store.
    pub(crate) async fn files(&self) -> Vec<String> {
        if git(&self.repository(), &["branch", "--list", "main"]).is_empty() {
            return Vec::new();
        }
        let listed = git(&self.repository(), &["ls-tree", "-r", "--name-only", "main"]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Returns what real git says about the state store.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        git(&self.repository(), args)
    }

    /// Makes the state store refuse every push; the returned function makes it take them again.
    pub(crate) fn freeze_store(&self) -> impl FnOnce() + use<> {
        let hook =
            hook::install(&self.repository(), "pre-receive", "echo 'the branch is frozen until Monday' >&2\nexit 1");
        move || std::fs::remove_file(&hook).unwrap()
    }

    /// Waits until the state store holds no file below a directory.
    pub(crate) async fn files_gone(&self, prefix: &str) {
        wait::poll(&format!("{prefix} to be removed"), || async {
            let left: Vec<String> = self.files().await.into_iter().filter(|file| file.starts_with(prefix)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

pub(crate) fn git(repository: &Path, args: &[&str]) -> String {
    let output = std::process::Command::new("git").arg("--git-dir").arg(repository).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn custom(
    client: Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: &str,
) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(client, namespace, &resource)
}

pub(crate) fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.r#type == type_ && condition.status == condition::Status::True)
}

/// Returns `status/reason/message` of a condition of a typed object.
pub(crate) fn condition_of(conditions: &[Condition], type_: &str) -> String {
    let found = conditions.iter().find(|condition| condition.r#type == type_);
    found.map_or_else(String::new, |condition| {
        format!("{}/{}/{}", condition.status.as_str(), condition.reason, condition.message)
    })
}

/// Returns `status/reason/message` of a condition of a request.
pub(crate) fn condition_in(object: &DynamicObject, type_: &str) -> String {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.map_or_else(String::new, |condition| {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        format!("{}/{}/{}", text("status"), text("reason"), text("message"))
    })
}

pub(crate) fn is_reconciled(request: &DynamicObject) -> bool {
    condition_in(request, "Reconciled") == "True/Reconciled/Reconciled"
}

/// Returns a document of the published project, or `None` with a note where the reference data is not there.
///
/// # Panics
/// Where it must be there, in CI.
pub(crate) fn reference(path: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference").join(path);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is not there", path.display());
        eprintln!("skipped: {} is not there", path.display());
    }
    text
}

/// A Promise with one resource pipeline that runs a script on this machine's own root file system.
pub(crate) fn promise(name: &str, kind: &str, script: &str) -> String {
    let plural = format!("{}s", kind.to_lowercase());
    let script = script.lines().map(|line| format!("                    {line}\n")).collect::<String>();
    format!(
        "
apiVersion: platform.kratix.io/v1alpha1
kind: Promise
metadata:
  name: {name}
spec:
  api:
    apiVersion: apiextensions.k8s.io/v1
    kind: CustomResourceDefinition
    metadata:
      name: {plural}.test.kratix.io
    spec:
      group: test.kratix.io
      scope: Namespaced
      names: {{plural: {plural}, singular: {singular}, kind: {kind}}}
      versions:
        - name: v1
          served: true
          storage: true
          schema:
            openAPIV3Schema:
              type: object
              properties:
                spec:
                  type: object
                  properties:
                    size: {{type: string}}
  destinationSelectors:
    - matchLabels: {{environment: dev}}
  workflows:
    resource:
      configure:
        - apiVersion: platform.kratix.io/v1alpha1
          kind: Pipeline
          metadata: {{name: configure}}
          spec:
            jobOptions: {{backoffLimit: 0}}
            restartPolicy: Never
            containers:
              - name: render
                image: kratix.local/host
                command: [/bin/sh, -euc]
                args:
                  - |
{script}",
        singular = kind.to_lowercase(),
    )
}

/// A request for a Promise made by [`promise`].
pub(crate) fn request(kind: &str, namespace: &str, name: &str) -> String {
    format!(
        "
apiVersion: test.kratix.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{size: small}}
"
    )
}
