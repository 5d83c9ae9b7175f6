//! Rows of small kinds.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::age;
use crate::meta;
use crate::object::{items, text};

/// Returns the cells of a namespace.
pub(super) fn namespace(namespace: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta::name(namespace).into(), text(&namespace["status"], "phase").into(), age::of(namespace, now).into()]
}

/// Returns the cells of a config map.
pub(super) fn config_map(map: &Value, now: Timestamp) -> Vec<Value> {
    let count = len(&map["data"]) + len(&map["binaryData"]);
    vec![meta::name(map).into(), count.into(), age::of(map, now).into()]
}

/// Returns the cells of a secret.
pub(super) fn secret(secret: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(secret).into(),
        text(secret, "type").into(),
        len(&secret["data"]).into(),
        age::of(secret, now).into(),
    ]
}

fn len(map: &Value) -> usize {
    map.as_object().map_or(0, Map::len)
}

/// Returns the cells of a service account.
pub(super) fn service_account(account: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta::name(account).into(), items(account, "secrets").len().into(), age::of(account, now).into()]
}

/// Returns the cells of a lease.
pub(super) fn lease(lease: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta::name(lease).into(), text(&lease["spec"], "holderIdentity").into(), age::of(lease, now).into()]
}

/// Returns the cells of a webhook configuration.
pub(super) fn webhooks(configuration: &Value, now: Timestamp) -> Vec<Value> {
    let count = items(configuration, "webhooks").len();
    vec![meta::name(configuration).into(), count.into(), age::of(configuration, now).into()]
}

/// Returns the cells of a role binding, cluster-wide or not.
pub(super) fn binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let role = &binding["roleRef"];
    let subjects = |kind: &str, show: fn(&Value) -> String| {
        let found = items(binding, "subjects").iter().filter(|one| one["kind"] == kind);
        found.map(show).collect::<Vec<_>>().join(", ")
    };
    let name = |subject: &Value| text(subject, "name").to_owned();
    let account = |subject: &Value| format!("{}/{}", text(subject, "namespace"), text(subject, "name"));
    vec![
        meta::name(binding).into(),
        format!("{}/{}", text(role, "kind"), text(role, "name")).into(),
        age::of(binding, now).into(),
        subjects("User", name).into(),
        subjects("Group", name).into(),
        subjects("ServiceAccount", account).into(),
    ]
}

/// Returns the cells of a volume claim.
pub(super) fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let is_deleting = !claim["metadata"]["deletionTimestamp"].is_null();
    let volume = text(spec, "volumeName");
    let (capacity, modes) = match volume {
        "" => ("", String::new()),
        _ => (status["capacity"]["storage"].as_str().unwrap_or("0"), access_modes(items(status, "accessModes"))),
    };
    let or_unset = |name: &str| spec[name].as_str().unwrap_or("<unset>");
    let class = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    vec![
        meta::name(claim).into(),
        (if is_deleting { "Terminating" } else { text(status, "phase") }).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class.as_str().unwrap_or_else(|| text(spec, "storageClassName")).into(),
        or_unset("volumeAttributesClassName").into(),
        age::of(claim, now).into(),
        or_unset("volumeMode").into(),
    ]
}

fn access_modes(modes: &[Value]) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let held = short.iter().filter(|(mode, _)| modes.iter().any(|one| one == mode));
    held.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// Returns the cells of a resource quota.
pub(super) fn quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let status = &quota["status"];
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in status["hard"].as_object().into_iter().flatten() {
        let used = status["used"][name].as_str().unwrap_or("0");
        let shown = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
        (if name.starts_with("limits.") { &mut limits } else { &mut requests }).push(shown);
    }
    for list in [&mut requests, &mut limits] {
        list.sort_unstable();
    }
    vec![meta::name(quota).into(), requests.join(", ").into(), limits.join(", ").into(), age::of(quota, now).into()]
}
