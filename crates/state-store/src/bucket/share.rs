//! Directories that several owners share.
//!
//! An owner writes down what it is about to write, then writes, then removes what it does not want any more, then writes down what
//! is left: what exists is in a ledger at every moment.
//!
//! Two writers of one ledger, as two installations that write to one place are, do not lose each other's files: ledgers are replaced
//! only as they were read, whoever removes files has replaced the ledger before, and whoever writes files looks afterwards whether
//! the ledger still lists them. One moment is left: a ledger as a whole is removed right after a look at it, because removals have
//! no conditions.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use futures::future::join_all;
use kratix_store_path::Path;

use super::batch::{Batch, Done, targets, versions};
use super::imprint::Mark;
use super::objects::{Failure, Key, Meta, When, key};
use crate::checked::Files;
use crate::error::WriteError;
use crate::ledger::{self, Index, List, Owners};

/// How often a change is planned anew because its ledger is not as it was read.
const ATTEMPTS_MAX: usize = 8;

/// A change of a shared directory; paths are relative to the bucket.
pub(super) struct Share<'c> {
    /// Which change of the batch.
    pub(super) index: usize,
    pub(super) prefix: Path,
    pub(super) ledger: Path,
    pub(super) files: Option<&'c Files>,
}

type Outcomes = Vec<(usize, Result<Done, WriteError>)>;

/// Applies changes of which no two have one ledger, as if one after the other.
pub(super) async fn apply(batch: &Batch<'_>, ledgers: &mut Index<String>, mut shares: Vec<Share<'_>>) -> Outcomes {
    let mut outcomes = Vec::with_capacity(shares.len());
    for attempt in 1..=ATTEMPTS_MAX {
        if shares.is_empty() {
            break;
        }
        let mut again = Vec::new();
        for (share, outcome) in shares.iter().zip(once(batch, ledgers, &shares).await) {
            match outcome {
                Err(Fault::Moved(_)) if attempt < ATTEMPTS_MAX => again.push(share.index),
                Err(Fault::Moved(key)) => outcomes.push((share.index, Err(batch.failed(&key, Failure::Moved)))),
                Err(Fault::Change(error)) => outcomes.push((share.index, Err(error))),
                Ok(done) => outcomes.push((share.index, Ok(done))),
            }
        }
        shares.retain(|share| again.contains(&share.index));
    }
    outcomes
}

#[derive(Clone)]
enum Fault {
    /// A ledger is not as it was read.
    Moved(Key),
    Change(WriteError),
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        Self::Change(error)
    }
}

async fn once(batch: &Batch<'_>, ledgers: &mut Index<String>, shares: &[Share<'_>]) -> Vec<Result<Done, Fault>> {
    // What others own.
    let mut refreshed: HashMap<Path, Result<(), WriteError>> = HashMap::new();
    for share in shares {
        let place = share.place(batch.root);
        let directory = place.directory().0;
        if let Entry::Vacant(entry) = refreshed.entry(directory) {
            entry.insert(refresh(batch, ledgers, &place).await);
        }
    }
    // What each owner has.
    let found = join_all(shares.iter().map(async |share| {
        let place = share.place(batch.root);
        if let Some(Err(error)) = refreshed.get(&place.directory().0) {
            return Err(error.clone());
        }
        look(batch, share, &place).await
    }));
    let mut found = found.await;
    for (share, present) in shares.iter().zip(&mut found) {
        if let Ok(Present { ledger: Some((list, _)), there, .. }) = present {
            list.settle(there, &ledgers.known(&share.place(batch.root)));
        }
    }
    let mut plans = plan_all(batch, ledgers, shares, &found);
    let handed_over = hand_over(&mut plans);
    let mut results: BTreeMap<usize, Result<(Done, Option<Meta>), Fault>> = BTreeMap::new();
    for stage in stages(&plans, &handed_over) {
        let is_let_down = |index: usize| {
            handed_over.iter().any(|(from, to)| *from == index && matches!(results.get(to), Some(Err(_))))
        };
        let stage = stage.into_iter().filter_map(|index| Some((index, plans[index].as_ref().ok()?)));
        let (let_down, ready): (Vec<_>, Vec<_>) = stage.partition(|(index, _)| is_let_down(*index));
        let done = carry_out(batch, shares, &ready).await;
        results.extend(done);
        // Who was to take over a path has failed, so what becomes of it has to be found out anew.
        results.extend(let_down.into_iter().map(|(index, plan)| (index, Err(Fault::Moved(plan.ledger.clone())))));
    }
    let mut outcomes = Vec::with_capacity(shares.len());
    for (index, (share, plan)) in shares.iter().zip(&plans).enumerate() {
        let place = share.place(batch.root);
        outcomes.push(match (plan, results.remove(&index)) {
            (Ok(plan), Some(Ok((done, ledger)))) => {
                if let (Some(meta), Some(text)) = (ledger, &plan.last) {
                    ledgers.learn(&place, place.directory().1, meta.identity().to_owned(), text);
                }
                Ok(done)
            }
            (_, Some(Err(fault))) => {
                // Nobody knows how far it came.
                ledgers.forget(&place);
                Err(fault)
            }
            (Err(error), _) => Err(error.clone().into()),
            (Ok(_), None) => unreachable!("every plan is in a stage"),
        });
    }
    outcomes
}

/// Carries out the plans of one stage. A ledger from which several of them take paths loses all of these at once: each on its own,
/// they would be in each other's way.
async fn carry_out(
    batch: &Batch<'_>,
    shares: &[Share<'_>],
    stage: &[(usize, &Plan<'_>)],
) -> Vec<(usize, Result<(Done, Option<Meta>), Fault>)> {
    let announced = join_all(stage.iter().map(|(_, plan)| plan.announce(batch))).await;
    let mut lost: HashMap<&Path, (&Share<'_>, HashSet<&Path>)> = HashMap::new();
    for ((index, plan), _) in stage.iter().zip(&announced).filter(|(_, announced)| announced.is_ok()) {
        for (ledger, taken) in &plan.disowned {
            lost.entry(ledger).or_insert_with(|| (&shares[*index], HashSet::new())).1.extend(taken);
        }
    }
    let disowned = join_all(lost.iter().map(async |(ledger, (share, taken))| {
        let fault = disown(batch, &share.place(batch.root), ledger, taken).await.err()?;
        Some((*ledger, fault))
    }));
    let still_there: HashMap<&Path, Fault> = disowned.await.into_iter().flatten().collect();
    join_all(stage.iter().zip(announced).map(async |((index, plan), announced)| {
        let fault = plan.disowned.iter().find_map(|(ledger, _)| still_there.get(ledger));
        let done = match (announced, fault) {
            (Err(fault), _) => Err(fault),
            (Ok(_), Some(fault)) => Err(fault.clone()),
            (Ok(announced), None) => plan.carry_out(batch, announced).await,
        };
        (*index, done)
    }))
    .await
}

/// Makes a plan for each owner; each sees those before it as carried out. One who was refused a path of another owner looks again
/// for as long as that helps: a path that its owner gives up at the same time is free, whoever was queued first.
fn plan_all<'c>(
    batch: &Batch<'_>,
    ledgers: &mut Index<String>,
    shares: &[Share<'c>],
    found: &[Result<Present, WriteError>],
) -> Vec<Result<Plan<'c>, WriteError>> {
    let mut plans = BTreeMap::new();
    let mut unplanned: Vec<usize> = (0..shares.len()).collect();
    loop {
        let before = unplanned.len();
        for index in &unplanned {
            let share = &shares[*index];
            let place = share.place(batch.root);
            let present = found[*index].as_ref().map_err(Clone::clone);
            let plan = present.and_then(|present| plan(&place, share, present, &ledgers.known(&place)));
            if let Ok(plan) = &plan {
                plan.foresee(ledgers, &place);
            }
            plans.insert(*index, plan);
        }
        unplanned.retain(|index| plans[index].as_ref().is_err_and(WriteError::is_of_owner));
        if unplanned.is_empty() || unplanned.len() == before {
            return plans.into_values().collect();
        }
    }
}

/// Leaves what one gives up and another one writes to the latter: it is there at every moment. Returns who comes after whom, so
/// that it is in a ledger at every moment too.
fn hand_over(plans: &mut [Result<Plan<'_>, WriteError>]) -> Vec<(usize, usize)> {
    let of = |key: &Key, index: usize| (key.clone(), index);
    let given_up: HashSet<Key> = plans.iter().flatten().flat_map(|plan| &plan.gone).cloned().collect();
    let taken: HashSet<Key> =
        plans.iter().flatten().flat_map(|plan| &plan.disowned).map(|(path, _)| key(path)).collect();
    if given_up.is_empty() && taken.is_empty() {
        return Vec::new();
    }
    let (mut writers, mut losers) = (HashMap::new(), HashMap::new());
    for (index, plan) in plans.iter().enumerate() {
        let Ok(plan) = plan else { continue };
        writers.extend(plan.files.iter().filter(|(key, _)| given_up.contains(key)).map(|(key, _)| of(key, index)));
        losers.extend(taken.get(&plan.ledger).map(|ledger| of(ledger, index)));
    }
    let mut after = Vec::new();
    for (index, plan) in plans.iter_mut().enumerate() {
        let Ok(plan) = plan else { continue };
        plan.gone.retain(|key| match writers.get(key) {
            Some(writer) if *writer != index => {
                after.push((index, *writer));
                false
            }
            _ => true,
        });
        let losers = plan.disowned.iter().filter_map(|(path, _)| losers.get(&key(path)));
        after.extend(losers.map(|loser| (*loser, index)));
    }
    after
}

/// Sorts plans into stages that are carried out one after the other: who comes `after` another one, and, in their order, plans for
/// one object.
fn stages(plans: &[Result<Plan<'_>, WriteError>], after: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut edges = after.to_vec();
    let mut touched: HashMap<&Key, usize> = HashMap::new();
    for (index, plan) in plans.iter().enumerate() {
        let Ok(plan) = plan else { continue };
        edges.extend(plan.keys().filter_map(|key| Some((index, touched.insert(key, index)?))));
    }
    let mut levels = vec![0; plans.len()];
    // Two of whom each has to wait for the other go in some order.
    for _ in plans {
        let mut is_news = false;
        for (later, earlier) in &edges {
            if later != earlier && levels[*later] <= levels[*earlier] {
                levels[*later] = levels[*earlier] + 1;
                is_news = true;
            }
        }
        if !is_news {
            break;
        }
    }
    let mut stages: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, _) in plans.iter().enumerate().filter(|(_, plan)| plan.is_ok()) {
        stages.entry(levels[index]).or_default().push(index);
    }
    stages.into_values().collect()
}

/// Brings what is known of the ledgers beside this one up to date.
async fn refresh(batch: &Batch<'_>, ledgers: &mut Index<String>, place: &ledger::Place<'_>) -> Result<(), WriteError> {
    let (path, _) = place.directory();
    let directory = key(&path);
    let failed = |failure| batch.failed(&directory, failure);
    let listed = batch.objects.list(&directory, usize::MAX).await.map_err(failed)?.unwrap_or_default();
    let present: Vec<(String, String)> = listed
        .iter()
        .filter(|(key, _)| key.as_ref().rsplit_once('/').map_or("", |(parent, _)| parent) == directory.as_ref())
        .filter_map(|(key, meta)| Some((key.filename()?.to_owned(), meta.identity().to_owned())))
        // Without a directory of their own, ledgers lie among all kinds of files.
        .filter(|(name, _)| {
            place.beside(name).is_some_and(|beside| place.is_ledger(&beside.path) || beside.path == place.path)
        })
        .collect();
    let stale = ledgers.stale(place, &present);
    let read = stale.into_iter().filter_map(|name| Some((name, key(&place.beside(name)?.path))));
    let read = join_all(read.map(async |(name, key)| (name, batch.objects.get(&key).await))).await;
    for (name, found) in read {
        match found.map_err(failed)? {
            Some((content, meta)) => ledgers.learn(place, name, meta.identity().to_owned(), &content),
            None => ledgers.unlearn(place, name),
        }
    }
    Ok(())
}

/// What an owner has.
struct Present {
    ledger: Option<(List, Meta)>,
    /// Of the wanted files that the ledger lists: what is there, and whether it is as wanted.
    files: HashMap<Key, (Meta, bool)>,
    /// What is there of that of which the ledger leaves in doubt whether it is listed.
    there: HashSet<Path>,
}

async fn look(batch: &Batch<'_>, share: &Share<'_>, place: &ledger::Place<'_>) -> Result<Present, WriteError> {
    let own = key(&place.path);
    let found = batch.objects.get(&own).await.map_err(|failure| batch.failed(&own, failure))?;
    let ledger = match found {
        Some((content, meta)) => Some((understand(&content, place)?, meta)),
        None => None,
    };
    let doubtful = ledger.iter().flat_map(|(list, _)| list.doubtful());
    let there = join_all(doubtful.map(async |path| {
        let found = batch.objects.head(&key(path)).await?;
        Ok(found.map(|_| path.clone()))
    }));
    let listed: HashSet<Key> = ledger.iter().flat_map(|(list, _)| list.paths()).map(key).collect();
    let wanted = share.files.map(|files| targets(&share.prefix, files)).unwrap_or_default();
    let files = join_all(wanted.into_iter().filter(|(key, _)| listed.contains(key)).map(async |(key, content)| {
        let meta = batch.objects.head(&key).await?;
        let Some(meta) = meta else { return Ok(None) };
        let holds = batch.objects.holds(&key, &meta, content).await?;
        Ok(Some((key, (meta, holds))))
    }));
    let (there, files) = futures::join!(there, files);
    let failed = |failure| batch.failed(&own, failure);
    let there = there.into_iter().collect::<Result<Vec<_>, Failure>>().map_err(failed)?;
    let files = files.into_iter().collect::<Result<Vec<_>, Failure>>().map_err(failed)?;
    let (there, files) = (there.into_iter().flatten().collect(), files.into_iter().flatten().collect());
    Ok(Present { ledger, files, there })
}

fn understand(content: &Bytes, place: &ledger::Place<'_>) -> Result<List, WriteError> {
    List::parse(content, place).map_err(|reason| WriteError::Ledger { path: place.path.to_string(), reason })
}

/// A plan whose ledger lists what it is about to write.
struct Announced {
    ledger: Option<Meta>,
    /// The ledger's version, if it was written.
    version: Option<Option<String>>,
}

/// What is done for an owner, in this order.
struct Plan<'c> {
    ledger: Key,
    /// The ledger as it was read.
    read: Option<Meta>,
    /// The ledger with everything that there is before the removals, in other words than it was read: whoever writes files at the
    /// same time, and has read it before, notices.
    first: Option<Bytes>,
    /// For ledgers of owners who are gone: the paths that they lose.
    disowned: Vec<(Path, HashSet<Path>)>,
    files: Vec<(Key, &'c Bytes)>,
    /// Of the files, those that are as wanted.
    kept: HashMap<Key, Meta>,
    gone: Vec<Key>,
    /// The ledger as it is to be in the end; `None` without one.
    last: Option<Bytes>,
    /// Whether the ledger is written, or removed, in the end.
    ends_with_ledger: bool,
}

fn plan<'c>(
    place: &ledger::Place<'_>,
    share: &Share<'c>,
    present: &Present,
    owners: &Owners<'_>,
) -> Result<Plan<'c>, WriteError> {
    let wanted: Vec<Path> = share.files.into_iter().flatten().map(|(path, _)| share.prefix.join(path)).collect();
    let old = present.ledger.as_ref().map(|(list, _)| list);
    let read = present.ledger.as_ref().map(|(_, meta)| meta.clone());
    let old_paths: HashSet<&Path> = old.iter().flat_map(|old| old.paths()).collect();
    let wanted_paths: HashSet<&Path> = wanted.iter().collect();

    let mut disowned: BTreeMap<&str, HashSet<Path>> = BTreeMap::new();
    for path in &wanted {
        if place.is_ledger(path) {
            let owner = "the ledgers of this directory".to_owned();
            return Err(WriteError::Owned { path: path.to_string(), owner });
        }
        if old_paths.contains(path) {
            let is_altered = present.files.get(&key(path)).is_none_or(|(_, holds)| !holds);
            // Other programs let several ledgers list one path. Without a difference there is nothing to settle.
            if is_altered {
                owners.keep(path).map_err(|taken| taken.refuse(path))?;
                // A former attempt may have come as far as to list it here.
                for ledger in owners.left(path) {
                    disowned.entry(ledger).or_default().insert(path.clone());
                }
            }
        } else {
            for ledger in owners.claim(path).map_err(|taken| taken.refuse(path))? {
                disowned.entry(ledger).or_default().insert(path.clone());
            }
        }
    }
    let is_gone = |path: &&Path| !wanted_paths.contains(*path) && !owners.has_other(path) && !place.is_ledger(path);
    let mut gone: Vec<Key> = old_paths.iter().copied().filter(is_gone).map(key).collect();
    gone.sort();

    let listed: Vec<&str> = wanted.iter().filter_map(|path| path.below(place.root)).collect();
    let entries: Vec<&str> = old.iter().flat_map(|old| &old.entries).map(String::as_str).collect();
    let is_same = old.is_some() && entries == listed;
    let last = share.files.map(|_| Bytes::from(ledger::render(&listed)));
    let first = (!gone.is_empty()).then(|| {
        let left = old.map(|old| old.without(&wanted_paths)).unwrap_or_default();
        let mut all = [listed.as_slice(), &left].concat();
        if all == entries {
            all.extend(left.first());
        }
        Bytes::from(ledger::render(&all))
    });
    let ends_with_ledger = if share.files.is_some() { !is_same } else { old.is_some() };
    let disowned =
        disowned.into_iter().filter_map(|(ledger, paths)| Some((place.beside(ledger)?.path, paths))).collect();
    let files = share.files.map(|files| targets(&share.prefix, files)).unwrap_or_default();
    let kept = present.files.iter().filter(|(_, (_, holds))| *holds);
    let kept = kept.map(|(key, (meta, _))| (key.clone(), meta.clone())).collect();
    Ok(Plan { ledger: key(&place.path), read, first, disowned, files, kept, gone, last, ends_with_ledger })
}

impl Plan<'_> {
    /// Returns the keys of all objects that are written or removed.
    fn keys(&self) -> impl Iterator<Item = &Key> {
        let written = self.files.iter().map(|(key, _)| key).filter(|key| !self.kept.contains_key(*key));
        written.chain(&self.gone).chain([&self.ledger])
    }

    /// Has those who plan later see this plan as carried out.
    fn foresee(&self, ledgers: &mut Index<String>, place: &ledger::Place<'_>) {
        let name = place.directory().1;
        match &self.last {
            // No service gives an object this identity, so that it is read again unless the real one is learnt.
            Some(text) if self.ends_with_ledger => ledgers.learn(place, name, String::new(), text),
            Some(_) => {}
            None => ledgers.unlearn(place, name),
        }
    }

    /// Has the ledger list what is written, before that is written and before others lose it.
    async fn announce(&self, batch: &Batch<'_>) -> Result<Announced, Fault> {
        let early = self.first.as_ref().or(self.last.as_ref().filter(|_| self.ends_with_ledger));
        let Some(text) = early else { return Ok(Announced { ledger: self.read.clone(), version: None }) };
        let meta = self.put_ledger(batch, text, self.read.as_ref()).await?;
        Ok(Announced { version: Some(meta.version.clone()), ledger: Some(meta) })
    }

    /// Does the rest, once the ledgers of others have lost what is taken from them.
    async fn carry_out(&self, batch: &Batch<'_>, announced: Announced) -> Result<(Done, Option<Meta>), Fault> {
        let Announced { mut ledger, mut version } = announced;
        let cleared = batch.clear(self.gone.iter(), self.files.iter().map(|(key, _)| key)).await?;
        let left = join_all(self.files.iter().map(async |(key, content)| match self.kept.get(key) {
            Some(meta) => Ok(super::batch::Left { meta: meta.clone(), is_written: false }),
            None => batch.fill(key, None, content).await,
        }));
        let left = left.await.into_iter().zip(&self.files);
        let left = left
            .map(|(left, (key, _))| left.map_err(|failure| batch.failed(key, failure)))
            .collect::<Result<Vec<_>, WriteError>>()?;
        // Another writer of the same ledger may have taken it over, and have looked for these files before they were there.
        if left.iter().any(|left| left.is_written) {
            self.still_has(batch, ledger.as_ref()).await?;
        }
        let rest: Vec<Key> = self.gone.iter().filter(|key| !cleared.contains(*key)).cloned().collect();
        batch.remove(&rest).await?;
        let mut removed = !self.gone.is_empty();
        match &self.last {
            Some(text) if self.first.is_some() => {
                let meta = self.put_ledger(batch, text, ledger.as_ref()).await?;
                version = Some(meta.version.clone());
                ledger = Some(meta);
            }
            Some(_) => {}
            None if self.ends_with_ledger => {
                self.still_has(batch, ledger.as_ref()).await?;
                batch.remove(std::slice::from_ref(&self.ledger)).await?;
                (removed, ledger, version) = (true, None, None);
            }
            None => {}
        }
        let marks = self.files.iter().zip(&left).map(|((key, _), left)| Mark::object(key, Some(&left.meta)));
        let marks = marks.chain([Mark::object(&self.ledger, ledger.as_ref())]).collect();
        let versions = version.into_iter().chain(versions(&left)).collect();
        Ok((Done { versions, removed, marks }, ledger))
    }

    /// Makes sure that the ledger is as it was written: whoever replaces it from now on finds what it lists.
    async fn still_has(&self, batch: &Batch<'_>, written: Option<&Meta>) -> Result<(), Fault> {
        let found = batch.objects.head(&self.ledger).await.map_err(|failure| batch.failed(&self.ledger, failure))?;
        match (found, written) {
            (Some(found), Some(written)) if found.identity() == written.identity() => Ok(()),
            _ => Err(Fault::Moved(self.ledger.clone())),
        }
    }

    async fn put_ledger(&self, batch: &Batch<'_>, text: &Bytes, read: Option<&Meta>) -> Result<Meta, Fault> {
        replace_ledger(batch, &self.ledger, text, read).await
    }
}

async fn replace_ledger(batch: &Batch<'_>, key: &Key, text: &Bytes, read: Option<&Meta>) -> Result<Meta, Fault> {
    let when = read.map_or(When::Absent, When::Still);
    match batch.objects.put(key, text, when).await {
        Ok(meta) => Ok(meta),
        Err(Failure::Moved) => Err(Fault::Moved(key.clone())),
        Err(failure) => Err(batch.failed(key, failure).into()),
    }
}

/// Takes paths out of the ledger of an owner who is gone, and the ledger away with its last entry.
async fn disown(
    batch: &Batch<'_>,
    place: &ledger::Place<'_>,
    path: &Path,
    taken: &HashSet<&Path>,
) -> Result<(), Fault> {
    let key = key(path);
    let left = ledger::Place { root: place.root, prefix: place.prefix, path: path.clone() };
    let found = batch.objects.get(&key).await.map_err(|failure| batch.failed(&key, failure))?;
    let Some((content, meta)) = found else { return Ok(()) };
    let list = understand(&content, &left)?;
    match list.without(taken).as_slice() {
        [] => Ok(batch.remove(std::slice::from_ref(&key)).await?),
        kept => replace_ledger(batch, &key, &Bytes::from(ledger::render(kept)), Some(&meta)).await.map(drop),
    }
}

impl Share<'_> {
    fn place<'p>(&'p self, root: &'p Path) -> ledger::Place<'p> {
        ledger::Place { root, prefix: &self.prefix, path: self.ledger.clone() }
    }
}
