//! Rows of custom resources: the columns that their CRD asks for.

use jiff::Timestamp;
use serde_json::{Number, Value, json};

use super::{age, columns};
use crate::crd::Column;
use crate::{meta, text};

/// Returns the column definitions; a CRD without columns gets the age.
pub(super) fn columns(own: &[Column]) -> Value {
    let mut out = vec![columns::name()];
    if own.is_empty() {
        out.push(columns::plain("Age", "date", columns::age_description()));
    }
    let define = |column: &Column| {
        columns::definition(&column.name, &column.kind, &column.format, column.priority, &column.description)
    };
    out.extend(own.iter().map(define));
    out.into()
}

/// Returns the cells of one object.
pub(super) fn cells(own: &[Column], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut out = Vec::with_capacity(own.len() + 2);
    out.push(meta::name(object).into());
    if own.is_empty() {
        out.push(date(&object["metadata"]["creationTimestamp"], now));
    }
    out.extend(own.iter().map(|column| cell(column, object, now)));
    out
}

/// Returns what the path leads to first as the type of the column; `null` if there is nothing, or something else.
fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = column.path.as_ref().and_then(|path| path.find(object).into_iter().next());
    let Some(found) = found else { return Value::Null };
    match column.kind.as_str() {
        "string" => shown(found).into(),
        "integer" => integer(found),
        "number" => found.as_f64().map_or(Value::Null, number),
        "boolean" => found.as_bool().map_or(Value::Null, Value::from),
        "date" => date(found, now),
        _ => Value::Null,
    }
}

fn date(value: &Value, now: Timestamp) -> Value {
    value.as_str().map_or(Value::Null, |text| age::since_text(text, now).into())
}

fn integer(value: &Value) -> Value {
    match value {
        Value::Number(found) if found.is_f64() => {
            #[expect(clippy::cast_possible_truncation, reason = "the real server cuts off too")]
            let whole = found.as_f64().unwrap_or_default() as i64;
            whole.into()
        }
        Value::Number(_) => value.clone(),
        _ => Value::Null,
    }
}

/// Whole numbers are written without a fraction.
fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "whole and far from the limits of i64")]
    if value.fract() == 0.0 && value.abs() < 1e18 {
        return json!(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Renders any value as text, in the way of Go's printing.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => text::float(float),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => text::json(value),
    }
}
