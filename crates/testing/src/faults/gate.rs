//! Work on other threads, done when nobody else has anything to do.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};

/// Holds the work of other threads until the runtime's own thread has nothing to do, so that nothing depends on how long such
/// work takes. Made on the thread of the runtime, which opens the gate before it parks and closes it afterwards.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<(Mutex<bool>, Condvar)>,
    runtime: ThreadId,
}

impl Default for Gate {
    fn default() -> Self {
        Self { inner: Arc::default(), runtime: thread::current().id() }
    }
}

impl Gate {
    /// Lets work begin: the runtime has nothing to do.
    pub fn open(&self) {
        *self.inner.0.lock() = true;
        self.inner.1.notify_all();
    }

    /// Holds what has not begun yet: the runtime has something to do.
    pub fn close(&self) {
        *self.inner.0.lock() = false;
    }

    /// Waits until the gate is open, on any thread but the runtime's own.
    pub fn pass(&self) {
        if thread::current().id() != self.runtime {
            let mut is_open = self.inner.0.lock();
            self.inner.1.wait_while(&mut is_open, |is_open| !*is_open);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_of_another_thread_begins_when_the_gate_opens_and_that_of_the_runtime_at_once() {
        let (gate, (sender, done)) = (Gate::default(), mpsc::channel());
        gate.pass();
        let held = gate.clone();
        let work = thread::spawn(move || {
            held.pass();
            sender.send(()).unwrap();
        });
        assert!(done.try_recv().is_err());
        gate.open();
        done.recv().unwrap();
        work.join().unwrap();
    }
}
