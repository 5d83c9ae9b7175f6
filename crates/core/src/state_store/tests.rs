//! Tables over `decide`.

use std::sync::Arc;

use kratix_api::state_store::{BucketAuthMethod, GitAuthMethod};
use kratix_api::{BucketStateStore, BucketStateStoreSpec, GitStateStore, GitStateStoreSpec, SecretRef};

use super::*;
use crate::plan::Reporter;
use crate::work::tests::{at, merge};

mod keys;
mod limit;
mod silence;

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
    let (pushes, fetch_interval) = (Pushes::default(), Duration::from_secs(5));
    let (is_suspect, was_cleared, is_refusal_shown) = (false, false, false);
    let (opened, under_way) = (None, None);
    let now = at(0);
    Snapshot {
        now,
        store,
        secret,
        opened,
        is_suspect,
        was_cleared,
        under_way,
        pushes,
        is_refusal_shown,
        fetch_interval,
    }
}

fn of_git(store: GitStateStore, secret: Secret) -> Snapshot {
    snapshot(Store::Git(Arc::new(store)), secret)
}

fn healthy() -> Snapshot {
    of_git(git("https://git.example/x.git"), secret(&[("username", "u"), ("password", "p")]))
}

/// Returns reason and cause, without what can be done about it.
fn problem(snapshot: &Snapshot) -> (String, String) {
    let (reason, message) = told(snapshot);
    let cause = message.split("; hint: ").next().unwrap().to_owned();
    (reason, cause)
}

/// Returns reason and message.
fn told(snapshot: &Snapshot) -> (String, String) {
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
    let Some(Effect::Open { fingerprint, .. } | Effect::Check { fingerprint }) = decide(snapshot).effect else {
        panic!("does not open")
    };
    let opened = Opened { fingerprint, at: snapshot.now, outcome };
    let plan = record(snapshot, opened.clone());
    Snapshot { opened: Some(opened), is_suspect: false, ..after(snapshot, &plan) }
}

fn later(snapshot: Snapshot, second: i64) -> Snapshot {
    Snapshot { now: at(second), ..snapshot }
}

fn failure(step: Step, message: &str) -> Result<(), OpenFailure> {
    Err(OpenFailure { step, message: message.into(), retry_after: None })
}

#[test]
fn a_store_is_opened_and_then_says_that_it_is_ready_once() {
    let start = healthy();
    let decision = decide(&start);
    assert!(decision.plan.is_silent());
    let Some(Effect::Open { connection, fingerprint, .. }) = decision.effect else { panic!() };
    let Connection::Git(connection) = *connection else { panic!() };
    assert_eq!(connection.credentials, GitCredentials::Basic { username: "u".into(), password: "p".into() });
    assert_eq!(connection.author, ("kratix".to_owned(), String::new()));
    assert_eq!(fingerprint, "uid/1/7/5000/0");
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
    let told_of =
        "Secret creds not found in namespace default; hint: create it, or correct spec.secretRef of the store";
    assert_eq!(decide(&missing).plan.events[0].note, told_of);
    let quiet = after(&missing, &decide(&missing).plan);
    assert!(decide(&quiet).plan.is_silent());

    let unreadable = of_git(git("https://x/"), Secret::Unreadable { message: "forbidden".into() });
    assert_eq!(problem(&unreadable), ("StateStoreError".into(), "forbidden".into()));
    assert_eq!(decide(&unreadable).plan.next, Next::After(RETRY_AFTER));

    for (method, found, key) in [
        (GitAuthMethod::BasicAuth, secret(&[("username", "u")]), "password"),
        (GitAuthMethod::Ssh, secret(&[]), "sshPrivateKey"),
        (GitAuthMethod::Ssh, secret(&[("sshPrivateKey", "k")]), "knownHosts"),
        (GitAuthMethod::GithubApp, secret(&[("installationID", "2"), ("privateKey", "k")]), "appID"),
        (GitAuthMethod::GithubApp, secret(&[("appID", "1"), ("privateKey", "k")]), "installationID"),
        (GitAuthMethod::GithubApp, secret(&[("appID", "1"), ("installationID", "2")]), "privateKey"),
    ] {
        let mut store = git("https://x/");
        store.spec.auth_method = method;
        let message = format!(
            "unable to create git writer: could not create auth method: {key} not found in secret default/creds"
        );
        assert_eq!(problem(&of_git(store, found)), ("ErrorInitialisingWriter".into(), message));
    }
    let mut odd = git("https://x/");
    odd.spec.auth_method = GitAuthMethod::Other("magic".into());
    assert!(problem(&of_git(odd, secret(&[]))).1.ends_with("unknown authMethod: magic"));
    let bytes = Secret::Found { resource_version: "1".into(), data: [("password".to_owned(), vec![0xff])].into() };
    assert!(problem(&of_git(git("https://x/"), bytes)).1.ends_with("password in secret default/creds is not text"));
}

#[test]
fn a_secret_that_cannot_be_read_has_no_effect_on_what_is_open() {
    let unreadable = || Secret::Unreadable { message: "the API server does not answer".into() };
    let ready = open(&healthy(), Ok(()));
    let unread = Snapshot { secret: unreadable(), ..ready.clone() };
    let decision = decide(&unread);
    assert!(decision.plan.is_silent() && decision.effect.is_none(), "{decision:?}");
    assert_eq!(decision.plan.next, Next::After(RETRY_AFTER));
    assert_eq!(
        fingerprint(&unread),
        None,
        "what is asked meanwhile is asked with settings that may well be the present ones"
    );
    // Also not on one that is open with former settings.
    let Store::Git(store) = &ready.store else { panic!("git only") };
    let mut changed = (**store).clone();
    changed.metadata.generation = Some(2);
    let changed = Snapshot { store: Store::Git(Arc::new(changed)), ..unread };
    assert!(decide(&changed).plan.is_silent() && decide(&changed).effect.is_none());
    // That a Secret is gone is known.
    let gone = Snapshot { secret: Secret::NotFound, ..ready.clone() };
    assert_eq!(decide(&gone).effect, Some(Effect::Close));
    // What is not open stays so, and says why.
    for opened in [None, open(&healthy(), failure(Step::Read, "no")).opened] {
        let closed = Snapshot { secret: unreadable(), opened, ..ready.clone() };
        assert_eq!(problem(&closed), ("StateStoreError".into(), "the API server does not answer".into()));
        assert_eq!(decide(&closed).plan.next, Next::After(RETRY_AFTER));
    }
}

#[test]
fn who_was_refused_shows_it_by_its_object_alone() {
    let placement = |status: Status, message: &str| {
        let mut placement = kratix_api::WorkPlacement::new("p", kratix_api::WorkPlacementSpec::default());
        let condition = Condition::new(condition::WRITE_SUCCEEDED, status, "R", message);
        placement.status = Some(kratix_api::WorkPlacementStatus { conditions: vec![condition], ..Default::default() });
        Arc::new(placement)
    };
    let destination = |message: &str| {
        let mut destination = kratix_api::Destination::new("d", kratix_api::DestinationSpec::default());
        let condition = Condition::new(condition::READY, Status::False, "R", message);
        destination.status = Some(kratix_api::DestinationStatus { conditions: vec![condition] });
        Arc::new(destination)
    };
    let refused =
        || placement(Status::False, "failed to push: state store default (u): branch \"main\" refuses it: no");
    let others = || vec![placement(Status::True, "written"), placement(Status::False, "path \"..\" cannot be written")];
    let test_documents = destination("Failed to write test documents to State Store: failed to push: no");
    let ready = open(&healthy(), Ok(()));
    let refusing = Snapshot { pushes: Pushes::Refused("failed to push: frozen".into()), ..ready.clone() };
    let store = after(&refusing, &decide(&refusing).plan).store;
    assert!(is_refusal_shown(&store, &[], others().into_iter().chain([refused()])));
    assert!(is_refusal_shown(&store, &[test_documents], others()));
    assert!(!is_refusal_shown(&store, &[destination("not ready")], others()));
    assert!(!is_refusal_shown(&ready.store, &[], [refused()]), "the store does not say so");
    let takes_back = |old: &Arc<kratix_api::WorkPlacement>, new: Option<&Arc<_>>| {
        takes_back(Some(&**old), new.map(|new: &Arc<kratix_api::WorkPlacement>| &**new))
    };
    assert!(takes_back(&refused(), Some(&others()[0])) && takes_back(&refused(), None));
    assert!(!takes_back(&refused(), Some(&refused())) && !takes_back(&others()[1], None));
}

#[test]
fn a_store_that_refuses_what_it_is_given_says_so_once_and_until_it_takes_something() {
    let condition = |snapshot: &Snapshot| {
        let Store::Git(store) = &snapshot.store else { panic!("git only") };
        let conditions = store.status.clone().unwrap_or_default().conditions;
        condition::find(&conditions, "PushesAccepted").map(|found| (found.reason.clone(), found.message.clone()))
    };
    let ready = open(&healthy(), Ok(()));
    let refusing = Snapshot { pushes: Pushes::Refused("failed to push: frozen".into()), ..ready.clone() };
    let plan = decide(&refusing).plan;
    assert_eq!(plan.events.len(), 1, "{:?}", plan.events);
    assert_eq!((plan.events[0].reason, plan.events[0].note.as_str()), ("PushRefused", "failed to push: frozen"));
    let refusing = after(&refusing, &plan);
    assert_eq!(condition(&refusing), Some(("PushRefused".into(), "failed to push: frozen".into())));
    assert!(decide(&refusing).plan.is_silent());
    // Another process knows nothing yet, and leaves it to those who were refused.
    let restarted = Snapshot { pushes: Pushes::Unknown, is_refusal_shown: true, ..refusing.clone() };
    assert!(decide(&restarted).plan.is_silent());
    let unwanted = Snapshot { is_refusal_shown: false, ..restarted };
    assert_eq!(condition(&after(&unwanted, &decide(&unwanted).plan)), None);
    for pushes in [Pushes::Accepted, Pushes::Withdrawn] {
        let accepting = Snapshot { pushes, ..refusing.clone() };
        let plan = decide(&accepting).plan;
        assert!(plan.events.is_empty());
        let accepting = after(&accepting, &plan);
        assert_eq!(condition(&accepting), None);
        assert!(decide(&accepting).plan.is_silent());
    }
}

#[test]
fn what_is_wrong_with_a_store_or_its_secret_comes_with_what_to_do() {
    let with = |method: GitAuthMethod, url: &str| {
        let mut store = git(url);
        store.spec.auth_method = method;
        store
    };
    let bare = |mut store: GitStateStore| {
        store.spec.secret_ref = None;
        of_git(store, Secret::NotReferenced)
    };
    let key = [("sshPrivateKey", "k"), ("knownHosts", "h")];
    let app = [("appID", "x"), ("installationID", "1"), ("privateKey", "k")];
    let odd = Secret::Found { resource_version: "1".into(), data: [("password".to_owned(), vec![0xff])].into() };
    let https = "https://git.example/x";
    for snapshot in [
        of_git(git(https), Secret::NotFound),
        of_git(git(https), secret(&[("username", "u")])),
        of_git(git(https), odd),
        of_git(git("ftp://git.example/x"), secret(&[("password", "p")])),
        of_git(with(GitAuthMethod::Other("magic".into()), https), secret(&[])),
        bare(with(GitAuthMethod::Ssh, "git@git.example:x")),
        of_git(with(GitAuthMethod::Ssh, https), secret(&key)),
        of_git(with(GitAuthMethod::GithubApp, https), secret(&app)),
        of_git(with(GitAuthMethod::GithubApp, "/srv/x.git"), secret(&app)),
        of_bucket(bucket("minio", BucketAuthMethod::AccessKey), secret(&[])),
        of_bucket(bucket("minio", BucketAuthMethod::Other("x".into())), secret(&[])),
    ] {
        let (_, message) = told(&snapshot);
        assert_eq!(message.matches("; hint: ").count(), 1, "{message}");
    }
}

#[test]
fn own_status_writes_do_not_bring_a_store_back_and_its_destinations_hear_of_what_it_refuses_alone() {
    let ready = open(&healthy(), Ok(()));
    let (old, new) = (Some(&ready.store), open(&healthy(), failure(Step::Read, "no")).store);
    assert_ne!(old, Some(&new));
    assert!(!concerns_itself(old, Some(&new)));
    assert!(!concerns_destinations(old, Some(&new)), "what can be written is the registry's to say");
    let refusing = Snapshot { pushes: Pushes::Refused("frozen".into()), ..ready.clone() };
    let refusing = after(&refusing, &decide(&refusing).plan).store;
    assert_eq!((complaint(&ready.store), complaint(&refusing)), (None, Some("frozen".into())));
    assert!(!concerns_itself(old, Some(&refusing)));
    for (old, new) in [(old, Some(&refusing)), (Some(&refusing), old), (Some(&refusing), None)] {
        assert!(concerns_destinations(old, new));
    }
    assert!(!concerns_destinations(old, None) && !concerns_destinations(Some(&refusing), Some(&refusing.clone())));
}

#[test]
fn the_numbers_of_a_github_app_are_numbers_and_its_key_is_passed_on() {
    let store = |url: &str| {
        let mut store = git(url);
        store.spec.auth_method = GitAuthMethod::GithubApp;
        store
    };
    let url = "https://github.com/team/state.git";
    let keys = [("appID", "12\n"), ("installationID", " 34"), ("privateKey", "PEM")];
    let Some(Effect::Open { connection, .. }) = decide(&of_git(store(url), secret(&keys))).effect else {
        panic!("not opened")
    };
    let Connection::Git(connection) = *connection else { panic!("a bucket") };
    let expected = GitCredentials::GithubApp { app_id: 12, installation_id: 34, private_key: "PEM".into() };
    assert_eq!(connection.credentials, expected);
    assert_eq!(format!("{:?}", connection.credentials), "GithubApp");

    let refused = "unable to create git writer: could not create auth method: ";
    for (url, keys, cause) in [
        (
            url,
            [("appID", "Iv1.ab"), ("installationID", "34")],
            "could not convert installation ID to int: appID is not a number",
        ),
        (
            url,
            [("appID", "12"), ("installationID", "")],
            "could not convert installation ID to int: installationID is not a number",
        ),
        (
            "file:///srv/state.git",
            [("appID", "12"), ("installationID", "34")],
            "authMethod githubApp needs a URL with https://",
        ),
    ] {
        let keys = [keys[0], keys[1], ("privateKey", "PEM")];
        let message = format!("{refused}{cause}");
        let found = of_git(store(url), secret(&keys));
        assert_eq!(problem(&found), ("ErrorInitialisingWriter".into(), message));
        assert_eq!(decide(&found).plan.next, Next::OnChange);
    }
    let mut bare = store(url);
    bare.spec.secret_ref = None;
    let message = format!("{refused}authMethod githubApp needs a secretRef");
    assert_eq!(problem(&of_git(bare, Secret::NotReferenced)), ("ErrorInitialisingWriter".into(), message));
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
        let Connection::Git(connection) = *connection else { panic!() };
        let expected = expected.map_or(GitCredentials::None, |(username, password)| GitCredentials::Basic {
            username: username.into(),
            password: password.into(),
        });
        assert!(connection.credentials == expected, "{url}");
    }
    let mut local = git("/srv/git/state.git");
    local.spec.secret_ref = None;
    let Some(Effect::Open { connection, .. }) = decide(&of_git(local, Secret::NotReferenced)).effect else { panic!() };
    let Connection::Git(connection) = *connection else { panic!() };
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
        ("git:secret@git.example:x.git", "git.example:x.git"),
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
    let again = Snapshot { was_cleared: true, ..suspect.clone() };
    assert_eq!(decide(&again).effect, None, "trouble that comes and goes costs no check each time");
    assert_eq!(decide(&again).plan.next, Next::After(Duration::from_secs(10)));
    assert!(matches!(decide(&later(again, 15)).effect, Some(Effect::Check { .. })));
    assert!(matches!(decide(&suspect).effect, Some(Effect::Check { .. })), "the writer that is open knows most");
    let healed = open(&suspect, Ok(()));
    assert_eq!((decide(&healed).effect, decide(&healed).plan.is_silent()), (None, true), "one check is enough");
    let checked = open(&suspect, failure(Step::Authenticate, "revoked"));
    assert!(problem(&checked).1.contains("revoked"));
    assert_eq!(decide(&checked).plan.findings[0].cause(), problem(&checked).1);
    assert!(matches!(decide(&later(checked, 30)).effect, Some(Effect::Open { .. })), "there is none to check");
}

#[test]
fn a_store_that_asks_to_be_left_alone_is_left_alone_within_bounds() {
    for (asked, pause) in [(None, 15), (Some(1), 15), (Some(40), 40), (Some(300), 300), (Some(86_400), 300)] {
        let retry_after = asked.map(Duration::from_secs);
        let busy = Err(OpenFailure { step: Step::Read, message: "busy".into(), retry_after });
        let failed = open(&healthy(), busy);
        let early = decide(&later(failed.clone(), pause - 1));
        assert_eq!((early.effect, early.plan.next), (None, Next::After(Duration::from_secs(1))), "{asked:?}");
        assert!(decide(&later(failed, pause)).effect.is_some(), "{asked:?}");
    }
}

fn bucket(endpoint: &str, method: BucketAuthMethod) -> BucketStateStore {
    let spec = BucketStateStoreSpec {
        bucket_name: "state".into(),
        endpoint: endpoint.into(),
        auth_method: method,
        secret_ref: Some(SecretRef { name: "s".into(), namespace: "n".into() }),
        ..Default::default()
    };
    let mut store = BucketStateStore::new("b", spec);
    store.metadata.uid = Some("uid".into());
    store.metadata.generation = Some(1);
    store
}

fn of_bucket(store: BucketStateStore, secret: Secret) -> Snapshot {
    snapshot(Store::Bucket(Arc::new(store)), secret)
}

fn bucket_connection(store: BucketStateStore, secret: Secret) -> BucketConnection {
    match decide(&of_bucket(store, secret)).effect {
        Some(Effect::Open { connection, .. }) => match *connection {
            Connection::Bucket(connection) => connection,
            Connection::Git(_) => panic!("a repository"),
        },
        other => panic!("{other:?}"),
    }
}

/// §8.5
#[test]
fn a_bucket_store_says_what_its_secret_lacks() {
    let key = || BucketAuthMethod::AccessKey;
    let mut bare = bucket("minio", key());
    bare.spec.secret_ref = None;
    let both = |id: &str, secret_key: &str| secret(&[("accessKeyID", id), ("secretAccessKey", secret_key)]);
    for (store, secret, message) in [
        (bare, Secret::NotReferenced, "secret not provided"),
        (bucket("minio", key()), secret(&[]), "secret is missing key: accessKeyID"),
        (bucket("minio", key()), secret(&[("accessKeyID", "a")]), "secret is missing key: secretAccessKey"),
        (bucket("minio", BucketAuthMethod::Other("x".into())), secret(&[]), "unknown authMethod: x"),
        (bucket("minio", BucketAuthMethod::Other(String::new())), secret(&[]), "secret is missing key: accessKeyID"),
        // Weakness 38
        (bucket("minio", key()), both("a\n", "b"), "accessKeyID in secret n/s ends with a line break, remove it"),
        (bucket("minio", key()), both("a", "b\n"), "secretAccessKey in secret n/s ends with a line break, remove it"),
        (bucket("gs://", key()), both("a", "b"), "secret is missing key: serviceAccountKey"),
        (bucket("az://acme", key()), secret(&[]), "secret is missing key: secretAccessKey"),
        (bucket("file:///srv", key()), both("a", "b"), "a directory needs no keys, set authMethod: IAM"),
    ] {
        let expected = ("ErrorInitialisingWriter".to_owned(), format!("unable to create bucket writer: {message}"));
        let snapshot = of_bucket(store, secret);
        assert_eq!(problem(&snapshot), expected);
        assert_eq!(decide(&snapshot).plan.events[0].reporter, Reporter::BucketStateStore);
        assert_eq!(decide(&snapshot).plan.next, Next::OnChange);
    }
    let gone = of_bucket(bucket("minio", key()), Secret::NotFound);
    assert_eq!(problem(&gone).1, "Secret s not found in namespace n");
}

#[test]
fn a_bucket_store_is_opened_with_what_its_spec_and_secret_say() {
    let mut store = bucket("minio:9000", BucketAuthMethod::AccessKey);
    store.spec.path = "p".into();
    store.spec.insecure = true;
    store.spec.use_dual_stack = true;
    store.spec.insecure_skip_tls_verify = true;
    let keys = secret(&[("accessKeyID", "a"), ("secretAccessKey", "hidden"), ("caFile", "PEM")]);
    let connection = bucket_connection(store, keys);
    assert!(!format!("{connection:?}").contains("hidden"));
    let expected = BucketConnection {
        endpoint: "minio:9000".into(),
        bucket: "state".into(),
        path: "p".into(),
        plain_http: true,
        dual_stack: true,
        credentials: BucketCredentials::Keys { id: "a".into(), secret: "hidden".into() },
        ca_pem: Some(b"PEM".to_vec()),
        skip_tls_verify: true,
    };
    assert_eq!(connection, expected);

    let credentials = |endpoint: &str, method, secret| bucket_connection(bucket(endpoint, method), secret).credentials;
    let (key, iam) = (BucketAuthMethod::AccessKey, BucketAuthMethod::Iam);
    let keys = || secret(&[("accessKeyID", "a"), ("secretAccessKey", "k"), ("serviceAccountKey", "{}\n")]);
    for endpoint in ["minio", "gs://", "az://acme", "file:///srv"] {
        assert_eq!(credentials(endpoint, iam.clone(), keys()), BucketCredentials::Ambient, "{endpoint}");
    }
    let account = BucketCredentials::ServiceAccount { key: "{}\n".into() };
    assert_eq!(credentials("gs://", key.clone(), keys()), account);
    let azure = BucketCredentials::Keys { id: String::new(), secret: "k".into() };
    assert_eq!(credentials("az://acme", key, keys()), azure);
    let mut anonymous = bucket("minio", iam);
    anonymous.spec.secret_ref = None;
    assert_eq!(bucket_connection(anonymous, Secret::NotReferenced).credentials, BucketCredentials::Ambient);
}

/// §8.4, §10.5
#[test]
fn a_bucket_that_cannot_be_used_says_so_in_the_words_of_the_original() {
    let keys = secret(&[("accessKeyID", "a"), ("secretAccessKey", "b")]);
    let start = of_bucket(bucket("minio", BucketAuthMethod::AccessKey), keys);
    let Some(Effect::Open { fingerprint, .. }) = decide(&start).effect else { panic!() };
    let unwritable = "Error validating state store permissions: write permission validation failed: odd";
    let unusable = "unable to create bucket writer: error initialising S3 client: odd";
    let mistyped = of_bucket(bucket("https://minio", BucketAuthMethod::Iam), Secret::NotReferenced);
    let Some(Effect::Open { fingerprint: other, .. }) = decide(&mistyped).effect else { panic!() };
    let opened = Opened { fingerprint: other, at: at(0), outcome: failure(Step::Configure, "odd") };
    assert_eq!(record(&mistyped, opened).events[0].note, unusable);
    for (step, reason, message) in [
        (Step::Configure, "ErrorInitialisingWriter", unusable),
        (Step::Authenticate, "ErrorValidatingPermissions", unwritable),
        (Step::Read, "ErrorValidatingPermissions", unwritable),
        (Step::Write, "ErrorValidatingPermissions", unwritable),
    ] {
        let opened = Opened { fingerprint: fingerprint.clone(), at: at(0), outcome: failure(step, "odd") };
        let plan = record(&start, opened);
        let [Finding::NotReady { reason: found, message: text }] = &plan.findings[..] else { panic!("{step:?}") };
        assert_eq!((*found, text.as_str()), (reason, message), "{step:?}");
        assert_eq!(plan.events[0].note, message);
        assert_eq!(plan.next, Next::After(RETRY_AFTER));
    }
    let ready = record(&start, Opened { fingerprint, at: at(0), outcome: Ok(()) });
    assert_eq!(ready.events[0].note, "BucketStateStore \"b\" is ready");
}

#[test]
fn a_bucket_that_is_none_of_s3_is_not_called_one() {
    for endpoint in ["gs://", "az://acme", "file:///srv"] {
        let start = of_bucket(bucket(endpoint, BucketAuthMethod::Iam), Secret::NotReferenced);
        let Some(Effect::Open { fingerprint, .. }) = decide(&start).effect else { panic!("{endpoint}") };
        let opened = Opened { fingerprint, at: at(0), outcome: failure(Step::Configure, "odd") };
        let plan = record(&start, opened);
        assert_eq!(plan.events[0].note, "unable to create bucket writer: odd", "{endpoint}");
    }
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
