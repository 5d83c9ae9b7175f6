//! Commits of state stores as calls that change something.
//!
//! A state store opens a span around each batch that it makes durable. [`Commits`] subscribes to these spans, so that nothing
//! has to stand between the product and its stores: when a span is opened nothing was written yet, and when it is closed the
//! batch is in the store and nobody has been told.
//!
//! What a store does on another thread enters the span that was current when it was asked for. Here there always is one, and
//! entering it is where such work waits for its turn ([`Gate`]).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::callsite::{Callsite, Identifier};
use tracing::field::{Field, FieldSet, Visit};
use tracing::level_filters::LevelFilter;
use tracing::metadata::Kind;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_core::span::Current;

use super::fault::Blow;
use super::gate::Gate;
use super::injector::{Call, Injector, Life};

/// The span around a batch.
const SPAN: &str = "store_batch";
/// The id of the span that is current everywhere.
const CURRENT: u64 = 1;
/// The id of the first batch.
const FIRST: u64 = 2;
/// What stands for the code of an answer: a batch has none of its own, each of its changes has.
const DONE: u16 = 200;

/// The span that is current everywhere.
struct Everywhere;

static METADATA: Metadata<'static> = Metadata::new(
    "everywhere",
    module_path!(),
    Level::INFO,
    None,
    None,
    None,
    FieldSet::new(&[], Identifier(&Everywhere)),
    Kind::SPAN,
);

impl Callsite for Everywhere {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &METADATA
    }
}

/// Counts the batches of the state stores of one program, and ends it before or after one of them.
///
/// A subscriber of the thread on which the stores' tasks run. Batches count once it is told whose they are. Other blows than the two ends do not hit a commit: what a store
/// answers wrongly, or not at all, is shown with real stores.
pub struct Commits {
    injector: OnceLock<Injector>,
    gate: Gate,
    open: Mutex<BTreeMap<u64, Open>>,
    ids: AtomicU64,
}

struct Open {
    call: Call,
    blow: Option<Blow>,
    /// The span counts as closed when nobody has it any more.
    holders: usize,
}

impl Commits {
    /// Returns what counts nothing yet, and has the work of other threads pass the gate.
    pub fn new(gate: Gate) -> Self {
        Self { injector: OnceLock::new(), gate, open: Mutex::default(), ids: AtomicU64::new(FIRST) }
    }

    /// Has the batches from now on counted with the calls of a program.
    ///
    /// # Panics
    /// The second time.
    pub fn count_with(&self, injector: &Injector) {
        assert!(self.injector.set(injector.clone()).is_ok(), "commits are counted with the calls of one program");
    }

    fn life(&self) -> Option<Life> {
        self.injector.get()?.life()
    }
}

/// Ends the task of a store where it stands, as the end of its program does. No panic: nothing is reported.
fn end() -> ! {
    resume_unwind(Box::new("the program has ended"))
}

impl Subscriber for Commits {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == SPAN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = Id::from_u64(self.ids.fetch_add(1, Ordering::Relaxed));
        let (Some(injector), Some(life)) = (self.injector.get(), self.life()) else { return id };
        // What waited for this store when the program ended is not written by a dead one.
        if life.is_over() {
            end();
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let store = fields.0.get("store").and_then(Value::as_str).unwrap_or_default();
        let (method, path) = (Method::from_bytes(b"COMMIT").unwrap_or_default(), format!("/{store}"));
        let (number, blow) = injector.judge(&method, &path);
        let blow = blow.filter(|blow| matches!(blow, Blow::CrashBefore | Blow::CrashAfter));
        let call = Call { number, method, path, body: Value::Object(fields.0), answer: None };
        if blow == Some(Blow::CrashBefore) {
            injector.note(call, blow);
            life.end();
            end();
        }
        self.open.lock().insert(id.into_u64(), Open { call, blow, holders: 1 });
        id
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(open) = self.open.lock().get_mut(&id.into_u64()) {
            open.holders += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut all = self.open.lock();
        let Some(open) = all.get_mut(&id.into_u64()) else { return false };
        open.holders -= 1;
        if open.holders > 0 {
            return false;
        }
        let closed = all.remove(&id.into_u64());
        drop(all);
        if let (Some(Open { mut call, blow, .. }), Some(injector), Some(life)) =
            (closed, self.injector.get(), self.life())
        {
            call.answer = Some((DONE, Value::Null));
            injector.note(call, blow);
            if blow.is_some() {
                life.end();
            }
        }
        true
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, id: &Id) {
        if id.into_u64() == CURRENT {
            self.gate.pass();
        }
    }

    fn current_span(&self) -> Current {
        Current::new(Id::from_u64(CURRENT), &METADATA)
    }

    fn exit(&self, _: &Id) {}
}

/// The fields of a span, as text.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fault::{Fault, Whose};
    use super::super::injector::{Injector, Life};
    use super::super::seed::Seed;
    use super::*;

    fn injector(blow: Blow, number: usize) -> Injector {
        let fault = Fault::Call { whose: Whose::Manager, blow, number };
        Injector::new(fault, Whose::Manager, &Seed::new(1), || 0)
    }

    /// Starts a program whose service is never asked.
    fn start(injector: &Injector) -> Life {
        let life = Life::default();
        let silent = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<http_body_util::Empty<bytes::Bytes>>, std::io::Error>>()
        });
        drop(injector.client(silent, &life));
        life
    }

    fn counted_with(injector: &Injector) -> Arc<Commits> {
        let commits = Arc::new(Commits::new(Gate::default()));
        commits.count_with(injector);
        commits
    }

    /// Commits a batch and tells whether it was begun.
    fn commit(commits: &Arc<Commits>) -> bool {
        let work = || {
            tracing::subscriber::with_default(commits.clone(), || {
                drop(tracing::info_span!("store_batch", store = %"s"))
            })
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok()
    }

    #[tokio::test]
    async fn a_commit_is_a_call_that_counts_and_other_spans_are_none() {
        let injector = injector(Blow::Conflict, 1);
        let life = start(&injector);
        let commits = counted_with(&injector);
        tracing::subscriber::with_default(commits.clone(), || drop(tracing::info_span!("pass")));
        assert!(commit(&commits) && commit(&commits) && !life.is_over());
        let calls: Vec<String> = injector.calls().iter().map(ToString::to_string).collect();
        assert_eq!(
            (calls, injector.counted()),
            (vec!["   1 COMMIT /s 200".to_owned(), "   2 COMMIT /s 200".to_owned()], 2)
        );
        assert!(injector.hit().is_none());
    }

    #[tokio::test]
    async fn a_program_that_ends_before_a_commit_does_not_begin_it_nor_any_other() {
        let injector = injector(Blow::CrashBefore, 2);
        let life = start(&injector);
        let commits = counted_with(&injector);
        assert!(commit(&commits) && !commit(&commits));
        assert!(life.is_over() && injector.hit().is_some_and(|call| !call.succeeded()));
        assert!(!commit(&commits), "a dead program commits nothing");
        let next = start(&injector);
        assert!(commit(&commits) && !next.is_over());
    }

    #[tokio::test]
    async fn a_program_that_ends_after_a_commit_has_made_it() {
        let injector = injector(Blow::CrashAfter, 1);
        let life = start(&injector);
        let commits = counted_with(&injector);
        assert!(commit(&commits));
        assert!(life.is_over() && injector.hit().is_some_and(|call| call.succeeded()));
    }
}
