//! One number of a limit: so many in any such period.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// At most `count` events in any `period`. Written `5/7d`; or `capacity/1d`: as many as the HSMs carry, in
/// force only while the capacity guard presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// How many.
    pub count: u64,
    /// The period, in whole seconds, never zero.
    pub period: Duration,
}

/// The longest period: longer ones would be kept in memory for nothing.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The most that a tier can allow: more is no limit.
pub(super) const MOST: u64 = 1_000_000_000;

/// A text is no tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no tier such as \"5/7d\": {why}")]
pub struct TierError {
    text: String,
    why: String,
}

impl Tier {
    /// The count of a tier that the capacity guard sets.
    pub const CAPACITY: u64 = u64::MAX;

    /// Whether the capacity guard sets its count.
    #[must_use]
    pub const fn is_by_capacity(&self) -> bool {
        self.count == Self::CAPACITY
    }
}

/// How a tier that the capacity guard sets is written.
const CAPACITY: &str = "capacity";

impl FromStr for Tier {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, TierError> {
        let refused = |why: &str| TierError { text: text.to_owned(), why: why.to_owned() };
        let (count, period) = text.split_once('/').ok_or_else(|| refused("give count/period"))?;
        let count = count.trim();
        let by_capacity = count == CAPACITY;
        let count: u64 = if by_capacity {
            Self::CAPACITY
        } else {
            count.parse().map_err(|_| refused("the count must be a whole number from 0, or \"capacity\""))?
        };
        if count > MOST && !by_capacity {
            return Err(refused("the count is above 1000000000"));
        }
        let period = humantime::parse_duration(period.trim())
            .map_err(|error| refused(&format!("the period must be a span of time such as 2h: {error}")))?;
        if period.subsec_nanos() != 0 || period.is_zero() {
            return Err(refused("the period must be whole seconds, at least one"));
        }
        if period > LONGEST {
            return Err(refused("the period is longer than 366 days"));
        }
        Ok(Self { count, period })
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = short(self.period);
        if self.is_by_capacity() {
            write!(f, "{CAPACITY}/{period}")
        } else {
            write!(f, "{}/{period}", self.count)
        }
    }
}

impl serde::Serialize for Tier {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A span in days, hours, minutes and seconds: `7d`, `1d12h`.
#[must_use]
pub(super) fn short(span: Duration) -> String {
    parts(span).map(|(number, unit)| format!("{number}{}", &unit[..1])).collect()
}

/// A span for people: `7 days`, `1 day 12 hours`.
#[must_use]
pub(super) fn long(span: Duration) -> String {
    parts(span)
        .map(|(number, unit)| format!("{number} {unit}{}", if number == 1 { "" } else { "s" }))
        .collect::<Vec<_>>()
        .join(" ")
}

fn parts(span: Duration) -> impl Iterator<Item = (u64, &'static str)> {
    let total = span.as_secs();
    [
        (total / 86_400, "day"),
        (total / 3_600 % 24, "hour"),
        (total / 60 % 60, "minute"),
        (total % 60, "second"),
    ]
    .into_iter()
    .filter(move |(number, unit)| *number > 0 || (total == 0 && *unit == "second"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_read_and_print() {
        for (text, count, seconds, printed) in [
            ("5/7d", 5, 604_800, "5/7d"),
            ("3/2h", 3, 7_200, "3/2h"),
            (" 300 / 3h ", 300, 10_800, "300/3h"),
            ("0/1d", 0, 86_400, "0/1d"),
            ("10/1w", 10, 604_800, "10/7d"),
            ("1/90m", 1, 5_400, "1/1h30m"),
            ("capacity/24h", Tier::CAPACITY, 86_400, "capacity/1d"),
        ] {
            let tier: Tier = text.parse().unwrap();
            assert_eq!(tier, Tier { count, period: Duration::from_secs(seconds) }, "{text}");
            assert_eq!(tier.to_string(), printed);
        }
        assert_eq!(long(Duration::from_secs(604_800)), "7 days");
        assert_eq!(long(Duration::from_secs(5_460)), "1 hour 31 minutes");
        assert_eq!(long(Duration::ZERO), "0 seconds");
    }

    #[test]
    fn what_is_no_tier_is_refused_with_what_would_be_right() {
        for (text, part) in [
            ("5", "count/period"),
            ("/7d", "whole number"),
            ("-1/7d", "whole number"),
            ("5/7", "span of time"),
            ("5/500ms", "whole seconds"),
            ("5/0s", "at least one"),
            ("5/2y", "366 days"),
            ("1000000001/1d", "above"),
        ] {
            let error = text.parse::<Tier>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("5/7d"), "{error}");
        }
    }
}
