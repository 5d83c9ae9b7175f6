//! Against real servers on the loopback interface.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Serves connections one after the other with these replies; what was asked for is returned in the end.
async fn serve(replies: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let base = format!("http://{address}");
    let replies: Vec<String> = replies.iter().map(|reply| reply.replace("BASE", &base)).collect();
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            requests.push(String::from_utf8(request).unwrap());
            // The client may have seen enough before everything is sent.
            let _ = stream.write_all(reply.as_bytes()).await;
        }
        requests
    });
    (base, task)
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn get(url: &str) -> Download {
    Download { url: url.into(), authorization: None, ca_pem: None }
}

fn unreachable_for(answer: Answer) -> (String, bool) {
    match answer {
        Answer::Unreachable { message, is_passing } => (message, is_passing),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_document_comes_with_its_code() {
    let (base, served) =
        serve(vec![reply("200 OK", "", "kind: Promise"), reply("404 Not Found", "", "no such page")]).await;
    let mut download = get(&format!("{base}/x.yaml"));
    download.authorization = Some("Bearer token".into());
    assert_eq!(fetch(&download).await, Answer::Document { status: 200, body: b"kind: Promise".to_vec() });
    assert_eq!(fetch(&get(&base)).await, Answer::Document { status: 404, body: b"no such page".to_vec() });
    let requests = served.await.unwrap();
    assert!(requests[0].starts_with("GET /x.yaml HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[0].contains("authorization: Bearer token\r\n"), "{requests:?}");
    assert!(!requests[1].contains("authorization"), "{requests:?}");
}

#[tokio::test]
async fn a_redirect_is_followed_and_carries_the_credential_to_nobody_else() {
    let (elsewhere, there) = serve(vec![reply("200 OK", "", "there")]).await;
    let found = |to: &str| reply("302 Found", &format!("Location: {to}\r\n"), "");
    let (base, here) =
        serve(vec![found("/b/c"), found("d?x=https://y/"), found("?z"), found(&format!("{elsewhere}/e"))]).await;
    let mut download = get(&format!("{base}/a"));
    download.authorization = Some("secret".into());
    assert_eq!(fetch(&download).await, Answer::Document { status: 200, body: b"there".to_vec() });
    let requests = here.await.unwrap();
    assert!(requests[1].starts_with("GET /b/c HTTP"), "{requests:?}");
    assert!(requests[2].starts_with("GET /b/d?x=https://y/ HTTP"), "{requests:?}");
    assert!(requests[3].starts_with("GET /b/d?z HTTP"), "{requests:?}");
    assert!(requests.iter().all(|request| request.contains("secret")), "{requests:?}");
    assert!(!there.await.unwrap()[0].contains("secret"));
}

#[test]
fn a_credential_is_for_one_scheme_and_one_authority() {
    let start = Uri::from_static("https://example.com/a");
    for (to, same) in [
        ("https://example.com/b?c", true),
        ("http://example.com/a", false),
        ("https://example.com:8443/a", false),
        ("https://example.org/a", false),
        ("https://me@example.com/a", false),
    ] {
        assert_eq!(is_same_origin(&to.parse().unwrap(), &start), same, "{to}");
    }
}

#[tokio::test]
async fn plain_http_is_for_loopback_hosts_only() {
    for url in ["http://example.com/x", "http://10.0.0.1/x", "http://127.0.0.1.example.com/x"] {
        let refused = format!("Get {url:?}: plain http is only allowed for loopback hosts, use https");
        assert_eq!(unreachable_for(fetch(&get(url)).await), (refused, false));
        // Nor by a detour.
        let (base, _served) = serve(vec![reply("302 Found", &format!("Location: {url}\r\n"), "")]).await;
        let (message, is_passing) = unreachable_for(fetch(&get(&base)).await);
        assert!(message.contains("plain http is only allowed") && !is_passing, "{message}");
    }
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]"] {
        assert!(is_loopback(host), "{host}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let turn = reply("302 Found", "Location: BASE/a\r\n", "");
    let (base, _served) = serve(vec![turn; REDIRECTS_MAX + 1]).await;
    let (message, is_passing) = unreachable_for(fetch(&get(&format!("{base}/a"))).await);
    assert!(message.ends_with("stopped after 10 redirects"), "{message}");
    assert!(!is_passing);
}

#[tokio::test]
async fn a_document_without_end_is_not_read_to_its_end() {
    let (base, _served) = serve(vec![reply("200 OK", "", &"x".repeat(DOCUMENT_BYTES_MAX + 1))]).await;
    let (message, is_passing) = unreachable_for(fetch(&get(&base)).await);
    assert!(message.ends_with("the document is larger than 3 MiB"), "{message}");
    assert!(!is_passing);
}

#[tokio::test]
async fn who_does_not_answer_may_answer_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/x", listener.local_addr().unwrap());
    let (message, is_passing) = unreachable_for(fetch_within(&get(&silent), Duration::from_millis(50)).await);
    assert_eq!(message, format!("Get {silent:?}: no answer within 0.05 s"));
    assert!(is_passing);
    drop(listener);
    let (message, is_passing) = unreachable_for(fetch(&get(&silent)).await);
    assert_eq!(message, format!("Get {silent:?}: Connection refused (os error 111)"));
    assert!(is_passing);
}

#[tokio::test]
async fn what_is_no_web_address_is_refused_without_its_password() {
    for (url, expected) in [
        ("ftp://me:secret@example.com/x", r#"Get "ftp://example.com/x": unsupported protocol scheme "ftp""#),
        ("/x.yaml", r#"Get "/x.yaml": unsupported protocol scheme """#),
        ("http://exa mple/", r#"Get "http://exa mple/": invalid URL: invalid uri character"#),
    ] {
        assert_eq!(unreachable_for(fetch(&get(url)).await), (expected.to_owned(), false));
    }
    let mut download = get("http://127.0.0.1:1/");
    download.authorization = Some("Bearer x\n".into());
    let (message, is_passing) = unreachable_for(fetch(&download).await);
    assert!(message.contains("line break") && !message.contains("Bearer"), "{message}");
    assert!(!is_passing);
}

#[tokio::test]
async fn a_server_is_who_its_certificate_says() {
    let root = tempfile::tempdir().unwrap();
    let server = kratix_testing::git_http::Server::tls(root.path()).await;
    let mut download = get(&server.url("x"));
    let (message, is_passing) = unreachable_for(fetch(&download).await);
    assert!(message.contains("certificate") && message.contains("caFile"), "{message}");
    assert!(!is_passing);

    download.ca_pem = server.ca_pem().map(|pem| pem.as_bytes().to_vec());
    assert!(matches!(fetch(&download).await, Answer::Document { .. }), "{:?}", fetch(&download).await);

    download.ca_pem = Some(b"nonsense".to_vec());
    let (message, _) = unreachable_for(fetch(&download).await);
    assert!(message.ends_with("the caFile in the Secret holds no PEM certificate"), "{message}");
}
