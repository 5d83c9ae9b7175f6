//! Promise: installs its API and keeps everything that belongs to it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{Promise, keys, promise_api};
use kratix_core::object::{Kind, ObjectKey, Target};
use kratix_core::plan::{Event, Next, Plan, Reporter};
use kratix_core::promise::{self, Call, Refusal, Remains, Request, Requests as Wanted, Snapshot, trigger};
use kratix_core::request;
use kratix_core::trace::Subject;
use kratix_core::workflow::Definition;
use kratix_core::workflow::access::Existing;
use kube::api::DynamicObject;
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::cache::Cache;
use crate::caches::{Caches, own_entry, parent_entry, promise_entry};
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::expected::Expected;
use crate::pods;
use crate::queue::Queue;
use crate::request::Requests;
use crate::telemetry::Pass;

/// A change of how a request runs waits so long for those of others: a pass looks at all requests of the Promise.
const OTHERS: Duration = Duration::from_millis(100);

/// Generation and uid of a Promise, and the workflows that it had then.
type Known = (Option<i64>, Option<String>, Arc<Definition>);

/// The controller of Promises.
pub(crate) struct Promises {
    cx: Arc<Context>,
    requests: Requests,
    surroundings: Arc<Caches>,
    expected: Expected,
    /// Decoded workflows of each Promise at its last seen generation.
    definitions: Mutex<HashMap<ObjectKey, Known>>,
    /// Of the requests of each Promise that were told to run: the version that was told, and what came of it. It holds as
    /// long as the cache shows that version. Forgotten with a restart, which costs one attempt.
    answers: Mutex<HashMap<ObjectKey, Answers>>,
    /// What was seen last of the requests of a Promise that follows how they run: between two passes few of them change.
    seen: Mutex<HashMap<ObjectKey, Views>>,
}

/// Requests by the address of the object in the cache, which is held so that no other object has it.
#[derive(Default)]
struct Views(HashMap<usize, (Arc<DynamicObject>, Arc<Request>)>);

impl Views {
    /// Returns what is to be seen of each request, and keeps that for the next look.
    fn look_at(&mut self, requests: &[Arc<DynamicObject>]) -> Vec<Arc<Request>> {
        let mut before = std::mem::replace(&mut self.0, HashMap::with_capacity(requests.len()));
        let look = |request: &Arc<DynamicObject>| {
            let at = Arc::as_ptr(request).addr();
            let known = before.remove(&at);
            let (object, seen) = known.unwrap_or_else(|| (Arc::clone(request), Arc::new(Request::of(request))));
            self.0.insert(at, (object, Arc::clone(&seen)));
            seen
        };
        requests.iter().map(look).collect()
    }
}

type Answers = HashMap<ObjectKey, (Option<String>, Answer)>;

/// What came of telling a request to run.
enum Answer {
    /// It is this now.
    Told(Request),
    /// The API server said no.
    Refused(Refusal),
}

impl Promises {
    /// Returns the controller; it starts and stops controllers through `requests`.
    pub(crate) fn new(cx: &Arc<Context>, requests: &Requests) -> Self {
        Self {
            cx: Arc::clone(cx),
            requests: requests.clone(),
            surroundings: Arc::new(cx.caches.clone()),
            expected: Expected::default(),
            definitions: Mutex::default(),
            answers: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    async fn observe(&self, promise: Arc<Promise>) -> Result<Snapshot, Error> {
        let caches = &self.cx.caches;
        let name = promise.name_any();
        let entry = promise_entry(&name);
        let mut revisions = caches.revisions.indexed(&entry);
        let named = promise::revision_names(&promise).map(|name| caches.revisions.get(&ObjectKey::cluster(name)));
        revisions.extend(named.into_iter().flatten());
        revisions.sort_by_key(|revision| revision.name_any());
        revisions.dedup_by_key(|revision| revision.name_any());
        let required = &promise.spec.required_promises;
        let of_required = required.iter().flat_map(|required| caches.revisions.indexed(&promise_entry(&required.name)));
        let mut required_revisions: Vec<_> = of_required.collect();
        required_revisions.sort_by_key(|revision| revision.name_any());
        required_revisions.dedup_by_key(|revision| revision.name_any());
        let requests = self.requests.list(&name).map(|requests| self.look_at(&promise, &requests));
        let access_name = promise::access_name(&name);
        let has_api = promise_api::read(&promise.spec).ok();
        let (crd, cluster_role, cluster_role_binding) = match &has_api {
            Some(api) => (
                self.find(&caches.crds, api.crd_name()).await?,
                self.find(&caches.cluster_roles, &access_name).await?,
                self.find(&caches.cluster_role_bindings, &access_name).await?,
            ),
            None => (caches.crds.indexed(&entry).pop(), None, None),
        };
        let awaited_jobs = match crd.as_deref().and_then(request::kind_of) {
            Some(kind) => awaited_jobs(&caches.jobs, &kind, &promise, requests.as_deref().unwrap_or_default()),
            None => Vec::new(),
        };
        let remains = || Remains {
            works: caches.works.indexed(&entry),
            jobs: caches.jobs.indexed(&entry),
            bindings: caches.bindings.indexed(&entry),
        };
        Ok(Snapshot {
            now: self.cx.now(),
            definition: self.definition(&promise),
            promises: caches.promises.all(),
            revisions,
            required_revisions,
            crd,
            cluster_role,
            cluster_role_binding,
            own_works: caches.works.indexed(&own_entry(&name)),
            own_jobs: caches.jobs.indexed(&own_entry(&name)),
            awaited_jobs,
            remains: promise.metadata.deletion_timestamp.as_ref().map(|_| remains()).unwrap_or_default(),
            requests,
            access: Existing {
                service_accounts: caches.service_accounts.indexed(&entry),
                config_maps: caches.config_maps.indexed(&entry),
                roles: caches.roles.indexed(&entry),
                role_bindings: caches.role_bindings.indexed(&entry),
                cluster_roles: caches.cluster_roles.indexed(&entry),
                cluster_role_bindings: caches.cluster_role_bindings.indexed(&entry),
            },
            surroundings: Arc::<Caches>::clone(&self.surroundings),
            settings: self.cx.settings(),
            promise,
        })
    }

    /// Returns an object by name. Caches hold only what carries a Promise's label; what is missing there is read from the
    /// API server, because somebody else's object of that name must not be mistaken for none.
    async fn find<K>(&self, cache: &Cache<K>, name: &str) -> Result<Option<Arc<K>>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        if let Some(object) = cache.get(&ObjectKey::cluster(name)) {
            return Ok(Some(object));
        }
        let read = Api::<K>::all(self.cx.platform.clone()).get_opt(name).await;
        let read = read.map_err(|error| Error::read(format!("{} {name}", K::kind(&())), error))?;
        Ok(read.map(Arc::new))
    }

    /// Returns the requests of a Promise, as they are after they were told last.
    fn look_at(&self, promise: &Promise, requests: &[Arc<DynamicObject>]) -> Vec<Arc<Request>> {
        let key = ObjectKey::of(promise);
        let mut seen = self.view(&key, promise::follows_requests(promise), requests);
        let mut all = self.answers.lock();
        let Some(mut answers) = all.remove(&key) else { return seen };
        let mut held = Answers::new();
        for request in &mut seen {
            let key = key_of(request);
            let Some((version, answer)) = answers.remove(&key).filter(|(told, _)| *told == request.resource_version)
            else {
                continue;
            };
            *request = Arc::new(match &answer {
                Answer::Told(told) => told.clone(),
                Answer::Refused(refusal) => Request { refusal: Some(refusal.clone()), ..request.as_ref().clone() },
            });
            held.insert(key, (version, answer));
        }
        if !held.is_empty() {
            all.insert(key, held);
        }
        seen
    }

    /// Returns the requests of a Promise as the cache shows them. While it follows them, each version is looked at once.
    fn view(&self, promise: &ObjectKey, is_followed: bool, requests: &[Arc<DynamicObject>]) -> Vec<Arc<Request>> {
        let mut views = self.seen.lock().remove(promise).unwrap_or_default();
        let seen = views.look_at(requests);
        if is_followed {
            self.seen.lock().insert(promise.clone(), views);
        }
        seen
    }

    /// Tells requests to run, all at once, and announces it if one of them was told. Returns whether one was refused; what
    /// goes away by itself is an error.
    async fn call(&self, promise: &ObjectKey, calls: Vec<Call>, announcement: Option<Event>) -> Result<bool, Error> {
        let call = async |call: Call| (self.cx.act(&Plan::<()>::from(call.write.clone())).await, call);
        let outcomes = futures::future::join_all(calls.into_iter().map(call)).await;
        if outcomes.iter().any(|(result, _)| result.is_ok()) {
            announcement.iter().for_each(|event| self.cx.events.publish(event));
        }
        let (mut outcome, mut is_refused) = (Ok(()), false);
        for (result, call) in outcomes {
            let answer = match result {
                Ok(()) => Answer::Told(call.told()),
                Err(error) if error.is_refusal() => {
                    is_refused = true;
                    Answer::Refused(Refusal { at: self.cx.now(), cause: error.to_string() })
                }
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            let (key, version) = (key_of(&call.request), call.request.resource_version);
            self.answers.lock().entry(promise.clone()).or_default().insert(key, (version, answer));
        }
        outcome.map(|()| is_refused)
    }

    fn definition(&self, promise: &Promise) -> Arc<Definition> {
        let (generation, uid) = (promise.metadata.generation, promise.uid());
        let mut definitions = self.definitions.lock();
        if let Some((known_generation, known_uid, definition)) = definitions.get(&ObjectKey::of(promise))
            && (known_generation, known_uid) == (&generation, &uid)
        {
            return Arc::clone(definition);
        }
        let definition = Arc::new(Definition::of(&promise.spec));
        definitions.insert(ObjectKey::of(promise), (generation, uid, Arc::clone(&definition)));
        definition
    }

    fn forget(&self, key: &ObjectKey) {
        self.expected.forget(key);
        self.definitions.lock().remove(key);
        self.answers.lock().remove(key);
        self.seen.lock().remove(key);
    }
}

impl Reconcile for Promises {
    const NAME: &'static str = "Promise";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(promise) = self.cx.caches.promises.get(key) else {
            self.forget(key);
            self.requests.outlive(&key.name).await;
            return Ok(Next::OnChange);
        };
        let pass = self.cx.begin(&promise.metadata, || Subject::promise(&promise));
        pass.run(self.pass(key, promise, &pass)).await
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::Promise, Target::of(&*self.cx.caches.promises.get(key)?)))
    }
}

impl Promises {
    async fn pass(&self, key: &ObjectKey, promise: Arc<Promise>, pass: &Pass) -> Result<Next, Error> {
        self.expected.arrived(key, &self.cx).await?;
        let snapshot = self.observe(pass.carry(promise)).await?;
        let mut decision = promise::decide(&snapshot);
        pass.note_if_busy(&mut decision.plan);
        let acted = self.cx.execute(&decision.plan).await;
        // Also after a failure: objects may have been made before it.
        self.expected.note(key, acted.made);
        if let Err(error) = acted.outcome {
            return Err(self.cx.tell_refusal(error, |cause| promise::refused(&snapshot, cause)).await);
        }
        match decision.requests {
            Wanted::Running { api } => self.requests.start(&key.name, &api).await,
            Wanted::Stopped => self.requests.stop(&key.name),
            Wanted::Unchanged => {}
        }
        match self.call(key, decision.calls, decision.announcement).await? {
            // What was refused is told by a pass that knows it.
            true => Ok(Next::After(Duration::ZERO)),
            false => Ok(decision.plan.next),
        }
    }
}

fn key_of(request: &Request) -> ObjectKey {
    ObjectKey::namespaced(&request.namespace, &request.name)
}

/// Brings Promises to the queue when they, what they own, or what they depend on change.
pub(crate) fn watch(cx: &Context, requests: &Requests, queue: &Queue<ObjectKey>) {
    watch_promises(cx, queue);
    watch_output(cx, queue);
    watch_api(cx, queue);
    watch_access(cx, queue);
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    requests.on_change(move |promise, old, new| {
        let (old, new) = (old.map(|old| &**old), new.map(|new| &**new));
        let key = ObjectKey::cluster(promise);
        let is_followed = || cache.get(&key).is_some_and(|promise| promise::follows_requests(&promise));
        if trigger::request_concerns(old, new) {
            promises.add(key);
        } else if is_followed() && trigger::run_concerns(old, new) {
            promises.add_after(key, OTHERS);
        }
    });
}

fn watch_promises(cx: &Context, queue: &Queue<ObjectKey>) {
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.promises.on_change(move |old, new| {
        new.or(old).into_iter().for_each(|promise| promises.add(ObjectKey::of(&**promise)));
        let neighbours = trigger::neighbours(old.map(|old| &**old), new.map(|new| &**new), &cache.all());
        neighbours.into_iter().for_each(|name| promises.add(ObjectKey::cluster(name)));
    });
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.revisions.on_change(move |old, new| {
        for revision in old.into_iter().chain(new) {
            promises.add(ObjectKey::cluster(&revision.spec.promise_ref.name));
        }
        if trigger::revision_concerns_others(old.map(|old| &**old), new.map(|new| &**new))
            && let Some(revision) = new.or(old)
        {
            let requiring = trigger::requiring(&revision.spec.promise_ref.name, &cache.all());
            requiring.into_iter().for_each(|name| promises.add(ObjectKey::cluster(name)));
        }
    });
    // Intervals and defaults of Jobs may differ now.
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.config.on_change(move |_, _| {
        cache.all().iter().for_each(|promise| promises.add(ObjectKey::of(&**promise)));
    });
}

fn watch_output(cx: &Context, queue: &Queue<ObjectKey>) {
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.jobs.on_change(move |old, new| {
        if let Some((promise, of_request)) = trigger::by_job(old.map(|old| &**old), new.map(|new| &**new)) {
            let key = ObjectKey::cluster(&promise);
            // A request may say that its run is over before its Job is.
            let is_followed = of_request && cache.get(&key).is_some_and(|promise| promise::follows_requests(&promise));
            add(&promises, &cache, &promise, of_request);
            if is_followed {
                promises.add_after(key, OTHERS);
            }
        }
    });
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    pods::on_trouble(&cx.caches, move |job| {
        if let Some((promise, of_request)) = trigger::by_job(None, Some(job)) {
            add(&promises, &cache, &promise, of_request);
        }
    });
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.works.on_change(move |old, new| {
        if let Some((promise, of_request)) = trigger::by_work(old.map(|old| &**old), new.map(|new| &**new)) {
            add(&promises, &cache, &promise, of_request);
        }
    });
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.bindings.on_change(move |old, new| {
        for binding in old.into_iter().chain(new) {
            add(&promises, &cache, &binding.spec.promise_ref.name, true);
        }
    });
}

/// Adds a Promise; `if_deleting`: only while it is being deleted, since only then it looks at what has changed.
fn add(promises: &Queue<ObjectKey>, cache: &Cache<Promise>, name: &str, if_deleting: bool) {
    let key = ObjectKey::cluster(name);
    let is_deleting = || cache.get(&key).is_some_and(|promise| promise.metadata.deletion_timestamp.is_some());
    if !if_deleting || is_deleting() {
        promises.add(key);
    }
}

fn watch_api(cx: &Context, queue: &Queue<ObjectKey>) {
    let (cache, promises) = (cx.caches.promises.clone(), queue.clone());
    cx.caches.crds.on_change(move |old: Option<&Arc<CustomResourceDefinition>>, new| {
        for crd in old.into_iter().chain(new) {
            crd.labels().get(keys::PROMISE_NAME).into_iter().for_each(|name| promises.add(ObjectKey::cluster(name)));
        }
        // Another Promise may have waited for the name to become free.
        if let (Some(gone), None) = (old, new) {
            for promise in cache.all() {
                if trigger::api_name(&promise) == gone.metadata.name.as_deref() {
                    promises.add(ObjectKey::of(&*promise));
                }
            }
        }
    });
    let promises = queue.clone();
    cx.caches.cluster_roles.on_change(move |old: Option<&Arc<ClusterRole>>, new| add_for_access(&promises, old, new));
    let promises = queue.clone();
    cx.caches
        .cluster_role_bindings
        .on_change(move |old: Option<&Arc<ClusterRoleBinding>>, new| add_for_access(&promises, old, new));
}

/// Brings a Promise back whose access to its API was changed or removed.
fn add_for_access<K: Resource>(promises: &Queue<ObjectKey>, old: Option<&Arc<K>>, new: Option<&Arc<K>>) {
    for object in old.into_iter().chain(new) {
        if let Some(promise) = promise_of(&**object)
            && (new.is_none() || object.name_any() == promise::access_name(promise))
        {
            promises.add(ObjectKey::cluster(promise));
        }
    }
}

fn promise_of<K: Resource>(object: &K) -> Option<&str> {
    object.meta().labels.as_ref()?.get(keys::PROMISE_NAME).map(String::as_str)
}

/// Brings a Promise back that waits for these to go.
fn watch_access(cx: &Context, queue: &Queue<ObjectKey>) {
    fn follow<K>(cache: &Cache<K>, queue: &Queue<ObjectKey>)
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let promises = queue.clone();
        cache.on_change(move |old, new| {
            if let (Some(gone), None) = (old, new)
                && let Some(promise) = promise_of(&**gone)
            {
                promises.add(ObjectKey::cluster(promise));
            }
        });
    }
    follow(&cx.caches.service_accounts, queue);
    follow(&cx.caches.config_maps, queue);
    follow(&cx.caches.roles, queue);
    follow(&cx.caches.role_bindings, queue);
}

/// Returns the Jobs of those requests that may run without saying so. As with the requests themselves, `kind` is the one that is
/// served, whatever the Promise says by now.
fn awaited_jobs(jobs: &Cache<Job>, kind: &Kind, promise: &Promise, requests: &[Arc<Request>]) -> Vec<Arc<Job>> {
    let entry = |request: &Request| parent_entry(&kind.kind, &request.namespace, &request.name);
    promise::awaited(promise, requests).flat_map(|request| jobs.indexed(&entry(request))).collect()
}

#[cfg(test)]
mod tests {
    use kratix_core::promise::RERUN;
    use serde_json::json;

    use super::*;
    use crate::caches::job_entries;

    fn request(name: &str, version: &str) -> Arc<DynamicObject> {
        let object = json!({
            "apiVersion": "e.org/v1", "kind": "Env",
            "metadata": { "name": name, "namespace": "n", "resourceVersion": version },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn each_version_of_a_request_is_looked_at_once_and_what_is_gone_is_not_kept() {
        let mut views = Views::default();
        let (a, b) = (request("a", "1"), request("b", "1"));
        let first = views.look_at(&[Arc::clone(&a), Arc::clone(&b)]);
        let changed = request("a", "2");
        let second = views.look_at(&[Arc::clone(&changed), Arc::clone(&b)]);
        assert_eq!(second[0].resource_version.as_deref(), Some("2"));
        assert!(Arc::ptr_eq(&first[1], &second[1]));
        assert_eq!(Arc::strong_count(&a), 1);
        views.look_at(&[]);
        assert_eq!((Arc::strong_count(&changed), Arc::strong_count(&b)), (1, 1));
    }

    #[test]
    fn a_round_finds_the_jobs_of_those_it_has_told_by_the_kind_that_is_served() {
        let promise = json!({
            "metadata": { "name": "p", "generation": 2, "annotations": { RERUN: "2.told" } }, "spec": {},
        });
        let promise: Promise = serde_json::from_value(promise).unwrap();
        let told = |name: &str| {
            let mut request = DynamicObject::clone(&request(name, "1"));
            request.annotations_mut().insert(RERUN.into(), "2.told".into());
            Arc::new(Request::of(&request))
        };
        let requests = [told("a"), told("b"), Arc::new(Request::of(&request("untold", "1")))];
        let job = |kind: &str, namespace: &str, name: &str| {
            let of = [(keys::JOB_RESOURCE_KIND, kind), (keys::JOB_RESOURCE_NAMESPACE, namespace)];
            let mut job = Job::default();
            job.metadata.name = Some(format!("{kind}-{namespace}-{name}"));
            job.annotations_mut().extend(of.map(|(key, value)| (key.to_owned(), value.to_owned())));
            job.annotations_mut().insert(keys::JOB_RESOURCE_NAME.into(), name.into());
            job
        };
        let all =
            [("Env", "n", "a"), ("Env", "n", "b"), ("Env", "n", "untold"), ("Env", "m", "a"), ("Other", "n", "a")];
        let jobs = Cache::holding(job_entries, all.map(|(kind, namespace, name)| job(kind, namespace, name)));
        let found = awaited_jobs(&jobs, &Kind::new("e.org", "v1", "Env", "envs"), &promise, &requests);
        assert_eq!(found.iter().map(|job| job.name_any()).collect::<Vec<_>>(), ["Env-n-a", "Env-n-b"]);
    }
}
