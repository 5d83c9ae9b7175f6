//! The API of a Promise: whether the API server would take it, whose it is, and what of it may change.
//!
//! # Source
//! `01-api.md` §7.3 C1 and U, §9.1 (3, 5, 6, 7), §9.2.4

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kratix_api::promise_api::{self, Api, Ownership};
use kratix_api::{Promise, PromiseSpec, keys};
use kube_core::ResourceExt;
use serde_json::{Map, Value, json};

use super::promise::{Case, VALIDATING};
use super::{Denial, Question, Refusal, Ruling};
use crate::object::{Kind, ObjectKey};
use crate::patch::to_value;
use crate::promise::Fault;
use crate::promise::trigger::api_name;

/// Checks the API by letting the API server try it.
pub(super) fn check(case: &Case<'_>) -> Ruling<()> {
    let spec = &case.promise.spec;
    let invalid = |error: promise_api::Error| Denial::rule(VALIDATING, error.to_string());
    // Of an API that was there before, any change of these is refused as such. What another kind lacks of a CRD is no matter.
    if !case.before.as_ref().is_some_and(PromiseSpec::has_api) {
        promise_api::check_kind(spec).map_err(invalid)?;
    }
    let api = match promise_api::read(spec) {
        Ok(api) => api,
        Err(promise_api::Error::Absent) => return Ok(()),
        Err(error) => return Err(invalid(error).into()),
    };
    let mut trial = to_value(api.crd());
    trial["apiVersion"] = json!(promise_api::CRD_API_VERSION);
    trial["kind"] = json!(promise_api::CRD_KIND);
    let kind = Kind::of::<CustomResourceDefinition>();
    // Creation first, whether or not it is there: what is wrong with the definition itself comes before what may change.
    match case.snapshot.object(Question::Create { kind: kind.clone(), object: trial.clone() })? {
        Ok(_) => {
            check_scope(&api)?;
            return check_alone(case, &api);
        }
        Err(refusal) if refusal.is_already_there() => {}
        Err(refusal) => return Err(Denial::refused(VALIDATING, "invalid CRD", &refusal).into()),
    }
    let invalid_change = |refusal: Refusal| Denial::refused(VALIDATING, "invalid CRD changes", &refusal);
    let present = Question::Get { kind: kind.clone(), key: ObjectKey::cluster(api.crd_name()) };
    let present = case.snapshot.object(present)?.map_err(invalid_change)?;
    check_owner(case, &api, present)?;
    let mut changed = present.clone();
    changed["spec"] = trial["spec"].take();
    case.snapshot.object(Question::Update { kind, object: changed })?.map_err(invalid_change)?;
    Ok(())
}

fn check_scope(api: &Api) -> Result<(), Denial> {
    let scope = &api.crd().spec.scope;
    if scope == "Namespaced" {
        return Ok(());
    }
    let what = "promise api needs to be namespace scoped; spec.api.spec.scope cannot be";
    Err(Denial::rule(VALIDATING, format!("{what}: {scope}")))
}

/// Refuses to take over what belongs to somebody else.
fn check_owner(case: &Case<'_>, api: &Api, present: &Value) -> Result<(), Denial> {
    let labels = present["metadata"]["labels"].as_object();
    let labels =
        labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let mut owned = CustomResourceDefinition::default();
    owned.metadata.labels = Some(labels.collect());
    match promise_api::ownership(&owned, &case.promise.metadata) {
        Ownership::Foreign { promise } => Err(foreign(api, promise.as_deref())),
        Ownership::Ours | Ownership::Adopted => Ok(()),
    }
}

/// Refuses an API that another Promise is about to install.
fn check_alone(case: &Case<'_>, api: &Api) -> Ruling<()> {
    let may_adopt = keys::is_set(case.promise.annotations(), keys::ADOPT_API_CRD);
    if may_adopt {
        return Ok(());
    }
    // A list that cannot be had is no reason to refuse: the controller looks again before it installs anything.
    let promises = case.snapshot.list::<Promise>(Default::default())?.unwrap_or_default();
    let is_rival = |promise: &&Promise| {
        let is_deleting = promise.metadata.deletion_timestamp.is_some();
        promise.name_any() != case.name() && !is_deleting && api_name(promise) == Some(api.crd_name())
    };
    let mut rivals: Vec<String> = promises.iter().filter(is_rival).map(ResourceExt::name_any).collect();
    rivals.sort();
    rivals.first().map_or(Ok(()), |rival| Err(foreign(api, Some(rival)).into()))
}

fn foreign(api: &Api, owner: Option<&str>) -> Denial {
    Denial::rule(VALIDATING, Fault::foreign_crd(api.crd_name(), owner).message)
}

/// Refuses changes that would make another API of it. Short names and categories may change: they are applied.
pub(super) fn check_immutable(case: &Case<'_>) -> Result<(), Denial> {
    let Some(before) = case.before.as_ref().filter(|spec| spec.has_api()).and_then(|spec| spec.api.as_ref()) else {
        return Ok(());
    };
    let Some(now) = case.promise.spec.api.as_ref().filter(|_| case.promise.spec.has_api()) else {
        return Err(Denial::rule(VALIDATING, "cannot remove API from existing promise"));
    };
    let mut lines = Vec::new();
    for (pointer, field) in [
        ("/metadata/name", "spec.api.metadata.name"),
        ("/kind", "spec.api.kind"),
        ("/apiVersion", "spec.api.apiVersion"),
    ] {
        let text = |api: &Value| api.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text(now) != text(before) {
            lines.push(format!("* {field}: Invalid value: {:?}: field is immutable", text(now)));
        }
    }
    let (names, names_before) = (Names::of(now), Names::of(before));
    if names != names_before {
        let shown = names.shown(names.list_kind != names_before.list_kind);
        lines.push(format!("* spec.api.spec.names: Invalid value: {shown}: field is immutable"));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let (resource, name) = (Kind::of::<Promise>(), case.name());
    let whose = format!("{}.{} {name:?}", resource.plural, resource.group);
    Err(Denial::rule(VALIDATING, format!("{whose} was not valid:\n{}", lines.join("\n"))))
}

/// The names of an API that never change, with the defaults that the API server gives them.
#[derive(PartialEq)]
struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
}

impl Names {
    fn of(api: &Value) -> Self {
        let empty = Map::new();
        let names = api.pointer("/spec/names").and_then(Value::as_object).unwrap_or(&empty);
        let text = |key: &str| names.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let or = |text: String, default: String| if text.is_empty() { default } else { text };
        let kind = text("kind");
        Self {
            plural: text("plural"),
            singular: or(text("singular"), kind.to_lowercase()),
            list_kind: or(text("listKind"), format!("{kind}List")),
            kind,
        }
    }

    /// The names as the contract shows them; the kind of lists only where it matters.
    fn shown(&self, with_list_kind: bool) -> String {
        let Self { plural, singular, kind, list_kind } = self;
        let list_kind = if with_list_kind { format!(", \"listKind\": {list_kind:?}") } else { String::new() };
        format!("{{\"plural\": {plural:?}, \"singular\": {singular:?}, \"kind\": {kind:?}{list_kind}}}")
    }
}
