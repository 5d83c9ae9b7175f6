//! Credentials that the surroundings give.

use std::sync::{Arc, Mutex};

use kratix_state_store::{BucketAuth, BucketConfig, Environment, Trouble};
use kratix_testing::port;
use kratix_testing::s3::{ACCESS_KEY, SECRET_KEY};
use kratix_testing::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Shelf, open_bucket, replace};

/// Answers requests as a service that gives credentials; returns its address.
async fn giver(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer).await {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let (status, body) = answer(&String::from_utf8_lossy(&request));
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // A client that leaves hears nothing.
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    format!("http://{address}")
}

fn environment(pairs: &[(&str, &str)]) -> BucketAuth {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    BucketAuth::Ambient(pairs.collect::<Environment>())
}

fn credentials() -> String {
    format!(
        "{{\"Code\": \"Success\", \"Type\": \"x\", \"AccessKeyId\": \"{ACCESS_KEY}\", \"SecretAccessKey\": \"{SECRET_KEY}\", \
         \"Token\": \"\", \"Expiration\": \"2100-01-01T00:00:00Z\", \"LastUpdated\": \"2000-01-01T00:00:00Z\"}}"
    )
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_credentials() {
    let Some(shelf) = Shelf::new().await else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "the-token").expect("a file");
    let sts = giver(|request| {
        assert!(request.contains("WebIdentityToken=the-token") && request.contains("RoleArn=arn"), "{request}");
        assert!(request.contains("RoleSessionName=kratix"), "{request}");
        (200, exchanged("2100-01-01T00:00:00Z"))
    })
    .await;
    let pairs = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", "arn"),
        ("AWS_ROLE_SESSION_NAME", "kratix"),
        ("AWS_ENDPOINT_URL_STS", &sts),
    ];
    let store = open_bucket(BucketConfig { auth: environment(&pairs), ..shelf.config() });
    store.check().await.expect("usable");
    store.write(replace("p", "d", &[("a", "a")])).await.expect("written");

    // What the exchange says is about credentials, not about the bucket.
    let refusing =
        giver(|_| (403, "<Error><Code>AccessDenied</Code><Message>Not you.</Message></Error>".to_owned())).await;
    let pairs = [pairs[0], pairs[1], ("AWS_ENDPOINT_URL_STS", refusing.as_str())];
    let error =
        open_bucket(BucketConfig { auth: environment(&pairs), ..shelf.config() }).check().await.expect_err("refused");
    assert!(
        matches!(&error.trouble, Trouble::NoCredentials(text) if text.contains("AccessDenied: Not you")),
        "{error}"
    );
    // A token that is not there.
    let pairs = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/does/not/exist"), pairs[1], pairs[2]];
    let error =
        open_bucket(BucketConfig { auth: environment(&pairs), ..shelf.config() }).check().await.expect_err("refused");
    assert!(matches!(&error.trouble, Trouble::NoCredentials(_)), "{error}");
}

/// The token of a web identity is another one by the time that the credentials expire which it was exchanged for.
#[tokio::test]
async fn credentials_that_expire_are_had_anew_with_the_token_of_then() {
    let Some(shelf) = Shelf::new().await else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "first-token").expect("a file");
    let exchanges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&exchanges);
    let sts = giver(move |request| {
        let is_second = request.contains("WebIdentityToken=second-token");
        assert!(is_second || request.contains("WebIdentityToken=first-token"), "{request}");
        seen.lock().expect("sound").push(is_second);
        // What the first token is exchanged for has expired by the time that it is there.
        let expires = if is_second { "2100-01-01T00:00:00Z" } else { "2000-01-01T00:00:00Z" };
        (200, exchanged(expires))
    })
    .await;
    let pairs = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().expect("UTF-8")),
        ("AWS_ROLE_ARN", "arn"),
        ("AWS_ENDPOINT_URL_STS", &sts),
    ];
    let store = open_bucket(BucketConfig { auth: environment(&pairs), ..shelf.config() });
    store.write(replace("p", "d", &[("a", "a")])).await.expect("written");
    assert!(!exchanges.lock().expect("sound").contains(&true));
    std::fs::write(&file, "second-token").expect("a file");
    // The same exchange is not made twice in a moment, so it may take more than one request.
    wait::poll("credentials that last", || async {
        store.check().await.expect("usable");
        if exchanges.lock().expect("sound").contains(&true) { Ok(()) } else { Err("the first ones".to_owned()) }
    })
    .await;
    let count = exchanges.lock().expect("sound").len();
    store.write(replace("q", "e", &[("a", "a")])).await.expect("written");
    assert_eq!(exchanges.lock().expect("sound").len(), count, "what lasts is kept");
}

#[tokio::test]
async fn a_container_and_a_machine_give_credentials() {
    let Some(shelf) = Shelf::new().await else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("token");
    std::fs::write(&file, "pod-token").expect("a file");
    let container = giver(|request| {
        let is_known = request.starts_with("GET /v1/credentials") && request.contains("pod-token");
        (if is_known { 200 } else { 403 }, credentials())
    })
    .await;
    let uri = format!("{container}/v1/credentials");
    let pairs = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().expect("UTF-8")),
        // Static keys of the environment are nobody's identity.
        ("AWS_ACCESS_KEY_ID", "wrong"),
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
    ];
    open_bucket(BucketConfig { auth: environment(&pairs), ..shelf.config() }).check().await.expect("usable");

    let machine = giver(|request| match request.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["PUT", "/latest/api/token"] => (200, "session".to_owned()),
        ["GET", path] if request.contains("session") => match path.trim_end_matches('/') {
            "/latest/meta-data/iam/security-credentials" => (200, "role".to_owned()),
            "/latest/meta-data/iam/security-credentials/role" => (200, credentials()),
            _ => (404, String::new()),
        },
        _ => (401, String::new()),
    })
    .await;
    let pairs = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.as_str())];
    open_bucket(BucketConfig { auth: environment(&pairs), ..shelf.config() }).check().await.expect("usable");

    let held = port::Held::take();
    let nobody = format!("http://{}", held.address());
    let pairs = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody.as_str()), pairs[0]];
    let error = open_bucket(BucketConfig { auth: environment(&pairs[..1]), ..shelf.config() }).check().await;
    let error = error.expect_err("nobody there");
    assert!(matches!(error.trouble, Trouble::NoCredentials(_) | Trouble::Unreachable(_)), "{error}");
}

/// Returns what a web identity is exchanged for.
fn exchanged(expires: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
         <SessionToken></SessionToken><Expiration>{expires}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}
