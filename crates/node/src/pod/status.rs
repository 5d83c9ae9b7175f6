//! The status of a Pod, as a kubelet would write it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{ContainerRecord, Ended, Phase, Record, RestartPolicy, State, due, is_sidecar, restart_pause};
use crate::downward::Place;

/// Writes a pod's status from what the node knows. Times of conditions that have not changed are kept.
pub(crate) fn render(
    pod: &Pod,
    record: &Record,
    finished: Option<Phase>,
    place: &Place,
    backoff: SignedDuration,
    now: Timestamp,
) -> PodStatus {
    let spec = pod.spec.clone().unwrap_or_default();
    let before = pod.status.clone().unwrap_or_default();
    let init: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let none = ContainerRecord::default();
    let record_of = |container: &Container| record.containers.get(&container.name).unwrap_or(&none);
    let init_done = |container: &Container| match &record_of(container).state {
        State::Ended(ended) => ended.code == 0 && !is_sidecar(container),
        State::Running { .. } => is_sidecar(container),
        State::Waiting { .. } => false,
    };
    let initialized = init.iter().all(|container| init_done(container));
    let begun = spec.containers.iter().any(|container| record_of(container).runs > 0);
    let phase = match finished {
        Some(Phase::Succeeded) => "Succeeded",
        Some(Phase::Failed) => "Failed",
        None if initialized && begun => "Running",
        None => "Pending",
    };
    let writer =
        Writer { pod, policy: RestartPolicy::of(pod), finished, backoff, has_init: !init.is_empty(), initialized };
    let ready = finished.is_none()
        && initialized
        && spec.containers.iter().all(|container| matches!(record_of(container).state, State::Running { .. }));

    let incomplete: Vec<&str> =
        init.iter().filter(|container| !init_done(container)).map(|container| container.name.as_str()).collect();
    let unready: Vec<&str> = spec
        .containers
        .iter()
        .filter(|container| !matches!(record_of(container).state, State::Running { .. }))
        .map(|container| container.name.as_str())
        .collect();
    let completed = finished == Some(Phase::Succeeded);
    let failed = finished == Some(Phase::Failed);
    let not_ready = match (completed, failed) {
        (true, _) => Some(("PodCompleted".to_owned(), None)),
        (_, true) => Some(("PodFailed".to_owned(), None)),
        _ if ready => None,
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            Some(("ContainersNotReady".to_owned(), Some(message)))
        }
    };
    let not_initialized = (!initialized).then(|| {
        let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
        ("ContainersNotInitialized".to_owned(), Some(message))
    });
    let sandbox = record.started_at.is_some() && finished.is_none();
    let completed_reason = completed.then(|| ("PodCompleted".to_owned(), None));
    let conditions = [
        ("PodReadyToStartContainers", sandbox, None),
        ("Initialized", initialized, not_initialized.or(completed_reason)),
        ("Ready", ready, not_ready.clone()),
        ("ContainersReady", ready, not_ready),
        ("PodScheduled", true, None),
    ];
    let conditions = conditions.map(|(kind, holds, why)| condition(&before, kind, holds, why, now));

    let statuses = |containers: &[&Container], is_init: bool| {
        containers
            .iter()
            .map(|container| writer.container(container, record_of(container), is_init))
            .collect::<Vec<_>>()
    };
    let main: Vec<&Container> = spec.containers.iter().collect();
    let started = record.started_at.map(Time);
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions.into()),
        reason: record.note.as_ref().map(|(reason, _)| reason.clone()),
        message: record.note.as_ref().map(|(_, message)| message.clone()),
        start_time: started.clone().or(before.start_time),
        host_ip: Some(place.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: place.host_ip.clone() }]),
        pod_ip: started.is_some().then(|| place.pod_ip.clone()),
        pod_ips: started.is_some().then(|| vec![PodIP { ip: place.pod_ip.clone() }]),
        qos_class: before.qos_class.or_else(|| Some(quality(&spec.containers, &init).into())),
        init_container_statuses: (!init.is_empty()).then(|| statuses(&init, true)),
        container_statuses: Some(statuses(&main, false)),
        observed_generation: before.observed_generation.and(pod.metadata.generation),
        ..PodStatus::default()
    }
}

struct Writer<'a> {
    pod: &'a Pod,
    policy: RestartPolicy,
    finished: Option<Phase>,
    backoff: SignedDuration,
    has_init: bool,
    initialized: bool,
}

impl Writer<'_> {
    fn container(&self, container: &Container, record: &ContainerRecord, is_init: bool) -> ContainerStatus {
        let mut last = record.last.as_ref();
        let running = matches!(record.state, State::Running { .. });
        let state = match &record.state {
            State::Running { started_at } => ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*started_at)) }),
                ..ContainerState::default()
            },
            State::Waiting { problem } => {
                let (reason, message) = match problem {
                    Some((reason, message)) => (reason.clone(), Some(message.clone())),
                    None if is_init || (self.has_init && !self.initialized) => ("PodInitializing".into(), None),
                    None => ("ContainerCreating".into(), None),
                };
                waiting(reason, message)
            }
            State::Ended(ended) if self.will_restart(container, ended, is_init) && self.pauses(record) => {
                last = Some(ended);
                waiting("CrashLoopBackOff".into(), Some(self.back_off(container, record)))
            }
            State::Ended(ended) => ContainerState { terminated: Some(terminated(ended)), ..ContainerState::default() },
        };
        let done = matches!(&record.state, State::Ended(ended) if ended.code == 0);
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: record.image_id.clone(),
            container_id: record.container_id.clone(),
            ready: if is_init && !is_sidecar(container) { done } else { running },
            started: Some(running),
            restart_count: record.restarts,
            state: Some(state),
            last_state: last
                .map(|ended| ContainerState { terminated: Some(terminated(ended)), ..ContainerState::default() }),
            ..ContainerStatus::default()
        }
    }

    fn will_restart(&self, container: &Container, ended: &Ended, is_init: bool) -> bool {
        if self.finished.is_some() {
            return false;
        }
        match (is_init && !is_sidecar(container), self.policy) {
            (_, RestartPolicy::Never) => is_sidecar(container),
            (true, _) | (false, RestartPolicy::OnFailure) => ended.code != 0,
            (false, RestartPolicy::Always) => true,
        }
    }

    fn pauses(&self, record: &ContainerRecord) -> bool {
        due(record, self.backoff).is_some() && !restart_pause(record.restarts, self.backoff).is_zero()
    }

    fn back_off(&self, container: &Container, record: &ContainerRecord) -> String {
        let meta = &self.pod.metadata;
        format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(restart_pause(record.restarts, self.backoff)),
            container.name,
            meta.name.as_deref().unwrap_or_default(),
            meta.namespace.as_deref().unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
        )
    }
}

fn waiting(reason: String, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: ended.code,
        // A kubelet leaves the signal to the exit code: 128 and the signal's number.
        signal: None,
        reason: Some(ended.reason.clone()),
        message: ended.message.clone(),
        started_at: ended.started_at.map(Time),
        finished_at: Some(Time(ended.finished_at)),
        container_id: ended.container_id.clone(),
    }
}

fn condition(
    before: &PodStatus,
    kind: &str,
    holds: bool,
    why: Option<(String, Option<String>)>,
    now: Timestamp,
) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let known = before.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let since = known.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
    let (reason, message) = why.map_or((None, None), |(reason, message)| (Some(reason), message));
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason,
        message,
        last_transition_time: since.or(Some(Time(now))),
        observed_generation: known.and_then(|known| known.observed_generation),
        ..PodCondition::default()
    }
}

/// Returns the quality-of-service class: all limits equal requests, none at all, or between.
fn quality(containers: &[Container], init: &[&Container]) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in containers.iter().chain(init.iter().copied()) {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let (limit, request) = (limits.get(name), requests.get(name));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Writes a duration as Go does: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60, duration.subsec_millis()) {
        (0, 0, millis) => format!("{millis}ms"),
        (0, seconds, _) => format!("{seconds}s"),
        (minutes, seconds, _) => format!("{minutes}m{seconds}s"),
    }
}
