//! What the capacity guard tells the limiter.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::times;
use crate::clock::UnixTime;

/// How the guard sees the signing of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardState {
    /// Everything fits.
    Green,
    /// A lever is in use.
    Amber,
    /// New issuance is throttled, or an answer is near its deadline.
    Red,
    /// The guard has no measurements: the last multiplier runs out.
    Blind,
}

/// The guard's multiplier, with its reasons, as of one moment. Travels through a watch channel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pressure {
    /// m, from 0 (no new issuance) to 1 (the nominal limits).
    pub multiplier: f64,
    /// The guard's state.
    pub state: GuardState,
    /// New certificates a day that are asked for, accepted or refused, as the guard smooths it (ī of F9): m of
    /// these are let through. None where the guard does not know.
    pub offered_per_day: Option<f64>,
    /// Why the multiplier is what it is, as a clause that a customer may read: no blame in it.
    #[serde(serialize_with = "times::text")]
    pub reason: Arc<str>,
    /// U: demand over usable capacity, 1 for a fleet that just fits.
    pub utilisation: Option<f64>,
    /// What the guard foresees, as a clause.
    #[serde(serialize_with = "times::optional_text")]
    pub forecast: Option<Arc<str>>,
    /// When the multiplier is expected to be 1 again.
    #[serde(serialize_with = "times::optional_time")]
    pub eases_at: Option<UnixTime>,
    /// How long this holds; none for ever.
    #[serde(skip)]
    pub lease: Option<Lease>,
}

/// How long a pressure holds when nothing newer comes: the guard is blind then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lease {
    /// When the pressure was published.
    pub published_at: UnixTime,
    /// The span of the lease; 10 minutes unless set.
    pub lasts: Duration,
    /// What the multiplier falls to when the lease has run out; 0.25 unless set.
    pub safe_multiplier: f64,
}

impl Pressure {
    /// No guard: the nominal limits, for ever.
    #[must_use]
    pub fn none() -> Self {
        Self {
            multiplier: 1.0,
            state: GuardState::Green,
            offered_per_day: None,
            reason: "signing capacity does not limit issuance".into(),
            utilisation: None,
            forecast: None,
            eases_at: None,
            lease: None,
        }
    }

    /// The multiplier in force at `now`, from 0 to 1.
    ///
    /// Through the first half of the lease it is the published one, so that a guard that publishes in
    /// time never moves a limit by waiting; through the second half it falls in a line to the safe
    /// one. A multiplier below the safe one stays: a guard that went blind never opens.
    #[must_use]
    pub fn multiplier_at(&self, now: UnixTime) -> f64 {
        // NaN is the guard's fault and must not open or shut anything.
        let m = if self.multiplier.is_nan() { 1.0 } else { self.multiplier.clamp(0.0, 1.0) };
        let Some(lease) = self.lease else { return m };
        if m <= lease.safe_multiplier {
            return m;
        }
        let half = lease.lasts.as_secs_f64() / 2.0;
        let past = now.since(lease.published_at).as_secs_f64() - half;
        if past <= 0.0 {
            m
        } else if past >= half {
            lease.safe_multiplier
        } else {
            m - (m - lease.safe_multiplier) * past / half
        }
    }

    /// How many new certificates are let through in a period, at least one; none where nothing presses, or
    /// the guard does not know how many are asked for. `self` is as of now ([`Pressure::at`]).
    #[must_use]
    pub fn lets_through(&self, period: Duration) -> Option<u64> {
        let offered = self.offered_per_day.filter(|offered| offered.is_finite() && self.multiplier < 1.0)?;
        let days = period.as_secs_f64() / 86_400.0;
        Some(((self.multiplier.max(0.0) * offered * days).floor() as u64).max(1))
    }

    /// This pressure as of `now`: the multiplier in force, and [`GuardState::Blind`] once it runs out.
    #[must_use]
    pub fn at(&self, now: UnixTime) -> Self {
        let multiplier = self.multiplier_at(now);
        let mut pressure = self.clone();
        if let Some(lease) = self.lease.filter(|lease| now.since(lease.published_at) * 2 > lease.lasts) {
            pressure.state = GuardState::Blind;
            pressure.reason = format!(
                "the measurements of signing capacity are older than {}",
                humantime::format_duration(lease.lasts / 2)
            )
            .into();
            pressure.forecast = None;
            pressure.eases_at = None;
        }
        pressure.multiplier = multiplier;
        pressure
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased(multiplier: f64) -> Pressure {
        let lease =
            Lease { published_at: UnixTime(1_000), lasts: Duration::from_secs(600), safe_multiplier: 0.25 };
        Pressure { multiplier, lease: Some(lease), ..Pressure::none() }
    }

    #[test]
    fn a_lease_holds_for_half_its_span_then_falls_to_the_safe_multiplier() {
        let pressure = leased(1.0);
        for (now, m) in [(0, 1.0), (1_000, 1.0), (1_300, 1.0), (1_450, 0.625), (1_600, 0.25), (9_999, 0.25)] {
            assert_eq!(pressure.multiplier_at(UnixTime(now)), m, "{now}");
        }
        assert_eq!(pressure.at(UnixTime(1_300)).state, GuardState::Green);
        assert_eq!(pressure.at(UnixTime(1_301)).state, GuardState::Blind);
    }

    #[test]
    fn a_blind_guard_neither_opens_nor_shuts() {
        assert_eq!(leased(0.1).multiplier_at(UnixTime(9_999)), 0.1);
        assert_eq!(leased(0.0).multiplier_at(UnixTime(9_999)), 0.0);
        assert_eq!(leased(f64::NAN).multiplier_at(UnixTime(1_000)), 1.0);
        assert_eq!(leased(7.0).multiplier_at(UnixTime(1_000)), 1.0);
    }
}
