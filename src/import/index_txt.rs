//! `index.txt`: the certificate database of `openssl ca` and EasyRSA.
//!
//! Six fields a line, separated by tabs: status (V, R or E), notAfter, revocation, serial, file,
//! subject. Read leniently where OpenSSL is stricter and nothing can be misunderstood: serials with
//! an odd number of digits, blank lines and `#` lines anywhere, CRLF, tabs in the subject.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Serialize;

use super::{ImportError, Listed, OnProgress, Outcome, PORTION, Problem, Progress, shown, still_to_come};
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, Revocation, Serial, SerialError};
use crate::store::{CertificateEntry, IssuerId, Store};

/// The longest line that is read; a subject of RFC 5280 is far shorter.
const LINE_MAX: u64 = 64 * 1024;

/// Octets read at once.
const BUFFER: usize = 256 * 1024;

/// What an import of an `index.txt` came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines that hold an entry, good or bad.
    pub rows: u64,
    /// What became of the good ones.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The bad ones.
    pub problems: Listed<Problem>,
    /// Serial numbers that are on hold.
    pub holds: Listed<String>,
}

/// Why a line is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not the six fields.
    #[error("{0} tab-separated fields instead of 6")]
    Fields(usize),
    /// Neither V, R nor E.
    #[error("the status {0} is none of V, R and E")]
    Status(String),
    /// A date that is none.
    #[error("{field} {text} is no date such as 261231235959Z or 20261231235959Z")]
    Date {
        /// Which date.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// A serial number that is none.
    #[error("serial {text}: {source}")]
    Serial {
        /// What stands there.
        text: String,
        /// Why.
        source: SerialError,
    },
    /// A status of R without a revocation date.
    #[error("the status is R and there is no revocation date")]
    NotDated,
    /// A revocation date with a status of V or E.
    #[error("there is a revocation date and the status is not R")]
    NotRevoked,
    /// An unknown reason.
    #[error("the revocation reason {0} is not known")]
    Reason(String),
    /// A reason that revokes nothing.
    #[error("the reason removeFromCRL revokes nothing")]
    Removal,
    /// Beyond `LINE_MAX`.
    #[error("the line is longer than {LINE_MAX} octets")]
    TooLong,
}

/// Reads one line, without its end.
///
/// # Errors
/// [`LineError`] when it is no entry.
pub fn parse_line(line: &[u8]) -> Result<CertificateEntry, LineError> {
    let mut fields = line.splitn(6, |octet| *octet == b'\t');
    let mut next = || fields.next();
    let (Some(status), Some(not_after), Some(revoked), Some(serial), Some(_file), Some(_subject)) =
        (next(), next(), next(), next(), next(), next())
    else {
        return Err(LineError::Fields(line.split(|octet| *octet == b'\t').count()));
    };
    let is_revoked = match status {
        b"R" => true,
        b"V" | b"E" => false,
        other => return Err(LineError::Status(shown(other))),
    };
    let revocation = match (is_revoked, revoked) {
        (false, b"") => None,
        (false, _) => return Err(LineError::NotRevoked),
        (true, b"") => return Err(LineError::NotDated),
        (true, revoked) => Some(revocation(revoked)?),
    };
    let serial = std::str::from_utf8(serial)
        .map_err(|_| SerialError::NotHex)
        .and_then(str::parse::<Serial>)
        .map_err(|source| LineError::Serial { text: shown(serial), source })?;
    Ok(CertificateEntry { serial, not_before: None, not_after: date("notAfter", not_after)?, revocation })
}

/// `date[,reason[,extra]]`, as OpenSSL's `unpack_revinfo` reads it.
///
/// OpenSSL keeps what came with `-crl_hold`, `-crl_compromise` and `-crl_CA_compromise` as pseudo
/// reasons with an argument: `holdInstruction,OID`, `keyTime,time`, `CAkeyTime,time`.
fn revocation(field: &[u8]) -> Result<Revocation, LineError> {
    let mut parts = field.splitn(3, |octet| *octet == b',');
    let time = date("revocation date", parts.next().unwrap_or_default())?;
    let reason = match parts.next() {
        None => None,
        Some(name) => {
            let text = std::str::from_utf8(name).map_err(|_| LineError::Reason(shown(name)))?;
            Some(match text {
                _ if text.eq_ignore_ascii_case("holdInstruction") => CrlReason::CertificateHold,
                _ if text.eq_ignore_ascii_case("keyTime") => CrlReason::KeyCompromise,
                _ if text.eq_ignore_ascii_case("CAkeyTime") => CrlReason::CaCompromise,
                // By name only: a number is read elsewhere, but is no form of this file.
                _ => CrlReason::ALL
                    .into_iter()
                    .find(|reason| reason.name().eq_ignore_ascii_case(text))
                    .ok_or_else(|| LineError::Reason(shown(name)))?,
            })
        }
    };
    match reason {
        Some(CrlReason::RemoveFromCrl) => Err(LineError::Removal),
        // RFC 5280 section 5.3.1: leave it out instead.
        Some(CrlReason::Unspecified) => Ok(Revocation { time, reason: None }),
        reason => Ok(Revocation { time, reason }),
    }
}

fn date(field: &'static str, text: &[u8]) -> Result<UnixTime, LineError> {
    asn1_time(text).ok_or_else(|| LineError::Date { field, text: shown(text) })
}

/// UTCTime (YYMMDDHHMMSSZ, years 1950 to 2049) or GeneralizedTime (YYYYMMDDHHMMSSZ), RFC 5280
/// section 4.1.2.5.
pub(super) fn asn1_time(text: &[u8]) -> Option<UnixTime> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pair = |at: usize| i64::from(digits[at] - b'0') * 10 + i64::from(digits[at + 1] - b'0');
    let (year, rest) = match digits.len() {
        12 => (if pair(0) < 50 { 2000 + pair(0) } else { 1900 + pair(0) }, 2),
        14 => (pair(0) * 100 + pair(2), 4),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| pair(rest + at));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days from 0000-03-01, so that the leap day ends a year; 719,468 of them before 1970.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = years * 365 + years.div_euclid(4) - years.div_euclid(100)
        + years.div_euclid(400)
        + (months * 153 + 2) / 5
        + day
        - 1
        - 719_468;
    Some(UnixTime(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

/// What was read since the portion before.
#[derive(Debug, Default)]
struct Portion {
    entries: Vec<CertificateEntry>,
    problems: Listed<Problem>,
    holds: Listed<String>,
    rows: u64,
    octets: u64,
}

/// Portions that are sorted together. Serials are random: sorted, the rows of a portion stand on few pages of
/// the store's index, and each page is written once for all of them. 80 MB.
const WINDOW: usize = 16;

impl Portion {
    /// Hands over what was read in portions of neighbours in the index. Entries of one serial stay in their
    /// order. Whether more is wanted.
    fn deal(mut self, take: &mut dyn FnMut(Self) -> bool) -> bool {
        self.entries.sort_by(|a, b| a.serial.as_der_content().cmp(b.serial.as_der_content()));
        let mut parts = self.entries.len().div_ceil(PORTION).max(1);
        let mut entries = std::mem::take(&mut self.entries).into_iter();
        while parts > 1 {
            let part: Vec<_> = entries.by_ref().take(PORTION).collect();
            let rows = part.len() as u64;
            let part = Self { entries: part, rows, octets: self.octets / parts as u64, ..Self::default() };
            parts -= 1;
            self.rows -= part.rows;
            self.octets -= part.octets;
            if !take(part) {
                return false;
            }
        }
        self.entries = entries.collect();
        take(self)
    }
}

/// Reads lines and hands them over in portions until the end, or until `take` returns false.
fn read_portions(
    input: impl Read,
    now: UnixTime,
    take: &mut dyn FnMut(Portion) -> bool,
) -> std::io::Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut portion = Portion::default();
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let mut octets = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? as u64;
        if octets == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n') || octets < LINE_MAX;
        if !whole {
            octets += input.skip_until(b'\n')? as u64;
        }
        portion.octets += octets;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.first() == Some(&b'#') || text.trim_ascii().is_empty() {
            continue;
        }
        portion.rows += 1;
        let entry = if whole { parse_line(text) } else { Err(LineError::TooLong) };
        let entry = entry.map_err(|error| error.to_string()).and_then(|entry| {
            let wrong = entry.revocation.as_ref().and_then(|revocation| still_to_come(revocation, now));
            wrong.map_or(Ok(entry), Err)
        });
        match entry {
            Ok(entry) => {
                if entry.revocation.is_some_and(|why| why.reason == Some(CrlReason::CertificateHold)) {
                    portion.holds.push(|| entry.serial.to_string());
                }
                portion.entries.push(entry);
            }
            Err(reason) => {
                portion.problems.push(|| Problem { place: format!("line {number}"), reason });
            }
        }
        if portion.rows >= (WINDOW * PORTION) as u64 && !std::mem::take(&mut portion).deal(take) {
            return Ok(());
        }
    }
    portion.deal(take);
    Ok(())
}

/// Imports the `index.txt` at `path` for `issuer`. A revocation that lies more than an hour after `now`
/// is a bad line.
///
/// # Errors
/// [`ImportError::Read`] when the file cannot be read, [`ImportError::Store`] when the store fails;
/// the portions before are in the store, and repeating the import goes on from there.
pub async fn import(
    store: &dyn Store,
    issuer: IssuerId,
    path: &Path,
    now: UnixTime,
    progress: OnProgress<'_>,
) -> Result<Report, ImportError> {
    let file = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let file = File::open(&path)?;
            let total = file.metadata()?.len();
            Ok((file, total))
        })
        .await
        .map_err(std::io::Error::other)
        .and_then(|opened: std::io::Result<_>| opened)
    };
    let (file, total) = file.map_err(ImportError::read(path))?;
    let of = path.to_owned();
    let (mut portions, thread) =
        super::read_ahead(move |take| read_portions(file, now, take).map_err(ImportError::read(&of)));
    let mut report = Report::default();
    let mut done = Progress { total, ..Progress::default() };
    while let Some(portion) = portions.recv().await {
        report.outcome += store.register(issuer, &portion.entries).await?;
        report.rows += portion.rows;
        report.problems.append(portion.problems);
        report.holds.append(portion.holds);
        done.rows += portion.rows;
        done.octets += portion.octets;
        progress(done);
    }
    super::finished(thread, path).await?;
    Ok(report)
}

#[cfg(test)]
mod tests;
