//! A repository of a real Gitea: the messages of its own hooks and of its own refusals.

use std::time::Duration;

use kratix_state_store::{Auth, GitConfig, Handle, Trouble, WriteError, open};
use kratix_testing::gitea::{Gitea, USER};

use crate::{git, placement};

fn store(gitea: &Gitea, cache: &tempfile::TempDir, repository: &str, token: &str) -> Handle {
    let mut config = GitConfig::new("default", gitea.url(repository));
    config.auth = Auth::Basic { username: USER.to_owned(), password: token.into() };
    config.fetch_interval = Duration::ZERO;
    open(config, cache.path()).expect("usable")
}

fn trouble(result: Result<kratix_state_store::Written, WriteError>) -> Trouble {
    match result {
        Err(WriteError::Store(error)) => error.trouble,
        other => panic!("expected trouble with the store, got {other:?}"),
    }
}

#[tokio::test]
async fn gitea_is_written_and_its_refusals_reach_the_user() {
    let Some(gitea) = Gitea::start().await else { return };
    let cache = tempfile::tempdir().expect("a directory");
    gitea.create("state").await;
    let token = gitea.token("writes", &["write:repository"]).await;
    let paths = || git(&gitea.repository("state"), &["ls-tree", "-r", "--name-only", "main"]);

    // An empty repository gets its first branch.
    let written = store(&gitea, &cache, "state", &token);
    written.check().await.expect("usable");
    written.write(placement("a", "1")).await.expect("written");
    assert_eq!(paths(), "worker-1/a/a.yaml\n");

    gitea.protect("state", "main").await;
    match trouble(written.write(placement("b", "1")).await) {
        Trouble::Refused { branch, message } => {
            assert_eq!(branch, "main");
            assert!(message.contains("Not allowed to push to protected branch main"), "{message}");
            assert!(!message.contains("error:") && !message.contains("Processed"), "only what is said: {message}");
        }
        other => panic!("{other:?}"),
    }
    gitea.unprotect("state", "main").await;
    written.write(placement("b", "1")).await.expect("written");

    gitea.archive("state", true).await;
    let archived = trouble(written.write(placement("c", "1")).await);
    assert!(matches!(&archived, Trouble::Forbidden(said) if said.contains("This repo is archived")), "{archived:?}");
    gitea.archive("state", false).await;
    written.write(placement("c", "1")).await.expect("written");
    assert_eq!(paths().lines().count(), 3);

    let reads = gitea.token("reads", &["read:repository"]).await;
    let reading = store(&gitea, &cache, "state", &reads);
    assert!(matches!(reading.check().await.expect_err("may not write").trouble, Trouble::Forbidden(_)));
    let wrong = store(&gitea, &cache, "state", "0123456789012345678901234567890123456789");
    assert_eq!(wrong.check().await.expect_err("unknown").trouble, Trouble::Unauthorized);
    let missing = store(&gitea, &cache, "missing", &token);
    assert_eq!(missing.check().await.expect_err("missing").trouble, Trouble::NotFound);
}
