//! Events have two APIs and one store: `v1` as stored, `events.k8s.io/v1` translated on the way in and out.

use serde_json::{Map, Value};

/// Fields of the two versions that differ in name alone: core, new.
const RENAMED: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Seconds that an event is kept after its last change.
pub(crate) const TTL_SECONDS: u64 = 3600;

/// Translates a stored event into `events.k8s.io/v1`.
pub(crate) fn to_new(event: &mut Value) {
    translate(event, "events.k8s.io/v1", |map| {
        for (core, new) in RENAMED {
            rename(map, core, new);
        }
        rename(map, "reportingComponent", "reportingController");
    });
}

/// Translates an event of `events.k8s.io/v1` into what is stored.
pub(crate) fn to_core(event: &mut Value) {
    translate(event, "v1", |map| {
        for (core, new) in RENAMED {
            rename(map, new, core);
        }
        rename(map, "reportingController", "reportingComponent");
    });
}

fn translate(event: &mut Value, api_version: &str, fields: impl FnOnce(&mut Map<String, Value>)) {
    if let Some(map) = event.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        fields(map);
    }
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_the_way_there_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"name": "x"},
            "message": "hello", "reason": "Because", "count": 2, "reportingComponent": "c", "source": {"component": "c"},
        });
        let mut event = core.clone();
        to_new(&mut event);
        assert_eq!(event["note"], "hello");
        assert_eq!(event["reportingController"], "c");
        assert!(event.get("message").is_none());
        to_core(&mut event);
        assert_eq!(event, core);
    }
}
