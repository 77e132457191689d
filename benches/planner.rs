//! The planner at 10,000 to 10,000,000 certificates: adding, rescheduling, taking the next
//! due and planning it anew; microseconds of CPU each, and octets of memory a certificate. In random
//! order, so that each touches memory that no cache holds.
//!
//! `cargo bench --bench planner`; a chart goes to `docs/performance/`. Beside it, where it fits into memory, what it replaced: a binary heap
//! of due times and a map of certificates.
//!
//! Goals (P9): at 10,000,000 at most 0.5 µs each and 25 octets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics; its figures are printed"
)]

#[path = "support/chart.rs"]
mod chart;
#[path = "support/figures.rs"]
mod figures;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs;
use std::time::Duration;

use goodstanding::clock::UnixTime;
use goodstanding::ocsp::{Freshness, Preset};
use goodstanding::presign::planner::{Group, Plan, Planner};
use goodstanding::signer::Lane;
use goodstanding::store::{CertificateKey, Shard};

const DAY: Duration = Duration::from_secs(86_400);
const REFRESH: Duration = Duration::from_secs(84 * 3_600);
const NOW: UnixTime = UnixTime(1_795_315_054);

/// Operations measured at a time.
const OPERATIONS: u32 = 1_000_000;

/// A permutation of the numbers below `2^32`: neighbours come far apart.
const fn scattered(number: u32) -> u32 {
    let number = number.wrapping_mul(0x9e37_79b1);
    (number ^ number >> 15).wrapping_mul(0x85eb_ca77)
}

fn key(number: u32) -> CertificateKey {
    CertificateKey { shard: Shard((number % 256) as u8), row: i64::from(number / 256) + 1 }
}

/// When the answer was made, and when it is due, for a fleet in the middle of its life.
fn plan(number: u32, round: u32) -> Plan {
    let seconds = REFRESH.as_secs() as u32;
    let age = u64::from(scattered(number ^ round << 20) % seconds);
    let made = UnixTime(NOW.0 - age as i64 + i64::from(round) * 64);
    let span = u64::from(seconds) * 3 / 4 + u64::from(scattered(number) % (seconds / 4));
    Plan {
        group: Group(0),
        lane: Lane::Refresh,
        due: made.plus(Duration::from_secs(span)),
        answer: Some((made, made.plus(7 * DAY))),
    }
}

/// CPU seconds of this thread.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Resident octets.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0
}

fn timed(count: u32, work: impl FnOnce()) -> f64 {
    let before = cpu();
    work();
    (cpu() - before) * 1e6 / f64::from(count)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Microseconds to add, to reschedule and to take the next due.
fn measure(fleet: u32, rounds: u32) -> [f64; 3] {
    let before = resident();
    let mut planner = Planner::new(Planner::grain(REFRESH), NOW);
    planner.set_freshness(Group(0), Freshness::new(Preset::WebPki, 7 * DAY, REFRESH).unwrap());
    let add = timed(fleet, || (0..fleet).for_each(|number| planner.set(key(number), plan(number, 0), NOW)));
    let memory = (resident() - before) / f64::from(fleet);
    assert_eq!(planner.planned(), fleet as usize);

    let count = OPERATIONS.min(fleet);
    let (mut reschedule, mut next) = (Vec::new(), Vec::new());
    let mut now = NOW;
    for round in 1..=rounds {
        reschedule.push(timed(count, || {
            for at in 0..count {
                let number = scattered(at.wrapping_add(round << 24)) % fleet;
                planner.set(key(number), plan(number, round), now);
            }
        }));
        next.push(timed(count, || {
            for at in 0..count {
                let taken = loop {
                    if let Some(taken) = planner.take(Lane::Refresh, |_| false) {
                        break taken;
                    }
                    now = now.plus(Duration::from_secs(1));
                    planner.advance(now);
                };
                let span =
                    Duration::from_secs(u64::from(REFRESH.as_secs() as u32 / 4 * 3 + scattered(at) % 75_000));
                let plan = Plan {
                    group: Group(0),
                    lane: Lane::Refresh,
                    due: now.plus(span),
                    answer: Some((now, now.plus(7 * DAY))),
                };
                assert!(planner.finish(Lane::Refresh, taken.key, plan, now));
            }
        }));
    }
    let after = (resident() - before) / f64::from(fleet);
    let outlook = timed(1, || assert_eq!(planner.outlook(now).planned, u64::from(fleet)));
    let anew = timed(fleet, || planner.reckon_anew(now, |plan| plan));
    println!(
        "{:<18} {fleet:>9} {add:>7.3} {:>11.3} {:>9.3} {memory:>7.1} {after:>7.1} {outlook:>8.0} {anew:>7.3}",
        "planner",
        median(reschedule.clone()),
        median(next.clone()),
    );
    let (reschedule, next) = (median(reschedule), median(next));
    figures::note(
        "P9",
        &format!("{fleet} certificates: add, reschedule, next due"),
        &format!("{add:.2}, {reschedule:.2}, {next:.2} µs CPU; {after:.1} octets each"),
    );
    [add, reschedule, next]
}

/// A heap and a map, as there were before.
fn measure_heap(fleet: u32, rounds: u32) {
    let before = resident();
    let mut heap: BinaryHeap<Reverse<(UnixTime, CertificateKey)>> = BinaryHeap::new();
    let mut due: HashMap<CertificateKey, UnixTime> = HashMap::new();
    let add = timed(fleet, || {
        for number in 0..fleet {
            let at = plan(number, 0).due;
            due.insert(key(number), at);
            heap.push(Reverse((at, key(number))));
        }
    });
    let memory = (resident() - before) / f64::from(fleet);
    let count = OPERATIONS.min(fleet);
    let (mut reschedule, mut next) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        reschedule.push(timed(count, || {
            for at in 0..count {
                let number = scattered(at.wrapping_add(round << 24)) % fleet;
                let at = plan(number, round).due;
                due.insert(key(number), at);
                heap.push(Reverse((at, key(number))));
            }
        }));
        next.push(timed(count, || {
            for _ in 0..count {
                let key = loop {
                    let Reverse((at, key)) = heap.pop().unwrap();
                    if due[&key] == at {
                        break key;
                    }
                };
                let at = NOW.plus(REFRESH);
                due.insert(key, at);
                heap.push(Reverse((at, key)));
            }
        }));
    }
    let after = (resident() - before) / f64::from(fleet);
    println!(
        "{:<18} {fleet:>9} {add:>7.3} {:>11.3} {:>9.3} {memory:>7.1} {after:>7.1}",
        "heap and map",
        median(reschedule),
        median(next),
    );
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    println!(
        "{:<18} {:>9} {:>7} {:>11} {:>9} {:>7} {:>7} {:>8} {:>7}",
        "CPU us, octets", "fleet", "add", "reschedule", "next due", "memory", "after", "outlook", "anew"
    );
    // The largest first, while memory is fresh.
    let fleets: &[u32] = if smoke { &[10_000] } else { &[10_000_000, 1_000_000, 100_000, 10_000] };
    let mut series = ["add", "reschedule", "next due"].map(|name| (name, Vec::new()));
    for fleet in fleets {
        let costs = measure(*fleet, if smoke { 1 } else { 5 });
        for ((_, points), cost) in series.iter_mut().zip(costs) {
            points.push((f64::from(*fleet), cost));
        }
    }
    chart::draw("plan", "Planning, µs of CPU an operation", &series);
    if !smoke {
        measure_heap(1_000_000, 5);
    }
}
