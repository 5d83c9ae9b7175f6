//! The revision that keeps the present version of a Promise.
//!
//! # Source
//! `03-promises.md` §6, §25 (19, 28, 29); `01-api.md` §5.8

use kratix_api::{Promise, PromiseRevision, hash, keys, name};
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use super::{Fault, Snapshot, Walk, interval};
use crate::object::{Kind, Target};
use crate::patch::{between, to_value};
use crate::plan::Write;

/// Where the revision of the present version stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being written, or not marked as the latest yet.
    Settling,
    /// It is being deleted, so there is no latest one.
    Leaving,
    /// It says what the Promise says and is the latest.
    Latest,
}

/// Bytes of the Promise's name that a name with a long suffix keeps: 63 less the suffix and its dash.
const LONG_PREFIX_BYTES: usize = 46;
const LONG_SUFFIX_DIGITS: usize = 16;

/// Returns the names that a revision of the Promise's present version may have: the usual one, the one used when that is
/// taken, and the one given by early versions.
pub fn candidate_names(promise: &Promise) -> [String; 3] {
    let (own, version) = (promise.name_any(), promise.version());
    [name::promise_revision(&own, version), long_name(&own, version), name::legacy_promise_revision(&own, version)]
}

/// Five digits can be equal for two versions; sixteen that also cover the Promise's name are not.
fn long_name(promise: &str, version: &str) -> String {
    let mut end = promise.len().min(LONG_PREFIX_BYTES);
    while !promise.is_char_boundary(end) {
        end -= 1;
    }
    let digest = hash::text(&format!("{promise}\n{version}"));
    format!("{}-{}", name::shorten(&promise[..end]), &digest[..LONG_SUFFIX_DIGITS])
}

/// Creates or updates the revision of the present version.
pub(super) fn keep(walk: &mut Walk<'_>) -> State {
    let snapshot = walk.snapshot;
    let [usual, long, legacy] = candidate_names(&snapshot.promise);
    let is_legacy = |revision: &PromiseRevision| revision.name_any() == legacy && legacy != usual;
    for revision in snapshot.revisions.iter().filter(|revision| is_legacy(revision) && is_ours(snapshot, revision)) {
        retire(walk, revision);
    }
    let kept = snapshot.revisions.iter().find(|revision| is_ours(snapshot, revision) && !is_legacy(revision));
    if let Some(revision) = kept {
        // A deleted one is made again when it is gone; its deletion brings the Promise back. Until then requests go by it.
        if revision.metadata.deletion_timestamp.is_some() {
            walk.writes.extend(mend(snapshot));
            return State::Leaving;
        }
        let Some(patch) = patch(snapshot, revision) else {
            return if revision.is_latest() { State::Latest } else { State::Settling };
        };
        walk.writes.push(Write::Patch { target: Target::of(&**revision), patch });
        // A revision of the same version stays the latest while its spec changes, but whoever acts on it must wait.
        return State::Settling;
    }
    let is_taken = |name: &String| snapshot.revisions.iter().any(|revision| revision.name_any() == *name);
    let Some(free) = [usual, long.clone()].into_iter().find(|name| !is_taken(name)) else {
        walk.fault(Fault::revision_conflict(&long));
        return State::Settling;
    };
    let write = Write::create(Kind::of::<PromiseRevision>(), object(snapshot, &free));
    walk.events.push(snapshot.normal("RevisionCreated", format!("Revision {free} created")).of(&write));
    walk.writes.push(write);
    State::Settling
}

/// Returns the write that brings to an existing revision of the present version what the Promise says now, where it or the Promise is
/// being deleted: the delete workflow of requests is that of their revision, and whoever has mended it expects it to run.
pub(super) fn mend(snapshot: &Snapshot) -> Option<Write> {
    let revision = snapshot.revisions.iter().find(|revision| is_ours(snapshot, revision))?;
    let change = spec_change(snapshot, revision)?;
    Some(Write::Patch { target: Target::of(&**revision), patch: json!({ "spec": change }) })
}

/// Returns whether a revision is of this Promise at its present version.
fn is_ours(snapshot: &Snapshot, revision: &PromiseRevision) -> bool {
    revision.spec.promise_ref.name == snapshot.name() && revision.spec.version == snapshot.promise.version()
}

/// Replaces a revision named by the old scheme: requests on it must survive.
fn retire(walk: &mut Walk<'_>, revision: &PromiseRevision) {
    if revision.metadata.deletion_timestamp.is_some() {
        return;
    }
    let target = Target::of(revision).unpinned();
    let patch = json!({ "metadata": {
        "annotations": { keys::SKIP_RESOURCE_REQUEST_CLEANUP_ON_DELETE: keys::TRUE },
        "labels": { keys::LATEST_REVISION: null },
    }});
    walk.writes.push(Write::Patch { target: target.clone(), patch });
    walk.writes.push(Write::Delete { target });
}

fn owner(snapshot: &Snapshot) -> Value {
    json!([{
        "apiVersion": keys::API_VERSION, "kind": Promise::KIND, "name": snapshot.name(),
        "uid": snapshot.promise.uid().unwrap_or_default(), "controller": true, "blockOwnerDeletion": true,
    }])
}

/// What happens to the interval annotation of the revision.
enum Annotation<'a> {
    Keep,
    Remove,
    Set(&'a str),
}

fn annotation(snapshot: &Snapshot) -> Annotation<'_> {
    // The annotation of a released Promise would be overwritten by the release, so users set the revision's.
    if snapshot.promise.labels().contains_key(keys::PROMISE_RELEASE_NAME) {
        return Annotation::Keep;
    }
    match snapshot.promise.annotations().get(keys::RECONCILIATION_INTERVAL) {
        Some(text) if interval::in_annotation(text).is_some() => Annotation::Set(text),
        _ => Annotation::Remove,
    }
}

fn spec(snapshot: &Snapshot) -> Value {
    json!({
        "promiseRef": { "name": snapshot.name() },
        "promiseSpec": to_value(&snapshot.promise.spec),
        "version": snapshot.promise.version(),
    })
}

fn object(snapshot: &Snapshot, name: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": { keys::PROMISE_NAME: snapshot.name(), keys::LATEST_REVISION: keys::TRUE },
        "finalizers": [keys::FINALIZER_RESOURCE_REQUEST_CLEANUP],
        "ownerReferences": owner(snapshot),
    });
    if let Annotation::Set(interval) = annotation(snapshot) {
        metadata["annotations"] = json!({ keys::RECONCILIATION_INTERVAL: interval });
    }
    json!({
        "apiVersion": keys::API_VERSION, "kind": PromiseRevision::KIND, "metadata": metadata, "spec": spec(snapshot),
    })
}

/// Returns what the revision lacks to say what the Promise says.
fn patch(snapshot: &Snapshot, revision: &PromiseRevision) -> Option<Value> {
    let mut metadata = Map::new();
    let mut labels = Map::new();
    for (key, value) in [(keys::PROMISE_NAME, snapshot.name()), (keys::LATEST_REVISION, keys::TRUE)] {
        if revision.labels().get(key).is_none_or(|label| label != value) {
            labels.insert(key.to_owned(), value.into());
        }
    }
    if !labels.is_empty() {
        metadata.insert("labels".to_owned(), labels.into());
    }
    let uid = snapshot.promise.uid();
    let is_owned = revision
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == uid.as_ref());
    if !is_owned {
        metadata.insert("ownerReferences".to_owned(), owner(snapshot));
    }
    let present = revision.annotations().get(keys::RECONCILIATION_INTERVAL).map(String::as_str);
    let annotation = match annotation(snapshot) {
        Annotation::Set(interval) if present != Some(interval) => Some(Value::from(interval)),
        Annotation::Remove if present.is_some() => Some(Value::Null),
        _ => None,
    };
    if let Some(annotation) = annotation {
        metadata.insert("annotations".to_owned(), json!({ keys::RECONCILIATION_INTERVAL: annotation }));
    }
    let mut patch = Map::new();
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    patch.extend(spec_change(snapshot, revision).map(|change| ("spec".to_owned(), change)));
    (!patch.is_empty()).then(|| patch.into())
}

fn spec_change(snapshot: &Snapshot, revision: &PromiseRevision) -> Option<Value> {
    between(&without_nulls(&to_value(&revision.spec)), &without_nulls(&spec(snapshot)))
}

/// Drops null members, which a merge patch cannot write and which the API server keeps or drops as it likes.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
