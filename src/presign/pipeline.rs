//! From certificate to stored answer: read, compose, sign, store. The steps overlap, so that the
//! token always has work and neither waits for the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::engine::Reach;
use super::identity::{Identities, Identity, IdentityError, SignedDraft, order_for};
use super::policies::Policies;
use super::reading;
use crate::clock::{SharedClock, UnixTime};
use crate::ocsp::{CertStatus, response::ResponseError};
use crate::signer::{FailureClass, Lane, SignError};
use crate::store::{
    AnswerOutcome, CertificateKey, CertificateState, NewAnswer, Store, StoreError, StoredAnswer,
};

/// How much is under way at once in one lane.
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

impl Settings {
    /// These settings in a lane: where somebody waits for each answer, none waits for others.
    #[must_use]
    fn in_lane(self, lane: Lane) -> Self {
        match lane {
            Lane::Revocation | Lane::Live => Self { patience: self.patience / 10, ..self },
            Lane::First | Lane::Refresh => self,
        }
    }

    /// Certificates that may be on their way in one lane: read, signed and written at once.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.in_flight + 2 * self.portion
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

impl ItemError {
    /// How far the failure reaches.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Compose(_) => Reach::Item,
            Self::Sign(error) if error.class() == FailureClass::Request => Reach::Item,
            Self::Store(error) if reading::is_of_one_row(error) => Reach::Item,
            Self::NoResponder | Self::Sign(_) | Self::Store(_) => Reach::Issuer,
        }
    }
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
    /// allow, until `keys` is closed. Every key has exactly one outcome, told with `lane`, unless
    /// `outcomes` is dropped: then the pipeline stops, after storing what is signed.
    ///
    /// One runs for each lane, so that what is in a hurry stands behind nothing else.
    pub async fn run(
        &self,
        lane: Lane,
        keys: mpsc::Receiver<CertificateKey>,
        outcomes: mpsc::Sender<(Lane, Outcome)>,
    ) {
        let settings = self.settings.in_lane(lane);
        let run = Run { pipeline: self, settings, outcomes: Outcomes { lane, sender: outcomes } };
        let (to_sign, states) = mpsc::channel(2);
        let (to_store, signed) = mpsc::channel(settings.portion);
        tokio::join!(run.read(keys, to_sign), run.sign(states, to_store), run.write(signed));
    }
}

impl Pipeline {
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
}

/// Where a lane's outcomes go.
struct Outcomes {
    lane: Lane,
    sender: mpsc::Sender<(Lane, Outcome)>,
}

impl Outcomes {
    /// Nobody listens any more when the process stops in a hurry: then there is nobody to tell.
    async fn tell(&self, outcome: Outcome) {
        drop(self.sender.send((self.lane, outcome)).await);
    }
}

/// A pipeline at work in one lane.
struct Run<'p> {
    pipeline: &'p Pipeline,
    settings: Settings,
    outcomes: Outcomes,
}

impl Run<'_> {
    async fn read(
        &self,
        mut keys: mpsc::Receiver<CertificateKey>,
        to_sign: mpsc::Sender<Vec<CertificateState>>,
    ) {
        let mut portion = Vec::with_capacity(self.settings.portion);
        while keys.recv_many(&mut portion, self.settings.portion).await > 0 {
            match reading::certificates(&*self.pipeline.store, &portion).await {
                Ok((states, unreadable)) => {
                    let mut by_key: HashMap<_, _> =
                        states.into_iter().map(|state| (state.certificate.key, state)).collect();
                    for (key, error) in unreadable {
                        portion.retain(|other| *other != key);
                        self.outcomes.tell(Outcome::Failed(key, ItemError::Store(Arc::new(error)))).await;
                    }
                    let mut ordered = Vec::with_capacity(portion.len());
                    for key in portion.drain(..) {
                        match by_key.remove(&key) {
                            Some(state) => ordered.push(state),
                            None => self.outcomes.tell(Outcome::NotDue(key, None)).await,
                        }
                    }
                    if to_sign.send(ordered).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for key in portion.drain(..) {
                        self.outcomes.tell(Outcome::Failed(key, ItemError::Store(Arc::clone(&error)))).await;
                    }
                }
            }
            if self.outcomes.sender.is_closed() {
                return;
            }
        }
    }

    async fn sign(
        &self,
        mut states: mpsc::Receiver<Vec<CertificateState>>,
        to_store: mpsc::Sender<Box<Signed>>,
    ) {
        let mut waiting = Vec::new().into_iter();
        let mut open = true;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.settings.in_flight
                && let Some(state) = waiting.next()
            {
                under_way.push(self.pipeline.sign_one(state));
            }
            let room = under_way.len() < self.settings.in_flight;
            tokio::select! {
                Some(step) = under_way.next(), if !under_way.is_empty() => match step {
                    Step::Signed(signed) => _ = to_store.send(signed).await,
                    Step::Ended(outcome) => self.outcomes.tell(outcome).await,
                },
                more = states.recv(), if open && room => match more {
                    Some(more) => waiting = more.into_iter(),
                    None => open = false,
                },
                else => return,
            }
        }
    }

    async fn write(&self, mut signed: mpsc::Receiver<Box<Signed>>) {
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
            self.write_portion(portion.drain(..)).await;
        }
    }

    async fn write_portion(&self, portion: impl Iterator<Item = Box<Signed>>) {
        let (states, answers): (Vec<_>, Vec<_>) = portion.map(|signed| (signed.state, signed.answer)).unzip();
        match self.pipeline.store.store_answers(&answers, self.pipeline.clock.now()).await {
            Ok(results) => {
                for ((state, answer), result) in states.into_iter().zip(answers).zip(results) {
                    self.outcomes.tell(outcome(state, answer, result)).await;
                }
            }
            // One that cannot be stored must not keep its neighbours from it.
            Err(error) if answers.len() > 1 && reading::is_of_one_row(&error) => {
                for (state, answer) in states.into_iter().zip(answers) {
                    let stored = self
                        .pipeline
                        .store
                        .store_answers(std::slice::from_ref(&answer), self.pipeline.clock.now())
                        .await;
                    let outcome = match stored.map(|results| results.first().copied()) {
                        Ok(Some(result)) => outcome(state, answer, result),
                        Ok(None) => Outcome::Superseded(answer.key),
                        Err(error) => Outcome::Failed(answer.key, ItemError::Store(Arc::new(error))),
                    };
                    self.outcomes.tell(outcome).await;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for answer in answers {
                    self.outcomes
                        .tell(Outcome::Failed(answer.key, ItemError::Store(Arc::clone(&error))))
                        .await;
                }
            }
        }
    }
}

fn outcome(mut state: CertificateState, answer: NewAnswer, result: AnswerOutcome) -> Outcome {
    match result {
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
