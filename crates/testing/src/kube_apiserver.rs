//! A real kube-apiserver with its etcd, for tests that must hold on both: the embedded server and the real one.
//!
//! `KUBEBUILDER_ASSETS` names the directory of the programs, as it does for envtest. Where `kube-controller-manager` is
//! there as well it collects garbage, clears namespaces and makes default accounts, which the embedded server does itself;
//! Jobs and Pods stay with the embedded node.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::authority::Identity;
use crate::wait;

/// Set by `cargo xtask test --real-apiserver`.
const SWITCH: &str = "KRATIX_TEST_REAL_APISERVER";
const ASSETS: &str = "KUBEBUILDER_ASSETS";
const TOKEN: &str = "the-administrator-of-this-test";
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,\
                           root-ca-certificate-publisher-controller";

/// Returns the directory of the programs if tests are to run against the real server.
///
/// # Panics
/// When they are to, and nobody has said where the programs are.
pub fn assets() -> Option<PathBuf> {
    std::env::var_os(SWITCH)?;
    let assets = std::env::var_os(ASSETS).expect("KUBEBUILDER_ASSETS names the directory of kube-apiserver and etcd");
    Some(assets.into())
}

/// What is written down of every write: who made it, and whether it was accepted. Reads are left out.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [{"level": "None", "verbs": ["get", "list", "watch"]}, {"level": "Metadata"}]
}"#;

/// A running server; it ends when dropped, and its data goes.
pub struct KubeApiServer {
    directory: TempDir,
    processes: Vec<Child>,
    config: Config,
}

impl KubeApiServer {
    /// Starts everything and returns when requests are answered.
    ///
    /// # Panics
    /// When a program is missing or does not come up.
    pub async fn start(assets: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (clients, peers, port) = (free_port(), free_port(), free_port());
        let identity = Identity::local();
        let account_key = rcgen::KeyPair::generate().expect("a key");
        let at = |name: &str| directory.path().join(name);
        for (name, text) in [
            ("ca.crt", identity.ca_pem.clone()),
            ("server.crt", identity.certificate.pem()),
            ("server.key", identity.key.serialize_pem()),
            ("accounts.key", account_key.serialize_pem()),
            ("accounts.pub", account_key.public_key_pem()),
            ("tokens.csv", format!("{TOKEN},administrator,administrator,system:masters\n")),
            ("kubeconfig", kubeconfig(port, &at("ca.crt"))),
            ("audit.json", AUDIT_POLICY.to_owned()),
        ] {
            std::fs::write(at(name), text).expect("a file");
        }
        let path = |name: &str| at(name).display().to_string();
        let (client_url, peer_url) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
        let etcd = [
            "--name=default".to_owned(),
            format!("--data-dir={}", path("etcd")),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            // Nothing of a test has to survive the machine.
            "--unsafe-no-fsync=true".to_owned(),
        ];
        let server = [
            format!("--etcd-servers={client_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={port}"),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", path("accounts.pub")),
            format!("--service-account-signing-key-file={}", path("accounts.key")),
            format!("--audit-policy-file={}", path("audit.json")),
            format!("--audit-log-path={}", path("audit.log")),
            // The heartbeat of a server that is alone: tests count writes.
            "--feature-gates=APIServerIdentity=false".to_owned(),
        ];
        let administrator = Kubeconfig::read_from(at("kubeconfig")).expect("it was just written");
        let config = Config::from_custom_kubeconfig(administrator, &KubeConfigOptions::default()).await;
        let mut started = Self { processes: Vec::new(), config: config.expect("it is complete"), directory };
        started.run(&assets.join("etcd"), &etcd);
        started.run(&assets.join("kube-apiserver"), &server);
        started.ready().await;
        if assets.join("kube-controller-manager").exists() {
            let manager = [
                format!("--kubeconfig={}", started.kubeconfig().display()),
                format!("--controllers={CONTROLLERS}"),
                format!("--root-ca-file={}", started.path("ca.crt").display()),
                format!("--service-account-private-key-file={}", started.path("accounts.key").display()),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ];
            started.run(&assets.join("kube-controller-manager"), &manager);
            // Without it the server takes no pod.
            let accounts = Api::<ServiceAccount>::namespaced(started.client("administrator"), "default");
            wait::until(&accounts, "default", "the default account", |_| true).await;
        }
        started
    }

    fn run(&mut self, program: &Path, args: &[String]) {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = File::create(self.path(&format!("{name}.log"))).expect("a log");
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).kill_on_drop(true);
        let process = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        self.processes.push(process);
    }

    /// Returns the kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// Returns a client of a user who may do everything.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn client(&self, user: &str) -> Client {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
        Client::try_from(config).expect("a client")
    }

    /// Returns how many writes of a user were accepted, by verb and resource as in `create jobs.batch`; dry runs apart.
    ///
    /// # Panics
    /// When the audit log cannot be read.
    pub fn writes(&self, user: &str) -> BTreeMap<String, u64> {
        let log = std::fs::read_to_string(self.path("audit.log")).expect("the server writes its audit log");
        let mut counts = BTreeMap::new();
        // The last line may be on its way.
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let events = lines.map(|line| serde_json::from_str(line).expect("an audit event"));
        for kind in events.filter_map(|event: Value| write_of(&event, user)) {
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn ready(&self) {
        wait::poll("kube-apiserver to be ready", || async {
            let client = Client::try_from(self.config.clone()).expect("a client");
            // The namespaces that every cluster has come a moment after the first answer.
            let ready = async {
                let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
                client.request_text(request).await?;
                Api::<Namespace>::all(client.clone()).get("default").await
            };
            match ready.await {
                Ok(_) => Ok(()),
                Err(error) => {
                    let log = std::fs::read_to_string(self.path("kube-apiserver.log")).unwrap_or_default();
                    let last: Vec<&str> = log.lines().rev().take(5).collect();
                    Err(format!("{error}; {}", last.join("\n")))
                }
            }
        })
        .await;
    }
}

/// Returns a port that was free a moment ago. These programs cannot be told to take any.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Returns verb and resource of a write of this user that was accepted.
fn write_of(event: &Value, user: &str) -> Option<String> {
    let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
    // Clients of users are the administrator's, who acts for them.
    let is_accepted = event["responseStatus"]["code"].as_u64().is_some_and(|code| (200..300).contains(&code));
    if text("/impersonatedUser/username") != user || !is_accepted || text("/requestURI").contains("dryRun=") {
        return None;
    }
    let (mut resource, group) = (text("/objectRef/resource").to_owned(), text("/objectRef/apiGroup"));
    for (separator, part) in [(".", group), ("/", text("/objectRef/subresource"))] {
        if !part.is_empty() {
            resource.push_str(separator);
            resource.push_str(part);
        }
    }
    Some(format!("{} {resource}", text("/verb")))
}

fn kubeconfig(port: u16, authority: &Path) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "real",
        "contexts": [{"name": "real", "context": {"cluster": "real", "user": "real"}}],
        "clusters": [{"name": "real", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority}}],
        "users": [{"name": "real", "user": {"token": TOKEN}}],
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_for_whom_it_was_made_when_it_was_accepted() {
        let event = json!({
            "verb": "patch", "requestURI": "/apis/batch/v1/namespaces/default/jobs/a/status?fieldManager=k",
            "user": { "username": "administrator" }, "impersonatedUser": { "username": "manager" },
            "objectRef": { "resource": "jobs", "apiGroup": "batch", "subresource": "status", "name": "a" },
            "responseStatus": { "code": 200 },
        });
        let with = |path: &str, value: Value| {
            let mut event = event.clone();
            *event.pointer_mut(path).expect("it is there") = value;
            write_of(&event, "manager")
        };
        assert_eq!(write_of(&event, "manager").as_deref(), Some("patch jobs.batch/status"));
        assert_eq!(with("/objectRef", json!({ "resource": "pods" })).as_deref(), Some("patch pods"));
        assert_eq!(write_of(&event, "administrator"), None);
        assert_eq!(with("/responseStatus/code", json!(409)), None);
        assert_eq!(with("/requestURI", json!("/api/v1/namespaces/default/pods?dryRun=All")), None);
    }
}
