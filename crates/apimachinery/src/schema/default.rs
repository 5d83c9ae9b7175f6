//! Filling in defaults.

use serde_json::{Map, Value};

use super::{Additional, Schema};

impl Schema {
    /// Fills in defaults of absent fields. A `null` where null is no value counts as absent, and goes.
    pub fn fill_defaults(&self, object: &mut Value) {
        match object {
            Value::Object(fields) => self.fill_fields(fields),
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for element in list {
                        if let Some(default) = items.default.as_ref().filter(|_| element.is_null() && !items.nullable) {
                            *element = Value::clone(default);
                        }
                        items.fill_defaults(element);
                    }
                }
            }
            _ => {}
        }
    }

    fn fill_fields(&self, fields: &mut Map<String, Value>) {
        fields.retain(|name, value| {
            let Some(schema) = self.field(name).filter(|schema| value.is_null() && !schema.nullable) else {
                return true;
            };
            if let Some(default) = &schema.default {
                *value = Value::clone(default);
            }
            !value.is_null()
        });
        for (name, schema) in &self.properties {
            if let Some(default) = &schema.default
                && !fields.contains_key(&**name)
            {
                fields.insert(name.to_string(), Value::clone(default));
            }
        }
        for (name, value) in fields.iter_mut() {
            match (self.properties.get(name.as_str()), &self.additional) {
                (Some(schema), _) | (None, Additional::Of(schema)) => schema.fill_defaults(value),
                (None, _) => {}
            }
        }
    }
}
