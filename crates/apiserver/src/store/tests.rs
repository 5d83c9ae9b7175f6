//! The store: compare-and-swap, pages of the past, cursors, and the file.

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
    Write { table: "/configmaps".into(), name: ObjectName::new("default", name), expect, draft }
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
async fn a_cursor_sees_every_change_once_and_only_its_own() {
    let store = Store::memory();
    let a = store.write(put("a", "1", Expect::Absent)).await.unwrap();
    let mut cursor = store.watch(scope(), store.revision()).unwrap();
    assert!(cursor.take().unwrap().is_empty());
    let other = Write { table: "/secrets".into(), ..put("x", "1", Expect::Absent) };
    store.write(other).await.unwrap();
    let b = store.write(put("b", "1", Expect::Absent)).await.unwrap();
    store.write(delete("a", a.revision())).await.unwrap();
    assert!(cursor.changed().await);
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
