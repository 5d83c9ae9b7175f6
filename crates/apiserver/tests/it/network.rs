//! Over TLS: who is let in, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use embedded_apiserver::Server;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{DEADLINE, World, create, refusal, until};

async fn client(server: &Server, address: SocketAddr, token: &str) -> Client {
    let config = Kubeconfig::from_yaml(&server.kubeconfig("test", address, token)).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn get(client: &Client, path: &str) -> kube::Result<Value> {
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await
}

/// Asks for a token of the service account `robot`.
async fn token(world: &World, spec: Value) -> (u16, String) {
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let sent = world.send("POST", path, &body).await;
    (sent.code, sent.value()["status"]["token"].as_str().unwrap_or_default().to_owned())
}

async fn robot(world: &World) {
    let accounts = world.api("v1", "ServiceAccount", "serviceaccounts");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    create(&accounts, account).await.unwrap();
}

const WHOAMI: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const NAMESPACES: &str = "/api/v1/namespaces";

#[tokio::test]
async fn tokens_open_the_door_and_nothing_else_does() {
    let world = World::new().await;
    robot(&world).await;
    let listening = world.server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let admin = world.server.token("admin", ["system:masters"]);
    let (_, account) = token(&world, json!({})).await;
    assert!(get(&client(&world.server, listening.addr, &admin).await, NAMESPACES).await.is_ok());
    // Known, but not allowed.
    let known = client(&world.server, listening.addr, &account).await;
    let (code, _, message) = refusal(get(&known, NAMESPACES).await);
    assert_eq!(code, 403);
    assert!(message.contains(r#"User "system:serviceaccount:default:robot""#), "{message}");
    let forged = format!("{}x", &admin[..admin.len() - 1]);
    for bad in ["garbage", "a.b.c", forged.as_str()] {
        let stranger = client(&world.server, listening.addr, bad).await;
        assert_eq!(refusal(get(&stranger, NAMESPACES).await).0, 401, "{bad}");
        assert_eq!(refusal(get(&stranger, "/version").await).0, 401, "{bad}");
    }
    world.api("v1", "ServiceAccount", "serviceaccounts").delete("robot", &Default::default()).await.unwrap();
    assert_eq!(refusal(get(&known, NAMESPACES).await).0, 401, "its account is gone");
}

#[tokio::test]
async fn without_a_token_one_is_anonymous() {
    let world = World::new().await;
    let listening = world.server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut config = Kubeconfig::from_yaml(&world.server.kubeconfig("test", listening.addr, "x")).unwrap();
    config.auth_infos[0].auth_info = Some(Default::default());
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let nobody = Client::try_from(config).unwrap();
    assert!(get(&nobody, "/version").await.is_ok());
    let (code, _, message) = refusal(get(&nobody, NAMESPACES).await);
    assert_eq!(code, 403);
    assert!(message.contains(r#"User "system:anonymous""#), "{message}");
}

#[tokio::test]
async fn a_token_is_good_for_its_audiences_only() {
    let world = World::new().await;
    robot(&world).await;
    let listening = world.server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (_, vault) = token(&world, json!({"audiences": ["vault", "bank"]})).await;
    let stranger = client(&world.server, listening.addr, &vault).await;
    let review = http::Request::post(WHOAMI).header("content-type", "application/json");
    let review = review.body(br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.to_vec());
    assert_eq!(refusal(stranger.request::<Value>(review.unwrap()).await).0, 401);
    let ask = async |audiences: Value| {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": vault, "audiences": audiences}});
        world.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &body).await.value()["status"].clone()
    };
    let good = ask(json!(["shop", "vault"])).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&json!(true), &json!(["vault"])));
    for bad in [json!(["shop"]), json!([])] {
        let status = ask(bad).await;
        assert_ne!(status["authenticated"], true);
        assert!(status["error"].as_str().unwrap().starts_with("token audiences"), "{status}");
    }
    let (code, _) = token(&world, json!({"expirationSeconds": 1})).await;
    assert_eq!(code, 422, "a token lives for ten minutes at least");
}

/// Opens a TLS connection without saying anything.
async fn connect(server: &Server, address: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let stream = TcpStream::connect(address).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

async fn jump(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_shown_out_and_a_watch_stays() {
    let world = World::new().await;
    let listening = world.server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut silent = connect(&world.server, listening.addr).await;
    let mut half = connect(&world.server, listening.addr).await;
    half.write_all(b"GET /version HTTP/1.1\r\nHost: a").await.unwrap();
    let mut watch = connect(&world.server, listening.addr).await;
    let token = world.server.token("admin", ["system:masters"]);
    let request = format!(
        "GET /api/v1/namespaces?watch=true&timeoutSeconds=1000000 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    watch.write_all(request.as_bytes()).await.unwrap();
    let mut seen = vec![0; 12];
    watch.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, b"HTTP/1.1 200");
    let mut rest = Vec::new();
    let shown_out = async {
        for stranger in [&mut silent, &mut half] {
            let _ = stranger.read_to_end(&mut rest).await;
        }
    };
    tokio::pin!(shown_out);
    let began = std::time::Instant::now();
    // The clock jumps, past every deadline. What is closed then is seen in real time, as is what was still on its way to the server.
    loop {
        jump(Duration::from_secs(120)).await;
        if tokio::time::timeout(Duration::from_millis(20), &mut shown_out).await.is_ok() {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "still connected");
    }
    jump(Duration::from_secs(600)).await;
    // The watch is not idle as long as it is open.
    create(
        &world.all("v1", "Namespace", "namespaces"),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}}),
    )
    .await
    .unwrap();
    let mut text = String::new();
    until("the watch shows the namespace", async || {
        let mut bytes = vec![0; 65536];
        let count = watch.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the watch was closed");
        text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        text.contains(r#""name":"late""#).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_has_a_limited_number_of_open_requests() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let world = World::new().await;
    let listening = world.server.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut stream = connect(&world.server, listening.addr).await;
    // The preface and empty settings; what comes back first are the settings of the server (RFC 9113, 3.4 and 6.5).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "a SETTINGS frame");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let limit = settings.chunks(6).find(|one| u16::from_be_bytes([one[0], one[1]]) == MAX_CONCURRENT_STREAMS);
    assert_eq!(limit.map(|one| u32::from_be_bytes([one[2], one[3], one[4], one[5]])), Some(250));
}
