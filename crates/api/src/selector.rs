//! Selectors as values: how several become one, and what they match.
//!
//! # Source
//! `01-api.md` §5.4, §5.5

use std::collections::BTreeMap;

use crate::keys;
use crate::promise::DestinationSelector;
use crate::work::{SelectorSource, WorkloadGroupSelector};

/// Labels that a Destination must carry.
pub type Labels = BTreeMap<String, String>;

/// Merges label maps of which earlier ones win.
pub fn squash<'a>(maps: impl IntoIterator<Item = &'a Labels>) -> Labels {
    let mut all = Labels::new();
    for (key, value) in maps.into_iter().flatten() {
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    all
}

/// Returns the entry that a Promise's own selectors put on a group, if it has any.
pub fn of_promise(selectors: &[DestinationSelector]) -> Option<WorkloadGroupSelector> {
    if selectors.is_empty() {
        return None;
    }
    let match_labels = squash(selectors.iter().map(|selector| &selector.match_labels));
    Some(WorkloadGroupSelector { match_labels, source: Some(SelectorSource::Promise) })
}

/// Returns what a group of a Work finally asks for.
///
/// Higher sources override lower ones key by key: the Promise, then its workflow, then everything else. Within one
/// source later entries override earlier ones. A Work of a preview asks for nothing but preview Destinations.
pub fn effective(entries: &[WorkloadGroupSelector], run: crate::hash::Run) -> Labels {
    if run == crate::hash::Run::Dry {
        return Labels::from([(keys::DRY_RUN.to_owned(), keys::TRUE.to_owned())]);
    }
    let rank = |entry: &&WorkloadGroupSelector| match entry.source {
        Some(SelectorSource::Promise) => 2,
        Some(SelectorSource::PromiseWorkflow) => 1,
        _ => 0,
    };
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(rank); // stable: later entries of one source stay later, and so override
    sorted.into_iter().flat_map(|entry| entry.match_labels.clone()).collect()
}

/// Returns whether `labels` carry every pair of `selector`.
pub fn matches(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Returns whether a Destination with these properties takes documents that ask for `selector`.
///
/// # Limits
/// Whether the Destination is being deleted is the caller's to know.
pub fn accepts(selector: &Labels, labels: Option<&Labels>, strict: bool) -> bool {
    let dry_run = |labels: &Labels| keys::is_set(labels, keys::DRY_RUN);
    let is_labelled = labels.is_some_and(|labels| !labels.is_empty());
    matches(selector, labels)
        && !(selector.is_empty() && strict && is_labelled)
        && (dry_run(selector) || !labels.is_some_and(dry_run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Run;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn entry(source: Option<SelectorSource>, text: &str) -> WorkloadGroupSelector {
        WorkloadGroupSelector { match_labels: labels(text), source }
    }

    #[test]
    fn the_first_selector_with_a_key_wins() {
        let maps = [labels("environment=dev"), labels("environment=prod,pci=false"), labels("pci=true,secure=false")];
        assert_eq!(squash(&maps), labels("environment=dev,pci=false,secure=false"));
        assert_eq!(of_promise(&[]), None);
    }

    #[test]
    fn the_promise_overrides_its_workflow_and_that_the_request() {
        let entries = [
            entry(Some(SelectorSource::Promise), "a=promise"),
            entry(Some(SelectorSource::PromiseWorkflow), "a=workflow,b=workflow"),
            entry(Some(SelectorSource::ResourceWorkflow), "a=request,b=request,c=request"),
            entry(None, "c=later"),
        ];
        assert_eq!(effective(&entries, Run::Real), labels("a=promise,b=workflow,c=later"));
        assert_eq!(effective(&entries, Run::Dry), labels("kratix.io/dry-run=true"));
    }

    #[test]
    fn a_destination_takes_what_it_carries() {
        let takes = |selector: &str, on: &str, strict| accepts(&labels(selector), Some(&labels(on)), strict);
        assert!(takes("", "", true));
        assert!(takes("", "a=b", false));
        assert!(!takes("", "a=b", true));
        assert!(takes("a=b", "a=b,c=d", true));
        assert!(!takes("a=b", "a=c", false));
        assert!(!takes("", "kratix.io/dry-run=true", false));
        assert!(takes("kratix.io/dry-run=true", "kratix.io/dry-run=true", true));
        assert!(!accepts(&labels("a=b"), None, false));
    }
}
