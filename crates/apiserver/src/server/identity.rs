//! Keys and certificates of a server, kept in its store so that clients keep trusting it across restarts.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::StartError;
use crate::store::{Draft, Expect, ObjectName, Store, Write};

/// Not a resource: no path leads here.
const TABLE: &str = "internal/identity";

/// What makes a server itself.
pub(super) struct Identity {
    pub(super) ca_pem: String,
    ca_key_pem: String,
    pub(super) token_key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(secret)")
    }
}

impl Identity {
    /// Reads the identity, or makes one for a new store.
    pub(super) async fn load(store: &Store) -> Result<Self, StartError> {
        let name = ObjectName::new("", "server");
        if let Some(record) = store.get(TABLE, &name) {
            return Self::parse(&record.value())
                .ok_or_else(|| StartError::Identity("the one in the store cannot be read".into()));
        }
        let failed = |error: rcgen::Error| StartError::Identity(error.to_string());
        let key = KeyPair::generate().map_err(failed)?;
        let ca = authority().self_signed(&key).map_err(failed)?;
        let mut token_key = Vec::with_capacity(32);
        token_key.extend_from_slice(Uuid::new_v4().as_bytes());
        token_key.extend_from_slice(Uuid::new_v4().as_bytes());
        let identity = Self { ca_pem: ca.pem(), ca_key_pem: key.serialize_pem(), token_key };
        let draft = Some(Draft::encode(&identity.value(), 0));
        let write = Write { table: TABLE.into(), name, expect: Expect::Absent, draft, homes: Vec::new() };
        store.write(write).await.map_err(|error| StartError::Identity(error.to_string()))?;
        Ok(identity)
    }

    fn value(&self) -> Value {
        json!({
            "apiVersion": "internal", "kind": "Identity", "metadata": {"name": "server"},
            "ca": self.ca_pem, "caKey": self.ca_key_pem, "tokenKey": BASE64.encode(&self.token_key),
        })
    }

    fn parse(value: &Value) -> Option<Self> {
        Some(Self {
            ca_pem: value["ca"].as_str()?.to_owned(),
            ca_key_pem: value["caKey"].as_str()?.to_owned(),
            token_key: BASE64.decode(value["tokenKey"].as_str()?).ok()?,
        })
    }

    /// Returns a fresh certificate and key for a server at `address`, in DER, signed by the authority.
    pub(super) fn certificate(&self, address: IpAddr) -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&self.ca_key_pem)?);
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let mut params = CertificateParams::new(names.map(str::to_owned).to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        for ip in [IpAddr::from([127, 0, 0, 1]), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), address] {
            params.subject_alt_names.push(SanType::IpAddress(ip));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }
}

/// What the authority's certificate says: an issuer is made of this and the key, without parsing the certificate.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "embedded-apiserver");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}
