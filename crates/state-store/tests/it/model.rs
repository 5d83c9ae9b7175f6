//! Random changes, compared with a map from paths to contents.

use std::collections::BTreeMap;

use kratix_state_store::{Change, File, WriteError};
use proptest::prelude::*;

use crate::Bed;

#[derive(Clone, Debug)]
enum Step {
    Replace(String, Vec<(String, u8)>),
    Edit(Vec<(String, u8)>, Vec<String>),
}

/// Few names, so that files and directories meet.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "a.b", "a-", "ab"]), 1..4)
        .prop_map(|names| names.join("/"))
}

fn files() -> impl Strategy<Value = Vec<(String, u8)>> {
    prop::collection::vec((path(), 0..3u8), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (path(), files()).prop_map(|(prefix, files)| Step::Replace(prefix, files)),
        (files(), prop::collection::vec(path(), 0..3)).prop_map(|(write, remove)| Step::Edit(write, remove)),
    ]
}

type World = BTreeMap<String, u8>;

fn below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn is_free(world: &World, path: &str) -> bool {
    !world.keys().any(|other| below(other, path) || below(path, other))
}

/// What a step does to the world, `None` if it must be refused.
fn apply(world: &World, step: &Step) -> Option<World> {
    let mut next = world.clone();
    let write = match step {
        Step::Replace(prefix, files) => {
            if next.keys().any(|other| below(prefix, other)) && !files.is_empty() {
                return None;
            }
            next.retain(|path, _| path != prefix && !below(path, prefix));
            files.iter().map(|(path, content)| (format!("{prefix}/{path}"), *content)).collect::<Vec<_>>()
        }
        Step::Edit(write, remove) => {
            next.retain(|path, _| {
                !remove.iter().any(|gone| (gone == path && !write.iter().any(|(w, _)| w == path)) || below(path, gone))
            });
            write.clone()
        }
    };
    let mut given = World::new();
    for (path, content) in write {
        if given.insert(path.clone(), content).is_some_and(|other| other != content) || !is_free(&given, &path) {
            return None;
        }
        if !is_free(&next, &path) {
            return None;
        }
        next.insert(path, content);
    }
    Some(next)
}

fn change(at: usize, step: &Step) -> Change {
    let files = |files: &[(String, u8)]| -> Vec<File> {
        files.iter().map(|(path, content)| File::new(path.clone(), vec![*content])).collect()
    };
    match step {
        Step::Replace(prefix, list) => Change::replace(format!("s{at}"), prefix.clone(), files(list)),
        Step::Edit(write, remove) => Change::edit(format!("s{at}"), "", files(write), remove.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_a_map_from_paths_to_contents(batches in prop::collection::vec(prop::collection::vec(step(), 1..8), 1..5)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let bed = Bed::new();
            let store = bed.store();
            let mut world = World::new();
            for batch in &batches {
                let mut pending = Vec::new();
                for (at, step) in batch.iter().enumerate() {
                    pending.push(store.reserve().await.expect("a place").send(change(at, step)));
                }
                for (step, answer) in batch.iter().zip(pending) {
                    let answer = answer.await;
                    match apply(&world, step) {
                        Some(next) => {
                            let changed = answer.expect("it can be applied").changed;
                            prop_assert!(changed || next == world || !batch.is_empty());
                            world = next;
                        }
                        None => {
                            let refused = matches!(answer, Err(WriteError::Blocked { .. } | WriteError::Ambiguous { .. }));
                            prop_assert!(refused, "{step:?}: {answer:?}");
                        }
                    }
                }
                let mut found = World::new();
                for path in store.list("").await.expect("readable") {
                    let content = store.read(&path).await.expect("readable").expect("listed");
                    found.insert(path, content[0]);
                }
                prop_assert_eq!(&found, &world);
            }
            if store.version().await.expect("readable").is_some() {
                bed.is_sound();
            }
            Ok(())
        })?;
    }
}
