//! What the API server is told of a pod, and when: saved first, then written, not more often than anybody can read.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;

use super::super::render;
use super::wake::Wake;
use super::{RETRY, WRITE_INTERVAL, Worker};
use crate::objects::CALL;

impl Worker {
    /// There is something to tell; `true` if it is saved as well.
    pub(super) fn changed(&mut self) -> bool {
        self.dirty = true;
        self.save()
    }

    /// Starts writing the status if something has changed and enough time has passed.
    pub(super) fn write_when_due(&mut self, pod: &Arc<Pod>, now: Timestamp, wake: &mut Wake) {
        if !self.dirty || self.writing.is_some() || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        if self.write_at > now {
            wake.at(self.write_at);
            return;
        }
        self.dirty = false;
        let status = render(pod, &self.record, self.finished, &self.cx.place, self.cx.restart_backoff, now);
        if pod.status.as_ref() == Some(&status) {
            wake.at(now);
            return;
        }
        let mut body = pod.as_ref().clone();
        body.status = Some(status);
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
        let name = self.key.name.clone();
        self.write_at = now.saturating_add(WRITE_INTERVAL).unwrap_or(now);
        self.writing = Some(Box::pin(async move {
            let parameters = PostParams::default();
            let write = api.replace_status(&name, &parameters, &body);
            match tokio::time::timeout(CALL, write).await {
                Ok(written) => written,
                Err(_) => Err(kube::Error::Service("no answer in time".into())),
            }
        }));
    }

    pub(super) async fn written(&mut self, written: kube::Result<Pod>) {
        let now = Timestamp::now();
        match written {
            Ok(pod) => self.cx.observe_pod(pod),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                // Somebody else has changed the pod: write again on top of that.
                self.dirty = true;
                self.write_at = now;
                let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &self.key.namespace);
                match tokio::time::timeout(CALL, api.get_opt(&self.key.name)).await {
                    Ok(Ok(Some(pod))) if pod.metadata.uid.as_deref() == Some(&self.uid) => self.cx.observe_pod(pod),
                    Ok(Ok(_)) => {
                        if let Some(pod) = self.cx.pods.get(&self.key) {
                            self.cx.forget_pod(&pod);
                        }
                    }
                    _ => self.write_at = now.saturating_add(RETRY).unwrap_or(now),
                }
            }
            Err(error) => {
                tracing::warn!(pod = %self.key.name, error = %error, "a pod's status could not be written");
                self.dirty = true;
                self.write_at = now.saturating_add(RETRY).unwrap_or(now);
            }
        }
    }
}
