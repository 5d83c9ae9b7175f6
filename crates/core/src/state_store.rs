//! GitStateStore and BucketStateStore: whether and with what a store can be written.
//!
//! Order: the writer of an outdated configuration is closed or replaced first, then the status says so. A crash between the
//! two is harmless: writers live in the process, and the next start opens them anew.
//!
//! Also here: how all other decisions see a store ([`Availability`], [`refusal`]) and what they ask of it ([`Change`]).
//!
//! # Source
//! `05-scheduling-and-writing.md` §8; decisions 8, 13; weaknesses 27–35, 38

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use kratix_api::condition::{self, Condition, Status};
use kratix_api::state_store::{NOT_READY, READY};

use crate::patch::to_value;
use crate::plan::{Event, EventType, Next, Plan, Write};
use crate::text;

mod availability;
mod bucket;
mod change;
mod connection;
mod git;
#[cfg(test)]
pub(crate) mod model;
mod place;
pub(crate) mod push_limit;
mod pushes;
pub(crate) mod refusal;
mod silence;
mod store;

pub use self::availability::{Availability, display};
pub(crate) use self::change::pause;
pub use self::change::{About, Attempt, Change, ChangeKind, Failure, File, Operation, Written};
pub use self::connection::{
    BucketConnection, BucketCredentials, Connection, GitConnection, GitCredentials, PrivateKey,
};
pub(crate) use self::git::complaints as git_complaints;
pub use self::place::{Address, place};
pub use self::pushes::{Acceptance, Asker, Pushes};
pub use self::refusal::{Complaint, Pushing, complaint, concerns_destinations, is_refusal_shown, takes_back};
pub use self::silence::{NO_ANSWER, SILENCE, no_answer};
pub use self::store::{Store, concerns_itself, secret_of};

/// Time between attempts to open a store that fails.
pub const RETRY_AFTER: Duration = Duration::from_secs(15);

/// What is known of the Secret that a store names.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The store names none.
    NotReferenced,
    /// It does not exist, or is not visible.
    NotFound,
    /// It could not be read.
    Unreadable {
        /// The error.
        message: String,
    },
    /// It was read.
    Found {
        /// Its version.
        resource_version: String,
        /// Its contents.
        data: BTreeMap<String, Vec<u8>>,
    },
}

/// Contents are never shown.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReferenced => f.write_str("NotReferenced"),
            Self::NotFound => f.write_str("NotFound"),
            Self::Unreadable { message } => write!(f, "Unreadable({message})"),
            Self::Found { resource_version, data } => write!(f, "Found({resource_version}, {:?})", data.keys()),
        }
    }
}

/// Everything that the decision about one store may look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The only clock.
    pub now: Timestamp,
    /// The store.
    pub store: Store,
    /// Its Secret.
    pub secret: Secret,
    /// The last attempt to open it, unless what it has opened was closed since.
    pub opened: Option<Opened>,
    /// A writer has had trouble with the store as a whole since it was opened.
    pub is_suspect: bool,
    /// It has had such trouble before, and was found to be well.
    pub was_cleared: bool,
    /// What it is being asked to open or check it with the present configuration, if there is no answer yet.
    pub under_way: Option<UnderWay>,
    /// Whether it takes what it is given.
    pub pushes: Pushes,
    /// Somebody whose push was refused still says so ([`is_refusal_shown`]).
    pub is_refusal_shown: bool,
    /// How old the known state of a remote may be: part of what a writer is opened with.
    pub fetch_interval: Duration,
}

/// A question to a store that is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// When it was asked; nothing as long as others have their turn.
    pub since: Option<Timestamp>,
    /// Where, for people.
    pub address: String,
}

/// An attempt to open a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Identifies what was opened: generation, Secret and settings.
    pub fingerprint: String,
    /// When.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Result<(), OpenFailure>,
}

/// Why a store could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFailure {
    /// At which step.
    pub step: Step,
    /// The error, for people.
    pub message: String,
    /// For how long the store asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// The steps of opening a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Understanding the configuration.
    Configure,
    /// Proving who we are.
    Authenticate,
    /// Reading the store.
    Read,
    /// Finding out whether it can be written.
    Write,
}

/// What is to be done about a store: first the effect, then the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Writes to the API.
    pub plan: Plan<Finding>,
    /// What happens to the writer.
    pub effect: Option<Effect>,
}

/// What happens to the writer of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is opened or replaced, and checked.
    Open {
        /// How to reach the store.
        connection: Box<Connection>,
        /// For [`Opened`].
        fingerprint: String,
        /// For [`Availability::Ready`].
        place: String,
    },
    /// The present one is checked: it has had trouble, and there is nothing else to open.
    Check {
        /// For [`Opened`].
        fingerprint: String,
    },
    /// There must be none.
    Close,
    /// It is still being opened, and who waits for it is told why.
    Tell,
}

/// What was found out about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It can be written.
    Ready,
    /// It cannot be written.
    NotReady {
        /// Reason of the condition.
        reason: &'static str,
        /// Message of the condition.
        message: String,
    },
}

impl Finding {
    /// Returns why the store cannot be written, in one line, for [`Availability::NotReady`].
    pub fn cause(&self) -> String {
        match self {
            Self::Ready => String::new(),
            Self::NotReady { message, .. } => text::cause(message.lines().next().unwrap_or_default()).to_owned(),
        }
    }
}

/// Why a store cannot be opened.
struct Problem {
    reason: &'static str,
    message: String,
    next: Next,
    /// Nothing is known of its configuration.
    is_of_reading: bool,
}

/// Decides what is to be done about a store.
///
/// # Guarantees
/// A converged snapshot gives a silent plan, and no effect but [`Effect::Close`], which closes what is open only once, and
/// [`Effect::Tell`], which tells of one cause only once.
pub fn decide(snapshot: &Snapshot) -> Decision {
    let connection = match resolve(snapshot) {
        Ok(connection) => connection,
        // What is open works with what was read before; nothing says that it is wrong now.
        Err(problem) if problem.is_of_reading && is_open(snapshot) => {
            return Decision { plan: Plan::silent().and_next(problem.next), effect: None };
        }
        Err(problem) => {
            let plan = not_ready(snapshot, problem.reason, problem.message).and_next(problem.next);
            return Decision { plan, effect: Some(Effect::Close) };
        }
    };
    let fingerprint = stamp(snapshot);
    let place = place(&snapshot.store);
    let opened = snapshot.opened.as_ref().filter(|opened| opened.fingerprint == fingerprint);
    let open = Effect::Open { connection: Box::new(connection), fingerprint, place };
    match opened {
        None if snapshot.under_way.is_some() => silence::decide(snapshot),
        None => Decision { plan: Plan::silent().and_next(Next::After(RETRY_AFTER)), effect: Some(open) },
        Some(opened) => {
            let age = Duration::try_from(snapshot.now.duration_since(opened.at)).unwrap_or_default();
            let plan = match &opened.outcome {
                Ok(()) => ready(snapshot),
                Err(failure) => failed(snapshot, failure),
            };
            let needs_attempt = opened.outcome.is_err() || snapshot.is_suspect;
            if !needs_attempt || snapshot.under_way.is_some() {
                return Decision { plan, effect: None };
            }
            let pause = pause(opened.outcome.as_ref().err().and_then(|failure| failure.retry_after));
            // Until the first trouble is looked into, everybody who comes tries the store on his own.
            let is_first = opened.outcome.is_ok() && !snapshot.was_cleared;
            if age < pause && !is_first {
                return Decision { plan: plan.and_next(Next::After(pause - age)), effect: None };
            }
            let effect = match (&opened.outcome, open) {
                // The writer knows more than one that is opened anew: which changes the store refuses.
                (Ok(()), Effect::Open { fingerprint, .. }) => Effect::Check { fingerprint },
                (_, open) => open,
            };
            Decision { plan, effect: Some(effect) }
        }
    }
}

/// Returns what follows from an attempt to open the store.
pub fn record(snapshot: &Snapshot, opened: Opened) -> Plan<Finding> {
    let mut snapshot = Snapshot { opened: Some(opened), is_suspect: false, under_way: None, ..snapshot.clone() };
    if matches!(snapshot.pushes, Pushes::Unanswered(_)) {
        snapshot.pushes = Pushes::Unknown; // it has answered, or will not
    }
    decide(&snapshot).plan
}

fn resolve(snapshot: &Snapshot) -> Result<Connection, Problem> {
    let empty = BTreeMap::new();
    let data = match &snapshot.secret {
        Secret::Found { data, .. } => data,
        Secret::NotReferenced => &empty,
        Secret::NotFound => {
            let (namespace, name) = snapshot.store.secret_name();
            let message = with_hint(
                &format!("Secret {name} not found in namespace {namespace}"),
                "create it, or correct spec.secretRef of the store",
            );
            return Err(Problem { reason: "SecretNotFound", message, next: Next::OnChange, is_of_reading: false });
        }
        Secret::Unreadable { message } => {
            let (message, next) = (message.clone(), Next::After(RETRY_AFTER));
            return Err(Problem { reason: "StateStoreError", message, next, is_of_reading: true });
        }
    };
    let connection = match &snapshot.store {
        Store::Git(store) => {
            let pushes_per_minute = push_limit::of(&snapshot.store);
            git::connection(store, data).map(|found| Connection::Git(GitConnection { pushes_per_minute, ..found }))
        }
        Store::Bucket(store) => bucket::connection(store, data).map(Connection::Bucket),
    };
    // A wrong configuration is healed by changing the store or its Secret, and both are watched.
    let problem =
        |message| Problem { reason: "ErrorInitialisingWriter", message, next: Next::OnChange, is_of_reading: false };
    connection.map_err(problem)
}

/// Returns a text with what a person can do about it.
pub(crate) fn with_hint(text: &str, hint: &str) -> String {
    format!("{text}; hint: {hint}")
}

fn failed(snapshot: &Snapshot, failure: &OpenFailure) -> Plan<Finding> {
    let text = &failure.message;
    let unwritable = || {
        let text = format!("Error validating state store permissions: write permission validation failed: {text}");
        ("ErrorValidatingPermissions", text)
    };
    let (reason, message) = match (failure.step, &snapshot.store) {
        (Step::Configure, Store::Git(_)) => ("ErrorInitialisingWriter", format!("unable to create git writer: {text}")),
        (Step::Configure, Store::Bucket(store)) => {
            let client = if bucket::is_of_s3(&store.spec) { "error initialising S3 client: " } else { "" };
            ("ErrorInitialisingWriter", format!("unable to create bucket writer: {client}{text}"))
        }
        (Step::Authenticate, Store::Git(_)) => {
            ("ErrorInitialisingWriter", format!("unable to clone repository: Authentication failed: {text}"))
        }
        (Step::Read, Store::Git(_)) => ("ErrorInitialisingWriter", format!("unable to clone repository: {text}")),
        // The first request to a bucket is the one that finds out whether it can be written.
        (Step::Authenticate | Step::Read, Store::Bucket(_)) | (Step::Write, _) => unwritable(),
    };
    let mut plan = not_ready(snapshot, reason, message);
    if failure.step == Step::Authenticate
        && !plan.events.is_empty()
        && let Some(hint) = git::newline_hint(snapshot)
    {
        plan.events.push(Event::warning(
            snapshot.store.reporter(),
            snapshot.store.target(),
            "InvalidCredentials",
            hint,
        ));
    }
    plan
}

fn ready(snapshot: &Snapshot) -> Plan<Finding> {
    let ready = Condition::new(condition::READY, Status::True, "StateStoreReady", "State store is ready");
    let note = format!("{} \"{}\" is ready", snapshot.store.kind(), snapshot.store.name());
    settled(snapshot, ready, note, Finding::Ready)
}

fn not_ready(snapshot: &Snapshot, reason: &'static str, message: String) -> Plan<Finding> {
    let message = text::message(message);
    let condition = Condition::new(condition::READY, Status::False, reason, message.clone());
    settled(snapshot, condition, message.clone(), Finding::NotReady { reason, message })
}

fn settled(snapshot: &Snapshot, condition: Condition, note: String, finding: Finding) -> Plan<Finding> {
    let store = &snapshot.store;
    let old = store.status().cloned().unwrap_or_default();
    let mut new = old.clone();
    let is_ready = condition.status == Status::True;
    let turned = condition::set(&mut new.conditions, condition, snapshot.now);
    let complaint = push_limit::record(store, &mut new.conditions, snapshot.now);
    let refusal = refusal::record(snapshot, &mut new.conditions);
    new.status = (if is_ready { READY } else { NOT_READY }).to_owned();
    new.observed_generation = store.generation();
    let status = Write::status(store.target(), &to_value(&old), &to_value(&new));
    let is_news = turned || old.observed_generation != new.observed_generation;
    let (type_, reason) = if is_ready { (EventType::Normal, "Ready") } else { (EventType::Warning, "NotReady") };
    let event = Event { regarding: store.target(), type_, reason, note, reporter: store.reporter(), of: None };
    let mut events = if is_news { vec![event] } else { Vec::new() };
    events.extend(complaint);
    events.extend(refusal);
    Plan { writes: Vec::new(), status, events, next: Next::OnChange, findings: vec![finding] }
}

/// Identifies what a store is opened with. An answer to what was asked with other settings counts no longer. Nothing where the
/// Secret could not be read: whether the settings are others is not known then.
pub fn fingerprint(snapshot: &Snapshot) -> Option<String> {
    let is_known = !matches!(snapshot.secret, Secret::Unreadable { .. });
    is_known.then(|| stamp(snapshot))
}

/// There is a writer, with whatever settings: the last attempt went well, and nothing has closed it since.
fn is_open(snapshot: &Snapshot) -> bool {
    snapshot.opened.as_ref().is_some_and(|opened| opened.outcome.is_ok())
}

fn stamp(snapshot: &Snapshot) -> String {
    let secret = match &snapshot.secret {
        Secret::Found { resource_version, .. } => resource_version.as_str(),
        _ => "",
    };
    let interval = snapshot.fetch_interval.as_millis();
    let limit = push_limit::of(&snapshot.store).map_or(0, NonZeroU32::get);
    let generation = snapshot.store.generation().unwrap_or_default();
    format!("{}/{generation}/{secret}/{interval}/{limit}", snapshot.store.uid())
}

#[cfg(test)]
mod tests;
