//! The Promise's selectors in a ConfigMap, from which pods learn where their output is to go.
//!
//! # Source
//! `02-workflows.md` §5.2

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ConfigMap;
use kratix_api::hash;
use kratix_api::promise::DestinationSelector;
use kube_core::ResourceExt;
use serde_json::{Value, json};

use super::outdated::running;
use super::{Existing, scheduling_name};
use crate::object::Target;
use crate::plan::Write;
use crate::workflow::Workflow;

/// Key of the scheduling ConfigMap.
pub const SCHEDULING_KEY: &str = "destinationSelectors";
/// Digits by which the selectors of one revision are told from those of another.
const KEY_DIGITS: usize = 8;

/// Returns the key under which the ConfigMap keeps the workflow's selectors: the usual one for those of the latest
/// revision, the first of `others`; one of its own for a revision that says something else.
pub(in crate::workflow) fn scheduling_key(workflow: &Workflow, others: &[Workflow]) -> String {
    selectors_key(&workflow.selectors, others.first().map(|latest| latest.selectors.as_slice()))
}

fn selectors_key(own: &[DestinationSelector], latest: Option<&[DestinationSelector]>) -> String {
    let own = scheduling(own);
    match latest {
        Some(latest) if scheduling(latest) != own => format!("{SCHEDULING_KEY}-{}", &hash::text(&own)[..KEY_DIGITS]),
        _ => SCHEDULING_KEY.to_owned(),
    }
}

/// Returns the removal of selectors that no revision in use has any more. `in_use` are theirs, the latest first; `jobs` returns
/// the Jobs of the Promise and its requests, asked for only if there is something to remove: a pod that has not begun yet cannot
/// begin without the key that its Job names.
pub(in crate::workflow) fn outdated_selectors(
    workflow: &Workflow,
    in_use: &[&[DestinationSelector]],
    existing: &Existing,
    jobs: impl FnOnce() -> Vec<Arc<Job>>,
) -> Option<Write> {
    let name = scheduling_name(workflow);
    let is_here =
        |map: &&Arc<ConfigMap>| map.namespace().as_ref() == Some(&workflow.namespace) && map.name_any() == name;
    let map = existing.config_maps.iter().find(is_here)?;
    let is_ours = |key: &str| {
        let digits = key.strip_prefix(SCHEDULING_KEY).and_then(|rest| rest.strip_prefix('-'));
        digits.is_some_and(|digits| digits.len() == KEY_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let used: BTreeSet<String> = in_use.iter().map(|own| selectors_key(own, in_use.first().copied())).collect();
    let is_used = |key: &String| used.contains(key) || workflow.scheduling_key == *key;
    let mut left: Vec<&String> =
        map.data.iter().flatten().map(|(key, _)| key).filter(|key| is_ours(key) && !is_used(key)).collect();
    if left.is_empty() {
        return None;
    }
    let running = running(jobs());
    left.retain(|key| !running.iter().any(|job| mounts(job, &name, key)));
    let removed: serde_json::Map<_, _> = left.into_iter().map(|key| (key.clone(), Value::Null)).collect();
    (!removed.is_empty())
        .then(|| Write::Patch { target: Target::of(map.as_ref()).unpinned(), patch: json!({ "data": removed }) })
}

/// Returns whether the pod of a Job mounts a key of a ConfigMap.
fn mounts(job: &Job, name: &str, key: &str) -> bool {
    let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let volumes = pod.into_iter().flat_map(|pod| pod.volumes.iter().flatten());
    let mut maps = volumes.filter_map(|volume| volume.config_map.as_ref()).filter(|map| map.name == name);
    maps.any(|map| map.items.iter().flatten().any(|item| item.key == key))
}

/// Returns the selectors as the original writes them: keys in lower case, one entry for each selector.
pub(super) fn scheduling(selectors: &[DestinationSelector]) -> String {
    if selectors.is_empty() {
        return "[]\n".into();
    }
    let mut text = String::new();
    for selector in selectors {
        match selector.match_labels.is_empty() {
            true => text.push_str("- matchlabels: {}\n"),
            false => text.push_str("- matchlabels:\n"),
        }
        for (key, value) in &selector.match_labels {
            text.push_str(&format!("    {}: {}\n", scalar(key), scalar(value)));
        }
        text.push_str("  source: promise\n");
    }
    text
}

/// Returns a text as YAML, quoted unless it certainly reads back as the same text in YAML 1.1 and 1.2.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_plain = starts_plain && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
    if is_plain && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        json!(text).to_string()
    }
}
