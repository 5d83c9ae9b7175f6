//! How all other decisions see a store.

use kratix_api::destination::StateStoreRef;

use super::with_hint;

/// How decisions see the state store of a Destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The Destination names none.
    Unset,
    /// The Destination names a kind that does not exist.
    UnknownKind,
    /// There is no such object.
    NotFound,
    /// It is about to be opened; nothing is known yet.
    Opening {
        /// See [`place`](super::place).
        place: String,
    },
    /// It cannot be written.
    NotReady {
        /// See [`place`](super::place).
        place: String,
        /// Why, in one line; empty where that is not known.
        cause: String,
    },
    /// It can be written.
    Ready {
        /// See [`place`](super::place).
        place: String,
        /// Another number after every time in which the store may have lost what it held: what was written before is
        /// handed to it once more.
        epoch: u64,
    },
}

impl Availability {
    /// Returns reason and message of the condition that tells why nothing can be written.
    pub(crate) fn problem(&self, reference: Option<&StateStoreRef>) -> (&'static str, String) {
        let store = display(reference);
        match self {
            Self::Unset => (
                "StateStoreNotFound",
                with_hint("stateStoreRef is not set", "set spec.stateStoreRef of the Destination"),
            ),
            Self::UnknownKind => {
                let kind = reference.map_or("", |reference| reference.kind.as_str());
                ("StateStoreNotFound", format!("{store}: unknown state store type: {kind}"))
            }
            Self::NotFound => ("StateStoreNotFound", format!("{store}: not found")),
            // Users look for the text before the cause.
            Self::NotReady { cause, .. } if !cause.is_empty() => {
                ("StateStoreNotReady", format!("{store}: not ready: {cause}"))
            }
            Self::Opening { .. } | Self::NotReady { .. } | Self::Ready { .. } => {
                ("StateStoreNotReady", format!("{store}: not ready"))
            }
        }
    }

    /// Returns where writes go, or would go.
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::Unset | Self::UnknownKind | Self::NotFound => None,
            Self::Opening { place } | Self::NotReady { place, .. } | Self::Ready { place, .. } => Some(place),
        }
    }
}

/// Returns `<Kind>/<name>`.
pub fn display(reference: Option<&StateStoreRef>) -> String {
    reference.map_or_else(|| "no state store".to_owned(), |reference| format!("{}/{}", reference.kind, reference.name))
}
