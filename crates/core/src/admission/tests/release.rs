//! Rules of PromiseReleases that the recorded cases do not reach.

use super::*;

const URL: &str = "https://example.com/promise.yaml";
const PROMISE: &str = "apiVersion: platform.kratix.io/v1alpha1\nkind: Promise\nmetadata:\n  name: x\n  labels: \
                       {kratix.io/promise-version: v1}\nspec: {}\n";

fn release(source: Value) -> Value {
    object("PromiseRelease", "r", json!({"version": "v1", "sourceRef": source}))
}

fn at(url: &str) -> Value {
    release(json!({"type": "http", "url": url}))
}

fn document(text: &str) -> Answer {
    Answer::Document { status: 200, body: text.as_bytes().to_vec() }
}

#[test]
fn a_secret_gives_the_header_and_the_authority_of_the_download() {
    let secret = |data: Value| {
        let metadata = json!({"name": "s", "namespace": "n"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    };
    let with_secret = release(json!({"url": URL, "secretRef": {"name": "s", "namespace": "n"}}));
    for (data, authorization, ca_pem) in [
        (json!({"authorizationHeader": "QmVhcmVyIHg=", "caFile": "cGVt"}), Some("Bearer x"), Some("pem")),
        (json!({"authorizationHeader": ""}), None, None),
        (json!({"other": "eA=="}), None, None),
    ] {
        let mut world = World::of([secret(data)]).serving(URL, document(PROMISE));
        assert_eq!(world.warnings(with_secret.clone()), Vec::<String>::new());
        let Some(Question::Download(download)) = world.asked.last() else { panic!("{:#?}", world.asked) };
        assert_eq!(download.authorization.as_deref(), authorization);
        assert_eq!(download.ca_pem.as_deref(), ca_pem.map(str::as_bytes));
        assert!(!format!("{:?}", world.asked).contains("Bearer"));
    }
}

#[test]
fn a_reference_to_a_secret_needs_both_parts() {
    for (reference, missing) in
        [(json!({"name": "s"}), "namespace"), (json!({"namespace": "n"}), "name"), (json!({}), "name")]
    {
        let mut world = World::default();
        let message = world.denial(release(json!({"url": URL, "secretRef": reference})));
        assert_eq!(message, format!("spec.sourceRef.secretRef must contain secret {missing}"));
        assert_eq!(world.asked, []);
    }
}

#[test]
fn only_what_heals_by_itself_is_a_warning() {
    for (answer, passes) in [
        (Answer::Document { status: 503, body: Vec::new() }, true),
        (Answer::Document { status: 429, body: Vec::new() }, true),
        (Answer::Document { status: 401, body: Vec::new() }, false),
        (Answer::Document { status: 204, body: Vec::new() }, false),
        (Answer::Unreachable { message: "no route".into(), is_passing: true }, true),
        (Answer::Unreachable { message: "who is this".into(), is_passing: false }, false),
    ] {
        match World::default().serving(URL, answer.clone()).create(at(URL)) {
            Verdict::Allowed(allowed) if passes => {
                assert!(allowed.warnings[0].starts_with("Warning: failed to fetch promise: "), "{allowed:?}");
            }
            Verdict::Denied(denial) if !passes => {
                assert!(denial.message.starts_with("failed to fetch promise: "), "{denial:?}");
            }
            other => panic!("{answer:?}: {other:?}"),
        }
    }
}

#[test]
fn one_promise_is_read_out_of_what_is_served() {
    let bad_interval = PROMISE.replace("{}", "{workflows: {config: {reconciliationInterval: soon}}}");
    let cases = [
        (PROMISE.to_owned(), Ok(())),
        (format!("---\n{PROMISE}---\n# nothing\n"), Ok(())),
        (format!("{PROMISE}---\na: b\n"), Ok(())),
        (
            format!("{PROMISE}--- # next\nkind: Secret\n"),
            Err("expected single document yaml, but found multiple documents"),
        ),
        (r#"{"kind": "Promise", "metadata": {"labels": {"kratix.io/promise-version": "v1"}}}"#.to_owned(), Ok(())),
        ("- a\n".to_owned(), Err("failed to unmarshal into Kubernetes object: Object 'Kind' is missing")),
        ("kind: 7\n".to_owned(), Err("failed to unmarshal into Kubernetes object: Object 'Kind' is missing")),
        ("kind: Secret\n".to_owned(), Err("expected single Promise object but found object of kind: Secret")),
        (PROMISE.replace("{}", "{dependencies: {}}"), Err("failed to unmarshal into Promise: ")),
        (bad_interval, Err("failed to unmarshal into Promise: time: invalid duration \"soon\"")),
    ];
    for (text, expected) in cases {
        let verdict = World::default().serving(URL, document(&text)).create(at(URL));
        match expected {
            Ok(()) => assert_eq!(allowed(verdict), Vec::<String>::new(), "{text}"),
            Err(expected) => {
                let message = denied(verdict);
                assert!(message.contains(expected), "{text}: {message}");
            }
        }
    }
    let bytes = Answer::Document { status: 200, body: vec![0xff, 0xfe] };
    assert!(
        denied(World::default().serving(URL, bytes).create(at(URL))).contains("into Kubernetes object: invalid utf-8")
    );
}

#[test]
fn an_update_fetches_nothing() {
    let mut world = World::default();
    assert_eq!(allowed(world.update(at(URL), at("https://example.com/other.yaml"))), Vec::<String>::new());
    assert_eq!(denied(world.update(at(URL), at(""))), "sourceRef.url must be set");
    let labelled = with(at(""), &["metadata", "labels"], json!({"a": "b"}));
    assert_eq!(allowed(world.update(at(""), labelled)), Vec::<String>::new());
    assert_eq!(world.asked, []);
}

#[test]
fn what_is_no_promise_is_not_read_out() {
    for text in [
        "password: tiger\n",
        "[tiger]",
        "kind: see tiger\n",
        "tiger: [",
        "tiger: 1\ntiger: 2\n",
        "kind: Promise\na: *tiger\n",
        "a: \"tiger",
        "\ttiger: %",
    ] {
        let message = denied(World::default().serving(URL, document(text)).create(at(URL)));
        assert!(message.starts_with("failed to fetch promise: ") && !message.contains("tiger"), "{text}: {message}");
    }
}
