//! What every request needs at hand, and what describes one request.

use std::sync::Arc;

use bytes::Bytes;
use embedded_apimachinery::apply::Writer;
use embedded_apimachinery::decode::FieldValidation;
use embedded_apimachinery::{Qualified, Status, crd, depth, object};
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admission::{self, Admission, AdmissionRequest, Operation};
use crate::auth::{Roles, Tokens};
use crate::catalog::{Catalog, Served};
use crate::chores::Chores;
use crate::counters::{Counters, Exposition, WriteKind};
use crate::events;
use crate::failure::Failure;
use crate::logs::PodLogs;
use crate::request::Query;
use crate::server::bodies::Bodies;
use crate::store::{Draft, ObjectName, Record, Store, WriteError};
use crate::user::User;

/// Largest encoded object: etcd's request limit.
pub(crate) const OBJECT_BYTES_MAX: usize = 1_572_864;

/// Table of the namespaces.
pub(crate) const NAMESPACES: &str = "/namespaces";
/// Table of the CRDs.
pub(crate) const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// The server without its listeners.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) catalog: Catalog,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) logs: Arc<dyn PodLogs>,
    pub(crate) counters: Counters,
    /// More to tell beside the counters.
    pub(crate) expositions: Vec<Arc<dyn Exposition>>,
    pub(crate) roles: Roles,
    pub(crate) tokens: Tokens,
    pub(crate) chores: Chores,
    /// PEM of the authority that signs the server's certificate; published in every namespace.
    pub(crate) ca_pem: String,
    /// Host and port as discovery tells them.
    pub(crate) address: parking_lot::RwLock<String>,
    /// Writes of CRDs are one at a time, so that the catalog follows them in order.
    pub(crate) crd_writes: tokio::sync::Mutex<()>,
    /// Memory for the bodies of requests.
    pub(crate) bodies: Bodies,
    /// What time requests are made at.
    pub(crate) clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where uids and the ends of generated names come from.
    pub(crate) draws: Arc<dyn Fn() -> u128 + Send + Sync>,
    pub(crate) shutdown: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("revision", &self.store.revision()).finish_non_exhaustive()
    }
}

/// One request for one resource.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) user: User,
    pub(crate) served: Arc<Served>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) query: Query,
    /// Name under which written fields are owned.
    pub(crate) manager: String,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// Collected on the way, sent as headers.
    pub(crate) warnings: Vec<String>,
    pub(crate) now: Timestamp,
}

impl Call {
    /// Returns a request that the server makes of itself.
    pub(crate) fn internal(user: &str, served: Arc<Served>, name: &ObjectName, now: Timestamp) -> Self {
        Self {
            user: User::admin(user),
            served,
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            subresource: String::new(),
            query: Query::default(),
            manager: "kube-controller-manager".to_owned(),
            dry_run: false,
            validation: FieldValidation::Ignore,
            warnings: Vec::new(),
            now,
        }
    }

    pub(crate) fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace.as_str(), self.name.as_str())
    }

    pub(crate) fn qualified(&self) -> Qualified<'_> {
        self.served.qualified()
    }

    pub(crate) fn not_found(&self) -> Failure {
        Status::not_found(self.qualified(), &self.name).into()
    }

    pub(crate) fn writer<'a>(&'a self, api_version: &'a str) -> Writer<'a> {
        Writer { manager: &self.manager, api_version, subresource: &self.subresource, now: self.now }
    }

    pub(crate) fn is_crd(&self) -> bool {
        is_crd(&self.served)
    }
}

pub(crate) fn is_crd(served: &Served) -> bool {
    served.group == "apiextensions.k8s.io" && served.plural == "customresourcedefinitions"
}

pub(crate) fn is_namespace(served: &Served) -> bool {
    served.group.is_empty() && served.plural == "namespaces"
}

/// What a request for one object came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// An object of the store.
    Stored { code: u16, record: Arc<Record> },
    /// Anything else: the result of a dry run, a review, a Status.
    Value { code: u16, value: Value },
}

impl Core {
    /// Returns what time it is.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Draws an identity.
    pub(crate) fn draw(&self) -> Uuid {
        uuid::Builder::from_random_bytes((self.draws)().to_be_bytes()).into_uuid()
    }

    /// Returns a stored object in the version of `served`, as the schema of now sees it.
    pub(crate) fn read(&self, served: &Served, record: &Record) -> Value {
        self.seen(served, record, record.value())
    }

    /// Returns the same as the base of a change: what cannot be read must not be overwritten either.
    pub(crate) fn read_to_change(&self, served: &Served, record: &Record) -> Result<Value, Failure> {
        let value = record.parse().map_err(|error| {
            Status::internal(format!("the stored object cannot be decoded ({error}), delete it: {}", record.name()))
        })?;
        Ok(self.seen(served, record, value))
    }

    fn seen(&self, served: &Served, record: &Record, mut value: Value) -> Value {
        if served.group == "events.k8s.io" {
            events::to_new(&mut value);
        } else if served.is_custom() && !is_current(served, record) {
            crd::convert(&mut value, &served.api_version());
            served.schema().prune(&mut value);
            served.default(&mut value);
        }
        value
    }

    /// Returns the same encoded; shares the stored bytes where they are what is asked for and not packed.
    pub(crate) fn encoded(&self, served: &Served, record: &Record) -> Bytes {
        let as_stored = if served.is_custom() { is_current(served, record) } else { served.group != "events.k8s.io" };
        if as_stored {
            return record.json();
        }
        serde_json::to_vec(&self.read(served, record)).expect("a JSON value always encodes").into()
    }

    /// Encodes an object for the store.
    pub(crate) fn draft(&self, served: &Served, mut object: Value) -> Result<Draft, Failure> {
        if served.group == "events.k8s.io" {
            events::to_core(&mut object);
        }
        let levels = depth::levels(&object);
        if levels > depth::OBJECT_MAX {
            let text = format!(
                "the object is nested {levels} levels deep (metadata.managedFields included), at most {} are stored",
                depth::OBJECT_MAX
            );
            return Err(Status::bad_request(text).into());
        }
        let schema = if served.is_storage_version() { served.schema } else { 0 };
        if served.is_custom() {
            crd::convert(&mut object, &served.stored_as);
        }
        let draft = Draft::encode(&object, schema);
        if draft.size() > OBJECT_BYTES_MAX {
            let mut failure = Failure::new(500, "", "etcdserver: request is too large");
            failure.body.as_object_mut().expect("a Status is an object").remove("reason");
            return Err(failure);
        }
        Ok(draft)
    }

    /// Asks the embedder about a write; returns the object if it was changed, which of a deletion means nothing.
    pub(crate) async fn admit(
        &self,
        call: &mut Call,
        operation: Operation,
        object: &Value,
        old_object: &Value,
    ) -> Result<Option<Value>, Failure> {
        if !self.admission.concerns(&call.served.group) {
            return Ok(None);
        }
        let request = AdmissionRequest {
            operation,
            group: call.served.group.clone(),
            version: call.served.version.clone(),
            kind: call.served.kind.clone(),
            resource: call.served.plural.clone(),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            object: object.clone(),
            old_object: old_object.clone(),
            user: call.user.clone(),
            dry_run: call.dry_run,
        };
        let admitted = self.admission.admit(request).await.map_err(admission::refusal)?;
        call.warnings.extend(admitted.warnings);
        let mut admitted = admitted.object;
        if let Some(metadata) = admitted.get_mut("metadata") {
            // Whose a field is has been settled before.
            object::copy(metadata, &object["metadata"], "managedFields");
        }
        Ok(Some(admitted).filter(|admitted| admitted != object))
    }

    pub(crate) fn count(&self, call: &Call, verb: &str) {
        if call.dry_run {
            return;
        }
        let mut resource = call.qualified().to_string();
        if !call.subresource.is_empty() {
            resource = format!("{resource}/{}", call.subresource);
        }
        self.counters.count(WriteKind { user: call.user.name.clone(), verb: verb.to_owned(), resource });
    }
}

fn is_current(served: &Served, record: &Record) -> bool {
    served.is_storage_version() && record.schema() == served.schema
}

/// Turns a failure of the store into what the client sees.
pub(crate) fn store_failure(call: &Call, error: WriteError) -> Failure {
    match error {
        WriteError::Exists(_) => Status::already_exists(call.qualified(), &call.name).into(),
        WriteError::Missing(_) => call.not_found(),
        WriteError::Conflict { .. } => conflict(call),
        WriteError::Closed => Status::unavailable("the server is shutting down").into(),
        other => Status::internal(other).into(),
    }
}

pub(crate) fn conflict(call: &Call) -> Failure {
    Status::conflict(call.qualified(), &call.name, embedded_apimachinery::status::MODIFIED).into()
}
