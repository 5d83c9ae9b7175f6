//! The file of one run of a container: that it was begun, and how it ended.
//!
//! The node makes the file before it starts the container. The container's own sandbox keeps it locked for as long as any
//! process of the container may live, and writes into it how the program ended. So whenever a node is killed, its successor
//! finds out for each run: never begun (no file), still there (locked), ended and how, or interrupted.
//!
//! | The node dies | File | Its successor |
//! |---|---|---|
//! | before the run is begun | none | begins it, with the same number |
//! | while the container is set up | empty, perhaps locked for a moment | takes the run for interrupted, and says so in the file: a sandbox that comes late ends |
//! | while the program runs | locked, then `asked` | waits for the end, takes the run for interrupted |
//! | after the program has ended | says how | goes on after it |
//! | after the record was saved | says how, or none | knows already |

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::sandbox::Exited;

/// Directory below the pod's that holds the files.
pub(crate) const DIRECTORY: &str = "runs";
/// How often to look whether a container of an earlier process is gone; that takes it milliseconds.
const LOOK: Duration = Duration::from_millis(10);
/// After how many looks to say that it takes long: about ten seconds.
const LOOKS_MAX: u32 = 1_000;

/// A run that an earlier process began.
#[derive(Debug, PartialEq)]
pub(crate) struct Left {
    pub(crate) container: String,
    pub(crate) run: u32,
    pub(crate) path: PathBuf,
    /// How it ended of its own accord; `None` if it was interrupted.
    pub(crate) exited: Option<Exited>,
    /// When the file was last written: at the end of the program, or before its beginning.
    pub(crate) at: Timestamp,
}

/// Returns the place of a run's file below the pod's directory. Container names have no dot.
pub(crate) fn file(directory: &Path, container: &str, run: u32) -> PathBuf {
    directory.join(format!("{container}.{run}"))
}

/// Notes that a run is about to begin.
pub(crate) fn begin(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    File::options().write(true).create_new(true).open(path).map(drop)
}

/// Waits until no container of an earlier process is left and tells what became of them, in the order of their runs.
///
/// # Cancel safety
/// Dropping the future loses nothing: the files stay until the caller has noted their content.
pub(crate) async fn left(directory: &Path) -> Vec<Left> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.path()) {
        match read(&path).await {
            Ok(Some(left)) => found.push(left),
            Ok(None) => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "the file of a run cannot be read"),
        }
    }
    found.sort_by(|a, b| (&a.container, a.run).cmp(&(&b.container, b.run)));
    found
}

async fn read(path: &Path) -> io::Result<Option<Left>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((container, Ok(run))) = name.rsplit_once('.').map(|(name, run)| (name, run.parse())) else {
        return Ok(None);
    };
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut looks = 0;
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        looks += 1;
        if looks % LOOKS_MAX == 0 {
            tracing::warn!(container, run, "a container of an earlier process does not end; its pod waits for that");
        }
        tokio::time::sleep(LOOK).await;
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let exited = serde_json::from_slice::<Exited>(&text).ok().filter(|exited| !exited.asked);
    let at = Timestamp::try_from(file.metadata()?.modified()?).unwrap_or(Timestamp::UNIX_EPOCH);
    if text.is_empty() {
        // Under the lock: a sandbox that has not claimed the run yet finds it over.
        serde_json::to_writer(&file, &Exited { code: 137, signal: Some(9), asked: true })?;
    }
    Ok(Some(Left { container: container.to_owned(), run, path: path.to_owned(), exited, at }))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_successor_waits_for_the_end_and_learns_how_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = |container: &str, run| file(directory.path(), container, run);
        for (container, run) in [("a", 0), ("b", 3), ("c", 0)] {
            begin(&path(container, run)).unwrap();
        }
        assert!(begin(&path("a", 0)).is_err(), "a run begins once");
        let exited = Exited { code: 0, signal: None, asked: false };
        let claimed = File::options().write(true).open(path("b", 3)).unwrap();
        claimed.lock().unwrap();
        std::fs::write(path("c", 0), serde_json::to_vec(&Exited { asked: true, ..exited }).unwrap()).unwrap();

        let mut left = Box::pin(left(directory.path()));
        assert!((&mut left).now_or_never().is_none(), "one of them is still there");
        serde_json::to_writer(&claimed, &exited).unwrap();
        drop(claimed);
        let found: Vec<_> = left.await.into_iter().map(|left| (left.container, left.run, left.exited)).collect();
        assert_eq!(found, [("a".into(), 0, None), ("b".into(), 3, Some(exited)), ("c".into(), 0, None)]);
    }
}
