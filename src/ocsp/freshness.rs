//! How long an answer lasts, and when the next one is due.
//!
//! The four words are defined here and used only so: an answer is **fresh** from thisUpdate until
//! it is **due** (the planned re-sign); it is **stale** past its legal deadline; it is **expired**
//! past nextUpdate.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::serial::Serial;
use crate::clock::UnixTime;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The rules that answers are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// CA/Browser Forum Baseline Requirements 4.9.9 and Mozilla's root policy.
    WebPki,
    /// Those and Microsoft's root programme.
    Microsoft,
    /// Certificates of subordinate CAs under the Baseline Requirements 4.9.9 (B10).
    SubCa,
    /// A private CA: only what RFC 6960 asks.
    Private,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 4] = [Self::WebPki, Self::Microsoft, Self::SubCa, Self::Private];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebPki => "web-pki",
            Self::Microsoft => "microsoft",
            Self::SubCa => "sub-ca",
            Self::Private => "private",
        }
    }

    /// The legal deadline of an answer with this validity, counted from thisUpdate: B3 and B4 for
    /// the public presets, eight hours before nextUpdate for subordinate CAs, nextUpdate itself for a
    /// private CA.
    #[must_use]
    pub fn deadline(self, validity: Duration) -> Duration {
        let public = if validity < 16 * HOUR { validity / 2 } else { validity - 8 * HOUR };
        match self {
            Self::WebPki => public.min(4 * DAY),
            Self::Microsoft => public.min(4 * DAY).min(validity / 2),
            Self::SubCa => public,
            Self::Private => validity,
        }
    }

    /// Whether certificateHold may be used (B8).
    #[must_use]
    pub const fn allows_hold(self) -> bool {
        matches!(self, Self::Private)
    }

    /// The longest that an HTTP cache may keep an answer, however long it lasts: a revocation has to be
    /// seen within 24 hours (B10). None where the refresh interval is short enough.
    #[must_use]
    pub const fn longest_age(self) -> Option<Duration> {
        match self {
            Self::SubCa => Some(Duration::from_secs(12 * 3_600)),
            Self::WebPki | Self::Microsoft | Self::Private => None,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = FreshnessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == text);
        found.ok_or_else(|| FreshnessError::UnknownPreset(text.to_owned()))
    }
}

/// A validity and refresh interval that the preset allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    preset: Preset,
    validity: Duration,
    refresh: Duration,
}

/// Why a validity and refresh interval are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreshnessError {
    /// No preset of that name.
    #[error("{0:?} is no preset; one of web-pki, microsoft, sub-ca, private")]
    UnknownPreset(String),
    /// Validity out of bounds.
    #[error(
        "validity {validity} is outside {from} to {to} ({rule})",
        validity = text(*validity), from = text(*from), to = text(*to)
    )]
    Validity {
        /// What was asked for.
        validity: Duration,
        /// The least allowed.
        from: Duration,
        /// The most allowed.
        to: Duration,
        /// The rule.
        rule: &'static str,
    },
    /// Answers would be replaced too late.
    #[error(
        "refresh {refresh} is later than {deadline} after thisUpdate, the latest for a validity of {validity} ({rule})",
        refresh = text(*refresh), deadline = text(*deadline), validity = text(*validity)
    )]
    Refresh {
        /// What was asked for.
        refresh: Duration,
        /// The validity.
        validity: Duration,
        /// The latest allowed.
        deadline: Duration,
        /// The rule.
        rule: &'static str,
    },
    /// A refresh interval of nothing.
    #[error("refresh {refresh} is too short: at least 1 minute", refresh = text(*refresh))]
    TooOften {
        /// What was asked for.
        refresh: Duration,
    },
}

fn text(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(span)
}

impl Freshness {
    /// Checks a validity V and a refresh interval R against the preset.
    ///
    /// # Errors
    /// [`FreshnessError`] naming the rule (B2, B3, B4) that is broken.
    pub fn new(preset: Preset, validity: Duration, refresh: Duration) -> Result<Self, FreshnessError> {
        let (from, to, rule) = match preset {
            Preset::WebPki => (8 * HOUR, 10 * DAY, "Baseline Requirements 4.9.9"),
            Preset::Microsoft => (8 * HOUR, 7 * DAY, "Microsoft root programme"),
            // Twelve months, at their shortest.
            Preset::SubCa => (8 * HOUR, 365 * DAY, "Baseline Requirements 4.9.9, subordinate CAs"),
            Preset::Private => (2 * Duration::from_secs(60), 398 * DAY, "private preset"),
        };
        if validity < from || validity > to {
            return Err(FreshnessError::Validity { validity, from, to, rule });
        }
        if refresh < Duration::from_secs(60) {
            return Err(FreshnessError::TooOften { refresh });
        }
        let deadline = preset.deadline(validity);
        let late = if preset == Preset::Private { refresh >= deadline } else { refresh > deadline };
        if late {
            return Err(FreshnessError::Refresh { refresh, validity, deadline, rule });
        }
        Ok(Self { preset, validity, refresh })
    }

    /// The preset.
    #[must_use]
    pub const fn preset(&self) -> Preset {
        self.preset
    }

    /// The validity V.
    #[must_use]
    pub const fn validity(&self) -> Duration {
        self.validity
    }

    /// The refresh interval R.
    #[must_use]
    pub const fn refresh(&self) -> Duration {
        self.refresh
    }

    /// nextUpdate of an answer: V counted inclusively (B2), never after the end of the responder's
    /// certificate (B5).
    #[must_use]
    pub fn next_update(&self, this_update: UnixTime, responder_not_after: UnixTime) -> UnixTime {
        UnixTime(this_update.plus(self.validity).0 - 1).min(responder_not_after)
    }

    /// When an answer is due: at a point of [0.75 R, R] that the serial decides, so that a fleet
    /// signed at one instant does not come due at one instant again. An answer that was cut short
    /// (B5) is due in proportion, and never after its own legal deadline.
    #[must_use]
    pub fn due_at(&self, this_update: UnixTime, next_update: UnixTime, serial: &Serial) -> UnixTime {
        let place = (serial.scatter(u64::from_le_bytes(*b"spread\0\0")) >> 32) as f64 / f64::from(u32::MAX);
        let own = self.own(this_update, next_update);
        let refresh = if own < self.validity {
            let part = own.as_secs_f64() / self.validity.as_secs_f64();
            self.refresh.mul_f64(part).min(self.preset.deadline(own))
        } else {
            self.refresh
        };
        this_update.plus(refresh.mul_f64(0.75 + 0.25 * place))
    }

    /// When an answer becomes stale: the legal deadline of its own validity.
    #[must_use]
    pub fn stale_at(&self, this_update: UnixTime, next_update: UnixTime) -> UnixTime {
        this_update.plus(self.preset.deadline(self.own(this_update, next_update)))
    }

    /// An answer's own validity: V, or less when it was cut short. One made under another V counts as of
    /// this one.
    fn own(&self, this_update: UnixTime, next_update: UnixTime) -> Duration {
        UnixTime(next_update.0.saturating_add(1)).since(this_update).min(self.validity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: UnixTime = UnixTime(1_795_315_054);

    /// B3, B4.
    #[test]
    fn the_legal_deadline_follows_the_preset() {
        assert_eq!(Preset::WebPki.deadline(7 * DAY), 4 * DAY);
        assert_eq!(Preset::WebPki.deadline(3 * DAY), 64 * HOUR);
        assert_eq!(Preset::WebPki.deadline(16 * HOUR), 8 * HOUR);
        assert_eq!(Preset::WebPki.deadline(8 * HOUR), 4 * HOUR);
        assert_eq!(Preset::Microsoft.deadline(7 * DAY), 84 * HOUR);
        assert_eq!(Preset::Private.deadline(7 * DAY), 7 * DAY);
    }

    /// B10: twelve months at the most, and no cache keeps the old answer past a day.
    #[test]
    fn the_answers_about_a_subordinate_ca_last_a_year_at_the_most() {
        assert!(Freshness::new(Preset::SubCa, 365 * DAY, 90 * DAY).is_ok());
        let refusal = |validity, refresh| Freshness::new(Preset::SubCa, validity, refresh).unwrap_err();
        assert!(refusal(366 * DAY, DAY).to_string().contains("subordinate CAs"));
        assert!(refusal(7 * HOUR, HOUR).to_string().contains("outside 8h"));
        assert!(matches!(refusal(30 * DAY, 30 * DAY), FreshnessError::Refresh { .. }));
        assert!(Preset::SubCa.longest_age().unwrap() <= DAY && !Preset::SubCa.allows_hold());
    }

    /// B2, B3, B4: what breaks a rule is refused with the rule named.
    #[test]
    fn a_schedule_that_breaks_the_preset_is_refused() {
        assert!(Freshness::new(Preset::WebPki, 7 * DAY, 84 * HOUR).is_ok());
        let refusal =
            |preset, validity, refresh| Freshness::new(preset, validity, refresh).unwrap_err().to_string();
        assert!(refusal(Preset::WebPki, 11 * DAY, DAY).contains("10days (Baseline Requirements 4.9.9)"));
        assert!(refusal(Preset::WebPki, 7 * HOUR, HOUR).contains("outside 8h"));
        assert!(refusal(Preset::WebPki, 10 * DAY, 5 * DAY).contains("later than 4days"));
        assert!(refusal(Preset::Microsoft, 8 * DAY, DAY).contains("Microsoft"));
        assert!(refusal(Preset::Microsoft, 4 * DAY, 50 * HOUR).contains("later than 2days"));
        assert!(refusal(Preset::Private, DAY, DAY).contains("later than 1day"));
        assert!(refusal(Preset::Private, DAY, Duration::ZERO).contains("too short"));
    }

    /// B2: one second less, since both ends belong to the validity.
    #[test]
    fn next_update_counts_the_validity_inclusively() {
        let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 84 * HOUR).unwrap();
        assert_eq!(freshness.next_update(T, UnixTime::MAX).0 - T.0, 7 * 86_400 - 1);
    }

    /// B5.
    #[test]
    fn next_update_never_outlives_the_responder_certificate() {
        let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 84 * HOUR).unwrap();
        let ends = T.plus(2 * DAY);
        assert_eq!(freshness.next_update(T, ends), ends);
        let due = freshness.due_at(T, ends, &"01".parse().unwrap());
        assert!(due < T.plus(DAY) && due > T.plus(17 * HOUR), "{due}");
        assert!(freshness.stale_at(T, ends) < ends);
    }

    proptest! {
        #[test]
        fn an_answer_is_due_within_its_spread_and_before_it_is_stale(serial in proptest::collection::vec(any::<u8>(), 1..=20)) {
            let serial = Serial::from_der_content(&serial).unwrap();
            for preset in Preset::ALL {
                let freshness = Freshness::new(preset, 7 * DAY, 84 * HOUR).unwrap();
                let next_update = freshness.next_update(T, UnixTime::MAX);
                let due = freshness.due_at(T, next_update, &serial);
                prop_assert!(due >= T.plus(63 * HOUR) && due <= T.plus(84 * HOUR));
                prop_assert!(due <= freshness.stale_at(T, next_update));
            }
        }
    }

    proptest! {
        /// B3, B4, B5: the rules count from the answer's own validity, however short the responder
        /// certificate made it.
        #[test]
        fn an_answer_cut_short_is_due_by_the_deadline_of_its_own_validity(
            left in 120u64..8 * 86_400,
            serial in proptest::collection::vec(any::<u8>(), 1..=20),
        ) {
            let serial = Serial::from_der_content(&serial).unwrap();
            for (preset, refresh) in
                [(Preset::WebPki, 96), (Preset::Microsoft, 84), (Preset::SubCa, 160), (Preset::Private, 160)]
            {
                let freshness = Freshness::new(preset, 7 * DAY, refresh * HOUR).unwrap();
                let next_update = freshness.next_update(T, T.plus(Duration::from_secs(left)));
                let own = Duration::from_secs((next_update.0 - T.0 + 1).unsigned_abs());
                let due = freshness.due_at(T, next_update, &serial).since(T);
                prop_assert!(due <= preset.deadline(own) && own <= 7 * DAY, "{preset}: {due:?} of {own:?}");
                prop_assert_eq!(freshness.stale_at(T, next_update), T.plus(preset.deadline(own)));
                prop_assert!(due >= own / 4 || preset == Preset::Private, "{preset}: {due:?} of {own:?}");
            }
        }
    }

    #[test]
    fn a_fleet_signed_at_one_instant_comes_due_evenly() {
        let freshness = Freshness::new(Preset::WebPki, 7 * DAY, 84 * HOUR).unwrap();
        let next_update = freshness.next_update(T, UnixTime::MAX);
        let mut hours = [0u32; 21];
        for number in 0u32..21_000 {
            let serial = Serial::from_unsigned(&number.to_be_bytes()).unwrap();
            let span = freshness.due_at(T, next_update, &serial).since(T.plus(63 * HOUR));
            hours[(span.as_secs() / 3_600).min(20) as usize] += 1;
        }
        assert!(hours.iter().all(|count| (850..=1150).contains(count)), "{hours:?}");
    }
}
