//! What describes the process in everything that is exported.

use std::collections::BTreeMap;

use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::Resource;

/// Name of the service unless the environment gives another.
const SERVICE: &str = "kratix-controller-manager";
/// What the SDK says when the environment gives no name.
const UNKNOWN: &str = "unknown_service";

/// Returns the attributes of the process. Those of the environment (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`) win.
pub(super) fn resource() -> Resource {
    let detected = Resource::builder().build();
    let mut attributes: BTreeMap<Key, Value> = detected_process();
    attributes.extend(detected.iter().map(|(key, value)| (key.clone(), value.clone())));
    let service = attributes.entry(Key::from_static_str("service.name")).or_insert_with(|| UNKNOWN.into());
    if service.as_str().starts_with(UNKNOWN) {
        *service = SERVICE.into();
    }
    let attributes = attributes.into_iter().map(|(key, value)| KeyValue::new(key, value));
    Resource::builder_empty().with_attributes(attributes).build()
}

fn detected_process() -> BTreeMap<Key, Value> {
    let mut attributes = BTreeMap::new();
    let mut set = |key: &'static str, value: Value| attributes.insert(Key::from_static_str(key), value);
    set("process.pid", i64::from(std::process::id()).into());
    set("process.runtime.name", "rust".into());
    if let Ok(path) = std::env::current_exe() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        set("process.executable.name", name.unwrap_or_default().into());
        set("process.executable.path", path.to_string_lossy().into_owned().into());
    }
    let args = std::env::args_os().map(|arg| StringValue::from(arg.to_string_lossy().into_owned()));
    set("process.command_args", Value::Array(Array::String(args.collect())));
    if let Some(host) = host_name() {
        set("host.name", host.into());
    }
    attributes
}

fn host_name() -> Option<String> {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok())?;
    Some(told.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_described_and_named() {
        let resource = resource();
        let get = |key: &'static str| resource.get(&Key::from_static_str(key));
        assert_eq!(get("service.name").unwrap().as_str(), SERVICE);
        assert_eq!(get("process.pid"), Some(i64::from(std::process::id()).into()));
        for key in ["process.executable.name", "process.command_args", "telemetry.sdk.language", "host.name"] {
            assert!(get(key).is_some(), "{key}");
        }
    }
}
