//! What is known of changes that a remote refused, from one batch to the next.
//!
//! A change that is refused alone while nothing else is tried says nothing yet: it may be the store that refuses everything.
//! Once something else was accepted, its next refusal is its own.

use std::collections::VecDeque;

use crate::checked::Checked;
use crate::error::Error;

/// How many refused changes are remembered. Those forgotten are looked for once more.
pub(super) const CULPRITS_MAX: usize = 256;

/// Changes that were refused when they were tried alone, the one that was tried longest ago first.
#[derive(Default)]
pub(in crate::git) struct Culprits(VecDeque<Culprit>);

struct Culprit {
    id: String,
    fingerprint: u64,
    error: Error,
    standing: Standing,
}

/// What the refusal of a change says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: nothing else was accepted.
    Open,
    /// Something else was accepted later. If it is refused once more, that is about the change.
    Suspect,
    /// It is about the change: something else was accepted.
    Guilty,
}

impl Culprits {
    fn position(&self, change: &Checked) -> Option<usize> {
        // Content is looked at only for those who were refused something before.
        let mut fingerprint = None;
        self.0.iter().position(|culprit| {
            culprit.id == change.id() && culprit.fingerprint == *fingerprint.get_or_insert_with(|| change.fingerprint())
        })
    }

    /// Returns what a change was told whose fault it was, and its place in the order in which they are tried again.
    pub(super) fn guilty(&self, change: &Checked) -> Option<(usize, &Error)> {
        let age = self.position(change)?;
        let culprit = &self.0[age];
        (culprit.standing == Standing::Guilty).then_some((age, &culprit.error))
    }

    /// Tells whether another refusal of this change is about the change.
    pub(super) fn is_suspect(&self, change: &Checked) -> bool {
        self.position(change).is_some_and(|at| self.0[at].standing != Standing::Open)
    }

    pub(super) fn forget(&mut self, change: &Checked) {
        if let Some(at) = self.position(change) {
            self.0.remove(at);
        }
    }

    pub(super) fn remember(&mut self, change: &Checked, error: Error, standing: Standing) {
        self.forget(change);
        if self.0.len() >= CULPRITS_MAX {
            // Whose fault it is cost pushes to find out.
            let least = self.0.iter().position(|culprit| culprit.standing != Standing::Guilty);
            self.0.remove(least.unwrap_or_default());
        }
        self.0.push_back(Culprit { id: change.id().to_owned(), fingerprint: change.fingerprint(), error, standing });
    }

    /// Notes that the remote has accepted something.
    pub(super) fn note_acceptance(&mut self) {
        for culprit in self.0.iter_mut().filter(|culprit| culprit.standing == Standing::Open) {
            culprit.standing = Standing::Suspect;
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self, standing: Standing) -> usize {
        self.0.iter().filter(|culprit| culprit.standing == standing).count()
    }
}
