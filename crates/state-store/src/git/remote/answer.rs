//! What git's answers mean. Its messages are the only interface that it has for that; they are stable under `LC_ALL=C`.

mod ssh;

use std::borrow::Cow;

use super::Url;
use crate::error::Trouble;
use crate::git::Published;
use crate::git::command::Ended;

/// The longest text of others that is passed on.
const TEXT_CHARS_MAX: usize = 1_000;
/// What is said where a disk is full.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];
/// What is said where nothing may be kept.
const CLOSED: [&str; 3] = [
    "unable to create temporary object directory",
    "insufficient permission for adding an object",
    "Read-only file system",
];
/// Whose disk it is, if not this machine's.
const SERVER: &str = "the server";

/// Reads the answer to a push of one branch; `None` if the remote said nothing about the branch.
pub(super) fn push(ended: &Ended, branch: &str) -> Option<Result<Published, Trouble>> {
    let target = format!(":refs/heads/{branch}\t");
    let line = ended.stdout.lines().find(|line| line.contains(&target))?;
    let (flag, summary) = (line.chars().next()?, line.rsplit('\t').next()?);
    if flag != '!' {
        return ended.success.then_some(Ok(Published::Accepted));
    }
    let reason = summary.split_once('(').map_or(summary, |(_, reason)| reason.trim_end_matches(')'));
    if summary.starts_with("[remote failure]") {
        let text = "it does not say what became of the push".to_owned();
        return Some(Ok(Published::Unsettled(Trouble::ServerFailed(text))));
    }
    if summary.starts_with("[remote rejected]") {
        return Some(refusal(reason, &with_unpacking(&ended.stderr), branch));
    }
    Some(Ok(Published::Moved))
}

/// Adds what was wrong with the objects where the remote has said nothing beside: git passes that on in words of its own.
fn with_unpacking(stderr: &str) -> Cow<'_, str> {
    let wrong = stderr.lines().find_map(|line| line.strip_prefix("error: remote unpack failed: "));
    match wrong.filter(|_| remote_text(stderr).is_empty()) {
        Some(wrong) => format!("{stderr}\nremote: {wrong}\n").into(),
        None => stderr.into(),
    }
}

/// Finds out why a remote refuses a push, from its reason and from what it has said beside, in lines that start with `remote:`.
pub(super) fn refusal(reason: &str, said: &str, branch: &str) -> Result<Published, Trouble> {
    if let Some(path) = held_lock(said) {
        let path = path.to_owned();
        return Ok(Published::Unsettled(Trouble::Locked { branch: branch.to_owned(), path }));
    }
    // A hook may say what it likes.
    if !reason.contains("hook declined")
        && let Some(trouble) = storage(said)
    {
        return Err(trouble);
    }
    // Another push was faster: the remote's lock was taken, or its branch had moved when the lock was had.
    let moved =
        ["cannot lock ref", "failed to update ref", "incorrect old value", "fetch first", "reference already exists"];
    if moved.iter().any(|text| reason.contains(text)) {
        return Ok(Published::Moved);
    }
    // `receive.denyCurrentBranch`: no content helps.
    if reason.contains("is currently checked out") {
        return Err(Trouble::CheckedOut(branch.to_owned()));
    }
    let message = match remote_text(said) {
        text if text.is_empty() => one_line(std::iter::once(reason)),
        text => format!("{text} ({})", one_line(std::iter::once(reason))),
    };
    Err(Trouble::Refused { branch: branch.to_owned(), message })
}

/// Returns where a server sends to: from the headers that git traces, without what git appends to the address.
pub(super) fn redirection(stderr: &str) -> Option<&str> {
    let mut headers = stderr.lines().filter_map(|line| line.split_once("<= Recv header: ").map(|(_, header)| header));
    let location = headers.find_map(|header| {
        let (name, value) = header.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim())
    })?;
    repository(location)
}

/// Returns the address of the repository in one that is asked for its branches.
pub(super) fn repository(location: &str) -> Option<&str> {
    location.split_once("/info/refs").map(|(address, _)| address)
}

/// Finds out from what a remote has said beside that it cannot keep anything, whatever was pushed.
fn storage(said: &str) -> Option<Trouble> {
    let said = remote_text(said);
    let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if has(&FULL) {
        return Some(Trouble::DiskFull(SERVER.to_owned()));
    }
    has(&CLOSED).then_some(Trouble::ServerFailed(said))
}

/// Returns the lock that git has met: somebody holds it, or has died with it.
fn held_lock(stderr: &str) -> Option<&str> {
    let line = stderr.lines().find(|line| line.contains("Unable to create '") && line.contains("File exists"))?;
    between(line, "Unable to create '", &['\'']).filter(|path| path.ends_with(".lock"))
}

/// What hooks of the remote have said, in lines that start with `remote:`.
pub(super) fn remote_text(stderr: &str) -> String {
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("remote:"));
    let lines = lines.map(str::trim).filter(|line| !line.starts_with("error: hook declined"));
    let lines = lines.map(|line| line.strip_prefix("error:").unwrap_or(line).trim_start());
    one_line(lines.filter(|line| !line.is_empty()))
}

/// Finds out what a failure means.
pub(super) fn trouble(stderr: &str, url: &Url) -> Trouble {
    let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    let text = || {
        let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
        one_line(lines.map(|line| line.trim_start_matches("fatal: ").trim_start_matches("error: ")))
    };
    if let Some(trouble) = url.is_ssh().then(|| ssh::trouble(stderr)).flatten() {
        return trouble;
    }
    if let Some(host) = between(stderr, "Could not resolve host: ", &['\n', ' ', '\'']) {
        return Trouble::UnknownHost(host.to_owned());
    }
    if has(&["Authentication failed", "could not read Username", "could not read Password", "returned error: 401"]) {
        return Trouble::Unauthorized;
    }
    if has(&[
        "SSL certificate problem",
        "certificate verification failed",
        "SSL: no alternative certificate",
        "CAfile",
        "certificate subject name",
    ]) {
        return Trouble::Untrusted(curl_reason(stderr).unwrap_or_else(text));
    }
    if has(&[
        "returned error: 301",
        "returned error: 302",
        "returned error: 307",
        "returned error: 308",
        "from redirection",
    ]) {
        return Trouble::Redirected;
    }
    if has(&["returned error: 403"]) {
        let said = remote_text(stderr);
        return forbidden(said);
    }
    if has(&["returned error: 404", "does not exist"])
        || (stderr.contains("repository '") && stderr.contains("not found"))
    {
        return Trouble::NotFound;
    }
    if has(&[
        "not a git repository",
        "is this a git repository",
        "does not appear to be a git repository",
        "not valid: ",
    ]) {
        return Trouble::NotARepository(text());
    }
    if has(&["returned error: 5", "returned error: 429"]) {
        return Trouble::ServerFailed(curl_reason(stderr).unwrap_or_else(text));
    }
    if has(&FULL) {
        let is_full = |line: &str| FULL.iter().any(|text| line.contains(text));
        let remote = stderr.lines().any(|line| line.starts_with("remote:") && is_full(line));
        return Trouble::DiskFull(if remote { SERVER.to_owned() } else { "the cache".to_owned() });
    }
    // In the cache, which is ours alone: a git that was killed has left it.
    if stderr.lines().any(|line| !line.starts_with("remote:") && held_lock(line).is_some()) {
        return Trouble::Damaged(text());
    }
    let unreachable = [
        "Failed to connect",
        "Couldn't connect",
        "Connection refused",
        "Connection reset",
        "timed out",
        "Empty reply",
        "unable to access",
        "hung up",
        "early EOF",
        "unexpected disconnect",
        "RPC failed",
    ];
    if has(&unreachable) {
        return Trouble::Unreachable(curl_reason(stderr).unwrap_or_else(text));
    }
    if has(&[
        "bad object",
        "corrupt",
        "unable to read",
        "missing blob",
        "missing tree",
        "bad tree",
        "shallow file has changed",
        "cannot lock ref",
    ]) {
        return Trouble::Damaged(text());
    }
    if let Some(name) = between(stderr, "dst refspec ", &[' ']).filter(|_| has(&["matches more than one"])) {
        return Trouble::Git(format!(
            "another branch has the full name {name:?}, which git cannot tell apart; delete it"
        ));
    }
    match text() {
        said if said.is_empty() => Trouble::Git("git ended without a word, as it does when it is killed".to_owned()),
        said => Trouble::Git(said),
    }
}

/// Says that something is not allowed, in the words of the server if it has any.
pub(super) fn forbidden(said: String) -> Trouble {
    Trouble::Forbidden(if said.is_empty() { "the server answers 403".to_owned() } else { said })
}

/// Returns the part of `unable to access '<url>': <reason>` that is not about the address.
fn curl_reason(stderr: &str) -> Option<String> {
    let line = stderr.lines().find(|line| line.contains("unable to access '"))?;
    let (_, reason) = line.split_once("': ")?;
    Some(one_line(std::iter::once(reason.trim())))
}

fn between<'t>(text: &'t str, start: &str, ends: &[char]) -> Option<&'t str> {
    let (_, rest) = text.split_once(start)?;
    rest.split(ends).next().filter(|found| !found.is_empty())
}

fn one_line<'l>(lines: impl Iterator<Item = &'l str>) -> String {
    let text = lines.collect::<Vec<_>>().join("; ");
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_can_keep_nothing_is_in_trouble_and_does_not_refuse_what_is_pushed() {
        let failed = |text: &str| Trouble::ServerFailed(text.to_owned());
        let refused = |text: &str| Trouble::Refused { branch: "main".to_owned(), message: text.to_owned() };
        let full = || Trouble::DiskFull("the server".to_owned());
        for (reason, said, expected) in [
            ("unpacker error", "remote: fatal: write error: No space left on device\n", full()),
            ("unpacker error", "remote: error: unable to write file: Disk quota exceeded\n", full()),
            ("failed to update ref", "remote: error: unable to write main.lock: No space left on device\n", full()),
            (
                "unpacker error",
                "remote: unable to create temporary object directory\n",
                failed("unable to create temporary object directory"),
            ),
            (
                "unpacker error",
                "remote: error: insufficient permission for adding an object to repository database ./objects\n",
                failed("insufficient permission for adding an object to repository database ./objects"),
            ),
            (
                "failed to update ref",
                "remote: error: cannot lock ref 'refs/heads/main': Read-only file system\n",
                failed("cannot lock ref 'refs/heads/main': Read-only file system"),
            ),
            // Others' disks are none of its own, nor what is said on this side.
            (
                "pre-receive hook declined",
                "remote: mirror: No space left on device\n",
                refused("mirror: No space left on device (pre-receive hook declined)"),
            ),
            ("unpacker error", "No space left on device\n", refused("unpacker error")),
        ] {
            assert_eq!(refusal(reason, said, "main").err(), Some(expected), "{said}");
        }
        let moved = refusal("failed to update ref", "remote: error: cannot lock ref 'refs/heads/main'\n", "main");
        assert!(matches!(moved, Ok(Published::Moved)));
    }

    #[test]
    fn what_git_tells_of_the_objects_counts_where_the_server_has_said_nothing_beside() {
        let stdout = "To ssh://h/x.git\n!\tabc:refs/heads/main\t[remote rejected] (unpacker error)\nDone\n";
        let told = |stderr: &str| {
            let (stdout, stderr) = (stdout.to_owned(), stderr.to_owned());
            push(&Ended { success: false, stdout, stderr, retry_after: None }, "main").and_then(Result::err)
        };
        let refused = |text: &str| Some(Trouble::Refused { branch: "main".to_owned(), message: text.to_owned() });
        let closed = "unable to create temporary object directory";
        assert_eq!(
            told(&format!("error: remote unpack failed: {closed}\nerror: failed to push some refs to 'x'\n")),
            Some(Trouble::ServerFailed(closed.to_owned()))
        );
        assert_eq!(
            told("remote: fatal: bad object\nerror: remote unpack failed: index-pack abnormal exit\n"),
            refused("fatal: bad object (unpacker error)")
        );
        assert_eq!(
            told("error: remote unpack failed: index-pack abnormal exit\n"),
            refused("index-pack abnormal exit (unpacker error)")
        );
    }
}
