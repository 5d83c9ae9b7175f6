//! Which changes of a batch a remote refuses. It refuses a push as a whole, and says for what in words of its own, so this can
//! only be found out by pushing less.
//!
//! The first question is whether the remote takes anything at all: until something was accepted, single changes are tried, few
//! of them, and if all are refused it is the store that refuses. Afterwards what is refused is halved until it stands alone.
//! Changes that were found out before are tried alone and last.
//!
//! **Invariant:** changes whose order can matter keep it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::change::Written;
use crate::checked::Checked;
use crate::error::{Error, WriteError};

/// How many refused pushes it takes to say that a store refuses everything: the batch, and three changes by themselves, each
/// with what is left after it.
const FROZEN: usize = 6;
/// How many refused pushes one batch may cost: finding one change among a full queue takes ten. At the limit, what has not
/// been tried by itself is told so; its callers try again later.
const REFUSALS_MAX: usize = 32;
/// How many refused changes are remembered. Those forgotten are looked for once more.
const CULPRITS_MAX: usize = 256;
/// How many remembered changes one batch tries again. The others are told what they were told before, and are next.
const RETRIALS_MAX: usize = 8;

/// Counts the single changes tried, also of stores that are opened again.
static PROBES: AtomicU32 = AtomicU32::new(0);

/// Changes that were refused while others were accepted, the one that was tried longest ago first.
#[derive(Default)]
pub(super) struct Culprits(VecDeque<Culprit>);

struct Culprit {
    id: String,
    fingerprint: u64,
    error: Error,
}

impl Culprits {
    fn position(&self, change: &Checked) -> Option<usize> {
        // Content is looked at only for those who were refused something before.
        let mut fingerprint = None;
        self.0.iter().position(|culprit| {
            culprit.id == change.id() && culprit.fingerprint == *fingerprint.get_or_insert_with(|| change.fingerprint())
        })
    }

    fn forget(&mut self, change: &Checked) {
        if let Some(at) = self.position(change) {
            self.0.remove(at);
        }
    }

    fn remember(&mut self, change: &Checked, error: Error) {
        self.forget(change);
        if self.0.len() >= CULPRITS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Culprit { id: change.id().to_owned(), fingerprint: change.fingerprint(), error });
    }
}

/// What became of a change.
enum Verdict {
    Open,
    Known(Result<Written, WriteError>),
    /// Refused when it was tried alone.
    Alone(Error),
    /// Refused when it was tried with others.
    Together(Error),
}

/// The search through one batch. Pieces are positions in it.
pub(super) struct Bisection<'c> {
    changes: &'c [Checked],
    verdicts: Vec<Verdict>,
    /// What those that were found out before were told.
    known: HashMap<usize, Error>,
    /// What is still to be tried, the next piece last.
    pieces: Vec<Vec<usize>>,
    refusals: usize,
    /// The remote has accepted something of this batch.
    accepted: bool,
}

impl<'c> Bisection<'c> {
    pub(super) fn new(changes: &'c [Checked], culprits: &Culprits) -> Self {
        let mut verdicts: Vec<Verdict> = changes.iter().map(|_| Verdict::Open).collect();
        let (mut pieces, mut run, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for (at, change) in changes.iter().enumerate() {
            let Some(age) = culprits.position(change) else {
                run.push(at);
                continue;
            };
            known.insert(at, culprits.0[age].error.clone());
            if changes[at + 1..].iter().any(|later| later.interferes(change)) {
                pieces.push(std::mem::take(&mut run));
                pieces.push(vec![at]);
            } else {
                last.push((age, at));
            }
        }
        pieces.push(run);
        last.sort_unstable();
        pieces.extend(last.iter().take(RETRIALS_MAX).map(|(_, at)| vec![*at]));
        for (_, at) in last.iter().skip(RETRIALS_MAX) {
            verdicts[*at] = Verdict::Known(Err(WriteError::Refused(known[at].clone())));
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces.reverse();
        Self { changes, verdicts, known, pieces, refusals: 0, accepted: false }
    }

    /// Returns what is to be tried next.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        self.pieces.pop()
    }

    /// Notes that a piece was published as far as its outcomes say, or that nothing was to be published.
    pub(super) fn accept(&mut self, piece: &[usize], outcomes: Vec<Result<Written, WriteError>>) {
        self.accepted |= outcomes.iter().flatten().any(|written| written.changed);
        for (at, outcome) in piece.iter().zip(outcomes) {
            self.verdicts[*at] = Verdict::Known(outcome);
        }
    }

    /// Notes that the remote refused a piece, of which these changes altered something.
    pub(super) fn refuse(&mut self, piece: Vec<usize>, alters: &[bool], error: Error) {
        if let [at] = *piece
            && self.known.contains_key(&at)
        {
            // That is no news, and says nothing about the store.
            self.verdicts[at] = Verdict::Alone(error);
            return;
        }
        self.refusals += 1;
        let is_frozen = !self.accepted && self.refusals >= FROZEN;
        if let [at] = *piece {
            self.verdicts[at] = Verdict::Alone(error.clone());
        } else if is_frozen || self.refusals >= REFUSALS_MAX {
            self.refuse_together(&piece, &error);
        } else if let Some(probe) = self.probe(&piece, alters) {
            let at = piece[probe];
            self.pieces.extend([piece.into_iter().filter(|other| *other != at).collect(), vec![at]]);
        } else {
            let (first, second) = piece.split_at(piece.len() / 2);
            self.pieces.extend([second.to_vec(), first.to_vec()]);
        }
        if is_frozen {
            while let Some(piece) = self.pieces.pop() {
                self.refuse_together(&piece, &error);
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

    /// Returns what each change is told. Nobody is told that his change is refused unless another one was accepted.
    pub(super) fn finish(self, culprits: &mut Culprits) -> Vec<Result<Written, WriteError>> {
        let mut outcomes = Vec::with_capacity(self.verdicts.len());
        for (at, verdict) in self.verdicts.into_iter().enumerate() {
            let change = &self.changes[at];
            let is_known = self.known.contains_key(&at);
            outcomes.push(match verdict {
                Verdict::Known(outcome) => {
                    if is_known && outcome.is_ok() {
                        culprits.forget(change);
                    }
                    outcome
                }
                Verdict::Alone(error) if self.accepted || is_known => {
                    culprits.remember(change, error.clone());
                    Err(WriteError::Refused(error))
                }
                Verdict::Together(error) if self.accepted => Err(WriteError::Untried(error)),
                Verdict::Alone(error) | Verdict::Together(error) => Err(WriteError::Store(error)),
                Verdict::Open => unreachable!("every piece was tried, or the search was abandoned"),
            });
        }
        outcomes
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
    #[derive(Default)]
    struct Remote {
        culprits: Culprits,
        held: HashSet<String>,
        pushes: usize,
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
            let mut search = Bisection::new(&changes, &self.culprits);
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
            }
            search.finish(&mut self.culprits)
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
            assert!(remote.pushes <= FROZEN, "{}", remote.pushes);
            assert!(remote.culprits.0.is_empty());
        }
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
            assert!(remote.pushes <= 2 * (REFUSALS_MAX + RETRIALS_MAX), "{} pushes", remote.pushes);
            assert!(remote.culprits.0.len() <= CULPRITS_MAX);
        }
        assert!(untried > 0, "the limit was met");
        assert_eq!(remote.held.len(), 900);
    }

    #[test]
    fn the_remembered_are_tried_in_turns_and_forgotten_when_they_are_accepted() {
        let mut remote = Remote::default();
        let ids = ids(20, |at| at > 0);
        let found = |remote: &Remote| remote.culprits.0.len();
        while found(&remote) < 19 {
            remote.held.clear();
            remote.commit(&ids, is_bad);
        }
        for round in 1..=3 {
            let outcomes = remote.commit(&ids, |_| false);
            assert_eq!(found(&remote), 19usize.saturating_sub(round * RETRIALS_MAX));
            let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            assert_eq!(refused, found(&remote));
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
        culprits.remember(&checked(changes.clone())[1], error("no"));
        let order = |changes: Vec<Change>| {
            let changes = checked(changes);
            let mut search = Bisection::new(&changes, &culprits);
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
