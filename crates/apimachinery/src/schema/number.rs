//! Numbers as the real server tells them apart: whole ones of 64 bits, and floats.

use std::fmt;

use serde_json::Value;

use crate::text;

/// A number in an object, or a limit that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i64),
    Float(f64),
}

impl From<&serde_json::Number> for Number {
    fn from(number: &serde_json::Number) -> Self {
        match number.as_i64() {
            Some(whole) => Self::Whole(whole),
            None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(whole) => whole.fmt(f),
            Self::Float(float) => f.write_str(&text::float(*float)),
        }
    }
}

impl Number {
    /// Returns a limit as it is compared with this number: whole ones know no fractions.
    pub(super) fn limit(self, limit: f64) -> Self {
        match self {
            #[expect(clippy::cast_possible_truncation, reason = "what the real server does")]
            Self::Whole(_) => Self::Whole(limit as i64),
            Self::Float(_) => Self::Float(limit),
        }
    }

    pub(super) fn value(self) -> Value {
        match self {
            Self::Whole(whole) => whole.into(),
            Self::Float(float) => float.into(),
        }
    }

    pub(super) fn is_above(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => one > other,
            (Self::Float(one), Self::Float(other)) => one > other,
            _ => false,
        }
    }

    pub(super) fn equals(self, other: Self) -> bool {
        self == other
    }

    pub(super) fn is_positive(self) -> bool {
        match self {
            Self::Whole(whole) => whole > 0,
            Self::Float(float) => float > 0.0,
        }
    }

    pub(super) fn is_multiple_of(self, factor: Self) -> bool {
        match (self, factor) {
            (Self::Whole(whole), Self::Whole(factor)) => whole.checked_rem(factor) == Some(0),
            (Self::Float(float), Self::Float(factor)) if factor < 1.0 => is_whole(1.0 / factor * float),
            (Self::Float(float), Self::Float(factor)) => is_whole(float / factor),
            _ => false,
        }
    }
}

/// Returns whether a float holds a whole number that floats can tell from its neighbours.
fn is_whole(float: f64) -> bool {
    const MAX: f64 = 9_007_199_254_740_991.0;
    const EPSILON: f64 = 1e-9;
    if !float.is_finite() || float.abs() > MAX {
        return false;
    }
    let whole = float.trunc();
    float == whole || (float > 1.0 && (float - whole) / (float + whole) < EPSILON)
}

/// Returns whether a value is a whole number, however it is written.
pub(super) fn is_integer(value: &Value) -> bool {
    match value {
        Value::Number(number) => match Number::from(number) {
            Number::Whole(_) => true,
            Number::Float(float) => is_whole(float),
        },
        _ => false,
    }
}

/// Names the format of a value that should have had a string format.
pub(super) fn format_name(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        _ => "",
    }
}

/// Returns whether `value` is the `allowed` one of an enum. A number is first brought to the form of the other.
pub(super) fn is_same(value: &Value, allowed: &Value) -> bool {
    match (value, allowed) {
        (Value::Null, _) => false,
        (Value::Number(value), Value::Number(allowed)) => {
            let (value, allowed) = (Number::from(value), Number::from(allowed));
            match (value, allowed) {
                #[expect(clippy::cast_possible_truncation, reason = "what the real server does: 2.5 is a 2")]
                (Number::Float(float), Number::Whole(whole)) => float as i64 == whole,
                #[expect(clippy::cast_precision_loss, reason = "what the real server does")]
                (Number::Whole(whole), Number::Float(float)) => whole as f64 == float,
                (value, allowed) => value == allowed,
            }
        }
        _ => value == allowed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_are_known_however_they_are_written() {
        for (value, expected) in [
            (json!(1), true),
            (json!(-1.0), true),
            (json!(2.5), false),
            (json!(1e15), true),
            (json!(1e21), false),
            (json!(u64::MAX), false),
            (json!("1"), false),
        ] {
            assert_eq!(is_integer(&value), expected, "{value}");
        }
    }
}
