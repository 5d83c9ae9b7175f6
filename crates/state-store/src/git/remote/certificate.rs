//! What is wrong with a server's certificate: git's TLS libraries say the same for one that has expired, one of another host and
//! one of an unknown authority, and name files of this machine.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Looks at the certificate of a server as git does, trusting the machine's authorities, or those of `pem` instead.
///
/// `None` if there is no problem, or none that can be found out.
pub(super) async fn problem(host: &str, port: u16, pem: Option<&[u8]>, deadline: Duration) -> Option<String> {
    let config = trusting(pem)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let shake_hands = async {
        let stream = TcpStream::connect((host.as_str(), port)).await.ok()?;
        let name = ServerName::try_from(host.clone()).ok()?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.err()
    };
    let error = tokio::time::timeout(deadline, shake_hands).await.ok()??;
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(reason) => Some(tls::reason(reason)),
        _ => None,
    }
}

fn trusting(pem: Option<&[u8]>) -> Option<ClientConfig> {
    let Some(pem) = pem else { return tls::verified(Vec::new()).ok() };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls::certificates(pem).ok()?);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Some(builder.with_safe_default_protocol_versions().ok()?.with_root_certificates(roots).with_no_client_auth())
}
