//! The downward API: fields of a pod and its containers as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};

use crate::quantity;

/// What only the node knows of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) host_ip: String,
    pub(crate) pod_ip: String,
    pub(crate) node: String,
}

/// Returns the value of a field reference.
pub(crate) fn field(pod: &Pod, place: &Place, reference: &ObjectFieldSelector) -> Result<String, String> {
    let meta = &pod.metadata;
    let path = reference.field_path.as_str();
    let unsupported = || format!("unsupported fieldPath: {path}");
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unsupported()),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let spec = pod.spec.as_ref();
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => place.node.clone(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_else(|| "default".into())
        }
        "status.hostIP" | "status.hostIPs" => place.host_ip.clone(),
        "status.podIP" | "status.podIPs" => place.pod_ip.clone(),
        _ => return Err(unsupported()),
    })
}

/// Returns the value of a resource reference; a limit that is not set is what the machine has.
pub(crate) fn resource(pod: &Pod, own: &Container, reference: &ResourceFieldSelector) -> Result<String, String> {
    let container = match &reference.container_name {
        Some(name) => container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
        None => own,
    };
    let resources = container.resources.as_ref();
    let (kind, name) =
        reference.resource.split_once('.').ok_or_else(|| format!("unsupported resource: {}", reference.resource))?;
    let map = match kind {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(format!("unsupported resource: {}", reference.resource)),
    };
    let value = map.and_then(|map| map.get(name)).map(|quantity| quantity.0.clone());
    let value = match (value, kind) {
        (Some(value), _) => value,
        (None, "limits") => capacity(name),
        (None, _) => "0".into(),
    };
    let divisor = reference.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
    let quotient = quantity::divide(&value, divisor);
    quotient.map(|number| number.to_string()).ok_or_else(|| format!("cannot divide {value:?} by {divisor:?}"))
}

/// Finds a container of any kind by name.
pub(crate) fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
}

fn capacity(resource: &str) -> String {
    match resource {
        "cpu" => std::thread::available_parallelism().map_or(1, usize::from).to_string(),
        "memory" => {
            let sysinfo = rustix::system::sysinfo();
            (u128::from(sysinfo.totalram) * u128::from(sysinfo.mem_unit)).to_string()
        }
        _ => "0".into(),
    }
}

/// Writes a map as `key="value"` lines, sorted, with the escapes of a Go string.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = write!(text, "{key}=\"");
        for character in value.chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                control if control.is_control() => {
                    let _ = write!(text, "\\x{:02x}", u32::from(control));
                }
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_maps_written_as_lines() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b/c": "q\"u\\o\nte"}},
            "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "256Mi"}}}]},
        }))
        .unwrap();
        let place = Place { host_ip: "10.0.0.1".into(), pod_ip: "10.0.0.1".into(), node: "node".into() };
        let cases = [
            ("metadata.name", "p"),
            ("metadata.labels['a']", "1"),
            ("metadata.annotations['missing']", ""),
            ("metadata.labels", "a=\"1\"\nb/c=\"q\\\"u\\\\o\\nte\""),
            ("spec.serviceAccountName", "default"),
            ("spec.nodeName", "node"),
            ("status.podIP", "10.0.0.1"),
        ];
        for (path, expected) in cases {
            let reference = ObjectFieldSelector { field_path: path.into(), api_version: None };
            assert_eq!(field(&pod, &place, &reference).unwrap(), expected, "{path}");
        }
        let bad = ObjectFieldSelector { field_path: "spec.containers".into(), api_version: None };
        assert!(field(&pod, &place, &bad).is_err());

        let own = &pod.spec.as_ref().unwrap().containers[0];
        let memory = ResourceFieldSelector { resource: "limits.memory".into(), ..Default::default() };
        assert_eq!(resource(&pod, own, &memory).unwrap(), "268435456");
        let request = ResourceFieldSelector { resource: "requests.cpu".into(), ..Default::default() };
        assert_eq!(resource(&pod, own, &request).unwrap(), "0");
    }
}
