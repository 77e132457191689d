//! Certificates in PEM and DER: files, bundles and folders of them.
//!
//! Whose a certificate is, is told by the issuer's name, octet for octet, and by its signature, so
//! that two CAs of one name are kept apart. A signature that cannot be verified here (SHA-1, an
//! unusual curve) is replaced by the key identifiers: the certificate's authority key identifier
//! must be the issuer's subject key identifier.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::{self, Found};
use super::pem::Blocks;
use super::{ImportError, Listed, OnProgress, Outcome, Problem, Progress};
use crate::clock::UnixTime;
use crate::limits::{KnownCertificate, Limiter};
use crate::ocsp::{Certificate, Issuer, tlv};
use crate::store::{CertificateEntry, IssuerId, IssuerRecord, Store};

/// The largest certificate that is read.
const OCTETS_MAX: usize = 1024 * 1024;

/// Certificates in one portion; each costs a verified signature.
const PORTION: usize = 4_096;

/// An issuer that certificates are imported for.
#[derive(Clone, Debug)]
pub struct KnownIssuer {
    /// Its number in the store.
    pub id: IssuerId,
    /// The operator's name for it.
    pub name: String,
    /// Its certificate.
    pub issuer: Issuer,
}

impl KnownIssuer {
    /// Reads the certificates of the store's issuers.
    ///
    /// # Errors
    /// [`ImportError::Issuer`] for one that cannot be read.
    pub fn of(records: &[IssuerRecord]) -> Result<Vec<Self>, ImportError> {
        let read = |record: &IssuerRecord| {
            let issuer = Issuer::from_der(&record.certificate)
                .map_err(|source| ImportError::Issuer { name: record.name.clone(), source })?;
            Ok(Self { id: record.id, name: record.name.clone(), issuer })
        };
        records.iter().map(read).collect()
    }

    /// Whether this issuer issued `certificate`; see the module for the rule.
    #[must_use]
    pub fn has_issued(&self, certificate: &Certificate) -> bool {
        if certificate.issuer_name() != self.issuer.certificate().subject_name() {
            return false;
        }
        let verified = self.issuer.has_signed(
            certificate.signature_algorithm(),
            certificate.tbs(),
            certificate.signature(),
        );
        verified.unwrap_or_else(|| {
            let authority = certificate.authority_key_identifier();
            authority.is_some() && authority == self.issuer.certificate().subject_key_identifier()
        })
    }
}

/// A certificate that none of the known issuers issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// The file, and the line in a PEM file.
    pub place: String,
    /// Its subject, in RFC 4514 form.
    pub subject: String,
    /// Its issuer, in RFC 4514 form.
    pub issuer: String,
    /// Its serial number.
    pub serial: String,
}

/// What an import of certificates came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files that held certificates or should have.
    pub files: u64,
    /// Files met in folders that hold something else.
    pub other_files: u64,
    /// Certificates that were read.
    pub certificates: u64,
    /// PEM blocks that are no certificates: keys, requests, CRLs.
    pub other_blocks: u64,
    /// What became of those of known issuers.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Those that the limiter knows now and did not before, so that their renewals pass as such.
    pub remembered: u64,
    /// Those of no known issuer: add the issuer, then repeat the import.
    pub foreign: Listed<Foreign>,
    /// Files and certificates that cannot be read.
    pub problems: Listed<Problem>,
}

/// What was read since the portion before.
#[derive(Debug, Default)]
struct Portion {
    entries: BTreeMap<IssuerId, Vec<CertificateEntry>>,
    named: Vec<KnownCertificate>,
    found: Report,
    octets: u64,
    total: u64,
}

/// Imports every certificate at or below `paths` that one of `issuers` issued. With a limiter, it takes
/// note of those whose names could be ordered, as of `now`.
///
/// # Errors
/// [`ImportError::Store`], [`ImportError::Limits`]; the portions before are in the store, and repeating the import goes on
/// from there. Files that cannot be read are in the report.
pub async fn import(
    store: &dyn Store,
    limiter: Option<(&Limiter, UnixTime)>,
    issuers: Vec<KnownIssuer>,
    paths: Vec<PathBuf>,
    progress: OnProgress<'_>,
) -> Result<Report, ImportError> {
    let first = paths.first().cloned().unwrap_or_default();
    let now = limiter.map(|(_, now)| now);
    let (mut portions, thread) = super::read_ahead(move |take| {
        Sorter { issuers: &issuers, now, portion: Portion::default(), pending: 0, take }.read(&paths);
        Ok(())
    });
    let mut report = Report::default();
    let mut done = Progress::default();
    while let Some(portion) = portions.recv().await {
        for (issuer, entries) in portion.entries {
            report.outcome += store.register(issuer, &entries).await?;
        }
        if let Some((limiter, now)) = limiter {
            report.remembered += limiter.remember_all(portion.named, now).await?;
        }
        let found = portion.found;
        report.files += found.files;
        report.other_files += found.other_files;
        report.certificates += found.certificates;
        report.other_blocks += found.other_blocks;
        report.foreign.append(found.foreign);
        report.problems.append(found.problems);
        done = Progress {
            rows: report.certificates,
            octets: done.octets + portion.octets,
            total: portion.total,
        };
        progress(done);
    }
    super::finished(thread, &first).await?;
    Ok(report)
}

/// Reads files and sorts what is in them into portions.
struct Sorter<'a> {
    issuers: &'a [KnownIssuer],
    /// The time, where names are read for the limiter.
    now: Option<UnixTime>,
    portion: Portion,
    /// Certificates in the portion.
    pending: usize,
    take: &'a mut dyn FnMut(Portion) -> bool,
}

/// Nobody wants more portions.
struct Stopped;

impl Sorter<'_> {
    fn read(mut self, paths: &[PathBuf]) {
        let (found, failed) = files::find(paths);
        for (path, error) in failed {
            self.problem(path.display().to_string(), error.to_string());
        }
        self.portion.total = found.iter().map(|file| file.length).sum();
        for file in found {
            match self.read_file(&file) {
                Ok(Ok(())) => {}
                Ok(Err(Stopped)) => return,
                Err(error) => self.problem(file.path.display().to_string(), error.to_string()),
            }
        }
        (self.take)(self.portion);
    }

    fn problem(&mut self, place: String, reason: String) {
        self.portion.found.problems.push(|| Problem { place, reason });
    }

    /// Reads one file: DER when it begins as DER does, otherwise PEM.
    fn read_file(&mut self, file: &Found) -> std::io::Result<Result<(), Stopped>> {
        let mut input = BufReader::with_capacity(64 * 1024, File::open(&file.path)?);
        let is_der = input.fill_buf()?.first() == Some(&tlv::SEQUENCE);
        // A text file may begin with the digit 0, which is the same octet.
        if is_der && file.length <= OCTETS_MAX as u64 {
            let mut der = Vec::new();
            input.take(OCTETS_MAX as u64).read_to_end(&mut der)?;
            if tlv::only(&der, tlv::SEQUENCE).is_some() {
                return Ok(self.take_der_file(file, &der));
            }
            return self.read_pem(file, der.as_slice());
        }
        self.read_pem(file, input)
    }

    fn take_der_file(&mut self, file: &Found, der: &[u8]) -> Result<(), Stopped> {
        match Certificate::from_der(der) {
            Err(error) if file.named || is_certificate_name(&file.path) => {
                self.portion.found.files += 1;
                self.problem(file.path.display().to_string(), error.to_string());
            }
            Err(_) => self.portion.found.other_files += 1,
            Ok(certificate) => {
                self.portion.found.files += 1;
                self.sort(&certificate, || file.path.display().to_string());
            }
        }
        self.read_so_far(file.length)
    }

    fn read_pem(&mut self, file: &Found, input: impl BufRead) -> std::io::Result<Result<(), Stopped>> {
        let mut blocks = Blocks::new(input, OCTETS_MAX);
        let (mut found, mut counted) = (false, 0);
        while let Some(block) = blocks.next_block()? {
            if !matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE") {
                self.portion.found.other_blocks += 1;
                continue;
            }
            found = true;
            let place = || format!("{}, line {}", file.path.display(), block.line);
            match block.content {
                Err(error) => self.problem(place(), error.to_string()),
                Ok(der) => match Certificate::from_der(&der) {
                    Err(error) => self.problem(place(), error.to_string()),
                    Ok(certificate) => self.sort(&certificate, place),
                },
            }
            if self.read_so_far(blocks.octets() - counted).is_err() {
                return Ok(Err(Stopped));
            }
            counted = blocks.octets();
        }
        if found {
            self.portion.found.files += 1;
        } else if file.named {
            self.portion.found.files += 1;
            self.problem(file.path.display().to_string(), "there is no certificate in it".to_owned());
        } else {
            self.portion.found.other_files += 1;
        }
        Ok(self.read_so_far(blocks.octets() - counted))
    }

    fn sort(&mut self, certificate: &Certificate, place: impl Fn() -> String) {
        self.portion.found.certificates += 1;
        self.pending += 1;
        if let Some(known) = self.issuers.iter().find(|known| known.has_issued(certificate)) {
            self.portion.entries.entry(known.id).or_default().push(CertificateEntry {
                serial: certificate.serial(),
                not_before: Some(certificate.not_before()),
                not_after: certificate.not_after(),
                revocation: None,
            });
            let named = self.now.and_then(|now| KnownCertificate::of(&known.name, certificate, now));
            self.portion.named.extend(named);
        } else {
            self.portion.found.foreign.push(|| Foreign {
                place: place(),
                subject: certificate.subject(),
                issuer: certificate.issuer(),
                serial: certificate.serial().to_string(),
            });
        }
    }

    /// Counts octets, and hands the portion over when it is full.
    fn read_so_far(&mut self, octets: u64) -> Result<(), Stopped> {
        self.portion.octets += octets;
        if self.pending < PORTION {
            return Ok(());
        }
        self.pending = 0;
        let next = Portion { total: self.portion.total, ..Portion::default() };
        if (self.take)(std::mem::replace(&mut self.portion, next)) { Ok(()) } else { Err(Stopped) }
    }
}

/// Whether a file's name says that it is a certificate.
fn is_certificate_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["cer", "crt", "cert"].iter().any(|name| extension.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests;
