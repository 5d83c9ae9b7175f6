//! One ordered, revisioned key space: what etcd is to a real control plane.
//!
//! Every change has the next revision of one counter. A table (one per group and resource) holds the newest [`Record`]
//! of each object and a bounded log of its changes. A list at a past revision is today's table with the log rolled
//! back; a watch is a [`Cursor`] that walks the log forward. So list, continue tokens, watch, resume and `410 Gone`
//! are one mechanism.
//!
//! # Guarantees
//! A write is visible to readers and watchers only when the back end has it durably, and then to all at once.
//! Revisions never repeat, also across restarts.

mod cursor;
mod file;
mod packing;
mod record;
mod signal;
mod space;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

pub use cursor::Cursor;
pub use file::OpenError;
pub use record::{Draft, Marks, ObjectName, Record};
pub use space::{Change, ChangeKind, Expect, Page, Scope, WriteError};

use space::Space;

/// Writes waiting for the durable back end; a full queue makes writers wait.
const QUEUE_MAX: usize = 1024;

/// A change asked for: the table, the object, and what must be true for it to happen.
#[derive(Debug)]
pub struct Write {
    /// Table: `group/resource`, the core group being the empty string.
    pub table: Arc<str>,
    /// Object inside the table.
    pub name: ObjectName,
    /// What the object must be now.
    pub expect: Expect,
    /// The new state; `None` deletes.
    pub draft: Option<Draft>,
    /// Objects that must exist and not be on their way out when the write happens: the namespace, the definition.
    pub homes: Vec<(Arc<str>, ObjectName)>,
}

/// A handle to the key space; clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    space: Arc<RwLock<Space>>,
    backend: Backend,
}

#[derive(Clone, Debug)]
enum Backend {
    Memory,
    File(mpsc::Sender<Queued>, Arc<file::Closer>),
}

#[derive(Debug)]
struct Queued {
    /// `None` only wakes the writer, so that it sees that it is to stop.
    write: Option<Write>,
    reply: oneshot::Sender<Result<Arc<Record>, WriteError>>,
}

impl Store {
    /// Creates an empty key space that lives as long as the process.
    pub fn memory() -> Self {
        Self { space: Arc::new(RwLock::new(Space::new(1))), backend: Backend::Memory }
    }

    /// Opens or creates a durable key space in one file.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process has the file, [`OpenError::Newer`] when a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_by(path, Box::new(file::open))
    }

    /// Opens the same through `opener`, which is called again after each failure of the medium.
    fn open_by(path: &Path, opener: file::Opener) -> Result<Self, OpenError> {
        let (file, space) = file::File::open(path, opener)?;
        let space = Arc::new(RwLock::new(space));
        let (queue, inbox) = mpsc::channel(QUEUE_MAX);
        let closer = file.spawn(space.clone(), inbox)?;
        Ok(Self { space, backend: Backend::File(queue, Arc::new(closer)) })
    }

    /// Closes the file, so that it can be opened again; later writes fail with [`WriteError::Closed`].
    ///
    /// Blocks for the commit under way, if any.
    pub fn close(&self) {
        if let Backend::File(queue, closer) = &self.backend {
            closer.request();
            // A full queue wakes the writer as well.
            let _ = queue.try_send(Queued { write: None, reply: oneshot::channel().0 });
            closer.join();
        }
    }

    /// Returns whether writes are taken. They no longer are once it was closed, or if its writer has come to an end of its own.
    pub fn is_open(&self) -> bool {
        match &self.backend {
            Backend::Memory => true,
            Backend::File(queue, _) => !queue.is_closed(),
        }
    }

    /// Makes one change and returns the record written; for a deletion, the last state at the revision of the deletion.
    ///
    /// # Guarantees
    /// `Ok` means durable (for a file) and visible to every reader.
    /// # Errors
    /// [`WriteError::Conflict`], [`WriteError::Exists`] or [`WriteError::Missing`] when `expect` does not hold,
    /// [`WriteError::Homeless`] when one of `homes` does not; [`WriteError::Storage`] when the file cannot be written:
    /// the next write opens it anew and tries again.
    /// # Cancel safety
    /// Dropping the future stops the wait, not the write.
    pub async fn write(&self, write: Write) -> Result<Arc<Record>, WriteError> {
        match &self.backend {
            Backend::Memory => {
                let mut space = self.space.write();
                let staged = space.stage(&mut space::Overlay::default(), write)?;
                let record = staged.change.record.clone();
                let woken = space.publish(vec![staged]);
                drop(space);
                woken.wake();
                Ok(record)
            }
            Backend::File(queue, _) => {
                let (reply, answer) = oneshot::channel();
                queue.send(Queued { write: Some(write), reply }).await.map_err(|_| WriteError::Closed)?;
                answer.await.map_err(|_| WriteError::Closed)?
            }
        }
    }

    /// Returns the newest record of an object.
    pub fn get(&self, table: &str, name: &ObjectName) -> Option<Arc<Record>> {
        self.space.read().get(table, name).cloned()
    }

    /// Returns the revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.space.read().revision()
    }

    /// Returns the revision of the newest change in a table, or of the start if there was none since.
    pub fn table_revision(&self, table: &str) -> u64 {
        self.space.read().table_revision(table)
    }

    /// Returns the table and name of every object owned by `uid`.
    pub fn dependents(&self, uid: &str) -> Vec<(Arc<str>, ObjectName)> {
        self.space.read().dependents(uid)
    }

    /// Lists `scope` as it is now, or as it was at revision `at`, from after the object `after`, at most `limit`.
    ///
    /// # Errors
    /// [`Compacted`] when the log no longer reaches back to `at`.
    pub fn list(
        &self,
        scope: &Scope,
        at: Option<u64>,
        after: Option<&ObjectName>,
        limit: Option<usize>,
        keep: impl FnMut(&Record) -> bool,
    ) -> Result<Page, Compacted> {
        self.space.read().list(scope, at, after, limit, keep)
    }

    /// Counts the objects of a scope.
    pub fn count(&self, scope: &Scope) -> usize {
        self.space.read().count(scope)
    }

    /// Returns the names of the tables that hold objects.
    pub fn tables(&self) -> Vec<Arc<str>> {
        self.space.read().tables()
    }

    /// Returns a cursor over the changes of `scope` after revision `from`.
    ///
    /// # Errors
    /// [`Compacted`] when changes after `from` have left the log.
    pub fn watch(&self, scope: Scope, from: u64) -> Result<Cursor, Compacted> {
        let changed = self.space.write().subscribe(&scope.table);
        let cursor = Cursor::new(self.space.clone(), scope, from, changed);
        cursor.check()?;
        Ok(cursor)
    }

    /// Lists `scope` and returns a cursor that continues exactly after that list.
    pub fn list_and_watch(&self, scope: Scope, mut keep: impl FnMut(&Record) -> bool) -> (Page, Cursor) {
        let mut space = self.space.write();
        let changed = space.subscribe(&scope.table);
        let page = space.list(&scope, None, None, None, &mut keep).expect("the present is never compacted");
        drop(space);
        let cursor = Cursor::new(self.space.clone(), scope, page.revision, changed);
        (page, cursor)
    }
}

/// The log no longer holds the revision asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {wanted} ({oldest})")]
pub struct Compacted {
    /// Revision asked for.
    pub wanted: u64,
    /// Oldest revision that can still be served.
    pub oldest: u64,
}
