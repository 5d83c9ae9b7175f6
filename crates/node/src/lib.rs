//! wip
mod ids;
pub mod image;
mod runtime;
mod sandbox;
pub use sandbox::sandbox_main;
#[cfg(test)]
sandbox_hook!();
