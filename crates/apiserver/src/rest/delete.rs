//! Deleting: at once, or by marking what finalizers, grace periods or dependents still hold.

use embedded_apimachinery::{Status, status};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Filter;
use crate::admission::Operation;
use crate::core::{Call, Core, Outcome, conflict, is_namespace, store_failure};
use crate::failure::Failure;
use crate::store::{ChangeKind, Expect, ObjectName, Record, Scope, Write, WriteError};

/// Keeps an owner until its blocking dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an owner until its dependents have let go of it.
pub(crate) const ORPHAN: &str = "orphan";
/// Keeps a CRD until its custom resources are gone.
pub(crate) const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

const ATTEMPTS_MAX: usize = 16;
/// Namespaces that every cluster has.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A decoded `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    uid: Option<String>,
    resource_version: Option<String>,
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Reads the body, or the query where there is none.
    pub(crate) fn parse(body: &Value, call: &Call) -> Result<Self, Failure> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let query = &call.query;
        let policy = text(&body["propagationPolicy"]).or_else(|| query.get("propagationPolicy").map(str::to_owned));
        let orphans = body["orphanDependents"]
            .as_bool()
            .or_else(|| query.get("orphanDependents").map(|_| query.flag("orphanDependents")));
        let propagation = match (policy.as_deref(), orphans) {
            (Some("Background"), _) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Orphan"), _) | (None, Some(true)) => Some(Propagation::Orphan),
            (None, None) => None,
            (Some(other), _) => {
                let path = embedded_apimachinery::field::Path::Root;
                let path = path.child("propagationPolicy");
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                let mistake = embedded_apimachinery::field::Error::not_supported(&path, other, &supported);
                let kind = embedded_apimachinery::Qualified::new("meta.k8s.io", "DeleteOptions");
                return Err(Status::invalid(kind, "", &[mistake]).into());
            }
        };
        let dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|one| one == "All"));
        Ok(Self {
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            grace_seconds: body["gracePeriodSeconds"]
                .as_i64()
                .or_else(|| query.get("gracePeriodSeconds").and_then(|text| text.parse().ok())),
            propagation,
            dry_run,
        })
    }

    pub(crate) fn background() -> Self {
        Self { propagation: Some(Propagation::Background), ..Self::default() }
    }

    pub(crate) fn foreground() -> Self {
        Self { propagation: Some(Propagation::Foreground), ..Self::default() }
    }

    /// Deletes this incarnation only.
    pub(crate) fn only(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }
}

impl Core {
    /// Deletes one object.
    pub(crate) async fn delete(&self, call: &mut Call, options: &DeleteOptions) -> Result<Outcome, Failure> {
        call.dry_run |= options.dry_run;
        if is_namespace(&call.served) && IMMORTAL.contains(&call.name.as_str()) {
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden(call.qualified(), &call.name, why).into());
        }
        let _turn = if call.is_crd() { Some(self.crd_writes.lock().await) } else { None };
        for _ in 0..ATTEMPTS_MAX {
            if let Some(outcome) = self.delete_once(call, options).await? {
                return Ok(outcome);
            }
        }
        Err(conflict(call))
    }

    /// One attempt; `None` asks for another because the object changed meanwhile.
    async fn delete_once(&self, call: &mut Call, options: &DeleteOptions) -> Result<Option<Outcome>, Failure> {
        let served = call.served.clone();
        let record = self.get(call)?;
        check_preconditions(call, &record, options)?;
        let old = self.read(&served, &record);
        self.admit(call, Operation::Delete, &Value::Null, &old).await?;
        let mut new = old.clone();
        let held = mark(call, &mut new, options);
        if held && new == old {
            // Somebody has asked before.
            return Ok(Some(Outcome::Stored { code: 200, record }));
        }
        if call.dry_run {
            let value = if held { new } else { success(call, &record) };
            return Ok(Some(Outcome::Value { code: 200, value }));
        }
        let draft = if held { Some(self.draft(&served, new)?) } else { None };
        let kind = if held { ChangeKind::Updated } else { ChangeKind::Deleted };
        let expect = Expect::Revision(record.revision());
        let (table, name) = (served.table.clone(), call.object_name());
        match self.store.write(Write { table, name, expect, draft, homes: Vec::new() }).await {
            Ok(written) => {
                self.count(call, "delete");
                self.after_write(call, kind, &written, Some(&record)).await;
                let record = written;
                // A pod answers with itself, everything else that is gone with a Status.
                let is_pod = served.group.is_empty() && served.plural == "pods";
                Ok(Some(if held || is_pod {
                    Outcome::Stored { code: 200, record }
                } else {
                    Outcome::Value { code: 200, value: success(call, &record) }
                }))
            }
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_failure(call, error)),
        }
    }

    /// Deletes every object of the collection that the filter lets through, and returns them as they were.
    pub(crate) async fn delete_collection(
        &self,
        call: &mut Call,
        options: &DeleteOptions,
        filter: &Filter,
    ) -> Result<Value, Failure> {
        let served = call.served.clone();
        let namespace = (!call.namespace.is_empty()).then(|| call.namespace.as_str().into());
        let scope = Scope { table: served.table.clone(), namespace };
        let keep = |record: &Record| filter.matches(self, &served, record);
        let page = self.store.list(&scope, None, None, None, keep).expect("the present is never compacted");
        let mut items = Vec::with_capacity(page.records.len());
        for record in page.records {
            let ObjectName { namespace, name } = record.name();
            let mut one = Call { namespace: namespace.to_string(), name: name.to_string(), ..call.clone() };
            match self.delete(&mut one, options).await {
                Ok(_) => items.push(self.read(&served, &record)),
                Err(failure) if failure.is_not_found() => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(json!({
            "kind": served.list_kind, "apiVersion": served.api_version(),
            "metadata": {"resourceVersion": self.store.revision().to_string()}, "items": items,
        }))
    }
}

fn check_preconditions(call: &Call, record: &Record, options: &DeleteOptions) -> Result<(), Failure> {
    let refuse = |what: &str, wanted: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Err(Status::conflict(call.qualified(), &call.name, &why).into())
    };
    match (&options.uid, &options.resource_version) {
        (Some(uid), _) if uid != record.uid() => refuse("UID", uid, record.uid()),
        (_, Some(version)) if *version != record.revision().to_string() => {
            refuse("ResourceVersion", version, &record.revision().to_string())
        }
        _ => Ok(()),
    }
}

fn success(call: &Call, record: &Record) -> Value {
    status::Status::deleted(call.qualified(), &call.name, record.uid())
}

/// Marks the object as deleted; returns whether something still holds it.
fn mark(call: &Call, object: &mut Value, options: &DeleteOptions) -> bool {
    let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let grace = grace_seconds(call, object, options);
    match options.propagation {
        Some(Propagation::Foreground) => add(&mut finalizers, FOREGROUND, ORPHAN),
        Some(Propagation::Orphan) => add(&mut finalizers, ORPHAN, FOREGROUND),
        Some(Propagation::Background) => finalizers.retain(|one| one != FOREGROUND && one != ORPHAN),
        None => {}
    }
    if call.is_crd() && object["metadata"]["deletionTimestamp"].is_null() {
        add(&mut finalizers, CRD_CLEANUP, "");
        terminating_crd(object, call.now);
    }
    let namespace_held = is_namespace(&call.served)
        && object["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
    let held = !finalizers.is_empty() || grace > 0 || namespace_held;
    if !held {
        return false;
    }
    if is_namespace(&call.served) {
        object["status"]["phase"] = json!("Terminating");
    }
    let metadata = object["metadata"].as_object_mut().expect("stored objects have metadata");
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), finalizers.into());
    }
    let shorter = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|old| grace < old);
    if !metadata.contains_key("deletionTimestamp") || shorter {
        let end = call.now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(call.now);
        if !metadata.contains_key("deletionTimestamp")
            && let Some(generation) = metadata.get("generation").and_then(Value::as_i64)
        {
            metadata.insert("generation".into(), json!(generation + 1));
        }
        metadata.insert("deletionTimestamp".into(), json!(seconds(end)));
        metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    }
    true
}

fn add(finalizers: &mut Vec<Value>, wanted: &str, replaced: &str) {
    finalizers.retain(|one| one != replaced);
    if !finalizers.iter().any(|one| one == wanted) {
        finalizers.push(json!(wanted));
    }
}

/// Returns how long the node may take to stop a pod; 0 for everything else and for pods that run nowhere.
fn grace_seconds(call: &Call, object: &Value, options: &DeleteOptions) -> i64 {
    if !(call.served.group.is_empty() && call.served.plural == "pods") {
        return 0;
    }
    let is_bound = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !is_bound || has_ended {
        return 0;
    }
    options.grace_seconds.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30).max(0)
}

fn terminating_crd(crd: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "Terminating", "status": "True", "lastTransitionTime": seconds(now),
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    });
    if let Some(conditions) = crd["status"]["conditions"].as_array_mut() {
        conditions.retain(|one| one["type"] != "Terminating");
        conditions.push(condition);
    }
}

/// Renders a time as `metav1.Time` does: UTC, whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
