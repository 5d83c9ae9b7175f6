//! This program started again, and what a process has used.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::run_to_end;

/// Profile of what is measured: that of what is installed.
const PROFILE: &str = "dist";

/// Builds a program of this workspace as it is installed.
pub(super) fn build(package: &str) -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--profile", PROFILE, "--locked", "--package", package]);
    let built = build.status().context("starting cargo")?;
    if !built.success() {
        bail!("{package} cannot be built with profile {PROFILE}");
    }
    Ok(())
}

/// Returns the path of a program that was [built](build).
pub(super) fn built(program: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join(PROFILE).join(program)
}

/// Builds this program with optimisations and runs it with the same arguments.
pub(super) fn again_with_optimisations() -> Result<()> {
    build("xtask")?;
    let ended = Command::new(built("xtask")).args(std::env::args_os().skip(1)).status()?;
    if !ended.success() {
        bail!("the measurement failed");
    }
    Ok(())
}

/// Does `task` in a process of its own, so that its memory and processor time are nobody else's.
pub(super) fn alone<T: DeserializeOwned>(task: &impl Serialize) -> Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "cell", &serde_json::to_string(task)?]);
    Ok(serde_json::from_str(&run_to_end(&mut command)?)?)
}

/// What this process and the programs that it ran have used.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) own: Duration,
    pub(super) children: Duration,
    pub(super) peak_kib: u64,
    /// Of the largest child.
    pub(super) child_peak_kib: u64,
}

impl Used {
    pub(super) fn now() -> Result<Self> {
        let (own, children) = (getrusage(UsageWho::RUSAGE_SELF)?, getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let kib = |usage: &Usage| u64::try_from(usage.max_rss()).unwrap_or_default();
        Ok(Self { own: cpu(&own), children: cpu(&children), peak_kib: kib(&own), child_peak_kib: kib(&children) })
    }

    /// Returns the processor time that was used since then.
    pub(super) fn cpu_since(&self, before: &Self) -> Duration {
        self.own - before.own + (self.children - before.children)
    }
}

fn cpu(usage: &Usage) -> Duration {
    [usage.user_time(), usage.system_time()].map(duration).iter().sum()
}

fn duration(time: TimeVal) -> Duration {
    Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec()).unwrap_or_default() * 1000)
}
