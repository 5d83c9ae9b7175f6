//! How old a run may become before it is repeated.
//!
//! # Source
//! `03-promises.md` §21, `01-api.md` §5.9

use std::sync::Arc;
use std::time::Duration;

use kratix_api::{Promise, PromiseRevision, keys};
use kube_core::ResourceExt;

use crate::config::{Config, INTERVAL_MIN};

/// Where an interval comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Annotation of the revision.
    Annotation,
    /// Spec of the revision.
    Revision,
    /// Spec of the Promise, while it has no latest revision.
    PromiseSpec,
    /// Platform configuration, or its default.
    GlobalDefault,
}

impl Source {
    /// Returns the name used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Annotation => "annotation",
            Self::Revision => "revision",
            Self::PromiseSpec => "promiseSpec",
            Self::GlobalDefault => "globalDefault",
        }
    }
}

/// Returns the interval of a Promise and where it comes from.
pub fn of_promise(promise: &Promise, revisions: &[Arc<PromiseRevision>], config: &Config) -> (Duration, Source) {
    let purpose = crate::promise_revision::Purpose::Configure;
    match crate::promise_revision::latest(revisions, Some(promise), purpose) {
        Some(latest) => of_revision(latest, config),
        None => match in_spec(&promise.spec) {
            Some(interval) => (interval, Source::PromiseSpec),
            None => (config.reconciliation_interval, Source::GlobalDefault),
        },
    }
}

/// Returns the interval of the requests on a revision and where it comes from.
pub fn of_revision(revision: &PromiseRevision, config: &Config) -> (Duration, Source) {
    let annotation = revision.annotations().get(keys::RECONCILIATION_INTERVAL);
    if let Some(interval) = annotation.and_then(|text| in_annotation(text)) {
        return (interval, Source::Annotation);
    }
    match in_spec(&revision.spec.promise_spec) {
        Some(interval) => (interval, Source::Revision),
        None => (config.reconciliation_interval, Source::GlobalDefault),
    }
}

/// Returns the interval an annotation asks for, if it is one that is allowed.
pub(super) fn in_annotation(text: &str) -> Option<Duration> {
    check(text).ok().map(kratix_api::Duration::as_wait)
}

/// Why a text is not an interval that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is not a duration.
    Malformed,
    /// It is shorter than [`kratix_api::Duration::MINUTE`].
    TooShort,
}

/// Reads an interval that somebody asks for.
pub(crate) fn check(text: &str) -> Result<kratix_api::Duration, Unfit> {
    let interval: kratix_api::Duration = text.parse().map_err(|_| Unfit::Malformed)?;
    if interval < kratix_api::Duration::MINUTE { Err(Unfit::TooShort) } else { Ok(interval) }
}

/// Returns the interval that a spec asks for. One of zero or less would keep the platform busy with re-runs.
fn in_spec(spec: &kratix_api::PromiseSpec) -> Option<Duration> {
    let text = spec.workflows.config.reconciliation_interval.as_deref()?;
    text.parse::<kratix_api::Duration>().ok()?;
    Some(positive(text).unwrap_or(INTERVAL_MIN))
}

fn positive(text: &str) -> Option<Duration> {
    let nanoseconds = text.parse::<kratix_api::Duration>().ok()?.as_nanoseconds();
    u64::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds > 0).map(Duration::from_nanos)
}
