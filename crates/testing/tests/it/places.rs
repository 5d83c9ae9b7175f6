//! Where files may be: below the directory of a placement that exists, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use kratix_api::destination::FilepathMode;
use kratix_api::{Destination, WorkPlacement, compression, keys};
use kube::ResourceExt;

/// Largest file that is looked into.
const BYTES_MAX: usize = 1 << 20;
/// How much of the id of a group is part of a path.
const ID_PREFIX: usize = 5;
/// On a placement: the namespace that stands in its directory.
const DIRECTORY_NAMESPACE: &str = "kratix.io/directory-namespace";
/// The file that placements share in mode `aggregatedYAML`.
const AGGREGATE: &str = "aggregated.yaml";

/// Returns what a Destination has beside the files of placements.
fn test_documents(destination: &Destination) -> [String; 2] {
    let (dependencies, resources) = match destination.spec.filepath.mode {
        FilepathMode::NestedByMetadata => ("dependencies/", "resources/"),
        _ => ("", ""),
    };
    let path = &destination.spec.path;
    [
        format!("{path}/{dependencies}kratix-canary-namespace.yaml"),
        format!("{path}/{resources}kratix-canary-configmap.yaml"),
    ]
}

/// Returns the paths of what a placement has (spec 05 §6.3, §6.4).
fn paths(placement: &WorkPlacement, destination: &Destination) -> Vec<String> {
    let path = &destination.spec.path;
    let own = placement.spec.workloads.iter().map(|workload| file(placement, destination, &workload.filepath));
    let ledger = (destination.spec.filepath.mode == FilepathMode::None)
        .then(|| format!("{path}/.kratix/{}-{}.yaml", placement.namespace().unwrap_or_default(), placement.name_any()));
    own.chain(ledger).collect()
}

/// Returns where a document of a placement is.
fn file(placement: &WorkPlacement, destination: &Destination, path: &str) -> String {
    match destination.spec.filepath.mode {
        FilepathMode::None => format!("{}/{path}", destination.spec.path),
        FilepathMode::AggregatedYaml => format!("{}/{AGGREGATE}", destination.spec.path),
        _ => format!("{}/{path}", directory(placement, destination)),
    }
}

/// Returns the directory of a placement in mode `nestedByMetadata`.
fn directory(placement: &WorkPlacement, destination: &Destination) -> String {
    let spec = &placement.spec;
    let pipeline = placement.labels().get(keys::PIPELINE_NAME).map_or("", String::as_str);
    let own = placement.namespace().unwrap_or_default();
    let namespace = placement.annotations().get(DIRECTORY_NAMESPACE).unwrap_or(&own);
    let id = &spec.id[..ID_PREFIX];
    let parts = match spec.resource_name.as_str() {
        "" => vec![&*destination.spec.path, "dependencies", &spec.promise_name, pipeline, id],
        name => vec![&*destination.spec.path, "resources", namespace, &spec.promise_name, name, pipeline, id],
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// Says which file of a placement is not in the repository as the placement wants it.
pub(crate) fn missing(
    placement: &WorkPlacement,
    destination: &Destination,
    files: &BTreeMap<String, String>,
) -> Option<String> {
    let is_shared = destination.spec.filepath.mode == FilepathMode::AggregatedYaml;
    placement.spec.workloads.iter().find_map(|workload| {
        let content = compression::decompress(&workload.content, BYTES_MAX).unwrap();
        let content = crate::record::text(&String::from_utf8_lossy(&content));
        let path = file(placement, destination, &workload.filepath);
        match files.get(&path) {
            Some(text) if *text == content || is_shared && text.contains(content.trim_end()) => None,
            Some(_) => Some(format!("{path} is not as {} wants it", placement.name_any())),
            None => Some(format!("{path} of {} is not there", placement.name_any())),
        }
    })
}

/// Returns the files by what they are of instead of where they are: which of two namesakes has the plain directory depends on
/// who came first.
pub(crate) fn by_request(
    placements: &[WorkPlacement],
    destinations: &[Destination],
    files: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut requests = BTreeMap::new();
    for destination in destinations {
        for placement in placements.iter().filter(|placement| is_of(placement, destination)) {
            let own = placement.namespace().unwrap_or_default();
            let namespace = placement.labels().get(keys::RESOURCE_NAMESPACE).unwrap_or(&own);
            let pipeline = placement.labels().get(keys::PIPELINE_NAME).map_or("", String::as_str);
            let spec = &placement.spec;
            let request = format!(
                "{}: {} {namespace}/{} {pipeline} {}",
                destination.name_any(),
                spec.promise_name,
                spec.resource_name,
                spec.id
            );
            requests.insert(directory(placement, destination), request);
        }
    }
    let named = |path: String| {
        let mut within =
            requests.iter().filter_map(|(directory, request)| Some((request, path.strip_prefix(directory)?)));
        let found = within.find(|(_, rest)| rest.starts_with('/')).map(|(request, rest)| format!("{request}{rest}"));
        found.unwrap_or(path)
    };
    files.into_iter().map(|(path, text)| (named(path), text)).collect()
}

/// Says which files belong to no placement and no Destination that exists. What is below a directory in `left`, and not of a
/// Destination that exists, is left as it is: by default nothing is cleaned when a Destination goes.
pub(crate) fn strays(
    placements: &[WorkPlacement],
    destinations: &[Destination],
    left: &[String],
    files: &BTreeMap<String, String>,
) -> Vec<String> {
    let is_present = |directory: &String| destinations.iter().any(|destination| destination.spec.path == *directory);
    let left: Vec<&String> = left.iter().filter(|directory| !is_present(directory)).collect();
    let is_left = |path: &String| {
        let mut within = left.iter().filter_map(|directory| path.strip_prefix(directory.as_str()));
        within.any(|rest| rest.starts_with('/'))
    };
    let mut known: BTreeSet<String> = BTreeSet::new();
    for destination in destinations {
        known.extend(test_documents(destination));
        let own = placements.iter().filter(|placement| is_of(placement, destination));
        known.extend(own.flat_map(|placement| paths(placement, destination)));
    }
    let strays = files.keys().filter(|path| !known.contains(*path) && !is_left(path));
    strays.map(|path| format!("{path} belongs to no placement")).collect()
}

fn is_of(placement: &WorkPlacement, destination: &Destination) -> bool {
    placement.spec.target_destination_name == destination.name_any()
}

#[test]
fn a_file_that_no_placement_has_is_a_stray() {
    let destination: Destination = serde_json::from_value(crate::scenario::destination("worker-1", "dev")).unwrap();
    let placement: WorkPlacement = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "p", "namespace": "default", "labels": { keys::PIPELINE_NAME: "build" } },
        "spec": {
            "targetDestinationName": "worker-1", "promiseName": "env", "resourceName": "a", "id": "5058f1af8388",
            "workloads": [{ "filepath": "build/step.yaml", "content": compression::compress(b"a: 1\n") }],
        },
    }))
    .unwrap();
    let own = "worker-1/resources/default/env/a/build/5058f/build/step.yaml";
    let files = |paths: &[&str]| paths.iter().map(|path| ((*path).to_owned(), "a: 1\n".to_owned())).collect();
    let placements = [placement];
    let destinations = [destination];
    let good = files(&[own, "worker-1/resources/kratix-canary-configmap.yaml"]);
    assert!(strays(&placements, &destinations, &[], &good).is_empty());
    assert_eq!(missing(&placements[0], &destinations[0], &good), None);
    let of_whom = by_request(&placements, &destinations, good.clone());
    let expected = [
        "worker-1/resources/kratix-canary-configmap.yaml",
        "worker-1: env default/a build 5058f1af8388/build/step.yaml",
    ];
    assert_eq!(of_whom.keys().collect::<Vec<_>>(), expected);
    let outdated = "worker-1/resources/default/env/a/test/5058f/build/step.yaml";
    let found = strays(&placements, &destinations, &[], &files(&[outdated, "elsewhere"]));
    assert_eq!(found, ["elsewhere belongs to no placement".to_owned(), format!("{outdated} belongs to no placement")]);
    let left = ["worker-1".to_owned(), "worker-2".to_owned()];
    let found = strays(&placements, &destinations, &left, &files(&[outdated, "worker-2/a", "worker-20/a"]));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(missing(&placements[0], &destinations[0], &files(&[outdated])).is_some_and(|text| text.contains(own)));
}

#[test]
fn in_the_other_modes_files_are_where_they_share_a_directory_or_a_file() {
    let destination = |mode: &str| -> Destination {
        serde_json::from_value(crate::scenario::destination_of("flat", "flat", mode)).unwrap()
    };
    let placement: WorkPlacement = serde_json::from_value(serde_json::json!({
        "metadata": { "name": "p", "namespace": "default" },
        "spec": {
            "targetDestinationName": "flat", "promiseName": "env", "resourceName": "a", "id": "5058f1af8388",
            "workloads": [{ "filepath": "f.yaml", "content": compression::compress(b"a: 1\n") }],
        },
    }))
    .unwrap();
    for (mode, good, bad) in [
        ("none", &[("flat/f.yaml", "a: 1\n"), ("flat/.kratix/default-p.yaml", "")][..], ("flat/f.yaml", "a: 2\n")),
        ("aggregatedYAML", &[("flat/aggregated.yaml", "b: 1\n---\na: 1\n")], ("flat/aggregated.yaml", "b: 1\n")),
    ] {
        let files = |files: &[(&str, &str)]| -> BTreeMap<String, String> {
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
        };
        let destination = destination(mode);
        assert_eq!(missing(&placement, &destination, &files(good)), None, "{mode}");
        assert!(missing(&placement, &destination, &files(&[bad])).is_some(), "{mode}");
        let (placements, destinations) = ([placement.clone()], [destination]);
        assert_eq!(strays(&placements, &destinations, &[], &files(good)), Vec::<String>::new(), "{mode}");
        let other = ("flat/.kratix/default-q.yaml", "");
        assert_eq!(strays(&placements, &destinations, &[], &files(&[other])).len(), 1, "{mode}");
    }
}
