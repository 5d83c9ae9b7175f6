//! What a connection is doing, so that those that do nothing end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time for a connection without an accepted credential to make a request, and between two of its requests. Places are
/// limited, and whoever has no credential must not take them all.
const STRANGER_IDLE_MAX: Duration = Duration::from_secs(30);
/// Time between two requests of everybody else: longer than clients keep idle connections (90 s), so that it is they who
/// close them.
const IDLE_MAX: Duration = Duration::from_secs(180);

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    state: Mutex<State>,
    rest: Notify,
}

#[derive(Debug)]
struct State {
    open: usize,
    /// Whether any credential was accepted.
    known: bool,
    since: Instant,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let state = State { open: 0, known: false, since: Instant::now() };
        Arc::new(Self { state: Mutex::new(state), rest: Notify::new() })
    }

    /// Notes a request; it is open until the guard is dropped, with the body of the reply.
    pub(super) fn begin(self: &Arc<Self>) -> OpenRequest {
        self.state.lock().open += 1;
        OpenRequest(self.clone())
    }

    /// Notes that a credential was accepted.
    pub(super) fn recognise(&self) {
        self.state.lock().known = true;
    }

    /// Returns when the connection has been idle for too long; `None` while a request is open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        let limit = if state.known { IDLE_MAX } else { STRANGER_IDLE_MAX };
        (state.open == 0).then(|| state.since + limit)
    }

    /// Waits until the connection may have been idle for too long.
    pub(super) async fn idle(&self) {
        match self.deadline() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => self.rest.notified().await,
        }
    }
}

/// A request that has not been answered to the end.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.open -= 1;
        state.since = Instant::now();
        if state.open == 0 {
            self.0.rest.notify_one();
        }
    }
}
