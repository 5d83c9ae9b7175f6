//! What a worker remembers beyond the life of its process.

use jiff::Timestamp;

use super::super::launch;
use super::super::run::{self, Left};
use super::super::{Ended, from_status};
use super::Worker;
use super::ending::remove;

impl Worker {
    /// Reads what an earlier process knew of this pod, or what the API server knows if that is lost.
    pub(super) async fn restore(&mut self) {
        let directory = self.directory();
        let path = directory.join("record.json");
        let saved = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = self.cx.pods.get(&self.key);
        self.record = saved.or_else(|| known.as_deref().and_then(from_status)).unwrap_or_default();
        let before = self.record.clone();
        // None of these is running any more.
        let left = run::left(&directory.join(run::DIRECTORY)).await;
        for Left { container, run, exited, at, .. } in &left {
            let ended = exited.map(|exited| Ended {
                message: launch::termination_message(&launch::scratch(&directory, container, *run)),
                ..Ended::of(exited.code, exited.signal, *at)
            });
            self.record.recall(container, *run, ended, *at);
        }
        self.record.after_restart(Timestamp::now());
        if self.record == before || self.changed() {
            left.iter().for_each(|left| drop(std::fs::remove_file(&left.path)));
        }
        remove(directory.join(launch::SCRATCH)).await;
    }

    /// Saves the record: small, in the page cache, replaced as a whole. It need not survive a power failure, only this process.
    pub(super) fn save(&self) -> bool {
        let directory = self.directory();
        let write = || {
            std::fs::create_dir_all(&directory)?;
            let temporary = directory.join("record.new");
            std::fs::write(&temporary, serde_json::to_vec(&self.record)?)?;
            std::fs::rename(temporary, directory.join("record.json"))
        };
        let saved = write();
        if let Err(error) = &saved {
            tracing::warn!(pod = %self.key.name, error = %error, "a pod's record could not be saved");
        }
        saved.is_ok()
    }
}
