use super::*;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a byte"));
    }
    String::from_utf8(head).expect("text")
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

#[tokio::test]
async fn the_request_goes_through_the_proxy_of_the_environment_and_past_it_where_that_is_said() {
    let (proxy, proxy_address) = listener().await;
    let (api, api_address) = listener().await;
    let serve = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = api.accept().await.expect("a connection");
            let request = head(&mut stream).await.to_ascii_lowercase();
            assert!(request.starts_with("post /t http/1.1\r\n"), "{request}");
            assert!(request.contains("authorization: bearer j-w-t\r\n"), "{request}");
            let body = r#"{"token":"t","expires_at":"2016-07-11T22:14:10Z"}"#;
            let answer = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("sent");
        }
    });
    let target = api_address.clone();
    let relay = tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.expect("a connection");
        let request = head(&mut near).await;
        near.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.expect("sent");
        let mut far = TcpStream::connect(target).await.expect("connected");
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        request
    });
    let endpoint: Uri = format!("http://{api_address}/t").parse().expect("a URL");
    let proxies = |direct: &str| Matcher::builder().all(format!("http://me:pw@{proxy_address}")).no(direct).build();
    for proxies in [proxies("example.org"), proxies("127.0.0.1")] {
        let tls = tls::verified(Vec::new()).expect("settings");
        let granted = exchange_through(&proxies, &endpoint, &"j-w-t".into(), tls, Duration::from_secs(60)).await;
        let granted = granted.map_err(|refusal| refusal.reason).expect("granted");
        assert_eq!(granted.token.expose(), "t");
        assert_eq!(granted.expires_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_468_275_250)));
    }
    serve.await.expect("served");
    let request = relay.await.expect("relayed").to_ascii_lowercase();
    assert!(request.starts_with(&format!("connect {api_address} http/1.1\r\n")), "{request}");
    assert!(request.contains("proxy-authorization: basic bwu6chc=") && !request.contains("j-w-t"), "{request}");

    let socks = Matcher::builder().all("socks5://127.0.0.1:1").build();
    let tls = tls::verified(Vec::new()).expect("settings");
    let refusal = exchange_through(&socks, &endpoint, &"j-w-t".into(), tls, Duration::from_secs(60)).await;
    let reason = refusal.map(|_| ()).map_err(|refusal| refusal.reason).expect_err("not supported");
    assert!(reason.ends_with("only proxies with http:// are supported here"), "{reason}");
}

#[test]
fn a_server_that_repeats_the_signed_text_does_not_make_it_known() {
    let body = r#"{"message":"bad: a.b.c\nsee above"}"#;
    let refusal = read(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body.as_bytes(), &"a.b.c".into());
    let reason = refusal.map(|_| ()).map_err(|refusal| refusal.reason).expect_err("refused");
    assert_eq!(reason, "GitHub API error: status=401, message=bad: …see above");
}

#[test]
fn a_pause_is_given_in_seconds_or_as_a_point_in_time() {
    assert_eq!(pause(Some("7"), None), Some(Duration::from_secs(7)));
    assert_eq!(pause(Some("Wed, 21 Oct 2015 07:28:00 GMT"), None), None);
    assert_eq!(pause(None, Some("1")), None, "it is over");
    assert!(pause(None, Some("99999999999")).is_some());
    assert_eq!(pause(None, None), None);
}
