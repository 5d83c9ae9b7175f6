//! How often a store is pushed to.

use super::*;

fn limited(store: &GitStateStore, limit: Option<&str>) -> GitStateStore {
    let mut store = store.clone();
    let annotation = limit.map(|limit| ("kratix.io/maximumPushesPerMinute".to_owned(), limit.to_owned()));
    store.metadata.annotations = annotation.map(|annotation| [annotation].into());
    store
}

#[test]
fn a_push_limit_is_in_effect_without_a_new_generation_and_a_bad_one_is_told_once() {
    let start = healthy();
    let Store::Git(store) = &start.store else { panic!() };
    let with = |snapshot: &Snapshot, limit: Option<&str>| {
        let Store::Git(store) = &snapshot.store else { panic!() };
        Snapshot { store: Store::Git(Arc::new(limited(store, limit))), ..snapshot.clone() }
    };
    let limit = |snapshot: &Snapshot| match decide(snapshot).effect {
        Some(Effect::Open { connection, .. }) => match *connection {
            Connection::Git(connection) => connection.pushes_per_minute.map(NonZeroU32::get),
            _ => panic!(),
        },
        other => panic!("{other:?}"),
    };
    let ready = open(&start, Ok(()));
    assert_eq!(limit(&with(&ready, Some("6"))), Some(6), "opened anew");
    assert_eq!(limit(&with(&ready, Some(" 6\n"))), Some(6));
    let six = open(&with(&ready, Some("6")), Ok(()));
    assert!(decide(&six).plan.is_silent() && decide(&six).effect.is_none());
    assert_eq!(limit(&with(&six, None)), None, "opened anew");

    let bad = with(&ready, Some("lots"));
    let plan = decide(&bad).plan;
    let note = "annotation kratix.io/maximumPushesPerMinute has value \"lots\", which is not a whole number of 1 or more; it is ignored";
    assert_eq!(plan.events.len(), 1);
    assert_eq!((plan.events[0].type_, plan.events[0].reason), (EventType::Warning, "InvalidAnnotation"));
    assert_eq!(plan.events[0].note, note);
    let told = after(&bad, &plan);
    assert!(decide(&told).plan.is_silent() && decide(&told).effect.is_none(), "told once, also after a restart");
    let Store::Git(kept) = &told.store else { panic!() };
    let conditions = &kept.status.as_ref().unwrap().conditions;
    assert_eq!((conditions[0].reason.as_str(), conditions[1].message.as_str()), ("StateStoreReady", note));
    let mended = with(&told, None);
    let mended = after(&mended, &decide(&mended).plan);
    let Store::Git(kept) = &mended.store else { panic!() };
    assert_eq!(kept.status.as_ref().unwrap().conditions.len(), 1);

    let as_store = |limit| Store::Git(Arc::new(limited(store, limit)));
    assert!(concerns_itself(Some(&as_store(None)), Some(&as_store(Some("6")))));
    assert!(!concerns_itself(Some(&as_store(Some("6"))), Some(&as_store(Some("6")))));
}
