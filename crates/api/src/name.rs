//! Names that Kratix gives to objects.
//!
//! # Source
//! `01-api.md` §5.3, decision 6

use crate::hash;

/// Longest name that is kept whole.
const KEPT_BYTES_MAX: usize = 57;
/// What is kept of a longer one. One less than what a name may have: names made by the reference stay valid.
const CUT_BYTES: usize = 56;
const SUFFIX_DIGITS: usize = 5;
/// Digits of a suffix that is never equal for two objects.
const LONG_SUFFIX_DIGITS: usize = 16;
/// What such a suffix and its dash leave of the longest name.
const LONG_PREFIX_BYTES: usize = 46;
/// Longest value of a label.
pub const LABEL_BYTES_MAX: usize = 63;

/// Returns what every name made of `name`, or of a longer one that begins with it, begins with.
pub fn stem(name: &str) -> &str {
    shorten(&name[..name.floor_char_boundary(CUT_BYTES)])
}

/// Returns `name` cut to at most 57 bytes, ending in an ASCII letter or digit.
///
/// # Limits
/// A name without any ASCII letter or digit becomes `x`, so that what is built on it is still a name.
pub fn shorten(name: &str) -> &str {
    let bytes = name.as_bytes();
    let kept = if bytes.len() > KEPT_BYTES_MAX { &bytes[..CUT_BYTES] } else { bytes };
    match kept.iter().rposition(u8::is_ascii_alphanumeric) {
        Some(last) => &name[..=last],
        None => "x",
    }
}

/// Returns the name that Kratix derives: the shortened name and five digits of a hash.
///
/// Without inputs the whole name is hashed, otherwise only the inputs, joined by `-`.
pub fn deterministic(name: &str, inputs: &[&str]) -> String {
    let digest = if inputs.is_empty() { hash::text(name) } else { hash::text(&inputs.join("-")) };
    with_suffix(name, &digest)
}

/// Returns a name of the form and length of a random one, whose suffix follows from `inputs`.
///
/// Used where the reference draws a random suffix (Jobs and Works), so that a replay after a crash meets the object
/// that the first attempt made.
///
/// # Guarantees
/// Different lists of inputs are hashed differently, whatever characters they hold.
pub fn derived(name: &str, inputs: &[&str]) -> String {
    // Lengths keep ["a", "bc"] and ["ab", "c"] apart.
    let text: String = inputs.iter().map(|input| format!("{}:{input}\n", input.len())).collect();
    with_suffix(name, &hash::text(&text))
}

/// Returns a value usable as label: `name` itself, or its deterministic form when it is too long.
pub fn label_value(name: &str) -> String {
    if name.len() > LABEL_BYTES_MAX { deterministic(name, &[]) } else { name.to_owned() }
}

fn with_suffix(name: &str, digest: &str) -> String {
    format!("{}-{}", shorten(name), &digest[..SUFFIX_DIGITS])
}

/// Name of a PromiseRevision.
pub fn promise_revision(promise: &str, version: &str) -> String {
    deterministic(promise, &[version])
}

/// Name of a PromiseRevision made by early versions; such an object is replaced on sight.
pub fn legacy_promise_revision(promise: &str, version: &str) -> String {
    format!("{promise}-{version}")
}

/// Name of a ResourceBinding made by Kratix.
pub fn resource_binding(request: &str, promise: &str) -> String {
    deterministic(&format!("{request}-{promise}"), &[])
}

/// Name of a ResourceBinding whose usual name is that of another request: sixteen digits tell `x-y` of `z` from `x` of
/// `y-z`, which five digits of their common text cannot.
pub fn unambiguous_resource_binding(request: &str, promise: &str) -> String {
    let digest = hash::text(&format!("{request}\n{promise}"));
    let base = format!("{request}-{promise}");
    let kept = &base[..base.floor_char_boundary(LONG_PREFIX_BYTES)];
    format!("{}-{}", shorten(kept), &digest[..LONG_SUFFIX_DIGITS])
}

/// Name of a WorkPlacement.
pub fn work_placement(work: &str, destination: &str, group_id: &str) -> String {
    let id: String = group_id.chars().take(SUFFIX_DIGITS).collect();
    format!("{work}.{destination}-{id}")
}

/// Identifies a pipeline: the name of its ServiceAccount and of much of its RBAC.
pub fn pipeline_id(promise: &str, workflow: crate::WorkflowType, action: crate::Action, pipeline: &str) -> String {
    format!("{promise}-{workflow}-{action}-{pipeline}")
}

/// Longest pipeline id that admission lets pass.
pub const PIPELINE_ID_BYTES_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_the_reference() {
        assert_eq!(deterministic("example-redis", &[]), "example-redis-e7f90");
        assert_eq!(promise_revision("mypromise", "v1.0.0"), "mypromise-2888c");
        assert_eq!(promise_revision("redis", "not-set"), "redis-5a7f3");
        assert!(deterministic("kratix-promise-1.-@$#%", &[]).starts_with("kratix-promise-1-"));
        assert_eq!(work_placement("w", "d", "5058f1af"), "w.d-5058f");
    }

    #[test]
    fn fifty_seven_bytes_stay_and_fifty_eight_become_fifty_six() {
        assert_eq!(shorten(&"a".repeat(57)).len(), 57);
        assert_eq!(shorten(&"a".repeat(58)).len(), 56);
    }

    #[test]
    fn names_of_one_stem_begin_with_it() {
        for bytes in [1, 55, 56, 57, 58, 90] {
            let name = "a".repeat(bytes);
            for made in [deterministic(&name, &[]), deterministic(&format!("{name}-other"), &[])] {
                assert!(made.starts_with(stem(&name)), "{made}");
            }
        }
        assert_eq!(stem(&format!("{}-b", "a".repeat(55))), "a".repeat(55));
    }

    #[test]
    fn a_name_without_letters_does_not_panic() {
        assert_eq!(shorten("--.--"), "x");
        assert_eq!(shorten(""), "x");
        assert_eq!(shorten("é漢"), "x");
    }

    #[test]
    fn only_a_value_too_long_for_a_label_is_shortened() {
        assert_eq!(label_value(&"a".repeat(63)), "a".repeat(63));
        assert_eq!(label_value(&"a".repeat(64)).len(), 62);
    }

    #[test]
    fn requests_whose_bindings_have_one_usual_name_have_two_others() {
        assert_eq!(resource_binding("x-y", "z"), resource_binding("x", "y-z"));
        let names = [unambiguous_resource_binding("x-y", "z"), unambiguous_resource_binding("x", "y-z")];
        assert_ne!(names[0], names[1]);
        assert!(names[0].starts_with("x-y-z-"));
        assert!(unambiguous_resource_binding(&"a".repeat(80), "é").len() <= LABEL_BYTES_MAX);
    }

    #[test]
    fn borders_between_inputs_count() {
        assert_ne!(derived("n", &["a", "bc"]), derived("n", &["ab", "c"]));
        assert_eq!(derived("n", &["a"]), derived("n", &["a"]));
        assert_eq!(derived("name", &["a"]).len(), "name-12345".len());
    }

    proptest! {
        #[test]
        fn every_name_fits_a_label_and_ends_well(name in ".{0,80}", input in ".{0,10}") {
            for made in [deterministic(&name, &[]), deterministic(&name, &[&input]), derived(&name, &[&input])] {
                prop_assert!(made.len() <= LABEL_BYTES_MAX);
                let (_, suffix) = made.rsplit_once('-').unwrap();
                prop_assert_eq!(suffix.len(), SUFFIX_DIGITS);
                prop_assert!(suffix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            }
            prop_assert!(shorten(&name).ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }
}
