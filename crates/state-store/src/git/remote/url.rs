//! Addresses of repositories.

use std::path::{Path, PathBuf};

use crate::config::Secret;
use crate::error::Trouble;

/// An address that can be used, taken apart.
#[derive(Clone, Debug)]
pub(in crate::git) struct Url {
    /// Without user information.
    plain: String,
    path: Option<PathBuf>,
    credentials: Option<(String, Secret)>,
}

impl Url {
    pub(in crate::git) fn parse(text: &str) -> Result<Self, Trouble> {
        let refuse = |reason: &str| Err(Trouble::Config(reason.to_owned()));
        if text.chars().any(char::is_control) || text.starts_with('-') || text.is_empty() {
            return refuse("the URL is empty or has unusable characters");
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let colon = text.find(':').unwrap_or(usize::MAX);
            if colon < text.find('/').unwrap_or(usize::MAX) {
                return refuse(
                    "a URL of the form user@host:path needs the authentication method ssh, which is not supported yet",
                );
            }
            return Self::local_path(text);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => Self::local_path(rest.strip_prefix("localhost").unwrap_or(rest)),
            scheme @ ("http" | "https") => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (user, host) =
                    authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
                if host.is_empty() {
                    return refuse("the URL names no host");
                }
                if scheme == "http" && !is_loopback(host) {
                    return Err(Trouble::PlainHttp);
                }
                let credentials = user.map(|user| {
                    let (name, password) = user.split_once(':').unwrap_or((user, ""));
                    (decode(name), Secret::new(decode(password)))
                });
                Ok(Self { plain: format!("{scheme}://{host}/{path}"), path: None, credentials })
            }
            "ssh" | "git+ssh" => refuse("a URL with ssh:// is not supported yet; use https://"),
            scheme => Err(Trouble::Config(format!("a URL with {scheme}:// is not supported; use https://"))),
        }
    }

    fn local_path(path: &str) -> Result<Self, Trouble> {
        let path =
            std::path::absolute(path).map_err(|error| Trouble::Config(format!("path of the repository: {error}")))?;
        Ok(Self { plain: path.display().to_string(), path: Some(path), credentials: None })
    }

    pub(in crate::git) fn local(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Returns the address for people.
    pub(in crate::git) fn shown(&self) -> String {
        self.plain.clone()
    }

    /// Returns the address for git; nothing secret is in it.
    pub(super) fn argument(&self) -> &str {
        &self.plain
    }

    pub(super) fn credentials(&self) -> Option<(&str, &Secret)> {
        self.credentials
            .as_ref()
            .filter(|(_, password)| !password.is_empty())
            .map(|(name, password)| (name.as_str(), password))
    }

    /// Returns another address if it is on the same server, reached in the same way; with these credentials.
    pub(super) fn elsewhere_on_this_server(&self, text: &str) -> Option<Self> {
        let absolute = match (text.starts_with('/'), self.plain.split_once("://")) {
            (true, Some((scheme, rest))) => format!("{scheme}://{}{text}", rest.split('/').next().unwrap_or_default()),
            _ => text.to_owned(),
        };
        let other = Self::parse(&absolute).ok().filter(|other| other.credentials.is_none())?;
        let server = |plain: &str| {
            let (scheme, rest) = plain.split_once("://")?;
            Some((scheme.to_owned(), rest.split('/').next()?.to_ascii_lowercase()))
        };
        let is_same = server(&self.plain).is_some() && server(&self.plain) == server(&other.plain);
        is_same.then(|| Self { credentials: self.credentials.clone(), ..other })
    }

    /// Returns a file name that is the same for the same repository and branch only.
    pub(super) fn cache_name(&self, branch: &str) -> String {
        super::tree::hash(gix::objs::Kind::Blob, format!("{}\n{branch}", self.plain).as_bytes()).to_string()
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_information_is_taken_out_of_an_address() {
        let url = Url::parse("https://me%40x:p%3Aw@host:8443/team/repo.git").expect("usable");
        assert_eq!(url.shown(), "https://host:8443/team/repo.git");
        assert_eq!(url.credentials().map(|(name, secret)| (name, secret.expose())), Some(("me@x", "p:w")));
        assert!(!format!("{url:?}").contains("p:w"));
    }

    #[test]
    fn plain_http_is_for_loopback_hosts_only() {
        for host in ["localhost", "127.0.0.1:80", "127.8.8.8", "[::1]:80", "LOCALHOST:1"] {
            assert!(Url::parse(&format!("http://{host}/r")).is_ok(), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "10.0.0.1", "x@example.org", "localhost:x@example.org"] {
            assert_eq!(Url::parse(&format!("http://{host}/r")).err(), Some(Trouble::PlainHttp), "{host}");
        }
    }

    #[test]
    fn only_another_path_of_the_same_server_is_followed() {
        let url = Url::parse("https://u:p@host:8443/old.git").expect("usable");
        for (target, is_followed) in [
            ("https://host:8443/new.git/", true),
            ("https://HOST:8443/new.git", true),
            ("https://host/new.git", false),
            ("http://host:8443/new.git", false),
            ("https://host.example.org:8443/new.git", false),
            ("https://x:y@host:8443/new.git", false),
            ("https://host:8443@evil.example.org/new.git", false),
            ("/new.git", true),
            ("ext::sh", false),
        ] {
            assert_eq!(url.elsewhere_on_this_server(target).is_some(), is_followed, "{target}");
        }
        let local = Url::parse("/srv/a.git").expect("usable");
        assert!(local.elsewhere_on_this_server("/srv/b.git").is_none());
    }

    #[test]
    fn addresses_that_are_not_understood_are_refused() {
        for text in ["", "-oProxy", "ext::sh", "ftp://x/y", "git@host:x", "ssh://git@host/x", "https://", "https:///x"]
        {
            assert!(matches!(Url::parse(text), Err(Trouble::Config(_))), "{text}");
        }
        assert_eq!(Url::parse("file:///srv/a.git").expect("usable").local(), Some(Path::new("/srv/a.git")));
    }
}
