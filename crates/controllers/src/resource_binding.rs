//! Reconciles ResourceBindings; see [`kratix_core::resource_binding`] for what is decided.

use std::sync::Arc;

use kratix_api::{Promise, PromiseRevision, ResourceBinding, keys};
use kratix_core::object::{Kind, ObjectKey, Target};
use kratix_core::plan::{Next, Reporter};
use kratix_core::resource_binding::{Snapshot, decide, request_concerns, request_of};
use kube::ResourceExt;

use crate::caches;
use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;
use crate::request::Requests;

/// Reconciles bindings.
pub(crate) struct Bindings {
    cx: Arc<Context>,
    requests: Requests,
}

impl Bindings {
    /// Returns the controller.
    pub(crate) fn new(cx: &Arc<Context>, requests: &Requests) -> Self {
        Self { cx: Arc::clone(cx), requests: requests.clone() }
    }

    /// Brings back bindings with their own changes, with those of their requests, and with a new latest revision.
    pub(crate) fn follow(cx: &Arc<Context>, requests: &Requests, queue: &Queue<ObjectKey>) {
        let (bindings, of_request) = (cx.caches.bindings.clone(), queue.clone());
        requests.on_change(move |promise, old, new| {
            let found = match new {
                Some(new) if request_concerns(old.map(|old| &**old), Some(&**new)) => {
                    let namespace = new.namespace().unwrap_or_default();
                    bindings.indexed(&caches::request_entry(promise, &namespace, &new.name_any()))
                }
                // The list is complete.
                None if old.is_none() => bindings.indexed(&caches::promise_entry(promise)),
                _ => Vec::new(),
            };
            found.iter().for_each(|binding| of_request.add(ObjectKey::of(binding.as_ref())));
        });
        let own = queue.clone();
        cx.caches.bindings.on_change(move |_, new| {
            new.into_iter().for_each(|binding| own.add(ObjectKey::of(binding.as_ref())));
        });
        let (bindings, of_promise) = (cx.caches.bindings.clone(), queue.clone());
        cx.caches.promises.on_change(move |old: Option<&Arc<Promise>>, new| {
            if let (Some(old), Some(new)) = (old, new)
                && old.version() != new.version()
            {
                for binding in bindings.indexed(&caches::promise_entry(&new.name_any())) {
                    of_promise.add(ObjectKey::of(binding.as_ref()));
                }
            }
        });
        let (bindings, queue) = (cx.caches.bindings.clone(), queue.clone());
        cx.caches.revisions.on_change(move |old, new| {
            let latest =
                |revision: Option<&Arc<PromiseRevision>>| revision.is_some_and(|revision| revision.is_latest());
            let promise = new.and_then(|revision| revision.labels().get(keys::PROMISE_NAME));
            if latest(new)
                && !latest(old)
                && let Some(promise) = promise
            {
                for binding in bindings.indexed(&caches::promise_entry(promise)) {
                    queue.add(ObjectKey::of(binding.as_ref()));
                }
            }
        });
    }
}

impl Reconcile for Bindings {
    const NAME: &'static str = "resource_binding";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(binding) = self.cx.caches.bindings.get(key) else { return Ok(Next::OnChange) };
        let promise = &binding.spec.promise_ref.name;
        let request = request_of(&binding).and_then(|key| self.requests.get(promise, &key));
        let plan = decide(&Snapshot {
            now: self.cx.now(),
            request: self.requests.kind(promise).zip(request),
            promise: self.cx.caches.promises.get(&ObjectKey::cluster(promise)),
            revisions: self.cx.caches.revisions.indexed(&caches::promise_entry(promise)),
            binding,
        });
        self.cx.act(&plan).await?;
        Ok(plan.next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        let binding = self.cx.caches.bindings.get(key)?;
        let target = Target::with_kind(Kind::of::<ResourceBinding>(), binding.as_ref());
        Some((Reporter::ResourceBinding, target))
    }
}
