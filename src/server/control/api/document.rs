//! A certificate as the API shows it: what is on record, the stored answer, what happens next.

use serde::Serialize;
use utoipa::ToSchema;

use super::input::Time;
use crate::clock::UnixTime;
use crate::ocsp::CrlReason;
use crate::presign::Policies;
use crate::presign::engine::{Obstacle, Obstacles};
use crate::presign::standing::{self, Condition, Standing};
use crate::store::{CertificateState, ResponderRecord, StoredAnswer};

/// A certificate.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Certificate)]
pub(super) struct Document {
    /// The name of its CA.
    #[schema(example = "demo")]
    pub(super) issuer: String,
    /// Its serial number in lower-case hexadecimal.
    #[schema(example = "04a1b2c3d4")]
    pub(super) serial: String,
    /// What is said of it.
    pub(super) status: Status,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revoked_at: Option<Time>,
    /// Why, where a reason was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "keyCompromise")]
    pub(super) reason: Option<&'static str>,
    /// Rises with each change of status; starts at 1.
    pub(super) version: i64,
    /// The start of its validity, where it is on record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<Time>,
    /// The end of its validity.
    pub(super) not_after: Time,
    /// The shard it stands in.
    pub(super) shard: u8,
    /// The newest answer that was signed for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answer>,
    /// What happens next, and why.
    pub(super) next: String,
    /// What stands in the way of it, where something does; left out by a process that does not sign.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signing: Option<Signing>,
}

/// `good` or `revoked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Good,
    Revoked,
}

/// A stored answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    /// How it stands: `fresh`; `due` for a new one; `stale`, past the legal deadline for one; `expired`,
    /// past nextUpdate, or `superseded`, signed before the status changed, which are not served.
    #[schema(value_type = String, example = "fresh", pattern = "^(fresh|due|stale|expired|superseded)$")]
    pub(super) state: Condition,
    /// The version of the certificate that it was signed for.
    pub(super) version: i64,
    /// thisUpdate.
    pub(super) this_update: Time,
    /// When a new one is to be signed.
    pub(super) due_at: Time,
    /// The legal deadline for a new one.
    pub(super) stale_at: Time,
    /// nextUpdate.
    pub(super) next_update: Time,
    /// The number of the responder that signed it.
    pub(super) responder: i64,
    /// The token that holds the responder's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    /// The key in the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// The signature algorithm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) algorithm: Option<String>,
}

/// What stands in the way of a certificate's next answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Signing {
    /// Its last attempt failed; it is tried again with growing waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<InTheWay>,
    /// Nothing of its issuer is signed at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_on_hold: Option<InTheWay>,
}

/// Why signing does not get on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct InTheWay {
    /// Why, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it failed first.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    /// How often it failed.
    failures: u32,
    /// When it is tried again, at the earliest.
    next_try: Time,
}

impl From<Obstacle> for InTheWay {
    fn from(obstacle: Obstacle) -> Self {
        Self {
            reason: obstacle.reason,
            since: obstacle.since.map(Time),
            failures: obstacle.failures,
            next_try: Time(obstacle.next_try),
        }
    }
}

impl From<Obstacles> for Signing {
    fn from(obstacles: Obstacles) -> Self {
        Self {
            quarantine: obstacles.quarantine.map(InTheWay::from),
            issuer_on_hold: obstacles.hold.map(InTheWay::from),
        }
    }
}

impl Document {
    /// The certificate as it is at `now`.
    pub(super) fn new(
        issuer: &str,
        state: &CertificateState,
        responders: &[ResponderRecord],
        policies: &Policies,
        obstacles: Option<Obstacles>,
        now: UnixTime,
    ) -> Self {
        let certificate = &state.certificate;
        let revocation = certificate.revocation;
        Self {
            issuer: issuer.to_owned(),
            serial: certificate.serial.to_string(),
            status: if revocation.is_some() { Status::Revoked } else { Status::Good },
            revoked_at: revocation.map(|revocation| Time(revocation.time)),
            reason: revocation.and_then(|revocation| revocation.reason).map(CrlReason::name),
            version: certificate.version,
            not_before: certificate.not_before.map(Time),
            not_after: Time(certificate.not_after),
            shard: certificate.key.shard.0,
            answer: state.answer.as_ref().map(|answer| describe(answer, state, responders, policies, now)),
            next: standing::next(state, policies, now),
            signing: obstacles.map(Signing::from),
        }
    }
}

fn describe(
    answer: &StoredAnswer,
    state: &CertificateState,
    responders: &[ResponderRecord],
    policies: &Policies,
    now: UnixTime,
) -> Answer {
    let Standing { condition, due_at, stale_at } = Standing::of(answer, &state.certificate, policies, now);
    let signer = responders.iter().find(|responder| responder.number == answer.responder);
    let signer = signer.map(|record| &record.responder);
    Answer {
        state: condition,
        version: answer.version,
        this_update: Time(answer.this_update),
        due_at: Time(due_at),
        stale_at: Time(stale_at),
        next_update: Time(answer.next_update),
        responder: answer.responder.0,
        token: signer.map(|signer| signer.token.clone()),
        key: signer.map(|signer| signer.key.clone()),
        algorithm: signer.map(|signer| signer.algorithm.clone()),
    }
}
