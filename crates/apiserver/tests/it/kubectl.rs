//! The real kubectl against the server over TLS.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use embedded_apiserver::{LogError, LogOptions, PodLogs, Server};
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;

use super::{DEADLINE, map, pod, widget, widget_crd};

struct Kubectl {
    server: Server,
    home: tempfile::TempDir,
    config: PathBuf,
    /// Ends containers whose log is followed.
    ends: Arc<Notify>,
}

/// What a command came to.
struct Ran {
    ok: bool,
    out: String,
    err: String,
}

/// A command that has not ended.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn line(&mut self) -> String {
        let next = tokio::time::timeout(DEADLINE, self.lines.next_line());
        next.await.expect("a line comes").unwrap().expect("the command goes on")
    }

    /// Waits for a command that ends by itself.
    async fn succeeds(mut self) {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("the command ends").unwrap();
        assert!(ended.success());
    }
}

/// A container that says its name, and more once it is told to end.
#[derive(Default)]
struct Echo(Arc<Notify>);

#[async_trait]
impl PodLogs for Echo {
    async fn logs(
        &self,
        pod: &Value,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<Bytes, LogError>>, LogError> {
        let text = format!("{} of {}\n", options.container.unwrap_or_default(), pod["metadata"]["name"]);
        let first = stream::iter([Ok(Bytes::from(text))]);
        if !options.follow {
            return Ok(first.boxed());
        }
        // The container goes on until the test ends it.
        let ends = self.0.clone();
        let last = stream::once(async move {
            ends.notified().await;
            Ok(Bytes::from_static(b"the end\n"))
        });
        Ok(first.chain(last).boxed())
    }
}

impl Kubectl {
    /// Starts a server; `None`, with a word on stderr, where kubectl is not installed.
    async fn new() -> Option<Self> {
        if Command::new("kubectl").arg("version").arg("--client").stdout(Stdio::null()).status().await.is_err() {
            eprintln!("skipped: kubectl is not installed");
            return None;
        }
        let echo = Echo::default();
        let ends = echo.0.clone();
        let server = Server::builder().pod_logs(Arc::new(echo)).build().await.unwrap();
        let listening = server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let token = server.token("admin", ["system:masters"]);
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("kubeconfig");
        std::fs::write(&config, server.kubeconfig("test", listening.addr, &token)).unwrap();
        Some(Self { server, home, config, ends })
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        command.args(arguments.split_whitespace()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).env("KUBECONFIG", &self.config);
        command.env("EDITOR", "sed -i s/value/edited/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &str, input: &str) -> Ran {
        let mut child = self.command(arguments).spawn().unwrap();
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

    /// Starts a command that goes on; its lines are read as they come.
    fn start(&self, arguments: &str) -> Running {
        let mut child = self.command(arguments).stdin(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
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
    assert!(kubectl.ok("auth can-i --list").await.contains("*.*"));
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
    let early = kubectl.run("apply -f -", &widget("w").to_string()).await;
    let expected = "no matches for kind \"Widget\" in version \"example.com/v1\"\nensure CRDs are installed first";
    assert!(early.err.contains(expected), "{}", early.err);
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
    let mut watch = kubectl.start("get cm -w -l !none -o name");
    let mut seen = vec![watch.line().await, watch.line().await];
    seen.sort();
    assert_eq!(seen, ["configmap/a", "configmap/kube-root-ca.crt"]);
    for command in ["label cm a x=y", "annotate cm a note=1"] {
        kubectl.ok(command).await;
        assert_eq!(watch.line().await, "configmap/a", "after {command}");
    }
    kubectl.ok_with("create -f -", &map("b")).await;
    assert_eq!(watch.line().await, "configmap/b");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_an_end_and_following_a_log() {
    let Some(kubectl) = Kubectl::new().await else { return };
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    kubectl.ok_with("create -f -", &held).await;
    kubectl.ok("delete cm held --wait=false").await;
    let wait = kubectl.start("wait --for=delete cm/held --timeout=15s");
    kubectl.ok(r#"patch cm held --type=merge -p {"metadata":{"finalizers":null}}"#).await;
    wait.succeeds().await;
    kubectl.ok_with("create -f -", &pod("p")).await;
    let mut logs = kubectl.start("logs -f p");
    assert_eq!(logs.line().await, "one of \"p\"");
    kubectl.ends.notify_one();
    assert_eq!(logs.line().await, "the end");
    logs.succeeds().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_every_type_and_applies_that_conflict() {
    let Some(kubectl) = Kubectl::new().await else { return };
    kubectl.ok_with("create -f -", &map("a")).await;
    kubectl.ok(r#"patch cm a --type=json -p [{"op":"add","path":"/data/json","value":"1"}]"#).await;
    kubectl.ok(r#"patch cm a --type=merge -p {"data":{"merge":"2","key":null}}"#).await;
    kubectl.ok(r#"patch cm a --type=strategic -p {"data":{"strategic":"3"}}"#).await;
    let data: Value = serde_json::from_str(&kubectl.ok("get cm a -o jsonpath={.data}").await).unwrap();
    assert_eq!(data, json!({"json": "1", "merge": "2", "strategic": "3"}));
    kubectl.ok_with("apply --server-side --field-manager=one -f -", &map("b")).await;
    let mut other = map("b");
    other["data"]["key"] = json!("other");
    let refused = kubectl.run("apply --server-side --field-manager=two -f -", &other.to_string()).await;
    assert!(!refused.ok);
    assert!(refused.err.contains(r#"conflict with "one": .data.key"#), "{}", refused.err);
    let forced = "apply --server-side --field-manager=two --force-conflicts -f -";
    assert_eq!(kubectl.ok_with(forced, &other).await, "configmap/b serverside-applied\n");
    assert_eq!(kubectl.ok("get cm b -o jsonpath={.data.key}").await, "other");
}
