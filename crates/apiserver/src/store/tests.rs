//! The store: compare-and-swap, pages of the past, cursors, and the file.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::*;

fn config(name: &str, value: &str) -> Draft {
    Draft::encode(
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"b": "2", "a": value}},
            "data": {"key": value},
        }),
        7,
    )
}

fn put(name: &str, value: &str, expect: Expect) -> Write {
    let draft = Some(config(name, value));
    Write { table: "/configmaps".into(), name: ObjectName::new("default", name), expect, draft, homes: Vec::new() }
}

fn delete(name: &str, revision: u64) -> Write {
    Write { expect: Expect::Revision(revision), draft: None, ..put(name, "", Expect::Absent) }
}

fn names(page: &Page) -> Vec<String> {
    page.records.iter().map(|record| record.name().name.to_string()).collect()
}

fn scope() -> Scope {
    Scope::table("/configmaps")
}

#[tokio::test]
async fn a_write_needs_what_it_expects() {
    let store = Store::memory();
    let first = store.write(put("a", "1", Expect::Absent)).await.unwrap();
    assert_eq!(first.value()["metadata"]["resourceVersion"], json!(first.revision().to_string()));
    assert_eq!(first.label("a"), Some("1"));
    assert_eq!(first.uid(), "uid-a");
    assert!(matches!(store.write(put("a", "2", Expect::Absent)).await, Err(WriteError::Exists(_))));
    let second = store.write(put("a", "2", Expect::Revision(first.revision()))).await.unwrap();
    let stale = store.write(put("a", "3", Expect::Revision(first.revision()))).await;
    assert_eq!(
        stale.unwrap_err(),
        WriteError::Conflict {
            name: ObjectName::new("default", "a"),
            expected: first.revision(),
            found: second.revision()
        }
    );
    assert!(matches!(store.write(put("b", "1", Expect::Revision(1))).await, Err(WriteError::Missing(_))));
    let gone = store.write(delete("a", second.revision())).await.unwrap();
    assert_eq!(gone.value()["metadata"]["resourceVersion"], json!(gone.revision().to_string()));
    assert_eq!(gone.value()["data"]["key"], json!("2"));
    assert!(store.get("/configmaps", &ObjectName::new("default", "a")).is_none());
}

#[tokio::test]
async fn pages_show_one_revision_however_much_changes_between_them() {
    let store = Store::memory();
    for name in ["a", "b", "c", "d"] {
        store.write(put(name, "old", Expect::Absent)).await.unwrap();
    }
    let page = store.list(&scope(), None, None, Some(2), |_| true).unwrap();
    assert_eq!(names(&page), ["a", "b"]);
    assert_eq!(page.remaining, Some(2));
    let c = store.get("/configmaps", &ObjectName::new("default", "c")).unwrap();
    store.write(put("c", "new", Expect::Revision(c.revision()))).await.unwrap();
    let d = store.get("/configmaps", &ObjectName::new("default", "d")).unwrap();
    store.write(delete("d", d.revision())).await.unwrap();
    store.write(put("bb", "new", Expect::Absent)).await.unwrap();
    let after = page.records[1].name();
    let rest = store.list(&scope(), Some(page.revision), Some(after), Some(2), |_| true).unwrap();
    assert_eq!(names(&rest), ["c", "d"]);
    assert_eq!(rest.records[0].label("a"), Some("old"));
    let now = store.list(&scope(), None, None, None, |_| true).unwrap();
    assert_eq!(names(&now), ["a", "b", "bb", "c"]);
}

#[tokio::test]
async fn a_list_of_a_namespace_holds_its_objects_and_no_others() {
    let store = Store::memory();
    let namespaces = ["a", "a-b", "ab", "b"];
    for namespace in namespaces {
        for name in ["x", "y"] {
            let write = Write { name: ObjectName::new(namespace, name), ..put(name, "1", Expect::Absent) };
            store.write(write).await.unwrap();
        }
    }
    let before = store.revision();
    for namespace in namespaces {
        let object = store.get("/configmaps", &ObjectName::new(namespace, "y")).unwrap();
        let changed = put("y", "2", Expect::Revision(object.revision()));
        store.write(Write { name: ObjectName::new(namespace, "y"), ..changed }).await.unwrap();
    }
    for namespace in namespaces {
        let scope = Scope { table: "/configmaps".into(), namespace: Some(namespace.into()) };
        let list = |after: Option<(&str, &str)>| {
            let after = after.map(|(namespace, name)| ObjectName::new(namespace, name));
            let page = store.list(&scope, None, after.as_ref(), None, |_| true).unwrap();
            let past = store.list(&scope, Some(before), after.as_ref(), None, |_| true).unwrap();
            assert_eq!(names(&past), names(&page));
            assert!(page.records.iter().all(|record| &*record.name().namespace == namespace), "{namespace}");
            names(&page)
        };
        assert_eq!(list(None), ["x", "y"], "{namespace}");
        assert_eq!(list(Some((namespace, "x"))), ["y"], "{namespace}");
        // Where somebody else's page would go on there is nothing.
        for elsewhere in [(namespace, "y"), ("0", "x"), ("c", "x")] {
            assert!(list(Some(elsewhere)).is_empty(), "{namespace} after {elsewhere:?}");
        }
    }
}

#[tokio::test]
async fn a_cursor_sees_every_change_once_and_only_its_own() {
    let store = Store::memory();
    let a = store.write(put("a", "1", Expect::Absent)).await.unwrap();
    let mut cursor = store.watch(scope(), store.revision()).unwrap();
    assert!(cursor.take().unwrap().is_empty());
    let other = Write { table: "/secrets".into(), ..put("x", "1", Expect::Absent) };
    store.write(other).await.unwrap();
    let b = store.write(put("b", "1", Expect::Absent)).await.unwrap();
    store.write(delete("a", a.revision())).await.unwrap();
    cursor.changed().await;
    let seen: Vec<_> = cursor.take().unwrap().iter().map(|c| (c.kind, c.record.name().name.to_string())).collect();
    assert_eq!(seen, [(ChangeKind::Created, "b".to_owned()), (ChangeKind::Deleted, "a".to_owned())]);
    assert!(cursor.take().unwrap().is_empty());
    assert_eq!(cursor.position(), store.revision());
    let mut resumed = store.watch(scope(), b.revision()).unwrap();
    assert_eq!(resumed.take().unwrap().len(), 1);
}

#[tokio::test]
async fn what_left_the_log_is_gone_but_a_quiet_table_keeps_its_place() {
    let store = Store::memory();
    let quiet = store.write(Write { table: "/secrets".into(), ..put("x", "1", Expect::Absent) }).await.unwrap();
    let from = store.revision();
    let mut last = store.write(put("a", "0", Expect::Absent)).await.unwrap();
    for n in 0..9_000 {
        last = store.write(put("a", &n.to_string(), Expect::Revision(last.revision()))).await.unwrap();
    }
    assert!(store.watch(scope(), from).is_err());
    assert!(store.list(&scope(), Some(from), None, None, |_| true).is_err());
    assert!(store.watch(Scope::table("/secrets"), quiet.revision()).is_ok());
    assert!(store.watch(scope(), last.revision() - 100).is_ok());
}

#[tokio::test]
async fn marks_rule_out_what_an_object_does_not_have_and_nothing_that_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    for n in 0..300 {
        store.write(put(&format!("{n:03}"), &n.to_string(), Expect::Absent)).await.unwrap();
    }
    store.close();
    for store in [store, Store::open(&path).unwrap()] {
        let mut others = 0;
        for n in 0..300 {
            let (own, value) = (format!("{n:03}"), n.to_string());
            let wanted = Marks::of([("b", "2"), ("a", value.as_str())]);
            let page = store.list(&scope(), None, None, None, |record| record.may_have(wanted)).unwrap();
            assert!(names(&page).contains(&own), "{own} is ruled out");
            others += page.records.len() - 1;
        }
        assert!(others < 300 * 300 / 10, "{others} objects are not ruled out");
    }
}

/// Changes an object of another table until everything before has left the log.
async fn let_the_log_pass(store: &Store) {
    let chatter = |value: &str, expect| Write { table: "/chatter".into(), ..put("x", value, expect) };
    let mut last = store.write(chatter("0", Expect::Absent)).await.unwrap();
    for n in 0..9_000 {
        last = store.write(chatter(&n.to_string(), Expect::Revision(last.revision()))).await.unwrap();
    }
}

#[tokio::test]
async fn an_object_at_rest_takes_a_fraction_of_its_memory_and_is_the_same_to_everybody() {
    let store = Store::memory();
    let name = |n: usize| format!("config-{n:03}");
    let value = "a text that all objects of this table have in common, as managed fields are; ".repeat(10);
    let mut written = Vec::new();
    for n in 0..200 {
        written.push(store.write(put(&name(n), &format!("{value}{n}"), Expect::Absent)).await.unwrap());
    }
    let_the_log_pass(&store).await;
    let page = store.list(&scope(), None, None, None, |record| record.label("b") == Some("2")).unwrap();
    assert_eq!(page.records.len(), written.len());
    for (rested, written) in page.records.iter().zip(&written) {
        assert_eq!(rested.json(), written.json());
        assert_eq!(rested.size(), rested.json().len());
        assert_eq!((rested.revision(), rested.uid(), rested.schema()), (written.revision(), written.uid(), 7));
    }
    let size: usize = page.records.iter().map(|record| record.size()).sum();
    let footprint: usize = page.records.iter().map(|record| record.body.footprint()).sum();
    assert!(footprint < size / 5, "{footprint} of {size} bytes are kept");

    // It is changed, deleted and rolled back like any other.
    let rested = &page.records[150];
    let before = store.revision();
    store.write(put(&name(150), "new", Expect::Revision(rested.revision()))).await.unwrap();
    let gone = store.write(delete(&name(151), page.records[151].revision())).await.unwrap();
    assert_eq!(gone.value()["data"], written[151].value()["data"]);
    assert_eq!(gone.value()["metadata"]["resourceVersion"], json!(gone.revision().to_string()));
    let past = store.list(&scope(), Some(before), None, None, |_| true).unwrap();
    assert_eq!(past.records[150].json(), written[150].json());
    assert_eq!(past.records[151].json(), written[151].json());
}

#[tokio::test]
async fn a_file_is_read_into_packed_objects_and_has_them_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    let mut written = Vec::new();
    for n in 0..100 {
        written.push(store.write(put(&format!("{n:03}"), &"same ".repeat(100), Expect::Absent)).await.unwrap());
    }
    store.close();
    let again = Store::open(&path).unwrap();
    let records = again.list(&scope(), None, None, None, |_| true).unwrap().records;
    assert!(records[99].body.footprint() < records[99].size() / 5);
    for (read, written) in records.iter().zip(&written) {
        assert_eq!((read.json(), read.revision()), (written.json(), written.revision()));
    }
    let last = &records[99];
    again.write(put("099", "new", Expect::Revision(last.revision()))).await.unwrap();
    again.close();
    let third = Store::open(&path).unwrap();
    let names = ["098", "099"].map(|name| third.get("/configmaps", &ObjectName::new("default", name)).unwrap());
    assert_eq!(names[0].json(), written[98].json());
    assert_eq!(names[1].value()["data"]["key"], json!("new"));
}

#[tokio::test]
async fn a_file_keeps_what_was_acknowledged_and_the_revision() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::InUse { .. })));
    let a = store.write(put("a", "1", Expect::Absent)).await.unwrap();
    let b = store.write(put("b", "1", Expect::Absent)).await.unwrap();
    let gone = store.write(delete("a", a.revision())).await.unwrap();
    store.close();
    assert_eq!(store.write(put("c", "1", Expect::Absent)).await.unwrap_err(), WriteError::Closed);

    let again = Store::open(&path).unwrap();
    assert_eq!(again.revision(), gone.revision());
    let restored = again.get("/configmaps", &ObjectName::new("default", "b")).unwrap();
    assert_eq!(restored.json(), b.json());
    assert_eq!((restored.schema(), restored.uid(), restored.label("b")), (7, "uid-b", Some("2")));
    assert!(again.get("/configmaps", &ObjectName::new("default", "a")).is_none());
    assert!(again.watch(scope(), b.revision()).is_err(), "changes before the start are not in the log");
    assert!(again.watch(scope(), gone.revision()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_share_commits_and_one_wins_each_race() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.redb")).unwrap();
    let writers = (0..64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.write(put("same", &n.to_string(), Expect::Absent)).await.is_ok() })
    });
    let mut winners = 0;
    for writer in writers.collect::<Vec<_>>() {
        winners += usize::from(writer.await.unwrap());
    }
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    Store::open(&path).unwrap().close();
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let state: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("state");
    transaction.open_table(state).unwrap().insert("format", 99).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(Store::open(&path), Err(OpenError::Newer { found: 99, .. })));
}

/// A file on a medium that can be full, or report a failure of what it has done.
#[derive(Debug)]
struct Medium {
    file: redb::backends::FileBackend,
    full: Arc<AtomicBool>,
    deceitful: Arc<AtomicBool>,
}

impl Medium {
    fn check(&self) -> Result<(), std::io::Error> {
        if self.full.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl redb::StorageBackend for Medium {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.sync_data()?;
        if self.deceitful.load(Ordering::SeqCst) { Err(std::io::Error::other("lost")) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> Result<(), std::io::Error> {
        self.file.close()
    }
}

fn store_on_medium(path: &Path, full: &Arc<AtomicBool>, deceitful: &Arc<AtomicBool>) -> Store {
    let (full, deceitful) = (full.clone(), deceitful.clone());
    let opener = move |path: &Path| {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        let file = redb::backends::FileBackend::new(file)?;
        let medium = Medium { file, full: full.clone(), deceitful: deceitful.clone() };
        redb::Builder::new().create_with_backend(medium)
    };
    Store::open_by(path, Box::new(opener)).unwrap()
}

#[tokio::test]
async fn a_write_that_is_said_to_have_failed_is_undone_even_if_it_reached_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let deceitful = Arc::new(AtomicBool::new(false));
    let store = store_on_medium(&path, &Arc::default(), &deceitful);
    let a = store.write(put("a", "1", Expect::Absent)).await.unwrap();
    deceitful.store(true, Ordering::SeqCst);
    assert!(matches!(store.write(put("b", "lost", Expect::Absent)).await, Err(WriteError::Storage(_))));
    deceitful.store(false, Ordering::SeqCst);
    store.write(put("c", "1", Expect::Absent)).await.unwrap();
    store.write(put("a", "2", Expect::Revision(a.revision()))).await.unwrap();
    store.close();
    let page = Store::open(&path).unwrap().list(&scope(), None, None, None, |_| true).unwrap();
    assert_eq!(names(&page), ["a", "c"]);
}

#[tokio::test]
async fn a_full_disk_fails_writes_until_there_is_room_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let full = Arc::new(AtomicBool::new(false));
    let store = store_on_medium(&path, &full, &Arc::default());
    let a = store.write(put("a", "1", Expect::Absent)).await.unwrap();
    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let failed = store.write(put("b", "lost", Expect::Absent)).await.unwrap_err();
        assert!(matches!(failed, WriteError::Storage(_)), "{failed}");
        assert!(matches!(store.write(delete("a", a.revision())).await, Err(WriteError::Storage(_))));
    }
    assert_eq!(store.get("/configmaps", a.name()).unwrap().revision(), a.revision(), "reads go on");
    full.store(false, Ordering::SeqCst);
    let c = store.write(put("c", "1", Expect::Absent)).await.unwrap();
    assert_eq!(c.revision(), a.revision() + 1);
    store.close();
    let again = Store::open(&path).unwrap();
    let page = again.list(&scope(), None, None, None, |_| true).unwrap();
    assert_eq!(names(&page), ["a", "c"], "what failed is not there, what was acknowledged is");
    assert_eq!(again.revision(), c.revision());
}

#[tokio::test]
async fn nothing_is_written_into_what_is_gone_or_ending() {
    let store = Store::memory();
    let home = || (Arc::from("/namespaces"), ObjectName::new("", "team"));
    let into = |name: &str| Write { homes: vec![home()], ..put(name, "1", Expect::Absent) };
    assert!(matches!(store.write(into("a")).await, Err(WriteError::Homeless(_))));
    let namespace = |deleting: bool| {
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
        if deleting {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        Some(Draft::encode(&object, 0))
    };
    let (table, name) = home();
    let write = Write { table, name, expect: Expect::Absent, draft: namespace(false), homes: Vec::new() };
    let made = store.write(write).await.unwrap();
    store.write(into("a")).await.unwrap();
    let (table, name) = home();
    let expect = Expect::Revision(made.revision());
    store.write(Write { table, name, expect, draft: namespace(true), homes: Vec::new() }).await.unwrap();
    assert!(matches!(store.write(into("b")).await, Err(WriteError::Homeless(_))));
}

#[tokio::test]
async fn an_object_that_no_parser_reads_is_shown_as_its_name() {
    let store = Store::memory();
    let deep = (0..200).fold(json!(1), |below, _| json!([below]));
    let object = json!({"metadata": {"name": "a", "uid": "uid-a"}, "data": deep});
    let write = Write { draft: Some(Draft::encode(&object, 0)), ..put("a", "", Expect::Absent) };
    let record = store.write(write).await.unwrap();
    assert!(record.parse().is_err());
    let revision = record.revision().to_string();
    assert_eq!(
        record.value(),
        json!({"metadata": {"name": "a", "namespace": "default", "uid": "uid-a", "resourceVersion": revision}})
    );
}
