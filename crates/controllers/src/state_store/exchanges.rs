//! What state stores are being asked by tasks of their own: an answer may take as long as a server likes, and no pass waits for it.

use std::collections::HashMap;

use jiff::Timestamp;
use kratix_api::destination::StateStoreRef;
use kratix_core::state_store::{Opened, UnderWay};
use kratix_state_store::Handle;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

/// One question for each store: whether it can be opened, or whether it is still well.
///
/// # Guarantees
/// A question that is replaced, or asked with settings that count no longer, is given up: its connections and programs end.
///
/// # Limits
/// One entry for each state store object.
#[derive(Default)]
pub(crate) struct Exchanges(Mutex<HashMap<StateStoreRef, Exchange>>);

struct Exchange {
    fingerprint: String,
    under_way: UnderWay,
    answer: oneshot::Receiver<Answer>,
    /// Ends it when it is dropped.
    _task: AbortOnDropHandle<()>,
    opening: Opening,
}

/// The writer that is being opened: its task ends with the question, unless it is kept.
struct Opening(Option<Handle>);

impl Opening {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(writer) = &self.0 {
            writer.close();
        }
    }
}

/// A question, with the writer that puts it.
pub(super) enum Question {
    /// Can it be opened at this place?
    Open {
        /// The new writer.
        writer: Handle,
        /// Where it writes.
        place: String,
    },
    /// Is it well?
    Check {
        /// The present writer.
        writer: Handle,
    },
}

/// What has come of a question.
pub(super) struct Answer {
    pub(super) question: Question,
    pub(super) opened: Opened,
}

/// How it stands with the question to a store.
pub(super) enum Stand {
    Unasked,
    Asked(UnderWay),
    Answered(Answer),
}

impl Exchanges {
    /// Asks, instead of what the store is being asked; `done` is called with the answer at hand.
    pub(super) fn ask(
        &self,
        store: &StateStoreRef,
        question: Question,
        fingerprint: String,
        now: impl Fn() -> Timestamp + Send + 'static,
        done: impl FnOnce() + Send + 'static,
    ) {
        let (Question::Open { writer, .. } | Question::Check { writer }) = &question;
        let writer = writer.clone();
        let under_way = UnderWay { since: now(), address: writer.place().url.clone() };
        let opening = Opening(matches!(question, Question::Open { .. }).then(|| writer.clone()));
        let (answered, answer) = oneshot::channel();
        let stamp = fingerprint.clone();
        let task = tokio::spawn(async move {
            let outcome = writer.check().await.map_err(|error| super::translation::open_failure(&error));
            let opened = Opened { fingerprint: stamp, at: now(), outcome };
            // Nobody asks any more otherwise.
            if answered.send(Answer { question, opened }).is_ok() {
                done();
            }
        });
        let task = AbortOnDropHandle::new(task);
        let exchange = Exchange { fingerprint, under_way, answer, _task: task, opening };
        let former = self.0.lock().insert(store.clone(), exchange);
        drop(former);
    }

    /// Returns how it stands with what was asked with these settings, and gives up what was asked with others.
    pub(super) fn look(&self, store: &StateStoreRef, fingerprint: &str) -> Stand {
        let mut exchanges = self.0.lock();
        let Some(exchange) = exchanges.get_mut(store) else { return Stand::Unasked };
        if exchange.fingerprint != fingerprint {
            exchanges.remove(store);
            return Stand::Unasked;
        }
        match exchange.answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => Stand::Asked(exchange.under_way.clone()),
            answer => {
                if let Some(exchange) = exchanges.remove(store) {
                    exchange.opening.keep();
                }
                answer.map_or(Stand::Unasked, Stand::Answered)
            }
        }
    }

    /// Gives up what a store is asked.
    pub(super) fn give_up(&self, store: &StateStoreRef) {
        let former = self.0.lock().remove(store);
        drop(former);
    }

    /// Returns true when no store is being asked anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().is_empty()
    }
}
