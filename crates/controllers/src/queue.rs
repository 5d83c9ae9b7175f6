//! Which objects are waiting for a pass: a keyed queue that never hands out one key twice at once.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Queue of keys with de-duplication and delays.
///
/// # Guarantees
/// A key that is added while it is being worked on is handed out once more afterwards; a key added many times while
/// waiting is handed out once. An immediate addition overtakes the key's timer; of two timers the earlier one counts.
///
/// # Limits
/// Holds at most one entry for each key, so its size is bounded by the number of objects.
pub(crate) struct Queue<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    queued: HashSet<T>,
    running: HashSet<T>,
    /// Keys added while they were running.
    again: HashSet<T>,
    timers: BTreeSet<(Instant, T)>,
    due: HashMap<T, Instant>,
}

impl<T: Clone + Eq + Hash + Ord> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashSet::new(),
            again: HashSet::new(),
            timers: BTreeSet::new(),
            due: HashMap::new(),
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Asks for a pass as soon as a worker is free.
    pub(crate) fn add(&self, key: T) {
        self.inner.state.lock().add(key);
        self.inner.changed.notify_one();
    }

    /// Asks for a pass after `delay` at the latest.
    pub(crate) fn add_after(&self, key: T, delay: Duration) {
        {
            let mut state = self.inner.state.lock();
            if state.queued.contains(&key) || state.again.contains(&key) {
                return;
            }
            let at = Instant::now() + delay;
            if state.due.get(&key).is_some_and(|due| *due <= at) {
                return;
            }
            state.cancel_timer(&key);
            state.due.insert(key.clone(), at);
            state.timers.insert((at, key));
        }
        self.inner.changed.notify_one();
    }

    /// Waits for the next key. The caller must call [`Queue::finish`] with it.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub(crate) async fn take(&self) -> T {
        loop {
            let changed = self.inner.changed.notified();
            let next_timer = {
                let mut state = self.inner.state.lock();
                state.fire_timers(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.queued.remove(&key);
                    state.running.insert(key.clone());
                    // Another taker may have slept through the notification that this key used up.
                    if !state.ready.is_empty() {
                        self.inner.changed.notify_one();
                    }
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match next_timer {
                // Either order of the two branches is right, since the loop looks at everything again; one order is repeatable.
                Some(at) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends the work on a key that [`Queue::take`] returned.
    pub(crate) fn finish(&self, key: &T) {
        let mut state = self.inner.state.lock();
        state.running.remove(key);
        if state.again.remove(key) {
            state.add(key.clone());
            drop(state);
            self.inner.changed.notify_one();
        }
    }

    #[cfg(test)]
    /// Returns how many keys wait for a worker now, without those whose timer is still running.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.state.lock().ready.len()
    }

    /// Returns true when no key is waiting for a worker or being worked on.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = self.inner.state.lock();
        state.ready.is_empty() && state.running.is_empty()
    }
}

impl<T: Clone + Eq + Hash + Ord> State<T> {
    fn add(&mut self, key: T) {
        self.cancel_timer(&key);
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn cancel_timer(&mut self, key: &T) {
        if let Some(at) = self.due.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_added_often_is_handed_out_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.take().await, "a");
        assert_eq!(queue.take().await, "b");
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test]
    async fn a_key_added_during_its_pass_comes_back_after_it() {
        let queue = Queue::new();
        queue.add("a");
        let key = queue.take().await;
        queue.add("a");
        assert_eq!(queue.waiting(), 0, "never twice at once");
        queue.finish(&key);
        assert_eq!(queue.take().await, "a");
        queue.finish(&"a");
        assert!(queue.is_at_rest());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_timers_counts_and_an_addition_overtakes_both() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(30));
        assert_eq!(queue.take().await, "a");
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.finish(&"a");

        queue.add_after("a", Duration::from_secs(60));
        queue.add("a");
        assert_eq!(queue.take().await, "a");
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.finish(&"a");
        let nothing = tokio::time::timeout(Duration::from_secs(120), queue.take()).await;
        assert!(nothing.is_err(), "the timer went with the addition");
    }
}
