//! Who may write a shared file or directory: one placement after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// So many paths are not worth looking for those that nobody wants any more.
const SWEEP_MIN: usize = 64;

/// One turn for each path.
///
/// # Limits
/// Holds the paths for which somebody has or awaits a turn.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>, AtomicUsize);

impl Turns {
    /// Waits for the turn at a path and keeps it until the guard is dropped.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub(crate) async fn take(&self, path: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            if turns.len() >= self.1.load(Ordering::Relaxed) {
                turns.retain(|key, turn| key == path || Arc::strong_count(turn) > 1);
                // Looked at again when it has doubled, so that the cost of a turn does not depend on how many there are.
                self.1.store((turns.len() * 2).max(SWEEP_MIN), Ordering::Relaxed);
            }
            Arc::clone(turns.entry(path.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_at_one_path_exclude_each_other_and_others_do_not() {
        let turns = Turns::default();
        let first = turns.take("one").await;
        assert!(turns.take("one").now_or_never().is_none());
        let other = turns.take("two").now_or_never();
        assert!(other.is_some());
        drop((first, other));
        assert!(turns.take("one").now_or_never().is_some());
        for path in 0..10 * SWEEP_MIN {
            turns.take(&path.to_string()).await;
        }
        assert!(turns.0.lock().len() <= SWEEP_MIN, "nobody is left at the others");
    }
}
