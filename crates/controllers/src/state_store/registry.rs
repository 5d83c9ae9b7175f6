//! The open writers of the process, one for each state store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kratix_api::destination::{StateStoreKind, StateStoreRef};
use kratix_core::state_store::{self, Acceptance, Availability, Opened, Pushes};
use kratix_state_store::Handle;
use parking_lot::RwLock;

use super::twins::Twins;
use crate::caches::Caches;

mod former;
mod pushes;
mod suspicion;

pub(crate) use self::pushes::{Replaced, Tried, silence};
use self::suspicion::Suspicion;

/// How many writers of previous addresses are kept.
const RETIRED_MAX: usize = 16;

type Observer = Box<dyn Fn(&StateStoreRef) + Send + Sync>;

/// Writers by store. Destinations and placements reach a store through this only.
///
/// # Guarantees
/// Observers are told after every change of what [`Registry::availability`] returns. A writer that is replaced gives up what it
/// is doing, and whoever waits for it is told so at once: what its server has taken all the same, the next writer recognises.
/// Of an address that a store had before, a new writer is kept for as long as something is noted to be there
/// ([`Registry::release`]).
///
/// # Limits
/// One entry for each state store object, and [`RETIRED_MAX`] writers of previous addresses: the oldest go first.
pub(crate) struct Registry {
    cache_dir: PathBuf,
    entries: RwLock<BTreeMap<StateStoreRef, Entry>>,
    on_change: RwLock<Vec<Observer>>,
    on_suspicion: RwLock<Vec<Observer>>,
    /// Writers of addresses that stores had before.
    retired: RwLock<Vec<Retired>>,
    twins: Twins,
    /// The next epoch of any store.
    epochs: AtomicU64,
}

#[derive(Default)]
struct Entry {
    writer: Writer,
    opened: Option<Opened>,
    suspicion: Suspicion,
    /// The writer was found to be well after trouble.
    was_cleared: bool,
    /// The store was checked after it had refused everything, and was found to be well: it refuses what is asked of it.
    has_explained_refusals: bool,
    /// Whether it takes what it is given, as far as is known.
    acceptance: Acceptance,
    /// The losses of the writer that placements have been told of.
    losses: u64,
}

impl Entry {
    /// Has the writer give up what it is doing.
    fn end(&mut self) {
        if let Writer::Open { handle, .. } = &self.writer {
            handle.close();
        }
        self.acceptance.hear();
    }

    /// Tells whether this is its writer.
    fn is_of(&self, writer: &Handle) -> bool {
        matches!(&self.writer, Writer::Open { handle, .. } if handle.is_same(writer))
    }
}

struct Retired {
    store: StateStoreRef,
    place: String,
    handle: Handle,
}

#[derive(Default)]
enum Writer {
    /// Nothing is known yet.
    #[default]
    Opening,
    /// It cannot be written.
    Closed {
        cause: String,
    },
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
            retired: RwLock::default(),
            twins: Twins::default(),
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
        if matches!(store.kind, StateStoreKind::Other(_)) {
            return (Availability::UnknownKind, None);
        }
        let Some(object) = super::store(caches, store) else { return (Availability::NotFound, None) };
        self.availability_at(store, state_store::place(&object))
    }

    /// As [`Registry::availability`], for a store whose files are to be at `place`.
    fn availability_at(&self, store: &StateStoreRef, place: String) -> (Availability, Option<Handle>) {
        match self.entries.read().get(store).map(|entry| &entry.writer) {
            Some(Writer::Closed { cause }) => (Availability::NotReady { place, cause: cause.clone() }, None),
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

    /// Returns whether the store takes what it is given.
    pub(super) fn pushes(&self, store: &StateStoreRef) -> Pushes {
        self.entries.read().get(store).map(|entry| entry.acceptance.pushes().clone()).unwrap_or_default()
    }

    /// Returns the last attempt to open the store, whether its writer has had trouble since, and whether it has been found to
    /// be well after trouble already.
    pub(super) fn opened(&self, store: &StateStoreRef) -> (Option<Opened>, bool, bool) {
        let entries = self.entries.read();
        entries.get(store).map_or((None, false, false), |entry| {
            (entry.opened.clone(), entry.suspicion != Suspicion::None, entry.was_cleared)
        })
    }

    /// Says where the store is. A writer for the same place goes on, since other credentials are no other place; one for
    /// another is kept for what is still to be removed there.
    pub(super) fn locate(&self, store: &StateStoreRef, place: &str) {
        let mut retired = None;
        self.update(store, |entry| {
            let is_elsewhere = matches!(&entry.writer, Writer::Open { place: present, .. } if present != place);
            if is_elsewhere && let Writer::Open { handle, place, .. } = std::mem::take(&mut entry.writer) {
                handle.close();
                entry.acceptance.hear();
                entry.opened = None;
                retired = handle.reopen().ok().map(|handle| Retired { store: store.clone(), place, handle });
            }
            is_elsewhere
        });
        let mut all = self.retired.write();
        // One that is present again is no former one: what is still to be removed there must not come after what is written now.
        all.retain(|known| {
            let is_former = known.store != *store || known.place != place;
            if !is_former {
                known.handle.close();
            }
            is_former
        });
        all.extend(retired);
        let excess = all.len().saturating_sub(RETIRED_MAX);
        all.drain(..excess);
    }

    /// Tells whether this is the writer of a store.
    pub(super) fn is_present(&self, store: &StateStoreRef, writer: &Handle) -> bool {
        self.writer(store).is_some_and(|present| present.is_same(writer))
    }

    /// Returns the writer of a store.
    pub(super) fn writer(&self, store: &StateStoreRef) -> Option<Handle> {
        match &self.entries.read().get(store)?.writer {
            Writer::Open { handle, .. } => Some(handle.clone()),
            Writer::Opening | Writer::Closed { .. } => None,
        }
    }

    pub(super) fn set_open(&self, store: &StateStoreRef, handle: Handle, place: String) {
        let opened = place.clone();
        self.update(store, |entry| {
            let present = match &entry.writer {
                // After trouble, nobody knows whether it is still the same repository.
                Writer::Open { place: present, epoch, .. }
                    if *present == place && entry.suspicion != Suspicion::Loss =>
                {
                    Some(*epoch)
                }
                _ => None,
            };
            let epoch = present.unwrap_or_else(|| self.epochs.fetch_add(1, Ordering::Relaxed));
            entry.losses = handle.losses();
            entry.end();
            entry.writer = Writer::Open { handle, place, epoch };
            present.is_none()
        });
        // Afterwards, so that nobody looks with the writer of before once more.
        self.twins.forgive(&opened);
    }

    /// Remembers that opening went well.
    pub(super) fn note(&self, store: &StateStoreRef, opened: Opened) {
        self.update(store, |entry| {
            entry.opened = Some(opened);
            entry.suspicion = Suspicion::None;
            entry.was_cleared = false;
            entry.has_explained_refusals = false;
            false
        });
    }

    /// Remembers that the present writer was found to be well after trouble.
    pub(super) fn clear(&self, store: &StateStoreRef, opened: Opened) {
        self.update(store, |entry| {
            entry.opened = Some(opened);
            let suspicion = std::mem::take(&mut entry.suspicion);
            entry.was_cleared = true;
            entry.acceptance.hear();
            entry.has_explained_refusals |= suspicion == Suspicion::Refusal;
            match &mut entry.writer {
                // Nobody knows whether it is still the same repository.
                Writer::Open { epoch, .. } if suspicion == Suspicion::Loss => {
                    *epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
                    true
                }
                _ => false,
            }
        });
    }

    /// Drops the writer.
    pub(super) fn close(&self, store: &StateStoreRef, opened: Option<Opened>, cause: String) {
        self.update(store, |entry| {
            let is_known = matches!(&entry.writer, Writer::Closed { cause: known } if *known == cause);
            entry.end();
            *entry = Entry { writer: Writer::Closed { cause }, opened, ..Entry::default() };
            !is_known
        });
    }

    /// Says of a store that is being opened why nobody can write it yet. Why nobody could before, with other settings, counts no
    /// longer.
    pub(super) fn tell_silence(&self, store: &StateStoreRef, cause: String) {
        self.update(store, |entry| {
            let is_news = match &entry.writer {
                Writer::Opening => true,
                Writer::Closed { cause: known } => *known != cause,
                Writer::Open { .. } => false,
            };
            if is_news {
                entry.writer = Writer::Closed { cause };
            }
            is_news
        });
    }

    /// Drops everything about a store that does not exist any more.
    pub(super) fn forget(&self, store: &StateStoreRef) {
        if let Some(mut entry) = self.entries.write().remove(store) {
            entry.end();
        }
        self.retired.write().retain(|retired| {
            let stays = retired.store != *store;
            if !stays {
                retired.handle.close();
            }
            stays
        });
        self.tell(store);
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
mod tests;
