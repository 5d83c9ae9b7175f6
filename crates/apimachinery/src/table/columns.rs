//! The columns of the built-in kinds, from `columns.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("columns.txt")));

/// Returns the columns of a built-in kind.
pub(super) fn of(kind: &str) -> Vec<Value> {
    TABLE.columns.get(kind).cloned().unwrap_or_default()
}

/// Returns the first column of nearly every table.
pub(super) fn name() -> Value {
    definition("Name", "string", "name", 0, TABLE.shared("@name"))
}

/// Returns a column that says nothing but its type.
pub(super) fn plain(name: &str, kind: &str, description: &str) -> Value {
    definition(name, kind, "", 0, description)
}

/// Returns what is said of columns that show when an object was created.
pub(super) fn age_description() -> &'static str {
    TABLE.shared("@age")
}

/// Returns one entry of `columnDefinitions`.
pub(super) fn definition(name: &str, kind: &str, format: &str, priority: i64, description: &str) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

struct Table {
    shared: HashMap<&'static str, String>,
    columns: HashMap<&'static str, Vec<Value>>,
}

impl Table {
    fn parse(text: &'static str) -> Self {
        let mut out = Self { shared: HashMap::new(), columns: HashMap::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((first, rest)) = line.split_once(" | ") else { continue };
            if first.starts_with('@') {
                out.shared.insert(first, rest.replace("\\n", "\n"));
                continue;
            }
            let mut parts = rest.splitn(5, " | ");
            let mut next = || parts.next().unwrap_or_default();
            let (name, kind, format, priority, description) = (next(), next(), next(), next(), next());
            let format = if format == "-" { "" } else { format };
            let description = out.shared.get(description).map_or(description, String::as_str);
            let column = definition(name, kind, format, priority.parse().unwrap_or(0), description);
            out.columns.entry(first).or_default().push(column);
        }
        out
    }

    fn shared(&self, key: &str) -> &str {
        self.shared.get(key).map_or("", String::as_str)
    }
}
