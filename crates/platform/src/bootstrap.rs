//! What a fresh platform holds before anybody asks for anything: CRDs, system namespace, state store, Destination.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::{hash, keys};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
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
/// The status code of an object that breaks a rule of its kind.
const UNPROCESSABLE: u16 = 422;
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
/// changed is only touched where this program wants another form than it wanted last time. A store or Destination that somebody
/// else has made stays as it is.
///
/// # Errors
/// The object that could not be prepared, and why.
pub(crate) async fn prepare(platform: &Client, repository: &Path) -> Result<(), Error> {
    for crd in kratix_api::crds() {
        let mut object = serde_json::to_value(&crd).expect("API values serialise to JSON");
        object.as_object_mut().map(|object| object.remove("status"));
        let prepared = Prepared::of("customresourcedefinitions", &object);
        prepared.leave_conversion(platform).await?;
        prepared.apply(platform).await?;
    }
    for crd in kratix_api::crds() {
        established(platform, crd).await?;
    }
    Prepared::of("namespaces", &namespace()).apply(platform).await?;
    // Test documents have no business in the repository of somebody whose store has this name.
    if Prepared::of("gitstatestores", &store(repository)).offer(platform).await? {
        Prepared::of("destinations", &destination()).offer(platform).await?;
    }
    Ok(())
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

/// An object in its wanted form.
struct Prepared<'a> {
    object: &'a Value,
    kind: &'a str,
    name: &'a str,
    resource: ApiResource,
    /// The hash of the form.
    wanted: String,
}

impl<'a> Prepared<'a> {
    fn of(plural: &str, object: &'a Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        Self { object, kind, name, resource, wanted: hash::text(&object.to_string()) }
    }

    fn api(&self, platform: &Client) -> Api<DynamicObject> {
        Api::all_with(platform.clone(), &self.resource)
    }

    fn failed(&self, source: kube::Error) -> Error {
        Error { object: format!("{} {}", self.kind, self.name), source: source.into() }
    }

    async fn present(&self, platform: &Client) -> Result<Option<DynamicObject>, Error> {
        self.api(platform).get_opt(self.name).await.map_err(|error| self.failed(error))
    }

    /// Brings an object to its wanted form, whoever has made it.
    async fn apply(&self, platform: &Client) -> Result<(), Error> {
        let present = self.present(platform).await?;
        self.align(platform, present.as_ref()).await.map_err(|error| self.failed(error))
    }

    /// Makes an object that is missing, and keeps one that was made here in its wanted form. Returns whether it is one of these;
    /// another one, and one that cannot have the form any more, is left to its owner.
    async fn offer(&self, platform: &Client) -> Result<bool, Error> {
        let present = self.present(platform).await?;
        let (kind, name) = (self.kind, self.name);
        if present.as_ref().is_some_and(|present| applied(present).is_none()) {
            tracing::warn!(
                kind,
                name,
                "was made by somebody else and stays as it is; what is prepared beside it is left out"
            );
            return Ok(false);
        }
        match self.align(platform, present.as_ref()).await {
            Ok(()) => Ok(true),
            Err(kube::Error::Api(refusal)) if present.is_some() && refusal.code == UNPROCESSABLE => {
                tracing::warn!(
                    kind,
                    name,
                    cause = refusal.message,
                    "cannot be brought to its prepared form and stays as it is"
                );
                Ok(false)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn align(&self, platform: &Client, present: Option<&DynamicObject>) -> kube::Result<()> {
        let api = self.api(platform);
        if present.is_some_and(|present| applied(present) == Some(self.wanted.as_str())) {
            return Ok(());
        }
        let mut object = self.object.clone();
        object["metadata"]["annotations"][APPLIED] = Value::from(self.wanted.as_str());
        if present.is_some() {
            let force = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(self.name, &force, &Patch::Apply(object)).await?;
        } else {
            let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
            api.create(&params, &object).await?;
        }
        Ok(())
    }

    /// Takes the conversion webhook of the original off a CRD: it has one version only, nobody would answer the webhook, and an
    /// apply leaves what it does not name.
    async fn leave_conversion(&self, platform: &Client) -> Result<(), Error> {
        let present = self.present(platform).await?;
        if present.is_none_or(|present| present.data.pointer("/spec/conversion/webhook").is_none_or(Value::is_null)) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({ "spec": { "conversion": { "strategy": "None", "webhook": null } } }));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.api(platform).patch(self.name, &params, &patch).await.map_err(|error| self.failed(error))?;
        Ok(())
    }
}

fn applied(present: &DynamicObject) -> Option<&str> {
    present.metadata.annotations.as_ref()?.get(APPLIED).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use embedded_apiserver::Server;

    use super::*;

    async fn server() -> Client {
        let server = Server::builder().build().await.unwrap();
        crate::hub::client(&server)
    }

    fn api(platform: &Client, prepared: &Prepared<'_>) -> Api<DynamicObject> {
        prepared.api(platform)
    }

    #[tokio::test]
    async fn what_others_have_made_under_prepared_names_stays_as_it_is() {
        let platform = server().await;
        let here = Path::new("/here.git");
        prepare(&platform, here).await.unwrap();
        let (store, destination) = (store(here), destination());
        let store = Prepared::of("gitstatestores", &store);
        let destination = Prepared::of("destinations", &destination);
        let (stores, destinations) = (api(&platform, &store), api(&platform, &destination));
        // What a user changes on a prepared object stays, and it is still the prepared one.
        let patch = Patch::Merge(json!({ "spec": { "branch": "other" } }));
        stores.patch(STORE, &PatchParams::default(), &patch).await.unwrap();
        prepare(&platform, here).await.unwrap();
        assert_eq!(stores.get(STORE).await.unwrap().data["spec"]["branch"], "other");
        // Another directory is another form.
        prepare(&platform, Path::new("/there.git")).await.unwrap();
        assert_eq!(stores.get(STORE).await.unwrap().data["spec"]["url"], "file:///there.git");

        // As `kubectl replace` does, or as a store that was there before.
        let mut replaced = stores.get(STORE).await.unwrap();
        replaced.metadata.annotations = None;
        replaced.data["spec"]["url"] = "https://git.example/state.git".into();
        stores.replace(STORE, &PostParams::default(), &replaced).await.unwrap();
        destinations.delete(WORKER, &kube::api::DeleteParams::default()).await.unwrap();
        let before = stores.get(STORE).await.unwrap();
        prepare(&platform, here).await.unwrap();
        assert_eq!(stores.get(STORE).await.unwrap(), before);
        assert!(
            destinations.get_opt(WORKER).await.unwrap().is_none(),
            "nothing is written to the store of somebody else"
        );

        // The path mode cannot be changed, which is no reason not to start.
        stores.delete(STORE, &kube::api::DeleteParams::default()).await.unwrap();
        let mut own = destination.object.clone();
        own["spec"]["filepath"]["mode"] = "none".into();
        let own: DynamicObject = serde_json::from_value(own).unwrap();
        destinations.create(&PostParams::default(), &own).await.unwrap();
        let before = destinations.get(WORKER).await.unwrap();
        prepare(&platform, here).await.unwrap();
        assert_eq!(destinations.get(WORKER).await.unwrap(), before);
        let outdated = Patch::Merge(json!({ "metadata": { "annotations": { APPLIED: "earlier" } } }));
        destinations.patch(WORKER, &PatchParams::default(), &outdated).await.unwrap();
        prepare(&platform, here).await.unwrap();
        assert_eq!(destinations.get(WORKER).await.unwrap().data["spec"]["filepath"]["mode"], "none");
    }

    // 01-api §1.1
    #[tokio::test]
    async fn the_conversion_webhook_of_the_original_is_taken_off_its_crd() {
        let platform = server().await;
        let crds = kratix_api::crds();
        let promises = crds.iter().find(|crd| crd.spec.names.kind == "Promise").unwrap();
        let mut original = serde_json::to_value(promises).unwrap();
        original["spec"]["conversion"] = json!({
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": { "service": {
                    "name": "kratix-platform-webhook-service", "namespace": keys::SYSTEM_NAMESPACE, "path": "/convert",
                }},
            },
        });
        let prepared = Prepared::of("customresourcedefinitions", &original);
        let crds = api(&platform, &prepared);
        crds.create(&PostParams::default(), &serde_json::from_value(original.clone()).unwrap()).await.unwrap();
        prepare(&platform, Path::new("/here.git")).await.unwrap();
        let conversion = crds.get(prepared.name).await.unwrap().data["spec"]["conversion"].clone();
        assert_eq!(conversion, json!({ "strategy": "None" }));
    }
}
