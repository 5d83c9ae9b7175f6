//! What has come of the pushes to a store in this process: whether it takes what it is given, and whom it has refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::{Change, RETRY_AFTER};

/// Whether a store that can be reached takes what it is given, as far as the process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pushes {
    /// Nothing was pushed yet.
    #[default]
    Unknown,
    /// The last push, or a part of it, was accepted.
    Accepted,
    /// The last push was refused, and with it everything that waited.
    Refused(String),
    /// Nobody asks any more for what was refused last.
    Withdrawn,
    /// There is no answer to what was pushed.
    Unanswered(String),
}

/// Whose change it is, and in which directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    id: String,
    directory: String,
}

impl Asker {
    /// Returns who asks for a change.
    pub fn of(change: &Change) -> Self {
        Self { id: change.id.clone(), directory: change.prefix.clone() }
    }

    /// Tells whether it is the placement of this name, in whatever namespace: who is forgotten too early is refused once more.
    pub fn is_placement(&self, name: &str) -> bool {
        self.id == name
    }

    /// Tells whether it asks for something in this directory or below.
    pub fn is_below(&self, directory: &str) -> bool {
        Path::new(&self.directory).starts_with(directory)
    }
}

/// What has come of the pushes to one store.
///
/// # Guarantees
/// Each change returns whether the store's own pass has something new to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    pushes: Pushes,
    /// Who was refused since it last took something.
    refused: BTreeSet<Asker>,
}

impl Acceptance {
    /// Returns whether it takes what it is given.
    pub fn pushes(&self) -> &Pushes {
        &self.pushes
    }

    /// Tells whether one of those who were refused is meant.
    pub fn has_refused(&self, is_meant: impl Fn(&Asker) -> bool) -> bool {
        self.refused.iter().any(is_meant)
    }

    /// Notes that something was accepted: a store that takes something does not refuse everything.
    pub fn accept(&mut self) -> bool {
        self.refused.clear();
        std::mem::replace(&mut self.pushes, Pushes::Accepted) != Pushes::Accepted
    }

    /// Notes who was refused together with everybody else.
    pub fn note_refused(&mut self, asker: Asker) {
        self.refused.insert(asker);
    }

    /// Notes that everything was refused, and what was said.
    pub fn refuse(&mut self, message: String) -> bool {
        let refused = Pushes::Refused(message);
        let is_news = self.pushes != refused;
        self.pushes = refused;
        is_news
    }

    /// Notes that somebody does not ask any more for what was refused. A store that refuses nothing which is asked of it is not
    /// one that refuses.
    pub fn withdraw(&mut self, is_gone: impl Fn(&Asker) -> bool) -> bool {
        let before = self.refused.len();
        self.refused.retain(|asker| !is_gone(asker));
        let is_over = before > 0 && self.refused.is_empty() && matches!(self.pushes, Pushes::Refused(_));
        if is_over {
            self.pushes = Pushes::Withdrawn;
        }
        is_over
    }

    /// Notes what has not been answered for so long. A store that took the last push is given more time before all of its
    /// Destinations say so; placements say it already. What is known to be refused is told rather than that the next try takes
    /// long.
    pub fn owe(&mut self, silence: String, owed: Duration) -> bool {
        let is_slow = match self.pushes {
            Pushes::Unknown | Pushes::Withdrawn => true,
            Pushes::Accepted => owed >= RETRY_AFTER,
            Pushes::Refused(_) | Pushes::Unanswered(_) => false,
        };
        if is_slow {
            self.pushes = Pushes::Unanswered(silence);
        }
        is_slow
    }

    /// Notes that it has answered, or that nobody waits any more for what was not answered.
    pub fn hear(&mut self) -> bool {
        let was_silent = matches!(self.pushes, Pushes::Unanswered(_));
        if was_silent {
            self.pushes = Pushes::Unknown;
        }
        was_silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_store::{ChangeKind, Operation, SILENCE};

    fn asker(id: &str, directory: &str) -> Asker {
        let operation = Operation::Replace(Vec::new());
        Asker::of(&Change { id: id.into(), kind: ChangeKind::Update, prefix: directory.into(), operation })
    }

    fn refusing(askers: &[(&str, &str)]) -> Acceptance {
        let mut acceptance = Acceptance::default();
        assert!(acceptance.refuse("no".into()) && !acceptance.refuse("no".into()) && acceptance.refuse("never".into()));
        askers.iter().for_each(|(id, directory)| acceptance.note_refused(asker(id, directory)));
        acceptance
    }

    #[test]
    fn a_refusal_lasts_until_the_last_who_was_refused_does_not_ask_any_more() {
        let mut store = refusing(&[("a", "d/a"), ("b", "d/b"), ("c", "de/c")]);
        assert!(!store.withdraw(|asker| asker.is_placement("a")) && !store.withdraw(|asker| asker.is_placement("a")));
        assert!(!store.withdraw(|asker| asker.is_below("d")), "c is not below d");
        assert_eq!(*store.pushes(), Pushes::Refused("never".into()));
        assert!(store.has_refused(|asker| asker.is_below("de")) && !store.has_refused(|asker| asker.is_below("d")));
        assert!(store.withdraw(|asker| *asker == super::tests::asker("c", "de/c")));
        assert_eq!(*store.pushes(), Pushes::Withdrawn);
        assert!(!store.withdraw(|_| true), "nobody is left");
    }

    #[test]
    fn who_withdraws_from_a_store_that_refuses_nobody_changes_nothing() {
        let mut store = refusing(&[]);
        assert!(!store.withdraw(|_| true));
        assert_eq!(*store.pushes(), Pushes::Refused("never".into()), "nobody knows whose push that was");
        assert!(store.accept() && !store.accept());
        store.note_refused(asker("a", "d/a"));
        assert!(!store.withdraw(|_| true), "it takes others");
        assert_eq!(*store.pushes(), Pushes::Accepted);
    }

    #[test]
    fn a_store_that_took_the_last_push_is_trusted_for_a_while() {
        let silent = || Pushes::Unanswered("no answer".into());
        let mut store = Acceptance::default();
        store.accept();
        assert!(!store.owe("no answer".into(), SILENCE) && *store.pushes() == Pushes::Accepted);
        assert!(store.owe("no answer".into(), RETRY_AFTER) && *store.pushes() == silent());
        assert!(!store.owe("no answer".into(), 2 * RETRY_AFTER), "it is told already");
        assert!(store.hear() && !store.hear());
        assert_eq!(*store.pushes(), Pushes::Unknown);
        assert!(store.owe("no answer".into(), SILENCE) && *store.pushes() == silent());
    }

    #[test]
    fn what_is_refused_is_told_rather_than_that_the_next_try_takes_long() {
        let mut store = refusing(&[("a", "d/a")]);
        assert!(!store.owe("no answer".into(), 10 * RETRY_AFTER) && !store.hear());
        assert_eq!(*store.pushes(), Pushes::Refused("never".into()));
    }
}
