//! Executes plans: the last of the three steps, and the only one that writes.

use std::collections::HashMap;

use kratix_api::keys;
use kratix_core::object::{Kind, ObjectKey};
use kratix_core::plan::{Plan, Write};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::error::Error;
use crate::events::Events;

/// Name under which the API server records our writes.
pub(crate) const FIELD_MANAGER: &str = "kratix";

/// What became of a plan.
pub(crate) struct Acted {
    /// What exists because of it and may not be in the caches yet. A creation whose reply was lost counts.
    pub(crate) made: Vec<(Kind, ObjectKey)>,
    /// The first write that failed, if one did.
    pub(crate) outcome: Result<(), Error>,
}

/// Executes the writes, the status and the events of `plan`, in this order.
///
/// # Guarantees
/// Stops at the first failure, so what was executed is always a prefix of the plan. A write that pins the version of an
/// object which an earlier write of the same plan changed is pinned to the version that write produced.
///
/// # Errors
/// The first write that the API server refused. Creating what exists and deleting what is gone are not failures.
pub(crate) async fn act<F>(platform: &Client, events: &Events, plan: &Plan<F>) -> Acted {
    let mut made = Vec::new();
    let outcome = carry_out(platform, plan, &mut made).await;
    if outcome.is_ok() {
        plan.events.iter().for_each(|event| events.publish(event));
    }
    Acted { made, outcome }
}

async fn carry_out<F>(platform: &Client, plan: &Plan<F>, made: &mut Vec<(Kind, ObjectKey)>) -> Result<(), Error> {
    let mut produced: HashMap<(Kind, ObjectKey), (String, String)> = HashMap::new();
    for write in plan.writes.iter().chain(&plan.status) {
        let address = write.address();
        let address = (address.0.clone(), address.1.clone());
        let result = match produced.get(&address) {
            Some(versions) => execute(platform, &repin(write, versions)).await,
            None => execute(platform, write).await,
        };
        if matches!(write, Write::Create { .. }) && result.as_ref().err().is_none_or(Error::may_have_happened) {
            made.push(address.clone());
        }
        let written = result?;
        let pinned = match write {
            Write::Patch { target, .. } | Write::PatchStatus { target, .. } => target.resource_version.clone(),
            Write::Create { .. } | Write::Delete { .. } => None,
        };
        if let (Some(before), Some(after)) = (pinned, written.and_then(|object| object.metadata.resource_version)) {
            let before = produced.get(&address).map_or(before, |(first, _)| first.clone());
            produced.insert(address, (before, after));
        }
    }
    Ok(())
}

fn repin(write: &Write, (before, after): &(String, String)) -> Write {
    let mut write = write.clone();
    if let Write::Patch { target, .. } | Write::PatchStatus { target, .. } = &mut write
        && target.resource_version.as_ref() == Some(before)
    {
        target.resource_version = Some(after.clone());
    }
    write
}

async fn execute(platform: &Client, write: &Write) -> Result<Option<DynamicObject>, Error> {
    let (kind, key) = write.address();
    let api = api(platform, kind, key.namespace.as_deref());
    tracing::debug!(kind = %kind.kind, object = %key, write = %summary(write), "write");
    let result = match write {
        Write::Create { object, .. } => match create(&api, object).await {
            Ok(Made::Ours(made)) => Ok(made.map(|made| *made)),
            Ok(Made::Foreign) => return Err(Error::Taken { target: format!("{} {key}", kind.kind) }),
            Err(error) => Err(error),
        },
        Write::Patch { target, patch } => {
            let patch = pinned(patch, target.uid.as_deref(), target.resource_version.as_deref());
            api.patch(&key.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Merge(patch)).await.map(Some)
        }
        Write::PatchStatus { target, patch } => {
            let patch = pinned(patch, target.uid.as_deref(), target.resource_version.as_deref());
            api.patch_status(&key.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Merge(patch)).await.map(Some)
        }
        Write::Delete { target } => {
            let preconditions = Preconditions { uid: target.uid.clone(), resource_version: None };
            match api.delete(&key.name, &DeleteParams::background().preconditions(preconditions)).await {
                Ok(_) => Ok(None),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        }
    };
    result.map_err(|source| Error::write(write, source))
}

/// What stands under the name of an object that was to be made.
enum Made {
    /// What was asked for, made now or by an earlier pass.
    Ours(Option<Box<DynamicObject>>),
    /// Something that does not carry the label of the Promise it was to be made for.
    Foreign,
}

async fn create(api: &Api<DynamicObject>, object: &Value) -> Result<Made, kube::Error> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let params = PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.into()) };
    match api.create(&params, &object).await {
        Ok(created) => Ok(Made::Ours(Some(Box::new(created)))),
        // Names are derived: what exists under this name was made by an earlier pass, or its creation is still on the
        // way to the cache. One that is about to vanish must be made again, which the conflict asks for.
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            match api.get_opt(name).await? {
                Some(existing) if existing.metadata.deletion_timestamp.is_none() => {
                    Ok(if is_foreign(&object, &existing) { Made::Foreign } else { Made::Ours(None) })
                }
                _ => Err(kube::Error::Api(status)),
            }
        }
        Err(error) => Err(error),
    }
}

/// Returns whether an object of the wanted name belongs to nobody or to another Promise. Accounts may be a user's own: a
/// pipeline can name one.
fn is_foreign(wanted: &DynamicObject, existing: &DynamicObject) -> bool {
    let promise = |object: &DynamicObject| object.labels().get(keys::PROMISE_NAME).cloned();
    let is_account = wanted.types.as_ref().is_some_and(|types| types.kind == "ServiceAccount");
    !is_account && promise(wanted).is_some() && promise(existing) != promise(wanted)
}

/// Returns the patch with the identity and version it was computed from, so that it conflicts with anything newer.
fn pinned(patch: &Value, uid: Option<&str>, resource_version: Option<&str>) -> Value {
    let mut patch = patch.clone();
    if let Some(members) = patch.as_object_mut() {
        let metadata = members.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(metadata) = metadata.as_object_mut() {
            if let Some(uid) = uid {
                metadata.insert("uid".into(), uid.into());
            }
            if let Some(resource_version) = resource_version {
                metadata.insert("resourceVersion".into(), resource_version.into());
            }
        }
    }
    patch
}

/// Returns the API of a resource known at run time.
pub(crate) fn api(platform: &Client, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = api_resource(kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(platform.clone(), namespace, &resource),
        None => Api::all_with(platform.clone(), &resource),
    }
}

/// Returns how kube addresses a resource.
pub(crate) fn api_resource(kind: &Kind) -> ApiResource {
    ApiResource {
        group: kind.group.clone(),
        version: kind.version.clone(),
        api_version: kind.api_version(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
    }
}

fn summary(write: &Write) -> String {
    match write {
        Write::Create { .. } => "create".into(),
        Write::Delete { .. } => "delete".into(),
        Write::Patch { patch, .. } => format!("patch {patch}"),
        Write::PatchStatus { patch, .. } => format!("status {patch}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kratix_core::object::Target;
    use serde_json::json;

    fn target(resource_version: &str) -> Target {
        Target {
            kind: Kind::new("", "v1", "ConfigMap", "configmaps"),
            key: ObjectKey::namespaced("default", "a"),
            uid: Some("u".into()),
            resource_version: Some(resource_version.into()),
        }
    }

    #[test]
    fn a_patch_carries_the_identity_and_version_it_was_computed_from() {
        let patch = pinned(&json!({"metadata": {"labels": {"a": "b"}}}), Some("u"), Some("7"));
        assert_eq!(patch, json!({"metadata": {"labels": {"a": "b"}, "uid": "u", "resourceVersion": "7"}}));
        assert_eq!(pinned(&json!({"status": {}}), None, None), json!({"status": {}, "metadata": {}}));
    }

    #[test]
    fn the_second_write_of_a_plan_is_pinned_to_what_the_first_produced() {
        let versions = ("7".to_owned(), "8".to_owned());
        let second = Write::Patch { target: target("7"), patch: json!({}) };
        assert_eq!(repin(&second, &versions), Write::Patch { target: target("8"), patch: json!({}) });
        let foreign = Write::Patch { target: target("5"), patch: json!({}) };
        assert_eq!(repin(&foreign, &versions), foreign);
    }
}
