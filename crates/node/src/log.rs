//! Container logs: one file per run, with the time and stream of each line, bounded in size.

mod read;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

pub use read::{LogError, LogOptions};
pub(crate) use read::{stream, tail};

/// A file that reaches this size becomes the older half; with both, a run keeps at most twice as much.
const FILE_BYTES_MAX: u64 = 5 << 20;
/// Longer lines are split into parts.
const LINE_BYTES_MAX: usize = 16 << 10;
const CHUNK_BYTES: usize = 32 << 10;

/// Where the log of one run is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Run {
    pub(crate) pod_uid: String,
    pub(crate) container: String,
    pub(crate) run: u32,
}

/// How far a log has been written; readers that follow wait for changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    bytes: u64,
    rotations: u64,
}

/// All logs of a node.
#[derive(Clone)]
pub(crate) struct Logs {
    directory: PathBuf,
    open: Arc<Mutex<HashMap<Run, watch::Receiver<Progress>>>>,
}

impl Logs {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, open: Arc::default() }
    }

    fn path(&self, run: &Run) -> PathBuf {
        self.directory.join(&run.pod_uid).join(&run.container).join(format!("{}.log", run.run))
    }

    /// Copies both streams into the log of `run` until they end.
    pub(crate) async fn record(&self, run: Run, stdout: pipe::Receiver, stderr: pipe::Receiver) -> std::io::Result<()> {
        let path = self.path(&run);
        std::fs::create_dir_all(path.parent().expect("a log lies in a directory"))?;
        // Two runs are kept: the current one and the one before it.
        if let Some(outdated) = run.run.checked_sub(2) {
            let outdated = self.path(&Run { run: outdated, ..run.clone() });
            let _ = std::fs::remove_file(older(&outdated));
            let _ = std::fs::remove_file(outdated);
        }
        let (sender, receiver) = watch::channel(Progress::default());
        let writer = Mutex::new(Writer { file: File::create(&path)?, path, progress: Progress::default(), sender });
        self.open.lock().insert(run.clone(), receiver);
        let copied = tokio::try_join!(copy(stdout, "stdout", &writer), copy(stderr, "stderr", &writer));
        self.open.lock().remove(&run);
        copied.map(|_| ())
    }

    /// Returns how far a run's log is, if it is still being written.
    fn following(&self, run: &Run) -> Option<watch::Receiver<Progress>> {
        self.open.lock().get(run).cloned()
    }

    /// Removes all logs of a pod.
    pub(crate) fn remove(&self, pod_uid: &str) -> std::io::Result<()> {
        crate::image::remove_tree(&self.directory.join(pod_uid))
    }

    /// Returns the pods that have logs.
    pub(crate) fn pods(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Returns the latest run of a container that has a log.
    fn latest(&self, pod_uid: &str, container: &str) -> Option<u32> {
        let entries = std::fs::read_dir(self.directory.join(pod_uid).join(container)).ok()?;
        let number = |name: &str| name.strip_suffix(".log").and_then(|number| number.parse().ok());
        entries.flatten().filter_map(|entry| number(&entry.file_name().to_string_lossy())).max()
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

struct Writer {
    file: File,
    path: PathBuf,
    progress: Progress,
    sender: watch::Sender<Progress>,
}

impl Writer {
    /// Appends formatted lines. The page cache takes them; a thread for each log would cost more than it saves.
    fn append(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if self.progress.bytes > 0 && self.progress.bytes + lines.len() as u64 > FILE_BYTES_MAX {
            std::fs::rename(&self.path, older(&self.path))?;
            self.file = File::create(&self.path)?;
            self.progress = Progress { bytes: 0, rotations: self.progress.rotations + 1 };
        }
        self.file.write_all(lines)?;
        self.progress.bytes += lines.len() as u64;
        let _ = self.sender.send(self.progress);
        Ok(())
    }
}

/// Copies one stream line by line.
async fn copy(mut from: pipe::Receiver, stream: &str, to: &Mutex<Writer>) -> std::io::Result<()> {
    let mut pending = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut lines = Vec::new();
    loop {
        let read = from.read(&mut chunk).await?;
        pending.extend_from_slice(&chunk[..read]);
        lines.clear();
        let used = format_lines(&pending, stream, Timestamp::now(), read == 0, &mut lines);
        pending.drain(..used);
        if !lines.is_empty() {
            to.lock().append(&lines)?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// Writes complete lines as `<time> <stream> F <text>`, parts of long or unfinished ones with `P`; returns how much was used.
fn format_lines(text: &[u8], stream: &str, now: Timestamp, end: bool, into: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while used < text.len() {
        let rest = &text[used..];
        let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
        let (line, tag, length) = match window.iter().position(|byte| *byte == b'\n') {
            Some(newline) => (&rest[..newline], 'F', newline + 1),
            None if rest.len() >= LINE_BYTES_MAX || end => (window, 'P', window.len()),
            None => break,
        };
        let _ = write!(into, "{now:.9} {stream} {tag} ");
        into.extend_from_slice(line);
        into.push(b'\n');
        used += length;
    }
    used
}

#[cfg(test)]
mod tests;
