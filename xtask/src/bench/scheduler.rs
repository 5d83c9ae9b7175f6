//! Scheduling at scale: one decision among many Destinations, and the change of one Destination under many Works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kratix_api::{Destination, GitStateStore, Work, WorkPlacement, compression, condition, keys};
use kratix_core::plan::Write;
use kratix_core::work::{Snapshot, decide};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::span::{Attributes, Id, Record};

use super::cell::Task;
use super::process::Used;
use super::works::{World, in_time};
use super::{Table, process, repository};

const WORKS: usize = 10_000;
const DESTINATIONS: usize = 1_000;
/// So many Destinations share one value of the label by which Works select.
const SHARING: usize = 10;
/// Repetitions of a decision; the median counts.
const REPEATED: usize = 21;
const DOT: &str = "5058f1af8388633f609cadb75a75dc9d";

/// What one process is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setting {
    works: usize,
    destinations: usize,
    directory: PathBuf,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    rows: Vec<(String, String)>,
}

/// Measures and prints.
pub(super) fn run(quick: bool) -> Result<()> {
    let (works, destinations) = if quick { (WORKS / 10, DESTINATIONS / 10) } else { (WORKS, DESTINATIONS) };
    let directory = tempfile::tempdir()?;
    repository::make(&directory.path().join("state.git"), 0)?;
    let setting = Setting { works, destinations, directory: directory.path().to_owned() };
    let measured: Measured = process::alone(&Task::Scheduler(setting))?;
    let mut table = Table::new(&["What", "Measured"]);
    measured.rows.into_iter().for_each(|(what, value)| table.row(vec![what, value]));
    table.print();
    Ok(())
}

/// Measures in this process.
pub(super) async fn measure(setting: Setting) -> Result<Measured> {
    let mut rows = decisions(setting.destinations)?;
    rows.extend(changes(&setting).await?);
    Ok(Measured { rows })
}

fn destination(at: usize) -> Result<Destination> {
    Ok(serde_json::from_value(json!({
        "apiVersion": keys::API_VERSION, "kind": "Destination",
        "metadata": {"name": format!("worker-{at:04}"), "labels": {
            "fleet": "all", "pool": format!("pool-{}", at / SHARING), "zone": format!("zone-{}", at % 3),
        }},
        "spec": {
            "path": format!("worker-{at:04}"), "filepath": {"mode": "nestedByMetadata"},
            "stateStoreRef": {"kind": "GitStateStore", "name": "store"},
        },
    }))?)
}

/// A Work of a request, or of a dependency where `request` is empty.
fn work(name: &str, request: &str, selects: &[(&str, &str)]) -> Result<Work> {
    let content = compression::compress(format!("name: {name}\n").as_bytes());
    let labels: BTreeMap<&str, &str> = selects.iter().copied().collect();
    Ok(serde_json::from_value(json!({
        "apiVersion": keys::API_VERSION, "kind": "Work",
        "metadata": {"name": name, "namespace": "default", "finalizers": [keys::FINALIZER_WORK_CLEANUP]},
        "spec": {
            "promiseName": "redis", "resourceName": request,
            "workloadGroups": [{
                "id": DOT, "directory": ".", "workloads": [{"filepath": "a.yaml", "content": content}],
                "destinationSelectors": [{"source": "promise", "matchLabels": labels}],
            }],
        },
    }))?)
}

/// Decisions alone, without any shell.
fn decisions(destinations: usize) -> Result<Vec<(String, String)>> {
    let all = (0..destinations).map(|at| destination(at).map(Arc::new)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    let mut row =
        |what: &str, time: Duration| rows.push((format!("{what}, {destinations} Destinations"), millis(time)));
    let snapshot = |mut work: Work, placements: Vec<Arc<WorkPlacement>>| {
        (work.metadata.uid, work.metadata.generation) = (Some("uid".into()), Some(1));
        Snapshot {
            now: Timestamp::UNIX_EPOCH,
            work: Arc::new(work),
            destinations: all.clone(),
            places: BTreeMap::new(),
            placements,
            neighbours: Vec::new(),
        }
    };
    row("Building a snapshot", median(|| Ok(all.clone()))?);
    let fleet = [("fleet", "all")];
    let first = snapshot(work("w", "r", &fleet)?, Vec::new());
    row("First choice of a request that all match", median(|| Ok(decide(&first)))?);
    let none = snapshot(work("w", "r", &[("fleet", "none")])?, Vec::new());
    row("A request that none matches, with the nearest", median(|| Ok(decide(&none)))?);
    let settled = |snapshot_of: &Snapshot| -> Result<Vec<Arc<WorkPlacement>>> { placed(snapshot_of) };
    let rest = snapshot(work("w", "r", &fleet)?, settled(&first)?);
    row("A request that has its place", median(|| Ok(decide(&rest)))?);
    let fresh = snapshot(work("w", "", &fleet)?, Vec::new());
    row("A dependency that goes everywhere, at first", median(|| Ok(decide(&fresh)))?);
    let everywhere = settled(&fresh)?;
    let rest = snapshot(work("w", "", &fleet)?, everywhere.clone());
    row("… at rest", median(|| Ok(decide(&rest)))?);
    let moved = snapshot(work("w", "", &[("zone", "zone-1")])?, everywhere);
    row("… two thirds of which no longer match", median(|| Ok(decide(&moved)))?);
    Ok(rows)
}

/// Returns the placements that a first pass makes.
fn placed(snapshot: &Snapshot) -> Result<Vec<Arc<WorkPlacement>>> {
    let made = decide(snapshot).writes.into_iter().filter_map(|write| match write {
        Write::Create { object, .. } => Some(object),
        _ => None,
    });
    let mut placements = Vec::new();
    for object in made {
        let mut placement: WorkPlacement = serde_json::from_value(object)?;
        placement.metadata.creation_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        placement.metadata.generation = Some(1);
        placements.push(Arc::new(placement));
    }
    placements.sort_by_key(|placement| placement.name_any());
    Ok(placements)
}

fn median<T>(mut what: impl FnMut() -> Result<T>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..REPEATED {
        let began = Instant::now();
        let result = what()?;
        times.push(began.elapsed());
        drop(result);
    }
    times.sort();
    Ok(times[REPEATED / 2])
}

/// The whole way, from the change of a Destination to what its Works say.
async fn changes(setting: &Setting) -> Result<Vec<(String, String)>> {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).context("one subscriber")?;
    let world = World::start(&setting.directory).await?;
    fill(&world, setting).await?;
    world.rest().await?;
    let mut rows = Vec::new();
    let memory = Used::now()?.peak_kib / 1024;
    rows.push((
        format!("Peak memory with {} Works placed, API server included", setting.works),
        format!("{memory} MiB"),
    ));

    for (what, label) in [
        ("A label that nobody selects", json!({"team": "x"})),
        ("Its pool, which a tenth of a percent of the Works select", json!({"pool": "pool-elsewhere"})),
        ("… and back", json!({"pool": "pool-0"})),
        ("A label that all Works select", json!({"fleet": "none"})),
        ("… and back", json!({"fleet": "all"})),
    ] {
        spans.reset();
        let labels = json!({"metadata": {"labels": label}});
        let destinations: Api<Destination> = Api::all(world.user.clone());
        let before = world.writes().values().sum::<u64>();
        let began = Instant::now();
        destinations.patch("worker-0000", &PatchParams::default(), &Patch::Merge(labels)).await?;
        in_time(async {
            while spans.lookups() == 0 {
                tokio::task::yield_now().await;
            }
            Ok(())
        })
        .await?;
        let took = world.rest().await?.duration_since(began);
        rows.push((
            format!("{what}: finding whom it concerns, among {} Works", setting.works),
            format!("{} ({} passes over Works)", millis(spans.lookup_time()), spans.passes()),
        ));
        let writes = world.writes().values().sum::<u64>() - before;
        rows.push(("… until the last of them is done".to_owned(), format!("{} ({writes} API writes)", millis(took))));
    }
    spans.reset();
    let mut another = serde_json::to_value(destination(0)?)?;
    another["metadata"]["name"] = json!("worker-new");
    world.create::<Destination>(another).await?;
    in_time(async {
        while spans.lookups() == 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    })
    .await?;
    world.rest().await?;
    rows.push((
        format!("Another Destination: finding whom it concerns, among {} Works that select its labels", setting.works),
        format!("{} ({} passes over Works)", millis(spans.lookup_time()), spans.passes()),
    ));
    Ok(rows)
}

async fn fill(world: &World, setting: &Setting) -> Result<()> {
    let repository: &Path = &setting.directory.join("state.git");
    world
        .create::<GitStateStore>(json!({
            "apiVersion": keys::API_VERSION, "kind": "GitStateStore", "metadata": {"name": "store"},
            "spec": {"url": format!("file://{}", repository.display()), "branch": repository::BRANCH},
        }))
        .await?;
    for at in 0..setting.destinations {
        world.create::<Destination>(serde_json::to_value(destination(at)?)?).await?;
    }
    let works: Api<Work> = Api::namespaced(world.user.clone(), "default");
    let pools = setting.destinations / SHARING;
    let create =
        futures::stream::iter(0..setting.works).map(Ok::<_, anyhow::Error>).try_for_each_concurrent(16, |at| {
            let works = works.clone();
            async move {
                let pool = format!("pool-{}", at % pools);
                let name = format!("work-{at}");
                works
                    .create(&PostParams::default(), &work(&name, &name, &[("fleet", "all"), ("pool", &pool)])?)
                    .await?;
                Ok(())
            }
        });
    in_time(create).await?;
    let mut ready = std::collections::BTreeSet::new();
    let mut changes = watcher(works.clone(), watcher::Config::default()).default_backoff().applied_objects().boxed();
    in_time(async {
        while ready.len() < setting.works {
            let work = changes.try_next().await?.context("the watch ended")?;
            let conditions = work.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            if condition::find(conditions, condition::READY).is_some_and(|ready| ready.message == "Ready") {
                ready.insert(work.name_any());
            }
        }
        Ok(())
    })
    .await
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Counts passes over Works and measures how long it takes to find whom the change of a Destination concerns.
#[derive(Clone, Default)]
struct Spans(Arc<Counts>);

#[derive(Default)]
struct Counts {
    passes: AtomicU64,
    lookups: AtomicU64,
    entered: Mutex<Option<Instant>>,
    spent: Mutex<Duration>,
}

const LOOKUP: u64 = 2;
const PASS: u64 = 1;

impl Spans {
    fn reset(&self) {
        self.0.passes.store(0, Ordering::Relaxed);
        self.0.lookups.store(0, Ordering::Relaxed);
        *self.0.spent.lock() = Duration::ZERO;
    }

    fn passes(&self) -> u64 {
        self.0.passes.load(Ordering::Relaxed)
    }

    fn lookups(&self) -> u64 {
        self.0.lookups.load(Ordering::Relaxed)
    }

    fn lookup_time(&self) -> Duration {
        *self.0.spent.lock()
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && matches!(metadata.name(), "pass" | "concerned")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        struct IsWork(bool);
        impl tracing::field::Visit for IsWork {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 |= field.name() == "controller" && format!("{value:?}") == "\"Work\"";
            }
        }
        if attributes.metadata().name() == "concerned" {
            return Id::from_u64(LOOKUP);
        }
        let mut is_work = IsWork(false);
        attributes.record(&mut is_work);
        self.0.passes.fetch_add(u64::from(is_work.0), Ordering::Relaxed);
        Id::from_u64(PASS)
    }

    fn enter(&self, span: &Id) {
        if span.into_u64() == LOOKUP {
            *self.0.entered.lock() = Some(Instant::now());
        }
    }

    fn exit(&self, span: &Id) {
        if span.into_u64() == LOOKUP
            && let Some(entered) = self.0.entered.lock().take()
        {
            *self.0.spent.lock() += entered.elapsed();
            self.0.lookups.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn event(&self, _event: &tracing::Event<'_>) {}
}
