//! Which changes of a batch a remote refuses. It refuses a push as a whole, and says for what in words of its own, so this can
//! only be found out by pushing less.
//!
//! The first question is whether the remote takes anything at all: until something was accepted, single changes are tried, few
//! of them, and if all are refused it is the store that refuses. Afterwards what is refused is halved until it stands alone;
//! where one half was accepted, nobody asks whether the other one is refused.
//! Changes that were found out before are tried alone and last ([`culprits`]).
//!
//! **Invariant:** changes whose order can matter keep it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::change::Written;
use crate::checked::Checked;
use crate::error::{Error, WriteError};

mod culprits;

pub(super) use self::culprits::Culprits;
use self::culprits::Standing;

/// Counts the single changes tried, also of stores that are opened again.
static PROBES: AtomicU32 = AtomicU32::new(0);

/// What a search may cost.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// How many refused pushes it takes to say that a store refuses everything: the batch, and some changes by themselves, each
    /// with what is left after it.
    frozen: usize,
    /// How many refused pushes one batch may cost. At the limit, what has not been tried by itself is told so; its callers try
    /// again later.
    refusals: usize,
    /// How many remembered changes one batch tries again. The others are told what they were told before, and are next.
    retrials: usize,
}

impl Limits {
    /// Where a push costs nothing but its time. Finding one change among a full queue takes ten refusals.
    pub(super) const FREE: Self = Self { frozen: 6, refusals: 32, retrials: 8 };
    /// Where pushes are counted: one refused change is still found, more of them with later batches. Who comes next waits for
    /// every push, also for those of the remembered.
    pub(super) const PACED: Self = Self { frozen: 2, refusals: 12, retrials: 1 };
}

/// What became of a change.
enum Verdict {
    Open,
    Known(Result<Written, WriteError>),
    /// Refused when it was tried alone.
    Alone(Error),
    /// Refused when it was tried with others.
    Together(Error),
    /// Its asker knows.
    Told,
}

/// A part of a batch that is tried as one.
struct Piece {
    at: Vec<usize>,
    bond: Bond,
}

/// What is known of a piece before it is tried.
#[derive(Clone, Copy, PartialEq)]
enum Bond {
    Free,
    /// It was refused together with the piece that is tried just before it.
    Bound,
    /// It was refused together with what was accepted alone.
    Refused,
}

/// The search through one batch. Pieces are positions in it.
pub(super) struct Bisection {
    changes: Arc<[Checked]>,
    limits: Limits,
    verdicts: Vec<Verdict>,
    /// What those that were found out before were told.
    known: HashMap<usize, Error>,
    /// What is still to be tried, the next piece last.
    pieces: Vec<Piece>,
    refusals: usize,
    /// The remote has accepted something of this batch.
    accepted: bool,
}

impl Bisection {
    pub(super) fn new(changes: Arc<[Checked]>, culprits: &Culprits, limits: Limits) -> Self {
        let mut verdicts: Vec<Verdict> = changes.iter().map(|_| Verdict::Open).collect();
        let (mut pieces, mut run, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for (at, change) in changes.iter().enumerate() {
            let Some((age, error)) = culprits.guilty(change) else {
                run.push(at);
                continue;
            };
            known.insert(at, error.clone());
            if changes[at + 1..].iter().any(|later| later.interferes(change)) {
                pieces.push(std::mem::take(&mut run));
                pieces.push(vec![at]);
            } else {
                last.push((age, at));
            }
        }
        pieces.push(run);
        last.sort_unstable();
        pieces.extend(last.iter().take(limits.retrials).map(|(_, at)| vec![*at]));
        for (_, at) in last.iter().skip(limits.retrials) {
            verdicts[*at] = Verdict::Known(Err(WriteError::Refused(known[at].clone())));
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces.reverse();
        let pieces = pieces.into_iter().map(|at| Piece { at, bond: Bond::Free }).collect();
        Self { changes, limits, verdicts, known, pieces, refusals: 0, accepted: false }
    }

    /// Returns what is to be tried next.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        loop {
            let piece = self.pieces.pop()?;
            // One that stands alone is asked all the same: for its own reason, and since its neighbours may have been too many.
            if piece.bond != Bond::Refused || piece.at.len() == 1 {
                return Some(piece.at);
            }
            self.halve(&piece.at);
        }
    }

    /// Has two pieces tried that were refused as one.
    fn try_in_turn(&mut self, first: Vec<usize>, second: Vec<usize>) {
        self.pieces.push(Piece { at: second, bond: Bond::Bound });
        self.pieces.push(Piece { at: first, bond: Bond::Free });
    }

    fn halve(&mut self, piece: &[usize]) {
        let (first, second) = piece.split_at(piece.len() / 2);
        self.try_in_turn(first.to_vec(), second.to_vec());
    }

    /// Passes on to the piece that was refused together with one that has been tried what has become of that.
    fn release(&mut self, bond: Bond) {
        if let Some(piece) = self.pieces.last_mut().filter(|piece| piece.bond == Bond::Bound) {
            piece.bond = bond;
        }
    }

    /// Notes that a piece was published as far as its outcomes say, or that nothing was to be published.
    pub(super) fn accept(&mut self, piece: &[usize], outcomes: Vec<Result<Written, WriteError>>) {
        self.accepted |= outcomes.iter().flatten().any(|written| written.changed);
        for (at, outcome) in piece.iter().zip(outcomes) {
            self.verdicts[*at] = Verdict::Known(outcome);
        }
        self.release(Bond::Refused);
    }

    /// Notes that the remote refused a piece, of which these changes altered something.
    pub(super) fn refuse(&mut self, piece: Vec<usize>, alters: &[bool], error: Error) {
        self.release(Bond::Free);
        if let [at] = *piece
            && self.known.contains_key(&at)
        {
            // That is no news, and says nothing about the store.
            self.verdicts[at] = Verdict::Alone(error);
            return;
        }
        self.refusals += 1;
        let is_frozen = !self.accepted && self.refusals >= self.limits.frozen;
        if let [at] = *piece {
            self.verdicts[at] = Verdict::Alone(error.clone());
        } else if is_frozen || self.refusals >= self.limits.refusals {
            self.refuse_together(&piece, &error);
        } else if let Some(probe) = self.probe(&piece, alters) {
            let at = piece[probe];
            self.try_in_turn(vec![at], piece.into_iter().filter(|other| *other != at).collect());
        } else {
            self.halve(&piece);
        }
        if is_frozen {
            while let Some(piece) = self.pieces.pop() {
                self.refuse_together(&piece.at, &error);
            }
        }
    }

    /// Chooses a change to be tried before the rest of its piece, to find out whether the remote takes anything: one that
    /// alters something, and another one each time, so that the same few refused ones do not stand in front for ever.
    fn probe(&self, piece: &[usize], alters: &[bool]) -> Option<usize> {
        if self.accepted {
            return None;
        }
        let altering: Vec<usize> = (0..piece.len()).filter(|at| alters.get(*at) == Some(&true)).collect();
        // Multiples of the golden ratio are spread evenly.
        let turn = PROBES.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9);
        let start = (turn as usize).checked_rem(altering.len())?;
        let (before, after) = altering.split_at(start);
        after.iter().chain(before).copied().find(|at| {
            let change = &self.changes[piece[*at]];
            !piece[..*at].iter().any(|before| self.changes[*before].interferes(change))
        })
    }

    fn refuse_together(&mut self, piece: &[usize], error: &Error) {
        for at in piece {
            self.verdicts[*at] = match self.known.get(at) {
                Some(known) => Verdict::Known(Err(WriteError::Refused(known.clone()))),
                None => Verdict::Together(error.clone()),
            };
        }
    }

    /// Ends the search: the store has trouble that is about no change.
    pub(super) fn abandon(&mut self, error: &Error) {
        self.pieces.clear();
        for verdict in self.verdicts.iter_mut().filter(|verdict| matches!(verdict, Verdict::Open)) {
            *verdict = Verdict::Known(Err(WriteError::Store(error.clone())));
        }
    }

    /// Returns what has become of those changes of which that is known by now, each once. Whose fault a refusal is comes last:
    /// nobody is told that his change is refused unless another one was accepted, in this batch or since it was refused before.
    pub(super) fn settle(&mut self, culprits: &mut Culprits) -> Vec<(usize, Result<Written, WriteError>)> {
        let is_over = !self.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Open));
        if is_over && self.accepted {
            culprits.note_acceptance();
        }
        let mut settled = Vec::new();
        for (at, verdict) in self.verdicts.iter_mut().enumerate() {
            let change = &self.changes[at];
            let outcome = match std::mem::replace(verdict, Verdict::Told) {
                Verdict::Known(outcome) => {
                    if outcome.is_ok() {
                        culprits.forget(change);
                    }
                    outcome
                }
                Verdict::Alone(error) if is_over => {
                    if self.accepted || self.known.contains_key(&at) || culprits.is_suspect(change) {
                        culprits.remember(change, error.clone(), Standing::Guilty);
                        Err(WriteError::Refused(error))
                    } else {
                        culprits.remember(change, error.clone(), Standing::Open);
                        Err(WriteError::Store(error))
                    }
                }
                Verdict::Together(error) if is_over && self.accepted => Err(WriteError::Untried(error)),
                Verdict::Together(error) if is_over => Err(WriteError::Store(error)),
                Verdict::Told => continue,
                undecided => {
                    *verdict = undecided;
                    continue;
                }
            };
            settled.push((at, outcome));
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::change::{Change, File, Imprint, Marks, Operation};
    use crate::error::{Place, Trouble};

    /// A remote as far as the search sees it: what it holds, and which askers it refuses.
    struct Remote {
        limits: Limits,
        culprits: Culprits,
        held: HashSet<String>,
        pushes: usize,
    }

    impl Default for Remote {
        fn default() -> Self {
            Self { limits: Limits::FREE, culprits: Culprits::default(), held: HashSet::new(), pushes: 0 }
        }
    }

    impl Remote {
        fn commit(&mut self, ids: &[String], refuses: impl Fn(&str) -> bool) -> Vec<Result<Written, WriteError>> {
            let change = |id: &String| Change::replace(id, id, vec![File::new("f", id.clone())]);
            self.commit_changes(ids.iter().map(change).collect(), refuses)
        }

        fn commit_changes(
            &mut self,
            changes: Vec<Change>,
            refuses: impl Fn(&str) -> bool,
        ) -> Vec<Result<Written, WriteError>> {
            self.pushes = 0;
            let changes: Vec<Checked> = changes.into_iter().map(|change| Checked::new(change).expect("good")).collect();
            let changes: Arc<[Checked]> = changes.into();
            let mut search = Bisection::new(changes.clone(), &self.culprits, self.limits);
            let mut told = Vec::new();
            while let Some(piece) = search.next() {
                let alters: Vec<bool> = piece.iter().map(|at| !self.held.contains(changes[*at].id())).collect();
                let altering =
                    || piece.iter().zip(&alters).filter(|(_, alters)| **alters).map(|(at, _)| changes[*at].id());
                self.pushes += usize::from(altering().next().is_some());
                match altering().find(|id| refuses(id)) {
                    Some(id) => {
                        let error = error(id);
                        search.refuse(piece, &alters, error);
                    }
                    None => {
                        self.held.extend(altering().map(str::to_owned));
                        let written = |changed: &bool| {
                            let imprint = Imprint(Arc::new(Marks::Git(Box::default())));
                            Ok(Written { version: None, changed: *changed, imprint })
                        };
                        search.accept(&piece, alters.iter().map(written).collect());
                    }
                }
                told.extend(search.settle(&mut self.culprits));
            }
            told.extend(search.settle(&mut self.culprits));
            told.sort_by_key(|(at, _)| *at);
            assert!(told.iter().map(|(at, _)| *at).eq(0..changes.len()), "each is told once");
            told.into_iter().map(|(_, outcome)| outcome).collect()
        }
    }

    fn error(message: &str) -> Error {
        let place = Place { store: "s".into(), url: "u".into(), branch: "main".into() };
        let trouble = Trouble::Refused { branch: "main".into(), message: message.into() };
        Error { place: Arc::new(place), trouble }
    }

    fn ids(count: usize, is_bad: impl Fn(usize) -> bool) -> Vec<String> {
        (0..count).map(|at| format!("{}{at}", if is_bad(at) { "bad" } else { "good" })).collect()
    }

    fn is_bad(id: &str) -> bool {
        id.starts_with("bad")
    }

    #[test]
    fn one_change_is_found_wherever_it_is_and_tried_once_the_next_time() {
        for count in [2, 3, 7, 64, 1000] {
            for bad in [0, 1, count / 2, count - 1] {
                let mut remote = Remote::default();
                let ids = ids(count, |at| at == bad);
                for limit in [26, 1] {
                    for (at, outcome) in remote.commit(&ids, is_bad).into_iter().enumerate() {
                        match outcome {
                            Err(WriteError::Refused(found)) => assert_eq!((at, found), (bad, error(&ids[bad]))),
                            other => assert!(other.is_ok() && at != bad, "{at}: {other:?}"),
                        }
                    }
                    assert!((1..=limit).contains(&remote.pushes), "{} pushes for {count}", remote.pushes);
                }
            }
        }
    }

    #[test]
    fn nobody_is_blamed_where_nothing_is_accepted() {
        for count in [1, 2, 3, 10, 1000] {
            let mut remote = Remote::default();
            let outcomes = remote.commit(&ids(count, |_| true), is_bad);
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(WriteError::Store(_)))), "{outcomes:?}");
            assert!(remote.pushes <= Limits::FREE.frozen, "{}", remote.pushes);
            assert_eq!(remote.culprits.count(Standing::Guilty), 0);
        }
    }

    #[test]
    fn one_change_that_comes_alone_is_to_blame_once_the_store_has_taken_another() {
        let mut remote = Remote::default();
        let alone = |remote: &mut Remote, id: &str| remote.commit(&[id.to_owned()], is_bad).pop().expect("one outcome");
        assert!(matches!(alone(&mut remote, "bad"), Err(WriteError::Store(_))), "perhaps the store refuses everything");
        assert!(matches!(alone(&mut remote, "bad"), Err(WriteError::Store(_))), "nothing is new");
        assert!(alone(&mut remote, "good").is_ok());
        assert!(matches!(alone(&mut remote, "bad2"), Err(WriteError::Store(_))), "another one");
        for _ in 0..2 {
            assert!(matches!(alone(&mut remote, "bad"), Err(WriteError::Refused(_))));
        }
        // With others that are in the same position.
        assert!(alone(&mut remote, "good2").is_ok());
        let outcomes = remote.commit(&["bad2".to_owned(), "bad3".to_owned()], is_bad);
        assert!(
            matches!(outcomes[..], [Err(WriteError::Refused(_)), Err(WriteError::Store(_))]),
            "each for itself: {outcomes:?}"
        );
    }

    #[test]
    fn one_that_was_suspected_is_not_held_back_when_the_store_takes_everything_again() {
        let mut remote = Remote::default();
        let all = ids(20, |_| true);
        for id in &all {
            remote.commit(std::slice::from_ref(id), is_bad);
        }
        assert!(remote.commit(&["good".to_owned()], is_bad)[0].is_ok());
        assert_eq!(remote.culprits.count(Standing::Suspect), 20);
        assert!(remote.commit(&all, |_| false).iter().all(Result::is_ok));
        assert_eq!((remote.pushes, remote.culprits.count(Standing::Suspect)), (1, 0));
    }

    #[test]
    fn where_pushes_are_counted_one_refused_change_costs_few_of_them() {
        for (count, limit) in [(2, 3), (20, 12), (1000, 23)] {
            for bad in [0, 1, count / 2, count - 1] {
                let mut remote = Remote { limits: Limits::PACED, ..Remote::default() };
                let ids = ids(count, |at| at == bad);
                let mut pushes = 0;
                // If the one is the first to be tried alone, the store seems to refuse everything. Whose turn that is, tests that
                // run beside decide too.
                for _ in 0..20 {
                    let outcomes = remote.commit(&ids, is_bad);
                    pushes = pushes.max(remote.pushes);
                    assert!(!outcomes.iter().any(|outcome| matches!(outcome, Err(WriteError::Untried(_)))));
                }
                assert_eq!((remote.held.len(), remote.culprits.count(Standing::Guilty)), (count - 1, 1));
                assert!(pushes <= limit, "{pushes} pushes for {count}");
            }
        }
        let mut remote = Remote { limits: Limits::PACED, ..Remote::default() };
        remote.commit(&ids(1000, |_| true), is_bad);
        assert_eq!(remote.pushes, 2, "that it refuses everything is soon said");
    }

    #[test]
    fn many_refused_changes_are_found_out_in_rounds_and_hold_up_the_others_for_few() {
        let mut remote = Remote::default();
        let ids = ids(1000, |at| at % 10 == 1);
        let mut untried = 0;
        for _ in 0..30 {
            for (id, outcome) in ids.iter().zip(remote.commit(&ids, is_bad)) {
                match outcome {
                    Ok(_) => assert!(!is_bad(id)),
                    Err(WriteError::Refused(_)) => assert!(is_bad(id)),
                    Err(WriteError::Untried(_)) => untried += 1,
                    Err(other) => assert!(matches!(other, WriteError::Store(_)), "{other}"),
                }
            }
            let limits = Limits::FREE;
            assert!(remote.pushes <= 2 * (limits.refusals + limits.retrials), "{} pushes", remote.pushes);
            assert!(remote.culprits.count(Standing::Guilty) <= culprits::CULPRITS_MAX);
        }
        assert!(untried > 0, "the limit was met");
        assert_eq!(remote.held.len(), 900);
    }

    #[test]
    fn the_remembered_are_tried_in_turns_and_forgotten_when_they_are_accepted() {
        let ids = ids(20, |at| at > 0);
        let found = |remote: &Remote| remote.culprits.count(Standing::Guilty);
        for limits in [Limits::FREE, Limits::PACED] {
            let mut remote = Remote::default();
            while found(&remote) < 19 {
                remote.held.clear();
                remote.commit(&ids, is_bad);
            }
            remote.limits = limits;
            for round in 1..=3 {
                let outcomes = remote.commit(&ids, |_| false);
                assert_eq!(found(&remote), 19usize.saturating_sub(round * limits.retrials));
                let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
                assert_eq!(refused, found(&remote));
            }
        }
    }

    #[test]
    fn a_remembered_change_keeps_its_place_before_one_that_builds_on_it() {
        let edit = |id: &str, prefix: &str| Change {
            id: id.into(),
            kind: crate::change::Kind::Update,
            prefix: prefix.into(),
            operation: Operation::Edit { write: vec![File::new("f", id.to_owned())], remove: Vec::new() },
        };
        let changes = vec![edit("good", "x"), edit("bad", "a/b"), edit("other", "a"), edit("more", "y")];
        let mut culprits = Culprits::default();
        let checked = |changes: Vec<Change>| -> Vec<Checked> {
            changes.into_iter().map(|change| Checked::new(change).expect("good")).collect()
        };
        culprits.remember(&checked(changes.clone())[1], error("no"), Standing::Guilty);
        let order = |changes: Vec<Change>| {
            let mut search = Bisection::new(checked(changes).into(), &culprits, Limits::FREE);
            std::iter::from_fn(|| search.next()).collect::<Vec<_>>()
        };
        assert_eq!(order(changes.clone()), [vec![0], vec![1], vec![2, 3]]);
        let mut free = changes;
        free[2].prefix = "ab".into();
        assert_eq!(order(free.clone()), [vec![0, 2, 3], vec![1]]);
        free[1].operation = Operation::Edit { write: Vec::new(), remove: Vec::new() };
        assert_eq!(order(free), [vec![0, 1, 2, 3]], "another content is another question");
    }
}
