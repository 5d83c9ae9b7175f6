//! What a fresh platform holds before anybody asks for anything: CRDs, system namespace, state store, Destination.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{hash, keys};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Annotation with the hash of what was applied last, so that a restart with nothing new writes nothing.
const APPLIED: &str = "platform.kratix.io/applied";
const FIELD_MANAGER: &str = "kratix-up";
/// The name of the prepared state store.
pub const STORE: &str = "default";
/// The name of the prepared Destination, of its directory and of the worker's kubeconfig context.
pub const WORKER: &str = "worker-1";
/// How long a CRD may take until it is served.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Why the platform could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error("preparing {object} failed")]
pub struct Error {
    object: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// Brings everything that is prepared to its wanted form. Writes nothing when it has that form already; what a user
/// changed is only touched where this program wants another form than it wanted last time.
///
/// # Errors
/// The object that could not be prepared, and why.
pub(crate) async fn prepare(platform: &Client, repository: &Path) -> Result<(), Error> {
    for crd in kratix_api::crds() {
        let mut object = serde_json::to_value(&crd).expect("API values serialise to JSON");
        object.as_object_mut().map(|object| object.remove("status"));
        apply(platform, "customresourcedefinitions", &object).await?;
    }
    for crd in kratix_api::crds() {
        established(platform, crd).await?;
    }
    apply(platform, "namespaces", &namespace()).await?;
    apply(platform, "gitstatestores", &store(repository)).await?;
    apply(platform, "destinations", &destination()).await
}

async fn established(platform: &Client, crd: CustomResourceDefinition) -> Result<(), Error> {
    let name = crd.metadata.name.unwrap_or_default();
    let api: Api<CustomResourceDefinition> = Api::all(platform.clone());
    let wait = await_condition(api, &name, conditions::is_crd_established());
    let failed = |source| Error { object: format!("CustomResourceDefinition {name}"), source };
    match tokio::time::timeout(ESTABLISHED, wait).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(error.into())),
        Err(late) => Err(failed(late.into())),
    }
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": keys::SYSTEM_NAMESPACE}})
}

fn store(repository: &Path) -> Value {
    json!({
        "apiVersion": keys::API_VERSION,
        "kind": "GitStateStore",
        "metadata": {"name": STORE},
        "spec": {"url": format!("file://{}", repository.display()), "branch": "main"},
    })
}

fn destination() -> Value {
    json!({
        "apiVersion": keys::API_VERSION,
        "kind": "Destination",
        "metadata": {"name": WORKER, "labels": {"environment": "dev"}},
        "spec": {
            "path": WORKER,
            "stateStoreRef": {"kind": "GitStateStore", "name": STORE},
            "filepath": {"mode": "nestedByMetadata"},
        },
    })
}

async fn apply(platform: &Client, plural: &str, object: &Value) -> Result<(), Error> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let failed = |source: kube::Error| Error { object: format!("{kind} {name}"), source: source.into() };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = kube::api::ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(platform.clone(), &resource);
    let wanted = hash::text(&object.to_string());
    let mut object = object.clone();
    object["metadata"]["annotations"][APPLIED] = Value::from(wanted.as_str());
    match api.get_opt(name).await.map_err(failed)? {
        Some(present) => {
            let applied = present.metadata.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED));
            if applied != Some(&wanted) {
                let force = PatchParams::apply(FIELD_MANAGER).force();
                api.patch(name, &force, &Patch::Apply(object)).await.map_err(failed)?;
            }
        }
        None => {
            let object: DynamicObject =
                serde_json::from_value(object).map_err(kube::Error::SerdeError).map_err(failed)?;
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            api.create(&params, &object).await.map_err(failed)?;
        }
    }
    Ok(())
}
