//! Stores that are asked and do not answer.

use super::*;

fn asked(snapshot: &Snapshot, since: i64, now: i64) -> Snapshot {
    let under_way = UnderWay { since: Some(at(since)), address: "https://git.example/x.git".into() };
    Snapshot { under_way: Some(under_way), now: at(now), ..snapshot.clone() }
}

const SAID: &str = "no answer from https://git.example/x.git yet";

/// Issue: a condition message while waiting longer than a few seconds
#[test]
fn a_new_store_that_does_not_answer_says_so_after_three_seconds_and_is_asked_once() {
    let new = healthy();
    let early = decide(&asked(&new, 10, 12));
    assert!(early.plan.is_silent() && early.effect.is_none());
    assert_eq!(early.plan.next, Next::After(Duration::from_secs(1)));
    let silent = asked(&new, 10, 13);
    assert_eq!(problem(&silent), ("NoAnswerYet".into(), SAID.into()));
    let decision = decide(&silent);
    assert_eq!((decision.effect, decision.plan.next), (Some(Effect::Tell), Next::OnChange));
    assert_eq!(decision.plan.events[0].note, SAID);
    let told = after(&silent, &decision.plan);
    assert!(decide(&told).plan.is_silent(), "once");
    // One that has not had its turn owes nothing.
    let address = "https://git.example/x.git".to_owned();
    let waiting = Snapshot { under_way: Some(UnderWay { since: None, address }), ..asked(&new, 10, 100) };
    assert!(decide(&waiting).plan.is_silent() && decide(&waiting).effect.is_none());
    assert_eq!(decide(&waiting).plan.next, Next::After(SILENCE));
    // The end of the wait is told as ever.
    let fingerprint = fingerprint(&told).unwrap();
    let opened = Opened { fingerprint, at: at(100), outcome: failure(Step::Read, "no answer within 90 s") };
    let failed = Snapshot { opened: Some(opened.clone()), under_way: None, ..after(&told, &record(&told, opened)) };
    assert!(problem(&failed).1.ends_with("no answer within 90 s"));
    // While it is tried again, what was found out stays.
    assert!(decide(&asked(&failed, 115, 200)).plan.is_silent());
    assert_eq!(decide(&asked(&failed, 115, 200)).effect, None);
}

#[test]
fn a_store_that_was_ready_has_time_to_answer_after_a_start() {
    let ready = open(&healthy(), Ok(()));
    let started = Snapshot { opened: None, ..ready };
    assert!(decide(&asked(&started, 0, 14)).plan.is_silent());
    assert_eq!(problem(&asked(&started, 0, 15)), ("NoAnswerYet".into(), SAID.into()));
}

#[test]
fn a_ready_store_that_does_not_answer_a_push_says_so_beside_ready_until_it_does() {
    let condition = |snapshot: &Snapshot| {
        let Store::Git(store) = &snapshot.store else { panic!("git only") };
        let conditions = store.status.clone().unwrap_or_default().conditions;
        assert!(condition::is_true(&conditions, condition::READY));
        condition::find(&conditions, "PushesAccepted").map(|found| (found.status.clone(), found.message.clone()))
    };
    let ready = open(&healthy(), Ok(()));
    let silent = Snapshot { pushes: Pushes::Unanswered(SAID.into()), ..ready.clone() };
    let plan = decide(&silent).plan;
    assert!(plan.events.is_empty(), "it may be slow");
    let silent = after(&silent, &plan);
    assert_eq!(condition(&silent), Some((Status::Unknown, SAID.into())));
    assert_eq!(complaint(&silent.store), Some(Complaint::Unanswered(SAID.into())));
    assert!(decide(&silent).plan.is_silent());
    let answered = Snapshot { pushes: Pushes::Unknown, ..silent.clone() };
    assert_eq!(condition(&after(&answered, &decide(&answered).plan)), None);
    // Checked and found to be well, it owes nothing.
    let suspect = Snapshot { is_suspect: true, ..silent };
    assert_eq!(condition(&open(&suspect, Ok(()))), None);
}
