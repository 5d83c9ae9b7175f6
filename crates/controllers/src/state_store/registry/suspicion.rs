//! What writers run into that concerns their store as a whole.

use std::sync::atomic::Ordering;

use kratix_api::destination::StateStoreRef;
use kratix_state_store::{Handle, Imprint, Trouble, WriteError};

use super::{Entry, Registry, Writer};
use crate::state_store::translation;

/// What a writer has run into since its store was found to be well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Suspicion {
    #[default]
    None,
    /// The store has answered, and refused everything.
    Refusal,
    /// It may be another one, or have lost what it held.
    Loss,
}

impl Registry {
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
    pub(super) fn lost(&self, store: &StateStoreRef, writer: &Handle) {
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

    /// Has the store's own pass look at it.
    pub(super) fn ask(&self, store: &StateStoreRef) {
        self.on_suspicion.read().iter().for_each(|observer| observer(store));
    }

    /// Has the store checked if the error concerns more than the change. That the credentials of a writer are not valid any more
    /// which was replaced meanwhile says nothing of its successor.
    pub(super) fn suspect(&self, store: &StateStoreRef, writer: &Handle, error: &WriteError) {
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
                let is_news = entry.acceptance.refuse(translation::failure(&WriteError::Store(error.clone())).message);
                let is_explained = entry.has_explained_refusals || entry.suspicion != Suspicion::None;
                if !is_explained {
                    entry.suspicion = suspicion;
                }
                is_news || !is_explained
            } else {
                std::mem::replace(&mut entry.suspicion, suspicion) == Suspicion::None
            }
        };
        if is_new {
            self.ask(store);
        }
    }
}
