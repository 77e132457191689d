//! What the endpoint costs beside bare hyper and nginx: the same requests, as many octets, in one run.
//!
//! `cargo bench --bench http_endpoint` starts each server on a thread (nginx: a worker) of its own and
//! asks it, half GET half POST. What counts is the CPU time of the server's thread a request and the
//! ratio in one run: wall time on loopback is mostly the kernel's, and the machine may be shared. Each
//! repetition asks every server, the next in reverse order; medians are printed.
//!
//! - P1: 64 keep-alive connections, 5,000 certificates of 10,000; then 1,000 and 10,000 connections, and a
//!   connection for each request.
//! - P2: fleets of 10,000 to `HTTP_CERTIFICATES` (1,000,000 by default), each asked about up to 200,000
//!   certificates all over it; the time of an answer at 5,000 requests a second. Charts go to
//!   `docs/performance/`.
//! - P12: 10,000 idle connections, or as many as the limit on open files allows (`ulimit -n 20200`; both
//!   ends are in this process).
//!
//! For a generator of its own (wrk) or a profiler, `BENCH_SERVE=goodstanding|bare|padded cargo bench --bench
//! http_endpoint` serves until it is killed, and prints where; `BENCH_ONLY=p1|p2|p12` measures one part.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement that cannot go on has only panics"
)]
#![expect(clippy::cast_precision_loss, reason = "printed figures")]

#[path = "support/answers.rs"]
mod answers;
#[path = "support/chart.rs"]
mod chart;
#[path = "support/clients.rs"]
mod clients;
#[path = "support/figures.rs"]
mod figures;
#[path = "support/http.rs"]
mod http;
#[path = "support/pki.rs"]
mod pki;

use std::sync::Arc;
use std::time::Duration;

use answers::Fleet;
use clients::{ASKED, CONNECTIONS, Clients, Requests};
use goodstanding::ocsp::{Issuer, SignatureAlgorithm};
use http::Server;

/// Certificates of the fleet that others are held against.
const SMALL: u64 = 10_000;
/// Different certificates that a large fleet is asked about.
const SPREAD: u64 = 200_000;
/// Requests a second at which answers are timed.
const RATE: f64 = 5_000.0;

type Running = (Server, Clients);

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// CPU microseconds that a server's thread takes for each of so many requests.
fn micros(server: &Server, requests: usize, work: impl FnOnce()) -> f64 {
    let before = server.cpu_nanos();
    work();
    (server.cpu_nanos() - before) as f64 / 1e3 / requests as f64
}

/// Measures every server in turn, the next time in reverse; a median each.
fn by_turns(
    running: &mut [Running],
    repetitions: usize,
    mut one: impl FnMut(&mut Running) -> f64,
) -> Vec<f64> {
    let mut samples = vec![Vec::new(); running.len()];
    for repetition in 0..repetitions {
        let mut order: Vec<usize> = (0..running.len()).collect();
        if repetition % 2 == 1 {
            order.reverse();
        }
        for at in order {
            samples[at].push(one(&mut running[at]));
        }
    }
    samples.into_iter().map(median).collect()
}

fn rounds(running: &mut [Running], repetitions: usize, rounds: usize) -> Vec<f64> {
    by_turns(running, repetitions, |(server, clients)| {
        let requests = rounds * clients.count();
        micros(server, requests, || (0..rounds).for_each(|_| clients.round()))
    })
}

fn note_ratios(goal: &str, what: &str, running: &[Running], medians: &[f64]) {
    for ((server, _), median) in running.iter().zip(medians) {
        let what = format!("CPU µs a request, {what}, {}", server.name());
        figures::note(goal, &what, &format!("{median:.2} (goodstanding ÷ this {:.3})", medians[0] / median));
    }
}

/// Ours and the yardsticks, each with so many clients.
fn servers(fleet: &Fleet, issuer: &Arc<Issuer>, requests: &Requests) -> [Running; 4] {
    let ours = Server::goodstanding("srv-goodstanding", fleet, issuer);
    let ours_clients = Clients::connect(ours.address(), requests, false);
    let (response, body) = (ours_clients.response, ours_clients.body);
    let bare = Server::bare("srv-bare", body, true);
    let bare_clients = Clients::connect(bare.address(), requests, false);
    // As many octets without the headers: what five constant headers cost is not ours.
    let short = Clients::connect(Server::bare("srv-short", body, false).address(), requests, false);
    let padded = Server::bare("srv-padded", body + response - short.response, false);
    let padded_clients = Clients::connect(padded.address(), requests, false);
    let nginx = Server::nginx(body);
    let nginx_clients = Clients::connect(nginx.address(), requests, true);
    assert!(bare_clients.response.abs_diff(response) <= 8, "{} octets, {response}", bare_clients.response);
    assert!(padded_clients.response.abs_diff(response) <= 8);
    println!("{response} octets a response, {body} of them OCSP");
    [(ours, ours_clients), (bare, bare_clients), (padded, padded_clients), (nginx, nginx_clients)]
}

/// P1: what a request costs.
fn cost(fleet: &Fleet, issuer: &Arc<Issuer>) {
    let requests = clients::requests(issuer, 0..ASKED);
    let mut running = servers(fleet, issuer, &requests);
    if let Ok(wanted) = std::env::var("BENCH_SERVE") {
        let found = running.iter().find(|(server, _)| server.name() == wanted);
        println!("{wanted} {}", found.expect("BENCH_SERVE names a server").0.address());
        loop {
            std::thread::park();
        }
    }
    let smoke = figures::is_smoke();
    let (repetitions, count) = if smoke { (1, 3) } else { (9, 1_000) };
    let medians = rounds(&mut running, repetitions, count);
    note_ratios("P1", &format!("{CONNECTIONS} connections"), &running, &medians);

    let (repetitions, count) = if smoke { (1, 3) } else { (5, 1_500) };
    let fresh = by_turns(&mut running, repetitions, |(server, clients)| {
        micros(server, count, || clients.fresh(count))
    });
    note_ratios("P1", "a connection each", &running, &fresh);

    for many in if smoke { vec![100] } else { vec![1_000, sockets(10_000)] } {
        // nginx closes idle connections of others to make room, and has fewer to begin with.
        let medians = by_turns(&mut running[..3], repetitions.min(3), |(server, clients)| {
            // One server at a time: both ends of a connection are this process's.
            let mut clients = Clients::many(server.address(), &requests, clients.is_get_only(), many);
            clients.round();
            let count = if smoke { 1 } else { 50_000 / many };
            micros(server, count * many, || (0..count).for_each(|_| clients.round()))
        });
        note_ratios("P1", &format!("{many} connections"), &running[..3], &medians);
    }
}

/// P2: what the size of the fleet changes; and how long an answer takes.
fn growth(small: &Fleet, issuer: &Arc<Issuer>) {
    let smoke = figures::is_smoke();
    let certificates = std::env::var("HTTP_CERTIFICATES").ok().and_then(|count| count.parse().ok());
    let certificates = certificates.unwrap_or(if smoke { 20_000 } else { 1_000_000 }).max(SMALL);
    let sizes = std::iter::successors(Some(SMALL * 10), |size| Some(size * 10));
    let sizes: Vec<u64> = sizes.take_while(|size| *size < certificates).chain([certificates]).collect();
    let fleets: Vec<(u64, Fleet)> = sizes
        .into_iter()
        .map(|size| {
            let fleet = Fleet::of(issuer, SignatureAlgorithm::EcdsaP256Sha256);
            (0..size).for_each(|number| fleet.put(number));
            (size, fleet)
        })
        .collect();
    // A prime step visits certificates all over the fleet.
    let spread = |certificates: u64| {
        let asked = (0..SPREAD.min(certificates)).map(move |turn| turn * 7_919 % certificates);
        clients::requests(issuer, asked)
    };
    let start = |fleet, certificates| {
        let server = Server::goodstanding("srv-fleet", fleet, issuer);
        let clients = Clients::connect(server.address(), &spread(certificates), false);
        (server, clients)
    };
    let mut running = vec![start(small, SMALL)];
    running.extend(fleets.iter().map(|(size, fleet)| start(fleet, *size)));
    let bare = Server::bare("srv-bare", 1_100, true);
    let clients = Clients::connect(bare.address(), &spread(SMALL), false);
    running.push((bare, clients));
    let sizes: Vec<u64> = std::iter::once(SMALL).chain(fleets.iter().map(|(size, _)| *size)).collect();
    let largest = sizes.len() - 1;
    // The last is bare hyper's.
    let points = |medians: &[f64]| -> Vec<(f64, f64)> {
        sizes.iter().zip(medians).map(|(size, median)| (*size as f64, *median)).collect()
    };

    let (repetitions, count) = if smoke { (1, 3) } else { (9, 1_000) };
    let medians = rounds(&mut running, repetitions, count);
    let what = format!("CPU µs a request, {certificates} certificates beside {SMALL}");
    let ratio = medians[largest] / medians[0];
    figures::note("P2", &what, &format!("{:.2} and {:.2} (ratio {ratio:.3})", medians[largest], medians[0]));
    chart::draw("request", "A request, µs of CPU", &[("goodstanding", points(&medians))]);

    let (repetitions, span) = if smoke { (1, 0.2) } else { (5, 3.0) };
    let mut series = Vec::new();
    for (percent, name) in [(50, "median"), (99, "p99")] {
        let mut at = |(_, clients): &mut Running| {
            let taken = clients.by_the_clock(RATE, Duration::from_secs_f64(span));
            taken[(taken.len() * percent / 100).min(taken.len() - 1)] * 1e3
        };
        let of = by_turns(&mut running, repetitions, &mut at);
        let value = format!(
            "{:.2} ms; {:.2} at {SMALL} certificates (ratio {:.2}); bare hyper {:.2}",
            of[largest],
            of[0],
            of[largest] / of[0],
            of[sizes.len()]
        );
        let goal = if name == "p99" { "P2" } else { "P1" };
        figures::note(goal, &format!("{name} at {RATE}/s, {certificates} certificates"), &value);
        series.push((name, points(&of)));
    }
    chart::draw("latency", "An answer at 5,000 requests a second, ms", &series);
}

/// How many connections this process may have, both ends of them, up to `wanted`.
fn sockets(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    wanted.min((files.unwrap_or(1_024) - 700) / 2)
}

/// Octets of memory that this process has.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells VmRSS");
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1024.0
}

/// P12: what connections cost that wait.
fn idle(fleet: &Fleet, issuer: &Arc<Issuer>) {
    let requests = clients::requests(issuer, 0..ASKED);
    let count = if figures::is_smoke() { 100 } else { sockets(10_000) };
    let ours = Server::goodstanding("srv-idle", fleet, issuer);
    let bare = Server::bare("srv-bare-idle", 1_100, true);
    for server in [&ours, &bare] {
        let mut warm = Clients::connect(server.address(), &requests, false);
        (0..10).for_each(|_| warm.round());
    }
    let each = |before: f64| format!("{:.2} KB each", (resident() - before) / 1e3 / count as f64);
    for server in [&ours, &bare] {
        let before = resident();
        let mut clients = Clients::many(server.address(), &requests, false, count);
        // Every one is answered: none is refused.
        clients.round();
        figures::note("P12", &format!("{count} idle connections, {}", server.name()), &each(before));
        if server.name() == "idle" {
            clients.round_of_heads();
            clients.round();
            figures::note("P12", &format!("{count} idle connections that sent HEAD, idle"), &each(before));
        }
    }
}

fn main() {
    let issuer = Arc::new(pki::Ca::new().issuer);
    let fleet = Fleet::of(&issuer, SignatureAlgorithm::EcdsaP256Sha256);
    (0..SMALL).for_each(|number| fleet.put(number));
    let only = std::env::var("BENCH_ONLY").ok();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("p12") {
        idle(&fleet, &issuer);
    }
    if wanted("p1") {
        cost(&fleet, &issuer);
    }
    if wanted("p2") {
        growth(&fleet, &issuer);
    }
}
