//! How a store is reached, as values.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// A store and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreConfig {
    /// A Git repository.
    Git(GitConfig),
}

impl StoreConfig {
    pub(crate) fn pushes_per_minute(&self) -> Option<NonZeroU32> {
        match self {
            Self::Git(config) => config.pushes_per_minute,
        }
    }
}

impl From<GitConfig> for StoreConfig {
    fn from(config: GitConfig) -> Self {
        Self::Git(config)
    }
}

/// A Git repository and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitConfig {
    /// The name used in messages and spans.
    pub name: String,
    /// `https://…`, `http://` for loopback hosts only, `file://…` or the path of a repository on this machine.
    ///
    /// User information in the URL serves as credentials when [`auth`](Self::auth) is [`Auth::None`]; it is never shown.
    pub url: String,
    /// The branch that is written.
    pub branch: String,
    /// The directory in the repository that the store is confined to; empty or `/` for all of it.
    pub path: String,
    /// The credentials.
    pub auth: Auth,
    /// Who commits.
    pub author: Author,
    /// How the server's certificate is verified.
    pub tls: Tls,
    /// Creates the branch in a repository that has other branches. The first branch of an empty repository is always created.
    pub create_branch: bool,
    /// For how long the last known state of a remote is believed when a write seems to change nothing, and when reading. A write
    /// that changes something needs no belief: the remote refuses it if it has moved.
    pub fetch_interval: Duration,
    /// At most that many pushes in a minute; changes that wait share a push. `None`: as fast as the remote takes them.
    pub pushes_per_minute: Option<NonZeroU32>,
    /// How long one exchange with a remote may take.
    pub deadline: Duration,
}

impl GitConfig {
    /// Returns the usual settings for this repository: branch `main`, no credentials, author `kratix` without an email.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            branch: "main".to_owned(),
            path: String::new(),
            auth: Auth::None,
            author: Author::default(),
            tls: Tls::default(),
            create_branch: false,
            fetch_interval: Duration::from_secs(5),
            pushes_per_minute: None,
            deadline: Duration::from_secs(90),
        }
    }
}

/// Credentials for a Git server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// None are sent.
    #[default]
    None,
    /// User name and password, or token, by HTTP basic authentication.
    Basic {
        /// The user's name; may be empty.
        username: String,
        /// The password or token. An empty one sends no credentials.
        password: Secret,
    },
}

/// Author and committer of the commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The email address; may be empty.
    pub email: String,
}

impl Default for Author {
    fn default() -> Self {
        Self { name: "kratix".to_owned(), email: String::new() }
    }
}

/// How a server's certificate is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificates to trust instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Accepts any certificate. Passwords can be stolen by whoever is in between.
    pub insecure: bool,
}

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for sending it to where it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
