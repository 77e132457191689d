//! How capacity stands, as the API, the command line and the metrics tell it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guard::TokenReading;
use super::model::Model;
use crate::clock::UnixTime;

/// In one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No lever is in use.
    Green,
    /// A lever is in use.
    Amber,
    /// Answers are stale, or will be before long: new issuance is shut.
    Red,
    /// The guard has nothing to reckon with.
    #[default]
    Blind,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Green, Self::Amber, Self::Red, Self::Blind];

    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Amber => "amber",
            Self::Red => "red",
            Self::Blind => "blind",
        }
    }
}

/// The lever in use: the last one pulled on the ladder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lever {
    /// None.
    #[default]
    None,
    /// Refreshes are planned later than R.
    Slack,
    /// Several certificates share a signature.
    Pack,
    /// New issuance is limited.
    Throttle,
}

impl Lever {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Slack => "slack",
            Self::Pack => "pack",
            Self::Throttle => "throttle",
        }
    }
}

/// A token in a report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenReport {
    /// Its configured name.
    pub name: String,
    /// Signatures a second that it sustains, where known.
    pub rate: Option<f64>,
    /// How long it has not been signing; none while it signs.
    pub away_seconds: Option<u64>,
}

impl From<&TokenReading> for TokenReport {
    fn from(token: &TokenReading) -> Self {
        Self {
            name: token.name.clone(),
            rate: token.rate,
            away_seconds: token.away.map(|away| away.as_secs()),
        }
    }
}

/// How capacity stands. Rates are in signatures a second unless the name says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// In one word.
    pub state: State,
    /// The lever in use.
    pub lever: Lever,
    /// Why, for people.
    pub reason: String,
    /// When this was reckoned.
    #[serde(with = "rfc3339")]
    pub at: UnixTime,
    /// Until when it holds without a newer one.
    #[serde(with = "rfc3339")]
    pub lease_until: UnixTime,
    /// m: the share of new issuance that is allowed. Renewals always are.
    pub multiplier: f64,
    /// m_forecast.
    pub allowed_by_forecast: f64,
    /// m_backlog.
    pub allowed_by_backlog: f64,
    /// When it is expected to ease, where that can be said.
    #[serde(with = "optional_rfc3339")]
    pub eases_at: Option<UnixTime>,
    /// N(0): unexpired certificates, revoked ones included.
    pub fleet: f64,
    /// N_max with the pack in use.
    pub largest_fleet: f64,
    /// N_max with the largest pack allowed.
    pub largest_fleet_packed: f64,
    /// U; none when there is no capacity at all.
    pub utilisation: Option<f64>,
    /// U_max.
    pub utilisation_limit: f64,
    /// λ(0).
    pub demand_per_second: f64,
    /// C_bg.
    pub capacity_per_second: f64,
    /// The highest fleet within the longest lifetime, with what is admitted now.
    pub forecast_fleet: f64,
    /// In how many days that is.
    pub forecast_day: u32,
    /// i*: new certificates a day that fit.
    pub budget_per_day: f64,
    /// The day ahead that bounds i*.
    pub tightest_day: u32,
    /// ī: new certificates a day that are asked for.
    pub offered_per_day: f64,
    /// The refresh interval planned with.
    pub refresh_seconds: u64,
    /// Certificates under one signature.
    pub pack: u64,
    /// The most allowed.
    pub pack_max: u64,
    /// The rate left for re-signing some answers early.
    pub spare_per_second: f64,
    /// Signatures past their planned time.
    pub overdue_signatures: f64,
    /// Until the first answer is stale; negative when one is.
    pub time_to_stale_seconds: Option<i64>,
    /// Until the first answer expires.
    pub time_to_expiry_seconds: Option<i64>,
    /// The tokens.
    pub tokens: Vec<TokenReport>,
    /// The guard only watches: it moves no lever and presses on nobody.
    #[serde(default)]
    pub watch_only: bool,
}

impl Report {
    /// What is foreseen, as a clause.
    #[must_use]
    pub fn forecast(&self) -> String {
        format!(
            "{:.0} certificates are expected in {} days, {:.0} fit",
            self.forecast_fleet, self.forecast_day, self.largest_fleet_packed
        )
    }

    /// Fills in state, reason and when it eases. `red` is in seconds; `climb` is how long the multiplier
    /// takes to where it may go, while it climbs.
    pub(super) fn judge(&mut self, model: &Model, red: f64, climb: Option<Duration>) {
        let stale = self.time_to_stale_seconds.is_some_and(|left| (left as f64) < red.max(0.0));
        let percent = self.utilisation.map_or_else(
            || "no capacity at all".to_owned(),
            |share| {
                format!(
                    "{:.0} % of the HSM capacity in use (limit {:.0} %)",
                    share * 100.0,
                    self.utilisation_limit * 100.0
                )
            },
        );
        (self.state, self.reason) = match (self.lever, self.allowed_by_backlog <= self.allowed_by_forecast) {
            (Lever::None, _) => (State::Green, format!("{percent}, no lever in use")),
            (Lever::Slack, _) => (
                State::Amber,
                format!(
                    "{percent}: refreshes are planned every {} instead of every {}",
                    span(self.refresh_seconds),
                    span(model.terms.refresh.as_secs())
                ),
            ),
            (Lever::Pack, _) => {
                (State::Amber, format!("{percent}: {} certificates share a signature", self.pack))
            }
            (Lever::Throttle, _) if climb.is_some() => (
                State::Amber,
                format!(
                    "{percent}: new issuance opens again by the slope, {:.0} % of it is allowed",
                    self.multiplier * 100.0
                ),
            ),
            (Lever::Throttle, true) => (
                State::Amber,
                format!(
                    "{percent}: signing is behind, the first answer is stale in {}; {:.0} % of new issuance is allowed",
                    span(self.time_to_stale_seconds.unwrap_or(0).max(0).unsigned_abs()),
                    self.multiplier * 100.0
                ),
            ),
            (Lever::Throttle, false) => (
                State::Amber,
                format!(
                    "{percent}: {:.0} new certificates a day are asked for and {:.0} fit, bounded by the fleet in {} days; {:.0} % of new issuance is allowed",
                    self.offered_per_day,
                    self.budget_per_day,
                    self.tightest_day,
                    self.multiplier * 100.0
                ),
            ),
        };
        if stale || self.multiplier <= 0.0 {
            self.state = State::Red;
        }
        let drained =
            || model.drain(self.overdue_signatures, self.fleet, self.pack).map(|drain| self.at.plus(drain));
        self.eases_at = match (self.lever, climb) {
            (Lever::None, _) => None,
            (Lever::Throttle, Some(climb)) => Some(self.at.plus(climb)),
            (Lever::Throttle, None) if self.allowed_by_backlog >= self.allowed_by_forecast => {
                Some(self.at.plus(Duration::from_secs(86_400) * self.tightest_day))
            }
            _ => drained(),
        };
    }
}

/// A span to the minute, as people say it.
fn span(seconds: u64) -> String {
    let kept = if seconds < 60 { seconds } else { seconds - seconds % 60 };
    humantime::format_duration(Duration::from_secs(kept)).to_string()
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::clock::UnixTime;

    pub(super) fn serialize<S: Serializer>(time: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixTime, D::Error> {
        UnixTime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

mod optional_rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::clock::UnixTime;

    pub(super) fn serialize<S: Serializer>(
        time: &Option<UnixTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(time),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<UnixTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| UnixTime::parse_rfc3339(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
