//! The guard: what was measured in, pressure and levers out. It keeps no time and does no I/O.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fleet::Fleet;
use super::forecast::Forecast;
use super::ladder::{Levers, Standing};
use super::model::{Model, Reserve, Terms, Work};
use super::report::{Lever, Report, State, TokenReport};
use super::throttle::{self, Multiplier};
use crate::clock::UnixTime;

const DAY: f64 = 86_400.0;

/// How the guard reckons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// What is kept in hand.
    pub reserve: Reserve,
    /// What is signed for a certificate.
    pub work: Work,
    /// The largest pack allowed; 1 for none.
    pub pack_max: u64,
    /// How the multiplier moves.
    pub throttle: throttle::Settings,
    /// It only watches: what it finds moves no lever and presses on nobody.
    pub watch_only: bool,
    /// The time constant over which offered issuance is smoothed.
    pub smoothing: Duration,
}

/// A token as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenReading {
    /// Its configured name.
    pub name: String,
    /// Signatures a second that it sustains end to end, where known: measured while work waited, or by
    /// `hsm bench`. A token that is away keeps the last one.
    pub rate: Option<f64>,
    /// How long it has not been signing; none while it signs.
    pub away: Option<Duration>,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// When.
    pub now: UnixTime,
    /// Every token that signs for the fleet.
    pub tokens: Vec<TokenReading>,
    /// The 99th percentile of live answers a second over the last 7 days.
    pub live_p99: f64,
    /// New certificates asked for since the last reading, accepted or refused, renewals not counted. An
    /// order that a client repeats counts once.
    pub offered: f64,
    /// Seconds until the first answer is stale; negative when one is. None when nothing is signed yet.
    pub time_to_stale: Option<i64>,
    /// Seconds until the first answer expires.
    pub time_to_expiry: Option<i64>,
    /// Signatures that are past their planned time.
    pub overdue: f64,
}

/// What outlives a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// When it was written, in Unix seconds.
    pub at: i64,
    multiplier: Multiplier,
    levers: Levers,
    offered: Offered,
}

/// New certificates asked for, smoothed: older events fade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Offered {
    /// Events, each faded by its age.
    events: f64,
    /// For how long they have been counted, in seconds.
    watched: f64,
}

/// A first hour is not taken for the whole day's pace.
const LEAST_WATCHED: f64 = 3_600.0;

impl Offered {
    fn more(self, events: f64, since: Duration, constant: Duration) -> Self {
        let (since, constant) = (since.as_secs_f64(), constant.as_secs_f64().max(1.0));
        Self { events: self.events * (-since / constant).exp() + events, watched: self.watched + since }
    }

    /// ī: the pace a day, as if the time before the first look had been like the time since.
    fn a_day(self, constant: Duration) -> f64 {
        let constant = constant.as_secs_f64().max(1.0);
        let seen = 1.0 - (-self.watched.max(LEAST_WATCHED) / constant).exp();
        self.events / (constant * seen) * DAY
    }
}

/// The guard.
#[derive(Clone, Debug)]
pub struct Guard {
    settings: Settings,
    terms: Terms,
    memory: Option<Memory>,
}

impl Guard {
    /// A guard that remembers what it (or an earlier process) knew.
    #[must_use]
    pub fn new(settings: Settings, terms: Terms, memory: Option<Memory>) -> Self {
        Self { settings, terms, memory }
    }

    /// Puts other settings in force.
    pub fn replace(&mut self, settings: Settings, terms: Terms) {
        (self.settings, self.terms) = (settings, terms);
    }

    /// What is to be kept for the next start.
    #[must_use]
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_ref()
    }

    /// What stands while there is nothing to reckon with: the multiplier decays from where it was, the
    /// levers stay. `why` completes "the guard is blind: …".
    #[must_use]
    pub fn blind(&self, now: UnixTime, why: &str) -> Report {
        let throttle = &self.settings.throttle;
        let (value, levers) = match &self.memory {
            Some(memory) => {
                let age = now.since(UnixTime(memory.at));
                (throttle::blind(memory.multiplier.value, age, throttle), memory.levers)
            }
            None => (throttle.safe, Levers::none(&self.terms)),
        };
        Report {
            at: now,
            lease_until: now.plus(throttle.lease),
            state: State::Blind,
            watch_only: self.settings.watch_only,
            lever: lever(value, &levers),
            reason: format!("the guard is blind: {why}"),
            multiplier: value,
            refresh_seconds: levers.refresh.as_secs(),
            pack: levers.pack,
            pack_max: self.settings.pack_max,
            offered_per_day: self
                .memory
                .as_ref()
                .map_or(0.0, |memory| memory.offered.a_day(self.settings.smoothing)),
            ..Report::default()
        }
    }

    /// Reckons with a reading and the fleet as it is.
    pub fn read(&mut self, reading: &Reading, fleet: &Fleet) -> Report {
        let known: Vec<&TokenReading> = reading.tokens.iter().filter(|token| token.rate.is_some()).collect();
        if known.is_empty() && fleet.total() > 0.0 {
            return self.blind(
                reading.now,
                "no rate of any token is known yet; sign something, or run `goodstanding hsm bench`",
            );
        }
        let Settings { reserve, work, throttle, .. } = self.settings;
        // A token that has been away for longer than the outage planned for is lost, not away.
        let there = |token: &&&TokenReading| token.away.is_none_or(|away| away <= reserve.outage);
        let rates: Vec<f64> = known.iter().filter(there).filter_map(|token| token.rate).collect();
        let serving: f64 =
            known.iter().filter(|token| token.away.is_none()).filter_map(|token| token.rate).sum();
        let model = Model::new(self.terms, work, reserve, &rates, reading.live_p99);
        let forecast = Forecast::of(fleet);

        let (since, mut multiplier, levers, offered) = match &self.memory {
            Some(memory) => {
                let since = reading.now.since(UnixTime(memory.at));
                let mut multiplier = memory.multiplier;
                if since > throttle.lease {
                    // It was blind, and climbs from where that led.
                    multiplier = Multiplier::at(throttle::blind(multiplier.value, since, &throttle));
                }
                (since, multiplier, memory.levers, memory.offered)
            }
            None => (Duration::ZERO, Multiplier::at(1.0), Levers::none(&self.terms), Offered::default()),
        };
        let smoothed = offered.more(reading.offered, since, self.settings.smoothing);
        let offered = smoothed.a_day(self.settings.smoothing);

        let budget = forecast.budget(model.largest_fleet(self.settings.pack_max));
        let by_forecast = throttle::by_forecast(budget.a_day, offered, &throttle);
        let projected = reading.time_to_stale.map(|left| {
            let asked = model.demand(fleet.total(), levers.pack);
            left as f64
                - falls_behind(serving - reading.live_p99, asked) * self.terms.slack().as_secs_f64() / 4.0
        });
        let (amber, red) = (self.terms.amber().as_secs_f64(), self.terms.red().as_secs_f64());
        let by_backlog = projected.map_or(1.0, |left| throttle::by_backlog(left, amber, red));
        multiplier.follow(by_forecast.min(by_backlog), since.min(throttle.lease), &throttle);

        let admitted = offered * multiplier.value;
        let soon = (self.terms.refresh.as_secs_f64() / DAY).ceil() as usize;
        let ahead = (0..=soon).map(|day| forecast.fleet(day, admitted)).fold(0.0, f64::max);
        let standing = Standing {
            now: reading.now.0,
            fleet: fleet.total(),
            ahead,
            serving: if serving > 0.0 { serving * reserve.headroom } else { 0.0 },
            pack_max: self.settings.pack_max,
        };
        let levers = levers.set(&model, &standing);
        self.memory = Some(Memory { at: reading.now.0, multiplier, levers, offered: smoothed });

        let (peak, peak_day) = forecast.peak(admitted);
        let mut report = Report {
            at: reading.now,
            watch_only: self.settings.watch_only,
            lease_until: reading.now.plus(throttle.lease),
            lever: lever(multiplier.value, &levers),
            multiplier: multiplier.value,
            allowed_by_forecast: by_forecast,
            allowed_by_backlog: by_backlog,
            fleet: fleet.total(),
            largest_fleet: model.largest_fleet(levers.pack),
            largest_fleet_packed: model.largest_fleet(self.settings.pack_max),
            utilisation: finite(model.utilisation(fleet.total(), levers.pack)),
            utilisation_limit: reserve.highest_utilisation(),
            demand_per_second: model.demand(fleet.total(), levers.pack),
            capacity_per_second: model.background,
            forecast_fleet: peak,
            forecast_day: peak_day,
            budget_per_day: budget.a_day,
            tightest_day: budget.tightest,
            offered_per_day: offered,
            refresh_seconds: levers.refresh.as_secs(),
            pack: levers.pack,
            pack_max: self.settings.pack_max,
            spare_per_second: (reserve.highest_utilisation() * model.background
                - model.demand(fleet.total(), levers.pack))
            .max(0.0),
            overdue_signatures: reading.overdue,
            time_to_stale_seconds: reading.time_to_stale,
            time_to_expiry_seconds: reading.time_to_expiry,
            tokens: reading.tokens.iter().map(TokenReport::from).collect(),
            ..Report::default()
        };
        let climb = multiplier.climbs().then(|| multiplier.time_to(by_forecast.min(by_backlog), &throttle));
        report.judge(&model, red, climb);
        report
    }
}

/// The highest lever in use.
fn lever(multiplier: f64, levers: &Levers) -> Lever {
    match levers {
        _ if multiplier < 1.0 => Lever::Throttle,
        levers if levers.pack > 1 => Lever::Pack,
        levers if levers.slack() => Lever::Slack,
        _ => Lever::None,
    }
}

/// The share of time by which the backlog grows: 0 when the work is done as it comes, 1 when nothing is.
fn falls_behind(done: f64, asked: f64) -> f64 {
    if asked > 0.0 { (1.0 - done.max(0.0) / asked).clamp(0.0, 1.0) } else { 0.0 }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests;
