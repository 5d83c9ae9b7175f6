//! What a commit says.

use std::time::{SystemTime, UNIX_EPOCH};

use gix::ObjectId;

use crate::change::Kind;
use crate::checked::Checked;
use crate::config::Author;

/// Returns the bytes of a commit object.
pub(super) fn commit(tree: ObjectId, parent: Option<ObjectId>, author: &Author, changes: &[&Checked]) -> Vec<u8> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let parent = parent.map(|parent| format!("parent {parent}\n")).unwrap_or_default();
    let person = format!("{} <{}> {seconds} +0000", ident(&author.name), ident(&author.email));
    format!("tree {tree}\n{parent}author {person}\ncommitter {person}\n\n{}", text(changes)).into_bytes()
}

/// One change is the subject; several are summed up, and listed in the form that one would have as the subject.
fn text(changes: &[&Checked]) -> String {
    if let [change] = changes {
        return format!("{}\n", line(change));
    }
    let updates = changes.iter().filter(|change| change.kind() == Kind::Update).count();
    let deletes = changes.len() - updates;
    let subject = match (updates, deletes) {
        (updates, 0) => format!("Update from: {updates} changes"),
        (0, deletes) => format!("Delete from: {deletes} changes"),
        (updates, deletes) => format!("Update from: {updates} changes, delete from: {deletes}"),
    };
    let lines: Vec<String> = changes.iter().map(|change| line(change)).collect();
    format!("{subject}\n\n{}\n", lines.join("\n"))
}

fn line(change: &Checked) -> String {
    let word = match change.kind() {
        Kind::Update => "Update",
        Kind::Delete => "Delete",
    };
    let id: String = change.id().chars().filter(|c| !c.is_control()).take(512).collect();
    format!("{word} from: {id}")
}

/// Git's own rule: no angle brackets, no line breaks, nothing odd at the ends.
fn ident(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).collect();
    text.trim_matches(|c: char| c.is_whitespace() || ".,:;\"\\'".contains(c)).to_owned()
}
