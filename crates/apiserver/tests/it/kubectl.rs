//! The real kubectl against the server over TLS.

use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use bytes::Bytes;
use embedded_apiserver::{LogError, LogOptions, PodLogs, Server};
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{map, widget, widget_crd};

struct Kubectl {
    server: Server,
    home: tempfile::TempDir,
    config: PathBuf,
}

/// What a command came to.
struct Ran {
    ok: bool,
    out: String,
    err: String,
}

struct Echo;

#[async_trait]
impl PodLogs for Echo {
    async fn logs(
        &self,
        pod: &Value,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        let text = format!("{} of {}\n", options.container.unwrap_or_default(), pod["metadata"]["name"]);
        Ok(stream::iter([Ok(Bytes::from(text))]).boxed())
    }
}

impl Kubectl {
    /// Starts a server; `None`, with a word on stderr, where kubectl is not installed.
    async fn new() -> Option<Self> {
        if Command::new("kubectl").arg("version").arg("--client").stdout(Stdio::null()).status().await.is_err() {
            eprintln!("skipped: kubectl is not installed");
            return None;
        }
        let server = Server::builder().pod_logs(std::sync::Arc::new(Echo)).build().await.unwrap();
        let listening = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let token = server.token("admin", ["system:masters"]);
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("kubeconfig");
        std::fs::write(&config, server.kubeconfig("test", listening.addr, &token)).unwrap();
        Some(Self { server, home, config })
    }

    async fn run(&self, arguments: &str, input: &str) -> Ran {
        let mut command = Command::new("kubectl");
        command.args(arguments.split_whitespace()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).env("KUBECONFIG", &self.config);
        command.env("EDITOR", "sed -i s/value/edited/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(super::DEADLINE, child.wait_with_output())
            .await
            .unwrap_or_else(|_| panic!("kubectl {arguments} does not end"))
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Runs a command that must succeed, and returns its output.
    async fn ok(&self, arguments: &str) -> String {
        self.ok_with(arguments, &Value::Null).await
    }

    async fn ok_with(&self, arguments: &str, input: &Value) -> String {
        let input = if input.is_null() { String::new() } else { input.to_string() };
        let ran = self.run(arguments, &input).await;
        assert!(ran.ok, "kubectl {arguments}\n{}\n{}", ran.out, ran.err);
        ran.out
    }

    /// Runs a command that must fail, and returns what it says.
    async fn fails(&self, arguments: &str) -> String {
        let ran = self.run(arguments, "").await;
        assert!(!ran.ok, "kubectl {arguments} should fail: {}", ran.out);
        ran.err
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_everyday_commands() {
    let Some(kubectl) = Kubectl::new().await else { return };
    assert!(kubectl.ok("version").await.contains("Server Version: v1.34"));
    assert_eq!(kubectl.ok_with("apply -f -", &map("a")).await, "configmap/a created\n");
    assert_eq!(kubectl.ok_with("apply -f -", &map("a")).await, "configmap/a unchanged\n");
    let mut changed = map("a");
    changed["data"]["more"] = json!("1");
    let diff = kubectl.run("diff -f -", &changed.to_string()).await;
    assert!(diff.out.contains("more:"), "{}{}", diff.out, diff.err);
    assert_eq!(kubectl.ok_with("apply -f -", &changed).await, "configmap/a configured\n");
    assert_eq!(kubectl.ok_with("create -f -", &map("b")).await, "configmap/b created\n");
    let table = kubectl.ok("get configmaps").await;
    assert!(table.lines().next().unwrap().split_whitespace().eq(["NAME", "DATA", "AGE"]), "{table}");
    assert_eq!(kubectl.ok("get cm a -o jsonpath={.data.key}").await, "value");
    assert_eq!(kubectl.ok("get cm -o name").await.lines().count(), 3);
    assert!(kubectl.ok("get cm a -o yaml").await.contains("kind: ConfigMap"));
    assert!(kubectl.ok("get cm a -o wide").await.contains('a'));
    kubectl.ok("label cm a tier=gold").await;
    kubectl.ok("annotate cm a note=x").await;
    assert_eq!(kubectl.ok("get cm -l tier=gold -o name").await, "configmap/a\n");
    kubectl.ok(r#"patch cm a --type=merge -p {"data":{"patched":"1"}}"#).await;
    kubectl.ok(r#"patch cm a -p {"data":{"strategic":"1"}}"#).await;
    kubectl.ok("edit cm b").await;
    assert_eq!(kubectl.ok("get cm b -o jsonpath={.data.key}").await, "edited");
    assert!(kubectl.ok("describe cm a").await.contains("tier=gold"));
    assert!(kubectl.ok("explain configmap.data").await.contains("data"));
    assert!(kubectl.ok("api-resources").await.contains("configmaps"));
    assert_eq!(kubectl.ok_with("apply --server-side -f -", &map("c")).await, "configmap/c serverside-applied\n");
    kubectl.ok("wait --for=jsonpath={.data.key}=value cm/c --timeout=5s").await;
    kubectl.ok("delete cm a b c").await;
    assert!(kubectl.fails("get cm a").await.contains(r#"Error from server (NotFound): configmaps "a" not found"#));
    assert_eq!(kubectl.ok("auth can-i create pods").await, "yes\n");
    assert_eq!(kubectl.run("auth can-i create pods --as=nobody", "").await.out, "no\n");
    kubectl.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_speak_protobuf() {
    let Some(kubectl) = Kubectl::new().await else { return };
    assert_eq!(kubectl.ok("create namespace team").await, "namespace/team created\n");
    kubectl.ok("create configmap a --from-literal=k=v -n team").await;
    assert_eq!(kubectl.ok("get cm a -n team -o jsonpath={.data.k}").await, "v");
    kubectl.ok("create secret generic s --from-literal=k=v").await;
    assert_eq!(kubectl.ok("get secret s -o jsonpath={.data.k}").await, "dg==");
    kubectl.ok("create serviceaccount robot").await;
    assert_eq!(kubectl.ok("create token robot").await.split('.').count(), 3);
    kubectl.ok("create job j --image=busybox -- true").await;
    assert!(kubectl.ok("get job j").await.contains("COMPLETIONS"));
    kubectl.ok("delete namespace team --timeout=10s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_events_and_logs() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok_with("apply -f -", &widget_crd()).await;
    kubectl.ok("wait --for=condition=Established crd/widgets.example.com --timeout=5s").await;
    kubectl.ok_with("apply -f -", &widget("w")).await;
    let table = kubectl.ok("get wd").await;
    assert!(table.lines().next().unwrap().split_whitespace().eq(["NAME", "SIZE"]), "{table}");
    let mut wrong = widget("x");
    wrong["spec"]["sizee"] = json!(1);
    let refused = kubectl.run("apply -f -", &wrong.to_string()).await;
    assert!(refused.err.contains(r#"strict decoding error: unknown field "spec.sizee""#), "{}", refused.err);
    assert!(kubectl.ok("explain widget.spec.size").await.contains("How large it is."));
    assert!(kubectl.ok("get all").await.contains("widget.example.com/w"));
    let uid = kubectl.ok("get wd w -o jsonpath={.metadata.uid}").await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "w.1", "namespace": "default"},
        "involvedObject": {"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "namespace": "default", "uid": uid},
        "reason": "Turned", "message": "it turned", "type": "Normal", "source": {"component": "test"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1,
    });
    kubectl.ok_with("create -f -", &event).await;
    assert!(kubectl.ok("describe wd w").await.contains("it turned"));
    assert!(kubectl.ok("events --for widget/w").await.contains("Turned"));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "one", "image": "x"}, {"name": "two", "image": "x"}]},
    });
    kubectl.ok_with("create -f -", &pod).await;
    assert_eq!(kubectl.ok("logs p -c two").await, "two of \"p\"\n");
    assert!(kubectl.ok("get pods").await.contains("Pending"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_as_things_happen() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok_with("create -f -", &map("a")).await;
    let watch = kubectl.run("get cm a -w --request-timeout=3s", "");
    let change = async {
        kubectl.ok("label cm a x=y").await;
    };
    let (watched, ()) = tokio::join!(watch, change);
    assert!(watched.out.lines().count() >= 2, "{}{}", watched.out, watched.err);
}
