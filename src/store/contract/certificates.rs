use std::collections::BTreeSet;

use super::*;

pub(super) async fn registering_again_changes_nothing(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let mut entries = vec![good(1), good(2)];
    entries[1].revocation = Some(revoked(9, CrlReason::KeyCompromise));
    entries[1].not_before = Some(UnixTime(3));
    let first = store.register(issuer, &entries).await.unwrap();
    assert_eq!(first, Registered { added: 2, changed: 0, unchanged: 0 });
    let before = record(&*store, issuer, 2).await;
    let again = store.register(issuer, &entries).await.unwrap();
    assert_eq!(again, Registered { added: 0, changed: 0, unchanged: 2 });
    assert_eq!(record(&*store, issuer, 2).await, before);
    assert_eq!((before.version, before.revocation), (1, entries[1].revocation));
    assert_eq!((before.not_before, before.not_after, before.issuer), (Some(UnixTime(3)), NOT_AFTER, issuer));
    assert_eq!(before.key.shard, Shard::of(issuer, &serial(2)));
}

pub(super) async fn registering_adds_what_was_not_known_and_takes_nothing_away(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let key = record(&*store, issuer, 1).await.key;
    let say = async |not_before: Option<i64>, not_after, revocation| {
        let entry = CertificateEntry {
            serial: serial(1),
            not_before: not_before.map(UnixTime),
            not_after: UnixTime(not_after),
            revocation,
        };
        let done = store.register(issuer, &[entry]).await.unwrap();
        let now = record(&*store, issuer, 1).await;
        assert_eq!(now.key, key);
        (done.changed, now.not_before.map(|time| time.0), now.not_after.0, now.revocation, now.version)
    };
    let hold = Some(revoked(7, CrlReason::CertificateHold));
    let other_hold = Some(revoked(8, CrlReason::CertificateHold));
    let for_good = Some(revoked(9, CrlReason::KeyCompromise));
    assert_eq!(say(Some(2), 5_000, None).await, (1, Some(2), 5_000, None, 1));
    assert_eq!(say(Some(3), 5_000, None).await, (0, Some(2), 5_000, None, 1));
    assert_eq!(say(None, 6_000, None).await, (1, Some(2), 6_000, None, 1));
    assert_eq!(say(None, 6_000, hold).await, (1, Some(2), 6_000, hold, 2));
    assert_eq!(say(None, 6_000, None).await, (0, Some(2), 6_000, hold, 2));
    assert_eq!(say(None, 6_000, other_hold).await, (0, Some(2), 6_000, hold, 2));
    assert_eq!(say(None, 6_000, for_good).await, (1, Some(2), 6_000, for_good, 3));
    assert_eq!(say(None, 6_000, hold).await, (0, Some(2), 6_000, for_good, 3));
    assert_eq!(say(None, 6_000, Some(revoked(1, CrlReason::Superseded))).await.3, for_good);
}

pub(super) async fn a_serial_repeated_in_a_call_counts_as_registered_one_after_the_other(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let mut later = good(1);
    later.revocation = Some(revoked(9, CrlReason::Superseded));
    later.not_after = UnixTime(6_000);
    let done = store.register(issuer, &[good(1), good(2), later.clone(), later.clone()]).await.unwrap();
    assert_eq!(done, Registered { added: 2, changed: 1, unchanged: 1 });
    let now = record(&*store, issuer, 1).await;
    assert_eq!((now.not_after, now.revocation, now.version), (later.not_after, later.revocation, 2));
}

pub(super) async fn the_same_serial_under_two_issuers_is_two_certificates(bed: &dyn Bed) {
    let (store, one) = with_issuer(bed).await;
    let two = store.add_issuer("two", b"b").await.unwrap().id;
    store.register(one, &[good(1)]).await.unwrap();
    store.register(two, &[good(1)]).await.unwrap();
    store.revoke(one, &[(serial(1), revoked(5, CrlReason::Superseded))]).await.unwrap();
    assert_eq!(record(&*store, one, 1).await.version, 2);
    let other = record(&*store, two, 1).await;
    assert_eq!((other.version, other.revocation, other.issuer), (1, None, two));
}

pub(super) async fn serials_and_reasons_come_back_as_they_were(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let serials = ["00", "7f", "80", "-01", "-8000", "0102", &"f".repeat(40)];
    for (text, octets) in serials.iter().zip([1, 1, 2, 1, 2, 2, 21]) {
        let entry = CertificateEntry { serial: text.parse().unwrap(), ..good(0) };
        assert_eq!(entry.serial.as_der_content().len(), octets);
        store.register(issuer, std::slice::from_ref(&entry)).await.unwrap();
        let found = store.certificate(issuer, &entry.serial).await.unwrap().unwrap();
        assert_eq!(found.certificate.serial, entry.serial);
        assert_eq!(found.certificate.key.shard, Shard::of(issuer, &entry.serial));
    }
    let reasons = CrlReason::ALL.into_iter().filter(|reason| *reason != CrlReason::RemoveFromCrl);
    for (number, reason) in (1_000..).zip(reasons.map(Some).chain([None])) {
        let revocation = Some(Revocation { time: UnixTime(-5), reason });
        let entry = CertificateEntry { revocation, ..good(number) };
        store.register(issuer, &[entry]).await.unwrap();
        assert_eq!(record(&*store, issuer, number).await.revocation, revocation);
    }
}

pub(super) async fn a_long_list_is_registered_whole_and_paged_through_without_loss(bed: &dyn Bed) {
    const MANY: u32 = 20_000;
    let (store, issuer) = with_issuer(bed).await;
    let entries: Vec<_> = (0..MANY).map(good).collect();
    let done = store.register(issuer, &entries).await.unwrap();
    assert_eq!(done.added, u64::from(MANY));
    let mut seen = BTreeSet::new();
    for shard in Shard::all() {
        let mut after = 0;
        loop {
            let page = store.states(shard, after, 30, UnixTime(0)).await.unwrap();
            let brief = store.schedule(shard, after, 30, UnixTime(0)).await.unwrap();
            assert!(page.iter().map(|state| state.certificate.key).eq(brief.iter().map(|brief| brief.key)));
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 30);
            for state in &page {
                assert!(state.certificate.key.shard == shard && state.certificate.key.row > after);
                after = state.certificate.key.row;
                assert!(seen.insert(state.certificate.serial.as_der_content().to_vec()));
            }
            assert_eq!(after, last.certificate.key.row);
        }
    }
    assert_eq!(seen.len(), MANY as usize);
}

pub(super) async fn pages_are_by_row_and_leave_out_what_has_expired(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let shard = Shard::of(issuer, &serial(1));
    let numbers: Vec<u32> =
        (1..).filter(|number| Shard::of(issuer, &serial(*number)) == shard).take(4).collect();
    for (number, not_after) in numbers.iter().zip([100, 200, 99, 300]) {
        let entry = CertificateEntry { not_after: UnixTime(not_after), ..good(*number) };
        store.register(issuer, &[entry]).await.unwrap();
    }
    let now = UnixTime(100);
    let page = store.states(shard, 0, 10, now).await.unwrap();
    let found: Vec<_> = page.iter().map(|state| state.certificate.not_after.0).collect();
    assert_eq!(found, [100, 200, 300], "notAfter is inclusive");
    let first = page[0].certificate.key.row;
    assert_eq!(store.states(shard, first, 1, now).await.unwrap(), page[1..2]);
    assert_eq!(store.schedule(shard, first, 10, now).await.unwrap().len(), 2);
    let last = page[2].certificate.key.row;
    assert!(store.states(shard, last, 10, now).await.unwrap().is_empty());
    assert!(store.states(shard, i64::MAX, 10, now).await.unwrap().is_empty());
    assert!(store.schedule(shard, 0, 10, UnixTime(301)).await.unwrap().is_empty());
    assert!(store.states(shard, 0, 0, now).await.unwrap().is_empty());
}

pub(super) async fn revocation_outcomes_come_in_order(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    let lost = revoked(5, CrlReason::KeyCompromise);
    let gone = revoked(6, CrlReason::CessationOfOperation);
    let asked =
        [(serial(2), lost), (serial(9), lost), (serial(1), gone), (serial(2), lost), (serial(1), lost)];
    let outcomes = store.revoke(issuer, &asked).await.unwrap();
    let (one, two) = (record(&*store, issuer, 1).await, record(&*store, issuer, 2).await);
    assert_eq!((one.revocation, one.version), (Some(gone), 2));
    assert_eq!((two.revocation, two.version), (Some(lost), 2));
    assert_eq!(
        outcomes,
        [
            StatusChange::Changed(two.clone()),
            StatusChange::NotFound,
            StatusChange::Changed(one.clone()),
            StatusChange::Unchanged(two),
            StatusChange::Refused(one),
        ]
    );
    assert!(store.revoke(issuer, &[]).await.unwrap().is_empty());
}

pub(super) async fn a_revocation_is_for_good_except_a_hold(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let revoke = async |revocation| store.revoke(issuer, &[(serial(1), revocation)]).await.unwrap().remove(0);
    let hold = revoked(5, CrlReason::CertificateHold);
    let lost = revoked(7, CrlReason::KeyCompromise);
    assert!(matches!(revoke(hold).await, StatusChange::Changed(now) if now.version == 2));
    assert!(matches!(
        revoke(revoked(6, CrlReason::CertificateHold)).await,
        StatusChange::Unchanged(now) if now.revocation == Some(hold)
    ));
    assert!(matches!(revoke(lost).await, StatusChange::Changed(now) if now.version == 3));
    for other in [hold, revoked(8, CrlReason::KeyCompromise), revoked(7, CrlReason::RemoveFromCrl)] {
        assert!(matches!(revoke(other).await, StatusChange::Refused(now) if now.revocation == Some(lost)));
    }
    assert!(matches!(store.unhold(issuer, &serial(1)).await.unwrap(), StatusChange::Refused(_)));
    assert_eq!(record(&*store, issuer, 1).await.version, 3);
}

pub(super) async fn a_hold_can_be_taken_back(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    assert_eq!(store.unhold(issuer, &serial(1)).await.unwrap(), StatusChange::NotFound);
    store.register(issuer, &[good(1)]).await.unwrap();
    let present = record(&*store, issuer, 1).await;
    assert_eq!(store.unhold(issuer, &serial(1)).await.unwrap(), StatusChange::Unchanged(present));
    store.revoke(issuer, &[(serial(1), revoked(5, CrlReason::CertificateHold))]).await.unwrap();
    let StatusChange::Changed(now) = store.unhold(issuer, &serial(1)).await.unwrap() else {
        panic!("the hold stands");
    };
    assert_eq!((now.revocation, now.version), (None, 3));
    assert_eq!(record(&*store, issuer, 1).await, now);
}

pub(super) async fn keys_that_do_not_exist_are_left_out(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    let key = record(&*store, issuer, 1).await.key;
    let beyond = CertificateKey { row: key.row + 1_000, ..key };
    let elsewhere = CertificateKey { shard: Shard(key.shard.0 ^ 1), ..key };
    let odd = [i64::MIN, -1, 0, i64::MAX].map(|row| CertificateKey { row, ..key });
    let asked: Vec<_> = odd.into_iter().chain([key, beyond, elsewhere, key]).collect();
    let found = store.certificates(&asked).await.unwrap();
    assert!(found.iter().all(|state| state.certificate.key == key || state.certificate.key == elsewhere));
    assert_eq!(found.iter().filter(|state| state.certificate.key == key).count(), 1);
    assert!(store.certificates(&[]).await.unwrap().is_empty());
    let due: Vec<_> = store.due(&asked).await.unwrap().into_iter().map(|due| due.certificate).collect();
    let same: Vec<_> = found.into_iter().map(|state| state.certificate).collect();
    assert_eq!(due, same);
    assert!(store.due(&[]).await.unwrap().is_empty());
}

pub(super) async fn counts_tell_how_the_fleet_stands(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    let expired = CertificateEntry {
        not_after: UnixTime(99),
        revocation: Some(revoked(1, CrlReason::Superseded)),
        ..good(4)
    };
    store.register(issuer, &[good(1), good(2), good(3), expired]).await.unwrap();
    let other = store.add_issuer("other", b"b").await.unwrap().id;
    store.register(other, &[good(1)]).await.unwrap();
    for number in 1..=4 {
        let signed = answer(&record(&*store, issuer, number).await, responder, 10 * i64::from(number));
        store.store_answers(&[signed], UnixTime::MAX).await.unwrap();
    }
    // nextUpdate: 110, 120, 130, 140; number 3's answer is for the version before its revocation.
    store.revoke(issuer, &[(serial(3), revoked(50, CrlReason::KeyCompromise))]).await.unwrap();
    let counts = async |now| store.counts(issuer, UnixTime(now)).await.unwrap();
    assert_eq!(counts(99).await, FleetCounts { unexpired: 4, revoked: 2, expired: 0, answered: 3 });
    assert_eq!(counts(100).await, FleetCounts { unexpired: 3, revoked: 1, expired: 1, answered: 2 });
    assert_eq!(counts(110).await.answered, 1, "nextUpdate is reached");
    assert_eq!(store.counts(IssuerId(99), UnixTime(0)).await.unwrap(), FleetCounts::default());
}
