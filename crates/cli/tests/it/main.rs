//! The whole product: the real program, real kubectl, real containers, real Git.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod admission;
mod bad_input;
mod compound;
mod containers;
mod deletion;
mod large;
mod life;
mod marketplace;
mod namesakes;
mod permissions;
mod restart;
mod stores;
mod telemetry;
mod troubleshooting;
mod world;
