//! What goes wrong with servers, networks and credentials.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kratix_state_store::{BucketAuth, BucketConfig, Error, Retry, Secret, Tls, Trouble, WriteError};
use kratix_testing::authority::{Identity, Validity};
use kratix_testing::port;
use kratix_testing::s3::{ACCESS_KEY, Fault, Options, SECRET_KEY};

use super::{BUCKET, Shelf, keys, open_bucket, replace, together};

async fn trouble(config: BucketConfig) -> Error {
    open_bucket(config).check().await.expect_err("trouble")
}

#[tokio::test]
async fn a_check_proves_that_objects_can_be_written_and_leaves_none() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = open_bucket(BucketConfig { path: "s".to_owned(), ..shelf.config() });
    store.check().await.expect("usable");
    let requests = shelf.server.take_requests();
    let started = requests.iter().any(|request| request == "POST /state/s/.kratix-write-permission-check?uploads=");
    assert!(started, "{requests:?}");
    assert!(requests.iter().any(|request| request.starts_with("DELETE /state/s/.kratix-write-permission-check?")));
    assert_eq!((shelf.keys().await.len(), shelf.server.uploads(BUCKET).await), (0, 0));
    // What may be read only is no place to write.
    shelf.server.intercept(|request| request.starts_with("POST").then_some(Fault::Answer(403, "AccessDenied")));
    let forbidden = store.check().await.expect_err("forbidden");
    assert_eq!(forbidden.trouble, Trouble::Forbidden("AccessDenied: As the test wants it".to_owned()));
    // An upload that cannot be aborted has proved enough.
    shelf.server.intercept(|request| request.starts_with("DELETE").then_some(Fault::Answer(403, "AccessDenied")));
    store.check().await.expect("usable");
}

/// §14.4
#[tokio::test]
async fn wrong_keys_are_refused_in_the_servers_words_and_no_secret_is_shown() {
    let Some(shelf) = Shelf::new().await else { return };
    let with = |id: &str, secret: &str| BucketConfig {
        auth: BucketAuth::Keys { id: id.to_owned(), secret: Secret::new(secret) },
        ..shelf.config()
    };
    for (config, code) in [
        // This server's own word for it.
        (with("another", SECRET_KEY), "XAdminUserNotFound"),
        (with(ACCESS_KEY, "hunter2"), "SignatureDoesNotMatch"),
        (with(ACCESS_KEY, &format!("{SECRET_KEY}\n")), "SignatureDoesNotMatch"),
    ] {
        let error = trouble(config).await;
        assert!(matches!(&error.trouble, Trouble::AccessKeyRefused(text) if text.starts_with(code)), "{error}");
        assert_eq!((error.category(), error.retry()), ("StoreUnauthorized", Retry::OnChange));
        assert!(error.hint().is_some_and(|hint| hint.contains("both keys in the secret")));
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2") && !text.contains(SECRET_KEY) && !text.contains('\n'), "{text}");
    }
    assert_eq!(format!("{:?}", with("i", "hunter2")).matches("hunter2").count(), 0);
}

/// Weakness 46
#[tokio::test]
async fn a_missing_bucket_is_named_before_anything_is_written() {
    let Some(shelf) = Shelf::new().await else { return };
    let config = BucketConfig { bucket: "nowhere".to_owned(), ..shelf.config() };
    let error = trouble(config.clone()).await;
    assert_eq!(error.trouble, Trouble::BucketMissing("nowhere".to_owned()));
    let text = error.to_string();
    assert!(text.ends_with("/nowhere): bucket \"nowhere\" does not exist"), "{text}");
    let store = open_bucket(config);
    for change in [
        replace("p", "d", &[("a", "a")]),
        kratix_state_store::Change::edit("p", "d", Vec::new(), vec!["a".to_owned()]),
        kratix_state_store::Change::share("p", "d", ".kratix/p.yaml", None),
    ] {
        assert_eq!(store.write(change).await, Err(WriteError::Store(error.clone())));
    }
    let requests = shelf.requests();
    assert!(requests.iter().all(|request| !request.starts_with("PUT")), "{requests:?}");
    shelf.server.add_bucket("nowhere").await;
    store.check().await.expect("usable now");
}

#[tokio::test]
async fn a_server_that_is_gone_is_said_to_be_and_is_used_again_once_it_is_back() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.write(replace("p", "d", &[("a", "a")])).await.expect("written");
    shelf.server.intercept(|_| Some(Fault::Break));
    let gone = store.write(replace("p", "d", &[("a", "b")])).await.expect_err("gone");
    assert!(matches!(&gone, WriteError::Store(error) if matches!(error.trouble, Trouble::Unreachable(_))), "{gone}");
    assert_eq!(gone.retry(), Retry::Backoff);
    shelf.server.relent();
    store.write(replace("p", "d", &[("a", "b")])).await.expect("written");

    let nobody = port::Held::take();
    let endpoint = nobody.address().to_string();
    let error = trouble(BucketConfig { endpoint, ..shelf.config() }).await;
    assert_eq!(error.trouble, Trouble::Unreachable("Connection refused".to_owned()));
    let endpoint = "bucket.does-not-exist.invalid".to_owned();
    let error = trouble(BucketConfig { endpoint: endpoint.clone(), ..shelf.config() }).await;
    assert_eq!(error.trouble, Trouble::UnknownHost(endpoint));
}

#[tokio::test]
async fn many_who_wait_for_a_server_that_is_gone_share_its_trouble_and_are_written_once_after_it() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.check().await.expect("usable");
    shelf.server.intercept(|_| Some(Fault::Break));
    shelf.requests();
    let changes = || (0..500).map(|n| replace(&n.to_string(), &format!("d/{n}"), &[("a", "a")])).collect::<Vec<_>>();
    let outcomes = together(&store, changes()).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(WriteError::Store(_)))));
    let tried = shelf.requests().len();
    assert!(tried < 600, "{tried} requests");
    shelf.server.relent();
    assert!(together(&store, changes()).await.iter().all(Result::is_ok));
    let methods = shelf.methods();
    assert_eq!((methods["PUT"], methods["LIST"]), (500, 500));
}

#[tokio::test]
async fn a_server_that_is_busy_for_a_moment_is_asked_again_and_one_that_stays_so_is_not_for_ever() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let count = AtomicUsize::new(0);
    shelf.server.intercept(move |request| {
        let is_early = request.starts_with("PUT") && count.fetch_add(1, Ordering::Relaxed) < 2;
        is_early.then_some(Fault::Answer(503, "SlowDown"))
    });
    store.write(replace("p", "d", &[("a", "a")])).await.expect("written");
    for (status, code) in [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")] {
        shelf.server.intercept(move |_| Some(Fault::Answer(status, code)));
        let error = store.write(replace("p", "d", &[("a", "b")])).await.expect_err("busy");
        let expected = Trouble::ServerFailed(format!("{code}: As the test wants it"));
        assert!(matches!(&error, WriteError::Store(error) if error.trouble == expected), "{error}");
        assert_eq!(error.retry(), Retry::Backoff);
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_again_and_nothing_is_written_twice_over_it() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    let count = AtomicUsize::new(0);
    shelf.server.intercept(move |request| {
        let is_third = request.starts_with("PUT") && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
        is_third.then_some(Fault::BreakAfter)
    });
    let share = || {
        let files = Some((0..5).map(|n| super::file(&n.to_string(), "x")).collect());
        kratix_state_store::Change::share("o", "w", ".kratix/o.yaml", files)
    };
    store.write(share()).await.expect("written");
    assert_eq!(shelf.keys().await.len(), 6);
    shelf.server.relent();
    assert!(!store.write(share()).await.expect("nothing to do").changed);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_after_the_deadline() {
    let Some(shelf) = Shelf::new().await else { return };
    let deadline = Duration::from_millis(300);
    let store = open_bucket(BucketConfig { deadline, ..shelf.config() });
    store.check().await.expect("usable");
    shelf.server.intercept(|request| request.starts_with("PUT").then_some(Fault::Hang));
    let error = store.write(replace("p", "d", &[("a", "a")])).await.expect_err("no answer");
    assert!(matches!(&error, WriteError::Store(error) if error.trouble == Trouble::Timeout(deadline)), "{error}");
    shelf.server.relent();
    store.write(replace("p", "d", &[("a", "a")])).await.expect("written");
}

#[tokio::test]
async fn some_objects_written_and_then_trouble_is_finished_by_the_next_attempt() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.write(replace("p", "d", &[("old", "o"), ("a", "before")])).await.expect("written");
    shelf.server.intercept(|request| request.starts_with("PUT /state/d/c").then_some(Fault::Answer(400, "Odd")));
    let files = [("a", "a"), ("b", "b"), ("c", "c")];
    let error = store.write(replace("p", "d", &files)).await.expect_err("refused");
    assert!(matches!(error, WriteError::Refused(_)), "{error}");
    assert_eq!(shelf.keys().await, ["d/a", "d/b", "d/old"], "nothing is removed before all is written");
    shelf.server.relent();
    shelf.requests();
    store.write(replace("p", "d", &files)).await.expect("written");
    let requests = shelf.requests();
    assert_eq!(requests.len(), 3, "a listing, what was missing, and the removal: {requests:?}");
    assert_eq!(shelf.keys().await, ["d/a", "d/b", "d/c"]);
}

#[tokio::test]
async fn removals_are_all_attempted_and_counted_when_they_fail() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.write(replace("p", "d", &[("a", "a"), ("b", "b"), ("c", "c")])).await.expect("written");
    shelf.server.intercept(|request| {
        let is_kept = request.starts_with("DELETE /state/d/a") || request.starts_with("DELETE /state/d/b");
        is_kept.then_some(Fault::Answer(400, "Locked"))
    });
    let error = store.write(kratix_state_store::Change::remove("p", "d")).await.expect_err("refused");
    let text = error.to_string();
    assert!(
        text.ends_with("failed to delete 2 objects: the server refuses it: Locked: As the test wants it"),
        "{text}"
    );
    assert_eq!(shelf.keys().await, ["d/a", "d/b"]);
}

#[tokio::test]
async fn a_server_of_another_region_is_asked_as_it_wants_to_be() {
    let options = Options { region: Some("eu-far-7".to_owned()), ..Options::default() };
    let Some(shelf) = Shelf::with(options).await else { return };
    let store = shelf.store();
    store.check().await.expect("usable");
    store.write(replace("p", "d", &[("a", "a")])).await.expect("written");
    shelf.store().write(replace("p", "d", &[("a", "b")])).await.expect("written");
}

/// Decision 8
#[tokio::test]
async fn the_servers_certificate_is_verified_unless_the_store_says_otherwise() {
    let identity = Identity::local();
    let ca_pem = identity.ca_pem.clone().into_bytes();
    let Some(shelf) = Shelf::with(Options { tls: Some(identity), ..Options::default() }).await else { return };
    let with = |tls: Tls| BucketConfig { tls, ..shelf.config() };
    let trusting = |pem: Vec<u8>| with(Tls { ca_pem: Some(pem), insecure: false, ..Tls::default() });
    open_bucket(trusting(ca_pem.clone())).check().await.expect("trusted");
    open_bucket(with(Tls { insecure: true, ..Tls::default() })).check().await.expect("not verified");

    let error = trouble(with(Tls::default())).await;
    assert_eq!(error.trouble, Trouble::Untrusted("its issuer is unknown".to_owned()));
    assert!(error.hint().is_some_and(|hint| hint.contains("caFile") && hint.contains("insecure switch")));
    let error = trouble(trusting(Identity::local().ca_pem.into_bytes())).await;
    assert!(matches!(error.trouble, Trouble::Untrusted(_)), "{error}");
    for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = kratix_state_store::open(trusting(pem.as_bytes().to_vec()), "unused").expect_err("unusable");
        assert!(matches!(&error.trouble, Trouble::Authority { file, .. } if file.contains("caFile")), "{error}");
    }
    // Both halves of a misunderstanding.
    let plain = BucketConfig { plain_http: true, ..shelf.config() };
    assert!(matches!(trouble(plain).await.trouble, Trouble::Unreachable(_)));
    let Some(without) = Shelf::new().await else { return };
    let error = trouble(BucketConfig { plain_http: false, ..without.config() }).await;
    assert_eq!(error.trouble, Trouble::NotTls);
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused_with_the_reason() {
    for (names, validity, reason) in [
        (["127.0.0.1"], Validity::Past, "it has expired"),
        (["127.0.0.1"], Validity::Future, "it is not valid yet"),
        (["elsewhere.example"], Validity::Present, "it is for another host name"),
    ] {
        let identity = Identity::new(&names, validity);
        let ca_pem = Some(identity.ca_pem.clone().into_bytes());
        let Some(shelf) = Shelf::with(Options { tls: Some(identity), ..Options::default() }).await else { return };
        let error =
            trouble(BucketConfig { tls: Tls { ca_pem, insecure: false, ..Tls::default() }, ..shelf.config() }).await;
        assert_eq!(error.trouble, Trouble::Untrusted(reason.to_owned()));
    }
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused_at_once() {
    let config = |endpoint: &str| BucketConfig::new("default", endpoint, BUCKET, keys(SECRET_KEY));
    for (config, text) in [
        (config("https://minio"), "without scheme and path"),
        (BucketConfig { bucket: "a/b".to_owned(), ..config("minio") }, "cannot be the name of a bucket"),
        (BucketConfig { path: "../x".to_owned(), ..config("minio") }, "path \"../x\" cannot be used"),
        (BucketConfig { plain_http: true, ..config("az://account") }, "plain HTTP is for"),
    ] {
        let error = kratix_state_store::open(config, "unused").expect_err("unusable");
        assert!(matches!(&error.trouble, Trouble::Config(found) if found.contains(text)), "{error}");
        assert_eq!(error.retry(), Retry::OnChange);
    }
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is_asked_nothing_for_so_long() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.check().await.expect("usable");
    shelf.server.intercept(|_| Some(Fault::Busy(3600)));
    shelf.server.take_requests();
    let error = store.write(replace("p", "d", &[("a", "a")])).await.expect_err("busy");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(shelf.server.take_requests().len(), 1, "it is not tried again at once");
    shelf.server.relent();
    let error = store.write(replace("p", "d", &[("a", "a")])).await.expect_err("busy");
    assert!(error.retry_after().is_some_and(|rest| rest <= Duration::from_secs(300)), "{error:?}");
    assert_eq!(store.check().await.expect_err("busy").category(), "StoreBusy");
    assert_eq!(shelf.server.take_requests(), Vec::<String>::new());
    // Who asks for a moment only is asked again.
    let (other, count) = (shelf.store(), AtomicUsize::new(0));
    shelf.server.intercept(move |_| (count.fetch_add(1, Ordering::Relaxed) == 2).then_some(Fault::Busy(1)));
    other.write(replace("p", "d", &[("a", "a")])).await.expect("written");
}

#[tokio::test]
async fn a_server_of_something_else_is_not_taken_for_missing_credentials() {
    let Some(shelf) = Shelf::new().await else { return };
    shelf.server.intercept(|_| Some(Fault::Welcome));
    let error = trouble(shelf.config()).await;
    assert_eq!(error.trouble, Trouble::NotUnderstood(shelf.server.endpoint()));
    assert_eq!(error.hint().as_deref(), Some("check the address of the store"));
}

#[tokio::test]
async fn what_is_refused_to_everybody_concerns_the_store_and_not_the_change() {
    let Some(shelf) = Shelf::new().await else { return };
    let store = shelf.store();
    store.check().await.expect("usable");
    shelf.server.intercept(|_| Some(Fault::Answer(400, "AccountSuspended")));
    let error = store.write(replace("p", "d", &[("a", "a")])).await.expect_err("refused");
    assert!(matches!(error, WriteError::Store(_)), "{error:?}");
    shelf.server.intercept(|_| Some(Fault::Answer(403, "RequestTimeTooSkewed")));
    let error = store.write(replace("p", "d", &[("a", "a")])).await.expect_err("refused");
    assert_eq!(error.hint().as_deref(), Some("check the clocks of this machine and of the server"));
}
