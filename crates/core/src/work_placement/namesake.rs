//! Requests of one name from several namespaces, whose Works share a pipeline namespace, have one directory by the plain
//! rules. The first keeps it; the others get one of their own, once and for all.
//!
//! The scheduler gives it to a placement that it makes beside a present one. Of two that are made at the same moment neither
//! is seen when the other is made: here the second parts from the first before it has written anything.

use kratix_api::{Destination, WorkPlacement, condition, keys};
use kube_core::ResourceExt;
use serde_json::json;

use super::location::{self, DIRECTORY_NAMESPACE, Location};
use super::rival::Owner;
use super::site::{STORE_LOCATION, Site};
use super::{Decision, Finding, Snapshot, keep};
use crate::object::Target;
use crate::plan::Write;

impl Owner {
    /// Tells whether the owner is of a request of the same name in another namespace, from which the placement can part.
    pub(super) fn is_namesake_of(&self, snapshot: &Snapshot) -> bool {
        let placement = &*snapshot.placement;
        let has_written = snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_ok())
            || placement.status.as_ref().is_some_and(|status| {
                !status.version_id.is_empty() || condition::is_true(&status.conditions, condition::WRITE_SUCCEEDED)
            });
        let is_other = request_namespace(placement) != self.namespace.as_deref() && self.namespace.is_some();
        is_other && directory_namespace(placement).is_some() && !has_written
    }
}

/// Returns the decision that gives the placement a directory of its own.
pub(super) fn part(snapshot: &Snapshot, destination: &Destination) -> Decision {
    let mut placement = WorkPlacement::clone(&snapshot.placement);
    let namespace = directory_namespace(&placement).unwrap_or_default();
    placement.annotations_mut().insert(DIRECTORY_NAMESPACE.to_owned(), namespace.clone());
    let site = snapshot.store.place().and_then(|place| Site::of(&placement, destination, place));
    let annotations = json!({ DIRECTORY_NAMESPACE: namespace, STORE_LOCATION: site.map(|site| site.render()) });
    let write = Write::metadata(Target::of(&*snapshot.placement), &json!({ "annotations": annotations }));
    let path = match Location::of(&placement, destination) {
        Ok(Location::Directory(directory)) => directory,
        _ => String::new(),
    };
    let mut decision = keep(Finding::Waiting { for_: format!("directory {path}") });
    decision.plan.writes.extend(write);
    decision
}

/// Returns the namespace of the request that a placement is of.
pub(super) fn request_namespace(placement: &WorkPlacement) -> Option<&str> {
    let of_request = || placement.metadata.namespace.as_deref().filter(|_| !placement.spec.resource_name.is_empty());
    placement.labels().get(keys::RESOURCE_NAMESPACE).map(String::as_str).or_else(of_request)
}

/// Returns what tells the directory of a request from those of its namesakes, unless it stands in it already.
fn directory_namespace(placement: &WorkPlacement) -> Option<String> {
    let own = request_namespace(placement)?;
    let is_plain = !placement.annotations().contains_key(DIRECTORY_NAMESPACE);
    let is_request = !placement.spec.resource_name.is_empty();
    (is_plain && is_request).then(|| location::apart(own, placement.metadata.namespace.as_deref()))
}
