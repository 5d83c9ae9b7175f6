//! How many stores are opened at once.

use kratix_core::state_store::SILENCE;
use tokio::sync::Semaphore;

/// So many are opened at once that answer: a first look at a large repository takes a core and memory, and there are as many as
/// somebody has made store objects.
const OPENINGS_MAX: usize = 16;
/// So many beside these that have not answered within [`SILENCE`]: servers that hang cost a connection each, and keep no turn from
/// those that answer; many large repositories do not all come at once either.
const SLOW_MAX: usize = 64;

/// Turns at opening a store.
///
/// # Guarantees
/// Whoever is opened comes in the order in which it was asked for. One whose server does not answer holds a turn for [`SILENCE`],
/// unless [`SLOW_MAX`] others do not answer either.
pub(super) struct Openings {
    prompt: Semaphore,
    slow: Semaphore,
}

impl Default for Openings {
    fn default() -> Self {
        Self { prompt: Semaphore::new(OPENINGS_MAX), slow: Semaphore::new(SLOW_MAX) }
    }
}

impl Openings {
    /// Waits for a turn, calls `begin`, and opens.
    ///
    /// # Cancel safety
    /// As `open`; a dropped future holds no turn.
    pub(super) async fn take_turn<T>(&self, begin: impl FnOnce(), open: impl Future<Output = T>) -> T {
        let turn = self.prompt.acquire().await; // never closed
        begin();
        tokio::pin!(open);
        if let Ok(opened) = tokio::time::timeout(SILENCE, &mut open).await {
            return opened;
        }
        let aside = tokio::select! {
            biased;
            opened = &mut open => return opened,
            aside = self.slow.acquire() => aside,
        };
        drop(turn);
        let opened = open.await;
        drop(aside);
        opened
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;

    /// Asks for so many turns whose servers never answer.
    fn hang(openings: &Arc<Openings>, begun: &Arc<AtomicUsize>, tasks: &mut JoinSet<()>, count: usize) {
        for _ in 0..count {
            let (openings, begun) = (Arc::clone(openings), Arc::clone(begun));
            tasks.spawn(async move {
                let begin = || {
                    begun.fetch_add(1, Ordering::Relaxed);
                };
                openings.take_turn(begin, std::future::pending()).await
            });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stores_whose_servers_hang_are_bounded_and_hold_up_the_others_for_seconds() {
        let (openings, begun, mut tasks) = (Arc::default(), Arc::default(), JoinSet::new());
        hang(&openings, &begun, &mut tasks, 2 * (OPENINGS_MAX + SLOW_MAX));
        let has_begun = async |after: Duration| {
            tokio::time::sleep(after).await;
            begun.load(Ordering::Relaxed)
        };
        let moment = Duration::from_millis(1);
        assert_eq!(has_begun(moment).await, OPENINGS_MAX, "a bound");
        assert_eq!(has_begun(SILENCE).await, 2 * OPENINGS_MAX, "who does not answer makes room");
        assert_eq!(has_begun(20 * SILENCE).await, OPENINGS_MAX + SLOW_MAX, "and there is a bound to that too");
        tasks.shutdown().await;
        assert_eq!(openings.prompt.available_permits(), OPENINGS_MAX, "who is given up holds no turn");
        assert_eq!(openings.slow.available_permits(), SLOW_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_has_its_turn_although_as_many_hang_as_there_are_turns() {
        let (openings, begun, mut tasks): (Arc<Openings>, _, _) = (Arc::default(), Arc::default(), JoinSet::new());
        hang(&openings, &begun, &mut tasks, OPENINGS_MAX);
        tokio::task::yield_now().await;
        let opened = tokio::time::timeout(2 * SILENCE, openings.take_turn(|| {}, std::future::ready(1))).await;
        assert_eq!(opened, Ok(1));
    }
}
