//! The decision: everything that counts and one request in, yes or no and why out.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::book::Book;
use super::charges::{Who, keys};
use super::decision::{
    CapacityCause, Counted, Decision, LimitState, Outcome, Refusal, RefusalCause, Renewal, TierState, Warning,
};
use super::identifiers::Identifiers;
use super::overrides::Override;
use super::pressure::Pressure;
use super::profile::{Counts, Limit, Profile};
use super::text;
use super::tier::Tier;
use super::window::{Mark, Window};
use crate::clock::UnixTime;
use crate::store::{LedgerEntry, LedgerId, OrderEntry, OrderState, RegistrationEntry};

/// The names that are shown of a certificate.
const NAMES_MOST: usize = 10;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// A new account from an address.
    Registration(IpAddr),
    /// A certificate.
    Order(OrderAsk<'a>),
}

/// A certificate that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct OrderAsk<'a> {
    /// By whom.
    pub account: &'a str,
    /// For what.
    pub identifiers: &'a Identifiers,
    /// The certificate it is said to replace, by its name or its CertID for ARI.
    pub replaces: Option<&'a str>,
}

/// Decides at `now`. Where it is yes, the entry is to go into the ledger under [`Book::next`] before
/// anybody is told.
#[must_use]
pub fn decide(
    book: &Book,
    ask: &Ask<'_>,
    pressure: &Pressure,
    now: UnixTime,
) -> (Decision, Option<LedgerEntry>) {
    let profile = &**book.profile();
    let (renewal, not_replacing) = match ask {
        Ask::Order(order) => renewal(book, order, now),
        Ask::Registration(_) => (None, None),
    };
    let pressure = pressure.at(now);
    let judge = Judge {
        book,
        profile,
        now,
        renewal: renewal.is_some(),
        // Renewals are never refused for capacity, and an account costs none.
        multiplier: match ask {
            Ask::Order(_) if renewal.is_none() => pressure.multiplier,
            _ => 1.0,
        },
        pressure: &pressure,
    };
    let mut found = Found { limits: Vec::with_capacity(profile.limits.len()), ..Found::default() };
    judge.limits(ask, &mut found);
    if judge.multiplier <= 0.0 {
        found.refusals.insert(0, judge.shut());
    }
    let (outcome, entry) = if found.refusals.is_empty() {
        found.count_in(now);
        let entry = entry(ask, renewal.as_ref(), profile, now);
        let expires = match &entry {
            LedgerEntry::Order(OrderEntry { state: OrderState::Reserved { expires }, .. }) => Some(*expires),
            _ => None,
        };
        (Outcome::Allowed { order: book.next(), expires }, Some(entry))
    } else {
        (found.refused(), None)
    };
    let warnings = if entry.is_some() { warnings(profile, &found.limits) } else { Vec::new() };
    let decision = Decision {
        outcome,
        at: now,
        registration: matches!(ask, Ask::Registration(_)),
        renewal,
        not_replacing,
        limits: found.limits,
        warnings,
        shadow: found.shadow,
        repeated: false,
        pressure,
        help: Arc::clone(&profile.help),
    };
    (decision, entry)
}

fn entry(ask: &Ask<'_>, renewal: Option<&Renewal>, profile: &Profile, now: UnixTime) -> LedgerEntry {
    match ask {
        Ask::Registration(ip) => {
            LedgerEntry::Registration(RegistrationEntry { at: now, ip: *ip, idempotency: None })
        }
        Ask::Order(order) => LedgerEntry::Order(OrderEntry {
            at: now,
            account: order.account.to_owned(),
            identifiers: order.identifiers.texts().to_vec(),
            idempotency: None,
            replaces: renewal
                .filter(|renewal| renewal.by_replaces)
                .and(order.replaces)
                .map(ToOwned::to_owned),
            renews: renewal.map(|renewal| renewal.order),
            state: OrderState::Reserved { expires: now.plus(profile.reservation) },
        }),
    }
}

/// Whether an order renews a certificate: one that it names, else one for exactly its identifiers,
/// unexpired or expired for less than the grace. Second, why it does not replace what it names.
pub(super) fn renewal(book: &Book, ask: &OrderAsk<'_>, now: UnixTime) -> (Option<Renewal>, Option<String>) {
    let live = |order: &OrderEntry| match &order.state {
        OrderState::Issued { certificate, not_after, .. }
            if now < not_after.plus(book.profile().renewal_grace) =>
        {
            Some((*not_after, certificate.clone()))
        }
        _ => None,
    };
    let mut why_not = None;
    if let Some(name) = ask.replaces {
        match replaced(book, ask, name, now, &live) {
            Ok(renewal) => return (Some(renewal), None),
            Err(why) => why_not = Some(format!("replaces {name:?}: {why}")),
        }
    }
    let same = book.issued_for(ask.identifiers.texts());
    let newest = same.filter_map(|(id, order)| Some((live(order)?, id))).max();
    let renewal = newest.map(|((_, certificate), order)| Renewal { certificate, order, by_replaces: false });
    (renewal, why_not)
}

/// The rules of RFC 9773 section 5: a certificate of the same account that shares an identifier and
/// is not replaced already.
fn replaced(
    book: &Book,
    ask: &OrderAsk<'_>,
    name: &str,
    now: UnixTime,
    live: &impl Fn(&OrderEntry) -> Option<(UnixTime, String)>,
) -> Result<Renewal, &'static str> {
    let (id, order, by) = book.by_certificate(name).ok_or("no certificate of that name was issued here")?;
    let (_, certificate) = live(order).ok_or("that certificate ended too long ago")?;
    if order.account != ask.account {
        return Err("that certificate belongs to another account");
    }
    if !ask.identifiers.texts().iter().any(|text| order.identifiers.contains(text)) {
        return Err("that certificate shares no identifier with this order");
    }
    if by.is_some_and(|by| holds(book, by, now)) {
        return Err("another order replaces that certificate already");
    }
    Ok(Renewal { certificate, order: id, by_replaces: true })
}

/// Whether a replacing order still stands in the way of another one.
fn holds(book: &Book, id: LedgerId, now: UnixTime) -> bool {
    book.order(id).is_some_and(|order| match order.state {
        OrderState::Issued { .. } => true,
        OrderState::Reserved { expires } => now < expires,
        OrderState::Released { .. } => false,
    })
}

/// What came of looking at the limits.
#[derive(Default)]
struct Found {
    limits: Vec<LimitState>,
    refusals: Vec<Refusal>,
    shadow: Vec<Refusal>,
}

impl Found {
    /// Counts the accepted request itself. A failed authorisation is counted when it fails: an order
    /// adds nothing there.
    fn count_in(&mut self, now: UnixTime) {
        let counting = self.limits.iter_mut().filter(|state| state.counts != Counts::FailedAuthorizations);
        for tier in counting.flat_map(|state| &mut state.tiers) {
            tier.count += 1;
            tier.remaining = tier.remaining.saturating_sub(1);
            tier.resets_at = tier.resets_at.or(Some(now.plus(tier.tier.period)));
        }
    }

    fn refused(&mut self) -> Outcome {
        let mut refusals = std::mem::take(&mut self.refusals);
        // None is later than any time here.
        let later = |refusal: &Refusal| (refusal.retry_at.is_none(), refusal.retry_at);
        refusals.sort_by_key(|refusal| Reverse(later(refusal)));
        let retry_at = refusals.first().and_then(|first| first.retry_at);
        Outcome::Refused { refusals, retry_at }
    }
}

/// One request before the limits.
pub(super) struct Judge<'b> {
    pub(super) book: &'b Book,
    pub(super) profile: &'b Profile,
    pub(super) now: UnixTime,
    pub(super) renewal: bool,
    pub(super) multiplier: f64,
    pub(super) pressure: &'b Pressure,
}

impl Judge<'_> {
    fn limits(&self, ask: &Ask<'_>, found: &mut Found) {
        let who = match ask {
            Ask::Registration(ip) => Who { ip: Some(*ip), account: None, identifiers: &[] },
            Ask::Order(order) => {
                Who { ip: None, account: Some(order.account), identifiers: order.identifiers.texts() }
            }
        };
        let registration = matches!(ask, Ask::Registration(_));
        let mut asked: SmallVec<[_; 8]> = SmallVec::new();
        let mut fingerprints: SmallVec<[_; 8]> = SmallVec::new();
        for (place, limit) in self.profile.limits.iter().enumerate() {
            if (limit.counts == Counts::Registrations) != registration || !self.is_in_force(limit) {
                continue;
            }
            for key in keys(limit, who) {
                fingerprints.push((place, self.book.fingerprint(place, &key)));
                asked.push((limit, key));
            }
        }
        // Found one right after the other: no cache holds them, and the processor waits for all at once.
        let mut windows: SmallVec<[_; 8]> = SmallVec::new();
        for (place, key) in fingerprints {
            windows.push(key.and_then(|key| self.book.window_of(place, key)));
        }
        for ((limit, key), window) in asked.into_iter().zip(windows) {
            self.limit(limit, key, window, found);
        }
    }

    /// Looks at one key of one limit.
    fn limit(&self, limit: &Limit, key: Cow<'_, str>, window: Option<&Window>, found: &mut Found) {
        let set = self.book.override_of(limit, &key, self.now);
        let exempt = self.renewal && limit.renewals_exempt;
        if exempt && !set.is_some_and(Override::blocks) {
            return;
        }
        let state = self.state(limit, key, set, window);
        // The tier that refuses for longest.
        let mut worst: Option<(usize, Option<UnixTime>)> = None;
        for (place, tier) in state.tiers.iter().enumerate() {
            if tier.remaining == 0 {
                let retry = self.frees(limit, set, window, tier);
                let longer = |than: Option<UnixTime>| match (retry, than) {
                    (None, than) => than.is_some(),
                    (Some(_), None) => false,
                    (Some(one), Some(than)) => one > than,
                };
                if worst.is_none_or(|(_, than)| longer(than)) {
                    worst = Some((place, retry));
                }
            }
        }
        if let Some((at, retry_at)) = worst {
            let refusal = self.refusal(limit, &state.key, set, window, &state.tiers[at], retry_at);
            if limit.shadow { &mut found.shadow } else { &mut found.refusals }.push(refusal);
        }
        found.limits.push(state);
    }

    /// Whether a limit says anything: one that the guard sets does while it presses, on new certificates.
    pub(super) fn is_in_force(&self, limit: &Limit) -> bool {
        !limit.is_by_capacity() || (self.multiplier < 1.0 && self.pressure.offered_per_day.is_some())
    }

    /// The number in force.
    fn allowed(&self, limit: &Limit, tier: Tier) -> u64 {
        if tier.is_by_capacity() {
            self.pressure.lets_through(tier.period).unwrap_or(Tier::CAPACITY)
        } else {
            effective(tier.count, self.multiplier, limit.exponent)
        }
    }

    /// How a key of a limit stands before the request.
    pub(super) fn state(
        &self,
        limit: &Limit,
        key: Cow<'_, str>,
        set: Option<&Override>,
        window: Option<&Window>,
    ) -> LimitState {
        let tiers = set.map_or(limit.tiers.as_slice(), |set| set.tiers.as_slice());
        LimitState {
            limit: Arc::clone(&limit.name),
            counts: limit.counts,
            per: limit.per,
            key: key.into_owned(),
            shadow: limit.shadow,
            override_until: set.map(|set| set.until),
            tiers: tiers.iter().map(|tier| self.tier(limit, *tier, window)).collect(),
        }
    }

    fn tier(&self, limit: &Limit, tier: Tier, window: Option<&Window>) -> TierState {
        let effective = self.allowed(limit, tier);
        let count = window.map_or(0, |window| window.count(self.now, tier.period));
        let resets_at = window.and_then(|window| {
            if count < effective {
                window.first_leaves(self.now, tier.period)
            } else {
                window.frees(self.now, tier.period, effective)
            }
        });
        TierState { tier, effective, count, remaining: effective.saturating_sub(count), resets_at }
    }

    /// When a tier allows again; an override that ends before gives way to the limit's own tiers.
    fn frees(
        &self,
        limit: &Limit,
        set: Option<&Override>,
        window: Option<&Window>,
        tier: &TierState,
    ) -> Option<UnixTime> {
        let Some(set) = set else { return tier.resets_at };
        match tier.resets_at {
            Some(at) if at < set.until => Some(at),
            _ => {
                let own = limit.tiers.iter().map(|tier| {
                    let allowed = self.allowed(limit, *tier);
                    window.map_or(Some(self.now), |window| window.frees(self.now, tier.period, allowed))
                });
                // A limit's own tiers are never 0, so each of them is known.
                Some(own.flatten().fold(set.until, UnixTime::max))
            }
        }
    }

    fn refusal(
        &self,
        limit: &Limit,
        key: &str,
        set: Option<&Override>,
        window: Option<&Window>,
        tier: &TierState,
        retry_at: Option<UnixTime>,
    ) -> Refusal {
        let nominal = tier.tier.count;
        let present = window.into_iter().flat_map(|window| window.present(self.now, tier.tier.period));
        // What everybody has is nobody's business.
        let listed = if tier.tier.is_by_capacity() { 0 } else { Refusal::COUNTED_MOST };
        let counted =
            present.take(listed).map(|event| counted(self.book, event.id, event.mark, event.leaves));
        let tightened = tier.effective < nominal;
        let mut refusal = Refusal {
            cause: match (nominal, tightened) {
                (0, _) => RefusalCause::Blocked,
                (_, true) => RefusalCause::Tightened,
                (_, false) => RefusalCause::Limit,
            },
            limit: limit.name.to_string(),
            counts: Some(limit.counts),
            per: Some(limit.per),
            key: key.to_owned(),
            tier: Some(tier.tier),
            count: tier.count,
            nominal: if tier.tier.is_by_capacity() { tier.effective } else { nominal },
            effective: tier.effective,
            retry_at,
            counted: counted.collect(),
            override_until: set.map(|set| set.until),
            capacity: tightened.then(|| self.capacity()),
            detail: String::new(),
        };
        refusal.detail = text::detail(&refusal, &self.profile.help);
        refusal
    }

    fn capacity(&self) -> CapacityCause {
        CapacityCause {
            multiplier: self.multiplier,
            state: self.pressure.state,
            utilisation: self.pressure.utilisation,
            forecast: self.pressure.forecast.as_deref().map(ToOwned::to_owned),
            reason: self.pressure.reason.to_string(),
            eases_at: self.pressure.eases_at.filter(|at| *at > self.now),
        }
    }

    /// The refusal of every new certificate.
    fn shut(&self) -> Refusal {
        let capacity = self.capacity();
        let mut refusal = Refusal {
            cause: RefusalCause::Capacity,
            limit: String::new(),
            counts: None,
            per: None,
            key: String::new(),
            tier: None,
            count: 0,
            nominal: 0,
            effective: 0,
            retry_at: capacity.eases_at,
            counted: Vec::new(),
            override_until: None,
            capacity: Some(capacity),
            detail: String::new(),
        };
        refusal.detail = text::detail(&refusal, &self.profile.help);
        refusal
    }
}

/// max(1, ⌊nominal · mᵉ⌋); 0 stays 0.
#[must_use]
pub(super) fn effective(nominal: u64, multiplier: f64, exponent: f64) -> u64 {
    if nominal == 0 || exponent == 0.0 || multiplier >= 1.0 {
        return nominal;
    }
    // 0.29 · 100 is 28.999999999999996: half a millionth is no place of anybody's.
    let tightened = (nominal as f64 * multiplier.max(0.0).powf(exponent) + 5e-7).floor();
    (tightened as u64).clamp(1, nominal)
}

/// An event for people.
pub(super) fn counted(book: &Book, id: LedgerId, mark: Mark, leaves: UnixTime) -> Counted {
    let (what, identifiers, ordered) = match book.record(id).map(|record| &record.entry) {
        Some(LedgerEntry::Order(order)) => {
            let what = match &order.state {
                OrderState::Issued { certificate, .. } => certificate.clone(),
                OrderState::Released { failed, .. } if !failed.is_empty() => {
                    format!("order {id}, whose authorisation failed")
                }
                _ => format!("order {id}"),
            };
            (what, order.identifiers.iter().take(NAMES_MOST).cloned().collect(), Some(order.at))
        }
        Some(LedgerEntry::Registration(made)) => {
            (format!("an account made from {}", made.ip), Vec::new(), None)
        }
        _ => (format!("record {id}"), Vec::new(), None),
    };
    let (at, held) = match mark {
        Mark::Counted(at) => (at, false),
        Mark::Held(until) => (ordered.unwrap_or(until), true),
    };
    Counted { id, what, identifiers, at, held, leaves }
}

/// The tiers from `warn_percent` on.
fn warnings(profile: &Profile, limits: &[LimitState]) -> Vec<Warning> {
    let tiers = limits
        .iter()
        .filter(|state| !state.shadow)
        .flat_map(|state| state.tiers.iter().map(move |tier| (state, tier)));
    tiers
        .filter(|(_, tier)| {
            tier.count > 0
                && u128::from(tier.count) * 100
                    >= u128::from(tier.effective) * u128::from(profile.warn_percent)
        })
        .map(|(state, tier)| Warning {
            limit: state.limit.to_string(),
            key: state.key.clone(),
            tier: tier.tier,
            count: tier.count,
            effective: tier.effective,
            detail: text::warning(state, tier),
        })
        .collect()
}
