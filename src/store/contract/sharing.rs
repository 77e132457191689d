use super::*;

pub(super) async fn a_revocation_wins_every_race_with_an_answer_for_the_old_status(bed: &dyn Bed) {
    const RACES: u32 = 40;
    let (signer, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*signer, issuer).await;
    let revoker = bed.handle().await;
    signer.register(issuer, &(0..RACES).map(good).collect::<Vec<_>>()).await.unwrap();
    let lost = revoked(5, CrlReason::KeyCompromise);
    for number in 0..RACES {
        let certificate = record(&*signer, issuer, number).await;
        let old = [answer(&certificate, responder, 10)];
        let asked = [(serial(number), lost)];
        let (stored, changed) =
            tokio::join!(signer.store_answers(&old, UnixTime::MAX), revoker.revoke(issuer, &asked));
        assert!(matches!(changed.unwrap()[0], StatusChange::Changed(_)));
        let late = signer.store_answers(&old, UnixTime::MAX).await.unwrap();
        assert_eq!(late, [AnswerOutcome::Superseded]);
        let state = signer.certificate(issuer, &serial(number)).await.unwrap().unwrap();
        assert_eq!(state.certificate.version, 2);
        assert_eq!(state.answer.is_some(), stored.unwrap() == [AnswerOutcome::Stored]);
        assert!(state.answer.is_none_or(|answer| answer.version == 1));
    }
    assert_eq!(signer.counts(issuer, UnixTime(20)).await.unwrap().answered, 0);
}

pub(super) async fn two_handles_that_register_the_same_fleet_add_it_once(bed: &dyn Bed) {
    let (one, issuer) = with_issuer(bed).await;
    let two = bed.handle().await;
    let fleet: Vec<_> = (0..2_000).map(good).collect();
    let mut total = Registered::default();
    for part in fleet.chunks(200) {
        let (a, b) = tokio::join!(one.register(issuer, part), two.register(issuer, part));
        total += a.unwrap();
        total += b.unwrap();
    }
    assert_eq!(total, Registered { added: 2_000, changed: 0, unchanged: 2_000 });
}

pub(super) async fn everything_is_there_after_reopening(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    store.revoke(issuer, &[(serial(2), revoked(5, CrlReason::KeyCompromise))]).await.unwrap();
    store
        .store_answers(&[answer(&record(&*store, issuer, 1).await, responder, 10)], UnixTime::MAX)
        .await
        .unwrap();
    let position = store.feed_position().await.unwrap();
    let before = (
        store.issuers().await.unwrap(),
        store.responders().await.unwrap(),
        store.certificate(issuer, &serial(1)).await.unwrap(),
        store.certificate(issuer, &serial(2)).await.unwrap(),
    );
    store.close().await;
    let store = bed.handle().await;
    let after = (
        store.issuers().await.unwrap(),
        store.responders().await.unwrap(),
        store.certificate(issuer, &serial(1)).await.unwrap(),
        store.certificate(issuer, &serial(2)).await.unwrap(),
    );
    assert_eq!(after, before);
    assert_eq!(store.feed_position().await.unwrap(), position);
    assert!(store.changes(FeedPosition(0)).await.unwrap().keys.len() >= 2, "another handle wrote them");
    store.register(issuer, &(3..300).map(good).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(store.counts(issuer, UnixTime(0)).await.unwrap().unexpired, 299);
}

pub(super) async fn a_closed_handle_gives_errors(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    store.close().await;
    let error = store.register(issuer, &[good(1)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(store.url()), "{error}");
    assert!(store.issuers().await.is_err());
    store.close().await;
}
