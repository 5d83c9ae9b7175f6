//! PromiseRevision: keeps one of them the latest, and takes requests along when one is deleted.

use std::sync::Arc;

use kratix_api::{Promise, PromiseRevision, keys, promise_api};
use kratix_core::object::{Kind, ObjectKey, Target};
use kratix_core::plan::{Next, Reporter};
use kratix_core::promise::{Request, trigger};
use kratix_core::promise_revision::{self, Bound, Snapshot};
use kratix_core::trace::Subject;
use kube::ResourceExt;

use crate::act;
use crate::caches::promise_entry;
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;
use crate::request::Requests;

/// The controller of PromiseRevisions.
pub(crate) struct Revisions {
    cx: Arc<Context>,
    requests: Requests,
}

impl Revisions {
    /// Returns the controller.
    pub(crate) fn new(cx: &Arc<Context>, requests: &Requests) -> Self {
        Self { cx: Arc::clone(cx), requests: requests.clone() }
    }

    async fn observe(&self, revision: Arc<PromiseRevision>) -> Result<Snapshot, Error> {
        let name = &revision.spec.promise_ref.name;
        let promise = self.cx.caches.promises.get(&ObjectKey::cluster(name));
        let requests = self.requests.kind(name).or_else(|| kind_of(promise.as_deref(), &revision));
        let bound = match revision.metadata.deletion_timestamp {
            Some(_) => self.bound(&revision, requests.as_ref()).await?,
            None => Vec::new(),
        };
        Ok(Snapshot { now: self.cx.now(), revision, promise, requests, bound })
    }

    /// Returns the bindings to a revision that is being deleted. Their requests are read from the API server: it is rare,
    /// and what the cache does not show must not lose its binding.
    async fn bound(&self, revision: &PromiseRevision, kind: Option<&Kind>) -> Result<Vec<Bound>, Error> {
        let mut bound = Vec::new();
        for binding in self.cx.caches.bindings.indexed(&promise_entry(&revision.spec.promise_ref.name)) {
            let Some(key) = promise_revision::pinned(&binding, revision) else { continue };
            let request = match kind {
                Some(kind) => {
                    let api = act::api(&self.cx.platform, kind, key.namespace.as_deref());
                    let read = api.get_opt(&key.name).await;
                    read.map_err(|error| Error::read(format!("{} {key}", kind.kind), error))?
                }
                None => None,
            };
            bound.push(Bound { request: request.as_ref().map(Request::of), binding });
        }
        Ok(bound)
    }
}

/// Returns how requests are addressed by the Promise's API, or else by the revision's own.
fn kind_of(promise: Option<&Promise>, revision: &PromiseRevision) -> Option<Kind> {
    let spec = promise.map_or(&revision.spec.promise_spec, |promise| &promise.spec);
    let api = promise_api::read(spec).ok()?;
    Some(Kind::new(api.group(), api.version(), api.kind(), api.plural()))
}

impl Reconcile for Revisions {
    const NAME: &'static str = "PromiseRevision";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(revision) = self.cx.caches.revisions.get(key) else { return Ok(Next::OnChange) };
        let pass = self.cx.begin(&revision.metadata, || Subject::promise_revision(&revision));
        let decided = async {
            let snapshot = self.observe(pass.carry(Arc::clone(&revision))).await?;
            let mut plan = promise_revision::decide(&snapshot);
            pass.note_if_busy(&mut plan);
            self.cx.act(&plan).await?;
            Ok(plan.next)
        };
        pass.run(decided).await
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::PromiseRevision, Target::of(&*self.cx.caches.revisions.get(key)?)))
    }
}

/// Brings revisions to the queue when they, their Promise's version, or what is bound to them change.
pub(crate) fn watch(cx: &Context, requests: &Requests, queue: &Queue<ObjectKey>) {
    let revisions = queue.clone();
    cx.caches.revisions.on_change(move |_, new| {
        new.into_iter().for_each(|revision| revisions.add(ObjectKey::of(&**revision)));
    });
    let (cache, revisions) = (cx.caches.revisions.clone(), queue.clone());
    cx.caches.promises.on_change(move |old, new| {
        let version = |promise: Option<&Arc<Promise>>| promise.map(|promise| promise.version().to_owned());
        if version(old) != version(new)
            && let Some(promise) = new.or(old)
        {
            for revision in cache.indexed(&promise_entry(&promise.name_any())) {
                revisions.add(ObjectKey::of(&*revision));
            }
        }
    });
    let (cache, revisions) = (cx.caches.revisions.clone(), queue.clone());
    cx.caches.bindings.on_change(move |old, new| {
        for binding in old.into_iter().chain(new) {
            let promise = binding.labels().get(keys::PROMISE_NAME).cloned().unwrap_or_default();
            let bound = cache.indexed(&promise_entry(&promise));
            let waiting = bound.iter().filter(|revision| revision.metadata.deletion_timestamp.is_some());
            waiting.for_each(|revision| revisions.add(ObjectKey::of(&**revision)));
        }
    });
    let (cache, revisions) = (cx.caches.revisions.clone(), queue.clone());
    requests.on_change(move |promise, old, new| {
        if trigger::request_concerns(old.map(|old| &**old), new.map(|new| &**new)) {
            let all = cache.indexed(&promise_entry(promise));
            let waiting = all.iter().filter(|revision| revision.metadata.deletion_timestamp.is_some());
            waiting.for_each(|revision| revisions.add(ObjectKey::of(&**revision)));
        }
    });
}
