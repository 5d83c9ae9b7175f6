//! The 78 recorded writes against the running platform: what a client sees of each is what was recorded.
//!
//! Differences that are meant are listed, each with its reason, in the file that the tests of the rules read as well.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kratix_api::{Promise, PromiseRevision};
use kratix_testing::wait;
use kube::api::{DeleteParams, GetParams, PostParams, Request};
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world::{World, promise, reference};

const DIFFERENCES: &str = include_str!("../../../core/src/admission/tests/differences.yaml");
/// Where the recorded documents were served.
const RECORDED_HOST: &str = "127.0.0.1:18017";
/// Stands for the random part of a name in the records.
const SUFFIX: &str = "<sfx>";
const SUFFIX_BYTES: usize = 5;

/// Serves the files of a directory until the test ends; returns host and port.
async fn serve(directory: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let file = request.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, body) = match std::fs::read(directory.join(file)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
        }
    });
    address
}

/// Returns the URL path of the objects of a kind.
fn collection(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let plural = format!("{}s", text("/kind").to_lowercase());
    match text("/metadata/namespace") {
        "" => format!("/apis/{}/{plural}", text("/apiVersion")),
        namespace => format!("/apis/{}/namespaces/{namespace}/{plural}", text("/apiVersion")),
    }
}

/// Sends a request and returns what a client sees, in the form of the records.
async fn send(client: &Client, request: Request, case: &Value) -> Value {
    let object = &case["object"];
    let name = object["metadata"]["name"].as_str().unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let request = match case["operation"].as_str().unwrap() {
        "CREATE" => request.create(&dry_run, object.to_string().into_bytes()).unwrap(),
        "UPDATE" => {
            let live: Value = client.request(request.get(name, &GetParams::default()).unwrap()).await.unwrap();
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
            request.replace(name, &dry_run, object.to_string().into_bytes()).unwrap()
        }
        _ => request.delete(name, &DeleteParams { dry_run: true, ..DeleteParams::default() }).unwrap(),
    };
    let response = client.send(request.map(Body::from)).await.unwrap();
    let code = response.status().as_u16();
    let warnings: Vec<String> = response
        .headers()
        .get_all("warning")
        .iter()
        .map(|value| {
            let text = value.to_str().unwrap().strip_prefix("299 - ").unwrap();
            serde_json::from_str(text).unwrap()
        })
        .collect();
    let body: Value = serde_json::from_slice(&response.into_body().collect_bytes().await.unwrap()).unwrap();
    let mut shown = json!({ "code": code });
    if code < 400 {
        shown["allowed"] = json!(true);
    } else {
        assert_eq!(
            [&body["kind"], &body["apiVersion"], &body["status"], &body["code"]],
            [&json!("Status"), &json!("v1"), &json!("Failure"), &json!(code)],
            "{}: {body}",
            case["case"]
        );
        for key in ["reason", "message", "details"] {
            shown[key] = body[key].clone();
        }
    }
    if !warnings.is_empty() {
        shown["warnings"] = json!(warnings);
    }
    shown.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    shown
}

/// Returns the text with placeholders where the record has them.
fn with_placeholders(found: &str, recorded: &str) -> String {
    let (mut text, mut rest) = (String::new(), found);
    for (index, part) in recorded.split(SUFFIX).enumerate() {
        if index > 0 {
            match rest.split_at_checked(SUFFIX_BYTES) {
                Some((suffix, after)) if suffix.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest = after,
                _ => return found.to_owned(),
            }
            text.push_str(SUFFIX);
        }
        let Some(after) = rest.strip_prefix(part) else { return found.to_owned() };
        text.push_str(part);
        rest = after;
    }
    text + rest
}

/// Returns what differs, by case; those of the server, which come last, win.
fn differences() -> BTreeMap<String, Value> {
    let listed: Vec<Value> = serde_saphyr::from_str(DIFFERENCES).unwrap();
    let named = |difference: Value| (difference["case"].as_str().unwrap().to_owned(), difference["now"].clone());
    listed.into_iter().map(named).collect()
}

/// Returns what is expected: what was recorded, changed by what differs on purpose.
fn expected(case: &Value, differences: &BTreeMap<String, Value>) -> Value {
    let mut expected = case.clone();
    let members = expected.as_object_mut().unwrap();
    for key in ["case", "object", "operation"] {
        members.remove(key);
    }
    let difference = differences.get(case["case"].as_str().unwrap());
    for (key, value) in difference.into_iter().flat_map(|now| now.as_object().unwrap()) {
        members.insert(key.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_write_is_answered_as_it_was() {
    let Some(lines) = reference("golden/17-admission/denials.jsonl") else { return };
    let served =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/reference/golden/17-admission/served");
    let host = serve(served).await;
    let world = World::start().await;
    if !world.is_embedded() {
        return;
    }
    for file in ["01-setup.yaml", "02-promise.yaml", "03-required-promise.yaml"] {
        world.apply(&reference(&format!("golden/17-admission/input/{file}")).unwrap()).await;
    }
    world.promise_available("g-17").await;
    world.promise_available("g-17-req").await;
    let revisions = Api::<PromiseRevision>::all(world.hub());
    for name in ["g-17-5a7f3", "g-17-req-6654c"] {
        wait::until(&revisions, name, "the revision to be the latest", PromiseRevision::is_latest).await;
    }
    let client = world.hub();
    let differences = differences();
    let (mut cases, mut wrong) = (0, Vec::new());
    for line in lines.lines() {
        let case: Value = serde_json::from_str(&line.replace(RECORDED_HOST, &host)).unwrap();
        let expected = expected(&case, &differences);
        let mut shown = send(&client, Request::new(collection(&case["object"])), &case).await;
        for _ in 0..5 {
            // Kratix may still be at work on the object: the version that the update is based on is gone.
            if shown["code"] == 409 && expected["code"] != 409 {
                shown = send(&client, Request::new(collection(&case["object"])), &case).await;
            }
        }
        if let (Some(found), Some(recorded)) = (shown["message"].as_str(), expected["message"].as_str()) {
            shown["message"] = json!(with_placeholders(found, recorded));
        }
        if shown != expected {
            wrong.push(format!("{}\n  shown    {shown}\n  expected {expected}", case["case"]));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{} of {cases}\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cases, 78);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_whose_namespace_is_gone_can_be_labelled_and_deleted() {
    let world = World::start().await;
    if !world.is_embedded() {
        return;
    }
    world.kubectl().run("create namespace team").await.ok();
    let document = promise("thing", "Thing", "true")
        .replace("  workflows:\n", "  workflows:\n    config: {pipelineNamespace: team}\n");
    world.apply(&document).await;
    world.promise_available("thing").await;
    world.kubectl().run("delete namespace team").await.ok();
    world.kubectl().run("label promise thing a=b").await.ok();
    let changed = document.replace("image: kratix.local/host", "image: other");
    let text = world.kubectl().apply(&changed).await.refused();
    assert!(text.contains("failed to generate Job definition: \nnamespaces \"team\" not found"), "{text}");
    world.kubectl().run("delete promise thing --timeout=60s").await.ok();
    wait::gone(&Api::<Promise>::all(world.hub()), "thing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_warnings_and_denials() {
    let world = World::start().await;
    if !world.is_embedded() {
        return;
    }
    let document = promise("thing", "Thing", "true")
        .replace("spec:\n  api:", "spec:\n  requiredPromises: [{name: absent}]\n  api:");
    let output = world.kubectl().apply(&document).await;
    assert!(output.success, "{}", output.stderr);
    let expected = "Warning: Required Promise \"absent\" at version \"\" not installed\nWarning: Promise will not be available \
                    until the above issue(s) is resolved\n";
    assert_eq!(output.stderr, expected);

    let revisions = Api::<PromiseRevision>::all(world.hub());
    wait::until(&revisions, "thing-5a7f3", "the revision to be the latest", PromiseRevision::is_latest).await;
    let text = world.kubectl().run("delete promiserevision thing-5a7f3").await.refused();
    assert_eq!(
        text,
        "Error from server (Forbidden): admission webhook \"vpromiserevision-v1alpha1.kb.io\" denied the request: can not \
         delete the latest PromiseRevision\n"
    );
    let file = "
apiVersion: platform.kratix.io/v1alpha1
kind: Destination
metadata: {name: one}
spec:
  path: one
  filepath: {mode: aggregatedYAML}
  stateStoreRef: {kind: GitStateStore, name: default}
";
    world.apply(file).await;
    let name = world.kubectl().run("get destination one -o jsonpath={.spec.filepath.filename}").await.ok();
    assert_eq!(name, "aggregated.yaml");
}
