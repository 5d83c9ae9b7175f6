//! What a commit says, and who vouches for it.

use std::time::{SystemTime, UNIX_EPOCH};

use gix::ObjectId;

use super::signing::SigningKey;
use crate::change::Kind;
use crate::checked::Checked;
use crate::config::{Author, GitConfig};
use crate::error::Trouble;

/// Who commits.
pub(super) struct Committer {
    author: Author,
    key: Option<SigningKey>,
}

impl Committer {
    /// # Errors
    /// [`Trouble::Config`] if the signing key cannot be used.
    pub(super) fn new(config: &GitConfig) -> Result<Self, Trouble> {
        let key = config.signing_key.as_ref().map(|key| SigningKey::parse(key.expose())).transpose();
        let key = key.map_err(Trouble::SigningKey)?;
        Ok(Self { author: config.author.clone(), key })
    }

    /// Returns the bytes of a commit object.
    pub(super) fn commit(
        &self,
        tree: ObjectId,
        parent: Option<ObjectId>,
        changes: &[&Checked],
    ) -> Result<Vec<u8>, Trouble> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let parent = parent.map(|parent| format!("parent {parent}\n")).unwrap_or_default();
        let person = format!("{} <{}> {seconds} +0000", ident(&self.author.name), ident(&self.author.email));
        let header = format!("tree {tree}\n{parent}author {person}\ncommitter {person}\n");
        let text = text(changes);
        let Some(key) = &self.key else { return Ok(format!("{header}\n{text}").into_bytes()) };
        // What is signed is the commit without its signature.
        let signature = key.sign(format!("{header}\n{text}").as_bytes())?;
        let signature = signature.trim_end().replace('\n', "\n ");
        Ok(format!("{header}gpgsig {signature}\n\n{text}").into_bytes())
    }
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
        _ => format!("Update and delete from: {} changes", changes.len()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, File};

    fn subject(ids: &[&str], removed: &[&str]) -> String {
        let update = |id: &&str| Change::replace(*id, format!("d/{id}"), vec![File::new("a", "a")]);
        let removal = |id: &&str| Change::remove(*id, format!("d/{id}"));
        let changes = ids.iter().map(update).chain(removed.iter().map(removal));
        let changes: Vec<Checked> = changes.map(|change| Checked::new(change).unwrap()).collect();
        let text = text(&changes.iter().collect::<Vec<_>>());
        let lines: Vec<&str> = text.lines().collect();
        if let [first, "", rest @ ..] = &lines[..] {
            assert_eq!(rest.len(), ids.len() + removed.len(), "{text}");
            return (*first).to_owned();
        }
        text.trim_end().to_owned()
    }

    #[test]
    fn one_change_is_the_subject_and_several_are_counted() {
        for (updated, removed, expected) in [
            (&["a"][..], &[][..], "Update from: a"),
            (&[], &["a"], "Delete from: a"),
            (&["a", "b"], &[], "Update from: 2 changes"),
            (&[], &["a", "b"], "Delete from: 2 changes"),
            (&["a"], &["b"], "Update and delete from: 2 changes"),
        ] {
            assert_eq!(subject(updated, removed), expected);
        }
    }
}
