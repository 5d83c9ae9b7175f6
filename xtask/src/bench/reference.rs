//! The same work done the reference's way: one shallow clone, and for each placement one command of `git` after another.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cell::{Load, Measured, Phase, Place};
use super::process::Used;
use super::repository::{BRANCH, contents, directory};
use super::run_to_end;

/// For how long a fetch is believed.
const FETCH_INTERVAL: Duration = Duration::from_secs(5);

struct Clone<'p> {
    place: &'p Place,
    fetched: Instant,
}

/// Writes and deletes so many placements, each alone.
pub(super) fn measure(place: &Place, load: Load) -> Result<Measured> {
    let began = Instant::now();
    std::fs::create_dir_all(&place.scratch)?;
    let clone = ["clone", "--depth", "1", "--single-branch", "--no-tags", "--branch", BRANCH, &place.url, "clone"];
    git(place, &place.scratch, &clone)?;
    let first = began.elapsed();
    let mut clone = Clone { place, fetched: Instant::now() };
    let (mut write, mut delete) = (Phase::default(), Phase::default());
    for (phase, writes) in [(&mut write, true), (&mut delete, false)] {
        for at in 0..load.rounds {
            let (before, began) = (Used::now()?, Instant::now());
            clone.placement(at, writes)?;
            phase.rounds.push(began.elapsed());
            phase.cpu += Used::now()?.cpu_since(&before);
        }
        phase.rounds.sort();
    }
    let used = Used::now()?;
    Ok(Measured { first, write, delete, peak_kib: used.peak_kib, child_peak_kib: used.child_peak_kib })
}

impl Clone<'_> {
    fn placement(&mut self, at: usize, writes: bool) -> Result<()> {
        let name = format!("reference-{at}");
        let below = directory(at, &name);
        let work_tree = self.place.scratch.join("clone");
        if self.fetched.elapsed() > FETCH_INTERVAL {
            let refspec = format!("+refs/heads/{BRANCH}:refs/remotes/origin/{BRANCH}");
            self.git(&["fetch", "--depth", "1", "--force", "--prune", "origin", &refspec])?;
            self.fetched = Instant::now();
        }
        self.git(&["reset", "--hard", &format!("origin/{BRANCH}")])?;
        self.git(&["clean", "-ffdx"])?;
        if work_tree.join(&below).exists() {
            self.git(&["rm", "-r", "--quiet", "--", &below])?;
        }
        if writes {
            let directory = work_tree.join(&below);
            std::fs::create_dir_all(&directory)?;
            let mut added = vec!["add".to_owned(), "--".to_owned()];
            for file in contents(&name, 0) {
                std::fs::write(directory.join(&file.path), &file.content)?;
                added.push(format!("{below}/{}", file.path));
            }
            self.git(&added.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        // It exits with 1 when something is staged.
        let staged = self.command(&["diff", "--cached", "--quiet"]).status().context("starting git")?;
        anyhow::ensure!(staged.code() == Some(1), "nothing is staged");
        let subject = format!("{} from: {name}", if writes { "Update" } else { "Delete" });
        self.git(&["commit", "--quiet", "-m", &subject])?;
        self.git(&["push", "--quiet", "origin", BRANCH])?;
        self.git(&["rev-parse", "HEAD"])
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.place, &self.place.scratch.join("clone"), arguments)
    }

    fn git(&self, arguments: &[&str]) -> Result<()> {
        run_to_end(&mut self.command(arguments)).map(drop)
    }
}

fn git(place: &Place, directory: &Path, arguments: &[&str]) -> Result<()> {
    run_to_end(&mut command(place, directory, arguments)).map(drop)
}

fn command(place: &Place, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(directory);
    command.env("HOME", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_LFS_SKIP_SMUDGE", "1").env("GIT_SSL_NO_VERIFY", "true");
    command.envs([("GIT_AUTHOR_NAME", "kratix"), ("GIT_AUTHOR_EMAIL", "")]);
    command.envs([("GIT_COMMITTER_NAME", "kratix"), ("GIT_COMMITTER_EMAIL", "")]);
    if place.ca_pem.is_none() {
        command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    }
    command
}
