//! What tells why the pod of a pipeline does not get on: the pods of workflows, and the refusals to make one.
//!
//! Of either nothing is kept but what a decision reads: of a pod a few lines if something is wrong with it, and of pods that have
//! done their work nothing at all. What is missing here makes a failure less well explained, and a Job that cannot begin is
//! stopped later; so nobody waits for these caches.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1;
use kratix_api::{ObjectMeta, Timestamp, keys};
use kratix_core::object::ObjectKey;
use kratix_core::workflow::failure::{self, Sight};
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::caches::Caches;

/// The digest of a pod of a workflow.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    metadata: ObjectMeta,
    seen: failure::Attempt,
}

/// An event that tells why no pod could be made for a Job.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    metadata: ObjectMeta,
    /// Uid and name.
    job: (String, String),
    at: Option<Timestamp>,
    text: String,
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pod = v1::Pod::deserialize(deserializer)?;
        let seen = failure::attempt(&pod);
        let metadata = ObjectMeta { owner_references: pod.metadata.owner_references.clone(), ..address(pod.metadata) };
        Ok(Self { metadata, seen })
    }
}

impl<'de> Deserialize<'de> for Refusal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = v1::Event::deserialize(deserializer)?;
        let of = event.involved_object;
        Ok(Self {
            metadata: address(event.metadata),
            job: (of.uid.unwrap_or_default(), of.name.unwrap_or_default()),
            at: event.last_timestamp.map(|time| time.0).or(event.event_time.map(|time| time.0)),
            text: event.message.unwrap_or_default(),
        })
    }
}

/// Keeps what names an object and its version.
fn address(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        ..ObjectMeta::default()
    }
}

/// Makes a digest addressable as the resource that it is a digest of.
macro_rules! digest_of {
    ($digest:ty, $resource:ty) => {
        impl Resource for $digest {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind(of: &()) -> std::borrow::Cow<'_, str> {
                <$resource as Resource>::kind(of)
            }

            fn group(of: &()) -> std::borrow::Cow<'_, str> {
                <$resource as Resource>::group(of)
            }

            fn version(of: &()) -> std::borrow::Cow<'_, str> {
                <$resource as Resource>::version(of)
            }

            fn plural(of: &()) -> std::borrow::Cow<'_, str> {
                <$resource as Resource>::plural(of)
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

digest_of!(Pod, v1::Pod);
digest_of!(Refusal, v1::Event);

/// The pods of workflows that have not done their work, and the refusals to make pods. Both are indexed by the uid of the Job.
#[derive(Clone)]
pub(crate) struct Pods {
    pods: Cache<Pod>,
    refusals: Cache<Refusal>,
    /// By the uid of a Job: how far its last pod had come that was removed before it had ended, as long as the Job exists.
    last: Arc<Mutex<HashMap<String, String>>>,
}

impl Pods {
    /// Creates the caches and starts their watches in `tasks`.
    pub(crate) fn start(platform: &Client, tasks: &mut JoinSet<()>) -> Self {
        let pods = Cache::new(|pod: &Pod| owner(pod).map(|(uid, _)| uid.to_owned()).into_iter().collect());
        let refusals = Cache::new(|refusal: &Refusal| vec![refusal.job.0.clone()]);
        let (fed, api) = (pods.clone(), Api::all(platform.clone()));
        let unfinished = watcher::Config::default()
            .labels(&format!("{}={}", keys::MANAGED_BY, keys::MANAGED_BY_KRATIX))
            .fields("status.phase!=Succeeded");
        tasks.spawn(async move { fed.feed(api, unfinished).await });
        let (fed, api) = (refusals.clone(), Api::all(platform.clone()));
        tasks.spawn(async move { follow(fed, api).await });
        Self { pods, refusals, last: Arc::default() }
    }

    /// Begins to remember the last pods of Jobs for as long as these exist.
    pub(crate) fn follow_jobs(&self, jobs: &Cache<Job>) {
        let (last, known) = (Arc::clone(&self.last), jobs.clone());
        self.pods.on_later_change(move |old, new| {
            if let (Some(pod), None) = (old, new)
                && let Some((uid, name)) = owner(pod)
                && let Some(when) = pod.seen.cut_short()
                && job(&known, pod.namespace(), uid, name).is_some()
            {
                last.lock().insert(uid.to_owned(), when);
            }
        });
        let last = Arc::clone(&self.last);
        jobs.on_later_change(move |old, new| {
            if let (Some(job), None) = (old, new) {
                last.lock().remove(job.metadata.uid.as_deref().unwrap_or_default());
            }
        });
    }

    /// Returns what is known of the pods of a Job.
    pub(crate) fn sight(&self, job: &Job) -> Sight {
        // Before the first list, that there is no pod says nothing.
        if !self.pods.is_ready() {
            return Sight::Unseen;
        }
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let pods: Vec<failure::Attempt> = self.pods.indexed(uid).iter().map(|pod| pod.seen.clone()).collect();
        let refusals = self.refusals.indexed(uid);
        let latest = refusals.iter().max_by_key(|refusal| refusal.at);
        let sight = Sight::of(job, &pods, latest.map(|refusal| refusal.text.as_str()));
        sight.with_last(|| self.last.lock().get(uid).cloned())
    }
}

/// Watches refusals where that is permitted: with roles of the original it is not.
async fn follow(cache: Cache<Refusal>, api: Api<Refusal>) {
    const OF_JOBS: &str = "involvedObject.kind=Job,reason=FailedCreate";
    let first = api.list(&ListParams::default().fields(OF_JOBS).limit(1)).await;
    if let Err(kube::Error::Api(status)) = first
        && status.code == 403
    {
        tracing::warn!(error = %status.message, "a Job that cannot make its pod will not say why on its request; permit list and watch of events");
        return;
    }
    cache.feed(api, watcher::Config::default().fields(OF_JOBS)).await;
}

/// Calls `observer` with the Job of each pod whose trouble begins, changes or ends.
pub(crate) fn on_trouble(caches: &Caches, observer: impl Fn(&Job) + Clone + Send + Sync + 'static) {
    let (jobs, told, refusals) = (caches.jobs.clone(), observer.clone(), caches.pods.refusals.clone());
    caches.pods.pods.on_change(move |old, new| {
        if let Some(pod) = new.or(old)
            && let Some((uid, name)) = owner(pod)
            && failure::concerns(old.map(|pod| &pod.seen), new.map(|pod| &pod.seen), refusals.has(uid))
            && let Some(job) = job(&jobs, pod.namespace(), uid, name)
        {
            told(&job);
        }
    });
    let jobs = caches.jobs.clone();
    caches.pods.refusals.on_change(move |old, new| {
        let text = |refusal: Option<&Arc<Refusal>>| refusal.map(|refusal| refusal.text.clone());
        if let Some(refusal) = new.filter(|_| text(old) != text(new))
            && let Some(job) = job(&jobs, refusal.namespace(), &refusal.job.0, &refusal.job.1)
        {
            observer(&job);
        }
    });
}

/// Returns the Job, if it is the one that is meant. One that is not known yet brings its parent to a pass when it is.
fn job(jobs: &Cache<Job>, namespace: Option<String>, uid: &str, name: &str) -> Option<Arc<Job>> {
    let job = jobs.get(&ObjectKey { namespace, name: name.to_owned() })?;
    (job.metadata.uid.as_deref() == Some(uid)).then_some(job)
}

/// Returns uid and name of the Job that controls a pod.
fn owner(pod: &Pod) -> Option<(&str, &str)> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut jobs = owners.filter(|owner| owner.kind == "Job" && owner.controller == Some(true));
    jobs.next().map(|owner| (owner.uid.as_str(), owner.name.as_str()))
}
