//! Certificates that failed: how often, why, and how long each waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{LONGEST_HOLD, LONGEST_QUARANTINE, Reach, SUSPICIOUS, backoff};
use crate::clock::UnixTime;
use crate::store::CertificateKey;

/// Quarantined certificates that are tried at once.
pub(super) const AT_ONCE: usize = 16;

/// Certificates on the list; of more only the wait is known, in their plan.
const LISTED: usize = 100_000;

/// Different reasons that are kept.
const REASONS: usize = 64;

/// A certificate that fails while its neighbours do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quarantined<'a> {
    /// The certificate.
    pub key: CertificateKey,
    /// When it failed first.
    pub since: UnixTime,
    /// How often.
    pub failures: u32,
    /// When it is tried again, at the earliest.
    pub until: UnixTime,
    /// Why.
    pub reason: &'a str,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: UnixTime,
    failures: u32,
    until: UnixTime,
    alone: bool,
    under_way: bool,
    /// How many of its issuer had been answered when it failed last.
    answered: u64,
    reason: Arc<str>,
}

/// Every certificate whose last attempt failed.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    troubles: HashMap<CertificateKey, Trouble>,
    reasons: Vec<Arc<str>>,
    under_way: usize,
}

impl Quarantine {
    /// Takes note of a failure. Returns how far it really reaches, and how long the certificate waits.
    pub(super) fn failed(
        &mut self,
        key: CertificateKey,
        reach: Reach,
        reason: &str,
        now: UnixTime,
        answered: u64,
    ) -> (Reach, Duration) {
        if self.troubles.len() >= LISTED && !self.troubles.contains_key(&key) {
            let longest = if reach == Reach::Item { LONGEST_QUARANTINE } else { LONGEST_HOLD };
            return (reach, longest);
        }
        let reason = self.reason(reason);
        let trouble = self.troubles.entry(key).or_insert_with(|| Trouble {
            since: now,
            failures: 0,
            until: now,
            alone: false,
            under_way: false,
            answered,
            reason: Arc::clone(&reason),
        });
        // The token is blamed, but has signed for others between the failures of this one.
        let suspicious = trouble.failures >= SUSPICIOUS && answered > trouble.answered;
        trouble.alone = reach == Reach::Item || suspicious;
        let (reach, longest) =
            if trouble.alone { (Reach::Item, LONGEST_QUARANTINE) } else { (Reach::Issuer, LONGEST_HOLD) };
        let wait = backoff(trouble.failures, longest);
        (trouble.failures, trouble.until) = (trouble.failures + 1, now.plus(wait));
        (trouble.answered, trouble.reason) = (answered, reason);
        (reach, wait)
    }

    fn reason(&mut self, reason: &str) -> Arc<str> {
        if let Some(known) = self.reasons.iter().find(|known| &***known == reason) {
            return Arc::clone(known);
        }
        let reason: Arc<str> = if self.reasons.len() < REASONS { reason } else { "other reasons" }.into();
        if self.reasons.len() <= REASONS {
            self.reasons.push(Arc::clone(&reason));
        }
        reason
    }

    /// Whether one more may be tried now.
    pub(super) const fn has_room(&self) -> bool {
        self.under_way < AT_ONCE
    }

    pub(super) fn taken(&mut self, key: CertificateKey) {
        if let Some(trouble) = self.troubles.get_mut(&key)
            && !trouble.under_way
        {
            trouble.under_way = true;
            self.under_way += 1;
        }
    }

    pub(super) fn finished(&mut self, key: CertificateKey) {
        // Almost always there is none.
        if self.under_way > 0
            && let Some(trouble) = self.troubles.get_mut(&key)
        {
            self.under_way -= usize::from(std::mem::take(&mut trouble.under_way));
        }
    }

    /// It is well again, or gone.
    pub(super) fn release(&mut self, key: CertificateKey) {
        if !self.troubles.is_empty()
            && let Some(trouble) = self.troubles.remove(&key)
        {
            self.under_way -= usize::from(trouble.under_way);
            if self.troubles.is_empty() {
                self.reasons.clear();
            }
        }
    }

    /// Those that wait.
    pub(super) fn wake(&self) -> Vec<CertificateKey> {
        let waiting = self.troubles.iter().filter(|(_, trouble)| !trouble.under_way);
        waiting.map(|(key, _)| *key).collect()
    }

    /// When the first of them failed.
    pub(super) fn oldest(&self) -> Option<UnixTime> {
        self.troubles.values().map(|trouble| trouble.since).min()
    }

    pub(super) fn list(&self) -> impl Iterator<Item = Quarantined<'_>> {
        self.troubles.iter().filter(|(_, trouble)| trouble.alone).map(shown)
    }

    /// Those that failed because of what stands in the way of their whole issuer.
    pub(super) fn shared(&self) -> impl Iterator<Item = Quarantined<'_>> {
        self.troubles.iter().filter(|(_, trouble)| !trouble.alone).map(shown)
    }

    /// A certificate whose last attempt failed.
    pub(super) fn of(&self, key: CertificateKey) -> Option<Quarantined<'_>> {
        self.troubles.get_key_value(&key).map(shown)
    }

    /// How many are quarantined, by reason.
    pub(super) fn reasons(&self) -> Vec<(String, u64)> {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for trouble in self.troubles.values().filter(|trouble| trouble.alone) {
            *counts.entry(&trouble.reason).or_default() += 1;
        }
        let mut counts: Vec<_> =
            counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        counts.sort_unstable();
        counts
    }
}

fn shown<'a>((key, trouble): (&CertificateKey, &'a Trouble)) -> Quarantined<'a> {
    Quarantined {
        key: *key,
        since: trouble.since,
        failures: trouble.failures,
        until: trouble.until,
        reason: &trouble.reason,
    }
}
