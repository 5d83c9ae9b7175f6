//! Counts writes, so that benchmarks and tests can say exactly what a client did.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Kinds of writes kept apart; more are counted under `other`, so that made-up user names cannot fill memory.
const KINDS_MAX: usize = 4096;

/// Name of the counts at `/metrics`.
const METRIC: &str = "embedded_apiserver_writes_total";

/// What the embedder has to tell at `/metrics`.
pub trait Exposition: Send + Sync {
    /// Renders it in the text format of Prometheus, each line with its end.
    fn exposition(&self) -> String;
}

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

    /// Renders the counts in the text format of Prometheus.
    pub(crate) fn exposition(&self) -> String {
        let mut out =
            format!("# HELP {METRIC} Write requests that succeeded, dry runs apart.\n# TYPE {METRIC} counter\n");
        for (kind, count) in self.snapshot() {
            let WriteKind { user, verb, resource } = kind;
            let user = user.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            out.push_str(&format!("{METRIC}{{user=\"{user}\",verb=\"{verb}\",resource=\"{resource}\"}} {count}\n"));
        }
        out
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<WriteKind, u64> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exposed_with_their_labels_escaped() {
        let counters = Counters::default();
        let kind = |user: &str| WriteKind { user: user.into(), verb: "create".into(), resource: "jobs.batch".into() };
        counters.count(kind("a"));
        counters.count(kind("a"));
        counters.count(kind("odd\"\n\\"));
        let text = counters.exposition();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                r#"embedded_apiserver_writes_total{user="a",verb="create",resource="jobs.batch"} 2"#,
                r#"embedded_apiserver_writes_total{user="odd\"\n\\",verb="create",resource="jobs.batch"} 1"#,
            ]
        );
    }
}
