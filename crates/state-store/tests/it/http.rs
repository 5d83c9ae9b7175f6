//! What is spoken over HTTP without git's programs, against `git http-backend`: what becomes of a push whatever the server says
//! to it.

mod requests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kratix_state_store::{Auth, Change, File, GitConfig, Retry, Trouble, WriteError, open};
use kratix_testing::authority::Identity;
use kratix_testing::git_http::{Fault, Server, Step};
use kratix_testing::hook;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Bed, config, git, placement, store, trouble};

#[tokio::test]
async fn a_server_that_fails_at_the_push_alone_is_told_and_gets_each_push_once() {
    let bed = Bed::new();
    let server = Arc::new(Server::plain(bed.directory.path()).await);
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    for (fault, category) in [
        (Fault::Status(500), "StoreServerFailed"),
        (Fault::Status(400), "StoreUnreachable"),
        (Fault::Status(404), "StoreNotFound"),
        (Fault::Status(403), "StoreForbidden"),
        (Fault::Busy(429, "1".to_owned()), "StoreBusy"),
    ] {
        let (failing, sent) = (Arc::downgrade(&server), Arc::new(AtomicUsize::new(0)));
        let (count, failure) = (sent.clone(), fault.clone());
        server.before_requests(move |step| {
            let is_push = step == Step::Send;
            count.fetch_add(usize::from(is_push), Ordering::Relaxed);
            failing.upgrade().expect("it serves").fail(if is_push { failure.clone() } else { Fault::None });
        });
        let error = trouble(store.write(placement("b", "1")).await);
        assert_eq!((error.category(), error.retry()), (category, Retry::Backoff), "{fault:?}: {error}");
        assert_eq!(sent.load(Ordering::Relaxed), 1, "{fault:?}");
        server.before_requests(|_| {});
        server.fail(Fault::None);
        if category != "StoreBusy" {
            store.write(placement("b", category)).await.expect("written");
        }
    }
    assert_eq!(bed.commits(), 5);
}

#[tokio::test]
async fn what_hooks_say_reaches_the_user_in_one_line() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    let head = bed.head();
    for (name, script, expected) in [
        (
            "pre-receive",
            "printf 'Checking\\r' >&2; echo 'main is protected' >&2; echo >&2; echo 'see the wiki' >&2; exit 1",
            "Checking; main is protected; see the wiki (pre-receive hook declined)",
        ),
        ("update", "echo \"$1 is closed\" >&2; exit 1", "refs/heads/main is closed (hook declined)"),
        ("pre-receive", "exit 1", "pre-receive hook declined"),
        ("pre-receive", "head -c 400000 /dev/zero | tr '\\0' x >&2; exit 1", ""),
    ] {
        hook::install(&bed.repository(), name, script);
        let error = trouble(store.write(placement("a", "1")).await);
        let Trouble::Refused { branch, message } = &error.trouble else { panic!("{error:?}") };
        assert_eq!(branch, "main");
        match expected {
            "" => assert!(message.starts_with("xxx") && message.len() < 2_000, "{}", message.len()),
            expected => assert_eq!(message, expected),
        }
        assert_eq!(bed.head(), head);
        std::fs::remove_file(bed.repository().join("hooks").join(name)).expect("removed");
    }
    hook::install(&bed.repository(), "post-receive", "echo 'thank you' >&2; exit 1");
    assert!(store.write(placement("a", "1")).await.expect("accepted, whatever comes after").changed);
    bed.is_sound();
}

#[tokio::test]
async fn objects_that_the_server_does_not_take_are_a_refusal_with_its_reason() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    bed.git(&["config", "receive.maxInputSize", "100"]);
    let error = trouble(store.write(placement("a", "1")).await);
    let Trouble::Refused { message, .. } = &error.trouble else { panic!("{error:?}") };
    assert!(message.contains("exceeds maximum allowed size") && message.ends_with("(unpacker error)"), "{message}");
    bed.git(&["config", "--unset", "receive.maxInputSize"]);
    store.write(placement("a", "1")).await.expect("written");
}

#[tokio::test]
async fn a_server_that_does_not_say_what_became_of_a_push_is_looked_at() {
    let bed = Arc::new(Bed::new());
    let server = Server::plain(bed.directory.path()).await;
    server.fail(Fault::NoReport);
    let store = store(&bed, &server);
    for content in ["1", "2"] {
        let written = store.write(placement("a", content)).await.expect("written");
        assert_eq!((written.changed, written.version.expect("a version").as_str()), (true, bed.head().as_str()));
    }
    assert_eq!(bed.commits(), 2);
    // It moves while the push is under way: that is seen too, and built upon.
    let (rival, count) = (bed.clone(), AtomicUsize::new(0));
    server.before_requests(move |step| {
        if step == Step::Send && count.fetch_add(1, Ordering::Relaxed) == 0 {
            rival.foreign_push("theirs", "t");
        }
    });
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml", "worker-1/b/a.yaml"]);
    // Refused without an answer, it is not called written. What was said beside is told.
    server.before_requests(|_| {});
    let head = bed.head();
    for (script, expected) in [
        ("exit 1", "it does not say what became of the push"),
        ("echo closed >&2; exit 1", "it does not say what became of the push: closed"),
    ] {
        hook::install(&bed.repository(), "pre-receive", script);
        let error = trouble(store.write(placement("c", "1")).await);
        assert_eq!((error.category(), error.retry()), ("StoreServerFailed", Retry::Backoff), "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
        assert_eq!(bed.head(), head);
    }
}

#[tokio::test]
async fn a_reply_that_is_lost_is_made_up_for_within_the_same_write() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    for fault in [Fault::LosePushReply, Fault::TruncatePush] {
        server.fail(fault.clone());
        let content = format!("{fault:?}");
        let written = store.write(placement("a", &content)).await.expect("it did arrive");
        assert_eq!((written.changed, written.version.expect("a version").as_str()), (true, bed.head().as_str()));
        server.fail(Fault::None);
    }
    assert_eq!(bed.commits(), 3);
}

#[tokio::test]
async fn a_connection_that_is_closed_after_the_question_costs_no_write() {
    let bed = Bed::new();
    let server = Arc::new(Server::plain(bed.directory.path()).await);
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    let (closing, count) = (Arc::downgrade(&server), AtomicUsize::new(0));
    server.before_requests(move |step| {
        if step == Step::Send {
            let is_first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let fault = if is_first { Fault::ResetPush { after: 0 } } else { Fault::None };
            closing.upgrade().expect("it serves").fail(fault);
        }
    });
    store.write(placement("b", "1")).await.expect("sent once more");
    assert_eq!(bed.commits(), 2);
    // Always closed, it is not sent for ever.
    server.before_requests(|_| {});
    server.fail(Fault::ResetPush { after: 0 });
    assert_eq!(trouble(store.write(placement("c", "1")).await).category(), "StoreUnreachable");
}

#[tokio::test]
async fn a_branch_that_has_moved_is_built_upon_whatever_the_server_calls_it() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("a", "1")).await.expect("written");
    let head = bed.head();
    bed.foreign_push("theirs", "t");
    let moved = bed.head();
    bed.git(&["update-ref", "refs/heads/main", &head]);
    let script = format!(
        "test -e refused && exit 0; touch refused; unset GIT_QUARANTINE_PATH\n\
         git update-ref refs/heads/main {moved}; echo 'TF0: updated by another client' >&2; exit 1"
    );
    hook::install(&bed.repository(), "pre-receive", &script);
    store.write(placement("b", "1")).await.expect("built upon the new head");
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml", "worker-1/b/a.yaml"]);
}

/// Text that does not shrink by more than a quarter when it is packed.
fn noise(seed: u32, bytes: usize) -> String {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b'0' + (state % 64) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

#[tokio::test]
async fn a_push_that_is_too_large_for_the_server_is_made_in_parts() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let store = store(&bed, &server);
    store.write(placement("first", "1")).await.expect("written");
    server.fail(Fault::LimitPush { bytes: 64 << 10 });
    // All of it in one batch.
    let change =
        |name: &str, content: String| Change::replace(name, format!("worker-1/{name}"), vec![File::new("f", content)]);
    let mut changes: Vec<Change> = (1..=8).map(|at| change(&format!("small{at}"), noise(at, 20 << 10))).collect();
    changes.push(change("large", noise(9, 200 << 10)));
    let mut writes: Vec<_> = changes.into_iter().map(|change| store.write(change)).collect();
    let large = writes.pop().expect("it is the last");
    let (small, large) = tokio::join!(futures::future::join_all(writes), large);
    assert!(small.iter().all(Result::is_ok), "{small:?}");
    let Err(WriteError::Refused(error) | WriteError::Store(error)) = large else { panic!("{large:?}") };
    let Trouble::Refused { message, .. } = &error.trouble else { panic!("{error:?}") };
    assert_eq!(message, "the server answers 413, the request is too large for it");
    assert!(error.hint().expect("a hint").contains("limit for the size of a request"));
    assert_eq!(bed.paths().len(), 9);
}

/// Serves an empty repository that takes a push, says so, and does not come to the end of its answer.
async fn serve_without_end(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(answer_without_end(stream));
    }
}

async fn answer_without_end(mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let service = if head.contains("receive-pack") { "git-receive-pack" } else { "git-upload-pack" };
        let packet = |text: &str| format!("{:04x}{text}", text.len() + 4);
        let answer = |kind: &str, body: &str, length: usize| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-{service}-{kind}\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        };
        if head.starts_with("get ") {
            let first = format!("{} capabilities^{{}}\0report-status", "0".repeat(40));
            let body = packet(&format!("# service={service}\n")) + "0000" + &packet(&first) + "0000";
            stream.write_all(answer("advertisement", &body, body.len()).as_bytes()).await?;
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut pack = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut pack).await?;
        let body = packet("unpack ok\n") + &packet("ok refs/heads/main\n");
        stream.write_all(answer("result", &body, 1000).as_bytes()).await?;
        // Until the client leaves.
        stream.read_u8().await?;
    }
}

#[tokio::test]
async fn a_push_that_was_accepted_counts_although_the_server_goes_on_until_the_deadline() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/state.git", listener.local_addr().expect("an address"));
    let serving = tokio::spawn(serve_without_end(listener));
    // Enough for all that comes before, however slow this machine is.
    let deadlines = (0..7).map(|power| Duration::from_secs(1 << power));
    for (at, deadline) in deadlines.enumerate() {
        let config = GitConfig { deadline, ..GitConfig::new("default", &url) };
        let cache = bed.directory.path().join(format!("cache-{at}"));
        match open(config, cache).expect("usable").write(placement("a", "1")).await {
            Ok(written) => {
                assert!(written.changed);
                serving.abort();
                return;
            }
            Err(error) => assert_eq!(error.category(), "StoreTimeout", "{error}"),
        }
    }
    panic!("it is never called written");
}

#[tokio::test]
async fn a_password_that_is_changed_between_the_question_and_the_push_is_told() {
    let bed = Bed::new();
    let server = Arc::new(Server::plain(bed.directory.path()).await);
    server.require("kratix", "s3cret");
    let mut config = config(&server);
    config.auth = Auth::Basic { username: "kratix".to_owned(), password: "s3cret".into() };
    let store = open(config, bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    let rotating = Arc::downgrade(&server);
    server.before_requests(move |step| {
        if step == Step::Send {
            rotating.upgrade().expect("it serves").require("kratix", "rotated");
        }
    });
    assert_eq!(trouble(store.write(placement("b", "1")).await).trouble, Trouble::Unauthorized);
    server.before_requests(|_| {});
    server.require("kratix", "s3cret");
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.commits(), 2);
}

#[tokio::test]
async fn a_server_that_moves_a_repository_while_it_is_written_is_followed() {
    let bed = Bed::new();
    let server = Arc::new(Server::plain(bed.directory.path()).await);
    let mut config = config(&server);
    config.url = server.url("old.git");
    std::os::unix::fs::symlink(bed.repository(), bed.directory.path().join("old.git")).expect("a link");
    let store = open(config, bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    server.fail(Fault::Redirect("/old.git".into(), server.url("state.git")));
    store.write(placement("b", "1")).await.expect("followed within the same write");
    // And back.
    server.fail(Fault::Redirect("/state.git".into(), server.url("old.git")));
    assert_eq!(trouble(store.write(placement("c", "1")).await).trouble, Trouble::Redirected);
    store.write(placement("c", "1")).await.expect("asked at the first address again");
    // What is pushed goes where the branches were asked for, and nowhere else.
    server.fail(Fault::None);
    let other = Server::plain(bed.directory.path()).await;
    let (sending, to) = (Arc::downgrade(&server), other.url("old.git"));
    server.before_requests(move |step| {
        let fault = if step == Step::Send { Fault::Redirect("/old.git".into(), to.clone()) } else { Fault::None };
        sending.upgrade().expect("it serves").fail(fault);
    });
    assert_eq!(trouble(store.write(placement("d", "1")).await).trouble, Trouble::Redirected);
    assert_eq!(other.requests(), 0);
    server.before_requests(|_| {});
    // For ever on.
    server.fail(Fault::Redirect("/".into(), server.url("state.git/")));
    assert_eq!(trouble(store.write(placement("d", "1")).await).trouble, Trouble::Redirected);
    assert_eq!(bed.commits(), 3);
}

#[tokio::test]
async fn what_is_no_git_server_of_this_kind_is_told_apart() {
    let bed = Bed::new();
    let server = Server::plain(bed.directory.path()).await;
    let other = bed.directory.path().join("other.git");
    std::fs::create_dir(&other).expect("a directory");
    git(&other, &["init", "-q", "--bare", "--object-format=sha256", "-b", "main"]);
    let other = GitConfig::new("default", server.url("other.git"));
    let error = open(other, bed.cache()).expect("usable").write(placement("a", "1")).await.expect_err("other ids");
    assert!(error.to_string().contains("hash algorithm"), "{error}");

    let page = |content_type: &'static str, body: &'static str| {
        let answer = move |_: &http::request::Parts| {
            let mut response = http::Response::new(http_body_util::Full::from(body));
            response.headers_mut().insert("content-type", http::HeaderValue::from_static(content_type));
            response
        };
        server.handle("/state.git", Arc::new(answer));
    };
    let advertisement = "application/x-git-upload-pack-advertisement";
    for (content_type, body, category) in [
        ("text/html", "<html>sign in</html>", "StoreNotARepository"),
        ("text/plain", "1111111111111111111111111111111111111111\trefs/heads/main\n", "StoreNotARepository"),
        (advertisement, "<html>", "GitFailed"),
        (advertisement, "ffffgarbage", "GitFailed"),
        (advertisement, "001e# service=git-upload-pack\n0000", "StoreUnreachable"),
        (advertisement, "001e# service=git-upload-pack\n0000003c1111", "StoreUnreachable"),
        (advertisement, "001e# service=git-upload-pack\n0000001aERR s3cret is blocked\n", "GitFailed"),
    ] {
        page(content_type, body);
        let mut config = config(&server);
        config.auth = Auth::Basic { username: "kratix".to_owned(), password: "s3cret".into() };
        let error = open(config, bed.cache()).expect("usable").check().await.expect_err("no repository");
        let text = error.to_string();
        assert_eq!((error.category(), error.retry()), (category, Retry::Backoff), "{body:?}: {text}");
        assert!(!text.contains(['\n']) && !text.contains("s3cret"), "{text}");
    }
    // As proxies answer that have altered a page.
    let answer = |asked: &http::request::Parts| {
        let agent = asked.headers["user-agent"].to_str().expect("text");
        assert!(
            agent.starts_with("git/2."),
            "some servers take it for a browser, or for a git that is too old: {agent}"
        );
        let mut response = http::Response::new(http_body_util::Full::from("<html>sign in</html>"));
        *response.status_mut() = http::StatusCode::NON_AUTHORITATIVE_INFORMATION;
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html"));
        response
    };
    server.handle("/state.git", Arc::new(answer));
    let error = store(&bed, &server).check().await.expect_err("no repository");
    assert_eq!(error.category(), "StoreNotARepository", "{error}");
}

/// Turns the first connection away as servers do that speak older kinds of TLS only, and hands the others on.
async fn turn_away_once(listener: TcpListener, server: u16) {
    for at in 0_usize.. {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(async move {
            if at > 0 {
                let mut inner = TcpStream::connect(("127.0.0.1", server)).await?;
                return tokio::io::copy_bidirectional(&mut stream, &mut inner).await.map(drop);
            }
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).await?;
            let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
            stream.read_exact(&mut rest).await?;
            // Fatal: handshake failure.
            stream.write_all(&[21, 3, 3, 0, 2, 2, 40]).await?;
            stream.read_to_end(&mut rest).await.map(drop)
        });
    }
}

#[tokio::test]
async fn a_server_whose_tls_only_git_speaks_is_left_to_git() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let mut config = config(&server);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = |url: &str| -> String { url.rsplit([':', '/']).nth(1).expect("a port").to_owned() };
    let (inner, outer) = (port(&config.url), listener.local_addr().expect("an address").port());
    config.url = config.url.replace(&inner, &outer.to_string());
    let serving = tokio::spawn(turn_away_once(listener, inner.parse().expect("a number")));
    open(config, bed.cache()).expect("usable").check().await.expect("usable");
    serving.abort();
}

// A private server often has one certificate only, which vouches for itself.
#[tokio::test]
async fn a_certificate_that_only_git_trusts_is_trusted() {
    let bed = Bed::new();
    let server = Server::tls_as(bed.directory.path(), Identity::own("localhost")).await;
    let store = store(&bed, &server);
    store.check().await.expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    store.write(Change::remove("a", "worker-1/a")).await.expect("removed");
    assert_eq!(bed.commits(), 2);
    let mut stranger = config(&server);
    stranger.tls.ca_pem = None;
    let error = open(stranger, bed.cache()).expect("usable").check().await.expect_err("not trusted");
    assert_eq!(error.trouble.to_string(), "the server's certificate is not trusted: it is an authority's own");
}
