//! The open writers of the process, one for each state store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kratix_api::destination::{StateStoreKind, StateStoreRef};
use kratix_core::state_store::{self, Attempt, Availability, Change, Opened, Pushes};
use kratix_core::work_placement::{Cleaned, Site};
use kratix_state_store::{Handle, Imprint, Trouble, WriteError};
use parking_lot::RwLock;

use super::translation;
use super::twins::Twins;
use crate::caches::Caches;

/// How many writers of previous addresses are kept.
const RETIRED_MAX: usize = 16;

type Observer = Box<dyn Fn(&StateStoreRef) + Send + Sync>;

/// Writers by store. Destinations and placements reach a store through this only.
///
/// # Guarantees
/// Observers are told after every change of what [`Registry::availability`] returns. A writer that is replaced finishes what
/// it has been given; nothing waits for it. One whose store has another address now is kept for as long as something is noted
/// to be there ([`Registry::release`]).
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
    /// The store was checked after it had refused everything, and was found to be well: it refuses what is asked of it.
    has_explained_refusals: bool,
    /// Whether it takes what it is given, as far as is known.
    pushes: Pushes,
    /// The losses of the writer that placements have been told of.
    losses: u64,
}

struct Retired {
    store: StateStoreRef,
    place: String,
    handle: Handle,
}

/// What a writer has run into since its store was found to be well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Suspicion {
    #[default]
    None,
    /// The store has answered, and refused everything.
    Refusal,
    /// It may be another one, or have lost what it held.
    Loss,
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

    /// Returns how many changes wait for each store that can be written.
    pub(crate) fn queues(&self) -> Vec<(StateStoreRef, usize)> {
        let entries = self.entries.read();
        let open = entries.iter().filter_map(|(store, entry)| match &entry.writer {
            Writer::Open { handle, .. } => Some((store.clone(), handle.queued())),
            Writer::Opening | Writer::Closed { .. } => None,
        });
        open.collect()
    }

    /// Returns how a decision sees the store of a site that was left, and a writer for that site if there is one.
    pub(crate) fn availability_of_site(&self, caches: &Caches, site: &Site) -> (Availability, Option<Handle>) {
        let (now, handle) = self.availability(caches, Some(&site.store));
        if now.place() == Some(&site.place) {
            return (now, handle);
        }
        let retired = self.retired.read();
        let former = retired.iter().find(|retired| retired.store == site.store && retired.place == site.place);
        (now, former.map(|retired| retired.handle.clone()))
    }

    /// Removes files at a site that was left. Two addresses may lead to one repository: where that matters, the present place
    /// and its writer are given, and nothing is removed before the contrary is shown.
    pub(crate) async fn clean(
        &self,
        (site, old): (&Site, &Handle),
        present: Option<(&str, &Handle)>,
        change: Change,
    ) -> Cleaned {
        if let Some((place, new)) = present {
            match self.twins.are_distinct((&site.place, old), (place, new)).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Cleaned::Same,
                Ok(None) => return Cleaned::Doubtful,
                Err(error) => return Cleaned::Failed(translation::failure(&WriteError::Store(error)).message),
            }
        }
        match old.write(translation::change(change)).await {
            Ok(_) => Cleaned::Removed,
            Err(error) => Cleaned::Failed(translation::failure(&error).message),
        }
    }

    /// Drops the writers of previous addresses at which nothing is noted to be.
    pub(crate) fn release(&self, is_needed: impl Fn(&StateStoreRef, &str) -> bool) {
        if self.retired.read().is_empty() {
            return;
        }
        self.retired.write().retain(|retired| is_needed(&retired.store, &retired.place));
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
        self.entries.read().get(store).map(|entry| entry.pushes.clone()).unwrap_or_default()
    }

    pub(super) fn opened(&self, store: &StateStoreRef) -> (Option<Opened>, bool) {
        let entries = self.entries.read();
        entries.get(store).map_or((None, false), |entry| (entry.opened.clone(), entry.suspicion != Suspicion::None))
    }

    /// Says where the store is. A writer for the same place goes on, since other credentials are no other place; one for
    /// another is kept for what is still to be removed there.
    pub(super) fn locate(&self, store: &StateStoreRef, place: &str) {
        let mut retired = None;
        self.update(store, |entry| {
            let is_elsewhere = matches!(&entry.writer, Writer::Open { place: present, .. } if present != place);
            if is_elsewhere && let Writer::Open { handle, place, .. } = std::mem::take(&mut entry.writer) {
                retired = Some(Retired { store: store.clone(), place, handle });
            }
            is_elsewhere
        });
        let mut all = self.retired.write();
        // One that is present again is no former one.
        all.retain(|known| known.store != *store || known.place != place);
        all.extend(retired);
        let excess = all.len().saturating_sub(RETIRED_MAX);
        all.drain(..excess);
    }

    /// Returns the writer of a store.
    pub(super) fn writer(&self, store: &StateStoreRef) -> Option<Handle> {
        match &self.entries.read().get(store)?.writer {
            Writer::Open { handle, .. } => Some(handle.clone()),
            Writer::Opening | Writer::Closed { .. } => None,
        }
    }

    pub(super) fn set_open(&self, store: &StateStoreRef, handle: Handle, place: String) {
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
            entry.writer = Writer::Open { handle, place, epoch };
            present.is_none()
        });
    }

    /// Remembers that opening went well.
    pub(super) fn note(&self, store: &StateStoreRef, opened: Opened) {
        self.update(store, |entry| {
            entry.opened = Some(opened);
            entry.suspicion = Suspicion::None;
            entry.has_explained_refusals = false;
            false
        });
    }

    /// Remembers that the present writer was found to be well after trouble.
    pub(super) fn clear(&self, store: &StateStoreRef, opened: Opened) {
        self.update(store, |entry| {
            entry.opened = Some(opened);
            let suspicion = std::mem::take(&mut entry.suspicion);
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
            *entry = Entry { writer: Writer::Closed { cause }, opened, ..Entry::default() };
            !is_known
        });
    }

    /// Drops everything about a store that does not exist any more.
    pub(super) fn forget(&self, store: &StateStoreRef) {
        self.entries.write().remove(store);
        self.retired.write().retain(|retired| retired.store != *store);
        self.tell(store);
    }

    /// Makes `change` durable and returns the attempt, with what it has left in the store.
    pub(crate) async fn write(
        &self,
        store: &StateStoreRef,
        handle: &Handle,
        change: Change,
        stamp: String,
        now: impl Fn() -> jiff::Timestamp,
    ) -> (Attempt, Option<Imprint>) {
        let ledger = translation::ledger(&change);
        let result = handle.write(translation::change(change)).await;
        self.lost(store, handle);
        let (outcome, imprint) = match result {
            Ok(written) => {
                if written.changed {
                    self.accepted(store);
                }
                let imprint = written.imprint.clone();
                (Ok(translation::written(written)), Some(imprint))
            }
            Err(error) => {
                self.suspect(store, handle, &error);
                (Err(translation::failure_of(&error, ledger.as_deref())), None)
            }
        };
        (Attempt { stamp, at: now(), outcome }, imprint)
    }

    /// Tells of each imprint whether the store still holds it; nothing if the store cannot be asked.
    pub(crate) async fn verify(
        &self,
        store: &StateStoreRef,
        handle: &Handle,
        imprints: Vec<Imprint>,
    ) -> Option<Vec<bool>> {
        let result = handle.verify(imprints).await;
        self.lost(store, handle);
        match result {
            Ok(holds) => Some(holds),
            Err(error) => {
                tracing::debug!(%error, "what was written could not be compared");
                self.suspect(store, handle, &WriteError::Store(error));
                None
            }
        }
    }

    /// Has everything handed over once more after the store was found empty.
    fn lost(&self, store: &StateStoreRef, writer: &Handle) {
        let losses = writer.losses();
        let is_told = |entry: &Entry| match &entry.writer {
            Writer::Open { handle, .. } => !handle.is_same(writer) || entry.losses == losses,
            Writer::Opening | Writer::Closed { .. } => true,
        };
        if self.entries.read().get(store).is_none_or(is_told) {
            return;
        }
        self.update(store, |entry| {
            if is_told(entry) {
                return false;
            }
            entry.losses = losses;
            if let Writer::Open { epoch, .. } = &mut entry.writer {
                *epoch = self.epochs.fetch_add(1, Ordering::Relaxed);
            }
            true
        });
    }

    /// A store that takes something does not refuse everything.
    fn accepted(&self, store: &StateStoreRef) {
        let is_known = |entry: &Entry| !entry.has_explained_refusals && entry.pushes == Pushes::Accepted;
        if self.entries.read().get(store).is_none_or(is_known) {
            return;
        }
        let was_refusing = {
            let mut entries = self.entries.write();
            let Some(entry) = entries.get_mut(store) else { return };
            entry.has_explained_refusals = false;
            std::mem::replace(&mut entry.pushes, Pushes::Accepted) != Pushes::Accepted
        };
        if was_refusing {
            self.ask(store);
        }
    }

    /// Has the store's own pass look at it.
    fn ask(&self, store: &StateStoreRef) {
        self.on_suspicion.read().iter().for_each(|observer| observer(store));
    }

    /// Has the store checked if the error concerns more than the change. That the credentials of a writer are not valid any more
    /// which was replaced meanwhile says nothing of its successor.
    fn suspect(&self, store: &StateStoreRef, writer: &Handle, error: &WriteError) {
        let WriteError::Store(error) = error else { return };
        let suspicion = match error.trouble {
            Trouble::Refused { .. } => Suspicion::Refusal,
            _ => Suspicion::Loss,
        };
        let is_new = {
            let mut entries = self.entries.write();
            let Some(entry) = entries.get_mut(store) else { return };
            let is_replaced = matches!(&entry.writer, Writer::Open { handle, .. } if !handle.is_same(writer));
            if is_replaced && translation::is_about_credentials(&error.trouble) {
                return;
            }
            if suspicion == Suspicion::Refusal {
                let refused = Pushes::Refused(translation::failure(&WriteError::Store(error.clone())).message);
                let is_told = std::mem::replace(&mut entry.pushes, refused.clone()) == refused;
                let is_explained = entry.has_explained_refusals || entry.suspicion != Suspicion::None;
                if !is_explained {
                    entry.suspicion = suspicion;
                }
                !is_told || !is_explained
            } else {
                std::mem::replace(&mut entry.suspicion, suspicion) == Suspicion::None
            }
        };
        if is_new {
            self.ask(store);
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
mod tests;
