//! From certificate to stored answer: read, compose, sign, store. The steps overlap, so that the
//! token always has work and neither waits for the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::identity::{Identities, Identity, IdentityError, SignedDraft, order_for};
use super::policies::Policies;
use crate::clock::{SharedClock, UnixTime};
use crate::ocsp::{CertStatus, response::ResponseError};
use crate::signer::SignError;
use crate::store::{
    AnswerOutcome, CertificateKey, CertificateState, NewAnswer, Store, StoreError, StoredAnswer,
};

/// How much is under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Signatures asked for at once. It has to keep every session busy while answers are written;
    /// more only makes a stop take longer.
    pub in_flight: usize,
    /// Certificates read, and answers written, in one transaction at the most.
    pub portion: usize,
    /// How long a signed answer waits for others to be written with.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { in_flight: 256, portion: 500, patience: Duration::from_millis(50) }
    }
}

/// What became of one certificate.
#[derive(Debug)]
pub enum Outcome {
    /// Signed and stored: the certificate with its new answer.
    Stored(Box<CertificateState>),
    /// Its status changed meanwhile, or somebody else stored a newer answer.
    Superseded(CertificateKey),
    /// No answer is due: it is gone or expired, or not valid before the moment given.
    NotDue(CertificateKey, Option<UnixTime>),
    /// It has no answer now; the reason.
    Failed(CertificateKey, ItemError),
}

/// Why a certificate got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    /// Its issuer has no responder in force.
    #[error("no responder certificate of its issuer is in force: see `goodstanding responder list`")]
    NoResponder,
    /// Its answer cannot be encoded.
    #[error(transparent)]
    Compose(#[from] ResponseError),
    /// The token did not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The store did not take it.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl From<IdentityError> for ItemError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::NoResponder => Self::NoResponder,
            IdentityError::Compose(error) => Self::Compose(error),
            IdentityError::Sign(error) => Self::Sign(error),
        }
    }
}

/// The way from certificate to stored answer.
#[derive(Clone)]
pub struct Pipeline {
    /// Where certificates come from and answers go.
    pub store: Arc<dyn Store>,
    /// Who signs.
    pub identities: Arc<Identities>,
    /// The time of thisUpdate.
    pub clock: SharedClock,
    /// What answers are held to; may be replaced while running.
    pub policies: Arc<ArcSwap<Policies>>,
    /// How much is under way at once.
    pub settings: Settings,
}

/// A certificate whose answer was signed and is to be stored.
struct Signed {
    state: CertificateState,
    answer: NewAnswer,
}

enum Step {
    Signed(Box<Signed>),
    Ended(Outcome),
}

impl Pipeline {
    /// Signs and stores an answer for every key that comes in, in that order as far as sessions
    /// allow, until `keys` is closed. Every key has exactly one outcome, unless `outcomes` is
    /// dropped: then the pipeline stops, after storing what is signed.
    pub async fn run(&self, keys: mpsc::Receiver<CertificateKey>, outcomes: mpsc::Sender<Outcome>) {
        let (to_sign, states) = mpsc::channel(2);
        let (to_store, signed) = mpsc::channel(self.settings.portion);
        tokio::join!(
            self.read(keys, to_sign, outcomes.clone()),
            self.sign(states, to_store, outcomes.clone()),
            self.write(signed, outcomes)
        );
    }

    async fn read(
        &self,
        mut keys: mpsc::Receiver<CertificateKey>,
        to_sign: mpsc::Sender<Vec<CertificateState>>,
        outcomes: mpsc::Sender<Outcome>,
    ) {
        let mut portion = Vec::with_capacity(self.settings.portion);
        while keys.recv_many(&mut portion, self.settings.portion).await > 0 {
            match self.store.certificates(&portion).await {
                Ok(states) => {
                    let mut by_key: HashMap<_, _> =
                        states.into_iter().map(|state| (state.certificate.key, state)).collect();
                    let mut ordered = Vec::with_capacity(portion.len());
                    for key in portion.drain(..) {
                        match by_key.remove(&key) {
                            Some(state) => ordered.push(state),
                            None => _ = outcomes.send(Outcome::NotDue(key, None)).await,
                        }
                    }
                    if to_sign.send(ordered).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for key in portion.drain(..) {
                        _ = outcomes.send(Outcome::Failed(key, ItemError::Store(Arc::clone(&error)))).await;
                    }
                }
            }
            if outcomes.is_closed() {
                return;
            }
        }
    }

    async fn sign(
        &self,
        mut states: mpsc::Receiver<Vec<CertificateState>>,
        to_store: mpsc::Sender<Box<Signed>>,
        outcomes: mpsc::Sender<Outcome>,
    ) {
        let mut waiting = Vec::new().into_iter();
        let mut open = true;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.settings.in_flight
                && let Some(state) = waiting.next()
            {
                under_way.push(self.sign_one(state));
            }
            let room = under_way.len() < self.settings.in_flight;
            tokio::select! {
                Some(step) = under_way.next(), if !under_way.is_empty() => match step {
                    Step::Signed(signed) => _ = to_store.send(signed).await,
                    Step::Ended(outcome) => _ = outcomes.send(outcome).await,
                },
                more = states.recv(), if open && room => match more {
                    Some(more) => waiting = more.into_iter(),
                    None => open = false,
                },
                else => return,
            }
        }
    }

    async fn sign_one(&self, state: CertificateState) -> Step {
        let certificate = &state.certificate;
        let now = self.clock.now();
        let policy = *self.policies.load().of(certificate.issuer);
        if policy.answered_until(certificate.not_after) < now {
            return Step::Ended(Outcome::NotDue(certificate.key, None));
        }
        if let Some(not_before) = certificate.not_before.filter(|not_before| now < *not_before) {
            return Step::Ended(Outcome::NotDue(certificate.key, Some(not_before)));
        }
        let status = certificate.revocation.map_or(CertStatus::Good, CertStatus::Revoked);
        let draft = |identity: &Identity| identity.draft(certificate.serial, status, &policy, now);
        let order = order_for(&state, &policy.freshness, now);
        let validity = policy.freshness.validity();
        match self.identities.sign(certificate.issuer, now, validity, order, draft).await {
            Ok(done) => Step::Signed(Box::new(signed(state, done))),
            Err(error) => Step::Ended(Outcome::Failed(certificate.key, error.into())),
        }
    }

    async fn write(&self, mut signed: mpsc::Receiver<Box<Signed>>, outcomes: mpsc::Sender<Outcome>) {
        let mut portion = Vec::with_capacity(self.settings.portion);
        while signed.recv_many(&mut portion, self.settings.portion).await > 0 {
            let deadline = tokio::time::sleep(self.settings.patience);
            tokio::pin!(deadline);
            while portion.len() < self.settings.portion {
                let room = self.settings.portion - portion.len();
                tokio::select! {
                    more = signed.recv_many(&mut portion, room) => if more == 0 { break },
                    () = &mut deadline => break,
                }
            }
            self.write_portion(portion.drain(..), &outcomes).await;
        }
    }

    async fn write_portion(
        &self,
        portion: impl Iterator<Item = Box<Signed>>,
        outcomes: &mpsc::Sender<Outcome>,
    ) {
        let (states, answers): (Vec<_>, Vec<_>) = portion.map(|signed| (signed.state, signed.answer)).unzip();
        match self.store.store_answers(&answers, self.clock.now()).await {
            Ok(results) => {
                for ((mut state, answer), result) in states.into_iter().zip(answers).zip(results) {
                    let outcome = match result {
                        AnswerOutcome::Stored => {
                            state.answer = Some(StoredAnswer {
                                version: answer.version,
                                responder: answer.responder,
                                this_update: answer.this_update,
                                next_update: answer.next_update,
                                response_data: answer.response_data,
                                signature: answer.signature,
                            });
                            Outcome::Stored(Box::new(state))
                        }
                        AnswerOutcome::Superseded => Outcome::Superseded(answer.key),
                    };
                    _ = outcomes.send(outcome).await;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    _ = outcomes
                        .send(Outcome::Failed(answer.key, ItemError::Store(Arc::clone(&error))))
                        .await;
                }
            }
        }
    }
}

fn signed(state: CertificateState, done: SignedDraft) -> Signed {
    let SignedDraft { identity, draft, signature } = done;
    let answer = NewAnswer {
        key: state.certificate.key,
        version: state.certificate.version,
        responder: identity.responder,
        this_update: draft.this_update,
        next_update: draft.next_update,
        response_data: draft.response_data.to_vec(),
        signature,
    };
    Signed { state, answer }
}
