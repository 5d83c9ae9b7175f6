//! Watches that show less, later or in another order than what happened.
//!
//! What a client can never see on a real server does not happen here either: the order of one object's events stays, and
//! what was not shown is followed by the answer that makes the client list everything anew.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::fault::Disturbance;
use super::seed::Seed;

/// After so many connections a watch is left alone, so that every run ends.
const CONNECTIONS_MAX: usize = 6;
/// Most events before a watch ends.
const EVENTS_MAX: usize = 5;
/// Most events that are not seen.
const MISSED_MAX: usize = 4;
/// Longest time that an event is held back.
const LATE_MAX_MS: usize = 400;
/// How long unseen events stay unseen when no more come.
const UNSEEN: Duration = Duration::from_millis(700);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body as the client sees it.
pub(super) type Shown = UnsyncBoxBody<Bytes, BoxError>;
type Events = BoxStream<'static, Result<Bytes, BoxError>>;

/// How one connection is disturbed.
pub(super) struct Plan {
    kind: Disturbance,
    seed: Seed,
}

impl Plan {
    /// Returns nothing for a watch that was disturbed often enough.
    pub(super) fn new(kind: Disturbance, connection: usize, seed: Seed) -> Option<Self> {
        let is_lasting = matches!(kind, Disturbance::Late | Disturbance::Shuffled);
        (is_lasting || connection <= CONNECTIONS_MAX).then_some(Self { kind, seed })
    }
}

/// Returns the body of a watch as the plan wants it seen.
pub(super) fn disturb<B>(body: B, plan: Plan) -> Shown
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let Plan { kind, mut seed } = plan;
    let events: Events = lines(body).boxed();
    let shown: Events = match kind {
        Disturbance::Cut => events.take(1 + seed.below(EVENTS_MAX)).boxed(),
        Disturbance::Gone => events.take(1 + seed.below(EVENTS_MAX)).chain(gone()).boxed(),
        Disturbance::Missed => {
            let seen = seed.below(EVENTS_MAX);
            missed(events, seen, 1 + seed.below(MISSED_MAX))
        }
        Disturbance::Late => late(events, seed).boxed(),
        Disturbance::Shuffled => shuffled(events, seed).boxed(),
    };
    BodyExt::boxed_unsync(StreamBody::new(shown.map(|event| event.map(Frame::data))))
}

fn gone() -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410,
    });
    let event = format!("{}\n", json!({ "type": "ERROR", "object": status }));
    stream::iter([Ok(Bytes::from(event))])
}

/// Splits a body into events.
fn lines<B>(body: B) -> impl Stream<Item = Result<Bytes, BoxError>> + Send
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let state = (Box::pin(body.into_data_stream()), BytesMut::new());
    stream::unfold(state, |(mut body, mut rest)| async move {
        loop {
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(end + 1).freeze();
                return Some((Ok(line), (body, rest)));
            }
            match body.next().await? {
                Ok(data) => rest.extend_from_slice(&data),
                Err(error) => return Some((Err(error.into()), (body, rest))),
            }
        }
    })
}

/// Hides some events, and has everything listed anew: after the last of them, or when no more come.
fn missed(events: Events, seen: usize, hidden: usize) -> Events {
    let counts = (events, seen, hidden);
    let shown = stream::unfold(counts, |(mut events, seen, mut hidden)| async move {
        if seen > 0 {
            let event = events.next().await?;
            return Some((event, (events, seen - 1, hidden)));
        }
        let _ = events.next().await?;
        hidden -= 1;
        while hidden > 0 && matches!(tokio::time::timeout(UNSEEN, events.next()).await, Ok(Some(_))) {
            hidden -= 1;
        }
        None
    });
    shown.chain(gone()).boxed()
}

/// Holds every event back for a while.
fn late(events: Events, seed: Seed) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    stream::unfold((events, seed), |(mut events, mut seed)| async move {
        let event = events.next().await?;
        tokio::time::sleep(pause(&mut seed)).await;
        Some((event, (events, seed)))
    })
}

fn pause(seed: &mut Seed) -> Duration {
    Duration::from_millis(u64::try_from(seed.below(LATE_MAX_MS)).unwrap_or(0))
}

/// Holds events back, those of each object for a time of their own.
fn shuffled(events: Events, seed: Seed) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let held: VecDeque<(Instant, Result<Bytes, BoxError>)> = VecDeque::new();
    let due: HashMap<String, Instant> = HashMap::new();
    stream::unfold(
        (events, seed, held, due, false),
        |(mut events, mut seed, mut held, mut due, mut ended)| async move {
            loop {
                let first = held.front().map(|(at, _)| *at);
                let event = match first {
                    None if ended => return None,
                    None => events.next().await,
                    Some(at) if ended => {
                        tokio::time::sleep_until(at).await;
                        let (_, event) = held.pop_front()?;
                        return Some((event, (events, seed, held, due, ended)));
                    }
                    Some(at) => match tokio::time::timeout_at(at, events.next()).await {
                        Ok(event) => event,
                        Err(_) => {
                            let (_, event) = held.pop_front()?;
                            return Some((event, (events, seed, held, due, ended)));
                        }
                    },
                };
                let Some(event) = event else {
                    ended = true;
                    continue;
                };
                let object = event.as_ref().ok().and_then(|event| object(event));
                let wanted = Instant::now() + pause(&mut seed);
                // What is about no object, a bookmark for instance, speaks of everything before it.
                let after = match &object {
                    Some(object) => due.get(object).copied(),
                    None => held.back().map(|(at, _)| *at),
                };
                let at = after.map_or(wanted, |after| after.max(wanted));
                if let Some(object) = object {
                    due.insert(object, at);
                }
                let place = held.partition_point(|(other, _)| *other <= at);
                held.insert(place, (at, event));
            }
        },
    )
}

/// Returns which object an event is about.
fn object(event: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(event).ok()?;
    if event["type"] == "BOOKMARK" {
        return None;
    }
    let metadata = &event["object"]["metadata"];
    Some(format!("{}/{}", metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str()?))
}
