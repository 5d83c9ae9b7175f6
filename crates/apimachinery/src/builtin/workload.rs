//! Deployments and their kin: stored, defaulted and checked, but run by nobody here.

use serde_json::{Value, json};

use super::{pod, pod_rules};
use crate::field::{Error, Path};
use crate::object::{child, fill, fill_text, items, text};
use crate::resource::Part;
use crate::selector::Labels;

pub(super) fn default_deployment(object: &mut Value) {
    let spec = child(object, "spec");
    fill(spec, "replicas", 1);
    fill(spec, "progressDeadlineSeconds", 600);
    fill(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "strategy");
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        fill(rolling, "maxSurge", "25%");
        fill(rolling, "maxUnavailable", "25%");
    }
    pod::default_template(child(spec, "template"));
    child(object, "status");
}

pub(super) fn default_replica_set(object: &mut Value) {
    let spec = child(object, "spec");
    fill(spec, "replicas", 1);
    pod::default_template(child(spec, "template"));
    fill(child(object, "status"), "replicas", 0);
}

pub(super) fn default_stateful_set(object: &mut Value) {
    let spec = child(object, "spec");
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill_text(spec, "podManagementPolicy", "OrderedReady");
    fill(spec, "serviceName", "");
    let retention = child(spec, "persistentVolumeClaimRetentionPolicy");
    fill_text(retention, "whenDeleted", "Retain");
    fill_text(retention, "whenScaled", "Retain");
    let strategy = child(spec, "updateStrategy");
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(child(strategy, "rollingUpdate"), "partition", 0);
    }
    pod::default_template(child(spec, "template"));
    let status = child(object, "status");
    fill(status, "availableReplicas", 0);
    fill(status, "replicas", 0);
}

pub(super) fn default_daemon_set(object: &mut Value) {
    let spec = child(object, "spec");
    fill(spec, "revisionHistoryLimit", 10);
    let strategy = child(spec, "updateStrategy");
    fill_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        fill(rolling, "maxSurge", 0);
        fill(rolling, "maxUnavailable", 1);
    }
    pod::default_template(child(spec, "template"));
    let status = child(object, "status");
    for name in ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"] {
        fill(status, name, 0);
    }
}

pub(super) fn default_network_policy(object: &mut Value) {
    let spec = child(object, "spec");
    let egress = !items(spec, "egress").is_empty();
    fill(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
}

pub(super) fn validate_always_template(object: &Value, errors: &mut Vec<Error>) {
    let path = Path::Root.child("spec");
    let spec = &object["spec"];
    pod_rules::check_not_negative(spec, "replicas", &path, errors);
    let at = path.child("selector");
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(Error::required(&at, ""));
    } else if crate::object::is_empty(selector) {
        errors.push(Error::invalid(&at, selector.clone(), "empty selector is invalid for deployment"));
    }
    let template = path.child("template");
    let labels = &spec["template"]["metadata"]["labels"];
    if let Ok(wanted) = Labels::from_object(selector)
        && !selector.is_null()
        && !wanted.matches(labels.as_object())
    {
        let at = template.child("metadata");
        errors.push(Error::invalid(&at.child("labels"), labels.clone(), "`selector` does not match template `labels`"));
    }
    pod_rules::validate_template(&spec["template"], &template, errors);
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    if policy != "Always" {
        let at = template.child("spec");
        errors.push(Error::not_supported(&at.child("restartPolicy"), policy, &["Always"]));
    }
}

pub(super) fn validate_selector_update(new: &Value, old: &Value, part: Part, errors: &mut Vec<Error>) {
    if part == Part::Main && new["spec"]["selector"] != old["spec"]["selector"] {
        let at = Path::Root.child("spec");
        let selector = new["spec"]["selector"].clone();
        errors.push(Error::invalid(&at.child("selector"), selector, "field is immutable"));
    }
}
