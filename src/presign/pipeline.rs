//! From certificate to stored answer: read, compose, sign, store. The steps overlap, so that the
//! token always has work and neither waits for the database.
//!
//! In the refresh lane several certificates share a signature while the guard asks for it
//! ([`Levers::pack`]); what fails in a pack is tried alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::engine::Reach;
use super::identity::{Identities, Identity, IdentityError, SignedDraft, order_for};
use super::levers::Levers;
use super::policies::Policies;
use super::reading;
use crate::clock::{SharedClock, UnixTime};
use crate::ocsp::response::ResponseError;
use crate::signer::{FailureClass, Lane, SignError};
use crate::store::{
    AnswerOutcome, CertificateKey, CertificateRecord, CertificateState, DueCertificate, InPack, IssuerId,
    NewAnswer, Store, StoreError, StoredAnswer,
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
    /// The same in the refresh lane, where nobody waits, while more are being signed.
    pub refresh_patience: Duration,
    /// Nobody waits for any answer, in no lane: a batch.
    pub unhurried: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight: 256,
            portion: 500,
            patience: Duration::from_millis(50),
            refresh_patience: Duration::from_secs(1),
            unhurried: false,
        }
    }
}

impl Settings {
    /// These settings where nobody waits for any answer: in a batch.
    #[must_use]
    pub(super) fn unhurried(self) -> Self {
        Self { patience: self.refresh_patience, unhurried: true, ..self }
    }

    /// How long a signed answer of a lane waits for others, and how long while more are being signed.
    fn patience_in(&self, lane: Lane) -> (Duration, Duration) {
        match lane {
            // Somebody waits for each answer.
            Lane::Revocation | Lane::Live => (self.patience / 10, self.patience / 10),
            Lane::First => (self.patience, self.patience),
            Lane::Refresh => (self.patience, self.refresh_patience.max(self.patience)),
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
#[derive(Clone, Debug, thiserror::Error)]
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
    /// What the capacity guard asks for.
    pub levers: Arc<Levers>,
}

/// A certificate whose answer was signed and is to be stored.
struct Signed {
    certificate: CertificateRecord,
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
        let settings = self.settings;
        let outcomes = Outcomes { lane, sender: outcomes };
        let run = Run { pipeline: self, settings, outcomes, being_signed: AtomicUsize::new(0) };
        let (to_sign, due) = mpsc::channel(2);
        let (to_store, signed) = mpsc::channel(settings.portion);
        tokio::join!(run.read(keys, to_sign), run.sign(due, to_store), run.write(signed));
    }
}

impl Pipeline {
    /// Signs an answer for these certificates, of one issuer and all revoked or none: one for all of them.
    /// Each has its step.
    async fn sign(&self, mut together: Vec<DueCertificate>) -> Vec<Step> {
        let now = self.clock.now();
        let mut steps = Vec::with_capacity(together.len());
        together.retain(|due| {
            let not_due = self.not_due(&due.certificate, now);
            let is_due = not_due.is_none();
            steps.extend(not_due.map(Step::Ended));
            is_due
        });
        let Some(first) = together.first() else { return steps };
        match self.sign_together(first, &together, now).await {
            Ok(done) => {
                let packed = together.len() > 1;
                steps.extend(together.into_iter().map(|due| signed(due.certificate, &done, packed)));
            }
            // One that cannot be answered must not keep its neighbours from it.
            Err(error) if together.len() > 1 && error.reach() == Reach::Item => {
                for due in together {
                    let alone = self.sign_together(&due, std::slice::from_ref(&due), now).await;
                    steps.push(match alone {
                        Ok(done) => signed(due.certificate, &done, false),
                        Err(error) => Step::Ended(Outcome::Failed(due.certificate.key, error)),
                    });
                }
            }
            Err(error) => {
                let failed = |due: &DueCertificate| Outcome::Failed(due.certificate.key, error.clone());
                steps.extend(together.iter().map(failed).map(Step::Ended));
            }
        }
        steps
    }

    /// Why no answer is due for a certificate at `now`; none if one is.
    fn not_due(&self, certificate: &CertificateRecord, now: UnixTime) -> Option<Outcome> {
        if self.policies.load().of(certificate.issuer).answered_until(certificate.not_after) < now {
            return Some(Outcome::NotDue(certificate.key, None));
        }
        let not_before = certificate.not_before.filter(|not_before| now < *not_before)?;
        Some(Outcome::NotDue(certificate.key, Some(not_before)))
    }

    /// One answer for all of `together`, of which one is `first`.
    async fn sign_together(
        &self,
        first: &DueCertificate,
        together: &[DueCertificate],
        now: UnixTime,
    ) -> Result<SignedDraft, ItemError> {
        let issuer = first.certificate.issuer;
        let policy = *self.policies.load().of(issuer);
        let told: Vec<_> =
            together.iter().map(|due| (due.certificate.serial, due.certificate.status())).collect();
        let draft = |identity: &Identity| identity.draft_pack(&told, &policy, now);
        let order_of = |due| order_for(due, &policy.freshness, now);
        let order = together.iter().map(order_of).min_by_key(|order| order.deadline);
        let order = order.unwrap_or_else(|| order_of(first));
        let order = if self.settings.unhurried { order.unhurried() } else { order };
        let validity = policy.freshness.validity();
        Ok(self.identities.sign(issuer, now, validity, order, draft).await?)
    }
}

/// Portions it out into what is signed together, `most` at a time, as near to the order as may be.
fn groups(due: Vec<DueCertificate>, most: usize) -> VecDeque<Vec<DueCertificate>> {
    let mut groups: VecDeque<Vec<DueCertificate>> = VecDeque::with_capacity(due.len() / most.max(1) + 1);
    if most <= 1 {
        groups.extend(due.into_iter().map(|alone| vec![alone]));
        return groups;
    }
    // The place of the group of each kind that has room.
    let mut open: HashMap<(IssuerId, bool), usize> = HashMap::new();
    for each in due {
        let kind = (each.certificate.issuer, each.certificate.revocation.is_some());
        let place = *open.entry(kind).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(each),
            None => groups.push_back(vec![each]),
        }
        if groups.get(place).is_some_and(|group| group.len() >= most) {
            open.remove(&kind);
        }
    }
    groups
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
    /// Signatures that are asked for and not made yet.
    being_signed: AtomicUsize,
}

impl Run<'_> {
    async fn read(
        &self,
        mut keys: mpsc::Receiver<CertificateKey>,
        to_sign: mpsc::Sender<Vec<DueCertificate>>,
    ) {
        let mut portion = Vec::with_capacity(self.settings.portion);
        while keys.recv_many(&mut portion, self.settings.portion).await > 0 {
            match reading::due(&*self.pipeline.store, &portion).await {
                Ok((found, unreadable)) => {
                    let mut by_key: HashMap<_, _> =
                        found.into_iter().map(|due| (due.certificate.key, due)).collect();
                    for (key, error) in unreadable {
                        portion.retain(|other| *other != key);
                        self.outcomes.tell(Outcome::Failed(key, ItemError::Store(Arc::new(error)))).await;
                    }
                    let mut ordered = Vec::with_capacity(portion.len());
                    for key in portion.drain(..) {
                        match by_key.remove(&key) {
                            Some(due) => ordered.push(due),
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

    async fn sign(&self, mut due: mpsc::Receiver<Vec<DueCertificate>>, to_store: mpsc::Sender<Box<Signed>>) {
        let mut waiting = VecDeque::new();
        let mut open = true;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < self.settings.in_flight
                && let Some(together) = waiting.pop_front()
            {
                under_way.push(self.pipeline.sign(together));
            }
            self.being_signed.store(under_way.len(), Ordering::Relaxed);
            let room = under_way.len() < self.settings.in_flight;
            tokio::select! {
                Some(mut steps) = under_way.next(), if !under_way.is_empty() => loop {
                    for step in steps {
                        match step {
                            Step::Signed(signed) => _ = to_store.send(signed).await,
                            Step::Ended(outcome) => self.outcomes.tell(outcome).await,
                        }
                    }
                    // Signatures come in groups.
                    match under_way.next().now_or_never() {
                        Some(Some(more)) => steps = more,
                        _ => break,
                    }
                },
                more = due.recv(), if open && room => match more {
                    Some(more) => waiting = groups(more, self.pack()),
                    None => open = false,
                },
                else => return,
            }
        }
    }

    /// Certificates under one signature at the most. Only where nobody waits for each answer.
    fn pack(&self) -> usize {
        if self.outcomes.lane == Lane::Refresh { self.pipeline.levers.pack() } else { 1 }
    }

    async fn write(&self, mut signed: mpsc::Receiver<Box<Signed>>) {
        let (patience, while_signing) = self.settings.patience_in(self.outcomes.lane);
        let mut portion = Vec::with_capacity(self.settings.portion);
        while signed.recv_many(&mut portion, self.settings.portion).await > 0 {
            let begun = Instant::now();
            let mut limit = patience;
            while portion.len() < self.settings.portion {
                let room = self.settings.portion - portion.len();
                tokio::select! {
                    more = signed.recv_many(&mut portion, room) => if more == 0 { break },
                    () = tokio::time::sleep_until(begun + limit) => {
                        if limit >= while_signing { break }
                        limit = while_signing;
                    }
                }
                if begun.elapsed() >= patience && self.being_signed.load(Ordering::Relaxed) == 0 {
                    break;
                }
            }
            self.write_portion(portion.drain(..)).await;
        }
    }

    async fn write_portion(&self, portion: impl Iterator<Item = Box<Signed>>) {
        let (certificates, answers): (Vec<_>, Vec<_>) =
            portion.map(|signed| (signed.certificate, signed.answer)).unzip();
        match self.pipeline.store.store_answers(&answers, self.pipeline.clock.now()).await {
            Ok(results) => {
                for ((certificate, answer), result) in certificates.into_iter().zip(answers).zip(results) {
                    self.outcomes.tell(outcome(certificate, answer, result)).await;
                }
            }
            // One that cannot be stored must not keep its neighbours from it.
            Err(error) if answers.len() > 1 && reading::is_of_one_row(&error) => {
                for (certificate, answer) in certificates.into_iter().zip(answers) {
                    let stored = self
                        .pipeline
                        .store
                        .store_answers(std::slice::from_ref(&answer), self.pipeline.clock.now())
                        .await;
                    let outcome = match stored.map(|results| results.first().copied()) {
                        Ok(Some(result)) => outcome(certificate, answer, result),
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

fn outcome(certificate: CertificateRecord, answer: NewAnswer, result: AnswerOutcome) -> Outcome {
    let stored = |pack: Option<InPack>| {
        let NewAnswer { version, responder, this_update, next_update, response_data, signature, .. } = answer;
        let answer =
            StoredAnswer { version, responder, this_update, next_update, response_data, signature, pack };
        Outcome::Stored(Box::new(CertificateState { certificate, answer: Some(answer) }))
    };
    match result {
        AnswerOutcome::Stored => stored(None),
        AnswerOutcome::Packed(pack) => stored(Some(pack)),
        AnswerOutcome::Superseded => Outcome::Superseded(answer.key),
    }
}

fn signed(certificate: CertificateRecord, done: &SignedDraft, packed: bool) -> Step {
    let SignedDraft { identity, draft, signature } = done;
    let answer = NewAnswer {
        key: certificate.key,
        version: certificate.version,
        responder: identity.responder,
        this_update: draft.this_update,
        next_update: draft.next_update,
        response_data: draft.response_data.clone(),
        signature: signature.clone(),
        packed,
    };
    Step::Signed(Box::new(Signed { certificate, answer }))
}
