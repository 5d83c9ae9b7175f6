//! The kubelet's decisions as tables.

use serde_json::{Value, json};

use super::*;
use crate::downward::Place;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pod(policy: &str, init: &[&str], main: &[&str]) -> Pod {
    let containers = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|name| match name.strip_prefix('~') {
                Some(name) => json!({"name": name, "restartPolicy": "Always"}),
                None => json!({"name": name}),
            })
            .collect()
    };
    let mut spec = json!({"restartPolicy": policy, "containers": containers(main)});
    if !init.is_empty() {
        spec["initContainers"] = containers(init).into();
    }
    serde_json::from_value(json!({"metadata": {"name": "pod", "namespace": "ns", "uid": "uid"}, "spec": spec})).unwrap()
}

/// Reads `a=0 b=run c=1@5x2`: ended with 0, running, ended with 1 at second 5 after two restarts.
fn record(text: &str) -> Record {
    let mut record = Record { started_at: Some(at(0)), ..Record::default() };
    for word in text.split_whitespace() {
        let (name, state) = word.split_once('=').unwrap();
        let container = record.container(name);
        container.runs = 1;
        if state == "run" {
            container.state = State::Running { started_at: at(1) };
            continue;
        }
        let (state, restarts) = state.split_once('x').unwrap_or((state, "0"));
        let (code, when) = state.split_once('@').unwrap_or((state, "1"));
        container.restarts = restarts.parse().unwrap();
        container.state = State::Ended(Ended {
            code: code.parse().unwrap(),
            signal: None,
            reason: if code == "0" { "Completed" } else { "Error" }.into(),
            message: None,
            started_at: Some(at(0)),
            finished_at: at(when.parse().unwrap()),
            container_id: None,
        });
    }
    record
}

/// Renders a decision as `start a,b; finish Failed; next 10; idle`.
fn decided(pod: &Pod, record: &Record, now: i64) -> String {
    let busy = BTreeSet::new();
    let steps = decide(&Snapshot { now: at(now), pod, record, busy: &busy, backoff: RESTART_BACKOFF });
    let mut words = Vec::new();
    if !steps.start.is_empty() {
        words.push(format!("start {}", steps.start.join(",")));
    }
    if !steps.stop.is_empty() {
        words.push(format!("stop {}", steps.stop.join(",")));
    }
    words.extend(steps.finish.map(|phase| format!("finish {phase:?}")));
    words.extend(steps.next.map(|next| format!("next {}", next.as_second() - 1_000_000)));
    if steps.idle {
        words.push("idle".into());
    }
    words.join("; ")
}

#[test]
fn containers_start_when_it_is_their_turn() {
    let cases = [
        // policy, init, main, record, decision at second 10
        ("Never", "a b", "m", "", "start a"),
        ("Never", "a b", "m", "a=run", ""),
        ("Never", "a b", "m", "a=0", "start b"),
        ("Never", "a b", "m", "a=0 b=0", "start m"),
        ("Never", "a b", "m n", "a=0 b=0", "start m,n"),
        ("Never", "a b", "m", "a=1", "finish Failed"),
        ("Never", "a b", "m", "a=0 b=0 m=0", "finish Succeeded"),
        ("Never", "a b", "m n", "a=0 b=0 m=1 n=run", ""),
        ("Never", "a b", "m n", "a=0 b=0 m=1 n=0", "finish Failed"),
        ("OnFailure", "a", "m", "a=1", "start a"),
        ("OnFailure", "a", "m", "a=1@5x1", "next 15; idle"),
        ("OnFailure", "a", "m", "a=1@5x2", "next 25; idle"),
        ("OnFailure", "a", "m", "a=1@5x9", "next 305; idle"),
        ("OnFailure", "a", "m", "a=0 m=0", "finish Succeeded"),
        ("OnFailure", "a", "m n", "a=0 m=0 n=1@5x1", "next 15; idle"),
        ("OnFailure", "a", "m n", "a=0 m=run n=1@5x1", "next 15"),
        ("Always", "a", "m", "a=0 m=0", "start m"),
        ("Always", "a", "m", "a=0 m=0@5x1", "next 15; idle"),
        ("Always", "", "m", "", "start m"),
        // sidecars run beside the others and end with them
        ("Never", "~s a", "m", "", "start s"),
        ("Never", "~s a", "m", "s=run", "start a"),
        ("Never", "~s a", "m", "s=run a=0 m=run", ""),
        ("Never", "~s a", "m", "s=run a=0 m=0", "stop s"),
        ("Never", "~s a", "m", "s=143 a=0 m=0", "finish Succeeded"),
        ("Never", "~s a", "m", "s=143 a=0 m=run", "start s"),
    ];
    for (policy, init, main, state, expected) in cases {
        let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        let pod = pod(policy, &words(init), &words(main));
        assert_eq!(decided(&pod, &record(state), 10), expected, "{policy} init [{init}] main [{main}] {state}");
    }
}

#[test]
fn a_doomed_pod_stops_and_fails() {
    let pod = pod("Always", &[], &["m", "n"]);
    let mut state = record("m=run n=0");
    state.doomed = true;
    assert_eq!(decided(&pod, &state, 10), "stop m");
    let mut state = record("m=143 n=0");
    state.doomed = true;
    assert_eq!(decided(&pod, &state, 10), "finish Failed");
}

#[test]
fn what_ran_when_the_node_died_has_ended_and_policy_decides() {
    let mut state = record("a=0 b=run");
    state.after_restart(at(5));
    assert_eq!(decided(&pod("Never", &["a", "b"], &["m"]), &state, 6), "finish Failed");
    assert_eq!(decided(&pod("OnFailure", &["a", "b"], &["m"]), &state, 6), "start b");
    let text = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), state, "it is kept as it is");
}

#[test]
fn what_the_files_of_runs_say_completes_the_record() {
    let ended = |code| Some(Ended::of(code, None, at(4)));
    let cases = [
        // record, run of `a` that was begun, how it ended, decision, runs, restarts
        ("", 0, None, "start a", 1, 0),
        ("", 0, ended(0), "start m", 1, 0),
        ("a=run", 0, None, "start a", 1, 0),
        ("a=run", 0, ended(0), "start m", 1, 0),
        ("a=run", 0, ended(3), "start a", 1, 0),
        ("a=0", 0, None, "start m", 1, 0),
        ("a=0", 0, ended(7), "start m", 1, 0),
        ("a=1", 1, None, "next 15; idle", 2, 1),
        ("a=1", 1, ended(0), "start m", 2, 1),
    ];
    for (state, run, exited, expected, runs, restarts) in cases {
        let mut state_ = record(state);
        state_.recall("a", run, exited.clone(), at(3));
        state_.after_restart(at(5));
        let text = format!("{state:?} {run} {exited:?}");
        assert_eq!(decided(&pod("OnFailure", &["a"], &["m"]), &state_, 6), expected, "{text}");
        let container = &state_.containers["a"];
        assert_eq!((container.runs, container.restarts), (runs, restarts), "{text}");
        // A node that dies again before it has removed the file learns nothing else from it.
        let again = state_.clone();
        state_.recall("a", run, exited, at(9));
        state_.after_restart(at(9));
        assert_eq!(state_, again, "{text}");
    }
    // Never means: what was interrupted has failed, and the Job decides.
    let mut state = record("");
    state.recall("a", 0, None, at(3));
    state.after_restart(at(5));
    assert_eq!(decided(&pod("Never", &["a"], &["m"]), &state, 6), "finish Failed");
}

fn status(pod: &Pod, state: &Record, finished: Option<Phase>) -> k8s_openapi::api::core::v1::PodStatus {
    let place = Place { host_ip: "10.0.0.1".into(), pod_ip: "10.0.0.1".into(), node: "node".into() };
    render(pod, state, finished, &place, RESTART_BACKOFF, at(10))
}

fn reasons(status: &k8s_openapi::api::core::v1::PodStatus) -> String {
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let words = all.map(|container| {
        let state = container.state.clone().unwrap();
        let reason = match (state.waiting, state.running, state.terminated) {
            (Some(waiting), ..) => waiting.reason.unwrap(),
            (_, Some(_), _) => "Running".into(),
            (.., Some(ended)) => format!("{}:{}", ended.reason.unwrap(), ended.exit_code),
            _ => "nothing".into(),
        };
        format!("{}={reason}", container.name)
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn phases_and_container_states_are_those_of_a_kubelet() {
    let cases = [
        ("Never", "a b", "m", "", None, "Pending", "a=PodInitializing b=PodInitializing m=PodInitializing"),
        ("Never", "a b", "m", "a=run", None, "Pending", "a=Running b=PodInitializing m=PodInitializing"),
        ("Never", "a", "m", "a=0", None, "Pending", "a=Completed:0 m=ContainerCreating"),
        ("Never", "a", "m", "a=0 m=run", None, "Running", "a=Completed:0 m=Running"),
        ("Never", "a", "m", "a=0 m=0", Some(Phase::Succeeded), "Succeeded", "a=Completed:0 m=Completed:0"),
        ("Never", "a", "m", "a=2", Some(Phase::Failed), "Failed", "a=Error:2 m=PodInitializing"),
        ("Never", "", "m", "", None, "Pending", "m=ContainerCreating"),
        ("OnFailure", "a", "m", "a=1@5x1", None, "Pending", "a=CrashLoopBackOff m=PodInitializing"),
        ("OnFailure", "a", "m", "a=1@5", None, "Pending", "a=Error:1 m=PodInitializing"),
        ("Always", "", "m", "m=0@5x2", None, "Running", "m=CrashLoopBackOff"),
    ];
    for (policy, init, main, state, finished, phase, expected) in cases {
        let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        let pod = pod(policy, &words(init), &words(main));
        let status = status(&pod, &record(state), finished);
        assert_eq!((status.phase.as_deref(), reasons(&status).as_str()), (Some(phase), expected), "{policy} {state}");
    }
    let looping = status(&pod("OnFailure", &["a"], &["m"]), &record("a=1@5x2"), None);
    let container = &looping.init_container_statuses.unwrap()[0];
    assert_eq!(
        container.state.as_ref().unwrap().waiting.as_ref().unwrap().message.as_deref(),
        Some("back-off 20s restarting failed container=a pod=pod_ns(uid)")
    );
    assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
}

#[test]
fn conditions_keep_their_times_and_the_same_state_is_the_same_status() {
    let mut pod = pod("Never", &["a"], &["m"]);
    let first = status(&pod, &record("a=run"), None);
    let holds = |status: &k8s_openapi::api::core::v1::PodStatus| -> Vec<String> {
        status.conditions.iter().flatten().map(|c| format!("{}={}", c.type_, c.status)).collect()
    };
    assert_eq!(
        holds(&first),
        [
            "PodReadyToStartContainers=True",
            "Initialized=False",
            "Ready=False",
            "ContainersReady=False",
            "PodScheduled=True"
        ]
    );
    let message = first.conditions.as_ref().unwrap()[1].message.as_deref();
    assert_eq!(message, Some("containers with incomplete status: [a]"));
    pod.status = Some(first.clone());
    let place = Place { host_ip: "10.0.0.1".into(), pod_ip: "10.0.0.1".into(), node: "node".into() };
    let again = render(&pod, &record("a=run"), None, &place, RESTART_BACKOFF, at(99));
    assert_eq!(again, first, "nothing has changed, so nothing is written");
    let next = render(&pod, &record("a=0 m=run"), None, &place, RESTART_BACKOFF, at(99));
    assert_eq!(
        holds(&next),
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=True",
            "ContainersReady=True",
            "PodScheduled=True"
        ]
    );
    let times: Vec<_> = next.conditions.unwrap().into_iter().map(|c| c.last_transition_time.unwrap().0).collect();
    assert_eq!(times, [at(10), at(99), at(99), at(99), at(10)]);
}

#[test]
fn a_lost_record_is_rebuilt_from_the_status() {
    let mut pod = pod("OnFailure", &["a", "b"], &["m"]);
    let state = record("a=0 b=run");
    pod.status = Some(status(&pod, &state, None));
    let mut rebuilt = from_status(&pod).unwrap();
    rebuilt.after_restart(at(20));
    assert_eq!(decided(&pod, &rebuilt, 21), "start b");
    assert_eq!(from_status(&Pod::default()), None);
}
