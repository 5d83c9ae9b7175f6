//! The Promises a Promise needs, and the Promises that need it.
//!
//! # Source
//! `03-promises.md` §7, §25 (3, 4, 15, 19, 25)

use kratix_api::condition::{self, Status};
use kratix_api::promise::{
    AVAILABLE, PromiseSummary, RequiredBy, RequiredPromise, RequiredPromiseStatus, RequirementState,
};
use kratix_api::{Promise, PromiseRevision};
use kube_core::ResourceExt;

use super::{Finding, SAFETY_NET, Snapshot, Walk};

/// Whether everything that is required is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Fulfilled,
    Unfulfilled,
}

const NOT_INSTALLED: &str = "RequirementsNotInstalled";
const NOT_AVAILABLE: &str = "RequirementsNotAvailable";
const NOT_FULFILLED: &str = "Requirements not fulfilled";

/// Evaluates the requirements and records their state.
pub(super) fn keep(walk: &mut Walk<'_>) -> State {
    let snapshot = walk.snapshot;
    let required = &snapshot.promise.spec.required_promises;
    let states: Vec<_> = required.iter().map(|requirement| state_of(snapshot, requirement)).collect();
    let before = std::mem::replace(&mut walk.status.now.required_promises, states.clone());
    if required.is_empty() && walk.status.condition(condition::REQUIREMENTS_FULFILLED).is_none() {
        return State::Fulfilled;
    }
    tell_changes(walk, &before, &states);
    let is_unmet = |status: &&RequiredPromiseStatus| status.state != Some(RequirementState::Installed);
    // The last one that is not met decides, as users of several versions are used to.
    let Some(last) = states.iter().rfind(is_unmet) else {
        let changed = walk.status.set(
            condition::REQUIREMENTS_FULFILLED,
            Status::True,
            "RequirementsInstalled",
            "Requirements fulfilled",
        );
        if changed && !required.is_empty() {
            walk.events.push(snapshot.normal("RequirementsFulfilled", "All required promises are available"));
        }
        return State::Fulfilled;
    };
    let cycle = cycle(snapshot.name(), |name| find(snapshot, name).map(required_names).unwrap_or_default());
    let message = match &cycle {
        Some(names) => format!("{NOT_FULFILLED}: these Promises require each other: {}", names.join(" -> ")),
        None => NOT_FULFILLED.to_owned(),
    };
    let changed = walk.status.set(condition::REQUIREMENTS_FULFILLED, Status::False, reason_of(last), message);
    if changed && walk.status.was_available() {
        let note = "Promise no longer available: Requirements have changed";
        walk.events.push(snapshot.warning("Unavailable", note));
    }
    let unmet = states.iter().filter(is_unmet).map(|status| (status.name.clone(), text_of(status).to_owned()));
    walk.findings.push(Finding::Unfulfilled { requirements: unmet.collect() });
    walk.look_again(SAFETY_NET);
    State::Unfulfilled
}

fn state_of(snapshot: &Snapshot, requirement: &RequiredPromise) -> RequiredPromiseStatus {
    let revisions = snapshot.required_revisions.iter().filter(|revision| is_asked_for(revision, requirement)).count();
    let state = match find(snapshot, &requirement.name) {
        None => RequirementState::NotInstalled,
        Some(_) if !requirement.version.is_empty() && revisions != 1 => match revisions {
            0 => RequirementState::NotInstalledAtVersion,
            // Nobody can tell which one requests of that version would get; they are held up until one is gone.
            _ => RequirementState::Unknown,
        },
        Some(promise) if !is_available(promise) => RequirementState::NotAvailable,
        Some(_) => RequirementState::Installed,
    };
    RequiredPromiseStatus { name: requirement.name.clone(), version: requirement.version.clone(), state: Some(state) }
}

fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Promise> {
    snapshot.promises.iter().map(|promise| &**promise).find(|promise| promise.metadata.name.as_deref() == Some(name))
}

/// Returns whether a revision is the version that a requirement asks for.
pub(crate) fn is_asked_for(revision: &PromiseRevision, requirement: &RequiredPromise) -> bool {
    revision.spec.promise_ref.name == requirement.name
        && revision.spec.version == requirement.version
        && revision.metadata.deletion_timestamp.is_none()
}

fn is_available(promise: &Promise) -> bool {
    // One that is being deleted is on its way out, whatever its status still says.
    promise.metadata.deletion_timestamp.is_none()
        && promise.status.as_ref().is_some_and(|status| status.status == AVAILABLE)
}

fn reason_of(status: &RequiredPromiseStatus) -> &'static str {
    match status.state {
        Some(RequirementState::NotAvailable) => NOT_AVAILABLE,
        _ => NOT_INSTALLED,
    }
}

fn text_of(status: &RequiredPromiseStatus) -> &str {
    status.state.as_ref().map_or("", RequirementState::as_str)
}

/// Emits one event for each requirement that has become unmet, or unmet in another way.
fn tell_changes(walk: &mut Walk<'_>, before: &[RequiredPromiseStatus], states: &[RequiredPromiseStatus]) {
    for status in states.iter().filter(|status| !before.contains(status)) {
        let note = match status.state {
            Some(RequirementState::Installed) => continue,
            Some(RequirementState::NotInstalled) => {
                format!("Required Promise {} not installed or unknown state", status.name)
            }
            _ => format!("Waiting for required Promise {}: {}", status.name, text_of(status)),
        };
        let event = walk.snapshot.warning(reason_of(status), note);
        walk.events.push(event);
    }
}

/// Returns the names of the Promises that a Promise requires.
pub(crate) fn required_names(promise: &Promise) -> Vec<String> {
    promise.spec.required_promises.iter().map(|required| required.name.clone()).collect()
}

/// Returns the names on a way from the Promise `start` back to itself, if its requirements lead there; `required` knows
/// what each Promise requires.
pub(crate) fn cycle(start: &str, mut required: impl FnMut(&str) -> Vec<String>) -> Option<Vec<String>> {
    let mut visited = std::collections::BTreeSet::new();
    let mut ways = vec![vec![start.to_owned()]];
    while let Some(way) = ways.pop() {
        for name in required(way.last().expect("a way has a start")) {
            let mut longer = way.clone();
            longer.push(name.clone());
            if name == start {
                return Some(longer);
            }
            if visited.insert(name) {
                ways.push(longer);
            }
        }
    }
    None
}

/// Returns who requires this Promise, sorted by name. Each Promise writes this field of its own status, so that it is
/// right as soon as somebody requires it and gone as soon as nobody does.
pub(super) fn required_by(snapshot: &Snapshot) -> Vec<RequiredBy> {
    let name = snapshot.name();
    let requiring = snapshot.promises.iter().filter(|promise| promise.metadata.deletion_timestamp.is_none());
    let entry = |promise: &Promise| {
        let requirement = promise.spec.required_promises.iter().rfind(|requirement| requirement.name == name)?;
        let version = promise.status.as_ref().map(|status| status.version.clone()).unwrap_or_default();
        Some(RequiredBy {
            promise: PromiseSummary { name: promise.name_any(), version },
            required_version: requirement.version.clone(),
        })
    };
    requiring.filter_map(|promise| entry(promise)).collect()
}
