//! WorkPlacement: one group of a Work in the directory of one Destination.
//!
//! Order of writes: finalizers; then the files in the store; then status; then events. On deletion: the files, then the
//! finalizers. A crash between any two is harmless: finalizers exist before what they protect; a change in the store can
//! be applied again and then changes nothing; the status comes after the store has durably accepted the content.
//!
//! What is in the store is remembered by the process ([`Attempt`]), not in the cluster: after a start every placement is
//! handed to its store once more, which repairs what was altered there meanwhile, and writes nothing otherwise. Of which
//! place the status speaks is in the cluster ([`STORE_LOCATION`]): another store, address or path is another place, and
//! the content is not there yet.
//!
//! # Source
//! `05-scheduling-and-writing.md` §6; decisions 3, 9, 12, 14, 16; weaknesses 6, 10, 12, 15–23

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::{Destination, WorkPlacement, condition, keys};
use kube_core::ResourceExt;
use serde_json::json;

use crate::object::{ObjectKey, Target};
use crate::plan::{Event, Next, Plan, Reporter, Write};
use crate::state_store::{About, Attempt, Availability, Failure, Written, display, pause, with_hint};
use crate::work::speaks_of_present;

mod content;
mod deletion;
mod drift;
mod handover;
mod location;
mod namesake;
mod reach;
mod relocation;
mod rival;
mod site;
mod snapshot;
mod stamp;
mod status;
mod verdict;

use self::content::Obstacle;
pub use self::content::{CONTENT_BYTES_MAX, Parts, Room, SMALL_BYTES_MAX};
pub use self::handover::{Handover, keeps_paths, yields};
pub(crate) use self::location::apart;
pub use self::location::{DIRECTORY_NAMESPACE, Location, ledger_name};
pub(crate) use self::location::{clean, is_below, join, pipeline};
pub use self::reach::{
    Collision, Placed, aggregates, collisions, concerns_itself, concerns_placements, left, may_meet, shares_file,
    turns, turns_of,
};
pub use self::relocation::{Claim, Former, Leftover, former_sites, leftovers, may_claim};
pub use self::rival::{displaced, is_at_home};
pub use self::site::{FILES_AT, STORE_LOCATION, Site, noted_sites, others as other_sites};
pub(crate) use self::site::{OWN_ANNOTATIONS, Relation, SITES_MAX, rendered as rendered_sites, rooted, site};
pub use self::snapshot::{Decision, Effect, Finding, Neighbour, Rival, Snapshot};
use self::stamp::{Purpose, covered, stamp};
use self::status::Content;
pub use self::verdict::Cleaned;
pub(crate) use self::verdict::{Left, Verdict};

/// Time between attempts that fail, and how often a wait is looked at although watches report its end.
pub const RETRY_AFTER: Duration = Duration::from_secs(15);

/// What to do about a Destination that does not exist.
const ELSEWHERE: &str = "make it again, or delete this WorkPlacement to have it placed elsewhere";

/// Reason of the conditions of who waits for a store with which nothing is wrong.
const WAITING: &str = "WaitingForStateStore";

/// Tells whether a placement's status says that its present content is in the store.
pub fn is_written(placement: &WorkPlacement) -> bool {
    says_of_write(placement, condition::Status::True)
}

/// Tells whether this is what a placement's status says of writing its present content.
fn says_of_write(placement: &WorkPlacement, status: condition::Status) -> bool {
    let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition::find(conditions, condition::WRITE_SUCCEEDED).is_some_and(|write| {
        write.status == status && speaks_of_present(write.observed_generation, placement.metadata.generation)
    })
}

/// Decides what is to be done about a placement.
///
/// # Guarantees
/// A converged snapshot, whose attempt has the present stamp, gives a silent plan and no effect.
pub fn decide(snapshot: &Snapshot) -> Decision {
    if snapshot.placement.metadata.deletion_timestamp.is_some() {
        return deletion::decide(snapshot);
    }
    let Some(destination) = &snapshot.destination else { return decide_without_destination(snapshot) };
    let mut writes = Vec::new();
    writes.extend(finalizers(snapshot, destination));
    let decision = match Location::of(&snapshot.placement, destination) {
        Ok(location) => decide_located(snapshot, destination, &location),
        Err(failure) => failed(snapshot, &failure),
    };
    prepend(writes, decision)
}

/// Returns what follows from an attempt.
pub fn record(snapshot: &Snapshot, attempt: Attempt) -> Decision {
    decide(&Snapshot { attempt: Some(attempt), is_doubted: false, ..snapshot.clone() })
}

/// Returns what an attempt amounts to, of a process that has written nothing of the placement since `last`.
///
/// Content that is in the store although the status does not claim it was brought there by a push whose answer was lost, or by
/// a process that ended before it could say so. Nobody has told of its version yet, so it counts as brought by this attempt.
pub fn recognised(placement: &WorkPlacement, last: Option<&Attempt>, mut attempt: Attempt) -> Attempt {
    let is_known = last.is_some_and(|last| last.outcome.is_ok()) || is_written(placement);
    if !is_known
        && placement.metadata.deletion_timestamp.is_none()
        && let Ok(written) = &mut attempt.outcome
    {
        written.changed = true;
    }
    attempt
}

/// Returns the plan that tells of files which others had changed and the attempt has put right. Of no other attempt can that
/// be told again, so it is executed before what [`record`] returns, whose status may meet a newer object.
pub fn repaired(snapshot: &Snapshot, attempt: &Attempt) -> Plan<Finding> {
    let events = drift::repaired(snapshot, attempt).into_iter().collect();
    Plan { events, ..Plan::silent() }
}

/// Tells whether the decision is about a file that all placements of the Destination share, and was made without them
/// ([`Snapshot::members`]): few passes need them, and there may be very many.
pub fn lacks_members(snapshot: &Snapshot, decision: &Decision) -> bool {
    let is_shared = snapshot.destination.as_deref().is_some_and(aggregates);
    is_shared && decision.effect.is_some() && snapshot.members.is_empty()
}

/// Returns the parts that a large change is made of and that were not read yet ([`Snapshot::parts`]): contents are large, and
/// few passes need them.
pub fn lacks_parts(snapshot: &Snapshot, decision: &Decision) -> BTreeSet<ObjectKey> {
    let location = snapshot.destination.as_deref().and_then(|found| Location::of(&snapshot.placement, found).ok());
    match location.filter(|_| decision.is_large) {
        Some(location) => content::unread(snapshot, &location),
        None => BTreeSet::new(),
    }
}

/// Returns the plan that says on the placement that its content, or its removal, waits in the store's queue, in which so many
/// changes are, and of the store what it does not answer. What the last try has failed for is not taken back: when one that takes
/// long fails in the same way, that would be told as news.
///
/// The number is that of the moment in which it is said first: one that is kept up to date would cost a write each time.
pub fn queued(snapshot: &Snapshot, changes: usize, silence: Option<&str>) -> Plan<Finding> {
    let was_tried = snapshot.attempt.as_ref().is_some_and(|attempt| attempt.outcome.is_err());
    let has_failed = was_tried && says_of_write(&snapshot.placement, condition::Status::False);
    // What is in the store is no comfort to who waits for its removal.
    let is_served = match snapshot.placement.metadata.deletion_timestamp {
        Some(_) => !awaits_store(&snapshot.placement),
        None => is_claimed(snapshot),
    };
    if has_failed || is_served {
        return Plan::silent();
    }
    unwritten(snapshot, Some(changes), silence).plan
}

/// Tells whether a placement waits for its store, as far as its object shows: its files are to be written, or removed.
pub fn awaits_store(placement: &WorkPlacement) -> bool {
    match placement.metadata.deletion_timestamp {
        Some(_) => placement.finalizers().iter().any(|finalizer| finalizer == keys::FINALIZER_REPO_CLEANUP),
        None => !is_written(placement),
    }
}

/// Returns the plan that says on a placement that is being deleted where files are left at a site before, and what the store there
/// does not answer.
pub fn clearing(snapshot: &Snapshot, site: &Site, silence: Option<&str>) -> Plan<Finding> {
    if snapshot.placement.metadata.deletion_timestamp.is_none() || !awaits_store(&snapshot.placement) {
        return Plan::silent();
    }
    let wait = format!("waiting for files in {} to be removed", site.shown());
    let message = silence.map_or_else(|| wait.clone(), |silence| format!("{wait}: {silence}"));
    waiting(snapshot, Content::Waiting { reason: WAITING, message, warns: false }).plan
}

/// Says that the content is on its way.
fn unwritten(snapshot: &Snapshot, changes: Option<usize>, silence: Option<&str>) -> Decision {
    let store = snapshot.destination.as_ref().map(|destination| display(destination.spec.state_store_ref.as_ref()));
    let wait = format!("waiting for {}", store.unwrap_or_default());
    let said = snapshot.placement.status.as_ref().and_then(|status| {
        let write = condition::find(&status.conditions, condition::WRITE_SUCCEEDED)?;
        (write.reason == WAITING && write.message.starts_with(&wait)).then(|| write.message.clone())
    });
    let message = said.unwrap_or_else(|| match (changes, silence) {
        (Some(changes), Some(silence)) => format!("{wait}: {changes} changes are in its queue, {silence}"),
        (Some(changes), None) => format!("{wait}: {changes} changes are in its queue"),
        (None, _) => wait,
    });
    waiting(snapshot, Content::Waiting { reason: WAITING, message, warns: false })
}

fn decide_located(snapshot: &Snapshot, destination: &Destination, location: &Location) -> Decision {
    match rival::before(snapshot, destination, location) {
        Some(rival) if rival.is_namesake_of(snapshot) => return namesake::part(snapshot, destination),
        Some(rival) if rival.is_leaving => {
            let message = format!("path is still being cleared by {}", rival.owner);
            return waiting(snapshot, Content::Waiting { reason: "WaitingForPath", message, warns: false });
        }
        Some(rival) => {
            let message = with_hint(&format!("path {:?} already belongs to {}", rival.path, rival.owner), rival.remedy);
            return failed(snapshot, &Failure { retry: true, ..Failure::content(message) });
        }
        None => {}
    }
    match &snapshot.store {
        Availability::Ready { place, epoch } => {
            decide_ready(snapshot, destination, location, &format!("{place}/{epoch}"))
        }
        // Nothing is known about the store yet; what the status says of the same place may well hold.
        Availability::Opening { .. } if is_written(&snapshot.placement) && !is_claimed(snapshot) => {
            unwritten(snapshot, None, None)
        }
        Availability::Opening { .. } => {
            keep(Finding::Waiting { for_: display(destination.spec.state_store_ref.as_ref()) })
        }
        unavailable => {
            let (reason, message) = unavailable.problem(destination.spec.state_store_ref.as_ref());
            if is_claimed(snapshot) {
                return settled(
                    snapshot,
                    &Content::Claimed,
                    Next::After(RETRY_AFTER),
                    Finding::Waiting { for_: message },
                );
            }
            waiting(snapshot, Content::Waiting { reason, message, warns: true })
        }
    }
}

fn decide_ready(snapshot: &Snapshot, destination: &Destination, location: &Location, place: &str) -> Decision {
    let stamp = stamp(&snapshot.placement, destination, location, place, Purpose::Update);
    let attempt = snapshot.attempt.as_ref().filter(|attempt| attempt.stamp == stamp);
    let age = attempt.map_or(Duration::MAX, |attempt| since(attempt.at, snapshot.now));
    let present = snapshot.store.place().and_then(|place| Site::of(&snapshot.placement, destination, place));
    let noted =
        present.as_ref().and_then(|present| relocation::note(snapshot, present, is_written(&snapshot.placement)));
    if let Some((write, event)) = noted {
        let mut decision = keep(Finding::Waiting { for_: display(destination.spec.state_store_ref.as_ref()) });
        decision.plan.writes.push(write);
        decision.plan.events.extend(event);
        return decision;
    }
    let mut decision = match attempt.map(|attempt| &attempt.outcome) {
        // What was true of another place is taken back before this one is written.
        None if is_written(&snapshot.placement) && !is_claimed(snapshot) => unwritten(snapshot, None, None),
        None => keep(Finding::Waiting { for_: display(destination.spec.state_store_ref.as_ref()) }),
        Some(Ok(written)) => return decide_written(snapshot, present.as_ref(), written, age),
        Some(Err(failure)) => {
            // A store that cannot be asked now takes nothing back of what was durable before.
            let decision = match failure.about {
                About::Store | About::Turn if is_claimed(snapshot) => settled(
                    snapshot,
                    &Content::Claimed,
                    Next::OnChange,
                    Finding::Waiting { for_: failure.message.clone() },
                ),
                // Nobody knows yet whether anything is wrong with it.
                About::Turn => unwritten(snapshot, None, None),
                _ => match handover::passing(snapshot, failure) {
                    Some(message) => {
                        waiting(snapshot, Content::Waiting { reason: "WaitingForPath", message, warns: false })
                    }
                    None => failed(snapshot, failure),
                },
            };
            if !failure.retry {
                return decision.and_next(Next::OnChange);
            }
            let pause = pause(failure.retry_after);
            if age < pause {
                return decision.and_next(Next::After(pause - age));
            }
            decision
        }
    };
    match content::update(snapshot, destination, location) {
        Ok(change) => {
            let covers = match location {
                Location::Aggregate { .. } => covered(snapshot, destination, place, Purpose::Update),
                _ => Vec::new(),
            };
            decision.effect = Some(Effect { change, stamp, covers });
            decision
        }
        Err(Obstacle::Large) => Decision { is_large: true, ..decision },
        Err(Obstacle::Failure(failure)) => failed(snapshot, &failure),
    }
}

fn decide_written(snapshot: &Snapshot, present: Option<&Site>, written: &Written, age: Duration) -> Decision {
    let next = snapshot.interval.map_or(Next::OnChange, |interval| Next::After(interval.saturating_sub(age)));
    let mut decision = settled(snapshot, &Content::Written(written), next, Finding::Written);
    if let Some(write) = present.and_then(|present| relocation::relocation(snapshot, present)) {
        return prepend(vec![write], decision);
    }
    if let Some(outcomes) = &snapshot.cleaned {
        let cleaning = relocation::judge(snapshot, outcomes, false);
        if !cleaning.rest.is_empty() {
            decision.plan.next = Next::After(RETRY_AFTER);
        }
        let forget = relocation::forget(snapshot, &cleaning.rest);
        decision.plan.events.extend(cleaning.events.into_iter().map(|event| event.of(&forget)));
        decision.plan.writes.extend(forget);
        return decision;
    }
    // The status comes first, and brings the placement back.
    decision.cleans = !snapshot.former.is_empty() && decision.plan.is_silent();
    decision.compares = !decision.cleans && is_old(age, snapshot.interval);
    decision
}

/// Tells whether what an attempt has written is to be compared with what the store holds, if it is still the last word.
pub fn is_due(attempt: &Attempt, interval: Option<Duration>, now: Timestamp) -> bool {
    attempt.outcome.is_ok() && is_old(since(attempt.at, now), interval)
}

fn is_old(age: Duration, interval: Option<Duration>) -> bool {
    interval.is_some_and(|interval| age >= interval)
}

fn decide_without_destination(snapshot: &Snapshot) -> Decision {
    let name = snapshot.placement.spec.target_destination_name.clone();
    let content = Content::Waiting {
        reason: "DestinationNotFound",
        message: with_hint(&format!("destination {name:?} not found"), ELSEWHERE),
        warns: true,
    };
    // A Destination that comes back is watched.
    settled(snapshot, &content, Next::OnChange, Finding::DestinationMissing { destination: name })
}

/// The status says that the content is in the store, and speaks of the place where it should be.
///
/// A placement that does not say of which place it speaks is believed: it is of the original, or of an earlier version,
/// and the scheduler is about to note the place.
fn is_claimed(snapshot: &Snapshot) -> bool {
    let placement = &snapshot.placement;
    let (Some(destination), Some(place)) = (&snapshot.destination, snapshot.store.place()) else { return false };
    let is_present = |noted: &Site| Site::of(placement, destination, place).is_some_and(|present| present.is(noted));
    is_written(placement) && site::noted(placement).as_ref().is_none_or(is_present)
}

fn finalizers(snapshot: &Snapshot, destination: &Destination) -> Option<Write> {
    let placement = &*snapshot.placement;
    let mut wanted = vec![keys::FINALIZER_REPO_CLEANUP];
    if destination.spec.filepath.mode == kratix_api::destination::FilepathMode::None {
        wanted.push(keys::FINALIZER_DOT_FILES_CLEANUP);
    }
    wanted.retain(|finalizer| !placement.finalizers().iter().any(|present| present == finalizer));
    if wanted.is_empty() {
        return None;
    }
    let all: Vec<&str> = placement.finalizers().iter().map(String::as_str).chain(wanted).collect();
    Write::metadata(Target::of(placement), &json!({ "finalizers": all }))
}

/// Metadata and status of one object are not written in one pass: the watch event of the first brings the second.
fn prepend(writes: Vec<Write>, mut decision: Decision) -> Decision {
    if !writes.is_empty() {
        decision.plan.status = None;
        decision.plan.events.clear();
        decision.plan.writes = writes;
    }
    decision
}

fn failed(snapshot: &Snapshot, failure: &Failure) -> Decision {
    let content = Content::Failed { message: failure.message.clone(), about: failure.about };
    let next = if failure.retry { Next::After(RETRY_AFTER) } else { Next::OnChange };
    settled(snapshot, &content, next, Finding::Failed { message: failure.message.clone() })
}

fn waiting(snapshot: &Snapshot, content: Content<'_>) -> Decision {
    let for_ = match &content {
        Content::Waiting { message, .. } => message.clone(),
        _ => String::new(),
    };
    settled(snapshot, &content, Next::After(RETRY_AFTER), Finding::Waiting { for_ })
}

fn settled(snapshot: &Snapshot, content: &Content<'_>, next: Next, finding: Finding) -> Decision {
    let (status, events) = status::render(snapshot, content);
    Decision::from(Plan { writes: Vec::new(), status, events, next, findings: vec![finding] })
}

fn keep(finding: Finding) -> Decision {
    let plan = Plan { findings: vec![finding], ..Plan::silent() };
    Decision::from(plan.and_next(Next::After(RETRY_AFTER)))
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn warn(placement: &WorkPlacement, reason: &'static str, note: String) -> Event {
    Event::warning(Reporter::WorkPlacement, Target::of(placement), reason, note)
}

impl From<Plan<Finding>> for Decision {
    fn from(plan: Plan<Finding>) -> Self {
        Self { plan, effect: None, is_large: false, compares: false, cleans: false }
    }
}

impl Decision {
    fn and_next(mut self, next: Next) -> Self {
        self.plan.next = next;
        self
    }
}

#[cfg(test)]
mod tests;
