use std::time::Duration;

use futures::StreamExt;
use tokio::io::AsyncWriteExt;

use super::*;

fn run(number: u32) -> Run {
    Run { pod_uid: "uid".into(), container: "main".into(), run: number }
}

fn pipe_pair() -> (pipe::Sender, pipe::Receiver) {
    pipe::pipe().unwrap()
}

async fn write(logs: &Logs, number: u32, text: &str) {
    let (mut out, out_read) = pipe_pair();
    let (err, err_read) = pipe_pair();
    drop(err);
    let feed = async move {
        out.write_all(text.as_bytes()).await.unwrap();
        drop(out);
    };
    let (recorded, ()) = tokio::join!(logs.record(run(number), out_read, err_read), feed);
    recorded.unwrap();
}

async fn read(logs: &Logs, options: LogOptions) -> String {
    let Some(stream) = stream(logs, "uid", "main", &options).unwrap() else { return "no log".into() };
    let chunks: Vec<_> = stream.map(|chunk| chunk.unwrap().to_vec()).collect().await;
    String::from_utf8(chunks.concat()).unwrap()
}

#[tokio::test]
async fn logs_are_read_back_as_they_were_written() {
    let directory = tempfile::tempdir().unwrap();
    let logs = Logs::new(directory.path().to_owned());
    assert_eq!(read(&logs, LogOptions::default()).await, "no log");
    write(&logs, 0, "one\ntwo\n\nfour\nno newline").await;
    let all = LogOptions::default();
    assert_eq!(read(&logs, all.clone()).await, "one\ntwo\n\nfour\nno newline");
    assert_eq!(read(&logs, LogOptions { tail_lines: Some(2), ..all.clone() }).await, "four\nno newline");
    assert_eq!(read(&logs, LogOptions { tail_lines: Some(0), ..all.clone() }).await, "");
    assert_eq!(read(&logs, LogOptions { tail_lines: Some(99), ..all.clone() }).await.len(), 24);
    assert_eq!(read(&logs, LogOptions { limit_bytes: Some(5), ..all.clone() }).await, "one\nt");
    assert_eq!(read(&logs, LogOptions { since_seconds: Some(60), ..all.clone() }).await.len(), 24);
    let later = Timestamp::now().saturating_add(jiff::SignedDuration::from_secs(9)).unwrap();
    assert_eq!(read(&logs, LogOptions { since_time: Some(later), ..all.clone() }).await, "");
    let timed = read(&logs, LogOptions { timestamps: true, ..all.clone() }).await;
    for line in timed.lines() {
        let time = line.split(' ').next().unwrap();
        assert!(time.parse::<Timestamp>().is_ok(), "{line:?} has no time");
    }
    assert_eq!(read(&logs, LogOptions { previous: true, ..all.clone() }).await, "no log");
    write(&logs, 1, "second run\n").await;
    assert_eq!(read(&logs, all.clone()).await, "second run\n");
    assert!(read(&logs, LogOptions { previous: true, ..all }).await.starts_with("one\n"));
    assert_eq!(tail(&logs, &run(0), 80, 10), "no newline");
}

#[tokio::test]
async fn a_log_is_followed_to_the_end_of_its_container() {
    let directory = tempfile::tempdir().unwrap();
    let logs = Logs::new(directory.path().to_owned());
    let (mut out, out_read) = pipe_pair();
    let (err, err_read) = pipe_pair();
    let recorder = logs.clone();
    let recording = tokio::spawn(async move { recorder.record(run(0), out_read, err_read).await });
    out.write_all(b"first\n").await.unwrap();
    let mut following = None;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while following.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the log never appeared");
        tokio::task::yield_now().await;
        following = stream(&logs, "uid", "main", &LogOptions { follow: true, ..LogOptions::default() }).unwrap();
    }
    let mut following = Box::pin(following.unwrap());
    assert_eq!(&following.next().await.unwrap().unwrap()[..], b"first\n");
    out.write_all(b"second\n").await.unwrap();
    assert_eq!(&following.next().await.unwrap().unwrap()[..], b"second\n");
    out.write_all(b"last").await.unwrap();
    drop((out, err));
    recording.await.unwrap().unwrap();
    assert_eq!(&following.next().await.unwrap().unwrap()[..], b"last");
    assert!(following.next().await.is_none());
}

#[tokio::test]
async fn a_chatty_container_cannot_fill_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let logs = Logs::new(directory.path().to_owned());
    let line = format!("{}\n", "x".repeat(1 << 20));
    write(&logs, 0, &(line.repeat(24) + "end\n")).await;
    let kept: u64 = std::fs::read_dir(directory.path().join("uid/main"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept <= 2 * FILE_BYTES_MAX + (CHUNK_BYTES as u64 * 2), "{kept} bytes are kept");
    assert!(read(&logs, LogOptions::default()).await.ends_with("\nend\n"));
}
