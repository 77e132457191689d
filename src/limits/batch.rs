//! A group of requests that are decided and written together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::LimitsError;
use super::actor::{Reply, Request};
use super::book::{Book, Entered};
use super::decide::{Ask, OrderAsk};
use super::decision::{Decision, Outcome, RefusalCause};
use super::overrides::Override;
use super::pressure::Pressure;
use super::service::{Committed, Counters, Released};
use super::turn::Turn;
use crate::clock::UnixTime;
use crate::store::{LedgerRecord, StoreError};

pub(super) struct Batch {
    requests: Vec<Request>,
    answers: Vec<Answer>,
    records: Vec<LedgerRecord>,
    entered: Vec<Entered>,
}

/// What a request will be told once its group is written.
enum Answer {
    Decision(Box<Result<Decision, LimitsError>>),
    Committed(Result<Committed, LimitsError>),
    Released(Result<Released, LimitsError>),
    Override(Result<Override, LimitsError>),
}

impl Batch {
    pub(super) fn new(requests: Vec<Request>) -> Self {
        Self { requests, answers: Vec::new(), records: Vec::new(), entered: Vec::new() }
    }

    /// What is to be written.
    pub(super) fn records(&self) -> &[LedgerRecord] {
        &self.records
    }

    /// Decides every request, each on top of those before it.
    pub(super) fn decide(&mut self, book: &mut Book, pressure: &Pressure, now: UnixTime) {
        for at in 0..self.requests.len() {
            let mut turn = Turn::new(book, pressure, now);
            let answer = answer(&mut turn, &self.requests[at]);
            if let Some(record) = turn.into_record() {
                self.entered.push(book.enter(Arc::new(record.clone()), None, now));
                self.records.push(record);
            }
            self.answers.push(answer);
        }
    }

    /// Takes every decision back.
    pub(super) fn undo(&mut self, book: &mut Book, now: UnixTime) {
        for entered in self.entered.drain(..).rev() {
            book.undo(entered, now);
        }
        self.records.clear();
        self.answers.clear();
    }

    /// Tells everybody. A caller that has gone is no matter.
    pub(super) fn answer(self, counters: &Counters) {
        for (request, answer) in self.requests.into_iter().zip(self.answers) {
            answer.count(counters);
            match (request, answer) {
                (Request::Register { reply, .. } | Request::Order { reply, .. }, Answer::Decision(word)) => {
                    drop(reply.send(*word));
                }
                (
                    Request::Commit { reply, .. } | Request::Remember { reply, .. },
                    Answer::Committed(word),
                ) => {
                    drop(reply.send(word));
                }
                (Request::Release { reply, .. }, Answer::Released(word)) => drop(reply.send(word)),
                (
                    Request::AddOverride { reply, .. } | Request::RemoveOverride { reply, .. },
                    Answer::Override(word),
                ) => drop(reply.send(word)),
                // `answer` of a turn gives each its own kind.
                _ => {}
            }
        }
    }

    /// Tells everybody that it could not be written.
    pub(super) fn fail(self, error: &Arc<StoreError>) {
        fn refuse<T>(reply: Reply<T>, error: &Arc<StoreError>) {
            drop(reply.send(Err(LimitsError::Store(Arc::clone(error)))));
        }
        for request in self.requests {
            match request {
                Request::Register { reply, .. } | Request::Order { reply, .. } => refuse(reply, error),
                Request::Commit { reply, .. } | Request::Remember { reply, .. } => refuse(reply, error),
                Request::Release { reply, .. } => refuse(reply, error),
                Request::AddOverride { reply, .. } | Request::RemoveOverride { reply, .. } => {
                    refuse(reply, error);
                }
                Request::View { reply, .. } => refuse(reply, error),
                Request::Show { reply, .. } => refuse(reply, error),
                Request::Overrides { reply } => refuse(reply, error),
                Request::ReplaceProfile { reply, .. } => refuse(reply, error),
            }
        }
    }
}

impl Answer {
    fn decision(word: Result<Decision, LimitsError>) -> Self {
        Self::Decision(Box::new(word))
    }

    fn count(&self, counters: &Counters) {
        match self {
            Self::Decision(word) => {
                if let Ok(decision) = &**word
                    && !decision.repeated
                {
                    count_decision(decision, counters);
                }
            }
            Self::Committed(Ok(committed)) => {
                if committed.late {
                    tracing::warn!(
                        order = committed.order.0,
                        certificate = committed.certificate,
                        "a certificate was issued after its order had ended: it counts all the same"
                    );
                }
                add(&counters.committed, !committed.repeated);
            }
            Self::Released(Ok(released)) => add(&counters.released, !released.repeated),
            _ => {}
        }
    }
}

fn add(counter: &AtomicU64, one: bool) {
    counter.fetch_add(u64::from(one), Ordering::Relaxed);
}

fn count_decision(decision: &Decision, counters: &Counters) {
    let refused = decision.order().is_none();
    for refusal in &decision.shadow {
        add(&counters.shadow_refusals, true);
        tracing::info!(
            limit = refusal.limit,
            key = refusal.key,
            count = refusal.count,
            effective = refusal.effective,
            "a limit in shadow mode would have refused"
        );
    }
    if decision.registration {
        add(&counters.registrations, true);
        add(&counters.registrations_refused, refused);
    } else if decision.renewal.is_some() {
        add(&counters.renewals, true);
        add(&counters.renewals_refused, refused);
    } else {
        add(&counters.new_orders, true);
        add(&counters.new_orders_refused, refused);
        add(&counters.new_orders_refused_for_capacity, for_capacity(decision));
    }
}

/// Whether the nominal limits would have let it pass.
fn for_capacity(decision: &Decision) -> bool {
    match &decision.outcome {
        Outcome::Allowed { .. } => false,
        Outcome::Refused { refusals, .. } => refusals.iter().all(|refusal| {
            refusal.cause == RefusalCause::Capacity
                || (refusal.cause == RefusalCause::Tightened && refusal.count < refusal.nominal)
        }),
    }
}

/// What a request is told, on top of everything before it.
fn answer(turn: &mut Turn<'_>, request: &Request) -> Answer {
    match request {
        Request::Register { ip, idempotency, .. } => {
            Answer::decision(turn.ask(&Ask::Registration(*ip), idempotency.as_deref()))
        }
        Request::Order { account, identifiers, replaces, idempotency, .. } => {
            let ask = OrderAsk { account, identifiers, replaces: replaces.as_deref() };
            Answer::decision(turn.ask(&Ask::Order(ask), idempotency.as_deref()))
        }
        Request::Commit { order, certificate, .. } => Answer::Committed(turn.commit(*order, certificate)),
        Request::Remember { identifiers, known, .. } => Answer::Committed(turn.remember(identifiers, known)),
        Request::Release { order, failed, .. } => Answer::Released(turn.release(*order, failed)),
        Request::AddOverride { new, .. } => Answer::Override(turn.add_override(new)),
        Request::RemoveOverride { id, .. } => Answer::Override(turn.remove_override(*id)),
        // The task answers these itself.
        Request::View { .. }
        | Request::Show { .. }
        | Request::Overrides { .. }
        | Request::ReplaceProfile { .. } => Answer::decision(Err(LimitsError::Stopped)),
    }
}
