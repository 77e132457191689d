//! The headers of a cacheable answer (RFC 9919 sections 6 and 7.2), made without a formatter: this runs once a request.

use bytes::Bytes;
use hyper::header::HeaderValue;

use crate::clock::UnixTime;
use crate::responder::CacheFacts;

pub(super) const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
const ETAG: usize = 66;
const MAX_AGE: &[u8] = b"max-age=";
const DIRECTIVES: &[u8] = b", public, no-transform, must-revalidate";
/// A delta-seconds value need not go past this (RFC 9111 section 1.2.2).
const LONGEST_AGE: i64 = i32::MAX as i64;
const LONGEST_CONTROL: usize = MAX_AGE.len() + 10 + DIRECTIVES.len();

/// The four headers that say how long an answer may be kept, as text on the stack.
#[derive(Clone, Debug)]
pub struct CacheText {
    octets: [u8; 2 * DATE + ETAG + LONGEST_CONTROL],
    end: usize,
}

impl CacheText {
    /// The headers for an answer with these `facts` that is sent at `now`.
    #[must_use]
    pub fn new(facts: &CacheFacts, now: UnixTime) -> Self {
        let mut octets = [0; 2 * DATE + ETAG + LONGEST_CONTROL];
        let (last_modified, rest) = octets.split_at_mut(DATE);
        write_date(last_modified, facts.this_update);
        let (expires, rest) = rest.split_at_mut(DATE);
        write_date(expires, facts.next_update);
        let (etag, control) = rest.split_at_mut(ETAG);
        write_etag(etag, &facts.digest);
        let end = 2 * DATE + ETAG + write_cache_control(control, max_age(facts, now));
        Self { octets, end }
    }

    /// `Last-Modified`: thisUpdate.
    #[must_use]
    pub fn last_modified(&self) -> &[u8] {
        &self.octets[..DATE]
    }

    /// `Expires`: nextUpdate.
    #[must_use]
    pub fn expires(&self) -> &[u8] {
        &self.octets[DATE..2 * DATE]
    }

    /// `ETag`: SHA-256 of the body, strong.
    #[must_use]
    pub fn etag(&self) -> &[u8] {
        &self.octets[2 * DATE..2 * DATE + ETAG]
    }

    /// `Cache-Control`: seconds until the planned renewal, and who may keep it.
    #[must_use]
    pub fn cache_control(&self) -> &[u8] {
        &self.octets[2 * DATE + ETAG..self.end]
    }
}

impl AsRef<[u8]> for CacheText {
    fn as_ref(&self) -> &[u8] {
        &self.octets
    }
}

/// The same as values for hyper.
#[derive(Clone, Debug)]
pub struct CacheHeaders {
    /// thisUpdate.
    pub last_modified: HeaderValue,
    /// nextUpdate.
    pub expires: HeaderValue,
    /// SHA-256 of the body, strong.
    pub etag: HeaderValue,
    /// Seconds until the planned renewal, and who may keep it.
    pub cache_control: HeaderValue,
}

impl CacheHeaders {
    /// The headers for an answer with these `facts` that is sent at `now`.
    #[must_use]
    pub fn new(facts: &CacheFacts, now: UnixTime) -> Self {
        let text = CacheText::new(facts, now);
        let end = text.end;
        // One allocation that all four values share.
        let text = Bytes::from_owner(text);
        let value = |from: usize, to: usize| ascii(text.slice(from..to));
        Self {
            last_modified: value(0, DATE),
            expires: value(DATE, 2 * DATE),
            etag: value(2 * DATE, 2 * DATE + ETAG),
            cache_control: value(2 * DATE + ETAG, end),
        }
    }
}

#[expect(clippy::expect_used, reason = "only printable ASCII is written above")]
fn ascii(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).expect("printable ASCII")
}

/// An HTTP date (RFC 9110 section 5.6.7) of the years 0 to 9999.
pub(super) fn date(moment: UnixTime) -> [u8; DATE] {
    let mut text = [0; DATE];
    write_date(&mut text, moment);
    text
}

/// Seconds until the newer answer is planned, always ending before nextUpdate (RFC 9919 section 7.2).
pub(super) fn max_age(facts: &CacheFacts, now: UnixTime) -> i64 {
    let end = facts.renewed_at.0.min(facts.next_update.0.saturating_sub(1));
    end.saturating_sub(now.0).clamp(0, LONGEST_AGE)
}

/// Every octet in hexadecimal.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut octet = 0;
    while octet < 256 {
        pairs[octet] = [DIGITS[octet >> 4], DIGITS[octet & 15]];
        octet += 1;
    }
    pairs
};

/// Every number below 100 in two decimal digits.
const DECIMAL: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

fn write_etag(out: &mut [u8], digest: &[u8; 32]) {
    out[0] = b'"';
    for (pair, octet) in out[1..ETAG - 1].as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        *pair = HEX[usize::from(*octet)];
    }
    out[ETAG - 1] = b'"';
}

/// Writes `Cache-Control` and returns its length.
fn write_cache_control(out: &mut [u8], age: i64) -> usize {
    let mut digits = [0; DIGITS];
    let mut length = 0;
    for part in [MAX_AGE, decimal(age.unsigned_abs(), &mut digits), DIRECTIVES] {
        out[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    length
}

/// The digits of the largest number.
pub(super) const DIGITS: usize = 20;

/// `number` in decimal digits, written into `digits`.
pub(super) fn decimal(number: u64, digits: &mut [u8; DIGITS]) -> &[u8] {
    let mut first = digits.len();
    let mut left = number;
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10).to_le_bytes()[0];
        left /= 10;
        if left == 0 {
            return &digits[first..];
        }
    }
}

/// Writes an HTTP date (RFC 9110 section 5.6.7) of the years 0 to 9999.
fn write_date(out: &mut [u8], moment: UnixTime) {
    const DAYS: [&[u8; 5]; 7] = [b"Wed, ", b"Thu, ", b"Fri, ", b"Sat, ", b"Sun, ", b"Mon, ", b"Tue, "];
    /// Years here begin in March, so that the leap day is the last.
    const MONTHS: [&[u8; 5]; 12] = [
        b" Mar ", b" Apr ", b" May ", b" Jun ", b" Jul ", b" Aug ", b" Sep ", b" Oct ", b" Nov ", b" Dec ",
        b" Jan ", b" Feb ",
    ];
    // Seconds and days since 0000-03-01 less 400 years: never negative, so plain unsigned division serves.
    let shift = (719_468 + 146_097) * 86_400;
    let seconds = moment.0.clamp(-62_167_219_200, UnixTime::MAX.0) + shift;
    let seconds = u64::try_from(seconds).unwrap_or_default();
    let small = |value: u64| u32::try_from(value).unwrap_or_default();
    let (days, time) = (small(seconds / 86_400), small(seconds % 86_400));
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u32::from(month >= 10) - 400;
    let pair = |value: u32| DECIMAL[value as usize % 100];
    let Ok(out) = <&mut [u8; DATE]>::try_from(out) else { return };
    out[..5].copy_from_slice(DAYS[days as usize % 7]);
    out[5..7].copy_from_slice(&pair(day));
    out[7..12].copy_from_slice(MONTHS[month as usize % 12]);
    out[12..14].copy_from_slice(&pair(year / 100));
    out[14..16].copy_from_slice(&pair(year));
    out[16..].copy_from_slice(b" 00:00:00 GMT");
    out[17..19].copy_from_slice(&pair(time / 3600));
    out[20..22].copy_from_slice(&pair(time / 60 % 60));
    out[23..25].copy_from_slice(&pair(time % 60));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> CacheFacts {
        CacheFacts {
            this_update: UnixTime(784_111_777),
            next_update: UnixTime(784_111_777 + 604_799),
            renewed_at: UnixTime(784_111_777 + 302_400),
            digest: [0x0f; 32],
        }
    }

    /// L9, H8: the exact headers.
    #[test]
    fn the_headers_of_a_cacheable_answer_are_exactly_those_of_the_profile() {
        let headers = CacheHeaders::new(&facts(), UnixTime(784_111_777 + 400));
        assert_eq!(headers.last_modified, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(headers.expires, "Sun, 13 Nov 1994 08:49:36 GMT");
        assert_eq!(headers.etag, format!("\"{}\"", "0f".repeat(32)).as_str());
        assert_eq!(headers.cache_control, "max-age=302000, public, no-transform, must-revalidate");
    }

    /// L11: whatever the plan and the time, max-age ends before nextUpdate and is never negative.
    #[test]
    fn max_age_ends_at_the_planned_renewal_and_before_next_update() {
        let plan = facts();
        for second in -10..=604_900 {
            let now = plan.this_update.0 + second;
            let age = max_age(&plan, UnixTime(now));
            assert!(age >= 0);
            assert!(age == 0 || now + age <= plan.renewed_at.0);
        }
        let late = CacheFacts { renewed_at: UnixTime::MAX, ..plan };
        let now = UnixTime(plan.next_update.0 - 5);
        assert_eq!(max_age(&late, now), 4);
        assert_eq!(max_age(&late, plan.next_update), 0);
        let endless = CacheFacts { next_update: UnixTime::MAX, ..late };
        assert_eq!(max_age(&endless, UnixTime::EPOCH), LONGEST_AGE);
        let text = CacheHeaders::new(&endless, UnixTime::EPOCH).cache_control;
        assert_eq!(text, "max-age=2147483647, public, no-transform, must-revalidate");
    }

    proptest! {
        /// H8.
        #[test]
        fn any_moment_is_written_as_chrono_writes_it(seconds in -62_167_219_200i64..=253_402_300_799) {
            let mut text = [0; DATE];
            write_date(&mut text, UnixTime(seconds));
            let expected = UnixTime(seconds).to_datetime().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            prop_assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
        }
    }
}
