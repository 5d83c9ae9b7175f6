//! A store that is away while many wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kratix_state_store::{QUEUE_MAX, Retry};
use kratix_testing::git_http::{Fault, Server};
use kratix_testing::wait;

use super::{hasty_store, written};
use crate::{Bed, placement, store};

const WAITING: usize = 1_000;

/// Starts writers that try again as long as the store fails, as controllers do: only after it was said to be back.
fn writers(
    store: &kratix_state_store::Handle,
    count: usize,
    failed: &Arc<AtomicUsize>,
    back: &tokio::sync::watch::Sender<bool>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let writer = |at: usize| {
        let (store, failed, mut back) = (store.clone(), failed.clone(), back.subscribe());
        async move {
            let change = placement(&format!("p{at:04}"), "1");
            while let Err(error) = store.write(change.clone()).await {
                assert_eq!(error.retry(), Retry::Backoff, "{error}");
                failed.fetch_add(1, Ordering::Relaxed);
                back.wait_for(|back| *back).await.expect("it comes back");
            }
        }
    };
    (0..count).map(|at| tokio::spawn(writer(at))).collect()
}

fn all_are_written_once(bed: &Bed, count: usize) {
    assert_eq!(bed.git(&["ls-tree", "-r", "--name-only", "main"]).lines().count(), count + 1);
    let counts = written(bed);
    assert!(counts.len() == count + 1 && counts.values().all(|count| *count == 1), "{counts:?}");
    bed.is_sound();
}

#[tokio::test]
async fn a_thousand_that_waited_for_a_store_that_was_down_are_written_once_each() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    server.fail(Fault::Status(503));
    let (failed, back) = (Arc::default(), tokio::sync::watch::Sender::new(false));
    let writers = writers(&store, WAITING, &failed, &back);
    wait::poll("all of them to have failed", || async {
        let failed = failed.load(Ordering::Relaxed);
        if failed == WAITING { Ok(()) } else { Err(format!("{failed}")) }
    })
    .await;
    assert!(server.requests() < 100, "they fail together: {} requests", server.requests());
    server.fail(Fault::None);
    back.send_replace(true);
    for writer in writers {
        writer.await.expect("written");
    }
    all_are_written_once(&bed, WAITING);
    assert!(bed.commits() <= 8, "{} commits", bed.commits());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_queue_holds_wait_outside_of_it_while_a_server_hangs() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = hasty_store(&bed, &server);
    super::write_in_the_end(&store, placement("first", "1")).await;
    server.fail(Fault::HangPush { executed: false });
    let (failed, back) = (Arc::default(), tokio::sync::watch::Sender::new(false));
    let most = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let meter = {
        let (store, most, ended) = (store.clone(), most.clone(), ended.clone());
        tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                most.fetch_max(store.queued(), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    };
    // One batch is under way, one queue is full, and some wait for their place.
    let count = 3 * QUEUE_MAX;
    let writers = writers(&store, count, &failed, &back);
    wait::poll("the queue to be full", || async {
        let most = most.load(Ordering::Relaxed);
        if most >= QUEUE_MAX { Ok(()) } else { Err(format!("{most}")) }
    })
    .await;
    server.fail(Fault::None);
    back.send_replace(true);
    for writer in writers {
        writer.await.expect("written");
    }
    ended.store(true, Ordering::Relaxed);
    meter.await.expect("ended");
    // What was taken out of the queue for the next commit still waits; the queue fills again behind it.
    let most = most.load(Ordering::Relaxed);
    assert!((QUEUE_MAX..=2 * QUEUE_MAX).contains(&most), "{most}");
    all_are_written_once(&bed, count);
}
