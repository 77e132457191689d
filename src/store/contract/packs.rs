use super::*;

/// One answer for these certificates.
async fn pack_of(
    store: &dyn Store,
    issuer: IssuerId,
    responder: ResponderNumber,
    numbers: std::ops::Range<u32>,
    this_update: i64,
) -> Vec<NewAnswer> {
    let mut answers = Vec::new();
    for number in numbers.clone() {
        let certificate = record(store, issuer, number).await;
        answers.push(NewAnswer {
            response_data: format!("data of {numbers:?} at {this_update}").into_bytes().into(),
            signature: format!("signature of {numbers:?} at {this_update}").into_bytes().into(),
            packed: true,
            ..answer(&certificate, responder, this_update)
        });
    }
    answers
}

async fn with_fleet(bed: &dyn Bed) -> (Arc<dyn Store>, IssuerId, ResponderNumber) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(&*store, issuer).await;
    store.register(issuer, &(0..9).map(good).collect::<Vec<_>>()).await.unwrap();
    (store, issuer, responder)
}

async fn answer_of(store: &dyn Store, issuer: IssuerId, number: u32) -> StoredAnswer {
    store.certificate(issuer, &serial(number)).await.unwrap().unwrap().answer.unwrap()
}

fn pack(outcome: AnswerOutcome) -> InPack {
    match outcome {
        AnswerOutcome::Packed(pack) => pack,
        other => panic!("{other:?} is no pack"),
    }
}

async fn members(store: &dyn Store, issuer: IssuerId, pack: PackNumber) -> Vec<u32> {
    let keys = store.pack_members(pack).await.unwrap();
    let mut numbers = Vec::new();
    for number in 0..9 {
        if keys.contains(&record(store, issuer, number).await.key) {
            numbers.push(number);
        }
    }
    assert_eq!(numbers.len(), keys.len());
    numbers
}

pub(super) async fn a_pack_is_the_answer_of_each_of_its_certificates(bed: &dyn Bed) {
    let (store, issuer, responder) = with_fleet(bed).await;
    let mut answers = pack_of(&*store, issuer, responder, 0..4, 10).await;
    answers.extend(pack_of(&*store, issuer, responder, 4..6, 10).await);
    answers.push(answer(&record(&*store, issuer, 6).await, responder, 10));
    let outcomes = store.store_answers(&answers, UnixTime::MAX).await.unwrap();
    let packs: Vec<_> = outcomes[..6].iter().map(|outcome| pack(*outcome)).collect();
    assert!(packs[..4].iter().all(|pack| *pack == packs[0] && !pack.broken));
    assert!(packs[4] == packs[5] && packs[4] != packs[0]);
    assert_eq!(outcomes[6], AnswerOutcome::Stored);
    assert_eq!(members(&*store, issuer, packs[0].number).await, [0, 1, 2, 3]);
    for (number, pack) in packs.iter().enumerate() {
        let of_serial = answer_of(&*store, issuer, number as u32).await;
        assert_eq!(of_serial.response_data, answers[number].response_data);
        assert_eq!(of_serial.signature, answers[number].signature);
        assert_eq!(of_serial.pack, Some(*pack));
        let certificate = record(&*store, issuer, number as u32).await;
        let by_key = store.certificates(&[certificate.key]).await.unwrap();
        assert_eq!(by_key[0].answer.as_ref(), Some(&of_serial));
        let paged = store.states(certificate.key.shard, 0, 9, UnixTime(0)).await.unwrap();
        assert!(paged.iter().any(|state| state.answer.as_ref() == Some(&of_serial)));
    }
    assert_eq!(answer_of(&*store, issuer, 6).await.pack, None);
}

pub(super) async fn a_change_of_status_breaks_the_pack_and_announces_what_is_left_in_it(bed: &dyn Bed) {
    let (store, issuer, responder) = with_fleet(bed).await;
    let answers = pack_of(&*store, issuer, responder, 0..4, 10).await;
    let number = pack(store.store_answers(&answers, UnixTime::MAX).await.unwrap()[0]).number;
    let watcher = bed.handle().await;
    let position = watcher.feed_position().await.unwrap();
    // What changes no status breaks nothing.
    let longer = CertificateEntry { not_after: UnixTime(6_000), ..good(1) };
    store.register(issuer, &[longer]).await.unwrap();
    assert_eq!(answer_of(&*store, issuer, 0).await.pack, Some(InPack { number, broken: false }));
    let position = watcher.changes(position).await.unwrap().position;

    store.revoke(issuer, &[(serial(2), revoked(5, CrlReason::KeyCompromise))]).await.unwrap();
    let changes = watcher.changes(position).await.unwrap();
    for number in 0..4 {
        assert!(changes.keys.contains(&record(&*store, issuer, number).await.key), "{number}");
    }
    assert_eq!(answer_of(&*store, issuer, 0).await.pack, Some(InPack { number, broken: true }));
    let mut broken = 0;
    for shard in Shard::all() {
        let page = store.schedule(shard, 0, 20, UnixTime(0)).await.unwrap();
        broken += page.iter().filter(|entry| entry.answer.is_some_and(|answer| answer.broken)).count();
    }
    assert_eq!(broken, 3, "the revoked one has no answer for its new status");
}

pub(super) async fn a_pack_of_which_one_is_not_stored_is_broken_from_the_start(bed: &dyn Bed) {
    let (store, issuer, responder) = with_fleet(bed).await;
    let answers = pack_of(&*store, issuer, responder, 0..3, 10).await;
    store.revoke(issuer, &[(serial(1), revoked(5, CrlReason::KeyCompromise))]).await.unwrap();
    let outcomes = store.store_answers(&answers, UnixTime::MAX).await.unwrap();
    assert!(pack(outcomes[0]).broken && pack(outcomes[2]).broken);
    assert_eq!(outcomes[1], AnswerOutcome::Superseded);
    assert!(answer_of(&*store, issuer, 0).await.pack.unwrap().broken);
    assert_eq!(members(&*store, issuer, pack(outcomes[0]).number).await, [0, 2]);
}

pub(super) async fn a_certificate_with_another_answer_leaves_its_pack(bed: &dyn Bed) {
    let (store, issuer, responder) = with_fleet(bed).await;
    let first = pack_of(&*store, issuer, responder, 0..3, 10).await;
    let first = pack(store.store_answers(&first, UnixTime::MAX).await.unwrap()[0]).number;
    let alone = answer(&record(&*store, issuer, 0).await, responder, 20);
    store.store_answers(&[alone], UnixTime::MAX).await.unwrap();
    assert_eq!(members(&*store, issuer, first).await, [1, 2]);
    assert_eq!(answer_of(&*store, issuer, 0).await.response_data, "data of 00 at 20");
    let second = pack_of(&*store, issuer, responder, 0..3, 30).await;
    let second = pack(store.store_answers(&second, UnixTime::MAX).await.unwrap()[0]).number;
    assert_ne!(first, second);
    assert!(members(&*store, issuer, first).await.is_empty());
    assert_eq!(members(&*store, issuer, second).await, [0, 1, 2]);
    assert_eq!(answer_of(&*store, issuer, 2).await.response_data, "data of 0..3 at 30");
}
