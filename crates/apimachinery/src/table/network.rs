//! Rows of services and what leads to them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{age, labels};
use crate::meta;
use crate::object::{items, text};

/// Longer lists of addresses and hosts end in `+ 2 more...`.
const LISTED_MAX: usize = 3;

/// Returns the cells of a service.
pub(super) fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let ports: Vec<String> = items(spec, "ports").iter().map(port).collect();
    vec![
        meta::name(service).into(),
        text(spec, "type").into(),
        spec["clusterIPs"][0].as_str().unwrap_or(labels::NONE).into(),
        external_address(service).into(),
        labels::or_none(&ports.join(",")).into(),
        age::of(service, now).into(),
        labels::map(&spec["selector"]).into(),
    ]
}

fn port(port: &Value) -> String {
    let (number, protocol) = (port["port"].as_i64().unwrap_or(0), text(port, "protocol"));
    match port["nodePort"].as_i64() {
        Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_address(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<&str> = items(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match text(spec, "type") {
        "ClusterIP" | "NodePort" => labels::or_none(&addresses.join(",")).to_owned(),
        "LoadBalancer" => {
            let balancer = balancer(&service["status"]["loadBalancer"]);
            if !balancer.is_empty() {
                addresses.insert(0, &balancer);
            }
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => age::UNKNOWN.to_owned(),
    }
}

/// Lists where a load balancer can be reached, sorted.
fn balancer(status: &Value) -> String {
    let points = items(status, "ingress").iter();
    let address = |point| match text(point, "ip") {
        "" => text(point, "hostname"),
        ip => ip,
    };
    let found: BTreeSet<&str> = points.map(address).filter(|address| !address.is_empty()).collect();
    found.into_iter().collect::<Vec<_>>().join(",")
}

/// Returns the cells of an ingress.
pub(super) fn ingress(ingress: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &ingress["spec"];
    vec![
        meta::name(ingress).into(),
        spec["ingressClassName"].as_str().unwrap_or(labels::NONE).into(),
        hosts(items(spec, "rules")).into(),
        balancer(&ingress["status"]["loadBalancer"]).into(),
        (if items(spec, "tls").is_empty() { "80" } else { "80, 443" }).into(),
        age::of(ingress, now).into(),
    ]
}

fn hosts(rules: &[Value]) -> String {
    let mut listed = Vec::new();
    let mut has_more = false;
    for rule in rules {
        // Rules are counted, not hosts: the real server tells of "more" when a rule follows the third host.
        has_more |= listed.len() == LISTED_MAX;
        let host = text(rule, "host");
        if !has_more && !host.is_empty() {
            listed.push(host);
        }
    }
    match listed.join(",") {
        none if none.is_empty() => "*".to_owned(),
        some if has_more => format!("{some} + {} more...", rules.len() - LISTED_MAX),
        some => some,
    }
}

/// Returns the cells of an ingress class.
pub(super) fn ingress_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match &class["spec"]["parameters"] {
        Value::Null => labels::NONE.to_owned(),
        reference => {
            let group = reference["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", text(reference, "kind"), text(reference, "name"))
        }
    };
    vec![
        meta::name(class).into(),
        text(&class["spec"], "controller").into(),
        parameters.into(),
        age::of(class, now).into(),
    ]
}

/// Returns the cells of a network policy.
pub(super) fn policy(policy: &Value, now: Timestamp) -> Vec<Value> {
    let selector = labels::selector_cell(&policy["spec"]["podSelector"]);
    vec![meta::name(policy).into(), selector.into(), age::of(policy, now).into()]
}

/// Returns the cells of endpoints.
pub(super) fn endpoints(endpoints: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta::name(endpoints).into(), addresses(items(endpoints, "subsets")).into(), age::of(endpoints, now).into()]
}

fn addresses(subsets: &[Value]) -> String {
    if subsets.is_empty() {
        return labels::NONE.to_owned();
    }
    let mut listed = Vec::new();
    let mut count = 0;
    for subset in subsets {
        let addresses = items(subset, "addresses");
        let mut list = |port: Option<i64>| {
            count += addresses.len();
            let room = LISTED_MAX - listed.len();
            listed.extend(addresses.iter().take(room).map(|one| endpoint(text(one, "ip"), port)));
        };
        match items(subset, "ports") {
            [] => list(None),
            ports => ports.iter().for_each(|port| list(Some(port["port"].as_i64().unwrap_or(0)))),
        }
    }
    let shown = listed.join(",");
    if count > LISTED_MAX { format!("{shown} + {} more...", count - LISTED_MAX) } else { shown }
}

fn endpoint(ip: &str, port: Option<i64>) -> String {
    match port {
        None => ip.to_owned(),
        Some(port) if ip.contains(':') => format!("[{ip}]:{port}"),
        Some(port) => format!("{ip}:{port}"),
    }
}
