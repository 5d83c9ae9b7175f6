//! The annotation that limits how often a store is pushed to.

use std::num::NonZeroU32;

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::keys::MAXIMUM_PUSHES_PER_MINUTE;
use kube_core::ResourceExt;

use super::Store;
use crate::plan::Event;
use crate::text;

/// Type of the condition of a store with an annotation that is not in effect.
const ACCEPTED: &str = "AnnotationsAccepted";
const REASON: &str = "InvalidAnnotation";

/// Reads the value of the annotation.
///
/// # Errors
/// What is wrong with it, and what would be accepted.
pub(crate) fn parse(value: &str) -> Result<NonZeroU32, String> {
    value.trim().parse().map_err(|_| {
        let value = text::cause(value);
        let expected = "a whole number of 1 or more";
        format!("annotation {MAXIMUM_PUSHES_PER_MINUTE} has value {value:?}, which is not {expected}; it is ignored")
    })
}

/// Returns the limit, if there is one that can be used.
pub(super) fn of(store: &Store) -> Option<NonZeroU32> {
    annotation(store).and_then(|value| parse(value).ok())
}

/// Notes what is wrong with the annotation among the conditions, and returns the event that tells of it when it is new. A store
/// whose annotation is in order has no such condition.
pub(super) fn record(store: &Store, conditions: &mut Vec<Condition>, now: Timestamp) -> Option<Event> {
    let Some(complaint) = annotation(store).and_then(|value| parse(value).err()) else {
        condition::remove(conditions, ACCEPTED);
        return None;
    };
    let condition = Condition::new(ACCEPTED, Status::False, REASON, complaint.clone());
    let is_news = condition::set(conditions, condition, now);
    is_news.then(|| Event::warning(store.reporter(), store.target(), REASON, complaint))
}

pub(super) fn annotation(store: &Store) -> Option<&str> {
    let annotations = match store {
        Store::Git(store) => store.annotations(),
        Store::Bucket(_) => return None, // each file of a bucket is written by itself
    };
    annotations.get(MAXIMUM_PUSHES_PER_MINUTE).map(String::as_str)
}
