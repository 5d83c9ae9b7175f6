use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::workflow::failure::{Attempt, Sight, attempt, concerns, of_pod};

fn status(status: Value) -> Pod {
    let limits = json!({ "limits": { "memory": "256Mi" } });
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "n" },
        "spec": { "initContainers": [{ "name": "render", "resources": limits }], "containers": [{ "name": "status-writer" }] },
        "status": status,
    }))
    .unwrap()
}

/// Returns a pod with one container in this state, before this last state.
fn container(name: &str, state: Value, last_state: Value) -> Pod {
    status(json!({ "phase": "Pending", "initContainerStatuses": [
        { "name": "done", "image": "i", "imageID": "", "ready": true, "restartCount": 1,
          "state": { "terminated": { "exitCode": 0 } }, "lastState": { "terminated": { "exitCode": 7 } } },
        { "name": name, "image": "reg/img:1", "imageID": "", "ready": false, "restartCount": 1,
          "state": state, "lastState": last_state },
    ]}))
}

fn terminated(code: i32, reason: &str, message: &str) -> Value {
    json!({ "terminated": { "exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T10:00:10Z" } })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": message } })
}

fn check(pod: &Pod, expected: &str) {
    let trouble = of_pod(pod).unwrap_or_else(|| panic!("nothing is found, expected {expected}"));
    let text = format!("{trouble:?}");
    for part in expected.split(" | ") {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn each_way_in_which_a_container_fails_has_a_reason_and_a_command() {
    let logs = r#"command: "kubectl logs -n n p -c render""#;
    let describe = r#"command: "kubectl describe pod -n n p""#;
    let gone = json!({});
    let cases = [
        (terminated(1, "Error", ""), format!(r#"ContainerFailed | "container render exited with code 1" | {logs}"#)),
        (
            terminated(3, "Error", "two\nlines\n"),
            r#""container render exited with code 3" | detail: "two lines""#.into(),
        ),
        (
            terminated(137, "Error", ""),
            format!(r#"ContainerKilled | render was killed (SIGKILL, exit code 137) | {logs}"#),
        ),
        (terminated(143, "Error", ""), r#"ContainerKilled | render was killed (signal 15, exit code 143)"#.into()),
        (terminated(137, "OOMKilled", ""), format!("OutOfMemory | more memory than its limit of 256Mi | {logs}")),
        (
            terminated(127, "ContainerCannotRun", "exec: no such file"),
            format!(r#"ContainerNotStarted | "container render cannot be started" | exec: no such file | {describe}"#),
        ),
        (
            waiting("ErrImagePull", "rpc error: not found"),
            format!(
                r#"ImageUnavailable | image reg/img:1 of container render cannot be had | detail: "rpc error: not found" | {describe}"#
            ),
        ),
        (
            waiting("ImagePullBackOff", "Back-off pulling image \"reg/img:1\": ErrImagePull: rpc error: not found"),
            r#"ImageUnavailable | detail: "rpc error: not found""#.into(),
        ),
        (
            waiting("ImagePullBackOff", "Back-off pulling image \"reg/img:1\""),
            r#"ImageUnavailable | detail: """#.into(),
        ),
        (
            waiting(
                "ImagePullBackOff",
                "Back-off pulling image \"reg/img:1\": image \"reg/img:1\" is not here; load it",
            ),
            r#"ImageUnavailable | detail: "it is not here; load it""#.into(),
        ),
        (
            waiting("ImagePullBackOff", "Back-off pulling image \"reg/img:1\": image \"other\" is not here"),
            r#"ImageUnavailable | detail: "image \"other\" is not here""#.into(),
        ),
        (waiting("InvalidImageName", "couldn't parse"), "ImageUnavailable | couldn't parse".into()),
        (waiting("ErrImageNeverPull", "not present"), "ImageUnavailable | not present".into()),
        (
            waiting("CreateContainerConfigError", "secret \"s\" not found"),
            format!(r#"ContainerNotStarted | secret \"s\" not found | {describe}"#),
        ),
    ];
    for (state, expected) in cases {
        check(&container("render", state, gone.clone()), &expected);
    }
}

#[test]
fn how_the_last_attempt_ended_is_told_while_the_next_one_waits_or_runs() {
    let last = terminated(1, "Error", "");
    for state in [waiting("CrashLoopBackOff", "back-off 10s"), json!({ "running": {} }), json!({})] {
        check(&container("render", state, last.clone()), "ContainerFailed | exited with code 1 | detail: \"\"");
    }
    assert_eq!(of_pod(&container("render", terminated(0, "Completed", ""), last)), None, "it has succeeded at last");
}

#[test]
fn a_pod_that_gets_on_is_no_trouble() {
    for state in [json!({}), json!({ "running": {} }), waiting("PodInitializing", ""), waiting("ContainerCreating", "")]
    {
        assert_eq!(of_pod(&container("render", state, json!({}))), None);
    }
    assert_eq!(of_pod(&status(json!({ "phase": "Pending", "reason": "TooManyPods", "message": "waiting" }))), None);
    assert_eq!(of_pod(&Pod::default()), None);
}

#[test]
fn trouble_of_the_whole_pod_is_told_as_such() {
    let message = "Usage of EmptyDir volume \"shared-output\" exceeds the limit \"1Mi\". ";
    let evicted = json!({ "phase": "Failed", "reason": "Evicted", "message": message });
    check(&status(evicted), r#"PodEvicted | exceeds the limit \"1Mi\"" | kubectl describe pod -n n p"#);
    let stopped = json!({ "phase": "Failed", "reason": "Evicted", "initContainerStatuses": [
        { "name": "reader", "image": "i", "imageID": "", "ready": true, "restartCount": 0, "state": { "terminated": { "exitCode": 0 } } },
        { "name": "render", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 137 } } },
        { "name": "next", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "PodInitializing" } } },
    ]});
    for (reason, subject) in [
        ("Evicted", "the pod was evicted while container render ran"),
        ("DeadlineExceeded", "the pod ran longer than its deadline while container render ran"),
        ("NodeLost", "the pod has failed (NodeLost) while container render ran"),
    ] {
        let mut failed = stopped.clone();
        failed["reason"] = reason.into();
        check(&status(failed.clone()), &format!("subject: {subject:?}"));
        failed["initContainerStatuses"].as_array_mut().unwrap().remove(1);
        check(
            &status(failed),
            &format!("subject: {:?}", subject.replace("while container render", "before container next")),
        );
    }
    let late =
        json!({ "phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer" });
    check(&status(late), "DeadlineExceeded | longer than its deadline | Pod was active");
    check(&status(json!({ "phase": "Failed", "reason": "NodeLost" })), "PodFailed | (NodeLost)");
    let message = "0/3 nodes are available: 3 Insufficient memory.";
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message });
    check(
        &status(json!({ "phase": "Pending", "conditions": [condition] })),
        "PodUnschedulable | 3 Insufficient memory",
    );
    let message = "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found";
    check(
        &status(json!({ "phase": "Pending", "reason": "FailedMount", "message": message })),
        "PodNotStarted | MountVolume",
    );
}

#[test]
fn a_container_that_ends_because_its_pod_is_deleted_is_no_trouble_and_an_earlier_failure_is() {
    let mut pod = container("render", terminated(143, "Error", ""), json!({}));
    pod.metadata.deletion_grace_period_seconds = Some(30);
    let at = |text: &str| Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(text.parse().unwrap()));
    // Asked for at 10:00:05, before the end; then at 10:00:10, not before it.
    pod.metadata.deletion_timestamp = at("2026-01-01T10:00:35Z");
    assert_eq!(of_pod(&pod), None);
    pod.metadata.deletion_timestamp = at("2026-01-01T10:00:40Z");
    assert_eq!(of_pod(&pod), None, "stopped in the very second in which that was asked for");
    for (code, reason, expected) in [(1, "Error", "ContainerFailed"), (137, "OOMKilled", "OutOfMemory")] {
        let mut failed = container("render", terminated(code, reason, ""), json!({}));
        failed.metadata = pod.metadata.clone();
        check(&failed, expected);
    }
    pod.metadata.deletion_timestamp = at("2026-01-01T10:00:41Z");
    check(&pod, "ContainerKilled");
    // Its second attempt was stopped, its first one had failed.
    let mut again = container(
        "render",
        terminated(143, "Error", ""),
        json!({ "terminated": { "exitCode": 3, "finishedAt": "2026-01-01T10:00:01Z" } }),
    );
    again.metadata.deletion_grace_period_seconds = Some(30);
    again.metadata.deletion_timestamp = at("2026-01-01T10:00:35Z");
    check(&again, "ContainerFailed | code 3");
    let mut waits = container("render", waiting("ErrImagePull", "x"), json!({}));
    waits.metadata.deletion_timestamp = at("2026-01-01T10:00:35Z");
    assert_eq!(of_pod(&waits), None);
}

#[test]
fn only_containers_of_kratix_say_that_repeating_is_useless() {
    let is_final =
        |name: &str, code| of_pod(&container(name, terminated(code, "Error", "why"), json!({}))).unwrap().is_final();
    assert!(is_final("work-writer", 65) && is_final("status-writer", 65) && is_final("reader", 65));
    assert!(!is_final("render", 65) && !is_final("work-writer", 1));
}

#[test]
fn a_cause_is_one_line_of_bounded_length() {
    let trouble = of_pod(&container("render", terminated(1, "Error", &"ü \n".repeat(4000)), json!({}))).unwrap();
    let text = format!("{trouble:?}");
    assert!(text.len() < 700 && !text.contains("\\n") && text.contains('…'), "{text}");
}

#[test]
fn nothing_that_a_user_writes_is_repeated_at_length_or_acts_on_a_terminal() {
    let message = "red \u{1b}[31malert\u{0}\u{7f} end";
    check(&container("render", terminated(1, "Error", message), json!({})), r#"detail: "red [31malert end""#);
    let mut pod = container("render", waiting("InvalidImageName", "no"), json!({}));
    let statuses = pod.status.as_mut().unwrap().init_container_statuses.as_mut().unwrap();
    statuses[1].image = "i\u{1b}".repeat(5000);
    let text = format!("{:?}", of_pod(&pod).unwrap());
    assert!(text.len() < 700 && text.contains("image i i") && !text.contains("\\u"), "{text}");
}

#[test]
fn the_newest_trouble_counts_and_a_refusal_only_where_there_is_no_pod() {
    let job = v1::Job::default();
    let at = |second, code: Option<i32>| {
        let pod = match code {
            Some(code) => container("render", terminated(code, "Error", ""), json!({})),
            None => Pod::default(),
        };
        Attempt { created: Timestamp::from_second(second).ok(), ..attempt(&pod) }
    };
    let told = |pods: &[Attempt], refusal| match Sight::of(&job, pods, refusal) {
        Sight::Trouble(trouble) => format!("{trouble:?}"),
        other => format!("{other:?}"),
    };
    assert_eq!(told(&[], None), "Unseen");
    assert_eq!(told(&[at(1, None)], Some("no")), "Fine { container: None }");
    assert!(told(&[at(2, Some(2)), at(1, Some(1)), at(3, None)], Some("no")).contains("code 2"));
    assert!(told(&[], Some("Error creating: forbidden")).contains(r#"detail: "forbidden""#));
    let mut going = at(1, None);
    going.is_going = true;
    let told_of_it = told(&[going], Some("no"));
    assert_eq!(told_of_it, "Going { when: None }", "how a pod ends that is deleted says nothing");
    let status = json!({ "failed": 1 });
    let job = v1::Job { status: serde_json::from_value(status).unwrap(), ..v1::Job::default() };
    assert_eq!(Sight::of(&job, &[], Some("no")), Sight::Gone { when: None }, "there has been a pod since");
    let known = at(1, Some(1));
    for was_refused in [false, true] {
        let concerns = |old: Option<&Attempt>, new: Option<&Attempt>| concerns(old, new, was_refused);
        assert!(concerns(None, Some(&known)) && concerns(Some(&known), None) && !concerns(Some(&known), Some(&known)));
    }
    let gets_on = at(1, None);
    assert!(!concerns(None, Some(&gets_on), false), "a pod that gets on brings nobody back");
    assert!(concerns(None, Some(&gets_on), true), "unless none could be made before");
    assert!(!concerns(Some(&gets_on), Some(&gets_on), true));
    let mut runs = attempt(&container("render", json!({ "running": {} }), json!({})));
    assert_eq!(told(&[at(1, None), runs.clone()], None), "Fine { container: None }");
    let newer = Attempt { created: Timestamp::from_second(2).ok(), ..runs.clone() };
    assert_eq!(told(&[newer, at(1, None)], None), "Fine { container: Some(\"render\") }");
    assert!(!concerns(Some(&runs), None, false));
    runs.is_going = true;
    assert!(concerns(Some(&runs), None, false), "what waited for its end may be stopped");
    assert!(!concerns(Some(&runs), Some(&runs), false));
}
