//! Sets and maps in lists hold no element twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Additional, List, Schema};
use crate::field::{Error, Path};

impl Schema {
    /// Returns which elements of sets and maps below occur twice.
    pub(super) fn list_errors(&self, object: &Value) -> Vec<Error> {
        let mut errors = Vec::new();
        self.check_lists(object, &Path::Root, &mut errors);
        errors
    }

    fn check_lists(&self, value: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    match (self.properties.get(name.as_str()), &self.additional) {
                        (Some(schema), _) => schema.check_lists(value, &path.child(name), errors),
                        (None, Additional::Of(schema)) => schema.check_lists(value, &path.key(name), errors),
                        (None, _) => {}
                    }
                }
            }
            Value::Array(list) => {
                match &self.list {
                    List::Atomic => {}
                    List::Set => check_unique(list.iter().cloned(), path, errors),
                    List::Map(keys) => check_map(keys, list, path, errors),
                }
                for (index, element) in list.iter().enumerate() {
                    if let Some(items) = &self.items {
                        items.check_lists(element, &path.index(index), errors);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Elements are known by the key fields that they have: two without any are the same.
fn check_map(keys: &[Box<str>], list: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    if let Some(index) = list.iter().position(|element| !element.is_object() && !element.is_null()) {
        let why = "must be an object for an array of list-type map";
        errors.push(Error::invalid(&path.index(index), list[index].clone(), why));
        return;
    }
    let key = |element: &Value| {
        let field = |name: &str| Some((name.to_owned(), element.get(name)?.clone()));
        Value::Object(keys.iter().filter_map(|name| field(name)).collect::<Map<_, _>>())
    };
    check_unique(list.iter().map(key), path, errors);
}

/// Reports the second of each kind, further ones are not news.
fn check_unique(elements: impl Iterator<Item = Value>, path: &Path<'_>, errors: &mut Vec<Error>) {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for (index, element) in elements.enumerate() {
        let count = seen.entry(element.to_string()).or_default();
        *count += 1;
        if *count == 2 {
            errors.push(Error::duplicate(&path.index(index), element));
        }
    }
}
