//! What a placement's status says. One place computes all of it, so that no two writers meet on one object.

use kratix_api::condition::{self, Condition, Status};
use kratix_api::{WorkPlacementStatus, keys};
use kube_core::ResourceExt;

use super::Snapshot;
use crate::object::Target;
use crate::patch::to_value;
use crate::plan::{Event, Reporter, Write};
use crate::state_store::{About, Written};
use crate::text;
use crate::work::set_condition;

/// Where the present content is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content<'a> {
    /// In the store, by a write of this process.
    Written(&'a Written),
    /// In the store, as the status says already.
    Claimed,
    /// Not in the store, and nothing is wrong with it.
    Waiting {
        reason: &'static str,
        message: String,
        /// Whether somebody should know.
        warns: bool,
    },
    /// Not in the store, because of an error.
    Failed { message: String, about: About },
    /// Still in the store although it should be removed, because of an error.
    NotRemoved { message: String, about: About },
}

/// Returns the status write and the events that tell of a transition.
pub(super) fn render(snapshot: &Snapshot, content: &Content<'_>) -> (Option<Write>, Vec<Event>) {
    let placement = &*snapshot.placement;
    let generation = placement.metadata.generation;
    let old = placement.status.clone().unwrap_or_default();
    let mut new = old.clone();
    let is_misplaced = snapshot.destination.is_none() || placement.labels().contains_key(keys::MISPLACED);

    set_condition(&mut new.conditions, schedule(is_misplaced), generation, snapshot.now);
    set_condition(&mut new.conditions, ready(content, is_misplaced), generation, snapshot.now);
    let turned = match write(content) {
        Some(write) => set_condition(&mut new.conditions, write, generation, snapshot.now),
        None => false,
    };
    let new_version = match content {
        // A write that changed nothing keeps the version that brought the content, unless that was lost in a crash.
        Content::Written(written) => written.version.clone().filter(|_| written.changed || old.version_id.is_empty()),
        _ => None,
    };
    let is_news =
        turned || new_version.as_ref().is_some_and(|version| *version != old.version_id) || regenerated(&old, &new);
    if let Some(version) = new_version {
        new.version_id = version;
    }
    let status = Write::status(Target::of(placement), &to_value(&old), &to_value(&new));
    let events = if is_news { events(snapshot, content) } else { Vec::new() };
    (status, events)
}

fn regenerated(old: &WorkPlacementStatus, new: &WorkPlacementStatus) -> bool {
    let observed = |status: &WorkPlacementStatus| {
        condition::find(&status.conditions, condition::WRITE_SUCCEEDED).and_then(|write| write.observed_generation)
    };
    // Placements of the original carry no generation; noting it is no event.
    observed(old).is_some() && observed(old) != observed(new)
}

fn schedule(is_misplaced: bool) -> Condition {
    let (status, reason, message) = if is_misplaced {
        let message = "Target destination no longer matches destinationSelectors";
        (Status::False, "DestinationSelectorMismatch", message)
    } else {
        (Status::True, "ScheduledToDestination", "Scheduled to correct Destination")
    };
    Condition::new(condition::SCHEDULE_SUCCEEDED, status, reason, message)
}

fn ready(content: &Content<'_>, is_misplaced: bool) -> Condition {
    let (status, reason, message) = match content {
        Content::Failed { .. } => (Status::False, "WorkloadsFailedWrite", "Failing"),
        Content::NotRemoved { .. } => (Status::False, "FailedDeleteFilesFromRepository", "Failing"),
        _ if is_misplaced => (Status::False, "Misplaced", "Misplaced"),
        Content::Waiting { reason, .. } => (Status::False, *reason, "Pending"),
        Content::Written(_) | Content::Claimed => (Status::True, "WorkloadsWrittenToTargetDestination", "Ready"),
    };
    Condition::new(condition::READY, status, reason, message)
}

/// Returns `WriteSucceeded`; nothing where it stays as it is.
fn write(content: &Content<'_>) -> Option<Condition> {
    let (status, reason, message) = match content {
        Content::Claimed => return None,
        Content::Written(_) => {
            (Status::True, "WorkloadsWrittenToStateStore", "Workloads written to State Store".to_owned())
        }
        Content::Waiting { reason, message, .. } => (Status::Unknown, *reason, message.clone()),
        Content::Failed { message, .. } => (Status::False, "WorkloadsFailedWrite", message.clone()),
        Content::NotRemoved { message, .. } => (Status::False, "FailedDeleteFilesFromRepository", message.clone()),
    };
    Some(Condition::new(condition::WRITE_SUCCEEDED, status, reason, text::message(message)))
}

fn events(snapshot: &Snapshot, content: &Content<'_>) -> Vec<Event> {
    let warning =
        |reason, note| Event::warning(Reporter::WorkPlacement, Target::of(&*snapshot.placement), reason, note);
    match content {
        Content::Written(written) => {
            let destination = &snapshot.placement.spec.target_destination_name;
            let version = written.version.as_ref().filter(|_| written.changed);
            let version = version.map(|version| format!(" with versionID: {version}")).unwrap_or_default();
            let note = format!("successfully written to Destination: {destination}{version}");
            let target = Target::of(&*snapshot.placement);
            vec![Event::normal(Reporter::WorkPlacement, target, "WorkloadsWrittenToStateStore", note)]
        }
        Content::Waiting { reason, message, warns: true } => vec![warning(*reason, message.clone())],
        Content::Waiting { .. } | Content::Claimed => Vec::new(),
        Content::Failed { message, about } => {
            let note = format!("error writing to destination; check kubectl get destination for more info: {message}");
            let mut events: Vec<Event> =
                cause(*about, message).map(|(reason, note)| warning(reason, note)).into_iter().collect();
            events.push(warning("FailedWriteToDestination", note));
            events
        }
        Content::NotRemoved { message, about } => {
            let (reason, note) = cause(*about, message).unwrap_or_else(|| {
                ("FailedDeleteFilesFromRepository", format!("failed to delete files from repository: {message}"))
            });
            vec![warning(reason, note)]
        }
    }
}

/// Returns the event that tells more closely what the failure is about.
///
/// The original has one more, `FailedGetAllWorkplacementsForDestination`: here the placements of a Destination are in a watch
/// cache, and nothing is written before it is complete, so that listing them cannot fail.
fn cause(about: About, message: &str) -> Option<(&'static str, String)> {
    match about {
        About::Ledger => {
            Some(("FailedUnmarshalKratixStateFile", format!("failed to unmarshal .kratix state file: {message}")))
        }
        About::LedgerUnread => {
            Some(("FailedReadKratixStateFile", format!("failed to read .kratix state file: {message}")))
        }
        About::Aggregate => Some((
            "FailedGenerateAggregatedWorkloadYAML",
            format!("failed to generate aggregated workload yaml: {message}"),
        )),
        About::Store | About::Content | About::Turn => None,
    }
}
