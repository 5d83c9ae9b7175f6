//! Signatures of commits, as `ssh-keygen -Y sign -n git` makes them and `git verify-commit` reads them.
//!
//! The format is that of `PROTOCOL.sshsig` of OpenSSH; the arithmetic is `ring`'s.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA512, digest};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA512,
    RsaKeyPair,
};

use super::private_key::{Material, PrivateKey, Rsa};
use crate::error::Trouble;

/// What a signature is for, so that none for one purpose serves another.
const NAMESPACE: &[u8] = b"git";
const HASH: &[u8] = b"sha512";
const PREAMBLE: &[u8] = b"SSHSIG";
/// Length of a line, as `ssh-keygen` has it.
const LINE: usize = 70;

/// A key that signs.
pub(super) struct SigningKey {
    pair: Pair,
    /// The public part, as in `authorized_keys`.
    public: Vec<u8>,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// Reads a key in the format of OpenSSH.
    ///
    /// # Errors
    /// What is wrong with it; nothing of the key is in the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let material = PrivateKey::parse(text)?.material;
        let material = material.ok_or("it is not in the format of OpenSSH; convert it with ssh-keygen -p")?;
        match material {
            Material::Ed25519 { public, seed } => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &public).map_err(rejected)?;
                Ok(Self { pair: Pair::Ed25519(pair), public: blob(&[b"ssh-ed25519", &public]) })
            }
            Material::Ecdsa { curve, public, scalar } => {
                let (algorithm, kind, size) = match curve.as_str() {
                    "nistp256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, "ecdsa-sha2-nistp256", 32),
                    "nistp384" => (&ECDSA_P384_SHA384_FIXED_SIGNING, "ecdsa-sha2-nistp384", 48),
                    other => return Err(format!("keys on the curve {other} cannot sign here; use ed25519")),
                };
                let scalar = padded(&scalar, size).ok_or("it does not fit its curve")?;
                let random = SystemRandom::new();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &scalar, &public, &random)
                    .map_err(rejected)?;
                let public = blob(&[kind.as_bytes(), curve.as_bytes(), &public]);
                Ok(Self { pair: Pair::Ecdsa(pair, kind), public })
            }
            Material::Rsa(key) => {
                let public = blob(&[b"ssh-rsa", &key.e, &key.n]);
                Ok(Self { pair: Pair::Rsa(rsa(&key)?), public })
            }
            Material::Other(kind) => Err(format!("keys of type {kind} cannot sign here; use ed25519")),
        }
    }

    /// Returns the armored signature of a message.
    ///
    /// # Errors
    /// [`Trouble::Config`] if the key turns out not to work.
    pub(super) fn sign(&self, message: &[u8]) -> Result<String, Trouble> {
        let hashed = digest(&SHA512, message);
        let signed = [PREAMBLE, &blob(&[NAMESPACE, b"", HASH, hashed.as_ref()])].concat();
        let signature = self.raw(&signed).map_err(|_| Trouble::Config("the signing key does not sign".to_owned()))?;
        let version = 1u32.to_be_bytes();
        let fields = blob(&[&self.public, NAMESPACE, b"", HASH, &signature]);
        let encoded = STANDARD.encode([PREAMBLE, &version, &fields].concat());
        let mut armored = "-----BEGIN SSH SIGNATURE-----\n".to_owned();
        for line in encoded.as_bytes().chunks(LINE) {
            armored.push_str(&String::from_utf8_lossy(line));
            armored.push('\n');
        }
        armored.push_str("-----END SSH SIGNATURE-----\n");
        Ok(armored)
    }

    fn raw(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => Ok(blob(&[b"ssh-ed25519", pair.sign(message).as_ref()])),
            Pair::Ecdsa(pair, kind) => {
                let fixed = pair.sign(&random, message)?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                Ok(blob(&[kind.as_bytes(), &blob(&[&number(r), &number(s)])]))
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA512, &random, message, &mut signature)?;
                Ok(blob(&[b"rsa-sha2-512", &signature]))
            }
        }
    }
}

fn rejected(error: ring::error::KeyRejected) -> String {
    format!("it cannot be used: {error}")
}

fn rsa(key: &Rsa) -> Result<RsaKeyPair, String> {
    let [n, e, d, p, q] = [&key.n, &key.e, &key.d, &key.p, &key.q].map(|number| strip(number));
    let (dp, dq) = (remainder(d, &less_one(p)), remainder(d, &less_one(q)));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: strip(&dp),
        dQ: strip(&dq),
        qInv: strip(&key.q_inverse),
    };
    RsaKeyPair::from_components(&components).map_err(|error| {
        let reason = rejected(error);
        format!("{reason}; an RSA key that signs has 2048 to 4096 bits")
    })
}

/// Returns an odd number less one.
fn less_one(odd: &[u8]) -> Vec<u8> {
    let mut number = odd.to_owned();
    if let Some(last) = number.last_mut() {
        *last &= 0xfe;
    }
    number
}

/// Returns the remainder of a division, digit by digit: only done when a key is read.
fn remainder(dividend: &[u8], divisor: &[u8]) -> Vec<u8> {
    // One byte more than the divisor, for what is shifted out.
    let divisor = [&[0], divisor].concat();
    let mut rest = vec![0u8; divisor.len()];
    for bit in dividend.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        // Both have one length, so that they compare as numbers.
        if rest >= divisor {
            let mut borrow = false;
            for (byte, minus) in rest.iter_mut().zip(&divisor).rev() {
                let (once, first) = byte.overflowing_sub(*minus);
                let (twice, second) = once.overflowing_sub(u8::from(borrow));
                (*byte, borrow) = (twice, first || second);
            }
        }
    }
    rest
}

/// Returns a number without leading zeros.
fn strip(number: &[u8]) -> &[u8] {
    &number[number.iter().position(|byte| *byte != 0).unwrap_or(number.len())..]
}

/// Returns a number with leading zeros.
fn padded(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let number = strip(number);
    let zeros = size.checked_sub(number.len())?;
    Some([&vec![0; zeros], number].concat())
}

/// Returns a positive number as RFC 4251 has it.
fn number(bytes: &[u8]) -> Vec<u8> {
    let bytes = strip(bytes);
    let needs_zero = bytes.first().is_some_and(|first| first & 0x80 != 0);
    [if needs_zero { &[0u8][..] } else { &[] }, bytes].concat()
}

/// Returns strings as RFC 4251 has them, one after the other.
fn blob(strings: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for string in strings {
        let length = u32::try_from(string.len()).expect("keys and signatures are short");
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(string);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_arithmetic() {
        for (dividend, divisor) in
            [(0u64, 7u64), (6, 7), (7, 7), (1_000_003, 97), (u64::MAX, 65_537), (u64::MAX, u64::MAX - 1)]
        {
            let rest = remainder(&dividend.to_be_bytes(), strip(&divisor.to_be_bytes()));
            let expected = (dividend % divisor).to_be_bytes();
            assert_eq!(strip(&rest), strip(&expected), "{dividend} % {divisor}");
        }
    }

    #[test]
    fn numbers_are_written_in_their_shortest_form() {
        assert_eq!(number(&[0, 0, 1]), [1]);
        assert_eq!(number(&[0, 0x80]), [0, 0x80]);
        assert_eq!(padded(&[0, 0, 1], 2), Some(vec![0, 1]));
        assert_eq!(padded(&[1, 0, 1], 2), None);
    }

    #[test]
    fn a_key_that_cannot_sign_says_why() {
        for (text, expected) in [
            ("ssh-ed25519 AAAA", "it is a public key"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMAMCAQA=\n-----END RSA PRIVATE KEY-----",
                "it is not in the format of OpenSSH",
            ),
        ] {
            let error = SigningKey::parse(text).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
