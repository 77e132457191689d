//! CRLs (RFC 5280 section 5): which certificates an issuer has revoked.

use std::path::Path;

use serde::Serialize;

use super::index_txt::asn1_time;
use super::pem::{Blocks, PemError};
use super::{ImportError, Listed, OnProgress, Problem, Progress, shown, still_to_come};
use crate::clock::UnixTime;
use crate::ocsp::tlv::{self, Reader, Tlv};
use crate::ocsp::{CrlReason, Issuer, Revocation, Serial};
use crate::store::{IssuerId, StatusChange, Store};

/// Entries revoked in one transaction.
const PORTION: usize = 8_192;

/// The largest CRL that is read: it is verified in one piece, so it is held in memory.
const OCTETS_MAX: usize = 512 * 1024 * 1024;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const BOOLEAN: u8 = 0x01;
/// id-ce-cRLReasons, id-ce-certificateIssuer and id-ce-deltaCRLIndicator.
const REASON_CODE: &[u8] = &[0x55, 0x1d, 0x15];
const CERTIFICATE_ISSUER: &[u8] = &[0x55, 0x1d, 0x1d];
const DELTA_CRL_INDICATOR: &[u8] = &[0x55, 0x1d, 0x1b];

/// Why a CRL is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// No PEM block of a CRL in it.
    #[error("neither DER nor a PEM file with an X509 CRL in it")]
    NotFound,
    /// The PEM block cannot be read.
    #[error("line {line}: {source}")]
    Pem {
        /// Where it begins.
        line: u64,
        /// Why.
        source: PemError,
    },
    /// More than `OCTETS_MAX`.
    #[error("larger than {OCTETS_MAX} octets")]
    TooLarge,
    /// Not the structure of a CRL.
    #[error("not a CRL: the {0} is missing or not DER")]
    NotCrl(&'static str),
    /// Another CA's.
    #[error("another issuer's CRL: its issuer field is not the subject of {0:?}")]
    OtherIssuer(String),
    /// Its signature does not verify.
    #[error(
        "its signature does not verify with the key of {0:?}: it was altered, or it comes from another key of that name"
    )]
    BadSignature(String),
    /// Its signature cannot be verified.
    #[error(
        "its signature algorithm cannot be verified here, so it is not trusted: have the CA sign it with SHA-256 or better"
    )]
    Unverifiable,
}

/// What an import of a CRL came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// thisUpdate, in RFC 3339.
    pub this_update: String,
    /// nextUpdate, in RFC 3339.
    pub next_update: Option<String>,
    /// Whether it is a delta CRL.
    pub delta: bool,
    /// Entries in it, good or bad.
    pub entries: u64,
    /// Certificates that were revoked by it, or moved from a hold to a revocation for good.
    pub changed: u64,
    /// Certificates that were revoked just so.
    pub unchanged: u64,
    /// Serials that the store does not have: import the certificates first.
    pub unknown: Listed<String>,
    /// Serials with the reason removeFromCRL: their hold has ended, take it back with `unhold`.
    pub removed: Listed<String>,
    /// Entries that were not taken, and certificates that are revoked otherwise.
    pub problems: Listed<Problem>,
    /// Serial numbers that it puts on hold.
    pub holds: Listed<String>,
    /// What the operator should know of the CRL itself.
    pub warnings: Vec<String>,
}

/// A CRL in DER.
#[derive(Clone, Debug)]
pub struct Crl<'a> {
    tbs: Tlv<'a>,
    signature_algorithm: &'a [u8],
    signature: &'a [u8],
    issuer: &'a [u8],
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    entries: Reader<'a>,
    delta: bool,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The certificate.
    pub serial: Serial,
    /// What the CRL says of it; with the reason removeFromCRL its hold has ended.
    pub revocation: Revocation,
    /// Whether it was issued by the CRL's own issuer (otherwise it is an indirect CRL's).
    pub own: bool,
}

impl<'a> Crl<'a> {
    /// Reads the frame; entries are read as they are asked for.
    ///
    /// # Errors
    /// [`CrlError::NotCrl`].
    pub fn from_der(der: &'a [u8]) -> Result<Self, CrlError> {
        let missing = CrlError::NotCrl;
        let mut outer = Reader::new(tlv::only(der, tlv::SEQUENCE).ok_or(missing("CertificateList"))?);
        let tbs = outer.expect(tlv::SEQUENCE).ok_or(missing("TBSCertList"))?;
        let algorithm = outer.expect(tlv::SEQUENCE).ok_or(missing("signature algorithm"))?;
        let signature = outer
            .expect(tlv::BIT_STRING)
            .and_then(|bits| tlv::whole_octets(bits.content))
            .filter(|_| outer.is_empty())
            .ok_or(missing("signature"))?;
        let mut fields = Reader::new(tbs.content);
        fields.expect(tlv::INTEGER);
        let inner = fields.expect(tlv::SEQUENCE).ok_or(missing("signature field"))?;
        if inner.whole != algorithm.whole {
            return Err(missing("signature field that equals the signature algorithm"));
        }
        let issuer = fields.expect(tlv::SEQUENCE).ok_or(missing("issuer"))?;
        let this_update = time(&mut fields).ok_or(missing("thisUpdate"))?;
        let next_update = time(&mut fields);
        let entries = fields.expect(tlv::SEQUENCE).map_or(&[][..], |list| list.content);
        let extensions = fields.expect(tlv::context(0)).map(|wrapped| wrapped.content);
        if !fields.is_empty() {
            return Err(missing("end of TBSCertList"));
        }
        let delta = extensions
            .and_then(|wrapped| tlv::only(wrapped, tlv::SEQUENCE))
            .is_some_and(|list| self::extensions(list).any(|(oid, _)| oid == DELTA_CRL_INDICATOR));
        Ok(Self {
            tbs,
            signature_algorithm: algorithm.whole,
            signature,
            issuer: issuer.whole,
            this_update,
            next_update,
            entries: Reader::new(entries),
            delta,
        })
    }

    /// Checks that `issuer` made it: by name, octet for octet, and by signature.
    ///
    /// # Errors
    /// Why it is not to be used for that issuer.
    pub fn verify(&self, issuer: &Issuer) -> Result<(), CrlError> {
        let name = || issuer.certificate().subject();
        if self.issuer != issuer.certificate().subject_name() {
            return Err(CrlError::OtherIssuer(name()));
        }
        match issuer.has_signed(self.signature_algorithm, self.tbs.whole, self.signature) {
            Some(true) => Ok(()),
            Some(false) => Err(CrlError::BadSignature(name())),
            None => Err(CrlError::Unverifiable),
        }
    }

    /// The entries, each with why it cannot be read.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries { crl: self, rest: self.entries.clone(), own: true, octets: 0 }
    }

    fn entry(&self, entry: Tlv<'_>, own: &mut bool) -> Result<Entry, &'static str> {
        let mut fields = Reader::new(entry.content);
        let serial = fields.expect(tlv::INTEGER).ok_or("it has no serial number")?;
        let serial = Serial::from_der_content(serial.content)
            .map_err(|_| "its serial number is empty or longer than 20 octets")?;
        let time = time(&mut fields).ok_or("it has no revocation date")?;
        let mut reason = None;
        let list = fields.expect(tlv::SEQUENCE).map_or(&[][..], |list| list.content);
        for (oid, value) in extensions(list) {
            if oid == REASON_CODE {
                let code = tlv::only(value, tlv::ENUMERATED);
                let code = code.filter(|code| code.len() == 1).and_then(|code| CrlReason::from_code(code[0]));
                reason = Some(code.ok_or("its reason code is not one of RFC 5280")?);
            } else if oid == CERTIFICATE_ISSUER {
                // GeneralNames with one directoryName [4].
                let name =
                    tlv::only(value, tlv::SEQUENCE).and_then(|names| tlv::only(names, tlv::context(4)));
                *own = name == Some(self.issuer);
            }
        }
        let reason = reason.filter(|reason| *reason != CrlReason::Unspecified);
        Ok(Entry { serial, revocation: Revocation { time, reason }, own: *own })
    }
}

/// The entries of a CRL, one after the other.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    crl: &'a Crl<'a>,
    rest: Reader<'a>,
    /// Whether the entries are the CRL issuer's own: an indirect CRL names the issuer of an entry,
    /// and of those after it, by an extension.
    own: bool,
    octets: u64,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(entry) = self.rest.next() else {
            self.rest = Reader::new(&[]);
            return Some(Err("it is not DER, and nothing after it can be read"));
        };
        self.octets += entry.whole.len() as u64;
        Some(self.crl.entry(entry, &mut self.own))
    }
}

/// UTCTime or GeneralizedTime.
fn time(fields: &mut Reader<'_>) -> Option<UnixTime> {
    let utc = fields.expect(UTC_TIME).filter(|time| time.content.len() == 13);
    let time = utc.or_else(|| fields.expect(GENERALIZED_TIME).filter(|time| time.content.len() == 15))?;
    asn1_time(time.content)
}

/// OID and value of each extension in a list.
fn extensions(list: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    Reader::new(list).filter_map(|extension| {
        let mut fields = Reader::new(extension.content);
        let oid = fields.expect(tlv::OBJECT_IDENTIFIER)?.content;
        fields.expect(BOOLEAN);
        Some((oid, fields.expect(tlv::OCTET_STRING)?.content))
    })
}

/// The DER in a file that is DER, or PEM with a CRL in it (the first).
///
/// # Errors
/// [`CrlError::NotFound`], [`CrlError::Pem`].
pub fn der_of(file: Vec<u8>) -> Result<Vec<u8>, CrlError> {
    if file.first() == Some(&tlv::SEQUENCE) {
        return Ok(file);
    }
    let mut blocks = Blocks::new(file.as_slice(), OCTETS_MAX);
    // Reading from memory does not fail.
    while let Ok(Some(block)) = blocks.next_block() {
        if matches!(block.label.as_str(), "X509 CRL" | "CRL") {
            return block.content.map_err(|source| CrlError::Pem { line: block.line, source });
        }
    }
    Err(CrlError::NotFound)
}

/// Imports the CRL at `path`, in DER or PEM, of the issuer that is `id` in the store.
///
/// # Errors
/// [`ImportError::Read`], [`ImportError::Crl`] when it is not this issuer's CRL, and
/// [`ImportError::Store`]; the portions before are in the store then, and repeating the import goes
/// on from there.
pub async fn import(
    store: &dyn Store,
    id: IssuerId,
    issuer: &Issuer,
    path: &Path,
    now: UnixTime,
    progress: OnProgress<'_>,
) -> Result<Report, ImportError> {
    let refused = |source| ImportError::Crl { path: path.to_owned(), source };
    let length = tokio::fs::metadata(path).await.map_err(ImportError::read(path))?.len();
    if length > OCTETS_MAX as u64 / 3 * 4 {
        return Err(refused(CrlError::TooLarge));
    }
    let file = tokio::fs::read(path).await.map_err(ImportError::read(path))?;
    let der = der_of(file).map_err(refused)?;
    let crl = Crl::from_der(&der).map_err(refused)?;
    crl.verify(issuer).map_err(refused)?;

    let mut report = begin(&crl, now);
    let mut portion = Vec::with_capacity(PORTION);
    let total = der.len() as u64;
    let mut entries = crl.entries();
    loop {
        let entry = entries.next();
        if let Some(entry) = &entry {
            sort(&mut report, &mut portion, entry, now);
        }
        if portion.len() >= PORTION || (entry.is_none() && !portion.is_empty()) {
            tally(&mut report, &portion, store.revoke(id, &portion).await?);
            portion.clear();
            progress(Progress { rows: report.entries, octets: entries.octets, total });
        }
        if entry.is_none() {
            return Ok(report);
        }
    }
}

/// A report with what the CRL says of itself.
fn begin(crl: &Crl<'_>, now: UnixTime) -> Report {
    let mut report = Report {
        this_update: crl.this_update.to_string(),
        next_update: crl.next_update.map(|time| time.to_string()),
        delta: crl.delta,
        ..Report::default()
    };
    match crl.next_update {
        Some(next) if next < now => report.warnings.push(format!(
            "nextUpdate was {next}: a newer CRL has been issued since, and it may hold more revocations"
        )),
        Some(_) => {}
        None => {
            report.warnings.push("it has no nextUpdate, which RFC 5280 section 5.1.2.5 asks for".to_owned())
        }
    }
    if crl.this_update > now {
        report.warnings.push(format!("thisUpdate is {}, which is still to come", crl.this_update));
    }
    report
}

/// Puts an entry where it belongs: to be revoked, or on a list.
fn sort(
    report: &mut Report,
    portion: &mut Vec<(Serial, Revocation)>,
    entry: &Result<Entry, &'static str>,
    now: UnixTime,
) {
    report.entries += 1;
    let number = report.entries;
    match entry {
        Err(why) => {
            report.problems.push(|| Problem { place: format!("entry {number}"), reason: (*why).to_owned() })
        }
        Ok(entry) if !entry.own => report.problems.push(|| Problem {
            place: format!("entry {number}, serial {}", entry.serial),
            reason: "another issuer's certificate (an indirect CRL)".to_owned(),
        }),
        Ok(entry) if entry.revocation.reason == Some(CrlReason::RemoveFromCrl) => {
            report.removed.push(|| entry.serial.to_string());
        }
        Ok(entry) => match still_to_come(&entry.revocation, now) {
            Some(reason) => report
                .problems
                .push(|| Problem { place: format!("entry {number}, serial {}", entry.serial), reason }),
            None => {
                if entry.revocation.reason == Some(CrlReason::CertificateHold) {
                    report.holds.push(|| entry.serial.to_string());
                }
                portion.push((entry.serial, entry.revocation));
            }
        },
    }
}

fn tally(report: &mut Report, portion: &[(Serial, Revocation)], outcomes: Vec<StatusChange>) {
    let said = |revocation: Revocation| match revocation.reason {
        Some(reason) => format!("{} ({reason})", revocation.time),
        None => revocation.time.to_string(),
    };
    for ((serial, asked), outcome) in portion.iter().zip(outcomes) {
        match outcome {
            StatusChange::Changed(_) => report.changed += 1,
            StatusChange::Unchanged(_) => report.unchanged += 1,
            StatusChange::NotFound => report.unknown.push(|| serial.to_string()),
            StatusChange::Refused(present) => report.problems.push(|| Problem {
                place: format!("serial {serial}"),
                reason: format!(
                    "revoked at {} by the CRL, and at {} in the store, which keeps what it has",
                    said(*asked),
                    present.revocation.map_or_else(|| shown(b"never"), said),
                ),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
