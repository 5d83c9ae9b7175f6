//! The messages, from `messages.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

static MESSAGES: LazyLock<Messages> = LazyLock::new(|| Messages::parse(include_str!("messages.txt")));

/// All messages; they refer to each other by index.
pub(super) struct Messages {
    roots: HashMap<(&'static str, &'static str), usize>,
    messages: Vec<Message>,
}

/// One message.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

/// One field of a message.
pub(super) struct Field {
    pub(super) number: u32,
    /// Name in JSON; `None` if the fields of the value are fields of the owner.
    pub(super) name: Option<&'static str>,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    /// Whether zero is left out of the JSON form.
    pub(super) omits_zero: bool,
}

/// How many values a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    /// By text keys.
    Map,
}

/// Type of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Base64 in JSON.
    Bytes,
    Int32,
    Int64,
    Bool,
    /// Whole seconds.
    Time,
    /// With microseconds.
    MicroTime,
    /// JSON as it is: managed fields.
    Json,
    IntOrString,
    Quantity,
    /// A message that holds a list of texts, a list in JSON.
    Texts,
    Message(usize),
}

impl Messages {
    pub(super) fn get() -> &'static Self {
        &MESSAGES
    }

    /// Returns the message of a kind.
    pub(super) fn root(&self, api_version: &str, kind: &str) -> Option<usize> {
        self.roots.get(&(api_version, kind)).or_else(|| self.roots.get(&("*", kind))).copied()
    }

    pub(super) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }

    fn parse(text: &'static str) -> Self {
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        let is_name = |line: &&str| !line.starts_with([' ', '=']);
        let indices: HashMap<&str, usize> = lines().filter(is_name).enumerate().map(|(at, name)| (name, at)).collect();
        let mut out = Self { roots: HashMap::new(), messages: Vec::with_capacity(indices.len()) };
        for line in lines() {
            if let Some(root) = line.strip_prefix("= ") {
                let mut words = root.split(' ');
                if let (Some(version), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) {
                    out.roots.insert((version, kind), indices[name]);
                }
            } else if !line.starts_with(' ') {
                out.messages.push(Message { name: line, fields: Vec::new() });
            } else if let Some(message) = out.messages.last_mut() {
                let fields = line.split(',').filter(|field| !field.trim().is_empty());
                message.fields.extend(fields.map(|field| Field::parse(field, &indices)));
            }
        }
        out
    }
}

impl Field {
    fn parse(text: &'static str, messages: &HashMap<&str, usize>) -> Self {
        let words: Vec<&'static str> = text.split_whitespace().collect();
        let [number, name, kind] = words[..] else { panic!("messages.txt: {text}") };
        let omits_zero = kind.ends_with('?');
        let kind = kind.trim_end_matches('?');
        let (shape, kind) = match kind.split_once(':') {
            Some(("list", kind)) => (Shape::List, kind),
            Some((_, kind)) => (Shape::Map, kind),
            None => (Shape::One, kind),
        };
        let kind = match kind {
            "string" => Kind::Text,
            "bytes" => Kind::Bytes,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "bool" => Kind::Bool,
            "time" => Kind::Time,
            "microtime" => Kind::MicroTime,
            "json" => Kind::Json,
            "int-or-string" => Kind::IntOrString,
            "quantity" => Kind::Quantity,
            "texts" => Kind::Texts,
            message => Kind::Message(messages[message]),
        };
        let number = number.parse().unwrap_or_else(|_| panic!("messages.txt: {text}"));
        Self { number, name: (name != "-").then_some(name), shape, kind, omits_zero }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_contains_itself() {
        fn visit(messages: &Messages, index: usize, open: &mut Vec<usize>) {
            assert!(!open.contains(&index), "{}", messages.message(index).name);
            open.push(index);
            for field in &messages.message(index).fields {
                if let Kind::Message(inner) = field.kind {
                    visit(messages, inner, open);
                }
            }
            open.pop();
        }
        let messages = Messages::get();
        for root in messages.roots.values() {
            visit(messages, *root, &mut Vec::new());
        }
    }

    #[test]
    fn every_built_in_kind_that_has_this_encoding_is_known() {
        let unknown: Vec<&str> = crate::builtin::resources()
            .iter()
            .filter(|one| Messages::get().root(&one.api_version(), &one.kind).is_none())
            .map(|one| one.kind.as_str())
            .collect();
        // Nobody sends CRDs in this encoding: kubectl reads them from files, and files are sent as JSON.
        assert_eq!(unknown, ["CustomResourceDefinition"]);
    }

    #[test]
    fn fields_are_called_as_the_schemas_call_them() {
        for resource in crate::builtin::resources() {
            let Some(root) = Messages::get().root(&resource.api_version(), &resource.kind) else { continue };
            check(root, resource.schema());
        }
    }

    fn check(index: usize, schema: &crate::schema::Schema) {
        let message = Messages::get().message(index);
        for field in &message.fields {
            let Some(name) = field.name else {
                let Kind::Message(inner) = field.kind else { panic!("{}", message.name) };
                check(inner, schema);
                continue;
            };
            let Some(found) = schema.properties.get(name) else { panic!("{} has no field {name}", message.name) };
            let inner = match field.shape {
                Shape::One => Some(found),
                Shape::List => found.items.as_ref(),
                Shape::Map => None,
            };
            if let (Kind::Message(index), Some(inner)) = (field.kind, inner) {
                check(index, inner);
            }
        }
    }
}
