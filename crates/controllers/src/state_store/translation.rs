//! Between the words of the decisions and those of the stores.

use kratix_core::config::Config;
use kratix_core::state_store::{
    About, Change, ChangeKind, Connection, Failure, File, GitConnection, GitCredentials, OpenFailure, Operation, Step,
    Written,
};
use kratix_state_store::{Auth, Author, GitConfig, Retry, Secret, StoreConfig, Tls, Trouble, WriteError};

/// How texts of refused pushes begin.
const PUSH_FAILED: &str = "failed to push: ";

/// Returns how to open a store.
pub(super) fn store_config(name: &str, connection: &Connection, config: &Config) -> StoreConfig {
    match connection {
        Connection::Git(connection) => StoreConfig::Git(git_config(name, connection, config)),
    }
}

fn git_config(name: &str, connection: &GitConnection, config: &Config) -> GitConfig {
    let auth = match &connection.credentials {
        GitCredentials::None => Auth::None,
        GitCredentials::Basic { username, password } => {
            Auth::Basic { username: username.clone(), password: Secret::new(password.clone()) }
        }
    };
    let (author, email) = connection.author.clone();
    GitConfig {
        branch: connection.branch.clone(),
        path: connection.path.clone(),
        auth,
        author: Author { name: author, email },
        tls: Tls { ca_pem: connection.ca_pem.clone(), insecure: connection.skip_tls_verify },
        fetch_interval: config.git_minimum_fetch_interval,
        ..GitConfig::new(name, connection.url.clone())
    }
}

pub(super) fn change(change: Change) -> kratix_state_store::Change {
    let kind = match change.kind {
        ChangeKind::Update => kratix_state_store::Kind::Update,
        ChangeKind::Delete => kratix_state_store::Kind::Delete,
    };
    let files = |files: Vec<File>| -> Vec<kratix_state_store::File> {
        files.into_iter().map(|file| kratix_state_store::File::new(file.path, file.content)).collect()
    };
    let operation = match change.operation {
        Operation::Replace(all) => kratix_state_store::Operation::Replace(files(all)),
        Operation::Edit { write, remove } => kratix_state_store::Operation::Edit { write: files(write), remove },
        Operation::Share { ledger, files: all } => {
            kratix_state_store::Operation::Share { ledger, files: all.map(files) }
        }
    };
    kratix_state_store::Change { id: change.id, kind, prefix: change.prefix, operation }
}

pub(super) fn written(written: kratix_state_store::Written) -> Written {
    Written { version: written.version.map(|version| version.to_string()), changed: written.changed }
}

pub(super) fn failure(error: &WriteError) -> Failure {
    let about = match error {
        // Also where everything was refused: the store is checked again, and what was durable before stays so.
        WriteError::Store(_) => About::Store,
        WriteError::Untried(_) => About::Turn,
        WriteError::Ledger { .. } => About::Ledger,
        _ => About::Content,
    };
    // A store whose credentials are refused may be mended on its side, where no watch reports it.
    let retry = about == About::Store || error.retry() != Retry::OnChange;
    let hint = match error {
        WriteError::Store(error) | WriteError::Refused(error) => hint(error),
        _ => error.hint(),
    };
    Failure { message: with_hint(error.to_string(), hint), about, retry }
}

pub(super) fn open_failure(error: &kratix_state_store::Error) -> OpenFailure {
    let step = match &error.trouble {
        Trouble::Config(_) | Trouble::PlainHttp | Trouble::NoGit(_) => Step::Configure,
        Trouble::Unauthorized => Step::Authenticate,
        Trouble::Forbidden(_)
        | Trouble::Refused { .. }
        | Trouble::CheckedOut(_)
        | Trouble::Locked { .. }
        | Trouble::DiskFull(_) => Step::Write,
        _ => Step::Read,
    };
    let text = match (step, error.to_string()) {
        (Step::Write, text) if !text.starts_with(PUSH_FAILED) => format!("{PUSH_FAILED}{text}"),
        (_, text) => text,
    };
    OpenFailure { step, message: with_hint(text, hint(error)) }
}

/// Names settings of a state store's object, which the stores themselves do not know.
fn hint(error: &kratix_state_store::Error) -> Option<String> {
    match &error.trouble {
        Trouble::Untrusted(_) => Some(
            "put the certificate authority as PEM under the key caFile into the secret of the store, or set \
             spec.insecureSkipTLSVerify: true on the store"
                .to_owned(),
        ),
        _ => error.hint(),
    }
}

fn with_hint(text: String, hint: Option<String>) -> String {
    let text = without_durations(&text);
    match hint {
        Some(hint) => format!("{text}; hint: {hint}"),
        None => text,
    }
}

/// Removes durations that a program measured (` after 12 ms`): one problem must always give one text, or every attempt would
/// be news.
fn without_durations(text: &str) -> String {
    let mut parts = text.split(" after ");
    let mut steady = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        match rest.strip_prefix(" ms") {
            Some(rest) if rest.len() < part.len() - " ms".len() => steady.push_str(rest),
            _ => {
                steady.push_str(" after ");
                steady.push_str(part);
            }
        }
    }
    steady
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_everything() {
        let file = File { path: "a".into(), content: b"x".to_vec() };
        let given = Change {
            id: "p".into(),
            kind: ChangeKind::Delete,
            prefix: "d".into(),
            operation: Operation::Share { ledger: "l".into(), files: Some(vec![file]) },
        };
        let expected = kratix_state_store::Change {
            id: "p".into(),
            kind: kratix_state_store::Kind::Delete,
            prefix: "d".into(),
            operation: kratix_state_store::Operation::Share {
                ledger: "l".into(),
                files: Some(vec![kratix_state_store::File::new("a", "x")]),
            },
        };
        assert_eq!(change(given), expected);
    }

    #[test]
    fn measured_durations_are_left_out() {
        for (given, steady) in [
            ("Failed to connect to h port 1 after 12 ms: no", "Failed to connect to h port 1: no"),
            ("a after 1 ms b after 2 ms", "a b"),
            ("long after the ms", "long after the ms"),
            ("after  ms", "after  ms"),
            ("x after  ms", "x after  ms"),
            ("x after 3 s", "x after 3 s"),
        ] {
            assert_eq!(without_durations(given), steady);
        }
    }

    #[test]
    fn texts_of_the_original_and_settings_of_the_object_are_named() {
        let place = kratix_state_store::Place { store: "s".into(), url: "https://h/x".into(), branch: "main".into() };
        let error = |trouble| kratix_state_store::Error { place: std::sync::Arc::new(place.clone()), trouble };
        let refused = error(Trouble::Refused { branch: "main".into(), message: "frozen".into() });
        for (given, about) in [
            (WriteError::Store(refused.clone()), About::Store),
            (WriteError::Store(error(Trouble::CheckedOut("main".into()))), About::Store),
            (WriteError::Refused(refused.clone()), About::Content),
            (WriteError::Untried(refused.clone()), About::Turn),
        ] {
            let found = failure(&given);
            assert_eq!((found.about, found.retry), (about, true));
            assert!(found.message.starts_with("failed to push: state store s (https://h/x): "), "{}", found.message);
            let is_told = matches!(given, WriteError::Store(ref e) | WriteError::Refused(ref e) if *e == refused);
            assert_eq!(found.message.contains("frozen"), is_told, "{}", found.message);
        }
        let forbidden = open_failure(&error(Trouble::Forbidden("no".into())));
        assert!(forbidden.message.starts_with("failed to push: state store s"), "{}", forbidden.message);
        for trouble in [refused.trouble, Trouble::CheckedOut("main".into())] {
            assert_eq!(open_failure(&error(trouble)).message.matches("failed to push").count(), 1);
        }
        let untrusted = error(Trouble::Untrusted("self-signed".into()));
        for message in [open_failure(&untrusted).message, failure(&WriteError::Store(untrusted)).message] {
            assert!(message.contains("spec.insecureSkipTLSVerify: true"), "{message}");
        }
    }

    #[test]
    fn failures_say_what_they_are_about_and_what_helps() {
        let ambiguous = failure(&WriteError::Ambiguous { path: "a".into() });
        assert_eq!((ambiguous.about, ambiguous.retry), (About::Content, false));
        assert!(ambiguous.message.contains("; hint: "), "{}", ambiguous.message);
        let owned = failure(&WriteError::Owned { path: "a".into(), owner: "default-x".into() });
        assert_eq!((owned.about, owned.retry), (About::Content, true));
        assert!(owned.message.contains("already belongs to default-x"), "{}", owned.message);
        let ledger = failure(&WriteError::Ledger { path: "l".into(), reason: "odd".into() });
        assert_eq!((ledger.about, ledger.retry), (About::Ledger, true));
    }
}
