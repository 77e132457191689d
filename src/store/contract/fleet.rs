use super::*;

const DAY: i64 = 86_400;

pub(super) async fn a_fleet_is_counted_by_issuer_lifetime_day_and_revocation(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let other = store.add_issuer("other", b"another certificate").await.unwrap().id;
    let now = UnixTime(100 * DAY + 5);
    let entry = |number, days: Option<i64>, ends: i64, revoked: bool| CertificateEntry {
        serial: serial(number),
        // A second short of whole days, as certificates are.
        not_before: days.map(|days| UnixTime(ends - days * DAY + 1)),
        not_after: UnixTime(ends),
        revocation: revoked.then(|| super::revoked(1, CrlReason::Superseded)),
    };
    let of_issuer = [
        entry(1, Some(90), 150 * DAY, false),
        entry(2, Some(90), 150 * DAY + DAY - 1, false),
        entry(3, Some(90), 150 * DAY, true),
        entry(4, Some(6), 103 * DAY, false),
        entry(5, None, 151 * DAY, false),
        entry(6, Some(90), 100 * DAY + 4, false),
        entry(7, Some(90), 100 * DAY + 5, false),
    ];
    store.register(issuer, &of_issuer).await.unwrap();
    store.register(other, &[entry(1, Some(90), 150 * DAY, false)]).await.unwrap();
    let mut days: std::collections::BTreeMap<_, u64> = Default::default();
    for shard in Shard::all() {
        for day in store.fleet_days(shard, now).await.unwrap() {
            *days.entry((day.issuer, day.lifetime, day.ends, day.revoked)).or_default() += day.certificates;
        }
    }
    let expected = [
        ((issuer, None, 151, false), 1),
        ((issuer, Some(6), 103, false), 1),
        // Inclusive of its last second; the one before has ended.
        ((issuer, Some(90), 100, false), 1),
        ((issuer, Some(90), 150, false), 2),
        ((issuer, Some(90), 150, true), 1),
        ((other, Some(90), 150, false), 1),
    ];
    assert_eq!(days.into_iter().collect::<Vec<_>>(), expected);
}

pub(super) async fn what_the_guard_knows_replaces_what_it_knew(bed: &dyn Bed) {
    let store = bed.handle().await;
    assert_eq!(store.guard().await.unwrap(), None);
    let record = |at, document: &str| GuardRecord { at: UnixTime(at), document: document.to_owned() };
    store.keep_guard(&record(5, "{\"m\":1}")).await.unwrap();
    store.keep_guard(&record(4, "{\"m\":0.5}")).await.unwrap();
    assert_eq!(bed.handle().await.guard().await.unwrap(), Some(record(4, "{\"m\":0.5}")));
}

pub(super) async fn what_limiters_were_asked_for_adds_up(bed: &dyn Bed) {
    let (store, other) = (bed.handle().await, bed.handle().await);
    assert_eq!(store.offered().await.unwrap(), 0);
    store.add_offered(3).await.unwrap();
    other.add_offered(4).await.unwrap();
    assert_eq!((store.offered().await.unwrap(), other.offered().await.unwrap()), (7, 7));
}
