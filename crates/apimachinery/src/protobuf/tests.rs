//! Real bodies, broken bodies. What the decoder makes of bodies was compared with the Go types for some 30,000 random
//! objects of all kinds; `samples.txt` keeps what kubectl sends.

use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Value, json};

use super::{Error, MAGIC, decode};

struct Sample {
    title: &'static str,
    body: Vec<u8>,
    json: Value,
}

fn samples() -> Vec<Sample> {
    let blocks = include_str!("samples.txt").split("\n\n").skip(1);
    let sample = |block: &'static str| {
        let mut lines = block.trim().lines();
        let title = lines.next().unwrap();
        let (hex, json): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with(' '));
        let hex: String = hex.into_iter().map(str::trim).collect();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let body = (0..hex.len()).step_by(2).map(byte).collect();
        Sample { title, body, json: serde_json::from_str(&json.concat()).unwrap() }
    };
    blocks.map(sample).collect()
}

fn sample(title: &str) -> Sample {
    samples().into_iter().find(|sample| sample.title == title).unwrap_or_else(|| panic!("no sample {title}"))
}

/// Bytes of a message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn bytes(mut self, number: u32, content: impl AsRef<[u8]>) -> Self {
        encode_key(number, WireType::LengthDelimited, &mut self.0);
        encode_varint(content.as_ref().len() as u64, &mut self.0);
        self.0.extend_from_slice(content.as_ref());
        self
    }

    fn message(self, number: u32, content: Message) -> Self {
        self.bytes(number, content.0)
    }

    fn number(mut self, number: u32, value: u64) -> Self {
        encode_key(number, WireType::Varint, &mut self.0);
        encode_varint(value, &mut self.0);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

fn message() -> Message {
    Message::default()
}

fn body(api_version: &str, kind: &str, object: Message) -> Vec<u8> {
    let envelope = message().message(1, message().bytes(1, api_version).bytes(2, kind)).message(2, object);
    [MAGIC, &envelope.0].concat()
}

fn config_map(object: Message) -> Result<Value, Error> {
    decode(&body("v1", "ConfigMap", object))
}

fn malformed(message: &str) -> Error {
    Error::Malformed { message: message.to_owned() }
}

#[test]
fn bodies_of_kubectl_say_what_the_command_said() {
    let samples = samples();
    assert_eq!(samples.len(), 30);
    for Sample { title, body, json } in samples {
        assert_eq!(decode(&body).unwrap_or_else(|error| panic!("{title}: {error}")), json, "{title}");
    }
}

#[test]
fn objects_of_kubectl_are_valid_as_they_are() {
    for Sample { title, body, .. } in samples().into_iter().filter(|sample| sample.title.starts_with('$')) {
        let object = decode(&body).unwrap();
        let api_version = object["apiVersion"].as_str().unwrap();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some(resource) = crate::builtin::find_kind(group, version, object["kind"].as_str().unwrap()) else {
            assert!(title.contains("token"), "{title}");
            continue;
        };
        let mut warnings = Vec::new();
        let strict = crate::decode::FieldValidation::Strict;
        let mut object =
            resource.decode(object, &[], strict, &mut warnings).unwrap_or_else(|why| panic!("{title}: {why}"));
        if resource.namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        resource.default(&mut object);
        resource.prepare_create(&mut object, "u-1", jiff::Timestamp::UNIX_EPOCH);
        let errors = if resource.is_stored() { resource.validate_create(&object) } else { Vec::new() };
        assert!(errors.is_empty() && warnings.is_empty(), "{title}: {errors:?} {warnings:?}");
    }
}

#[test]
fn fields_that_are_not_known_are_skipped() {
    let object = message()
        .number(99, u64::MAX)
        .bytes(98, "x")
        .raw(&[0xfd, 0x01, 1, 2, 3, 4]) // field 31, 32 bits
        .raw(&[0xf9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]) // field 31, 64 bits
        .raw(&[0xfb, 0x01, 0x08, 0x01, 0xfc, 0x01]) // field 31, a group that holds a number
        .message(1, message().bytes(1, "a").bytes(77, "x"));
    assert_eq!(config_map(object), Ok(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})));
}

#[test]
fn what_comes_twice_is_merged() {
    let entry = |key: &str, value: &str| message().bytes(1, key).bytes(2, value);
    let object = message()
        .message(1, message().bytes(1, "a").bytes(3, "ns"))
        .message(2, entry("k", "1"))
        .message(1, message().bytes(1, "b").message(11, entry("l", "v")))
        .message(2, entry("k", "2"))
        .message(2, message());
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"": "", "k": "2"},
        "metadata": {"name": "b", "namespace": "ns", "labels": {"l": "v"}}});
    assert_eq!(config_map(object), Ok(expected));
}

#[test]
fn zero_is_kept_where_json_would_keep_it() {
    let spec = message().number(1, 0).number(7, 0);
    let job = decode(&body("batch/v1", "Job", message().message(2, spec))).unwrap();
    assert_eq!(job["spec"], json!({"parallelism": 0, "backoffLimit": 0}));
    let status = message().number(4, 0).number(5, 2);
    let job = decode(&body("batch/v1", "Job", message().message(3, status))).unwrap();
    assert_eq!(job["status"], json!({"succeeded": 2}));
}

#[test]
fn lists_of_numbers_may_be_packed() {
    let pod =
        |context: Message| decode(&body("v1", "Pod", message().message(2, message().message(14, context)))).unwrap();
    let expected = json!({"supplementalGroups": [1, 300, -1]});
    let packed = message().bytes(4, [[1].as_slice(), &[0xac, 2], &[0xff; 9], &[1]].concat());
    assert_eq!(pod(packed)["spec"]["securityContext"], expected);
    let single = message().number(4, 1).number(4, 300).number(4, u64::MAX);
    assert_eq!(pod(single)["spec"]["securityContext"], expected);
}

#[test]
fn mistakes_name_the_message_they_are_in() {
    let field = |number: u32, content: &[u8]| message().bytes(number, content);
    for (object, expected) in [
        (message().raw(&[0x0a, 5, 1]), "core.ConfigMap"), // longer than the body
        (message().raw(&[0x0a]), "core.ConfigMap"),       // no length
        (message().raw(&[0x0a, 0xff, 0xff]), "core.ConfigMap"), // half a length
        (message().raw(&[0xff; 12]), "core.ConfigMap"),   // an endless number
        (message().raw(&[0x00, 0x00]), "core.ConfigMap"), // field 0
        (message().raw(&[0x0e]), "core.ConfigMap"),       // wire type 6
        (message().raw(&[0xfc, 0x01]), "core.ConfigMap"), // the end of no group
        (message().raw(&[0xfb, 0x01]), "core.ConfigMap"), // a group without an end
        (message().raw(&[0xfb, 0x01].repeat(500)), "core.ConfigMap"), // groups in groups
        (message().number(1, 7), "core.ConfigMap"),       // metadata is a message
        (field(2, &[0x0a, 1, 0xff]), "core.ConfigMap"),   // a key that is not UTF-8
        (field(1, &[0x0a, 1, 0xff]), "meta.ObjectMeta"),  // a name that is not UTF-8
        (field(1, &[0x3a, 0]), "meta.ObjectMeta"),        // generation is a number
        (field(1, &[0x42, 2, 0x08, 0x80]), "meta.ObjectMeta"), // half a time
        (message().message(1, message().message(8, message().number(1, 1 << 60))), "meta.ObjectMeta"), // far future
        (message().message(1, message().message(8, message().number(2, 1 << 40))), "meta.ObjectMeta"), // nanoseconds
        (
            message().message(1, message().message(17, message().message(7, message().bytes(1, "{")))),
            "meta.ManagedFieldsEntry", // JSON that is none
        ),
    ] {
        assert_eq!(config_map(object), Err(malformed(expected)));
    }
}

#[test]
fn envelopes_are_checked() {
    assert_eq!(decode(b""), Err(Error::Magic));
    assert_eq!(decode(b"{}"), Err(Error::Magic));
    assert_eq!(decode(b"k8s\0\x0a"), Err(malformed("runtime.Unknown")));
    assert_eq!(decode(b"k8s\0\x08\x01"), Err(malformed("runtime.Unknown")));
    assert_eq!(decode(b"k8s\0\x0a\x03\x0a\x01\xff"), Err(malformed("runtime.TypeMeta")));
    for (api_version, kind) in [("", ""), ("v1", "Unheard"), ("apps/v1", "Pod"), ("example.com/v1", "Db")] {
        let expected = Error::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        assert_eq!(decode(&body(api_version, kind, message())), Err(expected));
    }
    let envelope = message().message(1, message().bytes(1, "v1").bytes(2, "Pod")).bytes(3, "gzip").bytes(4, "x/y");
    assert_eq!(decode(&[MAGIC, &envelope.0].concat()), Ok(json!({"apiVersion": "v1", "kind": "Pod"})));
}

#[test]
fn options_are_known_in_every_group() {
    let object = message().number(1, 0).bytes(4, "Orphan");
    let expected = json!({"apiVersion": "example.com/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
        "propagationPolicy": "Orphan"});
    assert_eq!(decode(&body("example.com/v1", "DeleteOptions", object)), Ok(expected));
}

#[test]
fn a_body_cut_anywhere_is_refused_or_read_as_less() {
    for title in ["a pod that uses much of what a pod can say", "$ kubectl create job again --from=cronjob/nightly"] {
        let body = sample(title).body;
        for len in 0..body.len() {
            let _ = decode(&body[..len]);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode(&body("v1", "Pod", message().raw(&bytes)));
        let _ = decode(&body("batch/v1", "Job", message().message(2, message().message(6, message().raw(&bytes)))));
    }

    #[test]
    fn damaged_bodies_never_panic(
        at in any::<prop::sample::Index>(),
        which in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let samples = samples();
        let mut body = which.get(&samples).body.clone();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode(&body);
    }
}
