//! What a decision asks for: plain data, executed in order by the controllers, printed by previews.

use std::collections::BTreeMap;
use std::time::Duration;

use kratix_api::keys;
use serde_json::Value;

use crate::object::{Kind, ObjectKey, Target};

/// Everything one pass over one object asks for.
///
/// # Guarantees
/// `writes` are executed in this order and each is idempotent, so any prefix of them followed by a fresh pass reaches
/// the same end state. `status` follows the writes and therefore never claims what does not exist. `events` come last
/// and tell what has happened: one that names a write is told once that write was made, whatever becomes of later ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<F = ()> {
    /// Writes in order.
    pub writes: Vec<Write>,
    /// The one status write of the pass, only when something differs.
    pub status: Option<Write>,
    /// Events about what the writes did.
    pub events: Vec<Event>,
    /// When to look again if no watch brings the object back first.
    pub next: Next,
    /// What was found out, kept even when nothing is written: an object at rest stays explainable.
    pub findings: Vec<F>,
}

impl<F> Plan<F> {
    /// Returns the plan that asks for nothing.
    pub fn silent() -> Self {
        Self { writes: Vec::new(), status: None, events: Vec::new(), next: Next::OnChange, findings: Vec::new() }
    }

    /// Returns true when nothing would be written: no object, no status, no event.
    pub fn is_silent(&self) -> bool {
        self.writes.is_empty() && self.status.is_none() && self.events.is_empty()
    }

    /// Returns the plan with another time to look again.
    #[must_use]
    pub fn and_next(mut self, next: Next) -> Self {
        self.next = next;
        self
    }
}

impl<F> From<Write> for Plan<F> {
    fn from(write: Write) -> Self {
        Self { writes: vec![write], ..Self::silent() }
    }
}

impl Write {
    /// Returns whether what it starts cannot be taken back: a Job's containers act on the world.
    pub fn is_irrevocable(&self) -> bool {
        matches!(self, Self::Create { kind, .. } if kind.kind == "Job")
    }
}

/// One write to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates an object. An object of that name that exists already is a success if it is one of the `owner`'s: names are
    /// derived, so it is ours, and the pass that its watch event starts looks at it.
    Create {
        /// Resource.
        kind: Kind,
        /// Namespace and name.
        key: ObjectKey,
        /// The whole object.
        object: Value,
        /// Whose an object of that name may be.
        owner: Owner,
        /// What must still be at the version that was observed when the object is made: an older view of it would make
        /// what it asks for no longer.
        given: Option<Target>,
    },
    /// Merge-patches metadata or spec of an object.
    Patch {
        /// The object.
        target: Target,
        /// RFC 7386 merge patch.
        patch: Value,
    },
    /// Merge-patches the status subresource of an object.
    PatchStatus {
        /// The object.
        target: Target,
        /// RFC 7386 merge patch of the whole object, that is `{"status": …}`.
        patch: Value,
    },
    /// Deletes an object; gone already is a success.
    Delete {
        /// The object.
        target: Target,
    },
}

impl Write {
    /// Returns the creation of `object`, whose `metadata` names it. What is labelled with a Promise must be of that Promise
    /// if it exists.
    ///
    /// # Panics
    /// When `object` has no `metadata.name`: derived objects always have one.
    pub fn create(kind: Kind, object: Value) -> Self {
        let name = |field| object.pointer(field).and_then(Value::as_str).map(str::to_owned);
        let key = ObjectKey {
            namespace: name("/metadata/namespace"),
            name: name("/metadata/name").expect("derived objects are named"),
        };
        let owner =
            object.get("metadata").and_then(|metadata| metadata.get("labels")?.get(keys::PROMISE_NAME)?.as_str());
        let owner = owner.map_or(Owner::Anybody, |promise| Owner::Promise(promise.to_owned()));
        Self::Create { kind, key, object, owner, given: None }
    }

    /// Returns the creation as one that takes place only while `target` is still at the version that was observed.
    #[must_use]
    pub fn given(mut self, target: &Target) -> Self {
        if let Self::Create { given, .. } = &mut self {
            *given = Some(target.clone());
        }
        self
    }

    /// Returns the creation as one for which an object of anybody does as well, which is looked for before one is made.
    #[must_use]
    pub fn unless_present(mut self) -> Self {
        if let Self::Create { owner, .. } = &mut self {
            *owner = Owner::User;
        }
        self
    }

    /// Returns the status write from `old` to `new`, or `None` when they are equal.
    pub fn status(target: Target, old: &Value, new: &Value) -> Option<Self> {
        // A status that is absent and one that is empty are the same to every reader.
        let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
        if empty(old) && empty(new) {
            return None;
        }
        let patch = crate::patch::between(old, new)?;
        Some(Self::PatchStatus { target, patch: serde_json::json!({ "status": patch }) })
    }

    /// Returns the patch that sets or removes finalizers, labels or annotations, or `None` when `patch` is empty.
    pub fn metadata(target: Target, patch: &Value) -> Option<Self> {
        let changes = patch.as_object().is_some_and(|members| !members.is_empty());
        changes.then(|| Self::Patch { target, patch: serde_json::json!({ "metadata": patch }) })
    }

    /// Returns what the write is aimed at: resource, namespace and name.
    pub fn address(&self) -> (&Kind, &ObjectKey) {
        match self {
            Self::Create { kind, key, .. } => (kind, key),
            Self::Patch { target, .. } | Self::PatchStatus { target, .. } | Self::Delete { target } => {
                (&target.kind, &target.key)
            }
        }
    }
}

/// Whose an object may be that has the name of one that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Of this Promise, by its label.
    Promise(String),
    /// A user's own object serves as well.
    Anybody,
    /// A user's own object serves as well, and may well be there although no cache holds it.
    User,
}

impl Owner {
    /// Returns whether an object with these labels is one of the owner's.
    pub fn has(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Promise(promise) => labels.get(keys::PROMISE_NAME) == Some(promise),
            Self::Anybody | Self::User => true,
        }
    }
}

/// When an object is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A watch event brings it back; no timer is needed.
    OnChange,
    /// At the latest after this time, even if nothing changes.
    After(Duration),
}

impl Next {
    /// Returns the earlier of two.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(one), Self::After(two)) => Self::After(one.min(two)),
            (Self::OnChange, next) | (next, Self::OnChange) => next,
        }
    }
}

/// Severity of an event, as `kubectl describe` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// For information.
    Normal,
    /// Something went wrong.
    Warning,
}

/// Who reports an event: the `From` column of `kubectl describe`.
///
/// # Source
/// `05-scheduling-and-writing.md` §11, `02-workflows.md` §17
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The process as a whole.
    Manager,
    /// Placement decisions.
    Scheduler,
    /// The Work controller.
    Work,
    /// The WorkPlacement controller.
    WorkPlacement,
    /// The Destination controller.
    Destination,
    /// The GitStateStore controller.
    GitStateStore,
    /// The BucketStateStore controller.
    BucketStateStore,
    /// The Promise controller.
    Promise,
    /// The controller of the requests of one Promise.
    ResourceRequest,
    /// The PromiseRevision controller.
    PromiseRevision,
    /// The PromiseRelease controller.
    PromiseRelease,
    /// The ResourceBinding controller.
    ResourceBinding,
    /// The HealthRecord controller.
    HealthRecord,
}

impl Reporter {
    /// Returns the `reportingController` of the event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manager => "KratixManager",
            Self::Scheduler => "Scheduler",
            Self::Work => "WorkController",
            Self::WorkPlacement => "WorkPlacementController",
            Self::Destination => "DestinationController",
            Self::GitStateStore => "GitStateStoreController",
            Self::BucketStateStore => "BucketStateStoreController",
            Self::Promise => "PromiseController",
            Self::ResourceRequest => "ResourceRequestController",
            Self::PromiseRevision => "PromiseRevisionController",
            Self::PromiseRelease => "PromiseReleaseController",
            Self::ResourceBinding => "ResourceBindingController",
            Self::HealthRecord => "HealthRecordController",
        }
    }
}

/// Something that has happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The object it happened to.
    pub regarding: Target,
    /// Severity.
    pub type_: EventType,
    /// CamelCase reason; the event's action equals it.
    pub reason: &'static str,
    /// Text for people, cut to 1,024 bytes when it is published.
    pub note: String,
    /// Who says so.
    pub reporter: Reporter,
    /// What the write is aimed at that it tells of; `None` tells of the plan as a whole.
    pub of: Option<(Kind, ObjectKey)>,
}

impl Event {
    /// Returns an event of type Normal.
    pub fn normal(reporter: Reporter, regarding: Target, reason: &'static str, note: impl Into<String>) -> Self {
        Self { regarding, type_: EventType::Normal, reason, note: note.into(), reporter, of: None }
    }

    /// Returns an event of type Warning.
    pub fn warning(reporter: Reporter, regarding: Target, reason: &'static str, note: impl Into<String>) -> Self {
        Self { regarding, type_: EventType::Warning, reason, note: note.into(), reporter, of: None }
    }

    /// Returns the event as one that tells of `write`, if there is one: no later pass will ask for that again.
    #[must_use]
    pub fn of<'a>(self, write: impl Into<Option<&'a Write>>) -> Self {
        let address = write.into().map(Write::address);
        Self { of: address.map(|(kind, key)| (kind.clone(), key.clone())), ..self }
    }

    /// Returns whether the event tells of a write to what this one is aimed at.
    pub fn tells_of(&self, write: &Write) -> bool {
        self.of.as_ref().is_some_and(|(kind, key)| write.address() == (kind, key))
    }
}
