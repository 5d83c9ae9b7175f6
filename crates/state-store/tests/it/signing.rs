//! Signed commits, judged by the real `git`.

use std::path::Path;

use kratix_state_store::{GitConfig, Trouble, open};
use kratix_testing::git_http::Server;
use kratix_testing::sshd::{has_keygen, keygen};

use crate::{Bed, git, placement, try_git};

/// Makes a key pair, or says that this cannot be done here.
fn key(bed: &Bed, kind: &str) -> Option<String> {
    if !has_keygen() {
        return None;
    }
    let path = bed.directory.path().join(kind);
    let _ = std::fs::remove_file(&path);
    keygen(&path, kind);
    std::fs::read_to_string(path).ok()
}

/// Has git verify all commits with the public part of this key only.
fn verify(bed: &Bed, kind: &str, repository: &Path) -> Result<String, String> {
    let public = std::fs::read_to_string(bed.directory.path().join(format!("{kind}.pub"))).expect("a public key");
    let signers = bed.directory.path().join("signers");
    std::fs::write(&signers, format!("kratix@example.org namespaces=\"git\" {public}")).expect("a file");
    let setting = format!("gpg.ssh.allowedSignersFile={}", signers.display());
    let commits = git(repository, &["rev-list", "main"]);
    let mut said = String::new();
    for commit in commits.lines() {
        let (success, _, stderr) = try_git(repository, &["-c", &setting, "verify-commit", commit]);
        if !success {
            return Err(stderr);
        }
        said.push_str(&stderr);
    }
    Ok(said)
}

fn signed(bed: &Bed, key: &str) -> GitConfig {
    GitConfig { signing_key: Some(key.into()), ..bed.config() }
}

#[tokio::test]
async fn git_verifies_every_commit_that_was_signed_with_a_key_of_each_type() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let bed = Bed::new();
        let Some(key) = key(&bed, kind) else { return };
        let store = open(signed(&bed, &key), bed.cache()).expect("usable");
        store.check().await.expect("usable");
        for at in 0..5 {
            store.write(placement(&format!("p{at}"), "1")).await.expect("written");
        }
        let said = verify(&bed, kind, &bed.repository()).expect("good signatures");
        assert_eq!(said.matches("Good \"git\" signature for kratix@example.org").count(), 5, "{said}");
        bed.is_sound();
        assert!(!store.write(placement("p1", "1")).await.expect("silent").changed);
        assert_eq!(bed.commits(), 5, "a signature makes no commit of itself");
    }
}

#[tokio::test]
async fn commits_to_a_remote_are_signed_too_and_another_key_does_not_verify_them() {
    let bed = Bed::new();
    let Some(key) = key(&bed, "ed25519") else { return };
    let server = Server::plain(bed.directory.path()).await;
    let config = GitConfig { url: server.url("state.git"), ..signed(&bed, &key) };
    let store = open(config, bed.cache()).expect("usable");
    store.check().await.expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    verify(&bed, "ed25519", &bed.repository()).expect("good signatures");
    self::key(&bed, "ed25519");
    assert!(verify(&bed, "ed25519", &bed.repository()).is_err(), "a key that did not sign");
    // Unsigned commits of others stay as they are.
    bed.foreign_push("theirs", "t");
    store.write(placement("b", "1")).await.expect("written");
    assert_eq!(bed.paths(), ["theirs", "worker-1/a/a.yaml", "worker-1/b/a.yaml"]);
    bed.is_sound();
}

/// One in 256 keys of this type has a number that is written with fewer bytes than its curve has.
#[tokio::test]
async fn a_key_whose_number_is_short_signs_like_any_other() {
    let bed = Bed::new();
    let Some(_) = key(&bed, "ecdsa") else { return };
    std::fs::write(bed.directory.path().join("short.pub"), SHORT_PUBLIC).expect("a file");
    let store = open(signed(&bed, SHORT), bed.cache()).expect("usable");
    store.write(placement("a", "1")).await.expect("written");
    verify(&bed, "short", &bed.repository()).expect("a good signature");
}

#[test]
fn a_signing_key_that_cannot_be_used_is_refused_when_the_store_is_opened() {
    let bed = Bed::new();
    for (key, expected) in [("", "it is empty"), ("ssh-ed25519 AAAA", "it is a public key")] {
        let error = open(signed(&bed, key), bed.cache()).expect_err("refused");
        assert!(matches!(error.trouble, Trouble::SigningKey(_)), "{error:?}");
        let text = error.trouble.to_string();
        assert!(text.starts_with(&format!("error parsing signing key: {expected}")), "{text}");
        assert!(error.hint().expect("a hint").contains("signingKey"));
    }
    let Some(small) = key(&bed, "ecdsa") else { return };
    let cut = small.replace("\n-----END", "AAAA\n-----END").replacen('\n', "\nAAAA", 1);
    assert!(open(signed(&bed, &cut), bed.cache()).is_err());
    let shown = format!("{:?}", signed(&bed, &small));
    assert!(!shown.contains("BEGIN"), "{shown}");
}

/// Made for this test only.
const SHORT: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQS18mrZBr0HSKYROaojNMXSwcmOO1MS
ThZYs4DHgCztWgAJgXBRXt9HGScqNkn/33+1y1VBwCzB9pEAoCaU3KUuAAAAoIhb5aqIW+
WqAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLXyatkGvQdIphE5
qiM0xdLByY47UxJOFlizgMeALO1aAAmBcFFe30cZJyo2Sf/ff7XLVUHALMH2kQCgJpTcpS
4AAAAfMCUNfKVqLThQFW7OGfoCFwdnLPcZU5yPAC3J54zF3wAAAAR0ZXN0AQIDBAU=
-----END OPENSSH PRIVATE KEY-----
";

const SHORT_PUBLIC: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLXyatkGvQdIphE5qiM0xdLByY47UxJOFlizgMeALO1aAAmBcFFe30cZJyo2Sf/ff7XLVUHALMH2kQCgJpTcpS4= test";
