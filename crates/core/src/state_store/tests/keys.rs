//! Keys of ssh, and those that sign.

use super::*;

fn ssh(url: &str) -> GitStateStore {
    let mut store = git(url);
    store.spec.auth_method = GitAuthMethod::Ssh;
    store
}

#[test]
fn ssh_takes_key_and_hosts_from_the_secret_and_an_address_with_a_user() {
    let keys = || secret(&[("sshPrivateKey", "k"), ("knownHosts", "h")]);
    for url in ["ssh://git@git.example/x.git", "ssh://git@git.example:2222/x.git", "git@git.example:x.git"] {
        let Some(Effect::Open { connection, .. }) = decide(&of_git(ssh(url), keys())).effect else { panic!("{url}") };
        let Connection::Git(connection) = *connection else { panic!("{url}") };
        let private_key = PrivateKey("k".into());
        assert_eq!(connection.credentials, GitCredentials::Ssh { private_key, known_hosts: "h".into() });
        assert!(!format!("{connection:?}").contains("\"k\""), "{connection:?}");
    }
    let writer = "unable to create git writer: ";
    for (url, message) in [
        (
            "https://git.example/x",
            "could not create git native client: invalid URL for SSH auth method: https://git.example/x",
        ),
        ("git.example:x", "could not create git native client: invalid URL for SSH auth method: git.example:x"),
        ("/srv/x.git", "could not create git native client: invalid URL for SSH auth method: /srv/x.git"),
        (
            "ssh://git.example/x",
            "could not create git native client: invalid URL for SSH auth method: ssh://git.example/x",
        ),
        (
            "ssh://git@git.example:x/y",
            "could not create auth method: error parsing GitStateStore url: its port is not a number from 1 to 65535",
        ),
        (
            "ssh://git:hidden@git.example/y",
            "could not create auth method: error parsing GitStateStore url: it contains a password, and ssh takes a key only",
        ),
    ] {
        let expected = ("ErrorInitialisingWriter".to_owned(), format!("{writer}{message}"));
        assert_eq!(problem(&of_git(ssh(url), keys())), expected);
    }
    let mut bare = ssh("git@x:y");
    bare.spec.secret_ref = None;
    let expected = format!("{writer}could not create auth method: authMethod ssh needs a secretRef");
    assert_eq!(problem(&of_git(bare, Secret::NotReferenced)).1, expected);
}

#[test]
fn a_signing_key_is_taken_from_the_secret_whatever_the_method() {
    let keys = secret(&[("password", "p"), ("signingKey", "s")]);
    let Some(Effect::Open { connection, .. }) = decide(&of_git(git("https://x/"), keys)).effect else { panic!() };
    let Connection::Git(connection) = *connection else { panic!() };
    assert_eq!(connection.signing_key, Some(PrivateKey("s".into())));
    assert!(!format!("{connection:?}").contains("\"s\""));
    let data = [("password".to_owned(), b"p".to_vec()), ("signingKey".to_owned(), vec![0xff])].into();
    let odd = Secret::Found { resource_version: "1".into(), data };
    let expected = "unable to create git writer: signingKey in secret default/creds is not text";
    assert_eq!(problem(&of_git(git("https://x/"), odd)).1, expected);
}

// Weakness 28
#[test]
fn an_empty_method_is_that_of_user_name_and_password_and_needs_no_secret() {
    let mut store = git("https://git.example/x.git");
    store.spec.auth_method = GitAuthMethod::Other(String::new());
    let credentials = |store: &GitStateStore, secret: Secret| match decide(&of_git(store.clone(), secret)).effect {
        Some(Effect::Open { connection, .. }) => match *connection {
            Connection::Git(connection) => connection.credentials,
            Connection::Bucket(_) => panic!("a bucket"),
        },
        other => panic!("{other:?}"),
    };
    let basic = GitCredentials::Basic { username: "u".into(), password: "p".into() };
    assert_eq!(credentials(&store, secret(&[("username", "u"), ("password", "p")])), basic);
    let lacks = "could not create auth method: password not found in secret default/creds";
    assert!(problem(&of_git(store.clone(), secret(&[]))).1.ends_with(lacks));
    store.spec.secret_ref = None;
    assert_eq!(credentials(&store, Secret::NotReferenced), GitCredentials::None);
}
