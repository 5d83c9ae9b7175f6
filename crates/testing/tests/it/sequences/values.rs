//! Values by schemas: those of the Promise's CRD and of the APIs of published Promises.

use kratix_testing::faults::Seed;
use serde_json::{Map, Value, json};

use crate::scenario::{api, namespace, pipeline};

/// What is taken from the Promises of the marketplace: the schema of a request's spec, and the names of the pipelines.
const PUBLISHED: [(&str, &str); 10] = [
    ("app-as-a-service", include_str!("../../data/promises/app-as-a-service.json")),
    ("jenkins", include_str!("../../data/promises/jenkins.json")),
    ("kafka", include_str!("../../data/promises/kafka.json")),
    ("mongodb-full", include_str!("../../data/promises/mongodb-full.json")),
    ("namespace", include_str!("../../data/promises/namespace.json")),
    ("nginx-ingress", include_str!("../../data/promises/nginx-ingress.json")),
    ("redis", include_str!("../../data/promises/redis.json")),
    ("slack", include_str!("../../data/promises/slack.json")),
    ("sql-aws", include_str!("../../data/promises/sql-aws.json")),
    ("vault", include_str!("../../data/promises/vault.json")),
];
const WORDS: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
/// Images of containers that do their work.
pub(super) const IMAGES: [&str; 3] = ["one", "two", "three"];
/// Images of containers that do not, each in its way.
const BROKEN: [&str; 3] = ["fail", "stuck", "retry"];

/// What a published Promise has that matters here.
pub(super) struct Published {
    pub(super) name: &'static str,
    document: Value,
}

impl Published {
    /// Returns all of them in turn.
    pub(super) fn of(number: u64) -> Self {
        let count = u64::try_from(PUBLISHED.len()).unwrap();
        let (name, text) = PUBLISHED[usize::try_from(number % count).unwrap()];
        Self { name, document: serde_json::from_str(text).unwrap() }
    }

    /// Returns a spec for a request.
    pub(super) fn request(&self, seed: &mut Seed) -> Value {
        match &self.document["schema"] {
            Value::Null => json!({ "size": seed.choose(&WORDS) }),
            schema => value(schema, seed),
        }
    }

    /// Returns the fields of the Promise as they are published.
    pub(super) fn fields(&self) -> Vec<(String, Value)> {
        let mut fields =
            vec![("/destinationSelectors".to_owned(), json!([{ "matchLabels": { "environment": "dev" } }]))];
        if !self.document["schema"].is_null() {
            fields.push(("/api".to_owned(), self.api(false, None)));
        }
        for workflow in ["promise", "resource"] {
            for action in ["configure", "delete"] {
                let names = self.names(workflow, action);
                if !names.is_empty() {
                    let pipelines = names.iter().map(|name| with_image(pipeline(name), IMAGES[0])).collect();
                    fields.push((format!("/workflows/{workflow}/{action}"), pipelines));
                }
            }
        }
        fields
    }

    fn names(&self, workflow: &str, action: &str) -> Vec<&str> {
        let names = self.document["workflows"][workflow][action].as_array();
        names.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Returns the API, with another field of the spec and another version if wanted; that version may be the stored one.
    fn api(&self, is_coloured: bool, second_is_stored: Option<bool>) -> Value {
        let mut api = api("Env", "envs");
        let versions = &mut api["spec"]["versions"];
        let spec = &mut versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        if !self.document["schema"].is_null() {
            *spec = self.document["schema"].clone();
        }
        if is_coloured {
            spec["properties"]["colour"] = json!({ "type": "string", "default": "blue" });
        }
        if let Some(is_stored) = second_is_stored {
            let mut second = versions[0].clone();
            second["name"] = json!("v2");
            second["storage"] = json!(is_stored);
            versions[0]["storage"] = json!(!is_stored);
            versions.as_array_mut().unwrap().push(second);
        }
        api
    }

    /// Returns a value for a field of a Promise's spec.
    pub(super) fn field(&self, field: &str, seed: &mut Seed) -> Value {
        let of = |environment: &str| json!({ "matchLabels": { "environment": environment } });
        match field {
            "/api" => {
                let second = [None, None, Some(false), Some(true)];
                self.api(seed.below(2) == 1, *seed.choose(&second))
            }
            "/dependencies" => dependencies(seed),
            "/destinationSelectors" => {
                let all = [json!([of("dev")]), json!([of("dev"), of("prod")]), json!([of("prod")])];
                seed.choose(&all).clone()
            }
            "/requiredPromises" => seed.choose(&[json!([]), json!([{ "name": "base", "version": "v1.0.0" }])]).clone(),
            "/workflows/config/pipelineNamespace" => seed.choose(&[json!("team"), Value::Null]).clone(),
            "/workflows/config/reconciliationInterval" => {
                seed.choose(&[json!("2h"), json!("24h"), Value::Null]).clone()
            }
            "/workflows/promise/configure" => self.pipelines("promise", &["p-build", "p-test"], seed),
            "/workflows/promise/delete" => last_pipeline("p-clean", seed),
            "/workflows/resource/configure" => self.pipelines("resource", &["build", "test", "make"], seed),
            "/workflows/resource/delete" => last_pipeline("clean", seed),
            unknown => panic!("the schema of Promises has {unknown}, for which no values are made here"),
        }
    }

    /// Returns up to three pipelines in any order, most of the time with images that do their work.
    fn pipelines(&self, workflow: &str, more: &[&str], seed: &mut Seed) -> Value {
        let mut names: Vec<&str> = self.names(workflow, "configure").into_iter().chain(more.iter().copied()).collect();
        names.sort_by_cached_key(|_| seed.draw());
        names.truncate(seed.below(4));
        names
            .iter()
            .map(|name| {
                let image = if seed.below(6) == 0 { seed.choose(&BROKEN) } else { seed.choose(&IMAGES) };
                any_pipeline(name, image, seed)
            })
            .collect()
    }
}

/// Returns the fields of a Promise's spec as its CRD has them: pointers to whatever has no fields of its own.
pub(super) fn fields() -> Vec<String> {
    let crd = kratix_api::crd::documents().into_iter().find(|crd| crd["spec"]["names"]["kind"] == "Promise").unwrap();
    let mut found = Vec::new();
    collect("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
    found
}

fn collect(pointer: &str, schema: &Value, found: &mut Vec<String>) {
    match schema["properties"].as_object() {
        Some(properties) => {
            properties.iter().for_each(|(name, schema)| collect(&format!("{pointer}/{name}"), schema, found));
        }
        None => found.push(pointer.to_owned()),
    }
}

pub(super) fn with_image(mut pipeline: Value, image: &str) -> Value {
    pipeline["spec"]["containers"][0]["image"] = json!(image);
    pipeline
}

fn last_pipeline(name: &str, seed: &mut Seed) -> Value {
    let count = seed.below(2);
    (0..count)
        .map(|_| {
            let image = *seed.choose(&IMAGES);
            any_pipeline(name, image, seed)
        })
        .collect()
}

/// Returns a pipeline with some of the fields that it may have.
fn any_pipeline(name: &str, image: &str, seed: &mut Seed) -> Value {
    let mut pipeline = with_image(pipeline(name), image);
    let spec = &mut pipeline["spec"];
    if seed.below(2) == 1 {
        spec["containers"][0]["env"] = json!([{ "name": "FLAVOUR", "value": seed.choose(&WORDS) }]);
    }
    if seed.below(4) == 0 {
        let another = json!({ "name": "another", "image": seed.choose(&IMAGES), "command": ["run"] });
        spec["containers"].as_array_mut().unwrap().push(another);
    }
    if seed.below(3) == 0 {
        let verbs = seed.choose(&[json!(["get"]), json!(["get", "list"])]).clone();
        let mut permission = json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs });
        if let Some(elsewhere) = seed.choose(&[None, Some("team"), Some("*")]) {
            permission["resourceNamespace"] = json!(elsewhere);
        }
        spec["rbac"] = json!({ "permissions": [permission] });
    }
    if seed.below(3) == 0 {
        spec["jobOptions"] = json!({ "backoffLimit": seed.below(3) });
    }
    if seed.below(4) == 0 {
        spec["nodeSelector"] = json!({ "disk": seed.choose(&WORDS) });
        spec["volumes"] = json!([{ "name": "space", "emptyDir": {} }]);
    }
    if seed.below(4) == 0 {
        pipeline["metadata"]["labels"] = json!({ "team": seed.choose(&WORDS) });
        pipeline["metadata"]["annotations"] = json!({ "note": seed.choose(&WORDS) });
    }
    pipeline
}

fn dependencies(seed: &mut Seed) -> Value {
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings", "namespace": "default" },
        "data": { "flavour": seed.choose(&WORDS) },
    });
    let mut all = vec![namespace("from-the-promise"), namespace("another-one"), config];
    all.sort_by_cached_key(|_| seed.draw());
    all.truncate(seed.below(4));
    Value::Array(all)
}

/// Returns a value that is valid by a schema.
fn value(schema: &Value, seed: &mut Seed) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        return seed.choose(allowed).clone();
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, seed),
        Some("array") => (0..seed.below(3)).map(|_| value(&schema["items"], seed)).collect(),
        Some("integer") => json!(seed.below(100)),
        Some("boolean") => json!(seed.below(2) == 1),
        Some("string") => json!(text(schema["pattern"].as_str(), seed)),
        other => panic!("no values are made here for the type {other:?}"),
    }
}

fn object(schema: &Value, seed: &mut Seed) -> Value {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut object = Map::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if required.contains(&name.as_str()) || seed.below(2) == 1 {
            object.insert(name.clone(), value(property, seed));
        }
    }
    if schema["additionalProperties"].is_object() {
        let names = ["one", "two"].iter().take(seed.below(3));
        object.extend(names.map(|name| ((*name).to_owned(), value(&schema["additionalProperties"], seed))));
    }
    Value::Object(object)
}

/// Returns a text for the patterns that occur: alternatives, and words with or without a slash.
fn text(pattern: Option<&str>, seed: &mut Seed) -> String {
    let alternatives = pattern.and_then(|pattern| pattern.strip_prefix("^(")?.strip_suffix(")$"));
    match alternatives {
        Some(alternatives) => {
            alternatives.split('|').nth(seed.below(alternatives.split('|').count())).unwrap_or_default().to_owned()
        }
        None if pattern.is_some_and(|pattern| pattern.contains("\\/")) => format!("/{}", seed.choose(&WORDS)),
        None => (*seed.choose(&WORDS)).to_owned(),
    }
}

#[test]
fn every_field_of_a_promise_has_values() {
    let (mut seed, fields) = (Seed::new(1), fields());
    assert!(fields.iter().any(|field| field == "/workflows/resource/delete") && fields.len() >= 10, "{fields:?}");
    for number in 0..10 {
        let published = Published::of(number);
        fields.iter().for_each(|field| drop(published.field(field, &mut seed)));
        published.request(&mut seed);
    }
}
