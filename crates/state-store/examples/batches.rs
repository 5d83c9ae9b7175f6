//! Measures writing into a local bare repository: `cargo run --release -p kratix-state-store --example batches [files] [placements]`.

#![expect(clippy::print_stdout, reason = "a table is what this program is for")]

use std::time::{Duration, Instant};

use kratix_state_store::{Change, File, GitConfig, Handle, init_bare, open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let files = arguments.next().transpose()?.unwrap_or(10_000);
    let placements = arguments.next().transpose()?.unwrap_or(200);

    let directory = tempfile::tempdir()?;
    let repository = directory.path().join("state.git");
    init_bare(&repository, "main")?;
    let store = open(GitConfig::new("bench", repository.to_string_lossy()), directory.path().join("cache"))?;
    fill(&store, files).await?;

    println!("{:<36} {:>9}", "what", "result");
    let mut single = Vec::new();
    for at in 0..20 {
        let start = Instant::now();
        store.write(placement(&format!("single-{at}"), 1)).await?;
        single.push(start.elapsed());
    }
    single.sort();
    println!("{:<36} {:>9}", "one write, median of 20", millis(single[10]));
    println!("{:<36} {:>9}", "one write, slowest of 20", millis(single[19]));
    for round in 0..3 {
        let took = batch(&store, placements, round).await?;
        let rate = placements as f64 / took.as_secs_f64();
        println!(
            "{:<36} {:>9}",
            format!("{placements} at once into {files} files, round {round}"),
            format!("{rate:.0}/s")
        );
    }
    let took = batch(&store, placements, 2).await?;
    println!("{:<36} {:>9}", format!("{placements} unchanged"), millis(took));
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(line) = status.lines().find(|line| line.starts_with("VmHWM"))
    {
        println!("{:<36} {:>9}", "peak memory", line.trim_start_matches("VmHWM:").trim());
    }
    Ok(())
}

fn placement(name: &str, round: usize) -> Change {
    let content = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  round: \"{round}\"\n");
    let directory = format!("worker-1/resources/default/redis/{name}/instance-configure/5058f");
    Change::replace(name, directory, vec![File::new("object.yaml", content)])
}

async fn batch(store: &Handle, placements: usize, round: usize) -> Result<Duration, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut writes = tokio::task::JoinSet::new();
    for at in 0..placements {
        let store = store.clone();
        writes.spawn(async move { store.write(placement(&format!("p{at}"), round)).await });
    }
    while let Some(written) = writes.join_next().await {
        written??;
    }
    Ok(start.elapsed())
}

async fn fill(store: &Handle, files: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut writes = tokio::task::JoinSet::new();
    for at in 0..files {
        let store = store.clone();
        writes.spawn(async move { store.write(placement(&format!("filling-{at}"), 0)).await });
    }
    while let Some(written) = writes.join_next().await {
        written??;
    }
    Ok(())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
