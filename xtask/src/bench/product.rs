//! The product as its users run it.
//!
//! The release program in a directory of its own, on the loopback interface, real containers, a local Git repository.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kratix_api::{Promise, WorkPlacement, condition};
use kratix_state_store::{Change, File, GitConfig};
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Table;

const PROMISE: &str = include_str!("../../../examples/database/promise.yaml");
const WARM: usize = 10;
const AT_ONCE: usize = 100;
const IDLE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(300);
const FILES: usize = 10_000;
const PLACEMENTS: usize = 200;

/// Measures everything and prints one table.
pub(crate) fn run() -> Result<()> {
    let build = std::process::Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--package", "kratix"])
        .status()
        .context("starting cargo")?;
    if !build.success() {
        bail!("the release build failed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut table = Table::new(&["What", "Measured"]);

    let began = Instant::now();
    let mut program = Program::start(&directory.path().join("data")).await?;
    program.kubectl_get_promises()?;
    line(
        &mut table,
        "`kratix up` until `kubectl get promises` answers",
        format!("{:.2} s", began.elapsed().as_secs_f64()),
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    line(&mut table, "Resident memory, idle", format!("{} MiB", program.resident_mib()?));

    publish(&program).await?;
    let mut warm = Vec::new();
    for n in 0..=WARM {
        let took = ask(&program, &[format!("warm-{n}")]).await?;
        // The first one makes accounts and roles.
        if n > 0 {
            warm.push(took);
        }
    }
    warm.sort();
    let spread = format!("{} – {} ms", warm[0].as_millis(), warm[WARM - 1].as_millis());
    line(
        &mut table,
        format!("One warm request, apply → commit (median of {WARM})"),
        format!("{} ms ({spread})", warm[WARM / 2].as_millis()),
    );

    program.at_rest().await?;
    let quiet = program.writes().await?;
    let names: Vec<String> = (0..AT_ONCE).map(|n| format!("many-{n}")).collect();
    let took = ask(&program, &names).await?;
    line(&mut table, format!("{AT_ONCE} requests at once, all written"), format!("{:.1} s", took.as_secs_f64()));
    program.at_rest().await?;
    let writes = program.writes().await? - quiet;
    let per_request = |writes: u64| format!("{:.1}", writes as f64 / AT_ONCE as f64);
    line(&mut table, "API writes per request, Kratix and its containers", per_request(writes.kratix));
    line(&mut table, "… without Events", per_request(writes.kratix - writes.kratix_events));
    line(&mut table, "… of the node (Pod, Job, Events), beside them", per_request(writes.node));
    line(
        &mut table,
        format!("Resident memory after {} requests", AT_ONCE + WARM + 1),
        format!("{} MiB", program.resident_mib()?),
    );

    let (revision, cpu, head) = (program.revision().await?, program.cpu()?, program.head()?);
    tokio::time::sleep(IDLE).await;
    let idle = format!(
        "{} API writes, {} commits, {:.2} CPU-s",
        program.revision().await? - revision,
        usize::from(program.head()? != head),
        (program.cpu()? - cpu).as_secs_f64()
    );
    line(&mut table, format!("Idle for {} s", IDLE.as_secs()), idle);

    let before = program.revision().await?;
    program.stop().await?;
    let mut program = Program::start(&directory.path().join("data")).await?;
    line(&mut table, "Restart with nothing changed", format!("{} API writes", program.at_rest().await? - before));
    program.stop().await?;

    let rate = store(&directory.path().join("store")).await?;
    line(&mut table, format!("{PLACEMENTS} placements into a repository of {FILES} files"), format!("{rate:.0}/s"));
    table.print();
    Ok(())
}

fn line(table: &mut Table, what: impl Into<String>, measured: String) {
    table.row(vec![what.into(), measured]);
}

async fn publish(program: &Program) -> Result<()> {
    let promise: Promise = serde_saphyr::from_str(PROMISE)?;
    let promises: Api<Promise> = Api::all(program.client.clone());
    promises.create(&PostParams::default(), &promise).await?;
    let config = watcher::Config::default().fields("metadata.name=database");
    let mut changes = watcher(promises, config).default_backoff().applied_objects().boxed();
    let available = async {
        while let Some(promise) = changes.try_next().await? {
            let conditions = promise.status.map(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.r#type == "Available" && c.status == condition::Status::True) {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(DEADLINE, available).await.context("waiting for the Promise")?
}

/// Asks for databases of these names at once and returns how long it took until all are written.
async fn ask(program: &Program, names: &[String]) -> Result<Duration> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.kratix.io", "v1", "Database"), "databases");
    let requests: Api<DynamicObject> = Api::namespaced_with(program.client.clone(), "default", &resource);
    let placements: Api<WorkPlacement> = Api::namespaced(program.client.clone(), "default");
    let mut changes = watcher(placements, watcher::Config::default()).default_backoff().applied_objects().boxed();
    let began = Instant::now();
    let create = futures::stream::iter(names).map(Ok::<_, anyhow::Error>).try_for_each_concurrent(16, |name| {
        let requests = requests.clone();
        async move {
            let request = DynamicObject::new(name, &resource_of()).data(json!({"spec": {"size": "small"}}));
            requests.create(&PostParams::default(), &request).await?;
            Ok(())
        }
    });
    let written = async {
        let mut missing: std::collections::BTreeSet<&String> = names.iter().collect();
        while !missing.is_empty() {
            let Some(placement) = changes.try_next().await? else { bail!("the watch ended") };
            let conditions = placement.status.map(|status| status.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.r#type == "WriteSucceeded" && c.status == condition::Status::True) {
                missing.remove(&placement.spec.resource_name);
            }
        }
        Ok(())
    };
    tokio::time::timeout(DEADLINE, futures::future::try_join(create, written))
        .await
        .context("waiting for the files")??;
    Ok(began.elapsed())
}

fn resource_of() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.kratix.io", "v1", "Database"), "databases")
}

/// Returns placements written per second into a repository that is not empty.
async fn store(directory: &Path) -> Result<f64> {
    let repository = directory.join("state.git");
    std::fs::create_dir_all(&repository)?;
    kratix_state_store::init_bare(&repository, "main").map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
    let store =
        kratix_state_store::open(GitConfig::new("bench", repository.to_string_lossy()), directory.join("cache"))?;
    for hundred in 0..FILES / 100 {
        let files = (0..100).map(|n| File::new(format!("{n}.yaml"), format!("file: {hundred}-{n}\n"))).collect();
        store.write(Change::replace(format!("seed-{hundred}"), format!("seed/{hundred}"), files)).await?;
    }
    let began = Instant::now();
    let writes = (0..PLACEMENTS).map(|n| {
        let files = vec![File::new("document.yaml", format!("placement: {n}\n"))];
        store.write(Change::replace(format!("placement-{n}"), format!("worker-1/resources/default/p/{n}"), files))
    });
    futures::future::try_join_all(writes).await?;
    Ok(PLACEMENTS as f64 / began.elapsed().as_secs_f64())
}

/// Writes by who makes them.
#[derive(Clone, Copy, Default)]
struct Writes {
    /// The controllers and the containers of pipelines.
    kratix: u64,
    /// Of these, Events.
    kratix_events: u64,
    /// What a kubelet and the Job controller do elsewhere.
    node: u64,
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
struct Program {
    child: Child,
    data: PathBuf,
    client: Client,
}

impl Program {
    async fn start(data: &Path) -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
        let mut child = Command::new(target.join("release/kratix"))
            .args(["up", "--listen", "127.0.0.1:0", "--output", "json", "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting target/release/kratix")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        lines.next_line().await?.context("it ended at once")?;
        let kubeconfig = Kubeconfig::read_from(data.join("kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { child, data: data.to_owned(), client: Client::try_from(config)? })
    }

    async fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().context("it runs")?;
        std::process::Command::new("kill").arg(pid.to_string()).status()?;
        self.child.wait().await?;
        Ok(())
    }

    fn kubectl_get_promises(&self) -> Result<()> {
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
    async fn revision(&self) -> Result<u64> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let list = namespaces.list(&ListParams::default().limit(1)).await?;
        Ok(list.metadata.resource_version.context("a list has a version")?.parse()?)
    }

    async fn writes(&self) -> Result<Writes> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Writes::parse(&self.client.request_text(request).await?)
    }

    /// Waits until nothing was written for two seconds, and returns the revision then.
    async fn at_rest(&self) -> Result<u64> {
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

    fn resident_mib(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib / 1024)
    }

    /// Returns the processor time the program has used, in units of 10 ms.
    fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("fields")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    fn head(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.data.join("state.git/refs/heads/main"))?)
    }
}
