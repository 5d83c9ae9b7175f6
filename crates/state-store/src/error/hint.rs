//! What a person can do about trouble with a store.

use super::{AppRemedy, Error, Trouble};
use crate::tls;

impl Error {
    /// Returns what a person can do about it. Only a store that was closed leaves nothing to be done.
    pub fn hint(&self) -> Option<String> {
        let hint = match &self.trouble {
            Trouble::Config(reason) => config_hint(reason),
            Trouble::Unreachable(_) => {
                "check port, firewall and proxy (HTTPS_PROXY, NO_PROXY), and that the server runs; it is tried again"
            }
            Trouble::ServerFailed(_) | Trouble::Busy { .. } => {
                "wait, or ask those who look after the server; it is tried again"
            }
            // A bucket has no branch, and a time limit of its own.
            Trouble::Timeout(_) if self.place.branch.is_empty() => "check whether the server hangs; it is tried again",
            Trouble::Timeout(_) => {
                "check whether the server hangs; if the repository is very large, raise KRATIX_EXEC_TIMEOUT"
            }
            Trouble::Io(_) => {
                "check that the disk is writable and that the process may read and write there; it is tried again"
            }
            Trouble::CachesInUse { .. } => {
                "have fewer stores share one branch of one repository, or end other processes that use this directory; it is tried again"
            }
            Trouble::Damaged(_) => {
                "run git fsck in the repository and repair it; a cache of this process is made again by itself"
            }
            Trouble::Git(_) => "see what git says; KRATIX_GIT_TRACE=1 and -vv put more of it into the log",
            Trouble::CheckedOut(_) => {
                "set the URL of a bare repository on the store, or check out another branch there"
            }
            Trouble::Moved(_) => "others push all the time; it is tried again",
            Trouble::Contended(_) => {
                "if two installations write to one place, give each a path of its own; it is tried again"
            }
            Trouble::Undeleted { .. } => "allow the user of the store to delete objects; it is tried again",
            Trouble::Answer(_) => "see what the server says, and check the spec of the store against it",
            Trouble::Closed => return None,
            Trouble::PlainHttp => "use https:// in the URL of the store",
            Trouble::UnknownHost(_) => "check the host name in the address of the store",
            Trouble::Unauthorized => {
                "check username and password in the secret of the store; a trailing newline in the password also has this effect"
            }
            Trouble::PrivateKey(_) => {
                "put a private key without passphrase, as ssh-keygen writes it, under the key sshPrivateKey into the secret of the store"
            }
            Trouble::SigningKey(_) => {
                "put an SSH private key without passphrase, as ssh-keygen writes it, under the key signingKey into the secret of the store"
            }
            Trouble::KeyRefused(_) => {
                "add the public part of sshPrivateKey to the user or repository on the server, and check the user in the URL of the store"
            }
            Trouble::HostKeyUnknown { host, .. } => {
                let scan = scan(host);
                return Some(format!(
                    "compare what {scan} prints with what the server's owner publishes, and add it under the key knownHosts to the secret of the store"
                ));
            }
            Trouble::HostKeyChanged { host, .. } => {
                let scan = scan(host);
                return Some(format!(
                    "somebody may be in between; only if the server's owner confirms the new key, replace the lines of {host} under the key knownHosts in the secret of the store by what {scan} prints"
                ));
            }
            Trouble::HostKeyRefused(_) => {
                "check the lines of the host under the key knownHosts in the secret of the store"
            }
            Trouble::Forbidden(_) => "give the user of the store write access to it",
            Trouble::Untrusted(reason) if reason == tls::EXPIRED => "renew the certificate on the server",
            Trouble::Untrusted(reason) if reason == tls::NOT_VALID_YET => {
                "check the clocks of this machine and of the server, or wait"
            }
            Trouble::Untrusted(reason) if reason == tls::OTHER_HOST => {
                "use a host name of the certificate in the address of the store"
            }
            Trouble::Untrusted(_) => {
                "put the certificate authority as PEM under the key caFile into the secret of the store, or set the store's insecure switch"
            }
            Trouble::Authority { .. } => "it has to hold the certificates of the authorities as PEM",
            Trouble::AppKey(_) => {
                "put the private key that GitHub has generated for the app (RSA, PEM) under the key privateKey into the secret of the store"
            }
            Trouble::AppToken { remedy, .. } => return remedy.hint().map(str::to_owned),
            Trouble::Redirected => "use the address that the server redirects to",
            Trouble::NotFound | Trouble::NotARepository(_) => {
                "check the URL of the store, and that its user may see the repository"
            }
            Trouble::BranchMissing(branch) => {
                return Some(format!("create branch {branch} in the repository, or set another branch on the store"));
            }
            Trouble::Refused { message, .. } if message.contains("hook declined") => {
                "a hook of the repository refuses it: do as it says, or ask those who look after the repository"
            }
            Trouble::Refused { message, .. } if message.starts_with("the server answers 413") => {
                "raise the limit for the size of a request on the server, or on the proxy before it (client_max_body_size of nginx)"
            }
            Trouble::Refused { .. } => "allow the user of the store to push to this branch",
            Trouble::Locked { path, .. } => {
                return Some(format!("if no git process runs in the repository, remove {path}"));
            }
            Trouble::DiskFull(_) => "make space on the disk",
            Trouble::AccessKeyRefused(text) if text.starts_with("RequestTimeTooSkewed") => {
                "check the clocks of this machine and of the server"
            }
            Trouble::AccessKeyRefused(_) => {
                "check both keys in the secret of the store, or the identity of the pod or machine"
            }
            Trouble::NotUnderstood(_) => "check the address of the store",
            Trouble::NoCredentials(_) => "give the pod or machine an identity, or use keys",
            Trouble::NotTls => "check the endpoint of the store, or set the store's switch for plain HTTP",
            Trouble::BucketMissing(_) => "create it, or set another bucket on the store",
            Trouble::NoGit(_) => "install git 2.31 or newer",
            Trouble::NoSsh(_) => "install the client of OpenSSH",
        };
        Some(hint.to_owned())
    }
}

fn config_hint(reason: &str) -> &'static str {
    match reason {
        _ if reason.ends_with("is not a branch name") => "set a branch on the store whose name git accepts, as main",
        _ if reason.starts_with("path ") => "set another path on the store",
        _ if reason.starts_with("only repositories with SHA-1") => "use a repository with SHA-1 objects",
        _ if reason.starts_with("endpoint ") => {
            "set host[:port], gs://, az://account or file:///directory as endpoint of the store; the bucket has its own field, \
             and plain HTTP its own switch"
        }
        _ => "correct it in the store or in its secret",
    }
}

/// Returns the command that prints the keys of a host, which is named as in `known_hosts`.
fn scan(host: &str) -> String {
    match host.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((name, port)) => format!("ssh-keyscan -p {port} {name}"),
        None => format!("ssh-keyscan {host}"),
    }
}

impl AppRemedy {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Identity => {
                Some("check appID and privateKey in the secret of the store, and the clock of this machine")
            }
            Self::Installation => {
                Some("check installationID in the secret of the store, and that the app is installed")
            }
            Self::Permission => Some("check in GitHub that the app's installation is not suspended"),
            Self::Authority => Some(
                "put the certificate authority of the API's host as PEM under the key caFile into the secret of the store",
            ),
            Self::Host => Some(
                "check the host name in the URL of the store, from which the API's follows, and that this machine can resolve it",
            ),
            Self::Time => Some("wait, or check that the API's host can be reached; it is tried again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::error::Place;

    #[test]
    fn every_trouble_says_what_to_do() {
        let text = || "x".to_owned();
        let (file, reason, branch) = (text(), text(), text());
        let all = [
            Trouble::Config("\"a..b\" is not a branch name".into()),
            Trouble::Config("endpoint \"https://h\" must be host[:port], without scheme and path".into()),
            Trouble::Config("path \"..\" cannot be used: no".into()),
            Trouble::Config(text()),
            Trouble::PlainHttp,
            Trouble::UnknownHost(text()),
            Trouble::Unreachable("Connection refused".into()),
            Trouble::ServerFailed("503".into()),
            Trouble::Busy { reason: text(), retry_after: Duration::ZERO },
            Trouble::Unauthorized,
            Trouble::PrivateKey(text()),
            Trouble::SigningKey(text()),
            Trouble::KeyRefused(text()),
            Trouble::HostKeyUnknown { host: text(), kind: text() },
            Trouble::HostKeyChanged { host: text(), kind: text(), fingerprint: text() },
            Trouble::HostKeyRefused(text()),
            Trouble::Forbidden(text()),
            Trouble::Untrusted(text()),
            Trouble::Authority { file, reason },
            Trouble::AppKey(text()),
            Trouble::AppToken { reason: text(), remedy: AppRemedy::Time, retry_after: None },
            Trouble::Redirected,
            Trouble::NotFound,
            Trouble::NotARepository(text()),
            Trouble::BranchMissing(text()),
            Trouble::Refused { branch, message: text() },
            Trouble::CheckedOut(text()),
            Trouble::Moved(text()),
            Trouble::Locked { branch: text(), path: text() },
            Trouble::Timeout(Duration::from_secs(90)),
            Trouble::DiskFull(text()),
            Trouble::Io("/x: Read-only file system".into()),
            Trouble::CachesInUse { directory: text(), count: 1 },
            Trouble::Damaged(text()),
            Trouble::NoGit(text()),
            Trouble::NoSsh(text()),
            Trouble::Git(text()),
            Trouble::AccessKeyRefused(text()),
            Trouble::NoCredentials(text()),
            Trouble::NotTls,
            Trouble::BucketMissing(text()),
            Trouble::Answer("InvalidBucketName: no".into()),
            Trouble::NotUnderstood(text()),
            Trouble::Contended(text()),
            Trouble::Undeleted { count: 1, reason: text() },
        ];
        let place = Arc::new(Place { store: text(), url: text(), branch: text() });
        for trouble in all {
            let error = Error { place: place.clone(), trouble };
            let hint = error.hint().unwrap_or_else(|| panic!("{error}: nothing to do"));
            assert!(!hint.is_empty() && !hint.ends_with('.') && !hint.contains('\n'), "{hint}");
        }
        let bucket = Arc::new(Place { branch: String::new(), ..(*place).clone() });
        let error = Error { place: bucket, trouble: Trouble::Timeout(Duration::from_secs(30)) };
        assert_eq!(error.hint().as_deref(), Some("check whether the server hangs; it is tried again"));
    }
}
