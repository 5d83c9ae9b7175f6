//! Every difference from the recordings that is meant, and why. Anything else is a defect.

use regex::Regex;

/// A difference that is meant.
pub(super) struct Accepted {
    /// Numbers of the scenarios that have it, and must have it; without any, every scenario may.
    pub(super) scenarios: &'static [&'static str],
    /// Matches the difference; that of a replay begins with its stage.
    pub(super) difference: &'static str,
    pub(super) reason: &'static str,
}

const ACCEPTED: &[Accepted] = &[
    // Of all scenarios: events.
    Accepted {
        scenarios: &[],
        difference: r"missing: .* \| (successfully written to Destination: \S+|workplacement reconciled: .*, operation: unchanged)$",
        reason: "decision 7, 05 §16 (10): a pass that changes nothing tells nothing",
    },
    Accepted {
        scenarios: &["06", "07", "12", "16"],
        difference: r"missing: .* \| Work/kratix-platform-system/g-(06|07|16|12-\w+)-static-deps-<sfx> \| .*, operation: updated$",
        reason: "decision 15: there, a Promise with dependencies triggers itself and rewrites its Work without end",
    },
    Accepted {
        scenarios: &[],
        difference: r"extra: Normal \| WorkplacementReconciled \| .*, operation: created$",
        reason: "decision 15: there, the first pass over a Work is lost to a conflict, and its event with it",
    },
    Accepted {
        scenarios: &[],
        difference: r"extra: Normal \| ReconcileSucceeded \| PromiseController \| .* \| Successfully reconciled$",
        reason: "03 §25 (7): a Promise without workflow is reconciled as well",
    },
    // Of all scenarios: objects.
    Accepted {
        scenarios: &[],
        difference: r"WorkPlacement/.*\.metadata\.labels\.kratix\.io/(promise-name|resource-name|resource-namespace|work-type) is .*, not null$",
        reason: "decision 2: placements are found by the labels of their Works",
    },
    Accepted {
        scenarios: &[],
        difference: r#"(WorkPlacement|Destination)/\S+\.metadata\.annotations(\.kratix\.io/(store-location|files-at) is .*| is \{"kratix\.io/(store-location|files-at)":".*"\}), not null$"#,
        reason: "05 §16 (19): where files are is noted, so that they are removed there when the place changes",
    },
    Accepted {
        scenarios: &[],
        difference: r#"WorkPlacement/kratix-platform-system/g-\d\d-static-deps-\S+ is ("True/WorkloadsWritten.*|"<commit>"), not (null|"False/ScheduledToDestination/Pending")$"#,
        reason: "decision 15: there, the writer of a Work that is rewritten without end never gets to tell",
    },
    Accepted {
        scenarios: &[],
        difference: r#"Work/\S+( is "True/AllWorkplacementsScheduled/.*, not "False/FailedToScheduleWorkloads/.*|\.workPlacements(Created)? is 1, not null)$"#,
        reason: "decision 15: there, a conflict of the first pass is shown as a failure",
    },
    Accepted {
        scenarios: &[],
        difference: r#"Promise/\S+\.conditions\.Reconciled is "True/Reconciled/Reconciled", not null$"#,
        reason: "03 §25 (7): a Promise without workflow is reconciled as well",
    },
    Accepted {
        scenarios: &[],
        difference: r#"\.conditions\.ScheduleSucceeded is "False/UnscheduledWorkloadGroups/.*, not "False/UnscheduledWorkloads/"#,
        reason: "decision 1",
    },
    Accepted {
        scenarios: &["04", "11", "14"],
        difference: r"Promise/\S+\.conditions\.RequestsUpToDate is .*, not null$",
        reason: "how far the requests are that run again is told in a condition",
    },
    Accepted {
        scenarios: &["02", "03", "06", "07", "08", "09", "10", "12", "16", "17", "18", "20"],
        difference: r"missing: .*\| Reconciling all resource requests$",
        reason: "01 §1.6: there, the first write to a Promise changes its spec, and so its generation",
    },
    Accepted {
        scenarios: &["04", "05", "11"],
        difference: r"^0[123]-(promise-available|reconciled|request-deleted|promise-v1|requests-at-v1): missing: .*\| Reconciling all resource requests$",
        reason: "01 §1.6: the same; later it changes indeed",
    },
    Accepted {
        scenarios: &["14"],
        difference: r"^0[1-6]-.*missing: .*\| Reconciling all resource requests$",
        reason: "01 §1.6: the same; later it changes indeed",
    },
    // Dependencies.
    Accepted {
        scenarios: &["01", "05"],
        difference: r"^(01-available: missing: |0[123]-(promise-available|reconciled|request-deleted): missing: |04-promise-selectors-changed: missing: .*left-5058f,).*operation: updated$",
        reason: "decision 15: the same; later they are updated indeed, and it is told",
    },
    Accepted {
        scenarios: &["01", "07"],
        difference: r#"(extra: Warning \| WorksMisplaced \| PromiseController|Promise/\S+\.conditions\.(WorksSucceeded is "False/WorksMisplaced/.*, not "True/|Reconciled is "False/WorksFailing/Failing", not null))"#,
        reason: "03 §25 (9): dependencies count among the Works of a Promise",
    },
    Accepted {
        scenarios: &["05"],
        difference: r#"^04-.*((extra|missing): Warning \| WorksMisplaced \| PromiseController|\.conditions\.WorksSucceeded is "False/WorksMisplaced/.*, not "False/WorksMisplaced/)"#,
        reason: "03 §25 (9): dependencies count among the Works of a Promise",
    },
    Accepted {
        scenarios: &["01"],
        difference: r"^06-promise-deleted: PromiseRevision/g-01-\w+: 0 of them, not 1$",
        reason: "decision 17, 03 §25 (19): revisions of a Promise without API go with it",
    },
    // Permissions.
    Accepted {
        scenarios: &["04"],
        difference: r"missing: Warning \| DestinationNotReady .*: not ready$",
        reason: "decision 15: there, the Destination was looked at before its store was",
    },
    Accepted {
        scenarios: &["04"],
        difference: r#"^0[34]-.*(Job/\S+: 2 of them, not 1|\.rules\[1\]\.verbs is |\.PromiseAvailable is "True/.*, not "False/|\.status\.message is "Resource requested", not "Pending")"#,
        reason: "decision 11: requests run at once when their Promise has changed; there, they wait a minute for it to be available",
    },
    // Paths.
    Accepted {
        scenarios: &["06"],
        difference: r"^0[34]-.*g-06-none-two",
        reason: "decision 16: a path has one owner, so the second request that wants `a.yaml` is refused",
    },
    Accepted {
        scenarios: &["06"],
        difference: r"^0[345]-\S+: none/(a\.yaml|sub/x1\.yaml) ",
        reason: "decision 16: the files of the first request stay as they are, and go with it; then the second one is written",
    },
    // Misplaced and unscheduled.
    Accepted {
        scenarios: &["07", "20"],
        difference: r"missing: .*\| Resource request reconciled with promise g-\d\d version not-set$",
        reason: "decision 14: a request whose Work is unscheduled is not reconciled",
    },
    Accepted {
        scenarios: &["07", "20"],
        difference: r#"\.conditions\.Reconciled is "Unknown/WorksPending/Pending", not "Unknown/WorkflowPending/Pending"$"#,
        reason: "04 §28 (5): the reason is that of now",
    },
    Accepted {
        scenarios: &["07"],
        difference: r#"^0[12]-.*(missing: Normal \| WorksSucceeded \| PromiseController|Promise/\S+\.conditions\.(WorksSucceeded is "Unknown/WorksPending/.*, not "True/|Reconciled is "Unknown/WorksPending/Pending", not null))"#,
        reason: "03 §25 (9): dependencies count among the Works of a Promise",
    },
    Accepted {
        scenarios: &["07"],
        difference: r#"^06-label-back: WorkPlacement/\S+(/misplaced is null, not "true"|\.Ready is "True/.*, not "False/Misplaced/Misplaced")$"#,
        reason: "05 §16 (6): a placement whose Destination matches again is misplaced no more",
    },
    Accepted {
        scenarios: &["07"],
        difference: r#"^0[78]-.*(DestinationNotFound|destination: g-07-one does not exist any more)"#,
        reason: "05 §16 (12): a placement says that its Destination is gone",
    },
    Accepted {
        scenarios: &["07"],
        difference: r"^(09|10)-.*(extra: Normal \| DestinationReady \||extra: .*g-07-static-deps-<sfx>|Work/\S+\.status is .*, not null$)",
        reason: "decision 15: these stages were taken while everything was on its way",
    },
    Accepted {
        scenarios: &["20"],
        difference: r"^02-deleted: (no|a) commit: kratix <> \| Delete from: g-20-g-20-(docs|text)-odd-",
        reason: "of two that share a file and go at once, it is chance whose commit removes it",
    },
    // Workflows.
    Accepted {
        scenarios: &["08"],
        difference: r#"ResourceBinding/\S+/workflow-suspended is null, not "true"$"#,
        reason: "04 §28 (10): labels that steer a request are not copied to its binding",
    },
    Accepted {
        scenarios: &["09"],
        difference: r#"(\.(conditions\.PipelineFailing is "True/.*, not null|message is "pipeline second: .*, not "Pending")$|extra: Warning \| JobFailed \| ResourceRequestController \| .*: Job \S+ has failed: )"#,
        reason: "docs: what has failed, and why, is told on the request",
    },
    Accepted {
        scenarios: &["14"],
        difference: r"^05-promise-paused: .*Paused",
        reason: "decision 11: a label is noticed when it comes; there, with the next change of the spec",
    },
    Accepted {
        scenarios: &["14"],
        difference: r#"^05-promise-paused: Promise/\S+status is "Unavailable", not "Available"$"#,
        reason: "decision 11: the same",
    },
    Accepted {
        scenarios: &["14"],
        difference: r#"^06-.*\.Reconciled is "Unknown/PausedReconciliation/Paused", not "True/"#,
        reason: "04 §28 (18): every request of a paused Promise says so",
    },
    Accepted {
        scenarios: &["11"],
        difference: r"^06-pin-to-unknown-version: .*(cannot find a PromiseRevision|failedVersion|manual-reconciliation is null)",
        reason: "03 §25 (31): a version that does not exist is told as a failure, and asks for no run",
    },
    Accepted {
        scenarios: &["11"],
        difference: r"^0[5-8]-.*Job/g-11/kratix-g-11-g-11-pin-\w+-<sfx>",
        reason: "decision 15: there, a binding that moves starts its Job twice, so older ones go sooner",
    },
    // Requirements and releases.
    Accepted {
        scenarios: &["12"],
        difference: r"^0[34]-.*missing: .* \| Work/kratix-platform-system/g-12-static-deps-<sfx> \| .*, operation: updated$",
        reason: "decision 15: a Promise with dependencies; later it is updated indeed, and it is told",
    },
    Accepted {
        scenarios: &["12"],
        difference: r"(missing: Normal \| RequirementsNotInstalled|extra: Warning \| RequirementsNot(Installed|Available)) ",
        reason: "docs: what is missing is a warning, and names the Promise",
    },
    Accepted {
        scenarios: &["12"],
        difference: r"(PromiseRelease/g-12: 0 of them, not 1|Promise/g-12\.metadata\.ownerReferences is null)",
        reason: "the release is played here",
    },
    Accepted {
        scenarios: &["12"],
        difference: r#"^03-released-v1: Promise/g-12\S*\.(requiredBy is .*, not null|requiredPromises\[0\]\.state is "Requirement installed")"#,
        reason: "decision 11, 03 §25 (25): a requirement that comes is noticed at once",
    },
    Accepted {
        scenarios: &["12"],
        difference: r#"Promise/g-12-top\.status\.conditions\.Reconciled is "True/.*, not "Unknown/RequirementsNotFulfilled/Pending"$"#,
        reason: "03 §25 (7): what kept it from being reconciled is not left behind",
    },
    Accepted {
        scenarios: &["12"],
        difference: r"^09-release-deleted: extra: Warning \| Unavailable \|",
        reason: "decision 11: a requirement that goes is noticed at once",
    },
    Accepted {
        scenarios: &["12"],
        difference: r"^09-release-deleted: PromiseRevision/g-12-\w+: 0 of them, not 1$",
        reason: "decision 17, 03 §25 (19): revisions of a Promise without API go with it",
    },
    Accepted {
        scenarios: &["17"],
        difference: r"(extra: Normal \| RevisionCreated .* \| Promise/g-17-req \||PromiseRevision/g-17-req-\w+\.metadata\.deletionTimestamp is null)",
        reason: "decision 17: there, the revision of an earlier try was in deletion for ever",
    },
    // State stores.
    Accepted {
        scenarios: &["18"],
        difference: r"^(0[3-9]|1\d)-.*missing: Warning \| (FailedWriteToDestination|WorkplacementsFailing|WorksFailing) ",
        reason: "no push is refused here: `core::work::tests::golden` and `cli::troubleshooting` show it",
    },
    Accepted {
        scenarios: &["18"],
        difference: r#"^0[46789]-.*(G18/\S+Reconciled is "Unknown/|G18/\S+WorksSucceeded is "Unknown/|Work/\S+Ready is "False/Workplacements|WorkPlacement/\S+ is "(False/StateStoreNotReady/Pending|Unknown/StateStoreNotReady/)|extra: Warning \| StateStoreNotReady \| WorkPlacementController)"#,
        reason: "decision 14, 05 §16 (16): while the store cannot be used nothing counts as written",
    },
    Accepted {
        scenarios: &["18"],
        difference: r#"^06-unreachable: GitStateStore/g-18\.spec\.url is "#,
        reason: "the address here is that of a directory",
    },
    // Pipelines elsewhere.
    Accepted {
        scenarios: &["15"],
        difference: r"extra: .*\| g-15-pipes \|",
        reason: "the recorder did not look into the namespace of the pipelines",
    },
];

/// Returns the differences that are not meant, and says which ones were meant and are not there.
pub(super) fn unexplained(scenario: &str, differences: &[String]) -> Vec<String> {
    unexplained_by(ACCEPTED, scenario, differences)
}

/// Does the same with other rules.
pub(super) fn unexplained_by(accepted: &[Accepted], scenario: &str, differences: &[String]) -> Vec<String> {
    let number = &scenario[..2];
    let rules = accepted.iter().filter(|rule| rule.scenarios.is_empty() || rule.scenarios.contains(&number));
    let mut left = differences.to_vec();
    for rule in rules {
        let expected = Regex::new(rule.difference).unwrap();
        left.retain(|difference| !expected.is_match(difference));
        if !rule.scenarios.is_empty() && !differences.iter().any(|difference| expected.is_match(difference)) {
            left.push(format!("there is no such difference any more: {} ({})", rule.difference, rule.reason));
        }
    }
    left
}
