//! The three patches that are not apply: JSON patch, merge patch, strategic merge patch.

mod strategic;

use json_patch::PatchOperation;
use serde_json::Value;

use crate::depth;
use crate::resource::Resource;
use crate::status::Status;

/// Operations of one JSON patch.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that all `copy` operations of one JSON patch may add: each can double the object, a body of a kilobyte could
/// fill the memory. The real server's limit.
const COPIED_BYTES_MAX: usize = 3 << 20;

/// Applies a JSON patch (RFC 6902), `application/json-patch+json`.
///
/// # Limits
/// 10,000 operations; 3 MiB copied; 100 levels ([`depth::PATCHED_MAX`]).
/// # Errors
/// 400 for a malformed patch, 413 for one that is too long, 422 if an operation fails, copies too much or
/// nests too deeply.
pub fn json(object: &Value, patch: &Value) -> Result<Value, Status> {
    let operations: Vec<PatchOperation> = serde::Deserialize::deserialize(patch)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(Status::too_many_operations(operations.len(), OPERATIONS_MAX));
    }
    let mut patched = object.clone();
    let mut copied = 0;
    let mut levels = Levels::of(&patched);
    for (index, operation) in operations.iter().enumerate() {
        if let PatchOperation::Copy(copy) = operation {
            copied += patched.pointer(copy.from.as_str()).map_or(0, encoded_bytes);
            if copied > COPIED_BYTES_MAX {
                return Err(Status::unprocessable(&format!(
                    "Unable to complete the copy, the accumulated size increase of copy operation is {copied}, \
                     exceeding the limit {COPIED_BYTES_MAX}"
                )));
            }
        }
        levels.check(&patched, index, operation)?;
        // On a copy that is thrown away if an operation fails: nothing has to be undone.
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            Status::unprocessable(&error.to_string())
        })?;
    }
    Ok(patched)
}

/// How deep an object is at most while it is patched: a `copy` into its own copy doubles the depth, and dozens of them
/// would use up the stack of whoever clones, encodes or drops it.
struct Levels(usize);

impl Levels {
    fn of(object: &Value) -> Self {
        Self(depth::levels(object))
    }

    /// Refuses an operation that would nest too deeply.
    fn check(&mut self, object: &Value, index: usize, operation: &PatchOperation) -> Result<(), Status> {
        let tokens = |pointer: &str| pointer.matches('/').count();
        let (path, inserted) = match operation {
            PatchOperation::Add(add) => (&add.path, depth::levels(&add.value)),
            PatchOperation::Replace(replace) => (&replace.path, depth::levels(&replace.value)),
            PatchOperation::Copy(copy) => (&copy.path, object.pointer(copy.from.as_str()).map_or(0, depth::levels)),
            PatchOperation::Move(moved) => {
                // Moves are cheap and many: the value is looked at only where the bound says that it may be too deep.
                let down = tokens(moved.path.as_str()).saturating_sub(tokens(moved.from.as_str()));
                if self.0 + down <= depth::PATCHED_MAX {
                    self.0 += down;
                    return Ok(());
                }
                self.0 = depth::levels(object);
                (&moved.path, object.pointer(moved.from.as_str()).map_or(0, depth::levels))
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
        };
        let levels = tokens(path.as_str()) + inserted;
        if levels > depth::PATCHED_MAX {
            return Err(Status::unprocessable(&format!(
                "operation {index} would nest the object {levels} levels deep, exceeding the limit {}",
                depth::PATCHED_MAX
            )));
        }
        self.0 = self.0.max(levels);
        Ok(())
    }
}

/// Returns the length of a value's JSON text without making it.
fn encoded_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and a value always encodes.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Applies a JSON merge patch (RFC 7386), `application/merge-patch+json`.
pub fn merge(object: &Value, patch: &Value) -> Value {
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    patched
}

/// Applies a strategic merge patch, `application/strategic-merge-patch+json`; only built-in kinds know it.
///
/// # Errors
/// 400 for malformed directives or missing merge keys, 415 for custom resources.
pub fn strategic(resource: &Resource, object: &Value, patch: &Value) -> Result<Value, Status> {
    if resource.is_custom() {
        let accepted = ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
        return Err(Status::unsupported_media_type(&accepted));
    }
    let Some(patch) = patch.as_object() else {
        return Err(Status::bad_request("error decoding patch: a strategic merge patch is an object"));
    };
    let original = object.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(strategic::merge_map(Some(resource.schema()), original, patch)?))
}

#[cfg(test)]
mod tests;
