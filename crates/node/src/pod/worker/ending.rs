//! How containers, a pod and a worker end: asked first, killed when that takes too long, and nothing left behind.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::super::launch::Progress;
use super::wake::Wake;
use super::{Outcome, RETRY, WRITE_INTERVAL, Worker};
use crate::event::Event;
use crate::objects::CALL;

/// Kubernetes' default.
const GRACE_SECONDS: i64 = 30;

impl Worker {
    /// Asks a container to end; it is killed if it takes longer than the pod allows.
    pub(super) fn stop(&mut self, pod: &Pod, name: &str, now: Timestamp) {
        if self.stopping.contains_key(name) {
            return;
        }
        let deleting = pod.metadata.deletion_grace_period_seconds;
        let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let seconds = deleting.or(own).unwrap_or(GRACE_SECONDS).clamp(0, 86_400);
        let signal = if seconds == 0 { libc::SIGKILL } else { libc::SIGTERM };
        if let Some(container) = self.in_flight.get(name) {
            let _ = container.try_send(signal);
        }
        let kill_at = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        self.stopping.insert(name.to_owned(), kill_at);
        self.cx.recorder.record(
            pod,
            Some(format!("spec.containers{{{name}}}")),
            Event::routine("Killing", format!("Stopping container {name}")),
        );
    }

    pub(super) fn kill_overdue(&mut self, now: Timestamp, wake: &mut Wake) {
        for (name, at) in &mut self.stopping {
            if *at > now {
                wake.at(*at);
            } else if let Some(container) = self.in_flight.get(name) {
                let _ = container.try_send(libc::SIGKILL);
                // Once is enough, but a container that is only just being started would miss it.
                *at = now.saturating_add(WRITE_INTERVAL).unwrap_or(now);
                wake.at(*at);
            }
        }
    }

    /// Ends a pod that is being deleted; `true` once it is gone from the API server.
    pub(super) async fn terminate(&mut self, pod: &Pod, now: Timestamp, wake: &mut Wake) -> bool {
        let names: Vec<String> = self.in_flight.keys().cloned().collect();
        for name in &names {
            self.stop(pod, name, now);
        }
        self.permit = None;
        if !names.is_empty() {
            return false;
        }
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match tokio::time::timeout(CALL, api.delete(&self.key.name, &parameters)).await {
            Ok(Ok(answer)) => {
                // Finalizers of others may still hold the object; there is nothing left for us to do.
                match answer.left() {
                    Some(left)
                        if left.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty()) => {}
                    _ => self.cx.forget_pod(pod),
                }
                true
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                self.cx.forget_pod(pod);
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(pod = %self.key.name, error = %error, "a pod could not be removed");
                wake.at(now.saturating_add(RETRY).unwrap_or(now));
                false
            }
            Err(_) => {
                wake.at(now);
                false
            }
        }
    }

    /// The pod is over and everybody knows: its volumes go, its logs stay.
    pub(super) async fn conclude(self) -> Outcome {
        remove(self.directory()).await;
        Outcome::Done
    }

    /// The pod is gone: nothing of it may stay.
    pub(super) async fn clean_up(mut self) -> Outcome {
        for container in self.in_flight.values() {
            let _ = container.try_send(libc::SIGKILL);
        }
        let waiting = std::mem::take(&mut self.in_flight);
        let mut left = waiting.len();
        drop(waiting);
        while left > 0 {
            match self.reports.recv().await {
                Some(Progress::Started { .. }) => {}
                Some(_) => left -= 1,
                None => break,
            }
        }
        remove(self.directory()).await;
        let (logs, uid) = (self.cx.logs.clone(), self.uid.clone());
        let _ = tokio::task::spawn_blocking(move || logs.remove(&uid)).await;
        Outcome::Done
    }

    /// The node stops: containers get a moment to end, and the record keeps what is needed to go on later.
    pub(super) async fn shut_down(mut self) -> Outcome {
        for container in self.in_flight.values() {
            let _ = container.try_send(libc::SIGTERM);
        }
        let deadline = tokio::time::Instant::now() + self.cx.stop_deadline;
        let pod = self.cx.pods.get(&self.key).unwrap_or_default();
        while !self.in_flight.is_empty() {
            match tokio::time::timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(progress)) => self.observe(&pod, progress),
                _ => break, // dropping the channels kills what is left
            }
        }
        self.save();
        Outcome::Stopped
    }
}

pub(super) async fn remove(directory: PathBuf) {
    let removed = tokio::task::spawn_blocking(move || crate::image::remove_tree(&directory)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(error = %error, "a pod's directory could not be removed");
    }
}
