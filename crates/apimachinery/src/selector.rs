//! Label and field selectors.

use serde_json::{Map, Value};

use crate::field::quote;
use crate::object::{items, text};
use crate::resource::Resource;
use crate::status::Status;
use crate::text::{check_label_value, check_qualified_name};

/// A parsed label selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
    Greater,
    Less,
}

impl Labels {
    /// Parses `a=b,c in (d,e),!f`.
    ///
    /// # Errors
    /// 400 with the text of the parser.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut parser = Parser { tokens: tokens(text), at: 0 };
        let requirements =
            parser.selector().map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a `LabelSelector` object; `null` matches nothing, `{}` everything.
    ///
    /// # Errors
    /// 400 for unknown operators.
    pub fn from_object(selector: &Value) -> Result<Self, Status> {
        if selector.is_null() {
            return Ok(Self { requirements: Vec::new(), nothing: true });
        }
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement { key: key.clone(), operator: Operator::In, values });
        }
        for one in items(selector, "matchExpressions") {
            let operator = match text(one, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::Absent,
                other => {
                    let message = format!("{} is not a valid label selector operator", quote(other));
                    return Err(Status::bad_request(message));
                }
            };
            let values = items(one, "values").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement { key: text(one, "key").to_owned(), operator, values });
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Returns whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Returns the labels that an object must have to match, keys with values.
    pub fn exact(&self) -> impl Iterator<Item = (&str, &str)> {
        self.requirements.iter().filter_map(|one| match (one.operator, one.values.as_slice()) {
            (Operator::In, [value]) => Some((one.key.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// Returns whether labels match; `None` is an object without labels.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_by(|key| labels?.get(key)?.as_str())
    }

    /// Returns whether labels match that `label` looks up.
    pub fn matches_by<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|one| one.matches(label(&one.key)))
    }
}

impl Requirement {
    fn matches(&self, found: Option<&str>) -> bool {
        let listed = || found.is_some_and(|found| self.values.iter().any(|value| value == found));
        let number = |text: &str| text.parse::<i64>().ok();
        let compared = || Some((number(found?)?, number(self.values.first()?)?));
        match self.operator {
            Operator::In => listed(),
            Operator::NotIn => !listed(),
            Operator::Exists => found.is_some(),
            Operator::Absent => found.is_none(),
            Operator::Greater => compared().is_some_and(|(found, limit)| found > limit),
            Operator::Less => compared().is_some_and(|(found, limit)| found < limit),
        }
    }
}

/// Splits into words and operators.
fn tokens(text: &str) -> Vec<&str> {
    const SPECIAL: [char; 7] = ['(', ')', ',', '!', '=', '>', '<'];
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = if ["==", "!="].iter().any(|two| rest.starts_with(two)) {
            2
        } else if SPECIAL.contains(&first) {
            1
        } else {
            rest.find(|c: char| SPECIAL.contains(&c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        out.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    out
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.at).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        if self.tokens.is_empty() {
            return Ok(out);
        }
        loop {
            out.push(self.requirement()?);
            match self.next() {
                "" => return Ok(out),
                "," if !self.peek().is_empty() => {}
                "," => return Err("found '', expected: identifier after ','".to_owned()),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == "!";
        if absent {
            self.next();
        }
        let key = self.next();
        if key.is_empty() || matches!(key, "," | "(" | ")" | "=" | "==" | "!=" | "!" | ">" | "<") {
            return Err(format!("found '{key}', expected: !, identifier, or 'end of string'"));
        }
        if let Some(why) = check_qualified_name(key).first() {
            return Err(format!("key: Invalid value: {}: {why}", quote(key)));
        }
        let key = key.to_owned();
        if absent {
            return Ok(Requirement { key, operator: Operator::Absent, values: Vec::new() });
        }
        let (operator, values) = match self.peek() {
            "" | "," => (Operator::Exists, Vec::new()),
            "=" | "==" => (Operator::In, self.exact()),
            "!=" => (Operator::NotIn, self.exact()),
            ">" => (Operator::Greater, self.exact()),
            "<" => (Operator::Less, self.exact()),
            "in" => (Operator::In, self.set()?),
            "notin" => (Operator::NotIn, self.set()?),
            other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        if matches!(operator, Operator::Greater | Operator::Less) && values[0].parse::<i64>().is_err() {
            return Err(format!(
                "values[0][{key}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                quote(&values[0])
            ));
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(why) = check_label_value(value).first() {
                return Err(format!("values[{index}][{key}]: Invalid value: {}: {why}", quote(value)));
            }
        }
        Ok(Requirement { key, operator, values })
    }

    fn exact(&mut self) -> Vec<String> {
        self.next();
        match self.peek() {
            "" | "," => vec![String::new()],
            _ => vec![self.next().to_owned()],
        }
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        self.next();
        match self.next() {
            "(" => {}
            other => return Err(format!("found '{other}' expected: '('")),
        }
        let mut out = Vec::new();
        loop {
            match self.next() {
                ")" => {
                    if out.is_empty() {
                        out.push(String::new());
                    }
                    return Ok(out);
                }
                "," => {
                    if matches!(self.peek(), ")" | ",") || out.is_empty() {
                        out.push(String::new());
                    }
                }
                "" => return Err("found '', expected: ',' or ')'".to_owned()),
                value => out.push(value.to_owned()),
            }
        }
    }
}

/// A parsed field selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl Fields {
    /// Parses `metadata.name=a,status.phase!=Running`, refusing fields that the resource cannot select by.
    ///
    /// # Errors
    /// 400 with the text of the server, `field label not supported: x`.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, Status> {
        let mut terms = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                let message = format!("invalid selector: '{text}'; can't understand '{part}'");
                return Err(Status::bad_request(message));
            };
            let field = field.trim();
            if !is_selectable(resource, field) {
                return Err(Status::bad_request(unsupported(resource, field)));
            }
            terms.push(Term { field: field.to_owned(), value: unescape(value), equal });
        }
        Ok(Self { terms })
    }

    /// Returns whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns the value that `field` must have, if the selector pins it (`metadata.name=x` reads one object).
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Returns whether the object matches.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let found = field_value(resource, object, &term.field).unwrap_or_default();
            (found == term.value) == term.equal
        })
    }
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut escaped = false;
    for c in text.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            out.push(c);
        }
    }
    out
}

fn unsupported(resource: &Resource, field: &str) -> String {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod" | "Node" | "Namespace" | "Secret" | "Event") => format!("field label not supported: {field}"),
        _ => format!("{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", quote(field)),
    }
}

/// Fields beyond name and namespace that kinds can be selected by, mapped to where they are.
fn known_fields(resource: &Resource) -> &'static [(&'static str, &'static str)] {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => &[
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("spec.hostNetwork", "/spec/hostNetwork"),
            ("status.phase", "/status/phase"),
            ("status.podIP", "/status/podIP"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
        ("", "Event") => &[
            ("involvedObject.kind", "/involvedObject/kind"),
            ("involvedObject.namespace", "/involvedObject/namespace"),
            ("involvedObject.name", "/involvedObject/name"),
            ("involvedObject.uid", "/involvedObject/uid"),
            ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
            ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
            ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
            ("reason", "/reason"),
            ("reportingComponent", "/reportingComponent"),
            ("source", "/source/component"),
            ("type", "/type"),
        ],
        ("events.k8s.io", "Event") => &[
            ("regarding.kind", "/regarding/kind"),
            ("regarding.namespace", "/regarding/namespace"),
            ("regarding.name", "/regarding/name"),
            ("regarding.uid", "/regarding/uid"),
            ("regarding.apiVersion", "/regarding/apiVersion"),
            ("regarding.resourceVersion", "/regarding/resourceVersion"),
            ("regarding.fieldPath", "/regarding/fieldPath"),
            ("reason", "/reason"),
            ("reportingController", "/reportingController"),
            ("type", "/type"),
        ],
        ("", "Namespace") => &[("status.phase", "/status/phase"), ("name", "/metadata/name")],
        ("", "Node") => &[("spec.unschedulable", "/spec/unschedulable")],
        ("", "Secret") => &[("type", "/type")],
        ("", "Service") => &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")],
        ("batch", "Job") => &[("status.successful", "/status/succeeded")],
        ("apps", "ReplicaSet") => &[("status.replicas", "/status/replicas")],
        _ => &[],
    }
}

fn is_selectable(resource: &Resource, field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
        || known_fields(resource).iter().any(|(name, _)| *name == field)
        || resource.custom().is_some_and(|version| version.selectable().iter().any(|one| one == field))
}

pub(crate) fn field_value(resource: &Resource, object: &Value, field: &str) -> Option<String> {
    let pointer = match field {
        "metadata.name" => "/metadata/name".to_owned(),
        "metadata.namespace" => "/metadata/namespace".to_owned(),
        _ => match known_fields(resource).iter().find(|(name, _)| *name == field) {
            Some((_, pointer)) => (*pointer).to_owned(),
            None if is_selectable(resource, field) => format!("/{}", field.replace('.', "/")),
            None => return None,
        },
    };
    let found = object.pointer(&pointer).unwrap_or(&Value::Null);
    Some(match found {
        Value::String(text) => text.clone(),
        // A flag or count that is not set reads as its zero.
        Value::Null if matches!(field, "spec.unschedulable" | "spec.hostNetwork") => "false".to_owned(),
        Value::Null if matches!(field, "status.successful" | "status.replicas") => "0".to_owned(),
        Value::Null if field == "source" => text(object, "reportingComponent").to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use serde_json::json;

    #[test]
    fn label_selectors_match_as_kubectl_documents_them() {
        let labels = json!({"app": "web", "tier": "1", "empty": ""});
        let labels = labels.as_object();
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=1", true),
            ("app!=web", false),
            ("other!=x", true),
            ("app in (a, web)", true),
            ("app notin (a,b)", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("empty=", true),
            ("tier>0", true),
            ("tier<1", false),
            ("other in (x)", false),
        ] {
            let parsed = Labels::parse(selector).expect(selector);
            assert_eq!(parsed.matches(labels), expected, "{selector}");
        }
        assert!(!Labels::from_object(&Value::Null).expect("null is a selector").matches(labels));
        assert!(Labels::parse("!other").expect("valid").matches(None));
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in ["a b", "a in", "a in (", "=b", "a=b c", "a,", "-a=b", "a=b/c", "a>x"] {
            assert_eq!(Labels::parse(selector).expect_err(selector).code(), 400, "{selector}");
        }
    }

    #[test]
    fn field_selectors_know_the_fields_of_their_kind() {
        let events = builtin::find("", "v1", "events").expect("events are served");
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {"name": "x", "kind": "Pod"}});
        let fields = Fields::parse(events, "involvedObject.name=x,involvedObject.kind!=Job").expect("known fields");
        assert!(fields.matches(events, &event));
        let pods = builtin::find("", "v1", "pods").expect("pods are served");
        let error = Fields::parse(pods, "spec.foo=a").expect_err("unknown field");
        assert_eq!(error.message(), "field label not supported: spec.foo");
        assert_eq!(Fields::parse(pods, "metadata.name=a").expect("known").exact("metadata.name"), Some("a"));
    }
}
