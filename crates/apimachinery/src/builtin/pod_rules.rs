//! What makes a pod or pod template valid.

use std::collections::HashSet;

use serde_json::Value;

use crate::field::{Error, Path};
use crate::meta;
use crate::object::{items, text};
use crate::quantity;
use crate::resource::Part;
use crate::text::{check_env_name, check_label, check_port_name, check_qualified_name, check_subdomain};

pub(super) fn check_not_negative(value: &Value, name: &str, path: &Path<'_>, errors: &mut Vec<Error>) {
    if let Some(number) = value[name].as_i64().filter(|number| *number < 0) {
        errors.push(Error::invalid(&path.child(name), number, "must be greater than or equal to 0"));
    }
}

pub(super) fn validate_pod(pod: &Value, errors: &mut Vec<Error>) {
    validate_spec(&pod["spec"], &Path::Root.child("spec"), errors);
}

/// Checks metadata and spec of a pod template.
pub(super) fn validate_template(template: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let metadata = path.child("metadata");
    meta::validate_labels(&template["metadata"]["labels"], &metadata.child("labels"), errors);
    meta::validate_annotations(&template["metadata"]["annotations"], &metadata.child("annotations"), errors);
    validate_spec(&template["spec"], &path.child("spec"), errors);
}

fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let volumes = validate_volumes(items(spec, "volumes"), &path.child("volumes"), errors);
    let mut names = HashSet::new();
    let containers = path.child("containers");
    if items(spec, "containers").is_empty() {
        errors.push(Error::required(&containers, ""));
    }
    for (index, container) in items(spec, "containers").iter().enumerate() {
        validate_container(container, &containers.index(index), &volumes, &mut names, errors);
    }
    let init = path.child("initContainers");
    for (index, container) in items(spec, "initContainers").iter().enumerate() {
        validate_container(container, &init.index(index), &volumes, &mut names, errors);
    }
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    one_of(spec, "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], path, errors);
    for name in ["serviceAccountName", "nodeName", "priorityClassName"] {
        let value = text(spec, name);
        if !value.is_empty() {
            errors.extend(check_subdomain(value).iter().map(|why| Error::invalid(&path.child(name), value, why)));
        }
    }
    for name in ["hostname", "subdomain"] {
        let value = text(spec, name);
        if !value.is_empty() {
            errors.extend(check_label(value).iter().map(|why| Error::invalid(&path.child(name), value, why)));
        }
    }
    check_not_negative(spec, "terminationGracePeriodSeconds", path, errors);
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, why));
    }
    meta::validate_labels(&spec["nodeSelector"], &path.child("nodeSelector"), errors);
}

fn one_of(value: &Value, name: &str, allowed: &[&str], path: &Path<'_>, errors: &mut Vec<Error>) {
    let found = text(value, name);
    if found.is_empty() {
        errors.push(Error::required(&path.child(name), ""));
    } else if !allowed.contains(&found) {
        errors.push(Error::not_supported(&path.child(name), found, allowed));
    }
}

fn validate_volumes<'a>(volumes: &'a [Value], path: &Path<'_>, errors: &mut Vec<Error>) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = path.index(index);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(check_label(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
        }
        if !name.is_empty() && !names.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        let sources: Vec<&String> = volume.as_object().into_iter().flatten().map(|(key, _)| key).collect();
        let mut sources = sources.into_iter().filter(|key| *key != "name");
        if sources.next().is_none() {
            errors.push(Error::required(&at, "must specify a volume type"));
        }
        for extra in sources {
            errors.push(Error::forbidden(&at.child(extra), "may not specify more than 1 volume type"));
        }
        if let Some(secret) = volume.get("secret")
            && text(secret, "secretName").is_empty()
        {
            let at = at.child("secret");
            errors.push(Error::required(&at.child("secretName"), ""));
        }
        if let Some(map) = volume.get("configMap")
            && text(map, "name").is_empty()
        {
            let at = at.child("configMap");
            errors.push(Error::required(&at.child("name"), ""));
        }
        if let Some(host) = volume.get("hostPath")
            && text(host, "path").is_empty()
        {
            let at = at.child("hostPath");
            errors.push(Error::required(&at.child("path"), ""));
        }
        if let Some(claim) = volume.get("persistentVolumeClaim")
            && text(claim, "claimName").is_empty()
        {
            let at = at.child("persistentVolumeClaim");
            errors.push(Error::required(&at.child("claimName"), ""));
        }
    }
    names
}

fn validate_container<'a>(
    container: &'a Value,
    path: &Path<'_>,
    volumes: &HashSet<&str>,
    names: &mut HashSet<&'a str>,
    errors: &mut Vec<Error>,
) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.extend(check_label(name).iter().map(|why| Error::invalid(&path.child("name"), name, why)));
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
    }
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(Error::invalid(&path.child("image"), image, why));
    }
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    one_of(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], path, errors);
    validate_ports(items(container, "ports"), &path.child("ports"), errors);
    validate_env(container, path, errors);
    validate_mounts(items(container, "volumeMounts"), &path.child("volumeMounts"), volumes, errors);
    validate_resources(&container["resources"], &path.child("resources"), errors);
}

fn validate_ports(ports: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    const RANGE: &str = "must be between 1 and 65535, inclusive";
    for (index, port) in ports.iter().enumerate() {
        let at = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.extend(check_port_name(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
            if ports[..index].iter().any(|one| one["name"] == name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.push(Error::required(&at.child("containerPort"), "")),
            1..=65535 => {}
            number => errors.push(Error::invalid(&at.child("containerPort"), number, RANGE)),
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], &at, errors);
    }
}

fn validate_env(container: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let list = path.child("env");
    for (index, env) in items(container, "env").iter().enumerate() {
        let at = list.index(index);
        let name = text(env, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(check_env_name(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
        }
        let Some(from) = env.get("valueFrom").filter(|from| !from.is_null()) else { continue };
        let from_at = at.child("valueFrom");
        let count = from.as_object().map_or(0, serde_json::Map::len);
        if count == 0 {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                       `fileKeyRef`";
            errors.push(Error::invalid(&from_at, "", why));
        } else if !text(env, "value").is_empty() {
            errors.push(Error::invalid(&from_at, "", "may not be specified when `value` is not empty"));
        } else if count > 1 {
            errors.push(Error::invalid(&from_at, "", "may not have more than one field specified at a time"));
        }
        for source in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(reference) = from.get(source) {
                let at = from_at.child(source);
                if text(reference, "name").is_empty() {
                    errors.push(Error::required(&at.child("name"), ""));
                }
                if text(reference, "key").is_empty() {
                    errors.push(Error::required(&at.child("key"), ""));
                }
            }
        }
        if let Some(reference) = from.get("fieldRef")
            && text(reference, "fieldPath").is_empty()
        {
            let at = from_at.child("fieldRef");
            errors.push(Error::required(&at.child("fieldPath"), ""));
        }
    }
}

fn validate_mounts(mounts: &[Value], path: &Path<'_>, volumes: &HashSet<&str>, errors: &mut Vec<Error>) {
    for (index, mount) in mounts.iter().enumerate() {
        let at = path.index(index);
        let name = text(mount, "name");
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        if !volumes.contains(name) {
            errors.push(Error::not_found(&at.child("name"), name));
        }
        let place = text(mount, "mountPath");
        if place.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        }
        if mounts[..index].iter().any(|one| one["mountPath"] == place) {
            errors.push(Error::invalid(&at.child("mountPath"), place, "must be unique"));
        }
        let sub = text(mount, "subPath");
        if sub.starts_with('/') {
            errors.push(Error::invalid(&at.child("subPath"), sub, "must be a relative path"));
        }
        if sub.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&at.child("subPath"), sub, "must not contain '..'"));
        }
    }
}

fn validate_resources(resources: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    for list in ["limits", "requests"] {
        let at = path.child(list);
        for (name, value) in resources[list].as_object().into_iter().flatten() {
            errors.extend(check_qualified_name(name).iter().map(|why| Error::invalid(&at, name.as_str(), why)));
            if quantity::of(value).is_some_and(|value| value < 0.0) {
                let why = "must be greater than or equal to 0";
                errors.push(Error::invalid(&at.key(name), value.clone(), why));
            }
            let limit = &resources["limits"][name];
            if list == "requests" && quantity::of(limit).is_some_and(|limit| quantity::of(value) > Some(limit)) {
                let limit = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&path.child("requests"), value.clone(), &why));
            }
        }
    }
}

pub(super) fn validate_pod_update(new: &Value, old: &Value, part: Part, errors: &mut Vec<Error>) {
    if part != Part::Main {
        return;
    }
    // Everything else in a spec is fixed once the pod exists.
    let comparable = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in crate::object::items_mut(&mut spec, list) {
                container.as_object_mut().map(|container| container.remove("image"));
            }
        }
        for name in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
            spec.as_object_mut().map(|spec| spec.remove(name));
        }
        spec
    };
    if comparable(new) != comparable(old) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                   existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                   previously negative)";
        errors.push(Error::forbidden(&Path::Root.child("spec"), why));
    }
}
