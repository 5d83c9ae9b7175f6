//! The volumes of a pod while it lives: made before the first container, renewed where they hold tokens, and weighed.

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::wake::Wake;
use super::{RETRY, Worker};
use crate::event::Event;
use crate::node::Context;
use crate::volume::{Setup, Volumes, usage};

/// Reason of the event, and of the status of a pod that waits for its volumes.
const FAILED_MOUNT: &str = "FailedMount";
/// Directory below the pod's that holds its volumes.
const VOLUMES: &str = "volumes";
/// How often volumes are weighed while a container runs; a kubelet's value.
const WEIGH_INTERVAL: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// Makes the volumes if they are not there yet; `false` if that has to wait.
    pub(super) async fn prepare_volumes(&mut self, pod: &Pod, now: Timestamp) -> bool {
        if self.volumes.is_some() {
            return true;
        }
        match set_up_volumes(&self.cx, &self.directory(), pod).await {
            Ok(volumes) => {
                self.volumes = Some(volumes);
                self.volumes_retry = None;
                self.withdraw(FAILED_MOUNT);
                true
            }
            Err(message) => {
                let known = self.volumes_retry.as_ref().is_some_and(|(_, text)| *text == message);
                if !known {
                    self.cx.recorder.record(pod, None, Event::warning(FAILED_MOUNT, message.clone()));
                    self.record.note = Some((FAILED_MOUNT.into(), message.clone()));
                    self.changed();
                }
                self.volumes_retry = Some((now.saturating_add(RETRY).unwrap_or(now), message));
                false
            }
        }
    }

    /// Ends the pod if its volumes hold more than they may; `true` if so. Looked at after each container and while one runs.
    pub(super) async fn evict_if_overfull(&mut self, pod: &Arc<Pod>, now: Timestamp, wake: &mut Wake) -> bool {
        if self.volumes.is_none() {
            return false;
        }
        if self.weigh_at <= now {
            let (weighed, directory) = (pod.clone(), self.directory().join(VOLUMES));
            let excess = tokio::task::spawn_blocking(move || usage::excess(&weighed, &directory)).await;
            if let Ok(Some(message)) = excess {
                self.doom(pod, "Evicted", &message);
                return true;
            }
            self.weigh_at = now.saturating_add(WEIGH_INTERVAL).unwrap_or(now);
        }
        if !self.in_flight.is_empty() {
            wake.at(self.weigh_at);
        }
        false
    }

    /// Replaces tokens before they expire.
    pub(super) async fn renew_tokens(&mut self, pod: &Pod, now: Timestamp, wake: &mut Wake) {
        let Some(at) = self.volumes.as_ref().and_then(|volumes| volumes.renew_at) else { return };
        if at > now {
            wake.at(at);
            return;
        }
        match set_up_volumes(&self.cx, &self.directory(), pod).await {
            Ok(volumes) => self.volumes = Some(volumes),
            Err(error) => {
                tracing::warn!(pod = %self.key.name, error, "tokens could not be renewed");
                if let Some(volumes) = &mut self.volumes {
                    volumes.renew_at = now.saturating_add(RETRY).ok();
                }
            }
        }
        wake.maybe(self.volumes.as_ref().and_then(|volumes| volumes.renew_at));
    }
}

/// Makes or renews the volumes of a pod below `directory`.
async fn set_up_volumes(cx: &Context, directory: &Path, pod: &Pod) -> Result<Volumes, String> {
    let spec = pod.spec.as_ref();
    for (asked, what) in
        [(spec.and_then(|spec| spec.host_pid), "spec.hostPID"), (spec.and_then(|spec| spec.host_ipc), "spec.hostIPC")]
    {
        if asked == Some(true) {
            return Err(format!("{what} is refused by this node"));
        }
    }
    let directory = directory.join(VOLUMES);
    let setup =
        Setup { objects: &cx.objects, pod, place: &cx.place, directory: &directory, ca_pem: cx.ca_pem.as_deref() };
    setup.run().await.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        _ => error.to_string(),
    })
}
