//! The Promises that a Promise requires: what is missing is told, and nothing is refused for it.
//!
//! # Source
//! `01-api.md` §7.3 C5, §9.2.8

use std::collections::BTreeMap;

use kratix_api::promise::RequiredPromise;
use kratix_api::{Promise, PromiseRevision, keys};

use super::promise::Case;
use super::question::{existing, list};
use super::{Question, Ruling};
use crate::object::ObjectKey;
use crate::promise::requirement::{cycle, is_asked_for, required_names};

/// Promises that are looked at in search of a circle; a longer way round is not found here, but by the controller.
pub(super) const LOOK_UPS_MAX: usize = 64;

/// Returns one warning for each requirement that is not met, and what they mean.
pub(super) fn warnings(case: &Case<'_>) -> Ruling<Vec<String>> {
    let required = &case.promise.spec.required_promises;
    let is_other = |requirement: &&RequiredPromise| !requirement.name.is_empty() && requirement.name != case.name();
    case.snapshot.know(required.iter().filter(is_other).flat_map(questions))?;
    let mut warnings = Vec::new();
    for (index, requirement) in required.iter().enumerate() {
        let name = &requirement.name;
        if name.is_empty() {
            warnings
                .push(format!("spec.requiredPromises[{index}].name is empty, no Promise can fulfil the requirement"));
        } else if is_other(&requirement) {
            warnings.extend(unmet(case, requirement)?);
        } else {
            warnings.push(format!("Promise {name:?} requires itself"));
        }
    }
    if let Some(way) = circle(case)?.filter(|way| way.len() > 2) {
        warnings.push(format!("These Promises require each other: {}", way.join(" -> ")));
    }
    if !warnings.is_empty() {
        warnings.push("Promise will not be available until the above issue(s) is resolved".to_owned());
    }
    Ok(warnings)
}

fn questions(requirement: &RequiredPromise) -> Vec<Question> {
    let promise = existing::<Promise>(ObjectKey::cluster(&requirement.name));
    let revisions = (!requirement.version.is_empty()).then(|| list::<PromiseRevision>(of_promise(&requirement.name)));
    // Without the one the other is not asked.
    promise.into_iter().flat_map(|promise| [Some(promise), revisions.clone()]).flatten().collect()
}

fn of_promise(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(keys::PROMISE_NAME.to_owned(), name.to_owned())])
}

fn unmet(case: &Case<'_>, requirement: &RequiredPromise) -> Ruling<Option<String>> {
    let RequiredPromise { name, version } = requirement;
    match case.snapshot.get::<Promise>(ObjectKey::cluster(name))? {
        Err(refusal) if refusal.is_not_found() => {
            return Ok(Some(format!("Required Promise {name:?} at version {version:?} not installed")));
        }
        // Nobody knows; the controller finds out.
        Err(_) => return Ok(None),
        Ok(_) if version.is_empty() => return Ok(None),
        Ok(_) => {}
    }
    let Ok(revisions) = case.snapshot.list::<PromiseRevision>(of_promise(name))? else { return Ok(None) };
    let is_there = revisions.iter().any(|revision| is_asked_for(revision, requirement));
    Ok((!is_there)
        .then(|| format!("Required Promise {name:?} installed, but no revision found at version {version:?}")))
}

/// Returns the names on a way from the Promise back to itself.
fn circle(case: &Case<'_>) -> Ruling<Option<Vec<String>>> {
    let mut unknown = Vec::new();
    let mut looked_at = 0;
    let way = cycle(case.name(), |name| {
        if name == case.name() {
            return required_names(&case.promise);
        }
        looked_at += 1;
        let Some(question) = existing::<Promise>(ObjectKey::cluster(name)).filter(|_| looked_at <= LOOK_UPS_MAX) else {
            return Vec::new();
        };
        match case.snapshot.get::<Promise>(ObjectKey::cluster(name)) {
            Ok(promise) => promise.map(|promise| required_names(&promise)).unwrap_or_default(),
            Err(_) => {
                unknown.push(question);
                Vec::new()
            }
        }
    });
    case.snapshot.know(unknown)?;
    Ok(way)
}
