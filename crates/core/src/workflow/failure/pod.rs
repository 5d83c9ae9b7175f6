//! What the status of a pod tells of its containers.

use std::borrow::Cow;

use k8s_openapi::api::core::v1 as core;
use kratix_api::{Timestamp, keys};
use kube_core::ResourceExt;

use super::{IMAGE, NOT_STARTED, POD_NOT_STARTED, REFUSED, Trouble, Turn, detail, while_it};
use crate::text::line;

/// The containers that Kratix puts around those of a pipeline.
const OWN_CONTAINERS: [&str; 3] = ["reader", "work-writer", "status-writer"];
/// Longest name of an image that is repeated; users write what they like.
const IMAGE_BYTES_MAX: usize = 255;
/// Exit codes above this one stand for signals.
const SIGNAL_BASE: i32 = 128;
const SIGKILL: i32 = 9;
/// How a container ends whose pod is removed.
const STOPPED: [i32; 2] = [SIGNAL_BASE + SIGKILL, SIGNAL_BASE + 15];
/// A node that runs as many pods as it can says so with this reason; it is no trouble of the pipeline.
const WAITS_FOR_A_PLACE: &str = "TooManyPods";

/// Returns what keeps a pod from getting on. What became of its containers because it is being deleted is no trouble.
pub fn of_pod(pod: &core::Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let place = Place { namespace: pod.namespace().unwrap_or_default(), pod: pod.name_any() };
    let phase = status.phase.as_deref().unwrap_or_default();
    let detail = detail(status.message.as_deref().unwrap_or_default());
    match status.reason.as_deref() {
        Some("Evicted") if phase == "Failed" => {
            return Some(place.described("PodEvicted", &during("the pod was evicted", pod), detail));
        }
        Some("DeadlineExceeded") if phase == "Failed" => {
            let subject = during("the pod ran longer than its deadline", pod);
            return Some(place.described("DeadlineExceeded", &subject, detail));
        }
        Some(reason) if phase == "Failed" => {
            return Some(place.described("PodFailed", &during(&format!("the pod has failed ({reason})"), pod), detail));
        }
        _ => {}
    }
    let init = status.init_container_statuses.iter().flatten();
    let mut containers = init.chain(status.container_statuses.iter().flatten());
    let removed_at = removal(pod);
    if let Some(trouble) = containers.find_map(|container| place.of_container(pod, container, removed_at)) {
        return Some(trouble);
    }
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.is_some()
    });
    if let Some(condition) = unscheduled {
        let detail = self::detail(condition.message.as_deref().unwrap_or_default());
        return Some(place.waits("PodUnschedulable", "no node takes the pod", detail));
    }
    match status.reason.as_deref() {
        Some(reason) if phase == "Pending" && reason != WAITS_FOR_A_PLACE => {
            Some(place.waits(POD_NOT_STARTED, "the pod cannot be started", detail))
        }
        _ => None,
    }
}

/// Adds to what has happened to a pod which of its containers it has happened to.
fn during(subject: &str, pod: &core::Pod) -> String {
    while_it(subject, Turn::of(pod).when().as_deref())
}

/// Returns when the removal of a pod was asked for.
fn removal(pod: &core::Pod) -> Option<Timestamp> {
    let grace = jiff::SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or_default());
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
}

/// Where the pod is found.
struct Place {
    namespace: String,
    pod: String,
}

impl Place {
    fn logs(&self, container: &str) -> String {
        format!("kubectl logs -n {} {} -c {container}", self.namespace, self.pod)
    }

    fn describe(&self) -> String {
        format!("kubectl describe pod -n {} {}", self.namespace, self.pod)
    }

    fn described(&self, reason: &'static str, subject: &str, detail: String) -> Trouble {
        Trouble {
            reason,
            subject: subject.to_owned(),
            detail,
            command: self.describe(),
            is_final: false,
            is_before_start: false,
        }
    }

    /// As [`Place::described`], of what may last for ever.
    fn waits(&self, reason: &'static str, subject: &str, detail: String) -> Trouble {
        Trouble { is_before_start: true, ..self.described(reason, subject, detail) }
    }

    fn of_container(
        &self,
        pod: &core::Pod,
        container: &core::ContainerStatus,
        removed_at: Option<Timestamp>,
    ) -> Option<Trouble> {
        let name = container.name.as_str();
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref())
            && let Some(trouble) = self.of_waiting(container, waiting)
        {
            return removed_at.is_none().then_some(trouble);
        }
        let is_stopped = |ended: &core::ContainerStateTerminated| {
            let finished_at = ended.finished_at.as_ref().map(|time| time.0);
            // Times have whole seconds, and a container may take less to stop.
            let at_once = STOPPED.contains(&ended.exit_code) && ended.reason.as_deref() != Some("OOMKilled");
            let is_after = |finished, removed| finished > removed || (at_once && finished == removed);
            removed_at.is_some_and(|removed| finished_at.is_none_or(|finished| is_after(finished, removed)))
        };
        let ended = state.and_then(|state| state.terminated.as_ref()).filter(|ended| !is_stopped(ended));
        // While it runs or waits for its next attempt, how the last one ended is still what is wrong.
        let ended = ended.or_else(|| container.last_state.as_ref()?.terminated.as_ref())?;
        if ended.exit_code == 0 || is_stopped(ended) {
            return None;
        }
        let words = detail(ended.message.as_deref().unwrap_or_default());
        let code = ended.exit_code;
        let is_own = OWN_CONTAINERS.contains(&name);
        let (reason, subject, is_final) = match ended.reason.as_deref() {
            Some("OOMKilled") => ("OutOfMemory", out_of_memory(pod, name), false),
            Some("ContainerCannotRun" | "StartError") => {
                (NOT_STARTED, format!("container {name} cannot be started"), false)
            }
            _ if is_own && code == i32::from(keys::EXIT_FINAL) => {
                (REFUSED, format!("container {name} refuses what the pipeline has left"), true)
            }
            _ if code > SIGNAL_BASE => {
                let signal = match code - SIGNAL_BASE {
                    SIGKILL => "SIGKILL".to_owned(),
                    number => format!("signal {number}"),
                };
                ("ContainerKilled", format!("container {name} was killed ({signal}, exit code {code})"), false)
            }
            _ => ("ContainerFailed", format!("container {name} exited with code {code}"), false),
        };
        // What was never started has written no log.
        let command = if reason == NOT_STARTED { self.describe() } else { self.logs(name) };
        Some(Trouble { reason, subject, detail: words, command, is_final, is_before_start: false })
    }

    fn of_waiting(&self, container: &core::ContainerStatus, waiting: &core::ContainerStateWaiting) -> Option<Trouble> {
        let (name, image) = (&container.name, &container.image);
        let message = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref()? {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable" => {
                let shown = line(image, IMAGE_BYTES_MAX);
                let subject = format!("image {shown} of container {name} cannot be had");
                Some(self.waits(IMAGE, &subject, detail(&without_back_off(message, image))))
            }
            "CreateContainerConfigError"
            | "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PostStartHookError" => {
                let subject = format!("container {name} cannot be started");
                Some(self.waits(NOT_STARTED, &subject, detail(message)))
            }
            _ => None,
        }
    }
}

fn out_of_memory(pod: &core::Pod, name: &str) -> String {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let mut all = init.chain(spec.into_iter().flat_map(|spec| &spec.containers));
    let limit = all.find(|container| container.name == name).and_then(|container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        limits.get("memory").map(|limit| limit.0.clone())
    });
    match limit {
        Some(limit) => format!("container {name} was killed because it used more memory than its limit of {limit}"),
        None => format!("container {name} was killed because there was no memory left"),
    }
}

/// A kubelet says the same in two ways in turn, and the second time at times without the cause: what is left is the cause, or
/// nothing. The image has been named already.
fn without_back_off<'a>(message: &'a str, image: &str) -> Cow<'a, str> {
    let quoted = format!("Back-off pulling image {image:?}");
    let rest = message.strip_prefix(&quoted).map_or(message, |rest| rest.strip_prefix(": ").unwrap_or(rest));
    let cause = rest.strip_prefix("ErrImagePull: ").unwrap_or(rest);
    let state = cause.strip_prefix("image \"").and_then(|named| named.split_once("\" is "));
    match state {
        Some((name, state)) if name.contains(image) => Cow::Owned(format!("it is {state}")),
        _ => Cow::Borrowed(cause),
    }
}
