//! A scenario run in virtual time: the very guard that runs live, over a fluid model of the engine.

use std::time::Duration;

use serde::Serialize;

use super::answers::Answers;
use super::fleet::DayTurn;
use super::guard::{Guard, Reading, TokenReading};
use super::model::Model;
use super::report::{Report, State};
use super::scenario::{Change, Scenario};
use crate::clock::UnixTime;

/// Everything moves on once in a quarter of an hour.
const STEP: Duration = Duration::from_secs(900);
const STEPS_A_DAY: u32 = 96;
/// The guard looks once an hour, and that is a sample of the result.
const STEPS_A_LOOK: u32 = 4;

/// A moment of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Days from the beginning.
    pub day: f64,
    /// Unexpired certificates.
    pub fleet: f64,
    /// N_max with the pack in use.
    pub largest_fleet: f64,
    /// Signatures a second asked for.
    pub demand_per_second: f64,
    /// C_bg.
    pub capacity_per_second: f64,
    /// What the tokens that were there could sign.
    pub serving_per_second: f64,
    /// m.
    pub multiplier: f64,
    /// New certificates a day asked for.
    pub offered_per_day: f64,
    /// Of these, refused.
    pub refused_per_day: f64,
    /// Answers past their legal deadline.
    pub stale: f64,
    /// Answers past nextUpdate.
    pub expired: f64,
    /// Certificates without a current answer: new ones, and revoked ones.
    pub waiting: f64,
    /// Certificates under one signature.
    pub pack: u64,
    /// The refresh interval planned with, in seconds.
    pub refresh_seconds: u64,
    /// Until the first answer is stale.
    pub time_to_stale_seconds: f64,
    /// The guard's word for it.
    pub state: State,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// New certificates asked for.
    pub offered: f64,
    /// Of these, refused.
    pub refused: f64,
    /// Renewals and replacements, none of which was refused.
    pub renewed: f64,
    /// The fleet at the end.
    pub fleet: f64,
    /// The largest fleet.
    pub largest_fleet: f64,
    /// The highest share of the capacity in use; none when there was none at all at some time.
    pub highest_utilisation: Option<f64>,
    /// The lowest m.
    pub least_multiplier: f64,
    /// m at the end.
    pub last_multiplier: f64,
    /// The first day on which new issuance was refused.
    pub first_refusal_day: Option<f64>,
    /// The largest pack.
    pub largest_pack: u64,
    /// The longest refresh interval planned with, in seconds.
    pub longest_refresh_seconds: u64,
    /// The most answers past their legal deadline at one time.
    pub most_stale: f64,
    /// The most answers past nextUpdate at one time.
    pub most_expired: f64,
    /// The hours during which an answer was stale.
    pub stale_hours: f64,
    /// The longest that a revocation, or a first answer, waited for the token.
    pub longest_wait_seconds: f64,
    /// The least time to the first stale answer; negative when one was.
    pub least_time_to_stale_seconds: f64,
    /// Signatures made.
    pub signatures: f64,
    /// The rate at which all tokens together would carry the largest fleet with one in hand, without a pack.
    pub rate_needed: f64,
    /// The same with the largest pack allowed.
    pub rate_needed_packed: f64,
}

/// A scenario that was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The scenario's title.
    pub title: String,
    /// What came of it.
    pub summary: Summary,
    /// Hour by hour.
    pub samples: Vec<Sample>,
}

/// A certificate revoked or issued anew, so many a step, for so many steps.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    each: f64,
    steps: u32,
}

impl Flow {
    fn over(total: f64, span: Duration) -> Self {
        let steps = (span.as_secs_f64() / STEP.as_secs_f64()).round().max(1.0);
        Self { each: total / steps, steps: steps as u32 }
    }

    fn next(&mut self) -> f64 {
        if self.steps == 0 {
            return 0.0;
        }
        self.steps -= 1;
        self.each
    }
}

struct Run {
    scenario: Scenario,
    guard: Guard,
    answers: Answers,
    /// Until which step each token is away.
    away_until: Vec<u32>,
    away_since: Vec<u32>,
    demand: f64,
    ramp: Flow,
    revocations: Vec<Flow>,
    reissues: Vec<Flow>,
    report: Report,
    day: DayTurn,
    waited: f64,
    /// New certificates asked for since the guard looked.
    asked: f64,
    summary: Summary,
}

/// Runs a scenario.
#[must_use]
pub fn run(scenario: Scenario) -> Outcome {
    let title = scenario.title.clone();
    let mut run = Run::new(scenario);
    let mut samples = Vec::new();
    for step in 0..run.scenario.days * STEPS_A_DAY {
        let sample = run.step(step);
        if step.is_multiple_of(STEPS_A_LOOK) {
            samples.push(sample);
        }
    }
    Outcome { title, summary: run.finish(), samples }
}

impl Run {
    fn new(mut scenario: Scenario) -> Self {
        // The guard looks once an hour; it is not to be blind in between.
        let lease = &mut scenario.settings.throttle.lease;
        *lease = (*lease).max(4 * STEPS_A_LOOK * STEP);
        let tokens = scenario.tokens.len();
        Self {
            guard: Guard::new(scenario.settings, scenario.terms, None),
            answers: Answers::steady(scenario.terms, STEP, scenario.fleet.total()),
            away_until: vec![0; tokens],
            away_since: vec![0; tokens],
            demand: scenario.new_per_day,
            ramp: Flow::default(),
            revocations: Vec::new(),
            reissues: Vec::new(),
            report: Report { multiplier: 1.0, pack: 1, ..Report::default() },
            day: DayTurn::default(),
            waited: 0.0,
            asked: 0.0,
            summary: Summary {
                least_multiplier: 1.0,
                least_time_to_stale_seconds: f64::INFINITY,
                ..Summary::default()
            },
            scenario,
        }
    }

    fn step(&mut self, step: u32) -> Sample {
        self.take_events(step);
        if step.is_multiple_of(STEPS_A_DAY) && step > 0 {
            self.day = self.scenario.fleet.next_day();
        }
        let share = 1.0 / f64::from(STEPS_A_DAY);
        self.demand += self.ramp.next();
        let multiplier = if self.scenario.guarded { self.report.multiplier } else { 1.0 };
        let offered = self.demand * share;
        let admitted = offered * multiplier;
        let revoked: f64 = self.revocations.iter_mut().map(Flow::next).sum();
        let reissued: f64 = self.reissues.iter_mut().map(Flow::next).sum();
        self.scenario.fleet.issue(admitted + reissued);
        self.answers.expire(self.day.expired * share);
        self.answers.issue(admitted + reissued + self.day.renewed * share);
        self.answers.revoke(revoked);

        let work = self.scenario.settings.work;
        let serving: f64 = (0..self.away_until.len())
            .filter(|token| self.away_until[*token] <= step)
            .map(|token| self.scenario.tokens[token].rate)
            .sum();
        let other = (admitted + reissued) * work.per_issuance;
        let room = ((serving - self.scenario.live).max(0.0) * STEP.as_secs_f64() - other).max(0.0);
        let (pack, refresh) = if self.scenario.guarded && step > 0 {
            (self.report.pack, Duration::from_secs(self.report.refresh_seconds))
        } else {
            (1, self.scenario.terms.refresh)
        };
        let signed = self.answers.sign(room, work.per_refresh, work.per_refresh / pack as f64, refresh);

        let left = |span: Duration| span.as_secs_f64() - signed.oldest;
        let to_stale = left(self.scenario.terms.deadline);
        self.asked += offered;
        if step.is_multiple_of(STEPS_A_LOOK) {
            let reading = Reading {
                now: UnixTime(i64::from(step + 1) * STEP.as_secs().cast_signed()),
                tokens: self.tokens(step),
                live_p99: self.scenario.live,
                offered: std::mem::take(&mut self.asked),
                time_to_stale: Some(to_stale as i64),
                time_to_expiry: Some(left(self.scenario.terms.validity) as i64),
                overdue: signed.overdue,
            };
            self.report = self.guard.read(&reading, &self.scenario.fleet);
        }

        let waiting = signed.first + signed.revoked;
        self.waited = if waiting > 1e-6 { self.waited + STEP.as_secs_f64() } else { 0.0 };
        let day = f64::from(step) / f64::from(STEPS_A_DAY);
        let refused = offered - admitted;
        let summary = &mut self.summary;
        summary.offered += offered;
        summary.refused += refused;
        summary.renewed += reissued + self.day.renewed * share;
        summary.largest_fleet = summary.largest_fleet.max(self.report.fleet);
        summary.highest_utilisation = match (self.report.utilisation, summary.highest_utilisation) {
            (Some(now), Some(before)) => Some(now.max(before)),
            (now, None) if step == 0 => now,
            _ => None,
        };
        summary.least_multiplier = summary.least_multiplier.min(multiplier);
        if refused > 0.0 && summary.first_refusal_day.is_none() {
            summary.first_refusal_day = Some(day);
        }
        summary.largest_pack = summary.largest_pack.max(pack);
        summary.longest_refresh_seconds = summary.longest_refresh_seconds.max(refresh.as_secs());
        summary.most_stale = summary.most_stale.max(signed.stale);
        summary.most_expired = summary.most_expired.max(signed.expired);
        summary.stale_hours += if signed.stale > 0.0 { STEP.as_secs_f64() / 3_600.0 } else { 0.0 };
        summary.longest_wait_seconds = summary.longest_wait_seconds.max(self.waited);
        summary.least_time_to_stale_seconds = summary.least_time_to_stale_seconds.min(to_stale);
        summary.signatures += signed.signatures;
        Sample {
            day,
            fleet: self.report.fleet,
            largest_fleet: self.report.largest_fleet,
            demand_per_second: self.report.demand_per_second,
            capacity_per_second: self.report.capacity_per_second,
            serving_per_second: serving,
            multiplier,
            offered_per_day: self.demand,
            refused_per_day: refused / share,
            stale: signed.stale,
            expired: signed.expired,
            waiting,
            pack,
            refresh_seconds: refresh.as_secs(),
            time_to_stale_seconds: to_stale,
            state: self.report.state,
        }
    }

    fn take_events(&mut self, step: u32) {
        let now = STEP * step;
        while self.scenario.events.first().is_some_and(|(at, _)| *at <= now) {
            match self.scenario.events.remove(0).1 {
                Change::NewPerDay(number, over) => self.ramp = Flow::over(number - self.demand, over),
                Change::Rate(token, rate) => self.scenario.tokens[token].rate = rate,
                Change::Outage(token, span) => {
                    let steps = Flow::over(0.0, span).steps;
                    for at in token.map_or(0..self.away_until.len(), |token| token..token + 1) {
                        self.away_since[at] = step;
                        self.away_until[at] = step + steps;
                    }
                }
                Change::Life(life) => self.scenario.fleet.switch_to(life),
                Change::Revoke { share, over, reissue_over } => {
                    let certificates = self.scenario.fleet.total() * share;
                    self.scenario.fleet.revoke(share);
                    self.revocations.push(Flow::over(certificates, over));
                    self.reissues.push(Flow::over(certificates, reissue_over));
                }
            }
        }
    }

    fn tokens(&self, step: u32) -> Vec<TokenReading> {
        let reading = |(at, token): (usize, &super::scenario::Token)| {
            let away = self.away_until[at] > step;
            TokenReading {
                name: token.name.clone(),
                rate: Some(token.rate),
                away: away.then(|| STEP * (step + 1 - self.away_since[at])),
            }
        };
        self.scenario.tokens.iter().enumerate().map(reading).collect()
    }

    fn finish(mut self) -> Summary {
        let settings = self.scenario.settings;
        self.summary.fleet = self.scenario.fleet.total();
        self.summary.last_multiplier = self.report.multiplier;
        let model = Model::new(self.scenario.terms, settings.work, settings.reserve, &[], self.scenario.live);
        let needed = |pack| model.rate_needed(self.summary.largest_fleet, pack, self.scenario.live);
        (self.summary.rate_needed, self.summary.rate_needed_packed) = (needed(1), needed(settings.pack_max));
        self.summary
    }
}

#[cfg(test)]
mod tests;
