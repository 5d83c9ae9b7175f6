//! Whose turn it is among the containers of a pod, which run one after the other.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

/// The container that runs before any of a pipeline's own.
const READER: &str = "reader";

/// How far a pod has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The container that has not ended yet.
    container: Option<String>,
    /// Whether that one has begun.
    is_in_it: bool,
    /// Whether a container of a pipeline runs or has run in it, unless the pod has ended.
    pub has_begun: bool,
}

impl Turn {
    /// Reads it from a pod.
    pub fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else { return Self::default() };
        let init = status.init_container_statuses.iter().flatten();
        let mut containers = init.chain(status.container_statuses.iter().flatten());
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        // Whatever comes after the reader may do something: containers that others have added as well.
        let has_begun =
            !has_ended && containers.clone().any(|container| container.name != READER && is_begun(container));
        let current = containers.find(|container| !is_done(container));
        let is_in_it = current.is_some_and(is_begun);
        Self { container: current.map(|container| container.name.clone()), is_in_it, has_begun }
    }

    /// Returns during what it is, as a clause for people: `while container render ran`.
    pub fn when(&self) -> Option<String> {
        let word = if self.is_in_it { "while" } else { "before" };
        self.container.as_ref().map(|container| format!("{word} container {container} ran"))
    }

    /// Returns the container that has begun and has not ended.
    pub fn running(&self) -> Option<&str> {
        self.container.as_deref().filter(|_| self.is_in_it)
    }
}

fn is_begun(container: &ContainerStatus) -> bool {
    let has_run = |state: Option<&ContainerState>| {
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    container.restart_count > 0 || has_run(container.state.as_ref()) || has_run(container.last_state.as_ref())
}

fn is_done(container: &ContainerStatus) -> bool {
    let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}
