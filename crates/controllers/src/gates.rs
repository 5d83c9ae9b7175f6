//! How many passes may wait for one store, so that a store that does not answer holds up nobody who waits for another one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kratix_api::destination::StateStoreRef;
use kratix_core::object::ObjectKey;
use kratix_core::plan::{Next, Plan};
use kratix_core::state_store::SILENCE;
use kratix_core::work_placement::RETRY_AFTER;
use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::context::Context;
use crate::queue::Queue;

/// One gate for each store.
///
/// # Guarantees
/// A key that was turned away is brought back to the queue as soon as a place is free for it: as many keys are called as
/// there are places, and one that was called and goes elsewhere makes room for the next.
///
/// # Limits
/// Holds the stores for which a pass runs or a key waits, and each key once for each store that it wants.
#[derive(Clone)]
pub(crate) struct Gates {
    queue: Queue<ObjectKey>,
    passes_max: usize,
    gates: Arc<Mutex<HashMap<StateStoreRef, Gate>>>,
}

#[derive(Default)]
struct Gate {
    passes: usize,
    /// Since when each waits, those that were called included.
    since: HashMap<ObjectKey, Instant>,
    /// Those that were not called yet, the one that has waited longest first.
    waiting: BTreeSet<(Instant, ObjectKey)>,
}

impl Gate {
    fn turn_away(&mut self, key: &ObjectKey) -> Duration {
        let now = Instant::now();
        let since = *self.since.entry(key.clone()).or_insert(now);
        self.waiting.insert((since, key.clone()));
        now - since
    }

    /// Forgets that a key waits. Returns whether it did.
    fn forget(&mut self, key: &ObjectKey) -> bool {
        let Some(since) = self.since.remove(key) else { return false };
        self.waiting.remove(&(since, key.clone()));
        true
    }

    /// Calls as many as there are places that nobody has been called to.
    fn call(&mut self, queue: &Queue<ObjectKey>, passes_max: usize) {
        let called = self.since.len() - self.waiting.len();
        for _ in called + self.passes..passes_max {
            let Some((_, next)) = self.waiting.pop_first() else { return };
            queue.add(next);
        }
    }

    fn is_idle(&self) -> bool {
        self.passes == 0 && self.since.is_empty()
    }
}

/// Leave to wait for a store; ends when dropped.
pub(crate) struct Pass {
    store: StateStoreRef,
    gates: Gates,
}

impl Gates {
    /// Returns gates that let so many passes wait for each store, and bring keys back to `queue`.
    pub(crate) fn new(queue: &Queue<ObjectKey>, passes_max: usize) -> Self {
        Self { queue: queue.clone(), passes_max, gates: Arc::default() }
    }

    /// Returns gates as wide as these for the same keys, at which nobody meets those who wait here.
    pub(crate) fn apart(&self) -> Self {
        Self::new(&self.queue, self.passes_max)
    }

    /// Lets the key through, or has it wait for its turn and returns for how long it has waited already.
    pub(crate) fn enter(&self, store: &StateStoreRef, key: &ObjectKey) -> Result<Pass, Duration> {
        self.leave(key, &[store]);
        self.enter_one(store, key)
    }

    /// As [`Gates::enter`] for one of several stores that the key wants: its places at others stay.
    pub(crate) fn enter_one(&self, store: &StateStoreRef, key: &ObjectKey) -> Result<Pass, Duration> {
        let mut gates = self.gates.lock();
        let gate = gates.entry(store.clone()).or_default();
        if gate.passes >= self.passes_max {
            return Err(gate.turn_away(key));
        }
        gate.forget(key);
        gate.passes += 1;
        Ok(Pass { store: store.clone(), gates: self.clone() })
    }

    /// As [`Gates::enter`] for an object of that store, if it has one. Otherwise returns when its pass is to be had again: the end
    /// of another pass brings it back, at the latest it comes by itself. One that has waited for long says so first.
    pub(crate) async fn admit(
        &self,
        store: Option<&StateStoreRef>,
        key: &ObjectKey,
        tell: impl Future<Output = ()>,
    ) -> Result<Option<Pass>, Next> {
        let Some(store) = store else {
            self.leave(key, &[]);
            return Ok(None);
        };
        let waits = match self.enter(store, key) {
            Ok(pass) => return Ok(Some(pass)),
            Err(waits) => waits,
        };
        if let Some(rest) = SILENCE.checked_sub(waits).filter(|rest| !rest.is_zero()) {
            return Err(Next::After(rest));
        }
        tell.await;
        Err(Next::After(RETRY_AFTER))
    }

    /// Returns how many have a pass for the store or wait for one.
    pub(crate) fn load(&self, store: &StateStoreRef) -> usize {
        self.gates.lock().get(store).map_or(0, |gate| gate.passes + gate.since.len())
    }

    /// Gives up the places of a key wherever it waits, except for the stores that it still wants.
    pub(crate) fn leave(&self, key: &ObjectKey, wants: &[&StateStoreRef]) {
        self.gates.lock().retain(|store, gate| {
            if !wants.contains(&store) && gate.forget(key) {
                gate.call(&self.queue, self.passes_max);
            }
            !gate.is_idle()
        });
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut gates = self.gates.gates.lock();
        let Some(gate) = gates.get_mut(&self.store) else { return };
        gate.passes -= 1;
        gate.call(&self.gates.queue, self.gates.passes_max);
        if gate.is_idle() {
            gates.remove(&self.store);
        }
    }
}

/// Says on an object that it waits for its store.
pub(crate) async fn tell<K, F>(cx: &Context, queued: &Plan<F>, object: &mut Arc<K>)
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    if let Err(error) = cx.act_on(queued, object).await {
        // The outcome of the write will be said in any case.
        tracing::debug!(kind = %K::kind(&()), key = %ObjectKey::of(&**object), %error, "waiting could not be told");
    }
}

/// Awaits `work`; if that is not over at `deadline`, `tell` comes first.
///
/// # Cancel safety
/// As `work` and `tell`.
pub(crate) async fn telling<T>(work: impl Future<Output = T>, deadline: Instant, tell: impl Future<Output = ()>) -> T {
    tokio::pin!(work);
    // Both branches may be dropped: the work is resumed below, and the timer has no effect.
    tokio::select! {
        biased; // An outcome is told rather than the wait for it.
        done = &mut work => return done,
        () = tokio::time::sleep_until(deadline) => {}
    }
    tell.await;
    work.await
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use kratix_api::destination::StateStoreKind;

    use super::*;

    const STORE_PASSES_MAX: usize = 256;

    fn store(name: &str) -> StateStoreRef {
        StateStoreRef { kind: StateStoreKind::GitStateStore, name: name.into() }
    }

    #[tokio::test]
    async fn a_full_store_turns_away_its_own_alone_and_calls_them_back() {
        let queue = Queue::new();
        let gates = Gates::new(&queue, STORE_PASSES_MAX);
        let key = |at: usize| ObjectKey::namespaced("default", at.to_string());
        let mut passes: Vec<Pass> =
            (0..STORE_PASSES_MAX).map(|at| gates.enter(&store("hangs"), &key(at)).ok().unwrap()).collect();
        let late = key(STORE_PASSES_MAX);
        assert_eq!(gates.enter(&store("hangs"), &late).err(), Some(Duration::ZERO));
        assert!(gates.enter(&store("hangs"), &late).err() > Some(Duration::ZERO));
        assert!(gates.enter(&store("other"), &key(1000)).is_ok());
        assert_eq!((gates.load(&store("hangs")), gates.load(&store("other"))), (STORE_PASSES_MAX + 1, 0));
        assert!(queue.take().now_or_never().is_none());
        passes.pop();
        assert_eq!(queue.take().now_or_never(), Some(late.clone()));
        queue.finish(&late);
        passes.clear();
        assert!(queue.take().now_or_never().is_none(), "it waited once");
        gates.leave(&late, &[]);
        assert!(gates.gates.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_turned_away_says_so_after_seconds_and_comes_back() {
        let gates = Gates::new(&Queue::new(), 1);
        let key = |name: &str| ObjectKey::namespaced("default", name);
        let told = std::cell::Cell::new(0);
        let admit = async |name: &str| {
            let (store, tell) = (store("s"), async { told.set(told.get() + 1) });
            gates.admit(Some(&store), &key(name), tell).await.map(|pass| pass.is_some())
        };
        let _pass = gates.enter(&store("s"), &key("a")).ok().unwrap();
        assert_eq!((admit("b").await, told.get()), (Err(Next::After(SILENCE)), 0));
        tokio::time::advance(SILENCE).await;
        assert_eq!((admit("b").await, told.get()), (Err(Next::After(RETRY_AFTER)), 1));
        // Whoever has no store waits for none.
        assert!(gates.admit(None, &key("b"), async { told.set(0) }).await.is_ok_and(|pass| pass.is_none()));
        assert_eq!((gates.load(&store("s")), told.get()), (1, 1));
    }

    #[tokio::test]
    async fn who_waits_apart_takes_nobodys_place() {
        let gates = Gates::new(&Queue::new(), 1);
        let apart = gates.apart();
        let key = |name: &str| ObjectKey::namespaced("default", name);
        let _former = apart.enter(&store("s"), &key("a")).ok().unwrap();
        assert!(apart.enter(&store("s"), &key("b")).is_err());
        let _present = gates.enter(&store("s"), &key("b")).ok().unwrap();
        assert_eq!((apart.load(&store("s")), gates.load(&store("s"))), (2, 1));
    }

    #[tokio::test]
    async fn who_wants_several_stores_keeps_its_place_at_each() {
        let queue = Queue::new();
        let gates = Gates::new(&queue, 1);
        let (a, b, key) = (store("a"), store("b"), ObjectKey::namespaced("default", "p"));
        let others = [&a, &b].map(|store| gates.enter_one(store, &ObjectKey::namespaced("default", "q")).ok().unwrap());
        assert_eq!(gates.enter_one(&a, &key).err(), Some(Duration::ZERO));
        assert_eq!(gates.enter_one(&b, &key).err(), Some(Duration::ZERO));
        assert!(gates.enter_one(&a, &key).err() > Some(Duration::ZERO), "it has waited there since then");
        let [at_a, at_b] = others;
        drop(at_a);
        assert_eq!(queue.take().now_or_never(), Some(key.clone()));
        queue.finish(&key);
        gates.leave(&key, &[&b]);
        assert_eq!((gates.load(&a), gates.load(&b)), (0, 2));
        drop(at_b);
        assert_eq!(queue.take().now_or_never(), Some(key.clone()));
        gates.leave(&key, &[]);
        assert!(gates.gates.lock().is_empty());
    }

    #[tokio::test]
    async fn a_place_is_not_lost_with_the_key_that_was_called_to_it() {
        let queue = Queue::new();
        let gates = Gates::new(&queue, STORE_PASSES_MAX);
        let key = |at: usize| ObjectKey::namespaced("default", at.to_string());
        let called = || queue.take().now_or_never();
        let mut passes: Vec<Pass> =
            (0..STORE_PASSES_MAX).map(|at| gates.enter(&store("slow"), &key(at)).ok().unwrap()).collect();
        let late: Vec<ObjectKey> = (0..3).map(|at| key(STORE_PASSES_MAX + at)).collect();
        late.iter().for_each(|late| assert!(gates.enter(&store("slow"), late).is_err()));
        passes.pop();
        assert_eq!(called(), Some(late[0].clone()));
        assert_eq!(called(), None, "one place, one key");
        // The placement has moved to another store meanwhile, the next one is deleted.
        let _elsewhere = gates.enter(&store("other"), &late[0]).ok().unwrap();
        assert_eq!(called(), Some(late[1].clone()));
        gates.leave(&late[1], &[]);
        assert_eq!(called(), Some(late[2].clone()));
        // Somebody else was faster: it keeps its turn, and how long it has waited.
        passes.push(gates.enter(&store("slow"), &key(1000)).ok().unwrap());
        assert!(gates.enter(&store("slow"), &late[2]).err() > Some(Duration::ZERO));
        queue.finish(&late[2]);
        passes.pop();
        assert_eq!(called(), Some(late[2].clone()));
        assert!(gates.enter(&store("slow"), &late[2]).is_ok());
        passes.clear();
        assert!(!gates.gates.lock().contains_key(&store("slow")));
    }
}
