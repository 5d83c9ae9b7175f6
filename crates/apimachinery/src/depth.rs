//! How deep a value is nested: JSON parsers end at some level, and so does the stack of whoever walks a value.

use serde_json::Value;

/// Levels of an object, its managedFields included; deeper ones are refused. Parsers stop at 128 levels, and lists
/// and watch events put two around the object: what is stored can always be read.
pub const OBJECT_MAX: usize = 120;
/// Levels that a JSON patch may lead to; an operation that exceeds it is refused. The managedFields of an object are
/// four levels deeper than the object.
pub const PATCHED_MAX: usize = 100;

/// Returns how many maps and lists are in each other; 0 for a scalar. Does not recurse.
pub fn levels(value: &Value) -> usize {
    let mut deepest = 0;
    let mut open = vec![(value, 1)];
    while let Some((value, level)) = open.pop() {
        match value {
            Value::Array(list) => open.extend(list.iter().map(|below| (below, level + 1))),
            Value::Object(map) => open.extend(map.values().map(|below| (below, level + 1))),
            _ => continue,
        }
        deepest = deepest.max(level);
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_are_those_of_the_deepest_branch() {
        for (value, expected) in [
            (json!(1), 0),
            (json!({}), 1),
            (json!([]), 1),
            (json!({"a": 1}), 1),
            (json!({"a": [], "b": {"c": [{}]}, "d": 1}), 4),
        ] {
            assert_eq!(levels(&value), expected, "{value}");
        }
    }
}
