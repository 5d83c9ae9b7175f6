//! Processes that die: this one's, and the git that it has started.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use kratix_state_store::Retry;
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::wait;
use rustix::process::{Pid, Signal, kill_process};

use super::{git_processes, write_in_the_end, written};
use crate::{Bed, config, placement, store, trouble};

const URL: &str = "KRATIX_TEST_REMOTE_WRITER_URL";
const CACHE: &str = "KRATIX_TEST_REMOTE_WRITER_CACHE";
const NAME: &str = "KRATIX_TEST_REMOTE_WRITER_NAME";

/// Not a test by itself: a process of its own that writes one placement after the other, until it is killed.
#[test]
fn writer() {
    let (Ok(url), Ok(cache), Ok(name)) = (std::env::var(URL), std::env::var(CACHE), std::env::var(NAME)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = kratix_state_store::GitConfig::new("default", url);
        let store = kratix_state_store::open(config, cache).expect("usable");
        for at in 0u64.. {
            let id = format!("{name}-{at}");
            store.write(placement(&id, "1")).await.expect("written");
            println!("acknowledged {id}");
        }
    });
}

fn start(bed: &Bed, server: &Server, name: &str) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "faults::processes::writer", "--nocapture"])
        .envs([(URL, config(server).url), (CACHE, bed.cache().display().to_string()), (NAME, name.to_owned())])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started")
}

/// Returns the next names that a writer says were acknowledged.
async fn acknowledged(child: &mut Child, count: usize) -> Vec<String> {
    let stdout = child.stdout.take().expect("piped");
    tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        lines.filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned())).take(count).collect()
    })
    .await
    .expect("read")
}

fn kill(child: &mut Child) {
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_was_accepted_before_the_process_died_is_recognised_by_the_next() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    server.fail(Fault::HangPush { executed: true });
    let mut child = start(&bed, &server, "w");
    wait::poll("the push to be accepted", || async {
        if bed.commits() == 1 { Ok(()) } else { Err("no commit".to_owned()) }
    })
    .await;
    kill(&mut child);
    server.fail(Fault::None);
    let head = bed.head();
    let answer = store(&bed, &server).write(placement("w-0", "1")).await.expect("recognised");
    assert_eq!((answer.changed, answer.version.expect("a version").as_str()), (false, head.as_str()));
    assert_eq!(bed.commits(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_remote_has_acknowledged_survives_kills_and_the_next_process_goes_on_at_once() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let mut all = Vec::new();
    for round in 0..4 {
        let mut child = start(&bed, &server, &format!("r{round}"));
        all.extend(acknowledged(&mut child, 2 + round).await);
        kill(&mut child);
    }
    store(&bed, &server).write(placement("last", "1")).await.expect("written");
    let paths = bed.paths();
    for name in &all {
        assert!(paths.contains(&format!("worker-1/{name}/a.yaml")), "{name} was acknowledged");
    }
    assert_eq!(all.len(), 2 + 3 + 4 + 5);
    assert!(written(&bed).values().all(|count| *count == 1));
    bed.is_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_in_one_cache_directory_do_not_disturb_each_other() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let (mut one, mut two) = (start(&bed, &server, "one"), start(&bed, &server, "two"));
    let (mut names, others) = tokio::join!(acknowledged(&mut one, 6), acknowledged(&mut two, 6));
    names.extend(others);
    kill(&mut one);
    kill(&mut two);
    let paths = bed.paths();
    assert!(names.iter().all(|name| paths.contains(&format!("worker-1/{name}/a.yaml"))), "{paths:?}");
    assert_eq!(names.len(), 12);
    assert_eq!(std::fs::read_dir(bed.cache()).expect("caches").count(), 2);
    bed.is_sound();
}

#[tokio::test]
async fn a_git_that_is_killed_in_the_middle_is_a_failure_that_is_tried_again() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    for victim in ["git fetch", "git-remote-http"] {
        bed.foreign_push(&format!("theirs/{victim}"), "t");
        server.fail(Fault::HangFetch);
        let pushing = tokio::spawn({
            let store = store.clone();
            async move { store.write(placement("b", "1")).await }
        });
        wait::poll(&format!("{victim} to be started"), || async {
            let processes = git_processes(&bed);
            let hangs = processes.iter().any(|(_, command)| command.contains("git-remote-http"));
            let found = processes.iter().find(|(_, command)| command.contains(victim));
            let Some((id, _)) = found.filter(|_| hangs) else { return Err(format!("{processes:?}")) };
            kill_process(Pid::from_raw(*id).expect("an id"), Signal::KILL).map_err(|error| error.to_string())
        })
        .await;
        // Long before the deadline of 90 s, which is longer than a test waits.
        let error = trouble(tokio::time::timeout(wait::DEADLINE, pushing).await.expect("it ends").expect("it ends"));
        assert_eq!(error.retry(), Retry::Backoff, "{victim}: {error}");
        assert!(!error.to_string().ends_with(": "), "it says something: {error}");
        server.fail(Fault::None);
        wait::poll("the rest to be gone", || async {
            let left = git_processes(&bed);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
    write_in_the_end(&store, placement("b", "1")).await;
    assert_eq!(bed.commits(), 4);
    bed.is_sound();
}

#[tokio::test]
async fn a_local_branch_that_stays_locked_costs_no_space() {
    let bed = Bed::new();
    let store = bed.store();
    store.write(placement("a", "1")).await.expect("written");
    let packs = || std::fs::read_dir(bed.repository().join("objects/pack")).expect("packs").count();
    let before = packs();
    let lock = bed.repository().join("refs/heads/main.lock");
    std::fs::write(&lock, "").expect("a file");
    let error = trouble(store.write(placement("b", "1")).await);
    assert_eq!((error.category(), error.retry()), ("StoreLocked", Retry::Backoff));
    assert_eq!(packs(), before, "nothing is written that nothing will name");
    std::fs::remove_file(&lock).expect("removed");
    store.write(placement("b", "1")).await.expect("written");
}
