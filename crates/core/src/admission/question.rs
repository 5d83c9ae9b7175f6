//! What a ruling must know, and the answers to it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use kube_core::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Halt, Ruling, Snapshot};
use crate::object::{Kind, ObjectKey};
use crate::work::is_subdomain;

/// Something that a ruling must know. None of them changes anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// An object; answered by [`Answer::Object`].
    Get {
        /// Resource.
        kind: Kind,
        /// Which one; its parts are names that an object can have.
        key: ObjectKey,
    },
    /// The objects of a kind that carry all of these labels; answered by [`Answer::Objects`].
    List {
        /// Resource.
        kind: Kind,
        /// Labels.
        labels: BTreeMap<String, String>,
    },
    /// What the API server makes of a creation that is thrown away; answered by [`Answer::Object`].
    Create {
        /// Resource.
        kind: Kind,
        /// The object; its namespace may be any text.
        object: Value,
    },
    /// What the API server makes of an update that is thrown away; answered by [`Answer::Object`].
    Update {
        /// Resource.
        kind: Kind,
        /// The object, which has been got before.
        object: Value,
    },
    /// A document of the web; answered by [`Answer::Document`].
    Download(Download),
}

/// A document to fetch.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Download {
    /// URL as the user wrote it.
    pub url: String,
    /// Value of the header `Authorization`.
    pub authorization: Option<String>,
    /// PEM certificates to trust instead of those of the machine.
    pub ca_pem: Option<Vec<u8>>,
}

/// The header is a credential and is not shown.
impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The object, as it is or as it would be stored.
    Object(Value),
    /// The objects, in any order.
    Objects(Vec<Value>),
    /// What a server sent.
    Document {
        /// HTTP code after redirects.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
    /// The API server refuses, or has no such object (code 404).
    Refused(Refusal),
    /// A document could not be had.
    Unreachable {
        /// Why.
        message: String,
        /// Whether it may be had later without anybody changing the request.
        is_passing: bool,
    },
}

/// An error of the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusal {
    /// HTTP code.
    pub code: u16,
    /// Reason of the Status.
    pub reason: String,
    /// Message of the Status.
    pub message: String,
    /// `details` of the Status.
    pub details: Value,
}

impl Refusal {
    /// Tells whether the object asked for does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Tells whether an object of that name exists already.
    pub(super) fn is_already_there(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    fn not_found() -> Self {
        Self { code: 404, reason: "NotFound".into(), ..Self::default() }
    }

    fn other(message: String) -> Self {
        Self { code: 500, reason: "InternalError".into(), message, details: Value::Null }
    }
}

/// All answers to one write so far.
#[derive(Clone, Debug, Default)]
pub struct Answers(HashMap<Question, Answer>); // never walked, so its order is nobody's business

impl Answers {
    /// Adds an answer.
    pub fn insert(&mut self, question: Question, answer: Answer) {
        self.0.insert(question, answer);
    }
}

impl Snapshot {
    /// Makes sure that all of these are answered; what is not is asked for at once.
    pub(super) fn know(&self, questions: impl IntoIterator<Item = Question>) -> Ruling<()> {
        let mut unknown: Vec<Question> = Vec::new();
        for question in questions {
            if !self.answers.0.contains_key(&question) && !unknown.contains(&question) {
                unknown.push(question);
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(Halt::Open(unknown)) }
    }

    /// Returns the answer to a question.
    pub(super) fn ask(&self, question: Question) -> Ruling<&Answer> {
        match self.answers.0.get(&question) {
            Some(answer) => Ok(answer),
            None => Err(Halt::Open(vec![question])),
        }
    }

    /// Returns an object as a value, or why it cannot be had.
    pub(super) fn object(&self, question: Question) -> Ruling<Result<&Value, Refusal>> {
        Ok(match self.ask(question)? {
            Answer::Object(object) => Ok(object),
            Answer::Refused(refusal) => Err(refusal.clone()),
            other => Err(Refusal::other(format!("the API server gave no object: {other:?}"))),
        })
    }

    /// Returns an object that exists, or the refusal that tells why it cannot be had.
    pub(super) fn get<K>(&self, key: ObjectKey) -> Ruling<Result<K, Refusal>>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let Some(question) = existing::<K>(key) else { return Ok(Err(Refusal::not_found())) };
        Ok(self.object(question)?.and_then(read))
    }

    /// Returns the objects that carry these labels, or the refusal that tells why they cannot be had. One that cannot be
    /// read is left out: it must not stand in the way of the others.
    pub(super) fn list<K>(&self, labels: BTreeMap<String, String>) -> Ruling<Result<Vec<K>, Refusal>>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        Ok(match self.ask(list::<K>(labels))? {
            Answer::Objects(objects) => Ok(objects.iter().filter_map(|object| read(object).ok()).collect()),
            Answer::Refused(refusal) => Err(refusal.clone()),
            other => Err(Refusal::other(format!("the API server gave no list: {other:?}"))),
        })
    }
}

fn read<K: DeserializeOwned>(object: &Value) -> Result<K, Refusal> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or("object");
    K::deserialize(object).map_err(|error| Refusal::other(format!("{kind} {name:?} cannot be read: {error}")))
}

/// Returns the question for an object, unless no object can have that name.
pub(super) fn existing<K: Resource<DynamicType = ()>>(key: ObjectKey) -> Option<Question> {
    let is_name = is_subdomain(&key.name) && key.namespace.as_deref().is_none_or(is_subdomain);
    is_name.then(|| Question::Get { kind: Kind::of::<K>(), key })
}

/// Returns the question for the objects that carry these labels.
pub(super) fn list<K: Resource<DynamicType = ()>>(labels: BTreeMap<String, String>) -> Question {
    Question::List { kind: Kind::of::<K>(), labels }
}
