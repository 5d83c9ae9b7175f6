//! The scenarios.

mod control;
mod deletion;
mod delivery;
mod life;
mod promises;
mod sharing;
mod tampering;

use crate::scenario::Scenario;

/// Returns all of them.
pub(crate) fn all() -> Vec<Scenario> {
    let parts = [
        life::all(),
        control::all(),
        deletion::all(),
        promises::all(),
        delivery::all(),
        sharing::all(),
        tampering::all(),
    ];
    parts.into_iter().flatten().collect()
}
