//! Fixtures and real servers for tests.

pub mod archive;
pub mod git_http;
pub mod kubectl;
pub mod wait;
