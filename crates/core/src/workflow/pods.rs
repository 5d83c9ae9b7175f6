//! How long the pods of a Job that has ended are kept: as long as the Job, or as long as the platform says. The Job stays.
//!
//! # Source
//! `02-workflows.md` §13.2

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kratix_api::{ObjectMeta, Timestamp};
use kube_core::{Resource, ResourceExt};

use super::suspension::until;
use crate::object::{Kind, Target};
use crate::plan::{Next, Plan, Write};

/// Label of a pod: the name of its Job.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// Everything the decision about the pods of one Job may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot<'a> {
    /// The only clock.
    pub now: Timestamp,
    /// The Job.
    pub job: &'a Job,
    /// How long pods are kept; `None`: as long as their Job.
    pub keep: Option<Duration>,
}

/// When the pods of a Job are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// With their Job: it runs, or nothing is configured.
    Never,
    /// After this time.
    After(Duration),
    /// Now.
    Now,
}

impl Snapshot<'_> {
    /// Returns when the pods are to go. Only what is due needs to be looked for.
    pub fn due(&self) -> Due {
        let end = ended(self.job).zip(self.keep);
        match end.map(|(ended, keep)| ended.checked_add(keep).unwrap_or(Timestamp::MAX)) {
            None => Due::Never,
            Some(end) if end <= self.now => Due::Now,
            Some(end) => Due::After(until(self.now, end)),
        }
    }

    /// Decides about the pods that carry the name of the Job in [`JOB_NAME`]; what merely has its name is left alone.
    pub fn decide<P: Resource>(&self, pods: &[P]) -> Plan {
        let writes = match self.due() {
            Due::Never => Vec::new(),
            Due::After(delay) => return Plan::silent().and_next(Next::After(delay)),
            Due::Now => {
                let left = pods.iter().filter(|pod| is_of(pod.meta(), self.job));
                let mut left: Vec<_> = left.filter(|pod| pod.meta().deletion_timestamp.is_none()).collect();
                // The newest goes last: what it tells of a failure is not replaced by what an older one tells.
                left.sort_by_key(|pod| pod.meta().creation_timestamp.as_ref().map(|time| time.0));
                let kind = Kind::of::<Pod>();
                left.into_iter().map(|pod| Write::Delete { target: Target::with_kind(kind.clone(), pod) }).collect()
            }
        };
        Plan { writes, ..Plan::silent() }
    }
}

/// Returns whether a change of a Job concerns its pods: it has ended. Its removal takes them along anyway.
pub fn concerned(old: Option<&Arc<Job>>, new: Option<&Arc<Job>>) -> bool {
    let end = |job: Option<&Arc<Job>>| job.and_then(|job| ended(job));
    new.is_some() && end(new).is_some() && end(old) != end(new)
}

/// Returns when a Job has ended: completed, or given up.
fn ended(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let holds = |r#type: &'static str| {
        let conditions = status.conditions.iter().flatten();
        conditions.filter(move |condition| condition.type_ == r#type && condition.status == "True")
    };
    let failed = || holds("Failed").filter_map(|condition| condition.last_transition_time.as_ref()).map(|time| time.0);
    let has_ended = holds("Complete").chain(holds("Failed")).next().is_some();
    let completed = status.completion_time.as_ref().map(|time| time.0);
    completed.or_else(|| failed().max()).filter(|_| has_ended)
}

fn is_of(pod: &ObjectMeta, job: &Job) -> bool {
    let owners = pod.owner_references.iter().flatten();
    let same = |uid: &str| uid.is_empty() || job.uid().is_none_or(|own| own == uid);
    owners.into_iter().any(|owner| owner.kind == "Job" && owner.name == job.name_any() && same(&owner.uid))
}
