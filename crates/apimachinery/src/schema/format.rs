//! String formats that CRDs may ask for, as generous or strict as the validators of the real server are.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use crate::text::parse_go_duration;

/// Returns whether `text` is of format `name`, or `None` if that is not checked.
pub(crate) fn is_valid(name: &str, text: &str) -> Option<bool> {
    Some(match name.replace('-', "").as_str() {
        "datetime" => is_date_time(text),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "byte" => matches(&BASE64, text),
        "ipv4" => is_ip_v4(text),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => matches(&UUID, text),
        "uuid3" => matches(&UUID3, text),
        "uuid4" => matches(&UUID4, text),
        "uuid5" => matches(&UUID5, text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "uri" => is_uri(text),
        "hexcolor" => matches(&HEX_COLOR, text),
        "rgbcolor" => matches(&RGB_COLOR, text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => text.len() == 11 && matches(&SSN, text),
        "password" => true,
        _ => return None,
    })
}

/// A pattern of the real server.
type Pattern = LazyLock<Option<Regex>>;

macro_rules! patterns {
    ($($name:ident = $text:expr;)*) => { $( static $name: Pattern = LazyLock::new(|| Regex::new($text).ok()); )* };
}

patterns! {
    BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$";
    UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID3 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID4 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    UUID5 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = concat!(
        r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|",
        r"25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*\)$",
    );
    SSN = r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    CREDIT_CARD = concat!(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|",
        r"3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$",
    );
    TIME = r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
    DURATIONS = r"([0-9]+)[\t\n\f\r ]*([A-Za-zµ]+)";
    SYMBOL = r"^\p{S}$";
}

fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let found = TIME.as_ref().and_then(|pattern| pattern.captures(time));
    is_date(date) && found.is_some_and(|found| &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
}

/// Durations as Go writes them (`1h30m`), and any text that holds one with words (`in 2 days`).
fn is_duration(text: &str) -> bool {
    // The last spelling of each unit may go on: `days`.
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    if parse_go_duration(text).is_some() {
        return true;
    }
    let Some(pattern) = &*DURATIONS else { return false };
    let mut is_known = false;
    for found in pattern.captures_iter(text) {
        if found[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = found[2].to_lowercase();
        is_known |= UNITS.iter().any(|spellings| {
            spellings.contains(&unit.as_str()) || spellings.last().is_some_and(|last| unit.starts_with(last))
        });
    }
    is_known
}

/// Leading zeros are fine; so are IPv4 addresses in the clothes of IPv6.
fn is_ip_v4(text: &str) -> bool {
    if text.contains(':') {
        return text.contains('.') && text.parse::<Ipv6Addr>().is_ok();
    }
    let octet = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.trim_start_matches('0').len() <= 3
            && part.parse::<u64>().is_ok_and(|number| number < 256)
    };
    text.split('.').count() == 4 && text.split('.').all(octet)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let max = if address.contains(':') { 128 } else { 32 };
    let is_address = if max == 128 { address.parse::<Ipv6Addr>().is_ok() } else { is_ip_v4(address) };
    is_address
        && !bits.is_empty()
        && bits.bytes().all(|byte| byte.is_ascii_digit())
        && bits.parse::<u32>().is_ok_and(|bits| bits <= max)
}

/// `aa:bb:…`, `aa-bb-…` or `aabb.ccdd.…`, of 6, 8 or 20 bytes.
fn is_mac(text: &str) -> bool {
    let hex = |group: &str, len: usize| group.len() == len && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.len() >= 14
        && [(':', 2), ('-', 2), ('.', 4)].into_iter().any(|(separator, len)| {
            let count = text.split(separator).count();
            matches!(count * len / 2, 6 | 8 | 20) && text.split(separator).all(|group| hex(group, len))
        })
}

/// An address as mail headers hold it, with or without a name before it.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((name, address)) => {
            let name = name.trim();
            let is_quoted = name.len() > 1 && name.starts_with('"') && name.ends_with('"');
            if !is_quoted && !name.split_whitespace().all(is_dot_atom) {
                return false;
            }
            address
        }
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let domain = domain.trim_start();
    let is_quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.strip_prefix('[').and_then(|domain| domain.strip_suffix(']'));
    let is_domain = literal.map_or_else(|| is_dot_atom(domain), |literal| literal.parse::<IpAddr>().is_ok());
    (is_quoted || is_dot_atom(local)) && is_domain
}

fn is_dot_atom(text: &str) -> bool {
    let is_atom = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    text.split('.').all(|part| !part.is_empty() && part.chars().all(is_atom))
}

fn is_hostname(text: &str) -> bool {
    let is_word = |c: char| {
        c.is_ascii_alphanumeric()
            || c.is_alphabetic()
            || "$+<=>^`|~".contains(c)
            || (!c.is_ascii() && matches(&SYMBOL, c.encode_utf8(&mut [0; 4])))
    };
    let is_label = |label: &str| {
        let count = label.chars().count();
        (1..=63).contains(&count)
            && label.chars().enumerate().all(|(at, c)| is_word(c) || (c == '-' && at > 0 && at + 1 < count))
    };
    // A name without dots may have one dash, after its first character.
    let is_single = |label: &str| {
        let mut chars = label.chars();
        let first = chars.next().is_some_and(is_word);
        let rest = chars.as_str();
        let rest = rest.strip_prefix('-').unwrap_or(rest);
        first && rest.chars().count() <= 62 && rest.chars().all(is_word)
    };
    let is_name = match text.rsplit_once('.') {
        None => is_single(text),
        Some((labels, top)) => {
            (2..=63).contains(&top.chars().count())
                && top.chars().all(char::is_alphabetic)
                && labels.split('.').all(is_label)
        }
    };
    is_name && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63)
}

/// What a request line may ask for: an absolute URI or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return false;
    }
    if text == "*" {
        return true;
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).unwrap_or(text.len());
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let (has_scheme, rest) = match text[end..].strip_prefix(':') {
        Some(_) if end == 0 => return false,
        Some(rest) if starts_well => (true, rest),
        _ => (false, text),
    };
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    if !rest.starts_with('/') {
        return has_scheme;
    }
    let path = match rest.strip_prefix("//").filter(|_| has_scheme) {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            let is_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
            if !user.chars().all(is_user) || !is_host(host) {
                return false;
            }
            path
        }
        None => rest,
    };
    is_escaped(path)
}

fn is_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.rsplit_once(']') else { return false };
        let address = address.split_once("%25").map_or(address, |(address, _)| address);
        let is_port = port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        return is_port && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    port.bytes().all(|byte| byte.is_ascii_digit())
        && !name.chars().any(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"".contains(c))
}

/// Returns whether each `%` is followed by two hexadecimal digits.
fn is_escaped(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    escapes.all(|(at, _)| {
        let digits = bytes.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<char> = text.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect();
    let value = |(at, c): (usize, &char)| match c {
        'X' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = digits.iter().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10 && values.iter().zip(1..).map(|(digit, weight)| digit * weight).sum::<u32>() % 11 == 0
    })
}

fn is_isbn13(text: &str) -> bool {
    let digits = text.chars().filter(|c| *c != '-' && !c.is_whitespace());
    let values: Option<Vec<u32>> = digits.map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let weights = [1, 3].into_iter().cycle();
        values.len() == 13 && values.iter().zip(weights).map(|(digit, weight)| digit * weight).sum::<u32>() % 10 == 0
    })
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let luhn = |(at, digit): (usize, u32)| match (at % 2, digit * 2) {
        (0, _) => digit,
        (_, double) => double / 10 + double % 10,
    };
    let sum: u32 = digits.chars().rev().filter_map(|c| c.to_digit(10)).enumerate().map(luhn).sum();
    matches(&CREDIT_CARD, &digits) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        let cases = [
            ("date-time", "2024-01-02T03:04:05Z", true),
            ("date-time", "2024-01-02T03:04:05.123+02:00", true),
            ("date-time", "2024-01-02", false),
            ("date-time", "2024-01-02T24:00:00Z", false),
            ("date", "2024-01-02", true),
            ("date", "2024-13-02", false),
            ("duration", "1h30m", true),
            ("duration", "2 days", true),
            ("duration", "soon", false),
            ("byte", "aGk=", true),
            ("byte", "***", false),
            ("byte", "", false),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "010.0.0.1", true),
            ("ipv4", "10.0.0.256", false),
            ("ipv6", "10.0.0.1", false),
            ("cidr", "10.0.0.0/8", true),
            ("cidr", "10.0.0.0/33", false),
            ("mac", "00:1b:44:11:3a:b7", true),
            ("mac", "001b.4411.3ab7", true),
            ("mac", "00:1b-44:11:3a:b7", false),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
            ("uuid4", "123e4567-e89b-12d3-a456-426614174000", false),
            ("hostname", "a.bc", true),
            ("hostname", "my-long-host", false),
            ("hostname", "-a", false),
            ("email", "a@b.c", true),
            ("email", "Ann <a@b.c>", true),
            ("email", "a b@c", false),
            ("uri", "https://example.com/a?b#c", true),
            ("uri", "/a", true),
            ("uri", "a/b", false),
            ("uri", "http://a b/", false),
            ("isbn10", "0-306-40615-2", true),
            ("isbn13", "978-0-306-40615-7", true),
            ("creditcard", "4111 1111 1111 1111", true),
            ("creditcard", "4111 1111 1111 1112", false),
            ("rgbcolor", "rgb(0, 255,1)", true),
            ("password", "", true),
        ];
        for (format, text, expected) in cases {
            assert_eq!(is_valid(format, text), Some(expected), "{format} {text}");
        }
        assert_eq!(is_valid("int32", "x"), None);
    }

    #[test]
    fn patterns_compile() {
        for pattern in [
            &BASE64,
            &UUID,
            &UUID3,
            &UUID4,
            &UUID5,
            &HEX_COLOR,
            &RGB_COLOR,
            &SSN,
            &CREDIT_CARD,
            &TIME,
            &DURATIONS,
            &SYMBOL,
        ] {
            assert!(pattern.is_some());
        }
    }
}
