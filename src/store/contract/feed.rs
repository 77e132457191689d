use std::collections::BTreeSet;

use super::*;

async fn keys_after(store: &dyn Store, position: FeedPosition) -> (BTreeSet<CertificateKey>, FeedPosition) {
    let changes = store.changes(position).await.unwrap();
    assert!(!changes.gap);
    (changes.keys.into_iter().collect(), changes.position)
}

pub(super) async fn another_handle_sees_what_changed_and_the_writer_does_not(bed: &dyn Bed) {
    let (writer, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*writer, issuer).await;
    let reader = bed.handle().await;
    let mut position = reader.feed_position().await.unwrap();
    let mut own = writer.feed_position().await.unwrap();
    assert_eq!(position, own);

    writer.register(issuer, &[good(1), good(2)]).await.unwrap();
    let one = record(&*reader, issuer, 1).await;
    let two = record(&*reader, issuer, 2).await;
    let both = BTreeSet::from([one.key, two.key]);
    let hold = revoked(5, CrlReason::CertificateHold);
    for step in 0..4 {
        let expected = match step {
            0 => both.clone(),
            1 => {
                writer.revoke(issuer, &[(serial(1), hold), (serial(9), hold)]).await.unwrap();
                BTreeSet::from([one.key])
            }
            2 => {
                writer.unhold(issuer, &serial(1)).await.unwrap();
                BTreeSet::from([one.key])
            }
            _ => {
                let stale = answer(&one, responder, 10);
                writer.store_answers(&[stale, answer(&two, responder, 10)], UnixTime::MAX).await.unwrap();
                BTreeSet::from([two.key])
            }
        };
        let (keys, after) = keys_after(&*reader, position).await;
        assert_eq!(keys, expected, "step {step}");
        assert!(after > position && after == reader.feed_position().await.unwrap());
        position = after;
        let (keys, after) = keys_after(&*writer, own).await;
        assert!(keys.is_empty() && after == position, "step {step}");
        own = after;
    }
    let (keys, after) = keys_after(&*reader, position).await;
    assert!(keys.is_empty() && after == position);
}

pub(super) async fn what_changes_nothing_is_not_announced(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder_number = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let lost = [(serial(1), revoked(5, CrlReason::KeyCompromise))];
    let old = answer(&record(&*store, issuer, 1).await, responder_number, 10);
    store.revoke(issuer, &lost).await.unwrap();
    let position = store.feed_position().await.unwrap();
    store.add_issuer("demo", b"its certificate").await.unwrap();
    store.add_responder(&responder(issuer, "ocsp-1"), UnixTime(2_000)).await.unwrap();
    store.register(issuer, &[good(1)]).await.unwrap();
    store.register(issuer, &[]).await.unwrap();
    store.revoke(issuer, &lost).await.unwrap();
    store.unhold(issuer, &serial(1)).await.unwrap();
    store.store_answers(&[old], UnixTime::MAX).await.unwrap();
    assert_eq!(store.feed_position().await.unwrap(), position);
}

pub(super) async fn issuers_and_responders_are_announced_as_registry(bed: &dyn Bed) {
    let reader = bed.handle().await;
    let start = reader.feed_position().await.unwrap();
    let (writer, issuer) = with_issuer(bed).await;
    let changes = reader.changes(start).await.unwrap();
    assert!(changes.registry && changes.keys.is_empty() && !changes.gap);
    with_responder(&*writer, issuer).await;
    let changes = reader.changes(changes.position).await.unwrap();
    assert!(changes.registry && changes.keys.is_empty());
    assert!(!writer.changes(start).await.unwrap().registry);
    writer.register(issuer, &[good(1)]).await.unwrap();
    assert!(!reader.changes(changes.position).await.unwrap().registry);
}

pub(super) async fn a_reader_behind_the_pruned_part_sees_a_gap(bed: &dyn Bed) {
    let (writer, issuer) = with_issuer(bed).await;
    let reader = bed.handle().await;
    let behind = reader.feed_position().await.unwrap();
    writer.register(issuer, &[good(1)]).await.unwrap();
    let abreast = reader.feed_position().await.unwrap();
    writer.prune_feed(UnixTime(100), Duration::ZERO).await.unwrap();
    assert_eq!(reader.feed_position().await.unwrap(), abreast, "positions never go back");
    let changes = reader.changes(behind).await.unwrap();
    assert!(changes.gap && changes.position == abreast);
    assert!(!reader.changes(abreast).await.unwrap().gap);
    writer.register(issuer, &[good(2)]).await.unwrap();
    assert_eq!(keys_after(&*reader, abreast).await.0.len(), 1);
}

pub(super) async fn young_entries_outlive_a_pruning(bed: &dyn Bed) {
    let keep = Duration::from_secs(60);
    let (writer, issuer) = with_issuer(bed).await;
    let reader = bed.handle().await;
    let start = reader.feed_position().await.unwrap();
    writer.register(issuer, &[good(1)]).await.unwrap();
    writer.prune_feed(UnixTime(1_000), keep).await.unwrap();
    writer.register(issuer, &[good(2)]).await.unwrap();
    let middle = FeedPosition(reader.feed_position().await.unwrap().0 - 1);
    writer.prune_feed(UnixTime(1_059), keep).await.unwrap();
    assert_eq!(keys_after(&*reader, start).await.0.len(), 2, "the first is 59 s old");
    writer.prune_feed(UnixTime(1_060), keep).await.unwrap();
    assert!(reader.changes(start).await.unwrap().gap, "the first is 60 s old");
    assert_eq!(keys_after(&*reader, middle).await.0.len(), 1, "the second was first seen at 1,059");
    writer.prune_feed(UnixTime(1_119), keep).await.unwrap();
    assert!(reader.changes(middle).await.unwrap().gap);
}

pub(super) async fn a_position_beyond_the_end_is_a_gap(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let end = store.feed_position().await.unwrap();
    let changes = store.changes(FeedPosition(end.0 + 1)).await.unwrap();
    assert!(changes.gap && changes.position == end);
    assert!(store.changes(FeedPosition(-1)).await.unwrap().gap);
}

pub(super) async fn a_long_list_is_announced_whole(bed: &dyn Bed) {
    const MANY: u32 = 70_000;
    let (writer, issuer) = with_issuer(bed).await;
    let reader = bed.handle().await;
    let mut position = reader.feed_position().await.unwrap();
    writer.register(issuer, &(0..MANY).map(good).collect::<Vec<_>>()).await.unwrap();
    let mut keys = BTreeSet::new();
    loop {
        let (more, after) = keys_after(&*reader, position).await;
        keys.extend(more);
        if after == position {
            break;
        }
        position = after;
    }
    assert_eq!(keys.len(), MANY as usize);
    let found = reader.certificates(&keys.into_iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(found.len(), MANY as usize);
}
