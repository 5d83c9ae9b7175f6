//! Rows of events, in the spelling of either group.

use jiff::Timestamp;
use serde_json::Value;

use super::age;
use crate::meta;
use crate::object::text;

/// Names of fields, which differ between the groups: those of core first.
const NAMES: [[&str; 2]; 7] = [
    ["firstTimestamp", "deprecatedFirstTimestamp"],
    ["lastTimestamp", "deprecatedLastTimestamp"],
    ["count", "deprecatedCount"],
    ["involvedObject", "regarding"],
    ["message", "note"],
    ["source", "deprecatedSource"],
    ["reportingComponent", "reportingController"],
];

/// Returns the cells of an event.
pub(super) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let spelling = usize::from(event["apiVersion"] != "v1");
    let [first, last, count, involved, message, source, reporter] = NAMES.map(|names| &event[names[spelling]]);
    let first_seen = match age::at(first) {
        Some(_) => age::since(first, now),
        None => age::since(&event["eventTime"], now),
    };
    let mut last_seen = match age::at(last) {
        Some(_) => age::since(last, now),
        None => first_seen.clone(),
    };
    let mut count = count.as_i64().unwrap_or(0);
    let series = &event["series"];
    if !series.is_null() {
        last_seen = age::since(&series["lastObservedTime"], now);
        count = series["count"].as_i64().unwrap_or(0);
    } else if count == 0 {
        // Events of the new API that happened once have no count.
        count = 1;
    }
    let kind = text(involved, "kind").to_lowercase();
    let involved_object = match text(involved, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = first_of(text(source, "component"), reporter.as_str().unwrap_or_default());
    let instance = first_of(text(source, "host"), text(event, "reportingInstance"));
    let source = if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") };
    vec![
        last_seen.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        involved_object.into(),
        text(involved, "fieldPath").into(),
        source.into(),
        message.as_str().unwrap_or_default().trim().into(),
        first_seen.into(),
        count.into(),
        meta::name(event).into(),
    ]
}

fn first_of<'a>(one: &'a str, other: &'a str) -> &'a str {
    if one.is_empty() { other } else { one }
}
