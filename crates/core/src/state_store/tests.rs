//! Tables over `decide`.

use kratix_api::state_store::{BucketAuthMethod, GitAuthMethod};
use kratix_api::{BucketStateStoreSpec, GitStateStoreSpec};

use super::*;
use crate::work::tests::{at, merge};

fn git(url: &str) -> GitStateStore {
    let secret = SecretRef { name: "creds".into(), namespace: String::new() };
    let spec = GitStateStoreSpec { url: url.into(), secret_ref: Some(secret), ..Default::default() };
    let mut store = GitStateStore::new("default", spec);
    store.metadata.uid = Some("uid".into());
    store.metadata.generation = Some(1);
    store
}

fn secret(pairs: &[(&str, &str)]) -> Secret {
    let data = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    Secret::Found { resource_version: "7".into(), data }
}

fn snapshot(store: Store, secret: Secret) -> Snapshot {
    Snapshot { now: at(0), store, secret, opened: None, is_suspect: false, fetch_interval: Duration::from_secs(5) }
}

fn of_git(store: GitStateStore, secret: Secret) -> Snapshot {
    snapshot(Store::Git(Arc::new(store)), secret)
}

fn healthy() -> Snapshot {
    of_git(git("https://git.example/x.git"), secret(&[("username", "u"), ("password", "p")]))
}

fn problem(snapshot: &Snapshot) -> (String, String) {
    let decision = decide(snapshot);
    match &decision.plan.findings[..] {
        [Finding::NotReady { reason, message }] => ((*reason).to_owned(), message.clone()),
        other => panic!("{other:?}"),
    }
}

/// Applies the status write of a plan, as the API server would.
fn after(snapshot: &Snapshot, plan: &Plan<Finding>) -> Snapshot {
    let Some(Write::PatchStatus { patch, .. }) = &plan.status else { return snapshot.clone() };
    let Store::Git(store) = &snapshot.store else { panic!("git only") };
    let mut value = serde_json::to_value(&**store).unwrap();
    merge(&mut value, patch);
    Snapshot { store: Store::Git(Arc::new(serde_json::from_value(value).unwrap())), ..snapshot.clone() }
}

fn open(snapshot: &Snapshot, outcome: Result<(), OpenFailure>) -> Snapshot {
    let Some(Effect::Open { fingerprint, .. }) = decide(snapshot).effect else { panic!("does not open") };
    let opened = Opened { fingerprint, at: snapshot.now, outcome };
    let plan = record(snapshot, opened.clone());
    Snapshot { opened: Some(opened), is_suspect: false, ..after(snapshot, &plan) }
}

fn later(snapshot: Snapshot, second: i64) -> Snapshot {
    Snapshot { now: at(second), ..snapshot }
}

fn failure(step: Step, message: &str) -> Result<(), OpenFailure> {
    Err(OpenFailure { step, message: message.into() })
}

#[test]
fn a_store_is_opened_and_then_says_that_it_is_ready_once() {
    let start = healthy();
    let decision = decide(&start);
    assert!(decision.plan.is_silent());
    let Some(Effect::Open { connection, fingerprint, .. }) = decision.effect else { panic!() };
    let Connection::Git(connection) = *connection;
    assert_eq!(connection.credentials, GitCredentials::Basic { username: "u".into(), password: "p".into() });
    assert_eq!(connection.author, ("kratix".to_owned(), String::new()));
    assert_eq!(fingerprint, "uid/1/7/5000");
    let plan = record(&start, Opened { fingerprint, at: at(0), outcome: Ok(()) });
    assert_eq!(plan.events[0].note, "GitStateStore \"default\" is ready");
    assert_eq!(plan.events[0].reporter, Reporter::GitStateStore);
    let ready = open(&start, Ok(()));
    let Store::Git(store) = &ready.store else { panic!() };
    let status = store.status.clone().unwrap();
    assert_eq!((status.status.as_str(), status.observed_generation), ("Ready", Some(1)));
    assert_eq!(status.conditions[0].reason, "StateStoreReady");
    assert_eq!(status.conditions[0].message, "State store is ready");
    let decision = decide(&ready);
    assert!(decision.plan.is_silent() && decision.effect.is_none());
}

#[test]
fn a_start_with_nothing_changed_opens_and_writes_nothing() {
    let ready = open(&healthy(), Ok(()));
    let started = Snapshot { opened: None, ..ready };
    assert!(decide(&started).effect.is_some());
    let again = open(&started, Ok(()));
    assert_eq!(again.store, started.store);
}

#[test]
fn what_is_wrong_with_a_secret_is_said_with_its_namespace() {
    let missing = of_git(git("https://x/"), Secret::NotFound);
    assert_eq!(problem(&missing), ("SecretNotFound".into(), "Secret creds not found in namespace default".into()));
    assert_eq!(decide(&missing).plan.next, Next::OnChange);
    assert_eq!(decide(&missing).effect, Some(Effect::Close));
    assert_eq!(decide(&missing).plan.events[0].note, "Secret creds not found in namespace default");
    let quiet = after(&missing, &decide(&missing).plan);
    assert!(decide(&quiet).plan.is_silent());

    let unreadable = of_git(git("https://x/"), Secret::Unreadable { message: "forbidden".into() });
    assert_eq!(problem(&unreadable), ("StateStoreError".into(), "forbidden".into()));
    assert_eq!(decide(&unreadable).plan.next, Next::After(RETRY_AFTER));

    for (method, found, key) in [
        (GitAuthMethod::BasicAuth, secret(&[("username", "u")]), "password"),
        (GitAuthMethod::Ssh, secret(&[]), "sshPrivateKey"),
        (GitAuthMethod::Ssh, secret(&[("sshPrivateKey", "k")]), "knownHosts"),
        (GitAuthMethod::GithubApp, secret(&[("appID", "1"), ("installationID", "2")]), "privateKey"),
    ] {
        let mut store = git("https://x/");
        store.spec.auth_method = method;
        let message = format!(
            "unable to create git writer: could not create auth method: {key} not found in secret default/creds"
        );
        assert_eq!(problem(&of_git(store, found)), ("ErrorInitialisingWriter".into(), message));
    }
    let mut ssh = git("ssh://git@x/");
    ssh.spec.auth_method = GitAuthMethod::Ssh;
    let (_, message) = problem(&of_git(ssh, secret(&[("sshPrivateKey", "k"), ("knownHosts", "h")])));
    assert!(message.ends_with("authMethod ssh is not available in this version, use basicAuth"));
    let mut odd = git("https://x/");
    odd.spec.auth_method = GitAuthMethod::Other("magic".into());
    assert!(problem(&of_git(odd, secret(&[]))).1.ends_with("unknown authMethod: magic"));
    let bytes = Secret::Found { resource_version: "1".into(), data: [("password".to_owned(), vec![0xff])].into() };
    assert!(problem(&of_git(git("https://x/"), bytes)).1.ends_with("password in secret default/creds is not text"));
}

#[test]
fn credentials_follow_the_rules_of_the_original() {
    for (url, pairs, expected) in [
        ("https://git.example/x", &[("password", "p")][..], Some(("", "p"))),
        ("https://GitHub.com/x", &[("password", "p")], Some(("x-access-token", "p"))),
        ("https://github.com/x", &[("password", "p"), ("username", "")], Some(("x-access-token", "p"))),
        ("https://github.com/x", &[("password", "p"), ("username", "me")], Some(("me", "p"))),
        ("https://git.example/x", &[("password", "")], None),
        ("https://git.example/x", &[("password", "p\n")], Some(("", "p\n"))),
    ] {
        let Some(Effect::Open { connection, .. }) = decide(&of_git(git(url), secret(pairs))).effect else {
            panic!("{url}")
        };
        let Connection::Git(connection) = *connection;
        let expected = expected.map_or(GitCredentials::None, |(username, password)| GitCredentials::Basic {
            username: username.into(),
            password: password.into(),
        });
        assert!(connection.credentials == expected, "{url}");
    }
    let mut local = git("/srv/git/state.git");
    local.spec.secret_ref = None;
    let Some(Effect::Open { connection, .. }) = decide(&of_git(local, Secret::NotReferenced)).effect else { panic!() };
    let Connection::Git(connection) = *connection;
    assert_eq!(connection.credentials, GitCredentials::None);
}

#[test]
fn only_addresses_that_keep_secrets_are_used() {
    for url in [
        "https://git.example/x.git",
        "file:///srv/x.git",
        "/srv/x.git",
        "http://localhost:3000/x",
        "http://127.0.0.1/x",
        "http://u@127.0.0.1:8080/x",
        "http://[::1]:80/x",
    ] {
        assert!(
            matches!(decide(&of_git(git(url), secret(&[("password", "p")]))).effect, Some(Effect::Open { .. })),
            "{url}"
        );
    }
    let prefix = "unable to create git writer: could not create git native client: invalid URL for HTTPS auth method: ";
    for (url, shown) in [
        ("http://git.example/x", "http://git.example/x (http is only allowed for loopback hosts)"),
        ("http://127.0.0.1@evil.example/x", "http://evil.example/x (http is only allowed for loopback hosts)"),
        (
            "http://127.0.0.1.evil.example/x",
            "http://127.0.0.1.evil.example/x (http is only allowed for loopback hosts)",
        ),
        ("ssh://git@git.example/x", "ssh://git.example/x"),
        ("ftp://user:secret@git.example/x", "ftp://git.example/x"),
        ("git@git.example:x.git", "git@git.example:x.git"),
        ("", ""),
    ] {
        let (reason, message) = problem(&of_git(git(url), secret(&[("password", "p")])));
        assert_eq!((reason.as_str(), message), ("ErrorInitialisingWriter", format!("{prefix}{shown}")));
    }
}

#[test]
fn each_step_of_opening_has_its_message() {
    for (step, reason, message) in [
        (Step::Configure, "ErrorInitialisingWriter", "unable to create git writer: no"),
        (Step::Read, "ErrorInitialisingWriter", "unable to clone repository: no"),
        (Step::Authenticate, "ErrorInitialisingWriter", "unable to clone repository: Authentication failed: no"),
        (
            Step::Write,
            "ErrorValidatingPermissions",
            "Error validating state store permissions: write permission validation failed: no",
        ),
    ] {
        let failed = open(&healthy(), failure(step, "no"));
        assert_eq!(problem(&failed), (reason.to_owned(), message.to_owned()));
        let Store::Git(store) = &failed.store else { panic!() };
        assert_eq!(store.status.as_ref().unwrap().status, "NotReady");
        let early = decide(&later(failed.clone(), 10));
        assert_eq!((early.effect, early.plan.next), (None, Next::After(Duration::from_secs(5))));
        let again = later(failed, 15);
        assert!(decide(&again).plan.is_silent() && decide(&again).effect.is_some());
        let healed = open(&again, Ok(()));
        assert_eq!(decide(&healed).plan.findings, [Finding::Ready]);
    }
}

#[test]
fn a_line_break_in_a_refused_password_is_pointed_out() {
    let start = of_git(git("https://x/"), secret(&[("password", "p\n")]));
    let Some(Effect::Open { fingerprint, .. }) = decide(&start).effect else { panic!() };
    let opened = Opened { fingerprint, at: at(0), outcome: failure(Step::Authenticate, "no") };
    let plan = record(&start, opened);
    assert_eq!(plan.events[1].reason, "InvalidCredentials");
    assert_eq!(plan.events[1].note, "password in secret default/creds ends with a line break, remove it");
}

#[test]
fn a_changed_secret_or_spec_is_opened_anew() {
    let ready = open(&healthy(), Ok(()));
    let mut rotated = ready.clone();
    rotated.secret =
        Secret::Found { resource_version: "8".into(), data: [("password".to_owned(), b"new".to_vec())].into() };
    assert!(decide(&rotated).effect.is_some() && decide(&rotated).plan.is_silent());
    let place = |snapshot: &Snapshot| match decide(&Snapshot { opened: None, ..snapshot.clone() }).effect {
        Some(Effect::Open { place, .. }) => place,
        other => panic!("{other:?}"),
    };
    assert_eq!(place(&rotated), place(&ready), "other credentials are no other place");
    let reconfigured = Snapshot { fetch_interval: Duration::ZERO, ..ready.clone() };
    assert!(decide(&reconfigured).effect.is_some() && decide(&reconfigured).plan.is_silent());
    assert_eq!(place(&reconfigured), place(&ready));
    let mut moved = ready.clone();
    let Store::Git(store) = &mut moved.store else { panic!() };
    let store = Arc::make_mut(store);
    store.spec.branch = "other".into();
    store.metadata.generation = Some(2);
    assert_ne!(place(&moved), place(&ready));
    let moved = open(&moved, Ok(()));
    let Store::Git(store) = &moved.store else { panic!() };
    assert_eq!(store.status.as_ref().unwrap().observed_generation, Some(2));
}

#[test]
fn trouble_of_a_writer_has_the_store_checked_again() {
    let ready = open(&healthy(), Ok(()));
    let suspect = Snapshot { is_suspect: true, now: at(5), ..ready };
    assert_eq!(decide(&suspect).effect, None);
    assert_eq!(decide(&suspect).plan.next, Next::After(Duration::from_secs(10)));
    let checked = open(&later(suspect, 15), failure(Step::Authenticate, "revoked"));
    assert!(problem(&checked).1.contains("revoked"));
}

#[test]
fn a_bucket_store_says_what_is_missing_and_then_that_it_is_not_available() {
    let bucket = |method: BucketAuthMethod, has_secret: bool| {
        let reference = has_secret.then(|| SecretRef { name: "s".into(), namespace: "n".into() });
        let spec = BucketStateStoreSpec { auth_method: method, secret_ref: reference, ..Default::default() };
        Store::Bucket(Arc::new(BucketStateStore::new("b", spec)))
    };
    let key = BucketAuthMethod::AccessKey;
    for (store, secret, message) in [
        (bucket(key.clone(), false), Secret::NotReferenced, "secret not provided"),
        (bucket(key.clone(), true), secret(&[]), "secret is missing key: accessKeyID"),
        (bucket(key.clone(), true), secret(&[("accessKeyID", "a")]), "secret is missing key: secretAccessKey"),
        (
            bucket(key, true),
            secret(&[("accessKeyID", "a"), ("secretAccessKey", "b")]),
            "bucket stores are not available in this version, use a GitStateStore",
        ),
        (
            bucket(BucketAuthMethod::Iam, false),
            Secret::NotReferenced,
            "bucket stores are not available in this version, use a GitStateStore",
        ),
        (bucket(BucketAuthMethod::Other("x".into()), false), Secret::NotReferenced, "unknown authMethod: x"),
    ] {
        let expected = ("ErrorInitialisingWriter".to_owned(), format!("unable to create bucket writer: {message}"));
        let snapshot = snapshot(store, secret);
        assert_eq!(problem(&snapshot), expected);
        assert_eq!(decide(&snapshot).plan.events[0].reporter, Reporter::BucketStateStore);
    }
    let gone = snapshot(bucket(BucketAuthMethod::AccessKey, true), Secret::NotFound);
    assert_eq!(problem(&gone).1, "Secret s not found in namespace n");
}

#[test]
fn contents_of_secrets_are_never_shown() {
    let shown = format!("{:?} {:?}", healthy(), decide(&healthy()));
    assert!(!shown.contains("\"p\"") && !shown.contains("[112]"), "{shown}");
}

#[test]
fn messages_are_cut_to_what_a_condition_holds() {
    let failed = open(&healthy(), failure(Step::Read, &"é".repeat(40_000)));
    assert!(problem(&failed).1.len() <= 32_768);
}
