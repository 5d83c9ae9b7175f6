//! What a client sees of a disturbed watch.

use super::*;

/// An event about the `number`th state of an object.
fn event(name: &str, number: usize) -> String {
    let object = json!({ "metadata": { "name": name, "resourceVersion": number.to_string() } });
    json!({ "type": "MODIFIED", "object": object }).to_string()
}

fn bookmark(number: usize) -> String {
    json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": number.to_string() } } }).to_string()
}

/// Thirty events of three objects, with a bookmark in the middle.
fn events() -> Vec<String> {
    let mut events: Vec<String> = (0..30).map(|number| event(["a", "b", "c"][number % 3], number)).collect();
    events.insert(15, bookmark(15));
    events
}

/// Returns what is seen of these events, each of which arrives a millisecond after the one before; then the watch ends, or
/// stays open for ever.
async fn seen(events: &[String], kind: Disturbance, seed: u64, ends: bool) -> Vec<String> {
    let lines: Vec<Bytes> = events.iter().map(|event| Bytes::from(format!("{event}\n"))).collect();
    let sent = stream::iter(lines).then(|line| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, BoxError>(Frame::data(line))
    });
    let rest = if ends { stream::empty().boxed() } else { stream::pending().boxed() };
    let plan = Plan::new(kind, 1, Seed::new(seed)).unwrap();
    let body = disturb(StreamBody::new(sent.chain(rest)), plan).collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

fn is_gone(event: &str) -> bool {
    let event: Value = serde_json::from_str(event).unwrap();
    event["type"] == "ERROR" && event["object"]["code"] == 410
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_shows_the_first_events_and_ends() {
    for seed in 0..20 {
        let shown = seen(&events(), Disturbance::Cut, seed, false).await;
        assert!((1..=EVENTS_MAX).contains(&shown.len()) && events().starts_with(&shown), "{seed}: {shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_gone_says_so_after_the_first_events() {
    for seed in 0..20 {
        let mut shown = seen(&events(), Disturbance::Gone, seed, false).await;
        assert!(shown.pop().is_some_and(|last| is_gone(&last)), "{seed}");
        assert!((1..=EVENTS_MAX).contains(&shown.len()) && events().starts_with(&shown), "{seed}: {shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_are_missed_are_followed_by_the_answer_that_has_everything_listed_anew() {
    for (seed, count) in (0..20).zip([31, 6].into_iter().cycle()) {
        let all = &events()[..count];
        let mut shown = seen(all, Disturbance::Missed, seed, false).await;
        assert!(shown.pop().is_some_and(|last| is_gone(&last)), "{seed}");
        assert!(shown.len() < EVENTS_MAX && all.starts_with(&shown), "{seed}: {shown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn late_events_are_all_there_in_their_order_and_later() {
    let start = Instant::now();
    assert_eq!(seen(&events(), Disturbance::Late, 1, true).await, events());
    assert!(start.elapsed() > Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn shuffled_events_are_all_there_and_those_of_one_object_in_their_order() {
    let mut orders = Vec::new();
    for seed in 0..10 {
        let shown = seen(&events(), Disturbance::Shuffled, seed, true).await;
        let of = |all: &[String], name: &str| -> Vec<String> {
            all.iter()
                .filter(|event| object(event.as_bytes()).is_some_and(|found| found == format!("/{name}")))
                .cloned()
                .collect()
        };
        for name in ["a", "b", "c"] {
            assert_eq!(of(&shown, name), of(&events(), name), "{seed}");
        }
        let place = shown.iter().position(|event| *event == bookmark(15)).unwrap();
        let before = &events()[..15];
        assert!(
            before.iter().all(|event| shown[..place].contains(event)),
            "{seed}: a bookmark promises what came before it"
        );
        assert_eq!(shown.len(), events().len());
        orders.push(shown);
    }
    assert!(orders.iter().any(|shown| *shown != events()), "no seed has changed the order");
}

#[tokio::test(start_paused = true)]
async fn events_are_told_apart_however_the_body_is_cut() {
    let text: String = events().iter().map(|event| format!("{event}\n")).collect();
    for size in [1, 7, 1_000, text.len()] {
        let pieces: Vec<_> = text
            .as_bytes()
            .chunks(size)
            .map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let plan = Plan::new(Disturbance::Cut, 1, Seed::new(3)).unwrap();
        let shown = disturb(StreamBody::new(stream::iter(pieces)), plan).collect().await.unwrap().to_bytes();
        assert!(text.as_bytes().starts_with(&shown) && shown.ends_with(b"\n"), "in pieces of {size}");
    }
}

#[test]
fn a_watch_is_broken_a_few_times_and_kept_waiting_for_ever() {
    for kind in Disturbance::ALL {
        let is_lasting = matches!(kind, Disturbance::Late | Disturbance::Shuffled);
        assert!(Plan::new(kind, CONNECTIONS_MAX, Seed::new(1)).is_some());
        assert_eq!(Plan::new(kind, CONNECTIONS_MAX + 1, Seed::new(1)).is_some(), is_lasting);
    }
}
