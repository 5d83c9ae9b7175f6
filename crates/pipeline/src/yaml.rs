//! Reads YAML as pipelines write it and the reference reads it: version 1.1, first document only.
//!
//! The difference to version 1.2 decides on labels: an unquoted `no` is false and `010` is eight. A parser that yields
//! values has already decided otherwise, so this module resolves the events of the parser itself.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// Deepest nesting.
const DEPTH_MAX: usize = 100;
/// Most nodes of one document, aliases expanded: a few lines can otherwise stand for gigabytes.
const NODES_MAX: usize = 100_000;

/// Reads the first document; an empty text is `null`.
///
/// Keys are kept as they are written. Of equal keys the last wins.
///
/// # Errors
/// What is wrong, and where.
/// # Limits
/// 100 levels, 100,000 nodes.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    loop {
        match reader.next()? {
            Some(Event::StreamStart | Event::DocumentStart(..)) => {}
            Some(Event::StreamEnd | Event::DocumentEnd) | None => return Ok(Value::Null),
            Some(event) => return reader.node(event, 0).map(|(value, _)| value),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// Values of anchors with their number of nodes.
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    /// Returns the next event that carries data.
    fn next(&mut self) -> Result<Option<Event<'a>>, String> {
        loop {
            match self.parser.next() {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, _))) => return Ok(Some(event)),
            }
        }
    }

    fn inner(&mut self) -> Result<Event<'a>, String> {
        self.next()?.ok_or_else(|| "document ends early".to_owned())
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX { Err(format!("more than {NODES_MAX} values")) } else { Ok(()) }
    }

    /// Reads the node that an event begins; tells how many nodes it has.
    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<(Value, usize), String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        let before = self.nodes;
        self.count(1)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar(&text, style, tag.as_deref()), anchor),
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(id) => {
                let (value, nodes) = self.anchors.get(&id).cloned().ok_or("alias of an unfinished value")?;
                self.count(nodes)?;
                (value, 0)
            }
            other => return Err(format!("unexpected {other:?}")),
        };
        let nodes = self.nodes - before;
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), nodes));
        }
        Ok((value, nodes))
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        loop {
            match self.inner()? {
                Event::SequenceEnd => return Ok(Value::Array(items)),
                event => items.push(self.node(event, depth + 1)?.0),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        let mut merged = Map::new();
        loop {
            let (key, is_merge) = match self.inner()? {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => {
                    let is_merge = style == ScalarStyle::Plain && text == "<<";
                    (text.into_owned(), is_merge)
                }
                _ => return Err("a key must be a plain value".to_owned()),
            };
            let event = self.inner()?;
            let (value, _) = self.node(event, depth + 1)?;
            if is_merge {
                merge_into(&mut merged, value)?;
            } else {
                map.insert(key, value);
            }
        }
        for (key, value) in merged {
            map.entry(key).or_insert(value);
        }
        Ok(Value::Object(map))
    }
}

fn merge_into(merged: &mut Map<String, Value>, value: Value) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                merged.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(items) => items.into_iter().try_for_each(|item| merge_into(merged, item)),
        _ => Err("only a map can be merged with <<".to_owned()),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.to_string().ends_with("str"));
    if is_text { Value::String(text.to_owned()) } else { plain(text) }
}

/// Resolves an unquoted scalar by the rules of version 1.1.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::String(text.to_owned());
    }
    let digits = text.replace('_', "");
    integer(&digits).or_else(|| float(&digits)).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn integer(text: &str) -> Option<Value> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None; // a second sign
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let number = if negative { -magnitude } else { magnitude };
    i64::try_from(number).map(Value::from).ok().or_else(|| u64::try_from(number).map(Value::from).ok())
}

fn float(text: &str) -> Option<Value> {
    let is_float = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.contains(|c: char| c.is_ascii_digit());
    let number: f64 = text.parse().ok().filter(|_| is_float)?;
    // As JSON has it after one trip: a whole number is an integer.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

/// Returns a value where a text is wanted: numbers and booleans are spelled out, `null` is empty.
pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(kratix_api::hash::canonical_json(value)),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the entry of a map whose name matches, whatever its case; an exact match wins.
pub(crate) fn field<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, expected: Value) {
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    #[test]
    fn unquoted_values_follow_version_one_point_one() {
        check(
            "{m: n, q: yes, r: on, s: 1.0, t: 010, u: 1e3, v: no}",
            json!({
                "m": false, "q": true, "r": true, "s": 1, "t": 8, "u": 1000, "v": false,
            }),
        );
        check(
            "[0x1F, 0b11, 0o17, 089, 1_000, -5, +5, 1.5, .5, '010', \"no\", !!str 010]",
            json!([31, 3, 15, 89, 1000, -5, 5, 1.5, 0.5, "010", "no", "010",]),
        );
        check(
            "[~, null, 2001-01-01, 1.2.3, 10m, +-5, 1e400, v1]",
            json!([null, null, "2001-01-01", "1.2.3", "10m", "+-5", "1e400", "v1",]),
        );
        check("y: 1\nno: 2", json!({"y": 1, "no": 2}));
    }

    #[test]
    fn only_the_first_document_counts_and_nothing_is_null() {
        check("", Value::Null);
        check("# only a comment\n", Value::Null);
        check("---\n", Value::Null);
        check("a: 1\n---\nb: 2\n", json!({"a": 1}));
        check("a: 1\n---\n[broken", json!({"a": 1}));
        check("text: |\n  two\n  lines\n", json!({"text": "two\nlines\n"}));
    }

    #[test]
    fn anchors_and_merges_are_expanded_within_limits() {
        check(
            "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: *x",
            json!({
                "a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}, "c": {"k": 1, "l": 2},
            }),
        );
        let mut bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for level in 1..9 {
            let uses = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().contains("more than"));
        assert!(parse(&"[".repeat(5000)).is_err());
    }

    #[test]
    fn what_is_not_yaml_says_so() {
        assert!(parse("a: [1").is_err());
        assert!(parse("a: b: c").is_err());
        assert!(parse("{[1]: 2}").is_err());
    }
}
