//! What makes a CRD valid.
//!
//! The real server keeps what all versions have in common once, above the versions, and its errors name that place:
//! `spec.validation.openAPIV3Schema` is where the only schema of a CRD is, whatever the author wrote.

use serde_json::{Value, json};

use super::schema::{self, Brackets};
use crate::field::{Error, Mistake, Path};
use crate::object::{items, text};
use crate::text::{check_label_1035, check_subdomain, json as shown};

/// Most fields of one version that clients may select by.
const SELECTABLE_MAX: usize = 8;

/// Longest deprecation warning, in bytes.
const WARNING_MAX: usize = 256;

/// Returns the mistakes of a CRD; `old` is given on update.
pub fn validate(crd: &Value, old: Option<&Value>) -> Vec<Error> {
    let mut errors = Vec::new();
    let spec = &crd["spec"];
    let path = Path::Root.child("spec");
    if old.is_none() {
        validate_name(crd, &mut errors);
    }
    validate_group(spec, &path, &mut errors);
    match text(spec, "scope") {
        "" => errors.push(Error::required(&path.child("scope"), "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    validate_versions(spec, &path, &mut errors);
    validate_names(&spec["names"], &path.child("names"), &mut errors);
    validate_parts(spec, &path, &mut errors);
    validate_conversion(spec, &path, &mut errors);
    if let Some(old) = old {
        validate_change(crd, old, &path, &mut errors);
    }
    validate_stored_versions(crd, &mut errors);
    validate_approval(crd, old, &mut errors);
    if spec["preserveUnknownFields"] == true {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    errors
}

fn validate_name(crd: &Value, errors: &mut Vec<Error>) {
    let required = format!("{}.{}", text(&crd["spec"]["names"], "plural"), text(&crd["spec"], "group"));
    let name = text(&crd["metadata"], "name");
    if name != required {
        let at = Path::Root.child("metadata");
        errors.push(Error::invalid(&at.child("name"), name, "must be spec.names.plural+\".\"+spec.group"));
    }
}

fn validate_group(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let group = text(spec, "group");
    let at = path.child("group");
    let found = check_subdomain(group);
    if group.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !found.is_empty() {
        errors.push(Error::invalid(&at, group, &found.join(",")));
    } else if !group.contains('.') {
        errors.push(Error::invalid(&at, group, "should be a domain with at least one dot"));
    }
}

/// Groups of the Kubernetes project need its consent.
fn validate_approval(crd: &Value, old: Option<&Value>, errors: &mut Vec<Error>) {
    const APPROVED: &str = "api-approved.kubernetes.io";
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let group = text(&crd["spec"], "group");
    let is_protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')));
    let approval = |crd: &Value| text(&crd["metadata"]["annotations"], APPROVED).to_owned();
    let found = approval(crd);
    if !is_protected || old.is_some_and(|old| approval(old) == found) {
        return;
    }
    let metadata = Path::Root.child("metadata");
    let annotations = metadata.child("annotations");
    let at = annotations.key(APPROVED);
    let needed = format!("protected groups must have approval annotation \"{APPROVED}\"");
    let is_url = found.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    if found.is_empty() {
        errors.push(Error::required(&at, &format!("{needed}, {SEE}")));
    } else if !is_url && !found.starts_with("unapproved") {
        let why = format!("{needed} with either a URL or a reason starting with \"unapproved\", {SEE}");
        errors.push(Error::invalid(&at, found, &why));
    }
}

fn validate_versions(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let versions = items(spec, "versions");
    let list = path.child("versions");
    for (index, version) in versions.iter().enumerate() {
        let at = list.index(index);
        if version["schema"]["openAPIV3Schema"].is_null() {
            let schema = at.child("schema");
            errors.push(Error::required(&schema.child("openAPIV3Schema"), ""));
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let at = list.index(index);
        let name = text(version, "name");
        let found = check_label_1035(name);
        if !found.is_empty() {
            errors.push(Error::invalid(&at.child("name"), name, &found.join(",")));
        }
        validate_deprecation(version, &at.child("deprecationWarning"), errors);
    }
    let names: Vec<&str> = versions.iter().map(|version| text(version, "name")).collect();
    let shown_versions = || versions_error(versions, spec);
    if names.iter().enumerate().any(|(index, name)| names[..index].contains(name)) {
        errors.push(shown_versions().because(&list, "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        errors.push(shown_versions().because(&list, "must have exactly one version marked as storage version"));
    }
    // The first version is also known as the version of the CRD.
    if let Some(name) = names.first().filter(|name| !name.is_empty()) {
        let found = check_label_1035(name);
        if !found.is_empty() {
            errors.push(Error::invalid(&path.child("version"), *name, &found.join(",")));
        }
    }
}

/// The versions as the server shows them in errors: what they have in common is not in them.
struct Shown(String);

impl Shown {
    fn because(self, path: &Path<'_>, why: &str) -> Error {
        let body = format!("Invalid value: {}: {why}", self.0);
        Error { mistake: Mistake::Invalid, field: path.to_string(), body }
    }
}

fn versions_error(versions: &[Value], spec: &Value) -> Shown {
    if spec["versions"].is_null() {
        return Shown("null".to_owned());
    }
    let part = |version: &Value, name: &str| match common(versions, name) {
        Some(_) => "null".to_owned(),
        None => shown(&version[name]),
    };
    let one = |version: &Value| {
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\
             \"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            shown(&version["name"]),
            version["served"] == true,
            version["storage"] == true,
            version["deprecated"] == true,
            shown(&version["deprecationWarning"]),
            part(version, "schema"),
            part(version, "subresources"),
            part(version, "additionalPrinterColumns"),
            part(version, "selectableFields"),
        )
    };
    Shown(format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(",")))
}

fn validate_deprecation(version: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut fail = |why: &str| errors.push(Error::invalid(path, warning, why));
    if version["deprecated"] != true {
        fail("can only be set for deprecated versions");
        return;
    }
    if warning.len() > WARNING_MAX {
        fail(&format!("must be <= {WARNING_MAX} characters long"));
    }
    if warning.is_empty() {
        fail("must not be an empty string");
    }
    let is_hidden = |(_, c): &(usize, char)| c.is_control() || (c.is_whitespace() && *c != ' ');
    if let Some((at, _)) = warning.char_indices().find(is_hidden) {
        fail(&format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

/// Returns what all versions say under `name`, if they say the same.
fn common<'a>(versions: &'a [Value], name: &str) -> Option<&'a Value> {
    let first = &versions.first()?[name];
    versions.iter().all(|version| version[name] == *first).then_some(first)
}

/// Checks schemas, subresources, columns and selectable fields: once if all versions agree, else version by version.
fn validate_parts(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let versions = items(spec, "versions");
    let list = path.child("versions");
    let has_status = |version: &Value| !version["subresources"]["status"].is_null();
    let each = |name: &str, shared: &str, check: &mut dyn FnMut(&Value, &Value, bool, &Path<'_>)| {
        if common(versions, name).is_some() {
            let any_status = versions.iter().any(has_status);
            check(&versions[0], &versions[0][name], any_status, &path.child(shared));
            return;
        }
        for (index, version) in versions.iter().enumerate() {
            let at = list.index(index);
            check(version, &version[name], has_status(version), &at.child(name));
        }
    };
    let mut found = Vec::new();
    each("schema", "validation", &mut |_, part, has_status, at| {
        let schema = &part["openAPIV3Schema"];
        if schema.is_object() {
            let at = at.child("openAPIV3Schema");
            if has_status {
                validate_status_root(schema, &at, &mut found);
            }
            schema::validate(schema, &at, &mut found);
        }
    });
    each("subresources", "subresources", &mut |_, part, _, at| validate_scale(&part["scale"], at, &mut found));
    each("additionalPrinterColumns", "additionalPrinterColumns", &mut |_, part, _, at| {
        validate_columns(part.as_array().map(Vec::as_slice).unwrap_or_default(), at, &mut found);
    });
    each("selectableFields", "selectableFields", &mut |version, part, _, at| {
        let schema = &version["schema"]["openAPIV3Schema"];
        validate_selectable(part.as_array().map(Vec::as_slice).unwrap_or_default(), schema, at, &mut found);
    });
    errors.extend(found);
}

/// Where the status has a schema of its own, the root may say only what does not concern it.
fn validate_status_root(schema: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    const ALLOWED: [&str; 22] = [
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(Error::invalid(&path.child("type"), kind, why));
        return;
    }
    let is_said = |(name, value): &(&String, &Value)| match name.as_str() {
        "default" | "additionalProperties" | "not" => !value.is_null(),
        _ => !crate::object::is_empty(value),
    };
    let mut said = schema.as_object().into_iter().flatten().filter(is_said);
    if said.any(|(name, _)| !ALLOWED.contains(&name.as_str())) {
        let names = "Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength \
                     Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example \
                     XPreserveUnknownFields XValidations";
        let why =
            format!("only [{names}] fields are allowed at the root of the schema if the status subresource is enabled");
        errors.push(Error::invalid(path, schema.clone(), &why));
    }
}

fn check_simple_path(path: &str) -> Option<&'static str> {
    match path.chars().next() {
        None => Some("must not be empty"),
        Some('.') => None,
        Some(_) => Some("must be a simple json path starting with ."),
    }
}

fn validate_scale(scale: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    if scale.is_null() {
        return;
    }
    for (name, field, parents, place) in [
        ("specReplicasPath", "scale.specReplicasPath", &[".spec."][..], ".spec"),
        ("statusReplicasPath", "scale.statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", "scale.labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ] {
        let found = text(scale, name);
        let at = path.child(field);
        if found.is_empty() {
            if name != "labelSelectorPath" {
                errors.push(Error::required(&at, ""));
            }
        } else if let Some(why) = check_simple_path(found) {
            errors.push(Error::invalid(&at, found, why));
        } else if !parents.iter().any(|parent| found.starts_with(parent)) {
            errors.push(Error::invalid(&at, found, &format!("should be a json path under {place}")));
        }
    }
}

fn validate_columns(columns: &[Value], path: &Path<'_>, errors: &mut Vec<Error>) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (index, column) in columns.iter().enumerate() {
        let at = path.index(index);
        if text(column, "name").is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        let one_of = |allowed: &[&str]| format!("must be one of {}", allowed.join(","));
        match text(column, "type") {
            "" => errors.push(Error::required(&at.child("type"), &one_of(&TYPES))),
            kind if TYPES.contains(&kind) => {}
            kind => errors.push(Error::invalid(&at.child("type"), kind, &one_of(&TYPES))),
        }
        let format = text(column, "format");
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.push(Error::invalid(&at.child("format"), format, &one_of(&FORMATS)));
        }
        let json_path = text(column, "jsonPath");
        let at = at.child("JSONPath");
        if json_path.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if let Some(why) = check_simple_path(json_path) {
            errors.push(Error::invalid(&at, json_path, why));
        }
    }
}

fn validate_selectable(fields: &[Value], schema: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let mut seen: Vec<Vec<String>> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let entry = path.index(index);
        let at = entry.child("jsonPath");
        let json_path = text(field, "jsonPath");
        if json_path.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let (found, names) = match schema::field_schema(json_path, schema, Brackets::Forbidden) {
            Ok(found) => found,
            Err(why) => {
                errors.push(Error::invalid(&at, json_path, &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if names.first().is_some_and(|name| name == "metadata") {
            errors.push(Error::invalid(&at, json_path, "must not point to fields in metadata"));
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                       formats are allowed.";
            errors.push(Error::invalid(&at, json_path, why));
        }
        if seen.contains(&names) {
            errors.push(Error::duplicate(&at, json_path));
        } else {
            seen.push(names);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        errors.push(Error::too_many(path, seen.len() as i64, SELECTABLE_MAX as i64));
    }
}

fn validate_names(names: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let singles = [("plural", false), ("singular", false), ("kind", true), ("listKind", true)];
    for (name, _) in singles {
        if text(names, name).is_empty() {
            errors.push(Error::required(&path.child(name), ""));
        }
    }
    for (name, is_kind) in singles {
        let value = text(names, name);
        let found = check_label_1035(&if is_kind { value.to_lowercase() } else { value.to_owned() });
        if value.is_empty() || found.is_empty() {
            continue;
        }
        let why = found.join(",");
        let why = if is_kind { format!("may have mixed case, but should otherwise match: {why}") } else { why };
        errors.push(Error::invalid(&path.child(name), value, &why));
    }
    let list = |name: &str, errors: &mut Vec<Error>| {
        let at = path.child(name);
        for (index, name) in items(names, name).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let found = check_label_1035(name);
            if !found.is_empty() {
                errors.push(Error::invalid(&at.index(index), name, &found.join(",")));
            }
        }
    };
    list("shortNames", errors);
    let kind = text(names, "kind");
    if !kind.is_empty() && names["kind"] == names["listKind"] {
        errors.push(Error::invalid(&path.child("listKind"), kind, "kind and listKind may not be the same"));
    }
    list("categories", errors);
}

fn validate_conversion(spec: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let at = path.child("conversion");
    let conversion = &spec["conversion"];
    let strategy = text(conversion, "strategy");
    match strategy {
        "None" | "Webhook" => {}
        "" => errors.push(Error::required(&at.child("strategy"), "")),
        other => errors.push(Error::not_supported(&at.child("strategy"), other, &["None", "Webhook"])),
    }
    let config = &conversion["webhook"]["clientConfig"];
    let versions = items(&conversion["webhook"], "conversionReviewVersions");
    let (config_at, versions_at) = (at.child("webhookClientConfig"), at.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if !config.is_null() {
            errors.push(Error::forbidden(&config_at, why));
        }
        if !versions.is_empty() {
            errors.push(Error::forbidden(&versions_at, why));
        }
        return;
    }
    if config.is_null() {
        errors.push(Error::required(&config_at, "required when strategy is set to Webhook"));
    } else {
        match (config["url"].as_str(), config["service"].is_object()) {
            (Some(url), false) => validate_webhook_url(url, &config_at.child("url"), errors),
            (None, true) => validate_webhook_service(&config["service"], &config_at.child("service"), errors),
            _ => errors.push(Error::required(&config_at, "exactly one of url or service is required")),
        }
    }
    if versions.is_empty() {
        errors.push(Error::required(&versions_at, ""));
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let name = version.as_str().unwrap_or_default();
        if versions[..index].contains(version) {
            errors.push(Error::invalid(&versions_at.index(index), name, "duplicate version"));
        } else {
            let found = check_label_1035(name);
            errors.extend(found.iter().map(|why| Error::invalid(&versions_at.index(index), name, why)));
        }
    }
    if !versions.iter().any(|version| *version == "v1" || *version == "v1beta1") {
        errors.push(Error::invalid(&versions_at, versions.to_vec(), "must include at least one of v1, v1beta1"));
    }
}

fn validate_webhook_url(url: &str, path: &Path<'_>, errors: &mut Vec<Error>) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let mut fail = |value: &str, why: String| errors.push(Error::invalid(path, value, &why));
    if scheme != "https" {
        fail(scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = if scheme.is_empty() { "" } else { rest.split('/').next().unwrap_or_default() };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        fail("", format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        fail(user, "user information is not permitted in the URL".to_owned());
    }
    if !fragment.is_empty() {
        fail(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !query.is_empty() {
        fail(query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn validate_webhook_service(service: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    for name in ["name", "namespace"] {
        if text(service, name).is_empty() {
            errors.push(Error::required(&path.child(name), ""));
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(&path.child("port"), port, why));
    }
    let url_path = text(service, "path");
    if matches!(url_path, "" | "/") {
        return;
    }
    let at = path.child("path");
    if !url_path.starts_with('/') {
        errors.push(Error::invalid(&at, url_path, "must start with a '/'"));
    }
    let inner = url_path.get(1..).unwrap_or_default();
    for (index, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&at, url_path, &format!("segment[{index}] may not be empty")));
            continue;
        }
        let found = check_subdomain(step);
        errors.extend(found.iter().map(|why| Error::invalid(&at, url_path, &format!("segment[{index}]: {why}"))));
    }
}

fn validate_change(crd: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<Error>) {
    let names = path.child("names");
    let (new_spec, old_spec) = (&crd["spec"], &old["spec"]);
    let mut immutable = |new: &Value, old: &Value, at: &Path<'_>| {
        if new != old {
            errors.push(Error::invalid(at, new.clone(), "field is immutable"));
        }
    };
    if super::is_established(old) {
        immutable(&new_spec["scope"], &old_spec["scope"], &path.child("scope"));
        immutable(&new_spec["names"]["kind"], &old_spec["names"]["kind"], &names.child("kind"));
    }
    // These are the name of the CRD, which never changes.
    immutable(&new_spec["group"], &old_spec["group"], &path.child("group"));
    immutable(&new_spec["names"]["plural"], &old_spec["names"]["plural"], &names.child("plural"));
}

fn validate_stored_versions(crd: &Value, errors: &mut Vec<Error>) {
    let status = Path::Root.child("status");
    let at = status.child("storedVersions");
    let stored = items(&crd["status"], "storedVersions");
    let versions = items(&crd["spec"], "versions");
    if stored.is_empty() {
        errors.push(Error::invalid(&at, Value::Null, "must have at least one stored version"));
        return;
    }
    for (index, version) in versions.iter().enumerate().filter(|(_, version)| version["storage"] == true) {
        // A name that comes twice is found once.
        let is_second = versions[..index].iter().any(|other| other["name"] == version["name"]);
        if is_second || !stored.contains(&version["name"]) {
            let why = format!("must have the storage version {}", text(version, "name"));
            errors.push(Error::invalid(&at, json!(stored), &why));
        }
    }
    for (index, name) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !versions.iter().any(|version| version["name"] == name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(Error::invalid(&at.index(index), name, &why));
        }
    }
}
