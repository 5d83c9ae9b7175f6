//! A server on a file: what was acknowledged survives.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;

use embedded_apiserver::{Server, StartError, Storage};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{DEADLINE, World, create, gone, map, widget};

#[tokio::test]
async fn a_restart_loses_nothing_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::File(directory.path().join("store.redb"));
    let world = World::on(storage.clone()).await.with_widgets().await;
    let made = create(&world.widgets(), widget("a")).await.unwrap();
    let token = world.server.token("someone", ["team"]);
    let (ca, revision) = (world.server.ca_pem().to_owned(), world.server.revision());
    assert!(matches!(Server::builder().storage(storage.clone()).build().await, Err(StartError::Store(_))));
    world.server.shutdown().await;

    let world = World::on(storage).await;
    assert_eq!(world.widgets().get("a").await.unwrap(), made);
    assert_eq!(world.server.ca_pem(), ca);
    assert_eq!(world.server.revision(), revision, "a restart on a finished store writes nothing");
    assert_eq!(world.server.token("someone", ["team"]), token);
    assert_ne!(world.server.token("someone", ["other"]), token);
}

#[tokio::test]
async fn dropping_the_server_is_as_good_as_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::File(directory.path().join("store.redb"));
    let world = World::on(storage.clone()).await;
    let owner = create(&world.maps(), map("owner")).await.unwrap();
    let mut child = map("child");
    child["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
    create(&world.maps(), child).await.unwrap();
    world.maps().delete("owner", &Default::default()).await.unwrap();
    drop(world);
    let world = World::on(storage).await;
    gone(&world.maps(), "child").await;
}

/// Where the child finds its store; only set for the child.
const STORE: &str = "APISERVER_TEST_STORE";

/// Not a test of its own: what [`kill_nine_loses_nothing_that_was_acknowledged`] runs as a process, and kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let world = World::on(Storage::File(path.into())).await;
    let round = world.server.revision();
    let writers = (0..4).map(|writer| {
        let maps = world.maps();
        tokio::spawn(async move {
            for n in 0.. {
                let name = format!("m-{round}-{writer}-{n}");
                create(&maps, map(&name)).await.unwrap();
                // In one write, so that lines of several writers do not mix.
                std::io::stderr().write_all(format!("made {name}\n").as_bytes()).unwrap();
                if n % 3 == 0 {
                    maps.delete(&name, &Default::default()).await.unwrap();
                    std::io::stderr().write_all(format!("deleted {name}\n").as_bytes()).unwrap();
                }
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn kill_nine_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut made = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durable::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(STORE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut count = 0;
        loop {
            let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.expect("the child writes").unwrap();
            let Some(line) = line else { break };
            match line.split_once(' ') {
                Some(("made", name)) => made.insert(name.to_owned()),
                Some(("deleted", name)) => deleted.insert(name.to_owned()),
                _ => continue,
            };
            count += 1;
            if count == 40 * round {
                // SIGKILL; what is in the pipe was acknowledged before, and is read to the end.
                child.start_kill().unwrap();
            }
        }
        child.wait().await.unwrap();
        assert!(count >= 40 * round, "{count} writes in round {round}");
    }
    let world = World::on(Storage::File(path)).await;
    for name in &made {
        let found = world.maps().get_opt(name).await.unwrap();
        // A deletion may have been durable before anybody was told.
        let may_be_gone = name.rsplit('-').next().unwrap().parse::<u32>().unwrap() % 3 == 0;
        assert!(found.is_some() || may_be_gone, "{name} was acknowledged and is lost");
        assert!(found.is_none() || !deleted.contains(name), "{name} was deleted and is back");
    }
    assert!(made.len() > 100 && deleted.len() > 20);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    World::on(Storage::File(path.clone())).await.server.shutdown().await;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    World::on(Storage::File(path.clone())).await.server.shutdown().await;
    assert_eq!(mode(), 0o600);
}
