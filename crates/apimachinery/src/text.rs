//! Syntax of names and other short texts: DNS labels and subdomains, qualified names, label values, Go durations.
//!
//! Each check returns the complaints the real server would make, in its words; none means the text is fine.

use serde_json::Value;

/// Longest DNS label.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
                     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                          alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or \
                          'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                         '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used \
                         for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
                           '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                           'my_value',  or '12345', regex used for validation is \
                           '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                         with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const ENV_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than \
                        '='";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                          'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_lower_alnum(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_lower_alnum(*first) && is_lower_alnum(*last) && bytes.iter().all(|byte| is_lower_alnum(*byte) || *byte == b'-')
}

/// Checks an RFC 1123 label.
pub fn check_label(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(too_long(LABEL_MAX));
    }
    if !is_label(text) {
        out.push(LABEL.to_owned());
    }
    out
}

/// Checks an RFC 1035 label, as services need.
pub fn check_label_1035(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(too_long(LABEL_MAX));
    }
    if !is_label(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        out.push(LABEL_1035.to_owned());
    }
    out
}

/// Checks an RFC 1123 subdomain, what most objects are named by.
pub fn check_subdomain(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label) {
        out.push(SUBDOMAIN.to_owned());
    }
    out
}

/// Checks a name that becomes one segment of a URL, as RBAC objects need.
pub fn check_path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

fn is_qualified_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Checks a label or annotation key: `[prefix/]name`.
pub fn check_qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                 validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and \
                 '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".to_owned());
            } else {
                out.extend(check_subdomain(prefix).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        out.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_qualified_part(name) {
        out.push(QUALIFIED.to_owned());
    }
    out
}

/// Checks a label value.
pub fn check_label_value(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > LABEL_MAX {
        out.push(too_long(LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified_part(text) {
        out.push(LABEL_VALUE.to_owned());
    }
    out
}

/// Checks the name of an environment variable.
pub fn check_env_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec![ENV_NAME.to_owned()]
}

/// Checks a key of a ConfigMap or Secret.
pub fn check_config_key(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        out.push(too_long(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        out.push(CONFIG_KEY.to_owned());
    }
    match text {
        "." => out.push("must not be '.'".to_owned()),
        ".." => out.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => out.push("must not start with '..'".to_owned()),
        _ => {}
    }
    out
}

/// Checks the name of a port.
pub fn check_port_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 15 {
        out.push("must be no more than 15 characters".to_owned());
    }
    if !text.bytes().all(|byte| is_lower_alnum(byte) || byte == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".to_owned());
    }
    out
}

/// Parses a duration as Go writes it, `1h2m3.5s`; seconds.
pub fn parse_go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    Some(sign * total)
}

/// Parses a time as RFC 3339 writes it, and nothing else.
pub fn parse_rfc3339(text: &str) -> Option<jiff::Timestamp> {
    let bytes = text.as_bytes();
    let shape = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let is_shaped = shape.iter().all(|(at, byte)| bytes.get(*at) == Some(byte));
    let zone = bytes.len().checked_sub(6).map(|at| &bytes[at..])?;
    let has_zone = zone[5] == b'Z' || (matches!(zone[0], b'+' | b'-') && zone[3] == b':');
    let is_leap = bytes.get(17..19) == Some(b"60");
    if is_shaped && has_zone && !is_leap { text.parse().ok() } else { None }
}

/// Renders a float as Go does: shortest digits, an exponent of two digits for the very large and small.
pub(crate) fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

/// Renders JSON as Go does: what HTML would take for markup is escaped, whole floats have no fraction.
pub(crate) fn json(value: &Value) -> String {
    const ESCAPES: [(char, &str); 5] =
        [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    let mut value = value.clone();
    whole_floats(&mut value);
    ESCAPES.iter().fold(value.to_string(), |json, (from, to)| json.replace(*from, to))
}

fn whole_floats(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() < 1e18 {
                #[expect(clippy::cast_possible_truncation, reason = "whole and far from the limits of i64")]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_floats),
        Value::Object(map) => map.values_mut().for_each(whole_floats),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_and_refused() {
        type Check = fn(&str) -> Vec<String>;
        let cases: [(Check, &str, bool); 19] = [
            (check_label, "a-1", true),
            (check_label, "A", false),
            (check_label, "a.b", false),
            (check_label, "", false),
            (check_label_1035, "1a", false),
            (check_subdomain, "a.b-c", true),
            (check_subdomain, "a..b", false),
            (check_qualified_name, "example.com/Name_1", true),
            (check_qualified_name, "/a", false),
            (check_qualified_name, "a/b/c", false),
            (check_label_value, "", true),
            (check_label_value, "a b", false),
            (check_env_name, "A B", true),
            (check_env_name, "A=B", false),
            (check_config_key, "a_B.c", true),
            (check_config_key, "..", false),
            (check_path_segment, "system:a", true),
            (check_path_segment, "a/b", false),
            (check_port_name, "http", true),
        ];
        for (check, text, expected) in cases {
            assert_eq!(check(text).is_empty(), expected, "{text:?}: {:?}", check(text));
        }
    }

    #[test]
    fn durations_are_parsed_as_go_does() {
        assert_eq!(parse_go_duration("1h2m3.5s"), Some(3723.5));
        assert_eq!(parse_go_duration("-1ms"), Some(-0.001));
        assert_eq!(parse_go_duration("1"), None);
        assert_eq!(parse_go_duration(""), None);
    }

    #[test]
    fn floats_are_written_as_go_does() {
        for (value, expected) in
            [(1.5, "1.5"), (100_000.0, "100000"), (1e6, "1e+06"), (-1_234_567.5, "-1.2345675e+06"), (1.2e-5, "1.2e-05")]
        {
            assert_eq!(float(value), expected);
        }
    }
}
