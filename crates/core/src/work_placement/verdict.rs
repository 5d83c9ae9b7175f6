//! What becomes of files at a site that was left.

use super::site::{Relation, Site};
use crate::state_store::Availability;

/// What came of removing files at a site that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// The files are gone.
    Removed,
    /// It is the present site under another address, so nothing was removed.
    Same,
    /// Whether it is the present site cannot be told, so nothing was removed.
    Doubtful,
    /// They could not be removed now.
    Failed(String),
}

/// A site that was left, as far as it matters whose it was.
pub(crate) struct Left<'a> {
    pub(crate) site: &'a Site,
    /// Its store as it is now.
    pub(crate) store: &'a Availability,
    /// There is a writer for it.
    pub(crate) is_reachable: bool,
    /// Somebody else has files there now.
    pub(crate) is_taken: bool,
    /// How it lies to the present site.
    pub(crate) relation: Relation,
}

pub(crate) enum Verdict {
    /// Nothing is left to do there.
    Done,
    /// Its store is about to be opened.
    Opening,
    /// It is tried again.
    Later(String),
    /// It is given up.
    Never(String),
}

impl Left<'_> {
    pub(crate) fn verdict(&self, outcome: Option<&Cleaned>) -> Verdict {
        if let Some(reason) = self.site.location().unwritable() {
            return Verdict::Never(reason.to_string());
        }
        match (self.relation, outcome) {
            (Relation::Same, _) | (_, Some(Cleaned::Removed | Cleaned::Same)) => return Verdict::Done,
            (_, Some(Cleaned::Failed(cause))) => return Verdict::Later(cause.clone()),
            (_, Some(Cleaned::Doubtful)) => {
                let cause = "it cannot be told whether the previous address leads elsewhere than the present one";
                return Verdict::Never(cause.to_owned());
            }
            (Relation::Entangled, None) => {
                return Verdict::Never("of the previous and the present directory one contains the other".to_owned());
            }
            _ if self.is_taken => return Verdict::Done,
            _ => {}
        }
        if self.is_reachable {
            return Verdict::Opening; // since a moment ago
        }
        let (_, problem) = self.store.problem(Some(&self.site.store));
        match (self.store, self.store.place()) {
            (_, None) => Verdict::Never(problem),
            (_, Some(place)) if place != self.site.place => {
                let store = crate::state_store::display(Some(&self.site.store));
                Verdict::Never(format!("{store} has another address now"))
            }
            (Availability::NotReady { .. }, _) => Verdict::Later(problem),
            _ => Verdict::Opening,
        }
    }
}
