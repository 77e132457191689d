use super::*;

pub(super) async fn an_answer_is_stored_for_the_version_that_stands_only(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let before = record(&*store, issuer, 1).await;
    let early = answer(&before, responder, 10);
    assert_eq!(
        store.store_answers(std::slice::from_ref(&early), UnixTime::MAX).await.unwrap(),
        [AnswerOutcome::Stored]
    );
    store.revoke(issuer, &[(serial(1), revoked(5, CrlReason::KeyCompromise))]).await.unwrap();
    let late = answer(&before, responder, 20);
    let ahead = NewAnswer { version: 3, ..late.clone() };
    let outcomes = store.store_answers(&[late, ahead], UnixTime::MAX).await.unwrap();
    assert_eq!(outcomes, [AnswerOutcome::Superseded, AnswerOutcome::Superseded]);
    let state = store.certificate(issuer, &serial(1)).await.unwrap().unwrap();
    assert!(state.answer.is_none_or(|answer| answer.version == 1), "only as what it is: an old one");
    // The first answer of the new version may even be older than the old one.
    let current = answer(&record(&*store, issuer, 1).await, responder, 5);
    assert_eq!(store.store_answers(&[current], UnixTime::MAX).await.unwrap(), [AnswerOutcome::Stored]);
    let stored = store.certificate(issuer, &serial(1)).await.unwrap().unwrap().answer.unwrap();
    assert_eq!((stored.version, stored.this_update), (2, UnixTime(5)));
}

pub(super) async fn of_two_answers_for_one_version_the_later_stands(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let certificate = record(&*store, issuer, 1).await;
    let at = |this_update| answer(&certificate, responder, this_update);
    let stored = async || {
        let state = store.certificate(issuer, &serial(1)).await.unwrap().unwrap();
        let stored = state.answer.unwrap();
        (stored.this_update.0, stored.signature[0])
    };
    let outcomes = store.store_answers(&[at(20), at(10), at(30)], UnixTime::MAX).await.unwrap();
    assert_eq!(outcomes, [AnswerOutcome::Stored, AnswerOutcome::Superseded, AnswerOutcome::Stored]);
    assert_eq!(stored().await, (30, 0xa5));
    assert_eq!(store.store_answers(&[at(29)], UnixTime::MAX).await.unwrap(), [AnswerOutcome::Superseded]);
    let again = NewAnswer { signature: vec![1].into(), ..at(30) };
    assert_eq!(store.store_answers(&[again], UnixTime::MAX).await.unwrap(), [AnswerOutcome::Stored]);
    assert_eq!(stored().await, (30, 1));
}

pub(super) async fn answers_for_certificates_that_do_not_exist_are_dropped(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let certificate = record(&*store, issuer, 1).await;
    let answers = [i64::MIN, 0, certificate.key.row, certificate.key.row + 9, i64::MAX].map(|row| {
        NewAnswer { key: CertificateKey { row, ..certificate.key }, ..answer(&certificate, responder, 10) }
    });
    let outcomes = store.store_answers(&answers, UnixTime::MAX).await.unwrap();
    let stored: Vec<_> = outcomes.iter().map(|outcome| *outcome == AnswerOutcome::Stored).collect();
    assert_eq!(stored, [false, false, true, false, false]);
    assert!(store.store_answers(&[], UnixTime::MAX).await.unwrap().is_empty());
}

pub(super) async fn an_answer_comes_back_octet_for_octet(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    let certificate = record(&*store, issuer, 1).await;
    let given = NewAnswer {
        response_data: (0..=255).cycle().take(70_000).collect(),
        signature: (0..=255).rev().cycle().take(512).collect(),
        ..answer(&certificate, responder, 10)
    };
    store.store_answers(std::slice::from_ref(&given), UnixTime::MAX).await.unwrap();
    let expected = StoredAnswer {
        version: 1,
        responder,
        this_update: UnixTime(10),
        next_update: UnixTime(110),
        response_data: given.response_data,
        signature: given.signature,
        pack: None,
    };
    let expected = CertificateState { certificate, answer: Some(expected) };
    let key = expected.certificate.key;
    assert_eq!(store.certificate(issuer, &serial(1)).await.unwrap().as_ref(), Some(&expected));
    assert_eq!(store.certificates(&[key]).await.unwrap(), std::slice::from_ref(&expected));
    assert!(store.states(key.shard, 0, 9, UnixTime(0)).await.unwrap().contains(&expected));
    assert_eq!(store.certificate(issuer, &serial(2)).await.unwrap().unwrap().answer, None);
}

pub(super) async fn an_answer_for_an_older_version_is_not_scheduled_by(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1)]).await.unwrap();
    let certificate = record(&*store, issuer, 1).await;
    store.store_answers(&[answer(&certificate, responder, 10)], UnixTime::MAX).await.unwrap();
    let scheduled = async || {
        let page = store.schedule(certificate.key.shard, 0, 9, UnixTime(0)).await.unwrap();
        assert_eq!((page.len(), page[0].serial, page[0].issuer), (1, serial(1), issuer));
        assert_eq!((page[0].key, page[0].not_before, page[0].not_after), (certificate.key, None, NOT_AFTER));
        page[0].answer
    };
    let due = async || store.due(&[certificate.key]).await.unwrap();
    let times =
        AnswerTimes { this_update: UnixTime(10), next_update: UnixTime(110), responder, broken: false };
    assert_eq!(scheduled().await, Some(times));
    assert_eq!(due().await, [DueCertificate { certificate: certificate.clone(), answer: Some(times) }]);
    store.revoke(issuer, &[(serial(1), revoked(5, CrlReason::KeyCompromise))]).await.unwrap();
    assert_eq!(scheduled().await, None);
    let now = record(&*store, issuer, 1).await;
    assert_eq!(now.version, 2);
    assert_eq!(due().await, [DueCertificate { certificate: now, answer: None }]);
}

pub(super) async fn one_bad_answer_leaves_the_others_unstored(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    let fine = answer(&record(&*store, issuer, 1).await, responder, 10);
    let bad = answer(&record(&*store, issuer, 2).await, ResponderNumber(99), 10);
    let position = store.feed_position().await.unwrap();
    assert!(matches!(
        store.store_answers(&[fine, bad], UnixTime::MAX).await,
        Err(StoreError::Missing { .. })
    ));
    assert_eq!(store.certificate(issuer, &serial(1)).await.unwrap().unwrap().answer, None);
    assert_eq!(store.feed_position().await.unwrap(), position);
}

pub(super) async fn a_long_list_of_answers_is_stored_whole(bed: &dyn Bed) {
    const MANY: u32 = 9_000;
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &(0..MANY).map(good).collect::<Vec<_>>()).await.unwrap();
    let mut answers = Vec::new();
    for shard in Shard::all() {
        let page = store.states(shard, 0, MANY, UnixTime(0)).await.unwrap();
        answers.extend(page.iter().map(|state| answer(&state.certificate, responder, 10)));
    }
    let outcomes = store.store_answers(&answers, UnixTime::MAX).await.unwrap();
    assert_eq!(outcomes, vec![AnswerOutcome::Stored; MANY as usize]);
    assert_eq!(store.counts(issuer, UnixTime(50)).await.unwrap().answered, u64::from(MANY));
    for shard in Shard::all() {
        for state in store.states(shard, 0, MANY, UnixTime(0)).await.unwrap() {
            let expected = format!("data of {} at 10", state.certificate.serial);
            assert_eq!(state.answer.unwrap().response_data, expected.into_bytes());
        }
    }
}
