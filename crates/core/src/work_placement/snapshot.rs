//! What the decision about a placement looks at, and what it amounts to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::{Destination, WorkPlacement};

use super::{Cleaned, Former, Handover, Parts, Site};
use crate::object::ObjectKey;
use crate::plan::Plan;
use crate::state_store::{Attempt, Availability, Change};

/// Everything that the decision about one placement may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The placement.
    pub placement: Arc<WorkPlacement>,
    /// Its Destination, if that exists.
    pub destination: Option<Arc<Destination>>,
    /// Whether the Destination's state store can be written.
    pub store: Availability,
    /// Other placements with one of the [`collisions`](super::collisions) and their Destinations, sorted by key; needed only those
    /// of Destinations that [`may_meet`](super::may_meet).
    pub rivals: Vec<Rival>,
    /// The placement [is where its documents come from](super::is_at_home); needed only if there are rivals.
    pub is_at_home: bool,
    /// Other Destinations with the same file ([`shares_file`](super::shares_file)), of this store or another one at its address;
    /// sorted by store and name.
    pub neighbours: Vec<Neighbour>,
    /// All placements on the Destination, sorted by key; needed only if there are neighbours, or a decision
    /// [`lacks_members`](super::lacks_members).
    pub members: Vec<Arc<WorkPlacement>>,
    /// It is the placement's turn among those that are [large](Decision::is_large): one at a time for each store.
    pub has_turn: bool,
    /// What large placements refer to, read once it is their turn ([`lacks_parts`](super::lacks_parts)).
    pub parts: Parts,
    /// Placements among the members, those of the neighbours included, that the process has written, whatever the cache
    /// shows of their status.
    pub written: BTreeSet<ObjectKey>,
    /// What the process last tried for this placement.
    pub attempt: Option<Attempt>,
    /// A comparison has found that the store does not hold any more what was written.
    pub is_doubted: bool,
    /// Whose paths it waits for, and who waits for its own.
    pub handover: Handover,
    /// How often what was written is compared with what the store holds; `None` for never.
    pub interval: Option<Duration>,
    /// The sites that it has left ([`former_sites`](super::former_sites)).
    pub former: Vec<Former>,
    /// What came of cleaning them ([`leftovers`](super::leftovers)), if this pass has tried.
    pub cleaned: Option<Vec<(Site, Cleaned)>>,
}

/// Another Destination with the same file.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// The Destination.
    pub destination: Arc<Destination>,
    /// Where its store is.
    pub place: String,
    /// The placements on it.
    pub members: Vec<Arc<WorkPlacement>>,
}

/// Another placement that could have the same directory, or the same state file.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// The placement.
    pub placement: Arc<WorkPlacement>,
    /// Its Destination.
    pub destination: Arc<Destination>,
    /// Where its Destination's store is.
    pub place: String,
    /// The process has written it, whatever the cache shows of its status.
    pub has_written: bool,
    /// It [is where its documents come from](super::is_at_home).
    pub is_at_home: bool,
}

/// What is to be done about a placement: first the plan, then the effect, then [`record`](super::record) tells what follows from
/// it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Writes to the API.
    pub plan: Plan<Finding>,
    /// A change in the store.
    pub effect: Option<Effect>,
    /// There is a change for the store that is large: another decision makes it, once it is [its turn](Snapshot::has_turn).
    pub is_large: bool,
    /// The store is to be asked whether it still holds what was written, all of its Destination in one request. What it does
    /// not hold is [doubted](Snapshot::is_doubted), and its attempt counts no longer.
    pub compares: bool,
    /// The [`leftovers`](super::leftovers) are to be removed; another decision with [`Snapshot::cleaned`] tells what follows from
    /// it.
    pub cleans: bool,
}

/// A change for the Destination's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What it does.
    pub change: Change,
    /// Identifies content and place, for the [`Attempt`].
    pub stamp: String,
    /// Other placements whose content the same change brings into the store, with their stamps.
    pub covers: Vec<(ObjectKey, String)>,
}

/// What was found out about a placement.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// The present content is in the store.
    Written,
    /// The content waits.
    Waiting {
        /// For what.
        for_: String,
    },
    /// The content cannot be written.
    Failed {
        /// Why.
        message: String,
    },
    /// The Destination does not exist.
    DestinationMissing {
        /// Its name.
        destination: String,
    },
    /// Files are left behind in a place that cannot be reached any more.
    LeftBehind {
        /// Why.
        cause: String,
    },
}
