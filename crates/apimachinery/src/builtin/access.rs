//! Roles, bindings, reviews and webhook configurations.

use serde_json::{Value, json};

use crate::field::{Error, Path};
use crate::object::{child, fill, fill_text, items, items_mut, text};
use crate::resource::Part;
use crate::text::{check_path_segment, check_subdomain};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn default_role(role: &mut Value) {
    fill(role, "rules", Value::Null);
}

pub(super) fn default_binding(binding: &mut Value) {
    fill_text(child(binding, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(binding, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            fill_text(subject, "apiGroup", GROUP);
        }
    }
}

pub(super) fn validate_role(role: &Value, errors: &mut Vec<Error>) {
    validate_rules(role, true, errors);
}

pub(super) fn validate_cluster_role(role: &Value, errors: &mut Vec<Error>) {
    validate_rules(role, false, errors);
}

fn validate_rules(role: &Value, namespaced: bool, errors: &mut Vec<Error>) {
    let list = Path::Root.child("rules");
    for (index, rule) in items(role, "rules").iter().enumerate() {
        let at = list.index(index);
        if items(rule, "verbs").is_empty() {
            errors.push(Error::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        let urls = items(rule, "nonResourceURLs");
        if !urls.is_empty() {
            let field = at.child("nonResourceURLs");
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(Error::invalid(&field, urls.to_vec(), why));
            }
            if !items(rule, "apiGroups").is_empty() || !items(rule, "resources").is_empty() {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(Error::invalid(&field, urls.to_vec(), why));
            }
            continue;
        }
        if items(rule, "apiGroups").is_empty() {
            errors.push(Error::required(&at.child("apiGroups"), "resource rules must supply at least one api group"));
        }
        if items(rule, "resources").is_empty() {
            errors.push(Error::required(&at.child("resources"), "resource rules must supply at least one resource"));
        }
    }
}

pub(super) fn validate_binding(binding: &Value, errors: &mut Vec<Error>) {
    validate_reference(binding, &["Role", "ClusterRole"], false, errors);
}

pub(super) fn validate_cluster_binding(binding: &Value, errors: &mut Vec<Error>) {
    validate_reference(binding, &["ClusterRole"], true, errors);
}

fn validate_reference(binding: &Value, kinds: &[&str], cluster: bool, errors: &mut Vec<Error>) {
    let at = Path::Root.child("roleRef");
    let role = &binding["roleRef"];
    if role["apiGroup"] != GROUP {
        errors.push(Error::not_supported(&at.child("apiGroup"), text(role, "apiGroup"), &[GROUP]));
    }
    if !kinds.contains(&text(role, "kind")) {
        errors.push(Error::not_supported(&at.child("kind"), text(role, "kind"), kinds));
    }
    let name = text(role, "name");
    if name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else {
        errors.extend(check_path_segment(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
    }
    let list = Path::Root.child("subjects");
    for (index, subject) in items(binding, "subjects").iter().enumerate() {
        validate_subject(subject, &list.index(index), cluster, errors);
    }
}

fn validate_subject(subject: &Value, at: &Path<'_>, cluster: bool, errors: &mut Vec<Error>) {
    let name = text(subject, "name");
    if name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.extend(check_subdomain(name).iter().map(|why| Error::invalid(&at.child("name"), name, why)));
            }
            if !text(subject, "apiGroup").is_empty() {
                errors.push(Error::not_supported(&at.child("apiGroup"), text(subject, "apiGroup"), &[""]));
            }
            if cluster && text(subject, "namespace").is_empty() {
                errors.push(Error::required(&at.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if subject["apiGroup"] != GROUP {
                errors.push(Error::not_supported(&at.child("apiGroup"), text(subject, "apiGroup"), &[GROUP]));
            }
        }
        other => {
            errors.push(Error::not_supported(&at.child("kind"), other, &["ServiceAccount", "User", "Group"]));
        }
    }
}

pub(super) fn validate_binding_update(new: &Value, old: &Value, _: Part, errors: &mut Vec<Error>) {
    if new["roleRef"] != old["roleRef"] {
        let at = Path::Root.child("roleRef");
        errors.push(Error::invalid(&at, new["roleRef"].clone(), "cannot change roleRef"));
    }
}

pub(super) fn validate_self_review(review: &Value, errors: &mut Vec<Error>) {
    let at = Path::Root.child("spec");
    let (resource, other) = (&review["spec"]["resourceAttributes"], &review["spec"]["nonResourceAttributes"]);
    match (resource.is_null(), other.is_null()) {
        (false, false) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(Error::invalid(&at.child("nonResourceAttributes"), other.clone(), why));
        }
        (true, true) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(Error::invalid(&at.child("resourceAttributes"), resource.clone(), why));
        }
        _ => {}
    }
}

pub(super) fn default_webhooks(configuration: &mut Value) {
    let mutating = configuration["kind"] == "MutatingWebhookConfiguration";
    for webhook in items_mut(configuration, "webhooks") {
        fill_text(webhook, "failurePolicy", "Fail");
        fill_text(webhook, "matchPolicy", "Equivalent");
        fill(webhook, "namespaceSelector", json!({}));
        fill(webhook, "objectSelector", json!({}));
        fill(webhook, "timeoutSeconds", 10);
        if mutating {
            fill_text(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = crate::object::present(child(webhook, "clientConfig"), "service") {
            fill(service, "port", 443);
        }
        for rule in items_mut(webhook, "rules") {
            fill_text(rule, "scope", "*");
        }
    }
}
