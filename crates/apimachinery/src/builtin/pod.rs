//! Defaults and strategy of pods and pod templates.

use serde_json::{Value, json};

use crate::object::{child, copy, fill, fill_text, items_mut, present, text};
use crate::quantity;
use crate::resource::Part;

/// File mode of projected files, 0644.
const FILE_MODE: u32 = 420;

pub(super) fn default_pod(pod: &mut Value) {
    let spec = child(pod, "spec");
    default_spec(spec);
    fill(spec, "enableServiceLinks", true);
    // What is limited but not asked for is asked for in full; a template keeps what its author wrote.
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            let limits = container["resources"]["limits"].clone();
            for (name, limit) in limits.as_object().into_iter().flatten() {
                fill(child(child(container, "resources"), "requests"), name, limit.clone());
            }
        }
    }
    child(pod, "status");
}

/// Fills in defaults of `template`, a pod template.
pub(super) fn default_template(template: &mut Value) {
    child(template, "metadata");
    default_spec(child(template, "spec"));
}

fn default_spec(spec: &mut Value) {
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    child(spec, "securityContext");
    // Two spellings of one field.
    let account = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")]
        .into_iter()
        .find(|name| !name.is_empty())
        .map(str::to_owned);
    if let Some(account) = account {
        spec["serviceAccountName"] = json!(account);
        spec["serviceAccount"] = json!(account);
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, list) {
            default_container(container, host_network);
        }
    }
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let policy = pull_policy(text(container, "image"));
    fill_text(container, "imagePullPolicy", policy);
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    child(container, "resources");
    for port in items_mut(container, "ports") {
        fill_text(port, "protocol", "TCP");
        if host_network {
            let number = port["containerPort"].clone();
            fill(port, "hostPort", number);
        }
    }
    for env in items_mut(container, "env") {
        if let Some(reference) = present(env, "valueFrom").and_then(|from| present(from, "fieldRef")) {
            fill_text(reference, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = present(container, name) {
            fill(probe, "timeoutSeconds", 1);
            fill(probe, "periodSeconds", 10);
            fill(probe, "successThreshold", 1);
            fill(probe, "failureThreshold", 3);
            default_http_get(probe);
        }
    }
    if let Some(lifecycle) = present(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(hook) = present(lifecycle, name) {
                default_http_get(hook);
            }
        }
    }
}

fn default_http_get(action: &mut Value) {
    if let Some(get) = present(action, "httpGet") {
        fill_text(get, "path", "/");
        fill_text(get, "scheme", "HTTP");
    }
    if let Some(grpc) = present(action, "grpc") {
        fill(grpc, "service", "");
    }
}

/// Images without a tag, or tagged `latest`, may change under their name.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn default_volume(volume: &mut Value) {
    let has_source = volume.as_object().is_some_and(|fields| fields.keys().any(|key| key != "name"));
    if !has_source {
        fill(volume, "emptyDir", json!({}));
    }
    for name in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = present(volume, name) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = present(volume, "downwardAPI") {
        default_downward(source);
    }
    if let Some(source) = present(volume, "hostPath") {
        fill(source, "type", "");
    }
    if let Some(template) = present(volume, "ephemeral").and_then(|source| present(source, "volumeClaimTemplate")) {
        fill(child(template, "spec"), "volumeMode", "Filesystem");
    }
    let Some(projected) = present(volume, "projected") else { return };
    for source in items_mut(projected, "sources") {
        if let Some(token) = present(source, "serviceAccountToken") {
            fill(token, "expirationSeconds", 3600);
        }
        if let Some(downward) = present(source, "downwardAPI") {
            default_downward(downward);
        }
    }
}

fn default_downward(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(reference) = present(item, "fieldRef") {
            fill_text(reference, "apiVersion", "v1");
        }
    }
}

pub(super) fn create_pod(pod: &mut Value, uid: &str) {
    let class = quality(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
    admit(&mut pod["spec"], uid);
}

/// What the admission plug-ins of the real server add: account with its token, tolerations, priority.
fn admit(spec: &mut Value, uid: &str) {
    fill_text(spec, "serviceAccountName", "default");
    let account = spec["serviceAccountName"].clone();
    spec["serviceAccount"] = account;
    fill(spec, "priority", 0);
    fill_text(spec, "preemptionPolicy", "PreemptLowerPriority");
    let tolerations = child_list(spec, "tolerations");
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations
            .iter()
            .any(|one| [key, ""].contains(&text(one, "key")) && ["NoExecute", ""].contains(&text(one, "effect")));
        if !tolerated {
            let one = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            tolerations.push(one);
        }
    }
    mount_token(spec, uid);
}

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn mount_token(spec: &mut Value, uid: &str) {
    if spec["automountServiceAccountToken"] == false {
        return;
    }
    // The suffix only has to be unlikely to meet a volume of the author's; a pod's uid serves as well as chance.
    let suffix: String = uid.chars().filter(char::is_ascii_alphanumeric).rev().take(5).collect();
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            let mounts = child_list(container, "volumeMounts");
            if mounts.iter().all(|mount| mount["mountPath"] != TOKEN_PATH) {
                mounts.push(json!({"name": volume, "mountPath": TOKEN_PATH, "readOnly": true}));
                mounted = true;
            } else if mounts.is_empty() {
                mounts.clear();
            }
        }
    }
    if mounted {
        child_list(spec, "volumes").push(json!({"name": volume, "projected": {"defaultMode": FILE_MODE, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

fn child_list<'a>(value: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    fill(value, name, json!([]));
    value[name].as_array_mut().expect("decoding checked that it is a list")
}

/// Returns the class by which a node chooses what to evict.
fn quality(spec: &Value) -> &'static str {
    let containers = ["initContainers", "containers"].into_iter().flat_map(|list| crate::object::items(spec, list));
    let (mut guaranteed, mut best_effort) = (true, true);
    for container in containers {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (request, limit) = (&resources["requests"][name], &resources["limits"][name]);
            let set = |value: &Value| quantity::of(value).is_some_and(|value| value > 0.0);
            best_effort &= !set(request) && !set(limit);
            guaranteed &= set(limit) && quantity::of(request) == quantity::of(limit);
        }
    }
    match (best_effort, guaranteed) {
        (true, _) => "BestEffort",
        (false, true) => "Guaranteed",
        (false, false) => "Burstable",
    }
}

pub(super) fn update_pod(new: &mut Value, old: &Value, part: Part) {
    if part == Part::Main {
        copy(new, old, "status");
    }
}
