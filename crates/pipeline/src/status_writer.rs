//! `update-status`: tells the object how its pipeline went.
//!
//! Order of writes: the label that suspends, then the status. A crash between the two leaves an object that is held and
//! a container that is run again; the other way round the controller would see a suspended pipeline without label and
//! resume it at once.
//!
//! The manager writes the list of pipelines once it has made the Job, and may be away in between. What is to be held is put down in
//! that list, so the program waits for it: an attempt that fails would be spent on nothing that the pipeline has done.
//!
//! # Source
//! `02-workflows.md` §14.5, §19.33

use std::path::PathBuf;
use std::time::Duration;

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

/// How long the status writer waits for the manager, and how often it looks. The account of a pipeline may read its object, not
/// watch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Pause after the first look; each further one is twice as long.
    pub pause: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// All pauses together.
    pub wait_max: Duration,
}

impl Default for Patience {
    /// A restart of the manager takes less, also where it has to be scheduled anew.
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(1),
            pause_max: Duration::from_secs(15),
            wait_max: Duration::from_secs(5 * 60),
        }
    }
}

impl Patience {
    /// Returns the next pause, and what patience is left after it; nothing when none is left.
    fn next(self) -> Option<(Duration, Self)> {
        let pause = self.pause.min(self.wait_max);
        let rest = Self { pause: (self.pause * 2).min(self.pause_max), wait_max: self.wait_max - pause, ..self };
        (!pause.is_zero()).then_some((pause, rest))
    }
}

/// What the status writer needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The object.
    pub address: Address,
    /// Directory with `status.yaml` and `workflow-control.yaml`.
    pub metadata_dir: PathBuf,
    /// Which run it was.
    pub run: Run,
    /// How long the manager may be away.
    pub patience: Patience,
}

/// Merges what the pipeline left into the object's status, in one write, and returns what to print.
///
/// # Errors
/// [`Error`]; [`Error::Contended`] when the object changed every time, [`Error::Unprepared`] when the manager stays away.
pub async fn run(
    config: &Config,
    client: &Client,
    clock: impl Fn() -> Timestamp + Send + Sync,
) -> Result<Vec<String>, Error> {
    let incoming = match metadata::read(&config.metadata_dir.join("status.yaml"))? {
        Content::Missing => Map::new(),
        Content::Parsed(document) => status::check_incoming(document)?,
    };
    let control = control::read(&config.metadata_dir.join("workflow-control.yaml"))?;
    let mut patience = config.patience;
    for _ in 0..ATTEMPTS_MAX {
        let object = prepared(config, client, &control, &mut patience).await?;
        let is_prepared = status::is_prepared(&object, &control, &config.run);
        match attempt(config, client, object, incoming.clone(), &control, clock()).await {
            Ok(Some(lines)) => return Ok(lines),
            Ok(None) => {}
            Err(Error::Parent(cause)) if !is_prepared => {
                return Err(Error::Unprepared { cause, seconds: config.patience.wait_max.as_secs() });
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Contended { what: "update status".to_owned(), attempts: ATTEMPTS_MAX })
}

/// Reads the object, again and again until it is ready for what the pipeline asks for or the patience is at its end.
async fn prepared(
    config: &Config,
    client: &Client,
    control: &Control,
    patience: &mut Patience,
) -> Result<Value, Error> {
    loop {
        let object = config.address.get(client).await.map_err(Error::api("get existing object"))?;
        if status::is_prepared(&object, control, &config.run) {
            return Ok(object);
        }
        let Some((pause, rest)) = patience.next() else { return Ok(object) };
        tracing::debug!(?pause, "the manager has not written the list of pipelines yet");
        *patience = rest;
        tokio::time::sleep(pause).await;
    }
}

/// Tries once; nothing when the object changed between reading and writing.
async fn attempt(
    config: &Config,
    client: &Client,
    mut object: Value,
    incoming: Map<String, Value>,
    control: &Control,
    now: Timestamp,
) -> Result<Option<Vec<String>>, Error> {
    let address = &config.address;
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
