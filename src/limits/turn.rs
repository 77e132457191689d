//! One request on top of everything before it: what is answered, and the record to write for it.

use std::sync::Arc;
use std::time::Duration;

use super::LimitsError;
use super::book::Book;
use super::decide::{Ask, OrderAsk, decide, renewal};
use super::decision::{Decision, Outcome};
use super::identifiers::Identifiers;
use super::overrides::{self, NewOverride, Override};
use super::pressure::Pressure;
use super::profile::Profile;
use super::service::{Committed, IssuedCertificate, KnownCertificate, Released};
use crate::clock::UnixTime;
use crate::store::{LedgerEntry, LedgerId, LedgerRecord, OrderEntry, OrderState, OverrideEntry};

/// How long an order is known after its end: a certificate may still be committed, and an
/// idempotency key come again.
const KEPT: Duration = Duration::from_secs(7 * 86_400);

/// One request.
pub(super) struct Turn<'b> {
    book: &'b Book,
    pressure: &'b Pressure,
    now: UnixTime,
    record: Option<LedgerRecord>,
}

impl<'b> Turn<'b> {
    pub(super) fn new(book: &'b Book, pressure: &'b Pressure, now: UnixTime) -> Self {
        Self { book, pressure, now, record: None }
    }

    /// What is to be written.
    pub(super) fn into_record(self) -> Option<LedgerRecord> {
        self.record
    }

    fn write(&mut self, id: LedgerId, entry: LedgerEntry) {
        let keep_until = keep_until(self.book.profile(), &entry);
        self.record = Some(LedgerRecord { id, keep_until, entry });
    }

    pub(super) fn ask(&mut self, ask: &Ask<'_>, idempotency: Option<&str>) -> Result<Decision, LimitsError> {
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
            help: Arc::clone(&profile.help),
        })
    }

    pub(super) fn commit(
        &mut self,
        id: LedgerId,
        certificate: &IssuedCertificate,
    ) -> Result<Committed, LimitsError> {
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

    pub(super) fn remember(
        &mut self,
        identifiers: &Identifiers,
        known: &KnownCertificate,
    ) -> Result<Committed, LimitsError> {
        let KnownCertificate { account, issued_at: at, certificate, .. } = known;
        let name = certificate.name.clone();
        if let Some((order, _, _)) = self.book.by_certificate(&name) {
            return Ok(Committed { order, certificate: name, at: *at, late: false, repeated: true });
        }
        let account = account.as_deref().unwrap_or_default();
        let ask = OrderAsk { account, identifiers, replaces: None };
        let entry = LedgerEntry::Order(OrderEntry {
            at: *at,
            account: account.to_owned(),
            identifiers: identifiers.texts().to_vec(),
            idempotency: None,
            replaces: None,
            renews: renewal(self.book, &ask, *at).0.map(|renewal| renewal.order),
            state: OrderState::Issued {
                at: *at,
                certificate: name.clone(),
                ari: certificate.ari.clone(),
                not_after: certificate.not_after,
            },
        });
        let order = self.book.next();
        self.write(order, entry);
        Ok(Committed { order, certificate: name, at: *at, late: false, repeated: false })
    }

    pub(super) fn release(&mut self, id: LedgerId, failed: &[String]) -> Result<Released, LimitsError> {
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

    pub(super) fn add_override(&mut self, new: &NewOverride) -> Result<Override, LimitsError> {
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

    pub(super) fn remove_override(&mut self, id: LedgerId) -> Result<Override, LimitsError> {
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
