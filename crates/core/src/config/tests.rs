use k8s_openapi::api::core::v1::SecurityContext;

use super::*;

fn parse(text: &str) -> (Config, Vec<String>) {
    let (config, warnings) = Config::parse(text).unwrap();
    (config, warnings.iter().map(ToString::to_string).collect())
}

/// What an empty document means: all defaults, but user containers get an empty security context.
fn present() -> Config {
    let mut config = Config::default();
    config.workflows.default_container_security_context = Some(SecurityContext::default());
    config
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

#[test]
fn an_empty_document_is_all_defaults_with_an_empty_security_context() {
    for text in ["", "{}", "# nothing\n", "null"] {
        assert_eq!(parse(text), (present(), vec![]), "{text:?}");
    }
    assert_eq!(Config::default().workflows.default_container_security_context, None);
}

#[test]
fn the_full_example_is_read_without_a_warning() {
    let (config, warnings) = parse(
        "
numberOfJobsToKeep: 3
selectiveCache: true
reconciliationInterval: 6h
stateStoreReconciliationInterval: 1h
controllerLeaderElection: {leaseDuration: 30s, renewDeadline: 20s, retryPeriod: 4s}
resourceBindingVersionStrategy: pinned
featureFlags: {dryRun: false}
workflows:
  reconcileAfterFailure: false
  maxConcurrentReruns: 50
  defaultImagePullPolicy: IfNotPresent
  jobOptions: {defaultBackoffLimit: 4, defaultActiveDeadlineSeconds: 1800, podTTLSecondsAfterFinished: 3600}
  defaultContainerSecurityContext: {runAsNonRoot: true}
  defaultContainerResources:
    requests: {cpu: 1, memory: 128Mi}
    limits: {cpu: 200m, memory: 256Mi}
logging: {structured: true, level: ' INFO '}
git: {minimumFetchInterval: 500ms}
telemetry:
  endpoint: collector.observability.svc:4317
  protocol: grpc
  insecure: true
  headers: {authorization: 'Bearer token'}
  traces: {enabled: true}
  metrics: {enabled: false}
",
    );
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.number_of_jobs_to_keep, 3);
    assert!(config.selective_cache);
    assert_eq!(config.reconciliation_interval, minutes(360));
    assert_eq!(config.state_store_reconciliation_interval, Some(minutes(60)));
    assert_eq!(config.leader_election.lease_duration, Duration::from_secs(30));
    assert_eq!(config.binding_strategy, BindingStrategy::Pinned);
    assert!(!config.dry_run);
    assert!(!config.workflows.reconcile_after_failure);
    assert_eq!(config.workflows.reruns_max, 50);
    assert_eq!(config.workflows.default_image_pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(config.workflows.default_backoff_limit, Some(4));
    assert_eq!(config.workflows.default_active_deadline, Some(1800));
    assert_eq!(config.workflows.pod_ttl_after_finished, Some(minutes(60)));
    let context = config.workflows.default_container_security_context.unwrap();
    assert_eq!(context.run_as_non_root, Some(true));
    let requests = config.workflows.default_container_resources.unwrap().requests.unwrap();
    assert_eq!(requests["cpu"].0, "1");
    assert_eq!(config.logging, Logging { structured: true, level: Some(Level::Info) });
    assert_eq!(config.git_minimum_fetch_interval, Duration::from_millis(500));
    let telemetry = config.telemetry.unwrap();
    assert_eq!(telemetry.endpoint.as_deref(), Some("collector.observability.svc:4317"));
    assert!(telemetry.insecure && telemetry.traces && !telemetry.metrics);
    assert!(!format!("{telemetry:?}").contains("token"), "header values are secret");
}

#[test]
fn each_odd_setting_is_named_and_leaves_the_rest_alone() {
    type Change = fn(&mut Config);
    let same: Change = |_| {};
    let table: &[(&str, Change, &str)] = &[
        ("numberOfJobsToKeep: 0", same, ""),
        (
            "numberOfJobsToKeep: -3",
            same,
            "numberOfJobsToKeep cannot be less than one; set to default value (configuration key \
             \"numberOfJobsToKeep\" has value -3)",
        ),
        (
            "numberOfJobsToKeep: many",
            same,
            "configuration key \"numberOfJobsToKeep\" has value \"many\", which is not a whole number; the default is \
             used",
        ),
        (
            "workflows: {maxConcurrentReruns: 0}",
            same,
            "workflows.maxConcurrentReruns cannot be less than one; default used (configuration key \
             \"workflows.maxConcurrentReruns\" has value 0)",
        ),
        ("NumberOfJobsToKeep: 7", |config| config.number_of_jobs_to_keep = 7, ""),
        ("numberOfJobsToKeep: 6\nnumberOfJobsToKeep: 7", |config| config.number_of_jobs_to_keep = 7, ""),
        ("numberOfJobsToKeep: null", same, ""),
        ("numberOfJobToKeep: 7", same, "unknown configuration key \"numberOfJobToKeep\" is ignored"),
        (
            "workflows: {jobOptions: {ttl: 1}}",
            same,
            "unknown configuration key \"workflows.jobOptions.ttl\" is ignored",
        ),
        (
            "selectiveCache: 'yes'",
            same,
            "configuration key \"selectiveCache\" has value \"yes\", which is not true or false; the default is used",
        ),
        (
            "reconciliationInterval: 10",
            same,
            "configuration key \"reconciliationInterval\" has value 10, which is not a duration such as 90s, 10m or \
             6h; the default is used",
        ),
        (
            "reconciliationInterval: 0",
            |config| config.reconciliation_interval = minutes(1),
            "reconciliationInterval must be greater than zero; one minute is used (configuration key \
             \"reconciliationInterval\" has value 0)",
        ),
        (
            "reconciliationInterval: -5m",
            |config| config.reconciliation_interval = minutes(1),
            "reconciliationInterval must be greater than zero; one minute is used (configuration key \
             \"reconciliationInterval\" has value \"-5m\")",
        ),
        (
            "reconciliationInterval: 10s",
            |config| config.reconciliation_interval = Duration::from_secs(10),
            "a reconciliationInterval below one minute keeps workflows running (configuration key \
             \"reconciliationInterval\" has value \"10s\")",
        ),
        (
            "workPlacementRewriteInterval: 2h",
            |config| config.state_store_reconciliation_interval = Some(minutes(120)),
            "",
        ),
        (
            "workPlacementRewriteInterval: 2h\nstateStoreReconciliationInterval: 1h",
            |config| config.state_store_reconciliation_interval = Some(minutes(60)),
            "stateStoreReconciliationInterval is set too and wins (configuration key \
             \"workPlacementRewriteInterval\" has value \"2h\")",
        ),
        ("stateStoreReconciliationInterval: 0", |config| config.state_store_reconciliation_interval = None, ""),
        ("stateStoreReconciliationInterval: '0'", |config| config.state_store_reconciliation_interval = None, ""),
        ("stateStoreReconciliationInterval: -1s", |config| config.state_store_reconciliation_interval = None, ""),
        (
            "controllerLeaderElection: {leaseDuration: 5s}",
            same,
            "leaseDuration must be greater than renewDeadline, and that greater than retryPeriod * 1.2; defaults used \
             (configuration key \"controllerLeaderElection\" has value 5s > 10s > 2s)",
        ),
        (
            "resourceBindingVersionStrategy: fixed",
            same,
            "resourceBindingVersionStrategy must be 'floating' or 'pinned'; defaulting to 'floating' (configuration \
             key \"resourceBindingVersionStrategy\" has value \"fixed\")",
        ),
        ("featureFlags: {dryRun: true}", |config| config.dry_run = true, ""),
        (
            "featureFlags: {promiseUpgrade: false}",
            same,
            "featureFlags.promiseUpgrade is deprecated and ignored; Promise Revisions and Resource Bindings are \
             always enabled",
        ),
        (
            "workflows: {defaultImagePullPolicy: Sometimes}",
            same,
            "configuration key \"workflows.defaultImagePullPolicy\" has value \"Sometimes\", which is not Always, \
             IfNotPresent or Never; the default is used",
        ),
        (
            "workflows: {jobOptions: {defaultActiveDeadlineSeconds: -1}}",
            same,
            "workflows.jobOptions.defaultActiveDeadlineSeconds must be greater than zero; value ignored (configuration \
             key \"workflows.jobOptions.defaultActiveDeadlineSeconds\" has value -1)",
        ),
        (
            "workflows: {jobOptions: {podTTLSecondsAfterFinished: 0}}",
            same,
            "workflows.jobOptions.podTTLSecondsAfterFinished must be greater than zero; value ignored (configuration \
             key \"workflows.jobOptions.podTTLSecondsAfterFinished\" has value 0)",
        ),
        (
            "workflows: []",
            same,
            "configuration key \"workflows\" has value [], which is not a mapping of settings; the default is used",
        ),
        (
            "logging: {level: loud}",
            same,
            "unsupported logging.level; the default is used (configuration key \"logging.level\" has value \"loud\")",
        ),
        ("git: {minimumFetchInterval: 0s}", |config| config.git_minimum_fetch_interval = Duration::ZERO, ""),
        (
            "git: {minimumFetchInterval: -1s}",
            same,
            "git.minimumFetchInterval cannot be negative; set to default value (configuration key \
             \"git.minimumFetchInterval\" has value \"-1s\")",
        ),
    ];
    for (text, change, warning) in table {
        let mut expected = present();
        change(&mut expected);
        let (config, warnings) = parse(text);
        assert_eq!(config, expected, "{text}");
        let wanted: Vec<String> = if warning.is_empty() { vec![] } else { vec![(*warning).to_owned()] };
        assert_eq!(warnings, wanted, "{text}");
    }
}

#[test]
fn telemetry_is_off_unless_its_key_is_there() {
    assert_eq!(parse("logging: {}").0.telemetry, None);
    for text in ["telemetry: {}", "telemetry:"] {
        let telemetry = parse(text).0.telemetry.unwrap();
        assert!(telemetry.traces && telemetry.metrics && telemetry.endpoint.is_none(), "{text}");
    }
}

#[test]
fn text_that_is_no_mapping_is_an_error() {
    assert_eq!(Config::parse("- a").unwrap_err(), Error::NotAMapping { found: "a list" });
    assert_eq!(Config::parse("just text").unwrap_err(), Error::NotAMapping { found: "text" });
    assert!(matches!(Config::parse("a: [").unwrap_err(), Error::Syntax { .. }));
}

#[test]
fn only_settings_that_nothing_goes_by_are_without_effect() {
    let (old, _) = parse("");
    let (new, _) = parse(
        "numberOfJobsToKeep: 1\nreconciliationInterval: 1h\nworkflows: {reconcileAfterFailure: false}\n\
         featureFlags: {dryRun: true}\ntelemetry: {}",
    );
    assert_eq!(old.changed_without_effect(&new), Vec::<&str>::new());
    let (new, _) = parse("selectiveCache: true\ncontrollerLeaderElection: {leaseDuration: 30s}");
    assert_eq!(old.changed_without_effect(&new), ["controllerLeaderElection", "selectiveCache"]);
}
