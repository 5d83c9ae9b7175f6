//! Labels and label selectors as one line of text.

use serde_json::Value;

use crate::object::{items, text};
use crate::text::{check_label_value, check_qualified_name};

/// What is shown for an empty set.
pub(super) const NONE: &str = "<none>";

/// Renders a map of labels, `a=b,c=d`.
pub(super) fn map(labels: &Value) -> String {
    let fields = labels.as_object().into_iter().flatten();
    let mut pairs: Vec<String> =
        fields.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() {
        return NONE.to_owned();
    }
    pairs.sort_unstable();
    pairs.join(",")
}

/// Renders a `LabelSelector`, `a=b,c in (d,e),!f`; empty if it selects everything or nothing, `None` if it is malformed.
pub(super) fn selector(selector: &Value) -> Option<String> {
    let mut requirements: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        check(key, &[value])?;
        requirements.push((key, format!("{key}={value}")));
    }
    for one in items(selector, "matchExpressions") {
        let key = text(one, "key");
        let mut values: Vec<&str> = items(one, "values").iter().filter_map(Value::as_str).collect();
        check(key, &values)?;
        values.sort_unstable();
        let shown = match (text(one, "operator"), values.is_empty()) {
            ("In", false) => format!("{key} in ({})", values.join(",")),
            ("NotIn", false) => format!("{key} notin ({})", values.join(",")),
            ("Exists", true) => key.to_owned(),
            ("DoesNotExist", true) => format!("!{key}"),
            _ => return None,
        };
        requirements.push((key, shown));
    }
    requirements.sort_by_key(|(key, _)| *key);
    Some(requirements.into_iter().map(|(_, shown)| shown).collect::<Vec<_>>().join(","))
}

fn check(key: &str, values: &[&str]) -> Option<()> {
    let fine = check_qualified_name(key).is_empty() && values.iter().all(|value| check_label_value(value).is_empty());
    fine.then_some(())
}

/// Renders a `LabelSelector` for a cell.
pub(super) fn selector_cell(value: &Value) -> String {
    match selector(value) {
        None => "<error>".to_owned(),
        Some(text) if text.is_empty() => NONE.to_owned(),
        Some(text) => text,
    }
}

/// Returns `text`, or `<none>` in place of an empty one.
pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}
