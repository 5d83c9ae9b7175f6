//! Times as people read them: `5m`, `3d2h`.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::text::parse_rfc3339;

/// What is shown for a time that nobody set.
pub(super) const UNKNOWN: &str = "<unknown>";

/// Go's durations end after 292 years; nothing older is told apart.
const SECONDS_MAX: i64 = i64::MAX / 1_000_000_000;

/// Returns how long ago a time of a built-in type was.
pub(super) fn since(time: &Value, now: Timestamp) -> String {
    at(time).map_or_else(|| UNKNOWN.to_owned(), |then| human(now.duration_since(then)))
}

/// Returns the age of an object.
pub(super) fn of(object: &Value, now: Timestamp) -> String {
    since(&object["metadata"]["creationTimestamp"], now)
}

/// Returns a time of a built-in type; `None` if it is absent or zero.
pub(super) fn at(time: &Value) -> Option<Timestamp> {
    parse_rfc3339(time.as_str()?).filter(|time| *time != zero())
}

/// Returns how long ago a time in a custom object was; it may hold any text.
pub(super) fn since_text(text: &str, now: Timestamp) -> String {
    if matches!(text, "" | "null") {
        return UNKNOWN.to_owned();
    }
    match parse_rfc3339(text) {
        None => "<invalid>".to_owned(),
        Some(then) if then == zero() => UNKNOWN.to_owned(),
        Some(then) => human(now.duration_since(then)),
    }
}

/// The time that Go takes for "not set".
fn zero() -> Timestamp {
    const YEAR_ONE: i64 = -62_135_596_800;
    Timestamp::from_second(YEAR_ONE).unwrap_or(Timestamp::MIN)
}

/// Renders a duration with two or three significant figures.
pub(super) fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().min(SECONDS_MAX);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        // Clocks of machines differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_or_three_figures() {
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (266_400, "3d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
            (i64::MAX, "292y"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn only_rfc_3339_is_a_time() {
        let now: Timestamp = "2024-01-02T00:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2024-01-01T00:00:00Z", "24h"),
            ("2024-01-01T02:00:00.5+02:00", "23h"),
            ("0001-01-01T00:00:00Z", "<unknown>"),
            ("", "<unknown>"),
            ("null", "<unknown>"),
            ("2024-01-01", "<invalid>"),
            ("2024-01-01 00:00:00Z", "<invalid>"),
            ("2024-01-01T00:00:60Z", "<invalid>"),
            ("2024-01-01T00:00:00", "<invalid>"),
            ("soon", "<invalid>"),
            ("ééé", "<invalid>"),
            ("2025-01-01T00:00:00Z", "<invalid>"),
        ] {
            assert_eq!(since_text(text, now), expected, "{text}");
        }
    }
}
