//! GitStateStore and BucketStateStore: opens their writers, keeps them in the registry, says on the store how it went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kratix_api::Destination;
use kratix_api::destination::{StateStoreKind, StateStoreRef};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Plan, Reporter};
use kratix_core::state_store::{self, Connection, Effect, Finding, OpenFailure, Opened, Snapshot, Store};
use kube::{Api, ResourceExt};

use crate::caches::{Caches, ledger_entry, secret_entry, store_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;

mod attempts;
mod registry;
mod translation;
mod twins;

pub(crate) use self::attempts::Attempts;
pub(crate) use self::registry::Registry;

/// The controller of one kind of state store.
pub(crate) struct StateStores {
    cx: Arc<Context>,
    registry: Arc<Registry>,
    kind: StateStoreKind,
}

impl StateStores {
    /// Returns the controller of `kind`.
    pub(crate) fn new(cx: &Arc<Context>, registry: &Arc<Registry>, kind: StateStoreKind) -> Self {
        Self { cx: Arc::clone(cx), registry: Arc::clone(registry), kind }
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
            Err(error) => state_store::Secret::Unreadable { message: format!("reading Secret {key} failed: {error}") },
        }
    }

    fn opened(&self, snapshot: &mut Snapshot, fingerprint: String, outcome: Result<(), OpenFailure>) -> Opened {
        snapshot.now = self.cx.now();
        Opened { fingerprint, at: snapshot.now, outcome }
    }

    /// Opens the writer, or one beside the present one, and checks it. The present one is replaced only by one that works.
    async fn open(&self, store: &StateStoreRef, connection: &Connection, place: String) -> Result<(), OpenFailure> {
        let config = translation::store_config(&store.name, connection, &self.cx.config(), &self.cx.options.git);
        let placements = self.cx.caches.placements.clone();
        let lives = Arc::new(move |ledger: &str| !placements.indexed(&ledger_entry(ledger)).is_empty());
        let handle = kratix_state_store::open_with(config, self.registry.cache_dir(), lives);
        let handle = handle.map_err(|error| translation::open_failure(&error))?;
        handle.check().await.map_err(|error| translation::open_failure(&error))?;
        self.registry.set_open(store, handle, place);
        Ok(())
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
            self.registry.forget(&reference);
            return Ok(Next::OnChange);
        };
        self.registry.locate(&reference, &state_store::place(&store));
        let secret = self.secret(&store).await;
        let (opened, is_suspect) = self.registry.opened(&reference);
        let fetch_interval = self.cx.config().git_minimum_fetch_interval;
        let pushes = self.registry.pushes(&reference);
        let mut snapshot = Snapshot { now: self.cx.now(), store, secret, opened, is_suspect, pushes, fetch_interval };
        let decision = state_store::decide(&snapshot);
        let plan = match decision.effect {
            None => decision.plan,
            Some(Effect::Close) => {
                self.registry.close(&reference, None, cause(&decision.plan));
                decision.plan
            }
            Some(Effect::Check { fingerprint }) => {
                // One that has just been replaced is looked at again.
                let Some(writer) = self.registry.writer(&reference) else { return Ok(Next::After(CHECK_AGAIN)) };
                let outcome = writer.check().await.map_err(|error| translation::open_failure(&error));
                let opened = self.opened(&mut snapshot, fingerprint, outcome);
                let plan = state_store::record(&snapshot, opened.clone());
                match &opened.outcome {
                    Ok(()) => self.registry.clear(&reference, opened),
                    Err(_) => self.registry.close(&reference, Some(opened), cause(&plan)),
                }
                plan
            }
            Some(Effect::Open { connection, fingerprint, place }) => {
                let outcome = self.open(&reference, &connection, place).await;
                let opened = self.opened(&mut snapshot, fingerprint, outcome);
                let plan = state_store::record(&snapshot, opened.clone());
                match &opened.outcome {
                    Ok(()) => self.registry.note(&reference, opened),
                    Err(_) => self.registry.close(&reference, Some(opened), cause(&plan)),
                }
                plan
            }
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
    let (git, bucket) = (git.clone(), bucket.clone());
    registry.on_suspicion(move |store| {
        queue_of(&store.kind, &git, &bucket).add(ObjectKey::cluster(store.name.clone()));
    });
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

/// Returns what a store says of its last push, if that was refused.
pub(crate) fn refusal(caches: &Caches, reference: &StateStoreRef) -> Option<String> {
    state_store::refusal(&store(caches, reference)?).map(str::to_owned)
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

/// Returns the Destinations of a store.
pub(crate) fn destinations(cx: &Context, store: &StateStoreRef) -> Vec<Arc<Destination>> {
    cx.caches.destinations.indexed(&store_entry(store.kind.as_str(), &store.name))
}
