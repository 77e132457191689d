//! The engine over weeks of virtual time, with a token that is a rate: the same code as in `serve`.
//!
//! What it is held to is the fluid bound of the design (CAPACITY, F5 and F6): work comes due at a steady
//! rate, each piece with its own slack before its legal deadline; served by deadline, the greatest
//! lateness is the least that any order could reach. Capacity and demand scale together, so most
//! scenarios run with 20,000 certificates; one runs with a million over ninety days, with a refresh
//! interval of a month, which keeps the signatures at four million.

use super::*;
use crate::ocsp::{Freshness, Preset};
use crate::presign::policies::Policy;
use crate::store::Shard;

const START: i64 = 1_795_315_054;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Capacity in signatures a second from a time on (seconds after the start).
type Capacity<'a> = &'a [(i64, f64)];

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

/// The rules of the public Web: deadline 96 h, refresh 84 h, so slack 12 h.
fn web() -> Freshness {
    Freshness::new(Preset::WebPki, seconds(7 * DAY), seconds(84 * HOUR)).unwrap()
}

struct World {
    engine: Engine,
    freshness: Freshness,
    /// thisUpdate of each certificate's answer, and whether it is revoked.
    fleet: Vec<(i64, bool)>,
    /// Seconds after the start, by a clock that is never set.
    clock: i64,
    /// What the wall clock shows beside it.
    offset: i64,
    step: i64,
    credit: f64,
    signed: u64,
    late: u64,
    lateness: i64,
    /// When the last due work was done.
    drained: i64,
    revocations_left: usize,
    last_revocation: i64,
}

impl World {
    /// A fleet in the middle of its life: each answer at a random point of its interval.
    fn new(fleet: u32, freshness: Freshness, step: i64) -> Self {
        let now = UnixTime(START);
        let mut world = Self {
            engine: Engine::new(Settings::default(), Arc::new(Policies::new(Policy::new(freshness))), now),
            freshness,
            fleet: Vec::new(),
            clock: 0,
            offset: 0,
            step,
            credit: 0.0,
            signed: 0,
            late: 0,
            lateness: 0,
            drained: 0,
            revocations_left: 0,
            last_revocation: 0,
        };
        for number in 0..fleet {
            let serial = serial(number);
            let age = serial.scatter(7) % 1_000_000;
            let span = freshness.due_at(now, freshness.next_update(now, UnixTime::MAX), &serial).since(now);
            world.fleet.push((START - (span.as_secs() * age / 1_000_000) as i64, false));
            let seen = world.seen(number);
            world.engine.note(&seen, now);
        }
        world
    }

    fn wall(&self) -> UnixTime {
        UnixTime(START + self.clock + self.offset)
    }

    fn seen(&self, number: u32) -> Seen {
        let (made, revoked) = self.fleet[number as usize];
        let made = UnixTime(made);
        Seen {
            key: CertificateKey { shard: Shard((number % 256) as u8), row: i64::from(number / 256) + 1 },
            issuer: IssuerId(1),
            serial: serial(number),
            revoked,
            answer: Some((made, self.freshness.next_update(made, UnixTime::MAX))),
            retired: false,
            not_before: None,
        }
    }

    fn stale_at(&self, number: u32) -> i64 {
        let made = UnixTime(self.fleet[number as usize].0);
        self.freshness.stale_at(made, self.freshness.next_update(made, UnixTime::MAX)).0
    }

    /// Signatures a second that the fleet needs on average.
    fn demand(&self) -> f64 {
        self.fleet.len() as f64 / (0.875 * self.freshness.refresh().as_secs_f64())
    }

    /// One step of time with a token of so many signatures a second; 0 is one that is away.
    fn pass(&mut self, rate: f64) {
        self.clock += self.step;
        let now = self.wall();
        self.engine.watch(now, seconds(self.clock));
        self.credit = (self.credit + rate * self.step as f64).min((2.0 * rate * self.step as f64).max(1.0));
        if rate == 0.0 {
            self.credit = 0.0;
            while let Some(job) = self.engine.take(now) {
                self.engine.finish(job.lane, job.key, Ended::Failed(Reach::Issuer, "the token is away"), now);
            }
            return;
        }
        while self.credit >= 1.0 {
            let Some(job) = self.engine.take(now) else {
                self.drained = self.clock;
                break;
            };
            self.credit -= 1.0;
            self.signed += 1;
            let number = (job.key.row as u32 - 1) * 256 + u32::from(job.key.shard.0);
            if job.lane == Lane::Revocation {
                self.revocations_left -= 1;
                self.last_revocation = self.clock;
            } else {
                let lateness = now.0 - self.stale_at(number);
                self.late += u64::from(lateness > 0);
                self.lateness = self.lateness.max(lateness);
            }
            self.fleet[number as usize].0 = now.0;
            let seen = self.seen(number);
            self.engine.finish(job.lane, job.key, Ended::Answered(&seen), now);
        }
    }

    fn run(&mut self, capacity: Capacity<'_>, until: i64) {
        while self.clock < until {
            self.pass(at(capacity, self.clock));
        }
    }

    fn revoke(&mut self, numbers: impl Iterator<Item = u32>) {
        let now = self.wall();
        for number in numbers {
            self.fleet[number as usize].1 = true;
            self.revocations_left += 1;
            let seen = Seen { answer: None, ..self.seen(number) };
            self.engine.note(&seen, now);
        }
    }

    /// Answers past their legal deadline, and answers from the future.
    fn wrong(&self) -> (usize, usize) {
        let now = self.wall().0;
        let numbers = 0..self.fleet.len() as u32;
        let stale = numbers.filter(|number| self.stale_at(*number) < now - self.step).count();
        (stale, self.fleet.iter().filter(|(made, _)| *made > now).count())
    }
}

fn serial(number: u32) -> Serial {
    Serial::from_unsigned(&[&[0x5a][..], &number.to_be_bytes()].concat()).unwrap()
}

fn at(capacity: Capacity<'_>, time: i64) -> f64 {
    capacity.iter().rev().find(|(from, _)| *from <= time).map_or(0.0, |(_, rate)| *rate)
}

/// The least lateness that any order of signing can reach, in seconds; negative when there is room. From
/// `from` on nothing waits, demand is steady, and every piece of it has a slack between D − R and
/// D − 0.75 R. `before` signatures have to be made before any of it.
fn fluid_bound(
    freshness: &Freshness,
    demand: f64,
    capacity: Capacity<'_>,
    before: f64,
    [from, until]: [i64; 2],
) -> f64 {
    let made = UnixTime(START);
    let legal =
        freshness.stale_at(made, freshness.next_update(made, UnixTime::MAX)).since(made).as_secs_f64();
    let refresh = freshness.refresh().as_secs_f64();
    let (least, spread) = (legal - refresh, 0.25 * refresh);
    // Work with its deadline in the first x seconds, and the x for so much work.
    let with_deadline = |x: f64| {
        let x = (x - least).max(0.0);
        demand * if x < spread { x * x / (2.0 * spread) } else { x - spread / 2.0 }
    };
    let by = |work: f64| {
        let (mut low, mut high) = (least, 400.0 * DAY as f64);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if with_deadline(middle) <= work { low = middle } else { high = middle }
        }
        low
    };
    let (mut done, mut come, mut bound) = (-before, 0.0, f64::NEG_INFINITY);
    let step = 300;
    for time in (from..until).step_by(300) {
        let passed = (time - from) as f64;
        if come > 0.0 {
            bound = f64::max(bound, passed - by(done.max(0.0)));
        }
        // Nothing is signed that has not come due.
        come = demand * (passed + step as f64);
        done = (done + at(capacity, time) * step as f64).min(come);
    }
    bound
}

fn assert_lateness(world: &World, bound: f64) {
    println!(
        "{} late of {}, by {} s at the most; bound {bound:.0} s",
        world.late, world.signed, world.lateness
    );
    if bound < -600.0 {
        assert_eq!((world.late, world.wrong()), (0, (0, 0)), "feasible: {bound:.0} s to spare");
    } else {
        let lateness = world.lateness as f64;
        assert!(bound > 0.0, "a scenario on the edge proves nothing: {bound:.0}");
        assert!(
            lateness >= bound * 0.95 && lateness <= bound * 1.05,
            "{lateness} s, the bound is {bound:.0} s"
        );
    }
}

#[test]
fn a_million_certificates_for_ninety_days_without_one_stale_answer() {
    // Slack one day, so that a day's outage is just not too much.
    let freshness = Freshness::new(Preset::Private, seconds(32 * DAY), seconds(30 * DAY)).unwrap();
    let mut world = World::new(1_000_000, freshness, HOUR / 2);
    let rate = world.demand() / 0.8;
    let capacity = [(0, rate), (20 * DAY, 0.0), (21 * DAY, rate)];
    world.run(&capacity, 90 * DAY);
    let bound = fluid_bound(&freshness, world.demand(), &capacity, 0.0, [20 * DAY, 30 * DAY]);
    assert_lateness(&world, bound);
    let needed = 90.0 * DAY as f64 * world.demand();
    let signed = world.signed as f64;
    assert!(signed > needed * 0.97 && signed < needed * 1.1, "{signed} signatures; {needed:.0} are needed");
}

#[test]
fn an_outage_is_as_late_as_the_bound_says_and_drains_as_fast() {
    for hours in [1, 6, 24] {
        let mut world = World::new(20_000, web(), 60);
        let demand = world.demand();
        let rate = demand / 0.6;
        let (from, until) = (2 * DAY, 2 * DAY + hours * HOUR);
        let capacity = [(0, rate), (from, 0.0), (until, rate)];
        // F5: the backlog is gone after λτ / (C − λ).
        let drain = demand * (hours * HOUR) as f64 / (rate - demand);
        world.run(&capacity, until + (drain * 0.9) as i64);
        assert!(world.drained <= from, "{hours} h: not drained before nine tenths of {drain:.0} s");
        world.run(&capacity, until + (drain * 1.1) as i64 + 120);
        assert!(world.drained > until, "{hours} h: drained within {drain:.0} s and a tenth");
        world.run(&capacity, 12 * DAY);
        let bound = fluid_bound(&web(), demand, &capacity, 0.0, [from, from + 5 * DAY]);
        assert_lateness(&world, bound);
        assert_eq!(world.wrong(), (0, 0), "all is well again");
    }
}

#[test]
fn one_of_two_tokens_is_lost() {
    // The other carries 1.25 of the demand; 0.83 of it; 0.53 of it, for a time in which nothing that is
    // signed late comes due again.
    for (both, span) in [(2.5, 7 * DAY), (1.667, 7 * DAY), (1.053, 60 * HOUR)] {
        let mut world = World::new(20_000, web(), 60);
        let rate = both * world.demand() / 2.0;
        let until = 2 * DAY + span;
        let capacity = [(0, 2.0 * rate), (2 * DAY, rate), (until, 2.0 * rate)];
        world.run(&capacity, until + 4 * DAY);
        let bound = fluid_bound(&web(), world.demand(), &capacity, 0.0, [2 * DAY, until + 2 * DAY]);
        // What is signed late comes due late: a fleet whose answers are replaced within D at least is
        // carried for ever, however late it is by its refresh interval.
        if world.fleet.len() as f64 / rate <= 96.0 * HOUR as f64 {
            assert_eq!((world.late, world.wrong()), (0, (0, 0)), "{both}: bound {bound:.0}");
        } else {
            assert!(bound > 0.0);
            assert_lateness(&world, bound);
        }
    }
}

#[test]
fn a_tenth_of_the_fleet_is_revoked_at_once() {
    for utilisation in [0.5, 0.92] {
        let mut world = World::new(20_000, web(), 60);
        let demand = world.demand();
        let rate = demand / utilisation;
        let capacity = [(0, rate)];
        world.run(&capacity, 2 * DAY);
        world.revoke((0..20_000).step_by(10));
        world.run(&capacity, 2 * DAY + (2_000.0 / rate * 1.05) as i64 + 60);
        assert_eq!(world.revocations_left, 0, "before all else");
        assert!(world.last_revocation - 2 * DAY >= (2_000.0 / rate * 0.95) as i64);
        world.run(&capacity, 12 * DAY);
        let bound = fluid_bound(&web(), demand, &capacity, 2_000.0, [2 * DAY, 12 * DAY]);
        // F6: M fits when M ≤ S·(C − λ), with the least slack of all.
        let fits = 2_000.0 <= 12.0 * HOUR as f64 * (rate - demand);
        assert!(!fits || bound < 0.0, "F6 never promises what the finer bound refuses");
        assert_lateness(&world, bound);
        assert_eq!(world.wrong(), (0, 0));
    }
}

#[test]
fn after_a_step_of_the_clock_no_answer_stays_stale_or_in_the_future() {
    for by in [HOUR, -HOUR, DAY, -DAY] {
        let mut world = World::new(20_000, web(), 60);
        let demand = world.demand();
        let capacity = [(0, demand / 0.5)];
        world.run(&capacity, DAY);
        world.offset = by;
        // Twice the backlog of as long an outage (F5) is ample.
        world.run(&capacity, 2 * DAY + 2 * by.abs());
        assert_eq!(world.wrong(), (0, 0), "{by}");
        // Set right again: what was signed meanwhile by a clock that was ahead is signed once more.
        world.offset = 0;
        world.pass(capacity[0].1);
        let (_, future) = world.wrong();
        assert_eq!(by > 0, future > 0, "{by}: {future}");
        let until = world.clock + 2 * DAY + 2 * by.abs();
        world.run(&capacity, until);
        assert_eq!(world.wrong(), (0, 0), "{by}");
        assert_eq!(world.engine.figures(world.wall()).clock_steps, 2);
        if by.abs() < DAY {
            assert_eq!(world.late, 0, "an hour is less than the slack");
        }
    }
}
