//! Settings of workflows.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ResourceRequirements, SecurityContext};

use super::reader::Section;

const RERUNS_MAX: usize = 20;

/// Defaults and behaviour of workflows.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflows {
    /// Pull policy of containers that set none.
    pub default_image_pull_policy: Option<String>,
    /// Security context of user containers that set none.
    pub default_container_security_context: Option<SecurityContext>,
    /// Replaces the built-in resources of containers that set none.
    pub default_container_resources: Option<ResourceRequirements>,
    /// `backoffLimit` of Jobs whose pipeline sets none.
    pub default_backoff_limit: Option<i32>,
    /// Seconds after which a Job is ended that has not ended by itself; `None`: never.
    pub default_active_deadline: Option<i64>,
    /// How long the Pods of finished Jobs are kept; `None`: as long as their Jobs.
    pub pod_ttl_after_finished: Option<Duration>,
    /// Whether the interval also runs failed configure workflows again.
    pub reconcile_after_failure: bool,
    /// How many requests of one Promise run at once because the Promise has changed, at least one.
    pub reruns_max: usize,
}

impl Default for Workflows {
    fn default() -> Self {
        Self {
            default_image_pull_policy: None,
            default_container_security_context: None,
            default_container_resources: None,
            default_backoff_limit: None,
            default_active_deadline: None,
            pod_ttl_after_finished: None,
            reconcile_after_failure: true,
            reruns_max: RERUNS_MAX,
        }
    }
}

impl Workflows {
    pub(super) fn read(section: &mut Section) -> Self {
        let policy = section.text("defaultImagePullPolicy").filter(|policy| !policy.is_empty());
        let default_image_pull_policy = policy.filter(|policy| {
            let known = ["Always", "IfNotPresent", "Never"].contains(&policy.as_str());
            if !known {
                section.unreadable("defaultImagePullPolicy", &policy.as_str().into(), "Always, IfNotPresent or Never");
            }
            known
        });
        let default_container_security_context = section.decode("defaultContainerSecurityContext", "a SecurityContext");
        let default_container_resources = section.resources("defaultContainerResources");
        let reconcile_after_failure = section.flag("reconcileAfterFailure", true);
        let reruns_max = reruns_max(section);
        let JobOptions { backoff_limit, active_deadline, pod_ttl } = section.within("jobOptions", JobOptions::read);
        Self {
            default_image_pull_policy,
            // A document that does not speak of security contexts still means "an empty one".
            default_container_security_context: Some(default_container_security_context.unwrap_or_default()),
            default_container_resources,
            default_backoff_limit: backoff_limit,
            default_active_deadline: active_deadline,
            pod_ttl_after_finished: pod_ttl,
            reconcile_after_failure,
            reruns_max,
        }
    }
}

fn reruns_max(section: &mut Section) -> usize {
    let key = "maxConcurrentReruns";
    let Some(number) = section.integer(key) else { return RERUNS_MAX };
    usize::try_from(number).ok().filter(|count| *count > 0).unwrap_or_else(|| {
        section.adjusted(key, &number.into(), "workflows.maxConcurrentReruns cannot be less than one; default used");
        RERUNS_MAX
    })
}

struct JobOptions {
    backoff_limit: Option<i32>,
    active_deadline: Option<i64>,
    pod_ttl: Option<Duration>,
}

impl JobOptions {
    fn read(section: &mut Section) -> Self {
        let backoff_limit = section.integer("defaultBackoffLimit").and_then(|number| {
            let limit = i32::try_from(number).ok().filter(|limit| *limit >= 0);
            if limit.is_none() {
                section.unreadable("defaultBackoffLimit", &number.into(), "a number from 0 to 2147483647");
            }
            limit
        });
        let consequence = "workflows.jobOptions.defaultActiveDeadlineSeconds must be greater than zero; value ignored";
        let active_deadline = positive(section, "defaultActiveDeadlineSeconds", consequence);
        let consequence = "workflows.jobOptions.podTTLSecondsAfterFinished must be greater than zero; value ignored";
        let pod_ttl = positive(section, "podTTLSecondsAfterFinished", consequence);
        let pod_ttl = pod_ttl.map(i64::unsigned_abs).map(Duration::from_secs);
        Self { backoff_limit, active_deadline, pod_ttl }
    }
}

/// Reads a number of seconds; one that is not positive has no effect.
fn positive(section: &mut Section, key: &str, consequence: &'static str) -> Option<i64> {
    let number = section.integer(key)?;
    if number <= 0 {
        section.adjusted(key, &number.into(), consequence);
    }
    Some(number).filter(|number| *number > 0)
}
