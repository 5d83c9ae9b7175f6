//! Intervals: the annotation of Promises and PromiseRevisions, and the field in the spec of a Promise.
//!
//! What was accepted once stays accepted while nobody changes it.
//!
//! # Source
//! `01-api.md` §7.3 C4, §7.7, §9.2.7

use kratix_api::{Duration, keys};

use super::{Denial, Review};
use crate::promise::interval::{Unfit, check};

/// Checks the annotation with the interval, if it is new.
pub(super) fn check_annotation(review: &Review, webhook: &'static str) -> Result<(), Denial> {
    let key = keys::RECONCILIATION_INTERVAL;
    let Some(text) = review.news("annotations", key) else { return Ok(()) };
    let complaint = match check(text) {
        Ok(_) => return Ok(()),
        Err(Unfit::Malformed) => "must be a valid duration".to_owned(),
        Err(Unfit::TooShort) => too_short(),
    };
    Err(Denial::rule(webhook, format!("metadata.annotations[{key}]: Invalid value: {text:?}: {complaint}")))
}

/// Checks the interval in a Promise's spec, if it is not the one that was there before.
pub(super) fn check_spec(text: Option<&str>, before: Option<&str>) -> Result<(), String> {
    let Some(interval) = text.filter(|_| text != before).and_then(|text| text.parse::<Duration>().ok()) else {
        return Ok(());
    };
    if interval >= Duration::MINUTE {
        return Ok(());
    }
    let interval = interval.to_string();
    Err(format!("spec.workflows.config.reconciliationInterval: Invalid value: {interval:?}: {}", too_short()))
}

fn too_short() -> String {
    format!("must be at least {}", Duration::MINUTE)
}
