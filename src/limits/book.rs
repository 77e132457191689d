//! Everything that counts now, in memory: a fold over the ledger's records.
//!
//! Entering a record replaces the one with its number, and can be undone; so a batch of decisions is
//! entered before it is written, and taken back when the ledger did not take it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::charges::marks;
use super::fingerprint::{ByFingerprint, Fingerprint, Secret};
use super::identifiers::key_of;
use super::overrides::Override;
use super::profile::{Limit, Profile};
use super::window::Window;
use crate::clock::UnixTime;
use crate::store::{LedgerEntry, LedgerId, LedgerPosition, LedgerRecord, OrderEntry, OrderState};

/// Events stay in memory for this long after they left, for a clock that is put back a little.
const SLACK: Duration = Duration::from_secs(3_600);

/// The state of the limiter: what the ledger says, as decisions need it.
#[derive(Clone, Debug)]
pub struct Book {
    profile: Arc<Profile>,
    position: LedgerPosition,
    records: HashMap<LedgerId, Arc<LedgerRecord>>,
    /// A map of keys for each limit of the profile.
    windows: Vec<ByFingerprint<Window>>,
    secret: Secret,
    idempotency: HashMap<Box<str>, LedgerId>,
    /// Issued orders by their exact set of identifiers.
    issued: HashMap<Box<str>, Vec<LedgerId>>,
    /// Issued orders by the names of their certificate.
    certificates: HashMap<Box<str>, LedgerId>,
    /// Which order replaces a certificate, by ARI.
    replaced: HashMap<LedgerId, LedgerId>,
    /// By limit, then key.
    overrides: HashMap<Box<str>, HashMap<Box<str>, Override>>,
    ends: BTreeSet<(UnixTime, LedgerId)>,
}

/// What entering a record displaced.
#[derive(Debug)]
pub struct Entered {
    id: LedgerId,
    position: LedgerPosition,
    before: Option<Arc<LedgerRecord>>,
}

impl Book {
    /// An empty book under a profile.
    #[must_use]
    pub fn new(profile: Arc<Profile>) -> Self {
        Self {
            windows: vec![ByFingerprint::default(); profile.limits.len()],
            secret: Secret::default(),
            profile,
            position: LedgerPosition::default(),
            records: HashMap::new(),
            idempotency: HashMap::new(),
            issued: HashMap::new(),
            certificates: HashMap::new(),
            replaced: HashMap::new(),
            overrides: HashMap::new(),
            ends: BTreeSet::new(),
        }
    }

    /// The same records under another profile.
    #[must_use]
    pub fn under(&self, profile: Arc<Profile>, now: UnixTime) -> Self {
        let mut book = Self::new(profile);
        for record in self.records.values() {
            book.put(Arc::clone(record), now);
        }
        book.position = self.position;
        book
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Up to where it knows the ledger.
    #[must_use]
    pub fn position(&self) -> LedgerPosition {
        self.position
    }

    /// The number of the next new record.
    #[must_use]
    pub fn next(&self) -> LedgerId {
        LedgerId(self.position.0 + 1)
    }

    /// Enters a record at the next position, or at `at` where the ledger has it there.
    pub fn enter(&mut self, record: Arc<LedgerRecord>, at: Option<LedgerPosition>, now: UnixTime) -> Entered {
        let entered = Entered { id: record.id, position: self.position, before: self.put(record, now) };
        self.position = at.unwrap_or(LedgerPosition(self.position.0 + 1));
        entered
    }

    /// Takes back an entry. Entries are taken back in reverse order.
    pub fn undo(&mut self, entered: Entered, now: UnixTime) {
        self.take(entered.id);
        if let Some(before) = entered.before {
            self.put(before, now);
        }
        self.position = entered.position;
    }

    /// Moves on in the ledger without a record: those in between were forgotten.
    pub fn skip_to(&mut self, position: LedgerPosition) {
        self.position = self.position.max(position);
    }

    /// Up to `most` records whose time to be kept has ended, the oldest first.
    #[must_use]
    pub fn ended(&self, now: UnixTime, most: usize) -> Vec<LedgerId> {
        self.ends.iter().take_while(|(end, _)| *end <= now).take(most).map(|(_, id)| *id).collect()
    }

    /// Forgets records.
    pub fn forget(&mut self, ids: &[LedgerId]) {
        for id in ids {
            self.take(*id);
        }
    }

    /// A record.
    #[must_use]
    pub fn record(&self, id: LedgerId) -> Option<&Arc<LedgerRecord>> {
        self.records.get(&id)
    }

    /// An order.
    #[must_use]
    pub fn order(&self, id: LedgerId) -> Option<&OrderEntry> {
        match &self.records.get(&id)?.entry {
            LedgerEntry::Order(order) => Some(order),
            _ => None,
        }
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many keys have events, over all limits.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.windows.iter().map(ByFingerprint::len).sum()
    }

    /// The record made with an idempotency key.
    pub(super) fn by_idempotency(&self, scoped: &str) -> Option<&Arc<LedgerRecord>> {
        self.records.get(self.idempotency.get(scoped)?)
    }

    /// The events of a key of the limit at `place` in the profile.
    pub(super) fn window(&self, place: usize, key: &str) -> Option<&Window> {
        self.window_of(place, self.fingerprint(place, key)?)
    }

    /// What stands for a key of the limit at `place`; none where no key of it has events.
    pub(super) fn fingerprint(&self, place: usize, key: &str) -> Option<Fingerprint> {
        self.windows.get(place).filter(|windows| !windows.is_empty())?;
        Some(self.secret.fingerprint(key))
    }

    /// The events of the key that a fingerprint stands for.
    pub(super) fn window_of(&self, place: usize, key: Fingerprint) -> Option<&Window> {
        self.windows.get(place)?.get(&key)
    }

    /// The override in force for a key.
    pub(super) fn override_of(&self, limit: &Limit, key: &str, now: UnixTime) -> Option<&Override> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(&*limit.name)?.get(key).filter(|set| now < set.until)
    }

    /// Every override that has not ended, by limit and key.
    #[must_use]
    pub fn overrides(&self, now: UnixTime) -> Vec<Override> {
        let all = self.overrides.values().flat_map(HashMap::values);
        let mut overrides: Vec<_> = all.filter(|set| now < set.until).cloned().collect();
        overrides.sort_by(|one, other| (&one.limit, &one.key).cmp(&(&other.limit, &other.key)));
        overrides
    }

    /// The issued orders for exactly these identifiers.
    pub(super) fn issued_for(&self, identifiers: &[String]) -> impl Iterator<Item = (LedgerId, &OrderEntry)> {
        let ids = match identifiers {
            [one] => self.issued.get(one.as_str()),
            several => self.issued.get(key_of(several).as_str()),
        };
        ids.into_iter().flatten().filter_map(|id| Some((*id, self.order(*id)?)))
    }

    /// The order whose certificate has this name, and the order that replaces it.
    pub(super) fn by_certificate(&self, name: &str) -> Option<(LedgerId, &OrderEntry, Option<LedgerId>)> {
        let id = *self.certificates.get(name)?;
        Some((id, self.order(id)?, self.replaced.get(&id).copied()))
    }

    fn put(&mut self, record: Arc<LedgerRecord>, now: UnixTime) -> Option<Arc<LedgerRecord>> {
        let before = self.take(record.id);
        let id = record.id;
        for (place, key, mark) in marks(&self.profile, &record.entry) {
            let longest = self.profile.limits[place].longest();
            let window = self.windows[place].entry(self.secret.fingerprint(&key)).or_default();
            window.add(id, mark);
            window.forget(now.minus(longest).minus(SLACK));
        }
        match &record.entry {
            LedgerEntry::Registration(made) => {
                if let Some(key) = &made.idempotency {
                    self.idempotency.insert(key.as_str().into(), id);
                }
            }
            LedgerEntry::Order(order) => self.index_order(id, order),
            LedgerEntry::Override(entry) if !entry.removed => {
                if let Some(set) = Override::of(id, entry) {
                    let of_limit = self.overrides.entry(entry.limit.as_str().into()).or_default();
                    of_limit.insert(entry.key.as_str().into(), set);
                }
            }
            LedgerEntry::Override(_) => {}
        }
        self.ends.insert((record.keep_until, id));
        self.records.insert(id, record);
        before
    }

    fn index_order(&mut self, id: LedgerId, order: &OrderEntry) {
        if let Some(key) = &order.idempotency {
            self.idempotency.insert(key.as_str().into(), id);
        }
        if let OrderState::Issued { certificate, ari, .. } = &order.state {
            self.issued.entry(key_of(&order.identifiers).into()).or_default().push(id);
            for name in std::iter::once(certificate).chain(ari) {
                self.certificates.insert(name.as_str().into(), id);
            }
        }
        if let Some(replaced) = replaces(order) {
            self.replaced.insert(replaced, id);
        }
    }

    /// Takes a record out, with everything that came from it.
    fn take(&mut self, id: LedgerId) -> Option<Arc<LedgerRecord>> {
        let record = self.records.remove(&id)?;
        self.ends.remove(&(record.keep_until, id));
        for (place, key, mark) in marks(&self.profile, &record.entry) {
            let key = self.secret.fingerprint(&key);
            if let Some(window) = self.windows[place].get_mut(&key) {
                window.remove(id, mark);
                if window.is_empty() {
                    self.windows[place].remove(&key);
                }
            }
        }
        match &record.entry {
            LedgerEntry::Registration(made) => {
                drop_if(&mut self.idempotency, made.idempotency.as_deref(), id);
            }
            LedgerEntry::Order(order) => self.unindex_order(id, order),
            LedgerEntry::Override(entry) => {
                if let Some(of_limit) = self.overrides.get_mut(entry.limit.as_str())
                    && of_limit.get(entry.key.as_str()).is_some_and(|set| set.id == id)
                {
                    of_limit.remove(entry.key.as_str());
                    if of_limit.is_empty() {
                        self.overrides.remove(entry.limit.as_str());
                    }
                }
            }
        }
        Some(record)
    }

    fn unindex_order(&mut self, id: LedgerId, order: &OrderEntry) {
        drop_if(&mut self.idempotency, order.idempotency.as_deref(), id);
        if let OrderState::Issued { certificate, ari, .. } = &order.state {
            let key = key_of(&order.identifiers);
            if let Some(ids) = self.issued.get_mut(key.as_str()) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.issued.remove(key.as_str());
                }
            }
            for name in std::iter::once(certificate).chain(ari) {
                drop_if(&mut self.certificates, Some(name), id);
            }
        }
        if let Some(replaced) = replaces(order)
            && self.replaced.get(&replaced) == Some(&id)
        {
            self.replaced.remove(&replaced);
        }
    }
}

/// The order whose certificate this one replaces by ARI, while it is not given up.
fn replaces(order: &OrderEntry) -> Option<LedgerId> {
    let given_up = matches!(order.state, OrderState::Released { .. });
    order.renews.filter(|_| order.replaces.is_some() && !given_up)
}

/// Removes a name that stands for this record.
fn drop_if(names: &mut HashMap<Box<str>, LedgerId>, name: Option<&str>, id: LedgerId) {
    if let Some(name) = name
        && names.get(name) == Some(&id)
    {
        names.remove(name);
    }
}
