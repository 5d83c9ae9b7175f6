//! What the program `ssh`, or whoever answers behind it, says when nothing comes of an exchange.

use super::{between, one_line};
use crate::error::Trouble;

/// What git itself adds when the other side has said nothing that it understands.
const ADDED: [&str; 5] = [
    "Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists",
    "the remote end hung up unexpectedly",
    "Host key verification failed",
];

/// Finds out what a failure means; `None` if it is none of the connection.
pub(super) fn trouble(stderr: &str) -> Option<Trouble> {
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    if has(&["ssh: not found", "ssh: command not found", "cannot run ssh", "No user exists for uid"]) {
        return Some(Trouble::NoSsh(said(stderr)));
    }
    if let Some(host) = between(stderr, "Could not resolve hostname ", &[':', '\n']) {
        return Some(Trouble::UnknownHost(host.to_owned()));
    }
    host_key(stderr).or_else(|| own_key(stderr)).or_else(|| repository(stderr))
}

fn host_key(stderr: &str) -> Option<Trouble> {
    if stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let host = between(stderr, "ost key for ", &[' ', '\n']).unwrap_or("the server");
        let kind = between(stderr, "The fingerprint for the ", &[' ', '\n']).unwrap_or_default();
        let fingerprint = between(stderr, "sent by the remote host is\n", &['\n']).unwrap_or("another one");
        return Some(Trouble::HostKeyChanged {
            host: host.to_owned(),
            kind: kind.to_owned(),
            fingerprint: fingerprint.trim().trim_end_matches('.').to_owned(),
        });
    }
    if let Some((kind, rest)) = stderr.split_once(" host key is known for ") {
        let kind = kind.rsplit_once("No ").map_or("", |(_, kind)| kind).to_owned();
        let host = rest.split([' ', '\n']).next().unwrap_or_default().to_owned();
        return Some(Trouble::HostKeyUnknown { host, kind });
    }
    if stderr.contains("REVOKED HOST KEY") {
        return Some(Trouble::HostKeyRefused("it is marked as revoked".to_owned()));
    }
    stderr.contains("Host key verification failed").then(|| Trouble::HostKeyRefused(said(stderr)))
}

fn own_key(stderr: &str) -> Option<Trouble> {
    // The path is another one each time, and of no use to anybody.
    if let Some((_, rest)) = stderr.split_once("Load key \"")
        && let Some((_, reason)) = rest.lines().next().and_then(|line| line.split_once("\": "))
    {
        return Some(Trouble::PrivateKey(one_line(std::iter::once(reason.trim()))));
    }
    let refusal = |line: &str| {
        let (who, rest) = line.split_once(": Permission denied (")?;
        rest.ends_with(").").then(|| who.to_owned())
    };
    if let Some(who) = stderr.lines().find_map(|line| refusal(line.trim_end())) {
        return Some(Trouble::KeyRefused(who));
    }
    stderr.contains("Too many authentication failures").then(|| Trouble::KeyRefused("this user".to_owned()))
}

fn repository(stderr: &str) -> Option<Trouble> {
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    if has(&["Unable to negotiate with"]) {
        return Some(Trouble::Git(said(stderr)));
    }
    let broken = [
        "ssh: connect to host",
        "kex_exchange_identification",
        "banner exchange",
        "Connection closed by",
        "Connection reset by",
        "closed by remote host",
        "Timeout, server",
        "Broken pipe",
    ];
    if has(&broken) {
        return Some(Trouble::Unreachable(said(stderr).trim_start_matches("ssh: ").to_owned()));
    }
    let missing = [
        "does not appear to be a git repository",
        "epository not found",
        "could not be found",
        "epository does not exist",
        "no such repository",
    ];
    if has(&missing) {
        return Some(Trouble::NotFound);
    }
    if !stderr.contains("Could not read from remote repository") {
        return None;
    }
    // Whoever answers instead of git has a reason, and it is about who may do what.
    match said(stderr) {
        said if said.is_empty() => {
            Some(Trouble::Unreachable("the server has ended the connection without a word".to_owned()))
        }
        said => Some(Trouble::Forbidden(said)),
    }
}

/// Returns what was said by anybody but git, as one line.
fn said(stderr: &str) -> String {
    let lines = stderr.lines().map(|line| line.trim().trim_start_matches("fatal: ").trim_start_matches("remote: "));
    one_line(lines.filter(|line| !line.is_empty() && !ADDED.iter().any(|added| line.contains(added))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = "fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
";

    #[test]
    fn what_ssh_says_has_a_name_each() {
        let forbidden = |text: &str| Trouble::Forbidden(text.to_owned());
        for (said, expected) in [
            ("sh: 1: ssh: not found\n", Trouble::NoSsh("sh: 1: ssh: not found".to_owned())),
            ("No user exists for uid 4711\n", Trouble::NoSsh("No user exists for uid 4711".to_owned())),
            (
                "ssh: Could not resolve hostname git.invalid: Name or service not known\n",
                Trouble::UnknownHost("git.invalid".to_owned()),
            ),
            ("Host key verification failed.\n", Trouble::HostKeyRefused(String::new())),
            (
                "@ WARNING: REVOKED HOST KEY DETECTED! @\nHost key verification failed.\n",
                Trouble::HostKeyRefused("it is marked as revoked".to_owned()),
            ),
            (
                "Load key \"/dev/shm/kratix-ssh-a/key\": error in libcrypto\nme@h: Permission denied (publickey).\n",
                Trouble::PrivateKey("error in libcrypto".to_owned()),
            ),
            ("git@h: Permission denied (publickey,password).\n", Trouble::KeyRefused("git@h".to_owned())),
            (
                "ssh: connect to host h port 22: Connection timed out\n",
                Trouble::Unreachable("connect to host h port 22: Connection timed out".to_owned()),
            ),
            (
                "Unable to negotiate with 1.2.3.4 port 22: no matching host key type found. Their offer: ssh-dss\n",
                Trouble::Git(
                    "Unable to negotiate with 1.2.3.4 port 22: no matching host key type found. Their offer: ssh-dss"
                        .to_owned(),
                ),
            ),
            ("ERROR: Repository not found.\n", Trouble::NotFound),
            ("remote: ERROR: The project you were looking for could not be found.\n", Trouble::NotFound),
            ("ERROR: The key you are using is read only.\n", forbidden("ERROR: The key you are using is read only.")),
            ("", Trouble::Unreachable("the server has ended the connection without a word".to_owned())),
        ] {
            assert_eq!(trouble(&format!("{said}{TAIL}")), Some(expected), "{said}");
        }
        assert_eq!(trouble("fatal: bad object HEAD\n"), None);
    }
}
