//! What state stores are being asked by tasks of their own: an answer may take as long as a server likes, and no pass waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kratix_api::destination::StateStoreRef;
use kratix_core::state_store::{Opened, UnderWay};
use kratix_state_store::Handle;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::openings::Openings;

/// One question for each store: whether it can be opened, or whether it is still well.
///
/// # Guarantees
/// A question that is replaced, or asked with settings that count no longer, is given up: its connections and programs end.
///
/// # Limits
/// One entry for each state store object. So many are opened at once as [`Openings`] allows; a check asks a writer that is there
/// already, and takes nobody's turn.
#[derive(Default)]
pub(crate) struct Exchanges {
    all: Mutex<HashMap<StateStoreRef, Exchange>>,
    openings: Arc<Openings>,
}

struct Exchange {
    fingerprint: String,
    address: String,
    /// When the store was asked.
    since: Arc<Mutex<Option<Timestamp>>>,
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

impl Exchange {
    fn under_way(&self) -> UnderWay {
        UnderWay { since: *self.since.lock(), address: self.address.clone() }
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
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        done: impl FnOnce() + Send + 'static,
    ) {
        let (Question::Open { writer, .. } | Question::Check { writer }) = &question;
        let writer = writer.clone();
        let address = writer.place().url.clone();
        let opening = Opening(matches!(question, Question::Open { .. }).then(|| writer.clone()));
        let (answered, answer) = oneshot::channel();
        let (since, stamp): (Arc<Mutex<Option<Timestamp>>>, _) = (Arc::default(), fingerprint.clone());
        let (asked, openings) = (Arc::clone(&since), Arc::clone(&self.openings));
        let task = tokio::spawn(async move {
            let begin = || *asked.lock() = Some(now());
            let outcome = match &question {
                Question::Open { .. } => openings.take_turn(begin, writer.check()).await,
                Question::Check { .. } => {
                    begin();
                    writer.check().await
                }
            };
            let outcome = outcome.map_err(|error| super::translation::open_failure(&error));
            let opened = Opened { fingerprint: stamp, at: now(), outcome };
            // Nobody asks any more otherwise.
            if answered.send(Answer { question, opened }).is_ok() {
                done();
            }
        });
        let task = AbortOnDropHandle::new(task);
        let exchange = Exchange { fingerprint, address, since, answer, _task: task, opening };
        let former = self.all.lock().insert(store.clone(), exchange);
        drop(former);
    }

    /// Returns how it stands with what was asked with these settings, and gives up what was asked with others. Where the present
    /// ones are not known, what was asked goes on, and its answer waits.
    pub(super) fn look(&self, store: &StateStoreRef, fingerprint: Option<&str>) -> Stand {
        let mut exchanges = self.all.lock();
        let Some(exchange) = exchanges.get_mut(store) else { return Stand::Unasked };
        let Some(fingerprint) = fingerprint else { return Stand::Asked(exchange.under_way()) };
        if exchange.fingerprint != fingerprint {
            exchanges.remove(store);
            return Stand::Unasked;
        }
        match exchange.answer.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => Stand::Asked(exchange.under_way()),
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
        let former = self.all.lock().remove(store);
        drop(former);
    }

    /// Returns true when no store is being asked anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.all.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use kratix_api::destination::StateStoreKind;
    use kratix_state_store::{GitConfig, open};

    use super::*;

    #[tokio::test]
    async fn what_is_asked_goes_on_while_the_settings_are_not_known_and_not_with_others() {
        let cache = tempfile::tempdir().unwrap();
        // Takes connections and says nothing.
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x.git", server.local_addr().unwrap());
        let store = StateStoreRef { kind: StateStoreKind::GitStateStore, name: "default".into() };
        let exchanges = Exchanges::default();
        let writer = open(GitConfig::new("a", &url), cache.path()).unwrap();
        let question = Question::Open { writer: writer.clone(), place: "here".into() };
        exchanges.ask(&store, question, "settings".into(), || Timestamp::UNIX_EPOCH, || {});
        let connection = server.accept().await.unwrap();
        for settings in [Some("settings"), None, Some("settings")] {
            let Stand::Asked(under_way) = exchanges.look(&store, settings) else { panic!("{settings:?}") };
            assert_eq!((under_way.since, &under_way.address), (Some(Timestamp::UNIX_EPOCH), &url));
        }
        assert!(matches!(exchanges.look(&store, Some("others")), Stand::Unasked));
        assert!(exchanges.is_idle() && writer.check().await.is_err(), "its writer is closed");
        drop(connection);
    }
}
