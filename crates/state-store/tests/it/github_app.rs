//! An app of GitHub against a server that gives out tokens as GitHub does. // weakness 41

use std::time::Duration;

use kratix_state_store::{AppRemedy, Auth, GitConfig, GithubApp, Handle, Retry, Trouble, open};
use kratix_testing::git_http::Server;
use kratix_testing::github::{APP, Answer, Api, INSTALLATION, KEY_PKCS1, KEY_PKCS8};

use crate::{Bed, placement};

fn config(server: &Server, app: GithubApp) -> GitConfig {
    let mut config = GitConfig::new("default", server.url("state.git"));
    config.tls.ca_pem = server.ca_pem().map(|pem| pem.as_bytes().to_vec());
    config.auth = Auth::GithubApp(app);
    // Each write asks the server.
    config.fetch_interval = Duration::ZERO;
    config
}

fn app(key: &str) -> GithubApp {
    GithubApp::new(APP, INSTALLATION, key)
}

fn store(bed: &Bed, config: GitConfig) -> Handle {
    open(config, bed.cache()).expect("usable")
}

/// Opens a store and returns what a check of it runs into.
async fn trouble(bed: &Bed, config: GitConfig) -> kratix_state_store::Error {
    let error = match open(config, bed.cache()) {
        Ok(store) => store.check().await.expect_err("no token"),
        Err(error) => error,
    };
    let shown = format!("{error} {error:?}");
    for secret in ["ghs_", "PRIVATE KEY", "Bearer", "eyJ"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    error
}

fn token(reason: &str, remedy: AppRemedy) -> Trouble {
    Trouble::AppToken { reason: reason.to_owned(), remedy, retry_after: None }
}

#[tokio::test]
async fn one_token_serves_many_writes() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    for (at, key) in [KEY_PKCS1, KEY_PKCS8].into_iter().enumerate() {
        let store = store(&bed, config(&server, app(key)));
        assert_eq!(api.requests(), at, "nothing is asked for before it is needed");
        store.check().await.expect("usable");
        for name in ["a", "b", "c"] {
            store.write(placement(name, &at.to_string())).await.expect("written");
        }
        assert_eq!(api.requests(), at + 1);
    }
    assert_eq!(bed.paths().len(), 3);
}

#[tokio::test]
async fn a_token_is_replaced_when_it_ends_or_has_served_long_enough() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    let mut brief = app(KEY_PKCS1);
    brief.token_lifetime = Duration::ZERO;
    let writes = async |app: GithubApp| {
        let before = api.requests();
        let store = store(&bed, config(&server, app));
        for content in ["1", "2"] {
            store.write(placement("a", content)).await.expect("written");
        }
        api.requests() - before
    };
    assert_eq!(writes(app(KEY_PKCS1)).await, 1);
    assert!(writes(brief).await > 1);
    api.set_lifetime(Duration::ZERO);
    assert!(writes(app(KEY_PKCS1)).await > 1);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_within_the_same_write() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    let store = store(&bed, config(&server, app(KEY_PKCS1)));
    store.write(placement("a", "1")).await.expect("written");
    api.revoke();
    store.write(placement("b", "1")).await.expect("written with another token");
    assert_eq!(api.requests(), 2);

    // A new token that is refused is no reason to ask for more of them.
    api.revoke();
    api.answer(Some(Answer { status: 201, headers: vec![], body: r#"{"token":"ghs_w0rthless"}"#.into() }));
    let error = store.write(placement("c", "1")).await.expect_err("refused");
    assert_eq!(error.category(), "StoreUnauthorized");
    assert!(!error.to_string().contains("ghs_"), "{error}");
    assert_eq!(api.requests(), 3);
    api.answer(None);
    store.write(placement("c", "1")).await.expect("written");
    assert_eq!(bed.paths().len(), 3);
}

#[tokio::test]
async fn what_the_api_refuses_is_said_with_what_helps() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);

    let other = config(&server, GithubApp::new(1, INSTALLATION, KEY_PKCS1));
    let error = trouble(&bed, other).await;
    let identity = "GitHub API error: status=401, message=Integration not found";
    assert_eq!(error.trouble, token(identity, AppRemedy::Identity));
    assert_eq!((error.category(), error.retry()), ("GithubTokenRefused", Retry::OnChange));
    assert!(error.to_string().ends_with(&format!("failed to get GitHub installation token: {identity}")), "{error}");
    assert!(error.hint().expect("a hint").contains("appID and privateKey"));

    let elsewhere = config(&server, GithubApp::new(APP, 1, KEY_PKCS1));
    let error = trouble(&bed, elsewhere).await;
    assert_eq!(error.trouble, token("GitHub API error: status=404, message=Not Found", AppRemedy::Installation));
    assert_eq!(error.retry(), Retry::OnChange);
    assert!(error.hint().expect("a hint").contains("installationID"));

    let suspended = r#"{"message":"This installation has been suspended"}"#;
    for (status, body, reason, remedy) in [
        (
            403,
            suspended,
            "GitHub API error: status=403, message=This installation has been suspended",
            AppRemedy::Permission,
        ),
        (500, "<html>", "GitHub API error: status=500, message=Internal Server Error", AppRemedy::Time),
        (502, "", "GitHub API error: status=502, message=Bad Gateway", AppRemedy::Time),
        (200, "{}", "GitHub API error: status=200, message=OK", AppRemedy::Time),
        (201, r#"{"token":""}"#, "empty installation token received", AppRemedy::Time),
        (201, "{}", "empty installation token received", AppRemedy::Time),
        (201, "<html>", "empty installation token received", AppRemedy::Time),
    ] {
        api.answer(Some(Answer { status, headers: vec![], body: body.into() }));
        let error = trouble(&bed, config(&server, app(KEY_PKCS1))).await;
        assert_eq!(error.trouble, token(reason, remedy));
        assert_eq!(error.retry(), Retry::Backoff);
    }
    assert_eq!(server.fetches(), 0, "git is not run without a token");
}

#[tokio::test]
async fn a_server_that_has_had_enough_is_left_alone_for_as_long_as_it_says() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    let limited = "API rate limit exceeded for installation ID 815.";
    let body = |request: &str| {
        format!(
            r#"{{"message":"{limited} If you reach out to GitHub Support for help, please include the request ID {request}"}}"#
        )
    };
    let later = jiff::Timestamp::now().as_second() + 600;
    for (status, header) in [
        (429, ("retry-after", "60".to_owned())),
        (403, ("retry-after", "60".to_owned())),
        (403, ("x-ratelimit-reset", later.to_string())),
    ] {
        let before = api.requests();
        let headers = vec![header, ("x-ratelimit-remaining", "0".to_owned())];
        api.answer(Some(Answer { status, headers: headers.clone(), body: body("1") }));
        let store = store(&bed, config(&server, app(KEY_PKCS1)));
        let first = store.check().await.expect_err("limited");
        api.answer(Some(Answer { status, headers, body: body("2") }));
        assert_eq!(store.check().await.expect_err("limited"), first, "one text, whatever the request");
        assert_eq!(api.requests(), before + 1, "asked once");
        assert_eq!(first.retry(), Retry::Backoff);
        assert!(first.retry_after().is_some_and(|pause| pause >= Duration::from_secs(59)), "{first:?}");
        let text = format!("GitHub API error: status={status}, message={limited}");
        assert!(first.to_string().ends_with(&text), "{first}");
    }
}

#[tokio::test]
async fn an_api_that_cannot_be_reached_or_trusted_is_told_apart() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    let base = server.url("");
    let request =
        format!("GitHub API request failed: POST {base}api/v3/app/installations/{INSTALLATION}/access_tokens: ");
    let reason = |error: &kratix_state_store::Error| match &error.trouble {
        Trouble::AppToken { reason, .. } => reason.clone(),
        other => panic!("{other:?}"),
    };

    let mut untrusting = config(&server, app(KEY_PKCS1));
    untrusting.tls.ca_pem = None;
    let error = trouble(&bed, untrusting.clone()).await;
    assert!(
        reason(&error).starts_with(&request)
            && reason(&error).ends_with("the server's certificate is not trusted: its issuer is unknown"),
        "{error}"
    );
    assert!(error.hint().expect("a hint").contains("caFile"));
    untrusting.tls.insecure = true;
    store(&bed, untrusting).check().await.expect("anything is accepted");
    assert_eq!(api.requests(), 1);

    let mut closed = config(&server, app(KEY_PKCS1));
    drop(server);
    kratix_testing::wait::poll("the server to be gone", || async {
        match tokio::net::TcpStream::connect(base.trim_start_matches("https://").trim_end_matches('/')).await {
            Ok(_) => Err("it still listens".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    let error = trouble(&bed, closed.clone()).await;
    assert!(reason(&error).starts_with(&request) && reason(&error).contains("refused"), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    closed.url = format!("https://127.0.0.1:{}/state.git", silent.local_addr().expect("an address").port());
    let Auth::GithubApp(app) = &mut closed.auth else { unreachable!() };
    app.deadline = Duration::from_millis(200);
    let error = trouble(&bed, closed).await;
    assert!(reason(&error).ends_with("no answer within 0.2 s"), "{error}");
}

#[tokio::test]
async fn a_key_that_cannot_sign_is_refused_when_the_store_is_opened() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let pem = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let elliptic = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    for (key, cause) in [
        (String::new(), "invalid private key: failed to parse PEM block"),
        ("c2VjcmV0".to_owned(), "invalid private key: failed to parse PEM block"),
        (KEY_PKCS1[..400].to_owned(), "invalid private key: failed to parse PEM block"),
        (pem("RSA PRIVATE KEY", "c2VjcmV0"), "failed to parse RSA private key: InvalidEncoding"),
        (pem("PRIVATE KEY", "c2VjcmV0"), "failed to parse RSA private key: InvalidEncoding"),
        (pem("ENCRYPTED PRIVATE KEY", "c2VjcmV0"), "failed to parse RSA private key: it is encrypted"),
        (pem("OPENSSH PRIVATE KEY", "c2VjcmV0"), "failed to parse RSA private key: it is in the format of OpenSSH"),
        (elliptic, "private key is not RSA"),
    ] {
        let error = trouble(&bed, config(&server, app(&key))).await;
        assert_eq!(error.trouble, Trouble::AppKey(cause.to_owned()));
        assert_eq!(error.trouble.to_string(), format!("failed to generate GitHub App JWT: {cause}"));
        assert_eq!((error.category(), error.retry()), ("GithubAppKeyUnusable", Retry::OnChange));
        assert!(!error.to_string().contains("c2VjcmV0"), "{error}");
        assert!(error.hint().expect("a hint").contains("privateKey"));
    }
}

#[tokio::test]
async fn the_key_and_the_token_are_nowhere_to_be_read() {
    let bed = Bed::new();
    let server = Server::tls(bed.directory.path()).await;
    let api = Api::serve(&server);
    let config = config(&server, app(KEY_PKCS1));
    let store = store(&bed, config.clone());
    store.write(placement("a", "1")).await.expect("written");
    let shown = format!("{config:?} {store:?} {}", store.place());
    let tokens = api.tokens();
    assert_eq!(tokens.len(), 1);
    let body = KEY_PKCS1.lines().nth(1).expect("a line");
    assert!(!shown.contains(body) && !shown.contains(&tokens[0]), "{shown}");
    // Nothing is left in the cache either.
    let mut directories = vec![bed.cache()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let content = std::fs::read(&path).expect("readable");
            let text = String::from_utf8_lossy(&content);
            assert!(!text.contains(body) && !text.contains(&tokens[0]), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 0);
}
