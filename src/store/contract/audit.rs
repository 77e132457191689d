//! The audit log.

use super::*;
use crate::store::audit::{AuditHead, AuditLine, Checkpoint, Digest, NewLine, Verifier, acting_as};

async fn lines(store: &dyn Store) -> Vec<AuditLine> {
    let lines = store.audit_lines(0, 10_000).await.unwrap();
    let mut verifier = Verifier::default();
    let faults: Vec<_> = lines.iter().flat_map(|line| verifier.read(line)).collect();
    assert_eq!(faults, []);
    assert_eq!(verifier.finish().0, store.audit_head().await.unwrap());
    lines
}

async fn actions(store: &dyn Store) -> Vec<String> {
    lines(store).await.into_iter().map(|line| line.action).collect()
}

pub(super) async fn each_change_writes_one_line_and_what_changes_nothing_writes_none(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let responder = with_responder(store.as_ref(), issuer).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    let hold = revoked(900, CrlReason::CertificateHold);
    store.revoke(issuer, &[(serial(1), hold)]).await.unwrap();
    store.unhold(issuer, &serial(1)).await.unwrap();
    let certificate = record(store.as_ref(), issuer, 1).await;
    store.store_answers(&[answer(&certificate, responder, 1_000)], UnixTime(1_000)).await.unwrap();
    let expected = [
        "issuer.add",
        "responder.install",
        "certificate.register",
        "certificate.revoke",
        "certificate.unhold",
        "answer.sign",
    ];
    assert_eq!(actions(store.as_ref()).await, expected);

    store.add_issuer("demo", b"its certificate").await.unwrap();
    with_responder(store.as_ref(), issuer).await;
    store.register(issuer, &[good(1), good(2)]).await.unwrap();
    store.revoke(issuer, &[(serial(9), hold)]).await.unwrap();
    store.unhold(issuer, &serial(1)).await.unwrap();
    store.store_answers(&[answer(&certificate, responder, 500)], UnixTime(1_000)).await.unwrap();
    assert_eq!(actions(store.as_ref()).await, expected);
}

pub(super) async fn a_line_tells_who_acted_and_what_was_changed(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let entries = [(serial(0xab), revoked(900, CrlReason::KeyCompromise))];
    acting_as("credential ra-1".to_owned(), async {
        store.register(issuer, &[good(0xab)]).await.unwrap();
        store.revoke(issuer, &entries).await.unwrap();
    })
    .await;
    store.append_audit(&NewLine::new("credential.new", &serde_json::json!({ "name": "x" }))).await.unwrap();
    let lines = lines(store.as_ref()).await;
    let actors: Vec<_> = lines.iter().map(|line| line.actor.as_str()).collect();
    assert_eq!(actors, ["goodstanding", "credential ra-1", "credential ra-1", "goodstanding"]);
    let detail: serde_json::Value = serde_json::from_str(&lines[2].detail).unwrap();
    assert_eq!(detail["issuer"], issuer.0);
    assert_eq!(detail["count"], 1);
    assert_eq!(
        detail["certificates"],
        serde_json::json!([{
            "serial": "ab", "version": 2, "not_after": "1970-01-01T01:23:20Z",
            "revoked_at": "1970-01-01T00:15:00Z", "reason": "keyCompromise",
        }])
    );
    assert_eq!(detail["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(lines[3].detail, r#"{"name":"x"}"#);
    // Pages follow one another.
    assert_eq!(store.audit_lines(2, 1).await.unwrap(), lines[2..3]);
    assert_eq!(store.audit_lines(4, 10).await.unwrap(), []);
}

pub(super) async fn a_refused_call_leaves_no_line(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let before = store.audit_head().await.unwrap();
    assert!(store.register(IssuerId(77), &[good(1)]).await.is_err());
    assert!(store.add_issuer("demo", b"another certificate").await.is_err());
    store.register(issuer, &[]).await.unwrap();
    assert_eq!(store.audit_head().await.unwrap(), before);
}

pub(super) async fn handles_that_write_together_make_one_chain_without_gaps(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let mut tasks = Vec::new();
    for handle in 0..4 {
        let store = bed.handle().await;
        tasks.push(tokio::spawn(async move {
            for number in 0..10 {
                store.register(issuer, &[good(handle * 100 + number)]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let numbers: Vec<_> = lines(store.as_ref()).await.iter().map(|line| line.number).collect();
    assert_eq!(numbers, (1..=41).collect::<Vec<_>>());
}

pub(super) async fn a_portion_of_answers_is_one_line_a_token(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    let first = with_responder(store.as_ref(), issuer).await;
    let other = NewResponder {
        token: "hsm-b".to_owned(),
        certificate: b"another responder certificate".to_vec(),
        ..responder(issuer, "ocsp-2")
    };
    let second = store.add_responder(&other, UnixTime(1_000)).await.unwrap().number;
    store.register(issuer, &[good(1), good(2), good(3)]).await.unwrap();
    let mut answers = Vec::new();
    for (number, responder) in [(1, first), (2, second), (3, first)] {
        answers.push(answer(&record(store.as_ref(), issuer, number).await, responder, 1_000));
    }
    store.store_answers(&answers, UnixTime(1_000)).await.unwrap();
    let signed: Vec<(String, u64)> = lines(store.as_ref())
        .await
        .iter()
        .filter(|line| line.action == "answer.sign")
        .map(|line| {
            let detail: serde_json::Value = serde_json::from_str(&line.detail).unwrap();
            (detail["token"].as_str().unwrap().to_owned(), detail["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(signed, [("hsm-a".to_owned(), 2), ("hsm-b".to_owned(), 1)]);
}

pub(super) async fn a_pruned_log_goes_on_from_its_checkpoint(bed: &dyn Bed) {
    let (store, issuer) = with_issuer(bed).await;
    for number in 1..=5 {
        store.register(issuer, &[good(number)]).await.unwrap();
    }
    let before = lines(store.as_ref()).await;
    let told = || serde_json::json!({ "archive": "a.jsonl" });
    let nowhere = AuditHead { number: 3, hash: Digest::ZERO };
    assert!(matches!(store.prune_audit(nowhere, told()).await, Err(StoreError::Conflict(_))));
    assert_eq!(lines(store.as_ref()).await, before);

    assert_eq!(store.prune_audit(before[2].head(), told()).await.unwrap(), 3);
    let after = lines(store.as_ref()).await;
    assert_eq!(after[..3], before[3..]);
    assert_eq!((after.len(), Checkpoint::of(&after[3])), (4, Some(before[2].head())));
    let detail: serde_json::Value = serde_json::from_str(&after[3].detail).unwrap();
    assert_eq!((&detail["lines"], &detail["archive"]), (&3.into(), &"a.jsonl".into()));
    // All of it: the checkpoint stands alone, and the chain goes on from it.
    assert_eq!(store.prune_audit(after[3].head(), told()).await.unwrap(), 4);
    store.register(issuer, &[good(9)]).await.unwrap();
    let last = lines(store.as_ref()).await;
    assert_eq!(last.iter().map(|line| line.number).collect::<Vec<_>>(), [8, 9]);
}
