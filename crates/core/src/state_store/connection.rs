//! How to reach a store: everything that a writer is opened with. Secrets are never shown.

use std::fmt;
use std::num::NonZeroU32;

/// How to reach a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A Git repository.
    Git(GitConnection),
    /// A bucket.
    Bucket(BucketConnection),
}

/// How to reach a Git repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitConnection {
    /// URL, or path on this machine.
    pub url: String,
    /// Branch.
    pub branch: String,
    /// Directory in the repository.
    pub path: String,
    /// Name and email of the author.
    pub author: (String, String),
    /// How to prove who we are.
    pub credentials: GitCredentials,
    /// What signs every commit.
    pub signing_key: Option<PrivateKey>,
    /// At most that many pushes.
    pub pushes_per_minute: Option<NonZeroU32>,
    /// PEM certificates to trust.
    pub ca_pem: Option<Vec<u8>>,
    /// Accept any certificate.
    pub skip_tls_verify: bool,
}

/// The text of a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub String);

/// Never shown.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// Credentials for a Git repository.
#[derive(Clone, PartialEq, Eq)]
pub enum GitCredentials {
    /// None are sent.
    None,
    /// User name and password or token.
    Basic {
        /// User name.
        username: String,
        /// Password or token.
        password: String,
    },
    /// Tokens that GitHub gives to an app.
    GithubApp {
        /// The app's number.
        app_id: u64,
        /// The number of its installation.
        installation_id: u64,
        /// Its key, PEM.
        private_key: String,
    },
    /// A key, for ssh.
    Ssh {
        /// The private key.
        private_key: PrivateKey,
        /// The keys of hosts that are trusted, as the lines of a `known_hosts` file.
        known_hosts: String,
    },
}

/// Never shown.
impl fmt::Debug for GitCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic",
            Self::GithubApp { .. } => "GithubApp",
            Self::Ssh { .. } => "Ssh",
        })
    }
}

/// How to reach a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConnection {
    /// Host and port of the service, or one of the other addresses that are understood.
    pub endpoint: String,
    /// The bucket's name.
    pub bucket: String,
    /// What the keys of all objects start with.
    pub path: String,
    /// Speak plain HTTP.
    pub plain_http: bool,
    /// Use Amazon's endpoints for both IP versions.
    pub dual_stack: bool,
    /// How to prove who we are.
    pub credentials: BucketCredentials,
    /// PEM certificates to trust.
    pub ca_pem: Option<Vec<u8>>,
    /// Accept any certificate.
    pub skip_tls_verify: bool,
}

/// Credentials for a bucket.
#[derive(Clone, PartialEq, Eq)]
pub enum BucketCredentials {
    /// A pair of keys.
    Keys {
        /// The public one.
        id: String,
        /// The secret one.
        secret: String,
    },
    /// The key of a service account of Google Cloud.
    ServiceAccount {
        /// Its JSON text.
        key: String,
    },
    /// The identity of the pod or machine.
    Ambient,
}

/// Never shown.
impl fmt::Debug for BucketCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys { .. } => "Keys",
            Self::ServiceAccount { .. } => "ServiceAccount",
            Self::Ambient => "Ambient",
        })
    }
}
