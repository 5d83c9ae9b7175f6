//! Addresses of repositories that are reached with ssh: `ssh://user@host[:port]/path` or `user@host:path`.

use std::num::NonZeroU16;

/// Why an address cannot be used with ssh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is no address.
    Malformed(&'static str),
    /// It is one of another kind.
    OtherForm,
}

/// Says what is wrong with an address.
pub(super) fn check(url: &str) -> Result<(), Unfit> {
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Unfit::Malformed("it contains spaces or control characters"));
    }
    let (user, host, path) = parts(url)?;
    if user.contains(':') {
        return Err(Unfit::Malformed("it contains a password, and ssh takes a key only"));
    }
    let is_odd = |part: &str| {
        part.is_empty() || part.starts_with('-') || part.contains(|c: char| "@'\"\\$`;&|<>(){}".contains(c))
    };
    if is_odd(user) || is_odd(host) {
        return Err(Unfit::Malformed("its user or host cannot be used"));
    }
    if path.trim_matches('/').is_empty() || path.starts_with('-') {
        return Err(Unfit::Malformed("it names no repository on its host"));
    }
    Ok(())
}

/// Returns user, host and path.
fn parts(url: &str) -> Result<(&str, &str, &str), Unfit> {
    let Some((scheme, rest)) = url.split_once("://") else {
        let (user, rest) = url.split_once('@').filter(|(user, _)| !user.contains('/')).ok_or(Unfit::OtherForm)?;
        let colon = rest.find(']').map_or(0, |end| end + 1) + after(rest).find(':').ok_or(Unfit::OtherForm)?;
        let (host, path) = rest.split_at(colon);
        // With a slash before the colon, it is a path of this machine.
        return if host.contains('/') { Err(Unfit::OtherForm) } else { Ok((user, host, &path[1..])) };
    };
    if !scheme.eq_ignore_ascii_case("ssh") {
        return Err(Unfit::OtherForm);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, place) = authority.split_once('@').ok_or(Unfit::OtherForm)?;
    let Some((_, port)) = after(place).split_once(':') else { return Ok((user, place, path)) };
    if port.parse::<NonZeroU16>().is_err() {
        return Err(Unfit::Malformed("its port is not a number from 1 to 65535"));
    }
    Ok((user, &place[..place.len() - port.len() - 1], path))
}

/// Returns what follows an address in brackets, or all of it.
fn after(place: &str) -> &str {
    place.find(']').map_or(place, |end| &place[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood_and_everything_else_is_told_apart() {
        for url in [
            "git@host:x",
            "git@host:/srv/x.git",
            "ssh://git@host/x",
            "SSH://git@host:2222/~/x.git",
            "ssh://git@[::1]:22/x",
            "ssh://git@[::1]/x",
            "git@[::1]:x",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in ["", "host:x", "git@host", "git@host/x:y", "/srv/x", "https://git@host/x", "ssh://host/x", "x/y@h:z"]
        {
            assert_eq!(check(url), Err(Unfit::OtherForm), "{url}");
        }
        for (url, reason) in [
            ("git@host:", "it names no repository on its host"),
            ("ssh://git@host", "it names no repository on its host"),
            ("ssh://git@host:/x", "its port is not a number from 1 to 65535"),
            ("ssh://git@host:0/x", "its port is not a number from 1 to 65535"),
            ("ssh://git@host:22x/x", "its port is not a number from 1 to 65535"),
            ("ssh://git:secret@host/x", "it contains a password, and ssh takes a key only"),
            ("git@-oProxyCommand=x:y", "its user or host cannot be used"),
            ("ssh://@host/x", "its user or host cannot be used"),
            ("ssh://git@/x", "its user or host cannot be used"),
            ("git@a@b:x", "its user or host cannot be used"),
            ("git@host:x y", "it contains spaces or control characters"),
        ] {
            assert_eq!(check(url), Err(Unfit::Malformed(reason)), "{url}");
        }
    }
}
