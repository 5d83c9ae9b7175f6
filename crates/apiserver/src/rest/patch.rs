//! The four patches.

use embedded_apimachinery::{Status, apply, meta, patch};
use serde_json::{Value, json};

use super::update::Edit;
use crate::auth::Attributes;
use crate::core::{Call, Core, Outcome};
use crate::failure::Failure;
use crate::request::Target;

/// How a patch is written, by content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Merge,
    Strategic,
    Apply { force: bool },
}

pub(crate) const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

struct Patch<'a> {
    format: Format,
    patch: &'a Value,
    duplicates: &'a [String],
}

impl Edit for Patch<'_> {
    fn edit(&self, call: &mut Call, old: &Value) -> Result<Value, Failure> {
        let served = call.served.clone();
        let changed = match self.format {
            Format::Json => patch::json(old, self.patch)?,
            Format::Merge => patch::merge(old, self.patch),
            Format::Strategic => patch::strategic(&served, old, self.patch)?,
            Format::Apply { force } => {
                let config = decoded(call, self.patch, self.duplicates)?;
                let api_version = served.api_version();
                return Ok(apply::apply(&served, Some(old), &config, call.writer(&api_version), force)?);
            }
        };
        Ok(served.decode(changed, self.duplicates, call.validation, &mut call.warnings)?)
    }

    fn owns_fields(&self) -> bool {
        matches!(self.format, Format::Apply { .. })
    }

    fn verb(&self) -> &'static str {
        if self.owns_fields() { "apply" } else { "patch" }
    }
}

/// Decodes an applied configuration. Absence matters in it, so nothing is defaulted.
fn decoded(call: &mut Call, config: &Value, duplicates: &[String]) -> Result<Value, Failure> {
    let served = call.served.clone();
    let mut config = served.decode(config.clone(), duplicates, call.validation, &mut call.warnings)?;
    if !config["metadata"].is_object() {
        config["metadata"] = json!({});
    }
    let name = meta::name(&config);
    if name != call.name {
        let text = format!("name in URL does not match name in Body: {:?} != {name:?}", call.name);
        return Err(Status::bad_request(text.replace("!=", "vs")).into());
    }
    if served.namespaced && meta::namespace(&config).is_empty() {
        config["metadata"]["namespace"] = json!(call.namespace);
    }
    Ok(config)
}

fn target(call: &Call) -> Target {
    Target {
        group: call.served.group.clone(),
        version: call.served.version.clone(),
        namespace: call.namespace.clone(),
        resource: call.served.plural.clone(),
        name: call.name.clone(),
        subresource: call.subresource.clone(),
    }
}

impl Core {
    /// Patches an object; an apply creates what does not exist.
    pub(crate) async fn patch(
        &self,
        call: &mut Call,
        format: Format,
        patch: Value,
        duplicates: &[String],
    ) -> Result<Outcome, Failure> {
        if let Format::Apply { force } = format {
            super::create::check_type(call, &patch)?;
            let mut patch = patch;
            if !patch["metadata"].is_object() {
                patch["metadata"] = json!({});
            }
            if meta::name(&patch).is_empty() {
                patch["metadata"]["name"] = json!(call.name);
            }
            // Somebody else may create or delete it in between: each side then finds what the other left.
            for _ in 0..8 {
                let edit = Patch { format, patch: &patch, duplicates };
                match self.edit(call, &edit).await {
                    Err(failure) if failure.is_not_found() && call.subresource.is_empty() => {}
                    outcome => return outcome,
                }
                match self.apply_new(call, &patch, duplicates, force).await {
                    Err(failure) if failure.body["reason"] == "AlreadyExists" => {}
                    outcome => return outcome,
                }
            }
            return Err(crate::core::conflict(call));
        }
        self.edit(call, &Patch { format, patch: &patch, duplicates }).await
    }

    async fn apply_new(
        &self,
        call: &mut Call,
        patch: &Value,
        duplicates: &[String],
        force: bool,
    ) -> Result<Outcome, Failure> {
        let served = call.served.clone();
        // The request was allowed to patch, which is not to create.
        self.authorize(&call.user, &Attributes::resource("create", &target(call)))?;
        let config = decoded(call, patch, duplicates)?;
        if config["metadata"]["uid"].as_str().is_some_and(|uid| !uid.is_empty()) {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                config["metadata"]["uid"].as_str().unwrap_or_default()
            );
            return Err(Status::conflict(call.qualified(), &call.name, &why).into());
        }
        self.check_homes(call)?;
        let api_version = served.api_version();
        let mut object = apply::apply(&served, None, &config, call.writer(&api_version), force)?;
        served.default(&mut object);
        self.create_prepared(call, object, "apply").await
    }
}
