//! Requests: from asking to files in the repository.
//!
//! First the program as its users run it, with real containers; then one process in which pods are played, for what Kratix
//! alone costs. While it measures, it compares what is said with what was written.

mod passes;
mod progress;
mod real;
mod simulated;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

pub(super) use self::progress::{ask, publish};
pub(super) use self::simulated::{Measured, Setting, measure};
use super::cell::Task;
use super::{Table, process, program, repository};

/// Requests at once; everything is measured for the one in the middle.
const SIZES: [usize; 3] = [100, 1000, 2000];

/// Measures and prints.
pub(super) fn run(quick: bool, played: bool) -> Result<()> {
    let mut table = Table::new(&["What", "Measured", "To hold"]);
    if !played {
        program::build()?;
        real::run(&mut table, quick)?;
    }
    let share = |size: usize| if quick { size / 10 } else { size };
    for size in SIZES {
        let directory = tempfile::tempdir()?;
        let measured = simulate(directory.path(), share(size), size == SIZES[1], false)?;
        scaling(&mut table, share(size), size, &measured);
        if size == SIZES[1] {
            details(&mut table, share(size), &measured);
        }
        if size == SIZES[0] {
            conflicts(&mut table, &measured)?;
        }
    }
    table.print();
    Ok(())
}

fn simulate(directory: &Path, requests: usize, updates: bool, conflicts: bool) -> Result<Measured> {
    repository::make(&directory.join("state.git"), 0)?;
    process::alone(&Task::Requests(Setting { directory: directory.to_owned(), requests, updates, conflicts }))
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn line(table: &mut Table, what: impl Into<String>, measured: String, hold: &str) {
    table.row(vec![what.into(), measured, hold.to_owned()]);
}

fn scaling(table: &mut Table, requests: usize, size: usize, measured: &Measured) {
    let hold = match size {
        100 => "≤ 2 s",
        1000 => "≤ 15 s",
        _ => "",
    };
    let each = measured.written / u32::try_from(requests).unwrap_or(1);
    let took = format!(
        "{} ({} each, {} until reconciled)",
        seconds(measured.written),
        millis(each),
        seconds(measured.reconciled)
    );
    line(table, format!("{requests} at once, pods played, all written"), took, hold);
}

fn details(table: &mut Table, requests: usize, measured: &Measured) {
    let count = requests as f64;
    let each = |sum: u64| format!("{:.2}", sum as f64 / count);
    let own = |kind: &str| kind.starts_with("kratix ") || kind.starts_with("system:serviceaccount:");
    let is_event = |kind: &str| kind.contains(" events");
    let sum = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        measured.writes.iter().filter(|(kind, _)| wanted(kind)).map(|(_, count)| count).sum()
    };
    line(table, "… one alone, pods played", millis(measured.warm), "");
    let cpu = measured.cpu.as_secs_f64() * 1e3 / count;
    line(table, "… CPU each, API server included", format!("{cpu:.1} ms"), "");
    line(table, "… commits", measured.commits.to_string(), "");
    line(table, "API writes each, controllers and pods", each(sum(&|kind| own(kind) && !is_event(kind))), "≤ 12");
    line(table, "… Events besides", each(sum(&|kind| own(kind) && is_event(kind))), "≤ 6");
    line(table, "… by kind", kinds(&measured.writes, count, own), "");
    let of_requests = measured.passes.get("request").copied().unwrap_or_default();
    line(table, "Passes over a request", each(of_requests), "≤ 5");
    line(table, "… by controller", by_controller(&measured.passes, count), "");
    if let Some(updated) = &measured.updated {
        line(
            table,
            format!("A Promise with {requests} requests changes, until all have run again"),
            seconds(updated.took),
            "≤ 15 s",
        );
        let cpu = updated.cpu.as_secs_f64() * 1e3 / count;
        line(table, "… CPU each, API server included", format!("{cpu:.1} ms"), "");
        line(table, "… by kind", kinds(&updated.writes, count, own), "");
        line(table, "… passes by controller", by_controller(&updated.passes, count), "");
    }
    line(table, "Peak memory, API server and pods included", format!("{} MiB", measured.peak_kib / 1024), "");
}

fn by_controller(passes: &BTreeMap<String, u64>, count: f64) -> String {
    passes.iter().map(|(name, passes)| format!("{name} {:.2}", *passes as f64 / count)).collect::<Vec<_>>().join(", ")
}

/// What is written for each request, without who writes it.
fn kinds(writes: &BTreeMap<String, u64>, count: f64, wanted: impl Fn(&str) -> bool) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, writes) in writes.iter().filter(|(kind, _)| wanted(kind)) {
        *sums.entry(kind.split_once(' ').map_or(kind, |(_, kind)| kind)).or_default() += writes;
    }
    let sums = sums.into_iter().filter(|(_, sum)| *sum as f64 / count >= 0.01);
    sums.map(|(kind, sum)| format!("{:.2} {kind}", sum as f64 / count)).collect::<Vec<_>>().join(", ")
}

/// What the refusal of a write costs: every first attempt of each write is refused.
fn conflicts(table: &mut Table, undisturbed: &Measured) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let refused = simulate(directory.path(), 10, false, true)?;
    let each = refused.warm.saturating_sub(undisturbed.warm).as_secs_f64() * 1e3 / refused.conflicts.max(1.0);
    let measured = format!(
        "{each:.1} ms each ({:.0} conflicts of one request: {} instead of {})",
        refused.conflicts,
        millis(refused.warm),
        millis(undisturbed.warm)
    );
    line(table, "A write conflict", measured, "milliseconds");
    Ok(())
}
