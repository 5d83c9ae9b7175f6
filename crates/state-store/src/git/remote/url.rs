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
    /// Reached with the program `ssh`.
    is_ssh: bool,
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
                let (host, path) = text.split_at(colon);
                return Self::ssh(text, host, &path[1..]);
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
                Ok(Self { plain: format!("{scheme}://{host}/{path}"), path: None, is_ssh: false, credentials })
            }
            "ssh" => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let end = authority.rfind(['@', ']']).unwrap_or_default();
                let (host, port) = match authority[end..].split_once(':') {
                    Some((host, port)) => (&authority[..end + host.len()], Some(port)),
                    None => (authority, None),
                };
                if port.is_some_and(|port| port.parse::<std::num::NonZeroU16>().is_err()) {
                    return refuse("the port in the URL is not a number from 1 to 65535");
                }
                Self::ssh(&format!("ssh://{rest}"), host, path)
            }
            scheme => Err(Trouble::Config(format!("a URL with {scheme}:// is not supported; use https://"))),
        }
    }

    fn local_path(path: &str) -> Result<Self, Trouble> {
        let path =
            std::path::absolute(path).map_err(|error| Trouble::Config(format!("path of the repository: {error}")))?;
        Ok(Self { plain: path.display().to_string(), path: Some(path), is_ssh: false, credentials: None })
    }

    /// Takes an address in the form that git knows; `host` is what is before its port or path, with the user.
    fn ssh(text: &str, host: &str, path: &str) -> Result<Self, Trouble> {
        let refuse = |reason: &str| Err(Trouble::Config(reason.to_owned()));
        let Some((user, host)) = host.split_once('@') else {
            return refuse("a URL of ssh has the form ssh://user@host[:port]/path or user@host:path");
        };
        if user.contains(':') {
            return refuse("ssh takes no password from the URL, only a key");
        }
        let is_odd = |part: &str| {
            part.is_empty()
                || part.starts_with('-')
                || part.contains(|c: char| c.is_whitespace() || "@'\"\\$`;&|<>(){}".contains(c))
        };
        if is_odd(user) || is_odd(host) {
            return refuse("user or host in the URL cannot be used");
        }
        if path.trim_matches('/').is_empty() || path.starts_with('-') {
            return refuse("the URL names no repository on its host");
        }
        Ok(Self { plain: text.to_owned(), path: None, is_ssh: true, credentials: None })
    }

    /// Says what is wrong if the address is not reached in the way that the credentials are for.
    pub(super) fn check_method(&self, has_key: bool) -> Result<(), Trouble> {
        let problem = match (self.is_ssh, has_key) {
            (true, false) => "a URL of ssh needs the authentication method ssh",
            (false, true) => {
                "the authentication method ssh needs a URL of the form ssh://user@host[:port]/path or user@host:path"
            }
            _ => return Ok(()),
        };
        Err(Trouble::Config(problem.to_owned()))
    }

    pub(super) fn is_ssh(&self) -> bool {
        self.is_ssh
    }

    pub(super) fn is_http(&self) -> bool {
        self.plain.starts_with("http") && self.path.is_none() && !self.is_ssh
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

    /// Returns the host without port; empty for a path.
    pub(super) fn host(&self) -> &str {
        let Some((_, rest)) = self.plain.split_once("://") else { return "" };
        let authority = rest.split('/').next().unwrap_or_default();
        match authority.find(']') {
            Some(end) => &authority[..=end],
            None => authority.split(':').next().unwrap_or_default(),
        }
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
    fn an_address_of_ssh_names_user_host_and_repository() {
        for text in [
            "git@host:x",
            "git@host:/srv/x.git",
            "ssh://git@host/x",
            "ssh://git@host:2222/~/x.git",
            "ssh://git@[::1]:22/x",
            "ssh://git@[::1]/x",
            "git@[::1]:x",
        ] {
            let url = Url::parse(text).unwrap_or_else(|trouble| panic!("{text}: {trouble}"));
            assert!(url.is_ssh() && url.local().is_none(), "{text}");
            assert_eq!(url.argument(), text);
            assert!(url.check_method(true).is_ok() && url.check_method(false).is_err(), "{text}");
        }
        assert_eq!(Url::parse("SSH://git@host/x").expect("usable").argument(), "ssh://git@host/x");
        assert!(Url::parse("https://host/x").expect("usable").check_method(true).is_err());
        for text in [
            "host:x",
            "git@host:",
            "@host:x",
            "git@:x",
            "git@-oProxyCommand=x:y",
            "-l@host:x",
            "git:secret@host:x",
            "git@ho st:x",
            "git@a@b:x",
            "git@host$(x):y",
            "ssh://host/x",
            "ssh://git@host",
            "ssh://git@host/",
            "ssh://git@host:/x",
            "ssh://git@host:0/x",
            "ssh://git@host:65536/x",
            "ssh://git@host:22x/x",
            "ssh://git:secret@host/x",
            "ssh://git@-oProxyCommand=x/y",
            "ssh://git@[::1]:x/y",
        ] {
            let trouble = Url::parse(text).err();
            assert!(matches!(trouble, Some(Trouble::Config(_))), "{text}: {trouble:?}");
            assert!(!format!("{trouble:?}").contains("secret"), "{text}");
        }
    }

    #[test]
    fn addresses_that_are_not_understood_are_refused() {
        for text in ["", "-oProxy", "ext::sh", "ftp://x/y", "https://", "https:///x", "git+ssh://git@host/x"] {
            assert!(matches!(Url::parse(text), Err(Trouble::Config(_))), "{text}");
        }
        assert_eq!(Url::parse("file:///srv/a.git").expect("usable").local(), Some(Path::new("/srv/a.git")));
    }
}
