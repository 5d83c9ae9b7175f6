//! The embedded platform: API servers, node, controllers and GitOps in one process.

pub mod data_dir;
