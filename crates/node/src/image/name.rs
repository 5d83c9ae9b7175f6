//! Image names, completed the way docker completes them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name that registries accept.
const NAME_BYTES_MAX: usize = 255;

/// A full image name: registry, path, and a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// A text that is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name {name:?}: {reason}")]
pub struct InvalidName {
    /// The text.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Name {
    /// Returns registry and path, such as `docker.io/library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag; `latest` unless the name has another or only a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest (`sha256:…`) if the name has one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = |reason| InvalidName { name: text.to_owned(), reason };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest {
            let hex = digest.strip_prefix("sha256:").ok_or_else(|| invalid("the digest must be a sha256 digest"))?;
            if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
                return Err(invalid("a sha256 digest has 64 lower-case hexadecimal digits"));
            }
        }
        // A colon before the last slash belongs to the registry's port.
        let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[after_slash..].find(':') {
            Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
            if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(fits) || tag.starts_with(['.', '-']) {
                return Err(invalid("a tag has up to 128 letters, digits, `_`, `.` and `-`"));
            }
        }
        let (registry, path) = match path.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
            Some(_) => ("docker.io", path.to_owned()),
            None => ("docker.io", format!("library/{path}")),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let path = if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
        let part_fits = |part: &str| {
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
            !part.is_empty() && part.bytes().all(fits) && part.as_bytes()[0].is_ascii_alphanumeric()
        };
        if !path.split('/').all(part_fits) {
            return Err(invalid("its path has lower-case letters, digits, `.`, `_` and `-` between slashes"));
        }
        let host_fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
        if !registry.starts_with(|first: char| first.is_ascii_alphanumeric()) || !registry.bytes().all(host_fits) {
            return Err(invalid("its registry is no host name"));
        }
        let repository = format!("{registry}/{path}");
        if repository.len() > NAME_BYTES_MAX {
            return Err(invalid("it has more than 255 bytes"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { repository, tag, digest: digest.map(str::to_owned) })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("syntasso/demo", "docker.io/syntasso/demo:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
            ("ghcr.io/syntasso/kratix:v0.1.0", "ghcr.io/syntasso/kratix:v0.1.0"),
            ("localhost/thing", "localhost/thing:latest"),
            ("registry:5000/thing", "registry:5000/thing:latest"),
            ("kratix.local/host", "kratix.local/host:latest"),
        ];
        for (short, full) in cases {
            assert_eq!(short.parse::<Name>().unwrap().to_string(), full);
        }
        let pinned: Name = format!("busybox@{digest}").parse().unwrap();
        assert_eq!(pinned.to_string(), format!("docker.io/library/busybox@{digest}"));
        let both: Name = format!("busybox:1@{digest}").parse().unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("1"), Some(digest.as_str())));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for bad in ["", "UPPER", "a//b", "a:", "a:b:c", "a@sha256:12", "../x", "a b", "-a", "a@md5:00", ":tag", "/a"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was accepted");
        }
    }
}
