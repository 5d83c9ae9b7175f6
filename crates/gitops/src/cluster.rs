//! The requests to the cluster.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use base64::Engine;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;

use crate::document::{Document, ObjectId, Reach};
use crate::inventory::{Entry, Inventory};

/// How long a definition may take to be served.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(10);
/// How long a request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);

/// A cluster, and what is known of its kinds.
pub(crate) struct Cluster {
    client: Client,
    manager: String,
    kinds: HashMap<GroupVersionKind, (ApiResource, Scope)>,
}

/// Where the agent keeps what it must remember.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What the agent remembers of its last work.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) inventory: Inventory,
    /// The commit and tree that were applied completely; absent otherwise.
    pub(crate) tree: Option<String>,
    /// For people.
    pub(crate) report: Report,
}

/// What people see in the ConfigMap.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) source: String,
    pub(crate) commit: String,
    pub(crate) state: String,
    pub(crate) failed: String,
}

impl Cluster {
    pub(crate) fn new(client: Client, manager: String) -> Self {
        Self { client, manager, kinds: HashMap::new() }
    }

    /// Finds the resource of a kind.
    pub(crate) async fn kind(&mut self, kind: &GroupVersionKind) -> Result<(ApiResource, Scope), String> {
        let missing = || format!("kind {} of {} does not exist in the cluster", kind.kind, kind.api_version());
        self.served(kind).await?.ok_or_else(missing)
    }

    /// Finds the resource of a kind, `None` if the cluster has no such kind. A kind that was found is not asked for again.
    pub(crate) async fn served(&mut self, kind: &GroupVersionKind) -> Result<Option<(ApiResource, Scope)>, String> {
        if let Some(known) = self.kinds.get(kind) {
            return Ok(Some(known.clone()));
        }
        match within(kube::discovery::pinned_kind(&self.client, kind)).await {
            Ok((resource, capabilities)) => {
                self.kinds.insert(kind.clone(), (resource.clone(), capabilities.scope.clone()));
                Ok(Some((resource, capabilities.scope)))
            }
            Err(Trouble::Kube(error)) if is_unknown_kind(&error) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Finds a resource that shows the objects of a kind, also if the version by which they were applied is served no more.
    /// `None` if no version is: then there are no such objects. Asks anew, for what was known may not be so any more.
    pub(crate) async fn served_by_any_version(
        &mut self,
        kind: &GroupVersionKind,
    ) -> Result<Option<(ApiResource, Scope)>, String> {
        self.forget(kind);
        if let Some(same) = self.served(kind).await? {
            return Ok(Some(same));
        }
        match within(kube::discovery::group(&self.client, &kind.group)).await {
            Ok(group) => {
                let mut resources = group.resources_by_stability().into_iter();
                let found = resources.find(|(resource, _)| resource.kind == kind.kind);
                Ok(found.map(|(resource, capabilities)| (resource, capabilities.scope)))
            }
            // No such group. Any other answer, not found among them, may be that of a server whose kinds are changing.
            Err(Trouble::Kube(kube::Error::Discovery(_))) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Forgets all kinds: a definition is gone.
    pub(crate) fn forget_all(&mut self) {
        self.kinds.clear();
    }

    /// Forgets a kind, so that it is asked for again: its definition may have changed.
    pub(crate) fn forget(&mut self, kind: &GroupVersionKind) {
        self.kinds.remove(kind);
    }

    pub(crate) fn api(&self, id: &ObjectId, resource: &ApiResource, scope: &Scope) -> Api<DynamicObject> {
        match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => {
                let id = id.placed(Reach::Namespace);
                Api::namespaced_with(self.client.clone(), &id.namespace, resource)
            }
        }
    }

    pub(crate) fn manager(&self) -> &str {
        &self.manager
    }

    pub(crate) async fn wait_until_established(&self, name: &str) -> Result<(), String> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let established = await_condition(api, name, conditions::is_crd_established());
        match tokio::time::timeout(ESTABLISHED_WITHIN, established).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it is not established within {} s", ESTABLISHED_WITHIN.as_secs())),
        }
    }

    /// Reads what was remembered; nothing at the first start.
    pub(crate) async fn recall(&self, memory: &Memory) -> Result<Remembered, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &memory.namespace);
        let found = within(api.get_opt(&memory.name)).await.map_err(|error| error.to_string())?;
        let Some(found) = found else { return Ok(Remembered::default()) };
        let bytes = found.binary_data.as_ref().and_then(|data| data.get("inventory"));
        let inventory = bytes.map(|bytes| Inventory::decode(&bytes.0)).transpose();
        let inventory =
            inventory.map_err(|error| format!("ConfigMap {}/{}: {error}", memory.namespace, memory.name))?;
        let mut data = found.data.unwrap_or_default();
        let mut take = |key: &str| data.remove(key).unwrap_or_default();
        let tree = Some(take("tree")).filter(|tree| !tree.is_empty());
        let report =
            Report { source: take("source"), commit: take("commit"), state: take("state"), failed: take("failed") };
        Ok(Remembered { inventory: inventory.unwrap_or_default(), tree, report })
    }

    /// Stores what is to be remembered.
    pub(crate) async fn remember(&self, memory: &Memory, what: &Remembered) -> Result<(), String> {
        let inventory = what.inventory.encode().map_err(|error| error.to_string())?;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &memory.namespace);
        let object = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": memory.name, "labels": {"app.kubernetes.io/managed-by": self.manager}},
            "data": {
                "source": what.report.source,
                "commit": what.report.commit,
                "state": what.report.state,
                "objects": what.inventory.len().to_string(),
                "failed": what.report.failed,
                "tree": what.tree.as_deref().unwrap_or_default(),
            },
            "binaryData": {"inventory": base64::engine::general_purpose::STANDARD.encode(ByteString(inventory).0)},
        });
        let parameters = PatchParams::apply(&self.manager).force();
        let applied = within(api.patch(&memory.name, &parameters, &Patch::Apply(&object))).await;
        applied.map(drop).map_err(|error| format!("ConfigMap {}/{}: {error}", memory.namespace, memory.name))
    }

    /// Says on the ConfigMap what happened. Losing it is no failure: the ConfigMap says the same.
    pub(crate) async fn announce(&self, memory: &Memory, type_: EventType, reason: &str, note: &str) {
        let mut about = ConfigMap::default().object_ref(&());
        about.name = Some(memory.name.clone());
        about.namespace = Some(memory.namespace.clone());
        if let Err(error) = self.publish(&about, type_, reason, note).await {
            tracing::debug!(%error, reason, "event is lost");
        }
    }

    /// Says on an object why it is not as the repository wants it; on the ConfigMap where the object cannot have an event, for
    /// want of its namespace or of a valid name.
    pub(crate) async fn complain(&self, memory: &Memory, id: &ObjectId, uid: Option<String>, reason: &str, note: &str) {
        let kind = id.kind();
        let about = ObjectReference {
            api_version: Some(kind.api_version()),
            kind: Some(kind.kind),
            name: Some(id.name.clone()),
            namespace: Some(id.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid,
            ..ObjectReference::default()
        };
        if self.publish(&about, EventType::Warning, reason, note).await.is_err() {
            self.announce(memory, EventType::Warning, reason, note).await;
        }
    }

    async fn publish(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        note: &str,
    ) -> Result<(), Trouble> {
        let reporter = Reporter { controller: self.manager.clone(), instance: None };
        let note = note.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 1024).map(|(_, c)| c).collect();
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: reason.to_owned(), secondary: None };
        within(Recorder::new(self.client.clone(), reporter).publish(&event, about)).await
    }
}

/// Applies a document and returns the object's uid.
pub(crate) async fn apply(api: &Api<DynamicObject>, manager: &str, document: &Document) -> Result<String, String> {
    let parameters = PatchParams::apply(manager).force();
    let applied = within(api.patch(&document.id.name, &parameters, &Patch::Apply(&*document.content))).await;
    applied.map(|object| object.uid().unwrap_or_default()).map_err(|error| error.to_string())
}

/// What became of an object that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is removed, or not this agent's to remove.
    Done,
    /// The server does not find it, or not its kind: both are the same answer.
    NotFound,
}

/// Removes an object that this agent applied; what belongs to others stays, and so do the objects with the uids in `held`.
pub(crate) async fn remove(
    api: &Api<DynamicObject>,
    manager: &str,
    entry: &Entry,
    held: &HashSet<String>,
) -> Result<Removal, String> {
    let uid = match &entry.uid {
        Some(uid) => uid.clone(),
        None => {
            let found = within(api.get_opt(&entry.id.name)).await.map_err(|error| error.to_string())?;
            let Some(found) = found else { return Ok(Removal::NotFound) };
            let applied = |field: &_| {
                let field: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry = field;
                field.manager.as_deref() == Some(manager) && field.operation.as_deref() == Some("Apply")
            };
            if !found.managed_fields().iter().any(applied) {
                return Ok(Removal::Done);
            }
            found.uid().unwrap_or_default()
        }
    };
    if held.contains(&uid) {
        return Ok(Removal::Done);
    }
    let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
    let parameters = DeleteParams {
        preconditions,
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    match within(api.delete(&entry.id.name, &parameters)).await {
        Ok(_) => Ok(Removal::Done),
        Err(Trouble::Kube(kube::Error::Api(status))) if status.code == 404 => Ok(Removal::NotFound),
        // Another object of the same name.
        Err(Trouble::Kube(kube::Error::Api(status))) if status.code == 409 => Ok(Removal::Done),
        Err(error) => Err(error.to_string()),
    }
}

/// Tells whether the cluster's object still holds all that the document says.
pub(crate) async fn is_applied(api: &Api<DynamicObject>, document: &Document) -> Result<bool, String> {
    let found = within(api.get_opt(&document.id.name)).await.map_err(|error| error.to_string())?;
    let Some(found) = found else { return Ok(false) };
    let found = serde_json::to_value(found).map_err(|error| error.to_string())?;
    Ok(holds(&found, &document.content))
}

/// Tells whether `found` has every field of `wanted`. A value in other words counts as different; applying it again is harmless.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            let empty = wanted.is_null() || wanted.as_object().is_some_and(serde_json::Map::is_empty);
            found.get(key).map_or(empty, |found| holds(found, wanted))
        }),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() >= wanted.len() && wanted.iter().zip(found).all(|(wanted, found)| holds(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

fn is_unknown_kind(error: &kube::Error) -> bool {
    match error {
        kube::Error::Discovery(_) => true,
        kube::Error::Api(status) => status.code == 404,
        _ => false,
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{}", told(.0))]
    Kube(kube::Error),
    #[error("the cluster does not answer within {} s", REQUEST_WITHIN.as_secs())]
    Timeout,
}

/// The server's own message, if it gave one.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout(REQUEST_WITHIN, request).await {
        Ok(result) => result.map_err(Trouble::Kube),
        Err(_) => Err(Trouble::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_of_the_server_are_no_drift() {
        let wanted = json!({"spec": {"replicas": 2, "list": [{"name": "a"}], "empty": {}}});
        assert!(holds(&json!({"spec": {"replicas": 2, "list": [{"name": "a", "default": 1}], "x": 1}}), &wanted));
        assert!(!holds(&json!({"spec": {"replicas": 3, "list": [{"name": "a"}]}}), &wanted));
        assert!(!holds(&json!({"spec": {"replicas": 2, "list": []}}), &wanted));
        assert!(!holds(&json!({"spec": {"list": [{"name": "a"}]}}), &wanted));
    }
}
