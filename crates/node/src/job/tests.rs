//! The job controller as a table: a Job, its Pods, the time, and what is to be done.

use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

struct World {
    job: Job,
    pods: Vec<Pod>,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut spec = spec;
        for (key, value) in [
            ("parallelism", json!(1)),
            ("completions", json!(1)),
            ("template", json!({"spec": {"containers": [], "restartPolicy": "Never"}})),
        ] {
            if spec.get(key).is_none() {
                spec[key] = value;
            }
        }
        let job = json!({"metadata": {"name": "job", "namespace": "ns", "uid": "job-uid"}, "spec": spec});
        Self { job: serde_json::from_value(job).unwrap(), pods: Vec::new() }
    }

    fn decide(&self, now: i64) -> Plan {
        decide(&Snapshot {
            now: at(now),
            job: Arc::new(self.job.clone()),
            pods: self.pods.iter().cloned().map(Arc::new).collect(),
            backoff: FAILURE_BACKOFF,
            node: "node".into(),
        })
    }

    /// Executes a plan as the shell would; deleted pods are gone at once.
    fn execute(&mut self, plan: &Plan) {
        self.pods.extend(plan.create.iter().cloned());
        self.pods.retain(|pod| !plan.delete.contains(&pod.metadata.name.clone().unwrap()));
        if let Some(status) = &plan.status {
            self.job.status = Some(status.clone());
        }
    }

    /// Decides and executes until nothing is left to do; returns all events as `reason`s.
    fn settle(&mut self, now: i64) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..10 {
            let plan = self.decide(now);
            events.extend(plan.events.iter().map(|event| event.reason.clone()));
            self.execute(&plan);
            if plan.create.is_empty() && plan.delete.is_empty() && plan.status.is_none() {
                return events;
            }
        }
        panic!("it never comes to rest");
    }

    fn end(&mut self, pod: usize, phase: &str, when: i64) {
        let time = at(when).to_string();
        let status = json!({"phase": phase, "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": i32::from(phase == "Failed"), "finishedAt": time}}}]});
        self.pods[pod].status = Some(serde_json::from_value(status).unwrap());
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions.unwrap_or_default();
        conditions.into_iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason.unwrap_or_default())).collect()
    }
}

#[test]
fn a_happy_run_costs_two_status_writes() {
    let mut world = World::new(json!({}));
    let plan = world.decide(0);
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 0));
    let status = plan.status.clone().unwrap();
    assert_eq!((status.active, status.start_time.clone().unwrap().0), (Some(1), at(0)));
    world.execute(&plan);
    let pod = &world.pods[0];
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("node"));
    assert_eq!(pod.metadata.owner_references.as_ref().unwrap()[0].uid, "job-uid");
    assert_eq!(world.decide(1), Plan::default(), "converged is silent");

    world.pods[0].status =
        serde_json::from_value(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
            .unwrap();
    assert_eq!(world.decide(2), Plan::default(), "readiness alone is not worth a write");

    world.end(0, "Succeeded", 3);
    let plan = world.decide(3);
    assert_eq!(plan.events, [Event::normal("Completed", "Job completed")]);
    world.execute(&plan);
    assert_eq!(world.conditions(), ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]);
    let status = world.status();
    assert_eq!((status.succeeded, status.active, status.completion_time.unwrap().0), (Some(1), None, at(3)));
    assert_eq!(world.decide(4), Plan::default(), "a finished Job is left alone");
}

#[test]
fn the_same_attempt_has_the_same_pod_name_and_the_next_another() {
    let mut world = World::new(json!({}));
    let first = world.decide(0).create[0].metadata.name.clone().unwrap();
    assert_eq!(world.decide(99).create[0].metadata.name.as_ref(), Some(&first), "a repeated pass meets the pod");
    assert!(first.starts_with("job-") && first.len() == 9);
    world.settle(0);
    world.end(0, "Failed", 1);
    let second = world.decide(60).create[0].metadata.name.clone().unwrap();
    assert_ne!(first, second);

    world.job.metadata.name = Some("x".repeat(63));
    assert_eq!(world.decide(60).create[0].metadata.name.as_ref().unwrap().len(), 63);
}

#[test]
fn failures_are_followed_by_growing_pauses_and_then_the_end() {
    let mut world = World::new(json!({"backoffLimit": 2}));
    world.settle(0);
    let mut now = 0;
    for (attempt, pause) in [10, 20].into_iter().enumerate() {
        world.end(attempt, "Failed", now);
        world.settle(now);
        let plan = world.decide(now);
        assert_eq!((plan.create.len(), plan.next), (0, Some(at(now + pause))), "attempt {attempt}");
        now += pause;
        assert_eq!(world.settle(now), ["SuccessfulCreate"]);
    }
    world.end(2, "Failed", now);
    assert_eq!(world.settle(now), ["BackoffLimitExceeded"]);
    assert_eq!(world.conditions(), ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]);
    assert_eq!(world.status().failed, Some(3));
    assert_eq!(world.status().completion_time, None);
}

#[test]
fn restarts_in_place_use_up_the_limit() {
    let template = json!({"spec": {"containers": [], "restartPolicy": "OnFailure"}});
    for (limit, restarts, over) in [(6, 5, false), (6, 6, true), (0, 0, false), (0, 1, true)] {
        let mut world = World::new(json!({"backoffLimit": limit, "template": template}));
        world.settle(0);
        let status = json!({"phase": "Pending", "initContainerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": restarts}]});
        world.pods[0].status = Some(serde_json::from_value(status).unwrap());
        let plan = world.decide(1);
        assert_eq!(plan.delete.len(), usize::from(over), "limit {limit}, {restarts} restarts");
        if over {
            // The last word waits for the pod to be gone.
            world.execute(&Plan { delete: Vec::new(), ..plan });
            assert_eq!(world.conditions(), ["FailureTarget=True BackoffLimitExceeded"]);
            world.pods.clear();
            world.settle(2);
            assert_eq!(world.conditions().last().unwrap(), "Failed=True BackoffLimitExceeded");
        }
    }
}

#[test]
fn a_deadline_counts_from_the_start_and_not_while_suspended() {
    let mut world = World::new(json!({"activeDeadlineSeconds": 10}));
    world.settle(0);
    assert_eq!(world.decide(5).next, Some(at(10)));
    assert_eq!(world.settle(10), ["SuccessfulDelete", "DeadlineExceeded"]);
    assert_eq!(world.conditions(), ["FailureTarget=True DeadlineExceeded", "Failed=True DeadlineExceeded"]);

    let mut world = World::new(json!({"activeDeadlineSeconds": 10}));
    world.settle(0);
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    assert_eq!(world.settle(5), ["SuccessfulDelete", "Suspended"]);
    assert_eq!((world.status().start_time, world.status().active), (None, None));
    assert_eq!(world.settle(100), Vec::<String>::new());
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    assert_eq!(world.settle(100), ["SuccessfulCreate", "Resumed"]);
    assert_eq!(world.status().start_time.unwrap().0, at(100));
    assert_eq!(world.conditions(), ["Suspended=False JobResumed"]);
}

#[test]
fn a_job_born_suspended_creates_nothing() {
    let mut world = World::new(json!({"suspend": true}));
    assert_eq!(world.settle(0), ["Suspended"]);
    assert!(world.pods.is_empty());
}

#[test]
fn completions_and_parallelism_are_kept() {
    let mut world = World::new(json!({"parallelism": 2, "completions": 3}));
    world.settle(0);
    assert_eq!(world.pods.len(), 2);
    world.end(0, "Succeeded", 1);
    world.settle(1);
    assert_eq!(world.pods.len(), 3);
    world.end(1, "Succeeded", 2);
    world.settle(2);
    assert_eq!(world.pods.len(), 3, "no more than are still needed");
    world.end(2, "Succeeded", 3);
    assert_eq!(world.settle(3), ["Completed"]);
    assert_eq!(world.status().succeeded, Some(3));

    let mut world = World::new(json!({"parallelism": 3, "completions": 9}));
    world.settle(0);
    world.job.spec.as_mut().unwrap().parallelism = Some(1);
    world.settle(1);
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn a_pod_that_is_ending_is_not_replaced_before_it_has_ended() {
    let mut world = World::new(json!({}));
    world.settle(0);
    world.pods[0].metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    let plan = world.decide(1);
    assert!(plan.create.is_empty(), "two would run at once");
    assert_eq!(plan.status.unwrap().terminating, Some(1));
    world.pods.clear();
    assert_eq!(world.decide(2).create.len(), 1);
}

#[test]
fn a_job_that_somebody_keeps_while_it_is_deleted_tells_when_its_pod_has_ended() {
    let mut world = World::new(json!({}));
    world.settle(0);
    world.job.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    assert_eq!(world.decide(1), Plan::default(), "its pod is at work");
    world.end(0, "Failed", 2);
    let plan = world.decide(2);
    assert_eq!((plan.create.len(), plan.delete.len()), (0, 0));
    let status = plan.status.unwrap();
    assert_eq!((status.active, status.failed), (None, Some(1)));
    world.job.status = Some(status);
    assert_eq!(world.decide(60), Plan::default());
}

#[test]
fn counted_pods_stay_counted_when_they_are_removed() {
    let mut world = World::new(json!({"backoffLimit": 1}));
    world.settle(0);
    world.end(0, "Failed", 0);
    world.settle(0);
    world.pods.clear();
    world.settle(20);
    assert_eq!((world.status().failed, world.pods.len()), (Some(1), 1));
}

#[test]
fn a_removed_pod_does_not_hide_the_next_end() {
    // What was counted is removed, and the next Pod ends before anybody looks.
    for (outcome, expected) in [("Failed", (None, Some(2))), ("Succeeded", (Some(1), Some(1)))] {
        let mut world = World::new(json!({"backoffLimit": 3}));
        world.settle(0);
        world.end(0, "Failed", 0);
        world.settle(0);
        world.pods.clear();
        world.settle(20);
        world.end(0, outcome, 21);
        world.settle(21);
        assert_eq!((world.status().succeeded, world.status().failed), expected, "{outcome}");
    }
    let mut world = World::new(json!({"completions": 2}));
    world.settle(0);
    world.end(0, "Succeeded", 0);
    world.settle(0);
    world.pods.remove(0);
    world.end(0, "Succeeded", 1);
    world.settle(1);
    assert_eq!(world.status().succeeded, Some(2));
}

#[test]
fn a_finished_job_expires() {
    let mut world = World::new(json!({"ttlSecondsAfterFinished": 60}));
    world.settle(0);
    world.end(0, "Succeeded", 1);
    world.settle(1);
    assert_eq!(world.decide(2).next, Some(at(61)));
    assert!(!world.decide(60).expire && world.decide(61).expire);
}

#[test]
fn what_is_not_supported_fails_visibly_and_foreign_jobs_are_left_alone() {
    let mut world = World::new(json!({"completionMode": "Indexed"}));
    world.settle(0);
    assert_eq!(world.conditions().last().unwrap(), "Failed=True NotSupported");
    assert_eq!(World::new(json!({"managedBy": "example.com/other"})).decide(0), Plan::default());
}

/// Any prefix of any plan, and a start from the beginning, lead to one pod per attempt and the same end.
#[test]
fn a_crash_after_any_write_recovers() {
    for crash in 0..6 {
        let mut world = World::new(json!({"backoffLimit": 1}));
        let mut writes = 0;
        let mut now = 0;
        for outcome in ["Failed", "Succeeded"] {
            for _ in 0..10 {
                let plan = world.decide(now);
                let mut done = Plan::default();
                for pod in &plan.create {
                    if writes == crash {
                        break;
                    }
                    done.create.push(pod.clone());
                    writes += 1;
                }
                if writes != crash && plan.status.is_some() {
                    done.status.clone_from(&plan.status);
                    writes += 1;
                }
                if writes == crash {
                    writes += 1; // the crash: what was left of this plan is lost
                }
                world.execute(&done);
                now += 1;
            }
            now += 60;
            world.settle(now);
            let last = world.pods.len() - 1;
            world.end(last, outcome, now);
        }
        world.settle(now);
        assert_eq!(world.pods.len(), 2, "crash after write {crash}");
        assert_eq!(world.conditions().last().unwrap(), "Complete=True CompletionsReached", "crash after write {crash}");
    }
}
