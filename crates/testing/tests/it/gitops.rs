//! A GitOps agent on the clock of the run: what is in a directory of the repository is applied, what has left it is removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;

use crate::invariants::Observer;
use crate::world::collection;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(15);

/// Brings the API server to what the directory says, for as long as the task lives. What is refused is tried again.
pub(crate) async fn follow(client: Client, observer: Arc<Observer>, directory: &'static str) {
    let mut applied: BTreeMap<String, Value> = BTreeMap::new();
    loop {
        let files = observer.files.read().await;
        let within = files.iter().filter(|(path, _)| path.starts_with(&format!("{directory}/")));
        let wanted: BTreeMap<String, Value> =
            within.filter_map(|(path, text)| Some((path.clone(), document(text)?))).collect();
        for (path, object) in &wanted {
            if applied.get(path) != Some(object) && apply(&client, object).await.is_ok() {
                applied.insert(path.clone(), object.clone());
            }
        }
        let left: Vec<String> = applied.keys().filter(|path| !wanted.contains_key(*path)).cloned().collect();
        for path in left {
            if remove(&client, &applied[&path]).await.is_ok() {
                applied.remove(&path);
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Returns the object that a file holds, if it holds one.
fn document(text: &str) -> Option<Value> {
    let document: Value = serde_saphyr::from_str(text).ok()?;
    document["kind"].is_string().then_some(document)
}

fn api(client: &Client, object: &Value) -> (Api<kube::api::DynamicObject>, String) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let api = collection(client, text("/apiVersion"), text("/kind"), text("/metadata/namespace"));
    (api, text("/metadata/name").to_owned())
}

async fn apply(client: &Client, object: &Value) -> Result<(), kube::Error> {
    let (api, name) = api(client, object);
    api.patch(&name, &PatchParams::apply("gitops").force(), &Patch::Apply(object)).await.map(drop)
}

async fn remove(client: &Client, object: &Value) -> Result<(), kube::Error> {
    let (api, name) = api(client, object);
    match api.delete(&name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}
