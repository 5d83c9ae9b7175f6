//! Admission in a small world: objects that exist, and what the API server has against what is tried.

mod golden;
mod others;
mod promise;
mod release;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::object::Kind;

/// What answers questions.
#[derive(Default)]
struct World {
    objects: Vec<Value>,
    /// What the API server says to the creation of a kind.
    refused_creations: BTreeMap<String, Refusal>,
    /// What the API server says to the update of a kind.
    refused_updates: BTreeMap<String, Refusal>,
    downloads: BTreeMap<String, Answer>,
    /// Everything that was asked, in order.
    asked: Vec<Question>,
}

fn settings() -> Settings {
    Settings { adapter_image: "adapter:1".into(), adapter_pull_secret: None, config: Arc::new(Config::default()) }
}

fn refusal(code: u16, message: &str) -> Refusal {
    let reason = match code {
        404 => "NotFound",
        409 => "AlreadyExists",
        _ => "Invalid",
    };
    Refusal { code, reason: reason.into(), message: message.into(), details: Value::Null }
}

impl World {
    fn of(objects: impl IntoIterator<Item = Value>) -> Self {
        Self { objects: objects.into_iter().collect(), ..Self::default() }
    }

    fn with(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// The API server refuses to create anything of a kind.
    fn refusing(mut self, kind: &str, refusal: Refusal) -> Self {
        self.refused_creations.insert(kind.into(), refusal);
        self
    }

    /// The API server refuses to update anything of a kind.
    fn refusing_updates(mut self, kind: &str, refusal: Refusal) -> Self {
        self.refused_updates.insert(kind.into(), refusal);
        self
    }

    fn serving(mut self, url: &str, answer: Answer) -> Self {
        self.downloads.insert(url.into(), answer);
        self
    }

    fn is_of(kind: &Kind, object: &Value) -> bool {
        object["kind"] == kind.kind.as_str() && object["apiVersion"] == kind.api_version()
    }

    fn answer(&self, question: &Question) -> Answer {
        let find = |kind: &Kind, name: &Value, namespace: &Value| {
            let is_it = |object: &&Value| {
                let metadata = &object["metadata"];
                Self::is_of(kind, object) && metadata["name"] == *name && metadata["namespace"] == *namespace
            };
            self.objects.iter().find(is_it)
        };
        let tried = |refusal: Option<&Refusal>, object: &Value| match refusal {
            Some(refusal) => Answer::Refused(refusal.clone()),
            None => Answer::Object(object.clone()),
        };
        match question {
            Question::Get { kind, key } => {
                let namespace = key.namespace.as_deref().map_or(Value::Null, Value::from);
                match find(kind, &json!(key.name), &namespace) {
                    Some(object) => Answer::Object(object.clone()),
                    None => Answer::Refused(refusal(404, &format!("{} {:?} not found", kind.plural, key.name))),
                }
            }
            Question::List { kind, labels } => {
                let carries = |object: &Value| {
                    labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == value.as_str())
                };
                let found = self.objects.iter().filter(|object| Self::is_of(kind, object) && carries(object));
                Answer::Objects(found.cloned().collect())
            }
            Question::Create { kind, object } => {
                let present = find(kind, &object["metadata"]["name"], &object["metadata"]["namespace"]);
                let exists = present.map(|_| refusal(409, "it already exists"));
                tried(self.refused_creations.get(&kind.kind).or(exists.as_ref()), object)
            }
            Question::Update { kind, object } => tried(self.refused_updates.get(&kind.kind), object),
            Question::Download(download) => self
                .downloads
                .get(&download.url)
                .cloned()
                .unwrap_or(Answer::Unreachable { message: "connection refused".into(), is_passing: true }),
        }
    }

    /// Asks until there is a verdict.
    fn rule(&mut self, review: Review) -> Verdict {
        let mut snapshot = Snapshot { review, answers: Answers::default(), settings: settings() };
        for _ in 0..ROUNDS_MAX {
            match decide(&snapshot) {
                Verdict::Open(questions) => {
                    assert!(!questions.is_empty());
                    for question in questions {
                        assert!(!self.asked.contains(&question), "asked twice: {question:?}");
                        snapshot.answers.insert(question.clone(), self.answer(&question));
                        self.asked.push(question);
                    }
                }
                verdict => {
                    assert_eq!(decide(&snapshot), verdict, "the same snapshot gives the same verdict");
                    return verdict;
                }
            }
        }
        panic!("more than {ROUNDS_MAX} rounds: {:#?}", self.asked);
    }

    fn create(&mut self, object: Value) -> Verdict {
        self.rule(review(Operation::Create, object, Value::Null))
    }

    fn update(&mut self, old: Value, object: Value) -> Verdict {
        self.rule(review(Operation::Update, object, old))
    }

    /// Returns the message of a denial with code 403.
    fn denial(&mut self, object: Value) -> String {
        denied(self.create(object))
    }

    /// Returns the warnings of a creation that is let through.
    fn warnings(&mut self, object: Value) -> Vec<String> {
        allowed(self.create(object))
    }
}

fn review(operation: Operation, object: Value, old: Value) -> Review {
    let shown = if object.is_null() { &old } else { &object };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Review {
        operation,
        kind: text(&shown["kind"]),
        name: text(&shown["metadata"]["name"]),
        object,
        old,
        user: "jane".into(),
    }
}

fn allowed(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Allowed(allowed) => allowed.warnings,
        other => panic!("not allowed: {other:#?}"),
    }
}

fn denied(verdict: Verdict) -> String {
    match verdict {
        Verdict::Denied(denial) => {
            assert_eq!((denial.code, denial.reason.as_str(), &denial.details), (403, "Forbidden", &Value::Null));
            denial.message
        }
        other => panic!("not denied: {other:#?}"),
    }
}

/// An object of Kratix's API group.
fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "platform.kratix.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Returns the value with a member set; the pointer's parents are made.
fn with(mut value: Value, path: &[&str], member: Value) -> Value {
    let mut place = &mut value;
    for key in path {
        place = &mut place[*key];
    }
    *place = member;
    value
}
