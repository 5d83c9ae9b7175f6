//! Executes plans: the last of the three steps, and the only one that writes.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kratix_core::object::{Kind, ObjectKey, Target};
use kratix_core::plan::{Event, Owner, Plan, Write};
use kratix_core::workflow::history;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams,
    Preconditions,
};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

use crate::caches::{self, Caches};
use crate::error::{Error, is_lost};
use crate::events::Events;

/// Name under which the API server records our writes.
pub(crate) const FIELD_MANAGER: &str = "kratix";

/// How long to wait for a version that is on its way to the cache.
const UNSEEN: Duration = Duration::from_millis(10);

/// How long to wait for Jobs that are on their way to the cache; looking again costs a list.
const UNSEEN_JOBS: Duration = Duration::from_millis(20);

/// What became of a plan.
pub(crate) struct Acted {
    /// What exists because of it, has a cache, and may not be in it yet. A creation whose reply was lost counts.
    pub(crate) made: Vec<(Kind, ObjectKey)>,
    /// The versions that it has replaced, which the caches may still show.
    pub(crate) replaced: Vec<((Kind, ObjectKey), String)>,
    /// The objects that it has altered, as they are now.
    pub(crate) altered: HashMap<(Kind, ObjectKey), DynamicObject>,
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
pub(crate) async fn act<F>(platform: &Client, caches: &Caches, events: &Events, plan: &Plan<F>) -> Acted {
    let mut acted = Acted { made: Vec::new(), replaced: Vec::new(), altered: HashMap::new(), outcome: Ok(()) };
    let mut done = Vec::new();
    acted.outcome = carry_out(platform, caches, plan, &mut acted, &mut done).await;
    // What a later pass finds done already it does not tell.
    let is_true = |event: &&Event| acted.outcome.is_ok() || done.iter().any(|write| event.tells_of(write));
    plan.events.iter().filter(is_true).for_each(|event| events.publish(event));
    acted
}

async fn carry_out<'p, F>(
    platform: &Client,
    caches: &Caches,
    plan: &'p Plan<F>,
    acted: &mut Acted,
    done: &mut Vec<&'p Write>,
) -> Result<(), Error> {
    let mut produced: HashMap<(Kind, ObjectKey), (String, String)> = HashMap::new();
    for write in plan.writes.iter().chain(&plan.status) {
        let address = write.address();
        let address = (address.0.clone(), address.1.clone());
        if let Write::Create { object, given, .. } = write {
            if let Some(target) = given {
                let after = produced.get(&(target.kind.clone(), target.key.clone())).map(|(_, after)| after.as_str());
                still(platform, target, after).await?;
            }
            if write.is_irrevocable() {
                all_are_seen(platform, caches, object).await?;
            }
        }
        let result = match produced.get(&address) {
            Some(versions) => execute(platform, &repin(write, versions)).await,
            None => execute(platform, write).await,
        };
        let arrives = match &result {
            Ok(done) => done.arrives,
            Err(error) => matches!(write, Write::Create { .. }) && error.may_have_happened(),
        };
        if arrives {
            acted.made.push(address.clone());
        }
        let written = result?.object;
        done.push(write);
        let pinned = match write {
            Write::Patch { target, .. } | Write::PatchStatus { target, .. } => target.resource_version.clone(),
            Write::Create { .. } | Write::Delete { .. } => None,
        };
        let (Some(before), Some(object)) = (pinned, written) else { continue };
        let Some(after) = object.metadata.resource_version.clone() else { continue };
        let (before, present) = match produced.remove(&address) {
            Some((first, last)) => (first, last),
            None => (before.clone(), before),
        };
        // A write that alters nothing replaces nothing.
        if present != after {
            acted.replaced.push((address.clone(), present));
        }
        produced.insert(address.clone(), (before, after));
        acted.altered.insert(address, object);
    }
    Ok(())
}

/// Fails unless an object is at the version that was observed, or that an earlier write of the plan has produced. Read live:
/// a cache that lags behind would start a workflow for an input which is no longer there, and only learn of it when the status
/// conflicts.
async fn still(platform: &Client, target: &Target, produced: Option<&str>) -> Result<(), Error> {
    let Some(expected) = produced.or(target.resource_version.as_deref()) else { return Ok(()) };
    let api = api(platform, &target.kind, target.key.namespace.as_deref());
    let found = api.get_metadata_opt(&target.key.name).await;
    let found = found.map_err(|source| Error::read(format!("{} {}", target.kind.kind, target.key), source))?;
    match found.and_then(|found| found.metadata.resource_version) {
        Some(found) if found == expected => Ok(()),
        _ => Err(Error::Unseen { after: UNSEEN }),
    }
}

/// Fails unless the cache shows all Jobs of the parent of `job` as they are. Read live: to a manager whose lists are from the
/// past a workflow that has run already looks like one that has not begun.
async fn all_are_seen(platform: &Client, caches: &Caches, job: &Value) -> Result<(), Error> {
    let job = ObjectMeta::deserialize(&job["metadata"])
        .map_err(|error| Error::read("the Job that is to be made", kube::Error::SerdeError(error)))?;
    let labels = job.labels.unwrap_or_default();
    let selector: Vec<String> =
        history::siblings(&labels).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let jobs = Api::<Job>::namespaced(platform.clone(), &job.namespace.unwrap_or_default());
    let listed = jobs.list_metadata(&ListParams::default().labels(&selector.join(","))).await;
    let listed = listed.map_err(|source| Error::read("the Jobs of a workflow", source))?;
    let is_seen = |job: &PartialObjectMeta<Job>| {
        let seen = caches.jobs.get(&ObjectKey::of(job));
        // One that another parent's selector finds and no cache holds is nobody's.
        !caches::selects("Job", job)
            || seen.is_some_and(|seen| seen.metadata.resource_version == job.metadata.resource_version)
    };
    match listed.iter().all(is_seen) {
        true => Ok(()),
        false => Err(Error::Unseen { after: UNSEEN_JOBS }),
    }
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

/// What a write has led to.
struct Done {
    /// The object after the write, where the API server has told it.
    object: Option<DynamicObject>,
    /// The object is on its way to a cache.
    arrives: bool,
}

async fn execute(platform: &Client, write: &Write) -> Result<Done, Error> {
    let (kind, key) = write.address();
    let api = api(platform, kind, key.namespace.as_deref());
    tracing::debug!(kind = %kind.kind, object = %key, write = %summary(write), "write");
    let result = match write {
        Write::Create { object, owner, .. } => {
            return match create(&api, object, owner).await {
                Ok(Some(done)) => Ok(done),
                Ok(None) => Err(Error::Taken { target: format!("{} {key}", kind.kind) }),
                Err(error) => Err(Error::write(write, error)),
            };
        }
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
    let object = result.map_err(|source| Error::write(write, source))?;
    Ok(Done { object, arrives: false })
}

/// Returns `None` if an object of that name exists that is not the owner's.
async fn create(api: &Api<DynamicObject>, object: &Value, owner: &Owner) -> Result<Option<Done>, kube::Error> {
    let object: DynamicObject = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    let params = PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.into()) };
    // No cache shows it, so it would be made, and refused, again and again.
    if *owner == Owner::User
        && let Ok(Some(existing)) = api.get_opt(object.metadata.name.as_deref().unwrap_or_default()).await
        && existing.metadata.deletion_timestamp.is_none()
    {
        return Ok(Some(Done { object: None, arrives: caches::holds(&object, &existing) }));
    }
    match api.create(&params, &object).await {
        Ok(created) => Ok(Some(Done { object: Some(created), arrives: true })),
        // Names are derived: what exists under this name was made by an earlier pass, or its creation is still on the
        // way to the cache. One that is about to vanish must be made again, which the conflict asks for.
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            match api.get_opt(name).await? {
                Some(existing) if existing.metadata.deletion_timestamp.is_none() => {
                    let arrives = caches::holds(&object, &existing);
                    Ok(owner.has(existing.labels()).then_some(Done { object: None, arrives }))
                }
                _ => Err(kube::Error::Api(status)),
            }
        }
        // What may exist all the same is looked for, so that it is known and told now: the next pass would find it made.
        Err(error) if is_lost(&error) => {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            match api.get_opt(name).await {
                Ok(Some(made)) if made.metadata.deletion_timestamp.is_none() && owner.has(made.labels()) => {
                    let arrives = caches::holds(&object, &made);
                    Ok(Some(Done { object: Some(made), arrives }))
                }
                _ => Err(error),
            }
        }
        Err(error) => Err(error),
    }
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
    use embedded_apiserver::{Server, User};
    use k8s_openapi::api::events::v1::Event as Published;
    use kratix_api::keys;
    use kratix_core::plan::Reporter;
    use serde_json::json;
    use tokio::task::JoinSet;

    use super::*;
    use crate::context::tests::context;

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

    #[tokio::test]
    async fn what_exists_counts_as_made_if_it_is_the_owners_and_is_waited_for_if_a_cache_will_show_it() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut tasks = JoinSet::new();
        let cx = context(platform.clone(), &mut tasks);
        let object = |name: &str, promise: Option<&str>| {
            let labels = promise.map(|promise| json!({ keys::PROMISE_NAME: promise }));
            json!({ "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": name, "namespace": "default", "labels": labels } })
        };
        let account = Kind::new("", "v1", "ServiceAccount", "serviceaccounts");
        let create = |object: Value| Write::create(account.clone(), object);
        for (name, promise) in [("users", None), ("ours", Some("p")), ("others", Some("q"))] {
            cx.execute(&Plan::<()>::from(create(object(name, promise)))).await.outcome.unwrap();
        }
        for (name, is_anybodys, is_taken, arrives) in [
            ("new", false, false, true),
            ("ours", false, false, true),
            ("users", false, true, false),
            ("others", false, true, false),
            ("users", true, false, false),
            ("others", true, false, true),
        ] {
            let write = create(object(name, Some("p")));
            let write = if is_anybodys { write.unless_present() } else { write };
            let acted = cx.execute(&Plan::<()>::from(write)).await;
            assert_eq!(matches!(acted.outcome, Err(Error::Taken { .. })), is_taken, "{name}");
            assert_eq!(!acted.made.is_empty(), arrives, "{name}");
        }
        server.shutdown().await;
    }

    #[tokio::test]
    async fn no_job_is_made_for_an_object_that_has_changed_meanwhile() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut tasks = JoinSet::new();
        let cx = context(platform.clone(), &mut tasks);
        let metadata = json!({ "name": "a", "namespace": "default" });
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
        let maps = api(&platform, &target("1").kind, Some("default"));
        let old = maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
        let patch = json!({ "data": { "key": "value" } });
        let new = maps.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        let container = json!({ "name": "c", "image": "i" });
        let pod = json!({ "spec": { "containers": [container], "restartPolicy": "Never" } });
        let job = json!({ "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "j", "namespace": "default" }, "spec": { "template": pod } });
        let create = Write::create(Kind::new("batch", "v1", "Job", "jobs"), job);
        for (seen, is_made) in [(old, false), (new, true)] {
            let target = Target { uid: seen.metadata.uid, ..target(&seen.metadata.resource_version.unwrap()) };
            let plan = Plan::<()>::from(create.clone().given(&target));
            let acted = cx.execute(&plan).await;
            assert_eq!(!acted.made.is_empty(), is_made);
            assert_eq!(matches!(acted.outcome, Err(Error::Unseen { .. })), !is_made);
        }
        server.shutdown().await;
    }

    #[tokio::test]
    async fn no_job_is_made_while_one_of_the_same_parent_is_unseen() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut tasks = JoinSet::new();
        let cx = context(platform.clone(), &mut tasks);
        let job = |name: &str, request: &str| {
            let labels = json!({ keys::PROMISE_NAME: "p", keys::WORKFLOW_TYPE: "resource", keys::RESOURCE_NAME: request,
                keys::MANAGED_BY: keys::MANAGED_BY_KRATIX });
            let pod = json!({ "containers": [{ "name": "c", "image": "i" }], "restartPolicy": "Never" });
            json!({ "apiVersion": "batch/v1", "kind": "Job",
                "metadata": { "name": name, "namespace": "default", "labels": labels },
                "spec": { "template": { "spec": pod } } })
        };
        let kind = Kind::new("batch", "v1", "Job", "jobs");
        let create = |name, request| Plan::<()>::from(Write::create(kind.clone(), job(name, request)));
        cx.caches.jobs.ready().await;
        // Nothing brings it into the cache any more.
        tasks.shutdown().await;
        let made = |acted: &Acted| acted.outcome.is_ok();
        assert!(made(&cx.execute(&create("first", "a")).await));
        let acted = cx.execute(&create("second", "a")).await;
        assert!(matches!(acted.outcome, Err(Error::Unseen { .. })) && acted.made.is_empty());
        assert!(made(&cx.execute(&create("other", "b")).await));
        server.shutdown().await;
    }

    #[tokio::test]
    async fn what_was_made_is_told_although_a_later_write_fails() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut tasks = JoinSet::new();
        let cx = context(platform.clone(), &mut tasks);
        let (events, publisher) = crate::events::channel(platform.clone(), "host");
        tasks.spawn(publisher.run());
        let map =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "default" } });
        let create = Write::create(target("1").kind, map);
        let conflicts = Write::Patch { target: target("1"), patch: json!({}) };
        let event = |reason| Event::normal(Reporter::Promise, target("1"), reason, "note");
        let plan = Plan::<()> {
            writes: vec![create.clone(), conflicts.clone()],
            events: vec![
                event("Made").of(&create),
                event("All"),
                event("Removed").of(&Write::Delete { target: Target { key: ObjectKey::cluster("b"), ..target("1") } }),
            ],
            ..Plan::silent()
        };
        let acted = act(&platform, &cx.caches, &events, &plan).await;
        assert!(acted.outcome.is_err());
        events.flush().await;
        let published = Api::<Published>::namespaced(platform, "default").list(&ListParams::default()).await.unwrap();
        let reasons: Vec<_> = published.iter().filter_map(|event| event.reason.as_deref()).collect();
        assert_eq!(reasons, ["Made"]);
        server.shutdown().await;
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
