//! Admission: what is refused before it is stored, what is filled in, and what is warned about.
//!
//! [`decide`] rules on one write. What a rule must know beyond the object itself (would the API server take that Job, is
//! there such a state store) it asks for: [`Verdict::Open`] lists [`Question`]s, the shell answers them and asks again with
//! everything it knows so far. So what is looked up, in which order and why is decided here, and the shell has no rules.
//!
//! The first rule that is broken refuses the write, except that all faults of pipelines are told at once. An update that
//! leaves the spec as it is, or of an object that is being deleted, breaks no rule about the spec: an object that slipped
//! in while nobody looked can still be labelled, get its finalizers and lose them.
//!
//! # Source
//! `01-api.md` §7, §9.1–§9.3; `03-promises.md` §24, §25 (34, 35)

mod api;
mod destination;
mod interval;
mod label;
mod pipeline;
mod promise;
mod promise_release;
mod promise_revision;
mod question;
mod requirement;
pub mod source;
mod state_store;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use kratix_api::{BucketStateStore, Destination, GitStateStore, Promise, PromiseRelease, PromiseRevision};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::workflow::Settings;

pub use question::{Answer, Answers, Download, Question, Refusal};

/// What is about to happen to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It gets a new state.
    Update,
    /// It is to go.
    Delete,
}

/// One write of a main resource of Kratix's API group.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// What happens.
    pub operation: Operation,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// New state with the defaults of its schema; `Null` for a deletion.
    pub object: Value,
    /// State before; `Null` for a creation.
    pub old: Value,
    /// Name of the user who asks.
    pub user: String,
}

/// Everything that a verdict may depend on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The write.
    pub review: Review,
    /// What is known so far.
    pub answers: Answers,
    /// Settings of the process; their configuration holds while the platform has none that can be read.
    pub settings: Settings,
}

/// A write that is let through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowed {
    /// What to store instead of what was sent, if that differs.
    pub object: Option<Value>,
    /// Shown to the user.
    pub warnings: Vec<String>,
}

/// A write that is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// Name of the webhook that refuses in an installation with webhooks; part of what the user sees.
    pub webhook: &'static str,
    /// HTTP code.
    pub code: u16,
    /// Reason of the Status.
    pub reason: String,
    /// What is wrong, where, and what was found.
    pub message: String,
    /// `details` of the Status; `Null` for none.
    pub details: Value,
}

/// The answer to one write.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is let through.
    Allowed(Allowed),
    /// It is refused.
    Denied(Denial),
    /// More must be known: never empty, and never what has been answered.
    Open(Vec<Question>),
}

/// Rules on one write.
///
/// # Guarantees
/// Every round asks something new, and there is a bound to what is asked: see [`ROUNDS_MAX`].
pub fn decide(snapshot: &Snapshot) -> Verdict {
    let ruling = match snapshot.review.kind.as_str() {
        Promise::KIND => promise::rule(snapshot),
        PromiseRelease::KIND => promise_release::rule(snapshot),
        PromiseRevision::KIND => promise_revision::rule(snapshot),
        Destination::KIND => destination::rule(snapshot),
        BucketStateStore::KIND => state_store::rule_bucket(snapshot),
        GitStateStore::KIND => state_store::rule_git(snapshot),
        _ => Ok(Allowed::default()),
    };
    match ruling {
        Ok(allowed) => Verdict::Allowed(allowed),
        Err(Halt::Denied(denial)) => Verdict::Denied(denial),
        Err(Halt::Open(questions)) => Verdict::Open(questions),
    }
}

/// Rounds of questions that the shell grants one write: a Promise takes seven, and one more for each Promise on the longest
/// chain of requirements that is followed.
pub const ROUNDS_MAX: usize = 8 + requirement::LOOK_UPS_MAX;

/// Why a rule stopped.
#[derive(Debug)]
enum Halt {
    Denied(Denial),
    Open(Vec<Question>),
}

type Ruling<T> = Result<T, Halt>;

impl From<Denial> for Halt {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl Denial {
    /// A rule is broken.
    fn rule(webhook: &'static str, message: impl Into<String>) -> Self {
        let (reason, message) = ("Forbidden".to_owned(), message.into());
        Self { webhook, code: 403, reason, message, details: Value::Null }
    }

    /// The object is not what its kind says.
    fn malformed(webhook: &'static str, message: impl Into<String>) -> Self {
        let (reason, message) = ("BadRequest".to_owned(), message.into());
        Self { webhook, code: 400, reason, message, details: Value::Null }
    }

    /// The API server refuses something that the write would lead to.
    fn refused(webhook: &'static str, context: &str, refusal: &Refusal) -> Self {
        let message = format!("{context}: {}", refusal.message);
        // A refusal without an error code is no refusal; clients treat anything below as success.
        let code = if refusal.code < 400 { 500 } else { refusal.code };
        Self { webhook, code, reason: refusal.reason.clone(), message, details: refusal.details.clone() }
    }
}

impl Review {
    /// Reads the new state.
    fn read<T: DeserializeOwned>(&self, webhook: &'static str) -> Result<T, Denial> {
        let read = T::deserialize(&self.object);
        read.map_err(|error| Denial::malformed(webhook, format!("{} {:?}: {error}", self.kind, self.name)))
    }

    /// Reads a part of the state before, if there was one that can be read.
    fn read_old<'a, T: Deserialize<'a>>(&'a self, pointer: &str) -> Option<T> {
        T::deserialize(self.old.pointer(pointer)?).ok()
    }

    /// Tells whether rules about the spec apply.
    fn is_about_spec(&self) -> bool {
        let is_deleting = !self.old["metadata"]["deletionTimestamp"].is_null();
        self.operation == Operation::Create || (!is_deleting && self.object.get("spec") != self.old.get("spec"))
    }

    /// Returns a label or annotation of the new state if it is to be checked: it is there, and was not the same before.
    fn news<'a>(&'a self, map: &str, key: &str) -> Option<&'a str> {
        let of = |object: &'a Value| object["metadata"][map].get(key).and_then(Value::as_str);
        // One that was not there counts as empty.
        let before = of(&self.old).unwrap_or_default();
        of(&self.object).filter(|value| self.operation == Operation::Create || *value != before)
    }
}

/// Returns what is wrong as one message: each fault once, in order.
fn joined(faults: Vec<String>) -> Option<String> {
    let mut seen = BTreeSet::new();
    let faults: Vec<String> = faults.into_iter().filter(|fault| seen.insert(fault.clone())).collect();
    (!faults.is_empty()).then(|| faults.join("\n"))
}
