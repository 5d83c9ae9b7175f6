//! A certificate authority of a test's own.

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Present,
    /// It has expired.
    Past,
    /// It is not valid yet.
    Future,
}

/// An authority and one server certificate that it signed.
pub struct Identity {
    /// Certificate of the authority, PEM.
    pub ca_pem: String,
    /// Certificate of the server.
    pub certificate: rcgen::Certificate,
    /// Key of the server.
    pub key: rcgen::KeyPair,
}

impl Identity {
    /// Returns an identity for a server on this machine.
    ///
    /// # Panics
    /// When keys cannot be generated.
    pub fn local() -> Self {
        Self::new(&["localhost", "127.0.0.1"], Validity::Present)
    }

    /// Returns an identity for a server of these names.
    ///
    /// # Panics
    /// When keys cannot be generated.
    pub fn new(names: &[&str], validity: Validity) -> Self {
        let authority_key = rcgen::KeyPair::generate().expect("a key");
        let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "tests");
        let ca_pem = authority.self_signed(&authority_key).expect("a certificate").pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = rcgen::CertificateParams::new(names).expect("parameters");
        match validity {
            Validity::Present => {}
            Validity::Past => server.not_after = rcgen::date_time_ymd(2001, 1, 1),
            Validity::Future => server.not_before = rcgen::date_time_ymd(4000, 1, 1),
        }
        let certificate = server.signed_by(&key, &issuer).expect("a certificate");
        Self { ca_pem, certificate, key }
    }

    /// Returns an identity whose certificate has signed itself, as `openssl req -x509` makes them.
    ///
    /// # Panics
    /// When keys cannot be generated.
    pub fn own(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut server = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        server.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = server.self_signed(&key).expect("a certificate");
        Self { ca_pem: certificate.pem(), certificate, key }
    }
}
