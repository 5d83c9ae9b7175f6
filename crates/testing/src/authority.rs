//! A certificate authority of a test's own.

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
        let authority_key = rcgen::KeyPair::generate().expect("a key");
        let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "tests");
        let ca_pem = authority.self_signed(&authority_key).expect("a certificate").pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate =
            rcgen::CertificateParams::new(names).expect("parameters").signed_by(&key, &issuer).expect("a certificate");
        Self { ca_pem, certificate, key }
    }
}
