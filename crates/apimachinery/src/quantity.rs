//! Resource quantities, `100m`, `1Gi`.

use serde_json::Value;

/// What the server says of a malformed quantity.
pub const MALFORMED: &str = "quantities must match the regular expression \
                             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Decimal,
    Binary,
    Exponent,
}

/// A number of billionths, exact within the range of quantities people write.
struct Parsed {
    nanos: i128,
    family: Family,
}

const NANO: i128 = 1_000_000_000;

/// Returns the value of a quantity: a number, or text such as `1.5Gi`.
pub fn of(value: &Value) -> Option<f64> {
    let parsed = match value {
        Value::String(text) => parse(text)?,
        Value::Number(number) => parse(&number.to_string())?,
        _ => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "comparing sizes needs no more than 15 digits")]
    Some(parsed.nanos as f64 / NANO as f64)
}

/// Returns the canonical form, as the server stores it: `0.5` is `500m`, `1.5Gi` is `1536Mi`.
///
/// # Errors
/// [`MALFORMED`].
pub fn canonical(text: &str) -> Result<String, &'static str> {
    let parsed = parse(text).ok_or(MALFORMED)?;
    Ok(match parsed.family {
        Family::Binary if parsed.nanos.abs() >= 1024 * NANO && parsed.nanos % NANO == 0 => {
            scaled(parsed.nanos / NANO, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
        }
        Family::Exponent => {
            let whole = scale_exponent(parsed.nanos);
            if whole.1 == 0 { whole.0.to_string() } else { format!("{}e{}", whole.0, whole.1) }
        }
        _ => scaled(parsed.nanos, 1000, &["n", "u", "m", "", "k", "M", "G", "T", "P", "E"]),
    })
}

/// Divides as long as nothing is lost.
fn scaled(mut number: i128, step: i128, suffixes: &[&str]) -> String {
    if number == 0 {
        return "0".to_owned();
    }
    let mut at = 0;
    while number % step == 0 && at + 1 < suffixes.len() {
        number /= step;
        at += 1;
    }
    format!("{number}{}", suffixes[at])
}

fn scale_exponent(nanos: i128) -> (i128, i32) {
    let (mut number, mut exponent) = (nanos, -9);
    while number != 0 && number % 1000 == 0 {
        number /= 1000;
        exponent += 3;
    }
    if number == 0 { (0, 0) } else { (number, exponent) }
}

fn parse(text: &str) -> Option<Parsed> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) || whole.len() > 20 {
        return None;
    }
    let (family, numerator, denominator) = multiplier(suffix)?;
    let fraction = &fraction[..fraction.len().min(18)];
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let product = mantissa.checked_mul(numerator)?.checked_mul(NANO)?;
    let divisor = scale.checked_mul(denominator)?;
    // What is finer than a billionth is rounded up.
    let nanos = product / divisor + i128::from(product % divisor != 0);
    Some(Parsed { nanos: if negative { -nanos } else { nanos }, family })
}

fn multiplier(suffix: &str) -> Option<(Family, i128, i128)> {
    let binary = |power: u32| Some((Family::Binary, 1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((Family::Decimal, 1000_i128.pow(power), 1));
    match suffix {
        "" => decimal(0),
        "n" => Some((Family::Decimal, 1, NANO)),
        "u" => Some((Family::Decimal, 1, 1_000_000)),
        "m" => Some((Family::Decimal, 1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
            Some(if exponent >= 0 { (Family::Exponent, power, 1) } else { (Family::Exponent, 1, power) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_stored_canonically() {
        for (text, expected) in [
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1Gi", "1Gi"),
            ("1000", "1k"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0", "0"),
            ("-5", "-5"),
            ("1e3", "1e3"),
            ("512Ki", "512Ki"),
            ("1024Mi", "1Gi"),
            ("0.5Ki", "512"),
            ("128974848", "128974848"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "--1", "."] {
            assert_eq!(canonical(text), Err(MALFORMED), "{text}");
        }
    }
}
