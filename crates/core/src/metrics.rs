//! What is counted: the names of the metrics, and what one pass adds to them.
//!
//! # Source
//! `06-operations.md` §10.3; `05-scheduling-and-writing.md` §12, weakness 14

use kratix_api::{Work, WorkPlacement};
use kube_core::ResourceExt;

use crate::state_store::Attempt;
use crate::work::Finding;
use crate::work_placement::pipeline;

/// Instrumentation scope of all metrics.
pub const SCOPE: &str = "github.com/syntasso/kratix/internal/telemetry";

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Attempts to write a placement's files.
    Writes,
    /// Placements and unscheduled groups, each time a pass has scheduled them.
    Outcomes,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Outcomes, Self::Writes];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Writes => "kratix_workplacement_writes_total",
            Self::Outcomes => "kratix_workplacement_outcomes_total",
        }
    }

    /// Returns what it means.
    pub fn description(self) -> &'static str {
        match self {
            Self::Writes => "Total number of WorkPlacement write attempts",
            Self::Outcomes => "Total number of WorkPlacement scheduling outcomes",
        }
    }
}

/// Gauge: how many changes wait for each state store.
pub const QUEUE_LENGTH: &str = "kratix_statestore_queue_length";
/// What [`QUEUE_LENGTH`] means.
pub const QUEUE_LENGTH_DESCRIPTION: &str = "Number of changes that wait for a state store";

/// One addition to a counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    /// The counter.
    pub counter: Counter,
    /// Attributes, none of them empty and none longer than [`ATTRIBUTE_BYTES_MAX`].
    pub attributes: Vec<(&'static str, String)>,
}

/// Longest value of an attribute: that of a name. What is longer names no object, and counts with all that begin the same; it
/// would be kept for as long as the process runs.
pub const ATTRIBUTE_BYTES_MAX: usize = 253;

impl Sample {
    fn new(counter: Counter, result: &str, others: &[(&'static str, &str)]) -> Self {
        let all = [("result", result)].into_iter().chain(others.iter().copied());
        let given = all.filter(|(_, value)| !value.is_empty());
        let cut = |value: &str| value[..value.floor_char_boundary(ATTRIBUTE_BYTES_MAX)].to_owned();
        Self { counter, attributes: given.map(|(key, value)| (key, cut(value))).collect() }
    }
}

/// Returns what a pass over a Work counts: each placement by itself, and each group without any.
pub fn outcomes(work: &Work, findings: &[Finding]) -> Vec<Sample> {
    let namespace = work.namespace().unwrap_or_default();
    let sample = |result: &str, destination: &str| {
        let others = [
            ("promise", work.spec.promise_name.as_str()),
            ("resource", work.spec.resource_name.as_str()),
            ("namespace", namespace.as_str()),
            ("destination", destination),
        ];
        Sample::new(Counter::Outcomes, result, &others)
    };
    findings
        .iter()
        .flat_map(|finding| match finding {
            Finding::Placed { on, .. } => on.iter().map(|destination| sample("scheduled", destination)).collect(),
            Finding::Misplaced { on, .. } => vec![sample("misplaced", on)],
            Finding::NoDestination { .. } => vec![sample("unscheduled", "")],
            _ => Vec::new(),
        })
        .collect()
}

/// Returns what an attempt counts for a placement whose files it has written or tried to; removals do not count.
pub fn write(placement: &WorkPlacement, attempt: &Attempt) -> Option<Sample> {
    if placement.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let result = if attempt.outcome.is_ok() { "success" } else { "failure" };
    let others = [
        ("promise", placement.spec.promise_name.as_str()),
        ("resource", placement.spec.resource_name.as_str()),
        ("destination", placement.spec.target_destination_name.as_str()),
        ("pipeline", pipeline(placement)),
    ];
    Some(Sample::new(Counter::Writes, result, &others))
}

#[cfg(test)]
mod tests;
