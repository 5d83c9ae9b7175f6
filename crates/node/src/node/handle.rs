//! A running node, as its embedder holds it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Context;
use crate::cache::Key;
use crate::image;
use crate::log::{self, LogError, LogOptions};

/// Time beyond the containers' own for workers to put their things away.
const MARGIN: Duration = Duration::from_secs(5);

/// A running node. Clones are handles to the same node; dropping them all does not stop it, [`NodeHandle::shutdown`] does.
#[derive(Clone)]
pub struct NodeHandle {
    cx: Arc<Context>,
    recording: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl NodeHandle {
    pub(super) fn new(cx: Arc<Context>, recording: JoinHandle<()>) -> Self {
        Self { cx, recording: Arc::new(Mutex::new(Some(recording))) }
    }

    /// Stops taking pods, ends the processes of those that run, and returns when all of that is done.
    ///
    /// Pods are not told to have failed: a node that starts on the same data directory goes on with them, a container that was
    /// interrupted being treated like one that has failed.
    ///
    /// # Limits
    /// Containers have the builder's `stop_deadline` to end; then they are killed.
    pub async fn shutdown(&self) {
        self.cx.stopping.cancel();
        self.cx.tasks.close();
        if tokio::time::timeout(self.cx.stop_deadline + MARGIN, self.cx.tasks.wait()).await.is_err() {
            tracing::warn!("the node stops although not all of its work has come to an end");
        }
        let recording = self.recording.lock().take();
        if let Some(mut recording) = recording
            && tokio::time::timeout(MARGIN, &mut recording).await.is_err()
        {
            recording.abort();
        }
    }

    #[cfg(test)]
    pub(super) fn context(&self) -> &Context {
        &self.cx
    }

    /// Returns the node's images.
    pub fn images(&self) -> &image::Store {
        &self.cx.store
    }

    /// Opens the log of a container of a pod on this node.
    ///
    /// # Errors
    /// See [`LogError`]; its texts are made for the person who asked.
    pub fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: &LogOptions,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, LogError> {
        let key = Key { namespace: namespace.to_owned(), name: pod.to_owned() };
        let known = self.cx.pods.get(&key).ok_or_else(|| LogError::NoPod { name: pod.to_owned() })?;
        let container = container_of(&known, options.container.as_deref())?;
        let uid = known.metadata.uid.as_deref().unwrap_or_default();
        match log::stream(&self.cx.logs, uid, &container, options) {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) if options.previous => Err(LogError::NoPrevious { pod: pod.to_owned(), container }),
            Ok(None) => {
                Err(LogError::Waiting { reason: waiting_for(&known, &container), pod: pod.to_owned(), container })
            }
            Err(source) => Err(LogError::Io { container, source }),
        }
    }
}

/// Chooses the container whose log is meant.
fn container_of(pod: &Pod, wanted: Option<&str>) -> Result<String, LogError> {
    const DEFAULT: &str = "kubectl.kubernetes.io/default-container";
    let name = pod.metadata.name.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let main: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    let default = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT));
    let wanted = wanted.filter(|wanted| !wanted.is_empty()).or(default.map(String::as_str));
    match (wanted, main.as_slice()) {
        (Some(wanted), _) if main.contains(&wanted) || init.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => Err(LogError::NoContainer { pod: name, container: wanted.to_owned() }),
        (None, [only]) if init.is_empty() => Ok((*only).to_owned()),
        (None, _) => {
            let init = match init.as_slice() {
                [] => String::new(),
                init => format!(" or one of the init containers: [{}]", init.join(" ")),
            };
            Err(LogError::Unspecified { pod: name, containers: main.join(" "), init })
        }
    }
}

/// Returns why a container has no log yet.
fn waiting_for(pod: &Pod, container: &str) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let mut all =
        status.init_container_statuses.into_iter().flatten().chain(status.container_statuses.into_iter().flatten());
    let found = all.find(|status| status.name == container).and_then(|status| status.state?.waiting?.reason);
    let init = pod.spec.as_ref().is_some_and(|spec| spec.init_containers.is_some());
    found.unwrap_or_else(|| if init { "PodInitializing" } else { "ContainerCreating" }.into())
}
