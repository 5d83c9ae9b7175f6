//! Writing into state stores of any size, from one placement to a thousand at a time, beside the reference's way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use kratix_testing::git_http::Server;
use kratix_testing::s3::{self, S3};

use super::cell::{Bucket, Load, Measured, Phase, Place, Task};
use super::{Table, process, repository, run_to_end, say};

const SIZES: [usize; 4] = [0, 10_000, 50_000, 200_000];
const WAITING: [usize; 4] = [1, 10, 100, 1000];
const BUCKET: &str = "state";

/// Which rows are measured. Without any of these, all are.
#[derive(Args)]
pub(crate) struct Options {
    /// A small part of the table, in about a minute, from fewer rounds
    #[arg(long)]
    quick: bool,
    /// Only stores of this kind; can be given several times
    #[arg(long, value_enum, value_name = "KIND")]
    repository: Vec<Kind>,
    /// Only repositories that hold so many files already (any number; 0, 10000, 50000 and 200000 otherwise); can be given
    /// several times, and leaves the bucket out unless that is asked for
    #[arg(long, value_name = "N")]
    files: Vec<usize>,
    /// Only with so many placements that wait at the same time (any number; 1, 10, 100 and 1000 otherwise); can be given
    /// several times
    #[arg(long, value_name = "N")]
    waiting: Vec<usize>,
    /// Without the same work done one by one, which takes most of the time
    #[arg(long)]
    without_reference: bool,
}

/// What is written into.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A bare repository on this machine
    Local,
    /// The same behind `git http-backend` with TLS
    Https,
    /// A bucket of an S3 server
    Bucket,
}

impl Options {
    fn has(&self, kind: Kind) -> bool {
        let is_beside = kind != Kind::Bucket || self.files.is_empty();
        self.repository.contains(&kind) || (self.repository.is_empty() && is_beside)
    }

    fn files(&self) -> &[usize] {
        let all = if self.quick { &SIZES[1..2] } else { &SIZES[..] };
        if self.files.is_empty() { all } else { &self.files }
    }

    fn waiting(&self, kind: Kind) -> &[usize] {
        let all: &[usize] = match (kind, self.quick) {
            (Kind::Bucket, true) => &[50],
            (Kind::Bucket, false) => &[1, 100, 500],
            (Kind::Local | Kind::Https, true) => &WAITING[..3],
            (Kind::Local | Kind::Https, false) => &WAITING[..],
        };
        if self.waiting.is_empty() { all } else { &self.waiting }
    }
}

/// Measures and prints.
pub(super) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
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
    let kinds = [Kind::Local, Kind::Https].into_iter().filter(|kind| options.has(*kind)).collect::<Vec<_>>();
    if !kinds.is_empty() {
        let server = runtime.block_on(server(directory.path()));
        let bench = Bench { directory: directory.path().to_owned(), server, options };
        for size in options.files() {
            let pristine = directory.path().join(format!("pristine-{size}.git"));
            repository::make(&pristine, *size)?;
            for kind in &kinds {
                bench.rows(&mut table, &pristine, *kind, *size)?;
            }
        }
    }
    if options.has(Kind::Bucket) {
        match runtime.block_on(bucket_server()) {
            Some(server) => bucket_rows(&mut table, &server, options.waiting(Kind::Bucket))?,
            None => say("no rows for buckets: versitygw is missing"),
        }
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

struct Bench<'o> {
    directory: PathBuf,
    server: Server,
    options: &'o Options,
}

impl Bench<'_> {
    fn rows(&self, table: &mut Table, pristine: &Path, kind: Kind, size: usize) -> Result<()> {
        let reference = if self.options.without_reference { None } else { Some(self.reference(pristine, kind, size)?) };
        for waiting in self.options.waiting(kind) {
            let rounds = match waiting {
                ..=1 => 20,
                2..=10 => 10,
                _ => 5,
            };
            let load = Load { waiting: *waiting, rounds };
            let ours = self.cell(pristine, kind, &self.directory, |place| Task::Store(place, load))?;
            let place = if kind == Kind::Local { "local" } else { "HTTPS" };
            row(table, place, &size.to_string(), load, &ours, reference.as_ref());
            say(format_args!("  first contact {:?}, rounds {:?}", ours.first, ours.write.rounds));
        }
        Ok(())
    }

    fn reference(&self, pristine: &Path, kind: Kind, size: usize) -> Result<Measured> {
        let samples = if self.options.quick || size > 10_000 { 5 } else { 20 };
        // A disk takes minutes for the removal of a large work tree. So it lies in memory, to the reference's advantage.
        let memory = Path::new("/dev/shm");
        let work_tree = if memory.is_dir() { memory } else { &self.directory };
        let load = Load { waiting: 1, rounds: samples };
        let reference = self.cell(pristine, kind, work_tree, |place| Task::Reference(place, load))?;
        say(format_args!("{size} files: {samples} placements one by one, first contact {:?}", reference.first));
        Ok(reference)
    }

    /// Measures in a fresh copy of the repository.
    fn cell(&self, pristine: &Path, kind: Kind, scratch: &Path, task: impl FnOnce(Place) -> Task) -> Result<Measured> {
        let (repository, scratch) = (self.directory.join("state.git"), tempfile::tempdir_in(scratch)?);
        repository::copy(pristine, &repository)?;
        let (url, ca_pem) = match kind {
            Kind::Https => (self.server.url("state.git"), self.server.ca_pem().map(str::to_owned)),
            _ => (format!("file://{}", repository.display()), None),
        };
        let place = Place { url, ca_pem, scratch: scratch.path().into() };
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
