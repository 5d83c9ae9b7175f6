//! The parts of a Work whose files one object cannot hold: written before the Work that refers to them.
//!
//! # Guarantees
//! Parts that are there are used again, after it was said on them for which generation of the Work: whoever removes parts
//! that no Work refers to removes none that is about to be referred to. What somebody has altered is put right. Nothing is
//! deleted here: the pod may not.

use std::collections::{BTreeMap, BTreeSet};

use kratix_api::part::{self, Part};
use kratix_api::{Timestamp, Work, keys};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};

use crate::Error;

/// Generation of an object whose spec was never changed.
const FIRST_GENERATION: i64 = 1;
/// How long a claim is relied on: well below the time after which a part that nobody refers to is removed.
const CLAIM_SECONDS: i64 = 1200;

/// The Work that is to refer to parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// None if it does not exist yet.
    pub(crate) uid: Option<String>,
    /// That which it has now; 0 if it does not exist.
    pub(crate) generation: i64,
    /// Names of the parts to which it refers now.
    pub(crate) referred: BTreeSet<String>,
}

/// What is there of a Work's parts.
pub(crate) type Present = BTreeMap<String, PartialObjectMeta<Work>>;

/// What is done about one part.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Keep,
    Create,
    /// Merge patch that says for which generation it is.
    Claim(Value),
    /// Merge patch that says the same, of one whose files somebody has altered.
    Restore(Value),
    /// It is on its way out, and has the name.
    Await,
}

/// Returns what is there of the parts of a Work.
pub(crate) async fn present(works: &Api<Work>, work: &str) -> Result<Present, Error> {
    let labels: Vec<String> = part::labels(work).iter().map(|(key, value)| format!("{key}={value}")).collect();
    let params = ListParams::default().labels(&labels.join(","));
    let found = works.list_metadata(&params).await.map_err(Error::api("list parts of the Work"))?;
    Ok(found.items.into_iter().map(|part| (part.name_any(), part)).collect())
}

/// Makes sure that all parts are there and stay. Returns false if one of them is on its way out.
pub(crate) async fn store(works: &Api<Work>, whole: &Whole, parts: &[Part], now: Timestamp) -> Result<bool, Error> {
    let present = present(works, &whole.name).await?;
    for part in parts {
        let name = part.name(&whole.name);
        let written = match step(whole, &name, present.get(&name), now) {
            Step::Keep => continue,
            Step::Await => return Ok(false),
            Step::Create => {
                let object = part.object(&whole.namespace, &whole.name, whole.generation + 1, now);
                works.create(&PostParams::default(), &object).await.map(drop)
            }
            Step::Claim(patch) => {
                works.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            }
            Step::Restore(mut patch) => {
                let object = part.object(&whole.namespace, &whole.name, whole.generation + 1, now);
                patch["spec"] = json!(object.spec);
                works.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
            }
        };
        match written {
            Ok(()) => {}
            // It came or went since the list: the next one tells.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(false),
            Err(error) => return Err(Error::api(format!("write part {name} of the Work"))(error)),
        }
    }
    Ok(true)
}

/// Tells whether one of the parts is missing.
pub(crate) async fn lacks(works: &Api<Work>, work: &str, parts: &[Part]) -> Result<bool, Error> {
    let present = present(works, work).await?;
    Ok(parts.iter().any(|part| !stays(present.get(&part.name(work)))))
}

/// What is being deleted is as good as gone.
fn stays(present: Option<&PartialObjectMeta<Work>>) -> bool {
    present.is_some_and(|present| present.metadata.deletion_timestamp.is_none())
}

fn step(whole: &Whole, name: &str, present: Option<&PartialObjectMeta<Work>>, now: Timestamp) -> Step {
    let Some(present) = present else { return Step::Create };
    if !stays(Some(present)) {
        return Step::Await;
    }
    // What is said on it is no change of it; only its files are.
    let is_altered = present.metadata.generation.unwrap_or(FIRST_GENERATION) > FIRST_GENERATION;
    // What belongs to an earlier Work of this name goes with it.
    let is_foreign = present.owner_references().iter().any(|owner| Some(&owner.uid) != whole.uid.as_ref());
    if whole.referred.contains(name) && !is_foreign && !is_altered {
        return Step::Keep;
    }
    let mut metadata = json!({ "annotations": part::annotations(whole.generation + 1, now) });
    if is_foreign {
        metadata["ownerReferences"] = Value::Null;
    }
    let noted = present.annotations().get(keys::PART_GENERATION).and_then(|noted| noted.parse::<i64>().ok());
    let written_at = present.annotations().get(keys::PART_WRITTEN_AT).and_then(|at| at.parse::<Timestamp>().ok());
    let is_recent = written_at.is_some_and(|at| now.duration_since(at).as_secs() < CLAIM_SECONDS);
    // A Work that does not exist has no generation to wait for, only a time; and a claim is not for ever.
    let is_claimed = whole.uid.is_some() && noted == Some(whole.generation + 1) && is_recent;
    let patch = json!({ "metadata": metadata });
    match (is_altered, is_claimed && !is_foreign) {
        (true, _) => Step::Restore(patch),
        (false, true) => Step::Keep,
        (false, false) => Step::Claim(patch),
    }
}

#[cfg(test)]
mod tests {
    use kratix_api::{ObjectMeta, OwnerReference, Time};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T10:00:00Z".parse().unwrap()
    }

    fn whole(generation: i64, referred: &[&str]) -> Whole {
        Whole {
            namespace: "default".into(),
            name: "w".into(),
            uid: (generation > 0).then(|| "u".to_owned()),
            generation,
            referred: referred.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn present(generation: i64, owner: &str) -> PartialObjectMeta<Work> {
        let owner = OwnerReference { uid: owner.into(), ..OwnerReference::default() };
        let metadata = ObjectMeta {
            annotations: Some(part::annotations(generation, now())),
            owner_references: (!owner.uid.is_empty()).then(|| vec![owner]),
            ..ObjectMeta::default()
        };
        PartialObjectMeta { metadata, ..PartialObjectMeta::default() }
    }

    #[test]
    fn a_part_is_made_once_and_claimed_before_it_is_referred_to_again() {
        let claim = |generation: i64| {
            let annotations = part::annotations(generation, now());
            Step::Claim(json!({ "metadata": { "annotations": annotations } }))
        };
        let step = |whole: &Whole, present: Option<&PartialObjectMeta<Work>>| step(whole, "p", present, now());
        assert_eq!(step(&whole(3, &[]), None), Step::Create);
        assert_eq!(step(&whole(3, &["p"]), None), Step::Create, "somebody has removed it");
        assert_eq!(
            step(&whole(3, &["p"]), Some(&present(1, "u"))),
            Step::Keep,
            "nothing is written for what is in use"
        );
        assert_eq!(step(&whole(3, &[]), Some(&present(3, "u"))), claim(4), "it might be removed at any time");
        assert_eq!(step(&whole(3, &[]), Some(&present(4, ""))), Step::Keep, "made by this pod, which has died");
        assert_eq!(step(&whole(0, &[]), Some(&present(1, ""))), claim(1), "only its age keeps it");
    }

    #[test]
    fn a_claim_that_is_about_to_lapse_is_made_again() {
        let old = present(4, "u");
        let step = |seconds| step(&whole(3, &[]), "p", Some(&old), now() + std::time::Duration::from_secs(seconds));
        assert_eq!(step(1199), Step::Keep);
        assert!(matches!(step(1200), Step::Claim(_)), "it might go while the Work is written");
    }

    #[test]
    fn a_part_whose_files_were_altered_is_put_right_whoever_refers_to_it() {
        for (generation, referred) in [(3, &["p"][..]), (3, &[]), (0, &[])] {
            let mut altered = present(generation + 1, if generation > 0 { "u" } else { "" });
            altered.metadata.generation = Some(2);
            let step = step(&whole(generation, referred), "p", Some(&altered), now());
            let Step::Restore(patch) = step else { panic!("{step:?}") };
            assert_eq!(patch["metadata"]["annotations"][keys::PART_GENERATION], (generation + 1).to_string());
        }
    }

    #[test]
    fn what_is_being_deleted_is_missing() {
        let mut part = present(1, "u");
        assert!(stays(Some(&part)) && !stays(None));
        part.metadata.deletion_timestamp = Some(Time(now()));
        assert!(!stays(Some(&part)));
    }

    #[test]
    fn a_part_of_an_earlier_work_of_this_name_is_taken_over_and_one_that_goes_is_waited_for() {
        let Step::Claim(patch) = step(&whole(3, &["p"]), "p", Some(&present(4, "former")), now()) else {
            panic!("left to go with the other Work")
        };
        assert_eq!(patch["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(patch["metadata"]["annotations"][keys::PART_GENERATION], "4");
        let mut going = present(4, "u");
        going.metadata.deletion_timestamp = Some(Time(now()));
        assert_eq!(step(&whole(3, &["p"]), "p", Some(&going), now()), Step::Await);
    }
}
