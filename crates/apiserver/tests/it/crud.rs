//! Create, read, change, list.

use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams, VersionMatch};
use serde_json::json;

use super::{World, create, map, refusal, revision};

#[tokio::test]
async fn a_new_object_gets_what_the_server_gives() {
    let world = World::new().await;
    let made = create(&world.maps(), map("a")).await.unwrap();
    assert_eq!(made.namespace().as_deref(), Some("default"));
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(world.maps().get("a").await.unwrap(), made);
    let (code, reason, message) = refusal(create(&world.maps(), map("a")).await);
    assert_eq!((code, reason.as_str(), message.as_str()), (409, "AlreadyExists", r#"configmaps "a" already exists"#));
    let (code, _, message) = refusal(world.maps().get("b").await);
    assert_eq!((code, message.as_str()), (404, r#"configmaps "b" not found"#));
}

#[tokio::test]
async fn generated_names_differ() {
    let world = World::new().await;
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}});
    let one = create(&world.maps(), generated.clone()).await.unwrap();
    let two = create(&world.maps(), generated).await.unwrap();
    assert_ne!(one.name_any(), two.name_any());
    assert!(one.name_any().starts_with("a-") && one.name_any().len() == 7);
}

#[tokio::test]
async fn a_stale_update_conflicts_and_an_equal_one_writes_nothing() {
    let world = World::new().await;
    let first = create(&world.maps(), map("a")).await.unwrap();
    let mut changed = first.clone();
    changed.data["data"]["key"] = json!("other");
    let second = world.maps().replace("a", &PostParams::default(), &changed).await.unwrap();
    assert!(revision(&second) > revision(&first));
    let (code, reason, message) = refusal(world.maps().replace("a", &PostParams::default(), &changed).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.ends_with("please apply your changes to the latest version and try again"), "{message}");
    let third = world.maps().replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(revision(&third), revision(&second));
    let before = world.server.revision();
    let patch = Patch::Merge(json!({"data": {"key": "other"}}));
    world.maps().patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(world.server.revision(), before);
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let world = World::new().await;
    create(&world.maps(), map("a")).await.unwrap();
    let merge = Patch::Merge(json!({"data": {"key": null, "new": "1"}}));
    let merged = world.maps().patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(merged.data["data"], json!({"new": "1"}));
    let steps = serde_json::from_value(json!([{"op": "add", "path": "/data/more", "value": "2"}])).unwrap();
    let patched = world.maps().patch("a", &PatchParams::default(), &Patch::<()>::Json(steps)).await.unwrap();
    assert_eq!(patched.data["data"], json!({"new": "1", "more": "2"}));
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"x": "y"}}}));
    let labelled = world.maps().patch("a", &PatchParams::default(), &strategic).await.unwrap();
    assert_eq!(labelled.labels()["x"], "y");
}

#[tokio::test]
async fn apply_owns_its_fields_and_conflicts_over_those_of_others() {
    let world = World::new().await;
    let config =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let apply = |manager: &str| PatchParams::apply(manager);
    let made = world.maps().patch("a", &apply("one"), &Patch::Apply(config("1"))).await.unwrap();
    assert_eq!(made.managed_fields()[0].manager.as_deref(), Some("one"));
    let again = world.maps().patch("a", &apply("one"), &Patch::Apply(config("1"))).await.unwrap();
    assert_eq!(revision(&again), revision(&made));
    let (code, reason, _) = refusal(world.maps().patch("a", &apply("two"), &Patch::Apply(config("2"))).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    let forced = world.maps().patch("a", &apply("two").force(), &Patch::Apply(config("2"))).await.unwrap();
    assert_eq!(forced.data["data"]["k"], "2");
    let empty = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let left = world.maps().patch("a", &apply("two"), &Patch::Apply(empty)).await.unwrap();
    assert!(left.data.get("data").is_none_or(|data| data.get("k").is_none()));
}

#[tokio::test]
async fn a_dry_run_answers_and_changes_nothing() {
    let world = World::new().await;
    let before = world.server.revision();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = world.maps().create(&dry, &serde_json::from_value(map("a")).unwrap()).await.unwrap();
    assert!(made.uid().is_some());
    assert_eq!(world.server.revision(), before);
    assert!(world.maps().get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn lists_select_and_come_in_pages() {
    let world = World::new().await;
    for (index, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"parity": if index % 2 == 0 { "even" } else { "odd" }});
        create(&world.maps(), object).await.unwrap();
    }
    let names = |list: kube::api::ObjectList<kube::api::DynamicObject>| -> Vec<String> {
        list.items.iter().map(ResourceExt::name_any).collect()
    };
    let even = world.maps().list(&ListParams::default().labels("parity=even")).await.unwrap();
    assert_eq!(names(even), ["a", "c", "e"]);
    let one = world.maps().list(&ListParams::default().fields("metadata.name=b")).await.unwrap();
    assert_eq!(names(one), ["b"]);
    let page = ListParams::default().labels("parity").limit(2);
    let first = world.maps().list(&page).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    world.maps().delete("c", &Default::default()).await.unwrap();
    let second = world.maps().list(&page.clone().continue_token(&token)).await.unwrap();
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
    assert_eq!((names(first), names(second)), (vec!["a".into(), "b".into()], vec!["c".into(), "d".into()]));
    let ahead = (world.server.revision() + 100).to_string();
    let ahead = ListParams {
        resource_version: Some(ahead),
        version_match: Some(VersionMatch::NotOlderThan),
        ..Default::default()
    };
    assert_eq!(refusal(world.maps().list(&ahead).await).0, 504);
}

#[tokio::test]
async fn an_object_larger_than_etcd_takes_is_refused() {
    let world = World::new().await;
    let mut large = map("a");
    large["data"]["key"] = json!("x".repeat(1_600_000));
    let (code, _, message) = refusal(create(&world.maps(), large).await);
    assert!(code == 500 || code == 422, "{code} {message}");
}

#[tokio::test]
async fn writes_are_counted_by_user_verb_and_resource() {
    let world = World::new().await;
    create(&world.maps(), map("a")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "2"}}));
    world.maps().patch("a", &PatchParams::default(), &patch).await.unwrap();
    world.maps().patch("a", &PatchParams::default(), &patch).await.unwrap();
    let counts = world.server.counters();
    let of = |verb: &str| {
        let mine = counts.iter().filter(|(kind, _)| kind.user == "admin" && kind.verb == verb);
        mine.map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!((of("create"), of("patch")), (1, 1), "a patch that changes nothing is no write");
}
