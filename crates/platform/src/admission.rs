//! The rules of `kratix-core` as the admission of the platform's API server: asked in process, no webhook, no certificate.
//!
//! Here is only what they need to be asked: who wants what, and the answers to their questions.
//!
//! # Source
//! `01-api.md` §7.1, §7.2

mod api;
mod download;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use embedded_apiserver::{Admission, AdmissionRequest, Admitted, Denial, Operation};
use futures::{StreamExt, stream};
use kratix_api::keys;
use kratix_core::admission::{self, Answer, Answers, Question, ROUNDS_MAX, Review, Snapshot, Verdict};
use kratix_core::config::Config;
use kratix_core::workflow::Settings;
use kube::Client;
use parking_lot::RwLock;

/// How long a write may take to be ruled on: what an API server grants a webhook.
const DEADLINE: Duration = Duration::from_secs(10);
/// Questions that are answered at the same time for one write. The others wait.
const QUESTIONS_AT_ONCE: usize = 8;

/// Rules on every write of Kratix's objects.
pub struct Rules {
    /// A client of the very server that asks; known once the server is built.
    api: RwLock<Option<Client>>,
    settings: Settings,
}

impl Rules {
    /// Returns the rules with the image of Kratix's own containers in the Jobs that are tried.
    pub fn new(adapter_image: &str) -> Self {
        let config = Arc::new(Config::default());
        let settings = Settings::new(adapter_image, kratix_controllers::pull_secret().as_deref(), config);
        Self { api: RwLock::default(), settings }
    }

    /// Connects the server that asks. Until then nothing of Kratix can be written.
    pub fn connect(&self, api: Client) {
        *self.api.write() = Some(api);
    }

    /// Lets go of the server, which would keep itself alive otherwise.
    pub fn disconnect(&self) {
        *self.api.write() = None;
    }

    async fn rule(&self, api: &Client, review: Review) -> Result<Verdict, Denial> {
        let mut snapshot = Snapshot { review, answers: Answers::default(), settings: self.settings.clone() };
        for _ in 0..ROUNDS_MAX {
            match admission::decide(&snapshot) {
                Verdict::Open(questions) => {
                    let answers = stream::iter(questions).map(|question| async {
                        let answer = answer(api, &question).await;
                        (question, answer)
                    });
                    let answers: Vec<_> = answers.buffer_unordered(QUESTIONS_AT_ONCE).collect().await;
                    for (question, answer) in answers {
                        snapshot.answers.insert(question, answer);
                    }
                }
                verdict => return Ok(verdict),
            }
        }
        Err(trouble(500, format!("ruling on {} takes more than {ROUNDS_MAX} rounds", named(&snapshot.review))))
    }
}

async fn answer(api: &Client, question: &Question) -> Answer {
    let answer = match question {
        Question::Download(document) => download::fetch(document).await,
        question => api::answer(api, question).await,
    };
    if let Answer::Refused(refusal) = &answer
        && refusal.code >= 500
    {
        tracing::warn!(error = refusal.message, "admission could not look something up");
    }
    answer
}

#[async_trait]
impl Admission for Rules {
    /// Rules on writes of [`keys::GROUP`], the only ones that it [`concerns`](Admission::concerns).
    async fn admit(&self, request: AdmissionRequest) -> Result<Admitted, Denial> {
        let AdmissionRequest { operation, kind, name, object, old_object, user, .. } = request;
        let operation = match operation {
            Operation::Create => admission::Operation::Create,
            Operation::Update => admission::Operation::Update,
            Operation::Delete => admission::Operation::Delete,
        };
        let review = Review { operation, kind, name, object: object.clone(), old: old_object, user: user.name };
        let Some(api) = self.api.read().clone() else {
            return Err(trouble(503, format!("{} cannot be ruled on: the platform is starting", named(&review))));
        };
        let name = named(&review);
        let verdict = tokio::time::timeout(DEADLINE, self.rule(&api, review)).await.map_err(|_| {
            trouble(504, format!("ruling on {name} took more than {} s, try again", DEADLINE.as_secs()))
        })?;
        match verdict? {
            Verdict::Allowed(allowed) => {
                Ok(Admitted { object: allowed.object.unwrap_or(object), warnings: allowed.warnings })
            }
            Verdict::Denied(denial) => Err(Denial {
                webhook: Some(denial.webhook.to_owned()),
                code: denial.code,
                reason: denial.reason,
                message: denial.message,
                details: denial.details,
            }),
            Verdict::Open(_) => Err(trouble(500, format!("{name} was not ruled on"))),
        }
    }

    fn concerns(&self, group: &str) -> bool {
        group == keys::GROUP
    }
}

fn named(review: &Review) -> String {
    format!("{} {:?}", review.kind, review.name)
}

/// A refusal that is nobody's rule.
fn trouble(code: u16, message: String) -> Denial {
    let reason = match code {
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    Denial { webhook: None, code, reason: reason.into(), message, details: serde_json::Value::Null }
}
