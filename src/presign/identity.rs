//! Who signs for an issuer: a responder's key and certificate, ready for use.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rasn::types::OctetString;

use super::policies::Policy;
use super::rota::LEAST_LIFE;
use crate::clock::{Stopwatch, UnixTime};
use crate::ocsp::{
    CertId, CertStatus, Freshness, HashAlgorithm, Issuer, ResponderId, ResponseData, Serial,
    SignatureAlgorithm, SingleResponse,
    response::{ResponseError, SingleExtras},
};
use crate::shelf::Frame;
use crate::signer::{FailureClass, Lane, Order, PreparedKey, SignError, Signer, TokenState};
use crate::store::{DueCertificate, IssuerId, ResponderNumber};

/// A responder that signs for an issuer.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The issuer.
    pub issuer: Arc<Issuer>,
    /// The issuer's number in the store.
    pub issuer_id: IssuerId,
    /// The responder's number in the store.
    pub responder: ResponderNumber,
    /// How its answers name it.
    pub responder_id: ResponderId,
    /// What stands around its answers.
    pub frame: Arc<Frame>,
    /// The start of its certificate's validity, or the later time that it takes over at: it signs
    /// nothing before.
    pub not_before: UnixTime,
    /// The end of its certificate's validity: no answer outlives it (B5).
    pub not_after: UnixTime,
    /// Its place among those of its issuer: one of a lower rank signs before one of a higher, and
    /// those of one rank share the work.
    pub rank: usize,
    /// The hashes of the CertIDs in a stored answer.
    pub cert_id_hashes: Vec<HashAlgorithm>,
    /// Where the issuer's CRL is, told of revoked certificates (C22).
    pub crl_url: Option<Arc<str>>,
    /// How long certificates are answered for after their end; zero for not at all (C23).
    pub history: Duration,
    /// The token.
    pub signer: Signer,
    /// The key in it.
    pub key: PreparedKey,
    /// How signing with this key went.
    pub health: Health,
}

/// How signing with one key went. A token may be well and a key in it gone: refused at once, its work
/// would look like a token that has nothing to do, and draw all work to itself.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Ailment>);

#[derive(Debug, Default)]
struct Ailment {
    failures_in_a_row: AtomicU32,
    since: Mutex<Option<Stopwatch>>,
}

impl Health {
    /// Failures of single items in a row that make a key ailing.
    const SUSPICIOUS: u32 = 8;
    /// How long an ailing key is used only where there is no other.
    const SHUNNED: Duration = Duration::from_secs(30);

    fn note(&self, outcome: &Result<Vec<u8>, SignError>) {
        let ailment = &self.0;
        let weight = match outcome {
            Ok(_) => {
                if ailment.failures_in_a_row.load(Ordering::Relaxed) != 0 {
                    ailment.failures_in_a_row.store(0, Ordering::Relaxed);
                    *ailment.lock() = None;
                }
                return;
            }
            Err(SignError::KeyGone { .. } | SignError::Unverifiable { .. }) => Self::SUSPICIOUS,
            Err(SignError::Failed { .. }) => 1,
            // The token's matter, which its state tells.
            Err(_) => return,
        };
        let before = ailment.failures_in_a_row.fetch_add(weight, Ordering::Relaxed);
        if before.saturating_add(weight) >= Self::SUSPICIOUS {
            *ailment.lock() = Some(Stopwatch::start());
        }
    }

    fn is_ailing(&self) -> bool {
        self.0.failures_in_a_row.load(Ordering::Relaxed) >= Self::SUSPICIOUS
            && self.0.lock().is_some_and(|since| since.elapsed() < Self::SHUNNED)
    }
}

impl Ailment {
    fn lock(&self) -> MutexGuard<'_, Option<Stopwatch>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How fit an identity is to sign now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    /// Its token refuses work.
    Away,
    /// Its token signs, but not with this key.
    Ailing,
    /// Its token is being mended; work waits.
    Mending,
    /// It signs.
    Well,
}

/// What was signed, and by whom.
#[derive(Clone, Debug)]
pub struct SignedDraft {
    /// Who signed.
    pub identity: Arc<Identity>,
    /// What.
    pub draft: Draft,
    /// The verified signature.
    pub signature: Bytes,
}

/// Why nobody signed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The issuer has no responder in force.
    #[error("no responder certificate of its issuer is in force: see `goodstanding responder list`")]
    NoResponder,
    /// The answer cannot be encoded.
    #[error(transparent)]
    Compose(#[from] ResponseError),
    /// The token did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Whether another token, or another key, may do better.
fn is_not_the_items_fault(error: &SignError) -> bool {
    error.class() != FailureClass::Request
        || matches!(error, SignError::KeyGone { .. } | SignError::Unverifiable { .. })
}

/// A ResponseData to be signed, and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The DER to be signed.
    pub response_data: Bytes,
    /// thisUpdate and producedAt.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
}

/// How urgent a certificate's next answer is: by what it has now, and when that becomes stale.
#[must_use]
pub fn order_for(due: &DueCertificate, freshness: &Freshness, now: UnixTime) -> Order {
    match &due.answer {
        Some(answer) => Order::new(Lane::Refresh, freshness.stale_at(answer.this_update, answer.next_update)),
        // What was not there at all could have been there at any time: first come, first served.
        None if due.certificate.revocation.is_some() => Order::new(Lane::Revocation, now),
        None => Order::new(Lane::First, now),
    }
}

/// What an answer is to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The certificates in order, each with its status.
    pub statuses: Vec<(CertId, CertStatus)>,
    /// The nonce to echo.
    pub nonce: Option<OctetString>,
    /// Whether "revoked" stands for a serial number that was never issued.
    pub extended_revoke: bool,
    /// The signature algorithm that the client prefers, of those that somebody signs with.
    pub algorithm: Option<SignatureAlgorithm>,
}

impl Asked {
    /// An answer that says this.
    #[must_use]
    pub const fn new(
        statuses: Vec<(CertId, CertStatus)>,
        nonce: Option<OctetString>,
        extended_revoke: bool,
    ) -> Self {
        Self { statuses, nonce, extended_revoke, algorithm: None }
    }

    /// The same, signed with this algorithm where it can be.
    #[must_use]
    pub const fn signed_with(mut self, algorithm: Option<SignatureAlgorithm>) -> Self {
        self.algorithm = algorithm;
        self
    }
}

impl Identity {
    /// The answer to be stored for a certificate: one SingleResponse a CertID hash (L2), no
    /// responseExtensions (L3), thisUpdate equal to producedAt (L10).
    ///
    /// # Errors
    /// As [`ResponseData::encode`].
    pub fn draft(
        &self,
        serial: Serial,
        status: CertStatus,
        policy: &Policy,
        now: UnixTime,
    ) -> Result<Draft, ResponseError> {
        self.draft_pack(&[(serial, status)], policy, now)
    }

    /// The answer to be stored for several certificates: as [`Identity::draft`], one certificate after the
    /// other.
    ///
    /// # Errors
    /// As [`ResponseData::encode`].
    pub fn draft_pack(
        &self,
        certificates: &[(Serial, CertStatus)],
        policy: &Policy,
        now: UnixTime,
    ) -> Result<Draft, ResponseError> {
        let cert_ids = certificates.iter().flat_map(|(serial, status)| {
            self.cert_id_hashes.iter().map(|hash| (self.issuer.cert_id(*hash, *serial), *status))
        });
        let next_update = policy.freshness.next_update(now, self.not_after);
        self.draft_for(Asked::new(cert_ids.collect(), None, false), next_update, now)
    }

    /// An answer for these CertIDs in this order.
    ///
    /// # Errors
    /// As [`ResponseData::encode`].
    pub fn draft_for(
        &self,
        asked: Asked,
        next_update: UnixTime,
        now: UnixTime,
    ) -> Result<Draft, ResponseError> {
        let single = |(cert_id, status)| SingleResponse {
            cert_id,
            status,
            this_update: now,
            next_update,
            extras: self.extras(status, now),
        };
        let data = ResponseData {
            responder_id: self.responder_id.clone(),
            produced_at: now,
            responses: asked.statuses.into_iter().map(single).collect(),
            nonce: asked.nonce,
            extended_revoke: asked.extended_revoke,
        };
        Ok(Draft { response_data: data.encode()?.into(), this_update: now, next_update })
    }

    /// Signs; the signature has been verified with the certificate's key.
    ///
    /// # Errors
    /// As [`Signer::sign`].
    pub async fn sign(&self, draft: &Draft, order: Order) -> Result<Vec<u8>, SignError> {
        let signed = self.signer.sign(&self.key, draft.response_data.clone(), order).await;
        self.health.note(&signed);
        signed
    }

    /// What a SingleResponse says besides. Of a certificate that is on no record there is neither a CRL
    /// nor a history to point at (RFC 6960 section 2.2).
    fn extras(&self, status: CertStatus, now: UnixTime) -> SingleExtras {
        if matches!(status, CertStatus::Unknown | CertStatus::NEVER_ISSUED) {
            return SingleExtras::default();
        }
        let revoked = matches!(status, CertStatus::Revoked(_));
        SingleExtras {
            crl_url: self.crl_url.clone().filter(|_| revoked),
            archive_cutoff: (!self.history.is_zero()).then(|| now.minus(self.history)),
        }
    }

    async fn sign_draft(
        self: &Arc<Self>,
        draft: impl Fn(&Self) -> Result<Draft, ResponseError>,
        order: Order,
    ) -> Result<SignedDraft, IdentityError> {
        let draft = draft(self)?;
        let signature = self.sign(&draft, order).await?;
        Ok(SignedDraft { identity: Arc::clone(self), draft, signature: signature.into() })
    }

    fn fitness(&self) -> Fitness {
        match self.signer.state() {
            TokenState::Serving if self.health.is_ailing() => Fitness::Ailing,
            TokenState::Serving => Fitness::Well,
            TokenState::Recovering { .. } => Fitness::Mending,
            TokenState::Down { .. } | TokenState::PinRefused { .. } | TokenState::Stopped => Fitness::Away,
        }
    }

    /// Whether its certificate is in force at `now` and lasts long enough for a useful answer.
    #[must_use]
    pub fn is_usable_at(&self, now: UnixTime) -> bool {
        self.not_before <= now && now.plus(LEAST_LIFE) <= self.not_after
    }
}

/// Every identity in use. Replaced as a whole when responders come or go.
#[derive(Debug, Default)]
pub struct Identities(ArcSwap<Vec<Arc<Identity>>>);

impl Identities {
    /// These identities; those of one issuer in the order of preference.
    #[must_use]
    pub fn new(identities: Vec<Identity>) -> Self {
        Self(ArcSwap::from_pointee(identities.into_iter().map(Arc::new).collect()))
    }

    /// Puts others in their place.
    pub fn replace(&self, identities: Vec<Identity>) {
        self.0.store(Arc::new(identities.into_iter().map(Arc::new).collect()));
    }

    /// The identity that signs for an issuer at `now`: of those whose token signs the one whose
    /// certificate outlives an answer of that `validity`, or does so longest; of equals the one of the
    /// lowest rank, and of one rank the one whose answer is expected first, so that work flows to tokens
    /// as fast as they work it off.
    #[must_use]
    pub fn for_issuer(&self, issuer: IssuerId, now: UnixTime, validity: Duration) -> Option<Arc<Identity>> {
        self.choose(issuer, now, validity, Lane::Refresh, |_| true)
    }

    /// The first of the `preferred` signature algorithms that an identity of the issuer signs with now
    /// (RFC 6960 section 4.4.7.2).
    #[must_use]
    pub fn offered(
        &self,
        issuer: IssuerId,
        now: UnixTime,
        preferred: &[SignatureAlgorithm],
    ) -> Option<SignatureAlgorithm> {
        let all = self.0.load();
        preferred.iter().copied().find(|wanted| {
            all.iter().any(|identity| {
                identity.issuer_id == issuer
                    && identity.frame.algorithm == *wanted
                    && identity.is_usable_at(now)
                    && identity.fitness() == Fitness::Well
            })
        })
    }

    /// As [`Identities::for_issuer`], for a lane, of those that `fit`.
    fn choose(
        &self,
        issuer: IssuerId,
        now: UnixTime,
        validity: Duration,
        lane: Lane,
        fit: impl Fn(&Arc<Identity>) -> bool,
    ) -> Option<Arc<Identity>> {
        let all = self.0.load();
        let usable = all
            .iter()
            .filter(|identity| identity.issuer_id == issuer && identity.is_usable_at(now) && fit(identity));
        // Of equals `min_by_key` takes the first one: the order of preference.
        let best = usable.min_by_key(|identity| {
            let fitness = identity.fitness();
            (
                Reverse(fitness),
                Reverse(identity.not_after.min(now.plus(validity))),
                identity.rank,
                // Where nothing signs nobody knows how long it takes.
                (fitness == Fitness::Well).then(|| identity.signer.expected_wait(lane)),
            )
        });
        best.cloned()
    }

    /// Signs what `draft` makes of an identity, with the best one for the issuer. What it does not sign
    /// for a reason of its token's or its key's own is tried once with the next best, at once.
    ///
    /// # Errors
    /// [`IdentityError`]; of two refusals the first one.
    pub async fn sign(
        &self,
        issuer: IssuerId,
        now: UnixTime,
        validity: Duration,
        order: Order,
        draft: impl Fn(&Identity) -> Result<Draft, ResponseError>,
    ) -> Result<SignedDraft, IdentityError> {
        self.sign_preferring(None, issuer, now, validity, order, draft).await
    }

    /// As [`Identities::sign`], with a signature algorithm where an identity has it.
    ///
    /// # Errors
    /// As [`Identities::sign`].
    pub async fn sign_preferring(
        &self,
        wanted: Option<SignatureAlgorithm>,
        issuer: IssuerId,
        now: UnixTime,
        validity: Duration,
        order: Order,
        draft: impl Fn(&Identity) -> Result<Draft, ResponseError>,
    ) -> Result<SignedDraft, IdentityError> {
        let has = |identity: &Arc<Identity>| wanted == Some(identity.frame.algorithm);
        let first = self
            .choose(issuer, now, validity, order.lane, has)
            .or_else(|| self.choose(issuer, now, validity, order.lane, |_| true))
            .ok_or(IdentityError::NoResponder)?;
        let refusal = match first.sign_draft(&draft, order).await {
            Err(IdentityError::Sign(refusal)) if is_not_the_items_fault(&refusal) => refusal,
            outcome => return outcome,
        };
        let Some(second) =
            self.choose(issuer, now, validity, order.lane, |other| !Arc::ptr_eq(other, &first))
        else {
            return Err(refusal.into());
        };
        if second.fitness() != Fitness::Well {
            return Err(refusal.into());
        }
        tracing::debug!(%refusal, token = second.signer.token(), "trying another token");
        match second.sign_draft(&draft, order).await {
            Ok(signed) => Ok(signed),
            // What the item itself is to blame for says more than that a token was away.
            Err(IdentityError::Sign(error)) if !is_not_the_items_fault(&error) => Err(error.into()),
            Err(_) => Err(refusal.into()),
        }
    }

    /// The identities now in use.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Identity>>> {
        self.0.load_full()
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
