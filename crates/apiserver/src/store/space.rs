//! The tables, their logs, and how a change goes in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::packing::Packer;
use super::signal::Signal;
use super::{Compacted, ObjectName, Record, Write};

/// Changes kept for watches that resume; the oldest leave first and make `410 Gone`.
const LOG_CHANGES_MAX: usize = 8 * 1024;
/// Bytes of objects kept in the log; a few large objects must not hold the memory of thousands of small ones.
const LOG_BYTES_MAX: usize = 12 << 20;

/// What an object must be for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// Its newest change has this revision.
    Revision(u64),
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It did not exist before.
    Created,
    /// It has a new state.
    Updated,
    /// It is gone; the record shows its last state.
    Deleted,
}

/// One change of one object, as kept in the log.
#[derive(Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// State after the change (for a deletion the last state, at the revision of the deletion).
    pub record: Arc<Record>,
    /// State before the change.
    pub previous: Option<Arc<Record>>,
}

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The object was to be created and exists.
    #[error("{0} already exists")]
    Exists(ObjectName),
    /// The object was to be changed and does not exist.
    #[error("{0} does not exist")]
    Missing(ObjectName),
    /// The object has changed meanwhile.
    #[error("{name} is at revision {found}, not {expected}")]
    Conflict {
        /// Object.
        name: ObjectName,
        /// Revision that the writer had seen.
        expected: u64,
        /// Revision that it has.
        found: u64,
    },
    /// What the object was to live in is gone or on its way out.
    #[error("{0} is gone or being deleted")]
    Homeless(ObjectName),
    /// The file could not be written.
    #[error("cannot make the write durable: {0}")]
    Storage(Arc<str>),
    /// The store has been shut down.
    #[error("the store is closed")]
    Closed,
}

/// What a list or watch covers: a table, or one namespace of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Table.
    pub table: Arc<str>,
    /// Only this namespace.
    pub namespace: Option<Arc<str>>,
}

impl Scope {
    /// Returns the scope of a whole table.
    pub fn table(table: impl Into<Arc<str>>) -> Self {
        Self { table: table.into(), namespace: None }
    }

    /// Whether an object of the table lies in this scope.
    pub fn contains(&self, name: &ObjectName) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == name.namespace)
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// Objects, ordered by namespace and name.
    pub records: Vec<Arc<Record>>,
    /// Revision that the list shows.
    pub revision: u64,
    /// How many objects follow, when the limit cut the list.
    pub remaining: Option<usize>,
}

#[derive(Debug)]
struct Table {
    objects: BTreeMap<ObjectName, Arc<Record>>,
    log: VecDeque<Arc<Change>>,
    /// Revision of the newest change that left the log: what is older cannot be told any more.
    compacted: u64,
    changed: Arc<Signal>,
    packer: Packer,
}

impl Table {
    fn new(compacted: u64) -> Self {
        Self {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            compacted,
            changed: Arc::default(),
            packer: Packer::default(),
        }
    }
}

/// Everything the store knows, behind one lock.
#[derive(Debug)]
pub(super) struct Space {
    revision: u64,
    /// Revision at which this process began; it has no log of what came before.
    opened_at: u64,
    tables: HashMap<Arc<str>, Table>,
    /// Order of the changes over all tables, for compaction: the front is also the front of its table's log.
    order: VecDeque<(Arc<str>, usize)>,
    log_bytes: usize,
    /// Who is owned by whom, by the uid of the owner.
    dependents: HashMap<Box<str>, HashSet<(Arc<str>, ObjectName)>>,
}

/// Changes of one batch that are decided but not yet visible.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    revision: Option<u64>,
    objects: HashMap<(Arc<str>, ObjectName), Option<Arc<Record>>>,
}

/// A decided change.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) table: Arc<str>,
    pub(super) change: Change,
}

/// Watchers to wake once the lock is released.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Woken(Vec<Arc<Signal>>);

impl Woken {
    pub(super) fn wake(self) {
        self.0.iter().for_each(|signal| signal.announce());
    }
}

impl Space {
    pub(super) fn new(revision: u64) -> Self {
        Self {
            revision,
            opened_at: revision,
            tables: HashMap::new(),
            order: VecDeque::new(),
            log_bytes: 0,
            dependents: HashMap::new(),
        }
    }

    /// Puts a record read from the file in its place, without a log entry.
    pub(super) fn restore(&mut self, table: &str, record: Record) {
        let home = self.table_mut(table);
        let record = Arc::new(home.packer.pack(&record).unwrap_or(record));
        home.objects.insert(record.name().clone(), record.clone());
        let table = self.tables.get_key_value(table).expect("inserted above").0.clone();
        self.index(&table, None, Some(&record));
    }

    /// Keeps the index of owners in step with one change.
    fn index(&mut self, table: &Arc<str>, before: Option<&Record>, after: Option<&Record>) {
        if before.is_some_and(|record| after.is_some_and(|after| after.owners().eq(record.owners()))) {
            return;
        }
        if let Some(record) = before {
            for owner in record.owners() {
                if let Some(owned) = self.dependents.get_mut(owner) {
                    owned.remove(&(table.clone(), record.name().clone()));
                    if owned.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
            }
        }
        if let Some(record) = after {
            for owner in record.owners() {
                let owned = self.dependents.entry(owner.into()).or_default();
                owned.insert((table.clone(), record.name().clone()));
            }
        }
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<(Arc<str>, ObjectName)> {
        let mut owned: Vec<_> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        owned.sort_unstable();
        owned
    }

    pub(super) fn table_revision(&self, table: &str) -> u64 {
        let newest = |table: &Table| table.log.back().map_or(table.compacted, |change| change.record.revision());
        self.tables.get(table).map_or(self.opened_at, newest)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, table: &str, name: &ObjectName) -> Option<&Arc<Record>> {
        self.tables.get(table)?.objects.get(name)
    }

    /// Returns the tables that hold something, in the order of their names.
    pub(super) fn tables(&self) -> Vec<Arc<str>> {
        let filled = self.tables.iter().filter(|(_, table)| !table.objects.is_empty());
        let mut names: Vec<_> = filled.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn subscribe(&mut self, table: &str) -> Arc<Signal> {
        self.table_mut(table).changed.clone()
    }

    fn table_mut(&mut self, table: &str) -> &mut Table {
        if !self.tables.contains_key(table) {
            self.tables.insert(table.into(), Table::new(self.opened_at));
        }
        self.tables.get_mut(table).expect("inserted above")
    }

    /// Decides one write against the present and the batch so far.
    pub(super) fn stage(&self, overlay: &mut Overlay, write: Write) -> Result<Staged, WriteError> {
        let newest = |key: &(Arc<str>, ObjectName)| match overlay.objects.get(key) {
            Some(staged) => staged.clone(),
            None => self.get(&key.0, &key.1).cloned(),
        };
        for home in write.homes {
            if newest(&home).is_none_or(|record| record.is_deleting()) {
                return Err(WriteError::Homeless(home.1));
            }
        }
        let key = (write.table, write.name);
        let current = newest(&key);
        match (write.expect, &current) {
            (Expect::Absent, Some(_)) => return Err(WriteError::Exists(key.1)),
            (Expect::Revision(_), None) => return Err(WriteError::Missing(key.1)),
            (Expect::Revision(expected), Some(record)) if record.revision() != expected => {
                return Err(WriteError::Conflict { name: key.1, expected, found: record.revision() });
            }
            _ => {}
        }
        let revision = overlay.revision.unwrap_or(self.revision) + 1;
        let change = match (write.draft, current) {
            (Some(draft), previous) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let record = Arc::new(draft.into_record(key.1.clone(), revision, now));
                let kind = if previous.is_some() { ChangeKind::Updated } else { ChangeKind::Created };
                Change { kind, record, previous }
            }
            (None, Some(previous)) => Change {
                kind: ChangeKind::Deleted,
                record: Arc::new(previous.at_revision(revision)),
                previous: Some(previous),
            },
            (None, None) => return Err(WriteError::Missing(key.1)),
        };
        overlay.revision = Some(revision);
        let table = key.0.clone();
        overlay.objects.insert(key, (change.kind != ChangeKind::Deleted).then(|| change.record.clone()));
        Ok(Staged { table, change })
    }

    /// Makes decided changes visible, in order.
    pub(super) fn publish(&mut self, staged: Vec<Staged>) -> Woken {
        let mut woken = Woken::default();
        for Staged { table: table_name, change } in staged {
            let revision = change.record.revision();
            self.revision = revision;
            let after = (change.kind != ChangeKind::Deleted).then_some(&*change.record);
            self.index(&table_name, change.previous.as_deref(), after);
            let table = self.table_mut(&table_name);
            match change.kind {
                ChangeKind::Deleted => table.objects.remove(change.record.name()),
                _ => table.objects.insert(change.record.name().clone(), change.record.clone()),
            };
            let bytes = change.record.size();
            table.log.push_back(Arc::new(change));
            woken.0.push(table.changed.clone());
            self.order.push_back((table_name, bytes));
            self.log_bytes += bytes;
        }
        self.compact();
        woken
    }

    fn compact(&mut self) {
        while self.order.len() > LOG_CHANGES_MAX || (self.log_bytes > LOG_BYTES_MAX && self.order.len() > 1) {
            let Some((name, bytes)) = self.order.pop_front() else {
                return;
            };
            self.log_bytes -= bytes;
            let table = self.tables.get_mut(&name).expect("a logged change has a table");
            let oldest = table.log.pop_front().expect("both logs have the same order");
            table.compacted = oldest.record.revision();
            table.rest(&oldest.record);
        }
    }

    fn floor(&self, table: &str) -> u64 {
        self.tables.get(table).map_or(self.opened_at, |table| table.compacted)
    }

    pub(super) fn check(&self, table: &str, wanted: u64) -> Result<(), Compacted> {
        let oldest = self.floor(table);
        if wanted < oldest { Err(Compacted { wanted, oldest }) } else { Ok(()) }
    }

    /// Returns the changes of a scope after revision `after`.
    pub(super) fn changes_after(&self, scope: &Scope, after: u64) -> Result<Vec<Arc<Change>>, Compacted> {
        self.check(&scope.table, after)?;
        let Some(table) = self.tables.get(&scope.table) else {
            return Ok(Vec::new());
        };
        let start = table.log.partition_point(|change| change.record.revision() <= after);
        let newer = table.log.range(start..);
        Ok(newer.filter(|change| scope.contains(change.record.name())).cloned().collect())
    }

    pub(super) fn count(&self, scope: &Scope) -> usize {
        let Some(table) = self.tables.get(&scope.table) else {
            return 0;
        };
        match &scope.namespace {
            None => table.objects.len(),
            Some(_) => range(&table.objects, scope, None).count(),
        }
    }

    pub(super) fn list(
        &self,
        scope: &Scope,
        at: Option<u64>,
        after: Option<&ObjectName>,
        limit: Option<usize>,
        mut keep: impl FnMut(&Record) -> bool,
    ) -> Result<Page, Compacted> {
        let revision = at.unwrap_or(self.revision);
        let Some(table) = self.tables.get(&scope.table) else {
            self.check(&scope.table, revision)?;
            return Ok(Page { records: Vec::new(), revision, remaining: None });
        };
        let mut page = Page { records: Vec::new(), revision, remaining: None };
        let limit = limit.unwrap_or(usize::MAX);
        let mut take = |record: &Arc<Record>| {
            if !keep(record) {
                return;
            }
            if page.records.len() < limit {
                page.records.push(record.clone());
            } else {
                page.remaining = Some(page.remaining.unwrap_or(0) + 1);
            }
        };
        if revision >= table.log.back().map_or(table.compacted, |change| change.record.revision()) {
            range(&table.objects, scope, after).for_each(|(_, record)| take(record));
        } else {
            self.check(&scope.table, revision)?;
            table.rolled_back(scope, after, revision).values().for_each(&mut take);
        }
        Ok(page)
    }
}

impl Table {
    /// Packs an object that nobody has changed since its change was logged.
    fn rest(&mut self, record: &Record) {
        if let Some(newest) = self.objects.get_mut(record.name())
            && newest.revision() == record.revision()
            && let Some(packed) = self.packer.pack(newest)
        {
            *newest = Arc::new(packed);
        }
    }

    /// Returns the objects as they were at `revision`: the present with newer changes undone.
    fn rolled_back(
        &self,
        scope: &Scope,
        after: Option<&ObjectName>,
        revision: u64,
    ) -> BTreeMap<ObjectName, Arc<Record>> {
        let mut past: BTreeMap<_, _> =
            range(&self.objects, scope, after).map(|(name, record)| (name.clone(), record.clone())).collect();
        for change in self.log.iter().rev().take_while(|change| change.record.revision() > revision) {
            let name = change.record.name();
            if !scope.contains(name) || after.is_some_and(|after| name <= after || !scope.contains(after)) {
                continue;
            }
            match &change.previous {
                Some(previous) => past.insert(name.clone(), previous.clone()),
                None => past.remove(name),
            };
        }
        past
    }
}

fn range<'a>(
    objects: &'a BTreeMap<ObjectName, Arc<Record>>,
    scope: &'a Scope,
    after: Option<&ObjectName>,
) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<Record>)> {
    // No name comes between a namespace and itself with a NUL: names are compared on the way to the range, not in it.
    let end = scope.namespace.as_ref().map(|namespace| ObjectName::new(format!("{namespace}\0"), ""));
    let start = match (after, &scope.namespace) {
        (Some(after), _) if scope.contains(after) => Bound::Excluded(after.clone()),
        (None, Some(namespace)) => Bound::Included(ObjectName::new(namespace.clone(), "")),
        (None, None) => Bound::Unbounded,
        // Whoever goes on with a page of another namespace gets an empty one.
        (Some(_), _) => end.clone().map_or(Bound::Unbounded, Bound::Included),
    };
    objects.range((start, end.map_or(Bound::Unbounded, Bound::Excluded)))
}
