//! Listing: selectors, pages, and lists of the past.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use embedded_apimachinery::selector::{Fields, Labels};
use embedded_apimachinery::{Qualified, Status, field};
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::core::{Call, Core};
use crate::failure::Failure;
use crate::request::Query;
use crate::store::{Marks, ObjectName, Record, Scope};

/// Which objects of a collection are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    labels: Labels,
    marks: Marks,
    fields: Fields,
}

impl Filter {
    pub(crate) fn parse(served: &Served, query: &Query) -> Result<Self, Failure> {
        let labels = query.get("labelSelector").map(Labels::parse).transpose()?.unwrap_or_default();
        let fields = query.get("fieldSelector").map(|text| Fields::parse(served, text)).transpose()?;
        Ok(Self { marks: Marks::of(labels.exact()), labels, fields: fields.unwrap_or_default() })
    }

    /// Returns the filter for one object.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub(crate) fn matches(&self, core: &Core, served: &Served, record: &Record) -> bool {
        record.may_have(self.marks)
            && self.labels.matches_by(|key| record.label(key))
            && self.matches_fields(core, served, record)
    }

    fn matches_fields(&self, core: &Core, served: &Served, record: &Record) -> bool {
        if self.fields.is_everything() {
            return true;
        }
        // Most field selectors name one object: only that one is worth parsing.
        let differs = |field, found: &str| self.fields.exact(field).is_some_and(|wanted| wanted != found);
        if differs("metadata.name", &record.name().name) || differs("metadata.namespace", &record.name().namespace) {
            return false;
        }
        self.fields.matches(served, &core.read(served, record))
    }
}

/// A list ready to be rendered.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) records: Vec<Arc<Record>>,
    /// `metadata` of the list.
    pub(crate) metadata: Value,
}

/// Where the next page begins.
struct Continue {
    /// `None` in a token that gives up consistency.
    revision: Option<u64>,
    after: ObjectName,
}

impl Continue {
    fn encode(&self) -> String {
        let token = json!({
            "v": "meta.k8s.io/v1", "rv": self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(-1)),
            "start": format!("{}/{}", self.after.namespace, self.after.name),
        });
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Self, Failure> {
        let read = || {
            let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let (namespace, name) = token["start"].as_str()?.split_once('/')?;
            let revision = u64::try_from(token["rv"].as_i64()?).ok();
            Some(Self { revision, after: ObjectName::new(namespace, name) })
        };
        read()
            .ok_or_else(|| Status::bad_request("continue key is not valid: encoded continue token is malformed").into())
    }
}

impl Core {
    /// Lists a collection.
    pub(crate) fn list(&self, call: &Call, filter: &Filter) -> Result<List, Failure> {
        let served = &call.served;
        let query = &call.query;
        let namespace = (!call.namespace.is_empty()).then(|| call.namespace.as_str().into());
        let scope = Scope { table: served.table.clone(), namespace };
        let limit = query.number("limit").filter(|limit| *limit > 0).and_then(|limit| usize::try_from(limit).ok());
        let token = query.get("continue").map(Continue::decode).transpose()?;
        let at = match &token {
            Some(token) => {
                if query.get("resourceVersion").is_some_and(|version| version != "0") {
                    let text = "specifying resource version is not allowed when using continue";
                    return Err(Status::bad_request(text).into());
                }
                token.revision
            }
            None => self.revision_asked_for(query, limit)?,
        };
        let after = token.as_ref().map(|token| &token.after);
        let page = self.store.list(&scope, at, after, limit, |record| filter.matches(self, served, record)).map_err(
            |compacted| match &token {
                Some(token) => expired_continue(&token.after),
                None => Failure::from(Status::expired(compacted.to_string())),
            },
        )?;
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let (Some(remaining), Some(last)) = (page.remaining, page.records.last()) {
            let next = Continue { revision: Some(page.revision), after: last.name().clone() };
            metadata["continue"] = json!(next.encode());
            if filter.is_everything() {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(List { records: page.records, metadata })
    }

    /// Returns the revision of a list that must show exactly that; `None` for the present, which is never too old.
    fn revision_asked_for(&self, query: &Query, limit: Option<usize>) -> Result<Option<u64>, Failure> {
        let version = query.get("resourceVersion");
        let matching = query.get("resourceVersionMatch");
        check_match(version, matching)?;
        let Some(version) = version else { return Ok(None) };
        let revision = parse_revision(version)?;
        let exact = matching == Some("Exact") || (matching.is_none() && limit.is_some() && revision > 0);
        self.check_reached(revision)?;
        Ok(exact.then_some(revision))
    }

    /// Refuses to answer from before a revision that a client has seen elsewhere.
    pub(super) fn check_reached(&self, revision: u64) -> Result<(), Failure> {
        let current = self.store.revision();
        if revision > current {
            let text = format!("Too large resource version: {revision}, current: {current}");
            let failure = Failure::from(Status::timeout(text, 1));
            return Err(failure.cause("ResourceVersionTooLarge", "Too large resource version", ""));
        }
        Ok(())
    }
}

pub(super) fn parse_revision(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| invalid_option("resourceVersion", text, "strconv.ParseUint: parsing invalid syntax"))
}

fn check_match(version: Option<&str>, matching: Option<&str>) -> Result<(), Failure> {
    match (matching, version) {
        (None, _) | (Some("NotOlderThan"), Some(_)) => Ok(()),
        (Some("Exact"), Some(version)) if version != "0" => Ok(()),
        (Some("Exact"), Some(_)) => Err(forbidden_option(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some("Exact" | "NotOlderThan"), None) => Err(forbidden_option(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Some(other), _) => {
            let path = field::Path::Root.child("resourceVersionMatch").to_string();
            let supported = ["Exact", "NotOlderThan", ""];
            let root = field::Path::Root;
            let mistake = field::Error::not_supported(&root.child(&path), other, &supported);
            Err(Status::invalid(Qualified::new("meta.k8s.io", "ListOptions"), "", &[mistake]).into())
        }
    }
}

pub(super) fn forbidden_option(option: &str, text: &str) -> Failure {
    let mistake = field::Error::forbidden(&field::Path::Root.child(option), text);
    Status::invalid(Qualified::new("meta.k8s.io", "ListOptions"), "", &[mistake]).into()
}

fn invalid_option(option: &str, value: &str, text: &str) -> Failure {
    let mistake = field::Error::invalid(&field::Path::Root.child(option), value, text);
    Status::invalid(Qualified::new("meta.k8s.io", "ListOptions"), "", &[mistake]).into()
}

/// A token whose revision has left the log; the reply carries one that continues with the present.
fn expired_continue(after: &ObjectName) -> Failure {
    let text = "The provided continue parameter is too old to display a consistent list result. You can start a new \
        list without the continue parameter, or use the continue token in this response to retrieve the remainder of \
        the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
        modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    let mut failure = Failure::from(Status::expired(text));
    failure.body["metadata"]["continue"] = json!(Continue { revision: None, after: after.clone() }.encode());
    failure
}
