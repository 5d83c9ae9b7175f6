//! The open writers of the process, one for each state store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    pushes: Pushes,
    /// Who was refused since it last took something.
    refused: BTreeSet<Asker>,
    /// The losses of the writer that placements have been told of.
    losses: u64,
}

/// Whose change it is, and in which directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asker {
    id: String,
    directory: String,
}

impl Asker {
    fn of(change: &Change) -> Self {
        Self { id: change.id.clone(), directory: change.prefix.clone() }
    }
}

impl Entry {
    /// Has the writer give up what it is doing.
    fn end(&mut self) {
        if let Writer::Open { handle, .. } = &self.writer {
            handle.close();
        }
        self.hear();
    }

    /// Nobody waits any more for what was not answered.
    fn hear(&mut self) {
        if matches!(self.pushes, Pushes::Unanswered(_)) {
            self.pushes = Pushes::Unknown;
        }
    }
}

/// The writer was replaced before it could tell what has become of a change: another pass hands it to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced;

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
    /// and its writer are given, and nothing is removed before the contrary is shown. Returns nothing of an attempt whose writer
    /// has been replaced meanwhile: its successor is asked by another pass.
    pub(crate) async fn clean(
        &self,
        (site, old): (&Site, &Handle),
        present: Option<(&str, &Handle)>,
        change: Change,
    ) -> Option<Cleaned> {
        if let Some((place, new)) = present {
            match self.twins.are_distinct((&site.place, old), (place, new)).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Some(Cleaned::Same),
                Ok(None) => return Some(Cleaned::Doubtful),
                Err(error) => return self.not_cleaned(&WriteError::Store(error), &[old, new]),
            }
        }
        match old.write(translation::change(change)).await {
            Ok(_) => Some(Cleaned::Removed),
            Err(error) => self.not_cleaned(&error, &[old]),
        }
    }

    /// Returns why files at a former site stay; nothing if one of the writers was replaced.
    fn not_cleaned(&self, error: &WriteError, writers: &[&Handle]) -> Option<Cleaned> {
        let is_closed = matches!(error, WriteError::Store(error) if error.trouble == Trouble::Closed);
        let is_in_use = |writer: &Handle| {
            let is_open =
                |entry: &Entry| matches!(&entry.writer, Writer::Open { handle, .. } if handle.is_same(writer));
            self.entries.read().values().any(is_open)
                || self.retired.read().iter().any(|retired| retired.handle.is_same(writer))
        };
        if is_closed && !writers.iter().copied().all(is_in_use) {
            return None;
        }
        Some(Cleaned::Failed(translation::failure(error).message))
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
                entry.hear();
                retired = handle.reopen().ok().map(|handle| Retired { store: store.clone(), place, handle });
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
            entry.hear();
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

    /// Makes `change` durable and returns the attempt, with what it has left in the store; nothing of an attempt whose writer has
    /// been replaced meanwhile, of which nobody knows what has come.
    pub(crate) async fn write(
        &self,
        store: &StateStoreRef,
        handle: &Handle,
        change: Change,
        stamp: String,
        now: impl Fn() -> jiff::Timestamp,
    ) -> Result<(Attempt, Option<Imprint>), Replaced> {
        let (ledger, asker) = (translation::ledger(&change), Asker::of(&change));
        let result = self.heed_silence(store, handle, handle.write(translation::change(change))).await;
        if self.is_replaced(store, handle, &result) {
            return Err(Replaced);
        }
        self.lost(store, handle);
        let (outcome, imprint) = match result {
            Ok(written) => {
                if written.changed {
                    self.accepted(store);
                }
                self.withdraw(store, |refused| *refused == asker);
                self.answered(store, handle);
                let imprint = written.imprint.clone();
                (Ok(translation::written(written)), Some(imprint))
            }
            Err(error) => {
                match &error {
                    WriteError::Store(error) => self.refused(store, error, asker),
                    _ => {
                        self.withdraw(store, |refused| *refused == asker);
                        self.answered(store, handle);
                    }
                }
                self.suspect(store, handle, &error);
                (Err(translation::failure_of(&error, ledger.as_deref())), None)
            }
        };
        Ok((Attempt { stamp, at: now(), outcome }, imprint))
    }

    /// Tells whether a call has ended because its writer is not the store's any more.
    fn is_replaced<T>(&self, store: &StateStoreRef, writer: &Handle, result: &Result<T, WriteError>) -> bool {
        let is_closed = matches!(result, Err(WriteError::Store(error)) if error.trouble == Trouble::Closed);
        is_closed && !self.is_present(store, writer)
    }

    /// Waits for an answer, and has the store say meanwhile that it owes one.
    async fn heed_silence<T>(&self, store: &StateStoreRef, writer: &Handle, call: impl Future<Output = T>) -> T {
        tokio::pin!(call);
        loop {
            // The call goes on when the time is over.
            if let Ok(answer) = tokio::time::timeout(state_store::SILENCE, &mut call).await {
                return answer;
            }
            if let Some(silence) = silence(writer) {
                self.unanswered(store, writer, silence);
            }
        }
    }

    /// Returns what a store does not answer, in words.
    pub(crate) fn silence(&self, store: &StateStoreRef) -> Option<String> {
        silence(&self.writer(store)?)
    }

    fn unanswered(&self, store: &StateStoreRef, writer: &Handle, silence: String) {
        let is_news = {
            let mut entries = self.entries.write();
            let Some(entry) = entries.get_mut(store) else { return };
            let is_present = matches!(&entry.writer, Writer::Open { handle, .. } if handle.is_same(writer));
            // One that took the last push is given more time before all of its Destinations say so; placements say it already.
            let is_slow = |owed: Duration| entry.pushes != Pushes::Accepted || owed >= state_store::RETRY_AFTER;
            if !writer.silence().is_some_and(is_slow) {
                return;
            }
            // What is known to be refused is told rather than that the next try takes long.
            let is_open = matches!(entry.pushes, Pushes::Unknown | Pushes::Accepted | Pushes::Withdrawn);
            if is_present && is_open {
                entry.pushes = Pushes::Unanswered(silence);
            }
            is_present && is_open
        };
        if is_news {
            self.ask(store);
        }
    }

    /// Takes back that the store does not answer.
    fn answered(&self, store: &StateStoreRef, writer: &Handle) {
        let is_silent = |entry: &Entry| {
            let is_present = matches!(&entry.writer, Writer::Open { handle, .. } if handle.is_same(writer));
            is_present && matches!(entry.pushes, Pushes::Unanswered(_))
        };
        if !self.entries.read().get(store).is_some_and(is_silent) {
            return;
        }
        self.entries.write().entry(store.clone()).and_modify(Entry::hear);
        self.ask(store);
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
            entry.refused.clear();
            std::mem::replace(&mut entry.pushes, Pushes::Accepted) != Pushes::Accepted
        };
        if was_refusing {
            self.ask(store);
        }
    }

    /// Notes who was refused together with everybody else.
    fn refused(&self, store: &StateStoreRef, error: &kratix_state_store::Error, asker: Asker) {
        if !matches!(error.trouble, Trouble::Refused { .. }) {
            return;
        }
        self.entries.write().entry(store.clone()).and_modify(|entry| {
            entry.refused.insert(asker);
        });
    }

    /// Notes that the placement does not ask for anything any more.
    pub(crate) fn withdraw_of(&self, placement: &str) {
        let stores: Vec<StateStoreRef> = {
            let entries = self.entries.read();
            let refusing = entries.iter().filter(|(_, entry)| !entry.refused.is_empty());
            refusing.map(|(store, _)| store.clone()).collect()
        };
        stores.iter().for_each(|store| self.withdraw(store, |refused| refused.id == placement));
    }

    /// Notes that nothing is asked for below a directory any more.
    pub(crate) fn withdraw_below(&self, store: &StateStoreRef, directory: &str) {
        self.withdraw(store, |refused| std::path::Path::new(&refused.directory).starts_with(directory));
    }

    /// Notes that somebody does not ask any more for what was refused. A store that refuses nothing which is asked of it is
    /// not one that refuses; who was forgotten too early is refused once more.
    fn withdraw(&self, store: &StateStoreRef, is_gone: impl Fn(&Asker) -> bool) {
        if !self.entries.read().get(store).is_some_and(|entry| entry.refused.iter().any(&is_gone)) {
            return;
        }
        let is_news = {
            let mut entries = self.entries.write();
            let Some(entry) = entries.get_mut(store) else { return };
            entry.refused.retain(|asker| !is_gone(asker));
            let is_over = entry.refused.is_empty() && matches!(entry.pushes, Pushes::Refused(_));
            if is_over {
                entry.pushes = Pushes::Withdrawn;
            }
            is_over
        };
        if is_news {
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
            let is_over = translation::is_about_credentials(&error.trouble) || error.trouble == Trouble::Closed;
            if is_replaced && is_over {
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

/// Returns what a writer's store does not answer, in words.
fn silence(writer: &Handle) -> Option<String> {
    let age = writer.silence().filter(|age| *age >= state_store::NO_ANSWER)?;
    tracing::trace!(store = %writer.place().store, ?age, "no answer");
    Some(state_store::no_answer(&writer.place().url))
}

#[cfg(test)]
mod tests;
