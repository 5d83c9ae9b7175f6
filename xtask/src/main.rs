//! Generated files, checks and benchmarks.
//!
//! `cargo xtask codegen` writes every generated file, `--check` fails if one differs from its source.

mod bench;
mod codegen;
mod faults;
#[cfg(test)]
mod house_rules;

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

/// The program's own, so that measurements in this process cost what they cost there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(about = "Generated files, checks and benchmarks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write the generated files
    Codegen {
        /// Fail if a file differs instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Run what a change must pass
    Check,
    /// Run the tests of the whole product, and those of the controllers on an API server
    Test {
        /// Against the kube-apiserver and etcd in $KUBEBUILDER_ASSETS instead of the embedded API server
        #[arg(long)]
        real_apiserver: bool,
        /// Passed on to the tests, a filter for instance
        #[arg(trailing_var_arg = true)]
        args: Vec<String>,
    },
    /// Crash, refuse and mislead the product at every point where it can be, or at one
    Faults(faults::Faults),
    /// Measure, and print the table for docs/results.md
    Bench {
        #[command(subcommand)]
        subject: Option<bench::Subject>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Codegen { check } => codegen::run(check),
        Task::Check => check(),
        Task::Test { real_apiserver, args } => test(real_apiserver, &args),
        Task::Faults(faults) => faults::run(&faults),
        Task::Bench { subject } => bench::run(subject),
    }
}

fn check() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    codegen::run(true)?;
    cargo(&["test", "--workspace", "--locked"])
}

fn test(real_apiserver: bool, args: &[String]) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    // One that fails is not to keep the other package's from being run.
    command.args(["test", "--locked", "--no-fail-fast", "--package", "kratix", "--package", "kratix-controllers"]);
    command.args(["--test", "it", "--"]).args(args);
    if real_apiserver {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS")
            .context("KUBEBUILDER_ASSETS must name the directory of kube-apiserver and etcd")?;
        for program in ["kube-apiserver", "etcd"] {
            let path = std::path::Path::new(&assets).join(program);
            if !path.exists() {
                bail!("{} does not exist", path.display());
            }
        }
        // Each test has a server of its own, half a gigabyte big.
        command.env("KRATIX_TEST_REAL_APISERVER", "1").arg("--test-threads=2");
    }
    if !command.status().context("starting cargo")?.success() {
        bail!("tests failed");
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO")).args(args).status().context("starting cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}
