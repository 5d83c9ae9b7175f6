//! Creating an object.

use std::sync::Arc;

use embedded_apimachinery::{Qualified, Status, apply, crd, meta};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::admission::Operation;
use crate::core::{CRDS, Call, Core, NAMESPACES, Outcome, is_namespace, store_failure};
use crate::failure::Failure;
use crate::store::{ChangeKind, Expect, ObjectName, Record, Write, WriteError};
use crate::unserved;

/// Draws for a free generated name before giving up.
const NAME_DRAWS_MAX: usize = 8;

impl Core {
    /// Creates an object from a decoded body; `duplicates` are the fields that occurred twice in it.
    pub(crate) async fn create(&self, call: &mut Call, body: Value, duplicates: &[String]) -> Result<Outcome, Failure> {
        let served = call.served.clone();
        check_type(call, &body)?;
        let mut object = served.decode(body, duplicates, call.validation, &mut call.warnings)?;
        if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            return Err(Failure::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        place(call, &mut object)?;
        self.check_homes(call)?;
        served.default(&mut object);
        let api_version = served.api_version();
        apply::update(&served, None, &mut object, call.writer(&api_version));
        self.create_prepared(call, object, "create").await
    }

    /// Creates an object whose managed fields are settled.
    pub(super) async fn create_prepared(
        &self,
        call: &mut Call,
        mut object: Value,
        verb: &str,
    ) -> Result<Outcome, Failure> {
        let served = call.served.clone();
        let base = meta::name(&object).is_empty().then(|| generate_base(&object)).flatten();
        let _turn = if call.is_crd() { Some(self.crd_writes.lock().await) } else { None };
        for _ in 0..NAME_DRAWS_MAX {
            if let Some(base) = &base {
                object["metadata"]["name"] = json!(meta::generate_name(base, &suffix(self.draw())));
            }
            call.name = meta::name(&object).to_owned();
            let mut new = object.clone();
            served.prepare_create(&mut new, &self.draw().to_string(), call.now);
            if call.is_crd() {
                crd::establish(&mut new, &self.catalog.others(&call.name), call.now);
            }
            let mut mistakes = served.validate_create(&new);
            match self.admit(call, Operation::Create, &new, &Value::Null).await {
                Err(_) if !mistakes.is_empty() => {
                    // The real server validates between mutating and validating webhooks, so its own verdict wins.
                    return Err(Status::invalid(served.qualified_kind(), &call.name, &mistakes).into());
                }
                Err(failure) => return Err(failure),
                Ok(None) => {}
                Ok(Some(admitted)) => {
                    new = admitted;
                    served.default(&mut new);
                    mistakes = served.validate_create(&new);
                }
            }
            mistakes.extend(unserved::check(&served, &new, None, &mut call.warnings));
            if !mistakes.is_empty() {
                return Err(Status::invalid(served.qualified_kind(), &call.name, &mistakes).into());
            }
            self.check_grant(call, &new, None)?;
            let name = call.object_name();
            if call.dry_run {
                if self.store.get(&served.table, &name).is_some() {
                    return Err(store_failure(call, WriteError::Exists(name)));
                }
                call.warnings.extend(served.warnings(&new));
                return Ok(Outcome::Value { code: 201, value: new });
            }
            let warnings = served.warnings(&new);
            let draft = Some(self.draft(&served, new)?);
            let homes = homes(call);
            let write = Write { table: served.table.clone(), name, expect: Expect::Absent, draft, homes };
            match self.store.write(write).await {
                Ok(record) => {
                    call.warnings.extend(warnings);
                    self.count(call, verb);
                    self.after_write(call, ChangeKind::Created, &record, None).await;
                    return Ok(Outcome::Stored { code: 201, record });
                }
                Err(WriteError::Exists(_)) if base.is_some() => {}
                Err(WriteError::Homeless(home)) => {
                    // It was there before admission; this says what has become of it.
                    self.check_homes(call)?;
                    return Err(Status::unavailable(format!("{home} has changed, try again")).retry_after(1).into());
                }
                Err(error) => return Err(store_failure(call, error)),
            }
        }
        Err(Status::generate_name_conflict(served.qualified(), &call.name).into())
    }

    /// Refuses creations where the namespace or the definition of the kind does not exist or is on its way out.
    ///
    /// The store checks the same again at the write; this comes before admission and has the better texts.
    pub(super) fn check_homes(&self, call: &Call) -> Result<(), Failure> {
        for (table, name) in homes(call) {
            let home = self.store.get(&table, &name);
            let exists = home.is_some();
            if home.is_some_and(|home| !home.is_deleting()) {
                continue;
            }
            return Err(match (&*table, exists) {
                (CRDS, true) => {
                    let mut refused = Failure::from(Status::method_not_supported(call.qualified(), "create"));
                    let why = "create not allowed while custom resource definition is terminating";
                    refused.body["message"] = json!(why);
                    refused
                }
                (CRDS, false) => Status::no_such_resource().into(),
                (_, true) => terminating(call),
                (_, false) => Status::not_found(Qualified::new("", "namespaces"), &call.namespace).into(),
            });
        }
        Ok(())
    }

    /// Does what a write brings with it: the catalog follows CRDs, namespaces get their furniture, owners are looked at.
    pub(super) async fn after_write(
        &self,
        call: &Call,
        kind: ChangeKind,
        record: &Arc<Record>,
        previous: Option<&Record>,
    ) {
        if call.is_crd() {
            match kind {
                ChangeKind::Deleted => self.catalog.remove(&call.name),
                _ => self.catalog.install([record.value()]),
            }
        }
        if is_namespace(&call.served) && kind == ChangeKind::Created {
            self.furnish(&call.name).await;
        }
        self.chores.notice(&call.served, kind, record, previous);
    }

    /// Gives a namespace what every namespace has.
    pub(crate) async fn furnish(&self, namespace: &str) {
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace},
        });
        let root = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "kube-root-ca.crt", "namespace": namespace,
                "annotations": {"kubernetes.io/description": ROOT_CA_DESCRIPTION},
            },
            "data": {"ca.crt": self.ca_pem},
        });
        futures::join!(self.ensure("serviceaccounts", account), self.ensure("configmaps", root));
    }

    /// Creates an object of core/v1 on the server's own behalf unless it exists.
    async fn ensure(&self, plural: &str, object: Value) {
        let Some(served) = self.catalog.snapshot().find("", "v1", plural).cloned() else { return };
        let name = ObjectName::new(meta::namespace(&object), meta::name(&object));
        if self.store.get(&served.table, &name).is_some() {
            return;
        }
        let mut call = Call::internal("system:kube-controller-manager", served, &name, self.now());
        // Boxed: creating a namespace leads here, and creations refer to themselves.
        let created = Box::pin(self.create(&mut call, object, &[])).await;
        if let Err(failure) = created
            && failure.body["reason"] != "AlreadyExists"
        {
            tracing::warn!(%name, resource = plural, error = failure.message(), "cannot furnish namespace");
        }
    }
}

const ROOT_CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
    internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// Returns what a new object lives in: its namespace, and the CRD of its kind.
fn homes(call: &Call) -> Vec<(Arc<str>, ObjectName)> {
    let served = &call.served;
    let crd = || (CRDS.into(), ObjectName::new("", format!("{}.{}", served.plural, served.group)));
    let namespace = || (NAMESPACES.into(), ObjectName::new("", call.namespace.as_str()));
    served.namespaced.then(namespace).into_iter().chain(served.is_custom().then(crd)).collect()
}

fn terminating(call: &Call) -> Failure {
    let why = format!("unable to create new content in namespace {} because it is being terminated", call.namespace);
    let refused = Failure::from(Status::forbidden(call.qualified(), &call.name, &why));
    let cause = format!("namespace {} is being terminated", call.namespace);
    refused.cause("NamespaceTerminating", &cause, "metadata.namespace")
}

/// Refuses bodies of another kind or version than the URL names.
pub(super) fn check_type(call: &Call, body: &Value) -> Result<(), Failure> {
    let expected = call.served.api_version();
    let (found, kind) = (body["apiVersion"].as_str().unwrap_or_default(), body["kind"].as_str().unwrap_or_default());
    if kind.is_empty() {
        let text = serde_json::to_string(body).unwrap_or_default();
        return Err(Status::bad_request(format!("Object 'Kind' is missing in '{text}'")).into());
    }
    if found.is_empty() {
        let text = serde_json::to_string(body).unwrap_or_default();
        return Err(Status::bad_request(format!("Object 'apiVersion' is missing in '{text}'")).into());
    }
    if found != expected {
        return Err(Status::wrong_version(found, &expected).into());
    }
    if kind != call.served.kind {
        let (group, version) = (&call.served.group, &call.served.version);
        let text = format!(
            "{kind} in version {version:?} cannot be handled as a {}: no kind {kind:?} is registered for version \
             {found:?}",
            call.served.kind
        );
        let text = if group.is_empty() { text } else { text.replace("no kind", "converting: no kind") };
        return Err(Status::bad_request(text).into());
    }
    Ok(())
}

/// Puts the object where the URL says, and finds its name.
fn place(call: &mut Call, object: &mut Value) -> Result<(), Failure> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    if call.served.namespaced {
        let found = meta::namespace(object);
        if !found.is_empty() && found != call.namespace {
            return Err(namespace_mismatch());
        }
        object["metadata"]["namespace"] = json!(call.namespace);
    } else if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("namespace");
    }
    call.name = meta::name(object).to_owned();
    Ok(())
}

pub(super) fn namespace_mismatch() -> Failure {
    Status::bad_request("the namespace of the provided object does not match the namespace sent on the request").into()
}

fn generate_base(object: &Value) -> Option<String> {
    object["metadata"]["generateName"].as_str().filter(|base| !base.is_empty()).map(str::to_owned)
}

fn suffix(random: Uuid) -> String {
    let letters = random.as_bytes()[..5].iter();
    letters.map(|byte| char::from(meta::SUFFIX_ALPHABET[*byte as usize % meta::SUFFIX_ALPHABET.len()])).collect()
}
