//! The authorities that vouch for a server: those that were given with the store, or else a file named by the host.
//!
//! Files are read each time, so that one that is replaced while the process runs is in effect with the next exchange.

use std::path::Path;

use crate::config::Tls;
use crate::error::Trouble;
use crate::tls;

/// Returns the PEM certificates to trust for `host` (without port), `None` for those of the machine.
///
/// # Errors
/// [`Trouble::Authority`] for a text that holds no certificates.
pub(crate) fn pem(tls: &Tls, host: &str) -> Result<Option<Vec<u8>>, Trouble> {
    if let Some(pem) = &tls.ca_pem {
        return checked(pem.clone(), "caFile");
    }
    let Some(path) = tls.ca_directory.as_deref().zip(file_name(host)).map(|(directory, name)| directory.join(name))
    else {
        return Ok(None);
    };
    match std::fs::read(&path) {
        Ok(pem) => checked(pem, &shown(&path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Trouble::Authority { file: shown(&path), reason: error.to_string() }),
    }
}

fn checked(pem: Vec<u8>, file: &str) -> Result<Option<Vec<u8>>, Trouble> {
    match tls::certificates(&pem) {
        Ok(_) => Ok(Some(pem)),
        Err(reason) => Err(Trouble::Authority { file: file.to_owned(), reason: reason.to_owned() }),
    }
}

/// Returns the name of the file of a host; `None` if it could be another place than the directory.
fn file_name(host: &str) -> Option<String> {
    let name = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
    is_plain.then_some(name)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        rcgen::CertificateParams::new(Vec::new()).expect("parameters").self_signed(&key).expect("a certificate").pem()
    }

    #[test]
    fn a_file_is_found_by_its_host_and_what_came_with_the_store_wins() {
        let directory = tempfile::tempdir().expect("a directory");
        let (host, v6, own) = (certificate(), certificate(), certificate());
        std::fs::write(directory.path().join("git.example.org"), &host).expect("a file");
        std::fs::write(directory.path().join("::1"), &v6).expect("a file");
        let mut tls = Tls { ca_directory: Some(directory.path().to_owned()), ..Tls::default() };
        for (name, expected) in [
            ("git.example.org", Some(&host)),
            ("GIT.example.org", Some(&host)),
            ("[::1]", Some(&v6)),
            ("example.org", None),
            ("..", None),
            ("", None),
            ("../git.example.org", None),
        ] {
            let expected = expected.map(|pem| pem.clone().into_bytes());
            assert_eq!(pem(&tls, name), Ok(expected), "{name}");
        }
        tls.ca_pem = Some(own.clone().into_bytes());
        assert_eq!(pem(&tls, "git.example.org"), Ok(Some(own.into_bytes())));
    }

    #[test]
    fn a_file_that_holds_no_certificates_is_named_and_what_is_in_it_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let tls = Tls { ca_directory: Some(directory.path().to_owned()), ..Tls::default() };
        let body = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n";
        for (content, reason) in [
            ("", "it holds no PEM certificate"),
            ("c2VjcmV0", "it holds no PEM certificate"),
            (body, "it holds something that is no certificate"),
            (cut, "it is not well-formed PEM"),
        ] {
            let path = directory.path().join("host");
            std::fs::write(&path, content).expect("a file");
            let file = path.display().to_string();
            let trouble = pem(&tls, "host").expect_err("unusable");
            assert_eq!(trouble, Trouble::Authority { file: file.clone(), reason: reason.to_owned() });
            assert!(trouble.to_string().contains(&file) && !trouble.to_string().contains("c2VjcmV0"), "{trouble}");
            let given = Tls { ca_pem: Some(content.as_bytes().to_vec()), ..Tls::default() };
            assert!(pem(&given, "host").expect_err("unusable").to_string().contains("caFile"));
        }
        std::fs::create_dir(directory.path().join("directory")).expect("a directory");
        assert!(matches!(pem(&tls, "directory"), Err(Trouble::Authority { .. })));
    }
}
