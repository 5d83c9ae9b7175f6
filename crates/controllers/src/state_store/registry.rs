//! The open writers of the process, one for each state store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kratix_api::destination::{StateStoreKind, StateStoreRef};
use kratix_core::object::ObjectKey;
use kratix_core::state_store::{self, Attempt, Availability, Change, Failure, Opened, Store};
use kratix_state_store::Handle;
use parking_lot::RwLock;

use super::translation;
use crate::caches::Caches;

type Observer = Box<dyn Fn(&StateStoreRef) + Send + Sync>;

/// Writers by store. Destinations and placements reach a store through this only.
///
/// # Guarantees
/// Observers are told after every change of what [`Registry::availability`] returns. A writer that is replaced finishes what
/// it has been given; nothing waits for it.
///
/// # Limits
/// One entry for each state store object.
pub(crate) struct Registry {
    cache_dir: PathBuf,
    entries: RwLock<BTreeMap<StateStoreRef, Entry>>,
    on_change: RwLock<Vec<Observer>>,
    on_suspicion: RwLock<Vec<Observer>>,
    /// The next epoch of any store.
    epochs: AtomicU64,
}

#[derive(Default)]
struct Entry {
    writer: Writer,
    opened: Option<Opened>,
    is_suspect: bool,
}

#[derive(Default)]
enum Writer {
    /// Nothing is known yet.
    #[default]
    Opening,
    /// It cannot be written.
    Closed,
    Open {
        handle: Handle,
        place: String,
        epoch: u64,
    },
}

impl Registry {
    /// Returns an empty registry; `cache_dir` keeps the objects of remote repositories.
    pub(crate) fn new(cache_dir: PathBuf) -> Self {
        // Programs that work in the cache run in directories of their own.
        let cache_dir = std::path::absolute(&cache_dir).unwrap_or(cache_dir);
        Self {
            cache_dir,
            entries: RwLock::default(),
            on_change: RwLock::default(),
            on_suspicion: RwLock::default(),
            epochs: AtomicU64::default(),
        }
    }

    pub(super) fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    /// Returns how a decision sees the store, and its writer if it has one.
    pub(crate) fn availability(
        &self,
        caches: &Caches,
        store: Option<&StateStoreRef>,
    ) -> (Availability, Option<Handle>) {
        let Some(store) = store else { return (Availability::Unset, None) };
        let key = ObjectKey::cluster(store.name.clone());
        let object = match store.kind {
            StateStoreKind::GitStateStore => caches.git_stores.get(&key).map(Store::Git),
            StateStoreKind::BucketStateStore => caches.bucket_stores.get(&key).map(Store::Bucket),
            StateStoreKind::Other(_) => return (Availability::UnknownKind, None),
        };
        let Some(object) = object else { return (Availability::NotFound, None) };
        self.availability_at(store, state_store::place(&object))
    }

    /// As [`Registry::availability`], for a store whose files are to be at `place`.
    fn availability_at(&self, store: &StateStoreRef, place: String) -> (Availability, Option<Handle>) {
        match self.entries.read().get(store).map(|entry| &entry.writer) {
            Some(Writer::Closed) => (Availability::NotReady { place }, None),
            Some(Writer::Open { handle, place: open, epoch }) if *open == place => {
                (Availability::Ready { place, epoch: *epoch }, Some(handle.clone()))
            }
            // A writer for another place is about to be replaced.
            None | Some(Writer::Opening | Writer::Open { .. }) => (Availability::Opening { place }, None),
        }
    }

    /// Calls `observer` whenever the availability of a store has changed.
    pub(crate) fn on_change(&self, observer: impl Fn(&StateStoreRef) + Send + Sync + 'static) {
        self.on_change.write().push(Box::new(observer));
    }

    /// Calls `observer` whenever a writer has had trouble with its store as a whole.
    pub(crate) fn on_suspicion(&self, observer: impl Fn(&StateStoreRef) + Send + Sync + 'static) {
        self.on_suspicion.write().push(Box::new(observer));
    }

    pub(super) fn opened(&self, store: &StateStoreRef) -> (Option<Opened>, bool) {
        let entries = self.entries.read();
        entries.get(store).map_or((None, false), |entry| (entry.opened.clone(), entry.is_suspect))
    }

    /// Says that a writer for `place` is being opened. A present one for the same place goes on meanwhile, since other
    /// credentials are no other place; a present failure stays known until the outcome is.
    pub(super) fn begin(&self, store: &StateStoreRef, place: &str) {
        self.update(store, |entry| {
            let is_elsewhere = matches!(&entry.writer, Writer::Open { place: present, .. } if present != place);
            if is_elsewhere {
                entry.writer = Writer::Opening;
            }
            is_elsewhere
        });
    }

    pub(super) fn set_open(&self, store: &StateStoreRef, handle: Handle, place: String) {
        self.update(store, |entry| {
            let present = match &entry.writer {
                // After trouble, nobody knows whether it is still the same repository.
                Writer::Open { place: present, epoch, .. } if *present == place && !entry.is_suspect => Some(*epoch),
                _ => None,
            };
            let epoch = present.unwrap_or_else(|| self.epochs.fetch_add(1, Ordering::Relaxed));
            entry.writer = Writer::Open { handle, place, epoch };
            present.is_none()
        });
    }

    /// Remembers that opening went well.
    pub(super) fn note(&self, store: &StateStoreRef, opened: Opened) {
        self.update(store, |entry| {
            entry.opened = Some(opened);
            entry.is_suspect = false;
            false
        });
    }

    /// Drops the writer.
    pub(super) fn close(&self, store: &StateStoreRef, opened: Option<Opened>) {
        self.update(store, |entry| {
            let was_closed = matches!(entry.writer, Writer::Closed);
            *entry = Entry { writer: Writer::Closed, opened, is_suspect: false };
            !was_closed
        });
    }

    /// Drops everything about a store that does not exist any more.
    pub(super) fn forget(&self, store: &StateStoreRef) {
        self.entries.write().remove(store);
        self.tell(store);
    }

    /// Makes `change` durable and returns the attempt.
    pub(crate) async fn write(
        &self,
        store: &StateStoreRef,
        handle: &Handle,
        change: Change,
        stamp: String,
        now: impl Fn() -> jiff::Timestamp,
    ) -> Attempt {
        let outcome = match handle.write(translation::change(change)).await {
            Ok(written) => Ok(translation::written(written)),
            Err(error) => {
                let failure = translation::failure(&error);
                self.suspect(store, &failure);
                Err(failure)
            }
        };
        Attempt { stamp, at: now(), outcome }
    }

    /// Has the store checked if the failure concerns more than the change.
    fn suspect(&self, store: &StateStoreRef, failure: &Failure) {
        if failure.about != kratix_core::state_store::About::Store {
            return;
        }
        let is_new = {
            let mut entries = self.entries.write();
            entries.get_mut(store).is_some_and(|entry| !std::mem::replace(&mut entry.is_suspect, true))
        };
        if is_new {
            self.on_suspicion.read().iter().for_each(|observer| observer(store));
        }
    }

    fn update(&self, store: &StateStoreRef, change: impl FnOnce(&mut Entry) -> bool) {
        let is_news = change(self.entries.write().entry(store.clone()).or_default());
        if is_news {
            self.tell(store);
        }
    }

    fn tell(&self, store: &StateStoreRef) {
        self.on_change.read().iter().for_each(|observer| observer(store));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn store() -> StateStoreRef {
        StateStoreRef { kind: StateStoreKind::GitStateStore, name: "default".into() }
    }

    fn place_of(registry: &Registry) -> Option<String> {
        match &registry.entries.read().get(&store())?.writer {
            Writer::Open { place, .. } => Some(place.clone()),
            Writer::Opening | Writer::Closed => None,
        }
    }

    #[tokio::test]
    async fn observers_hear_of_changes_and_a_rotated_credential_is_none() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::new(cache.path().to_owned());
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        registry.on_change(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let handle = |name: &str| {
            let config = kratix_state_store::GitConfig::new(name, cache.path().join("x.git").display().to_string());
            kratix_state_store::open(config, cache.path()).unwrap()
        };
        registry.begin(&store(), "here");
        registry.set_open(&store(), handle("a"), "here".into());
        assert_eq!((heard.load(Ordering::Relaxed), place_of(&registry)), (1, Some("here".into())));
        registry.begin(&store(), "here");
        registry.set_open(&store(), handle("b"), "here".into());
        assert_eq!((heard.load(Ordering::Relaxed), place_of(&registry)), (1, Some("here".into())));
        registry.begin(&store(), "there");
        assert_eq!((heard.load(Ordering::Relaxed), place_of(&registry)), (2, None), "nothing goes to the old place");
        registry.close(&store(), None);
        registry.close(&store(), None);
        assert_eq!(heard.load(Ordering::Relaxed), 3);
        registry.forget(&store());
        assert_eq!(heard.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_store_that_had_trouble_starts_a_new_epoch_and_another_address_is_not_written_to_the_old_one() {
        let cache = tempfile::tempdir().unwrap();
        let registry = Registry::new(cache.path().to_owned());
        let open = || {
            let config = kratix_state_store::GitConfig::new("a", cache.path().join("x.git").display().to_string());
            registry.set_open(&store(), kratix_state_store::open(config, cache.path()).unwrap(), "here".into());
            match registry.availability_at(&store(), "here".into()) {
                (Availability::Ready { epoch, .. }, Some(_)) => epoch,
                other => panic!("{other:?}"),
            }
        };
        let first = open();
        assert_eq!(open(), first, "other credentials");
        let failure = Failure { message: String::new(), about: state_store::About::Store, retry: true };
        registry.suspect(&store(), &failure);
        let second = open();
        assert_ne!(second, first);
        registry.close(&store(), None);
        let third = open();
        assert_ne!(third, second);
        registry.forget(&store());
        assert_ne!(open(), third);
        let elsewhere = registry.availability_at(&store(), "there".into());
        assert!(matches!(elsewhere, (Availability::Opening { .. }, None)), "{elsewhere:?}");
    }

    #[test]
    fn only_trouble_of_the_whole_store_raises_suspicion_and_once() {
        let registry = Registry::new(PathBuf::new());
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        registry.on_suspicion(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        registry.update(&store(), |_| false);
        let failure = |about| Failure { message: String::new(), about, retry: true };
        registry.suspect(&store(), &failure(kratix_core::state_store::About::Content));
        assert_eq!(heard.load(Ordering::Relaxed), 0);
        registry.suspect(&store(), &failure(kratix_core::state_store::About::Store));
        registry.suspect(&store(), &failure(kratix_core::state_store::About::Store));
        assert_eq!(heard.load(Ordering::Relaxed), 1);
    }
}
