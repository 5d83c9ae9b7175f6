//! The platform's configuration: the YAML document under key `config` of the ConfigMap `kratix`, as a typed value.
//!
//! Reading never stops at one bad value: it keeps its default and a [`Warning`] names key and value, so that a typo
//! in one setting does not take the platform down with it. Only text that is no YAML mapping at all is an [`Error`].

mod environment;
mod reader;
mod reading;
mod telemetry;
#[cfg(test)]
mod tests;
mod workflows;

use std::time::Duration;

pub use environment::{EnvironmentWarning, GitEnvironment};
pub use reading::{Reading, concerns, without_effect};
pub use telemetry::{Protocol, Telemetry};
pub use workflows::Workflows;

use reader::Section;

/// How long a settled workflow rests before it is run again, when nothing else is configured.
const INTERVAL: Duration = Duration::from_secs(10 * 60 * 60);
/// Shortest interval that does not keep the platform busy with re-runs; the annotation enforces the same.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_secs(60);
const JOBS_TO_KEEP: usize = 5;
const FETCH_INTERVAL: Duration = Duration::from_secs(5);

/// Settings of the platform, with a value for every one of them.
///
/// # Guarantees
/// `Config::default()` is what holds without a ConfigMap. An empty document differs from it in one point: user
/// containers without a security context then get an empty one.
/// # Source
/// `06-operations.md` §5, §10.1
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Completed Jobs kept per pipeline and object, at least one.
    pub number_of_jobs_to_keep: usize,
    /// Whether only Secrets labelled `app.kubernetes.io/part-of=kratix` are seen.
    pub selective_cache: bool,
    /// How old a run may become before configure workflows run again; never zero.
    pub reconciliation_interval: Duration,
    /// How long after a successful write a placement's files are asserted again; `None`: never on a timer.
    pub state_store_reconciliation_interval: Option<Duration>,
    /// Timing of leader election.
    pub leader_election: LeaderElection,
    /// Version that new ResourceBindings ask for.
    pub binding_strategy: BindingStrategy,
    /// Whether the DryRun kind and the dry-run labels are acted on.
    pub dry_run: bool,
    /// Defaults and behaviour of workflows.
    pub workflows: Workflows,
    /// Shape and detail of the log.
    pub logging: Logging,
    /// Shortest time between two remote fetches of one Git store.
    pub git_minimum_fetch_interval: Duration,
    /// Traces and metrics; `None`: off.
    pub telemetry: Option<Telemetry>,
}

/// Timing of leader election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// How long followers wait before they take over.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry_period: Duration,
}

/// Version that new ResourceBindings ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindingStrategy {
    /// Follow the latest revision.
    #[default]
    Floating,
    /// Stay at the revision that is latest when the binding is made.
    Pinned,
}

/// Shape and detail of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// One JSON object per line instead of text for people.
    pub structured: bool,
    /// Detail; `None`: the default of the mode.
    pub level: Option<Level>,
}

/// Detail of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And one line per change.
    Info,
    /// And what was skipped.
    Debug,
    /// Everything.
    Trace,
}

/// Something in the document that did not take effect as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A key that means nothing.
    #[error("unknown configuration key {key:?} is ignored")]
    UnknownKey {
        /// Path of the key, joined by dots.
        key: String,
    },
    /// A value that cannot be read; the default holds.
    #[error("configuration key {key:?} has value {value}, which is not {expected}; the default is used")]
    Unreadable {
        /// Path of the key, joined by dots.
        key: String,
        /// The value as JSON, cut to 80 characters.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A value that can be read but not be used as it is.
    #[error("{consequence} (configuration key {key:?} has value {value})")]
    Adjusted {
        /// Path of the key, joined by dots.
        key: String,
        /// The value as JSON, cut to 80 characters.
        value: String,
        /// What happens instead.
        consequence: &'static str,
    },
    /// A key that is no longer needed.
    #[error("{message}")]
    Deprecated {
        /// What to know about it.
        message: &'static str,
    },
}

/// The document could not be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not YAML.
    #[error("key \"config\" of ConfigMap kratix is not valid YAML: {cause}")]
    Syntax {
        /// What the parser says, one line.
        cause: String,
    },
    /// YAML, but no mapping.
    #[error("key \"config\" of ConfigMap kratix holds {found} instead of a mapping of settings")]
    NotAMapping {
        /// Kind of the value that was found.
        found: &'static str,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            number_of_jobs_to_keep: JOBS_TO_KEEP,
            selective_cache: false,
            reconciliation_interval: INTERVAL,
            state_store_reconciliation_interval: Some(INTERVAL),
            leader_election: LeaderElection::default(),
            binding_strategy: BindingStrategy::default(),
            dry_run: false,
            workflows: Workflows::default(),
            logging: Logging { structured: true, level: None },
            git_minimum_fetch_interval: FETCH_INTERVAL,
            telemetry: None,
        }
    }
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Config {
    /// Reads the document `text`.
    ///
    /// # Guarantees
    /// Keys match in any letter case, the last of two equal keys wins, `null` counts as absent. Warnings come in the
    /// order of the settings in `06-operations.md` §5, unknown keys of a section after its settings.
    /// # Errors
    /// [`Error`] when the text is not YAML or not a mapping; the caller keeps the configuration it has.
    /// # Source
    /// `06-operations.md` §5, §20; decision 4
    pub fn parse(text: &str) -> Result<(Self, Vec<Warning>), Error> {
        let mut root = Section::document(text)?;
        let config = Self::read(&mut root);
        Ok((config, root.finish()))
    }

    fn read(root: &mut Section) -> Self {
        let number_of_jobs_to_keep = jobs_to_keep(root);
        let selective_cache = root.flag("selectiveCache", false);
        let reconciliation_interval = interval(root);
        let state_store_reconciliation_interval = store_interval(root);
        let leader_election = root.within("controllerLeaderElection", LeaderElection::read);
        let binding_strategy = binding_strategy(root);
        let dry_run = root.within("featureFlags", feature_flags);
        let workflows = root.within("workflows", Workflows::read);
        let logging = root.within("logging", Logging::read);
        let git_minimum_fetch_interval = root.within("git", fetch_interval);
        let telemetry = root.has("telemetry").then(|| root.within("telemetry", Telemetry::read));
        Self {
            number_of_jobs_to_keep,
            selective_cache,
            reconciliation_interval,
            state_store_reconciliation_interval,
            leader_election,
            binding_strategy,
            dry_run,
            workflows,
            logging,
            git_minimum_fetch_interval,
            telemetry,
        }
    }

    /// Returns the keys whose values differ from `self` to `new` although nothing goes by them, sorted. They are read because the
    /// original has them.
    pub fn changed_without_effect(&self, new: &Self) -> Vec<&'static str> {
        let same = [
            ("controllerLeaderElection", self.leader_election == new.leader_election),
            ("logging", self.logging == new.logging),
            ("selectiveCache", self.selective_cache == new.selective_cache),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }

    /// Returns what decides when a settled workflow runs again: after how long, and whether also one that has failed.
    pub fn repetition(&self) -> (Duration, bool) {
        (self.reconciliation_interval, self.workflows.reconcile_after_failure)
    }
}

fn jobs_to_keep(root: &mut Section) -> usize {
    let key = "numberOfJobsToKeep";
    match root.integer(key) {
        None | Some(0) => JOBS_TO_KEEP,
        Some(number) if number < 0 => {
            root.adjusted(key, &number.into(), "numberOfJobsToKeep cannot be less than one; set to default value");
            JOBS_TO_KEEP
        }
        Some(number) => usize::try_from(number).expect("negative numbers were handled above"),
    }
}

fn interval(root: &mut Section) -> Duration {
    let key = "reconciliationInterval";
    let Some((value, interval)) = root.duration(key) else {
        return INTERVAL;
    };
    match interval.positive() {
        None => {
            root.adjusted(key, &value, "reconciliationInterval must be greater than zero; one minute is used");
            INTERVAL_MIN
        }
        Some(interval) => {
            if interval < INTERVAL_MIN {
                root.adjusted(key, &value, "a reconciliationInterval below one minute keeps workflows running");
            }
            interval
        }
    }
}

/// Reads the interval under its own name and under the name the published documentation gives it.
fn store_interval(root: &mut Section) -> Option<Duration> {
    let own = root.duration("stateStoreReconciliationInterval");
    let alias = root.duration("workPlacementRewriteInterval");
    if let (Some(_), Some((value, _))) = (&own, &alias) {
        root.adjusted("workPlacementRewriteInterval", value, "stateStoreReconciliationInterval is set too and wins");
    }
    match own.or(alias) {
        None => Some(INTERVAL),
        Some((_, interval)) => interval.positive(),
    }
}

fn binding_strategy(root: &mut Section) -> BindingStrategy {
    let key = "resourceBindingVersionStrategy";
    match root.text(key).as_deref() {
        None | Some("" | "floating") => BindingStrategy::Floating,
        Some("pinned") => BindingStrategy::Pinned,
        Some(other) => {
            let consequence = "resourceBindingVersionStrategy must be 'floating' or 'pinned'; defaulting to 'floating'";
            root.adjusted(key, &other.into(), consequence);
            BindingStrategy::Floating
        }
    }
}

fn feature_flags(flags: &mut Section) -> bool {
    let dry_run = flags.flag("dryRun", false);
    if flags.take("promiseUpgrade").is_some() {
        flags.warn(Warning::Deprecated {
            message: "featureFlags.promiseUpgrade is deprecated and ignored; Promise Revisions and Resource Bindings \
                      are always enabled",
        });
    }
    dry_run
}

fn fetch_interval(git: &mut Section) -> Duration {
    let key = "minimumFetchInterval";
    let Some((value, interval)) = git.duration(key) else {
        return FETCH_INTERVAL;
    };
    interval.not_negative().unwrap_or_else(|| {
        git.adjusted(key, &value, "git.minimumFetchInterval cannot be negative; set to default value");
        FETCH_INTERVAL
    })
}

impl LeaderElection {
    fn read(section: &mut Section) -> Self {
        let default = Self::default();
        let mut read = |key, default| {
            let Some((value, duration)) = section.duration(key) else {
                return default;
            };
            duration.positive().unwrap_or_else(|| {
                section.adjusted(key, &value, "times of leader election must be greater than zero; default used");
                default
            })
        };
        let election = Self {
            lease_duration: read("leaseDuration", default.lease_duration),
            renew_deadline: read("renewDeadline", default.renew_deadline),
            retry_period: read("retryPeriod", default.retry_period),
        };
        // A leader must give up before its lease runs out, and must have tried more than once before it gives up.
        let ordered = election.lease_duration > election.renew_deadline
            && election.renew_deadline > election.retry_period.mul_f64(1.2);
        if ordered {
            return election;
        }
        let found = format!(
            "{}s > {}s > {}s",
            election.lease_duration.as_secs_f64(),
            election.renew_deadline.as_secs_f64(),
            election.retry_period.as_secs_f64()
        );
        let consequence =
            "leaseDuration must be greater than renewDeadline, and that greater than retryPeriod * 1.2; defaults used";
        section.adjusted_whole(found, consequence);
        default
    }
}

impl Logging {
    fn read(section: &mut Section) -> Self {
        let structured = section.flag("structured", true);
        let text = section.text("level").unwrap_or_default();
        let level = match text.trim().to_ascii_lowercase().as_str() {
            "" => None,
            "trace" => Some(Level::Trace),
            "debug" => Some(Level::Debug),
            "info" => Some(Level::Info),
            "warn" | "warning" => Some(Level::Warn),
            "error" => Some(Level::Error),
            _ => {
                section.adjusted("level", &text.as_str().into(), "unsupported logging.level; the default is used");
                None
            }
        };
        Self { structured, level }
    }
}
