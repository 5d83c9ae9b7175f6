//! How many passes may wait for one store, so that a store that does not answer holds up nobody else's placements.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kratix_api::destination::StateStoreRef;
use kratix_core::object::ObjectKey;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::queue::Queue;

/// Passes at once for one store: as many as make a commit worth its push.
pub(crate) const STORE_PASSES_MAX: usize = 256;

/// One gate for each store.
///
/// # Guarantees
/// A key that was turned away is brought back to the queue as soon as a pass for the same store ends.
///
/// # Limits
/// Holds the stores for which a pass runs, and each key that waits at most once.
pub(super) struct Gates {
    queue: Queue<ObjectKey>,
    gates: Arc<Mutex<HashMap<StateStoreRef, Gate>>>,
}

#[derive(Default)]
struct Gate {
    passes: usize,
    /// Since when each waits.
    waiting: VecDeque<(ObjectKey, Instant)>,
}

/// Leave to wait for a store; ends when dropped.
pub(super) struct Pass {
    store: StateStoreRef,
    queue: Queue<ObjectKey>,
    gates: Arc<Mutex<HashMap<StateStoreRef, Gate>>>,
}

impl Gates {
    /// Returns gates that bring keys back to `queue`.
    pub(super) fn new(queue: &Queue<ObjectKey>) -> Self {
        Self { queue: queue.clone(), gates: Arc::default() }
    }

    /// Lets the key through, or has it wait for its turn and returns for how long it has waited already.
    pub(super) fn enter(&self, store: &StateStoreRef, key: &ObjectKey) -> Result<Pass, Duration> {
        let mut gates = self.gates.lock();
        let gate = gates.entry(store.clone()).or_default();
        if gate.passes >= STORE_PASSES_MAX {
            if let Some((_, since)) = gate.waiting.iter().find(|(waiting, _)| waiting == key) {
                return Err(since.elapsed());
            }
            gate.waiting.push_back((key.clone(), Instant::now()));
            return Err(Duration::ZERO);
        }
        gate.passes += 1;
        Ok(Pass { store: store.clone(), queue: self.queue.clone(), gates: Arc::clone(&self.gates) })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut gates = self.gates.lock();
        let Some(gate) = gates.get_mut(&self.store) else { return };
        gate.passes -= 1;
        if let Some((next, _)) = gate.waiting.pop_front() {
            self.queue.add(next);
        } else if gate.passes == 0 {
            gates.remove(&self.store);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kratix_api::destination::StateStoreKind;

    use super::*;

    fn store(name: &str) -> StateStoreRef {
        StateStoreRef { kind: StateStoreKind::GitStateStore, name: name.into() }
    }

    #[tokio::test]
    async fn a_full_store_turns_away_its_own_alone_and_calls_them_back() {
        let queue = Queue::new();
        let gates = Gates::new(&queue);
        let key = |at: usize| ObjectKey::namespaced("default", at.to_string());
        let mut passes: Vec<Pass> =
            (0..STORE_PASSES_MAX).map(|at| gates.enter(&store("hangs"), &key(at)).ok().unwrap()).collect();
        let late = key(STORE_PASSES_MAX);
        assert_eq!(gates.enter(&store("hangs"), &late).err(), Some(Duration::ZERO));
        assert!(gates.enter(&store("hangs"), &late).err() > Some(Duration::ZERO));
        assert!(gates.enter(&store("other"), &late).is_ok());
        assert!(queue.take().now_or_never().is_none());
        passes.pop();
        assert_eq!(queue.take().now_or_never(), Some(late.clone()));
        queue.finish(&late);
        passes.clear();
        assert!(queue.take().now_or_never().is_none(), "it waited once");
        assert!(gates.gates.lock().is_empty());
    }
}
