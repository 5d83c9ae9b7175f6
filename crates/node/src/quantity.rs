//! Kubernetes quantities such as `100m` or `256Mi`, as far as environment variables and files show them.

/// Parses a quantity into billionths, so that `100m` and `1n` are exact.
pub(crate) fn parse_nano(text: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|exponent| *exponent <= 18)?;
            NANO * 10_i128.pow(exponent)
        }
    };
    let (sign, number) = match number.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    Some(sign * digits.checked_mul(scale)? / 10_i128.pow(u32::try_from(fraction.len()).ok()?))
}

/// Divides and rounds up, as `resourceFieldRef` does.
pub(crate) fn divide(quantity: &str, divisor: &str) -> Option<i128> {
    let divisor = if divisor.is_empty() || divisor == "0" { "1" } else { divisor };
    let (quantity, divisor) = (parse_nano(quantity)?, parse_nano(divisor)?);
    (divisor > 0).then(|| quantity.div_euclid(divisor) + i128::from(quantity.rem_euclid(divisor) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_divided_and_rounded_up() {
        let cases = [
            ("100m", "1", Some(1)),
            ("100m", "1m", Some(100)),
            ("1.5", "1m", Some(1500)),
            ("256Mi", "1", Some(268_435_456)),
            ("256Mi", "1Mi", Some(256)),
            ("1500", "1k", Some(2)),
            ("2e3", "", Some(2000)),
            ("2", "0", Some(2)),
            ("x", "1", None),
            ("", "1", None),
            ("1", "-1", None),
        ];
        for (quantity, divisor, expected) in cases {
            assert_eq!(divide(quantity, divisor), expected, "{quantity} / {divisor}");
        }
    }
}
