//! GitStateStore and BucketStateStore: opens their writers, keeps them in the registry, says on the store how it went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kratix_api::destination::{StateStoreKind, StateStoreRef};
use kratix_api::{Destination, WorkPlacement};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Plan, Reporter};
use kratix_core::state_store::{self, Complaint, Connection, Effect, Finding, OpenFailure, Opened, Snapshot, Store};
use kratix_core::work_placement;
use kratix_state_store::Handle;
use kube::{Api, ResourceExt};

use crate::caches::{Caches, address_entry, destination_entry, ledger_entry, secret_entry, store_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;

mod attempts;
mod backlog;
mod exchanges;
mod openings;
mod registry;
mod translation;
mod twins;

pub(crate) use self::attempts::Attempts;
pub(crate) use self::backlog::backlog;
pub(crate) use self::exchanges::Exchanges;
use self::exchanges::{Answer, Question, Stand};
pub(crate) use self::registry::{Registry, Replaced, Tried, silence};

/// The controller of one kind of state store.
pub(crate) struct StateStores {
    cx: Arc<Context>,
    registry: Arc<Registry>,
    exchanges: Arc<Exchanges>,
    queue: Queue<ObjectKey>,
    kind: StateStoreKind,
}

impl StateStores {
    /// Returns the controller of `kind`; `queue` is the one that it is run with.
    pub(crate) fn new(
        cx: &Arc<Context>,
        registry: &Arc<Registry>,
        exchanges: &Arc<Exchanges>,
        queue: &Queue<ObjectKey>,
        kind: StateStoreKind,
    ) -> Self {
        let (registry, exchanges) = (Arc::clone(registry), Arc::clone(exchanges));
        Self { cx: Arc::clone(cx), registry, exchanges, queue: queue.clone(), kind }
    }

    fn reference(&self, key: &ObjectKey) -> StateStoreRef {
        StateStoreRef { kind: self.kind.clone(), name: key.name.clone() }
    }

    /// Reads the Secret live: its content is nowhere kept.
    async fn secret(&self, store: &Store) -> state_store::Secret {
        let Some(key) = state_store::secret_of(store) else { return state_store::Secret::NotReferenced };
        let api: Api<Secret> = Api::namespaced(self.cx.platform.clone(), key.namespace.as_deref().unwrap_or_default());
        match api.get_opt(&key.name).await {
            Ok(Some(secret)) => state_store::Secret::Found {
                resource_version: secret.resource_version().unwrap_or_default(),
                data: secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
            },
            Ok(None) => state_store::Secret::NotFound,
            Err(error) => {
                let error = Error::read(format!("Secret {key}"), error);
                tracing::warn!(store = %store.reference().name, %error, "the Secret of a state store could not be read");
                state_store::Secret::Unreadable { message: error.to_string() }
            }
        }
    }

    /// Returns a writer beside the present one, which it replaces only if it works.
    fn writer(&self, store: &StateStoreRef, connection: &Connection) -> Result<Handle, OpenFailure> {
        let config = translation::store_config(&store.name, connection, &self.cx.config(), &self.cx.options.git);
        let placements = self.cx.caches.placements.clone();
        let lives = Arc::new(move |ledger: &str| {
            placements.any(&ledger_entry(ledger), |placement: &WorkPlacement| work_placement::keeps_paths(placement))
        });
        let handle = kratix_state_store::open_with(config, self.registry.cache_dir(), lives);
        handle.map_err(|error| translation::open_failure(&error))
    }

    /// Has a task of its own put the question, which brings the store back with the answer.
    fn ask(&self, key: &ObjectKey, question: Question, fingerprint: String) {
        let (cx, queue, key) = (Arc::downgrade(&self.cx), self.queue.clone(), key.clone());
        let now = move || cx.upgrade().map_or_else(jiff::Timestamp::now, |cx| cx.now());
        self.exchanges.ask(&self.reference(&key.clone()), question, fingerprint, now, move || queue.add(key));
    }

    /// Says on the store what has come of opening or checking it, and has all others see it.
    fn settle(&self, store: &StateStoreRef, snapshot: &Snapshot, answer: Answer) -> Option<Plan<Finding>> {
        let Answer { question, opened } = answer;
        let plan = state_store::record(snapshot, opened.clone());
        match (&opened.outcome, question) {
            (_, Question::Check { writer }) if !self.registry.is_present(store, &writer) => return None,
            (Err(_), _) => self.registry.close(store, Some(opened), cause(&plan)),
            (Ok(()), Question::Check { .. }) => self.registry.clear(store, opened),
            (Ok(()), Question::Open { writer, place }) => {
                self.registry.set_open(store, writer, place);
                self.registry.note(store, opened);
            }
        }
        Some(plan)
    }
}

/// After this time a writer is asked for once more that was just being replaced.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// Returns why the store cannot be written, for those who wait for it.
fn cause(plan: &Plan<Finding>) -> String {
    plan.findings.first().map(Finding::cause).unwrap_or_default()
}

impl Reconcile for StateStores {
    const NAME: &'static str = "StateStore";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let reference = self.reference(key);
        let Some(store) = store(&self.cx.caches, &reference) else {
            self.exchanges.give_up(&reference);
            self.registry.forget(&reference);
            return Ok(Next::OnChange);
        };
        self.registry.locate(&reference, &state_store::place(&store));
        let secret = self.secret(&store).await;
        let (opened, is_suspect, was_cleared) = self.registry.opened(&reference);
        let fetch_interval = self.cx.config().git_minimum_fetch_interval;
        let pushes = self.registry.pushes(&reference);
        let is_refusal_shown = is_refusal_shown(&self.cx, &store);
        let (now, under_way) = (self.cx.now(), None);
        let mut snapshot = Snapshot {
            now,
            store,
            secret,
            opened,
            is_suspect,
            was_cleared,
            under_way,
            pushes,
            is_refusal_shown,
            fetch_interval,
        };
        match self.exchanges.look(&reference, state_store::fingerprint(&snapshot).as_deref()) {
            Stand::Unasked => {}
            Stand::Asked(under_way) => snapshot.under_way = Some(under_way),
            Stand::Answered(answer) => {
                let Some(plan) = self.settle(&reference, &snapshot, answer) else {
                    return Ok(Next::After(Duration::ZERO));
                };
                self.cx.act(&plan).await?;
                return Ok(plan.next);
            }
        }
        let decision = state_store::decide(&snapshot);
        let plan = match decision.effect {
            None => decision.plan,
            Some(Effect::Close) => {
                self.registry.close(&reference, None, cause(&decision.plan));
                decision.plan
            }
            Some(Effect::Tell) => {
                self.registry.tell_silence(&reference, cause(&decision.plan));
                decision.plan
            }
            Some(Effect::Check { fingerprint }) => {
                // One that has just been replaced is looked at again.
                let Some(writer) = self.registry.writer(&reference) else { return Ok(Next::After(CHECK_AGAIN)) };
                self.ask(key, Question::Check { writer }, fingerprint);
                decision.plan.and_next(Next::After(state_store::SILENCE))
            }
            Some(Effect::Open { connection, fingerprint, place }) => match self.writer(&reference, &connection) {
                Ok(writer) => {
                    self.ask(key, Question::Open { writer, place }, fingerprint);
                    decision.plan.and_next(Next::After(state_store::SILENCE))
                }
                Err(failure) => {
                    let opened = Opened { fingerprint, at: self.cx.now(), outcome: Err(failure) };
                    let plan = state_store::record(&snapshot, opened.clone());
                    self.registry.close(&reference, Some(opened), cause(&plan));
                    plan
                }
            },
        };
        self.cx.act(&plan).await?;
        Ok(plan.next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        match store(&self.cx.caches, &self.reference(key))? {
            Store::Git(store) => Some((Reporter::GitStateStore, Target::of(&*store))),
            Store::Bucket(store) => Some((Reporter::BucketStateStore, Target::of(&*store))),
        }
    }
}

/// Brings stores to the queues when they, their Secrets or their writers change.
pub(crate) fn watch(cx: &Context, registry: &Registry, git: &Queue<ObjectKey>, bucket: &Queue<ObjectKey>) {
    let (git_queue, bucket_queue) = (git.clone(), bucket.clone());
    on_change(&cx.caches, move |old, new| {
        if state_store::concerns_itself(old, new)
            && let Some(store) = new.or(old)
        {
            let StateStoreRef { kind, name } = store.reference();
            queue_of(&kind, &git_queue, &bucket_queue).add(ObjectKey::cluster(name));
        }
    });
    let (caches, git_queue, bucket_queue) = (cx.caches.clone(), git.clone(), bucket.clone());
    cx.caches.secrets.on_change(move |old, new| {
        let Some(secret) = new.or(old) else { return };
        let entry = secret_entry(&secret.namespace().unwrap_or_default(), &secret.name_any());
        caches.git_stores.indexed(&entry).iter().for_each(|store| git_queue.add(ObjectKey::of(&**store)));
        caches.bucket_stores.indexed(&entry).iter().for_each(|store| bucket_queue.add(ObjectKey::of(&**store)));
    });
    // Writers may be opened with other settings now.
    let (caches, queue) = (cx.caches.clone(), git.clone());
    cx.caches.config.on_change(move |_, _| {
        caches.git_stores.all().iter().for_each(|store| queue.add(ObjectKey::of(&**store)));
    });
    follow_refusals(&cx.caches, git, bucket);
    let (git, bucket) = (git.clone(), bucket.clone());
    registry.on_suspicion(move |store| {
        queue_of(&store.kind, &git, &bucket).add(ObjectKey::cluster(store.name.clone()));
    });
}

/// Brings a store that says that it refuses what it is given when somebody does not show that any more.
fn follow_refusals(caches: &Caches, git: &Queue<ObjectKey>, bucket: &Queue<ObjectKey>) {
    let (known, git, bucket) = (caches.clone(), git.clone(), bucket.clone());
    let look_at = move |store: Option<&StateStoreRef>| {
        if let Some(store) = store.filter(|store| complaint(&known, store).is_some()) {
            queue_of(&store.kind, &git, &bucket).add(ObjectKey::cluster(store.name.clone()));
        }
    };
    let (known, look) = (caches.clone(), look_at.clone());
    caches.placements.on_change(move |old, new| {
        if let Some(placement) = old
            && state_store::takes_back(old.map(|old| &**old), new.map(|new| &**new))
        {
            let key = ObjectKey::cluster(placement.spec.target_destination_name.clone());
            look(known.destinations.get(&key).and_then(|found| found.spec.state_store_ref.clone()).as_ref());
        }
    });
    caches.destinations.on_change(move |old, new| {
        let (old, new) = (old.map(|old| &**old), new.map(|new| &**new));
        if state_store::takes_back(old, new) || work_placement::left(old, new).is_some() {
            look_at(old.and_then(|old| old.spec.state_store_ref.as_ref()));
        }
    });
}

/// Tells whether somebody whose push the store has refused still says so.
fn is_refusal_shown(cx: &Context, store: &Store) -> bool {
    let destinations = destinations(cx, &store.reference());
    let names = destinations.iter().map(|destination| ObjectKey::of(&**destination).name);
    let placements = names.flat_map(|name| cx.caches.placements.indexed(&destination_entry(&name)));
    state_store::is_refusal_shown(store, &destinations, placements)
}

fn queue_of<'a>(
    kind: &StateStoreKind,
    git: &'a Queue<ObjectKey>,
    bucket: &'a Queue<ObjectKey>,
) -> &'a Queue<ObjectKey> {
    match kind {
        StateStoreKind::BucketStateStore => bucket,
        StateStoreKind::GitStateStore | StateStoreKind::Other(_) => git,
    }
}

/// Calls `observer` with every change of a store of either kind.
pub(crate) fn on_change(
    caches: &Caches,
    observer: impl Fn(Option<&Store>, Option<&Store>) + Clone + Send + Sync + 'static,
) {
    let of_git = observer.clone();
    caches.git_stores.on_change(move |old, new| {
        let (old, new) = (old.cloned().map(Store::Git), new.cloned().map(Store::Git));
        of_git(old.as_ref(), new.as_ref());
    });
    caches.bucket_stores.on_change(move |old, new| {
        let (old, new) = (old.cloned().map(Store::Bucket), new.cloned().map(Store::Bucket));
        observer(old.as_ref(), new.as_ref());
    });
}

/// Returns the store as its object is, if there is one.
fn store(caches: &Caches, store: &StateStoreRef) -> Option<Store> {
    let key = ObjectKey::cluster(store.name.clone());
    match store.kind {
        StateStoreKind::GitStateStore => caches.git_stores.get(&key).map(Store::Git),
        StateStoreKind::BucketStateStore => caches.bucket_stores.get(&key).map(Store::Bucket),
        StateStoreKind::Other(_) => None,
    }
}

/// Returns what a store says of its last push, unless that was accepted.
pub(crate) fn complaint(caches: &Caches, reference: &StateStoreRef) -> Option<Complaint> {
    state_store::complaint(&store(caches, reference)?)
}

/// Returns where the files of a store are, if there is one.
pub(crate) fn place_of(caches: &Caches, reference: &StateStoreRef) -> Option<String> {
    Some(state_store::place(&store(caches, reference)?))
}

/// Returns where the files of each store are.
pub(crate) fn places(caches: &Caches) -> BTreeMap<StateStoreRef, String> {
    let git = caches.git_stores.all().into_iter().map(Store::Git);
    let buckets = caches.bucket_stores.all().into_iter().map(Store::Bucket);
    git.chain(buckets).map(|store| (store.reference(), state_store::place(&store))).collect()
}

/// Returns the stores at the address of `place`, each with its own place: two stores may write one repository or bucket.
pub(crate) fn beside(caches: &Caches, place: &str) -> BTreeMap<StateStoreRef, String> {
    let entry = address_entry(place);
    let git = caches.git_stores.indexed(&entry).into_iter().map(Store::Git);
    let buckets = caches.bucket_stores.indexed(&entry).into_iter().map(Store::Bucket);
    git.chain(buckets).map(|store| (store.reference(), state_store::place(&store))).collect()
}

/// Returns the Destinations of the stores at the address of `place` that are asked for, each with the place of its store.
pub(crate) fn destinations_beside(
    cx: &Context,
    place: &str,
    is_wanted: impl Fn(&Destination, &str) -> bool,
) -> Vec<(Arc<Destination>, String)> {
    let mut found = Vec::new();
    for (store, place) in beside(&cx.caches, place) {
        let wanted = destinations(cx, &store).into_iter().filter(|destination| is_wanted(destination, &place));
        found.extend(wanted.map(|destination| (destination, place.clone())));
    }
    found
}

/// Returns the Destinations of a store.
pub(crate) fn destinations(cx: &Context, store: &StateStoreRef) -> Vec<Arc<Destination>> {
    cx.caches.destinations.indexed(&store_entry(store.kind.as_str(), &store.name))
}
