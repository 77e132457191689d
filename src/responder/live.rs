//! Answers signed on the spot, for what cannot be stored ahead: nonces, several certificates in one
//! request, hashes that no stored answer has, serial numbers on no record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::gate::{Gate, Limits, Refused};
use super::{Answer, Outcome};
use crate::clock::{SharedClock, UnixTime};
use crate::ocsp::{SignatureAlgorithm, response};
use crate::presign::Policies;
use crate::presign::identity::{Asked, Identities, Identity, IdentityError, SignedDraft};
use crate::signer::{Lane, Order, SignError};
use crate::store::IssuerId;

/// How much live signing is let through. A request beyond it gets the best stored answer where that
/// is allowed, else tryLater: a flood of nonces or random serial numbers costs the token no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Live signatures under way at once: places that they take in the token's queue.
    pub in_flight: usize,
    /// Live signatures a second.
    pub per_second: u32,
    /// How long a client is kept waiting for its signature before tryLater.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 100, patience: Duration::from_secs(4) }
    }
}

/// How long a live answer is good for, unless stored ones are for less. It is made for one client,
/// which asks again when it needs to; 8 hours is the least that the Baseline Requirements 4.9.9 allow.
const VALIDITY: Duration = Duration::from_secs(8 * 3_600);

/// Signs on the spot.
#[derive(Debug)]
pub struct LiveSigner {
    identities: Arc<Identities>,
    clock: SharedClock,
    policies: Arc<ArcSwap<Policies>>,
    settings: Settings,
    gate: Gate<(IssuerId, Asked), Result<Answer, Arc<LiveError>>>,
    signatures: AtomicU64,
}

/// Why there is no live answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It was not let through.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The signature did not come in time.
    #[error("the token did not sign within {0:?}")]
    TooSlow(Duration),
    /// Nobody signed it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl LiveError {
    /// Whether it stays so until somebody mends it: what is to be said cannot be written, or what was
    /// signed does not verify.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Identity(IdentityError::Compose(_) | IdentityError::Sign(SignError::Unverifiable { .. }))
        )
    }
}

impl LiveSigner {
    /// Signs with these identities.
    #[must_use]
    pub fn new(
        identities: Arc<Identities>,
        clock: SharedClock,
        policies: Arc<ArcSwap<Policies>>,
        settings: Settings,
    ) -> Self {
        let limits = Limits { in_flight: settings.in_flight, per_second: settings.per_second };
        Self { identities, clock, policies, settings, gate: Gate::new(limits), signatures: AtomicU64::new(0) }
    }

    /// The first of these algorithms that somebody signs with for the issuer.
    #[must_use]
    pub fn offered(
        &self,
        issuer: IssuerId,
        preferred: &[SignatureAlgorithm],
        now: UnixTime,
    ) -> Option<SignatureAlgorithm> {
        self.identities.offered(issuer, now, preferred)
    }

    /// Signs one answer. The same question asked while it is signed gets the same answer.
    ///
    /// # Errors
    /// [`LiveError`]; the client is answered tryLater.
    pub async fn answer(&self, issuer: IssuerId, asked: Asked) -> Result<Answer, Arc<LiveError>> {
        let key = (issuer, asked.clone());
        match self.gate.pass(key, || self.sign(issuer, asked)).await {
            Ok(answer) => answer,
            Err(refused) => Err(Arc::new(refused.into())),
        }
    }

    async fn sign(&self, issuer: IssuerId, asked: Asked) -> Result<Answer, Arc<LiveError>> {
        self.try_sign(issuer, asked).await.map_err(Arc::new)
    }

    /// Signatures asked of a token since the start.
    pub(super) fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    async fn try_sign(&self, issuer: IssuerId, asked: Asked) -> Result<Answer, LiveError> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now();
        let validity = VALIDITY.min(self.policies.load().of(issuer).freshness.validity());
        let draft = |identity: &Identity| {
            let next_update = UnixTime(now.plus(validity).0 - 1).min(identity.not_after);
            identity.draft_for(asked.clone(), next_update, now)
        };
        let order = Order::new(Lane::Live, now.plus(self.settings.patience));
        let signing = self.identities.sign_preferring(asked.algorithm, issuer, now, VALIDITY, order, draft);
        let signed = tokio::time::timeout(self.settings.patience, signing)
            .await
            .map_err(|_| LiveError::TooSlow(self.settings.patience))??;
        let SignedDraft { identity, draft, signature } = signed;
        let frame = &identity.frame;
        let body = response::assemble(
            &draft.response_data,
            frame.algorithm,
            &signature,
            frame.certificate.as_deref(),
        );
        Ok(Answer { body: body.into(), cache: None, outcome: Outcome::Live, is_stale: false })
    }
}
