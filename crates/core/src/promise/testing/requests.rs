//! Requests, their controller, and the API server that answers when they are told to run.

use kratix_api::keys;
use serde_json::{Value, json};

use super::{World, shown};
use crate::object::ObjectKey;
use crate::promise::{Call, Decision, Refusal, Request};

impl World {
    /// Changes a request, as its controller does.
    pub(crate) fn change_request(&mut self, name: &str, patch: Value) {
        self.patch("Redis", &ObjectKey::namespaced("default", name), &patch);
    }

    /// Says how the workflow of a request stands, and takes away the label that told it to run.
    pub(crate) fn request_stands(&mut self, name: &str, status: &str, reason: &str) {
        let told = json!([{ "type": "ConfigureWorkflowCompleted", "status": status, "reason": reason }]);
        let labels = json!({ keys::RUN_FROM_START: null });
        self.change_request(name, json!({ "metadata": { "labels": labels }, "status": { "conditions": told } }));
    }

    /// Returns the names of the requests that carry the label that tells them to run.
    pub(crate) fn told_requests(&self) -> Vec<String> {
        let requests = self.objects.iter().filter(|((kind, _), _)| kind == "Redis");
        let told = requests.filter(|(_, request)| request["metadata"]["labels"][keys::RUN_FROM_START] == keys::TRUE);
        told.map(|((_, key), _)| key.name.clone()).collect()
    }

    /// Lets every request that is told to run succeed, until no more are told.
    pub(crate) fn run_requests(&mut self) {
        loop {
            self.settle();
            let told = self.told_requests();
            if told.is_empty() {
                return;
            }
            told.iter().for_each(|name| self.request_stands(name, "True", "PipelinesExecutedSuccessfully"));
        }
    }

    pub(super) fn request_of(&self, request: &kube_core::DynamicObject) -> Request {
        let request = Request::of(request);
        let at = self.refuses.get(&request.name).copied().flatten();
        let refusal = at.map(|at| Refusal { at, cause: format!("patch of Redis {} failed: no", request.name) });
        Request { refusal, ..request }
    }

    /// Tells requests to run; each stands for itself.
    pub(super) fn call(&mut self, decision: &Decision) {
        let mut is_told = false;
        for Call { request, write, .. } in &decision.calls {
            match self.refuses.get_mut(&request.name) {
                Some(at) => *at = Some(self.now),
                None => is_told |= self.execute(write).is_ok(),
            }
        }
        let announcement = decision.announcement.iter().filter(|_| is_told);
        self.events.extend(announcement.map(shown));
    }
}
