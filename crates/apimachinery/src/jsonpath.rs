//! The JSONPath dialect of printer columns and kubectl.
//!
//! Fields, `['quoted fields']`, indices and slices, wildcards, recursive descent, unions of fields and indices, and
//! filters `[?(@.a=="b")]` with `==`, `!=`, `<`, `<=`, `>`, `>=` and bare existence.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    steps: Vec<Step>,
}

/// Why a path could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("JSONPath {path:?} is malformed at byte {at}")]
pub struct Error {
    path: String,
    at: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Fields(Vec<String>),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    Indices(Vec<i64>),
    Wildcard,
    Descend,
    Filter { left: Operand, test: Option<(Comparison, Operand)> },
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Path {
    /// Parses `.spec.size`, with or without the leading `$` and surrounding braces.
    ///
    /// # Errors
    /// [`Error`] with the position.
    pub fn parse(path: &str) -> Result<Self, Error> {
        let text = path.trim().trim_start_matches('{').trim_end_matches('}');
        let mut parser = Parser { text, at: 0 };
        let out = parser.path();
        match out {
            Some(out) if parser.at == text.len() => Ok(out),
            _ => Err(Error { path: path.to_owned(), at: parser.at }),
        }
    }

    /// Returns what the path leads to, in order.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.walk(value, &mut next);
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn walk<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match self {
            Step::Field(name) => out.extend(value.get(name)),
            Step::Fields(names) => out.extend(names.iter().filter_map(|name| value.get(name))),
            Step::Indices(indices) => {
                let Some(list) = value.as_array() else { return };
                out.extend(indices.iter().filter_map(|index| list.get(position(*index, list.len())?)));
            }
            Step::Slice { start, end, step } => {
                let Some(list) = value.as_array() else { return };
                let len = list.len() as i64;
                let clamp = |at: i64| (if at < 0 { at + len } else { at }).clamp(0, len);
                let (start, end) = (clamp(start.unwrap_or(0)), clamp(end.unwrap_or(len)));
                let mut at = start;
                while at < end {
                    out.extend(usize::try_from(at).ok().and_then(|at| list.get(at)));
                    at += (*step).max(1);
                }
            }
            Step::Wildcard => match value {
                Value::Array(list) => out.extend(list),
                Value::Object(map) => out.extend(map.values()),
                _ => {}
            },
            Step::Descend => {
                out.push(value);
                match value {
                    Value::Array(list) => list.iter().for_each(|one| self.walk(one, out)),
                    Value::Object(map) => map.values().for_each(|one| self.walk(one, out)),
                    _ => {}
                }
            }
            Step::Filter { left, test } => {
                let Some(list) = value.as_array() else { return };
                out.extend(list.iter().filter(|one| {
                    let Some(left) = left.value(one) else { return false };
                    match test {
                        None => true,
                        Some((comparison, right)) => {
                            right.value(one).is_some_and(|right| comparison.holds(left, right))
                        }
                    }
                }));
            }
        }
    }
}

fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok()
}

impl Operand {
    fn value<'a>(&'a self, element: &'a Value) -> Option<&'a Value> {
        match self {
            Operand::Path(path) => path.find(element).into_iter().next(),
            Operand::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        use std::cmp::Ordering;
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) if left == right => Some(Ordering::Equal),
            _ => None,
        };
        match self {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn skip_spaces(&mut self) {
        while self.eat(" ") {}
    }

    fn path(&mut self) -> Option<Path> {
        if !self.eat("$") {
            self.eat("@");
        }
        let mut steps = Vec::new();
        loop {
            if self.eat("..") {
                steps.push(Step::Descend);
                if !self.rest().starts_with('[') {
                    steps.push(self.name()?);
                }
            } else if self.eat(".") {
                // A lone dot is the object itself.
                if self.rest().is_empty() || self.rest().starts_with('[') {
                    continue;
                }
                steps.push(self.name()?);
            } else if self.eat("[") {
                steps.push(self.bracket()?);
            } else if steps.is_empty() && self.rest().starts_with(|c: char| c.is_alphanumeric() || c == '_') {
                steps.push(self.name()?);
            } else {
                return Some(Path { steps });
            }
        }
    }

    fn name(&mut self) -> Option<Step> {
        if self.eat("*") {
            return Some(Step::Wildcard);
        }
        let mut name = String::new();
        let mut chars = self.rest().char_indices();
        let mut len = self.rest().len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                '.' | '[' | ']' | ' ' | '=' | '!' | '<' | '>' | ')' | '(' | '}' | '|' | '&' => {
                    len = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.at += len;
        (!name.is_empty()).then_some(Step::Field(name))
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest().chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut out = String::new();
        let mut chars = self.rest()[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => out.push(chars.next()?.1),
                c if c == quote => {
                    self.at += at + 2;
                    return Some(out);
                }
                c => out.push(c),
            }
        }
        None
    }

    fn bracket(&mut self) -> Option<Step> {
        if self.eat("?(") {
            let step = self.filter()?;
            return (self.eat(")") && self.eat("]")).then_some(step);
        }
        if self.eat("*]") {
            return Some(Step::Wildcard);
        }
        if self.rest().starts_with(['\'', '"']) {
            let mut names = vec![self.quoted()?];
            while self.eat(",") {
                names.push(self.quoted()?);
            }
            let step = if names.len() == 1 { Step::Field(names.remove(0)) } else { Step::Fields(names) };
            return self.eat("]").then_some(step);
        }
        let end = self.rest().find(']')?;
        let inner = self.rest()[..end].to_owned();
        self.at += end + 1;
        if inner.contains(':') {
            let parts: Vec<&str> = inner.split(':').collect();
            let number = |at: usize| match parts.get(at).copied().unwrap_or_default().trim() {
                "" => Some(None),
                text => text.parse::<i64>().ok().map(Some),
            };
            return Some(Step::Slice { start: number(0)?, end: number(1)?, step: number(2)?.unwrap_or(1) });
        }
        let indices: Option<Vec<i64>> = inner.split(',').map(|one| one.trim().parse().ok()).collect();
        Some(match indices {
            Some(indices) => Step::Indices(indices),
            None => Step::Field(inner),
        })
    }

    fn filter(&mut self) -> Option<Step> {
        const COMPARISONS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        self.skip_spaces();
        let left = self.operand()?;
        self.skip_spaces();
        let found = COMPARISONS.into_iter().find(|(token, _)| self.eat(token));
        let test = match found {
            None => None,
            Some((_, comparison)) => {
                self.skip_spaces();
                Some((comparison, self.operand()?))
            }
        };
        self.skip_spaces();
        Some(Step::Filter { left, test })
    }

    fn operand(&mut self) -> Option<Operand> {
        match self.rest().chars().next()? {
            '@' | '$' => Some(Operand::Path(self.path()?)),
            '\'' | '"' => Some(Operand::Literal(self.quoted()?.into())),
            _ => {
                let end = self.rest().find([')', ' ', '=', '!', '<', '>'])?;
                let word = self.rest()[..end].to_owned();
                self.at += end;
                Some(Operand::Literal(serde_json::from_str(&word).ok()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_kubectl_says() {
        let value = json!({"a": {"b.c": 1, "l": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        for (path, expected) in [
            (".a['b.c']", json!([1])),
            (".a.b\\.c", json!([1])),
            (".a.l[0].n", json!(["x"])),
            (".a.l[-1].n", json!(["y"])),
            (".a.l[*].v", json!([1, 2])),
            (".a.l[0:1].v", json!([1])),
            ("{.a.l[?(@.n==\"y\")].v}", json!([2])),
            (".a.l[?(@.v>1)].n", json!(["y"])),
            (".a.l[?(@.v)].n", json!(["x", "y"])),
            (".status.conditions[?(@.type=='Ready')].status", json!(["True"])),
            (".missing.x", json!([])),
            ("..n", json!(["x", "y"])),
            ("$.a.l[1].n", json!(["y"])),
        ] {
            let found: Vec<Value> = Path::parse(path).expect(path).find(&value).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), expected, "{path}");
        }
        for path in [".a[", ".a[?(@.x==]", ".a['x]"] {
            assert!(Path::parse(path).is_err(), "{path}");
        }
    }
}
