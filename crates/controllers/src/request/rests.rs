//! Requests in which a pass has found nothing to do: the watch event of that very version is no reason for another pass.

use std::collections::HashMap;
use std::time::Duration;

use kratix_core::object::ObjectKey;
use kratix_core::plan::Next;
use parking_lot::Mutex;
use tokio::time::Instant;

/// What is at rest, and in which version.
#[derive(Default)]
pub(super) struct Rests(Mutex<HashMap<ObjectKey, Entry>>);

#[derive(Default)]
struct Entry {
    rest: Option<Rest>,
    /// Something else has happened since the pass began, which it may not have seen.
    is_woken: bool,
}

struct Rest {
    version: Option<String>,
    since: Instant,
    next: Next,
}

impl Rests {
    /// Notes that a pass begins.
    pub(super) fn begin(&self, key: &ObjectKey) {
        self.0.lock().insert(key.clone(), Entry::default());
    }

    /// Notes that a pass over this version has found nothing to do until `next`.
    pub(super) fn end(&self, key: &ObjectKey, version: Option<String>, next: Next) {
        if let Some(entry) = self.0.lock().get_mut(key)
            && !entry.is_woken
        {
            entry.rest = Some(Rest { version, since: Instant::now(), next });
        }
    }

    /// Notes that something happened that the request depends on.
    pub(super) fn wake(&self, key: &ObjectKey) {
        if let Some(entry) = self.0.lock().get_mut(key) {
            *entry = Entry { rest: None, is_woken: true };
        }
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// Returns when to look again at a request that is still in the version of the last pass and has nothing to do.
    pub(super) fn next(&self, key: &ObjectKey, version: Option<&str>) -> Option<Next> {
        let entries = self.0.lock();
        let rest = entries.get(key)?.rest.as_ref().filter(|rest| rest.version.as_deref() == version)?;
        match rest.next {
            Next::OnChange => Some(Next::OnChange),
            Next::After(delay) => {
                let left = delay.saturating_sub(rest.since.elapsed());
                (left > Duration::ZERO).then_some(Next::After(left))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::namespaced("default", "a")
    }

    #[test]
    fn the_version_that_was_looked_at_is_at_rest_until_something_else_happens() {
        let rests = Rests::default();
        assert_eq!(rests.next(&key(), Some("1")), None);
        rests.begin(&key());
        assert_eq!(rests.next(&key(), Some("1")), None, "nobody knows yet");
        rests.end(&key(), Some("1".into()), Next::OnChange);
        assert_eq!(rests.next(&key(), Some("1")), Some(Next::OnChange));
        assert_eq!(rests.next(&key(), Some("2")), None);
        rests.wake(&key());
        assert_eq!(rests.next(&key(), Some("1")), None);
        rests.forget(&key());
        assert!(rests.0.lock().is_empty());
    }

    #[test]
    fn what_happens_during_a_pass_is_not_slept_through() {
        let rests = Rests::default();
        rests.begin(&key());
        rests.wake(&key());
        rests.end(&key(), Some("1".into()), Next::OnChange);
        assert_eq!(rests.next(&key(), Some("1")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_overtaken_goes_on_and_is_not_lost_when_it_is_due() {
        let rests = Rests::default();
        rests.begin(&key());
        rests.end(&key(), Some("1".into()), Next::After(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(rests.next(&key(), Some("1")), Some(Next::After(Duration::from_secs(40))));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(rests.next(&key(), Some("1")), None);
    }
}
