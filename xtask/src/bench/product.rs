//! The product as its users run it.
//!
//! The program, built as it is installed, in a directory of its own, on the loopback interface, real containers, a local Git repository.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use kratix_state_store::{Change, File, GitConfig};

use super::Table;
use super::program::{self, Program};
use super::requests::{ask, publish};

const WARM: usize = 10;
const AT_ONCE: usize = 100;
const IDLE: Duration = Duration::from_secs(60);
const FILES: usize = 10_000;
const PLACEMENTS: usize = 200;

/// Measures everything and prints one table.
pub(crate) fn run() -> Result<()> {
    program::build()?;
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

    publish(&program.client).await?;
    let mut warm = Vec::new();
    for n in 0..=WARM {
        let took = ask(&program.client, &[format!("warm-{n}")]).await?.written;
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
    let took = ask(&program.client, &names).await?.written;
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
