//! What is written to stores, and what they say to it.

use kratix_api::destination::StateStoreRef;
use kratix_core::state_store::{self, Asker, Attempt, Change, Pushes};
use kratix_state_store::{Handle, Imprint, Trouble, WriteError};

use super::{Entry, Registry};
use crate::state_store::translation;

/// The writer was replaced before it could tell what has become of a change: another pass hands it to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replaced;

/// What has come of a change.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) attempt: Attempt,
    /// What it has left in the store.
    pub(crate) imprint: Option<Imprint>,
    /// Of a path that somebody else has: the name of that one's ledger.
    pub(crate) owner: Option<String>,
}

impl Registry {
    /// Makes `change` durable and returns what has come of it; nothing of an attempt whose writer has been replaced meanwhile, of which
    /// nobody knows.
    pub(crate) async fn write(
        &self,
        store: &StateStoreRef,
        handle: &Handle,
        change: Change,
        stamp: String,
        now: impl Fn() -> jiff::Timestamp,
    ) -> Result<Tried, Replaced> {
        let (ledger, asker) = (translation::ledger(&change), Asker::of(&change));
        let result = self.heed_silence(store, handle, handle.write(translation::change(change))).await;
        if self.is_replaced(store, handle, &result) {
            return Err(Replaced);
        }
        self.lost(store, handle);
        let owner = result.as_ref().err().and_then(WriteError::owner).map(str::to_owned);
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
        Ok(Tried { attempt: Attempt { stamp, at: now(), outcome }, imprint, owner })
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
        let Some(owed) = writer.silence() else { return };
        self.hear_of(store, |entry| entry.is_of(writer) && entry.acceptance.owe(silence, owed));
    }

    /// Takes back that the store does not answer.
    fn answered(&self, store: &StateStoreRef, writer: &Handle) {
        let is_silent =
            |entry: &Entry| entry.is_of(writer) && matches!(entry.acceptance.pushes(), Pushes::Unanswered(_));
        if self.entries.read().get(store).is_some_and(is_silent) {
            self.hear_of(store, |entry| entry.acceptance.hear());
        }
    }

    /// Notes that the store has taken something.
    pub(super) fn accepted(&self, store: &StateStoreRef) {
        let is_known = |entry: &Entry| !entry.has_explained_refusals && *entry.acceptance.pushes() == Pushes::Accepted;
        if self.entries.read().get(store).is_none_or(is_known) {
            return;
        }
        self.hear_of(store, |entry| {
            entry.has_explained_refusals = false;
            entry.acceptance.accept()
        });
    }

    /// Notes who was refused together with everybody else.
    fn refused(&self, store: &StateStoreRef, error: &kratix_state_store::Error, asker: Asker) {
        if !matches!(error.trouble, Trouble::Refused { .. }) {
            return;
        }
        self.entries.write().entry(store.clone()).and_modify(|entry| entry.acceptance.note_refused(asker));
    }

    /// Notes that the placement does not ask for anything any more.
    pub(crate) fn withdraw_of(&self, placement: &str) {
        let is_meant = |asker: &Asker| asker.is_placement(placement);
        let stores: Vec<StateStoreRef> = {
            let entries = self.entries.read();
            let refusing = entries.iter().filter(|(_, entry)| entry.acceptance.has_refused(is_meant));
            refusing.map(|(store, _)| store.clone()).collect()
        };
        stores.iter().for_each(|store| self.withdraw(store, is_meant));
    }

    /// Notes that nothing is asked for below a directory any more.
    pub(crate) fn withdraw_below(&self, store: &StateStoreRef, directory: &str) {
        self.withdraw(store, |asker| asker.is_below(directory));
    }

    /// Notes that somebody does not ask any more for what was refused.
    fn withdraw(&self, store: &StateStoreRef, is_gone: impl Fn(&Asker) -> bool) {
        if self.entries.read().get(store).is_some_and(|entry| entry.acceptance.has_refused(&is_gone)) {
            self.hear_of(store, |entry| entry.acceptance.withdraw(is_gone));
        }
    }

    /// Notes something about the pushes to a store, which its own pass looks at if it is news.
    fn hear_of(&self, store: &StateStoreRef, note: impl FnOnce(&mut Entry) -> bool) {
        let is_news = self.entries.write().get_mut(store).is_some_and(note);
        if is_news {
            self.ask(store);
        }
    }
}

/// Returns what a writer's store does not answer, in words.
pub(crate) fn silence(writer: &Handle) -> Option<String> {
    let age = writer.silence().filter(|age| *age >= state_store::NO_ANSWER)?;
    tracing::trace!(store = %writer.place().store, ?age, "no answer");
    Some(state_store::no_answer(&writer.place().url))
}
