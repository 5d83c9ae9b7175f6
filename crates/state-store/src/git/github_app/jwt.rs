//! What an app signs to say who it is: a JSON Web Token with an RSA signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Secret;

/// How far back the time of issue is set, for servers whose clock is behind.
const BACKDATED_SECONDS: u64 = 60;
/// How long the text is valid; GitHub takes no more.
const VALID_SECONDS: u64 = 10 * 60;

/// The key of an app.
pub(super) struct Key(RsaKeyPair);

impl Key {
    /// Reads a PEM text; PKCS#1 and PKCS#8 are understood. Nothing of the text is in an error.
    pub(super) fn parse(pem: &str) -> Result<Self, String> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
            let cause = if pem.contains("ENCRYPTED") {
                "failed to parse RSA private key: it is encrypted"
            } else if pem.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
                "failed to parse RSA private key: it is in the format of OpenSSH"
            } else {
                "invalid private key: failed to parse PEM block"
            };
            cause.to_owned()
        })?;
        let parsed = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err("private key is not RSA".to_owned()),
        };
        let rejected = |error: ring::error::KeyRejected| match error.to_string().as_str() {
            "WrongAlgorithm" => "private key is not RSA".to_owned(),
            "TooSmall" => "failed to parse RSA private key: it has less than 2048 bits".to_owned(),
            cause => format!("failed to parse RSA private key: {cause}"),
        };
        parsed.map(Self).map_err(rejected)
    }

    /// Signs that this is the app; `now` is in seconds of the Unix epoch.
    pub(super) fn sign(&self, app_id: u64, now: u64) -> Result<Secret, String> {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let (issued, expires) = (now.saturating_sub(BACKDATED_SECONDS), now + VALID_SECONDS);
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{issued},"exp":{expires},"iss":"{app_id}"}}"#));
        let signed = format!("{header}.{claims}");
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "signing failed".to_owned())?;
        Ok(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}
