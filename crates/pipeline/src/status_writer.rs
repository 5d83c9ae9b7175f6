//! `update-status`: tells the object how its pipeline went.
//!
//! Order of writes: the label that suspends, then the status. A crash between the two leaves an object that is held and
//! a container that is run again; the other way round the controller would see a suspended pipeline without label and
//! resume it at once.
//!
//! # Source
//! `02-workflows.md` §14.5, §19.33

use std::path::PathBuf;

use kratix_api::{Timestamp, keys};
use kube::Client;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::control::{self, Control};
use crate::metadata::{self, Content};
use crate::object::{Address, merge_patch};
use crate::status::{self, Run};

/// The controller writes the same status, once or twice per pipeline; more conflicts mean that something is wrong.
const ATTEMPTS_MAX: usize = 10;

/// What the status writer needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The object.
    pub address: Address,
    /// Directory with `status.yaml` and `workflow-control.yaml`.
    pub metadata_dir: PathBuf,
    /// Which run it was.
    pub run: Run,
}

/// Merges what the pipeline left into the object's status, in one write, and returns what to print.
///
/// # Errors
/// [`Error`]; [`Error::Contended`] when the object changed every time.
pub async fn run(config: &Config, client: &Client, now: Timestamp) -> Result<Vec<String>, Error> {
    let incoming = match metadata::read(&config.metadata_dir.join("status.yaml"))? {
        Content::Missing => Map::new(),
        Content::Parsed(document) => status::check_incoming(document)?,
    };
    let control = control::read(&config.metadata_dir.join("workflow-control.yaml"))?;
    for _ in 0..ATTEMPTS_MAX {
        if let Some(lines) = attempt(config, client, incoming.clone(), &control, now).await? {
            return Ok(lines);
        }
    }
    Err(Error::Contended { what: "update status".to_owned(), attempts: ATTEMPTS_MAX })
}

/// Tries once; nothing when the object changed between reading and writing.
async fn attempt(
    config: &Config,
    client: &Client,
    incoming: Map<String, Value>,
    control: &Control,
    now: Timestamp,
) -> Result<Option<Vec<String>>, Error> {
    let address = &config.address;
    let mut object = address.get(client).await.map_err(Error::api("get existing object"))?;
    let outcome = status::decide(&object, incoming, control, &config.run, now)?;
    if outcome.suspends && !is_suspended(&object) {
        let label = json!({"metadata": {"labels": {keys::WORKFLOW_SUSPENDED: keys::TRUE}}});
        let labelled = address.patch(client, &label).await.map_err(Error::api("update object labels"))?;
        // The status below is about the version before the label; only that write may lie between.
        let same_status = labelled.get("status") == object.get("status");
        let same_generation = labelled.pointer("/metadata/generation") == object.pointer("/metadata/generation");
        if !same_status || !same_generation {
            return Ok(None);
        }
        object = labelled;
    }
    let empty = json!({});
    let Some(patch) = merge_patch(object.get("status").unwrap_or(&empty), &outcome.status) else {
        return Ok(Some(outcome.warnings));
    };
    let version = object.pointer("/metadata/resourceVersion");
    let patch = json!({"metadata": {"resourceVersion": version}, "status": patch});
    match address.patch_status(client, &patch).await {
        Ok(_) => Ok(Some(outcome.warnings)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(Error::api("update status")(error)),
    }
}

fn is_suspended(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get(keys::WORKFLOW_SUSPENDED)).is_some_and(|value| value == keys::TRUE)
}
