//! What an injector does to calls, with a service that only counts.

use futures::FutureExt;

use super::super::fault::Disturbance;
use super::*;

/// A service that does what it is asked for, and what it was asked.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    /// Returns a client of a program under a fault.
    fn client(&self, injector: &Injector, life: &Life) -> Client {
        let asked = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            asked.lock().push(format!("{} {}", request.method(), request.uri()));
            let answer = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
            std::future::ready(Ok::<_, io::Error>(Response::new(Full::new(Bytes::from(answer.to_string())))))
        });
        injector.client(service, life)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

fn injector(fault: Fault) -> Injector {
    Injector::new(fault, Whose::Manager, &Seed::new(1), || 100)
}

fn nth(blow: Blow, number: usize) -> Fault {
    Fault::Call { whose: Whose::Manager, blow, number }
}

async fn send(client: &Client, method: &str, path: &str) -> Result<Response<Body>, kube::Error> {
    let request = Request::builder().method(method).uri(path).body(Body::from(b"{}".to_vec())).unwrap();
    client.send(request).await
}

async fn code(client: &Client, method: &str, path: &str) -> u16 {
    send(client, method, path).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_changes_something_is_counted_and_neither_reads_nor_events_are() {
    let (asked, injector) = (Asked::default(), injector(Fault::Nothing));
    let client = asked.client(&injector, &Life::default());
    for (method, path) in [("GET", "/a"), ("POST", "/a"), ("POST", "/api/v1/events"), ("DELETE", "/a/b")] {
        assert_eq!(code(&client, method, path).await, 200);
    }
    assert_eq!(asked.take().len(), 4);
    let calls: Vec<String> = injector.calls().iter().map(ToString::to_string).collect();
    assert_eq!(calls, ["   1 POST /a/ 200", "   0 POST /api/v1/events/ 200", "   2 DELETE /a/b 200"]);
    assert_eq!((injector.counted(), injector.hit().is_none()), (2, true));
}

#[tokio::test]
async fn a_program_ends_before_the_call_that_is_not_made_or_after_the_one_that_is() {
    for (blow, made) in [(Blow::CrashBefore, 1), (Blow::CrashAfter, 2)] {
        let (asked, injector, life) = (Asked::default(), injector(nth(blow, 2)), Life::default());
        let client = asked.client(&injector, &life);
        assert_eq!(code(&client, "POST", "/first").await, 200);
        assert!(!life.is_over());
        let second = send(&client, "POST", "/second");
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("{blow:?}: a program that has ended was answered"),
            () = life.ended() => {}
        }
        let others = [send(&client, "POST", "/third").now_or_never(), send(&client, "GET", "/a").now_or_never()];
        assert!(second.now_or_never().is_none() && others.iter().all(Option::is_none), "{blow:?}");
        assert_eq!(asked.take().len(), made, "{blow:?}");
        let hit = injector.hit().unwrap();
        assert_eq!((hit.number, hit.path.as_str(), hit.succeeded()), (2, "/second", made == 2));
        // The next program is not hit: calls are counted over all of them.
        let client = asked.client(&injector, &Life::default());
        assert_eq!(code(&client, "POST", "/second").await, 200);
    }
}

#[tokio::test]
async fn a_refused_call_is_not_made_and_says_when_to_come_back() {
    for (blow, expected) in [(Blow::Conflict, 409), (Blow::TooMany, 429), (Blow::Internal, 500)] {
        let (asked, injector) = (Asked::default(), injector(nth(blow, 1)));
        let client = asked.client(&injector, &Life::default());
        let answer = send(&client, "PATCH", "/a").await.unwrap();
        assert_eq!(answer.status().as_u16(), expected);
        assert_eq!(answer.headers().contains_key("retry-after"), blow == Blow::TooMany);
        assert!(asked.take().is_empty());
        assert_eq!(code(&client, "PATCH", "/a").await, 200, "{blow:?}: only the first");
    }
}

#[tokio::test]
async fn a_lost_reply_is_one_to_a_call_that_was_made() {
    let (asked, injector) = (Asked::default(), injector(nth(Blow::Lost, 1)));
    let client = asked.client(&injector, &Life::default());
    assert!(send(&client, "PUT", "/a").await.is_err());
    assert_eq!(asked.take(), ["PUT /a"]);
    assert!(injector.hit().unwrap().succeeded());
}

#[tokio::test]
async fn every_call_is_hit_the_first_time_and_only_those_of_the_program_that_is_meant() {
    let fault = Fault::Each { whose: Whose::Manager, blow: Blow::Conflict };
    let (asked, manager) = (Asked::default(), injector(fault));
    let client = asked.client(&manager, &Life::default());
    for expected in [409, 200] {
        assert_eq!(code(&client, "PATCH", "/a").await, expected);
        assert_eq!(code(&client, "DELETE", "/a").await, expected);
    }
    let pods = Injector::new(fault, Whose::Pods, &Seed::new(1), || 0);
    assert_eq!(code(&asked.client(&pods, &Life::default()), "PATCH", "/a").await, 200);
}

#[tokio::test]
async fn first_lists_alone_are_from_the_past_and_only_of_a_program_that_is_shown_it() {
    let (asked, injector) = (Asked::default(), injector(Fault::Past(1)));
    let client = asked.client(&injector, &Life::default());
    code(&client, "GET", "/a?limit=500").await;
    assert_eq!(asked.take(), ["GET /a?limit=500"]);
    let client = asked.client(&injector, &Life::in_the_past());
    for path in ["/a?limit=500", "/a?limit=500", "/b?watch=true", "/b?limit=500"] {
        code(&client, "GET", path).await;
    }
    let seen = asked.take();
    let version =
        |uri: &str| uri.split_once("&resourceVersion=").and_then(|(_, rest)| rest.split('&').next()?.parse().ok());
    let versions: Vec<Option<usize>> = seen.iter().map(|uri| version(uri)).collect();
    assert!(versions[0].is_some_and(|version| (100 - PAST_MAX..=100).contains(&version)), "{seen:?}");
    assert_eq!((versions[1], versions[2]), (None, None));
    assert!(versions[3].is_some() && seen[3].ends_with("resourceVersionMatch=Exact"), "{seen:?}");
}

#[tokio::test]
async fn watches_of_the_manager_are_disturbed_and_those_of_pods_are_not() {
    for whose in [Whose::Manager, Whose::Pods] {
        let service = tower::service_fn(move |_: Request<Body>| {
            let events =
                (0..100).map(|number| format!("{{\"type\":\"ADDED\",\"object\":{number}}}\n")).collect::<String>();
            std::future::ready(Ok::<_, io::Error>(Response::new(Full::new(Bytes::from(events)))))
        });
        let injector = Injector::new(Fault::Watch(Disturbance::Cut), whose, &Seed::new(1), || 0);
        let client = injector.client(service, &Life::default());
        let body = send(&client, "GET", "/a?watch=true").await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let events = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(events < 100, whose == Whose::Manager, "{events} events");
    }
}
