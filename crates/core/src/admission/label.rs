//! What is wrong with the key or the value of a label, in the words of Kubernetes.
//!
//! # Source
//! `01-api.md` §7.3 C3

use crate::work::{LABEL_BYTES_MAX, PREFIX_BYTES_MAX, has_qualified_form, has_subdomain_form};

const EMPTY: &str = "must be non-empty";
const VALUE_FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const PREFIX_FORM: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn too_long(bytes: usize) -> String {
    format!("must be no more than {bytes} bytes")
}

/// Returns the complaints about a value.
pub(super) fn value_complaints(value: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if value.len() > LABEL_BYTES_MAX {
        complaints.push(too_long(LABEL_BYTES_MAX));
    }
    if !value.is_empty() && !has_qualified_form(value) {
        complaints.push(VALUE_FORM.to_owned());
    }
    complaints
}

/// Returns the complaints about a key.
pub(super) fn key_complaints(key: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, rest)) if rest.contains('/') => {
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {NAME_FORM} {optional}")];
        }
        Some((prefix, name)) => {
            let of_prefix = prefix_complaints(prefix);
            complaints.extend(of_prefix.into_iter().map(|complaint| format!("prefix part {complaint}")));
            name
        }
    };
    if name.is_empty() {
        complaints.push(format!("name part {EMPTY}"));
    } else if name.len() > LABEL_BYTES_MAX {
        complaints.push(format!("name part {}", too_long(LABEL_BYTES_MAX)));
    }
    if !has_qualified_form(name) {
        complaints.push(format!("name part {NAME_FORM}"));
    }
    complaints
}

fn prefix_complaints(prefix: &str) -> Vec<String> {
    if prefix.is_empty() {
        return vec![EMPTY.to_owned()];
    }
    let mut complaints = Vec::new();
    if prefix.len() > PREFIX_BYTES_MAX {
        complaints.push(too_long(PREFIX_BYTES_MAX));
    }
    if !has_subdomain_form(prefix) {
        complaints.push(PREFIX_FORM.to_owned());
    }
    complaints
}
