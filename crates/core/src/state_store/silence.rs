//! A store that is asked and does not answer: its server hangs, or is slow. Whoever waits is told after a few seconds; that there
//! will be no answer is known much later.

use std::time::Duration;

use kratix_api::condition;

use super::{Decision, Effect, RETRY_AFTER, Snapshot, not_ready};
use crate::plan::{Next, Plan};

/// After this time whoever waits for a store says so. Most waits are over earlier and cost no status.
pub const SILENCE: Duration = Duration::from_secs(3);
/// What a store has owed for so long, when somebody has waited for [`SILENCE`], is no answer. Less than that, since the question
/// that is under way was asked after the wait for it began.
pub const NO_ANSWER: Duration = Duration::from_secs(2);

/// Says of a store that it does not answer.
pub fn no_answer(address: &str) -> String {
    format!("no answer from {address} yet")
}

/// Decides about a store that is being opened.
pub(super) fn decide(snapshot: &Snapshot) -> Decision {
    let Some(under_way) = &snapshot.under_way else { return Decision { plan: Plan::silent(), effect: None } };
    // Nobody owes anything to one that has not had its turn.
    let Some(since) = under_way.since else {
        return Decision { plan: Plan::silent().and_next(Next::After(SILENCE)), effect: None };
    };
    let age = Duration::try_from(snapshot.now.duration_since(since)).unwrap_or_default();
    // After a start the first look at a large repository takes its time, and what the status says most probably holds.
    let patience = if is_told_ready(snapshot) { RETRY_AFTER } else { SILENCE };
    if age < patience {
        let plan = Plan::silent().and_next(Next::After(patience.saturating_sub(age)));
        return Decision { plan, effect: None };
    }
    // The end of the exchange brings the store back.
    let plan = not_ready(snapshot, "NoAnswerYet", no_answer(&under_way.address)).and_next(Next::OnChange);
    Decision { plan, effect: Some(Effect::Tell) }
}

fn is_told_ready(snapshot: &Snapshot) -> bool {
    let is_present = |status: &&kratix_api::StateStoreStatus| status.observed_generation == snapshot.store.generation();
    let status = snapshot.store.status().filter(is_present);
    status.is_some_and(|status| condition::is_true(&status.conditions, condition::READY))
}
