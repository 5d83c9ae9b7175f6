//! Long runs of the crash and confusion suite, and replays of single ones.

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

/// The test that makes the runs which this variable asks for.
const TEST: &str = "suite::what_is_asked_for_is_run";
const ASKED: &str = "KRATIX_FAULTS";
/// The test that makes sequences of changes.
const SEQUENCES_TEST: &str = "sequences::any_sequence_of_changes_ends_where_the_last_state_alone_does";
const SEQUENCES_ASKED: &str = "KRATIX_SEQUENCES";

/// Which runs to make; everything unless told otherwise.
#[derive(Args)]
pub(crate) struct Faults {
    /// These scenarios only, separated by commas
    #[arg(long)]
    scenario: Option<String>,
    /// These steps of the scenario only, by their numbers, separated by commas: what a failure says that it takes
    #[arg(long, requires = "scenario")]
    steps: Option<String>,
    /// A sequence of changes instead of scenarios: its number, a range like `0..300`, or `17:0,3` for some of its changes
    #[arg(long, conflicts_with_all = ["scenario", "seed", "fault", "minutes", "twice"])]
    sequence: Option<String>,
    /// Where every choice comes from
    #[arg(long)]
    seed: Option<u64>,
    /// One fault, `crash-after:17` for instance, or these classes only, separated by commas: `crash-after,watch-gone`
    #[arg(long)]
    fault: Option<String>,
    /// No more runs are begun after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// Make each run twice and report those that call something else the second time
    #[arg(long)]
    twice: bool,
    /// With optimisations: takes longer to build, and a fifth of the time to run
    #[arg(long)]
    release: bool,
}

impl Faults {
    /// Returns the words by which the test is asked.
    fn asked(&self) -> String {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let parts = [
            ("scenario", self.scenario.clone()),
            ("steps", self.steps.clone()),
            ("seed", number(self.seed)),
            ("fault", self.fault.clone()),
            ("minutes", number(self.minutes)),
            ("twice", self.twice.then(|| "true".to_owned())),
        ];
        let given = parts.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        given.collect::<Vec<_>>().join(";")
    }
}

/// Makes the runs and fails if one of them ends otherwise than without the fault.
pub(crate) fn run(faults: &Faults) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--locked", "--package", "kratix-testing", "--test", "it"]);
    if faults.release {
        command.arg("--release");
    }
    command.args(["--", "--exact", "--nocapture"]);
    match &faults.sequence {
        Some(sequence) => command.arg(SEQUENCES_TEST).env(SEQUENCES_ASKED, sequence),
        None => command.arg(TEST).env(ASKED, faults.asked()),
    };
    if !command.status().context("starting cargo")?.success() {
        bail!("runs have failed, see above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_asked_for() {
        let faults = |seed, fault: Option<&str>, twice: bool| Faults {
            scenario: Some("request".into()),
            steps: twice.then(|| "0,2".to_owned()),
            sequence: None,
            seed,
            fault: fault.map(str::to_owned),
            minutes: None,
            twice,
            release: false,
        };
        assert_eq!(faults(None, None, false).asked(), "scenario=request");
        let asked = faults(Some(7), Some("crash-after:17"), true).asked();
        assert_eq!(asked, "scenario=request;steps=0,2;seed=7;fault=crash-after:17;twice=true");
    }
}
