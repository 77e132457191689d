//! The headers of a cacheable answer (RFC 9919 section 5), made without a formatter: this runs once a request.

use bytes::Bytes;
use hyper::header::HeaderValue;

use crate::clock::UnixTime;
use crate::responder::CacheFacts;

const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
const ETAG: usize = 66;
const MAX_AGE: &[u8] = b"max-age=";
const DIRECTIVES: &[u8] = b", public, no-transform, must-revalidate";
/// A delta-seconds value need not go past this (RFC 9111 section 1.2.2).
const LONGEST_AGE: i64 = i32::MAX as i64;
const LONGEST_CONTROL: usize = MAX_AGE.len() + 10 + DIRECTIVES.len();

/// The four headers that say how long an answer may be kept.
pub(super) struct CacheHeaders {
    pub(super) last_modified: HeaderValue,
    pub(super) expires: HeaderValue,
    pub(super) etag: HeaderValue,
    pub(super) cache_control: HeaderValue,
}

/// One allocation that all four values share.
struct Text([u8; 2 * DATE + ETAG + LONGEST_CONTROL]);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl CacheHeaders {
    /// The headers for an answer with these `facts` that is sent at `now`.
    pub(super) fn new(facts: &CacheFacts, now: UnixTime) -> Self {
        let mut text = Text([0; _]);
        let (last_modified, rest) = text.0.split_at_mut(DATE);
        write_date(last_modified, facts.this_update);
        let (expires, rest) = rest.split_at_mut(DATE);
        write_date(expires, facts.next_update);
        let (etag, control) = rest.split_at_mut(ETAG);
        write_etag(etag, &facts.digest);
        let control = write_cache_control(control, max_age(facts, now));
        let text = Bytes::from_owner(text);
        let value = |from: usize, length: usize| ascii(text.slice(from..from + length));
        Self {
            last_modified: value(0, DATE),
            expires: value(DATE, DATE),
            etag: value(2 * DATE, ETAG),
            cache_control: value(2 * DATE + ETAG, control),
        }
    }
}

#[expect(clippy::expect_used, reason = "only printable ASCII is written above")]
fn ascii(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).expect("printable ASCII")
}

/// Seconds until the newer answer is planned, always ending before nextUpdate (RFC 9919 section 5).
pub(super) fn max_age(facts: &CacheFacts, now: UnixTime) -> i64 {
    let end = facts.renewed_at.0.min(facts.next_update.0.saturating_sub(1));
    end.saturating_sub(now.0).clamp(0, LONGEST_AGE)
}

fn write_etag(out: &mut [u8], digest: &[u8; 32]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out[0] = b'"';
    for (pair, octet) in out[1..].chunks_exact_mut(2).zip(digest) {
        pair[0] = HEX[usize::from(octet >> 4)];
        pair[1] = HEX[usize::from(octet & 15)];
    }
    out[ETAG - 1] = b'"';
}

/// Writes `Cache-Control` and returns its length.
fn write_cache_control(out: &mut [u8], age: i64) -> usize {
    let mut digits = [0u8; 10];
    let mut first = digits.len();
    let mut left = age;
    loop {
        first -= 1;
        digits[first] = digit(left % 10);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let mut length = 0;
    for part in [MAX_AGE, &digits[first..], DIRECTIVES] {
        out[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    length
}

/// The last decimal digit of `value`, which is not negative.
fn digit(value: i64) -> u8 {
    b'0' + value.to_le_bytes()[0] % 10
}

/// Writes an HTTP date (RFC 9110 section 5.6.7) of the years 0 to 9999.
fn write_date(out: &mut [u8], moment: UnixTime) {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let seconds = moment.0.clamp(-62_167_219_200, UnixTime::MAX.0);
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to civil date in the proleptic Gregorian calendar, with years that begin in March.
    let since = days + 719_468;
    let (era, day_of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = (shifted + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    let name = |names: &'static [u8], at: i64| {
        let at = usize::try_from(at).unwrap_or_default() * 3;
        &names[at..at + 3]
    };
    out[..DATE].copy_from_slice(b"Thu, 01 Jan 1970 00:00:00 GMT");
    out[..3].copy_from_slice(name(DAYS, days.rem_euclid(7)));
    out[8..11].copy_from_slice(name(MONTHS, month));
    for (at, value) in [(5, day), (17, time / 3600), (20, time / 60 % 60), (23, time % 60)] {
        out[at] = digit(value / 10 % 10);
        out[at + 1] = digit(value % 10);
    }
    for (at, value) in [(12, year / 1000), (13, year / 100), (14, year / 10), (15, year)] {
        out[at] = digit(value % 10);
    }
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
