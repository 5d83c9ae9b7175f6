//! Counts writes, so that benchmarks and tests can say exactly what a client did.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Kinds of writes kept apart; more are counted under `other`, so that made-up user names cannot fill memory.
const KINDS_MAX: usize = 4096;

/// One kind of write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteKind {
    /// User name.
    pub user: String,
    /// `create`, `update`, `patch`, `apply`, `delete` or `deletecollection`.
    pub verb: String,
    /// Plural name with group and subresource: `pods`, `jobs.batch`, `jobs.batch/status`.
    pub resource: String,
}

/// Write requests that succeeded, by user, verb and resource; dry runs are not counted.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<WriteKind, u64>>);

impl Counters {
    pub(crate) fn count(&self, kind: WriteKind) {
        let mut counts = self.0.lock();
        if counts.len() >= KINDS_MAX && !counts.contains_key(&kind) {
            let rest = WriteKind { user: "other".into(), verb: kind.verb, resource: "other".into() };
            *counts.entry(rest).or_default() += 1;
        } else {
            *counts.entry(kind).or_default() += 1;
        }
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<WriteKind, u64> {
        self.0.lock().clone()
    }
}
