//! What waits in front of a store, and for how long.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kratix_state_store::{Change, File, GitConfig, Handle, QUEUE_MAX, Trouble, WriteError, open};
#[cfg(unix)]
use kratix_testing::hook;
#[cfg(target_os = "linux")]
use kratix_testing::memory;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::{Bed, placement};

fn paced(bed: &Bed, pushes_per_minute: u32) -> Handle {
    let mut config = bed.config();
    config.pushes_per_minute = NonZeroU32::new(pushes_per_minute);
    open(config, bed.cache()).expect("usable")
}

#[tokio::test]
async fn what_waits_for_its_push_is_counted_and_reads_are_answered_meanwhile() {
    let bed = Bed::new();
    let store = paced(&bed, 1);
    store.write(placement("a", "1")).await.expect("written");
    let mut waiting = Vec::new();
    for name in ["b", "c"] {
        waiting.push(store.reserve().await.expect("open").send(placement(name, "1")));
    }
    // The task has taken both out of the queue before it answers this.
    assert_eq!(store.list("").await.expect("readable"), ["worker-1/a/a.yaml"]);
    assert_eq!(store.queued(), 2);
    drop(waiting);
}

/// As many as the task takes wait for their push, as many as the queue holds wait behind them, and others for a place in it.
#[tokio::test]
async fn reads_are_answered_however_many_changes_wait_for_their_push() {
    let bed = Bed::new();
    let store = paced(&bed, 1);
    store.write(placement("first", "1")).await.expect("written");
    let mut waiting = tokio::task::JoinSet::new();
    for at in 0..2 * QUEUE_MAX + 100 {
        let store = store.clone();
        waiting.spawn(async move { store.write(placement(&format!("p{at}"), "1")).await });
    }
    while store.queued() < 2 * QUEUE_MAX {
        tokio::task::yield_now().await;
    }
    store.check().await.expect("well");
    assert_eq!(store.list("").await.expect("readable").len(), 1, "none of them is there");
    assert_eq!(store.queued(), 2 * QUEUE_MAX, "none of them had its turn");
}

#[tokio::test]
async fn what_is_too_much_for_one_commit_keeps_the_pace() {
    let bed = Bed::new();
    let store = paced(&bed, 120);
    let big = |id: &str| Change::replace(id, id, vec![File::new("f", vec![b'x'; 40 << 20])]);
    let began = Instant::now();
    let (first, second) = (store.reserve().await.expect("open"), store.reserve().await.expect("open"));
    let (first, second) = (first.send(big("a")), second.send(big("b")));
    let (first, second) = tokio::join!(first, second);
    assert!(first.expect("written").version != second.expect("written").version);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!((bed.commits(), store.queued()), (2, 0));
}

#[cfg(unix)]
#[tokio::test]
async fn a_push_that_is_refused_is_one_of_those_that_are_allowed() {
    let bed = Bed::new();
    hook::install(&bed.repository(), "pre-receive", "exit 1");
    let store = paced(&bed, 120);
    let refused = store.write(placement("a", "1")).await.expect_err("refused");
    let began = Instant::now();
    assert!(matches!(refused, WriteError::Store(_) | WriteError::Refused(_)), "{refused}");
    store.write(placement("a", "1")).await.expect_err("refused");
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
}

/// One change of twenty is refused, and finding out which takes pushes too.
#[cfg(unix)]
#[tokio::test]
async fn every_push_of_a_batch_that_is_tried_in_pieces_keeps_the_pace_and_reads_are_answered_meanwhile() {
    let bed = Bed::new();
    bed.store().write(placement("first", "1")).await.expect("written");
    let counter = bed.directory.path().join("pushes");
    let script = format!(
        "echo >> {}\nread old new ref\ngit diff --name-only $old $new | grep -q bad && exit 1\nexit 0",
        counter.display()
    );
    hook::install(&bed.repository(), "pre-receive", &script);
    let store = paced(&bed, 240);
    let mut reads = 0;
    // If the one is the first to be tried alone, the store seems to refuse everything, and is asked again. Whose turn that is,
    // tests that run beside decide too.
    for _ in 0..20 {
        let began = Instant::now();
        let mut pending = Vec::new();
        for at in 0..20 {
            let name = if at == 7 { "bad".to_owned() } else { format!("good{at}") };
            pending.push(store.reserve().await.expect("a place").send(placement(&name, "1")));
        }
        let mut all = std::pin::pin!(futures::future::join_all(pending));
        let outcomes = loop {
            tokio::select! {
                biased;
                outcomes = &mut all => break outcomes,
                // Between two pushes it is answered.
                list = store.list("") => {
                    list.expect("readable");
                    reads += usize::from(store.queued() > 0);
                }
            }
        };
        let took = began.elapsed();
        let pushes = std::fs::read_to_string(&counter).unwrap_or_default().lines().count();
        std::fs::remove_file(&counter).expect("there was a push");
        let pauses = u32::try_from(pushes - 1).expect("few");
        assert!(took >= Duration::from_millis(240) * pauses, "{pushes} pushes in {took:?}");
        assert!(pushes <= 12, "{pushes}");
        if outcomes.iter().filter(|outcome| outcome.is_ok()).count() == 19 {
            assert!(matches!(outcomes[7], Err(WriteError::Refused(_))), "{:?}", outcomes[7]);
            assert!(reads > 0, "what waits is counted while the batch is tried in pieces");
            return;
        }
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(WriteError::Store(_)))), "{outcomes:?}");
    }
    panic!("one of twenty was not found out");
}

/// A branch that others have moved costs a push as well.
#[cfg(unix)]
#[tokio::test]
async fn a_push_that_comes_too_late_is_one_of_those_that_are_allowed() {
    let bed = Bed::new();
    bed.store().write(placement("first", "1")).await.expect("written");
    let counter = bed.directory.path().join("pushes");
    // Somebody else is faster, three times.
    let script = format!(
        "echo >> {counter}\n[ $(wc -l < {counter}) -gt 3 ] && exit 0\n\
         unset GIT_QUARANTINE_PATH\n\
         other=$(git -c user.name=e -c user.email=e commit-tree -p $2 -m other $2^{{tree}})\n\
         git update-ref $1 $other $2\nexit 0",
        counter = counter.display()
    );
    hook::install(&bed.repository(), "update", &script);
    let store = paced(&bed, 240);
    let began = Instant::now();
    store.write(placement("late", "1")).await.expect("written in the end");
    let took = began.elapsed();
    let pushes = std::fs::read_to_string(&counter).expect("there were pushes").lines().count();
    assert!(pushes >= 2, "{pushes}");
    let pauses = u32::try_from(pushes - 1).expect("few");
    assert!(took >= Duration::from_millis(240) * pauses, "{pushes} pushes in {took:?}");
}

/// What waits holds its callers' content, and no copy of it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_that_wait_hold_no_copies_of_what_they_carry() {
    let bed = Bed::new();
    let store = paced(&bed, 1);
    store.write(placement("first", "1")).await.expect("written");
    let content = bytes::Bytes::from(vec![b'x'; 2 << 20]);
    let mut waiting = Vec::new();
    for at in 0..1_000 {
        let change = Change::replace(format!("p{at}"), format!("d/{at}"), vec![File::new("f", content.clone())]);
        waiting.push(store.reserve().await.expect("a place").send(change));
    }
    // The task has taken all of them out of the queue before it answers this.
    store.list("").await.expect("readable");
    assert_eq!(store.queued(), 1_000);
    assert!(!content.is_unique(), "it is the callers' content that waits");
    // Whatever else the process does, it does not take what a thousand copies would.
    assert!(memory::resident() < 1_500 << 20, "{} bytes", memory::resident());
    drop(waiting);
}

#[tokio::test]
async fn handles_of_one_task_are_the_same_and_others_are_not() {
    let bed = Bed::new();
    let (one, other) = (bed.store(), bed.store());
    assert!(one.is_same(&one.clone()) && !one.is_same(&other));
}

#[tokio::test]
async fn a_store_that_is_closed_ends_its_exchange_tells_whoever_waits_and_can_be_opened_anew() {
    let bed = Bed::new();
    // Takes connections and says nothing.
    let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/x.git", server.local_addr().expect("an address"));
    let store = open(GitConfig { url, ..bed.config() }, bed.cache()).expect("usable");
    assert_eq!(store.silence(), None);
    let asked = store.clone();
    let write = tokio::spawn(async move { asked.write(placement("a", "1")).await });
    let (mut connection, _) = server.accept().await.expect("it asks");
    assert!(store.silence().is_some(), "an answer is owed");
    let asked = store.clone();
    let waiting = tokio::spawn(async move { asked.check().await });
    store.close();
    let ended = |error: kratix_state_store::Error| error.trouble == Trouble::Closed;
    let Err(WriteError::Store(told)) = write.await.expect("no panic") else { panic!("the write went on") };
    assert!(ended(told));
    assert!(waiting.await.expect("no panic").is_err_and(ended));
    // No push of it can arrive any more: the connection ends too.
    connection.read_to_end(&mut Vec::new()).await.expect("closed in good order");
    assert!(store.check().await.is_err_and(ended));
    let anew = store.reopen().expect("usable");
    let asked = anew.clone();
    let check = tokio::spawn(async move { asked.check().await });
    server.accept().await.expect("it asks again");
    assert!(!anew.is_same(&store));
    check.abort();
}
