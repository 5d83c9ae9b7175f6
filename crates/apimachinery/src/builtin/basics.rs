//! Rules of the core kinds that are not pods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::field::{Error, Path};
use crate::object::{child, copy, fill, fill_text, items, items_mut, object, text};
use crate::resource::Part;
use crate::text::{check_config_key, check_label};

/// Most that a ConfigMap or Secret may hold, in bytes.
const DATA_MAX: usize = 1_048_576;

pub(super) fn default_event(event: &mut Value) {
    // These are written even when nobody set them.
    for name in ["eventTime", "firstTimestamp", "lastTimestamp"] {
        fill(event, name, Value::Null);
    }
    for name in ["reportingComponent", "reportingInstance"] {
        fill(event, name, "");
    }
    child(event, "source");
    child(event, "involvedObject");
}

pub(super) fn validate_event(event: &Value, errors: &mut Vec<Error>) {
    let namespace = text(&event["metadata"], "namespace");
    let involved = text(&event["involvedObject"], "namespace");
    let expected = if involved.is_empty() { "default" } else { involved };
    if namespace != expected {
        let at = Path::Root.child("involvedObject");
        let at = at.child("namespace");
        errors.push(Error::invalid(&at, involved, "does not match event.namespace"));
    }
}

pub(super) fn default_namespace(namespace: &mut Value) {
    let name = text(&namespace["metadata"], "name").to_owned();
    child(namespace, "spec");
    fill_text(child(namespace, "status"), "phase", "Active");
    if !name.is_empty() {
        let labels = child(child(namespace, "metadata"), "labels");
        labels["kubernetes.io/metadata.name"] = json!(name);
    }
}

pub(super) fn create_namespace(namespace: &mut Value, _: &str) {
    namespace["status"] = json!({"phase": "Active"});
    let finalizers = &mut namespace["spec"]["finalizers"];
    match finalizers {
        Value::Array(list) if list.iter().any(|one| one == "kubernetes") => {}
        Value::Array(list) => list.push(json!("kubernetes")),
        other => *other = json!(["kubernetes"]),
    }
}

pub(super) fn update_namespace(new: &mut Value, old: &Value, part: Part) {
    // Finalizers in the spec change only at the `finalize` subresource.
    if part != Part::Other {
        let finalizers = old["spec"]["finalizers"].clone();
        if finalizers.is_null() {
            object(&mut new["spec"]).remove("finalizers");
        } else {
            new["spec"]["finalizers"] = finalizers;
        }
    }
}

pub(super) fn default_node(node: &mut Value) {
    child(node, "spec");
    let status = child(node, "status");
    fill(child(child(status, "daemonEndpoints"), "kubeletEndpoint"), "Port", 0);
    let info = child(status, "nodeInfo");
    for name in [
        "architecture",
        "bootID",
        "containerRuntimeVersion",
        "kernelVersion",
        "kubeProxyVersion",
        "kubeletVersion",
        "machineID",
        "operatingSystem",
        "osImage",
        "systemUUID",
    ] {
        fill(info, name, "");
    }
}

pub(super) fn default_claim(claim: &mut Value) {
    let spec = child(claim, "spec");
    fill_text(spec, "volumeMode", "Filesystem");
    child(spec, "resources");
    fill_text(child(claim, "status"), "phase", "Pending");
}

pub(super) fn create_claim(claim: &mut Value, _: &str) {
    claim["status"] = json!({"phase": "Pending"});
}

pub(super) fn default_secret(secret: &mut Value) {
    fill_text(secret, "type", "Opaque");
    if let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|fields| fields.remove("stringData")) {
        let data = child(secret, "data");
        for (key, value) in plain {
            data[key] = json!(STANDARD.encode(value.as_str().unwrap_or_default()));
        }
    }
    if secret["data"].as_object().is_some_and(serde_json::Map::is_empty) {
        object(secret).remove("data");
    }
}

fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take_while(|byte| *byte == b'=').count().min(2).min(text.len())
}

pub(super) fn validate_secret(secret: &Value, errors: &mut Vec<Error>) {
    let data = Path::Root.child("data");
    let mut total = 0;
    let fields = secret["data"].as_object();
    for (key, value) in fields.into_iter().flatten() {
        errors.extend(check_config_key(key).iter().map(|why| Error::invalid(&data.key(key), key.as_str(), why)));
        total += decoded_len(value);
    }
    if total > DATA_MAX {
        errors.push(Error::too_long(&data, 1_048_576));
    }
    let required = |key: &str, errors: &mut Vec<Error>| {
        if fields.is_none_or(|fields| !fields.contains_key(key)) {
            errors.push(Error::required(&data.key(key), ""));
        }
    };
    match text(secret, "type") {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if text(&secret["metadata"]["annotations"], annotation).is_empty() {
                let at = Path::Root.child("metadata");
                let at = at.child("annotations");
                errors.push(Error::required(&at.key(annotation), ""));
            }
        }
        "kubernetes.io/dockercfg" => required(".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => required(".dockerconfigjson", errors),
        "kubernetes.io/basic-auth"
            if fields.is_none_or(|fields| !fields.contains_key("username") && !fields.contains_key("password")) =>
        {
            errors.push(Error::required(&data.key("username"), ""));
            errors.push(Error::required(&data.key("password"), ""));
        }
        "kubernetes.io/ssh-auth" => required("ssh-privatekey", errors),
        "kubernetes.io/tls" => {
            required("tls.crt", errors);
            required("tls.key", errors);
        }
        _ => {}
    }
}

pub(super) fn validate_secret_update(new: &Value, old: &Value, _: Part, errors: &mut Vec<Error>) {
    let at = Path::Root.child("type");
    if new["type"] != old["type"] {
        errors.push(Error::invalid(&at, new["type"].clone(), "field is immutable"));
    }
    check_immutable(new, old, &["data"], errors);
}

pub(super) fn validate_config_map(map: &Value, errors: &mut Vec<Error>) {
    let mut total = 0;
    for name in ["data", "binaryData"] {
        let at = Path::Root.child(name);
        for (key, value) in map[name].as_object().into_iter().flatten() {
            errors.extend(check_config_key(key).iter().map(|why| Error::invalid(&at.key(key), key.as_str(), why)));
            if name == "data" && !map["binaryData"][key].is_null() {
                let why = "duplicate of key present in binaryData";
                errors.push(Error::invalid(&at.key(key), key.as_str(), why));
            }
            total += if name == "data" { value.as_str().map_or(0, str::len) } else { decoded_len(value) };
        }
    }
    if total > DATA_MAX {
        errors.push(Error::too_long(&Path::Root.child(""), 1_048_576));
    }
}

pub(super) fn validate_config_map_update(new: &Value, old: &Value, _: Part, errors: &mut Vec<Error>) {
    check_immutable(new, old, &["data", "binaryData"], errors);
}

fn check_immutable(new: &Value, old: &Value, names: &[&str], errors: &mut Vec<Error>) {
    if old["immutable"] != true {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        errors.push(Error::forbidden(&Path::Root.child("immutable"), why));
    }
    for name in names {
        if new[*name] != old[*name] {
            errors.push(Error::forbidden(&Path::Root.child(name), why));
        }
    }
}

pub(super) fn default_service(service: &mut Value) {
    let spec = child(service, "spec");
    fill_text(spec, "sessionAffinity", "None");
    fill_text(spec, "type", "ClusterIP");
    let kind = text(spec, "type").to_owned();
    if kind != "ExternalName" {
        fill_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        fill_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    for port in items_mut(spec, "ports") {
        fill_text(port, "protocol", "TCP");
        let number = port["port"].clone();
        if matches!(&port["targetPort"], Value::Null) || port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = number;
        }
    }
    child(child(service, "status"), "loadBalancer");
}

/// There is no network to allocate addresses in: services that ask for one stay headless in effect, and say so.
pub(super) fn create_service(service: &mut Value, _: &str) {
    service["status"] = json!({"loadBalancer": {}});
    let spec = &mut service["spec"];
    if spec["type"] == "ExternalName" {
        return;
    }
    fill_text(spec, "clusterIP", "None");
    if spec["clusterIPs"].is_null() {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    fill(spec, "ipFamilies", json!(["IPv4"]));
    fill_text(spec, "ipFamilyPolicy", "SingleStack");
}

pub(super) fn update_service(new: &mut Value, old: &Value, _: Part) {
    for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if new["spec"][name].is_null() {
            let old = &old["spec"];
            copy(&mut new["spec"], old, name);
        }
    }
}

pub(super) fn validate_service(service: &Value, errors: &mut Vec<Error>) {
    const KINDS: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let path = Path::Root.child("spec");
    let spec = &service["spec"];
    let kind = text(spec, "type");
    if !KINDS.contains(&kind) {
        errors.push(Error::not_supported(&path.child("type"), kind, &KINDS));
    }
    let ports = items(spec, "ports");
    if ports.is_empty() && kind != "ExternalName" && spec["clusterIP"] != "None" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let list = path.child("ports");
        let at = list.index(index);
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !name.is_empty() {
            errors.extend(check_label(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
        }
        if ports[..index].iter().any(|one| !name.is_empty() && one["name"] == *name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            errors.push(Error::invalid(&at.child("port"), number, "must be between 1 and 65535, inclusive"));
        }
    }
}

pub(super) fn validate_lease(lease: &Value, errors: &mut Vec<Error>) {
    let path = Path::Root.child("spec");
    let spec = &lease["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let at = path.child("leaseDurationSeconds");
        errors.push(Error::invalid(&at, spec["leaseDurationSeconds"].clone(), "must be greater than 0"));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let at = path.child("leaseTransitions");
        errors.push(Error::invalid(&at, spec["leaseTransitions"].clone(), "must be greater than or equal to 0"));
    }
}
