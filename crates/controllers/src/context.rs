//! What every controller reaches: the caches it observes, the API it acts on.

use std::sync::Arc;

use kratix_api::ObjectMeta;
use kratix_core::config::Config;
use kratix_core::object::{Kind, ObjectKey};
use kratix_core::plan::Plan;
use kratix_core::trace::Subject;
use kratix_core::workflow::Settings;
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::act::{self, Acted};
use crate::caches::Caches;
use crate::error::Error;
use crate::events::Events;
use crate::options::Options;
use crate::superseded::Superseded;
use crate::telemetry::{self, Pass, Telemetry};

/// Shared by all controllers of the process.
pub(crate) struct Context {
    /// The platform cluster.
    pub(crate) platform: Client,
    /// Its watched objects.
    pub(crate) caches: Caches,
    /// Where events go.
    pub(crate) events: Events,
    /// The platform configuration as last read.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// How the process was started.
    pub(crate) options: Options,
    /// Traces and metrics.
    pub(crate) telemetry: Telemetry,
    /// What the caches must not be believed to show.
    pub(crate) superseded: Superseded,
}

impl Context {
    /// Begins a pass over an object, inside a span if tracing is on.
    pub(crate) fn begin(&self, metadata: &ObjectMeta, subject: impl FnOnce() -> Subject) -> Pass {
        self.telemetry.begin(metadata, self.now(), subject)
    }

    /// Executes a plan.
    pub(crate) async fn act<F>(&self, plan: &Plan<F>) -> Result<(), Error> {
        self.execute(plan).await.outcome
    }

    /// Executes a plan of a pass that goes on, and brings the object that the pass is about up to date: what is decided next
    /// is decided about what was written, not about what the cache has shown before.
    pub(crate) async fn act_on<K, F>(&self, plan: &Plan<F>, object: &mut Arc<K>) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let mut acted = self.execute(plan).await;
        if let Some(altered) = acted.altered.remove(&(Kind::of::<K>(), ObjectKey::of(&**object)))
            && let Ok(altered) = altered.try_parse()
        {
            *object = Arc::new(altered);
        }
        acted.outcome
    }

    /// Executes a plan and tells what was made, also when a later write failed.
    pub(crate) async fn execute<F>(&self, plan: &Plan<F>) -> Acted {
        let mut acted = act::act(&telemetry::client(&self.platform), &self.caches, &self.events, plan).await;
        self.superseded.note(std::mem::take(&mut acted.replaced));
        acted
    }

    /// Makes visible that the API server has refused a write, and returns it as [`Error::Told`]. What goes away by itself is no
    /// refusal, and what the object cannot tell now is left to whoever reports failed passes.
    pub(crate) async fn tell_refusal<F>(
        &self,
        error: Error,
        tell: impl FnOnce(&str) -> Option<Plan<F>> + Send,
    ) -> Error {
        let Some(plan) = error.is_refusal().then(|| tell(&error.to_string())).flatten() else { return error };
        let told = self.act(&plan).await;
        tracing::debug!(%error, told = told.is_ok(), "the object says what was refused");
        Error::Told(Box::new(error))
    }

    /// Returns the platform configuration as last read.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Returns the settings of Jobs as they are now.
    pub(crate) fn settings(&self) -> Settings {
        let Options { adapter_image, adapter_pull_secret, .. } = &self.options;
        Settings::new(adapter_image, adapter_pull_secret.as_deref(), self.config())
    }

    /// Calls `observer` whenever the interval has changed at which what is in the stores is written again.
    pub(crate) fn on_interval_change(self: &Arc<Self>, observer: impl Fn() + Send + Sync + 'static) {
        self.on_setting_change(|config| config.state_store_reconciliation_interval, observer);
    }

    /// Calls `observer` whenever a part of the configuration has changed.
    pub(crate) fn on_setting_change<T: Copy + PartialEq + Send + 'static>(
        self: &Arc<Self>,
        part: fn(&Config) -> T,
        observer: impl Fn() + Send + Sync + 'static,
    ) {
        let known = Mutex::new(part(&self.config()));
        let context = Arc::downgrade(self);
        self.caches.config.on_change(move |_, _| {
            let Some(context) = context.upgrade() else { return };
            let now = part(&context.config());
            if std::mem::replace(&mut *known.lock(), now) != now {
                observer();
            }
        });
    }

    /// Returns the time, the only one a snapshot carries.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.options.clock.now()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use embedded_apiserver::{Server, User};
    use kratix_core::plan::Write;
    use serde_json::json;
    use tokio::task::JoinSet;

    use super::*;
    use crate::events;

    /// A context whose caches are fed for as long as `tasks` lives.
    pub(crate) fn context(platform: Client, tasks: &mut JoinSet<()>) -> Context {
        let caches = Caches::start(&platform, tasks);
        let (events, _publisher) = events::channel(platform.clone(), "host");
        let (_sender, config) = watch::channel(Arc::default());
        let options = Options {
            adapter_image: String::new(),
            adapter_pull_secret: None,
            cache_dir: std::path::PathBuf::new(),
            git: kratix_core::config::GitEnvironment::default(),
            host: "host".into(),
            clock: crate::Clock::default(),
        };
        Context {
            platform,
            caches,
            events,
            config,
            options,
            telemetry: Telemetry::default(),
            superseded: Superseded::default(),
        }
    }

    #[tokio::test]
    async fn only_what_the_api_server_has_refused_is_told_as_refused() {
        let server = Server::builder().build().await.unwrap();
        let platform = Client::new(server.service(User::admin("test")), "default");
        let mut tasks = JoinSet::new();
        let cx = context(platform, &mut tasks);
        let job = Write::create(Kind::new("batch", "v1", "Job", "jobs"), json!({ "metadata": { "name": "a" } }));
        for (code, is_told) in [(403, true), (409, false), (503, false)] {
            let status = kube::core::Status::failure("m", "r").with_code(code);
            let error = Error::write(&job, kube::Error::Api(status.boxed()));
            let mut asked = false;
            let error = cx.tell_refusal(error, |_| {
                asked = true;
                Some(Plan::<()>::silent())
            });
            assert_eq!(matches!(error.await, Error::Told(_)), is_told, "{code}");
            assert_eq!(asked, is_told, "{code}");
        }
        let status = kube::core::Status::failure("m", "r").with_code(403);
        let error = Error::write(&job, kube::Error::Api(status.boxed()));
        let error = cx.tell_refusal(error, |_| None::<Plan<()>>).await;
        assert!(!matches!(error, Error::Told(_)), "what the object cannot tell is told by others");
        drop(tasks);
        server.shutdown().await;
    }
}
