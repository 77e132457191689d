//! A group of requests that are decided and written together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::LimitsError;
use super::actor::{Reply, Request};
use super::book::{Book, Entered};
use super::decide::{Ask, OrderAsk, decide};
use super::decision::{Decision, Outcome, RefusalCause};
use super::overrides::{self, Override};
use super::pressure::Pressure;
use super::profile::Profile;
use super::service::{Committed, Counters, IssuedCertificate, Released};
use crate::clock::UnixTime;
use crate::store::{LedgerEntry, LedgerId, LedgerRecord, OrderEntry, OrderState, OverrideEntry, StoreError};

/// What a request that went wrong can still be useful for: an order is known this long after its end.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

pub(super) struct Batch {
    requests: Vec<Request>,
    answers: Vec<Answer>,
    records: Vec<LedgerRecord>,
    entered: Vec<Entered>,
}

/// What a request will be told once its group is written.
enum Answer {
    Decision(Result<Decision, LimitsError>),
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
            let mut turn = Turn { book, pressure, now, record: None };
            let answer = turn.answer(&self.requests[at]);
            if let Some(record) = turn.record {
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
                    drop(reply.send(word));
                }
                (Request::Commit { reply, .. }, Answer::Committed(word)) => drop(reply.send(word)),
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
                Request::Commit { reply, .. } => refuse(reply, error),
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
    fn count(&self, counters: &Counters) {
        let add = |counter: &std::sync::atomic::AtomicU64, one: bool| {
            counter.fetch_add(u64::from(one), Ordering::Relaxed);
        };
        match self {
            Self::Decision(Ok(decision)) if !decision.repeated => {
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

/// One request on top of everything before it.
struct Turn<'b> {
    book: &'b Book,
    pressure: &'b Pressure,
    now: UnixTime,
    record: Option<LedgerRecord>,
}

impl Turn<'_> {
    fn answer(&mut self, request: &Request) -> Answer {
        match request {
            Request::Register { ip, idempotency, .. } => {
                Answer::Decision(self.ask(&Ask::Registration(*ip), idempotency.as_deref()))
            }
            Request::Order { account, identifiers, replaces, idempotency, .. } => {
                let ask = OrderAsk { account, identifiers, replaces: replaces.as_deref() };
                Answer::Decision(self.ask(&Ask::Order(ask), idempotency.as_deref()))
            }
            Request::Commit { order, certificate, .. } => Answer::Committed(self.commit(*order, certificate)),
            Request::Release { order, failed, .. } => Answer::Released(self.release(*order, failed)),
            Request::AddOverride { new, .. } => Answer::Override(self.add_override(new)),
            Request::RemoveOverride { id, .. } => Answer::Override(self.remove_override(*id)),
            // The task answers these itself.
            Request::View { .. }
            | Request::Show { .. }
            | Request::Overrides { .. }
            | Request::ReplaceProfile { .. } => Answer::Decision(Err(LimitsError::Stopped)),
        }
    }

    fn write(&mut self, id: LedgerId, entry: LedgerEntry) {
        let keep_until = keep_until(self.book.profile(), &entry);
        self.record = Some(LedgerRecord { id, keep_until, entry });
    }

    fn ask(&mut self, ask: &Ask<'_>, idempotency: Option<&str>) -> Result<Decision, LimitsError> {
        if let Some(key) = idempotency
            && let Some(made) = self.book.by_idempotency(key)
        {
            return self.again(ask, made, key);
        }
        let (decision, entry) = decide(self.book, ask, self.pressure, self.now);
        if let Some(mut entry) = entry {
            match &mut entry {
                LedgerEntry::Registration(made) => made.idempotency = idempotency.map(ToOwned::to_owned),
                LedgerEntry::Order(order) => order.idempotency = idempotency.map(ToOwned::to_owned),
                LedgerEntry::Override(_) => {}
            }
            self.write(self.book.next(), entry);
        }
        Ok(decision)
    }

    /// The answer to a request that was made with the same idempotency key before.
    fn again(&self, ask: &Ask<'_>, made: &LedgerRecord, key: &str) -> Result<Decision, LimitsError> {
        let (same, at, expires) = match (ask, &made.entry) {
            (Ask::Registration(ip), LedgerEntry::Registration(made)) => (*ip == made.ip, made.at, None),
            (Ask::Order(ask), LedgerEntry::Order(order)) => {
                let expires = match order.state {
                    OrderState::Reserved { expires } => Some(expires),
                    _ => None,
                };
                // What `replaces` said is kept only where it made a renewal.
                let same = order.identifiers == ask.identifiers.texts()
                    && (order.replaces.is_none() || order.replaces.as_deref() == ask.replaces);
                (same, order.at, expires)
            }
            _ => (false, self.now, None),
        };
        if !same {
            let scope = match ask {
                Ask::Registration(_) => "registration ".to_owned(),
                Ask::Order(order) => format!("order {} ", order.account),
            };
            let key = key.strip_prefix(&scope).unwrap_or(key).to_owned();
            return Err(LimitsError::Idempotency { key, at });
        }
        let profile = self.book.profile();
        Ok(Decision {
            outcome: Outcome::Allowed { order: made.id, expires },
            at: self.now,
            registration: matches!(ask, Ask::Registration(_)),
            renewal: None,
            not_replacing: None,
            limits: Vec::new(),
            warnings: Vec::new(),
            shadow: Vec::new(),
            repeated: true,
            pressure: self.pressure.at(self.now),
            help: profile.help.clone(),
        })
    }

    fn commit(&mut self, id: LedgerId, certificate: &IssuedCertificate) -> Result<Committed, LimitsError> {
        let order = self.book.order(id).ok_or(LimitsError::NoOrder(id))?;
        let late = match &order.state {
            OrderState::Reserved { expires } => self.now >= *expires,
            OrderState::Released { .. } => true,
            OrderState::Issued { at, certificate: known, .. } if *known == certificate.name => {
                let certificate = known.clone();
                return Ok(Committed { order: id, certificate, at: *at, late: false, repeated: true });
            }
            OrderState::Issued { at, certificate: known, .. } => {
                return Err(LimitsError::Issued {
                    order: id,
                    certificate: known.clone(),
                    at: *at,
                    why: "an order has one certificate; make another order for another certificate",
                });
            }
        };
        let state = OrderState::Issued {
            at: self.now,
            certificate: certificate.name.clone(),
            ari: certificate.ari.clone(),
            not_after: certificate.not_after,
        };
        let entry = LedgerEntry::Order(OrderEntry { state, ..order.clone() });
        self.write(id, entry);
        let certificate = certificate.name.clone();
        Ok(Committed { order: id, certificate, at: self.now, late, repeated: false })
    }

    fn release(&mut self, id: LedgerId, failed: &[String]) -> Result<Released, LimitsError> {
        let order = self.book.order(id).ok_or(LimitsError::NoOrder(id))?;
        match &order.state {
            OrderState::Reserved { .. } => {}
            OrderState::Released { at, .. } => {
                return Ok(Released { order: id, at: *at, repeated: true });
            }
            OrderState::Issued { at, certificate, .. } => {
                return Err(LimitsError::Issued {
                    order: id,
                    certificate: certificate.clone(),
                    at: *at,
                    why: "its status must be signed until it expires, so it counts, even when it is revoked",
                });
            }
        }
        // Only what was ordered can have failed.
        let failed = failed.iter().filter(|text| order.identifiers.contains(text)).cloned().collect();
        let state = OrderState::Released { at: self.now, failed };
        let entry = LedgerEntry::Order(OrderEntry { state, ..order.clone() });
        self.write(id, entry);
        Ok(Released { order: id, at: self.now, repeated: false })
    }

    fn add_override(&mut self, new: &overrides::NewOverride) -> Result<Override, LimitsError> {
        let entry = overrides::entry(new, self.book.profile(), self.now)?;
        let present = self
            .book
            .profile()
            .limit(&entry.limit)
            .and_then(|(_, limit)| self.book.override_of(limit, &entry.key, self.now).map(|set| set.id));
        let id = present.unwrap_or(self.book.next());
        let set = Override::of(id, &entry)
            .ok_or_else(|| LimitsError::Override("its tiers do not read".to_owned()))?;
        self.write(id, LedgerEntry::Override(entry));
        Ok(set)
    }

    fn remove_override(&mut self, id: LedgerId) -> Result<Override, LimitsError> {
        let found = self.book.record(id).and_then(|record| match &record.entry {
            LedgerEntry::Override(entry) if !entry.removed && self.now < entry.until => {
                Some((Override::of(id, entry)?, entry.clone()))
            }
            _ => None,
        });
        let (set, entry) = found
            .ok_or_else(|| LimitsError::Override(format!("there is no override {id}, or it has ended")))?;
        self.write(id, LedgerEntry::Override(OverrideEntry { removed: true, until: self.now, ..entry }));
        Ok(set)
    }
}

/// Until when a record can still count for something.
fn keep_until(profile: &Profile, entry: &LedgerEntry) -> UnixTime {
    let kept = profile.longest().max(KEPT);
    match entry {
        LedgerEntry::Registration(made) => made.at.plus(kept),
        LedgerEntry::Order(order) => match &order.state {
            OrderState::Reserved { expires } => expires.plus(kept),
            OrderState::Issued { at, not_after, .. } => {
                at.plus(kept).max(not_after.plus(profile.renewal_grace))
            }
            OrderState::Released { at, .. } => at.plus(kept),
        },
        LedgerEntry::Override(entry) => entry.until.plus(KEPT),
    }
}
