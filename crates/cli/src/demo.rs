//! `kratix demo`: the path of one request, live, on a platform of its own.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kratix_api::{Promise, Work, WorkPlacement, keys};
use kratix_platform::{Options, Platform, Runtime, bootstrap};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;

use crate::args;
use crate::failure::Failure;
use crate::printer::{Format, Printer};
use crate::up;

const PROMISE: &str = include_str!("../../../examples/database/promise.yaml");
const REQUEST: &str = include_str!("../../../examples/database/request.yaml");
/// How long one step may take: three orders of magnitude more than it needs.
const STEP: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "default";
const NAME: &str = "orders";

/// Runs the demonstration and cleans up.
pub(crate) async fn run(printer: &Printer, demo: args::Demo) -> Result<ExitCode, Failure> {
    let directory = match &demo.data_dir {
        Some(directory) => Directory::Given(directory.clone()),
        None => Directory::temporary()?,
    };
    let mut told = Told { printer, started: Instant::now(), last: Instant::now() };
    told.title();
    let options = Options {
        data_dir: directory.path(),
        // Any free port: the demonstration must not get in the way of a platform that is running.
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        kubeconfig: None,
        api_server: None,
        runtime: Runtime::Auto,
    };
    let platform = up::start(options).await?;
    let outcome = show(&mut told, &platform).await;
    if outcome.is_ok() && demo.keep {
        keep(printer, &platform);
        up::stopped().await?;
    }
    platform.stop().await;
    drop(directory);
    outcome?;
    if !demo.keep {
        next(printer);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the data of the demonstration goes.
enum Directory {
    Given(PathBuf),
    Temporary(PathBuf),
}

impl Directory {
    fn temporary() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("kratix-demo-{}", std::process::id()));
        // Everybody can look into the directory of temporary files.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self::Temporary(path))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Given(path) | Self::Temporary(path) => path.clone(),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::warn!(path = %path.display(), %error, "the data of the demonstration stays");
        }
    }
}

async fn show(told: &mut Told<'_>, platform: &Platform) -> Result<(), Failure> {
    let (hub, worker) = (platform.platform_client(), platform.worker_client());
    told.step("platform", &format!("API server at {}, worker-1 beside it", platform.running().platform));

    let promise: Promise = serde_saphyr::from_str(PROMISE)?;
    Api::all(hub.clone()).create(&PostParams::default(), &promise).await?;
    let promises: Api<Promise> = Api::all(hub.clone());
    wait(&promises, "database", "Promise database to be available", |promise| {
        condition(promise.status.as_ref().map(|status| status.conditions.as_slice()), "Available")
    })
    .await?;
    told.step("promise", "database is published: kubectl get databases.example.kratix.io works");

    let request: DynamicObject = serde_saphyr::from_str(REQUEST)?;
    let requests = custom(&hub, "example.kratix.io", "Database", "databases", NAMESPACE);
    let asked = Instant::now();
    requests.create(&PostParams::default(), &request).await?;
    told.step("request", &format!("{NAMESPACE}/{NAME} asked for"));

    let selector = format!("{}={NAME}", keys::RESOURCE_NAME);
    let job: Job = first(&hub, &selector, "a Job for the request", |_| true).await?;
    told.step("job", &format!("{} runs the Promise's pipeline", job.name_any()));
    let pod: Pod = first(&hub, &selector, "the Pod of the pipeline to end", |pod: &Pod| {
        pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|phase| phase == "Succeeded")
    })
    .await?;
    told.step("pod", &format!("{} has run {}", pod.name_any(), containers(&pod).join(" ► ")));
    let work: Work = first(&hub, &selector, "a Work with the pipeline's documents", |_| true).await?;
    told.step("work", &format!("{} holds {}", work.name_any(), files(&work).join(", ")));
    let placement: WorkPlacement =
        first(&hub, &selector, "the placement to be written", |placement: &WorkPlacement| {
            condition(placement.status.as_ref().map(|status| status.conditions.as_slice()), "WriteSucceeded")
        })
        .await?;
    let commit = placement.status.as_ref().map(|status| status.version_id.clone()).unwrap_or_default();
    told.step("placement", &format!("{} goes to {}", placement.name_any(), placement.spec.target_destination_name));
    told.step(
        "store",
        &format!("commit {} holds it, {} ms after the request", short(&commit), asked.elapsed().as_millis()),
    );

    let clusters = custom(&worker, "db.example.org", "PostgresCluster", "postgresclusters", "databases");
    let cluster = wait(&clusters, NAME, "the worker to have the PostgresCluster", |_| true).await?;
    told.step("worker", &format!("has PostgresCluster databases/{NAME}: {}", cluster.data["spec"]));
    let request = wait(&requests, NAME, "the request to be reconciled", |request: &DynamicObject| {
        let conditions = request.data.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| c["type"] == "Reconciled" && c["status"] == "True")
    })
    .await?;
    told.step("status", request.data.pointer("/status/message").and_then(Value::as_str).unwrap_or("reconciled"));
    told.files(platform).await?;
    told.object(&cluster);
    Ok(())
}

fn custom(client: &Client, group: &str, kind: &str, plural: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn condition(conditions: Option<&[kratix_api::Condition]>, type_: &str) -> bool {
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.r#type == type_ && condition.status == kratix_api::condition::Status::True)
}

fn containers(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    init.iter().chain(main).map(|container| container.name.clone()).collect()
}

fn files(work: &Work) -> Vec<String> {
    let groups = work.spec.workload_groups.iter();
    groups.flat_map(|group| &group.workloads).map(|workload| workload.filepath.clone()).collect()
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// Waits until the object of this name satisfies `is`, by watching.
async fn wait<K>(api: &Api<K>, name: &str, what: &str, is: impl Fn(&K) -> bool) -> Result<K, Failure>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    until(api, config, what, is).await
}

/// Waits for the first object of the default namespace that carries the labels and satisfies `is`.
async fn first<K>(client: &Client, selector: &str, what: &str, is: impl Fn(&K) -> bool) -> Result<K, Failure>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    until(&api, watcher::Config::default().labels(selector), what, is).await
}

async fn until<K>(api: &Api<K>, config: watcher::Config, what: &str, is: impl Fn(&K) -> bool) -> Result<K, Failure>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    use futures::{StreamExt, TryStreamExt};
    use kube::runtime::WatchStreamExt;

    let mut last = None;
    let search = async {
        let mut objects = watcher(api.clone(), config).default_backoff().applied_objects().boxed();
        loop {
            match objects.try_next().await {
                Ok(Some(object)) if is(&object) => return Ok(object),
                Ok(Some(object)) => last = Some(object),
                Ok(None) => return Err(Failure::new(format!("the watch ended while waiting for {what}"))),
                // The kind may not be served yet; the watch tries again.
                Err(error) => tracing::debug!(%error, "waiting for {what}"),
            }
        }
    };
    match tokio::time::timeout(STEP, search).await {
        Ok(found) => found,
        Err(_) => Err(Failure::new(format!("waited {} s for {what}; last seen: {last:?}", STEP.as_secs()))),
    }
}

/// What has been told so far, and when.
struct Told<'a> {
    printer: &'a Printer,
    started: Instant,
    last: Instant,
}

impl Told<'_> {
    fn title(&self) {
        if self.printer.format == Format::Text {
            self.printer.data(self.printer.bold("The path of one request"));
            self.printer.data("");
        }
    }

    fn step(&mut self, step: &str, text: &str) {
        let (at, took) = (self.started.elapsed(), self.last.elapsed());
        self.last = Instant::now();
        if self.printer.format == Format::Json {
            let line = serde_json::json!({"step": step, "atSeconds": at.as_secs_f64(), "text": text});
            self.printer.json(&line);
            return;
        }
        let time = self.printer.dim(&format!("{:>7.3} s {:>+8.3}", at.as_secs_f64(), took.as_secs_f64()));
        self.printer.data(format_args!("{time}  {}  {text}", self.printer.bold(&format!("{step:<9}"))));
    }

    async fn files(&self, platform: &Platform) -> Result<(), Failure> {
        let files = platform.files().await?;
        if self.printer.format == Format::Json {
            self.printer.json(&serde_json::json!({"files": files}));
            return Ok(());
        }
        self.printer.data("");
        self.printer.data(self.printer.bold("Files in the Git state store"));
        for file in files {
            self.printer.data(format_args!("  {file}"));
        }
        Ok(())
    }

    fn object(&self, object: &DynamicObject) {
        if self.printer.format == Format::Json {
            return;
        }
        self.printer.data("");
        self.printer.data(self.printer.bold("On the worker"));
        let spec = serde_saphyr::to_string(&object.data["spec"]).unwrap_or_default();
        self.printer.data(format_args!("  kind: PostgresCluster\n  name: {}", object.name_any()));
        for line in spec.lines() {
            self.printer.data(format_args!("  {line}"));
        }
    }
}

fn keep(printer: &Printer, platform: &Platform) {
    printer.talk("");
    printer.talk("The platform stays until Ctrl-C. Try, in another terminal:");
    printer.talk(format_args!("  export KUBECONFIG={}", platform.running().kubeconfig.display()));
    printer.talk("  kubectl get promises,databases,works,workplacements");
    printer.talk("  kubectl patch database orders --type merge -p '{\"spec\":{\"size\":\"large\"}}'");
    printer.talk(format_args!("  kubectl --context {} get postgresclusters -A", bootstrap::WORKER));
    printer.talk("  kubectl delete database orders");
}

fn next(printer: &Printer) {
    if printer.format == Format::Json {
        return;
    }
    printer.talk("");
    printer.talk("Everything above really happened, and is stopped and removed again. To stay:");
    printer.talk("  kratix up --detach");
    printer.talk("  export KUBECONFIG=$(kratix status --kubeconfig-path)");
    printer.talk("  kubectl apply -f examples/database/promise.yaml");
    printer.talk("  kubectl apply -f examples/database/request.yaml");
    printer.talk("  kubectl get databases,works,workplacements");
}
