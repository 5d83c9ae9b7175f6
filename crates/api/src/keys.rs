//! Labels, annotations, finalizers, environment variables and fixed names.
//!
//! # Source
//! `01-api.md` §4

use std::collections::BTreeMap;

/// API group of all kinds.
pub const GROUP: &str = "platform.kratix.io";
/// The only version.
pub const VERSION: &str = "v1alpha1";
/// Group and version.
pub const API_VERSION: &str = "platform.kratix.io/v1alpha1";
/// Prefix of nearly all keys.
pub const PREFIX: &str = "kratix.io/";
/// Namespace of the manager and of cluster-wide Works.
pub const SYSTEM_NAMESPACE: &str = "kratix-platform-system";
/// ServiceAccount of the manager.
pub const MANAGER_SERVICE_ACCOUNT: &str = "kratix-platform-controller-manager";
/// ConfigMap with the platform configuration, in the system namespace.
pub const CONFIG_MAP: &str = "kratix";
/// Key of the platform configuration in that ConfigMap.
pub const CONFIG_KEY: &str = "config";
/// The value of all boolean labels and annotations.
pub const TRUE: &str = "true";
/// Version recorded for a Promise without version label.
pub const VERSION_NOT_SET: &str = "not-set";
/// Version of a binding that follows the latest revision.
pub const VERSION_LATEST: &str = "latest";
/// Author of fixed text in `app.kubernetes.io/managed-by`.
pub const MANAGED_BY_KRATIX: &str = "Kratix";
/// Stands for `*` in label values.
pub const ALL_NAMESPACES_LABEL: &str = "kratix_all_namespaces";
/// Stands for `*` in names.
pub const ALL_NAMESPACES_NAME: &str = "kratix-all-namespaces";

// Labels.

/// Version of a Promise, set by its author.
pub const PROMISE_VERSION: &str = "kratix.io/promise-version";
/// The PromiseRelease that owns a Promise.
pub const PROMISE_RELEASE_NAME: &str = "kratix.io/promise-release-name";
/// The Promise an object belongs to.
pub const PROMISE_NAME: &str = "kratix.io/promise-name";
/// The request an object belongs to.
pub const RESOURCE_NAME: &str = "kratix.io/resource-name";
/// Namespace of that request.
pub const RESOURCE_NAMESPACE: &str = "kratix.io/resource-namespace";
/// The pipeline an object belongs to.
pub const PIPELINE_NAME: &str = "kratix.io/pipeline-name";
/// Namespace of a pipeline's ServiceAccount.
pub const PIPELINE_NAMESPACE: &str = "kratix.io/pipeline-namespace";
/// `promise` or `resource`.
pub const WORKFLOW_TYPE: &str = "kratix.io/workflow-type";
/// `configure` or `delete`.
pub const WORKFLOW_ACTION: &str = "kratix.io/workflow-action";
/// Origin of a Work; on Jobs a legacy spelling of [`WORKFLOW_TYPE`].
pub const WORK_TYPE: &str = "kratix.io/work-type";
/// Legacy spelling of [`WORKFLOW_ACTION`].
pub const WORK_ACTION: &str = "kratix.io/work-action";
/// Hash a Job was built for.
pub const HASH: &str = "kratix.io/hash";
/// Compared between Job and pipeline when present.
pub const PIPELINE_HASH: &str = "kratix.io/pipeline-hash";
/// Set on Jobs and Pods to [`MANAGED_BY_KRATIX`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Set by users on Secrets when the cache is selective.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// Stops reconciling.
pub const PAUSED: &str = "kratix.io/paused";
/// Runs the workflow again, from the start.
pub const MANUAL_RECONCILIATION: &str = "kratix.io/manual-reconciliation";
/// Runs all requests of a Promise again.
pub const RECONCILE_RESOURCES: &str = "kratix.io/reconcile-resources";
/// Starts the workflow over; set and consumed by controllers.
pub const RUN_FROM_START: &str = "internal.workflows.kratix.io/run-from-start";
/// Annotation on Jobs: one more than the highest of the parent's Jobs when it was made. On Works: that of the Job which
/// wrote them last.
pub const SEQUENCE: &str = "internal.workflows.kratix.io/sequence";
/// Highest [`SEQUENCE`] that counts; no workflow starts that often. Whoever may annotate an object can write a higher one.
pub const SEQUENCE_MAX: i64 = 1 << 53;
/// The current workflow is suspended.
pub const WORKFLOW_SUSPENDED: &str = "kratix.io/workflow-suspended";
/// The newest revision.
pub const LATEST_REVISION: &str = "kratix.io/latest-revision";
/// The Work of a placement, or of a part.
pub const WORK: &str = "kratix.io/work";
/// On Works that hold files of another Work; see [`crate::part`].
pub const WORK_PART: &str = "kratix.io/work-part";
/// The group of a placement.
pub const WORKLOAD_GROUP_ID: &str = "kratix.io/workload-group-id";
/// The Destination of a placement.
pub const TARGET_DESTINATION_NAME: &str = "kratix.io/targetDestinationName";
/// The Destination no longer matches.
pub const MISPLACED: &str = "kratix.io/misplaced";
/// Preview traffic, and the Destinations that take it.
pub const DRY_RUN: &str = "kratix.io/dry-run";
/// The DryRun an ephemeral object belongs to.
pub const DRY_RUN_OWNER: &str = "kratix.io/dry-run-owner";
/// The Work that holds a preview's summary.
pub const DRY_RUN_SUMMARY: &str = "kratix.io/dry-run-summary";
/// The DryRun of the whole a component belongs to.
pub const DRY_RUN_PARENT: &str = "kratix.io/dry-run-parent";
/// Promise of the compound request that emitted a request.
pub const PARENT_PROMISE_NAME: &str = "kratix.io/parent-promise-name";
/// Name of the compound request that emitted a request.
pub const PARENT_RESOURCE_NAME: &str = "kratix.io/parent-resource-name";
/// Namespace of the compound request that emitted a request.
pub const PARENT_RESOURCE_NAMESPACE: &str = "kratix.io/parent-resource-namespace";
/// As [`PARENT_PROMISE_NAME`], for people and the command line.
pub const COMPONENT_OF_PROMISE_NAME: &str = "kratix.io/component-of-promise-name";
/// As [`PARENT_RESOURCE_NAME`], for people and the command line.
pub const COMPONENT_OF_RESOURCE_NAME: &str = "kratix.io/component-of-resource-name";
/// As [`PARENT_RESOURCE_NAMESPACE`], for people and the command line.
pub const COMPONENT_OF_RESOURCE_NAMESPACE: &str = "kratix.io/component-of-resource-namespace";

/// Value of [`WORK_TYPE`] on the Work of a Promise's dependencies.
pub const WORK_TYPE_STATIC_DEPENDENCY: &str = "static-dependency";
/// Value of [`WORK_TYPE`] on Works of promise workflows.
pub const WORK_TYPE_PROMISE: &str = "promise";
/// Value of [`WORK_TYPE`] on Works of resource workflows.
pub const WORK_TYPE_RESOURCE: &str = "resource";

// Annotations.

/// How often to run everything again.
pub const RECONCILIATION_INTERVAL: &str = "kratix.io/reconciliation-interval";
/// Leave the requests alone when this revision is deleted.
pub const SKIP_RESOURCE_REQUEST_CLEANUP_ON_DELETE: &str = "kratix.io/skip-resource-request-cleanup-on-delete";
/// When the Work of the dependencies was last changed.
pub const LAST_UPDATED_AT: &str = "kratix.io/last-updated-at";
/// Namespace of the object a Job is for.
pub const JOB_RESOURCE_NAMESPACE: &str = "kratix.io/job-resource-namespace";
/// Name of the object a Job is for.
pub const JOB_RESOURCE_NAME: &str = "kratix.io/job-resource-name";
/// Kind of the object a Job is for.
pub const JOB_RESOURCE_KIND: &str = "kratix.io/job-resource-kind";
/// apiVersion of the object a Job is for.
pub const JOB_RESOURCE_API_VERSION: &str = "kratix.io/job-resource-api-version";
/// W3C `traceparent`.
pub const TRACE_PARENT: &str = "kratix.io/trace-parent";
/// W3C `tracestate`.
pub const TRACE_STATE: &str = "kratix.io/trace-state";
/// When the trace began.
pub const TRACE_TIMESTAMP: &str = "kratix.io/trace-timestamp";
/// Generation the trace is about.
pub const TRACE_GENERATION: &str = "kratix.io/trace-generation";
/// Name of the previewed request.
pub const DRY_RUN_RESOURCE_NAME: &str = "kratix.io/dry-run-resource-name";
/// Namespace of the previewed request.
pub const DRY_RUN_RESOURCE_NAMESPACE: &str = "kratix.io/dry-run-resource-namespace";
/// On a Promise: take over an existing CRD that does not carry the Promise's label.
pub const ADOPT_API_CRD: &str = "kratix.io/adopt-api-crd";
/// On a GitStateStore: how often it may be pushed to.
pub const MAXIMUM_PUSHES_PER_MINUTE: &str = "kratix.io/maximumPushesPerMinute";
/// On a part: the generation of its Work for which it was written last.
pub const PART_GENERATION: &str = "kratix.io/part-generation";
/// On a part: when it was written last.
pub const PART_WRITTEN_AT: &str = "kratix.io/part-written-at";
/// On a ResourceBinding: the version being rolled out, beside the sentence in its condition.
pub const VERSION_IN_FLIGHT: &str = "kratix.io/version-in-flight";

// Finalizers.

/// On a Promise with API, and on a PromiseRevision.
pub const FINALIZER_RESOURCE_REQUEST_CLEANUP: &str = "kratix.io/resource-request-cleanup";
/// On a Promise with API.
pub const FINALIZER_DYNAMIC_CONTROLLER_CLEANUP: &str = "kratix.io/dynamic-controller-dependant-resources-cleanup";
/// On a Promise with API.
pub const FINALIZER_API_CRD_CLEANUP: &str = "kratix.io/api-crd-cleanup";
/// On a Promise.
pub const FINALIZER_DEPENDENCIES_CLEANUP: &str = "kratix.io/dependencies-cleanup";
/// On a Promise and on a request.
pub const FINALIZER_WORKFLOWS_CLEANUP: &str = "kratix.io/workflows-cleanup";
/// On a Promise with a promise-delete pipeline, and on a request.
pub const FINALIZER_DELETE_WORKFLOWS: &str = "kratix.io/delete-workflows";
/// On a Promise.
pub const FINALIZER_REVISION_CLEANUP: &str = "kratix.io/revision-cleanup";
/// On a request and on a Work.
pub const FINALIZER_WORK_CLEANUP: &str = "kratix.io/work-cleanup";
/// On a request.
pub const FINALIZER_RESOURCE_BINDING_CLEANUP: &str = "kratix.io/resource-binding-cleanup";
/// On a PromiseRelease.
pub const FINALIZER_PROMISE_CLEANUP: &str = "kratix.io/promise-cleanup";
/// On a Destination with `cleanup: all`.
pub const FINALIZER_DESTINATION_CLEANUP: &str = "kratix.io/destination-cleanup";
/// On a HealthRecord.
pub const FINALIZER_HEALTH_RECORD_CLEANUP: &str = "kratix.io/health-record-cleanup";
/// On a WorkPlacement.
pub const FINALIZER_REPO_CLEANUP: &str = "finalizers.workplacement.kratix.io/repo-cleanup";
/// On a WorkPlacement on a Destination with `filepath.mode: none`.
pub const FINALIZER_DOT_FILES_CLEANUP: &str = "finalizers.workplacement.kratix.io/kratix-dot-files-cleanup";

/// The finalizers of a Promise in the order in which they are added.
pub const PROMISE_FINALIZERS: [&str; 7] = [
    FINALIZER_RESOURCE_REQUEST_CLEANUP,
    FINALIZER_DYNAMIC_CONTROLLER_CLEANUP,
    FINALIZER_API_CRD_CLEANUP,
    FINALIZER_DEPENDENCIES_CLEANUP,
    FINALIZER_WORKFLOWS_CLEANUP,
    FINALIZER_DELETE_WORKFLOWS,
    FINALIZER_REVISION_CLEANUP,
];

/// Exit code of Kratix's containers in a workflow pod when doing the same again is useless: what the pipeline has left is
/// malformed. Every other failure is worth another attempt.
pub const EXIT_FINAL: u8 = 65;

/// Environment variables of workflow containers and of the manager.
pub mod env {
    /// `configure` or `delete`.
    pub const WORKFLOW_ACTION: &str = "KRATIX_WORKFLOW_ACTION";
    /// `promise` or `resource`.
    pub const WORKFLOW_TYPE: &str = "KRATIX_WORKFLOW_TYPE";
    /// Name of the Promise.
    pub const PROMISE_NAME: &str = "KRATIX_PROMISE_NAME";
    /// Name of the pipeline.
    pub const PIPELINE_NAME: &str = "KRATIX_PIPELINE_NAME";
    /// Kind of the object.
    pub const OBJECT_KIND: &str = "KRATIX_OBJECT_KIND";
    /// Group of the object.
    pub const OBJECT_GROUP: &str = "KRATIX_OBJECT_GROUP";
    /// Version of the object.
    pub const OBJECT_VERSION: &str = "KRATIX_OBJECT_VERSION";
    /// Name of the object.
    pub const OBJECT_NAME: &str = "KRATIX_OBJECT_NAME";
    /// Namespace of the object; empty for a Promise.
    pub const OBJECT_NAMESPACE: &str = "KRATIX_OBJECT_NAMESPACE";
    /// Plural of the object's kind.
    pub const CRD_PLURAL: &str = "KRATIX_CRD_PLURAL";
    /// `true` when the object has no namespace.
    pub const CLUSTER_SCOPED: &str = "KRATIX_CLUSTER_SCOPED";
    /// `true` in a preview, absent otherwise.
    pub const DRY_RUN: &str = "KRATIX_DRY_RUN";
    /// `true` in the last pipeline of a workflow; for `status-writer` only.
    pub const IS_LAST_PIPELINE: &str = "IS_LAST_PIPELINE";
    /// Number of the Job, see [`SEQUENCE`](super::SEQUENCE); for `work-writer` only.
    pub const SEQUENCE: &str = "KRATIX_JOB_SEQUENCE";
    /// W3C `traceparent`; for `work-writer` only.
    pub const TRACE_PARENT: &str = "KRATIX_TRACE_PARENT";
    /// W3C `tracestate`; for `work-writer` only.
    pub const TRACE_STATE: &str = "KRATIX_TRACE_STATE";
    /// Where `reader` writes; `/kratix/input` when absent.
    pub const INPUT_DIR: &str = "INPUT_DIR";
    /// Where containers write; `/kratix/output` when absent.
    pub const OUTPUT_DIR: &str = "OUTPUT_DIR";
    /// Prefix of log lines.
    pub const LOGGER_PREFIX: &str = "KRATIX_LOGGER_PREFIX";
    /// Image of the three containers of Kratix in a workflow pod.
    pub const PIPELINE_ADAPTER_IMG: &str = "PIPELINE_ADAPTER_IMG";
    /// Pull secret of that image.
    pub const PIPELINE_ADAPTER_PULL_SECRET: &str = "PIPELINE_ADAPTER_PULL_SECRET";
    /// Directory with certificates of authorities, one file for each Git host.
    pub const TLS_DATA_PATH: &str = "KRATIX_TLS_DATA_PATH";
    /// How long GitHub App credentials are used.
    pub const GITHUB_APP_CREDS_EXPIRATION_DURATION: &str = "KRATIX_GITHUB_APP_CREDS_EXPIRATION_DURATION";
    /// Time limit of a request to the API of a Git server.
    pub const GIT_REQUEST_TIMEOUT: &str = "KRATIX_GIT_REQUEST_TIMEOUT";
    /// Time limit of a Git command.
    pub const EXEC_TIMEOUT: &str = "KRATIX_EXEC_TIMEOUT";
    /// Time a Git command has to end after it was told to.
    pub const EXEC_FATAL_TIMEOUT: &str = "KRATIX_EXEC_FATAL_TIMEOUT";
    /// `1`: trace Git.
    pub const GIT_TRACE: &str = "KRATIX_GIT_TRACE";
    /// `1`: trace Git packets.
    pub const GIT_TRACE_PACKET: &str = "KRATIX_GIT_TRACE_PACKET";
}

/// Returns whether a boolean label or annotation is set: no value but [`TRUE`] is effective.
pub fn is_set(entries: &BTreeMap<String, String>, key: &str) -> bool {
    entries.get(key).is_some_and(|value| value == TRUE)
}
