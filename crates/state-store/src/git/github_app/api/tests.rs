use super::*;
use crate::config::{Proxies, Tls};
use crate::connection::Trust;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a byte"));
    }
    String::from_utf8(head).expect("text").to_ascii_lowercase()
}

fn through(proxy: &str, direct: &str) -> Connector {
    let proxies = Proxies { http: proxy.to_owned(), direct: direct.to_owned(), ..Proxies::default() };
    Connector::new(&Tls::default(), Trust::Beside, &proxies, DEADLINE).expect("a connector")
}

const DEADLINE: Duration = Duration::from_secs(60);

async fn reason(connector: &Connector, endpoint: &str) -> (String, AppRemedy) {
    let endpoint = endpoint.parse().expect("a URL");
    let refusal = exchange(connector, &endpoint, &"j-w-t".into(), DEADLINE).await.expect("usable settings");
    refusal.map(|_| ()).map_err(|refusal| (refusal.reason, refusal.remedy)).expect_err("no way")
}

#[tokio::test]
async fn the_request_goes_through_the_proxy_and_past_it_where_that_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = format!("http://me:pw@{}", listener.local_addr().expect("an address"));
    let serve = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let request = head(&mut stream).await;
        let body = r#"{"token":"t","expires_at":"2016-07-11T22:14:10Z"}"#;
        let answer = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("sent");
        request
    });
    let endpoint = "http://api.invalid/t".parse().expect("a URL");
    let granted = exchange(&through(&proxy, ""), &endpoint, &"j-w-t".into(), DEADLINE).await.expect("usable");
    let granted = granted.map_err(|refusal| refusal.reason).expect("granted");
    assert_eq!(granted.token.expose(), "t");
    assert_eq!(granted.expires_at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_468_275_250)));
    let request = serve.await.expect("served");
    assert!(request.starts_with("post http://api.invalid/t http/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: bearer j-w-t\r\n"), "{request}");
    assert!(request.contains("proxy-authorization: basic bwu6chc="), "{request}");

    let failed = "GitHub API request failed: POST http://api.invalid/t: ";
    let (reason_text, remedy) = reason(&through(&proxy, ".invalid"), "http://api.invalid/t").await;
    assert_eq!((reason_text, remedy), (format!("{failed}host \"api.invalid\" is unknown"), AppRemedy::Host));
    let (reason_text, _) = reason(&through("socks5://127.0.0.1:1", ""), "http://api.invalid/t").await;
    assert_eq!(reason_text, format!("{failed}proxy 127.0.0.1:1: only proxies with http:// are supported"));
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
