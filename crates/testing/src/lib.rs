//! Fixtures and real servers for tests.

pub mod git_http;
