//! Changing an object: the one path of updates, patches and applies.

use std::sync::Arc;

use embedded_apimachinery::resource::Part;
use embedded_apimachinery::{Status, apply, crd, field, meta};
use serde_json::{Value, json};

use super::create::{check_type, namespace_mismatch};
use crate::admission::Operation;
use crate::core::{Call, Core, Outcome, conflict, is_namespace, store_failure};
use crate::failure::Failure;
use crate::store::{ChangeKind, Expect, Record, Write, WriteError};
use crate::unserved;

/// Attempts of a write that does not say which version it is based on.
const ATTEMPTS_MAX: usize = 16;

/// How the new state comes from the old one.
pub(crate) trait Edit: Sync {
    /// Returns the new state, decoded but not defaulted.
    fn edit(&self, call: &mut Call, old: &Value) -> Result<Value, Failure>;

    /// Whether the edit itself settles `managedFields`, as apply does.
    fn owns_fields(&self) -> bool {
        false
    }

    /// Verb for the counters.
    fn verb(&self) -> &'static str;
}

/// A body that replaces the object.
struct Replace<'a> {
    body: &'a Value,
    duplicates: &'a [String],
}

impl Edit for Replace<'_> {
    fn edit(&self, call: &mut Call, old: &Value) -> Result<Value, Failure> {
        let served = call.served.clone();
        let mut object = served.decode(self.body.clone(), self.duplicates, call.validation, &mut call.warnings)?;
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        if call.served.namespaced && meta::namespace(&object).is_empty() {
            object["metadata"]["namespace"] = json!(call.namespace);
        }
        // A body that leaves managedFields out wants them kept; an explicit empty list resets them.
        if object["metadata"].get("managedFields").is_none_or(Value::is_null)
            && let Some(fields) = old["metadata"].get("managedFields")
        {
            object["metadata"]["managedFields"] = fields.clone();
        }
        Ok(object)
    }

    fn verb(&self) -> &'static str {
        "update"
    }
}

impl Core {
    /// Replaces an object.
    pub(crate) async fn update(&self, call: &mut Call, body: Value, duplicates: &[String]) -> Result<Outcome, Failure> {
        check_type(call, &body)?;
        let name = meta::name(&body);
        if name != call.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                call.name
            ))
            .into());
        }
        if body["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty() && call.served.is_custom() {
            self.get(call)?;
            let metadata = field::Path::Root.child("metadata");
            let missing =
                field::Error::invalid(&metadata.child("resourceVersion"), json!(0), "must be specified for an update");
            return Err(Status::invalid(call.served.qualified_kind(), &call.name, &[missing]).into());
        }
        self.edit(call, &Replace { body: &body, duplicates }).await
    }

    /// Changes an object by `edit`, again if it changed meanwhile and the edit is not tied to a version.
    pub(crate) async fn edit(&self, call: &mut Call, edit: &dyn Edit) -> Result<Outcome, Failure> {
        let warnings = call.warnings.clone();
        let _turn = if call.is_crd() { Some(self.crd_writes.lock().await) } else { None };
        for _ in 0..ATTEMPTS_MAX {
            call.warnings.clone_from(&warnings);
            match self.edit_once(call, edit).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(conflict(call))
    }

    /// One attempt; `None` asks for another.
    async fn edit_once(&self, call: &mut Call, edit: &dyn Edit) -> Result<Option<Outcome>, Failure> {
        let served = call.served.clone();
        let record = self.get(call)?;
        let old = self.read_to_change(&served, &record)?;
        let mut new = edit.edit(call, &old)?;
        check_preconditions(call, &record, &new)?;
        let part = part_of(call);
        served.default(&mut new);
        served.prepare_update(&mut new, &old, part);
        if !edit.owns_fields() {
            let api_version = served.api_version();
            apply::update(&served, Some(&old), &mut new, call.writer(&api_version));
        }
        if call.is_crd() {
            crd::establish(&mut new, &self.catalog.others(&call.name), call.now);
        }
        let mut mistakes = served.validate_update(&new, &old, part);
        if part == Part::Main {
            match self.admit(call, Operation::Update, &new, &old).await {
                Err(_) if !mistakes.is_empty() => {}
                Err(failure) => return Err(failure),
                Ok(None) => {}
                Ok(Some(admitted)) => {
                    new = admitted;
                    served.default(&mut new);
                    served.prepare_update(&mut new, &old, part);
                    mistakes = served.validate_update(&new, &old, part);
                }
            }
        }
        mistakes.extend(unserved::check(&served, &new, Some(&old), &mut call.warnings));
        if !mistakes.is_empty() {
            return Err(Status::invalid(served.qualified_kind(), &call.name, &mistakes).into());
        }
        self.check_grant(call, &new, Some(&old))?;
        call.warnings.extend(served.warnings(&new));
        let silent = apply::keep_times(&old, &mut new);
        let finished = is_finished(call, &new);
        if silent && !finished {
            return Ok(Some(Outcome::Stored { code: 200, record }));
        }
        if call.dry_run {
            return Ok(Some(Outcome::Value { code: 200, value: new }));
        }
        let expect = Expect::Revision(record.revision());
        let (table, name) = (served.table.clone(), call.object_name());
        let (draft, last, kind) = if finished {
            (None, Some(new), ChangeKind::Deleted)
        } else {
            (Some(self.draft(&served, new)?), None, ChangeKind::Updated)
        };
        match self.store.write(Write { table, name, expect, draft, homes: Vec::new() }).await {
            Ok(written) => {
                self.count(call, edit.verb());
                self.after_write(call, kind, &written, Some(&record)).await;
                Ok(Some(match last {
                    Some(value) => Outcome::Value { code: 200, value },
                    None => Outcome::Stored { code: 200, record: written },
                }))
            }
            // The next attempt finds out whether the edit was tied to the version that is gone.
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_failure(call, error)),
        }
    }
}

fn part_of(call: &Call) -> Part {
    match call.subresource.as_str() {
        "" => Part::Main,
        "status" => Part::Status,
        "binding" => Part::Binding,
        _ => Part::Other,
    }
}

/// Compares what the new state claims to be based on with what there is.
fn check_preconditions(call: &Call, record: &Arc<Record>, new: &Value) -> Result<(), Failure> {
    let name = meta::name(new);
    if !name.is_empty() && name != call.name {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({})", call.name);
        return Err(Status::bad_request(text).into());
    }
    if call.served.namespaced && meta::namespace(new) != call.namespace {
        return Err(namespace_mismatch());
    }
    let uid = new["metadata"]["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != record.uid() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", record.uid());
        return Err(Status::conflict(call.qualified(), &call.name, &why).into());
    }
    match new["metadata"]["resourceVersion"].as_str().unwrap_or_default() {
        "" | "0" => Ok(()),
        version if version == record.revision().to_string() => Ok(()),
        _ => Err(conflict(call)),
    }
}

/// Whether nothing holds a deleted object any longer.
fn is_finished(call: &Call, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    !metadata["deletionTimestamp"].is_null()
        && is_empty(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (!is_namespace(&call.served) || is_empty(&object["spec"]["finalizers"]))
}
