//! The parts of large Works: kept in order beside their Work, and read when they are written.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use kratix_api::{Work, Workload, part};
use kratix_core::object::{ObjectKey, Target};
use kratix_core::work::parts::{self, Snapshot, Step, Upkeep};
use kratix_core::work_placement::{Parts, Room};
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Resource, ResourceExt};

use crate::caches::work_entry;
use crate::context::Context;
use crate::error::Error;
use crate::telemetry;

/// Requests at once for the parts of one placement.
const READS_MAX: usize = 8;

/// Decides about the parts of a Work, which may not exist.
pub(crate) fn upkeep(cx: &Context, key: &ObjectKey, snapshot: Option<&kratix_core::work::Snapshot>) -> Upkeep {
    let entry = work_entry(key.namespace.as_deref().unwrap_or_default(), &key.name);
    let mut parts = cx.caches.parts.indexed(&entry);
    // What was written a moment ago brings its Work back when it is seen.
    parts.retain(|part| !cx.superseded.shows(&Target::of(&**part)));
    let (work, placements) = match snapshot {
        Some(snapshot) => (Some(Arc::clone(&snapshot.work)), snapshot.placements.clone()),
        None => (None, cx.caches.placements.indexed(&entry)),
    };
    parts::decide(&Snapshot { now: cx.now(), work, placements, parts })
}

/// Executes what was decided about parts.
pub(crate) async fn execute(cx: &Context, step: &Step) -> Result<(), Error> {
    cx.act(&step.plan).await?;
    for target in &step.removals {
        remove(cx, target).await?;
    }
    Ok(())
}

/// Deletes a part if it is still as it was seen.
async fn remove(cx: &Context, target: &Target) -> Result<(), Error> {
    let works = works(cx, &target.key);
    let preconditions = Preconditions { uid: target.uid.clone(), resource_version: target.resource_version.clone() };
    match works.delete(&target.key.name, &DeleteParams::background().preconditions(preconditions)).await {
        Ok(_) => Ok(()),
        // Gone, or used again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => {
            Err(Error::Write { verb: "delete", target: format!("Work {}", target.key), source: Box::new(error) })
        }
    }
}

/// Reads parts from the API server: no cache holds what is in them. Ends when there is no room for more, whatever was said of
/// their size.
pub(crate) async fn read(cx: &Context, keys: BTreeSet<ObjectKey>) -> Result<Parts, Error> {
    let reads = keys.into_iter().map(|key| async move {
        let found = works(cx, &key).get_opt(&key.name).await;
        let found = found.map_err(|error| Error::read(format!("Work {key}"), error))?;
        let workloads = found.map(|found| Arc::<[Workload]>::from(part::workloads(found)));
        Ok((key, workloads))
    });
    let mut reads = stream::iter(reads).buffer_unordered(READS_MAX);
    let (mut parts, mut room) = (Parts::new(), Room::default());
    while let Some((key, part)) = reads.try_next().await? {
        if part.as_deref().is_some_and(|part| !room.takes(part)) {
            break;
        }
        parts.insert(key, part);
    }
    Ok(parts)
}

/// Returns the Work that a part belongs to.
pub(crate) fn work_of<K: Resource>(part: &K) -> Option<ObjectKey> {
    let name = part::work_of(part.meta().name.as_deref()?, part.labels())?.to_owned();
    Some(ObjectKey { namespace: part.namespace(), name })
}

fn works(cx: &Context, key: &ObjectKey) -> Api<Work> {
    let platform = telemetry::client(&cx.platform);
    match key.namespace.as_deref() {
        Some(namespace) => Api::namespaced(platform, namespace),
        None => Api::default_namespaced(platform),
    }
}
