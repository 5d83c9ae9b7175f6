//! Requests with real containers, on the program as its users run it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::progress::{ask, publish};
use super::{line, millis, seconds};
use crate::bench::Table;
use crate::bench::program::Program;

const WARM: usize = 10;
const IDLE: Duration = Duration::from_secs(120);
/// Requests at once, and how long they may take.
const AT_ONCE: [(usize, &str); 3] = [(20, "≤ 3 s"), (100, "≤ 10 s"), (1000, "≤ 90 s")];

/// Measures, and adds to the table.
pub(super) fn run(table: &mut Table, quick: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(table, quick))
}

async fn measure(table: &mut Table, quick: bool) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut program = Program::start(&directory.path().join("data")).await?;
    publish(&program.client).await?;
    // The first one makes accounts and roles.
    ask(&program.client, &["first".to_owned()]).await?;
    let mut warm = Vec::new();
    for at in 0..WARM {
        warm.push(ask(&program.client, &[format!("warm-{at}")]).await?.written);
    }
    warm.sort();
    let spread = format!("{} ({} – {})", millis(warm[WARM / 2]), millis(warm[0]), millis(warm[WARM - 1]));
    line(table, format!("One warm request, asked → written (median of {WARM})"), spread, "≤ 0.6 s");
    let mut asked = WARM + 1;
    for (many, hold) in AT_ONCE {
        let many = if quick { many / 10 } else { many };
        let quiet = (program.at_rest().await?, program.writes().await?).1;
        let names: Vec<String> = (0..many).map(|at| format!("many-{many}-{at}")).collect();
        let took = ask(&program.client, &names).await?;
        asked += many;
        let took = format!("{} ({} until reconciled)", seconds(took.written), seconds(took.reconciled));
        line(table, format!("{many} at once, real containers, all written"), took, hold);
        program.at_rest().await?;
        let writes = program.writes().await? - quiet;
        let each = |writes: u64| format!("{:.1}", writes as f64 / many as f64);
        let (own, events) = (each(writes.kratix - writes.kratix_events), each(writes.kratix_events));
        let node = each(writes.node);
        line(table, "… API writes each", format!("{own}, {events} Events, {node} of the node"), "");
    }
    let written = program.files()?.len();
    ensure!(written >= asked, "{written} files in the repository for {asked} requests");
    let (revision, cpu, head) = (program.at_rest().await?, program.cpu()?, program.head()?);
    let idle = if quick { IDLE / 10 } else { IDLE };
    tokio::time::sleep(idle).await;
    let idling = format!(
        "{} API writes, {} commits, {:.2} CPU-s, {} MiB resident",
        program.revision().await? - revision,
        usize::from(program.head()? != head),
        (program.cpu()? - cpu).as_secs_f64(),
        program.resident_mib()?
    );
    let hold = "0, 0, ≤ 0.1 CPU-s, ≤ 200 MiB";
    line(table, format!("Idle for {} s with {asked} requests", idle.as_secs()), idling, hold);
    program.stop().await
}
