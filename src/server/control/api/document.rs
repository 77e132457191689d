//! A certificate as the API shows it: what is on record, the stored answer, what happens next.

use serde::Serialize;
use utoipa::ToSchema;

use super::input::Time;
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Freshness};
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
}

/// `good` or `revoked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Good,
    Revoked,
}

/// How a stored answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Condition {
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

/// A stored answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    /// How it stands.
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

impl Document {
    /// The certificate as it is at `now`.
    pub(super) fn new(
        issuer: &str,
        state: &CertificateState,
        responders: &[ResponderRecord],
        freshness: &Freshness,
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
            answer: state.answer.as_ref().map(|answer| describe(answer, state, responders, freshness, now)),
            next: next(state, freshness, now),
        }
    }
}

fn describe(
    answer: &StoredAnswer,
    state: &CertificateState,
    responders: &[ResponderRecord],
    freshness: &Freshness,
    now: UnixTime,
) -> Answer {
    let due_at = freshness.due_at(answer.this_update, answer.next_update, &state.certificate.serial);
    let stale_at = freshness.stale_at(answer.this_update, answer.next_update);
    let condition = if answer.version != state.certificate.version {
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

fn next(state: &CertificateState, freshness: &Freshness, now: UnixTime) -> String {
    let certificate = &state.certificate;
    if certificate.not_after < now {
        return "nothing: it has expired and is answered unauthorized (RFC 9919 section 3.2.3)".to_owned();
    }
    if let Some(not_before) = certificate.not_before.filter(|not_before| now < *not_before) {
        return format!("its first answer at {not_before}, when it comes into force");
    }
    match &state.answer {
        None => "its first answer, now".to_owned(),
        Some(answer) if answer.version != certificate.version => {
            format!("an answer for version {}, now: its status changed", certificate.version)
        }
        Some(answer) => {
            let due = freshness.due_at(answer.this_update, answer.next_update, &certificate.serial);
            if due <= now { "a new answer now".to_owned() } else { format!("a new answer at {due}") }
        }
    }
}
