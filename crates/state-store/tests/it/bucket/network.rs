//! The way to a server: proxies between, and authorities that vouch for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kratix_state_store::{BucketConfig, Proxies, Tls, Trouble};
use kratix_testing::authority::{Identity, Validity};
use kratix_testing::port;
use kratix_testing::s3::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Shelf, map, open_bucket, replace};

/// A name that only the proxy can reach.
const HOST: &str = "s3.test";

/// What a proxy that leads to one server, whatever it is asked for, has been asked first by each client.
struct Proxy {
    port: u16,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Lets nobody through with an `answer`.
    async fn to(endpoint: String, answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
        let met = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (endpoint, met) = (endpoint.clone(), Arc::clone(&met));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = near.read_u8().await else { return };
                        head.push(byte);
                    }
                    let text = String::from_utf8_lossy(&head).into_owned();
                    met.lock().expect("no panic").push(text.clone());
                    if let Some(answer) = answer {
                        let _ = near.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).await;
                        return;
                    }
                    let mut far = TcpStream::connect(endpoint).await.expect("the server is there");
                    if text.starts_with("CONNECT ") {
                        near.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.expect("sent");
                    } else {
                        far.write_all(&head).await.expect("sent");
                    }
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { port, heads, task }
    }

    fn proxies(&self) -> Proxies {
        let url = format!("http://me:pass%20word@127.0.0.1:{}", self.port);
        Proxies { http: url.clone(), https: url, ..Proxies::default() }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

/// `me:pass word`
const AUTHORIZATION: &str = "proxy-authorization: basic bwu6cgfzcyb3b3jk";

fn secure() -> (Identity, Vec<u8>) {
    let identity = Identity::new(&[HOST, "127.0.0.1"], Validity::Present);
    let ca_pem = identity.ca_pem.clone().into_bytes();
    (identity, ca_pem)
}

#[tokio::test]
async fn a_proxy_makes_a_way_to_a_server_whose_certificate_is_verified_as_ever() {
    let (identity, ca_pem) = secure();
    let Some(shelf) = Shelf::with(Options { tls: Some(identity), ..Options::default() }).await else { return };
    let proxy = Proxy::to(shelf.server.endpoint(), None).await;
    let with =
        |tls: Tls| BucketConfig { endpoint: format!("{HOST}:9000"), proxies: proxy.proxies(), tls, ..shelf.config() };
    let trusted = || Tls { ca_pem: Some(ca_pem.clone()), ..Tls::default() };
    open_bucket(with(trusted())).write(replace("p", "d", &[("a", "a")])).await.expect("written");
    open_bucket(with(Tls { insecure: true, ..Tls::default() })).check().await.expect("not verified");
    assert_eq!(shelf.files().await, map(&[("d/a", "a")]));
    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in heads.iter().map(|head| head.to_ascii_lowercase()) {
        assert!(head.starts_with("connect s3.test:9000 http/1.1\r\n") && head.contains(AUTHORIZATION), "{head}");
    }
    let error = open_bucket(with(Tls::default())).check().await.expect_err("nobody vouches for it");
    assert_eq!(error.trouble, Trouble::Untrusted("its issuer is unknown".to_owned()));
    // Nobody else can reach it, and nothing goes through the proxy that is to be reached directly.
    let direct = BucketConfig { proxies: Proxies::default(), ..with(trusted()) };
    let unknown = Trouble::UnknownHost(HOST.to_owned());
    assert_eq!(open_bucket(direct).check().await.expect_err("unknown").trouble, unknown);
    let before = proxy.heads().len();
    let excepted = BucketConfig { proxies: Proxies { direct: ".test".into(), ..proxy.proxies() }, ..with(trusted()) };
    assert_eq!(open_bucket(excepted).check().await.expect_err("unknown").trouble, unknown);
    let near = BucketConfig { endpoint: shelf.server.endpoint(), ..with(trusted()) };
    open_bucket(near).check().await.expect("on this machine");
    assert_eq!(proxy.heads().len(), before);
}

#[tokio::test]
async fn plain_http_is_forwarded_by_the_proxy() {
    let Some(shelf) = Shelf::new().await else { return };
    let proxy = Proxy::to(shelf.server.endpoint(), None).await;
    let config = BucketConfig { endpoint: format!("{HOST}:9000"), proxies: proxy.proxies(), ..shelf.config() };
    open_bucket(config).write(replace("p", "d", &[("a", "a")])).await.expect("written");
    assert_eq!(shelf.files().await, map(&[("d/a", "a")]));
    for head in proxy.heads().iter().map(|head| head.to_ascii_lowercase()) {
        let (line, _) = head.split_once("\r\n").expect("a line");
        assert!(line.contains(" http://s3.test:9000/state") && head.contains(AUTHORIZATION), "{head}");
    }
    assert!(!proxy.heads().is_empty());
}

#[tokio::test]
async fn a_proxy_that_is_of_no_use_is_named_without_its_password() {
    let endpoint = || "127.0.0.1:1".to_owned();
    let (denies, asks) =
        (Proxy::to(endpoint(), Some("403 Forbidden")).await, Proxy::to(endpoint(), Some("407 Who")).await);
    let nobody = port::Held::take();
    let gone = format!("http://me:pass%20word@{}", nobody.address());
    let https = |https: &str| Proxies { https: https.to_owned(), ..Proxies::default() };
    for (proxies, reason) in [
        (denies.proxies(), "unsuccessful"),
        (asks.proxies(), "proxy authorization required"),
        (https(&gone), "Connection refused"),
        (https("socks5://me:pass%20word@127.0.0.1:1"), "only proxies with http:// are supported"),
    ] {
        let config = BucketConfig::new("default", HOST, "b", super::keys("secret"));
        let error = open_bucket(BucketConfig { proxies, ..config }).check().await.expect_err("no way");
        let Trouble::Unreachable(text) = &error.trouble else { panic!("{error}") };
        assert!(text.starts_with("proxy 127.0.0.1:") && text.ends_with(reason), "{text}");
        assert!(!format!("{error:?}").contains("pass"), "{error:?}");
    }
}

/// Weakness 37
#[tokio::test]
async fn the_file_of_the_host_is_believed_and_read_again_when_it_has_changed() {
    let (identity, ca_pem) = secure();
    let Some(shelf) = Shelf::with(Options { tls: Some(identity), ..Options::default() }).await else { return };
    let authorities = tempfile::tempdir().expect("a directory");
    let file = authorities.path().join("127.0.0.1");
    let tls = Tls { ca_directory: Some(authorities.path().to_owned()), ..Tls::default() };
    let store = open_bucket(BucketConfig { tls: tls.clone(), ..shelf.config() });
    // Connections that are kept need no certificate, so that each of these breaks them.
    let breaks = || {
        let count = AtomicUsize::new(0);
        shelf.server.intercept(move |_| {
            (count.fetch_add(1, Ordering::Relaxed) == 0).then_some(kratix_testing::s3::Fault::Break)
        });
    };
    assert_eq!(store.check().await.expect_err("nobody vouches for it").category(), "StoreUntrusted");
    std::fs::write(&file, &ca_pem).expect("a file");
    store.check().await.expect("trusted");
    std::fs::write(&file, Identity::local().ca_pem).expect("a file");
    breaks();
    assert_eq!(store.check().await.expect_err("another authority").category(), "StoreUntrusted");
    std::fs::write(&file, "no certificate").expect("a file");
    let error = store.check().await.expect_err("unusable");
    let expected =
        Trouble::Authority { file: file.display().to_string(), reason: "it holds no PEM certificate".to_owned() };
    assert_eq!((error.category(), &error.trouble), ("StoreAuthorityUnusable", &expected));
    // What came with the store wins, and who believes everybody looks at no file.
    for tls in [Tls { ca_pem: Some(ca_pem), ..tls.clone() }, Tls { insecure: true, ..tls }] {
        open_bucket(BucketConfig { tls, ..shelf.config() }).check().await.expect("usable");
    }
}
