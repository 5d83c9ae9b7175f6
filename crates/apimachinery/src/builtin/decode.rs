//! Decoding JSON as the typed structs of the real server would: wrong types refused, unknown fields and nulls dropped.

use serde_json::{Map, Value};

use crate::field::Path;
use crate::quantity;
use crate::schema::{Additional, Kind, Schema};

/// Decodes `object` in place; returns the paths of unknown fields.
///
/// # Errors
/// The text of the decoder, `json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32`.
pub(crate) fn typed(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    let mut walk = Walk { unknown: Vec::new() };
    walk.value(schema, object, &Path::Root, &Owner { go_type: "", fields: None })?;
    walk.unknown.sort();
    Ok(walk.unknown)
}

struct Walk {
    unknown: Vec<String>,
}

/// The struct that a value is in, for messages.
struct Owner<'a> {
    go_type: &'a str,
    fields: Option<&'a Trail<'a>>,
}

/// Field names from the root; list indices and map keys leave no mark.
struct Trail<'a> {
    parent: Option<&'a Trail<'a>>,
    name: &'a str,
}

impl Trail<'_> {
    fn join(&self) -> String {
        match self.parent {
            Some(parent) => format!("{}.{}", parent.join(), self.name),
            None => self.name.to_owned(),
        }
    }
}

impl Walk {
    fn value(&mut self, schema: &Schema, value: &mut Value, path: &Path<'_>, owner: &Owner<'_>) -> Result<(), String> {
        match schema.kind {
            Kind::Object if schema.preserve_unknown => Ok(()),
            Kind::Object => match value {
                Value::Object(fields) => self.object(schema, fields, path, owner),
                other => Err(mismatch(schema, other, owner)),
            },
            Kind::Array => match value {
                Value::Array(list) => {
                    let Some(items) = &schema.items else { return Ok(()) };
                    for (index, element) in list.iter_mut().enumerate() {
                        if element.is_null() {
                            *element = zero(items);
                        }
                        self.value(items, element, &path.index(index), owner)?;
                    }
                    Ok(())
                }
                other => Err(mismatch(schema, other, owner)),
            },
            Kind::String => match (value.as_str(), format(schema)) {
                (None, _) => Err(mismatch(schema, value, owner)),
                (Some(text), Some("date-time")) => check_time(text),
                (Some(text), Some("byte")) => check_base64(text),
                (Some(_), _) => Ok(()),
            },
            Kind::Boolean if !value.is_boolean() => Err(mismatch(schema, value, owner)),
            Kind::Integer if !fits(schema, value) => Err(mismatch(schema, value, owner)),
            Kind::Number if !value.is_number() => Err(mismatch(schema, value, owner)),
            Kind::IntOrString => self.int_or_string(schema, value, owner),
            Kind::Any | Kind::Boolean | Kind::Integer | Kind::Number => Ok(()),
        }
    }

    fn object(
        &mut self,
        schema: &Schema,
        fields: &mut Map<String, Value>,
        path: &Path<'_>,
        owner: &Owner<'_>,
    ) -> Result<(), String> {
        // An absent value and a null one are the same to typed structs.
        fields.retain(|_, value| !value.is_null());
        let mut unknown = Vec::new();
        for (name, value) in fields.iter_mut() {
            let at = path.child(name);
            if let Some(property) = schema.properties.get(name.as_str()) {
                let trail = Trail { parent: owner.fields, name };
                let go_type = schema.go_type.as_deref().unwrap_or(owner.go_type);
                self.value(property, value, &at, &Owner { go_type, fields: Some(&trail) })?;
                continue;
            }
            match &schema.additional {
                Additional::Of(of) => self.value(of, value, &at, owner)?,
                Additional::Any => {}
                Additional::None => unknown.push(name.clone()),
            }
        }
        for name in unknown {
            self.unknown.push(path.child(&name).to_string());
            fields.remove(&name);
        }
        Ok(())
    }

    fn int_or_string(&mut self, schema: &Schema, value: &mut Value, owner: &Owner<'_>) -> Result<(), String> {
        let is_quantity = schema.go_type.as_deref() == Some("resource.Quantity");
        match value {
            Value::String(text) if is_quantity => {
                *text = quantity::canonical(text).map_err(str::to_owned)?;
                Ok(())
            }
            Value::Number(number) if is_quantity => {
                *value = quantity::canonical(&number.to_string()).map_err(str::to_owned)?.into();
                Ok(())
            }
            Value::String(_) | Value::Number(_) => Ok(()),
            _ if is_quantity => Err(quantity::MALFORMED.to_owned()),
            other => Err(mismatch(schema, other, owner)),
        }
    }
}

fn format(schema: &Schema) -> Option<&str> {
    schema.checks.as_ref()?.format.as_deref()
}

fn fits(schema: &Schema, value: &Value) -> bool {
    match (value.as_i64(), format(schema)) {
        (Some(number), Some("int32")) => i32::try_from(number).is_ok(),
        (Some(_), _) => true,
        (None, _) => false,
    }
}

fn zero(schema: &Schema) -> Value {
    match schema.kind {
        Kind::Object => Value::Object(Map::new()),
        Kind::Array => Value::Array(Vec::new()),
        Kind::String => "".into(),
        Kind::Integer | Kind::Number => 0.into(),
        Kind::Boolean => false.into(),
        Kind::Any | Kind::IntOrString => Value::Null,
    }
}

fn check_time(text: &str) -> Result<(), String> {
    if crate::text::parse_rfc3339(text).is_some() {
        return Ok(());
    }
    Err(format!("parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"", text))
}

fn check_base64(text: &str) -> Result<(), String> {
    use base64::Engine as _;
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _)) => Err(format!("illegal base64 data at input byte {at}")),
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len() / 4 * 4)),
    }
}

fn mismatch(schema: &Schema, value: &Value, owner: &Owner<'_>) -> String {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if schema.kind == Kind::Integer => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    let wanted = go_name(schema);
    match owner.fields {
        Some(trail) => {
            let name = owner.go_type.rsplit('.').next().unwrap_or_default();
            format!("json: cannot unmarshal {found} into Go struct field {name}.{} of type {wanted}", trail.join())
        }
        None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
    }
}

fn go_name(schema: &Schema) -> String {
    match (&schema.go_type, schema.kind) {
        (Some(name), _) => name.to_string(),
        (None, Kind::String) => "string".to_owned(),
        (None, Kind::Boolean) => "bool".to_owned(),
        (None, Kind::Integer) => format(schema).unwrap_or("int64").to_owned(),
        (None, Kind::Number) => "float64".to_owned(),
        (None, Kind::Array) => {
            format!("[]{}", schema.items.as_ref().map_or("interface {}".to_owned(), |of| go_name(of)))
        }
        (None, Kind::Object) => match &schema.additional {
            Additional::Of(of) => format!("map[string]{}", go_name(of)),
            _ => "map[string]interface {}".to_owned(),
        },
        (None, Kind::Any | Kind::IntOrString) => "interface {}".to_owned(),
    }
}
