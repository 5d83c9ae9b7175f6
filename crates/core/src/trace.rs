//! Traces: to which trace a pass belongs, and how an object hands it on.
//!
//! An object remembers its trace in four annotations. A pass over the object either goes on with that trace or begins a new
//! one; the annotations are part of the first thing that the pass writes, and a pass that writes nothing leaves them alone.
//!
//! Along the chain from a request to its placements each object is given the trace of the pass that made or changed it,
//! together with the generation that it has then: so its first pass continues the trace instead of taking it for a stale one.
//!
//! # Source
//! `06-operations.md` §10.4, §10.5, weaknesses 22, 31; `05-scheduling-and-writing.md` §5.5, §12

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kratix_api::{ObjectMeta, keys};
use kube_core::Resource;
use serde_json::{Map, Value, json};

use crate::object::Target;
use crate::plan::{Plan, Write};

mod subject;

pub use self::subject::{Attribute, Subject};

/// The annotations that hold a trace.
pub const KEYS: [&str; 4] = [keys::TRACE_PARENT, keys::TRACE_STATE, keys::TRACE_TIMESTAMP, keys::TRACE_GENERATION];

/// Age at which a trace is over: what happens to an object a day later is another story.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// A span as others see it: the content of a W3C `traceparent` and `tracestate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// Trace; never zero.
    pub trace_id: u128,
    /// Span; never zero.
    pub span_id: u64,
    /// Bit 0: the span is recorded.
    pub flags: u8,
    /// `tracestate`, or empty.
    pub state: String,
}

impl SpanContext {
    /// Reads a `traceparent`; `None` if it is not a valid one.
    pub fn parse(parent: &str, state: &str) -> Option<Self> {
        let mut parts = parent.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next()?;
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (part.len() == digits && is_hex).then_some(part)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // Later versions may append parts; version 0 is complete.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace_id, span_id, flags, state: state.to_owned() })
    }

    /// Returns the span that an object's annotations name.
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotations = metadata.annotations.as_ref()?;
        let state = annotations.get(keys::TRACE_STATE).map_or("", String::as_str);
        Self::parse(annotations.get(keys::TRACE_PARENT)?, state)
    }

    /// Returns the trace as 32 hex digits, as logs name it.
    pub fn trace(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// The `traceparent`.
impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Where the trace of a pass begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// With this pass.
    Root,
    /// With an earlier pass, of this object or of the one that made it.
    Child(SpanContext),
}

impl Origin {
    /// Decides for a pass over an object.
    pub fn of(metadata: &ObjectMeta, now: Timestamp) -> Self {
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty());
        let is_recent = annotation(keys::TRACE_TIMESTAMP)
            .is_none_or(|text| text.parse().is_ok_and(|began: Timestamp| now.duration_since(began) <= AGE_MAX));
        let is_about_present = annotation(keys::TRACE_GENERATION)
            .is_none_or(|text| text.parse().is_ok_and(|generation: i64| Some(generation) == metadata.generation));
        match SpanContext::of(metadata) {
            Some(context) if is_recent && is_about_present => Self::Child(context),
            _ => Self::Root,
        }
    }
}

/// What a pass changes in the annotations of its object; `None` removes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<&'static str, Option<String>>);

impl Changes {
    /// Returns what the object has yet to say about the trace of a pass whose span is `span`.
    pub fn of(metadata: &ObjectMeta, origin: &Origin, span: &SpanContext, now: Timestamp) -> Self {
        let generation = metadata.generation.filter(|generation| *generation > 0).map(|number| number.to_string());
        let mut wanted =
            BTreeMap::from([(keys::TRACE_TIMESTAMP, Some(now.to_string())), (keys::TRACE_GENERATION, generation)]);
        let found = |key: &str| metadata.annotations.as_ref()?.get(key);
        match origin {
            Origin::Root => {
                wanted.insert(keys::TRACE_PARENT, Some(span.to_string()));
                wanted.insert(keys::TRACE_STATE, Some(span.state.clone()).filter(|state| !state.is_empty()));
            }
            // Only what is missing.
            Origin::Child(_) => wanted.retain(|key, _| found(key).is_none_or(String::is_empty)),
        }
        wanted.retain(|key, value| found(key) != value.as_ref());
        Self(wanted)
    }

    /// Returns whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the changes.
    pub fn apply(&self, metadata: &mut ObjectMeta) {
        let annotations = metadata.annotations.get_or_insert_default();
        for (key, value) in &self.0 {
            match value {
                Some(value) => annotations.insert((*key).to_owned(), value.clone()),
                None => annotations.remove(*key),
            };
        }
    }

    /// Makes the changes part of a write of the plan that patches the same object anyway. Returns whether there is one.
    pub fn fold<F>(&self, target: &Target, plan: &mut Plan<F>) -> bool {
        let own = plan.writes.iter_mut().find_map(|write| match write {
            Write::Patch { target: other, patch } if (&other.kind, &other.key) == (&target.kind, &target.key) => {
                patch.as_object_mut()
            }
            _ => None,
        });
        let Some(patch) = own else { return false };
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        let annotations = metadata.as_object_mut().map(|metadata| metadata.entry("annotations").or_insert(json!({})));
        match annotations.and_then(Value::as_object_mut) {
            Some(annotations) => annotations.extend(self.members()),
            None => return false,
        }
        true
    }

    /// Puts the changes at the beginning of the plan. The write is pinned to the version that the pass has seen, so that a
    /// status that follows it in the same plan is pinned to the version it makes.
    pub fn prepend<F>(&self, target: &Target, plan: &mut Plan<F>) {
        let write = Write::metadata(target.clone(), &json!({ "annotations": self.members() }));
        plan.writes.splice(0..0, write.filter(|_| !self.is_empty()));
    }

    fn members(&self) -> Map<String, Value> {
        self.0.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
    }
}

/// Replaces the trace in an object's annotations by the span of the pass, so that what the pass makes from them is part of it.
pub fn hand_on(metadata: &mut ObjectMeta, span: &SpanContext) {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(keys::TRACE_PARENT.to_owned(), span.to_string());
    if span.state.is_empty() {
        annotations.remove(keys::TRACE_STATE);
    } else {
        annotations.insert(keys::TRACE_STATE.to_owned(), span.state.clone());
    }
}

/// Returns the trace annotations of an object that is made or changed from `parent`, and that has `generation` then.
///
/// # Guarantees
/// A generation is stated if the trace is valid: the next pass over the object continues it, once.
pub fn handed_over(parent: &ObjectMeta, generation: Option<i64>) -> BTreeMap<String, String> {
    let given = parent.annotations.iter().flatten();
    let mut trace: BTreeMap<String, String> = given
        .filter(|(key, value)| KEYS.contains(&key.as_str()) && !value.is_empty())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    trace.remove(keys::TRACE_GENERATION);
    if let Some(generation) = generation.filter(|_| SpanContext::of(parent).is_some()) {
        trace.insert(keys::TRACE_GENERATION.to_owned(), generation.to_string());
    }
    trace
}

/// Returns whether an object is part of a trace already.
pub fn has_any(metadata: &ObjectMeta) -> bool {
    let annotations = metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(keys::TRACE_PARENT)).is_some_and(|parent| !parent.is_empty())
}

/// Returns the write that gives the trace of a parent that is being deleted to a child without one, before that is deleted.
pub fn last_words(parent: &ObjectMeta, child: Target, generation: Option<i64>) -> Option<Write> {
    let trace = handed_over(parent, generation);
    has_any(parent).then(|| Write::metadata(child.unpinned(), &json!({ "annotations": trace })))?
}

/// As [`last_words`], to at most `max` objects that are not being deleted yet and have no trace.
pub fn last_words_to<K>(parent: &ObjectMeta, children: &[Arc<K>], max: usize) -> Vec<Write>
where
    K: Resource<DynamicType = ()>,
{
    let left = children.iter().filter(|child| child.meta().deletion_timestamp.is_none() && !has_any(child.meta()));
    let words = left.take(max).map(|child| last_words(parent, Target::of(&**child), child.meta().generation));
    words.flatten().collect()
}

#[cfg(test)]
mod tests;
