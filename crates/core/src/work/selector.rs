//! What a group demands of a Destination, and why one does not do.

use std::collections::BTreeMap;
use std::fmt;

use kratix_api::hash::Run;
use kratix_api::{Destination, Work, WorkloadGroup, keys, selector};
use kube_core::ResourceExt;

/// Longest name in a label key and longest label value.
pub(crate) const LABEL_BYTES_MAX: usize = 63;
/// Longest prefix of a label key.
pub(crate) const PREFIX_BYTES_MAX: usize = 253;
/// How many Destinations an explanation names.
const NEAR_MAX: usize = 3;

/// The labels that a Destination must carry, merged from all who ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(BTreeMap<String, String>);

/// One reason why a Destination does not take a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A label is missing or has another value.
    Label {
        /// Key of the label.
        key: String,
        /// Value that is asked for.
        wanted: String,
        /// Value that the Destination has.
        found: Option<String>,
    },
    /// It takes only what selects it by label, and nothing is selected.
    Strict,
    /// It takes previews only.
    DryRunOnly,
    /// It is being deleted.
    Terminating,
}

/// A Destination that does not take a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// Name of the Destination.
    pub destination: String,
    /// All that stands in the way.
    pub obstacles: Vec<Obstacle>,
}

impl Selector {
    /// Merges the selectors of a group: resource workflow, then promise workflow, then Promise; who comes later wins.
    ///
    /// # Previews
    /// One rule, by labels alone: a Work labelled `kratix.io/dry-run: "true"` goes to Destinations with this label and to no
    /// other, whatever its selectors say; nothing else goes there, unless its selectors ask for this very label. The feature
    /// flag (`Config::dry_run`) says whether requests run as previews, that is whether such Works are made, and nothing
    /// about where they go: documents of a preview must not reach a real Destination because the flag was turned off.
    pub fn of(work: &Work, group: &WorkloadGroup) -> Self {
        Self(selector::effective(&group.destination_selectors, Run::of_labels(work.metadata.labels.as_ref())))
    }

    /// Tells whether anything is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what is asked for.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Finds the first key or value that no label can have.
    ///
    /// # Errors
    /// A sentence that names it.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (key, value) in &self.0 {
            if !is_label_key(key) {
                return Err(format!("destination selector has the invalid label key {key:?}"));
            }
            if !is_label_value(value) {
                return Err(format!("destination selector has the invalid value {value:?} for label {key}"));
            }
        }
        Ok(())
    }

    /// Tells whether `destination` is a candidate for what this selector selects.
    pub fn takes(&self, destination: &Destination) -> bool {
        let labels = destination.metadata.labels.as_ref();
        destination.metadata.deletion_timestamp.is_none()
            && selector::accepts(&self.0, labels, destination.spec.strict_match_labels)
    }

    /// Returns everything that keeps `destination` from taking what this selector selects; nothing for a candidate.
    pub fn obstacles(&self, destination: &Destination) -> Vec<Obstacle> {
        let labels = destination.labels();
        let mut obstacles: Vec<Obstacle> = self
            .0
            .iter()
            .filter(|(key, wanted)| labels.get(*key) != Some(wanted))
            .map(|(key, wanted)| Obstacle::Label {
                key: key.clone(),
                wanted: wanted.clone(),
                found: labels.get(key).cloned(),
            })
            .collect();
        if self.is_empty() && destination.spec.strict_match_labels && !labels.is_empty() {
            obstacles.push(Obstacle::Strict);
        }
        let is_for_previews = keys::is_set(labels, keys::DRY_RUN);
        if is_for_previews && !keys::is_set(&self.0, keys::DRY_RUN) {
            obstacles.push(Obstacle::DryRunOnly);
        }
        if destination.metadata.deletion_timestamp.is_some() {
            obstacles.push(Obstacle::Terminating);
        }
        obstacles
    }

    /// Returns the Destinations that come closest to being candidates.
    pub(crate) fn near<'a>(&self, destinations: impl Iterator<Item = &'a Destination>) -> Vec<NearMiss> {
        let mut misses: Vec<NearMiss> = destinations
            .map(|destination| NearMiss { destination: destination.name_any(), obstacles: self.obstacles(destination) })
            .filter(|miss| !miss.obstacles.is_empty())
            .collect();
        // Stable: equally close ones stay sorted by name.
        misses.sort_by_key(|miss| miss.obstacles.len());
        misses.truncate(NEAR_MAX);
        misses
    }
}

/// `key=value,key=value`, as `kubectl -l` takes it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// The sentence after the Destination's name.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label { key, found: Some(found), .. } => write!(f, "has {key}={found}"),
            Self::Label { key, found: None, .. } => write!(f, "has no {key} label"),
            Self::Strict => f.write_str("takes only what selects it by label (strictMatchLabels)"),
            Self::DryRunOnly => f.write_str("takes previews only"),
            Self::Terminating => f.write_str("is being deleted"),
        }
    }
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(key),
    }
}

/// Tells whether `value` can be the value of a label.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified(value)
}

fn is_qualified(name: &str) -> bool {
    name.len() <= LABEL_BYTES_MAX && has_qualified_form(name)
}

/// Tells whether `name` has the form of the name in a label key, whatever its length.
pub(crate) fn has_qualified_form(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let border = |c: char| c.is_ascii_alphanumeric();
    name.chars().all(inner) && name.starts_with(border) && name.ends_with(border)
}

/// Tells whether `name` can be (part of) the name of an object.
pub(crate) fn is_subdomain(name: &str) -> bool {
    name.len() <= PREFIX_BYTES_MAX && has_subdomain_form(name)
}

/// Tells whether `name` has the form of a subdomain, whatever its length.
pub(crate) fn has_subdomain_form(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let border = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split('.').all(|part| part.chars().all(inner) && part.starts_with(border) && part.ends_with(border))
}
