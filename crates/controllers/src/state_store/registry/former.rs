//! Files at addresses that stores had before, or at sites in other stores.

use std::time::Duration;

use kratix_api::destination::StateStoreRef;
use kratix_core::state_store::{Availability, Change};
use kratix_core::work_placement::{Cleaned, Site};
use kratix_state_store::{Handle, Trouble, WriteError};

use super::Registry;
use super::pushes::{Replaced, silence};
use crate::caches::Caches;
use crate::state_store::translation;
use crate::state_store::twins::Undecided;

impl Registry {
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
    /// and its writer are given, and nothing is removed before the contrary is shown. Of an attempt whose writer has been
    /// replaced meanwhile nothing is known: its successor is asked by another pass.
    ///
    /// Without an answer in time, the removal stays in the store's queue, and whoever tries again finds it done. If it is no
    /// answer of the store that it waits for, but its turn, there is no outcome yet. A store that owes an answer already is not
    /// asked by one more.
    pub(crate) async fn clean(
        &self,
        (site, old): (&Site, &Handle),
        present: Option<(&str, &Handle)>,
        change: Change,
        patience: Option<Duration>,
    ) -> Result<Option<Cleaned>, Replaced> {
        let removal = self.remove((site, old), present, change);
        let Some(patience) = patience else { return removal.await.map(Some) };
        let owed = || [Some(old), present.map(|(_, new)| new)].into_iter().flatten().find_map(silence);
        if let Some(silence) = owed() {
            return Ok(Some(Cleaned::Failed(silence)));
        }
        match tokio::time::timeout(patience, removal).await {
            Ok(outcome) => outcome.map(Some),
            Err(_) => Ok(owed().map(Cleaned::Failed)),
        }
    }

    async fn remove(
        &self,
        (site, old): (&Site, &Handle),
        present: Option<(&str, &Handle)>,
        change: Change,
    ) -> Result<Cleaned, Replaced> {
        if let Some((place, new)) = present {
            match self.twins.are_distinct((&site.place, old), (place, new)).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(Cleaned::Same),
                Ok(None) => return Ok(Cleaned::Doubtful),
                Err(Undecided::Store(error)) => return self.not_cleaned(&WriteError::Store(error), &[old, new]),
                Err(moving) => return Ok(Cleaned::Failed(moving.to_string())),
            }
        }
        match old.write(translation::change(change)).await {
            Ok(_) => Ok(Cleaned::Removed),
            Err(error) => self.not_cleaned(&error, &[old]),
        }
    }

    /// Returns why files at a former site stay, unless one of the writers was replaced.
    fn not_cleaned(&self, error: &WriteError, writers: &[&Handle]) -> Result<Cleaned, Replaced> {
        let is_closed = matches!(error, WriteError::Store(error) if error.trouble == Trouble::Closed);
        let is_in_use = |writer: &Handle| {
            self.entries.read().values().any(|entry| entry.is_of(writer))
                || self.retired.read().iter().any(|retired| retired.handle.is_same(writer))
        };
        if is_closed && !writers.iter().copied().all(is_in_use) {
            return Err(Replaced);
        }
        Ok(Cleaned::Failed(translation::failure(error).message))
    }

    /// Drops the writers of previous addresses at which nothing is noted to be.
    pub(crate) fn release(&self, is_needed: impl Fn(&StateStoreRef, &str) -> bool) {
        if self.retired.read().is_empty() {
            return;
        }
        self.retired.write().retain(|retired| is_needed(&retired.store, &retired.place));
    }
}
