//! Recorded lives of the original, from end to end: what its user did is done to a platform of ours, and at every stage
//! there must be the same files, and the same events must have been told, but for the differences listed here.
//!
//! The recordings are beside the project; without them the tests say so and end.

mod accepted;
mod objects;
mod recorded;
mod replay;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::Regex;

use self::recorded::{Act, Recorded};
use self::replay::Replay;
use crate::run::on_one_thread;

/// Moments in the middle of something. Here it happens at once, and what was told by then is compared with the next stage.
const PASSED_BY: [&str; 9] = [
    "02-job-running",
    "03-delete-workflow-running",
    "05-promise-delete-workflow-running",
    "03-one-deletion-marked",
    "04-one-delete-workflow-running",
    "06-promise-deletion-marked",
    "07-promise-delete-workflow-running",
    "02-push-refused",
    "12-bucket-unreachable",
];

/// Returns a text with stand-ins for what differs from run to run.
fn masked(text: &str) -> String {
    static MASKS: LazyLock<[(Regex, &str); 6]> = LazyLock::new(|| {
        [
            (r"<sfx\d+>|<hash>", "<sfx>"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)", "<time>"),
            (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uid>"),
            (r"\b[0-9a-f]{40}\b", "<commit>"),
            (r"https://git\.example/[a-z0-9-]+\.git", "<store>"),
            // What follows is the error of a program there; here it says what was found and what helps.
            (
                r"(?s)(StateStore/\S+: not ready|unable to clone repository|not found in namespace \S+|missing key: \w+)[:;] .*",
                "$1",
            ),
        ]
        .map(|(text, mask)| (Regex::new(text).unwrap(), mask))
    });
    MASKS.iter().fold(text.to_owned(), |text, (found, mask)| found.replace_all(&text, *mask).into_owned())
}

/// What was told and committed up to a stage, there and here.
#[derive(Default)]
struct Told {
    theirs: BTreeSet<String>,
    ours: BTreeSet<String>,
    /// Of ours, what is not compared yet.
    new: BTreeSet<String>,
    commits: BTreeSet<String>,
}

impl Told {
    /// Says which events differ. What was on its way there when the stage was taken is in the next one.
    fn events(&mut self, soon: &BTreeSet<String>) -> Vec<String> {
        let missing = self.theirs.difference(&self.ours).map(|event| format!("missing: {event}"));
        let is_there = |event: &str| self.theirs.contains(event) || soon.contains(event) || self.is_folded(event);
        let extra = self.new.iter().filter(|event| !is_there(event)).map(|event| format!("extra: {event}"));
        let differences = missing.chain(extra).collect();
        self.new.clear();
        differences
    }

    /// The original's recorder makes one event of all that one pass tells of an object with one reason, and keeps the first
    /// text.
    fn is_folded(&self, event: &str) -> bool {
        let without_note = |event: &str| event.rsplit_once(" | ").unwrap().0.to_owned();
        self.theirs.iter().any(|other| without_note(other) == without_note(event))
    }

    fn commits(&self, ours: &BTreeSet<String>) -> Vec<String> {
        let missing = self.commits.difference(ours).map(|commit| format!("no commit: {commit}"));
        let extra = ours.difference(&self.commits).map(|commit| format!("a commit: {commit}"));
        missing.chain(extra).collect()
    }
}

/// Says which files differ.
fn files(theirs: &BTreeMap<String, String>, ours: &BTreeMap<String, String>) -> Vec<String> {
    let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let different = paths.into_iter().filter(|path| theirs.get(*path) != ours.get(*path));
    different.map(|path| format!("{path} is {:?}, not {:?}", ours.get(path), theirs.get(path))).collect()
}

/// Replays a scenario and compares at every stage.
async fn differences(recorded: &Recorded, mut replay: Replay) -> Vec<String> {
    let mut found = Vec::new();
    let mut told = Told::default();
    let mut acts = recorded.acts.iter();
    while let Some(act) = acts.next() {
        replay.act(recorded, act).await;
        let Act::Stage(stage) = act else { continue };
        told.theirs.extend(recorded.events(stage));
        told.commits.extend(recorded.commits(stage));
        let events = replay.events().await;
        told.ours.extend(events.iter().cloned());
        told.new.extend(events);
        if PASSED_BY.contains(&stage.as_str()) {
            continue;
        }
        let next = acts.clone().find_map(|act| if let Act::Stage(stage) = act { Some(stage) } else { None });
        let objects = replay.objects().await;
        let objects = objects::view(&objects, |text| replay.masked(text));
        let mut here = told.events(&next.map(|stage| recorded.events(stage)).unwrap_or_default());
        here.extend(objects::differences(&objects::view(recorded.objects(stage).values(), masked), &objects));
        // It is away for a while.
        if replay.world.repository().is_dir() {
            here.extend(told.commits(&replay.commits()));
            here.extend(files(&recorded.files(stage), &replay.files().await));
        }
        found.extend(here.iter().map(|difference| format!("{stage}: {difference}")));
    }
    found
}

/// Plays a scenario and fails with every difference that is not meant.
#[track_caller]
fn same(folder: &'static str) {
    let Some(recorded) = Recorded::open(folder) else { return };
    let played = on_one_thread(1, move |commits| async move {
        let replay = Replay::start(folder, &commits).await;
        let left = accepted::unexplained(folder, &differences(&recorded, replay).await);
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
    if let Err(differences) = played {
        panic!("{folder}:\n{differences}");
    }
}

#[test]
fn dependencies_of_a_promise() {
    same("01-promise-dependencies-only");
}

#[test]
fn a_pipeline_with_two_files_and_a_status() {
    same("02-resource-pipeline-two-files-status");
}

#[test]
fn several_pipelines_with_every_option() {
    same("03-several-pipelines-all-options");
}

#[test]
fn permissions_and_service_accounts() {
    same("04-rbac-permissions-service-account");
}

#[test]
fn groups_with_selectors() {
    same("05-destination-selector-groups");
}

#[test]
fn modes_of_paths() {
    same("06-filepath-modes-update-delete");
}

#[test]
fn unscheduled_misplaced_and_strict() {
    same("07-unscheduled-misplaced-strict");
}

#[test]
fn suspended_resumed_and_run_again_later() {
    same("08-suspend-resume-retry-after");
}

#[test]
fn a_pipeline_that_fails() {
    same("09-failing-pipeline-then-fixed");
}

#[test]
fn updates_and_manual_runs() {
    same("10-request-update-manual-reconcile");
}

#[test]
fn revisions_and_bindings() {
    same("11-promise-update-revisions-bindings");
}

#[test]
fn pauses() {
    same("14-paused");
}

#[test]
fn a_namespace_for_pipelines() {
    same("15-pipeline-namespace");
}

#[test]
fn a_deletion_step_by_step() {
    same("16-deletion-step-by-step");
}

#[test]
fn requirements_of_promises() {
    same("12-promise-release-and-requirements");
}

#[test]
fn what_admission_lets_in() {
    same("17-admission");
}

#[test]
fn stores_that_cannot_be_used() {
    same("18-store-credentials-and-recovery");
}

#[test]
fn odd_outputs() {
    same("20-odd-outputs");
}
