//! Writing into state stores of any size, from one placement to a thousand at a time, beside the reference's way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use kratix_testing::git_http::Server;
use kratix_testing::s3::{self, S3};

use super::cell::{Bucket, Load, Measured, Phase, Place, Task};
use super::{Table, process, repository, run_to_end, say};

const SIZES: [usize; 4] = [0, 10_000, 50_000, 200_000];
const WAITING: [usize; 4] = [1, 10, 100, 1000];
const BUCKET: &str = "state";

/// Where the repository is, as the program sees it.
#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Local,
    Https,
}

/// Measures and prints.
pub(super) fn run(quick: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let (sizes, waiting) = if quick { (&SIZES[1..2], &WAITING[..3]) } else { (&SIZES[..], &WAITING[..]) };
    let mut table = Table::new(&[
        "Repository",
        "Files",
        "Waiting",
        "Written",
        "Batch",
        "CPU each",
        "Deleted",
        "CPU each",
        "Peak memory (git)",
        "One by one: written",
        "CPU each",
        "Deleted",
        "Factor",
    ]);
    let bench = Bench { directory: directory.path().to_owned(), server: runtime.block_on(server(directory.path())) };
    for size in sizes {
        let pristine = directory.path().join(format!("pristine-{size}.git"));
        repository::make(&pristine, *size)?;
        for transport in [Transport::Local, Transport::Https] {
            bench.rows(&mut table, &pristine, transport, *size, waiting, quick)?;
        }
    }
    match runtime.block_on(bucket_server()) {
        Some(server) => bucket_rows(&mut table, &server, if quick { &[50] } else { &[1, 100, 500] })?,
        None => say("no rows for buckets: versitygw is missing"),
    }
    table.print();
    Ok(())
}

async fn bucket_server() -> Option<S3> {
    let server = S3::start_with(s3::Options { direct: true, ..s3::Options::default() }).await?;
    server.add_bucket(BUCKET).await;
    Some(server)
}

fn bucket_rows(table: &mut Table, server: &S3, waiting: &[usize]) -> Result<()> {
    for waiting in waiting {
        let bucket = Bucket {
            endpoint: server.direct_endpoint(),
            name: BUCKET.to_owned(),
            access_key: s3::ACCESS_KEY.to_owned(),
            secret_key: s3::SECRET_KEY.to_owned(),
        };
        let load = Load { waiting: *waiting, rounds: if *waiting == 1 { 20 } else { 5 } };
        let ours = process::alone(&Task::Bucket(bucket, load))?;
        row(table, "S3", "—", load, &ours, None);
    }
    Ok(())
}

/// Adds what was measured, beside the reference's way.
fn row(table: &mut Table, place: &str, files: &str, load: Load, ours: &Measured, reference: Option<&Measured>) {
    let written = rate(load.waiting, &ours.write);
    let done = load.waiting * load.rounds;
    let mut cells = vec![
        place.to_owned(),
        files.to_owned(),
        load.waiting.to_string(),
        per_second(written),
        millis(ours.write.median()),
        cpu(&ours.write, done),
        per_second(rate(load.waiting, &ours.delete)),
        cpu(&ours.delete, done),
        format!("{} ({}) MiB", ours.peak_kib / 1024, ours.child_peak_kib / 1024),
    ];
    match reference {
        Some(reference) => {
            let one_by_one = rate(1, &reference.write);
            cells.extend([
                per_second(one_by_one),
                cpu(&reference.write, reference.write.rounds.len()),
                per_second(rate(1, &reference.delete)),
                format!("{:.0}", written / one_by_one),
            ]);
        }
        None => cells.extend(std::iter::repeat_n("—".to_owned(), 4)),
    }
    table.row(cells);
}

async fn server(directory: &Path) -> Server {
    Server::tls(directory).await
}

struct Bench {
    directory: PathBuf,
    server: Server,
}

impl Bench {
    fn rows(
        &self,
        table: &mut Table,
        pristine: &Path,
        transport: Transport,
        size: usize,
        waiting: &[usize],
        quick: bool,
    ) -> Result<()> {
        let samples = if quick || size > 10_000 { 5 } else { 20 };
        // A disk takes minutes for the removal of a large work tree. So it lies in memory, to the reference's advantage.
        let memory = Path::new("/dev/shm");
        let work_tree = if memory.is_dir() { memory } else { &self.directory };
        let reference = self.cell(pristine, transport, work_tree, |place| {
            Task::Reference(place, Load { waiting: 1, rounds: samples })
        })?;
        say(format_args!("{size} files: {samples} placements one by one, first contact {:?}", reference.first));
        for waiting in waiting {
            let rounds = match waiting {
                1 => 20,
                10 => 10,
                _ => 5,
            };
            let load = Load { waiting: *waiting, rounds };
            let ours = self.cell(pristine, transport, &self.directory, |place| Task::Store(place, load))?;
            let place = if transport == Transport::Local { "local" } else { "HTTPS" };
            row(table, place, &size.to_string(), load, &ours, Some(&reference));
            say(format_args!("  first contact {:?}, rounds {:?}", ours.first, ours.write.rounds));
        }
        Ok(())
    }

    /// Measures in a fresh copy of the repository.
    fn cell(
        &self,
        pristine: &Path,
        transport: Transport,
        scratch: &Path,
        task: impl FnOnce(Place) -> Task,
    ) -> Result<Measured> {
        let (repository, scratch) = (self.directory.join("state.git"), tempfile::tempdir_in(scratch)?);
        repository::copy(pristine, &repository)?;
        let place = match transport {
            Transport::Local => {
                Place { url: format!("file://{}", repository.display()), ca_pem: None, scratch: scratch.path().into() }
            }
            Transport::Https => Place {
                url: self.server.url("state.git"),
                ca_pem: self.server.ca_pem().map(str::to_owned),
                scratch: scratch.path().into(),
            },
        };
        // What others have left to be written would be waited for in here.
        run_to_end(&mut std::process::Command::new("sync"))?;
        let measured = process::alone(&task(place));
        std::fs::remove_dir_all(repository)?;
        measured
    }
}

fn rate(waiting: usize, phase: &Phase) -> f64 {
    waiting as f64 / phase.median().as_secs_f64()
}

fn per_second(rate: f64) -> String {
    let digits = if rate < 1.0 { 2 } else { usize::from(rate < 100.0) };
    format!("{rate:.digits$}/s")
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn cpu(phase: &Phase, placements: usize) -> String {
    format!("{:.2} ms", phase.cpu.as_secs_f64() * 1e3 / placements as f64)
}
