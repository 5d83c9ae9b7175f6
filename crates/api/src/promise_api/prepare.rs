//! What Kratix adds to the definition of a Promise's API before it installs it.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
    CustomResourceSubresourceStatus, CustomResourceSubresources, JSONSchemaProps,
};
use serde_json::json;

use super::REQUEST_NAME_BYTES_MAX;
use crate::keys;

/// Limits the length of a request's name in a version that has a schema.
pub(super) fn limit_request_names(version: &mut CustomResourceDefinitionVersion) {
    let Some(schema) = schema_of(version) else { return };
    let object = || JSONSchemaProps { type_: Some("object".to_owned()), ..Default::default() };
    let metadata = schema.properties.get_or_insert_default().entry("metadata".to_owned()).or_insert_with(object);
    let name = metadata.properties.get_or_insert_default().entry("name".to_owned()).or_default();
    let length = name.max_length.unwrap_or(REQUEST_NAME_BYTES_MAX).min(REQUEST_NAME_BYTES_MAX);
    if name.type_.as_deref().unwrap_or_default().is_empty() {
        *name = JSONSchemaProps { type_: Some("string".to_owned()), ..Default::default() };
    }
    name.max_length = Some(length);
}

fn schema_of(version: &mut CustomResourceDefinitionVersion) -> Option<&mut JSONSchemaProps> {
    version.schema.as_mut()?.open_api_v3_schema.as_mut()
}

/// Returns the definition to install.
pub(super) fn prepare(crd: &CustomResourceDefinition, promise: &str) -> CustomResourceDefinition {
    let mut crd = crd.clone();
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert(keys::PROMISE_NAME.to_owned(), promise.to_owned());
    crd.spec.versions.iter_mut().for_each(prepare_version);
    crd
}

fn prepare_version(version: &mut CustomResourceDefinitionVersion) {
    let scale = version.subresources.take().and_then(|subresources| subresources.scale);
    let status = Some(CustomResourceSubresourceStatus(json!({})));
    version.subresources = Some(CustomResourceSubresources { scale, status });

    if version.additional_printer_columns.as_ref().is_none_or(Vec::is_empty) {
        version.additional_printer_columns = Some(columns());
    }

    let Some(schema) = schema_of(version) else { return };
    let author = schema.properties.get_or_insert_default().remove("status").and_then(|status| status.properties);
    let mut status = status_schema();
    let ours = status.properties.take().unwrap_or_default();
    status.properties = Some(author.unwrap_or_default().into_iter().chain(ours).collect());
    schema.properties.get_or_insert_default().insert("status".to_owned(), status);
}

fn columns() -> Vec<CustomResourceColumnDefinition> {
    let column = |name: &str, path: &str| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: "string".to_owned(),
        json_path: path.to_owned(),
        ..Default::default()
    };
    vec![
        column("message", ".status.message"),
        column("status", r#".status.conditions[?(@.type=="Reconciled")].message"#),
    ]
}

fn status_schema() -> JSONSchemaProps {
    let leaf = |r#type: &str, format: Option<&str>| JSONSchemaProps {
        type_: Some(r#type.to_owned()),
        format: format.map(str::to_owned),
        ..Default::default()
    };
    let string = || leaf("string", None);
    let time = || leaf("string", Some("datetime"));
    let int64 = || leaf("integer", Some("int64"));

    let condition = object([
        ("lastTransitionTime", time()),
        ("message", string()),
        ("reason", string()),
        ("status", string()),
        ("type", string()),
    ]);
    let pipeline = object([
        ("name", string()),
        ("phase", string()),
        ("message", string()),
        ("nextRetryAt", string()),
        ("attempts", int64()),
        ("lastTransitionTime", time()),
    ]);
    let workflows = object([
        ("lastSuccessfulConfigureWorkflowTime", string()),
        ("pipelines", list(pipeline)),
        ("suspendedGeneration", int64()),
    ]);
    let status = object([
        ("message", string()),
        ("observedGeneration", int64()),
        ("workflows", int64()),
        ("workflowsSucceeded", int64()),
        ("workflowsFailed", int64()),
        ("conditions", list(condition)),
        ("kratix", object([("workflows", workflows)])),
    ]);
    JSONSchemaProps { x_kubernetes_preserve_unknown_fields: Some(true), ..status }
}

fn object<const N: usize>(properties: [(&str, JSONSchemaProps); N]) -> JSONSchemaProps {
    let properties: BTreeMap<_, _> = properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    JSONSchemaProps { type_: Some("object".to_owned()), properties: Some(properties), ..Default::default() }
}

fn list(items: JSONSchemaProps) -> JSONSchemaProps {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray;
    JSONSchemaProps {
        type_: Some("array".to_owned()),
        items: Some(JSONSchemaPropsOrArray::Schema(Box::new(items))),
        ..Default::default()
    }
}
