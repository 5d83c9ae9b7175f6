//! Private keys as people keep them: PEM text in the format of OpenSSH or in one of OpenSSL.
//!
//! Of a key of OpenSSH everything is read. Of the others only the frame is checked, the rest is judged by the program that
//! uses them.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Takes whatever padding there is.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What the private part of a key of OpenSSH begins with.
const MAGIC: &[u8] = b"openssh-key-v1\0";

const PASSPHRASE: &str = "it is protected by a passphrase, which nobody could enter; remove that with ssh-keygen -p";
const DAMAGED: &str = "it is damaged or incomplete";

/// A private key that needs no passphrase.
pub(super) struct PrivateKey {
    /// The PEM text and nothing else, in lines that end as programs expect.
    pub(super) text: String,
    /// What is inside, if it is in the format of OpenSSH.
    pub(super) material: Option<Material>,
}

/// A key in the format of OpenSSH. The numbers are as they are encoded: big endian, perhaps with leading zeros.
pub(super) enum Material {
    Ed25519 { public: Vec<u8>, seed: Vec<u8> },
    Ecdsa { curve: String, public: Vec<u8>, scalar: Vec<u8> },
    Rsa(Rsa),
    Other(String),
}

pub(super) struct Rsa {
    pub(super) n: Vec<u8>,
    pub(super) e: Vec<u8>,
    pub(super) d: Vec<u8>,
    pub(super) q_inverse: Vec<u8>,
    pub(super) p: Vec<u8>,
    pub(super) q: Vec<u8>,
}

impl PrivateKey {
    /// Reads a key.
    ///
    /// # Errors
    /// What is wrong with it; nothing of the key is in the text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(pem) = Pem::find(text) else { return Err(not_a_key(text)) };
        if pem.is_encrypted {
            return Err(PASSPHRASE.to_owned());
        }
        let bytes = BASE64.decode(&pem.body).map_err(|_| DAMAGED.to_owned())?;
        let material = match pem.label {
            "OPENSSH" => Some(openssh(&bytes)?),
            "RSA" | "EC" | "DSA" | "" if is_der(&bytes) => None,
            "RSA" | "EC" | "DSA" | "" => return Err(DAMAGED.to_owned()),
            "ENCRYPTED" => return Err(PASSPHRASE.to_owned()),
            other => return Err(format!("keys of type {other:?} are not known")),
        };
        if let Some(Material::Other(kind)) = &material
            && kind.starts_with("sk-")
        {
            return Err(format!("a key of type {kind} only works beside its device"));
        }
        Ok(Self { text: pem.text, material })
    }
}

/// What text without a private key is, as far as people confuse it.
fn not_a_key(text: &str) -> String {
    let text = text.trim_start();
    if text.is_empty() {
        "it is empty".to_owned()
    } else if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.contains("PUBLIC KEY") {
        "it is a public key, the private one is needed".to_owned()
    } else if text.starts_with("PuTTY-User-Key-File") {
        "it is a key of PuTTY; export it as a key of OpenSSH".to_owned()
    } else {
        "no key found: it begins with -----BEGIN and ends with PRIVATE KEY-----".to_owned()
    }
}

/// A block of PEM that holds a private key.
struct Pem<'t> {
    /// What is before `PRIVATE KEY`.
    label: &'t str,
    is_encrypted: bool,
    body: String,
    text: String,
}

impl<'t> Pem<'t> {
    /// Finds the first private key; parameters and certificates may come before it.
    fn find(text: &'t str) -> Option<Self> {
        let mut rest = text;
        loop {
            let (_, after) = rest.split_once("-----BEGIN ")?;
            let (title, after) = after.split_once("-----")?;
            let (block, after) = after.split_once(&format!("-----END {title}-----"))?;
            rest = after;
            let Some(label) = title.strip_suffix("PRIVATE KEY") else { continue };
            let lines: Vec<&str> = block.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let (headers, body): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| line.contains(':'));
            let is_encrypted = headers.iter().any(|header| header.contains("ENCRYPTED"));
            let headers: String = headers.iter().map(|line| format!("{line}\n")).collect();
            let separator = if headers.is_empty() { "" } else { "\n" };
            let text =
                format!("-----BEGIN {title}-----\n{headers}{separator}{}\n-----END {title}-----\n", body.join("\n"));
            return Some(Self { label: label.trim_end(), is_encrypted, body: body.concat(), text });
        }
    }
}

/// Tells whether the bytes are exactly one sequence that begins with a version.
fn is_der(bytes: &[u8]) -> bool {
    let Some((0x30, rest)) = bytes.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    let Some((&first, rest)) = rest.split_first() else { return false };
    let (length, content) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 if rest.len() >= usize::from(first & 0x7f) => {
            let (length, content) = rest.split_at(usize::from(first & 0x7f));
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), content)
        }
        _ => return false,
    };
    length == content.len() && content.starts_with(&[0x02, 0x01])
}

/// Reads a key of OpenSSH: see `PROTOCOL.key` of OpenSSH.
fn openssh(bytes: &[u8]) -> Result<Material, String> {
    let damaged = || DAMAGED.to_owned();
    let mut outer = Reader(bytes.strip_prefix(MAGIC).ok_or_else(damaged)?);
    let (cipher, kdf) = (outer.text().ok_or_else(damaged)?, outer.text().ok_or_else(damaged)?);
    if cipher != "none" || kdf != "none" {
        return Err(PASSPHRASE.to_owned());
    }
    outer.string().ok_or_else(damaged)?;
    let (count, _public, private) = (outer.number(), outer.string(), outer.string());
    let mut inner = Reader(private.filter(|_| count == Some(1)).ok_or_else(damaged)?);
    let (one, two) = (inner.number().ok_or_else(damaged)?, inner.number().ok_or_else(damaged)?);
    if one != two {
        return Err(damaged());
    }
    material(&mut inner).ok_or_else(damaged)
}

fn material(reader: &mut Reader<'_>) -> Option<Material> {
    let kind = reader.text()?;
    if kind == "ssh-ed25519" {
        let (public, private) = (reader.string()?, reader.string()?);
        let (seed, repeated) = private.split_at_checked(32)?;
        let is_whole = public.len() == 32 && repeated == public;
        return is_whole.then(|| Material::Ed25519 { public: public.to_owned(), seed: seed.to_owned() });
    }
    if kind.starts_with("ecdsa-sha2-") {
        let (curve, public, scalar) = (reader.text()?.to_owned(), reader.string()?.to_owned(), reader.string()?);
        return Some(Material::Ecdsa { curve, public, scalar: scalar.to_owned() });
    }
    if kind == "ssh-rsa" {
        let mut number = || reader.string().map(<[u8]>::to_owned);
        let (n, e, d) = (number()?, number()?, number()?);
        let (q_inverse, p, q) = (number()?, number()?, number()?);
        return Some(Material::Rsa(Rsa { n, e, d, q_inverse, p, q }));
    }
    Some(Material::Other(kind.to_owned()))
}

/// Reads the data types of RFC 4251.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }

    fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.string()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test with `ssh-keygen -t ed25519`.
    const ED25519: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACBOi58wJZkLkl0s7IsFOrpCUdaKC1D5bSqVHcJ0SiFYZQAAAIhvmVPsb5lT
7AAAAAtzc2gtZWQyNTUxOQAAACBOi58wJZkLkl0s7IsFOrpCUdaKC1D5bSqVHcJ0SiFYZQ
AAAEBbjxgsxs6lH00yQI35A8242kVmfhAWNchJ04oTFt4Q7k6LnzAlmQuSXSzsiwU6ukJR
1ooLUPltKpUdwnRKIVhlAAAABHRlc3QB
-----END OPENSSH PRIVATE KEY-----
";

    #[test]
    fn a_key_is_found_in_whatever_surrounds_it_and_written_as_programs_read_it() {
        let variants = [
            ED25519.to_owned(),
            ED25519.trim_end().to_owned(),
            ED25519.replace('\n', "\r\n"),
            format!("\n  comment\n{}", ED25519.replace('\n', "\n  ")),
            format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{ED25519}"),
        ];
        for variant in variants {
            let key = PrivateKey::parse(&variant).expect("a key");
            assert_eq!(key.text, ED25519);
            assert!(matches!(key.material, Some(Material::Ed25519 { .. })));
        }
    }

    #[test]
    fn what_is_no_usable_key_is_told_apart_and_never_quoted() {
        let cut: String =
            ED25519.lines().take(3).chain(ED25519.lines().skip(4)).map(|line| format!("{line}\n")).collect();
        let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAMC\n-----END RSA PRIVATE KEY-----";
        for (text, expected) in [
            ("", "it is empty"),
            ("hello", "no key found"),
            ("ssh-ed25519 AAAA me", "it is a public key"),
            ("-----BEGIN PUBLIC KEY-----\nMAMCAQA=\n-----END PUBLIC KEY-----", "it is a public key"),
            ("PuTTY-User-Key-File-3: ssh-ed25519", "it is a key of PuTTY"),
            (&cut, DAMAGED),
            ("-----BEGIN RSA PRIVATE KEY-----\nMAMCAQ\n-----END RSA PRIVATE KEY-----", DAMAGED),
            ("-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----", DAMAGED),
            (encrypted, PASSPHRASE),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAMCAQA=\n-----END ENCRYPTED PRIVATE KEY-----", PASSPHRASE),
            ("-----BEGIN PGP PRIVATE KEY-----\nMAMCAQA=\n-----END PGP PRIVATE KEY-----", "keys of type \"PGP\""),
        ] {
            let error = PrivateKey::parse(text).err().unwrap_or_default();
            assert!(error.starts_with(expected), "{text:?}: {error:?}");
        }
        for label in ["RSA ", "EC ", "DSA ", ""] {
            let text = format!("-----BEGIN {label}PRIVATE KEY-----\nMAMCAQA=\n-----END {label}PRIVATE KEY-----");
            let key = PrivateKey::parse(&text).expect("a frame that holds");
            assert!(key.material.is_none());
        }
    }
}
