//! What the server does on its own: collect garbage, empty namespaces, clean up after CRDs, forget old events.
//!
//! One worker looks at objects whose names were noticed. The queue is a set, so it is never longer than the number
//! of objects, and looking twice is harmless: each look decides from the store alone, and every write names the
//! incarnation it means. After a crash the start notices everything that could matter.

mod crds;
mod garbage;
mod namespaces;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use embedded_apimachinery::Status;
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::catalog::Served;
use crate::core::{CRDS, Call, Core, NAMESPACES, is_crd, is_namespace};
use crate::events;
use crate::failure::Failure;
use crate::rest::{DeleteOptions, Edit};
use crate::store::{ChangeKind, ObjectName, Record, Scope};

/// Pause between sweeps of old events.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Pause before looking again at something that could not be finished.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// Uids of deleted objects that are remembered, for dependents that are looked at when the kind of their owner is
/// served no longer. The oldest are forgotten; their dependents then stay.
const GONE_MAX: usize = 10_000;

const EVENTS: &str = "/events";

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Chore {
    /// An object with owners, or being deleted.
    Object(Arc<str>, ObjectName),
    /// The dependents of an object that is gone.
    Dependents(Box<str>),
}

/// Table and name of an object.
type Place = (Arc<str>, ObjectName);

/// The queue of the worker.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    queue: Mutex<(VecDeque<Chore>, HashSet<Chore>)>,
    /// Owners that wait for blocking dependents, by uid.
    waiting: Mutex<HashMap<Box<str>, Place>>,
    /// Objects with an owner of a kind that is not served; looked at again when a CRD changes.
    unresolved: Mutex<BTreeSet<Chore>>,
    gone: Mutex<Gone>,
    wake: Notify,
}

/// Uids of objects that were deleted lately, oldest first, and whether they lived in a namespace.
#[derive(Debug, Default)]
struct Gone(VecDeque<Box<str>>, HashMap<Box<str>, bool>);

impl Gone {
    fn add(&mut self, uid: &str, namespaced: bool) {
        if self.1.insert(uid.into(), namespaced).is_none() {
            self.0.push_back(uid.into());
        }
        if self.0.len() > GONE_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            self.1.remove(&oldest);
        }
    }
}

impl Chores {
    /// Takes note of a write that may leave something to do.
    pub(crate) fn notice(&self, served: &Served, kind: ChangeKind, record: &Record, previous: Option<&Record>) {
        if kind == ChangeKind::Deleted {
            self.stop_waiting(record.uid());
            self.gone.lock().add(record.uid(), served.namespaced);
            self.unresolved.lock().remove(&Chore::Object(served.table.clone(), record.name().clone()));
            self.add(Chore::Dependents(record.uid().into()));
            // Whoever waits for this one to go: foreground owners, its namespace, its CRD.
            for owner in record.owners() {
                self.add(Chore::Dependents(owner.into()));
            }
            if served.namespaced {
                self.add(Chore::Object(NAMESPACES.into(), ObjectName::new("", record.name().namespace.clone())));
            }
            if served.is_custom() {
                let name = format!("{}.{}", served.plural, served.group);
                self.add(Chore::Object(CRDS.into(), ObjectName::new("", name)));
            }
            if is_crd(served) {
                // A name may have become free for a CRD that was refused it.
                self.add(Chore::Object(CRDS.into(), ObjectName::new("", "")));
            }
            return;
        }
        // Whoever names the same owners, by uid, was looked at then, and is again when one of them goes.
        let owned =
            || previous.map_or_else(|| record.owners().next().is_some(), |old| !record.owners().eq(old.owners()));
        if record.is_deleting() || owned() {
            self.add(Chore::Object(served.table.clone(), record.name().clone()));
        }
        // It may have let go of an owner that waits for it.
        for uid in previous.into_iter().flat_map(Record::owners) {
            if let Some((table, name)) = self.waiting_owner(uid) {
                self.add(Chore::Object(table, name));
            }
        }
        if is_crd(served) {
            let unresolved = std::mem::take(&mut *self.unresolved.lock());
            unresolved.into_iter().for_each(|chore| self.add(chore));
        }
    }

    /// Looks again once more kinds are served.
    fn wait_for_kind(&self, table: &Arc<str>, name: &ObjectName) {
        self.unresolved.lock().insert(Chore::Object(table.clone(), name.clone()));
    }

    /// Returns whether an object was deleted that could own others, in a namespace or not.
    fn is_gone(&self, uid: &str, dependent: &Served) -> bool {
        self.gone.lock().1.get(uid).is_some_and(|namespaced| dependent.namespaced || !namespaced)
    }

    fn wait_for_dependents(&self, uid: &str, table: &Arc<str>, name: &ObjectName) {
        self.waiting.lock().insert(uid.into(), (table.clone(), name.clone()));
    }

    fn stop_waiting(&self, uid: &str) {
        self.waiting.lock().remove(uid);
    }

    fn waiting_owner(&self, uid: &str) -> Option<Place> {
        self.waiting.lock().get(uid).cloned()
    }

    fn add(&self, chore: Chore) {
        let mut queue = self.queue.lock();
        if queue.1.insert(chore.clone()) {
            queue.0.push_back(chore);
            self.wake.notify_one();
        }
    }

    fn next(&self) -> Option<Chore> {
        let mut queue = self.queue.lock();
        let chore = queue.0.pop_front()?;
        queue.1.remove(&chore);
        Some(chore)
    }
}

/// Works off chores until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    core.notice_everything();
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    let mut failed: BTreeSet<Chore> = BTreeSet::new();
    // A point in time, not a pause: other work must not put it off.
    let mut retry_at = Instant::now();
    loop {
        while let Some(chore) = core.chores.next() {
            let Some(looked) = core.until_shutdown(core.look(&chore)).await else { return };
            if let Err(failure) = looked
                && !failure.is_not_found()
            {
                if !failure.is_conflict() {
                    tracing::warn!(?chore, error = failure.message(), "chore failed");
                }
                if failed.is_empty() {
                    retry_at = Instant::now() + RETRY_PERIOD;
                }
                failed.insert(chore);
            }
            if !failed.is_empty() && Instant::now() >= retry_at {
                break;
            }
        }
        if !failed.is_empty() && Instant::now() >= retry_at {
            std::mem::take(&mut failed).into_iter().for_each(|chore| core.chores.add(chore));
            continue;
        }
        let retry =
            async { if failed.is_empty() { std::future::pending().await } else { sleep_until(retry_at).await } };
        // In order, so that what happens first does not depend on a draw: what is rare cannot be held up by what is frequent.
        tokio::select! {
            biased;
            () = core.shutdown.cancelled() => return,
            () = retry => {}
            _ = sweep.tick() => {
                let swept = core.until_shutdown(core.forget_old_events().map(Ok)).await;
                if swept.is_none() {
                    return;
                }
            }
            () = core.chores.wake.notified() => {}
        }
    }
}

/// Remembers the first failure of a loop that goes on: one refusal must not hold up the rest.
#[derive(Debug, Default)]
struct Failures(Option<Failure>);

impl Failures {
    fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.0.get_or_insert(failure);
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Core {
    /// Notices what a crash may have left undone.
    fn notice_everything(&self) {
        for table in self.store.tables() {
            let scope = Scope::table(table.clone());
            let unfinished = |record: &Record| record.is_deleting() || record.owners().next().is_some();
            let page = self.store.list(&scope, None, None, None, unfinished);
            for record in page.expect("the present is never compacted").records {
                self.chores.add(Chore::Object(table.clone(), record.name().clone()));
            }
        }
    }

    /// Does a piece of the worker's work: `None` if the server stops meanwhile, which cuts it off as a crash would. A panic
    /// costs the object it is about, not the worker; it is looked at again when its owners change, or by the next start.
    async fn until_shutdown(&self, work: impl Future<Output = Result<(), Failure>>) -> Option<Result<(), Failure>> {
        tokio::select! {
            biased; // Nothing more is begun once the server stops.
            () = self.shutdown.cancelled() => None,
            done = AssertUnwindSafe(work).catch_unwind() => Some(done.unwrap_or_else(|_| {
                tracing::error!("a chore panicked; its object is left as it is");
                Ok(())
            })),
        }
    }

    async fn look(self: &Arc<Self>, chore: &Chore) -> Result<(), Failure> {
        match chore {
            Chore::Dependents(uid) => self.look_at_dependents(uid),
            Chore::Object(table, name) if &**table == CRDS && name.name.is_empty() => self.reconsider_crds().await?,
            Chore::Object(table, name) => {
                let snapshot = self.catalog.snapshot();
                let Some(served) = snapshot.find_table(table).cloned() else { return Ok(()) };
                let Some(record) = self.store.get(table, name) else { return Ok(()) };
                if is_namespace(&served) {
                    self.look_at_namespace(&served, &record).await?;
                } else if is_crd(&served) {
                    self.look_at_crd(&served, &record).await?;
                }
                if let Some(record) = self.store.get(table, name) {
                    self.collect(&served, &record).await?;
                }
            }
        }
        Ok(())
    }

    async fn forget_old_events(&self) {
        let Some(served) = self.catalog.snapshot().find_table(EVENTS).cloned() else { return };
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let old = |record: &Record| record.written_at() + events::TTL_SECONDS <= now;
        let page = self.store.list(&Scope::table(EVENTS), None, None, None, old);
        for record in page.expect("the present is never compacted").records {
            // Like an expired lease in etcd: no admission, no count, nobody's request.
            let expect = crate::store::Expect::Revision(record.revision());
            let (table, name) = (served.table.clone(), record.name().clone());
            let _ = self.store.write(crate::store::Write { table, name, expect, draft: None, homes: Vec::new() }).await;
        }
    }

    /// Ends a chore over many objects between two of them: on a store in memory it never waits for anything.
    fn check_running(&self) -> Result<(), Failure> {
        match self.shutdown.is_cancelled() {
            true => Err(Status::unavailable("the server is shutting down").into()),
            false => Ok(()),
        }
    }

    /// Deletes an object on the server's own behalf.
    async fn delete_as(
        &self,
        user: &str,
        served: &Arc<Served>,
        record: &Record,
        options: DeleteOptions,
    ) -> Result<(), Failure> {
        self.check_running()?;
        let mut call = Call::internal(user, served.clone(), record.name(), self.now());
        match self.delete(&mut call, &options.only(record.uid())).await {
            Err(failure) if failure.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Changes an object on the server's own behalf, through the main resource or a subresource.
    async fn edit_as(
        &self,
        user: &str,
        served: &Arc<Served>,
        record: &Record,
        subresource: &str,
        change: impl Fn(&mut Value) + Sync,
    ) -> Result<(), Failure> {
        self.check_running()?;
        let mut call = Call::internal(user, served.clone(), record.name(), self.now());
        call.subresource = subresource.to_owned();
        let edit = Change { uid: record.uid(), change: &change };
        match self.edit(&mut call, &edit).await {
            Err(failure) if failure.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// An edit by code of one incarnation of an object.
struct Change<'a, F> {
    uid: &'a str,
    change: &'a F,
}

impl<F: Fn(&mut Value) + Sync> Edit for Change<'_, F> {
    fn edit(&self, _: &mut Call, old: &Value) -> Result<Value, Failure> {
        let mut new = old.clone();
        new["metadata"]["uid"] = json!(self.uid);
        (self.change)(&mut new);
        Ok(new)
    }

    fn verb(&self) -> &'static str {
        "update"
    }
}

fn remove_finalizer(object: &mut Value, finalizer: &str) {
    if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|one| one != finalizer);
    }
}
