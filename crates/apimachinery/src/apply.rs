//! Server-side apply and the ownership of fields.
//!
//! `metadata.managedFields` says who has set which field. An apply owns exactly the fields of its configuration: what it
//! no longer names and nobody else owns goes away, what somebody else owns with another value is a conflict. Every other
//! write owns what it changes.
//!
//! Reading order: `fields` (sets of paths), `compare` (which fields two objects differ in), `merge` (the new object),
//! `managers` (the entries).
//!
//! # Source
//! Kubernetes documentation, *Server-Side Apply*; behaviour of kube-apiserver 1.34.

mod compare;
mod fields;
mod managers;
mod merge;

use jiff::Timestamp;
use serde_json::{Map, Value};

use self::fields::{Set, Step};
use self::managers::{Manager, Managers, Operation};
use crate::resource::Resource;
use crate::status::{Cause, Status};

/// The manager that owns what an object held before anybody's ownership was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Where kubectl keeps what it applied from the client side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Who writes, and how the entry in `managedFields` will be labelled.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager` of the request, or what stands for it: the user agent up to the first `/`.
    pub manager: &'a str,
    /// apiVersion that the request was made in.
    pub api_version: &'a str,
    /// Subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// Time of the request.
    pub now: Timestamp,
}

impl Writer<'_> {
    fn manager(&self, operation: Operation) -> Manager {
        Manager {
            name: self.manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }
}

/// Merges `config` into `live` (`None`: create) and records what `writer` owns now.
///
/// Returns the merged object with new `metadata.managedFields`. Defaulting, validation and storing are the caller's:
/// after defaulting call [`keep_times`] to see whether anything changed.
///
/// # Errors
/// 400 for a config with managedFields or with elements that appear twice, 409 with causes `FieldManagerConflict`.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let schema = Some(&**resource.schema());
    if config["metadata"]["managedFields"].as_array().is_some_and(|entries| !entries.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(path) = compare::duplicate(schema, config) {
        let name = crate::meta::name(config);
        let text = format!("failed to create typed patch object ({name}; {}): {path}", writer.api_version);
        return Err(Status::bad_request(text));
    }
    let mut managers = live.map_or_else(Managers::default, Managers::of);
    let live = live.map_or_else(|| Value::Object(Map::new()), without_managed_fields);
    if managers.is_empty() {
        let before = Manager {
            name: BEFORE_FIRST_APPLY.to_owned(),
            operation: Operation::Update,
            api_version: writer.api_version.to_owned(),
            subresource: String::new(),
        };
        let owned = own(resource, "", compare::differences(schema, None, &live).added);
        managers.put(before, owned, Some(writer.now));
    }

    let config = &without_managed_fields(config);
    let me = writer.manager(Operation::Apply);
    let owned = own(resource, writer.subresource, compare::members(schema, config));
    let merged = merge::merge(schema, &live, config);
    let last = managers.put(me.clone(), owned, Some(writer.now));
    let mut wanted = managers.all();
    // What identifies the object is nobody's, and yet wanted.
    wanted.add(Step::Field("metadata".to_owned()), Set::leaf());
    let mut merged = merge::drop_abandoned(schema, merged, &last, &wanted);

    let differences = compare::differences(schema, Some(&live), &merged);
    let changed = own(resource, writer.subresource, differences.modified.union(&differences.added));
    let removed = own(resource, writer.subresource, differences.removed);
    let conflicts = managers.conflicts(&me, &changed);
    if !force && !conflicts.is_empty() && !is_own_earlier_work(resource, &writer, &live, &conflicts) {
        return Err(conflict(&conflicts));
    }
    for (manager, fields) in &conflicts {
        managers.take(manager, fields);
    }
    managers.forget(&me, &removed);
    managers.write(&mut merged);
    Ok(merged)
}

/// Records a create, update or patch in `new.metadata.managedFields`: fields that changed against `live` become
/// `writer`'s, removed fields are nobody's.
///
/// An object that carries a single empty entry asks to be forgotten: nobody owns anything of it afterwards. What a write
/// to a subresource says of managedFields counts for nothing.
pub fn update(resource: &Resource, live: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let schema = Some(&**resource.schema());
    let is_main = writer.subresource.is_empty();
    if is_main && managers::is_reset(new) {
        Managers::default().write(new);
        return;
    }
    // That managedFields differ matters to nobody: they are no field that somebody could own.
    let differences = compare::differences(schema, live, new);
    let stored = live.and_then(|live| live["metadata"]["managedFields"].as_array());
    let mut managers = if stored.is_some() && new["metadata"]["managedFields"].as_array() == stored {
        Managers::stored(take_managed_fields(new))
    } else if is_main {
        Managers::of(new)
    } else {
        Managers::default()
    };
    if managers.is_empty()
        && let Some(live) = live
    {
        managers = Managers::of(live);
        if managers.is_empty() {
            // Ownership of this object was given up; only an apply starts it anew.
            managers.write(new);
            return;
        }
    }
    let changed = own(resource, writer.subresource, differences.modified.union(&differences.added));
    let me = writer.manager(Operation::Update);
    for (manager, fields) in managers.conflicts(&me, &changed) {
        managers.take(&manager, &fields);
    }
    managers.forget_all(&differences.removed);
    if !changed.is_empty() {
        managers.add(me, &changed, writer.now);
        managers.cap();
    }
    managers.write(new);
}

/// Returns whether `new` equals `live` but for the times in managedFields (and resourceVersion): the write is a no-op
/// and must not get a new resourceVersion. The times of the live object are kept in `new` then.
pub fn keep_times(live: &Value, new: &mut Value) -> bool {
    let silent = is_equal_but_for_times(live, new);
    if silent && let Some(entries) = live["metadata"].get("managedFields") {
        new["metadata"]["managedFields"] = entries.clone();
    }
    silent
}

fn is_equal_but_for_times(one: &Value, other: &Value) -> bool {
    let (metadata, of_other) = (&one["metadata"], &other["metadata"]);
    is_equal_without(one, other, &["metadata"])
        && is_equal_without(metadata, of_other, &["resourceVersion", "managedFields"])
        && match (&metadata["managedFields"], &of_other["managedFields"]) {
            (Value::Array(entries), Value::Array(of_other)) => {
                let mut pairs = entries.iter().zip(of_other);
                entries.len() == of_other.len() && pairs.all(|(one, other)| is_equal_without(one, other, &["time"]))
            }
            (entries, of_other) => entries == of_other,
        }
}

/// Returns whether two values are equal but for some members.
fn is_equal_without(one: &Value, other: &Value, left_out: &[&str]) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return one == other };
    let kept = |key: &String| !left_out.contains(&key.as_str());
    one.keys().filter(|key| kept(key)).count() == other.keys().filter(|key| kept(key)).count()
        && one.iter().all(|(key, value)| !kept(key) || other.get(key) == Some(value))
}

/// Takes the entries out of an object, whose list is empty then.
fn take_managed_fields(object: &mut Value) -> Vec<Value> {
    let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    entries.map(std::mem::take).unwrap_or_default()
}

fn without_managed_fields(object: &Value) -> Value {
    let mut out = object.clone();
    if let Some(metadata) = out.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    out
}

/// Reduces `fields` to those that a write to `subresource` can own: never what identifies the object, and of an object
/// with a status subresource only the half that the request changes.
fn own(resource: &Resource, subresource: &str, mut fields: Set) -> Set {
    fields.strip_identity();
    if resource.subresource("status").is_some() {
        match subresource {
            "status" => {
                fields.drop_field("spec");
                if resource.is_custom() {
                    fields.drop_field("metadata");
                }
            }
            _ => fields.drop_field("status"),
        }
    }
    fields
}

/// Whether all that `kubectl apply --server-side` conflicts with was set by `kubectl apply` before, as the annotation
/// it leaves behind tells: moving from the one to the other is no conflict.
fn is_own_earlier_work(resource: &Resource, writer: &Writer<'_>, live: &Value, conflicts: &[(Manager, Set)]) -> bool {
    if writer.manager != "kubectl" {
        return false;
    }
    let Some(applied) = live["metadata"]["annotations"][LAST_APPLIED].as_str() else { return false };
    let Ok(applied) = serde_json::from_str::<Value>(applied) else { return false };
    let schema = Some(&**resource.schema());
    // What has another value now was set by somebody else since.
    let since = compare::differences(schema, Some(&applied), live);
    let own = compare::members(schema, &applied).difference(&since.modified).difference(&since.removed);
    conflicts.iter().all(|(_, fields)| fields.difference(&own).is_empty())
}

fn conflict(conflicts: &[(Manager, Set)]) -> Status {
    let mut causes = Vec::new();
    let mut texts = Vec::new();
    for (manager, fields) in conflicts {
        texts.push(format!("conflicts with {manager}:"));
        for path in fields.paths() {
            texts.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {manager}"),
                field: path,
            });
        }
    }
    let message = match causes.as_slice() {
        [only] => format!("Apply failed with 1 conflict: {}: {}", only.message, only.field),
        _ => format!("Apply failed with {} conflicts: {}", causes.len(), texts.join("\n")),
    };
    Status::apply_conflict(&causes, message)
}

#[cfg(test)]
mod tests;
