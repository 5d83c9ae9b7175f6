//! The program, as its users run it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::process;

/// Builds it.
pub(super) fn build() -> Result<()> {
    process::build("kratix")
}

/// Writes by who makes them.
#[derive(Clone, Copy, Default)]
pub(super) struct Writes {
    /// The controllers and the containers of pipelines.
    pub(super) kratix: u64,
    /// Of these, Events.
    pub(super) kratix_events: u64,
    /// What a kubelet and the Job controller do elsewhere.
    pub(super) node: u64,
}

impl Writes {
    /// Reads the counters of the embedded API server.
    fn parse(metrics: &str) -> Result<Self> {
        let mut writes = Self::default();
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let (labels, count) = line.rsplit_once(' ').context("a count")?;
            let count: u64 = count.parse()?;
            if labels.contains("user=\"system:serviceaccount:") {
                writes.kratix += count;
                if labels.contains("resource=\"events") {
                    writes.kratix_events += count;
                }
            } else if labels.contains("user=\"system:node:") {
                writes.node += count;
            }
        }
        Ok(writes)
    }
}

impl std::ops::Sub for Writes {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            kratix: self.kratix - before.kratix,
            kratix_events: self.kratix_events - before.kratix_events,
            node: self.node - before.node,
        }
    }
}

/// The running program.
pub(super) struct Program {
    child: Child,
    pub(super) data: PathBuf,
    pub(super) client: Client,
}

impl Program {
    pub(super) async fn start(data: &Path) -> Result<Self> {
        let program = process::built("kratix");
        let mut child = Command::new(&program)
            .args(["up", "--listen", "127.0.0.1:0", "--output", "json", "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        lines.next_line().await?.context("it ended at once")?;
        let kubeconfig = Kubeconfig::read_from(data.join("kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { child, data: data.to_owned(), client: Client::try_from(config)? })
    }

    pub(super) async fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().context("it runs")?;
        std::process::Command::new("kill").arg(pid.to_string()).status()?;
        self.child.wait().await?;
        Ok(())
    }

    pub(super) fn kubectl_get_promises(&self) -> Result<()> {
        let output = std::process::Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.data.join("kubeconfig"))
            .args(["get", "promises"])
            .output()
            .context("starting kubectl")?;
        if !output.status.success() {
            bail!("kubectl get promises: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Returns the revision of the newest write; every write of any object raises it by one.
    pub(super) async fn revision(&self) -> Result<u64> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let list = namespaces.list(&ListParams::default().limit(1)).await?;
        Ok(list.metadata.resource_version.context("a list has a version")?.parse()?)
    }

    pub(super) async fn writes(&self) -> Result<Writes> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Writes::parse(&self.client.request_text(request).await?)
    }

    /// Waits until nothing was written for two seconds, and returns the revision then.
    pub(super) async fn at_rest(&self) -> Result<u64> {
        let mut last = (self.revision().await?, Instant::now());
        while last.1.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.revision().await?;
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        Ok(last.0)
    }

    fn proc(&self, file: &str) -> Result<String> {
        let pid = self.child.id().context("it runs")?;
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("reading /proc/{pid}/{file}"))
    }

    pub(super) fn resident_mib(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib / 1024)
    }

    /// Returns the processor time the program has used, in units of 10 ms.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("fields")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    pub(super) fn head(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.data.join("state.git/refs/heads/main"))?)
    }

    /// Returns the paths of the files of requests in the repository.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut command = std::process::Command::new("git");
        command.args(["ls-tree", "-r", "--name-only", "main"]).current_dir(self.data.join("state.git"));
        let files = super::run_to_end(&mut command)?;
        Ok(files.lines().filter(|path| path.ends_with("cluster.yaml")).map(str::to_owned).collect())
    }
}
