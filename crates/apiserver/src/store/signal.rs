//! Wakes those who watch a table.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts the changes of a table and wakes who waits for the next one, in the order in which they began to wait.
///
/// The order is the reason why this is no `tokio::sync::watch`, which spreads its waiters by a draw: with it two runs of one
/// program would differ.
#[derive(Debug, Default)]
pub(super) struct Signal {
    count: AtomicU64,
    waiting: Notify,
}

impl Signal {
    /// Returns how many changes were announced.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Announces a change that can be read by now.
    pub(super) fn announce(&self) {
        self.count.fetch_add(1, Ordering::Release);
        self.waiting.notify_waiters();
    }

    /// Waits until more than `seen` changes were announced.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn after(&self, seen: u64) {
        loop {
            // Waits from here on: a change that is announced meanwhile wakes it.
            let waiting = self.waiting.notified();
            if self.count() != seen {
                return;
            }
            waiting.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_the_order_of_arrival_and_who_is_late_does_not_wait() {
        let (signal, order) = (Arc::new(Signal::default()), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (signal, order) = (signal.clone(), order.clone());
            tasks.spawn(async move {
                signal.after(0).await;
                order.lock().push(number);
            });
        }
        tokio::task::yield_now().await;
        signal.announce();
        tasks.join_all().await;
        assert_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
        signal.after(0).await;
    }
}
