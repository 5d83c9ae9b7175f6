//! Pods of workflow Jobs: removed some time after their Job has ended, if the platform says so.
//!
//! Pods are not watched for this: a Job that is due is rare, and its pods are read then.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kratix_core::object::{ObjectKey, Target};
use kratix_core::plan::{Next, Plan, Reporter};
use kratix_core::workflow::pods::{self, Due, Snapshot};
use kube::Api;
use kube::api::{ListParams, PartialObjectMeta};

use crate::context::Context;
use crate::controller::Reconcile;
use crate::error::Error;
use crate::queue::Queue;

/// The controller of the pods of Jobs; its keys are those of the Jobs.
pub(crate) struct JobPods {
    cx: Arc<Context>,
}

impl JobPods {
    /// Returns the controller.
    pub(crate) fn new(cx: &Arc<Context>) -> Self {
        Self { cx: Arc::clone(cx) }
    }

    async fn pods(&self, key: &ObjectKey) -> Result<Vec<PartialObjectMeta<Pod>>, Error> {
        let api = Api::<Pod>::namespaced(self.cx.platform.clone(), key.namespace.as_deref().unwrap_or_default());
        // From the memory of the API server: after a restart all Jobs that have ended are looked at, and pods that are to go
        // have been there for long.
        let of_job = ListParams::default().labels(&format!("{}={}", pods::JOB_NAME, key.name)).match_any();
        let found = api.list_metadata(&of_job).await;
        Ok(found.map_err(|error| Error::read(format!("pods of Job {key}"), error))?.items)
    }
}

impl Reconcile for JobPods {
    const NAME: &'static str = "JobPods";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(job) = self.cx.caches.jobs.get(key) else { return Ok(Next::OnChange) };
        let keep = self.cx.config().workflows.pod_ttl_after_finished;
        let snapshot = Snapshot { now: self.cx.now(), job: &job, keep };
        let pods = match snapshot.due() {
            Due::Now => self.pods(key).await?,
            Due::After(_) | Due::Never => Vec::new(),
        };
        let plan: Plan = snapshot.decide(&pods);
        self.cx.act(&plan).await?;
        Ok(plan.next)
    }

    fn subject(&self, key: &ObjectKey) -> Option<(Reporter, Target)> {
        Some((Reporter::Manager, Target::of(&*self.cx.caches.jobs.get(key)?)))
    }
}

/// Brings Jobs to the queue when they end, and all of them when the configuration says something else.
pub(crate) fn watch(cx: &Arc<Context>, queue: &Queue<ObjectKey>) {
    let jobs = queue.clone();
    cx.caches.jobs.on_change(move |old, new| {
        if pods::concerned(old, new) {
            new.into_iter().for_each(|job| jobs.add(ObjectKey::of(&**job)));
        }
    });
    let (all, jobs) = (cx.caches.jobs.clone(), queue.clone());
    cx.on_setting_change(
        |config| config.workflows.pod_ttl_after_finished,
        move || all.all().iter().for_each(|job| jobs.add(ObjectKey::of(&**job))),
    );
}
