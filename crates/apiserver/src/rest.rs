//! What can be done with objects: one module per verb.

pub(crate) mod bind;
mod create;
mod delete;
mod get;
mod list;
pub(crate) mod patch;
mod update;
mod watch;

pub(crate) use delete::{CRD_CLEANUP, DeleteOptions, FOREGROUND, ORPHAN, seconds};
pub(crate) use list::Filter;
pub(crate) use update::Edit;
pub(crate) use watch::WatchOptions;
