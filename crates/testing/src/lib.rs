//! Fixtures and real servers for tests.

pub mod archive;
pub mod authority;
#[cfg(unix)]
pub mod executable;
pub mod faults;
pub mod git_http;
pub mod gitea;
pub mod github;
#[cfg(unix)]
pub mod hook;
pub mod kube_apiserver;
pub mod kubectl;
#[cfg(target_os = "linux")]
pub mod memory;
#[cfg(unix)]
pub mod port;
pub mod s3;
pub mod simulated_node;
pub mod sshd;
pub mod wait;
