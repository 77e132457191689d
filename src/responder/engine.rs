//! From request to answer: filter, shelf, live signing, error.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rasn::types::OctetString;
use sha2::Digest;

use super::early::{EarlyReader, Read};
use super::issuers::IssuerDirectory;
use super::live::LiveSigner;
use super::stale::StaleAlarm;
use super::{Answer, CacheFacts, NoncePolicy, Outcome, Respond, UnknownSerial};
use crate::clock::{SharedClock, UnixTime};
use crate::ocsp::cert_id::CertIdError;
use crate::ocsp::request::Nonce;
use crate::ocsp::{CertId, CertStatus, ErrorStatus, Request, SignatureAlgorithm, response};
use crate::presign::Policies;
use crate::presign::identity::Asked;
use crate::presign::keeper::KeeperStats;
use crate::shelf::{Shelf, Slot};
use crate::store::IssuerId;

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is said of a serial number that is on no record.
    pub unknown_serial: UnknownSerial,
    /// What is done with a nonce.
    pub nonce: NoncePolicy,
}

/// When the store's changes have not been read for so long, statuses are no longer known to be correct:
/// nothing is signed on the spot, nor is anything said of what is not on the shelf (C3).
pub const UNHEARD: Duration = Duration::from_secs(15);

/// Answers requests from the shelf, and live where it has to.
#[derive(Debug)]
pub struct Responder {
    directory: ArcSwap<IssuerDirectory>,
    shelf: Arc<Shelf>,
    live: LiveSigner,
    clock: SharedClock,
    policies: Arc<ArcSwap<Policies>>,
    news: Arc<KeeperStats>,
    settings: ArcSwap<Settings>,
    early: Option<EarlyReader>,
    stale: StaleAlarm,
}

/// Why there is no slot to answer from.
enum Absent {
    /// It is on record, but expired or not yet valid: there is no authoritative answer (L7, C17),
    /// and it must not be taken for one that was never issued.
    NotInForce,
    /// Its issuer is ours, the serial number is on no record.
    NoRecord,
    /// The shelf is still being filled, or changes of it are not heard of, so nothing can be said of what
    /// is not there.
    NotYet,
}

/// What becomes of a question about one certificate.
enum Conclusion {
    /// The answer.
    Said(Answer),
    /// It is to be signed; `stored` is given where it cannot be.
    ToSign { asked: Asked, stored: Option<Answer> },
}

impl Responder {
    /// Answers for the issuers in `directory` from `shelf`, which whoever keeps `news` keeps up to date.
    #[must_use]
    pub fn new(
        directory: IssuerDirectory,
        shelf: Arc<Shelf>,
        live: LiveSigner,
        clock: SharedClock,
        policies: Arc<ArcSwap<Policies>>,
        news: Arc<KeeperStats>,
        settings: Settings,
    ) -> Self {
        Self {
            directory: ArcSwap::from_pointee(directory),
            shelf,
            live,
            clock,
            policies,
            news,
            settings: ArcSwap::from_pointee(settings),
            early: None,
            stale: StaleAlarm::default(),
        }
    }

    /// Reads what is not on the shelf from the store for as long as the shelf is not complete.
    #[must_use]
    pub fn reading_early(self, reader: EarlyReader) -> Self {
        Self { early: Some(reader), ..self }
    }

    /// Live signatures asked of a token since the start.
    #[must_use]
    pub fn live_signatures(&self) -> u64 {
        self.live.signatures()
    }

    /// Answers for other issuers from now on.
    pub fn replace_issuers(&self, directory: IssuerDirectory) {
        self.directory.store(Arc::new(directory));
    }

    /// Answers by other settings from now on.
    pub fn replace_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    fn find(&self, issuer: IssuerId, cert_id: &CertId, now: UnixTime) -> Result<Slot, Absent> {
        match self.shelf.get(issuer, &cert_id.serial) {
            Some(slot) if slot.is_in_force_at(now) => Ok(slot),
            Some(_) => Err(Absent::NotInForce),
            None if self.shelf.is_complete() && self.is_up_to_date(now) => Err(Absent::NoRecord),
            None => Err(Absent::NotYet),
        }
    }

    /// As [`Self::find`], with a look into the store while the shelf is being filled.
    async fn find_early(&self, issuer: IssuerId, cert_id: &CertId, now: UnixTime) -> Result<Slot, Absent> {
        let Some(reader) = self.early.as_ref().filter(|_| !self.shelf.is_complete()) else {
            return Err(Absent::NotYet);
        };
        match reader.read(issuer, cert_id.serial).await {
            Some(Read::Shelved) => self.find(issuer, cert_id, now),
            Some(Read::NoRecord) => Err(Absent::NoRecord),
            None => Err(Absent::NotYet),
        }
    }

    /// Whether a change of status would be known by now.
    fn is_up_to_date(&self, now: UnixTime) -> bool {
        now.since(UnixTime(self.news.feed_read_at.load(Ordering::Relaxed))) < UNHEARD
    }

    /// The stored answer, if it is one to this question and has not expired. A clock that was set
    /// back makes answers from the future; they wait too.
    fn stored(&self, issuer: IssuerId, slot: &Slot, cert_id: &CertId, now: UnixTime) -> Option<Answer> {
        let answer = slot.answer.as_ref()?;
        if answer.this_update > now || answer.next_update < now || !answer.has_hash(cert_id.hash) {
            return None;
        }
        let body = answer.body();
        let freshness = self.policies.load().of(issuer).freshness;
        let longest_age = freshness.preset().longest_age();
        // Nothing is stale that is not due.
        let is_stale =
            now > answer.renewed_at && now > freshness.stale_at(answer.this_update, answer.next_update);
        if is_stale {
            self.stale.warn(issuer, answer.this_update, now);
        }
        Some(Answer {
            cache: Some(CacheFacts {
                this_update: answer.this_update,
                next_update: answer.next_update,
                renewed_at: longest_age.map_or(answer.renewed_at, |age| answer.renewed_at.min(now.plus(age))),
                digest: sha2::Sha256::digest(&body).into(),
            }),
            body: body.into(),
            outcome: Outcome::Stored,
            is_stale,
        })
    }

    /// The nonce to echo, where nonces are on.
    fn echo(&self, nonce: &Nonce) -> Option<OctetString> {
        match nonce {
            Nonce::Given(nonce) if self.settings.load().nonce == NoncePolicy::Echo => Some(nonce.clone()),
            _ => None,
        }
    }

    /// What is said of a serial number that is on no record; none for the error unauthorized.
    fn no_record(&self) -> Option<CertStatus> {
        match self.settings.load().unknown_serial {
            UnknownSerial::Unauthorized => None,
            UnknownSerial::Unknown => Some(CertStatus::Unknown),
            UnknownSerial::Revoked => Some(CertStatus::NEVER_ISSUED),
        }
    }

    /// The algorithm to sign with on the spot because the client prefers it to that of the stored answer;
    /// none where the stored answer will do (C26).
    fn wish(
        &self,
        issuer: IssuerId,
        preferred: &[SignatureAlgorithm],
        stored: Option<&Answer>,
        now: UnixTime,
    ) -> Option<SignatureAlgorithm> {
        if preferred.is_empty() {
            return None;
        }
        let has = stored.and_then(|answer| response::signature_algorithm(&answer.body));
        if has.is_some_and(|has| preferred.contains(&has)) {
            return None;
        }
        self.live.offered(issuer, preferred, now)
    }

    /// Answers a request that reads as one.
    pub(super) async fn answer(&self, request: &Request) -> Answer {
        let directory = self.directory.load();
        let [asked] = &request.cert_ids[..] else {
            return self.several(&directory, request).await;
        };
        match named(&directory, asked) {
            Some((issuer, cert_id)) => self.single(issuer, cert_id, request).await,
            // An unknown hash or another CA's certificate: no authority to answer (C4, C7).
            None => error(ErrorStatus::Unauthorized),
        }
    }

    async fn single(&self, issuer: IssuerId, cert_id: &CertId, request: &Request) -> Answer {
        let now = self.clock.now();
        let mut found = self.find(issuer, cert_id, now);
        if let Err(Absent::NotYet) = found {
            found = self.find_early(issuer, cert_id, now).await;
        }
        match self.conclude(issuer, cert_id, request, found, now) {
            Conclusion::Said(answer) => answer,
            // Without room for a live answer, the best stored one is given (L3).
            Conclusion::ToSign { asked, stored } => self
                .signed_live(issuer, asked, now)
                .await
                .unwrap_or_else(|status| stored.unwrap_or_else(|| error(status))),
        }
    }

    /// As [`Self::answer`] for one certificate, where nothing has to be waited for.
    fn answer_at_once(&self, request: &Request) -> Option<Answer> {
        let [asked] = &request.cert_ids[..] else { return None };
        let directory = self.directory.load();
        let Some((issuer, cert_id)) = named(&directory, asked) else {
            return Some(error(ErrorStatus::Unauthorized));
        };
        let now = self.clock.now();
        let found = self.find(issuer, cert_id, now);
        if matches!(found, Err(Absent::NotYet)) && self.early.is_some() && !self.shelf.is_complete() {
            return None;
        }
        match self.conclude(issuer, cert_id, request, found, now) {
            Conclusion::Said(answer) => Some(answer),
            Conclusion::ToSign { .. } => None,
        }
    }

    /// What is said of a certificate, or what has to be signed for it.
    fn conclude(
        &self,
        issuer: IssuerId,
        cert_id: &CertId,
        request: &Request,
        found: Result<Slot, Absent>,
        now: UnixTime,
    ) -> Conclusion {
        let (status, stored) = match found {
            Err(Absent::NotYet) => return Conclusion::Said(error(ErrorStatus::TryLater)),
            Err(Absent::NotInForce) => return Conclusion::Said(error(ErrorStatus::Unauthorized)),
            Ok(slot) => (slot.status(), self.stored(issuer, &slot, cert_id, now)),
            Err(Absent::NoRecord) => match self.no_record() {
                Some(status) => (status, None),
                None => return Conclusion::Said(error(ErrorStatus::Unauthorized)),
            },
        };
        let nonce = self.echo(&request.nonce);
        let wish = self.wish(issuer, &request.preferred, stored.as_ref(), now);
        match stored {
            Some(answer) if nonce.is_none() && wish.is_none() => Conclusion::Said(answer),
            stored => {
                let never_issued = status == CertStatus::NEVER_ISSUED;
                let asked = Asked::new(vec![(cert_id.clone(), status)], nonce, never_issued);
                Conclusion::ToSign { asked: asked.signed_with(wish), stored }
            }
        }
    }

    /// Several certificates are answered under one signature, all of one issuer: no responder may
    /// sign for another's (C11).
    async fn several(&self, directory: &IssuerDirectory, request: &Request) -> Answer {
        let now = self.clock.now();
        let mut of = None;
        let mut statuses = Vec::with_capacity(request.cert_ids.len());
        for cert_id in &request.cert_ids {
            let Some((issuer, cert_id)) = named(directory, cert_id) else {
                return error(ErrorStatus::Unauthorized);
            };
            if *of.get_or_insert(issuer) != issuer {
                return error(ErrorStatus::Unauthorized);
            }
            let mut found = self.find(issuer, cert_id, now);
            if let Err(Absent::NotYet) = found {
                found = self.find_early(issuer, cert_id, now).await;
            }
            let status = match found {
                Ok(slot) => slot.status(),
                Err(Absent::NotYet) => return error(ErrorStatus::TryLater),
                Err(Absent::NotInForce) => return error(ErrorStatus::Unauthorized),
                Err(Absent::NoRecord) => match self.no_record() {
                    Some(status) => status,
                    None => return error(ErrorStatus::Unauthorized),
                },
            };
            statuses.push((cert_id.clone(), status));
        }
        let Some(issuer) = of else { return error(ErrorStatus::MalformedRequest) };
        let never_issued = statuses.iter().any(|(_, status)| *status == CertStatus::NEVER_ISSUED);
        let wish = self.wish(issuer, &request.preferred, None, now);
        let asked = Asked::new(statuses, self.echo(&request.nonce), never_issued).signed_with(wish);
        self.signed_live(issuer, asked, now).await.unwrap_or_else(error)
    }

    /// Signs on the spot; else the error that says why not: tryLater for what passes, internalError for
    /// what does not (C3).
    async fn signed_live(
        &self,
        issuer: IssuerId,
        asked: Asked,
        now: UnixTime,
    ) -> Result<Answer, ErrorStatus> {
        if !self.is_up_to_date(now) {
            return Err(ErrorStatus::TryLater);
        }
        self.live.answer(issuer, asked).await.map_err(|failure| {
            tracing::debug!(%issuer, %failure, "no live answer");
            if failure.is_lasting() { ErrorStatus::InternalError } else { ErrorStatus::TryLater }
        })
    }
}

/// The issuer of ours that a CertID names.
fn named<'c>(
    directory: &IssuerDirectory,
    cert_id: &'c Result<CertId, CertIdError>,
) -> Option<(IssuerId, &'c CertId)> {
    let cert_id = cert_id.as_ref().ok()?;
    directory.find(cert_id).map(|(issuer, _)| (issuer, cert_id))
}

fn error(status: ErrorStatus) -> Answer {
    let outcome = match status {
        ErrorStatus::MalformedRequest => Outcome::Malformed,
        ErrorStatus::InternalError => Outcome::InternalError,
        ErrorStatus::TryLater => Outcome::TryLater,
        ErrorStatus::SigRequired => Outcome::SigRequired,
        ErrorStatus::Unauthorized => Outcome::Unauthorized,
    };
    Answer { body: Bytes::from_static(status.der()), cache: None, outcome, is_stale: false }
}

fn decode(request: &[u8]) -> Result<Request, Answer> {
    Request::decode(request).map_err(|failure| {
        tracing::debug!(%failure, "malformed request");
        error(ErrorStatus::MalformedRequest)
    })
}

impl Respond for Responder {
    async fn respond(&self, request: &[u8]) -> Answer {
        match decode(request) {
            Ok(request) => self.answer(&request).await,
            Err(refusal) => refusal,
        }
    }

    fn respond_at_once(&self, request: &[u8]) -> Option<Answer> {
        match decode(request) {
            Ok(request) => self.answer_at_once(&request),
            Err(refusal) => Some(refusal),
        }
    }
}
