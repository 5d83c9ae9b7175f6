//! How a store is reached, as values.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// A store and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreConfig {
    /// A Git repository.
    Git(GitConfig),
    /// A bucket of an object store.
    Bucket(BucketConfig),
}

impl StoreConfig {
    pub(crate) fn pushes_per_minute(&self) -> Option<NonZeroU32> {
        match self {
            Self::Git(config) => config.pushes_per_minute,
            Self::Bucket(_) => None,
        }
    }
}

impl From<GitConfig> for StoreConfig {
    fn from(config: GitConfig) -> Self {
        Self::Git(config)
    }
}

impl From<BucketConfig> for StoreConfig {
    fn from(config: BucketConfig) -> Self {
        Self::Bucket(config)
    }
}

/// A Git repository and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitConfig {
    /// The name used in messages and spans.
    pub name: String,
    /// `https://…`, `http://` for loopback hosts only, `ssh://user@host[:port]/path` or `user@host:path` with [`Auth::Ssh`],
    /// `file://…` or the path of a repository on this machine.
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
    /// The private key, in the format of OpenSSH, that signs every commit.
    pub signing_key: Option<Secret>,
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
    /// How long git has to end by itself after the deadline.
    pub grace: Duration,
    /// What git tells of its work, for the log at level debug.
    pub trace: Trace,
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
            signing_key: None,
            tls: Tls::default(),
            create_branch: false,
            fetch_interval: Duration::from_secs(5),
            pushes_per_minute: None,
            deadline: Duration::from_secs(90),
            grace: Duration::from_secs(10),
            trace: Trace::default(),
        }
    }
}

/// What git tells of its work. Credentials are never in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Which programs it runs.
    pub commands: bool,
    /// What it sends and gets, without objects.
    pub packets: bool,
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
    /// Tokens that GitHub gives to an app.
    GithubApp(GithubApp),
    /// A key, with a URL of SSH.
    Ssh {
        /// The private key as PEM, without a passphrase.
        private_key: Secret,
        /// The keys of hosts that are trusted, as the lines of a `known_hosts` file.
        known_hosts: String,
    },
}

/// An app of GitHub, installed for an account.
///
/// Where its API is follows from the store's URL: `api.github.com`, `api.<tenant>.ghe.com`, or `<host>/api/v3` of any other
/// host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GithubApp {
    /// The app's number.
    pub app_id: u64,
    /// The number of its installation.
    pub installation_id: u64,
    /// Its RSA key, PEM.
    pub private_key: Secret,
    /// For how long a token is used at most; GitHub may limit it further.
    pub token_lifetime: Duration,
    /// How long a request to the API may take.
    pub deadline: Duration,
}

impl GithubApp {
    /// For how long a token is used when nothing else is said.
    pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
    /// How long a request may take when nothing else is said.
    pub const DEADLINE: Duration = Duration::from_secs(15);

    /// Returns an app with the usual limits.
    pub fn new(app_id: u64, installation_id: u64, private_key: impl Into<Secret>) -> Self {
        let private_key = private_key.into();
        Self { app_id, installation_id, private_key, token_lifetime: Self::TOKEN_LIFETIME, deadline: Self::DEADLINE }
    }
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
    /// A directory with a PEM file for each host, of its name without port; used where `ca_pem` is absent, and read each time.
    pub ca_directory: Option<PathBuf>,
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

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// A bucket and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// The name used in messages and spans.
    pub name: String,
    /// `host[:port]` of an S3 service, `gs://` for Google Cloud Storage, `az://account[.host]` for Azure Blob Storage, or
    /// `file:///directory` for a directory of this machine that holds buckets as directories.
    pub endpoint: String,
    /// The bucket's name.
    pub bucket: String,
    /// What the keys of all objects start with; empty or `/` for nothing.
    pub path: String,
    /// Speaks plain HTTP. Everything that is written can be read and changed on the way.
    pub plain_http: bool,
    /// Uses the endpoints of Amazon that have addresses of both IP versions.
    pub dual_stack: bool,
    /// The credentials.
    pub auth: BucketAuth,
    /// How the server's certificate is verified. Certificates that are given are trusted beside the system's: those who give
    /// credentials may be others than the one who keeps the bucket.
    pub tls: Tls,
    /// By way of which proxies servers are reached.
    pub proxies: Proxies,
    /// How long one exchange with the server may take, with its repetitions.
    pub deadline: Duration,
}

impl BucketConfig {
    /// Returns the usual settings for this bucket: TLS, all of the bucket.
    pub fn new(
        name: impl Into<String>,
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        auth: BucketAuth,
    ) -> Self {
        Self {
            name: name.into(),
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            path: String::new(),
            plain_http: false,
            dual_stack: false,
            auth,
            tls: Tls::default(),
            proxies: Proxies::default(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// Credentials for an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BucketAuth {
    /// A pair of keys; for Azure the account's name is part of the endpoint, and only the second key counts.
    Keys {
        /// The public one.
        id: String,
        /// The secret one.
        secret: Secret,
    },
    /// The key of a service account, as the JSON text that Google Cloud hands out.
    ServiceAccount(Secret),
    /// The identity that the surroundings give to this process: a web identity token, the credentials of a container, or those
    /// of the machine.
    Ambient(Environment),
}

/// The environment variables that tell where the credentials of the surroundings are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What the names of variables that matter start with.
    const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

    /// Returns the environment of this process.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Returns the value of a variable, `None` if it is absent or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let matters = |(name, _): &(String, String)| Self::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        Self(variables.into_iter().filter(matters).collect())
    }
}

/// Values can be secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The proxies between this process and servers. Servers on this machine or on its link are always reached directly.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The URL of the proxy for plain HTTP; empty for none. User and password in it are sent to the proxy.
    pub http: String,
    /// The URL of the proxy for HTTPS; empty for none.
    pub https: String,
    /// Hosts, domains and networks that are reached directly, separated by commas; `*` for all.
    pub direct: String,
}

impl Proxies {
    /// Returns what `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` tell this process, in capitals or small letters.
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(get: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let names = [name.to_owned(), name.to_lowercase()];
            names.iter().find_map(|name| get(name).filter(|value| !value.is_empty()))
        };
        let proxy = |name: &str| either(name).or_else(|| either("ALL_PROXY")).unwrap_or_default();
        Self { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), direct: either("NO_PROXY").unwrap_or_default() }
    }
}

/// A proxy's URL can hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |url: &str| url.rsplit_once('@').map_or(url, |(_, place)| place).to_owned();
        let (http, https) = (place(&self.http), place(&self.https));
        f.debug_struct("Proxies").field("http", &http).field("https", &https).field("direct", &self.direct).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_by_the_environment_in_either_spelling_and_their_passwords_never_shown() {
        let of = |pairs: &'static [(&str, &str)]| {
            Proxies::of(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("HTTPS_PROXY", ""), ("no_proxy", "")]), Proxies::default());
        let found = of(&[("https_proxy", "http://me:pw@p:1"), ("HTTP_PROXY", "q:2"), ("NO_PROXY", "a,b")]);
        let expected = Proxies { http: "q:2".into(), https: "http://me:pw@p:1".into(), direct: "a,b".into() };
        assert_eq!(found, expected);
        assert!(!format!("{found:?}").contains("pw") && format!("{found:?}").contains("p:1"));
        let all = of(&[("ALL_PROXY", "r:3"), ("HTTPS_PROXY", "p:1")]);
        assert_eq!((all.http.as_str(), all.https.as_str()), ("r:3", "p:1"));
    }
}
