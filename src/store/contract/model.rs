//! The contract as a few lines over a map, and any sequence of calls against both.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// One call.
#[derive(Clone, Debug)]
enum Call {
    Register(Vec<(u32, Option<i64>, i64, Option<Revocation>)>),
    Revoke(Vec<(u32, Revocation)>),
    Unhold(u32),
    /// Serial, version as seen this many changes ago, thisUpdate.
    Answer(Vec<(u32, i64, i64)>),
}

/// What the model holds of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    not_before: Option<i64>,
    not_after: i64,
    revocation: Option<Revocation>,
    version: i64,
    /// Version and thisUpdate.
    answer: Option<(i64, i64)>,
}

#[derive(Default)]
struct Model(BTreeMap<u32, Held>);

impl Model {
    fn register(&mut self, number: u32, not_before: Option<i64>, not_after: i64, said: Option<Revocation>) {
        let Some(held) = self.0.get_mut(&number) else {
            let held = Held { not_before, not_after, revocation: said, version: 1, answer: None };
            self.0.insert(number, held);
            return;
        };
        held.not_before = held.not_before.or(not_before);
        held.not_after = not_after;
        if let Some(said) = said {
            self.revoke(number, said);
        }
    }

    /// Changed, unchanged, refused or not found, as one letter.
    fn revoke(&mut self, number: u32, asked: Revocation) -> char {
        let Some(held) = self.0.get_mut(&number) else { return 'n' };
        let is_hold = |revocation: Revocation| revocation.reason == Some(CrlReason::CertificateHold);
        match held.revocation {
            Some(present) if present == asked || (is_hold(present) && is_hold(asked)) => 'u',
            Some(present) if !is_hold(present) => 'r',
            _ => {
                held.revocation = Some(asked);
                held.version += 1;
                'c'
            }
        }
    }

    fn unhold(&mut self, number: u32) -> char {
        let Some(held) = self.0.get_mut(&number) else { return 'n' };
        match held.revocation {
            None => 'u',
            Some(Revocation { reason: Some(CrlReason::CertificateHold), .. }) => {
                held.revocation = None;
                held.version += 1;
                'c'
            }
            Some(_) => 'r',
        }
    }

    fn answer(&mut self, number: u32, version: i64, this_update: i64) -> AnswerOutcome {
        match self.0.get_mut(&number) {
            Some(held)
                if held.version == version
                    && !matches!(held.answer, Some((of, at)) if of == version && at > this_update) =>
            {
                held.answer = Some((version, this_update));
                AnswerOutcome::Stored
            }
            _ => AnswerOutcome::Superseded,
        }
    }
}

fn letter(change: &StatusChange) -> char {
    match change {
        StatusChange::Changed(_) => 'c',
        StatusChange::Unchanged(_) => 'u',
        StatusChange::Refused(_) => 'r',
        StatusChange::NotFound => 'n',
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let number = 0u32..6;
    let revocation =
        (
            0i64..3,
            prop_oneof![
                Just(None),
                Just(Some(CrlReason::CertificateHold)),
                Just(Some(CrlReason::KeyCompromise)),
            ],
        )
            .prop_map(|(time, reason)| Revocation { time: UnixTime(time), reason });
    let entry = (
        number.clone(),
        proptest::option::of(0i64..3),
        1_000i64..1_003,
        proptest::option::of(revocation.clone()),
    );
    let some = 1..5usize;
    let call = prop_oneof![
        proptest::collection::vec(entry, some.clone()).prop_map(Call::Register),
        proptest::collection::vec((number.clone(), revocation), some.clone()).prop_map(Call::Revoke),
        number.clone().prop_map(Call::Unhold),
        proptest::collection::vec((number, 0i64..2, 0i64..4), some).prop_map(Call::Answer),
    ];
    proptest::collection::vec(call, 1..25)
}

async fn play(store: &dyn Store, watcher: &dyn Store, calls: &[Call]) -> Result<(), TestCaseError> {
    let issuer = store.add_issuer("demo", b"c").await.unwrap().id;
    let responder = with_responder(store, issuer).await;
    let mut position = watcher.feed_position().await.unwrap();
    let mut model = Model::default();
    for call in calls {
        let before = model.0.clone();
        match call {
            Call::Register(entries) => {
                let given: Vec<_> = entries
                    .iter()
                    .map(|(number, not_before, not_after, revocation)| CertificateEntry {
                        serial: serial(*number),
                        not_before: not_before.map(UnixTime),
                        not_after: UnixTime(*not_after),
                        revocation: *revocation,
                    })
                    .collect();
                let mut expected = Registered::default();
                for (number, not_before, not_after, revocation) in entries {
                    let held = model.0.get(number).cloned();
                    model.register(*number, *not_before, *not_after, *revocation);
                    match held {
                        None => expected.added += 1,
                        held if held.as_ref() == model.0.get(number) => expected.unchanged += 1,
                        _ => expected.changed += 1,
                    }
                }
                prop_assert_eq!(store.register(issuer, &given).await.unwrap(), expected);
            }
            Call::Revoke(entries) => {
                let given: Vec<_> = entries.iter().map(|(number, asked)| (serial(*number), *asked)).collect();
                let outcomes = store.revoke(issuer, &given).await.unwrap();
                let expected: String =
                    entries.iter().map(|(number, asked)| model.revoke(*number, *asked)).collect();
                prop_assert_eq!(outcomes.iter().map(letter).collect::<String>(), expected);
            }
            Call::Unhold(number) => {
                let outcome = store.unhold(issuer, &serial(*number)).await.unwrap();
                prop_assert_eq!(letter(&outcome), model.unhold(*number));
            }
            Call::Answer(entries) => {
                let (mut given, mut expected) = (Vec::new(), Vec::new());
                for (number, ago, this_update) in entries {
                    let Some(state) = store.certificate(issuer, &serial(*number)).await.unwrap() else {
                        continue;
                    };
                    let mut signed = answer(&state.certificate, responder, *this_update);
                    signed.version -= ago;
                    expected.push(model.answer(*number, signed.version, *this_update));
                    given.push(signed);
                }
                prop_assert_eq!(store.store_answers(&given, UnixTime::MAX).await.unwrap(), expected);
            }
        }
        // Through the other handle: the state agrees, and what changed was announced.
        let changes = watcher.changes(position).await.unwrap();
        position = changes.position;
        for number in 0..6 {
            let state = watcher.certificate(issuer, &serial(number)).await.unwrap();
            let held = state.as_ref().map(|state| Held {
                not_before: state.certificate.not_before.map(|time| time.0),
                not_after: state.certificate.not_after.0,
                revocation: state.certificate.revocation,
                version: state.certificate.version,
                answer: state.answer.as_ref().map(|answer| (answer.version, answer.this_update.0)),
            });
            prop_assert_eq!(held.as_ref(), model.0.get(&number), "number {}", number);
            if before.get(&number) != model.0.get(&number) {
                let key = state.unwrap().certificate.key;
                prop_assert!(changes.keys.contains(&key), "{} was not announced", number);
            }
        }
    }
    Ok(())
}

pub(super) fn any_sequence_of_calls_agrees_with_the_model<B: Bed>(bed: impl Fn() -> B) {
    let runtime = runtime();
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    runner
        .run(&calls(), |calls| {
            runtime.block_on(async {
                let bed = bed();
                let (store, watcher) = (bed.handle().await, bed.handle().await);
                let played = play(&*store, &*watcher, &calls).await;
                store.close().await;
                watcher.close().await;
                played
            })
        })
        .unwrap();
}
