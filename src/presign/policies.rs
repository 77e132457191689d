//! What the answers of each issuer are held to: how long they last, when they are due, and how long
//! a certificate is answered for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::UnixTime;
use crate::ocsp::{Freshness, Serial};
use crate::store::{AnswerTimes, IssuerId, ResponderNumber};

/// What the answers of one issuer are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Preset, validity and refresh.
    pub freshness: Freshness,
    /// How long a certificate is answered for after its end (RFC 6960 section 4.4.4); zero for not
    /// at all (RFC 9919 section 3.2.3).
    pub history: Duration,
}

impl Policy {
    /// Answers that last and are renewed so, of unexpired certificates only.
    #[must_use]
    pub const fn new(freshness: Freshness) -> Self {
        Self { freshness, history: Duration::ZERO }
    }

    /// The last moment at which a certificate that ends at `not_after` is answered for.
    #[must_use]
    pub fn answered_until(&self, not_after: UnixTime) -> UnixTime {
        not_after.plus(self.history)
    }
}

/// The policy of every issuer, and the responders whose answers are to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    default: Policy,
    own: BTreeMap<IssuerId, Policy>,
    retired: BTreeSet<ResponderNumber>,
}

impl Policies {
    /// One policy for every issuer.
    #[must_use]
    pub const fn new(default: Policy) -> Self {
        Self { default, own: BTreeMap::new(), retired: BTreeSet::new() }
    }

    /// Gives an issuer a policy of its own.
    pub fn set(&mut self, issuer: IssuerId, policy: Policy) {
        self.own.insert(issuer, policy);
    }

    /// Says that a responder is out of use: its answers are due at once.
    pub fn retire(&mut self, responder: ResponderNumber) {
        self.retired.insert(responder);
    }

    /// The policy of an issuer.
    #[must_use]
    pub fn of(&self, issuer: IssuerId) -> &Policy {
        self.own.get(&issuer).unwrap_or(&self.default)
    }

    /// Whether a responder is out of use.
    #[must_use]
    pub fn is_retired(&self, responder: ResponderNumber) -> bool {
        self.retired.contains(&responder)
    }

    /// Whether an answer is to be replaced at once: its responder was taken out of use, or the status of
    /// another certificate in its pack has changed.
    #[must_use]
    pub fn is_to_be_replaced(&self, answer: &AnswerTimes) -> bool {
        answer.broken || self.is_retired(answer.responder)
    }

    /// When an answer is due: [`Freshness::due_at`] of its issuer, and at once when it is to be replaced.
    #[must_use]
    pub fn due_at(&self, issuer: IssuerId, serial: &Serial, answer: &AnswerTimes) -> UnixTime {
        if self.is_to_be_replaced(answer) {
            return answer.this_update;
        }
        self.of(issuer).freshness.due_at(answer.this_update, answer.next_update, serial)
    }

    /// The longest that any issuer's certificates are answered for after their end.
    #[must_use]
    pub fn longest_history(&self) -> Duration {
        self.all().map(|policy| policy.history).max().unwrap_or_default()
    }

    /// The shortest refresh interval of any issuer.
    #[must_use]
    pub fn shortest_refresh(&self) -> Duration {
        self.all().map(|policy| policy.freshness.refresh()).min().unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.default).chain(self.own.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ocsp::Preset;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn an_issuer_has_its_own_policy_or_the_common_one() {
        let common = Policy::new(Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap());
        let own = Policy {
            freshness: Freshness::new(Preset::SubCa, 300 * DAY, 30 * DAY).unwrap(),
            history: 90 * DAY,
        };
        let mut policies = Policies::new(common);
        policies.set(IssuerId(2), own);
        assert_eq!((policies.of(IssuerId(1)), policies.of(IssuerId(2))), (&common, &own));
        assert_eq!((policies.longest_history(), policies.shortest_refresh()), (90 * DAY, 3 * DAY));
        let ends = UnixTime(1_000);
        assert_eq!(policies.of(IssuerId(1)).answered_until(ends), ends);
        assert_eq!(policies.of(IssuerId(2)).answered_until(ends), ends.plus(90 * DAY));
    }

    #[test]
    fn the_answers_of_a_responder_out_of_use_are_due_at_once() {
        let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap();
        let mut policies = Policies::new(Policy::new(freshness));
        policies.retire(ResponderNumber(1));
        let serial = "01".parse().unwrap();
        let times = [UnixTime(0), UnixTime(7 * 86_400 - 1)];
        let answer = |number, broken| AnswerTimes {
            this_update: times[0],
            next_update: times[1],
            responder: ResponderNumber(number),
            broken,
        };
        let due = |number| policies.due_at(IssuerId(1), &serial, &answer(number, false));
        assert_eq!(due(1), UnixTime(0));
        assert_eq!(due(2), freshness.due_at(times[0], times[1], &serial));
        assert!(due(2) > UnixTime(2 * 86_400));
        let broken = policies.due_at(IssuerId(1), &serial, &answer(2, true));
        assert_eq!(broken, UnixTime(0), "a pack of which one has another status now");
    }
}
