//! What is the same for every answer of one responder to questions about one issuer's certificates.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use smallvec::SmallVec;

use super::{Frame, SignedAnswer};
use crate::clock::UnixTime;
use crate::ocsp::{CrlReason, HashAlgorithm, Revocation, response, tlv};

const GENERALIZED_TIME: u8 = 0x18;
/// Octets of a whole GeneralizedTime without fractions (L8).
const TIME: usize = 17;
const GOOD: &[u8] = &[0x80, 0];
const REVOKED: u8 = tlv::context(1);

/// A certificate that an answer speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject<'a> {
    /// The content octets of its serial number.
    pub(super) serial: &'a [u8],
    pub(super) revocation: Option<Revocation>,
}

/// What differs from answer to answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement<'a> {
    pub(super) this_update: UnixTime,
    pub(super) next_update: UnixTime,
    /// One certificate, or those of a pack.
    pub(super) subjects: &'a [Subject<'a>],
}

/// The certificates that a ResponseData speaks of, each once where its CertIDs stand together; none for
/// one that says more of them, or otherwise, than a record holds.
pub(super) fn subjects(response_data: &[u8]) -> Option<SmallVec<[Subject<'_>; 8]>> {
    let mut fields = tlv::Reader::new(tlv::only(response_data, tlv::SEQUENCE)?);
    // version and responderID are tagged by context, producedAt is a GeneralizedTime.
    let responses = fields.find(|field| field.tag == tlv::SEQUENCE)?;
    let mut found: SmallVec<[Subject<'_>; 8]> = SmallVec::new();
    for single in tlv::Reader::new(responses.content) {
        let mut fields = tlv::Reader::new(single.content);
        let serial = tlv::Reader::new(fields.expect(tlv::SEQUENCE)?.content).nth(3)?.content;
        let status = fields.next()?;
        let revocation = if status.tag == REVOKED {
            let mut info = tlv::Reader::new(status.content);
            let time = moment(info.expect(GENERALIZED_TIME)?.content)?;
            let reason = match info.expect(tlv::context(0)) {
                None => None,
                Some(reason) => CrlReason::from_code(*tlv::only(reason.content, tlv::ENUMERATED)?.first()?),
            };
            Some(Revocation { time, reason })
        } else if status.whole == GOOD {
            None
        } else {
            return None;
        };
        let subject = Subject { serial, revocation };
        if found.last() != Some(&subject) {
            found.push(subject);
        }
    }
    Some(found)
}

/// The moment that a GeneralizedTime of whole seconds names (L8).
fn moment(content: &[u8]) -> Option<UnixTime> {
    let text = std::str::from_utf8(content).ok()?;
    let time = chrono::NaiveDateTime::parse_from_str(text, "%Y%m%d%H%M%SZ").ok()?;
    Some(UnixTime(time.and_utc().timestamp()))
}

/// A ResponseData with the places of serial numbers, statuses and times left open (RFC 6960 section
/// 4.2.1). The same stand in each SingleResponse of a certificate: they differ in their CertIDs' hash
/// only. A pack repeats them for each of its certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Version and responderID.
    head: Vec<u8>,
    singles: Vec<Single>,
    /// responseExtensions.
    tail: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Single {
    /// Hash algorithm and hashes of the CertID.
    issuer: Vec<u8>,
    /// singleExtensions.
    tail: Vec<u8>,
}

/// A GeneralizedTime in DER. Records hold the years 1970 to 2106 only, so that 32 bits do.
fn generalized(time: UnixTime) -> [u8; TIME] {
    let seconds = u32::try_from(time.0.max(0)).unwrap_or(u32::MAX);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01: years begin in March, so that the leap day is their last; eras of 400
    // years repeat.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u32::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let mut out = *b"\x18\x0f00000000000000Z";
    let pairs = [year / 100, year % 100, month, day, time / 3_600, time / 60 % 60, time % 60];
    for (to, number) in out[2..].as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
        *to = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
    }
    out
}

impl Shape {
    /// The shape of a ResponseData about so many certificates, as far as it has one.
    fn of(response_data: &[u8], certificates: usize) -> Option<Self> {
        let content = tlv::only(response_data, tlv::SEQUENCE)?;
        let mut fields = tlv::Reader::new(content).peekable();
        let mut head = Vec::new();
        while let Some(field) = fields.next_if(|field| field.tag != GENERALIZED_TIME) {
            head.extend_from_slice(field.whole);
        }
        fields.next()?;
        let responses = fields.next_if(|field| field.tag == tlv::SEQUENCE)?;
        let singles = tlv::Reader::new(responses.content).map(|single| {
            let mut fields = tlv::Reader::new(single.content);
            let cert_id = fields.expect(tlv::SEQUENCE)?;
            let issuer = tlv::Reader::new(cert_id.content).take(3).map(|field| field.whole);
            // certStatus, thisUpdate, nextUpdate.
            let tail = fields.skip(3).map(|field| field.whole);
            Some(Single {
                issuer: issuer.collect::<Vec<_>>().concat(),
                tail: tail.collect::<Vec<_>>().concat(),
            })
        });
        let mut singles = singles.collect::<Option<Vec<_>>>()?;
        singles.truncate(singles.len() / certificates.max(1));
        let tail = fields.flat_map(|field| field.whole.iter().copied()).collect();
        Some(Self { head, singles, tail })
    }

    /// Octets of one SingleResponse's content.
    fn single_length(single: &Single, subject: &Subject<'_>) -> usize {
        let cert_id = single.issuer.len() + tlv::whole_length(subject.serial.len());
        let status = match subject.revocation {
            None => GOOD.len(),
            Some(revocation) => {
                tlv::whole_length(TIME + reason(revocation.reason).map_or(0, |der| der.len()))
            }
        };
        tlv::whole_length(cert_id) + status + TIME + tlv::whole_length(TIME) + single.tail.len()
    }

    fn lengths(&self, statement: &Statement<'_>) -> (usize, usize) {
        let of_subject = |subject| {
            let single = |single| tlv::whole_length(Self::single_length(single, subject));
            self.singles.iter().map(single).sum::<usize>()
        };
        let responses = statement.subjects.iter().map(of_subject).sum();
        (self.head.len() + TIME + tlv::whole_length(responses) + self.tail.len(), responses)
    }

    fn write(&self, statement: &Statement<'_>, out: &mut Vec<u8>) {
        let (length, responses) = self.lengths(statement);
        tlv::put_header(out, tlv::SEQUENCE, length);
        out.extend_from_slice(&self.head);
        let (this_update, next_update) =
            (generalized(statement.this_update), generalized(statement.next_update));
        out.extend_from_slice(&this_update);
        tlv::put_header(out, tlv::SEQUENCE, responses);
        for subject in statement.subjects {
            for single in &self.singles {
                tlv::put_header(out, tlv::SEQUENCE, Self::single_length(single, subject));
                let cert_id = single.issuer.len() + tlv::whole_length(subject.serial.len());
                tlv::put_header(out, tlv::SEQUENCE, cert_id);
                out.extend_from_slice(&single.issuer);
                tlv::put_header(out, tlv::INTEGER, subject.serial.len());
                out.extend_from_slice(subject.serial);
                match subject.revocation {
                    None => out.extend_from_slice(GOOD),
                    Some(revocation) => {
                        let reason = reason(revocation.reason);
                        let reason = reason.as_ref().map_or(&[][..], |der| der);
                        tlv::put_header(out, REVOKED, TIME + reason.len());
                        out.extend_from_slice(&generalized(revocation.time));
                        out.extend_from_slice(reason);
                    }
                }
                out.extend_from_slice(&this_update);
                tlv::put_header(out, tlv::context(0), TIME);
                out.extend_from_slice(&next_update);
                out.extend_from_slice(&single.tail);
            }
        }
        out.extend_from_slice(&self.tail);
    }
}

/// Shapes of one responder's answers for one issuer at the most: good, revoked, with extensions or without.
/// What has a shape of its own each time, such as an archive cutoff, is kept whole beyond that.
const SHAPES: usize = 8;

/// `[0] EXPLICIT CRLReason`; "unspecified" is left out (RFC 5280 section 5.3.1).
fn reason(reason: Option<CrlReason>) -> Option<[u8; 5]> {
    let reason = reason.filter(|reason| *reason != CrlReason::Unspecified)?;
    Some([tlv::context(0), 3, tlv::ENUMERATED, 1, reason.code()])
}

/// A shape, and what stands around it.
#[derive(Debug)]
pub(super) struct Template {
    frame: Arc<Frame>,
    /// None for answers that are kept whole.
    shape: Option<Shape>,
    /// One bit a hash that a CertID in it is made with; unknown for answers kept whole.
    hashes: Vec<HashAlgorithm>,
}

impl Template {
    /// The ResponseData: written, or `whole` where no shape writes it.
    pub(super) fn write_data(&self, statement: &Statement<'_>, whole: &[u8], out: &mut Vec<u8>) {
        match &self.shape {
            Some(shape) => shape.write(statement, out),
            None => out.extend_from_slice(whole),
        }
    }

    /// The OCSPResponse in DER.
    pub(super) fn response(&self, statement: &Statement<'_>, whole: &[u8], signature: &[u8]) -> Vec<u8> {
        let length = match &self.shape {
            Some(shape) => tlv::whole_length(shape.lengths(statement).0),
            None => whole.len(),
        };
        let frame = &self.frame;
        let write = |out: &mut Vec<u8>| self.write_data(statement, whole, out);
        let certificate = frame.certificate.as_deref();
        response::assemble_written((length, write), frame.algorithm, signature, certificate)
    }

    pub(super) fn has_hash(&self, hash: HashAlgorithm) -> bool {
        self.hashes.contains(&hash)
    }
}

/// Every template in use. There are as many as responders and issuers; one is never taken away, since
/// records name it by its place.
#[derive(Debug, Default)]
pub(super) struct Templates {
    all: ArcSwap<Vec<Arc<Template>>>,
    /// The places of each issuer's templates, the newest last.
    of_issuer: Mutex<HashMap<u32, Vec<u16>>>,
}

impl Templates {
    /// The template in this place.
    pub(super) fn get(&self, place: u16) -> Option<Arc<Template>> {
        self.all.load().get(usize::from(place)).map(Arc::clone)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all.load().len()
    }

    /// The place of the template that writes this answer from a statement, and whether the ResponseData
    /// has to be kept whole beside it.
    pub(super) fn fit(
        &self,
        issuer: u32,
        answer: &SignedAnswer<'_>,
        statement: &Statement<'_>,
    ) -> (u16, bool) {
        let mut of_issuer = self.of_issuer.lock().unwrap_or_else(PoisonError::into_inner);
        let places = of_issuer.entry(issuer).or_default();
        let all = self.all.load();
        let mut written = Vec::with_capacity(answer.response_data.len());
        let mut writes = |shape: &Shape| {
            written.clear();
            shape.write(statement, &mut written);
            written == answer.response_data
        };
        let hashes = || response::cert_id_hashes(answer.response_data);
        let mut kept_whole = None;
        let mut shapes = 0;
        for place in places.iter().rev() {
            let Some(template) = all.get(usize::from(*place)) else { continue };
            if template.frame != answer.frame {
                continue;
            }
            match &template.shape {
                Some(shape) if writes(shape) => return (*place, false),
                Some(_) => shapes += 1,
                None if hashes().eq(template.hashes.iter().copied()) => kept_whole = Some(*place),
                None => {}
            }
        }
        let shape = Shape::of(answer.response_data, statement.subjects.len());
        let shape = shape.filter(|shape| shapes < SHAPES && writes(shape));
        let is_whole = shape.is_none();
        if let (true, Some(place)) = (is_whole, kept_whole) {
            return (place, true);
        }
        let place = all.len() as u16;
        let template = Template { frame: Arc::clone(&answer.frame), shape, hashes: hashes().collect() };
        let mut more = Vec::clone(&all);
        more.push(Arc::new(template));
        self.all.store(Arc::new(more));
        places.push(place);
        (place, is_whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// L8.
        #[test]
        fn any_moment_that_a_record_holds_is_written_as_chrono_writes_it(seconds in 0..=i64::from(u32::MAX)) {
            let expected = UnixTime(seconds).to_datetime().format("%Y%m%d%H%M%SZ").to_string();
            let written = generalized(UnixTime(seconds));
            prop_assert_eq!(&written[..2], &[GENERALIZED_TIME, 15]);
            prop_assert_eq!(std::str::from_utf8(&written[2..]).unwrap(), expected);
            prop_assert_eq!(moment(&written[2..]), Some(UnixTime(seconds)));
        }
    }
}
