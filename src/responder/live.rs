//! Answers signed on the spot, for what cannot be stored ahead: nonces, several certificates in one
//! request, hashes that no stored answer has, serial numbers on no record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Answer, Outcome};
use crate::clock::SharedClock;
use crate::ocsp::response;
use crate::presign::identity::{Asked, Identities};
use crate::signer::SignError;
use crate::store::IssuerId;

/// How much live signing is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Live signatures under way at once. A request beyond that is answered tryLater, so a flood
    /// of nonces costs the token at most this many places in its queue.
    pub in_flight: usize,
    /// How long a client is kept waiting for its signature before tryLater.
    pub patience: Duration,
    /// How long a live answer is good for. It is made for one client, which asks again when it
    /// needs to; 8 hours is the least that the Baseline Requirements 4.9.9 allow.
    pub validity: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_flight: 64, patience: Duration::from_secs(4), validity: Duration::from_secs(8 * 3_600) }
    }
}

/// Signs on the spot.
#[derive(Debug)]
pub struct LiveSigner {
    identities: Arc<Identities>,
    clock: SharedClock,
    settings: Settings,
    places: Semaphore,
}

/// Why there is no live answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Too much live signing is under way.
    #[error("{0} live signatures are under way already")]
    Busy(usize),
    /// No responder of the issuer is in force.
    #[error("no responder certificate of the issuer is in force")]
    NoResponder,
    /// The signature did not come in time.
    #[error("the token did not sign within {0:?}")]
    TooSlow(Duration),
    /// The answer cannot be encoded.
    #[error(transparent)]
    Encode(#[from] response::ResponseError),
    /// The token does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl LiveSigner {
    /// Signs with these identities.
    #[must_use]
    pub fn new(identities: Arc<Identities>, clock: SharedClock, settings: Settings) -> Self {
        Self { identities, clock, settings, places: Semaphore::new(settings.in_flight) }
    }

    /// Signs one answer.
    ///
    /// # Errors
    /// [`LiveError`]; the client is answered tryLater.
    pub async fn answer(&self, issuer: IssuerId, asked: Asked) -> Result<Answer, LiveError> {
        let _place = self.places.try_acquire().map_err(|_| LiveError::Busy(self.settings.in_flight))?;
        let now = self.clock.now();
        let identity = self.identities.for_issuer(issuer, now).ok_or(LiveError::NoResponder)?;
        let next_update =
            crate::clock::UnixTime(now.plus(self.settings.validity).0 - 1).min(identity.not_after);
        let draft = identity.draft_for(asked, next_update, now)?;
        let signature = tokio::time::timeout(self.settings.patience, identity.sign(&draft))
            .await
            .map_err(|_| LiveError::TooSlow(self.settings.patience))??;
        let frame = &identity.frame;
        let body = response::assemble(
            &draft.response_data,
            frame.algorithm,
            &signature,
            frame.certificate.as_deref(),
        );
        Ok(Answer { body: body.into(), cache: None, outcome: Outcome::Live })
    }
}
