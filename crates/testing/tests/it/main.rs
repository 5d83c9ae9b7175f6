//! Crash and confusion: the whole product in one process, interrupted and misled at every point where it can be.
//!
//! A scenario is a list of steps ([`scenario`], [`scenarios`]). It is run once without a fault, which gives the record of
//! what must be there in the end ([`record`]), and then with faults ([`kratix_testing::faults`]); each run must end with the
//! same record and keep the invariants ([`invariants`]). Runs have a runtime of one thread whose clock jumps to the next
//! timer when nobody has anything to do, so that waiting costs nothing ([`world`]).
//!
//! `cargo xtask faults` runs more of them, and replays one.
//!
//! In the same world what was recorded of the original happens again ([`golden`]).

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod gitops;
mod golden;
mod invariants;
mod node;
mod owners;
mod places;
mod record;
mod run;
mod scenario;
mod scenarios;
mod script;
mod sequences;
mod shorten;
mod suite;
mod world;
