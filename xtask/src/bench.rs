//! Measures, and prints tables for `docs/results.md`.

mod cell;
mod process;
mod product;
mod program;
mod reference;
mod repository;
mod requests;
mod scheduler;
mod store;
mod works;

use std::fmt::Display;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Subject {
    /// Writing into state stores, beside the same work done with one `git` command after another
    Store(store::Options),
    /// From creating Works to their files being written, on an API server in the same process
    Works {
        /// A tenth of the Works
        #[arg(long)]
        quick: bool,
    },
    /// Scheduling: one decision among many Destinations, and one Destination that changes under many Works
    Scheduler {
        /// A tenth of the Works and of the Destinations
        #[arg(long)]
        quick: bool,
    },
    /// From asking to files: real containers, then played ones for what Kratix alone costs, and what idling costs
    Requests {
        /// A tenth of the requests
        #[arg(long)]
        quick: bool,
        /// Without real containers
        #[arg(long)]
        played: bool,
    },
    /// One cell of a table, in a process of its own
    #[command(hide = true)]
    Cell {
        /// What to measure, as JSON
        task: String,
    },
}

/// Measures `subject`, or the product as its users run it.
pub(crate) fn run(subject: Option<Subject>) -> Result<()> {
    match subject {
        None => product::run(),
        Some(Subject::Cell { task }) => cell::run(&task),
        // Compilers and users of this program have different ideas of speed.
        Some(_) if cfg!(debug_assertions) => process::again_with_optimisations(),
        Some(Subject::Store(options)) => store::run(&options),
        Some(Subject::Works { quick }) => works::run(quick),
        Some(Subject::Scheduler { quick }) => scheduler::run(quick),
        Some(Subject::Requests { quick, played }) => requests::run(quick, played),
    }
}

/// Tells how far a run of minutes has come.
#[expect(clippy::print_stderr, reason = "a development tool talks to its user")]
fn say(line: impl Display) {
    eprintln!("{line}");
}

/// A table in Markdown.
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|column| (*column).to_owned()).collect(), rows: Vec::new() }
    }

    fn row(&mut self, cells: Vec<String>) {
        say(cells.join(" │ "));
        self.rows.push(cells);
    }

    #[expect(clippy::print_stdout, reason = "the table is the tool's output")]
    fn print(&self) {
        println!("| {} |", self.columns.join(" | "));
        println!("|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
    }
}

fn run_to_end(command: &mut std::process::Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
