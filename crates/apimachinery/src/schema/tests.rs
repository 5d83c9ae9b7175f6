//! Pruning, defaulting and validation, against the texts of kube-apiserver 1.34. Some 40,000 random schemas and objects
//! were compared with the real code; the cases here keep one of each kind of decision.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Schema;
use crate::field::Path;

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A schema of an object whose `spec` is described by `text`.
fn schema(text: &str) -> Arc<Schema> {
    Schema::parse(&json!({"type": "object", "properties": {"spec": yaml(text)}}))
}

fn object(spec: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Db", "metadata": {"name": "x"}, "spec": yaml(spec)})
}

fn messages(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out: Vec<String> = schema.validate(object, old).iter().map(ToString::to_string).collect();
    out.sort();
    out
}

/// Schema of `spec`, `spec` before and after, unknown fields.
#[test]
fn unknown_fields_are_pruned() {
    for (of, spec, expected, unknown) in [
        ("{type: object, properties: {a: {type: string}}}", "{a: x, b: 1}", "{a: x}", &["spec.b"][..]),
        ("{type: object}", "{a: {b: 1}}", "{}", &["spec.a"]),
        ("{type: object, properties: {a: {type: object}}}", "{a: {b: {c: 1}}}", "{a: {}}", &["spec.a.b"]),
        ("{type: object, properties: {a: {type: string}}}", "{a: {b: 1}}", "{a: {}}", &["spec.a.b"]),
        (
            "{type: array, items: {type: object, properties: {a: {type: string}}}}",
            "[{a: x, b: 1}, {c: 2}]",
            "[{a: x}, {}]",
            &["spec[0].b", "spec[1].c"],
        ),
        (
            "{type: object, additionalProperties: {type: object, properties: {a: {type: string}}}}",
            "{k: {a: x, b: 1}}",
            "{k: {a: x}}",
            &["spec.k.b"],
        ),
        ("{type: object, additionalProperties: true}", "{k: {a: 1}, l: 2}", "{k: {}, l: 2}", &["spec.k.a"]),
        ("{type: object, x-kubernetes-preserve-unknown-fields: true}", "{k: {a: [{b: 1}]}}", "{k: {a: [{b: 1}]}}", &[]),
        (
            "{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: object}}}",
            "{a: {b: 1}, c: {d: 1}}",
            "{a: {}, c: {d: 1}}",
            &["spec.a.b"],
        ),
        (
            "{type: array, x-kubernetes-preserve-unknown-fields: true, items: {type: object}}",
            "[{a: {b: 1}}]",
            "[{a: {b: 1}}]",
            &[],
        ),
        (
            "{type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}",
            "{apiVersion: v1, kind: Pod, metadata: {anything: 1}, spec: {a: 1}, status: {}}",
            "{apiVersion: v1, kind: Pod, metadata: {anything: 1}, spec: {}}",
            &["spec.spec.a", "spec.status"],
        ),
    ] {
        let (schema, mut found) = (schema(of), object(spec));
        assert_eq!(schema.unknown_fields(&found), unknown, "{of} {spec}");
        schema.prune(&mut found);
        assert_eq!(found, object(expected), "{of} {spec}");
    }
}

/// Schema of `spec`, `spec` before and after.
#[test]
fn absent_fields_get_their_defaults() {
    for (of, spec, expected) in [
        ("{type: object, properties: {a: {type: string, default: x}}}", "{}", "{a: x}"),
        ("{type: object, properties: {a: {type: string, default: x}}}", "{a: ''}", "{a: ''}"),
        ("{type: object, properties: {a: {type: string, default: x}}}", "{a: null}", "{a: x}"),
        ("{type: object, properties: {a: {type: string, nullable: true, default: x}}}", "{a: null}", "{a: null}"),
        ("{type: object, properties: {a: {type: string}}}", "{a: null}", "{}"),
        ("{type: object, properties: {a: {type: object, properties: {b: {type: integer, default: 1}}}}}", "{}", "{}"),
        (
            "{type: object, properties: {a: {type: object, default: {}, properties: {b: {type: integer, default: 1}}}}}",
            "{}",
            "{a: {b: 1}}",
        ),
        (
            "{type: array, items: {type: object, properties: {a: {type: string, default: x}}}}",
            "[{}, {a: b}]",
            "[{a: x}, {a: b}]",
        ),
        ("{type: array, items: {type: string, default: x}}", "[null, a]", "[x, a]"),
        (
            "{type: object, additionalProperties: {type: object, properties: {a: {type: string, default: x}}}}",
            "{k: {}}",
            "{k: {a: x}}",
        ),
        ("{type: object, additionalProperties: {type: string, default: x}}", "{k: null}", "{k: x}"),
        ("{type: object, additionalProperties: {type: string}}", "{k: null}", "{}"),
    ] {
        let (schema, mut found) = (schema(of), object(spec));
        schema.fill_defaults(&mut found);
        assert_eq!(found, object(expected), "{of} {spec}");
    }
}

/// Schema of `spec`, `spec`, messages.
#[track_caller]
fn check(cases: &[(&str, &str, &[&str])]) {
    for (of, spec, expected) in cases {
        assert_eq!(messages(&schema(of), &object(spec), None), *expected, "{of} {spec}");
    }
}

#[test]
fn values_have_the_type_they_should_have() {
    check(&[
        ("{type: string}", "x", &[]),
        ("{type: string}", "1", &[r#"spec: Invalid value: "integer": spec in body must be of type string: "integer""#]),
        ("{type: string}", "1.5", &[r#"spec: Invalid value: "number": spec in body must be of type string: "number""#]),
        ("{type: string}", "null", &[r#"spec: Invalid value: "null": spec in body must be of type string: "null""#]),
        ("{type: string, nullable: true}", "null", &[]),
        (
            "{type: integer}",
            "1.5",
            &[r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#],
        ),
        ("{type: integer}", "1.0", &[]),
        ("{type: integer, format: int32}", "2147483648", &[]),
        ("{type: number}", "1", &[]),
        (
            "{type: boolean}",
            "'true'",
            &[r#"spec: Invalid value: "string": spec in body must be of type boolean: "string""#],
        ),
        ("{type: object}", "[]", &[r#"spec: Invalid value: "array": spec in body must be of type object: "array""#]),
        ("{x-kubernetes-int-or-string: true}", "80%", &[]),
        ("{x-kubernetes-int-or-string: true}", "80", &[]),
        (
            "{x-kubernetes-int-or-string: true}",
            "true",
            &[r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#],
        ),
        (
            "{type: object, properties: {size: {type: string}}}",
            "{size: 1}",
            &[r#"spec.size: Invalid value: "integer": spec.size in body must be of type string: "integer""#],
        ),
        (
            "{type: array, items: {type: string}}",
            "[a, 1]",
            &[r#"spec[1]: Invalid value: "integer": spec[1] in body must be of type string: "integer""#],
        ),
        (
            "{type: object, additionalProperties: {type: string}}",
            "{k: 1}",
            &[r#"spec.k: Invalid value: "integer": spec.k in body must be of type string: "integer""#],
        ),
    ]);
}

#[test]
fn values_keep_the_limits_of_their_schema() {
    check(&[
        ("{type: object, required: [a, b], properties: {a: {type: string}}}", "{b: 1}", &["spec.a: Required value"]),
        (
            "{type: string, enum: [small, large]}",
            "x",
            &[r#"spec: Unsupported value: "x": supported values: "small", "large""#],
        ),
        ("{type: integer, enum: [1, 2]}", "3", &[r#"spec: Unsupported value: 3: supported values: "1", "2""#]),
        ("{type: integer, enum: [1, 2]}", "2.0", &[]),
        (
            "{type: string, nullable: true, enum: [a]}",
            "null",
            &[r#"spec: Unsupported value: null: supported values: "a""#],
        ),
        ("{type: string, maxLength: 2}", "abc", &["spec: Too long: may not be more than 2 bytes"]),
        ("{type: string, maxLength: 1}", "ü", &[]),
        (
            "{type: string, minLength: 2}",
            "a",
            &[r#"spec: Invalid value: "a": spec in body should be at least 2 chars long"#],
        ),
        (
            "{type: string, pattern: '^[a-z]+$'}",
            "A",
            &[r#"spec: Invalid value: "A": spec in body should match '^[a-z]+$'"#],
        ),
        // The first of these three is enough.
        (
            "{type: string, maxLength: 1, minLength: 9, pattern: x}",
            "abc",
            &["spec: Too long: may not be more than 1 bytes".replace("bytes", "byte").leak()],
        ),
        (
            "{type: string, format: date-time}",
            "soon",
            &[r#"spec: Invalid value: "soon": spec in body must be of type date-time: "soon""#],
        ),
        ("{type: string, format: made-up}", "soon", &[]),
        (
            "{type: integer, minimum: 2}",
            "1",
            &["spec: Invalid value: 1: spec in body should be greater than or equal to 2"],
        ),
        (
            "{type: integer, minimum: 2, exclusiveMinimum: true}",
            "2",
            &["spec: Invalid value: 2: spec in body should be greater than 2"],
        ),
        (
            "{type: integer, maximum: 2}",
            "3",
            &["spec: Invalid value: 3: spec in body should be less than or equal to 2"],
        ),
        (
            "{type: number, maximum: 2, exclusiveMaximum: true}",
            "2.0",
            &["spec: Invalid value: 2: spec in body should be less than 2"],
        ),
        // Whole numbers do not see fractions of limits.
        ("{type: number, minimum: 1.5}", "1", &[]),
        (
            "{type: number, minimum: 1.5}",
            "1.25",
            &["spec: Invalid value: 1.25: spec in body should be greater than or equal to 1.5"],
        ),
        (
            "{type: number, maximum: 1000000}",
            "1234567.5",
            &["spec: Invalid value: 1.2345675e+06: spec in body should be less than or equal to 1e+06"],
        ),
        ("{type: integer, multipleOf: 5}", "7", &["spec: Invalid value: 7: spec in body should be a multiple of 5"]),
        (
            "{type: number, multipleOf: 0.1}",
            "0.35",
            &["spec: Invalid value: 0.35: spec in body should be a multiple of 0.1"],
        ),
        (
            "{type: array, items: {type: string}, minItems: 2}",
            "[a]",
            &["spec: Invalid value: 1: spec in body should have at least 2 items"],
        ),
        (
            "{type: array, items: {type: string}, maxItems: 1}",
            "[a, b]",
            &["spec: Too many: 2: must have at most 1 item"],
        ),
        (
            "{type: object, additionalProperties: {type: string}, minProperties: 1}",
            "{}",
            &["spec: Invalid value: 0: spec in body should have at least 1 properties"],
        ),
        (
            "{type: object, additionalProperties: {type: string}, maxProperties: 1}",
            "{a: x, b: z}",
            &["spec: Too many: 2: must have at most 1 item"],
        ),
    ]);
}

#[test]
fn branches_are_told_apart_by_what_comes_closest() {
    let required = "{type: object, properties: {a: {type: string}, b: {type: string}}";
    check(&[
        (
            &format!("{required}, anyOf: [{{required: [a]}}, {{required: [b]}}]}}"),
            "{}",
            &[
                r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#,
                "spec.a: Required value",
            ],
        ),
        (
            &format!("{required}, anyOf: [{{required: [a, b]}}, {{properties: {{a: {{enum: [x]}}}}}}]}}"),
            "{a: z}",
            &[
                r#"<nil>: Invalid value: "": "spec" must validate at least one schema (anyOf)"#,
                r#"spec.a: Unsupported value: "z": supported values: "x""#,
            ],
        ),
        (&format!("{required}, anyOf: [{{required: [a]}}, {{required: [b]}}]}}"), "{b: x}", &[]),
        (
            &format!("{required}, oneOf: [{{required: [a]}}, {{required: [b]}}]}}"),
            "{a: x, b: z}",
            &[
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (
            &format!("{required}, oneOf: [{{required: [a]}}, {{required: [b]}}]}}"),
            "{}",
            &[
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.a: Required value",
            ],
        ),
        (
            &format!("{required}, allOf: [{{required: [a]}}, {{required: [b]}}]}}"),
            "{a: x}",
            &[r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#, "spec.b: Required value"],
        ),
        (
            &format!("{required}, allOf: [{{required: [a]}}, {{required: [b]}}]}}"),
            "{}",
            &[
                r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf). None validated"#,
                "spec.a: Required value",
                "spec.b: Required value",
            ],
        ),
        (
            &format!("{required}, not: {{required: [a]}}}}"),
            "{a: x}",
            &[r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#],
        ),
        // What several branches find is said once.
        (
            "{type: string, allOf: [{minLength: 3}, {minLength: 3}]}",
            "a",
            &[
                r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf). None validated"#,
                r#"spec: Invalid value: "a": spec in body should be at least 3 chars long"#,
            ],
        ),
    ]);
}

#[test]
fn sets_and_maps_hold_nothing_twice() {
    let map = "{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, \
               properties: {k: {type: string}, v: {type: integer}}}}";
    let two = "{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k, v], items: {type: object, \
               properties: {k: {type: string}, v: {type: integer}}}}";
    check(&[
        ("{type: array, items: {type: string}}", "[a, a]", &[]),
        (
            "{type: array, x-kubernetes-list-type: set, items: {type: string}}",
            "[a, b, a, a]",
            &[r#"spec[2]: Duplicate value: "a""#],
        ),
        (map, "[{k: a}, {k: b}]", &[]),
        (map, "[{k: a, v: 1}, {k: b}, {k: a, v: 2}]", &[r#"spec[2]: Duplicate value: {"k":"a"}"#]),
        (map, "[{v: 1}, {v: 2}]", &["spec[1]: Duplicate value: {}"]),
        (two, "[{k: a, v: 1}, {k: a, v: 2}, {k: a, v: 1}]", &[r#"spec[2]: Duplicate value: {"k":"a","v":1}"#]),
        (
            map,
            "[x]",
            &[
                r#"spec[0]: Invalid value: "string": spec[0] in body must be of type object: "string""#,
                r#"spec[0]: Invalid value: "x": must be an object for an array of list-type map"#,
            ],
        ),
        (
            &format!("{{type: object, additionalProperties: {map}}}"),
            "{l: [{k: a}, {k: a}]}",
            &[r#"spec[l][1]: Duplicate value: {"k":"a"}"#],
        ),
    ]);
}

#[test]
fn embedded_objects_have_a_type_and_metadata() {
    let embedded = "{type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}";
    let label = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                 character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                 validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    check(&[
        (embedded, "{apiVersion: v1, kind: Pod}", &[]),
        (embedded, "{}", &["spec.apiVersion: Required value", "spec.kind: Required value"]),
        (
            embedded,
            "{apiVersion: '', kind: ''}",
            &[
                r#"spec.apiVersion: Invalid value: "": must not be empty"#,
                r#"spec.kind: Invalid value: "": must not be empty"#,
            ],
        ),
        (
            embedded,
            "{apiVersion: a/b/c, kind: 1x}",
            &[
                r#"spec.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                &format!("spec.kind: Invalid value: \"1x\": may have mixed case, but should otherwise match: {label}"),
            ],
        ),
        (
            embedded,
            "{apiVersion: v1, kind: Pod, metadata: {name: a/b, generation: -1}}",
            &[
                "spec.metadata.generation: Invalid value: -1: must be greater than or equal to 0",
                r#"spec.metadata.name: Invalid value: "a/b": may not contain '/'"#,
            ],
        ),
        (&format!("{{type: array, items: {embedded}}}"), "[{apiVersion: v1}]", &["spec[0].kind: Required value"]),
    ]);
    let schema = schema(embedded);
    let mut found = object("{apiVersion: v1, kind: Pod, metadata: {name: a, extra: 1, labels: null}}");
    assert_eq!(schema.decode_embedded(&mut found, &Path::Root), Ok(vec!["spec.metadata.extra".to_owned()]));
    assert_eq!(found["spec"]["metadata"], json!({"name": "a"}));
    let wrong = |spec: &str| schema.decode_embedded(&mut object(spec), &Path::Root).unwrap_err().to_string();
    assert_eq!(wrong("{kind: 5}"), "spec.kind: Invalid value: 5: must be a string");
    assert_eq!(
        wrong("{metadata: {generation: x}}"),
        "spec.metadata: Invalid value: {\"generation\":\"x\"}: json: cannot unmarshal string into Go struct field \
         ObjectMeta.generation of type int64"
    );
}

/// Schema of `spec`, old and new `spec`, messages.
#[test]
fn what_an_update_leaves_alone_is_not_held_against_it() {
    let two = "{type: object, properties: {a: {type: string, maxLength: 1}, b: {type: string, maxLength: 1}}}";
    let keyed = "{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, \
                 properties: {k: {type: string}, v: {type: string, maxLength: 1}}}}";
    let plain = "{type: array, items: {type: string, maxLength: 1}}";
    let set = "{type: array, x-kubernetes-list-type: set, items: {type: string}}";
    let rule = "{type: object, properties: {a: {type: integer, x-kubernetes-validations: [{rule: self > 5}]}, b: {type: \
                integer}}}";
    let preserving = "{type: object, x-kubernetes-preserve-unknown-fields: true, required: [a]}";
    let too_long = |path: &str| format!("{path}: Too long: may not be more than 1 byte");
    for (of, old, new, expected) in [
        (two, "{a: long}", "{a: long, b: x}", vec![]),
        (two, "{a: long}", "{a: longer}", vec![too_long("spec.a")]),
        (two, "{a: long}", "{a: long, b: long}", vec![too_long("spec.b")]),
        // Keyed elements are found again, others are not.
        (keyed, "[{k: a, v: long}]", "[{k: b, v: x}, {k: a, v: long}]", vec![]),
        (keyed, "[{k: a, v: long}]", "[{k: b, v: long}]", vec![too_long("spec[0].v")]),
        (plain, "[long]", "[long]", vec![]),
        (plain, "[long]", "[x, long]", vec![too_long("spec[1]")]),
        (set, "[a, a]", "[a, a, b]", vec![]),
        (set, "[a]", "[a, a]", vec!["spec[1]: Duplicate value: \"a\"".to_owned()]),
        (rule, "{a: 1}", "{a: 1, b: 1}", vec![]),
        (rule, "{a: 1}", "{a: 2}", vec!["spec.a: Invalid value: \"integer\": failed rule: self > 5".to_owned()]),
        // Nobody knows what an unknown field means, so it is never the same.
        (preserving, "{}", "{}", vec![]),
        (preserving, "{x: 1}", "{x: 1}", vec!["spec.a: Required value".to_owned()]),
    ] {
        assert_eq!(messages(&schema(of), &object(new), Some(&object(old))), expected, "{of} {old} {new}");
    }
}

/// Schema of `spec`, old `spec` or nothing, `spec`, messages.
#[test]
fn rules_are_checked() {
    let of = |kind: &str, rule: &str| format!("{{{kind}, x-kubernetes-validations: [{rule}]}}");
    let integer = |rule: &str| of("type: integer", rule);
    let pair = "type: object, properties: {a: {type: string, nullable: true}, b: {type: string}}";
    let numbers = "type: object, additionalProperties: {type: integer, x-kubernetes-validations: [{rule: self > 0}]}";
    let invalid = |path: &str, kind: &str, why: &str| format!("{path}: Invalid value: \"{kind}\": {why}");
    for (of, old, new, expected) in [
        (integer("{rule: self > 2}"), "", "3", vec![]),
        (integer("{rule: self > 2}"), "", "1", vec![invalid("spec", "integer", "failed rule: self > 2")]),
        (integer("{rule: self > 2, message: ' because '}"), "", "1", vec![invalid("spec", "integer", "because")]),
        (
            integer("{rule: self > 2, messageExpression: \"'not ' + string(self)\"}"),
            "",
            "1",
            vec![invalid("spec", "integer", "not 1")],
        ),
        (
            integer("{rule: self > 2, message: m, reason: FieldValueForbidden}"),
            "",
            "1",
            vec!["spec: Forbidden: m".to_owned()],
        ),
        (
            integer("{rule: self > 2, message: m, reason: FieldValueRequired}"),
            "",
            "1",
            vec!["spec: Required value: m".to_owned()],
        ),
        (
            integer("{rule: self > 2, message: m, reason: FieldValueDuplicate}"),
            "",
            "1",
            vec!["spec: Duplicate value: \"integer\"".to_owned()],
        ),
        (integer("{rule: self >= oldSelf}"), "", "1", vec![]),
        (
            integer("{rule: self >= oldSelf}"),
            "2",
            "1",
            vec![invalid("spec", "integer", "failed rule: self >= oldSelf")],
        ),
        (integer("{rule: self >= oldSelf}"), "1", "2", vec![]),
        (
            of("x-kubernetes-int-or-string: true", "{rule: 'self == 1'}"),
            "",
            "2",
            vec![invalid("spec", "", "failed rule: self == 1")],
        ),
        (
            of(pair, "{rule: 'has(self.a)', fieldPath: .a, message: m}"),
            "",
            "{}",
            vec![invalid("spec.a", "object", "m")],
        ),
        (integer("{rule: '!oldSelf.hasValue() || self > oldSelf.value()', optionalOldSelf: true}"), "", "1", vec![]),
        (
            integer("{rule: '!oldSelf.hasValue() || self > oldSelf.value()', optionalOldSelf: true}"),
            "2",
            "1",
            vec![invalid("spec", "integer", "failed rule: !oldSelf.hasValue() || self > oldSelf.value()")],
        ),
        (integer("{rule: oldSelf.orValue(9) > 5 || 'oldSelf' == '', optionalOldSelf: true}"), "", "1", vec![]),
        // A named field that is null is not there.
        (of(pair, "{rule: '!has(self.a)'}"), "", "{a: null}", vec![]),
        (
            of(pair, "{rule: self.a == self.b}"),
            "",
            "{a: x}",
            vec![invalid("spec", "object", "no such key: b evaluating rule: self.a == self.b")],
        ),
        (format!("{{{numbers}}}"), "", "{k: 0}", vec![invalid("spec[k]", "integer", "failed rule: self > 0")]),
    ] {
        let old = (!old.is_empty()).then(|| object(old));
        assert_eq!(messages(&schema(&of), &object(new), old.as_ref()), expected, "{of} {new}");
    }
}

#[test]
fn old_and_new_elements_belong_together_by_key() {
    let of = "{type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, \
              properties: {k: {type: string}, v: {type: integer, x-kubernetes-validations: [{rule: self >= oldSelf}]}}}}";
    let found = |old: &str, new: &str| messages(&schema(of), &object(new), Some(&object(old)));
    assert!(found("[{k: a, v: 1}, {k: b, v: 9}]", "[{k: b, v: 9}, {k: a, v: 2}, {k: c, v: 0}]").is_empty());
    assert_eq!(
        found("[{k: a, v: 3}]", "[{k: b, v: 1}, {k: a, v: 2}]"),
        ["spec[1].v: Invalid value: \"integer\": failed rule: self >= oldSelf"]
    );
}

#[test]
fn rules_wait_until_the_shape_is_right() {
    let of =
        "{type: object, required: [b], properties: {a: {type: integer, x-kubernetes-validations: [{rule: self > 2}]}}}";
    assert_eq!(
        messages(&schema(of), &object("{a: 1}"), None),
        [
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct \
             the existing errors to complete validation",
            "spec.b: Required value",
        ]
    );
}

#[test]
fn parts_name_their_place() {
    let of = Schema::parse(&yaml("{type: object, properties: {a: {type: array, items: {type: string}}}}"));
    let found: Vec<String> =
        of.validate_part(&json!({"a": [1]}), "x.default").iter().map(ToString::to_string).collect();
    assert_eq!(found, ["x.default.a[0]: Invalid value: \"integer\": a[0] in body must be of type string: \"integer\""]);
}

/// JSON of some depth, with the keys that the schemas below know.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..5).prop_map(Value::from),
        Just(json!(1.5)),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const EVERYTHING: &str = "
type: object
properties:
  a: {type: string, default: x, pattern: '^a', nullable: true}
  b: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [a], items: {type: object, default: {}, properties: {a: {type: string}, b: {type: integer, default: 1, minimum: 2}}}}
  c: {type: object, additionalProperties: {x-kubernetes-int-or-string: true}, anyOf: [{required: [a]}, {minProperties: 2}]}
  d: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
x-kubernetes-validations: [{rule: \"!has(self.a) || self.a != 'b'\"}]
";

proptest! {
    #[test]
    fn pruning_and_defaulting_settle_at_once(spec in any_json()) {
        let schema = schema(EVERYTHING);
        let mut once = json!({"spec": spec});
        schema.prune(&mut once);
        schema.fill_defaults(&mut once);
        let mut twice = once.clone();
        schema.prune(&mut twice);
        prop_assert_eq!(&twice, &once);
        prop_assert!(schema.unknown_fields(&once).is_empty());
        schema.fill_defaults(&mut twice);
        prop_assert_eq!(&twice, &once);
    }

    #[test]
    fn validation_never_panics(object in any_json(), old in any_json()) {
        let schema = Schema::parse(&yaml(EVERYTHING));
        let _ = schema.validate(&object, Some(&old));
        let _ = schema.validate_part(&object, "default");
    }

    #[test]
    fn an_object_that_is_as_it_was_is_fine(object in any_json()) {
        let schema = Schema::parse(&yaml(
            "{type: object, required: [d], minProperties: 3, properties: {a: {type: string, maxLength: 1}, b: {type: array, \
             maxItems: 0, items: {type: object, additionalProperties: {type: integer}}}}, additionalProperties: false, \
             x-kubernetes-validations: [{rule: 'has(self.a) && self.a == \"b\"'}]}",
        ));
        let mut object = object;
        schema.prune(&mut object);
        schema.fill_defaults(&mut object);
        let found = schema.validate(&object, Some(&object));
        prop_assert!(found.is_empty(), "{found:?}");
    }
}
