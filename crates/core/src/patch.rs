//! The smallest JSON merge patch (RFC 7386) that turns one document into another.

use serde::Serialize;
use serde_json::{Map, Value};

/// Returns the merge patch from `old` to `new`, or `None` when they are equal.
///
/// # Guarantees
/// Applying the patch to `old` gives `new`; members equal on both sides are not mentioned, so fields of other owners
/// are left alone. Lists are replaced whole, as RFC 7386 defines.
///
/// # Assumptions
/// `new` holds no JSON null inside objects: in a merge patch null means removal.
pub fn between(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        match old.get(key) {
            Some(before) => {
                if let Some(change) = between(before, value) {
                    patch.insert(key.clone(), change);
                }
            }
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

/// Returns the merge patch between two typed values; `None` when they serialise equally.
///
/// # Panics
/// When a value does not serialise to JSON, which the API types always do.
pub fn between_typed<T: Serialize>(old: &T, new: &T) -> Option<Value> {
    between(&to_value(old), &to_value(new))
}

/// Serialises an API value.
///
/// # Panics
/// When the value does not serialise to JSON, which the API types always do.
pub fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("API values serialise to JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().unwrap();
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    #[test]
    fn equal_documents_need_no_patch() {
        assert_eq!(between(&json!({"a": [1]}), &json!({"a": [1]})), None);
    }

    #[test]
    fn removed_members_become_null_and_equal_ones_are_left_out() {
        let patch = between(&json!({"a": 1, "b": {"c": 1, "d": 2}}), &json!({"b": {"c": 3, "d": 2}}));
        assert_eq!(patch, Some(json!({"a": null, "b": {"c": 3}})));
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..4i64).prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_the_patch_gives_the_new_document(old in document(), new in document()) {
            let mut merged = old.clone();
            if let Some(patch) = between(&old, &new) {
                merge(&mut merged, &patch);
            }
            prop_assert_eq!(merged, new);
        }
    }
}
