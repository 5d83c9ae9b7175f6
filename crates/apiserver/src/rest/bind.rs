//! Assigning a pod to a node (`pods/binding`), once.

use embedded_apimachinery::{Qualified, Status, field, meta};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::update::Edit;
use crate::core::{Call, Core};
use crate::failure::Failure;
use crate::http::Reply;

/// The assignment, decoded.
struct Binding<'a> {
    body: &'a Value,
    node: &'a str,
}

impl Edit for Binding<'_> {
    fn edit(&self, call: &mut Call, old: &Value) -> Result<Value, Failure> {
        let refuse =
            |why: String| Failure::from(Status::conflict(Qualified::new("", "pods/binding"), &call.name, &why));
        if !old["metadata"]["deletionTimestamp"].is_null() {
            return Err(refuse(format!("pod {} is being deleted, cannot be assigned to a host", call.name)));
        }
        if let Some(node) = old["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
            return Err(refuse(format!("pod {} is already assigned to node {node:?}", call.name)));
        }
        if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(refuse(format!("pod {} has non-empty .spec.schedulingGates", call.name)));
        }
        let mut new = old.clone();
        // Whoever names an incarnation or a version means no other one.
        for precondition in ["uid", "resourceVersion"] {
            if let Some(wanted) = self.body["metadata"][precondition].as_str().filter(|wanted| !wanted.is_empty()) {
                new["metadata"][precondition] = json!(wanted);
            }
        }
        for map in ["annotations", "labels"] {
            for (key, value) in self.body["metadata"][map].as_object().into_iter().flatten() {
                new["metadata"][map][key] = value.clone();
            }
        }
        new["spec"]["nodeName"] = json!(self.node);
        schedule(&mut new["status"], call.now);
        Ok(new)
    }

    /// Binding owns nothing: nobody applies the fields it sets.
    fn owns_fields(&self) -> bool {
        true
    }

    fn verb(&self) -> &'static str {
        "create"
    }
}

/// Sets the condition `PodScheduled`.
fn schedule(status: &mut Value, now: Timestamp) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|one| one["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": super::seconds(now),
    }));
    status["conditions"] = conditions.into();
}

impl Core {
    /// Assigns a pod to the node that the body names.
    pub(crate) async fn bind(&self, call: &mut Call, body: &Value) -> Result<Reply, Failure> {
        check_kind(body, "v1", "Binding")?;
        let name = meta::name(body);
        if !name.is_empty() && name != call.name {
            return Err(Status::bad_request("name in URL does not match name in Binding object").into());
        }
        let path = field::Path::Root;
        let target = path.child("target");
        let mut mistakes = Vec::new();
        let kind = body["target"]["kind"].as_str().unwrap_or_default();
        if !matches!(kind, "" | "Node") {
            mistakes.push(field::Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
        }
        let node = body["target"]["name"].as_str().unwrap_or_default();
        if node.is_empty() {
            mistakes.push(field::Error::required(&target.child("name"), ""));
        }
        if !mistakes.is_empty() {
            return Err(Status::invalid(Qualified::new("", "Binding"), &call.name, &mistakes).into());
        }
        self.edit(call, &Binding { body, node }).await?;
        Ok(created())
    }
}

/// The answer to a subresource that does something and has nothing to show.
pub(crate) fn created() -> Reply {
    let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Reply::Value { code: 201, value }
}

/// Refuses a body of another kind than the subresource exchanges.
pub(crate) fn check_kind(body: &Value, api_version: &str, kind: &str) -> Result<(), Failure> {
    let text = |key: &str| body[key].as_str().unwrap_or_default();
    if text("kind") != kind || text("apiVersion") != api_version {
        let found = format!("{} of {:?}", text("kind"), text("apiVersion"));
        return Err(Status::bad_request(format!("the body is {found}, expected {kind} of {api_version:?}")).into());
    }
    Ok(())
}
