//! CRDs: validity, acceptance, and what they define. The texts are those of kube-apiserver 1.34; some 9,000 random and
//! 200 written CRDs were compared with the real code.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{convert, default, establish, is_established, resources, validate};
use crate::resource::{Part, Resource};
use crate::{builtin, decode::FieldValidation};

const LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                     character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                     validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn now() -> Timestamp {
    "2024-01-02T03:04:05Z".parse().unwrap()
}

fn later() -> Timestamp {
    "2024-01-02T04:00:00Z".parse().unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A CRD that is fine.
fn crd() -> Value {
    yaml(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: dbs.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: dbs, kind: Db}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: string}}}}}}
",
    )
}

/// The same with `value` at `pointer`; parents are there, `null` takes it away.
fn with(pointer: &str, value: Value) -> Value {
    let mut out = crd();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = out.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    if value.is_null() {
        parent.as_object_mut().unwrap().remove(name);
    } else {
        parent[name] = value;
    }
    out
}

fn kind() -> &'static Resource {
    builtin::find_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap()
}

/// What creation makes of a CRD.
fn created(crd: Value) -> Value {
    let mut out = kind().decode(crd, &[], FieldValidation::Ignore, &mut Vec::new()).unwrap();
    kind().default(&mut out);
    kind().prepare_create(&mut out, "u-1", now());
    out
}

fn messages(crd: Value) -> Vec<String> {
    let mut out: Vec<String> = kind().validate_create(&created(crd)).iter().map(ToString::to_string).collect();
    out.sort();
    out
}

/// Where a change goes, what it is, what is said of it.
#[track_caller]
fn check(cases: &[(&str, &str, &[&str])]) {
    for (pointer, value, expected) in cases {
        assert_eq!(messages(with(pointer, yaml(value))), *expected, "{pointer} {value}");
    }
}

#[test]
fn names_are_defaulted() {
    let mut found = crd();
    default(&mut found);
    assert_eq!(found["spec"]["names"], json!({"plural": "dbs", "singular": "db", "kind": "Db", "listKind": "DbList"}));
    assert_eq!(found["spec"]["conversion"], json!({"strategy": "None"}));
    let mut webhook =
        with("/spec/conversion", yaml("{strategy: Webhook, webhook: {clientConfig: {service: {name: s}}}}"));
    default(&mut webhook);
    assert_eq!(webhook.pointer("/spec/conversion/webhook/clientConfig/service/port"), Some(&json!(443)));
    assert_eq!(created(crd())["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn names_and_groups_are_checked() {
    let label = |field: &str, value: &str| format!("spec.names.{field}: Invalid value: {value:?}: {LABEL}");
    let kind = |field: &str, value: &str| {
        format!(
            "spec.names.{field}: Invalid value: {value:?}: may have mixed case, but should otherwise match: {LABEL}"
        )
    };
    let name = "metadata.name: Invalid value: \"dbs.example.com\": must be spec.names.plural+\".\"+spec.group";
    let approval = "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval \
                    annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
    check(&[
        ("/metadata/labels", "{}", &[]),
        ("/spec/scope", "Cluster", &[]),
        ("/spec/scope", "''", &["spec.scope: Required value"]),
        (
            "/spec/scope",
            "Galaxy",
            &[r#"spec.scope: Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced""#],
        ),
        ("/spec/group", "''", &[name, "spec.group: Required value"]),
        (
            "/spec/group",
            "example",
            &[name, r#"spec.group: Invalid value: "example": should be a domain with at least one dot"#],
        ),
        ("/spec/group", "x.k8s.io", &[approval, name]),
        (
            "/spec/names",
            "{plural: dbs, kind: Db, singular: DB, listKind: Db}",
            &[
                r#"spec.names.listKind: Invalid value: "Db": kind and listKind may not be the same"#,
                &label("singular", "DB"),
            ],
        ),
        (
            "/spec/names",
            "{plural: dbs, kind: Db_1}",
            &[&kind("kind", "Db_1"), &kind("listKind", "Db_1List"), &label("singular", "db_1")],
        ),
        (
            "/spec/names",
            "{plural: dbs, kind: Db, shortNames: [d, D], categories: [a b]}",
            &[&label("categories[0]", "a b"), &label("shortNames[1]", "D")],
        ),
        (
            "/spec/preserveUnknownFields",
            "true",
            &["spec.preserveUnknownFields: Invalid value: true: cannot set to true, set \
            x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"],
        ),
    ]);
}

#[test]
fn versions_are_checked() {
    let version = "{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}";
    let second = "{name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, properties: {a: \
                  {}}}}}";
    let shown = |name: &str, storage: bool| {
        format!(
            "{{\"Name\":\"{name}\",\"Served\":true,\"Storage\":{storage},\"Deprecated\":false,\"DeprecationWarning\":null,\
             \"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}"
        )
    };
    let unstored = "status.storedVersions: Invalid value: null: must have at least one stored version";
    check(&[
        ("/spec/versions", &format!("[{version}]"), &[]),
        (
            "/spec/versions",
            &format!("[{}]", version.replace("storage: true", "storage: false")),
            &[
                &format!(
                    "spec.versions: Invalid value: [{}]: must have exactly one version marked as storage version",
                    shown("v1", false)
                ),
                unstored,
            ],
        ),
        (
            "/spec/versions",
            &format!("[{version}, {}]", version.replace("storage: true", "storage: false")),
            &[&format!(
                "spec.versions: Invalid value: [{},{}]: must contain unique version names",
                shown("v1", true),
                shown("v1", false)
            )],
        ),
        (
            "/spec/versions",
            &format!("[{}]", version.replace("v1", "V1")),
            &[
                &format!("spec.version: Invalid value: \"V1\": {LABEL}"),
                &format!("spec.versions[0].name: Invalid value: \"V1\": {LABEL}"),
            ],
        ),
        // What versions do not have in common is said of the version.
        (
            "/spec/versions",
            &format!("[{version}, {second}]"),
            &[
                "spec.versions[1].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified \
             object fields",
            ],
        ),
        ("/spec/versions/0/schema", "null", &["spec.versions[0].schema.openAPIV3Schema: Required value"]),
        (
            "/spec/versions/0/deprecationWarning",
            "old",
            &[r#"spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions"#],
        ),
    ]);
}

#[test]
fn parts_of_versions_are_checked() {
    let columns = "/spec/versions/0/additionalPrinterColumns";
    let scale = "/spec/versions/0/subresources";
    let fields = "/spec/versions/0/selectableFields";
    check(&[
        (columns, "[{name: A, type: string, jsonPath: .spec.size}]", &[]),
        (
            columns,
            "[{name: A, type: text, format: x, jsonPath: spec.size}]",
            &[
                r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec.size": must be a simple json path starting with ."#,
                r#"spec.additionalPrinterColumns[0].format: Invalid value: "x": must be one of byte,date,date-time,double,float,int32,int64,password"#,
                r#"spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string"#,
            ],
        ),
        (scale, "{scale: {specReplicasPath: .spec.r, statusReplicasPath: .status.r}}", &[]),
        (
            scale,
            "{scale: {specReplicasPath: .status.r}}",
            &[
                r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.r": should be a json path under .spec"#,
                "spec.subresources.scale.statusReplicasPath: Required value",
            ],
        ),
        (fields, "[{jsonPath: .spec.size}]", &[]),
        (
            fields,
            "[{jsonPath: .spec.size}, {jsonPath: .spec.size}, {jsonPath: .spec}, {jsonPath: .x}, {jsonPath: ''}]",
            &[
                r#"spec.selectableFields[1].jsonPath: Duplicate value: ".spec.size""#,
                r#"spec.selectableFields[2].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."#,
                r#"spec.selectableFields[3].jsonPath: Invalid value: ".x": is an invalid path: does not refer to a valid field"#,
                "spec.selectableFields[4].jsonPath: Required value",
            ],
        ),
    ]);
}

#[test]
fn conversion_is_checked() {
    let at = "/spec/conversion";
    check(&[
        (
            at,
            "{strategy: Magic}",
            &[r#"spec.conversion.strategy: Unsupported value: "Magic": supported values: "None", "Webhook""#],
        ),
        (
            at,
            "{strategy: Webhook}",
            &[
                "spec.conversion.conversionReviewVersions: Required value",
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            ],
        ),
        (
            at,
            "{strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {service: {namespace: a, name: \
             b}}}}",
            &[],
        ),
        (
            at,
            "{strategy: Webhook, webhook: {conversionReviewVersions: [v2], clientConfig: {url: 'http://a'}}}",
            &[
                r#"spec.conversion.conversionReviewVersions: Invalid value: ["v2"]: must include at least one of v1, v1beta1"#,
                r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
            ],
        ),
        (
            at,
            "{strategy: None, webhook: {conversionReviewVersions: [v1]}}",
            &[
                "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
            ],
        ),
    ]);
}

/// What is said of a field `x` of the spec with this schema, without the path to it.
fn field_messages(schema: &str) -> Vec<String> {
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/x";
    let found = messages(with(at, yaml(schema)));
    let here = "spec.validation.openAPIV3Schema.properties[spec].properties[x]";
    found.iter().map(|message| message.replace(here, "x")).collect()
}

#[track_caller]
fn check_field(cases: &[(&str, &[&str])]) {
    for (schema, expected) in cases {
        assert_eq!(field_messages(schema), *expected, "{schema}");
    }
}

#[test]
fn schemas_are_structural() {
    check_field(&[
        ("{type: string}", &[]),
        ("{}", &["x.type: Required value: must not be empty for specified object fields"]),
        (
            "{type: text}",
            &[
                r#"x.type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ],
        ),
        ("{x-kubernetes-int-or-string: true}", &[]),
        ("{x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}", &[]),
        (
            "{x-kubernetes-int-or-string: true, anyOf: [{type: integer}]}",
            &["x.anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        ("{x-kubernetes-preserve-unknown-fields: true}", &[]),
        (
            "{type: object, x-kubernetes-preserve-unknown-fields: false}",
            &["x.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"],
        ),
        ("{type: array}", &["x.items: Required value: must be specified"]),
        ("{type: array, items: {}}", &["x.items.type: Required value: must not be empty for specified array items"]),
        (
            "{type: object, additionalProperties: {}}",
            &["x.additionalProperties.type: Required value: must not be empty for specified object fields"],
        ),
        (
            "{type: object, properties: {a: {type: string}}, additionalProperties: {type: string}}",
            &["x.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (
            "{type: array, items: {type: string}, uniqueItems: true}",
            &[
                "x.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        ("{$ref: '#/a'}", &["x.$ref: Forbidden: $ref is not supported"]),
        (
            "{type: object, not: {description: d, nullable: true}}",
            &[
                "x.not.description: Forbidden: must be empty to be structural",
                "x.not.nullable: Forbidden: must be false to be structural",
            ],
        ),
        (
            "{type: string, x-kubernetes-embedded-resource: true}",
            &[
                "x.properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without \
                 x-kubernetes-preserve-unknown-fields",
                r#"x.type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true"#,
            ],
        ),
    ]);
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    check(&[
        (root, "{}", &["spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"]),
        (
            root,
            "{type: array, items: {type: string}}",
            &[r#"spec.validation.openAPIV3Schema.type: Invalid value: "array": must be object at the root"#],
        ),
        // What branches name, the schema itself must name: looked for at the root only.
        (
            root,
            "{type: object, allOf: [{properties: {a: {minLength: 1}}}]}",
            &["spec.validation.openAPIV3Schema.properties[a]: Required value: because it is defined in \
                 spec.validation.openAPIV3Schema.allOf[0].properties[a]"],
        ),
        (
            root,
            "{type: object, nullable: true}",
            &["spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root"],
        ),
        (
            root,
            "{type: object, properties: {metadata: {type: object, properties: {name: {type: string, maxLength: 3}}}}}",
            &[],
        ),
        (
            root,
            "{type: object, properties: {metadata: {type: object, properties: {labels: {type: object}}}}}",
            &[
                "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and \
             generateName, but metadata is implicitly specified",
            ],
        ),
    ]);
}

#[test]
fn lists_and_maps_of_schemas_are_checked() {
    let map = |items: &str| {
        format!("{{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {items}}}")
    };
    check_field(&[
        (&map("{type: object, required: [k], properties: {k: {type: string}}}"), &[]),
        (&map("{type: object, properties: {k: {type: string, default: a}}}"), &[]),
        (
            &map("{type: object, properties: {k: {type: string}}}"),
            &[
                "x.items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a \
             default or be a required property",
            ],
        ),
        (
            &map("{type: object}"),
            &[r#"x.x-kubernetes-list-map-keys: Invalid value: ["k"]: entries must all be names of item properties"#],
        ),
        (
            &map("{type: string}"),
            &[
                r#"x.items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#,
            ],
        ),
        (
            "{type: array, items: {type: string}, x-kubernetes-list-type: map}",
            &[
                r#"x.items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#,
                "x.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        ),
        (
            "{type: array, items: {type: string}, x-kubernetes-list-map-keys: [k]}",
            &["x.x-kubernetes-list-type: Required value: must be map if x-kubernetes-list-map-keys is non-empty"],
        ),
        (
            "{type: array, items: {type: object}, x-kubernetes-list-type: set}",
            &["x.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with \
             x-kubernetes-list-type=set"],
        ),
        (
            "{type: array, items: {type: string, nullable: true}, x-kubernetes-list-type: set}",
            &["x.items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set"],
        ),
        (
            "{type: array, items: {type: string}, x-kubernetes-list-type: bag}",
            &[r#"x.x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#],
        ),
        (
            "{type: string, x-kubernetes-map-type: atomic}",
            &[r#"x.type: Invalid value: "string": must be object if x-kubernetes-map-type is specified"#],
        ),
    ]);
}

#[test]
fn defaults_are_valid_themselves() {
    check_field(&[
        ("{type: string, default: a}", &[]),
        (
            "{type: string, default: 5}",
            &[r#"x.default: Invalid value: "integer":  in body must be of type string: "integer""#],
        ),
        (
            "{type: object, properties: {a: {type: string}}, default: {b: 1}}",
            &[r#"x.default: Invalid value: {"b":1}: must not have unknown fields"#],
        ),
        (
            "{type: object, properties: {a: {type: string}}, default: {a: 1}}",
            &[r#"x.default.a: Invalid value: "integer": a in body must be of type string: "integer""#],
        ),
        (
            "{type: object, required: [a], properties: {a: {type: string}}, default: {}}",
            &["x.default.a: Required value"],
        ),
        (
            "{type: array, items: {type: string}, default: [1]}",
            &[r#"x.default.[0]: Invalid value: "integer": [0] in body must be of type string: "integer""#],
        ),
        (
            "{type: integer, default: 1, x-kubernetes-validations: [{rule: self > 2}]}",
            &[r#"x.default: Invalid value: "integer": failed rule: self > 2"#],
        ),
        (
            "{type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true, default: {}}",
            &["x.default.apiVersion: Required value", "x.default.kind: Required value"],
        ),
    ]);
    let root = "/spec/versions/0/schema/openAPIV3Schema";
    check(&[(
        root,
        "{type: object, properties: {metadata: {type: object, properties: {name: {type: string, default: x}}}}}",
        &[
            "spec.validation.openAPIV3Schema.properties[metadata].properties[name].default: Forbidden: must not be set in \
           top-level metadata",
        ],
    )]);
}

#[test]
fn rules_of_schemas_are_checked() {
    let rule = |rule: &str| format!("{{type: integer, x-kubernetes-validations: [{rule}]}}");
    let at = "x.x-kubernetes-validations[0]";
    check_field(&[
        (&rule("{rule: self > 1, message: m, reason: FieldValueForbidden}"), &[]),
        (&rule("{rule: ''}"), &[&format!("{at}.rule: Required value: rule is not specified")]),
        (
            &rule("{rule: self > 1, message: ' '}"),
            &[&format!("{at}.message: Invalid value: \" \": must be non-empty if specified")],
        ),
        (
            &rule("{rule: \"self\\n> 1\"}"),
            &[&format!("{at}.message: Required value: message must be specified if rule contains line breaks")],
        ),
        (
            &rule("{rule: self > 1, reason: Whim}"),
            &[&format!(
                "{at}.reason: Unsupported value: \"Whim\": supported values: \"FieldValueDuplicate\", \
             \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            )],
        ),
        (
            &rule("{rule: self > 1, fieldPath: .a}"),
            &[&format!("{at}.fieldPath: Invalid value: \".a\": must be a valid path")],
        ),
        (
            &rule("{rule: self > 1, optionalOldSelf: true}"),
            &[&format!("{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule")],
        ),
        (
            "{type: array, items: {type: integer, x-kubernetes-validations: [{rule: self == oldSelf}]}}",
            &[
                "x.items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the \
             uncorrelatable portion of the schema within x",
            ],
        ),
    ]);
    let found = field_messages(&rule("{rule: self >}"));
    let head = "x.x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self \\u003e\",\"Message\":\"\",\
                \"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: \
                ERROR: <input>:1:7: Syntax error";
    assert!(found.len() == 1 && found[0].starts_with(head), "{found:?}");
}

/// What is said of a change from `old` to `new`, both created and the old one established.
fn change_messages(old: Value, new: Value) -> Vec<String> {
    let mut old = created(old);
    establish(&mut old, &[], now());
    let mut new = created(new);
    kind().prepare_update(&mut new, &old, Part::Main);
    let mut out: Vec<String> = validate(&new, Some(&old)).iter().map(ToString::to_string).collect();
    out.sort();
    out
}

#[test]
fn an_established_crd_keeps_what_objects_are_stored_by() {
    assert!(change_messages(crd(), with("/spec/names/shortNames", json!(["d"]))).is_empty());
    for (pointer, value, expected) in [
        ("/spec/scope", "Cluster", vec![r#"spec.scope: Invalid value: "Cluster": field is immutable"#]),
        ("/spec/names/kind", "Other", vec![r#"spec.names.kind: Invalid value: "Other": field is immutable"#]),
        ("/spec/names/plural", "others", vec![r#"spec.names.plural: Invalid value: "others": field is immutable"#]),
        ("/spec/group", "example.org", vec![r#"spec.group: Invalid value: "example.org": field is immutable"#]),
        (
            "/spec/versions/0/name",
            "v2",
            vec![
                "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage \
             version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 \
             and removes v1 from status.storedVersions",
            ],
        ),
    ] {
        assert_eq!(change_messages(crd(), with(pointer, json!(value))), expected, "{pointer}");
    }
}

fn condition<'a>(crd: &'a Value, kind: &str) -> &'a Value {
    let list = crd["status"]["conditions"].as_array().unwrap();
    list.iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

#[test]
fn a_crd_is_established_once() {
    let mut found = created(crd());
    assert!(!is_established(&found));
    assert!(establish(&mut found, &[], now()));
    assert!(is_established(&found));
    assert_eq!(found["status"]["acceptedNames"], found["spec"]["names"]);
    assert_eq!(
        found["status"]["conditions"],
        json!([
            {"lastTransitionTime": "2024-01-02T03:04:05Z", "message": "no conflicts found", "reason": "NoConflicts",
                "status": "True", "type": "NamesAccepted"},
            {"lastTransitionTime": "2024-01-02T03:04:05Z", "message": "the initial names have been accepted",
                "reason": "InitialNamesAccepted", "status": "True", "type": "Established"},
        ])
    );
    assert!(!establish(&mut found, &[], later()), "nothing changes twice");
    found["spec"]["versions"][0]["storage"] = json!(false);
    found["spec"]["versions"].as_array_mut().unwrap().push(json!({"name": "v2", "served": true, "storage": true}));
    assert!(establish(&mut found, &[], later()));
    assert_eq!(found["status"]["storedVersions"], json!(["v1", "v2"]));
}

#[test]
fn names_of_others_are_not_accepted() {
    let mut other = created(with("/spec/names", yaml("{plural: stores, kind: Store, shortNames: [d, db]}")));
    establish(&mut other, &[], now());
    let others = resources(&other);
    let in_use = |name: &str| format!("\"{name}\" is already in use");
    for (names, reason, message) in [
        ("{plural: stores, kind: Db}", "", String::new()),
        ("{plural: store, singular: one, kind: Db}", "PluralConflict", in_use("store")),
        ("{plural: dbs, singular: d, kind: Db}", "SingularConflict", in_use("d")),
        ("{plural: dbs, singular: one, kind: Db, shortNames: [x, d, db]}", "ShortNamesConflict", {
            format!("[{}, {}]", in_use("d"), in_use("db"))
        }),
        ("{plural: dbs, singular: one, kind: Store, listKind: Many}", "KindConflict", in_use("Store")),
        ("{plural: dbs, singular: one, kind: Db, listKind: Store}", "ListKindConflict", in_use("Store")),
    ] {
        let mut found = created(with("/spec/names", yaml(names)));
        establish(&mut found, &others, now());
        if reason.is_empty() {
            // The same plural is the same resource: its own names are not in its way.
            assert!(is_established(&found), "{names}");
            continue;
        }
        let accepted = condition(&found, "NamesAccepted");
        let said = json!([accepted["status"], accepted["reason"], accepted["message"]]);
        assert_eq!(said, json!(["False", reason, message]), "{names}");
        let established = condition(&found, "Established");
        assert_eq!(json!([established["status"], established["reason"]]), json!(["False", "NotAccepted"]), "{names}");
    }
    // Another group, another world.
    let mut elsewhere = created(with("/spec/names", yaml("{plural: store, kind: Store}")));
    elsewhere["spec"]["group"] = json!("example.org");
    establish(&mut elsewhere, &others, now());
    assert!(is_established(&elsewhere));
}

#[test]
fn an_established_crd_goes_on_under_the_names_it_had() {
    let mut other = created(with("/spec/names", yaml("{plural: stores, kind: Store, shortNames: [s]}")));
    establish(&mut other, &[], now());
    let mut found = created(with("/spec/names/shortNames", json!(["d"])));
    establish(&mut found, &[], now());
    found["spec"]["names"]["shortNames"] = json!(["s"]);
    found["spec"]["names"]["categories"] = json!(["all"]);
    assert!(establish(&mut found, &resources(&other), later()));
    assert!(is_established(&found));
    assert_eq!(condition(&found, "NamesAccepted")["reason"], "ShortNamesConflict");
    assert_eq!(condition(&found, "NamesAccepted")["lastTransitionTime"], "2024-01-02T04:00:00Z");
    assert_eq!(condition(&found, "Established")["lastTransitionTime"], "2024-01-02T03:04:05Z");
    let resource = &resources(&found)[0];
    assert_eq!((&resource.short_names[..], &resource.categories[..]), (&["d".to_owned()][..], &["all".to_owned()][..]));
}

#[test]
fn served_versions_become_resources_in_order_of_preference() {
    let mut found = crd();
    let version = found["spec"]["versions"][0].clone();
    for (name, served) in [("v2", true), ("v1beta1", true), ("v3", false), ("v10", true)] {
        let mut one = version.clone();
        one["name"] = json!(name);
        one["served"] = json!(served);
        one["storage"] = json!(false);
        found["spec"]["versions"].as_array_mut().unwrap().push(one);
    }
    found["spec"]["versions"][0]["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.r"}});
    default(&mut found);
    let all = resources(&found);
    assert_eq!(all.iter().map(|one| one.version.as_str()).collect::<Vec<_>>(), ["v10", "v2", "v1", "v1beta1"]);
    let v1 = &all[2];
    assert!(v1.is_custom() && v1.namespaced && v1.has_verb("watch"));
    assert_eq!(v1.subresources.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["scale", "status"]);
    assert!(v1.subresource("status").is_some() && all[0].subresource("status").is_none());
    assert_eq!(all[1].custom().unwrap().storage_version(), "v1");
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "Db"});
    convert(&mut object, "example.com/v2");
    assert_eq!(object["apiVersion"], "example.com/v2");
}

#[test]
fn custom_objects_are_decoded_by_their_schema() {
    let mut found = created(with(
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size",
        yaml("{type: string, default: small, enum: [small, large]}"),
    ));
    establish(&mut found, &[], now());
    let resource = &resources(&found)[0];
    let object =
        |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Db", "metadata": {"name": "a"}, "spec": spec});
    let mut warnings = Vec::new();
    let mut decoded = resource.decode(object(json!({"extra": 1})), &[], FieldValidation::Warn, &mut warnings).unwrap();
    assert_eq!(warnings, ["unknown field \"spec.extra\""]);
    resource.default(&mut decoded);
    assert_eq!(decoded, object(json!({"size": "small"})));
    let refused =
        resource.decode(object(json!({"extra": 1})), &[], FieldValidation::Strict, &mut warnings).unwrap_err();
    assert_eq!(
        refused.message(),
        "Db in version \"v1\" cannot be handled as a Db: strict decoding error: unknown field \"spec.extra\""
    );
    let mut decoded = object(json!({"size": "huge"}));
    decoded["metadata"]["namespace"] = json!("default");
    let errors: Vec<String> = resource.validate_create(&decoded).iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["spec.size: Unsupported value: \"huge\": supported values: \"small\", \"large\""]);
}
