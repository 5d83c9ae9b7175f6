//! Fields that the schema does not know: dropping them, and naming them.

use serde_json::{Map, Value};

use super::{Additional, ROOT_FIELDS, Schema};
use crate::field::Path;

impl Schema {
    /// Drops fields that the schema does not know.
    pub fn prune(&self, object: &mut Value) {
        let mut walk = Walk { found: None };
        walk.value(Some(self), object, &Path::Root, Place::Root);
    }

    /// Drops fields that the schema does not know from a value that is not a whole object.
    pub(crate) fn prune_part(&self, value: &mut Value) {
        let mut walk = Walk { found: None };
        walk.value(Some(self), value, &Path::Root, Place::Below);
    }

    /// Returns the paths of fields that the schema does not know, sorted.
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        let mut copy = object.clone();
        self.prune_listing(&mut copy)
    }

    /// Drops fields that the schema does not know, and returns their paths, sorted.
    pub(crate) fn prune_listing(&self, object: &mut Value) -> Vec<String> {
        let mut walk = Walk { found: Some(Vec::new()) };
        walk.value(Some(self), object, &Path::Root, Place::Root);
        let mut found = walk.found.unwrap_or_default();
        found.sort();
        found
    }
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The whole object.
    Root,
    /// Anywhere below.
    Below,
    /// Element of a list that preserves unknown fields: what the list preserves holds for its elements too.
    Preserved,
}

struct Walk {
    found: Option<Vec<String>>,
}

impl Walk {
    /// `schema` is `None` where `additionalProperties: true` says nothing of what lies below: maps there are emptied.
    fn value(&mut self, schema: Option<&Schema>, value: &mut Value, path: &Path<'_>, place: Place) {
        match value {
            Value::Object(object) => self.object(schema, object, path, place),
            Value::Array(list) => {
                let items = schema.and_then(|schema| schema.items.as_deref());
                let preserves = schema.is_some_and(|schema| schema.preserve_unknown) || place == Place::Preserved;
                if items.is_none() && preserves {
                    return;
                }
                let place = if preserves { Place::Preserved } else { Place::Below };
                for (index, element) in list.iter_mut().enumerate() {
                    self.value(items, element, &path.index(index), place);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: Option<&Schema>, object: &mut Map<String, Value>, path: &Path<'_>, place: Place) {
        let mut unknown = Vec::new();
        for (name, value) in object.iter_mut() {
            let at = path.child(name);
            let Some(schema) = schema else {
                unknown.push(name.clone());
                continue;
            };
            let is_root_field = (place == Place::Root || schema.embedded) && ROOT_FIELDS.contains(&name.as_str());
            if let Some(property) = schema.properties.get(name.as_str()) {
                self.value(Some(property), value, &at, Place::Below);
                continue;
            }
            match &schema.additional {
                // Kept whole: the rules of metadata are not the schema's to give.
                _ if is_root_field => {}
                Additional::Of(of) => self.value(Some(of), value, &at, Place::Below),
                Additional::Any => self.value(None, value, &at, Place::Below),
                Additional::None if schema.preserve_unknown || place == Place::Preserved => {}
                Additional::None => unknown.push(name.clone()),
            }
        }
        for name in unknown {
            if let Some(found) = &mut self.found {
                found.push(path.child(&name).to_string());
            }
            object.remove(&name);
        }
    }
}
