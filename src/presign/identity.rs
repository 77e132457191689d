//! Who signs for an issuer: a responder's key and certificate, ready for use.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rasn::types::OctetString;

use crate::clock::UnixTime;
use crate::ocsp::{
    CertId, CertStatus, Freshness, HashAlgorithm, Issuer, ResponderId, ResponseData, Serial, SingleResponse,
    response::ResponseError,
};
use crate::shelf::Frame;
use crate::signer::{Lane, Order, PreparedKey, SignError, Signer, TokenState};
use crate::store::{CertificateState, IssuerId, ResponderNumber};

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
    /// The start of its certificate's validity: it signs nothing before.
    pub not_before: UnixTime,
    /// The end of its certificate's validity: no answer outlives it (B5).
    pub not_after: UnixTime,
    /// The hashes of the CertIDs in a stored answer.
    pub cert_id_hashes: Vec<HashAlgorithm>,
    /// The token.
    pub signer: Signer,
    /// The key in it.
    pub key: PreparedKey,
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
pub fn order_for(state: &CertificateState, freshness: &Freshness, now: UnixTime) -> Order {
    let certificate = &state.certificate;
    match state.answer.as_ref().filter(|answer| answer.version == certificate.version) {
        Some(answer) => Order::new(Lane::Refresh, freshness.stale_at(answer.this_update, answer.next_update)),
        // What was not there at all could have been there at any time: first come, first served.
        None if certificate.revocation.is_some() => Order::new(Lane::Revocation, now),
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
}

impl Asked {
    /// An answer that says this.
    #[must_use]
    pub const fn new(
        statuses: Vec<(CertId, CertStatus)>,
        nonce: Option<OctetString>,
        extended_revoke: bool,
    ) -> Self {
        Self { statuses, nonce, extended_revoke }
    }
}

impl Identity {
    /// The answer to be stored for a certificate: one SingleResponse a CertID hash (L2), no
    /// extensions (L3), thisUpdate equal to producedAt (L10).
    ///
    /// # Errors
    /// As [`ResponseData::encode`].
    pub fn draft(
        &self,
        serial: Serial,
        status: CertStatus,
        freshness: &Freshness,
        now: UnixTime,
    ) -> Result<Draft, ResponseError> {
        let cert_ids = self.cert_id_hashes.iter().map(|hash| (self.issuer.cert_id(*hash, serial), status));
        let next_update = freshness.next_update(now, self.not_after);
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
        let single = |(cert_id, status)| SingleResponse { cert_id, status, this_update: now, next_update };
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
        self.signer.sign(&self.key, draft.response_data.clone(), order).await
    }

    /// Whether its certificate is in force at `now` and lasts long enough for a useful answer.
    #[must_use]
    pub fn is_usable_at(&self, now: UnixTime) -> bool {
        self.not_before <= now && now.plus(Duration::from_secs(60)) <= self.not_after
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

    /// The identity that signs for an issuer at `now`: the first whose token signs and whose
    /// certificate outlives an answer of that `validity`; where none does, the best there is, a token
    /// that signs counting most.
    #[must_use]
    pub fn for_issuer(&self, issuer: IssuerId, now: UnixTime, validity: Duration) -> Option<Arc<Identity>> {
        let all = self.0.load();
        let usable = all.iter().filter(|identity| identity.issuer_id == issuer && identity.is_usable_at(now));
        // Of equals `max_by_key` takes the last one, so the order of preference is reversed.
        let best = usable.rev().max_by_key(|identity| {
            let serving = identity.signer.state() == TokenState::Serving;
            (serving, identity.not_after.min(now.plus(validity)))
        });
        best.cloned()
    }

    /// The identities now in use.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<Identity>>> {
        self.0.load_full()
    }
}
