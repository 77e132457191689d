//! A fleet whose answers are all due: certificates with an answer of a refresh interval ago, put into the
//! store by its own bulk statements. Each answer says what a signed one would; its signature is none.

use std::time::Duration;

use goodstanding::clock::UnixTime;
use goodstanding::ocsp::{CertStatus, Serial};
use goodstanding::presign::Policy;
use goodstanding::presign::identity::Identity;
use goodstanding::store::{AnswerOutcome, CertificateEntry, IssuerId, NewAnswer, Shard, Store};

/// Rows written at once.
const PORTION: usize = 5_000;

/// Registers a certificate for each serial number, and stores an answer for it that is due.
pub(crate) async fn fill(
    store: &dyn Store,
    issuer: IssuerId,
    identity: &Identity,
    policy: &Policy,
    serials: &[Serial],
    now: UnixTime,
) {
    let day = Duration::from_secs(86_400);
    for part in serials.chunks(PORTION) {
        let entries: Vec<_> = part
            .iter()
            .map(|serial| CertificateEntry {
                serial: *serial,
                not_before: Some(now.minus(30 * day)),
                not_after: now.plus(60 * day),
                revocation: None,
            })
            .collect();
        assert_eq!(store.register(issuer, &entries).await.unwrap().added, part.len() as u64);
    }
    // All are due at the end of the interval, however their due times are spread.
    let made = now.minus(policy.freshness.refresh()).minus(Duration::from_secs(60));
    assert!(policy.freshness.stale_at(made, made.plus(policy.freshness.validity())) > now);
    let mut stored = 0;
    for shard in Shard::all() {
        let rows = store.schedule(shard, 0, u32::MAX, now).await.unwrap();
        let answers: Vec<_> = rows
            .iter()
            .map(|row| {
                let draft = identity.draft(row.serial, CertStatus::Good, policy, made).unwrap();
                NewAnswer {
                    key: row.key,
                    version: 1,
                    responder: identity.responder,
                    this_update: draft.this_update,
                    next_update: draft.next_update,
                    response_data: draft.response_data,
                    signature: vec![0x5a; 71].into(),
                    packed: false,
                }
            })
            .collect();
        for part in answers.chunks(PORTION) {
            let outcomes = store.store_answers(part, now).await.unwrap();
            stored += outcomes.iter().filter(|outcome| **outcome == AnswerOutcome::Stored).count();
        }
    }
    assert_eq!(stored, serials.len());
}
