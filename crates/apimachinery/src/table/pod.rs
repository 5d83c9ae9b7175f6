//! Rows of pods. The status is a summary of all containers in one word.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, labels};
use crate::meta;
use crate::object::{items, text};

/// Returns the cells of a pod.
pub(super) fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = items(spec, "initContainers").iter().filter(|one| is_sidecar(one)).count();
    let total = items(spec, "containers").len() + sidecars;
    let summary = Summary::of(pod);
    let restarts = match summary.restarted_at {
        Some(then) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, age::human(now.duration_since(then)))
        }
        _ => summary.restarts.to_string(),
    };
    vec![
        meta::name(pod).into(),
        format!("{}/{total}", summary.ready).into(),
        summary.reason.into(),
        restarts.into(),
        age::of(pod, now).into(),
        labels::or_none(address(status)).into(),
        labels::or_none(text(spec, "nodeName")).into(),
        labels::or_none(text(status, "nominatedNodeName")).into(),
        readiness_gates(pod).into(),
    ]
}

/// Writers of old set one address, which stands for the list.
fn address(status: &Value) -> &str {
    match text(&status["podIPs"][0], "ip") {
        "" => text(status, "podIP"),
        first => first,
    }
}

/// Returns the condition of a row whose pod has come to its end.
pub(super) fn condition(pod: &Value) -> Option<Value> {
    let (reason, message) = match text(&pod["status"], "phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

/// What all containers of a pod come to.
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    restarted_at: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let phase = text(status, "phase");
        let mut reason = text(status, "reason");
        if reason.is_empty() {
            reason = phase;
        }
        let is_gated = |one: &Value| one["type"] == "PodScheduled" && one["reason"] == "SchedulingGated";
        if items(status, "conditions").iter().any(is_gated) {
            reason = "SchedulingGated";
        }
        let mut out = Self { reason: reason.to_owned(), ready: 0, restarts: 0, restarted_at: None };
        let (initializing, sidecars) = out.initialize(pod);
        let initialized = items(status, "conditions").iter().find(|one| one["type"] == "Initialized");
        if !initializing || initialized.is_some_and(|one| one["status"] == "True") {
            // Restarts of what only ran at the beginning are history.
            (out.restarts, out.restarted_at) = (sidecars.count, sidecars.last);
            out.run(status);
        }
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            if status["reason"] == "NodeLost" {
                "Unknown".clone_into(&mut out.reason);
            } else if !matches!(phase, "Failed" | "Succeeded") {
                "Terminating".clone_into(&mut out.reason);
            }
        }
        out
    }

    /// Goes through the init containers up to the first that is not done; returns whether there is one, and the
    /// restarts of sidecars.
    fn initialize(&mut self, pod: &Value) -> (bool, Restarts) {
        let declared = items(&pod["spec"], "initContainers");
        let mut all = Restarts::default();
        let mut sidecars = Restarts::default();
        let mut stuck = None;
        for (index, container) in items(&pod["status"], "initContainerStatuses").iter().enumerate() {
            all.add(container);
            let is_sidecar = declared.iter().rfind(|one| one["name"] == container["name"]).is_some_and(is_sidecar);
            if is_sidecar {
                sidecars.add(container);
            }
            let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
            if !terminated.is_null() && exit_code(terminated) == 0 {
                continue;
            }
            if is_sidecar && container["started"] == true {
                self.ready += usize::from(container["ready"] == true);
                continue;
            }
            stuck = Some(if !terminated.is_null() {
                format!("Init:{}", ending(terminated))
            } else {
                match text(waiting, "reason") {
                    "" | "PodInitializing" => format!("Init:{index}/{}", declared.len()),
                    reason => format!("Init:{reason}"),
                }
            });
            break;
        }
        (self.restarts, self.restarted_at) = (all.count, all.last);
        let initializing = stuck.is_some();
        if let Some(reason) = stuck {
            self.reason = reason;
        }
        (initializing, sidecars)
    }

    /// Goes through the containers from the last to the first: the first in trouble gives the reason.
    fn run(&mut self, status: &Value) {
        let mut restarts = Restarts { count: self.restarts, last: self.restarted_at };
        let mut has_running = false;
        for container in items(status, "containerStatuses").iter().rev() {
            restarts.add(container);
            let state = &container["state"];
            let (terminated, waiting) = (&state["terminated"], text(&state["waiting"], "reason"));
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if !terminated.is_null() {
                self.reason = ending(terminated);
            } else if container["ready"] == true && !state["running"].is_null() {
                has_running = true;
                self.ready += 1;
            }
        }
        (self.restarts, self.restarted_at) = (restarts.count, restarts.last);
        if self.reason == "Completed" && has_running {
            let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
            let ready = items(status, "conditions").iter().any(is_ready);
            (if ready { "Running" } else { "NotReady" }).clone_into(&mut self.reason);
        }
    }
}

/// How often containers were restarted, and when last.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container["restartCount"].as_i64().unwrap_or(0);
        self.last = self.last.max(age::at(&container["lastState"]["terminated"]["finishedAt"]));
    }
}

/// Sidecars are init containers that go on running.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn exit_code(terminated: &Value) -> i64 {
    terminated["exitCode"].as_i64().unwrap_or(0)
}

fn ending(terminated: &Value) -> String {
    match (text(terminated, "reason"), terminated["signal"].as_i64().unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", exit_code(terminated)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"], "readinessGates");
    if gates.is_empty() {
        return labels::NONE.to_owned();
    }
    let holds = |gate: &&Value| {
        let condition = items(&pod["status"], "conditions").iter().find(|one| one["type"] == gate["conditionType"]);
        condition.is_some_and(|one| one["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}
