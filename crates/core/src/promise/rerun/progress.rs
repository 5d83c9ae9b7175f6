//! How far a round is, as a condition of the Promise.
//!
//! The condition appears with the first round and stays. During a round its message follows in steps of about a twentieth, so that
//! a round costs a bounded number of writes however many requests there are.

use kratix_api::Promise;
use kratix_api::condition::{self, Status};

use super::request::Standing;
use super::{Member, Round};
use crate::promise::Walk;
use crate::text;

/// Condition of a Promise: whether all requests have run since the last change that concerns them all.
pub const REQUESTS_UP_TO_DATE: &str = "RequestsUpToDate";

const RERUNNING: &str = "RequestsRerunning";
const HELD_UP: &str = "RequestsHeldUp";

/// Names in a message; of others it is only told that there are some: their number would be told with every change.
const NAMES_MAX: usize = 3;

/// Returns whether the Promise has told requests to run and is not done with following them.
pub(super) fn is_open(promise: &Promise) -> bool {
    let conditions = promise.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition::find(conditions, REQUESTS_UP_TO_DATE).is_some_and(|told| told.status == Status::False)
}

/// Says how far the round is.
pub(super) fn tell(walk: &mut Walk<'_>, round: &Round<'_>) {
    let all = &round.members;
    let is_known = walk.status.condition(REQUESTS_UP_TO_DATE).is_some();
    if all.is_empty() && !is_known {
        return;
    }
    let is_refused = |member: &Member<'_>| !member.has_told && member.request.refusal.is_some();
    let is_held_up = |member: &Member<'_>| {
        let stands_still = match member.request.standing {
            Standing::Failed | Standing::Held | Standing::Hanging => !member.is_running,
            Standing::Settled | Standing::Running => false,
        };
        is_refused(member) || (member.has_told && stands_still)
    };
    let is_unfinished = |member: &Member<'_>| !is_refused(member) && (!member.has_told || member.is_running);
    if all.iter().any(is_unfinished) {
        let total = all.len();
        let has_run = |member: &&Member<'_>| !is_unfinished(member) && !is_held_up(member);
        let shown = in_steps(all.iter().filter(has_run).count(), total);
        let begin = format!("{shown} of ");
        let before = walk.status.condition(REQUESTS_UP_TO_DATE);
        // A total that changes is news only together with the number before it.
        let is_told = before.is_some_and(|before| before.reason == RERUNNING && before.message.starts_with(&begin));
        if !is_told {
            let message = format!("{begin}{total} resource requests have run since the Promise has changed");
            walk.status.set(REQUESTS_UP_TO_DATE, Status::False, RERUNNING, message);
        }
        return;
    }
    let mut held_up: Vec<&Member<'_>> = all.iter().filter(|member| is_held_up(member)).collect();
    if held_up.is_empty() {
        let message = "All resource requests have run since the Promise has changed";
        walk.status.set(REQUESTS_UP_TO_DATE, Status::True, REQUESTS_UP_TO_DATE, message);
        return;
    }
    held_up.sort_by_key(|member| (&member.request.namespace, &member.request.name));
    let first_cause = held_up.iter().find_map(|member| member.request.refusal.as_ref().filter(|_| is_refused(member)));
    let what_to_do = match first_cause {
        Some(refusal) => text::cause(&refusal.cause).to_owned(),
        None => "see their conditions".to_owned(),
    };
    let name = |member: &&Member<'_>| format!("{}/{}", member.request.namespace, member.request.name);
    let names: Vec<String> = held_up.iter().take(NAMES_MAX).map(name).collect();
    let others = if held_up.len() > NAMES_MAX { " and others" } else { "" };
    let message = format!(
        "Resource requests that have failed, or cannot run, since the Promise has changed: {}{others}; {what_to_do}",
        names.join(", ")
    );
    walk.status.set(REQUESTS_UP_TO_DATE, Status::False, HELD_UP, message);
}

/// Rounds down to a multiple of a power of two that divides `total` into at most twenty parts or so.
fn in_steps(count: usize, total: usize) -> usize {
    let step = (total / 20).max(1).next_power_of_two();
    count / step * step
}

#[cfg(test)]
mod tests {
    use super::in_steps;

    #[test]
    fn a_round_is_told_in_at_most_twenty_steps_and_a_small_one_in_each() {
        for total in [1, 12, 40, 100, 1_000, 12_345] {
            let steps: std::collections::BTreeSet<_> = (0..total).map(|count| in_steps(count, total)).collect();
            assert!(steps.len() <= 21, "{total}: {}", steps.len());
        }
        assert_eq!((0..12).map(|count| in_steps(count, 12)).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
        assert_eq!(in_steps(13, 40), 12);
    }
}
