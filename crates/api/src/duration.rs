//! Durations as Go writes and reads them.
//!
//! # Source
//! `01-api.md` §1.5

use std::fmt;
use std::str::FromStr;

/// A signed duration in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Duration {
    nanoseconds: i64,
}

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not of the form sign, number, unit.
    #[error("time: invalid duration {text:?}")]
    Invalid {
        /// What was given.
        text: String,
    },
    /// A number without unit.
    #[error("time: missing unit in duration {text:?}")]
    MissingUnit {
        /// What was given.
        text: String,
    },
    /// A unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// What was given.
        text: String,
    },
}

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

impl Duration {
    /// The shortest reconciliation interval that is accepted.
    pub const MINUTE: Self = Self { nanoseconds: MINUTE };

    /// Returns a duration of whole seconds, at most about 292 years.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { nanoseconds: seconds.saturating_mul(SECOND) }
    }

    /// Returns the number of nanoseconds.
    pub const fn as_nanoseconds(self) -> i64 {
        self.nanoseconds
    }

    /// Returns the duration for use with timers; a negative one is zero.
    pub fn as_wait(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.nanoseconds).unwrap_or(0))
    }
}

impl FromStr for Duration {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let invalid = || ParseError::Invalid { text: text.to_owned() };
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (part, after) = parse_part(text, rest)?;
            total = total.checked_add(part).filter(|total| *total <= 1 << 63).ok_or_else(invalid)?;
            rest = after;
        }
        let nanoseconds = match negative {
            true => 0i64.checked_sub_unsigned(total),
            false => i64::try_from(total).ok(),
        };
        Ok(Self { nanoseconds: nanoseconds.ok_or_else(invalid)? })
    }
}

/// Reads one number with its unit; returns nanoseconds and what follows.
fn parse_part<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), ParseError> {
    let invalid = || ParseError::Invalid { text: text.to_owned() };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();

    let whole_digits = digits(rest);
    let (whole, mut rest) = rest.split_at(whole_digits);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        (fraction, rest) = after.split_at(digits(after));
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(invalid());
    }
    let unit_bytes = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_bytes);
    let scale: u64 = match unit {
        "" => return Err(ParseError::MissingUnit { text: text.to_owned() }),
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND.unsigned_abs(),
        "m" => MINUTE.unsigned_abs(),
        "h" => HOUR.unsigned_abs(),
        other => {
            return Err(ParseError::UnknownUnit { unit: other.to_owned(), text: text.to_owned() });
        }
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
    let nanoseconds = whole.checked_mul(scale).filter(|value| *value <= 1 << 63).ok_or_else(invalid)?;
    // Digits beyond the eighteenth are far below a nanosecond of an hour.
    let kept = &fraction[..fraction.len().min(18)];
    let numerator: u128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| invalid())? };
    let part = numerator * u128::from(scale) / 10u128.pow(kept.len() as u32);
    let nanoseconds = nanoseconds.saturating_add(u64::try_from(part).map_err(|_| invalid())?);
    Ok((nanoseconds, rest))
}

impl fmt::Display for Duration {
    /// Writes the canonical form: no leading zero units, and ends in seconds from one second on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.nanoseconds.unsigned_abs();
        let sign = if self.nanoseconds < 0 { "-" } else { "" };
        let decimal = |value: u64, unit: u64| {
            let (whole, fraction) = (value / unit, value % unit);
            let width = unit.ilog10() as usize;
            let text = format!("{fraction:0width$}");
            match text.trim_end_matches('0') {
                "" => whole.to_string(),
                digits => format!("{whole}.{digits}"),
            }
        };
        let (second, minute, hour) = (SECOND.unsigned_abs(), MINUTE.unsigned_abs(), HOUR.unsigned_abs());
        match total {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{sign}{total}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}\u{b5}s", decimal(total, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}ms", decimal(total, 1_000_000)),
            _ => {
                f.write_str(sign)?;
                if total >= hour {
                    write!(f, "{}h", total / hour)?;
                }
                if total >= minute {
                    write!(f, "{}m", total % hour / minute)?;
                }
                write!(f, "{}s", decimal(total % minute, second))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_form_is_that_of_go() {
        for (text, canonical) in [
            ("10m", "10m0s"),
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("30s", "30s"),
            ("1500ms", "1.5s"),
            ("0", "0s"),
            ("-0", "0s"),
            ("+5s", "5s"),
            ("-1m", "-1m0s"),
            ("1.5h", "1h30m0s"),
            (".5s", "500ms"),
            ("1.s", "1s"),
            ("1us", "1\u{b5}s"),
            ("1.1\u{3bc}s", "1.1\u{b5}s"),
            ("1h1ns", "1h0m0.000000001s"),
            ("0.1s", "100ms"),
            ("0.3s", "300ms"),
            ("1.000000001s", "1.000000001s"),
            ("0.9999999999s", "999.999999ms"),
            ("-9223372036854775808ns", "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn errors_speak_as_go_does() {
        for (text, error) in [
            ("", r#"time: invalid duration """#),
            ("soon", r#"time: invalid duration "soon""#),
            ("-", r#"time: invalid duration "-""#),
            (".s", r#"time: invalid duration ".s""#),
            ("1", r#"time: missing unit in duration "1""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("1m 2s", r#"time: unknown unit "m " in duration "1m 2s""#),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("2562048h", r#"time: invalid duration "2562048h""#),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn a_negative_wait_is_no_wait() {
        assert_eq!("-5s".parse::<Duration>().unwrap().as_wait(), std::time::Duration::ZERO);
        assert_eq!("1500ms".parse::<Duration>().unwrap().as_wait(), std::time::Duration::from_millis(1500));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanoseconds in any::<i64>()) {
            let duration = Duration { nanoseconds };
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn nothing_panics(text in "[-+]?[0-9.]{0,25}[a-zµ]{0,2}[0-9.]{0,5}[a-z]{0,2}") {
            let _ = text.parse::<Duration>();
        }
    }
}
