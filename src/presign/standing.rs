//! How a certificate's answer stands and what comes next, told the same way wherever it is told.

use crate::clock::UnixTime;
use crate::store::{CertificateRecord, CertificateState, StoredAnswer};

use super::policies::Policies;

/// How a stored answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// Served, and not to be signed anew yet.
    Fresh,
    /// Served, and to be signed anew.
    Due,
    /// Past the legal deadline for a new one.
    Stale,
    /// Past nextUpdate: not served.
    Expired,
    /// Signed before the status changed: not served.
    Superseded,
}

impl Condition {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Due => "due",
            Self::Stale => "stale",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }
}

/// A stored answer, judged by the policy of its issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How it stands.
    pub condition: Condition,
    /// When a new one is to be signed.
    pub due_at: UnixTime,
    /// The legal deadline for a new one.
    pub stale_at: UnixTime,
}

impl Standing {
    /// Judges the answer of a certificate at `now`.
    #[must_use]
    pub fn of(
        answer: &StoredAnswer,
        certificate: &CertificateRecord,
        policies: &Policies,
        now: UnixTime,
    ) -> Self {
        let due_at = due_at(answer, certificate, policies);
        let freshness = &policies.of(certificate.issuer).freshness;
        let stale_at = freshness.stale_at(answer.this_update, answer.next_update);
        let condition = if answer.version != certificate.version {
            Condition::Superseded
        } else if answer.next_update < now {
            Condition::Expired
        } else if stale_at <= now {
            Condition::Stale
        } else if due_at <= now {
            Condition::Due
        } else {
            Condition::Fresh
        };
        Self { condition, due_at, stale_at }
    }
}

fn due_at(answer: &StoredAnswer, certificate: &CertificateRecord, policies: &Policies) -> UnixTime {
    policies.due_at(certificate.issuer, &certificate.serial, &answer.times())
}

/// What happens next to a certificate, and why, as a clause.
#[must_use]
pub fn next(state: &CertificateState, policies: &Policies, now: UnixTime) -> String {
    let certificate = &state.certificate;
    let policy = policies.of(certificate.issuer);
    if policy.answered_until(certificate.not_after) < now {
        return "nothing: it has expired and is answered unauthorized (RFC 9919 section 3.2.3)".to_owned();
    }
    if let Some(not_before) = certificate.not_before.filter(|not_before| now < *not_before) {
        return format!("its first answer at {not_before}, when it comes into force");
    }
    match &state.answer {
        None => "its first answer, now".to_owned(),
        Some(answer) if answer.version != certificate.version => format!(
            "an answer for version {}, now: its status changed after the stored one was signed",
            certificate.version
        ),
        Some(answer) if policies.is_retired(answer.responder) => {
            format!("a new answer, now: responder {} was taken out of use", answer.responder.0)
        }
        Some(answer) if answer.times().broken => {
            "a new answer, now: the status of another certificate in its pack has changed".to_owned()
        }
        Some(answer) => {
            let due = due_at(answer, certificate, policies);
            let when = if due <= now { "now".to_owned() } else { format!("at {due}") };
            format!(
                "a new answer {when}: at a point of the last quarter of the refresh interval that the serial number decides"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Policy;
    use super::*;
    use crate::ocsp::{Freshness, Preset};
    use crate::store::{CertificateKey, IssuerId, ResponderNumber, Shard};

    const DAY: Duration = Duration::from_secs(86_400);
    const SIGNED: UnixTime = UnixTime(1_000_000);

    fn policies() -> Policies {
        Policies::new(Policy::new(Freshness::new(Preset::WebPki, 7 * DAY, 3 * DAY).unwrap()))
    }

    /// A certificate that ends 60 days after its answer was signed.
    fn state() -> CertificateState {
        let serial = "0a".parse().unwrap();
        let certificate = CertificateRecord {
            key: CertificateKey { shard: Shard(3), row: 1 },
            issuer: IssuerId(1),
            serial,
            not_before: Some(SIGNED.minus(30 * DAY)),
            not_after: SIGNED.plus(60 * DAY),
            revocation: None,
            version: 2,
        };
        let answer = StoredAnswer {
            version: 2,
            responder: ResponderNumber(4),
            this_update: SIGNED,
            next_update: SIGNED.plus(7 * DAY),
            response_data: bytes::Bytes::new(),
            signature: bytes::Bytes::new(),
            pack: None,
        };
        CertificateState { certificate, answer: Some(answer) }
    }

    fn condition(state: &CertificateState, policies: &Policies, now: UnixTime) -> Condition {
        Standing::of(state.answer.as_ref().unwrap(), &state.certificate, policies, now).condition
    }

    #[test]
    fn an_answer_passes_through_its_conditions_in_order() {
        let (state, policies) = (state(), policies());
        let standing = Standing::of(state.answer.as_ref().unwrap(), &state.certificate, &policies, SIGNED);
        assert_eq!(standing.condition, Condition::Fresh);
        assert!(SIGNED < standing.due_at && standing.due_at < standing.stale_at);
        for (now, expected) in [
            (standing.due_at.minus(Duration::from_secs(1)), Condition::Fresh),
            (standing.due_at, Condition::Due),
            (standing.stale_at, Condition::Stale),
            (SIGNED.plus(7 * DAY), Condition::Stale),
            (SIGNED.plus(7 * DAY + Duration::from_secs(1)), Condition::Expired),
        ] {
            assert_eq!(condition(&state, &policies, now), expected, "{now}");
        }
        let mut changed = state;
        changed.certificate.version = 3;
        assert_eq!(condition(&changed, &policies, SIGNED), Condition::Superseded);
    }

    #[test]
    fn an_answer_of_a_responder_out_of_use_is_due_and_next_says_so() {
        let (state, mut policies) = (state(), policies());
        assert!(next(&state, &policies, SIGNED).starts_with("a new answer at 1970-01-1"));
        policies.retire(ResponderNumber(4));
        assert_eq!(condition(&state, &policies, SIGNED), Condition::Due);
        assert_eq!(next(&state, &policies, SIGNED), "a new answer, now: responder 4 was taken out of use");
    }

    #[test]
    fn what_is_next_follows_the_history_of_the_issuer() {
        let (state, mut policies) = (state(), policies());
        let after = SIGNED.plus(61 * DAY);
        assert!(next(&state, &policies, after).starts_with("nothing: it has expired"));
        let freshness = policies.of(IssuerId(1)).freshness;
        policies.set(IssuerId(1), Policy { freshness, history: 90 * DAY });
        assert!(next(&state, &policies, after).starts_with("a new answer now"));
        assert!(next(&state, &policies, after.plus(90 * DAY)).starts_with("nothing"));
    }

    #[test]
    fn a_first_answer_waits_for_the_certificate_to_come_into_force() {
        let (mut state, policies) = (state(), policies());
        state.answer = None;
        assert_eq!(next(&state, &policies, SIGNED), "its first answer, now");
        let before = SIGNED.minus(31 * DAY);
        assert!(next(&state, &policies, before).ends_with("when it comes into force"));
    }
}
