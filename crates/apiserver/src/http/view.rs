//! How objects are shown: as they are, as table rows, or metadata alone.

use bytes::Bytes;
use embedded_apimachinery::table::{self, IncludeObject};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalog::Served;
use crate::core::Core;
use crate::store::Record;

/// What a client accepts, in the order of its wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The whole object.
    Object,
    /// A `Table` of `meta.k8s.io/v1`.
    Table(IncludeObject),
    /// `PartialObjectMetadata` or its list.
    Metadata,
}

/// Media type and view of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) view: View,
    pub(crate) content_type: &'static str,
}

/// Chooses from an `Accept` header; `None` when nothing in it can be served.
pub(crate) fn negotiate(accept: Option<&str>, include: IncludeObject) -> Option<Negotiated> {
    let json = Negotiated { view: View::Object, content_type: "application/json" };
    let accept = accept.map(str::trim).filter(|accept| !accept.is_empty());
    let Some(accept) = accept else { return Some(json) };
    accept.split(',').find_map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        // A JSON document is a YAML document too.
        let content_type = match parts.next()? {
            "application/json" | "*/*" | "application/*" => "application/json",
            "application/yaml" => "application/yaml",
            _ => return None,
        };
        let parameter = |wanted: &str| {
            let found = clause.split(';').skip(1).filter_map(|part| part.trim().split_once('='));
            found.into_iter().find(|(key, _)| *key == wanted).map(|(_, value)| value)
        };
        if parameter("g").is_some_and(|group| group != "meta.k8s.io") || parameter("v").is_some_and(|v| v != "v1") {
            return None;
        }
        let view = match parameter("as") {
            None => View::Object,
            Some("Table") => View::Table(include),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") => View::Metadata,
            Some(_) => return None,
        };
        Some(Negotiated { view, content_type })
    })
}

impl View {
    /// Renders one stored object.
    pub(crate) fn record(self, core: &Core, served: &Served, record: &Record) -> Bytes {
        match self {
            Self::Object => core.encoded(served, record),
            // It is the same in all versions.
            Self::Metadata => encode(&partial(record.metadata())),
            Self::Table(_) => self.value(served, core.read(served, record), true),
        }
    }

    /// Renders one object; `columns` says whether a table repeats its columns.
    pub(crate) fn value(self, served: &Served, mut object: Value, columns: bool) -> Bytes {
        let shown = match self {
            Self::Object => object,
            Self::Metadata => partial(object["metadata"].take()),
            Self::Table(include) => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table::render(served, [&object], meta, include, columns, Timestamp::now())
            }
        };
        encode(&shown)
    }

    /// Renders a bookmark.
    pub(crate) fn bookmark(self, served: &Served, revision: u64, ends_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self {
            Self::Object => {
                encode(&json!({"kind": served.kind, "apiVersion": served.api_version(), "metadata": metadata}))
            }
            Self::Metadata => encode(&partial(metadata)),
            Self::Table(_) => {
                encode(&table::render(served, [], metadata, IncludeObject::Metadata, false, Timestamp::now()))
            }
        }
    }

    /// Renders a list.
    pub(crate) fn list(
        self,
        core: &Core,
        served: &Served,
        records: &[std::sync::Arc<Record>],
        metadata: Value,
    ) -> Bytes {
        match self {
            Self::Object => {
                let size: usize = records.iter().map(|record| record.size() + 1).sum();
                let mut out = Vec::with_capacity(size + 160);
                let head = json!([served.list_kind, served.api_version(), metadata]);
                out.extend_from_slice(
                    format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[", head[0], head[1], head[2])
                        .as_bytes(),
                );
                for (index, record) in records.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(&core.encoded(served, record));
                }
                out.extend_from_slice(b"]}");
                out.into()
            }
            Self::Metadata => {
                let items: Vec<Value> = records.iter().map(|one| partial(one.metadata())).collect();
                encode(&json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata, "items": items,
                }))
            }
            Self::Table(include) => {
                let objects: Vec<Value> = records.iter().map(|one| core.read(served, one)).collect();
                encode(&table::render(served, &objects, metadata, include, true, Timestamp::now()))
            }
        }
    }
}

fn partial(metadata: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

pub(crate) fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).expect("a JSON value always encodes").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_clause_that_can_be_served_wins() {
        let view = |accept: &str| negotiate(Some(accept), IncludeObject::Metadata).map(|found| found.view);
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                       application/json";
        assert_eq!(view(kubectl), Some(View::Table(IncludeObject::Metadata)));
        assert_eq!(view("application/vnd.kubernetes.protobuf,application/json"), Some(View::Object));
        assert_eq!(view("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some(View::Metadata));
        assert_eq!(view("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(view("*/*"), Some(View::Object));
    }
}
