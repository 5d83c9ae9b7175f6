//! Why a command failed, and what the user can do about it.

use std::error::Error;
use std::fmt;

/// A failure as the printer shows it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<dyn Error + Send + Sync>,
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// Returns a failure that has no error behind it.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { error: Box::new(Message(message.into())), hint: None }
    }

    /// Returns the same failure with a command or setting to try.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: Box::new(error), hint: None }
    }
}

struct Message(String);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Message {}
