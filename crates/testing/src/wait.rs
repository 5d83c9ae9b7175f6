//! Waiting for conditions, with a deadline, by watching.

use std::fmt::Debug;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// How long a test waits for anything. Far longer than anything takes, so that only a defect reaches it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until an object of this name satisfies `is`, and returns it.
///
/// # Panics
/// After [`DEADLINE`], with the last state seen.
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    any(api, watcher::Config::default().fields(&format!("metadata.name={name}")), what, is).await
}

/// Waits until some object that the configuration selects satisfies `is`, and returns it.
///
/// # Panics
/// After [`DEADLINE`], with the last state seen.
pub async fn any<K>(api: &Api<K>, config: watcher::Config, what: &str, is: impl Fn(&K) -> bool) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut last = None;
    let search = async {
        let mut objects = watcher(api.clone(), config).default_backoff().applied_objects().boxed();
        loop {
            // An error means that the kind is not served yet, or a dropped connection: the watch tries again.
            if let Ok(Some(object)) = objects.try_next().await {
                if is(&object) {
                    return object;
                }
                last = Some(object);
            }
        }
    };
    match tokio::time::timeout(DEADLINE, search).await {
        Ok(object) => object,
        Err(_) => panic!("waited {} s for {what}; last seen: {last:#?}", DEADLINE.as_secs()),
    }
}

/// Waits until no object of this name exists.
///
/// # Panics
/// After [`DEADLINE`], with the last state seen.
pub async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let search = async {
        let mut events = watcher(api.clone(), config).default_backoff().boxed();
        let mut listed = 0;
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => listed = 0,
                Ok(Some(watcher::Event::InitApply(_))) => listed += 1,
                Ok(Some(watcher::Event::InitDone)) if listed == 0 => return,
                Ok(Some(watcher::Event::Delete(_))) => return,
                // A kind that is gone altogether has no objects either.
                Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => return,
                _ => {}
            }
        }
    };
    if tokio::time::timeout(DEADLINE, search).await.is_err() {
        let last = api.get_opt(name).await;
        panic!("waited {} s for {name} to go; last seen: {last:#?}", DEADLINE.as_secs());
    }
}

/// Polls `is` until it returns true: for what no watch tells, such as files.
///
/// # Panics
/// After [`DEADLINE`], with what `state` says then.
pub async fn poll<F: Future<Output = Result<(), String>>>(what: &str, mut is: impl FnMut() -> F) {
    let started = tokio::time::Instant::now();
    loop {
        match is().await {
            Ok(()) => return,
            Err(state) if started.elapsed() > DEADLINE => {
                panic!("waited {} s for {what}; last seen: {state}", DEADLINE.as_secs())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
