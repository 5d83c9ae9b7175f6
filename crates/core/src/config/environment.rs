//! Settings of Git stores from the environment of the process.

use std::path::PathBuf;
use std::time::Duration;

use kratix_api::keys::env;

/// How long GitHub's tokens are used.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How long a request to a Git server's API may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a command of git may take.
const EXEC_TIMEOUT: Duration = Duration::from_secs(90);
/// How long git has to end after it was told to.
const EXEC_GRACE: Duration = Duration::from_secs(10);
/// The longest duration that makes sense for any of these.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How much of a value is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Settings of Git stores from the environment of the process, with a value for every one of them.
///
/// # Source
/// `05-scheduling-and-writing.md` §9.2, `06-operations.md` §4
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitEnvironment {
    /// A directory with PEM certificates to trust, one file for each host, of its name without port.
    pub ca_directory: Option<PathBuf>,
    /// For how long a token of a GitHub App is used at most.
    pub token_lifetime: Duration,
    /// How long a request to the API of a Git server may take.
    pub request_timeout: Duration,
    /// How long a command of git may take.
    pub exec_timeout: Duration,
    /// How long git has to end after it was told to.
    pub exec_grace: Duration,
    /// Has git tell which programs it runs.
    pub trace: bool,
    /// Has git tell what it sends and gets.
    pub trace_packets: bool,
}

/// What holds in an empty environment.
impl Default for GitEnvironment {
    fn default() -> Self {
        Self {
            ca_directory: None,
            token_lifetime: TOKEN_LIFETIME,
            request_timeout: REQUEST_TIMEOUT,
            exec_timeout: EXEC_TIMEOUT,
            exec_grace: EXEC_GRACE,
            trace: false,
            trace_packets: false,
        }
    }
}

/// A variable whose value is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name} has value {value:?}, which is not {expected}; the default is used")]
pub struct EnvironmentWarning {
    /// The variable.
    pub name: &'static str,
    /// Its value, cut to 80 characters.
    pub value: String,
    /// What would be accepted.
    pub expected: &'static str,
}

impl GitEnvironment {
    /// Reads the variables; an empty one counts as absent.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> (Self, Vec<EnvironmentWarning>) {
        let mut reader = Reader { variable, warnings: Vec::new() };
        let read = Self {
            ca_directory: reader.text(env::TLS_DATA_PATH).map(PathBuf::from),
            token_lifetime: reader.duration(env::GITHUB_APP_CREDS_EXPIRATION_DURATION, TOKEN_LIFETIME),
            request_timeout: reader.duration(env::GIT_REQUEST_TIMEOUT, REQUEST_TIMEOUT),
            exec_timeout: reader.duration(env::EXEC_TIMEOUT, EXEC_TIMEOUT),
            exec_grace: reader.duration(env::EXEC_FATAL_TIMEOUT, EXEC_GRACE),
            trace: reader.switch(env::GIT_TRACE),
            trace_packets: reader.switch(env::GIT_TRACE_PACKET),
        };
        (read, reader.warnings)
    }
}

struct Reader<'v> {
    variable: &'v dyn Fn(&str) -> Option<String>,
    warnings: Vec<EnvironmentWarning>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn switch(&mut self, name: &'static str) -> bool {
        match self.text(name).as_deref().map(str::trim) {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(text) => {
                let value = text.chars().take(SHOWN_CHARS_MAX).collect();
                self.warnings.push(EnvironmentWarning { name, value, expected: "1 or 0" });
                false
            }
        }
    }

    fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else { return default };
        let read = text.trim().parse::<kratix_api::Duration>().map(kratix_api::Duration::as_wait).ok();
        if let Some(duration) = read.filter(|duration| !duration.is_zero() && *duration <= DURATION_MAX) {
            return duration;
        }
        let value = text.chars().take(SHOWN_CHARS_MAX).collect();
        let expected = "a duration between 1ns and 24h, such as 90s or 10m";
        self.warnings.push(EnvironmentWarning { name, value, expected });
        default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (GitEnvironment, Vec<String>) {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (read, warnings) = GitEnvironment::read(&find);
        (read, warnings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_are_read_and_absent_ones_have_defaults() {
        assert_eq!(read(&[]), (GitEnvironment::default(), vec![]));
        assert_eq!(read(&[("KRATIX_TLS_DATA_PATH", "")]), (GitEnvironment::default(), vec![]));
        let (git, warnings) = read(&[
            ("KRATIX_TLS_DATA_PATH", "/etc/kratix/tls"),
            ("KRATIX_GITHUB_APP_CREDS_EXPIRATION_DURATION", "30m"),
            ("KRATIX_GIT_REQUEST_TIMEOUT", "1m30s"),
            ("KRATIX_EXEC_TIMEOUT", "2m"),
            ("KRATIX_EXEC_FATAL_TIMEOUT", "5s"),
            ("KRATIX_GIT_TRACE", "1"),
            ("KRATIX_GIT_TRACE_PACKET", "true"),
        ]);
        assert_eq!(warnings, [] as [&str; 0]);
        assert_eq!(git.ca_directory, Some(PathBuf::from("/etc/kratix/tls")));
        assert_eq!((git.token_lifetime.as_secs(), git.request_timeout.as_secs()), (1800, 90));
        assert_eq!((git.exec_timeout.as_secs(), git.exec_grace.as_secs()), (120, 5));
        assert!(git.trace && git.trace_packets);
        let (git, _) = read(&[]);
        assert_eq!((git.exec_timeout.as_secs(), git.exec_grace.as_secs()), (90, 10));
        assert!(!git.trace && !git.trace_packets);
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named_and_the_default_holds() {
        for value in ["soon", "15", "-1s", "0s", "25h"] {
            let (git, warnings) = read(&[("KRATIX_GIT_REQUEST_TIMEOUT", value)]);
            assert_eq!(git, GitEnvironment::default(), "{value}");
            let expected = format!(
                "environment variable KRATIX_GIT_REQUEST_TIMEOUT has value {value:?}, which is not a duration between \
                 1ns and 24h, such as 90s or 10m; the default is used"
            );
            assert_eq!(warnings, [expected]);
            for name in ["KRATIX_EXEC_TIMEOUT", "KRATIX_EXEC_FATAL_TIMEOUT"] {
                let (git, warnings) = read(&[(name, value)]);
                assert_eq!((git, warnings.len()), (GitEnvironment::default(), 1), "{name} {value}");
            }
        }
        let (git, warnings) = read(&[("KRATIX_GIT_TRACE", "loud"), ("KRATIX_GIT_TRACE_PACKET", "0")]);
        assert_eq!(git, GitEnvironment::default());
        let expected =
            "environment variable KRATIX_GIT_TRACE has value \"loud\", which is not 1 or 0; the default is used";
        assert_eq!(warnings, [expected]);
    }
}
