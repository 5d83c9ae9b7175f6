//! A watch: a position in the log of one table.

use std::sync::Arc;

use parking_lot::RwLock;

use super::signal::Signal;
use super::space::Space;
use super::{Change, Compacted, Scope};

/// Walks the changes of a scope in the order of their revisions.
#[derive(Debug)]
pub struct Cursor {
    space: Arc<RwLock<Space>>,
    scope: Scope,
    position: u64,
    changed: Arc<Signal>,
    seen: u64,
}

impl Cursor {
    pub(super) fn new(space: Arc<RwLock<Space>>, scope: Scope, position: u64, changed: Arc<Signal>) -> Self {
        let seen = changed.count();
        Self { space, scope, position, changed, seen }
    }

    pub(super) fn check(&self) -> Result<(), Compacted> {
        self.space.read().check(&self.scope.table, self.position)
    }

    /// Returns what changed since the last call and moves to the present.
    ///
    /// # Errors
    /// [`Compacted`] when the watcher was so slow that changes left the log unseen.
    pub fn take(&mut self) -> Result<Vec<Arc<Change>>, Compacted> {
        self.seen = self.changed.count();
        let space = self.space.read();
        let changes = space.changes_after(&self.scope, self.position)?;
        // A position in the future (a client ahead of a restored server) stays until the present reaches it.
        self.position = self.position.max(space.revision());
        Ok(changes)
    }

    /// Returns the revision up to which everything has been taken: what a bookmark may promise.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits until the table has changed since the last [`Cursor::take`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn changed(&self) {
        self.changed.after(self.seen).await;
    }
}
