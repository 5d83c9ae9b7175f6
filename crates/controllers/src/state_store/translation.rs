//! Between the words of the decisions and those of the stores.

use kratix_core::config::{Config, GitEnvironment};
use kratix_core::state_store::{
    About, BucketConnection, BucketCredentials, Change, ChangeKind, Connection, Failure, File, GitConnection,
    GitCredentials, OpenFailure, Operation, PrivateKey, Step, Written,
};
use kratix_state_store::{
    Auth, Author, BucketAuth, BucketConfig, Environment, GitConfig, GithubApp, Proxies, Retry, Secret, StoreConfig,
    Tls, Trace, Trouble, WriteError,
};

/// How texts of refused pushes begin.
const PUSH_FAILED: &str = "failed to push: ";
/// How texts of credentials that are of no use begin.
const NO_AUTH: &str = "could not create auth method: ";

/// Returns how to open a store.
pub(super) fn store_config(
    name: &str,
    connection: &Connection,
    config: &Config,
    environment: &GitEnvironment,
) -> StoreConfig {
    match connection {
        Connection::Git(connection) => StoreConfig::Git(git_config(name, connection, config, environment)),
        Connection::Bucket(connection) => StoreConfig::Bucket(bucket_config(name, connection, environment)),
    }
}

fn bucket_config(name: &str, connection: &BucketConnection, environment: &GitEnvironment) -> BucketConfig {
    let auth = match &connection.credentials {
        BucketCredentials::Keys { id, secret } => {
            BucketAuth::Keys { id: id.clone(), secret: Secret::new(secret.clone()) }
        }
        BucketCredentials::ServiceAccount { key } => BucketAuth::ServiceAccount(Secret::new(key.clone())),
        BucketCredentials::Ambient => BucketAuth::Ambient(Environment::of_process()),
    };
    BucketConfig {
        path: connection.path.clone(),
        plain_http: connection.plain_http,
        dual_stack: connection.dual_stack,
        tls: tls(connection.ca_pem.clone(), connection.skip_tls_verify, environment),
        proxies: Proxies::of_process(),
        ..BucketConfig::new(name, connection.endpoint.clone(), connection.bucket.clone(), auth)
    }
}

fn git_config(name: &str, connection: &GitConnection, config: &Config, environment: &GitEnvironment) -> GitConfig {
    let auth = match &connection.credentials {
        GitCredentials::None => Auth::None,
        GitCredentials::Basic { username, password } => {
            Auth::Basic { username: username.clone(), password: Secret::new(password.clone()) }
        }
        GitCredentials::Ssh { private_key, known_hosts } => {
            Auth::Ssh { private_key: Secret::new(private_key.0.clone()), known_hosts: known_hosts.clone() }
        }
        GitCredentials::GithubApp { app_id, installation_id, private_key } => Auth::GithubApp(GithubApp {
            token_lifetime: environment.token_lifetime,
            deadline: environment.request_timeout,
            ..GithubApp::new(*app_id, *installation_id, private_key.as_str())
        }),
    };
    let secret = |key: &PrivateKey| Secret::new(key.0.clone());
    let (author, email) = connection.author.clone();
    GitConfig {
        branch: connection.branch.clone(),
        path: connection.path.clone(),
        auth,
        author: Author { name: author, email },
        signing_key: connection.signing_key.as_ref().map(secret),
        pushes_per_minute: connection.pushes_per_minute,
        deadline: environment.exec_timeout,
        grace: environment.exec_grace,
        trace: Trace { commands: environment.trace, packets: environment.trace_packets },
        tls: tls(connection.ca_pem.clone(), connection.skip_tls_verify, environment),
        fetch_interval: config.git_minimum_fetch_interval,
        ..GitConfig::new(name, connection.url.clone())
    }
}

fn tls(ca_pem: Option<Vec<u8>>, insecure: bool, environment: &GitEnvironment) -> Tls {
    Tls { ca_pem, ca_directory: environment.ca_directory.clone(), insecure }
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

/// Returns the path of the state file that a change keeps, as errors name it.
pub(super) fn ledger(change: &Change) -> Option<String> {
    match &change.operation {
        Operation::Share { ledger, .. } => Some(ledger.clone()),
        Operation::Replace(_) | Operation::Edit { .. } => None,
    }
}

/// As [`failure`], for a change that keeps a state file.
pub(super) fn failure_of(error: &WriteError, ledger: Option<&str>) -> Failure {
    let failure = failure(error);
    match (error, ledger) {
        // Where the state file should be is something that cannot be read as one.
        (WriteError::Blocked { path, .. }, Some(ledger)) if std::path::Path::new(path).ends_with(ledger) => {
            Failure { about: About::LedgerUnread, ..failure }
        }
        _ => failure,
    }
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
    Failure { message: with_hint(error.to_string(), hint), about, retry, retry_after: error.retry_after() }
}

pub(super) fn open_failure(error: &kratix_state_store::Error) -> OpenFailure {
    let step = match &error.trouble {
        Trouble::Config(_)
        | Trouble::PlainHttp
        | Trouble::NoGit(_)
        | Trouble::NoSsh(_)
        | Trouble::PrivateKey(_)
        | Trouble::SigningKey(_)
        | Trouble::Authority { .. }
        | Trouble::AppKey(_)
        | Trouble::AppToken { .. } => Step::Configure,
        Trouble::Unauthorized | Trouble::KeyRefused(_) | Trouble::AccessKeyRefused(_) => Step::Authenticate,
        Trouble::Forbidden(_)
        | Trouble::Refused { .. }
        | Trouble::CheckedOut(_)
        | Trouble::Locked { .. }
        | Trouble::DiskFull(_) => Step::Write,
        _ => Step::Read,
    };
    let text = match (step, error.to_string()) {
        _ if matches!(error.trouble, Trouble::AppKey(_) | Trouble::AppToken { .. } | Trouble::PrivateKey(_)) => {
            format!("{NO_AUTH}{}", error.trouble)
        }
        // What has no branch is not pushed to.
        (_, text) if error.place.branch.is_empty() => text,
        (Step::Write, text) if !text.starts_with(PUSH_FAILED) => format!("{PUSH_FAILED}{text}"),
        (_, text) => text,
    };
    OpenFailure { step, message: with_hint(text, hint(error)), retry_after: error.retry_after() }
}

/// Tells whether other credentials make a difference.
pub(super) fn is_about_credentials(trouble: &Trouble) -> bool {
    matches!(
        trouble,
        Trouble::Unauthorized
            | Trouble::Forbidden(_)
            | Trouble::KeyRefused(_)
            | Trouble::AccessKeyRefused(_)
            | Trouble::NoCredentials(_)
            | Trouble::AppToken { .. }
    )
}

/// Names settings of a state store's object, which the stores themselves do not know.
fn hint(error: &kratix_state_store::Error) -> Option<String> {
    match &error.trouble {
        Trouble::Untrusted(_) => {
            let setting = "set spec.insecureSkipTLSVerify: true on the store";
            error.hint().map(|hint| hint.replace("set the store's insecure switch", setting))
        }
        Trouble::NotTls => {
            let setting = "set spec.insecure: true on the store";
            error.hint().map(|hint| hint.replace("set the store's switch for plain HTTP", setting))
        }
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

/// Removes durations that a program measured (` after 12 ms`, ` after 12 milliseconds`): one problem must always give one text, or every attempt would
/// be news.
fn without_durations(text: &str) -> String {
    let mut parts = text.split(" after ");
    let mut steady = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let has_number = rest.len() < part.len();
        match rest.strip_prefix(" milliseconds").or_else(|| rest.strip_prefix(" ms")) {
            Some(rest) if has_number => steady.push_str(rest),
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
            ("Connection timed out after 10002 milliseconds", "Connection timed out"),
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
    fn texts_about_tokens_are_those_of_the_original() {
        use kratix_state_store::AppRemedy;

        let place = kratix_state_store::Place { store: "s".into(), url: "https://h/x".into(), branch: "main".into() };
        let error = |trouble| kratix_state_store::Error { place: std::sync::Arc::new(place.clone()), trouble };
        let token =
            |reason: &str, remedy, retry_after| Trouble::AppToken { reason: reason.into(), remedy, retry_after };
        let pause = Some(std::time::Duration::from_secs(60));
        for (trouble, text, retry_after) in [
            (
                Trouble::AppKey("private key is not RSA".into()),
                "could not create auth method: failed to generate GitHub App JWT: private key is not RSA; hint: put ",
                None,
            ),
            (
                token("GitHub API error: status=401, message=no", AppRemedy::Identity, None),
                "could not create auth method: failed to get GitHub installation token: GitHub API error: status=401, \
                 message=no; hint: check appID and privateKey",
                None,
            ),
            (
                token("GitHub API error: status=429, message=slow", AppRemedy::Time, pause),
                "could not create auth method: failed to get GitHub installation token: GitHub API error: status=429, \
                 message=slow",
                pause,
            ),
        ] {
            let found = open_failure(&error(trouble));
            assert_eq!((found.step, found.retry_after), (Step::Configure, retry_after));
            assert!(found.message.starts_with(text), "{}", found.message);
        }
        let authority = Trouble::Authority { file: "/tls/h".into(), reason: "it is empty".into() };
        let found = open_failure(&error(authority));
        assert_eq!(found.step, Step::Configure);
        assert!(found.message.contains("the certificate authorities in /tls/h cannot be used"), "{}", found.message);
    }

    #[test]
    fn an_app_and_its_surroundings_reach_the_store() {
        let connection = GitConnection {
            credentials: GitCredentials::GithubApp { app_id: 1, installation_id: 2, private_key: "PEM".into() },
            url: "https://h/x".into(),
            branch: "main".into(),
            path: String::new(),
            author: ("kratix".into(), String::new()),
            signing_key: None,
            pushes_per_minute: None,
            ca_pem: None,
            skip_tls_verify: false,
        };
        let environment = GitEnvironment {
            ca_directory: Some("/tls".into()),
            token_lifetime: std::time::Duration::from_secs(1),
            request_timeout: std::time::Duration::from_secs(2),
            ..GitEnvironment::default()
        };
        let config = git_config("s", &connection, &Config::default(), &environment);
        let Auth::GithubApp(app) = &config.auth else { panic!("{:?}", config.auth) };
        assert_eq!((app.app_id, app.installation_id, app.private_key.expose()), (1, 2, "PEM"));
        assert_eq!((app.token_lifetime.as_secs(), app.deadline.as_secs()), (1, 2));
        assert_eq!(config.tls.ca_directory.as_deref(), Some(std::path::Path::new("/tls")));
    }

    #[test]
    fn texts_about_keys_are_those_of_the_original() {
        let place = kratix_state_store::Place { store: "s".into(), url: "ssh://g@h/x".into(), branch: "main".into() };
        let error = |trouble| kratix_state_store::Error { place: std::sync::Arc::new(place.clone()), trouble };
        let unreadable = open_failure(&error(Trouble::PrivateKey("it is empty".into())));
        assert_eq!(unreadable.step, Step::Configure);
        let expected = "could not create auth method: error parsing ssh private key: it is empty; hint: ";
        assert!(unreadable.message.starts_with(expected), "{}", unreadable.message);
        let unreadable = open_failure(&error(Trouble::SigningKey("it is empty".into())));
        assert_eq!(unreadable.step, Step::Configure);
        let expected = "state store s (ssh://g@h/x): error parsing signing key: it is empty; hint: ";
        assert!(unreadable.message.starts_with(expected), "{}", unreadable.message);
        let refused = open_failure(&error(Trouble::KeyRefused("g@h".into())));
        assert_eq!(refused.step, Step::Authenticate);
        let unknown = Trouble::HostKeyUnknown { host: "[h]:2222".into(), kind: "ED25519".into() };
        let unknown = open_failure(&error(unknown));
        assert_eq!(unknown.step, Step::Read);
        assert!(unknown.message.contains("ssh-keyscan -p 2222 h"), "{}", unknown.message);
    }

    #[test]
    fn keys_limits_and_the_environment_reach_the_store() {
        let connection = GitConnection {
            url: "ssh://g@h/x".into(),
            branch: "main".into(),
            path: String::new(),
            author: ("kratix".into(), String::new()),
            credentials: GitCredentials::Ssh { private_key: PrivateKey("k".into()), known_hosts: "h".into() },
            signing_key: Some(PrivateKey("s".into())),
            pushes_per_minute: std::num::NonZeroU32::new(6),
            ca_pem: None,
            skip_tls_verify: false,
        };
        let second = std::time::Duration::from_secs(1);
        let environment = GitEnvironment {
            exec_timeout: 7 * second,
            exec_grace: 3 * second,
            trace: true,
            trace_packets: true,
            ..GitEnvironment::default()
        };
        let config = git_config("n", &connection, &Config::default(), &environment);
        assert_eq!(config.auth, Auth::Ssh { private_key: "k".into(), known_hosts: "h".into() });
        assert_eq!((config.signing_key, config.pushes_per_minute), (Some("s".into()), std::num::NonZeroU32::new(6)));
        assert_eq!((config.deadline, config.grace), (7 * second, 3 * second));
        assert_eq!(config.trace, Trace { commands: true, packets: true });
    }

    #[test]
    fn texts_of_buckets_speak_of_no_push() {
        let url = "https://minio/b".to_owned();
        let place = std::sync::Arc::new(kratix_state_store::Place { store: "s".into(), url, branch: String::new() });
        let failure = |trouble| open_failure(&kratix_state_store::Error { place: place.clone(), trouble });
        for (trouble, step, message) in [
            (
                Trouble::AccessKeyRefused("InvalidAccessKeyId: No.".into()),
                Step::Authenticate,
                "the credentials were refused: InvalidAccessKeyId: No.; hint: check both keys in the secret of the store, or the identity of the pod or machine",
            ),
            (
                Trouble::Forbidden("AccessDenied: No.".into()),
                Step::Write,
                "access is forbidden: AccessDenied: No.; hint: give the user of the store write access to it",
            ),
            (
                Trouble::BucketMissing("b".into()),
                Step::Read,
                "bucket \"b\" does not exist; hint: create it, or set another bucket on the store",
            ),
            (
                Trouble::NotTls,
                Step::Read,
                "the server does not speak TLS; hint: check the endpoint of the store, or set spec.insecure: true on the store",
            ),
        ] {
            let found = failure(trouble);
            assert_eq!((found.step, found.message), (step, format!("state store s (https://minio/b): {message}")));
        }
    }

    #[test]
    fn a_connection_to_a_bucket_keeps_everything_and_shows_no_secret() {
        let connection = BucketConnection {
            endpoint: "minio:9000".into(),
            bucket: "b".into(),
            path: "p".into(),
            plain_http: true,
            dual_stack: true,
            credentials: BucketCredentials::Keys { id: "i".into(), secret: "hidden".into() },
            ca_pem: Some(b"PEM".to_vec()),
            skip_tls_verify: true,
        };
        let auth = BucketAuth::Keys { id: "i".into(), secret: "hidden".into() };
        let expected = BucketConfig {
            path: "p".into(),
            plain_http: true,
            dual_stack: true,
            tls: Tls { ca_pem: Some(b"PEM".to_vec()), ca_directory: Some("/tls".into()), insecure: true },
            proxies: Proxies::of_process(),
            ..BucketConfig::new("s", "minio:9000", "b", auth)
        };
        let environment = GitEnvironment { ca_directory: Some("/tls".into()), ..GitEnvironment::default() };
        let config = bucket_config("s", &connection, &environment);
        assert_eq!(config, expected);
        assert!(!format!("{connection:?} {config:?}").contains("hidden"));
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
