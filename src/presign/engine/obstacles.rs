//! What stands in the way of one certificate's answer, for people who ask. Reads only.

use super::Engine;
use crate::clock::UnixTime;
use crate::store::{CertificateKey, IssuerId};

/// Why signing does not get on, and when it is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Why, where it is known.
    pub reason: Option<String>,
    /// When it failed first.
    pub since: Option<UnixTime>,
    /// How often it failed.
    pub failures: u32,
    /// When it is tried again, at the earliest.
    pub next_try: UnixTime,
}

/// What stands in the way of a certificate's answer; nothing when all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// The certificate's last attempt failed; it alone, or with all of its issuer.
    pub quarantine: Option<Obstacle>,
    /// Nothing of its issuer is signed.
    pub hold: Option<Obstacle>,
}

impl Engine {
    /// What stands in the way of a certificate of an issuer.
    #[must_use]
    pub fn obstacles(&self, key: CertificateKey, issuer: IssuerId) -> Obstacles {
        let quarantine = self.quarantine.of(key).map(|trouble| Obstacle {
            reason: Some(trouble.reason.to_owned()),
            since: Some(trouble.since),
            failures: trouble.failures,
            next_try: trouble.until,
        });
        Obstacles { quarantine, hold: self.hold_of(issuer) }
    }

    fn hold_of(&self, issuer: IssuerId) -> Option<Obstacle> {
        let group = *self.groups.get(&issuer)?;
        let hold = self.holds.get(usize::from(group.0))?;
        let next_try = hold.until?;
        // The hold itself knows no reason: those that failed because of it do.
        let of_issuer =
            self.quarantine.shared().filter(|trouble| self.planner.group(trouble.key) == Some(group));
        let (mut since, mut last) = (None::<UnixTime>, None);
        for trouble in of_issuer {
            since = Some(since.map_or(trouble.since, |since| since.min(trouble.since)));
            last = last.max(Some((trouble.until, trouble.reason)));
        }
        let reason = last.map(|(_, reason)| reason.to_owned());
        Some(Obstacle { reason, since, failures: hold.tries, next_try })
    }
}
