//! Whose certificates are believed: those that came with the store, or the file that is named like the host. // weakness 37

use std::path::Path;

use kratix_state_store::{Auth, GitConfig, GithubApp, Trouble, open};
use kratix_testing::authority::Identity;
use kratix_testing::git_http::Server;
use kratix_testing::github::{APP, Api, INSTALLATION, KEY_PKCS1};

use crate::{Bed, placement};

fn config(server: &Server, directory: &Path) -> GitConfig {
    let mut config = GitConfig::new("default", server.url("state.git"));
    config.tls.ca_directory = Some(directory.to_owned());
    config
}

#[tokio::test]
async fn the_file_of_the_host_is_believed_and_read_again_when_it_has_changed() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let authorities = tempfile::tempdir().expect("a directory");
    let file = authorities.path().join("localhost");
    let right = server.ca_pem().expect("an authority").to_owned();
    let store = open(config(&server, authorities.path()), bed.cache()).expect("usable");
    assert_eq!(store.check().await.expect_err("nobody vouches for it").category(), "StoreUntrusted");

    // Each of these is put there while the store lives, as a mounted volume changes.
    std::fs::write(&file, &right).expect("a file");
    store.write(placement("a", "1")).await.expect("written");
    std::fs::write(&file, Identity::local().ca_pem).expect("a file");
    assert_eq!(store.check().await.expect_err("another authority").category(), "StoreUntrusted");
    std::fs::write(&file, "no certificate").expect("a file");
    let error = store.check().await.expect_err("unusable");
    let expected =
        Trouble::Authority { file: file.display().to_string(), reason: "it holds no PEM certificate".to_owned() };
    assert_eq!((error.category(), &error.trouble), ("StoreAuthorityUnusable", &expected));
    assert!(error.hint().is_some() && error.to_string().contains(&file.display().to_string()), "{error}");
    std::fs::write(&file, format!("{}{right}", Identity::local().ca_pem)).expect("a file");
    store.write(placement("b", "1")).await.expect("one of several is enough");
    assert_eq!(bed.paths().len(), 2);
}

#[tokio::test]
async fn what_came_with_the_store_wins_over_the_file_of_the_host() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let authorities = tempfile::tempdir().expect("a directory");
    let file = authorities.path().join("localhost");
    std::fs::write(&file, "no certificate").expect("a file");
    let mut config = config(&server, authorities.path());
    config.tls.ca_pem = server.ca_pem().map(|pem| pem.as_bytes().to_vec());
    open(config.clone(), bed.cache()).expect("usable").check().await.expect("usable");
    std::fs::write(&file, server.ca_pem().expect("an authority")).expect("a file");
    config.tls.ca_pem = Some(Identity::local().ca_pem.into_bytes());
    let error = open(config.clone(), bed.cache()).expect("usable").check().await.expect_err("another authority");
    assert_eq!(error.category(), "StoreUntrusted");
    config.tls.ca_pem = Some(b"no certificate".to_vec());
    let error = open(config, bed.cache()).expect("usable").check().await.expect_err("unusable");
    assert!(error.to_string().contains("the certificate authorities in caFile cannot be used"), "{error}");
}

#[tokio::test]
async fn the_api_of_the_host_is_believed_by_the_same_file() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    let authorities = tempfile::tempdir().expect("a directory");
    let file = authorities.path().join("localhost");
    let mut config = config(&server, authorities.path());
    config.auth = Auth::GithubApp(GithubApp::new(APP, INSTALLATION, KEY_PKCS1));
    let store = open(config, bed.cache()).expect("usable");
    assert_eq!(store.check().await.expect_err("nobody vouches for it").category(), "GithubTokenRefused");
    std::fs::write(&file, "no certificate").expect("a file");
    assert_eq!(store.check().await.expect_err("unusable").category(), "StoreAuthorityUnusable");
    assert_eq!(api.requests(), 0);
    std::fs::write(&file, server.ca_pem().expect("an authority")).expect("a file");
    store.write(placement("a", "1")).await.expect("written");
    assert_eq!(api.requests(), 1);
}
