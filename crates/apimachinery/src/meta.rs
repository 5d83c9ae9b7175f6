//! Rules for `metadata` that hold for every kind.

use serde_json::Value;

/// Longest name that `generateName` leaves room for: 63 less the 5 random characters.
pub const GENERATED_BASE_MAX: usize = 58;

/// Returns the name made of `base` (cut to [`GENERATED_BASE_MAX`]) and `suffix`, 5 characters of
/// [`SUFFIX_ALPHABET`] that the caller draws.
pub fn generate_name(base: &str, suffix: &str) -> String {
    let mut end = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &base[..end])
}

/// The characters of generated suffixes: no vowels and no look-alikes.
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Returns `metadata.name`, or an empty text.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Returns `metadata.namespace`, or an empty text.
pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}
