//! Who may write the shared file of a Destination: one placement after the other.

use std::collections::HashMap;
use std::sync::Arc;

use kratix_core::object::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// One turn for each Destination.
///
/// # Limits
/// Holds the Destinations for which somebody has or awaits a turn.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<ObjectKey, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn at a Destination and keeps it until the guard is dropped.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub(crate) async fn take(&self, destination: &ObjectKey) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            turns.retain(|key, turn| key == destination || Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(destination.clone()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_at_one_destination_exclude_each_other_and_others_do_not() {
        let turns = Turns::default();
        let (one, two) = (ObjectKey::cluster("one"), ObjectKey::cluster("two"));
        let first = turns.take(&one).await;
        assert!(turns.take(&one).now_or_never().is_none());
        let other = turns.take(&two).now_or_never();
        assert!(other.is_some());
        drop((first, other));
        assert!(turns.take(&one).now_or_never().is_some());
        assert_eq!(turns.0.lock().len(), 1, "nobody is left at the other");
    }
}
