//! The only place that writes to the terminal: data to stdout, talk to stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// How output is shaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document or one JSON object per line.
    Json,
}

/// Writes what a command has to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    colour: bool,
}

impl Printer {
    /// Returns a printer that colours only where a person reads: a terminal, without `NO_COLOR`, that is not `dumb`.
    pub(crate) fn new(format: Format) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { format, colour: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// Writes one line of data to stdout. A reader that has gone away ends the program silently, as with `head`.
    pub(crate) fn data(&self, line: impl Display) {
        if let Err(error) = writeln!(io::stdout().lock(), "{line}")
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            std::process::exit(0);
        }
    }

    /// Writes a value as JSON to stdout.
    pub(crate) fn json(&self, value: &serde_json::Value) {
        self.data(value);
    }

    /// Writes one line of talk to stderr.
    pub(crate) fn talk(&self, line: impl Display) {
        // Nobody is left to tell when stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Returns `text` in bold where colours are wanted.
    pub(crate) fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Returns `text` dimmed where colours are wanted.
    pub(crate) fn dim(&self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes an error with its causes and its hint.
    pub(crate) fn error(&self, error: &dyn std::error::Error, hint: Option<&str>) {
        self.talk(format_args!("Error: {error}"));
        for cause in causes(error) {
            self.talk(format_args!("caused by: {cause}"));
        }
        if let Some(hint) = hint {
            self.talk(format_args!("hint: {hint}"));
        }
    }
}

/// Returns the causes of an error, without those that whatever is above them says already.
fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.clone_from(&text);
            causes.push(text);
        }
        source = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::causes;

    #[derive(Debug, thiserror::Error)]
    enum Trouble {
        #[error("the output is too large")]
        Large,
        #[error("writing failed: {0}")]
        Telling(#[source] Box<Trouble>),
        #[error("nothing was written")]
        Silent(#[source] Box<Trouble>),
    }

    #[test]
    fn a_cause_that_was_told_already_is_not_told_again() {
        let telling = Trouble::Telling(Box::new(Trouble::Large));
        assert_eq!(causes(&telling), Vec::<String>::new());
        let silent = Trouble::Silent(Box::new(telling));
        assert_eq!(causes(&silent), ["writing failed: the output is too large"]);
    }
}
