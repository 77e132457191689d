//! Asks an OCSP responder, any one, and holds what a client can see to the conformance checklist.

mod answers;
mod book;
mod client;
mod contents;
mod requests;
mod rules;
mod transport;

use serde::Serialize;

use self::book::Book;
pub use self::book::{Finding, Line, Verdict};
use self::client::{Ask, Reply, Target};
use crate::clock::{Clock, UnixTime};
use crate::ocsp::response::ResponseError;
use crate::ocsp::{CertId, CertStatus, Certificate, Issuer, Preset, Received};

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The status that the answers agree on: `good`, `revoked`, `unknown`, or none.
    pub status: Option<&'static str>,
    /// Revocation time, in RFC 3339.
    pub revoked_at: Option<String>,
    /// Revocation reason.
    pub reason: Option<&'static str>,
    /// Every line, in the order of the checklist's subjects.
    pub lines: Vec<Line>,
}

impl Report {
    /// Whether the responder answered and no line failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.lines.iter().all(|line| line.verdict != Verdict::Failed)
    }
}

/// Checks the responder at `url` with questions about `certificate` of `issuer`; `preset` says by
/// whose policy the responder is held. About fifty requests are sent, one after the other.
///
/// # Errors
/// Text for a URL that cannot be asked. A responder that does not answer is a failed line.
pub async fn check(
    url: &str,
    issuer: &Issuer,
    certificate: &Certificate,
    preset: Preset,
    clock: &dyn Clock,
) -> Result<Report, String> {
    let target = Target::parse(url)?;
    let mut check = Check { target, issuer, certificate, preset, clock, book: Book::default(), status: None };
    if check.first_answers().await {
        check.certificates_and_issuers().await;
        check.requests().await;
        check.nonces().await;
        check.paths().await;
        check.http().await;
        check.malformed().await;
    }
    let revocation = match check.status {
        Some(CertStatus::Revoked(revocation)) => Some(revocation),
        _ => None,
    };
    Ok(Report {
        status: check.status.as_ref().map(CertStatus::name),
        revoked_at: revocation.map(|revocation| revocation.time.to_string()),
        reason: revocation.and_then(|revocation| revocation.reason).map(crate::ocsp::CrlReason::name),
        lines: check.book.into_lines(),
    })
}

/// A check under way.
struct Check<'c> {
    target: Target,
    issuer: &'c Issuer,
    certificate: &'c Certificate,
    preset: Preset,
    clock: &'c dyn Clock,
    book: Book,
    /// What the first answers said of the certificate.
    status: Option<CertStatus>,
}

/// What came back.
enum Seen {
    /// A successful response.
    Answer(Box<Received>),
    /// An OCSP error, by its name in RFC 6960.
    Error(&'static str),
    /// Something else: no connection, another HTTP status, no OCSPResponse.
    Broken(String),
}

impl Seen {
    fn read(reply: &Result<Reply, String>) -> Self {
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Self::Broken(error.clone()),
        };
        match Received::decode(&reply.body) {
            _ if reply.head.status != 200 => Self::Broken(format!("HTTP {}", reply.head.status)),
            Ok(received) => Self::Answer(Box::new(received)),
            Err(ResponseError::Status(status)) => Self::Error(status),
            Err(error) => Self::Broken(error.to_string()),
        }
    }

    /// In a word.
    fn told(&self) -> String {
        match self {
            Self::Answer(_) => "an answer".to_owned(),
            Self::Error(status) => (*status).to_owned(),
            Self::Broken(error) => error.clone(),
        }
    }
}

impl Check<'_> {
    async fn ask(&self, ask: Ask) -> Seen {
        Seen::read(&self.target.ask(ask).await)
    }

    fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Whether an answer says of `cert_id` what the first answers said, under a signature that
    /// verifies.
    fn agrees(&self, seen: &Seen, cert_id: &CertId) -> Result<String, String> {
        let Seen::Answer(received) = seen else { return Err(seen.told()) };
        let single = received.single(cert_id).ok_or("the CertID asked for is not answered")?;
        if self.status != Some(single.status) {
            return Err(format!("{}, unlike the first answers", single.status.name()));
        }
        let signer = received.signer(self.issuer).ok_or("no certificate has the responderID")?;
        received.verify(&signer).map_err(|error| error.to_string())?;
        Ok(single.status.name().to_owned())
    }
}
