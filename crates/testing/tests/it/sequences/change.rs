//! What users change, and what there is afterwards.

use std::collections::BTreeMap;

use kratix_api::keys;
use serde_json::{Map, Value, json};

use super::values::{IMAGES, Published};
use crate::scenario::{Address, EXAMPLE, PLATFORM, Step, api, at, labels, promise_of, the_promise};
use crate::script::{ACT, TOLD};

/// Namespaces and names of the requests there may be; two have one name.
pub(super) const REQUESTS: [(&str, &str); 3] = [("default", "a"), ("default", "b"), ("team", "a")];

/// One change. Whatever there is when it is made, it can be made: a part of a sequence is a sequence.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// A field of the Promise's spec, by its pointer, gets another value; null takes it away. A Promise that is not there comes.
    Field(String, Value),
    /// The Promise gets another version.
    Version(&'static str),
    /// The Promise goes, and its requests with it.
    Remove,
    /// The Promise that may be required comes or goes.
    Base(bool),
    /// A request comes or changes; its pipelines do what is said.
    Request(usize, Value, &'static str),
    /// A request goes.
    Withdraw(usize),
    /// A request, or the Promise, is paused or goes on.
    Pause(Option<usize>, bool),
    /// By a label it is asked for another run of a request, or of the Promise.
    Again(Option<usize>, &'static str),
    /// So many Jobs are kept from now on.
    Keep(usize),
    /// The manager starts anew.
    Restart,
    /// A planted fault: something happens that is not noted.
    Unnoted(Value),
}

/// How long nobody changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Not,
    Calm,
    Rest,
}

#[derive(Clone, Debug, PartialEq)]
struct Request {
    spec: Value,
    /// What its pipelines do, if not their work.
    act: &'static str,
    is_paused: bool,
}

/// What users have said should be there.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    fields: BTreeMap<String, Value>,
    version: &'static str,
    is_there: bool,
    is_paused: bool,
    has_base: bool,
    /// The second version of the API was stored: it cannot be taken away any more.
    has_stored: bool,
    requests: BTreeMap<usize, Request>,
}

impl Wanted {
    pub(super) fn new(published: &Published) -> Self {
        Self {
            fields: published.fields().into_iter().collect(),
            version: "v1.0.0",
            is_there: false,
            is_paused: false,
            has_base: false,
            has_stored: false,
            requests: BTreeMap::new(),
        }
    }

    fn promise(&self) -> Value {
        let mut promise = promise_of("env", Value::Null, json!({}));
        promise["metadata"]["labels"] = json!({ keys::PROMISE_VERSION: self.version });
        if self.is_paused {
            promise["metadata"]["labels"][keys::PAUSED] = json!(keys::TRUE);
        }
        promise["spec"] = json!({});
        for (field, value) in &self.fields {
            let mut place = &mut promise["spec"];
            for name in field.trim_start_matches('/').split('/') {
                place = &mut place[name];
            }
            *place = value.clone();
        }
        promise
    }

    fn request(&self, number: usize) -> Value {
        let (Request { spec, act, is_paused }, (namespace, name)) = (&self.requests[&number], REQUESTS[number]);
        let (mut labels, mut annotations) = (Map::new(), Map::new());
        if *is_paused {
            labels.insert(keys::PAUSED.to_owned(), json!(keys::TRUE));
        }
        if !act.is_empty() {
            annotations.insert(ACT.to_owned(), json!(act));
        }
        json!({
            "apiVersion": EXAMPLE, "kind": "Env", "spec": spec,
            "metadata": { "name": name, "namespace": namespace, "labels": labels, "annotations": annotations },
        })
    }

    fn has_api(&self) -> bool {
        self.fields.contains_key("/api")
    }

    /// Returns which environment is selected: of what contradicts itself the first counts.
    fn selected(&self) -> Value {
        let selectors = self.fields.get("/destinationSelectors");
        selectors.map(|list| list[0]["matchLabels"]["environment"].clone()).unwrap_or_default()
    }

    /// Makes a change and returns what users do for it.
    pub(super) fn change(&mut self, change: &Change) -> Vec<Step> {
        match change {
            Change::Field(field, value) => self.set(field, value),
            Change::Version(version) => {
                self.version = version;
                self.applied()
            }
            Change::Remove if self.is_there => {
                let mut steps = self.go_on();
                (self.is_there, self.has_stored) = (false, false);
                self.requests.clear();
                steps.extend([Step::Delete(the_promise()), Step::Rest]);
                steps
            }
            Change::Base(true) => {
                self.has_base = true;
                vec![Step::Apply(base())]
            }
            Change::Base(false) if self.has_base => {
                self.has_base = false;
                vec![Step::Delete(at(PLATFORM, "Promise", "", "base")), Step::Rest]
            }
            Change::Request(number, spec, act) if self.is_there && self.has_api() => self.ask(*number, spec, act),
            Change::Withdraw(number) if self.requests.contains_key(number) => {
                let mut steps = self.go_on();
                self.requests.remove(number);
                steps.extend([Step::Delete(address(*number)), Step::Rest]);
                steps
            }
            Change::Pause(None, pauses) => {
                self.is_paused = self.is_there && *pauses;
                self.applied()
            }
            Change::Pause(Some(number), pauses) if self.requests.contains_key(number) => {
                self.requests.entry(*number).and_modify(|request| request.is_paused = *pauses);
                vec![Step::Apply(self.request(*number))]
            }
            Change::Again(None, key) if self.is_there => vec![patch(the_promise(), key, Some(keys::TRUE))],
            Change::Again(Some(number), _) if self.requests.contains_key(number) => {
                vec![patch(address(*number), keys::MANUAL_RECONCILIATION, Some(keys::TRUE))]
            }
            Change::Keep(jobs) => {
                let settings = json!({
                    "apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": { "name": "kratix", "namespace": keys::SYSTEM_NAMESPACE },
                    "data": { "config": format!("numberOfJobsToKeep: {jobs}\n") },
                });
                vec![Step::Apply(settings), Step::Restart]
            }
            Change::Restart => vec![Step::Restart],
            Change::Unnoted(object) => vec![Step::Apply(object.clone())],
            _ => Vec::new(),
        }
    }

    fn applied(&self) -> Vec<Step> {
        if self.is_there { vec![Step::Apply(self.promise())] } else { Vec::new() }
    }

    fn set(&mut self, field: &str, value: &Value) -> Vec<Step> {
        if field.starts_with("/workflows/resource") && !self.has_api() {
            return Vec::new();
        }
        let (had_api, selected, mut value) = (self.has_api(), self.selected(), value.clone());
        if field == "/api" {
            let versions = value["spec"]["versions"].as_array_mut().unwrap();
            if self.has_stored && versions.len() == 1 {
                let mut second = versions[0].clone();
                (second["name"], second["storage"]) = (json!("v2"), json!(false));
                versions.push(second);
            }
            self.has_stored |= versions.iter().any(|version| version["name"] == "v2" && version["storage"] == true);
        }
        match value {
            Value::Null => drop(self.fields.remove(field)),
            value => drop(self.fields.insert(field.to_owned(), value)),
        }
        if !self.is_there {
            return self.begin();
        }
        if self.selected() != selected {
            // What is placed stays where it is by contract, so that the way shows. Another Promise of this name tells nothing.
            let mut steps = self.change(&Change::Remove);
            steps.extend(self.begin());
            return steps;
        }
        let mut steps = Vec::new();
        if !had_api && self.has_api() {
            // Requests can be made from then on.
            self.is_paused = false;
            steps.push(Step::Apply(self.promise()));
            steps.push(Step::Rest);
        } else {
            steps.extend(self.applied());
        }
        steps
    }

    /// Makes a Promise that is not there, one that works.
    pub(super) fn begin(&mut self) -> Vec<Step> {
        (self.is_there, self.is_paused) = (true, false);
        self.heal_pipelines();
        vec![Step::Apply(self.promise()), Step::Rest]
    }

    fn ask(&mut self, number: usize, spec: &Value, act: &'static str) -> Vec<Step> {
        let is_paused = self.requests.get(&number).is_some_and(|request| request.is_paused);
        let old = self.requests.insert(number, Request { spec: spec.clone(), act, is_paused });
        let mut steps = vec![Step::Apply(self.request(number))];
        if let Some(old) = old.filter(|old| !old.act.is_empty() && self.stored(&old.spec) == self.stored(spec)) {
            // For the same spec nothing is run again by itself.
            if old.act == "suspend" {
                steps.push(patch(address(number), keys::WORKFLOW_SUSPENDED, None));
            }
            steps.push(patch(address(number), keys::MANUAL_RECONCILIATION, Some(keys::TRUE)));
        }
        steps
    }

    /// Returns a request's spec with the defaults of the API: what is written out in one request may be left out in another.
    fn stored(&self, spec: &Value) -> Value {
        let mut stored = spec.clone();
        let version = self.fields.get("/api").map(|api| &api["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        let properties = version.and_then(|schema| schema["properties"]["spec"]["properties"].as_object());
        let defaults = properties.into_iter().flatten().filter_map(|(name, field)| Some((name, field.get("default")?)));
        for (name, default) in defaults.filter(|(name, _)| spec.get(name).is_none()) {
            stored[name] = default.clone();
        }
        stored
    }

    /// Ends every pause: what is paused is not deleted either.
    fn go_on(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if std::mem::take(&mut self.is_paused) {
            steps.extend(self.applied());
        }
        let paused: Vec<usize> =
            self.requests.iter().filter(|(_, request)| request.is_paused).map(|(number, _)| *number).collect();
        for number in paused {
            self.requests.entry(number).and_modify(|request| request.is_paused = false);
            steps.push(Step::Apply(self.request(number)));
        }
        steps
    }

    /// Gives every container an image that does its work, and says whether one had another.
    fn heal_pipelines(&mut self) -> bool {
        let mut is_healed = false;
        for (_, pipelines) in self.fields.iter_mut().filter(|(field, _)| field.ends_with("/configure")) {
            for pipeline in pipelines.as_array_mut().into_iter().flatten() {
                for container in pipeline["spec"]["containers"].as_array_mut().into_iter().flatten() {
                    if TOLD.iter().any(|(name, _)| container["image"] == *name) {
                        container["image"] = json!(IMAGES[0]);
                        is_healed = true;
                    }
                }
            }
        }
        is_healed
    }

    /// Mends all that is broken or held, so that everything can be reached.
    pub(super) fn mend(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        let is_required = self.fields.get("/requiredPromises").is_some_and(|list| list != &json!([]));
        if self.is_there && is_required && !self.has_base {
            steps.extend(self.change(&Change::Base(true)));
        }
        steps.extend(self.go_on());
        if self.heal_pipelines() {
            steps.extend(self.applied());
        }
        steps.push(Step::Rest);
        let broken = self.requests.iter().filter(|(_, request)| !request.act.is_empty());
        let broken: Vec<(usize, Value)> = broken.map(|(number, request)| (*number, request.spec.clone())).collect();
        for (number, spec) in broken {
            steps.extend(self.ask(number, &spec, ""));
        }
        steps.push(Step::Rest);
        steps
    }

    /// Returns how all of it is made at once.
    pub(super) fn at_once(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.has_base {
            steps.extend([Step::Apply(base()), Step::Rest]);
        }
        steps.extend(self.applied());
        steps.push(Step::Rest);
        steps.extend(self.requests.keys().map(|number| Step::Apply(self.request(*number))));
        steps.push(Step::Rest);
        steps
    }
}

fn address(number: usize) -> Address {
    let (namespace, name) = REQUESTS[number];
    at(EXAMPLE, "Env", namespace, name)
}

fn patch(address: Address, key: &str, value: Option<&str>) -> Step {
    Step::Patch(address, labels(json!({ key: value })))
}

fn base() -> Value {
    let mut base = promise_of("base", api("Base", "bases"), json!({}));
    base["metadata"]["labels"] = json!({ keys::PROMISE_VERSION: "v1.0.0" });
    base
}
