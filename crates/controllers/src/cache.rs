//! A watch cache of one resource: one watch per process, many synchronous readers, secondary indexes.
//!
//! kube's reflector store offers neither indexes nor the object before a change; both are needed here: a pass must
//! not visit every Job of the cluster to find its own, and a trigger must see that only a status changed.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, pin_mut};
use kratix_core::object::ObjectKey;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Objects of a list that are asked for at once. At a start all kinds are listed at the same time, and a page is in memory as it
/// came, as it was decoded, and with everything that is dropped afterwards.
const PAGE: u32 = 100;

/// Names the index entries of an object, such as `work=default/redis-1`.
pub(crate) type IndexFn<K> = fn(&K) -> Vec<String>;

/// Takes away what no decision reads.
pub(crate) type TrimFn<K> = fn(&mut K);

type Observer<K> = Box<dyn Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync>;

/// Reads the latest known objects of one resource.
///
/// # Guarantees
/// Lists are sorted by namespace and name, so equal worlds give equal lists. After [`Cache::ready`] the cache has
/// held a complete list at least once.
///
/// # Assumptions
/// The content may be stale: decisions based on it must be safe on yesterday's data.
pub(crate) struct Cache<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<K> {
    state: RwLock<State<K>>,
    index: IndexFn<K>,
    trim: TrimFn<K>,
    observers: RwLock<Vec<Observer<K>>>,
    ready: watch::Sender<bool>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    /// Of each entry the objects themselves: a list of thousands costs no look-up for each of them.
    indexes: HashMap<String, BTreeMap<ObjectKey, Arc<K>>>,
}

impl<K> Cache<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Creates an empty cache; [`Cache::feed`] fills it.
    pub(crate) fn new(index: IndexFn<K>) -> Self {
        Self::trimmed(index, |_| {})
    }

    /// Creates an empty cache that keeps of each object what `trim` leaves.
    pub(crate) fn trimmed(index: IndexFn<K>, trim: TrimFn<K>) -> Self {
        let state = State { objects: BTreeMap::new(), indexes: HashMap::new() };
        Self {
            inner: Arc::new(Inner {
                state: RwLock::new(state),
                index,
                trim,
                observers: RwLock::new(Vec::new()),
                ready: watch::Sender::new(false),
            }),
        }
    }

    /// Creates a cache that holds these objects.
    #[cfg(test)]
    pub(crate) fn holding(index: IndexFn<K>, objects: impl IntoIterator<Item = K>) -> Self {
        let cache = Self::new(index);
        objects.into_iter().for_each(|object| cache.set(ObjectKey::of(&object), Some(Arc::new(object))));
        cache
    }

    /// Returns the object of this key.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.state.read().objects.get(key).cloned()
    }

    /// Returns every object, sorted by key.
    pub(crate) fn all(&self) -> Vec<Arc<K>> {
        self.inner.state.read().objects.values().cloned().collect()
    }

    /// Returns the objects whose index function names `entry`, sorted by key.
    pub(crate) fn indexed(&self, entry: &str) -> Vec<Arc<K>> {
        let state = self.inner.state.read();
        state.indexes.get(entry).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// Tells whether there is an object whose index function names `entry`.
    pub(crate) fn has(&self, entry: &str) -> bool {
        self.inner.state.read().indexes.get(entry).is_some_and(|objects| !objects.is_empty())
    }

    /// Tells whether one of the objects whose index function names `entry` is as asked for; no object is handed out for it.
    pub(crate) fn any(&self, entry: &str, is_wanted: impl Fn(&K) -> bool) -> bool {
        let state = self.inner.state.read();
        state.indexes.get(entry).is_some_and(|objects| objects.values().any(|object| is_wanted(object)))
    }

    /// Calls `observer` with the object before and after every change from now on, and once for each present object.
    pub(crate) fn on_change(&self, observer: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        // Registered before the replay: a change in between is seen twice, never missed.
        let observer: Observer<K> = Box::new(observer);
        let mut observers = self.inner.observers.write();
        for object in self.all() {
            observer(None, Some(&object));
        }
        observers.push(observer);
    }

    /// Calls `observer` with the object before and after every change from now on, for none that is present already.
    pub(crate) fn on_later_change(&self, observer: impl Fn(Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static) {
        self.inner.observers.write().push(Box::new(observer));
    }

    /// Tells whether the cache has held a complete list.
    pub(crate) fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// Waits until the cache has held a complete list.
    pub(crate) async fn ready(&self) {
        let mut ready = self.inner.ready.subscribe();
        // An error means that the feeding task ended: the process is shutting down and nobody reads any more.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Watches `api` and keeps the cache up to date until the future is dropped.
    pub(crate) async fn feed(&self, api: Api<K>, config: watcher::Config) {
        self.follow(watcher::watcher(api, config.page_size(PAGE)).default_backoff()).await;
    }

    async fn follow(&self, events: impl Stream<Item = watcher::Result<Event<K>>>) {
        pin_mut!(events);
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(ObjectKey::of(&object), self.strip(object));
                }
                Ok(Event::InitDone) => {
                    self.replace(std::mem::take(&mut listed));
                    self.inner.ready.send_replace(true);
                }
                Ok(Event::Apply(object)) => self.set(ObjectKey::of(&object), Some(self.strip(object))),
                Ok(Event::Delete(object)) => self.set(ObjectKey::of(&object), None),
                Err(error) => tracing::warn!(%error, "watch interrupted, resuming"),
            }
        }
    }

    /// Drops what no decision reads: managed fields are often larger than the object.
    fn strip(&self, mut object: K) -> Arc<K> {
        object.meta_mut().managed_fields = None;
        (self.inner.trim)(&mut object);
        Arc::new(object)
    }

    fn replace(&self, listed: BTreeMap<ObjectKey, Arc<K>>) {
        let gone: Vec<ObjectKey> = {
            let state = self.inner.state.read();
            state.objects.keys().filter(|key| !listed.contains_key(*key)).cloned().collect()
        };
        for key in gone {
            self.set(key, None);
        }
        for (key, object) in listed {
            self.set(key, Some(object));
        }
    }

    fn set(&self, key: ObjectKey, object: Option<Arc<K>>) {
        let (old, new) = {
            let mut state = self.inner.state.write();
            let old = state.objects.get(&key).cloned();
            if let (Some(old), Some(new)) = (&old, &object)
                && old.resource_version() == new.resource_version()
                && old.uid() == new.uid()
            {
                return;
            }
            let entries = |object: &Option<Arc<K>>| object.as_deref().map(self.inner.index).unwrap_or_default();
            let (left, entered) = (entries(&old), entries(&object));
            for entry in left.iter().filter(|entry| !entered.contains(entry)) {
                if let Some(objects) = state.indexes.get_mut(entry) {
                    objects.remove(&key);
                    if objects.is_empty() {
                        state.indexes.remove(entry);
                    }
                }
            }
            match &object {
                Some(new) => {
                    for entry in entered {
                        put(state.indexes.entry(entry).or_default(), &key, new);
                    }
                    put(&mut state.objects, &key, new);
                }
                None => {
                    state.objects.remove(&key);
                }
            }
            (old, object)
        };
        if old.is_none() && new.is_none() {
            return;
        }
        for observer in self.inner.observers.read().iter() {
            observer(old.as_ref(), new.as_ref());
        }
    }
}

/// Puts an object where an earlier version of it mostly is.
fn put<K>(objects: &mut BTreeMap<ObjectKey, Arc<K>>, key: &ObjectKey, object: &Arc<K>) {
    match objects.get_mut(key) {
        Some(present) => *present = Arc::clone(object),
        None => drop(objects.insert(key.clone(), Arc::clone(object))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use parking_lot::Mutex;

    fn config_map(name: &str, version: &str, team: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("default".into());
        object.metadata.name = Some(name.into());
        object.metadata.resource_version = Some(version.into());
        object.metadata.labels = Some([("team".to_owned(), team.to_owned())].into());
        object
    }

    fn by_team(object: &ConfigMap) -> Vec<String> {
        object.labels().get("team").cloned().into_iter().collect()
    }

    fn names(objects: &[Arc<ConfigMap>]) -> Vec<String> {
        objects.iter().map(|object| object.name_any()).collect()
    }

    async fn follow(cache: &Cache<ConfigMap>, events: Vec<Event<ConfigMap>>) {
        cache.follow(futures::stream::iter(events.into_iter().map(Ok))).await;
    }

    #[tokio::test]
    async fn a_relist_removes_what_is_no_longer_there_and_updates_indexes() {
        let cache = Cache::new(by_team);
        let listed = [config_map("b", "1", "x"), config_map("a", "2", "x"), config_map("c", "3", "y")];
        let mut events = vec![Event::Init];
        events.extend(listed.map(Event::InitApply));
        events.push(Event::InitDone);
        follow(&cache, events).await;
        cache.ready().await;
        assert_eq!(names(&cache.indexed("x")), ["a", "b"]);

        let events = vec![Event::Init, Event::InitApply(config_map("a", "4", "y")), Event::InitDone];
        follow(&cache, events).await;
        assert_eq!(names(&cache.all()), ["a"]);
        assert!(cache.indexed("x").is_empty());
        assert_eq!(names(&cache.indexed("y")), ["a"]);
    }

    #[tokio::test]
    async fn observers_see_both_sides_of_a_change_and_no_repetition() {
        let cache = Cache::new(by_team);
        follow(&cache, vec![Event::Apply(config_map("a", "1", "x"))]).await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let later = Arc::new(Mutex::new(0));
        let count = Arc::clone(&later);
        cache.on_later_change(move |_, _| *count.lock() += 1);
        cache.on_change(move |old, new| {
            let version = |object: Option<&Arc<ConfigMap>>| object.and_then(|object| object.resource_version());
            log.lock().push((version(old), version(new)));
        });
        let again = config_map("a", "1", "x");
        let changed = config_map("a", "2", "x");
        follow(&cache, vec![Event::Apply(again), Event::Apply(changed.clone()), Event::Delete(changed)]).await;
        let version = |text: &str| Some(text.to_owned());
        assert_eq!(*seen.lock(), [(None, version("1")), (version("1"), version("2")), (version("2"), None)]);
        assert_eq!(*later.lock(), 2, "what was there is not replayed");
    }
}
