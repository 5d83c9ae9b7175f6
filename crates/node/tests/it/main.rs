//! Jobs and Pods through a real API server, with real containers.

#![allow(clippy::unwrap_used, reason = "what a test cannot go on without may end it, also in what tests share")]

mod crash;
mod images;
mod jobs;
mod pods;
mod tokens;
mod unprivileged;
mod world;

embedded_node::sandbox_hook!();
