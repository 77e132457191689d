use super::*;

pub(super) async fn an_issuer_added_again_is_the_same_issuer(bed: &dyn Bed) {
    let store = bed.handle().await;
    let first = store.add_issuer("demo", b"a").await.unwrap();
    let other = store.add_issuer("other", b"b").await.unwrap();
    assert_eq!(store.add_issuer("demo", b"a").await.unwrap(), first);
    assert_ne!(first.id, other.id);
    assert_eq!((first.name.as_str(), first.certificate.as_slice()), ("demo", &b"a"[..]));
    assert_eq!(store.issuers().await.unwrap(), [first, other]);
}

pub(super) async fn a_name_or_certificate_that_is_taken_is_a_conflict(bed: &dyn Bed) {
    let store = bed.handle().await;
    store.add_issuer("demo", b"a").await.unwrap();
    store.add_issuer("other", b"b").await.unwrap();
    for (name, certificate) in [("demo", b"c"), ("new", b"a"), ("demo", b"b")] {
        let error = store.add_issuer(name, certificate).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    }
    assert_eq!(store.issuers().await.unwrap().len(), 2);
}

pub(super) async fn a_responder_installed_again_keeps_its_number_and_takes_over_its_key(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let first = store.add_responder(&responder(issuer, "ocsp-1"), UnixTime(10)).await.unwrap();
    assert_eq!((first.installed_at, &first.responder), (UnixTime(10), &responder(issuer, "ocsp-1")));
    let mut moved = responder(issuer, "id:0a");
    moved.token = "hsm-b".to_owned();
    let again = store.add_responder(&moved, UnixTime(20)).await.unwrap();
    assert_eq!(again, ResponderRecord { responder: moved, ..first.clone() });
    let mut renewed = responder(issuer, "ocsp-1");
    renewed.certificate = b"another".to_vec();
    let second = store.add_responder(&renewed, UnixTime(30)).await.unwrap();
    assert!(second.number > first.number);
    // Answers are told apart by the number, so another algorithm must not take over the old one's.
    let mut otherwise = responder(issuer, "ocsp-1");
    otherwise.algorithm = "rsa-pss-sha256".to_owned();
    let third = store.add_responder(&otherwise, UnixTime(40)).await.unwrap();
    assert!(third.number > second.number);
    assert_eq!(store.responders().await.unwrap(), [again, second, third]);
}

pub(super) async fn a_responder_is_retired_and_taken_back_and_keeps_both_when_installed_again(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let mut planned = responder(issuer, "ocsp-1");
    planned.from = Some(UnixTime(500));
    let first = store.add_responder(&planned, UnixTime(10)).await.unwrap();
    assert_eq!((first.responder.from, first.retired_at), (Some(UnixTime(500)), None));
    let position = store.feed_position().await.unwrap();
    let retired = store.retire_responder(first.number, Some(UnixTime(20))).await.unwrap();
    assert_eq!(retired, ResponderRecord { retired_at: Some(UnixTime(20)), ..first.clone() });
    let later = store.retire_responder(first.number, Some(UnixTime(30))).await.unwrap();
    assert_eq!(later, retired, "it keeps the time it was retired at");
    let changes = bed.handle().await.changes(position).await.unwrap();
    assert!(changes.registry, "other processes are told");
    // The same again, as every start does it for what is configured.
    let again = store.add_responder(&responder(issuer, "ocsp-1"), UnixTime(40)).await.unwrap();
    assert_eq!(again, retired);
    let back = store.retire_responder(first.number, None).await.unwrap();
    assert_eq!(back, first);
    assert_eq!(store.responders().await.unwrap(), [first]);
    let error = store.retire_responder(ResponderNumber(9), None).await.unwrap_err().to_string();
    assert!(error.contains("no responder 9: add it first"), "{error}");
}

pub(super) async fn an_issuer_or_responder_that_is_missing_is_named_and_nothing_changes(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let nobody = IssuerId(issuer.0 + 1);
    let error = store.register(nobody, &[good(1)]).await.unwrap_err();
    assert!(error.to_string().contains("no issuer 2: add it first"), "{error}");
    let error = store.add_responder(&responder(nobody, "k"), UnixTime(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    store.register(issuer, &[good(1)]).await.unwrap();
    let unsigned = answer(&record(&*store, issuer, 1).await, ResponderNumber(77), 10);
    let error = store.store_answers(&[unsigned], UnixTime::MAX).await.unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(store.responders().await.unwrap().is_empty());
    assert_eq!(store.certificate(nobody, &serial(1)).await.unwrap(), None);
    let asked = [(serial(1), revoked(1, CrlReason::Superseded))];
    assert_eq!(store.revoke(nobody, &asked).await.unwrap(), [StatusChange::NotFound]);
}

pub(super) async fn a_profile_replaces_that_of_the_same_token_algorithm_and_sessions(bed: &dyn Bed) {
    let store = bed.handle().await;
    let profile = |sessions, rate| CapacityProfile {
        token: "hsm-a".to_owned(),
        algorithm: "rsa-2048".to_owned(),
        sessions,
        rate,
        raw_rate: rate * 1.25,
        p50: Duration::from_nanos(1_234_567),
        p99: Duration::from_secs(3),
        measured_at: UnixTime(7),
    };
    for (sessions, rate) in [(2, 100.5), (1, 60.0), (2, 110.0)] {
        store.record_profile(&profile(sessions, rate)).await.unwrap();
    }
    assert_eq!(store.profiles().await.unwrap(), [profile(1, 60.0), profile(2, 110.0)]);
}
